import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from models.backbone.decoder import load_decoder, load_tokenizer
from models.backbone.language_model import Segments, packed_segments, train_tokenizer
from models.backbone.sources import MAXIMUM_BYTES, BackboneConfig, build_backbone, count_parameters
from models.files import staged_directory
from models.training.config import TrainingConfig
from models.training.course import Course
from models.training.record import TrainingOutcome

SIZES = {"width": 16, "layers": 4, "heads": 2, "intermediate": 24, "vocabulary": 320, "context": 32}
SCRATCH = BackboneConfig(source="scratch", **SIZES)
REVISION = "0123456789abcdef0123456789abcdef01234567"
TEXTS = [f"A soft red towel, number {n}; it dries the hands of {n % 7} guests." for n in range(120)]


PROMPT = "### Instruction:\nGiven the user's purchase history, predict the next item.\n\n### Response:\n"


def build(
    config: BackboneConfig, texts: Callable[[], Iterable[str]], directory: Path, seed: int = 0
) -> TrainingOutcome | None:
    with staged_directory(directory) as staged:
        return build_backbone(config, texts, staged, Course(seed), prompt=PROMPT)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("scratch") / "backbone"
    assert build(SCRATCH, lambda: TEXTS, directory, seed=3) is None
    return directory


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be at least 1"),
        ({"width": 18, "heads": 4}, "width .18. must be a multiple"),
        ({"vocabulary": 100}, "vocabulary must be at least 300"),
        ({"context": None}, "needs context"),
        ({"path": Path("somewhere")}, "does not use path"),
        ({"training": TrainingConfig(learning_rate=0.1, max_steps=1)}, "does not use training"),
        ({"source": "pretrain"}, "needs training"),
        ({"source": "elsewhere"}, "must be one of pretrain, scratch, local, package, hub"),
    ],
)
def test_config_refuses_bad_combinations(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SCRATCH, **change)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "hub", "repository": "owner/name"}, "needs revision"),
        ({"source": "hub", "repository": "owner/name", "revision": "main"}, "40 hexadecimal digits"),
        ({"source": "hub", "repository": "name", "revision": REVISION}, "owner/name"),
        ({"source": "local"}, "needs path"),
        ({"source": "local", "path": Path("a"), "width": 8}, "does not use width"),
    ],
)
def test_config_refuses_loose_references(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BackboneConfig(**given)


def test_tokenizer_encodes_any_string_and_keeps_the_prompt_short() -> None:
    tokenizer = train_tokenizer(TEXTS * 5, 2000, PROMPT)
    odd = "Größe 42 — naïve ☕\n\tok"
    encoded = tokenizer.encode(odd)
    assert encoded.tokens[0] == "<s>"
    assert tokenizer.decode(encoded.ids) == odd
    words, unknown = (len(train_tokenizer(TEXTS * 5, 2000, known).encode(PROMPT).ids) for known in (PROMPT, ""))
    assert words < 30 < unknown


def test_segments_are_the_texts_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.backbone.language_model.TEXTS_A_BATCH", 50)
    tokenizer = train_tokenizer(TEXTS, 320, PROMPT)
    segments = packed_segments(tokenizer, iter(TEXTS), 32)
    flat = [token for text in TEXTS for token in tokenizer.encode(text).ids]
    assert segments.dtype == np.int32
    assert segments.ravel().tolist() == flat[: segments.size]
    assert 0 <= len(flat) - segments.size < 32
    batch = Segments(segments).batch(np.array([2, 0]))["input_ids"]
    assert batch.tolist() == [flat[64:96], flat[:32]]


def test_scratch_is_reproducible(scratch: Path, tmp_path: Path) -> None:
    build(SCRATCH, lambda: iter(TEXTS), tmp_path / "again", seed=3)
    build(SCRATCH, lambda: iter(TEXTS), tmp_path / "other", seed=4)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (scratch / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert (scratch / "model.safetensors").read_bytes() != (tmp_path / "other/model.safetensors").read_bytes()


def test_pretraining_lowers_the_loss_from_where_scratch_stays(scratch: Path, tmp_path: Path) -> None:
    training = TrainingConfig(learning_rate=0.01, max_steps=40, batch_size=16)
    config = replace(SCRATCH, source="pretrain", training=training)
    outcome = build(config, lambda: TEXTS, tmp_path / "backbone", seed=3)
    assert outcome is not None
    assert outcome.curve[0]["ce"] == pytest.approx(np.log(320), abs=0.3)
    assert outcome.curve[-1]["ce"] < outcome.curve[0]["ce"] - 1.5
    assert outcome.best_step is None, "nothing is validated"
    assert (tmp_path / "backbone/tokenizer.json").read_bytes() == (scratch / "tokenizer.json").read_bytes()
    assert loss_on_texts(tmp_path / "backbone") < loss_on_texts(scratch) - 1.5


def loss_on_texts(directory: Path) -> float:
    """By transformers alone: the directory is an ordinary Hugging Face model."""
    model = LlamaForCausalLM.from_pretrained(directory)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    ids = torch.tensor([tokenizer.encode(TEXTS[5]).ids])
    with torch.inference_mode():
        return model(ids, labels=ids).loss.item()


@pytest.mark.parametrize("texts", [[], ["A towel."]])
def test_pretraining_on_no_text_is_refused_and_leaves_nothing(texts: list[str], tmp_path: Path) -> None:
    config = replace(SCRATCH, source="pretrain", training=TrainingConfig(learning_rate=0.1, max_steps=1))
    with pytest.raises(ValueError, match='metadata with titles, or set the backbone\'s source to "scratch"'):
        build(config, lambda: texts, tmp_path / "backbone", seed=0)
    assert list(tmp_path.iterdir()) == []


def test_scratch_needs_no_text(tmp_path: Path) -> None:
    build(SCRATCH, list, tmp_path / "backbone", seed=0)
    assert load_decoder(tmp_path / "backbone", (1,))
    assert load_tokenizer(tmp_path / "backbone").encode("anything").ids


def test_local_replaces_what_is_there(scratch: Path, tmp_path: Path) -> None:
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone/stale").touch()
    build(BackboneConfig(source="local", path=scratch), list, tmp_path / "backbone", seed=0)
    assert sorted(path.name for path in (tmp_path / "backbone").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["backbone"]


def copy_without(source: Path, target: Path, *, drop: str = "", **extra: bytes) -> Path:
    target.mkdir()
    for path in source.iterdir():
        if path.name != drop:
            (target / path.name).write_bytes(path.read_bytes())
    for name, content in extra.items():
        (target / name.replace("__", ".")).write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("drop", "extra", "message"),
    [
        ("config.json", {}, "has no config.json"),
        ("tokenizer.json", {}, "has no tokenizer.json"),
        ("model.safetensors", {}, "a file of weights is missing"),
        ("model.safetensors", {"pytorch_model__bin": b"pickle"}, "weights are pickled"),
        ("model.safetensors", {"model__safetensors": b"\x10\0\0\0\0\0\0\0{}"}, "is damaged"),
        ("config.json", {"config__json": b"not json"}, "holds no JSON object"),
        ("config.json", {"config__json": b'{"model_type": "gpt2"}'}, "of type 'gpt2'"),
    ],
)
def test_local_refuses_what_is_no_backbone(
    scratch: Path, tmp_path: Path, drop: str, extra: dict[str, bytes], message: str
) -> None:
    path = copy_without(scratch, tmp_path / "given", drop=drop, **extra)
    target = tmp_path / "backbone"
    with pytest.raises(ValueError, match=message):
        build(BackboneConfig(source="local", path=path), list, target, seed=0)
    assert not target.exists()


def test_shards_are_copied_with_their_index(scratch: Path, tmp_path: Path) -> None:
    path = tmp_path / "given"
    path.mkdir()
    for name, content in sharded(scratch).items():
        (path / name).write_bytes(content)
    build(BackboneConfig(source="local", path=path), list, tmp_path / "backbone", seed=0)
    whole, in_shards = load_decoder(scratch), load_decoder(tmp_path / "backbone")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, in_shards.state_dict()[name])


def sharded(source: Path) -> dict[str, bytes]:
    """The files of a backbone whose weights lie in two shards with an index."""
    tensors = load_file(source / "model.safetensors")
    index = {name: f"model-{1 + number % 2}.safetensors" for number, name in enumerate(sorted(tensors))}
    shards = {
        shard: save({name: tensors[name] for name in index if index[name] == shard}) for shard in set(index.values())
    }
    kept = {name: (source / name).read_bytes() for name in ("config.json", "tokenizer.json")}
    return {**kept, **shards, "model.safetensors.index.json": json.dumps({"weight_map": index}).encode()}


def test_parameters_are_counted_from_the_headers(scratch: Path) -> None:
    """A layer has 4 square maps, 3 of the feed-forward net and 2 norms; the tied table counts once."""
    a_layer = 4 * 16 * 16 + 3 * 16 * 24 + 2 * 16
    assert count_parameters(scratch) == 320 * 16 + 4 * a_layer + 16


@pytest.fixture(scope="module")
def hub(scratch: Path) -> Iterator[tuple[str, list[str]]]:
    """A server that speaks the hub's protocol for its repositories: its address, and what was asked of it.

    `owner/sharded` has its weights in two files with an index, and once more in one that the index doesn't name. The
    two shards of `owner/huge` are said to be large, each allowed by itself; `owner/wordy` has such a tokenizer.
    """
    whole = {path.name: path.read_bytes() for path in scratch.iterdir()}
    whole |= {"pytorch_model.bin": b"pickle", "modeling_evil.py": b"raise SystemExit", "other.safetensors": b"other"}
    repositories = {
        "owner/name": whole,
        "owner/sharded": {**sharded(scratch), "consolidated.safetensors": whole["model.safetensors"]},
        "owner/huge": sharded(scratch),
        "owner/wordy": whole,
    }
    said = {("owner/huge", f"model-{number}.safetensors"): MAXIMUM_BYTES - 1 for number in (1, 2)}
    said["owner/wordy", "tokenizer.json"] = MAXIMUM_BYTES + 1
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            asked.append(self.path.split("?")[0])
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            repository = next((name for name in repositories if f"/{name}/" in path), None)
            files = repositories[repository] if repository else {}
            name = path.removeprefix(f"/{repository}/resolve/{REVISION}/")
            headers, status = {"X-Repo-Commit": REVISION}, 200
            sizes = {name: said.get((repository, name), len(data)) for name, data in files.items()}
            if path == f"/api/models/{repository}/tree/{REVISION}":
                content = json.dumps(
                    [
                        {"type": "file", "path": name, "size": sizes[name], "oid": hashlib.sha1(data).hexdigest()}
                        for name, data in files.items()
                    ]
                ).encode()
                headers["Content-Type"] = "application/json"
            elif name in files:
                content = files[name]
                headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
            else:
                content, status = b"{}", 404
                headers["X-Error-Code"] = "RevisionNotFound" if repository else "RepoNotFound"
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(sizes.get(name, len(content)))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


FROM_HUB = """
import json, sys
from pathlib import Path
from models.backbone.sources import MAXIMUM_BYTES, BackboneConfig, build_backbone
from models.files import staged_directory
from models.training.course import Course
errors = []
for repository, revision, directory in json.loads(sys.argv[1]):
    errors.append("")
    try:
        with staged_directory(Path(directory)) as staged:
            config = BackboneConfig("hub", repository=repository, revision=revision)
            build_backbone(config, list, staged, Course(seed=0), prompt="")
    except ValueError as error:
        errors[-1] = str(error)
json.dump(errors, sys.stdout)
"""


@pytest.fixture(scope="module")
def downloads(hub: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Where the backbones of `wanted` should lie, and the words of each one's error.

    In a process of its own: the hub's address is read from the environment once.
    """
    parent = tmp_path_factory.mktemp("hub")
    wanted = [
        ("owner/name", REVISION),
        ("owner/other", REVISION),
        ("owner/name", "f" * 40),
        ("owner/sharded", REVISION),
        ("owner/huge", REVISION),
        ("owner/wordy", REVISION),
    ]
    builds = [(*pair, str(parent / f"backbone{number}")) for number, pair in enumerate(wanted)]
    return parent, from_hub(builds, HF_ENDPOINT=hub[0], HF_HOME=str(parent / "cache"))


def from_hub(builds: list[tuple[str, str, str]], **variables: str) -> list[str]:
    """Build each, repository, revision and directory, in one process of its own: the words of their errors."""
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **variables}
    finished = subprocess.run(
        [sys.executable, "-c", FROM_HUB, json.dumps(builds)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env=environment,
    )
    errors: list[str] = json.loads(finished.stdout)
    return errors


def test_hub_takes_the_pinned_safe_files_only(
    scratch: Path, hub: tuple[str, list[str]], downloads: tuple[Path, list[str]]
) -> None:
    parent, errors = downloads
    assert errors[0] == ""
    names = {"config.json", "model.safetensors", "tokenizer.json"}
    assert {path.name for path in (parent / "backbone0").iterdir()} == names
    for name in names:
        assert (parent / "backbone0" / name).read_bytes() == (scratch / name).read_bytes()
    assert resolved(hub[1], "owner/name") == names


def test_hub_takes_the_shards_of_the_index_and_no_second_copy(
    scratch: Path, hub: tuple[str, list[str]], downloads: tuple[Path, list[str]]
) -> None:
    parent, errors = downloads
    assert errors[3] == ""
    names = set(sharded(scratch))
    assert {path.name for path in (parent / "backbone3").iterdir()} == names
    assert resolved(hub[1], "owner/sharded") == names
    whole, in_shards = load_decoder(scratch), load_decoder(parent / "backbone3")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, in_shards.state_dict()[name])


def test_hub_refuses_what_is_too_large_before_it_is_fetched(
    hub: tuple[str, list[str]], downloads: tuple[Path, list[str]]
) -> None:
    _, errors = downloads
    for repository, error in zip(("owner/huge", "owner/wordy"), errors[4:], strict=True):
        assert f"{repository} at revision {REVISION}" in error
        assert f"at most {MAXIMUM_BYTES:,} are taken: choose a smaller model, or give a downloaded copy" in error
    assert resolved(hub[1], "owner/huge") == {"config.json", "tokenizer.json", "model.safetensors.index.json"}
    assert resolved(hub[1], "owner/wordy") == set()


def test_the_papers_model_is_not_too_large() -> None:
    """LLaMA-2-7B: 6.74 billion parameters of 2 bytes, and the tokenizer."""
    assert MAXIMUM_BYTES > 2 * 6_738_415_616 + 10_000_000


def resolved(asked: list[str], repository: str) -> set[str]:
    """The files of a repository that were asked for."""
    return {path.rsplit("/", 1)[1] for path in asked if path.startswith(f"/{repository}/resolve/")}


def test_hub_says_what_is_not_there(downloads: tuple[Path, list[str]]) -> None:
    parent, errors = downloads
    assert errors[1].startswith("There is no owner/other at revision")
    assert "check the name, or set HF_TOKEN" in errors[1]
    assert "check the revision" in errors[2]
    assert sorted(path.name for path in parent.iterdir()) == ["backbone0", "backbone3", "cache"]


def test_hub_is_not_needed_for_what_was_fetched(scratch: Path, downloads: tuple[Path, list[str]]) -> None:
    """Nor the cache's list of the repository's files, which versions of huggingface_hub before 2 didn't keep."""
    cache = downloads[0] / "cache"
    for number in range(2):
        again = downloads[0] / f"again{number}"
        said = from_hub([("owner/name", REVISION, str(again))], HF_HUB_OFFLINE="1", HF_HOME=str(cache))
        assert said == [""]
        assert (again / "model.safetensors").read_bytes() == (scratch / "model.safetensors").read_bytes()
        shutil.rmtree(again)
        for trees in cache.rglob("trees"):
            shutil.rmtree(trees)
    assert list(cache.rglob("trees")) == []
