"""A study's models timed again, on this machine: nothing is trained.

Each model is paired with the dense model, one after the other, on the rows that a search times. The timings
are kept under a contract of their own, so that they share no front with the search's or another machine's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from cofi_tune import machine, optuna_study, timings
from cofi_tune.optuna_study import Finished
from cofi_tune.records import SCENARIOS, Measurement
from cofi_tune.storage import database_errors
from cofi_tune.timings import Timing

if TYPE_CHECKING:
    from cofi_tune.data.encoded import EncodedSplit
    from cofi_tune.modeling_cofi import CofiForSequenceClassification

BATCH = 32
"""Rows of a throughput batch, as a search times them."""
TimedAgain = tuple[Finished, Timing]


def retime(
    study: optuna.Study,
    output: Path,
    *,
    device: str = "cpu",
    num_threads: int | None = None,
    throughput_rows: int = BATCH,
    note: Callable[[TimedAgain], None] = lambda timed: None,
) -> list[TimedAgain]:
    """Time every finished model of a study on this machine, paired with its dense model.

    Args:
        study: which; no search of it may run meanwhile.
        output: of its search; has `data/`, `teachers/` and `<study>/trials/`.
        device: "cpu", "cuda" or "cuda:N".
        num_threads: of the CPU, for this process from here on; None: all cores.
        throughput_rows: of a batch of the scenario "throughput".
        note: told each model that was timed, as soon as that is kept.

    Returns:
        The trials that were timed, with what was kept in `<trial>/timings/`, in the order of trials. Trials
        whose model is gone are left out, with a warning.

    Raises:
        ValueError: there is nothing to time, or no dense model or data to time it with.
        OSError: timings cannot be written, or memory runs out.
    """
    import torch

    from cofi_tune import latency, process_memory, worker
    from cofi_tune.timed import made_on

    torch.set_num_threads(num_threads or machine.this_machine().cpus)
    worker.quiet_libraries()
    over = _complete(study)
    dev, dense = _to_compare_with(study, output, device)
    if throughput_rows > max(BATCH, len(dev)):
        raise ValueError(f"--batch {throughput_rows}: there are only {len(dev)} rows to time; give fewer")
    more = {"throughput_rows": throughput_rows, "timed": "again", "alone": "yes"}
    here = made_on(device) | more
    timed = []
    for one, measured in over:
        directory = output / study.study_name / "trials" / one.asked.trial_id
        try:
            model = _load(directory / "model", device)
        except ValueError as error:
            warnings.warn(f"{one.asked.trial_id} is not timed: {error}", stacklevel=2)
            continue
        try:
            taken = latency.measure(model, dense, dev, SCENARIOS[:2], throughput_rows=throughput_rows)
        except (RuntimeError, MemoryError) as error:
            if not worker.is_out_of_memory(error):
                raise
            raise OSError(
                f"memory ran out on {device}; give fewer rows than --batch {throughput_rows}"
            ) from error
        timed.append((one, timings.save(directory, {**measured.contract, **here}, taken)))
        note(timed[-1])
        process_memory.free_memory()
    if not timed:
        raise ValueError(f"{study.study_name}: none of its models is there; put them back, or search again")
    return timed


def _complete(study: optuna.Study) -> list[tuple[Finished, Measurement]]:
    """The trials that gave a model.

    Raises:
        ValueError: there is none.
    """
    with database_errors():
        over = optuna_study.finished(study)
    found = [(one, one.outcome.measurement) for one in over if one.outcome.measurement is not None]
    if not found:
        raise ValueError(f"{study.study_name}: no trial has given a model yet, so there is nothing to time")
    return found


def _to_compare_with(
    study: optuna.Study, output: Path, device: str
) -> tuple[EncodedSplit, CofiForSequenceClassification]:
    """The dev rows that a search times, and the dense model.

    Raises:
        ValueError: they are not where the search left them.
    """
    from cofi_tune.data.encoded import open_encoded

    remembered: dict[str, Any] = study.user_attrs
    tags = (remembered.get("tracking") or {}).get("tags", {})
    again = tags.get("cofi.command") or "the command of the search"
    directory = output / "data" / str(remembered["purpose"].get("tokens"))
    if not directory.is_dir():
        raise ValueError(f"there are no encoded data {directory}; put them back, or make them again: {again}")
    data = open_encoded(directory)
    teacher = output / "teachers" / str(remembered.get("teacher"))
    try:
        dense = _load(teacher, device)
    except ValueError as error:
        remedy = "put it back, or make it again, with one more of --trials"
        raise ValueError(f"the dense model: {error}; {remedy}: {again}") from error
    return data.splits[data.task.dev_splits[0]], dense


def _load(directory: Path, device: str) -> CofiForSequenceClassification:
    """A saved model.

    Raises:
        ValueError: it is gone or damaged.
    """
    from safetensors import SafetensorError

    from cofi_tune import teacher

    if not (directory / "config.json").is_file():
        raise ValueError(f"there is no model {directory}")
    try:
        return teacher.load(directory, device)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the model {directory} cannot be loaded ({reason})") from error
