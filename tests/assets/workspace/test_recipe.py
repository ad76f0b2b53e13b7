"""What a checkpoint is made from: its identity, what is handed to the fit, and what is told of the training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from assets.configuration.profiles import Profile, load_profile
from assets.inputs.training_rows import TrainingRows
from assets.inputs.validated_rows import ValidatedRows
from assets.registry.trainings import recommender_recipe
from assets.workspace import home
from assets.workspace.checkpoints import TRAINING, Checkpoint
from assets.workspace.identity import import_closure
from assets.workspace.recipe import Recipe
from evaluation.cost import Cost, hardware
from evaluation.provenance import short_hash
from models.baselines import declared
from models.baselines.popularity import Popularity, fit_popularity
from models.declaration import Fitted
from models.files import file_digest, load_recommender
from models.slmrec.mixed_student import MIXED_STUDENT
from models.slmrec.narrow_student import NARROW_STUDENT
from models.slmrec.student import STUDENT as STUDENT_DECLARED
from models.slmrec.teacher import TEACHER
from models.training.record import TrainingOutcome
from tests.assets.workspace.tiny import (
    BACKBONE,
    DATA,
    OTHER_DATA,
    ROWS,
    SASREC,
    STUDENT,
    dataset_of,
    flip_a_byte,
    make,
    obtain,
    recipes,
    sasrec,
)

BY_STEPS = ("bsarec", "sasrec", "sasrec_text", "language_backbone", "teacher", "student", "online", "narrow_student")
DRAWS = (*BY_STEPS, "teacher_rankings")
"""Whose weights, or rows, depend on the seed."""
KEPT = {"teacher_states": "states.npy", "teacher_rankings": "shares.npy"}
"""The files of what has no weights."""
OUTCOME = TrainingOutcome([], 10, 1.0, 3600.0, 0.0, 1.0, None, None, "finished")


class Made(NamedTuple):
    """A recipe, and its checkpoints of two seeds."""

    recipe: Recipe
    first: Checkpoint
    second: Checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Every recipe followed with two seeds, on what was made with the first."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLMREC_HOME", str(folder / "home"))
        names, recipe = recipes(folder)
        found: dict[str, Made] = {}
        for name in names:
            one, other = (recipe(name, {done: it.first for done, it in found.items()}, seed) for seed in (0, 1))
            found[name] = Made(one, make(one), make(other))
    return found


def test_what_is_made_is_made_alone_and_what_lies_there_waits_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLMREC_HOME", str(tmp_path / "home"))
    lock, held, during = home.training_lock, [], []

    @contextmanager
    def watched(run_id: str | None) -> Iterator[None]:
        with lock(run_id):
            held.append(run_id)
            yield
            held.append("released")

    def follow(recipe: Recipe, *given: Any, **ways: Any) -> Fitted:
        during.append(list(held))
        return followed(recipe, *given, **ways)

    followed = Recipe.follow
    monkeypatch.setattr(home, "training_lock", watched)
    monkeypatch.setattr(Recipe, "follow", follow)
    recipe = sasrec(fit=fit_popularity, settings=None, inputs=TrainingRows(DATA))
    assert [obtain(recipe, dagster_run="run-1")[1], obtain(recipe, dagster_run="run-2")[1]] == [True, False]
    assert (during, held) == ([["run-1"]], ["run-1", "released"])


def identity(**change: Any) -> str:
    return sasrec(**change).provenance().identity


def of_upstream(name: str) -> Checkpoint:
    """A checkpoint that only its identity matters of."""
    provenance = sasrec(settings={"name": name}).provenance()
    return Checkpoint(name="sasrec", domain="cloth", directory=Path("x"), provenance=provenance, seconds=1.0)


def test_all_that_the_weights_depend_on_is_in_the_identity() -> None:
    found = [
        identity(),
        identity(inputs=ValidatedRows(OTHER_DATA, 10, 3)),
        identity(inputs=ValidatedRows(DATA, 11, 3)),
        identity(inputs=ValidatedRows(DATA, None, 3)),
        identity(inputs=ValidatedRows(DATA, 10, 4)),
        identity(inputs=TrainingRows(DATA)),
        identity(settings=replace(SASREC, model=replace(SASREC.model, dropout=0.3))),
        identity(settings=replace(SASREC, training=replace(SASREC.training, patience=1))),
        identity(fit=fit_popularity),
        identity(seed=1),
        identity(upstream={"a": of_upstream("a")}),
        identity(upstream={"a": of_upstream("b")}),
        identity(upstream={"b": of_upstream("a")}),
    ]
    assert len(set(found)) == len(found)


def test_two_fits_of_one_module_are_told_apart(tmp_path: Path) -> None:
    _, recipe = recipes(tmp_path)
    upstream = dict.fromkeys(("item_embeddings", "language_backbone", "teacher", "teacher_states"), of_upstream("a"))
    student, online = (recipe(name, upstream, 0) for name in ("student", "online"))
    assert student.provenance().code == online.provenance().code
    assert student.provenance().identity != replace(student, fit=online.fit).provenance().identity


def test_nothing_else_is() -> None:
    runs = {"profile": "cpu", "commit": "f00", "dagster_run": "r2", "mlflow_run": "m2"}
    assert sasrec().provenance(**runs).identity == identity()
    assert identity(name="ablation_study/all-s0") == identity()
    assert identity(inputs=ValidatedRows(dataset_of(ROWS), 10, 3)) == identity()
    moved = of_upstream("a").model_copy(update={"directory": Path("y"), "seconds": 2.0})
    assert identity(upstream={"a": moved}) == identity(upstream={"a": of_upstream("a")})


def profile_of(folder: Path, name: str = "tiny", **overrides: Any) -> Profile:
    text = {
        "description": "seconds",
        "baselines": {
            **{
                name: {"model": {"d": 8}, "training": {"learning_rate": 0.01, "max_steps": 2}}
                for name in ("bsarec", "sasrec")
            },
            "sasrec_text": {
                "model": {"d": 8, "items": "ids_and_text"},
                "training": {"learning_rate": 0.01, "max_steps": 2},
            },
        },
        "backbone": {"source": "scratch", **BACKBONE.sizes()},
        "teacher": {"model": {"layers": 4}, "training": {"learning_rate": 0.01, "max_steps": 2}},
        "student": {
            "model": {"layers": 2},
            "distillation": {"blocks": 2},
            "training": {"learning_rate": 0.01, "max_steps": 2},
        },
        "narrow_student": {"model": {"d": 8}, "training": {"learning_rate": 0.01, "max_steps": 2}},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(text))
    return load_profile(path, overrides=overrides)


RECOMMENDERS = {
    **declared(),
    **{one.name: one for one in (TEACHER, STUDENT_DECLARED, NARROW_STUDENT, MIXED_STUDENT)},
}


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_of_a_profile_the_own_block_the_seed_and_what_stops_the_training_count(name: str, tmp_path: Path) -> None:
    def of(profile: Profile) -> str:
        return recommender_recipe(RECOMMENDERS[name], DATA, profile, {}).provenance(profile=profile.name).identity

    tiny = of(profile_of(tmp_path))
    assert of(profile_of(tmp_path, "another")) == tiny
    for block in ({"candidates": 7}, {"seed": 7}, {"sampling": "drawn"}):
        assert of(profile_of(tmp_path, evaluation=block)) == tiny
    assert of(profile_of(tmp_path, studies={"seeds": [7]})) == tiny
    assert of(profile_of(tmp_path, seed=7)) != tiny
    stopped = name in ("bsarec", "sasrec", "sasrec_text", "teacher", "student", "narrow_student")
    for block in ({"users": 7}, {"seed": 7}):
        assert (of(profile_of(tmp_path, validation=block)) != tiny) == stopped
    longer = {"training": {"max_steps": 3}}
    changed = {
        "teacher": longer,
        "student": longer,
        "narrow_student": longer,
        "baselines": {"bsarec": longer, "sasrec": longer, "sasrec_text": longer},
    }
    assert (of(profile_of(tmp_path, **changed)) != tiny) == stopped


def test_two_seeds_give_two_checkpoints_of_other_weights_where_anything_is_drawn(
    made: Mapping[str, Made],
) -> None:
    for name, (_, first, second) in made.items():
        weights = KEPT.get(name, "model.safetensors")
        assert first.identity != second.identity
        differ = file_digest(first.directory / weights) != file_digest(second.directory / weights)
        assert differ == (name in DRAWS), name


def test_the_code_of_whatever_trains_by_steps_holds_the_training_loop(made: Mapping[str, Made]) -> None:
    trained = {name for name, one in made.items() if one.first.training().stages}
    assert trained == set(BY_STEPS)
    assert {name for name, one in RECOMMENDERS.items() if one.validated} == trained & RECOMMENDERS.keys()
    closures = {name: import_closure(one.recipe.fit.__module__) for name, one in made.items()}
    assert {name for name, closure in closures.items() if "models.training.loop" in closure} == trained


def test_the_fit_is_handed_the_training_rows_and_what_the_recipe_says(empty_home: Path, tmp_path: Path) -> None:
    handed: list[Any] = []

    def fit(*given: Any) -> Fitted:
        handed.extend(given)
        return Fitted(Popularity(DATA.n_items))

    read, settings, observer = make(sasrec()), object(), object()
    recipe = Recipe("other", fit, settings, 7, ValidatedRows(DATA, 10, 3), {"sasrec": read})
    recipe.follow(tmp_path / "made", [observer], tmp_path / "state")
    data, given, course = handed
    assert given is settings
    assert [row.tolist() for row in rows_of(data.sequences)] == [row[:-2] for row in ROWS]
    assert [row.tolist() for row in rows_of(data.validation)] == [row[:-2] for row in ROWS]
    assert data.n_items == DATA.n_items
    assert data.upstream == {"sasrec": read.directory}
    assert (course.seed, course.callbacks, course.state) == (7, [observer], tmp_path / "state")
    assert course.validate is not None
    assert isinstance(load_recommender(tmp_path / "made"), Popularity)
    replace(recipe, inputs=TrainingRows(DATA)).follow(tmp_path / "again", (), tmp_path / "state")
    assert handed[-1].validate is None


def rows_of(sequences: Any) -> list[Any]:
    ends = zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
    return [sequences.values[start:end] for start, end in ends]


def test_a_fit_that_writes_its_files_is_given_the_directory(tmp_path: Path) -> None:
    def fit(data: Any, settings: Any, course: Any, directory: Path) -> Fitted:
        (directory / "table").write_text(f"{data.n_items} {settings} {course.seed}")
        return Fitted(None, numbers=3)

    fitted = Recipe("table", fit, "s", 7, TrainingRows(DATA), writes=True).follow(tmp_path, (), tmp_path / "state")
    assert fitted.numbers == 3
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("table", "20 s 7")]


def test_what_is_read_is_the_checkpoint_that_was_promised(empty_home: Path, tmp_path: Path) -> None:
    read = make(sasrec())
    flip_a_byte(read.directory / "model.safetensors")
    _, recipe = recipes(tmp_path)
    with pytest.raises(ValueError, match=r"model.safetensors is not the file.* Materialise sasrec again for domain"):
        recipe("item_embeddings", {"sasrec": read}, 0).follow(tmp_path / "made", (), tmp_path / "state")


def test_a_checkpoint_of_other_splits_is_not_read(empty_home: Path) -> None:
    other = make(sasrec(inputs=ValidatedRows(OTHER_DATA, 10, 3)))
    with pytest.raises(ValueError, match=f"made from data version {OTHER_DATA.version}.* now {DATA.version}"):
        sasrec(upstream={"sasrec": other}).provenance()


def test_the_record_tells_of_the_training_itself(made: Mapping[str, Made]) -> None:
    told = {name: one.first.training() for name, one in made.items()}
    for name, (recipe, checkpoint, _) in made.items():
        if not recipe.writes:
            assert told[name].parameters == load_recommender(checkpoint.directory).numbers_read()
    assert told["sasrec"].settings["training"]["max_steps"] == 4
    assert told["sasrec"].settings["model"]["dropout"] == 0.2
    assert told["sasrec"].stages.keys() == {"training"}
    assert told["sasrec"].stages["training"].steps == 4
    assert [point["step"] for point in told["sasrec"].curve if "ndcg_at_10" in point] == [2, 4]
    assert told["sasrec"].parameters == told["sasrec"].trainable_parameters
    assert told["popularity"].stages == {}
    assert (told["popularity"].parameters, told["popularity"].trainable_parameters) == (DATA.n_items + 1, 0)
    assert told["language_backbone"].stages.keys() == {"pretraining"}
    assert told["student"].notes == {"taken_layers": [1, 4]}
    assert 0 < told["student"].trainable_parameters < told["student"].parameters < told["teacher"].parameters


def test_what_stands_on_a_language_model_names_it(made: Mapping[str, Made]) -> None:
    words = f"{BACKBONE.words()}, width 16"
    for name, one in made.items():
        told, trained_on_it = one.first.training(), name in ("teacher", "student", "online")
        reads_with_it = name == "item_text_embeddings"
        objective = "all_positions" if trained_on_it else None
        found = (told.backbone, told.scaled_down, told.objective)
        assert found == ((words, True, objective) if trained_on_it or reads_with_it else (None, False, None))


@pytest.mark.parametrize(("width", "scaled_down"), [(4095, True), (4096, False)])
def test_only_below_the_papers_width_a_result_is_scaled_down(width: int, scaled_down: bool, tmp_path: Path) -> None:
    backbone = of_upstream("a").model_copy(update={"directory": tmp_path})
    backbone_record = record(sasrec(), [], 1.0).model_copy(update={"notes": {"model": "LLaMA-7B", "width": width}})
    (tmp_path / TRAINING).write_bytes(backbone_record.to_json())
    found = record(sasrec(settings=STUDENT, upstream={"language_backbone": backbone}), [], 1.0)
    assert (found.backbone, found.scaled_down) == (f"LLaMA-7B, width {width}", scaled_down)
    assert found.objective == "all_positions"


def record(recipe: Recipe, stages: list[TrainingOutcome], measured: float) -> Any:
    named = {f"stage{number}": outcome for number, outcome in enumerate(stages)}
    cost = Cost(seconds=measured, peak_memory_bytes=5, hardware=hardware())
    return recipe._record(Fitted(None, named), cost, "tiny")


@pytest.mark.parametrize(
    ("stages", "measured", "expected"),
    [
        ([OUTCOME], 60.0, 3600.0),  # killed after 59 minutes: what was measured began with the last process
        ([replace(OUTCOME, seconds=55.0)], 60.0, 60.0),  # in one go: what was measured holds the loading before it too
        ([OUTCOME, OUTCOME], 60.0, 7200.0),
        ([], 0.5, 0.5),
    ],
)
def test_a_trainings_seconds_include_those_before_a_kill(
    stages: list[TrainingOutcome], measured: float, expected: float
) -> None:
    found = record(sasrec(), stages, measured)
    assert (found.cost.seconds, found.cost.peak_memory_bytes) == (expected, 5)


def test_the_record_names_the_profile_that_trained(empty_home: Path) -> None:
    trained, _ = obtain(sasrec(), profile="large")
    again, new = obtain(sasrec(), profile="small")
    assert not new
    assert trained.training() == again.training()
    assert again.training().profile == again.provenance.profile == "large"


def test_settings_are_hashed_with_the_fit_and_the_inputs_facts() -> None:
    hashed = {"fit": "fit_sasrec", "settings": {"rate": 0.5}, "inputs": {"validation_users": 10, "validation_seed": 3}}
    assert sasrec(settings={"rate": 0.5}).provenance().settings_hash == short_hash(hashed)
