"""Memory of a trial alone, and of two at once, with a teacher's outputs kept once for both.

    python tests/benchmarks/memory.py --data-dir DIR --tokenizer DIR      # real CoLA rows

Trials are processes of their own, on the same kept outputs, for `--epochs` passes over all rows. A process's
own memory is what is anonymous in it; the kept outputs are mapped files, whose pages are in memory once and
counted in shares (/proc/<pid>/smaps: Pss). The last line printed is JSON: `trial_ratio` is the larger of the
two trials, with all of the outputs, against one that runs alone, with them; `two_ratio` both trials together
against twice what one has alone, plus the outputs once. `copies_ratio` is what two copies would come to.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from cofi_tune import tasks, teacher
from cofi_tune.config import Setup, TeacherCache
from cofi_tune.data.encode import encode
from cofi_tune.data.sources import Source

KIB, POLL_SECONDS = 1024, 0.05
TRIAL = """
import sys
from cofi_tune import compress
from cofi_tune.config import Setup, TrialConfig

setup = Setup.model_validate_json(sys.argv[1], strict=False)
options = {"target_sparsity": 0.5, "mask_travel": 40.0}
trial = TrialConfig(options=options, epochs=float(sys.argv[2]), learning_rate=3e-4)
*_, last = compress.compress(trial, setup)
assert last.guided_by == "kept"
"""


class Held(NamedTuple):
    """Memory of a process, bytes."""

    own: int
    """Anonymous."""
    outputs: int
    """Its share of the mapped outputs."""


def held(pid: int, directory: Path) -> Held:
    """What a process holds now; nothing once it is over."""
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return Held(0, 0)
    own = outputs = 0
    mapped = False
    for line in lines:
        first, *rest = line.split()
        if not first.endswith(":"):
            mapped = str(directory) in line
        elif first == "Anonymous:":
            own += int(rest[0]) * KIB
        elif first == "Pss:" and mapped:
            outputs += int(rest[0]) * KIB
    return Held(own, outputs)


def peaks(setups: list[Setup], epochs: float) -> list[Held]:
    """Trials at once, each from beginning to end: the most of both kinds that each held."""
    for setup in setups:
        shutil.rmtree(setup.output, ignore_errors=True)  # no checkpoint to go on from
    command = [sys.executable, "-W", "ignore", "-c", TRIAL]
    running = [
        subprocess.Popen([*command, setup.model_dump_json(), str(epochs)], stderr=subprocess.DEVNULL)
        for setup in setups
    ]
    most = [Held(0, 0)] * len(setups)
    shared = 0
    while any(process.poll() is None for process in running):
        now = [held(process.pid, _cache(setups[0])) for process in running]
        most = [Held(max(a.own, b.own), max(a.outputs, b.outputs)) for a, b in zip(most, now, strict=True)]
        shared = max(shared, sum(one.outputs for one in now))
        time.sleep(POLL_SECONDS)
    assert all(process.returncode == 0 for process in running)
    return [Held(one.own, shared) for one in most]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", default="../shared/data/glue")
    parser.add_argument("--tokenizer", default="../shared/data/bert-base-uncased-tokenizer")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--epochs", type=float, default=2.0)
    args = parser.parse_args()
    output: Path = args.output.absolute()
    data = encode(tasks.load("cola"), Source.directory(args.data_dir), args.tokenizer, output / "data")
    taught = output / "memory" / f"teacher-{args.model}"
    if not taught.is_dir():
        teacher.new_model(data, args.model, seed=0).save_pretrained(taught)
    setups = [
        Setup(
            data=data.directory,
            teacher=taught,
            output=output / "memory" / f"trial-{number}",
            num_threads=1,
            teacher_cache=TeacherCache.below(output, 2**36),
        )
        for number in range(2)
    ]
    peaks(setups[:1], 0.05)  # makes the outputs
    [alone] = peaks(setups[:1], args.epochs)
    both = peaks(setups, args.epochs)
    print(
        json.dumps(
            summary(alone, both, sum(p.stat().st_size for p in _cache(setups[0]).glob("cola-*/*.npy")))
        )
    )


def summary(alone: Held, both: list[Held], on_disk: int) -> dict[str, float | list[int]]:
    """Both sides, and their ratios."""
    own, outputs = [one.own for one in both], both[0].outputs
    return {
        "alone_own_bytes": alone.own,
        "alone_outputs_bytes": alone.outputs,
        "two_own_bytes": own,
        "two_outputs_bytes": outputs,
        "outputs_on_disk_bytes": on_disk,
        "trial_ratio": (max(own) + outputs) / (alone.own + alone.outputs),
        "two_ratio": (sum(own) + outputs) / (2 * alone.own + alone.outputs),
        "copies_ratio": 2 * (alone.own + alone.outputs) / (2 * alone.own + alone.outputs),
    }


def _cache(setup: Setup) -> Path:
    assert setup.teacher_cache is not None
    return setup.teacher_cache.directory


if __name__ == "__main__":
    main()
