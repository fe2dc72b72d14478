"""The way into MLflow: what it says, what it makes, and what it keeps to itself."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from cofi_tune import connection
from cofi_tune.passwords import without_password


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("http://host:5000/a", "http://host:5000/a"),
        ("http://me:secret@host/a", "http://host/a"),
        ("no postgresql://me:se@cret@host/db there", "no postgresql://host/db there"),
        ("no postgresql://me:se/cr:et@host/db?password=x there", "no postgresql://host/db? there"),
        ("mail me@host about //host/path", "mail me@host about //host/path"),
        ("sqlite:////runs/m@il.db", "sqlite:////runs/m@il.db"),
    ],
)
def test_passwords_go(text: str, plain: str) -> None:
    assert without_password(text) == plain


def test_errors_are_one_line() -> None:
    def line(error: Exception) -> str:
        return connection.explain(error, "http://me:secret@host")

    assert line(ValueError("a  b\nc")) == "a b"
    assert line(KeyError()) == "KeyError"
    assert len(line(ValueError("long " * 1000))) <= 300
    asked = "API request to http://me:secret@host/api failed with exception HTTPConnectionPool(...)"
    assert line(RuntimeError(asked)) == "http://host does not answer"
    remedy = "do this: " + "x" * 400
    assert line(connection.Unusable(remedy)) == remedy


def test_relative_databases_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert connection.absolute("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    for same in ("sqlite:////a/b.db", "http://me:secret@host", "postgresql://me:secret@host/db", "sqlite://"):
        assert connection.absolute(same) == same


def test_one_makes_a_database_at_a_time(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/some.db"
    events: list[str] = []

    def second() -> None:
        with connection.making(uri) as path:
            assert path == tmp_path / "some.db"
            events.append("second")

    with connection.making(uri):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        events.append("first")
    thread.join()
    assert events == ["first", "second"]


def test_nothing_is_locked_for_others(tmp_path: Path) -> None:
    with connection.making("http://host/db") as path, connection.making("http://host/db"):
        assert path is None
    missing = tmp_path / "no" / "such.db"
    with connection.making(f"sqlite:///{missing}") as path:
        assert path == missing
    assert list(tmp_path.iterdir()) == []


def test_a_database_is_made_whole(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db.0123.new").write_text("half of one, left by a kill")
    (tmp_path / "mlflow.db").touch()  # as `tempfile` makes them
    client = connection.connect(f"sqlite:///{tmp_path}/mlflow.db")
    number = connection.experiment(client, "one", tmp_path.as_uri())
    assert connection.experiment(client, "one", None) == number
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_a_copied_database_writes_where_it_is(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    client = connection.connect(f"sqlite:///{first}/mlflow.db", first / connection.ARTIFACTS)
    number = connection.experiment(client, "s", (first / connection.ARTIFACTS).absolute().as_uri())
    run = client.create_run(number).info
    client.log_text(run.run_id, "one", "a.txt")
    shutil.copytree(first, second)
    copied = connection.connect(f"sqlite:///{second}/mlflow.db", second / connection.ARTIFACTS)
    here = (second / connection.ARTIFACTS).absolute().as_uri()
    assert copied.get_run(run.run_id).info.artifact_uri == run.artifact_uri.replace(
        (first / connection.ARTIFACTS).absolute().as_uri(), here
    )
    assert [file.path for file in copied.list_artifacts(run.run_id)] == ["a.txt"]
    own = copied.create_run(number).info.artifact_uri
    assert own.startswith(here)
