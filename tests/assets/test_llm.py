"""The language-model recommenders' assets: each is made of what it should be, and refuses what is another's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from assets.llm import (
    TeacherStates,
    item_embeddings,
    mixed_student,
    narrow_student,
    student,
    teacher,
    teacher_rankings,
    teacher_states,
)
from assets.registry.store import connect
from assets.workspace.checkpoints import Checkpoint
from models.files import load_recommender
from models.recommender import Recommender
from models.sequences import Sequences
from models.slmrec.item_embeddings import load_item_embeddings
from models.slmrec.kept_rankings import TeacherRankings
from models.slmrec.mixed_student import MixedStudent
from models.slmrec.teacher_states import TeacherStates as States
from tests.assets.tiny import ITEMS, Chain, bought, dataset_of, held_in, identifying, materialise, watched, would_be

pytestmark = pytest.mark.usefixtures("tracked_home")

ALONE = {"distillation": {"lambda_cos": 0, "lambda_norm": 0}}
LIVE = {"teacher_states": "live", "distillation": {"layers": "interval"}}
NOT_FOLLOWING = {"distillation": {"lambda_cos": 0, "lambda_norm": 0, "layers": "interval"}}
ON_BACKBONE = {"item_embeddings", "language_backbone"}


NAMES = [
    "item_embeddings",
    "teacher",
    "teacher_states",
    "student",
    "teacher_rankings",
    "narrow_student",
    "mixed_student",
]


@pytest.mark.parametrize("name", NAMES)
def test_each_is_made_by_its_recipe_and_by_nothing_else(tiny_chain: Chain, name: str) -> None:
    """Fit, settings, seed, validation and upstream are the profile's and the chain's own."""
    assert identifying(tiny_chain.checkpoints[name]) == would_be(tiny_chain.expected()[name])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_learnt_from_are_training_rows_alone(tiny_chain: Chain, name: str) -> None:
    data = tiny_chain.followed[name].inputs.load({})
    assert lists(data.sequences) == held_in(tiny_chain.rows)
    assert lists(data.validation) == held_in(tiny_chain.rows)
    assert data.n_items == ITEMS


@pytest.mark.parametrize("name", ["teacher", "student", "narrow_student"])
def test_trainings_are_validated_on_drawn_validation_users(tiny_chain: Chain, name: str) -> None:
    """Each one's target is the item before the last; a recommender that knows it is perfect."""
    known = {tuple(row[:-2]): row[-2] for row in tiny_chain.rows}
    judged = Knowing(known)
    assert tiny_chain.followed[name].inputs.validate()(judged)["ndcg_at_10"] == 1.0
    assert len(judged.seen) == 15
    assert set(judged.seen) <= set(known)


def test_item_embeddings_are_sasrecs_item_table(tiny_chain: Chain) -> None:
    made, sasrec = (
        tiny_chain.checkpoints["item_embeddings"],
        load_recommender(tiny_chain.checkpoints["sasrec"].directory),
    )
    assert torch.equal(load_item_embeddings(made.directory), sasrec.item_table())
    assert made.training().parameters == (ITEMS + 1) * 8
    assert made.upstream_seconds() == {"sasrec": tiny_chain.checkpoints["sasrec"].seconds}


def test_the_profile_chooses_whose_item_table_it_is(tiny_chain: Chain, own_home: Path) -> None:
    """Of the one that isn't chosen nothing is read: it may be gone."""
    made = tiny_chain.checkpoints
    for name, other in (("sasrec", "sasrec_text"), ("sasrec_text", "sasrec")):
        given = {**tiny_chain.values, other: made[other].model_copy(update={"directory": own_home / "nowhere"})}
        table = materialise(item_embeddings, given, tiny_chain.folder, {"item_embeddings": {"table": name}})
        assert table.provenance.upstream == {name: made[name].identity}
        assert torch.equal(load_item_embeddings(table.directory), load_recommender(made[name].directory).item_table())


