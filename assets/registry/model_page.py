"""The page of a model version: everything that a reviewer decides by, as Markdown, in the version's description.

Belongs here: what stands on the page, in which order: what can be found elsewhere comes last, for MLflow keeps no more
than `LONGEST` characters. Not here: the numbers (`gate.py`, the result records), how a version is called and the notes
of its training (`packing.model_card`, a file among its artifacts).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assets.registry.gate import Finding, Rival
from assets.registry.packing import markdown_table

if TYPE_CHECKING:
    from evaluation.intervals import Interval
    from evaluation.records import ResultRecord
    from evaluation.significance import ComparisonTable

LONGEST = 5000
"""What MLflow's databases keep of a description."""

CUT = "\n\nThe rest is in Dagster: asset `challenger`, `page` among the metadata of the run of this verdict.\n"


def model_page(
    findings: Sequence[Finding],
    rivals: Sequence[Rival],
    records: "Sequence[ResultRecord]",
    comparisons: "Sequence[ComparisonTable]",
    statistics: Mapping[str, Any],
    *,
    title: str,
    links: Mapping[str, str],
    was_challenger: bool = False,
) -> str:
    """The whole page: verdict, links, lineage, data, metrics, comparisons, slices, cost, limits, red checks.

    Args:
        findings: of the gate.
        rivals: that the student was compared with; slices with the first.
        records: of the student, one a protocol, full ranking first.
        comparisons: of the student with the other recommenders, one a protocol.
        statistics: of the data, by name.
        title: of the page.
        links: name -> address.
        was_challenger: whether an earlier verdict had made it the challenger.
    """
    found = {one.name: one for one in findings}
    parts = [
        f"# {title}",
        _gate(findings, was_challenger=was_challenger),
        " · ".join(f"[{name}]({address})" for name, address in links.items()),
        f"## Lineage\n\n{_lineage(records[0])}",
        f"## Data\n\n{_data(records[0], statistics)}",
        f"## Metrics\n\n{_metrics(records)}",
        f"## Compared over the same users\n\n{_compared(found, rivals, comparisons)}",
        f"## Slices, NDCG@10\n\n{_slices(found['no_slice_collapsed'], rivals, records[0])}",
        f"## Cost\n\n{_cost(records[0])}",
        f"## Limits\n\n{_limits(records[0], rivals)}",
        *([f"## Red checks of the data\n\n{_red(rows)}"] if (rows := found["data_checks_green"].rows) else []),
        "How it is called, and the notes of its training: `model_card.md`, among its artifacts.",
    ]
    return "\n\n".join(parts) + "\n"


def shortened(page: str) -> str:
    """What MLflow can keep of a page: all of it, or whole lines and where the rest is."""
    return page if len(page) <= LONGEST else page[: LONGEST - len(CUT)].rpartition("\n")[0].rstrip() + CUT


def _gate(findings: Sequence[Finding], *, was_challenger: bool) -> str:
    passed = all(one.passed for one in findings)
    verdict = "passed" if passed else "failed"
    lines = [f"- {'✓' if one.passed else '✗'} `{one.name}`: {one.words}" for one in findings]
    lost = "" if passed or not was_challenger else " It was the challenger by an earlier verdict, and is no longer."
    return "\n".join([f"**Gate: {verdict}**{lost}", "", *lines])


def _lineage(record: "ResultRecord") -> str:
    made = record.provenance
    upstream = ", ".join(f"{asset} `{identity}`" for asset, identity in made.upstream.items())
    return (
        f"Identity `{made.identity}`: profile {record.training.profile}, settings `{made.settings_hash}`, seed "
        f"{made.seed}, code `{made.code}`, commit `{(made.commit or 'none')[:12]}`. "
        f"Made from {upstream or 'the data alone'}."
    )


def _data(record: "ResultRecord", statistics: Mapping[str, Any]) -> str:
    made = ", **synthetic**: made by this project, of no use outside it" if record.synthetic else ""
    return (
        f"{record.title}{made}. Reviews from {statistics['first_day']} to {statistics['last_day']}; judged on "
        f"{record.users:,} users and {record.items:,} items of data version {record.data_version}, trained on "
        f"{record.provenance.data_version}."
    )


