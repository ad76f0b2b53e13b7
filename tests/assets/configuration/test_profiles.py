"""Every shipped profile loads, and a bad value is refused in words that name it."""

import dataclasses
import os
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
import yaml
from pydantic import BaseModel
from transformers import LlamaConfig, LlamaModel

from assets.configuration.domains import load_domains
from assets.configuration.profiles import Profile
from assets.configuration.profiles import load_profile as load
from models.backbone.text_sources import ItemTextSettings
from models.baselines import declared
from models.slmrec.recommender import PROMPT, LLMRecommender, LLMRecommenderConfig
from orchestration.definitions import DOMAINS, PROFILES, PROFILES_VARIABLE, name_profile, profile_files

DOCS = Path(__file__).parents[3] / "docs" / "profiles.md"


def load_profile(name: str, domain: str | None = None, overrides: dict | None = None) -> Profile:
    """A shipped profile."""
    return load(PROFILES / f"{name}.yaml", domain, overrides)


def test_the_shipped_profiles_are_the_documented_four() -> None:
    assert [path.stem for path in profile_files()] == ["cpu", "gpu", "paper", "sample"]


def test_ones_own_profile_takes_the_place_of_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = tmp_path / "cpu.yaml", tmp_path / "other.yaml"
    monkeypatch.setenv(PROFILES_VARIABLE, f"{own}:{other}")
    found = profile_files()
    assert [path.stem for path in found] == ["gpu", "paper", "sample", "cpu", "other"]
    assert found[-2:] == [own, other]


def test_a_profile_that_is_given_by_its_path_joins_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of one of its name, so that what is printed later names it."""
    (tmp_path / "here").mkdir()
    chosen, same, other = tmp_path / "here/tiny.yaml", tmp_path / "tiny.yaml", tmp_path / "other.yaml"
    chosen.touch()
    monkeypatch.setenv(PROFILES_VARIABLE, f"{same}:{other}")
    assert name_profile(chosen) == "tiny"
    assert os.environ[PROFILES_VARIABLE] == f"{chosen}:{other}"
    with pytest.raises(ValueError, match="There is no profile file"):
        name_profile(tmp_path / "gone.yaml")


@pytest.mark.parametrize("name", ["cpu", "gpu", "paper", "sample"])
@pytest.mark.parametrize("domain", [None, *load_domains([DOMAINS])])
def test_every_profile_loads_for_every_domain(name: str, domain: str | None) -> None:
    assert load_profile(name, domain).name == name


def test_the_paper_profile_holds_the_papers_table() -> None:
    """Learning rate, steps, warm-up, validation rhythm and lambda 3, as PAPER's table has them."""
    table = {
        "cloth": (0.003, 1500, 50, 50, 1.0),
        "movie": (0.001, None, 50, 100, 1.0),
        "music": (0.002, 800, 100, 100, 0.01),
        "sport": (0.002, 2000, 50, 100, 0.1),
    }
    for domain, (rate, steps, warmup, every, lambda_ms) in table.items():
        student = load_profile("paper", domain).student
        training = student.training
        found = (training.learning_rate, training.max_steps, training.warmup_steps, training.evaluate_every)
        assert found == (rate, steps, warmup, every)
        assert student.distillation.lambda_ms == lambda_ms
        assert (student.distillation.lambda_cos, student.distillation.lambda_norm) == (1.0, 0.1)
        assert training.batch_size == 256