def test_the_states_of_every_training_position_are_kept_once(tiny_chain: Chain) -> None:
    """A position is an item of a training row but its first; states of width 16 after two blocks, users of width 8."""
    positions = sum(len(row) - 1 for row in held_in(tiny_chain.rows))
    made = tiny_chain.checkpoints["teacher_states"]
    kept = States.open(made.directory)
    assert (kept.layers, kept.normed) == ((2, 4), True)
    assert (kept.states.shape, kept.users.shape) == ((positions, 2, 16), (positions, 8))
    assert made.training().parameters == positions * (2 * 16 + 8)
    assert tiny_chain.values["teacher_states"].teacher == tiny_chain.checkpoints["teacher"]


def test_other_states_are_kept_for_another_student_and_its_learning_rate_changes_none(
    tiny_chain: Chain, own_home: Path
) -> None:
    def kept(**changes: Any) -> Checkpoint:
        return materialise(teacher_states, tiny_chain.values, tiny_chain.folder, {"student": changes}).kept

    first = tiny_chain.checkpoints["teacher_states"]
    others = [
        kept(distillation={"blocks": 1}),
        kept(distillation={"states": "raw"}),
        kept(training={"precision": "bfloat16"}),
    ]
    assert len({first.identity, *(other.identity for other in others)}) == 4
    opened = [States.open(other.directory) for other in others]
    assert [(one.layers, one.normed) for one in opened] == [((4,), True), ((2, 4), False), ((2, 4), True)]
    assert {first.identity} == {kept(training={"learning_rate": 0.02}).identity}


def test_the_states_of_two_teachers_lie_side_by_side(tiny_chain: Chain, own_home: Path) -> None:
    """What one teacher says is never taken for another's, and going back to the first one computes nothing."""
    other = materialise(teacher, tiny_chain.values, tiny_chain.folder, {"seed": 8})
    mine, theirs = (
        materialise(teacher_states, {**tiny_chain.values, "teacher": one}, tiny_chain.folder).kept
        for one in (tiny_chain.checkpoints["teacher"], other)
    )
    assert mine.identity == tiny_chain.checkpoints["teacher_states"].identity != theirs.identity
    assert (States.open(mine.directory).states != States.open(theirs.directory).states).any()
    with watched() as followed:
        again = materialise(teacher_states, tiny_chain.values, tiny_chain.folder).kept
    assert again.model_dump() == mine.model_dump()
    assert followed == []


@pytest.mark.parametrize("way", [LIVE, ALONE, NOT_FOLLOWING], ids=["live", "alone", "layers alone"])
def test_where_none_are_read_none_are_kept_and_the_teacher_is_not_loaded(
    tiny_chain: Chain, own_home: Path, way: Mapping[str, Any]
) -> None:
    absent = tiny_chain.checkpoints["teacher"].model_copy(update={"directory": own_home / "nowhere"})
    made = materialise(
        teacher_states, {"splits": tiny_chain.dataset, "teacher": absent}, tiny_chain.folder, {"student": way}
    )
    assert made == TeacherStates(teacher=absent, kept=None)
    with pytest.raises(ValueError, match=r"keeps none: materialise it again with this profile, for domain 'tiny'"):
        materialise(student, {"splits": tiny_chain.dataset, "teacher_states": made}, tiny_chain.folder)


@pytest.mark.parametrize(
    ("way", "read"),
    [(LIVE, {*ON_BACKBONE, "teacher"}), (ALONE, ON_BACKBONE), (NOT_FOLLOWING, {*ON_BACKBONE, "teacher"})],
    ids=["live", "alone", "layers alone"],
)
def test_a_student_stands_on_what_its_settings_read(
    tiny_chain: Chain, own_home: Path, way: Mapping[str, Any], read: set[str]
) -> None:
    """What isn't read isn't paid for either, and may be gone."""
    made = tiny_chain.checkpoints
    given = made["teacher"]
    if "teacher" not in read:
        given = given.model_copy(update={"directory": own_home / "nowhere"})
    states = TeacherStates(teacher=given, kept=None)
    changed = materialise(student, {**tiny_chain.values, "teacher_states": states}, tiny_chain.folder, {"student": way})
    assert changed.provenance.upstream == {name: made[name].identity for name in read}
    assert set(changed.upstream_seconds()) == {"sasrec", *read}
    layers = [1, 4] if way["distillation"].get("layers") == "interval" else [1, 2]
    assert changed.training().notes == {"taken_layers": layers}
    run = connect(tiny_chain.store).get_run(changed.provenance.mlflow_run)
    assert run.data.tags["slmrec.taken_layers"] == str(layers)


