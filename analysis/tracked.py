"""Runs as MLflow keeps them: a database is read directly and read-only, a server through its interface.

MLflow's own client takes minutes for 10,000 runs of a database, since it makes an object of every value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from analysis.runs import Curves, Run, trial_of
from cofi_tune.database import sqlite_file
from cofi_tune.passwords import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

STUDY_TAGS = ("cofi.study", "cofi.study_id", "cofi.task")
PAGE = 1000


@dataclass(frozen=True)
class Known:
    """A study that MLflow has runs of."""

    name: str
    uid: str
    task: str
    experiment_id: str
    started_ms: int
    """When its latest run started."""


class Database:
    """A database of MLflow's. Tables: experiments, runs, params, tags, latest_metrics, metrics."""

    def __init__(self, uri: str, output: Path | None = None) -> None:
        """Open it.

        Args:
            uri: of the database.
            output: of the searches, where their files are too: MLflow knows only where they were written.

        Raises:
            ValueError: there is none at this place, or it is none of MLflow's.
        """
        self.uri, self.output = uri, output
        path = sqlite_file(uri)
        if path is not None and not path.is_file():
            raise ValueError(f"{without_password(uri)}: no such file; has a search been made here?")
        self.chosen: list[Known] = []

    def studies(self) -> list[Known]:
        """Every study with runs, the latest last."""
        asked = ", ".join(f"max(case when t.key = '{key}' then t.value end)" for key in STUDY_TAGS)
        rows = self._query(
            f"select {asked}, r.experiment_id, r.start_time from runs r "
            "join tags t on t.run_uuid = r.run_uuid "
            "where r.lifecycle_stage = 'active' and t.key in ('cofi.study', 'cofi.study_id', 'cofi.task') "
            "group by r.run_uuid, r.experiment_id, r.start_time"
        )
        return _latest(
            Known(name, uid, task, str(experiment), int(started or 0))
            for name, uid, task, experiment, started in rows
            if name and uid and task
        )

    def runs(self) -> list[Run]:
        """See `analysis.runs.Source`."""
        return [run for study in self.chosen for run in self._runs_of(study)]

    def _runs_of(self, study: Known) -> list[Run]:
        of_study = (
            "run_uuid in (select r.run_uuid from runs r join tags t on t.run_uuid = r.run_uuid "
            "where r.experiment_id = {0} and r.lifecycle_stage = 'active' "
            "and t.key = 'cofi.study_id' and t.value = {0})"
        )
        about = (study.experiment_id, study.uid)
        places = self._query(f"select run_uuid, name, artifact_uri from runs where {of_study}", about)
        held: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
            run_id: ({}, {}, {}) for run_id, _, _ in places
        }
        for number, source in enumerate(("params", "latest_metrics", "tags")):
            for run_id, key, value in self._query(
                f"select run_uuid, key, value from {source} where {of_study}", about
            ):
                if run_id in held:  # else it was made between two queries
                    held[run_id][number][key] = value
        return [Run(run_id, name or "", *held[run_id], place=uri or "") for run_id, name, uri in places]

    def curves(self, runs: Sequence[Run]) -> dict[str, Curves]:
        """See `analysis.runs.Source`."""
        found: dict[str, Curves] = {run.run_id: {} for run in runs}
        for run_id in found:
            rows = self._query(
                "select distinct key, step, value from metrics where run_uuid = {0} and step > 0 "
                "order by key, step",
                (run_id,),
            )
            for key, step, value in rows:
                found[run_id].setdefault(key, []).append((int(step), float(value)))
        return found

    def artifact(self, run: Run, name: str) -> bytes | None:
        """See `analysis.runs.Source`."""
        parts = urlsplit(run.place)
        if parts.scheme not in ("", "file"):
            return _downloaded(self._client(), run, name)
        path = Path(unquote(parts.path)) / name
        if self.output is not None:
            study, trial = _plain(run.tags.get("cofi.study", "")), _plain(trial_of(run))
            at_hand = self.output / study / "trials" / trial / name
            path = at_hand if at_hand.is_file() else path
        return path.read_bytes() if path.is_file() else None

    def _client(self) -> MlflowClient:
        from cofi_tune import connection

        return connection.connect(self.uri)

    def _query(self, text: str, values: Sequence[str] = ()) -> list[Any]:
        """All rows of a query; `{0}` stands for each value in turn, however this database writes that."""
        with self._connected() as (connection, mark), closing(connection.cursor()) as cursor:
            cursor.execute(text.replace("{0}", mark), tuple(values))
            return list(cursor.fetchall())

    @contextmanager
    def _connected(self) -> Iterator[tuple[Any, str]]:
        path = sqlite_file(self.uri)
        try:
            if path is not None:
                import sqlite3

                with closing(
                    sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
                ) as db:
                    yield db, "?"
            else:
                import sqlalchemy

                engine = sqlalchemy.create_engine(self.uri, poolclass=sqlalchemy.NullPool)
                with closing(engine.raw_connection()) as raw:
                    yield raw, "%s"
        except Exception as error:  # every driver has its own
            raise ValueError(without_password(f"{self.uri} cannot be read: {_line(error)}")) from error


