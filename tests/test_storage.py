"""The database of studies: made by many at once, old, broken, or full of names."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from cofi_tune.optuna_study import open_study
from cofi_tune.storage import fresh_name, open_storage

MAKE = """
import sys, time
from cofi_tune.optuna_study import open_study
while time.time() < float(sys.argv[3]):
    pass
study = open_study(sys.argv[1], sys.argv[2], {"task": "x"})
study.tell(study.ask(), [1.0, 2.0])
"""


@pytest.mark.long
def test_searches_that_start_at_once_on_a_fresh_database_all_succeed(tmp_path: Path) -> None:
    start = str(time.time() + 4)
    storage = f"sqlite:///{tmp_path}/optuna.db"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE, storage, f"study-{number}", start], stderr=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, errors
    assert len(optuna.get_all_study_summaries(storage)) == 4


def test_old_tables_are_brought_up_to_date(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/optuna.db"
    made = open_storage(storage)
    made._version_manager._set_alembic_revision("v3.0.0.d")
    with pytest.raises(RuntimeError, match="storage upgrade"):
        optuna.storages.RDBStorage(storage)
    open_storage(storage)
    optuna.storages.RDBStorage(storage)


def test_database_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_text("this is no database, but text of some length" * 100)
    for storage in (f"sqlite:///{tmp_path}/optuna.db", f"sqlite:///{tmp_path}/no/optuna.db", "nosuch://x"):
        with pytest.raises(OSError, match=r"database \(--storage\) cannot be used") as caught:
            open_study(storage, "s", {})
        assert str(caught.value).count("cannot be used") == 1


def test_fresh_names(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/optuna.db"
    assert fresh_name("s", tmp_path, storage) == "s"
    assert fresh_name("s", tmp_path, storage) == "s-2", "its directory is there"
    open_study(storage, "s-3", {})
    assert fresh_name("s", tmp_path, storage) == "s-4", "the storage has s-3"