def _metrics(records: "Sequence[ResultRecord]") -> str:
    from evaluation.metrics import METRIC_LABELS

    rows = [
        [name, *(_interval(record.metrics[metric]) for record in records)] for metric, name in METRIC_LABELS.items()
    ]
    words = f"{records[0].protocol.words()} Intervals of 95 %, over users."
    return f"{words}\n\n{markdown_table(['', *(record.protocol.title() for record in records)], rows)}"


def _compared(found: Mapping[str, Finding], rivals: Sequence[Rival], comparisons: "Sequence[ComparisonTable]") -> str:
    from evaluation.report.labels import label
    from evaluation.significance import number

    rows = []
    for rival in rivals:
        values = found[f"no_worse_than_{rival.alias}"].values
        told = _difference(values["mean"], values["low"], values["high"])
        rows.append([f"{rival.alias}, version {rival.version.version}", told, _p(values["p"])])
    for row in next((table.rows for table in comparisons if table.protocol == "full"), ()):
        difference = row.difference
        told = _difference(difference.mean, difference.low, difference.high)
        rows.append([label(row.against), told, _p(row.adjusted)])
    versions = (
        f"The margin is {number(values['margin'])}."
        if rivals
        else "Of earlier versions there is no champion and no other challenger to compare with."
    )
    corrected = "p of the recommenders of this run is after Holm's correction."
    return f"{versions} {corrected}\n\n{markdown_table(['NDCG@10 minus that of', 'difference (95 %)', 'p'], rows)}"


def _slices(collapsed: Finding, rivals: Sequence[Rival], record: "ResultRecord") -> str:
    from evaluation.metrics import HEADLINE
    from evaluation.significance import number

    against = {row["slice"]: row for row in collapsed.rows}
    rows = []
    for part in record.slices:
        told = [part.name, part.rule, f"{part.users:,}", _interval(part.metrics[HEADLINE])]
        if row := against.get(part.name):
            told += [number(row["rival"]), f"{number(row['low'], '+')} to {number(row['high'], '+')}", row["verdict"]]
        rows.append(told + [""] * (7 - len(told)) if against else told)
    return markdown_table(
        ["", "who", "users", "student", *([rivals[0].alias, "difference", ""] if against else [])], rows
    )


def _cost(record: "ResultRecord") -> str:
    from evaluation.report.labels import duration

    return (
        f"Training {duration(record.training.cost.seconds)}, with all that it stands on "
        f"{duration(record.total_training_seconds)}; ranking {record.users:,} users "
        f"{duration(record.inference.seconds)}. "
        f"{record.training.parameters:,} numbers are read for a prediction. {record.training.cost.hardware.words()}."
    )


def _limits(record: "ResultRecord", rivals: Sequence[Rival]) -> str:
    from evaluation.report.training_section import OBJECTIVES

    limits = ["One training with one seed: the intervals are over users, not over trainings."]
    if record.training.scaled_down:
        limits.append("The backbone is smaller than the paper's.")
    if record.training.objective:
        limits.append(f"{OBJECTIVES.get(record.training.objective, record.training.objective)}.")
    judged = {rival.alias: rival.evaluation.records[0] for rival in rivals}
    if older := [alias for alias, of in judged.items() if of.data_version != of.provenance.data_version]:
        limits.append(f"The {' and the '.join(older)} learned from other data, and can't know items that came later.")
    return "\n".join(f"- {limit[:1].upper()}{limit[1:]}" for limit in limits)


def _red(rows: Sequence[Mapping[str, Any]]) -> str:
    """What each saw, up to its explanation, which Dagster has."""
    return "\n".join(f"- `{row['check']}` ({row['outcome']}): {row['observed'].partition(';')[0]}" for row in rows)


def _interval(interval: "Interval | None") -> str:
    from evaluation.significance import number

    return f"{number(interval.mean)} ({number(interval.low)} to {number(interval.high)})" if interval else "–"


def _p(value: float) -> str:
    from evaluation.significance import p_words

    return p_words(value).removeprefix("p ").removeprefix("= ")


def _difference(mean: float, low: float, high: float) -> str:
    from evaluation.significance import number

    return f"{number(mean, '+')} ({number(low, '+')} to {number(high, '+')})"
