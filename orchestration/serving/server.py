"""`make serve`: the process around the application: its address, its threads, its end."""

import signal
import socket
import sys

import uvicorn

from assets.configuration.domains import find_domain, load_domains
from assets.registry.champion import champion_of
from assets.workspace import home
from orchestration.definitions import domain_files
from orchestration.serving.app import make_app
from orchestration.serving.following import Champion
from orchestration.serving.model import load_version
from orchestration.serving.request_log import RequestLog, log_key

BACKLOG, MOST_CONNECTIONS = 1024, 512
"""Connections that wait to be accepted; and that are open at once, more being answered with 503 (ours)."""
LAST_SECONDS = 10
"""How long requests that are being answered may take after SIGTERM."""


def serve(domain: str, host: str, port: int) -> int:
    """Answer requests with the domain's champion until SIGTERM or Ctrl-C.

    Args:
        domain: its name.
        host: the address to listen at; 127.0.0.1 is this machine alone.
        port: 0 takes a free one.

    Raises:
        ValueError: if there is no such domain, the address can't be had, or the domain has no champion that can be
            loaded.
    """
    find_domain(load_domains(domain_files()), domain)
    home.prepare_home()
    with _bound(host, port) as listening:
        version = champion_of(domain)
        if version is None:
            raise ValueError(f"{domain} has no champion to serve: make promote DOMAIN={domain} REASON=… makes one.")
        try:
            model = load_version(version)
        except Exception as error:
            raise ValueError(
                f"The champion of {domain}, version {version.version} of {version.name}, can't be loaded ({error}): "
                f"make rollback DOMAIN={domain} REASON=… goes back to the one before it."
            ) from error
        port = listening.getsockname()[1]
        log = RequestLog(home.serving_directory() / domain / f"{port}.jsonl", log_key())
        listening.listen(BACKLOG)
        sys.stdout.write(
            f"{version.name} version {version.version}: http://{_shown(host)}:{port}/recommend\nCtrl-C ends it.\n"
        )
        sys.stdout.flush()
        answer_until_stopped(Champion(domain, model), log, listening)
    return 0


def answer_until_stopped(champion: Champion, log: RequestLog, listening: socket.socket) -> None:
    """Answer what comes in at the socket, until SIGTERM or Ctrl-C; then what is being answered is finished."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn ends by itself, and raises the signal once more at the end
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(champion, log),
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=LAST_SECONDS,
        )
    )
    server.run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    """A socket with this address, which doesn't listen yet."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"HOST={host} is no address of this machine ({error}): leave it out for 127.0.0.1.") from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ValueError(
            f"Port {port} of {host} can't be had ({error.strerror}): choose another, as in make serve PORT={port + 1}."
        ) from error
    return bound


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
