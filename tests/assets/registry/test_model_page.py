"""The page of a version at its real size: a champion, a waiting challenger, ten other recommenders, warnings."""

from pathlib import Path

from assets.registry import gate
from assets.registry.gate import Finding, Rival
from assets.registry.model_page import LONGEST, model_page, shortened
from assets.workspace.checkpoints import RegisteredVersion
from assets.workspace.evaluations import Evaluation
from evaluation.report.data_section import Check
from evaluation.report.labels import declarations, label
from evaluation.significance import AgainstOne, Comparison, ComparisonTable
from tests.evaluation.made_up import FULL, SAMPLED, STATISTICS, USERS, provenance, ranks_of, result_record

MODEL = "slmrec-beauty-narrow_student"
SUBJECT = "student"
UPSTREAM = {
    name: f"{place:016x}"
    for place, name in enumerate(("teacher", "item_embeddings", "teacher_states", "language_backbone"), 10)
}
MADE = provenance(SUBJECT, upstream=UPSTREAM)
LINKS = {
    "Evaluation report": f"http://127.0.0.1:5000/#/experiments/1/runs/{'a' * 32}/artifacts/report.html",
    "Dagster run of this verdict": "http://127.0.0.1:3000/runs/0b2f77c1-5a0e-4a5e-9e57-000000000001",
    "Dagster run of the training": f"http://127.0.0.1:3000/runs/{MADE.dagster_run}",
    "MLflow run of the training": f"http://127.0.0.1:5000/#/experiments/1/runs/{MADE.mlflow_run}",
}
DRIFT = (
    "data 3f9a1c20b7d4e5f6 against data 0d4e5f63f9a1c20b, which version 12 of slmrec-beauty-narrow_student learned from"
)


class MadeUp(Evaluation):
    """Without files."""

    ranks = ranks_of("teacher")


def rival(alias: str, number: str) -> Rival:
    """Of older data."""
    record = result_record("teacher", provenance=provenance("teacher", data_version="0d4e5f63f9a1c20b"))
    return Rival(alias, RegisteredVersion(name=MODEL, version=number), MadeUp(Path("nowhere"), (record,)))


RIVALS = [rival("champion", "12"), rival("challenger", "13")]


def findings(warnings: int) -> list[Finding]:
    ours = FULL.values(ranks_of(SUBJECT))["ndcg_at_10"]
    assert ours is not None
    checks = [
        *(Check("interactions", f"sound_{place}", True, True, "all is well") for place in range(30)),
        *(
            Check("drift", f"new_items_{place}", False, False, f"25.5%, 20.0% is allowed; {DRIFT}")
            for place in range(warnings)
        ),
    ]
    rows = [
        {"slice": part.name, "users": part.users, "rival": 0.1234, "low": -0.0123, "high": 0.0123, "verdict": "kept"}
        for part in result_record(SUBJECT).slices
    ]
    return [
        gate.judged_itself("a", "a"),
        gate.better_than_popularity(ours, ours / 2),
        *(gate.no_worse_than(one.alias, ours, RIVALS, 0.001, seed=1) for one in RIVALS),
        Finding(name="no_slice_collapsed", passed=True, words="no slice lost 20% of the champion's NDCG@10", rows=rows),
        gate.answers_in_time([3.21] * 20, 100),
        gate.data_checks_green(checks, ["interactions"]),
    ]


def compared() -> ComparisonTable:
    """With every recommender that there is."""
    difference = Comparison(mean=0.0123, low=-0.0123, high=0.0456, p=0.0312)
    others = [name for name in declarations() if name != SUBJECT]
    return ComparisonTable(
        subject=SUBJECT,
        protocol="full",
        metric="ndcg_at_10",
        users=USERS,
        rows=tuple(AgainstOne(against=name, difference=difference, adjusted=0.0312) for name in others),
    )


def page(warnings: int) -> str:
    records = [result_record(SUBJECT, protocol, provenance=MADE) for protocol in (FULL, SAMPLED)]
    return model_page(
        findings(warnings), RIVALS, records, [compared()], STATISTICS, title="Student (SLMRec) for beauty", links=LINKS
    )


def test_a_page_of_real_size_fits_with_its_lineage() -> None:
    assert len(compared().rows) == 10
    whole = page(warnings=2)
    assert len(whole) <= LONGEST
    assert shortened(whole) == whole
    assert all(f"| {label(row.against)}" in whole for row in compared().rows)
    for words in (
        f"Identity `{MADE.identity}`",
        f"commit `{MADE.commit[:12]}`",
        *(f"{name} `{identity}`" for name, identity in UPSTREAM.items()),
        *(f"[{name}]({address})" for name, address in LINKS.items()),
        "`drift.new_items_1` (warning): 25.5%",
        "| champion, version 12",
        "| challenger, version 13",
    ):
        assert words in whole, words


def test_of_a_longer_page_the_end_is_cut_and_what_is_decided_by_stays() -> None:
    whole = page(warnings=12)
    cut = shortened(whole)
    assert len(cut) <= LONGEST < len(whole)
    assert cut.endswith("in Dagster: asset `challenger`, `page` among the metadata of the run of this verdict.\n")
    for words in ("## Lineage", "## Metrics", "## Compared", "## Slices", "## Cost", "## Limits", MADE.identity):
        assert words in cut, words