def test_the_paper_profile_runs_on_the_meta_device() -> None:
    """LLaMA-7B's shapes without its weights: the states, and the student's 0.944 of 6.631 billion parameters.

    `LlamaConfig()` is LLaMA-7B. The paper counts the token table, of which we keep the prompt's rows only, and not the
    two item adapters: 14.2 % by its own numbers, against the 13 % of its abstract.
    """
    profile = load_profile("paper", "cloth")
    e4srec = LLMRecommenderConfig(layers=32, tuned=profile.teacher.model.tuned)
    billions = {}
    for name, model in (("E4SRec", e4srec), ("teacher", profile.teacher.model), ("student", profile.student.model)):
        with torch.device("meta"):
            decoder = LlamaModel(LlamaConfig(num_hidden_layers=model.layers))
            width, item_width = decoder.config.hidden_size, profile.baselines.sasrec.model.d
            recommender = LLMRecommender(
                model, decoder, torch.zeros(50, width), torch.zeros(9, width), torch.zeros(23_000, item_width)
            )
            items, lengths = torch.ones(2, model.max_items, dtype=torch.int64), torch.full((2,), model.max_items)
            (states,) = recommender.supervised_states(items, lengths, (model.layers,))
            assert states.shape == (2, 4096)
            assert recommender.output_adapter(states).shape == (2, 128)
        adapters = sum(p.numel() for p in [*recommender.input_adapter.parameters(), recommender.output_adapter.weight])
        counted = sum(p.numel() for p in recommender.parameters()) - adapters + 32_000 * width
        billions[name] = round(counted / 1e9, 3)
    assert billions["E4SRec"] == 6.631
    assert billions["student"] == 0.944
    assert billions["student"] < billions["teacher"] < billions["E4SRec"]


def test_the_sample_profile_has_room_for_the_prompt_in_any_words() -> None:
    profile = load_profile("sample")
    in_bytes = 1 + len(PROMPT.encode())  # the start token, and a tokenizer that has learnt no merge
    assert in_bytes + profile.teacher.model.max_items <= profile.backbone.context