def test_a_student_costs_what_all_that_it_stands_on_costs(tiny_chain: Chain) -> None:
    made = tiny_chain.checkpoints
    below = ("sasrec", "item_embeddings", "language_backbone", "teacher", "teacher_states")
    assert made["student"].upstream_seconds() == {name: made[name].seconds for name in below}
    assert all(made[name].seconds > 0 for name in below)


def test_a_student_never_learns_from_another_splits_teacher(tiny_chain: Chain, own_home: Path) -> None:
    other = dataset_of(bought(seed=1))
    with pytest.raises(ValueError, match=r"materialise .* again for domain 'tiny'") as refused:
        materialise(student, {**tiny_chain.values, "splits": other}, tiny_chain.folder)
    assert f"data version {tiny_chain.dataset.version}" in str(refused.value)
    assert f"the splits are now {other.version}" in str(refused.value)


@pytest.mark.parametrize(
    ("wanted", "read"),
    [
        (item_embeddings, "sasrec"),
        (teacher, "item_embeddings"),
        (teacher_states, "teacher"),
        (teacher_rankings, "item_text_embeddings"),
        (narrow_student, "item_text_embeddings"),
        (narrow_student, "teacher_rankings"),
        (mixed_student, "narrow_student"),
        (mixed_student, "text_graph"),
    ],
)
def test_another_checkpoints_files_under_the_promised_directory_are_refused(
    tiny_chain: Chain, own_home: Path, wanted: Any, read: str
) -> None:
    promised, lying_there = tiny_chain.checkpoints[read], tiny_chain.checkpoints["student"]
    swapped = promised.model_copy(update={"directory": lying_there.directory})
    with pytest.raises(ValueError, match=f"{promised.identity}, but holds {lying_there.identity}"):
        materialise(wanted, {**tiny_chain.values, read: swapped}, tiny_chain.folder)


def test_the_states_of_another_teacher_are_refused_too(tiny_chain: Chain, own_home: Path) -> None:
    """Their record promises the one's, and the other's lie there."""
    promised = tiny_chain.values["teacher_states"]
    other = materialise(
        teacher_states, tiny_chain.values, tiny_chain.folder, {"student": {"distillation": {"blocks": 1}}}
    ).kept
    swapped = promised.model_copy(update={"kept": promised.kept.model_copy(update={"directory": other.directory})})
    with pytest.raises(ValueError, match=rf"{promised.kept.identity}, but holds .* Materialise teacher_states again"):
        materialise(student, {**tiny_chain.values, "teacher_states": swapped}, tiny_chain.folder)


def test_the_rankings_of_every_training_position_are_kept(tiny_chain: Chain) -> None:
    """A position is an item of a training row but its first; nothing that was bought before it is named."""
    rows = [(row[:end], row[end]) for row in held_in(tiny_chain.rows) for end in range(1, len(row))]
    kept = TeacherRankings.open(tiny_chain.checkpoints["teacher_rankings"].directory)
    assert kept.items.shape == (len(rows), 4)
    assert all(not set(items.tolist()) & set(history) for items, (history, _) in zip(kept.items, rows, strict=True))
    assert (kept.items > 0).any(1).mean() > 0.9


def test_other_rankings_are_kept_for_another_rule_teacher_or_seed_and_for_nothing_else(
    tiny_chain: Chain, own_home: Path
) -> None:
    def kept(**overrides: Any) -> str:
        return materialise(teacher_rankings, tiny_chain.values, tiny_chain.folder, overrides).identity

    first = tiny_chain.checkpoints["teacher_rankings"].identity
    others = [
        kept(teacher_rankings={"folds": 2}),
        kept(teacher_rankings={"items": 3}),
        kept(teacher_rankings={"teacher": "successor_graph"}),
        kept(baselines={"text_graph": {"recency": 0.3}}),
        kept(seed=8),
    ]
    assert len({first, *others}) == 6
    assert {first} == {
        kept(narrow_student={"weight": 0.4}),
        kept(validation={"seed": 6}),
        kept(baselines={"successor_graph": {"recency": 0.3}}),
    }


