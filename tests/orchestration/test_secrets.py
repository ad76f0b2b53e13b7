"""Secrets are the environment's: whatever a run writes or says holds none of them."""

from pathlib import Path

import pytest

from tests.orchestration.workplace import Workplace, make_workplace
from tests.tracking_server import TrackingServer

PASSWORD, KEY, PHRASE = "pa55word-of-ann", "AKIA/key+of=ann", "phrase-of-ann"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": KEY,
    "AWS_SESSION_TOKEN": f"{KEY}-session",
    "SLMREC_WEBHOOK_TOKEN": PHRASE,
    "PGPASSWORD": PHRASE,
}


def files_with(folder: Path, *secrets: str) -> list[str]:
    """Every file below the folder that holds one of them, as bytes; Dagster's and MLflow's databases among them."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    bodies = ((str(path.relative_to(folder)), path.read_bytes()) for path in files)
    return [name for name, body in bodies if any(secret.encode() in body for secret in secrets)]


@pytest.fixture(scope="module")
def with_secrets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, str, TrackingServer]:
    """The chain with secrets all around, over a tracking server; what it said, and the server's folder."""
    place = make_workplace(tmp_path_factory.mktemp("secrets"))
    with TrackingServer(tmp_path_factory.mktemp("server")) as server:
        uri = f"http://ann:{PASSWORD}@127.0.0.1:{server.port}"
        done = place.chain(MLFLOW_TRACKING_URI=uri, **SECRETS)
    assert done.returncode == 0, done.stderr[-5000:]
    return place, done.stdout + done.stderr, server


def test_no_secret_is_left_in_the_home_or_at_the_server(with_secrets: tuple[Workplace, str, TrackingServer]) -> None:
    place, _, server = with_secrets
    secrets = [*SECRETS.values(), PASSWORD]
    assert files_with(place.home, *secrets) == []
    assert files_with(server.folder, *secrets) == []
    assert files_with(place.home, f"{server.uri}/#/experiments") != [], "the control: links are there"
    assert files_with(server.folder, "slmrec-tiny-student") != [], "the control: versions are there"


def test_no_secret_is_said(with_secrets: tuple[Workplace, str, TrackingServer]) -> None:
    _, said, _ = with_secrets
    assert "challenger" in said
    assert [secret for secret in (*SECRETS.values(), PASSWORD) if secret in said] == []


@pytest.mark.parametrize(
    "uri", [f"http://ann:{PASSWORD}@127.0.0.1:9", f"postgresql+psycopg2://ann:{PASSWORD}@127.0.0.1:9/runs"]
)
def test_a_store_that_is_not_reached_is_named_without_its_password(workplace: Workplace, uri: str) -> None:
    done = workplace.chain(MLFLOW_TRACKING_URI=uri)
    assert done.returncode != 0
    assert "127.0.0.1:9" in done.stderr or "No module named 'psycopg2'" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert files_with(workplace.home, PASSWORD) == []


def test_a_domain_whose_source_holds_a_password_starts_nothing(workplace: Workplace) -> None:
    (workplace.folder / "domains.yaml").write_text(
        f"tiny: {{title: T, source: {{kind: https, reviews: ['https://ann:{PASSWORD}@127.0.0.1/reviews.json.gz']}}}}\n"
    )
    done = workplace.chain()
    assert done.returncode == 2
    assert "https://127.0.0.1/reviews.json.gz" in done.stderr
    assert "NETRC" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert not workplace.home.exists()
