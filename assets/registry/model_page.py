"""The page of a model version: everything that a reviewer decides by, as Markdown, in the version's description.

Belongs here: what stands on the page, in which order. Not here: the numbers (`gate.py`, the result records), what a
served version is (`packing.model_card`, which ends the page).
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

TOLD = "\n\nThe rest is in the version's model_card.md, among its artifacts.\n"


def model_page(
    findings: Sequence[Finding],
    rival: Rival | None,
    records: "Sequence[ResultRecord]",
    comparisons: "Sequence[ComparisonTable]",
    statistics: Mapping[str, Any],
    *,
    card: str,
    links: Mapping[str, str],
    was_challenger: bool = False,
) -> str:
    """The page: verdict, links, data, metrics, comparisons, slices, cost, limits, and the model card.

    Args:
        findings: of the gate.
        rival: that the student was compared with.
        records: of the student, one a protocol, full ranking first.
        comparisons: of the student with the other recommenders, one a protocol.
        statistics: of the data, by name.
        card: of the model; it comes last and is cut where the page is longer than MLflow keeps.
        links: name -> address.
        was_challenger: whether an earlier verdict had made it the challenger.
    """
    title, _, rest = card.partition("\n\n")
    parts = [
        title,
        _gate(findings, was_challenger=was_challenger),
        " · ".join(f"[{name}]({address})" for name, address in links.items()),
        f"## Data\n\n{_data(records[0], statistics)}",
        f"## Metrics\n\n{_metrics(records)}",
        f"## Compared over the same users\n\n{_compared(findings, rival, comparisons)}",
        f"## Slices, NDCG@10\n\n{_slices(findings, records[0])}",
        f"## Cost\n\n{_cost(findings, records[0])}",
        f"## Limits\n\n{_limits(records[0], rival)}",
        f"## Model card\n\n{rest}",
    ]
    page = "\n\n".join(part.rstrip() for part in parts) + "\n"
    return page if len(page) <= LONGEST else page[: LONGEST - len(TOLD)].rpartition("\n")[0] + TOLD


def _gate(findings: Sequence[Finding], *, was_challenger: bool) -> str:
    passed = all(one.passed for one in findings)
    verdict = "passed" if passed else "failed"
    lines = [f"- {'✓' if one.passed else '✗'} `{one.name}`: {one.words}" for one in findings]
    lost = "" if passed or not was_challenger else " It was the challenger by an earlier verdict, and is no longer."
    return "\n".join([f"**Gate: {verdict}**{lost}", "", *lines])


def _data(record: "ResultRecord", statistics: Mapping[str, Any]) -> str:
    made = ", **synthetic**: made by this project" if record.synthetic else ""
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


def _compared(findings: Sequence[Finding], rival: Rival | None, comparisons: "Sequence[ComparisonTable]") -> str:
    from evaluation.report.labels import label
    from evaluation.significance import number, p_words

    rows = []
    found = next(one.values for one in findings if one.name == "no_worse_than_rival")
    if rival:
        rows.append([rival.words(), _difference(found["mean"], found["low"], found["high"]), p_words(found["p"])])
    for row in next((table.rows for table in comparisons if table.protocol == "full"), ()):
        difference = row.difference
        told = _difference(difference.mean, difference.low, difference.high)
        rows.append([label(row.against), told, p_words(row.adjusted)])
    margin = f"The margin is {number(found['margin'])}. " if rival else "There is no champion. "
    corrected = "p of the recommenders of this run is after Holm's correction."
    return f"{margin}{corrected}\n\n{markdown_table(['NDCG@10 minus that of', 'difference (95 %)', 'p'], rows)}"


def _slices(findings: Sequence[Finding], record: "ResultRecord") -> str:
    from evaluation.metrics import HEADLINE
    from evaluation.significance import number

    against = {row["slice"]: row for one in findings for row in one.rows}
    rows = []
    for part in record.slices:
        told = [part.name, part.rule, f"{part.users:,}", _interval(part.metrics[HEADLINE])]
        if row := against.get(part.name):
            told += [number(row["rival"]), f"{number(row['low'], '+')} to {number(row['high'], '+')}", row["verdict"]]
        rows.append(told + [""] * (7 - len(told)) if against else told)
    return markdown_table(["", "who", "users", "student", *(["rival", "difference", ""] if against else [])], rows)


def _cost(findings: Sequence[Finding], record: "ResultRecord") -> str:
    from evaluation.report.labels import duration

    request = next(one.values["median_ms"] for one in findings if one.name == "answers_in_time")
    return (
        f"Training {duration(record.training.cost.seconds)}, with all that it stands on "
        f"{duration(record.total_training_seconds)}; ranking {record.users:,} users "
        f"{duration(record.inference.seconds)}; one request {request:.1f} ms (median). "
        f"{record.training.parameters:,} numbers are read for a prediction. {record.training.cost.hardware.words()}."
    )


def _limits(record: "ResultRecord", rival: Rival | None) -> str:
    from evaluation.report.training_section import OBJECTIVES

    limits = ["One training with one seed: the intervals are over users, not over trainings."]
    if record.synthetic:
        limits.append("Trained on synthetic data: of no use outside this project.")
    if record.training.scaled_down:
        limits.append("The backbone is smaller than the paper's.")
    if record.training.objective:
        limits.append(f"{OBJECTIVES.get(record.training.objective, record.training.objective)}.")
    if rival and rival.evaluation.records[0].data_version != rival.evaluation.records[0].provenance.data_version:
        limits.append(f"The {rival.alias} learned from other data, and can't know items that came later.")
    return "\n".join(f"- {limit[:1].upper()}{limit[1:]}" for limit in limits)


def _interval(interval: "Interval | None") -> str:
    from evaluation.significance import number

    return f"{number(interval.mean)} ({number(interval.low)} to {number(interval.high)})" if interval else "–"


def _difference(mean: float, low: float, high: float) -> str:
    from evaluation.significance import number

    return f"{number(mean, '+')} ({number(low, '+')} to {number(high, '+')})"