class Server:
    """An MLflow server."""

    def __init__(self, uri: str) -> None:
        """Nothing is asked yet."""
        from cofi_tune import connection

        self.uri = uri
        self.chosen: list[Known] = []
        self.client = connection.connect(uri)

    def studies(self) -> list[Known]:
        """Every study with runs, the latest last."""
        with self._asked():
            found = []
            for experiment in self.client.search_experiments():
                for run in self.client.search_runs(
                    [experiment.experiment_id], "tags.`cofi.study_id` != ''", max_results=1
                ):
                    tags = run.data.tags
                    name, uid, task = (tags.get(key, "") for key in STUDY_TAGS)
                    found.append(Known(name, uid, task, experiment.experiment_id, run.info.start_time or 0))
            return _latest(found)

    def runs(self) -> list[Run]:
        """See `analysis.runs.Source`."""
        with self._asked():
            return [
                Run(
                    run.info.run_id,
                    run.info.run_name or "",
                    run.data.params,
                    run.data.metrics,
                    run.data.tags,
                    run.info.artifact_uri or "",
                )
                for study in self.chosen
                for run in self._pages(study)
            ]

    def _pages(self, study: Known) -> Iterator[Any]:
        token: str | None = None
        while token != "":
            page = self.client.search_runs(
                [study.experiment_id],
                f"tags.`cofi.study_id` = '{study.uid}'",
                max_results=PAGE,
                page_token=token,
            )
            yield from page
            token = page.token or ""

    def curves(self, runs: Sequence[Run]) -> dict[str, Curves]:
        """See `analysis.runs.Source`."""
        with self._asked():
            return {run.run_id: self._curves(run) for run in runs}

    def _curves(self, run: Run) -> Curves:
        found: Curves = {}
        for name in sorted(run.metrics):
            points = {(m.step, m.value) for m in self.client.get_metric_history(run.run_id, name)}
            if curve := sorted(point for point in points if point[0] > 0):
                found[name] = curve
        return found

    def artifact(self, run: Run, name: str) -> bytes | None:
        """See `analysis.runs.Source`."""
        with self._asked():
            return _downloaded(self.client, run, name)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        from cofi_tune import connection

        try:
            yield
        except Exception as error:  # MLflow's clients and servers have one each
            line = connection.explain(error, self.uri)
            raise ValueError(f"MLflow cannot be read ({line}); is --tracking-uri right?") from error


def connect(uri: str, output: Path | None = None) -> Database | Server:
    """The source of a tracking URI; choose studies before anything is read.

    Args:
        uri: of a database (`sqlite:///...`, `postgresql://...`) or a server (`http://...`).
        output: of the searches, if it is at hand.

    Raises:
        ValueError: it cannot be used.
    """
    return Server(uri) if uri.startswith(("http://", "https://")) else Database(uri, output)


def choose(known: Sequence[Known], names: Sequence[str], task: str | None) -> list[Known]:
    """The studies that were asked for.

    Args:
        known: all, the latest last.
        names: of studies; none: the latest, of this task if one is given.
        task: its name.

    Raises:
        ValueError: there is none such; names what there is.
    """
    from cofi_tune.data.names import closest

    there = ", ".join(study.name for study in known) or "none"
    by_name = {study.name: study for study in known}
    for name in names:
        if name not in by_name:
            near = closest(name, by_name)
            hint = f"; did you mean {near}?" if near else ""
            raise ValueError(f"--study {name}: no runs of such a study{hint} (studies: {there})")
    if names:
        return [by_name[name] for name in dict.fromkeys(names)]
    of_task = [study for study in known if task in (None, study.task)]
    if not of_task:
        tasks = ", ".join(sorted({study.task for study in known})) or "none"
        raise ValueError(f"--task {task}: no study of this task (tasks that were searched: {tasks})")
    return of_task[-1:]


def _latest(found: Iterable[Known]) -> list[Known]:
    """One for each name: a study that was made anew under an old name is the one that counts."""
    by_name: dict[str, Known] = {}
    for study in found:
        if study.name not in by_name or study.started_ms >= by_name[study.name].started_ms:
            by_name[study.name] = study
    return sorted(by_name.values(), key=lambda study: (study.started_ms, study.name))


def _downloaded(client: MlflowClient, run: Run, name: str) -> bytes | None:
    import tempfile

    if name not in {file.path for file in client.list_artifacts(run.run_id)}:
        return None
    with tempfile.TemporaryDirectory() as directory:
        return Path(client.download_artifacts(run.run_id, name, directory)).read_bytes()


def _plain(name: str) -> str:
    """A name that is no way out of a directory."""
    return Path(name.replace("\0", "")).name or "-"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