def test_a_narrow_student_is_of_its_own_block_seed_validation_and_rankings(tiny_chain: Chain, own_home: Path) -> None:
    def made(**overrides: Any) -> Checkpoint:
        return materialise(narrow_student, {**tiny_chain.values}, tiny_chain.folder, overrides)

    first = tiny_chain.checkpoints["narrow_student"]
    assert made(student={"training": {"learning_rate": 0.5}}).identity == first.identity
    other_rankings = materialise(
        teacher_rankings, tiny_chain.values, tiny_chain.folder, {"teacher_rankings": {"items": 3}}
    )
    given = {**tiny_chain.values, "teacher_rankings": other_rankings}
    others = [
        made(narrow_student={"weight": 0.4}),
        made(validation={"seed": 6}),
        made(seed=8),
        materialise(narrow_student, given, tiny_chain.folder),
    ]
    assert len({first.identity, *(other.identity for other in others)}) == 5
    assert set(first.upstream_seconds()) == {"item_text_embeddings", "language_backbone", "teacher_rankings"}
    assert first.training().stages["training"].curve[-1].keys() >= {"ce", "taught"}
    assert (
        connect(tiny_chain.store)
        .get_model_version(first.model.name, first.model.version)
        .name.endswith("-tiny-narrow_student")
    )


def test_a_mixed_student_is_of_its_own_block_and_of_both_that_it_mixes(tiny_chain: Chain, own_home: Path) -> None:
    first, values, folder = tiny_chain.checkpoints["mixed_student"], tiny_chain.values, tiny_chain.folder
    other_student = materialise(narrow_student, values, folder, {"narrow_student": {"weight": 0.4}})
    others = [
        materialise(mixed_student, values, folder, {"mixed_student": {"weight": 0.5}}),
        materialise(mixed_student, {**values, "narrow_student": other_student}, folder),
    ]
    assert len({first.identity, *(other.identity for other in others)}) == 3
    for same in ({"validation": {"seed": 6}}, {"student": {"training": {"learning_rate": 0.5}}}):
        assert materialise(mixed_student, values, folder, same).identity == first.identity
    mixed, student, counts = (
        load_recommender(tiny_chain.checkpoints[name].directory)
        for name in ("mixed_student", "narrow_student", "text_graph")
    )
    assert isinstance(mixed, MixedStudent)
    assert (mixed.weight, mixed.student.to_config()) == (0.7, student.to_config())
    asked = Sequences.from_lists(held_in(tiny_chain.rows))
    for part, whole in ((mixed.student, student), (mixed.counts, counts)):
        assert isinstance(whole, Recommender)
        assert torch.equal(part.score(asked), whole.score(asked))


def test_a_narrow_student_never_learns_from_another_splits_rankings(tiny_chain: Chain, own_home: Path) -> None:
    other = dataset_of(bought(seed=1))
    for wanted in (teacher_rankings, narrow_student, mixed_student):
        with pytest.raises(ValueError, match=r"materialise .* again for domain 'tiny'"):
            materialise(wanted, {**tiny_chain.values, "splits": other}, tiny_chain.folder)


class Knowing(Recommender):
    """Scores the item that it was told for a history above all others, and remembers whom it has scored."""

    def __init__(self, known: Mapping[tuple[int, ...], int]) -> None:
        super().__init__()
        self.n_items, self.known, self.seen = ITEMS, known, []

    def score(self, histories: Sequences) -> torch.Tensor:
        self.seen += map(tuple, lists(histories))
        scores = torch.zeros(len(histories), ITEMS + 1)
        for user, history in enumerate(lists(histories)):
            scores[user, self.known.get(tuple(history), 0)] = 1
        return scores.index_fill(1, torch.tensor([0]), -torch.inf)

    def to_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Knowing":
        return cls({})


def lists(sequences: Sequences) -> list[list[int]]:
    """The rows as lists."""
    ends = zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
    return [sequences.values[first:last].tolist() for first, last in ends]
