"""Real faults at chosen points of any process of a search, put in from outside: nothing in the package knows.

Python imports this file at its start where the folder is in PYTHONPATH. `COFI_TEST_FAULTS` is a JSON list of
    {"at": "module:qualified.name", "when": "before" or "after", "nth": 1, "do": "kill", "once": "path"}
with `do` one of kill (SIGKILL of this process), stall (for 20 s), hang, child (starts one that stays), memory
(an error), limit and unlimit (of this process's address space, really), fill (memory, until Ray kills this
process). With `once` it strikes one time in all processes together: whoever can make the file.

`COFI_TEST_CLOCK=1` times models by their parameters, so that two searches of one seed can be compared.
`COFI_TEST_STOPWATCH=path` appends the seconds that each trial spends in its own work, reports left out.
`COFI_TEST_CONSTANTS` is a JSON object of `"module:NAME": value`: how long a search waits for what, say.
`COFI_TEST_NO_RAY=1` runs trials in the driver's own process: quicker, where Ray's part is not what is tested.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

FILL_BYTES, MOST_FILLS = 2**26, 96
"""Size of the pieces in which memory is filled; how many at most, should nobody end this process."""


def strike(fault: dict[str, Any]) -> None:
    if "once" in fault:
        try:
            os.close(os.open(fault["once"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    match fault["do"]:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stall":
            time.sleep(20)
        case "hang":
            time.sleep(3600)
        case "child":
            subprocess.Popen(["sleep", "3600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        case "memory":
            raise MemoryError("no more of it")
        case "limit":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit(pages * resource.getpagesize() + 2**20)
        case "fill":
            held = [bytearray(b"x") * FILL_BYTES for _ in range(MOST_FILLS) if not time.sleep(0.05)]
            raise AssertionError(f"{len(held)} pieces of memory were taken, and nobody minded")
        case "unlimit":
            limit(resource.getrlimit(resource.RLIMIT_AS)[1])


def limit(address_space: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (address_space, resource.getrlimit(resource.RLIMIT_AS)[1]))


def faulty(function: Callable[..., Any], fault: dict[str, Any]) -> Callable[..., Any]:
    calls = 0

    @functools.wraps(function)
    def wrapper(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        strikes = calls == fault.get("nth", 1) or (fault.get("nth") == "every")
        if strikes and fault.get("when", "before") == "before":
            strike(fault)
        result = function(*args, **more)
        if strikes and fault.get("when") == "after":
            strike(fault)
        return result

    return wrapper


def put_in(module: ModuleType, fault: dict[str, Any]) -> None:
    *owners, name = fault["at"].partition(":")[2].split(".")
    owner: Any = module
    for part in owners:
        owner = getattr(owner, part)
    replace(owner, name, faulty(getattr(owner, name), fault))


def replace(owner: Any, name: str, new: Any) -> None:
    """Also where a module that is imported already has it under a name of its own."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    for other in [*sys.modules.values()]:
        if (getattr(other, "__name__", None) or "").partition(".")[0] in ("cofi_tune", "analysis"):
            for alias in [alias for alias, value in vars(other).items() if value is old]:
                setattr(other, alias, new)


def count_instead_of_timing(latency: ModuleType) -> None:
    def work(model: Any) -> int:
        return sum(p.numel() for p in model.layers.parameters())

    def measure(model: Any, dense: Any, split: Any, scenarios: Any) -> tuple[Any, ...]:
        ratio = work(dense) / work(model)
        return tuple(latency.Latency(s, 1.0, 1 / ratio, ratio, ratio, ratio, 1, 1, 1) for s in scenarios)

    replace(latency, "measure", measure)


def set_constant(module: ModuleType, name: str, value: Any) -> None:
    assert hasattr(module, name)
    setattr(module, name, value)


def run_trials_here(trial: ModuleType) -> None:
    def launch(config: Any, proposals: Any, stopper: Any, address: str | None = None) -> None:
        from cofi_tune import worker
        from cofi_tune.messages import KEY, encode
        from cofi_tune.ranks import ALONE

        for number in range(1000):
            proposed = proposals.suggest(str(number))
            if not isinstance(proposed, dict) or stopper.requested:
                return

            def report(message: Any, name: str = str(number)) -> None:
                proposals.on_trial_result(name, {KEY: encode(message)})

            worker.work(proposed["job"], ALONE, report)
            proposals.on_trial_complete(str(number), {})

    replace(trial, "launch", launch)


def put_a_stopwatch(worker: ModuleType) -> None:
    compress = worker._compress

    def timed(job: Any, *rest: Any) -> Any:
        events, spent = compress(job, *rest), 0.0
        try:
            while True:
                began = time.perf_counter()
                try:
                    event = next(events, None)
                finally:
                    spent += time.perf_counter() - began
                if event is None:
                    return
                yield event
        finally:  # a trial may be stopped early
            with Path(os.environ["COFI_TEST_STOPWATCH"]).open("a") as file:
                file.write(f"{job.trial_id} {spent}\n")

    replace(worker, "_compress", timed)


class Patcher(importlib.abc.MetaPathFinder):
    """Changes modules as they are imported."""

    def __init__(self, changes: dict[str, list[Callable[[ModuleType], None]]]) -> None:
        self.changes = changes

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        changes = self.changes.pop(name, None)
        if changes is None:
            return None
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            for change in changes:
                change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


changes: dict[str, list[Callable[[ModuleType], None]]] = {}
for one in json.loads(os.environ.get("COFI_TEST_FAULTS", "[]")):
    changes.setdefault(one["at"].partition(":")[0], []).append(functools.partial(put_in, fault=one))
if os.environ.get("COFI_TEST_CLOCK"):
    changes.setdefault("cofi_tune.latency", []).append(count_instead_of_timing)
for place, value in json.loads(os.environ.get("COFI_TEST_CONSTANTS", "{}")).items():
    where, _, constant = place.partition(":")
    changes.setdefault(where, []).append(functools.partial(set_constant, name=constant, value=value))
if os.environ.get("COFI_TEST_NO_RAY"):
    changes.setdefault("cofi_tune.trial", []).append(run_trials_here)
if os.environ.get("COFI_TEST_STOPWATCH"):
    changes.setdefault("cofi_tune.worker", []).append(put_a_stopwatch)
for name in changes.keys() & sys.modules.keys():  # in a copy of a process that has imported them
    for change in changes.pop(name):
        change(sys.modules[name])
if changes:
    sys.meta_path.insert(0, Patcher(changes))
