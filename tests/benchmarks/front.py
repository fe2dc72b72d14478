"""Compute of a whole front and what it covers, with all levers, with none and with each alone.

    python tests/benchmarks/front.py                                  # the embedded task
    python tests/benchmarks/front.py --task sst2 --data-dir DIR --tokenizer DIR --max-train-samples 8000

A front has a model for each target sparsity. Without levers each is a run of its own from the dense model,
with the teacher run on every batch and the student dense until its cut. The levers are those of the search:
the teacher's kept outputs, the student that shrinks while it is pruned, and the chain, whose first link has
a run's epochs and every other one `--chain-epochs` of them.

CPU seconds are those of this process, all threads: making the teacher's outputs, training, scoring and
timing count; the teacher, the same for all, does not. On a GPU, wall seconds say what a front costs, of a
process that has it to itself. Every setting makes its outputs anew. Hypervolume is
counted from the best constant answer and from 1x, with the speedup as measured, and with that of
multiply-accumulates, which has no noise. The last line printed is JSON.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from analysis.hypervolume import hypervolume
from cofi_tune import evaluate, prune
from cofi_tune.config import CHAIN_EPOCHS, PRECISIONS, TEACHER_CACHE_BYTES
from cofi_tune.data.arguments import Parser, add_source_arguments, source_from_arguments
from cofi_tune.data.encode import open_encoded
from cofi_tune.records import Measurement, Stopped

TARGETS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
LEVERS = ("cache", "shrink", "chain")
SETTINGS = {"none": (), "all": LEVERS, **{lever: (lever,) for lever in LEVERS}}


class Front:
    """Models of one setting and seed, and what they cost."""

    def __init__(self, levers: Sequence[str], seed: int) -> None:
        self.levers, self.seed = levers, seed
        self.models: list[Measurement] = []
        self.stopped: list[str] = []
        self.cpu_seconds = self.seconds = 0.0

    def make(self, where: dict[str, Any], targets: Sequence[float], chain_epochs: float) -> None:
        """Train its models one after the other."""
        start, begun = time.process_time(), time.perf_counter()
        chained = "chain" in self.levers
        for target in targets[:1] if chained else targets:
            shutil.rmtree(where["output"] / "link-1", ignore_errors=True)
            try:
                prune.run(
                    **where,
                    proposal={"cofi/target_sparsity": target},
                    seed=self.seed,
                    chain=targets if chained else (),
                    chain_epochs=chain_epochs,
                    shrink="shrink" in self.levers,
                    teacher_cache_bytes=TEACHER_CACHE_BYTES if "cache" in self.levers else 0,
                    finished=lambda output, measurement: self.models.append(measurement),
                )
            except Stopped as stopped:
                self.stopped.append(f"{target:g}: {stopped.reason}")
        self.cpu_seconds = time.process_time() - start
        self.seconds = time.perf_counter() - begun

    def to_json(self, reference_score: float) -> dict[str, Any]:
        """Its figures."""
        pairs = [(one.score, one.speedup) for one in self.models]
        counted = [(one.score, one.dense_macs / max(1, one.macs)) for one in self.models]
        return {
            "levers": list(self.levers),
            "seed": self.seed,
            "cpu_seconds": round(self.cpu_seconds, 1),
            "seconds": round(self.seconds, 1),
            "hypervolume": hypervolume(pairs, (reference_score, 1.0)),
            "hypervolume_of_macs": hypervolume(counted, (reference_score, 1.0)),
            "models": [
                {"target": one.target_sparsity, "score": one.score, "speedup": one.speedup, "macs": b}
                for one, (_, b) in zip(self.models, counted, strict=True)
            ],
            "stopped": self.stopped,
        }


def summary(fronts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each setting against none, seed by seed, and how far hypervolumes lie apart."""
    none = {one["seed"]: one for one in fronts if not one["levers"]}
    found: dict[str, Any] = {}
    for levers in dict.fromkeys(tuple(one["levers"]) for one in fronts):
        own = [one for one in fronts if tuple(one["levers"]) == levers]
        volumes = [one["hypervolume_of_macs"] for one in own]
        ratios = [o["cpu_seconds"] / none[o["seed"]]["cpu_seconds"] for o in own if o["seed"] in none]
        found["+".join(levers) or "none"] = {
            "seeds": len(own),
            "cpu_seconds": statistics.median(one["cpu_seconds"] for one in own),
            "cpu_ratio": statistics.median(ratios) if ratios else None,
            "seconds": statistics.median(one["seconds"] for one in own),
            "hypervolume_of_macs": statistics.mean(volumes),
            "standard_deviation": statistics.stdev(volumes) if len(volumes) > 1 else None,
            "hypervolume": statistics.mean(one["hypervolume"] for one in own),
        }
    return found


def asked(seeds: Sequence[int], settings: Sequence[str] | None) -> list[tuple[int, tuple[str, ...]]]:
    """Fronts to make, by seed; unless settings are named, single levers have the first seed alone."""
    pairs = [(seed, SETTINGS[name]) for seed in seeds for name in settings or SETTINGS]
    return [(seed, levers) for seed, levers in pairs if settings or seed == seeds[0] or len(levers) != 1]


def main() -> None:
    """Measure and print."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_source_arguments(parser)
    parser.set_defaults(task="grammar")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--epochs", type=float, default=0.5)
    parser.add_argument("--chain-epochs", type=float, default=CHAIN_EPOCHS)
    parser.add_argument("--teacher-epochs", type=float)
    parser.add_argument("--max-train-samples", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--settings",
        nargs="+",
        choices=SETTINGS,
        help="for every seed (default: all levers and none, and each lever alone with the first seed)",
    )
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS, help="sparsities, ascending")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--output", type=Path, help="keeps the teacher for another time")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    task, source = source_from_arguments(args)
    output = args.output or Path(tempfile.mkdtemp(prefix="front-"))
    where = {
        "task": task,
        "source": source,
        "model": args.model,
        "output": output,
        "tokenizer": args.tokenizer,
        "epochs": args.epochs,
        "teacher_epochs": args.teacher_epochs,
        "max_train_samples": args.max_train_samples,
        "num_threads": args.threads,
        "device": args.device,
        "precision": args.precision,
    }
    # The teacher, and whatever is loaded once.
    Front((), 0).make({**where, "epochs": 0.02}, args.targets[:1], args.chain_epochs)
    reference = evaluate.constant_score(open_encoded(next((output / "data").glob("[!.]*"))))
    fronts = []
    for seed, levers in asked(args.seeds, args.settings):
        shutil.rmtree(output / "teacher_outputs", ignore_errors=True)
        front = Front(levers, seed)
        front.make(where, args.targets, args.chain_epochs)
        fronts.append(front.to_json(reference))
        print(json.dumps(fronts[-1]), flush=True)
    about = {"task": task.name, "epochs": args.epochs, "chain_epochs": args.chain_epochs}
    about |= {"device": args.device, "precision": args.precision, "targets": args.targets}
    print(json.dumps({**about, "reference_score": reference, "settings": summary(fronts)}))


if __name__ == "__main__":
    main()
