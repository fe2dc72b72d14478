"""An output that is a URL: work is done on a copy on this machine's disk, what is worth keeping goes there.

A file is there whole or not at all. A directory is there once a list of its files, `<directory>.whole`, is,
which is written last and removed first. Credentials are the environment's own, and pass through no hand here.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cofi_tune import remedies

SCHEMES = ("s3", "gs", "file")
"""What pyarrow opens: Amazon and what speaks its language, Google, and a directory of all machines."""
WHOLE = ".whole"
OUTAGE_SECONDS, RETRY_SECONDS = 60.0, 2.0
"""How long a network that is gone is waited for; Google's client would take 15 minutes, deaf to Ctrl-C."""
_gone_since: dict[str, float] = {}
"""Since when a URL does not answer: an outage is waited for once, and not by each call."""

T = TypeVar("T")


class Away(OSError):  # noqa: N818
    """The URL cannot be used; the text says why, and what to do."""


def is_url(output: str) -> bool:
    """Whether `--output` is no directory's name."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|(s3|gs|file):/", output) is not None


def of_url(url: str) -> Mirror:
    """The mirror of an output; its working copy is a directory of the user's cache, named after the URL.

    Args:
        url: such as `s3://bucket/runs`.

    Raises:
        ValueError: it cannot be one.
    """
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        raise ValueError(f"--output {url}: a URL has two slashes, such as s3://bucket/runs")
    if (scheme := scheme.lower()) not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise ValueError(f"--output {scheme}://...: unknown; give a directory, or one of {known}")
    if "@" in rest or "?" in rest:
        raise ValueError(
            f"--output {scheme}://...: credentials and settings belong into the environment, since this "
            "address is kept and shown"
        )
    if not rest.strip("/"):
        raise ValueError(f"--output {url}: name a bucket, such as {scheme}://bucket/runs")
    place = f"{scheme}://{rest.rstrip('/')}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cofi_tune"
    plain = re.sub(r"[^A-Za-z0-9]+", "-", rest).strip("-")[:60]
    return Mirror(place, (cache / f"{plain}-{hashlib.sha256(place.encode()).hexdigest()[:8]}").absolute())


@dataclass(frozen=True)
class Mirror:
    """Files below a directory of this machine, and those of the same names below a URL."""

    place: str
    local: Path

    def put(self, path: Path) -> None:
        """Copy a file, or a directory with all in it, to the URL, in place of what is there.

        Raises:
            Away: the URL cannot be used, for a minute at least.
            OSError: the file cannot be read.
        """
        if not path.is_dir():
            self._patiently(lambda: self._upload(path, self._name(path)))
            return
        files = sorted(file for file in path.rglob("*") if file.is_file())
        self._remove_file(self._name(path) + WHOLE)
        for file in files:
            self.put(file)
        sizes = {str(file.relative_to(path)): file.stat().st_size for file in files}
        self._patiently(lambda: self._write(self._name(path) + WHOLE, json.dumps(sizes).encode()))

    def get(self, path: Path, *, again: bool = False) -> bool:
        """Bring a file or a whole directory here, unless it is here.

        Args:
            path: where it belongs.
            again: a file: even if it is here.

        Returns:
            Whether it is here now.

        Raises:
            Away: the URL cannot be used, for a minute at least.
            OSError: the disk is full, say.
        """
        if path.exists() and not again:
            return True
        sizes = self._patiently(lambda: self._sizes(self._name(path)))
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".get-{path.name}-{uuid.uuid4().hex[:8]}")
        try:
            if sizes is None:
                self._patiently(lambda: self._download(self._name(path), beside))
                os.replace(beside, path)
                return True
            for name, size in sizes.items():
                file = beside / name
                file.parent.mkdir(parents=True, exist_ok=True)
                self._patiently(functools.partial(self._download, f"{self._name(path)}/{name}", file))
                if file.stat().st_size != size:
                    return False  # another one was put there meanwhile
            beside.rename(path)
            return True
        except FileNotFoundError:
            return path.exists()
        except OSError:
            if not path.is_dir():  # else somebody was quicker
                raise
            return True
        finally:
            if beside.is_dir():
                shutil.rmtree(beside, ignore_errors=True)
            else:
                beside.unlink(missing_ok=True)

    def names(self, directory: Path) -> list[str]:
        """What is at the URL in place of a directory's files and whole directories, in order."""
        found = self._patiently(lambda: self._listed(self._name(directory)))
        whole = [name.removesuffix(WHOLE) for name, _ in found if name.endswith(WHOLE)]
        return sorted(whole + [name for name, is_file in found if is_file and not name.endswith(WHOLE)])

    def directories(self, directory: Path) -> list[str]:
        """What is at the URL in place of a directory's directories, whole or not, in order."""
        found = self._patiently(lambda: self._listed(self._name(directory)))
        return sorted(name for name, is_file in found if not is_file)

    def changed_ns(self, path: Path) -> int | None:
        """When a file at the URL was written, by the clock there; None if there is none.

        Raises:
            Away: the URL cannot be used; it is asked once.
        """
        info = self._patiently(lambda: self._system.get_file_info(self._name(path)), seconds=0)
        return int(info.mtime_ns or 0) if info.is_file else None

    def drop(self, path: Path) -> None:
        """Remove a file or a directory at the URL, if it is there."""
        name = self._name(path)
        self._remove_file(name + WHOLE)
        self._remove_file(name)

        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._system.delete_dir(name)

        if self._patiently(lambda: self._listed(name)):
            self._patiently(remove)

    def url(self, path: Path) -> str:
        """Of what stands there for a path."""
        return "/".join((self.place, *path.absolute().relative_to(self.local).parts))

    def artifacts(self, tracking_uri: str) -> str | None:
        """URL of MLflow's artifacts; None where they go the way of its database, to this machine's disk.

        Args:
            tracking_uri: of MLflow, which reaches S3 in its own way and needs boto3 for it.

        Raises:
            ValueError: boto3 is not here.
        """
        if not self.place.startswith("s3://") or tracking_uri.startswith("sqlite"):
            return None
        if importlib.util.find_spec("boto3") is None:
            raise ValueError("MLflow needs boto3 to keep artifacts in s3://: pip install 'cofi-tune[s3]'")
        return f"{self.place}/mlartifacts"

    def check(self) -> None:
        """See that the URL can be listed, written and deleted from.

        Raises:
            Away: it cannot.
        """
        probe = self.local / f".writable-{uuid.uuid4().hex[:8]}"
        self._patiently(lambda: self._write(self._name(probe), b"1"), seconds=0)
        self.names(self.local)
        self._remove_file(self._name(probe))

    @property
    def _system(self) -> Any:
        return _opened(self.place)[0]

    def _name(self, path: Path) -> str:
        relative = path.absolute().relative_to(self.local)
        return "/".join((_opened(self.place)[1].rstrip("/"), *relative.parts))

    def _patiently(self, act: Callable[[], T], seconds: float | None = None) -> T:
        while True:
            try:
                done = act()
                _gone_since.pop(self.place, None)
                return done
            except OSError as error:
                if error.errno is not None or isinstance(error, FileNotFoundError):
                    raise  # the disk's, not the network's
                remedy = remedies.of(error)
                now = time.monotonic()
                since = _gone_since.setdefault(self.place, now)
                if remedy is None and now - since < (OUTAGE_SECONDS if seconds is None else seconds):
                    time.sleep(RETRY_SECONDS)
                    continue
                silent = f"it does not answer ({remedies.line(error)}); once it does, run the same command"
                raise Away(f"--output {self.place}: {remedy or silent}") from error

    def _listed(self, name: str) -> list[tuple[str, bool]]:
        from pyarrow.fs import FileSelector

        found = self._system.get_file_info(FileSelector(name, allow_not_found=True))
        return [(info.base_name, info.is_file) for info in found]

    def _sizes(self, name: str) -> dict[str, int] | None:
        try:
            with self._system.open_input_stream(name + WHOLE) as stream:
                return dict(json.loads(stream.read()))
        except FileNotFoundError:
            return None

    def _upload(self, path: Path, name: str) -> None:
        with path.open("rb") as file:
            self._write(name, file)

    def _write(self, name: str, content: Any) -> None:
        if self.place.startswith("file://"):  # has directories, and no files that are whole or not there
            self._system.create_dir(name.rpartition("/")[0])
            beside = f"{name}.{uuid.uuid4().hex[:8]}.new"
            _pour(self._system, content, beside)
            self._system.move(beside, name)
        else:
            _pour(self._system, content, name)

    def _download(self, name: str, path: Path) -> None:
        if not self._system.get_file_info(name).is_file:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        with self._system.open_input_stream(name) as stream, path.open("wb") as file:
            shutil.copyfileobj(stream, file, 2**20)

    def _remove_file(self, name: str) -> None:
        def remove() -> None:
            if self._system.get_file_info(name).is_file:
                self._system.delete_file(name)

        self._patiently(remove)


@functools.cache
def _opened(place: str) -> tuple[Any, str]:
    from pyarrow import fs

    try:
        quick = "?retry_limit_seconds=5" if place.startswith("gs://") else ""
        system, path = fs.FileSystem.from_uri(place + quick)
    except ValueError as error:
        raise Away(f"--output {place}: {remedies.line(error)}") from error
    return system, str(path)


def _pour(system: Any, content: Any, name: str) -> None:
    with system.open_output_stream(name) as stream:
        if isinstance(content, bytes):
            stream.write(content)
        else:
            content.seek(0)
            shutil.copyfileobj(content, stream, 2**20)
