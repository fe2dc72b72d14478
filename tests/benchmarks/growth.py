"""Memory of a process that prunes: by step of one trial, or by trial of many in one process.

    python tests/benchmarks/growth.py --model DIR --steps 1500             # one trial, real SST-2 rows
    python tests/benchmarks/growth.py --model tiny --steps 60 --trials 30
    python tests/benchmarks/growth.py --model DIR --steps 200 --paired     # what the remedy costs

Each trial runs in a thread of its own, as Ray Tune runs it, in a process that has done nothing before, with
the teacher's outputs kept. `--without` takes the remedy of `process_memory.py` away, so that growth is what
it would be. `--paired` runs one process with and one without it on the same rows, `--every` steps of each in
turn, and compares their CPU seconds. `own` is memory without mapped files. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from cofi_tune import methods, process_memory, tasks, teacher, teacher_cache
from cofi_tune.config import Setup, TeacherCache, TrialConfig
from cofi_tune.data.encode import encode
from cofi_tune.data.sources import Source
from cofi_tune.records import Stopped
from cofi_tune.upkeep import Upkeep

OPTIONS = {"target_sparsity": 0.5, "mask_travel": 40.0}
COUNTED_FROM = 40
"""Step from which CPU seconds count: what is made once is made by then."""
SETTLED = 500
"""Step at which a process is taken to have its size."""


class Steps:
    """Notes memory and CPU seconds every so many steps."""

    def __init__(self, every: int, last: int | None) -> None:
        self.every, self.step, self.last = every, 0, last
        self.rss_mib: dict[int, int] = {}
        self.own_mib: dict[int, int] = {}
        self.cpu_seconds: dict[int, float] = {}

    def __call__(self) -> None:
        """One more step is done."""
        self.step += 1
        if self.step % self.every == 0:
            self.rss_mib[self.step] = round(process_memory.resident_mib()["rss_mib"])
            self.own_mib[self.step] = own_mib()
            self.cpu_seconds[self.step] = time.process_time()
            print(self.step, self.rss_mib[self.step], self.own_mib[self.step], file=sys.stderr, flush=True)
            if self.last:
                print(self.step, flush=True)
                sys.stdin.readline()

    def are_over(self) -> bool:
        """Whether the run is to stop here, before anything is scored or timed."""
        return self.step == self.last


def own_mib() -> int:
    """Of this process, without the files that it maps, such as the teacher's outputs."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon:"))) // 1024


def child(
    setup: Setup, trial: TrialConfig, every: int, trials: int, without: bool, last: int | None
) -> dict[str, Any]:
    """All trials, one after the other."""
    from cofi_tune import compress

    if without:
        process_memory._glibc = lambda: None  # type: ignore[assignment]
        process_memory.onednn = lambda enabled: contextlib.nullcontext()  # type: ignore[assignment]
    by_trial: list[int] = []
    own_by_trial: list[int] = []

    def run() -> None:
        shutil.rmtree(setup.output, ignore_errors=True)
        with contextlib.suppress(Stopped):
            for _ in compress.compress(trial, setup, upkeep=Upkeep(1e9, steps.are_over, steps)):
                pass
        process_memory.free_memory()

    for _ in range(trials):
        steps = Steps(every, last)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        by_trial.append(round(process_memory.resident_mib()["rss_mib"]))
        own_by_trial.append(own_mib())
    return {
        "rss_mib": steps.rss_mib,
        "own_mib": steps.own_mib,
        "rss_after_trial_mib": by_trial,
        "own_after_trial_mib": own_by_trial,
        "peak_mib": round(process_memory.resident_mib()["peak_rss_mib"]),
        "cpu_seconds": steps.cpu_seconds,
    }


def start(
    setup: Setup, trial: TrialConfig, every: int, trials: int, without: bool, last: int | None = None
) -> subprocess.Popen[str]:
    """`child` in a process of its own."""
    asked = [setup.model_dump_json(), trial.model_dump_json(), every, trials, without, last]
    command = [sys.executable, "-W", "ignore", __file__, "--child", json.dumps(asked)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def in_turn(setup: Setup, trial: TrialConfig, every: int, steps: int) -> dict[str, Any]:
    """CPU seconds with the remedy in units of those without it: of all steps, and quartiles over blocks."""
    both = [
        start(setup.model_copy(update={"output": setup.output / name}), trial, every, 1, without, steps)
        for name, without in (("with", False), ("without", True))
    ]
    for block in range(steps // every):
        for process in both:
            assert process.stdin is not None
            assert process.stdout is not None
            if block:
                process.stdin.write("\n")
                process.stdin.flush()
            process.stdout.readline()
    seconds = []
    for process in both:
        by_step = json.loads(process.communicate()[0])["cpu_seconds"]
        seconds.append(np.diff([cpu for step, cpu in by_step.items() if int(step) >= COUNTED_FROM]))
    low, middle, high = np.quantile(seconds[0] / seconds[1], (0.25, 0.5, 0.75))
    ms = [1e3 * float(side.mean()) / every for side in seconds]
    ratio = {"of_sums": ms[0] / ms[1], "median": middle, "low": low, "high": high, "blocks": len(seconds[0])}
    return {"cpu_ms_with": ms[0], "cpu_ms_without": ms[1], "ratio": ratio}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", default="../shared/data/glue")
    parser.add_argument("--tokenizer", default="../shared/data/bert-base-uncased-tokenizer")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=500, help="of each trial")
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--without", action="store_true")
    parser.add_argument("--paired", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        setup, trial, *rest = json.loads(args.child)
        setup, trial = (
            made.model_validate_json(raw, strict=False)
            for made, raw in ((Setup, setup), (TrialConfig, trial))
        )
        print(json.dumps(child(setup, trial, *rest)))
        return
    output: Path = args.output.absolute()
    source = Source.directory(args.data_dir)
    data = encode(tasks.load("sst2"), source, args.tokenizer, output / "data", args.rows)
    taught = output / "growth" / f"teacher-{Path(args.model).name}"
    if not taught.is_dir():
        teacher.new_model(data, args.model, seed=0).save_pretrained(taught)
    setup = Setup(
        data=data.directory,
        teacher=taught,
        output=output / "growth" / "trial",
        num_threads=1,
        precision=args.precision,
        teacher_cache=TeacherCache.below(output, 2**36),
    )
    epochs = args.steps * 32 / len(data.splits["train"])
    trial = TrialConfig(options=OPTIONS, epochs=epochs, learning_rate=1e-4)
    steps_per_epoch = len(data.splits["train"]) // trial.batch_size
    method = methods.load(trial.method)(trial, teacher.load(taught), steps_per_epoch)
    teacher_cache.prepare(setup, data, method)
    if args.paired:
        longer = trial.model_copy(update={"epochs": 2 * epochs})
        print(json.dumps(in_turn(setup, longer, args.every, args.steps)))
        return
    found = json.loads(start(setup, trial, args.every, args.trials, args.without).communicate()[0])
    settled = found["rss_mib"].get(str(SETTLED))
    if settled:
        found["ratio_to_settled"] = max(found["rss_mib"].values()) / settled
    print(json.dumps({"model": args.model, "without": args.without, "steps": args.steps, **found}))


if __name__ == "__main__":
    main()
