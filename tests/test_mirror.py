"""An output that is a URL, here of a directory: files are there whole or not at all, and come back."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from cofi_tune import mirror
from cofi_tune.mirror import Away, Mirror, of_url


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def here(place: Path) -> Mirror:
    made = of_url(f"file://{place}/runs")
    made.local.mkdir(parents=True)
    return made


def directory(here: Mirror, name: str, **files: str) -> Path:
    made = here.local / name
    made.mkdir(parents=True)
    for file, text in files.items():
        (made / file).write_text(text)
    return made


def test_files_and_directories_go_and_come_back(here: Mirror, place: Path) -> None:
    path = directory(here, "s/model", config="c", weights="w")
    (path / "more").mkdir()
    (path / "more" / "deep").write_text("d")
    here.put(path)
    here.put(path / "config")
    assert here.names(path.parent) == ["model"]
    other = Mirror(here.place, here.local.with_name("fresh"))
    assert other.get(other.local / "s" / "model")
    assert (other.local / "s/model/more/deep").read_text() == "d"
    assert other.get(other.local / "s/model"), "it is here"
    assert not other.get(other.local / "s/nothing")
    assert [path.name for path in (other.local / "s").iterdir()] == ["model"]
    here.drop(path)
    assert here.names(path.parent) == []
    here.drop(path)
    assert not list((place / "runs" / "s").iterdir())


def test_directory_without_its_last_word_is_not_there(here: Mirror, place: Path) -> None:
    path = directory(here, "step-1", state="long", manifest="m")
    here.put(path)
    (place / "runs" / "step-1.whole").unlink()
    fresh = Mirror(here.place, here.local.with_name("fresh"))
    assert not fresh.get(fresh.local / "step-1")
    assert fresh.names(fresh.local) == []
    assert fresh.directories(fresh.local) == ["step-1"]
    here.put(path)
    (place / "runs" / "step-1" / "state").write_text("torn")
    assert fresh.get(fresh.local / "step-1"), "of the same size: its own manifest tells"
    (place / "runs" / "step-1" / "state").write_text("shorter"[:2])
    again = Mirror(here.place, here.local.with_name("again"))
    assert not again.get(again.local / "step-1")
    assert not list(again.local.glob("*")), "nothing half"


def test_a_file_is_fetched_again_only_if_asked(here: Mirror) -> None:
    file = directory(here, "s", a="old") / "a"
    here.put(file)
    file.write_text("new")
    assert here.get(file)
    assert file.read_text() == "new"
    assert here.get(file, again=True)
    assert file.read_text() == "old"
    assert here.changed_ns(file) is not None
    assert here.changed_ns(file.with_name("b")) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/runs", "ftp://...: unknown; give a directory, or one of s3://"),
        ("s3://key:secret@bucket/runs", "belong into the environment"),
        ("s3://bucket/runs?endpoint_override=x", "belong into the environment"),
        ("s3:/bucket/runs", "two slashes, such as s3://bucket/runs"),
        ("s3://", "name a bucket, such as s3://bucket/runs"),
    ],
)
def test_what_is_no_output_is_refused_without_its_secrets(url: str, words: str) -> None:
    assert mirror.is_url(url)
    with pytest.raises(ValueError, match="--output") as caught:
        of_url(url)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_directories_are_no_urls() -> None:
    assert not any(mirror.is_url(name) for name in ("runs", "/a/b", "../x", "a:b", "C:/x"))


class Flaky:
    """A file system whose first answers are errors."""

    def __init__(self, errors: list[OSError]) -> None:
        self.errors, self.asked = errors, 0

    def get_file_info(self, what: Any) -> list[Any]:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return []


@pytest.fixture
def flaky(here: Mirror, monkeypatch: pytest.MonkeyPatch) -> Flaky:
    made = Flaky([])
    monkeypatch.setattr(mirror, "OUTAGE_SECONDS", 5.0)
    monkeypatch.setattr(mirror, "_opened", lambda place: (made, "/runs"))
    monkeypatch.setattr(mirror, "RETRY_SECONDS", 0.01)
    return made


def test_short_outages_are_waited_for(here: Mirror, flaky: Flaky) -> None:
    flaky.errors = [OSError("AWS Error NETWORK_CONNECTION during ListObjectsV2")] * 3
    assert here.names(here.local) == []
    assert flaky.asked == 4


def test_long_ones_end_in_words(here: Mirror, flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "OUTAGE_SECONDS", 0.1)
    flaky.errors = [OSError("AWS Error NETWORK_CONNECTION during ListObjectsV2")] * 1000
    with pytest.raises(Away, match=r"--output file://.*does not answer \(AWS.*run the same command"):
        here.names(here.local)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload", "there is no such bucket"),
        ("AWS Error ACCESS_DENIED during ListObjectsV2 operation", "must be allowed to list, read, write"),
    ],
)
def test_what_waiting_does_not_cure_is_said_at_once(
    here: Mirror, flaky: Flaky, said: str, words: str
) -> None:
    flaky.errors = [OSError(said)] * 2
    with pytest.raises(Away, match=words):
        here.names(here.local)
    assert flaky.asked == 1


def test_a_full_disk_is_no_outage(here: Mirror, flaky: Flaky) -> None:
    flaky.errors = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]
    with pytest.raises(OSError, match="No space") as caught:
        here.names(here.local)
    assert not isinstance(caught.value, Away)