def test_the_launchpads_overrides_win() -> None:
    overrides = {"student": {"training": {"learning_rate": 0.5}}, "seed": 3}
    profile = load_profile("paper", "cloth", overrides)
    assert (profile.student.training.learning_rate, profile.seed) == (0.5, 3)
    assert profile.student.training.max_steps == 1500


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"baselines": {"sasrec": {"model": {"dropout": 1.5}}}}, r"baselines\.sasrec\.model.*dropout.*1\.5"),
        ({"student": {"model": {"layers": 3}}}, "3 student layers don't both divide into 4 blocks"),
        ({"student": {"model": {"layers": 12}}}, "the student has 12 layers and its teacher 8"),
        ({"teacher": {"model": {"layers": 12}}}, "the teacher wants 12 layers of a backbone of 8"),
        ({"teacher": {"model": {"objective": "last"}}}, "one objective"),
        ({"teacher": {"model": {"max_items": 10}}}, "the teacher reads 10 items and the student 30.* same max_items"),
        (
            {"item_texts": {"tokens": 513}},
            "item_texts wants 513 tokens .* backbone reads 512: set its tokens to 512",
        ),
        ({"item_texts": {"source": "hub"}}, r"item_texts.*source"),
        ({"item_texts": {"path": "a"}}, "A text encoder from 'backbone' does not use path; leave it out"),
        ({"item_texts": {"source": "package"}}, "A text encoder from 'package' needs package; give it"),
        ({"item_embeddings": {"table": "bsarec"}}, r"item_embeddings\.table: it must be 'sasrec' or 'sasrec_text'"),
        (
            {"delivery": {"recommender": "sasrec"}},
            r"delivery\.recommender: it must be 'student', 'narrow_student' or 'mixed_student'",
        ),
        ({"teacher_rankings": {"folds": 1}}, r"teacher_rankings.*folds must be at least 2"),
        ({"narrow_student": {"weight": 2}}, r"narrow_student.*weight must be at least 0 and at most 1"),
        ({"mixed_student": {"weight": 2}}, r"mixed_student.*weight must be at least 0 and at most 1"),
        ({"studies": {"depths": [0, 2]}}, r"depths must be different numbers, each at least 1, not \(0, 2\)"),
        ({"studies": {"depths": [2, 9]}}, "depth_study wants 9 layers of a backbone of 8"),
        ({"studies": {"seeds": [-1]}}, "seeds must be different numbers, each at least 0"),
        ({"baselines": {"sasrec": {"modle": {}}}}, r"baselines\.sasrec\.modle"),
        ({"baselines": {"sasrex": {}}}, r"baselines\.sasrex: there is no such setting here; there are .*sasrec"),
        ({"evaluation": {"candidates": 0}}, r"evaluation\.candidates"),
        ({"gate": {"margin": -0.1}}, r"gate\.margin"),
        ({"gate": {"slice_loss": 20}}, r"gate\.slice_loss"),
        ({"gate": {"latency": 5}}, r"gate\.latency: there is no such setting here; there are .*latency_ms"),
        ({"seed": "soon"}, "seed"),
    ],
)
def test_a_bad_value_is_named(overrides: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_profile("sample", None, overrides)
    assert str(PROFILES / "sample.yaml") in str(caught.value)


def test_a_student_without_teacher_may_read_other_histories() -> None:
    alone = {"lambda_cos": 0, "lambda_norm": 0, "lambda_kl": 0}
    overrides = {"teacher": {"model": {"max_items": 10}}, "student": {"distillation": alone}}
    student = load_profile("sample", None, overrides).student
    assert (student.looks_at_teacher, student.keeps_states) == (False, False)
    for way in ({"start": "teacher"}, {"layers": "influence"}, {"lambda_kl": 1}):
        overrides["student"] = {"distillation": {**alone, **way}}
        with pytest.raises(ValueError, match="give both the same max_items"):
            load_profile("sample", None, overrides)


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text((PROFILES / "sample.yaml").read_text().replace("seed: 0", "seed: 9"))
    assert (load(own).seed, load(own).name) == (9, "mine")


def test_the_settings_of_a_recommender_are_its_block() -> None:
    profile = load_profile("sample")
    assert profile.settings_of("sasrec") == profile.baselines.sasrec
    assert profile.settings_of("student") == profile.student
    assert profile.settings_of("narrow_student") == profile.narrow_student
    assert profile.settings_of("mixed_student") == profile.mixed_student
    assert profile.settings_of("popularity") == declared()["popularity"].settings(), (
        "a block of defaults may be left out"
    )


@pytest.mark.parametrize("text", ["- a\n- list\n", "baselines: [unclosed\n"])
def test_a_file_that_is_no_profile(tmp_path: Path, text: str) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml"):
        load(own)


def keys_of(settings: object) -> set[str]:
    """Every key of a block and of the blocks in it."""
    if isinstance(settings, type) and issubclass(settings, BaseModel):
        fields = {name: field.annotation for name, field in settings.model_fields.items()}
    elif isinstance(settings, type) and dataclasses.is_dataclass(settings):
        fields = get_type_hints(settings)
    else:  # a union, such as `TrainingConfig | None`, or a plain type
        return set().union(*map(keys_of, get_args(settings)))
    return set(fields).union(*map(keys_of, fields.values()))


def test_the_docs_name_every_key_of_a_profile() -> None:
    text = DOCS.read_text(encoding="utf-8")
    code = " ".join(re.findall(r"`[^`]+`|```yaml.*?```", text, flags=re.DOTALL))
    keys = keys_of(Profile) - {"name"}  # that of the file
    assert {"loss_precision", "sampling", "lambda_ms", "rank", "revision", "depths"} < keys
    assert {key for key in keys if not re.search(rf"\b{key}\b", code)} == set()


def test_the_docs_example_is_a_profile(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL).group(1)
    path = tmp_path / "example.yaml"
    path.write_text(example, encoding="utf-8")
    profile = load(path, "cloth")
    assert set(yaml.safe_load(example)) == {*Profile.model_fields, "domains"} - {"name"}
    assert set(yaml.safe_load(example)["baselines"]) == set(declared())
    for part in ("popularity", "item_knn", "successor_graph", "text_graph"):
        assert profile.settings_of(part) == declared()[part].settings(), "the values shown are the defaults"
    assert profile.item_texts == ItemTextSettings()
    for part in ("validation", "evaluation", "studies", "item_embeddings", "teacher_rankings", "delivery"):
        assert getattr(profile, part) == type(getattr(profile, part))()
