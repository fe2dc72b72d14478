"""The mean step of a run whose student shrinks: a few steps at each size, weighted by how long it lasts.

    python tests/benchmarks/whole_run.py        # records sizes.json anew, minutes
    python tests/benchmarks/step.py --run 0.95  # times what is recorded, at BERT-base's shape

The sizes are those of a real run: CoFi's defaults at 95 % with `--model mini` on the embedded task, whose
gates settle under the gradients of a task. (Gates trained by their constraint alone would all move alike.)
They are carried over to BERT-base as shares: of hidden units, and of the heads and FFN units of each quarter
of the layers. What a real BERT-base removes when is not known from this; how long a run takes to come down,
in shares of its steps, is set by the same schedule. Recovery is timed as pruning at its size, with gates.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cofi_tune.components import distillation, shrinking
from cofi_tune.data.batches import Batch
from cofi_tune.data.encoded import EncodedSplit
from cofi_tune.methods import Method
from cofi_tune.modeling_cofi import NO_GATES, CofiForSequenceClassification
from cofi_tune.records import LayerPlan, PruningPlan
from cofi_tune.step import encode
from cofi_tune.teacher_files import LOGITS, layer_name
from cofi_tune.teacher_outputs import KeptOutputs, as_guide, train_parts

RECORDED = Path(__file__).with_name("sizes.json")
TARGET_SPARSITY, SEED, EPOCHS = 0.95, 0, 0.5


class Stage(NamedTuple):
    """A stretch of the run with one size."""

    share: float
    """Of the run's steps."""
    plan: PruningPlan


def stages(dense: PruningPlan) -> list[Stage]:
    """The recorded run's, at the shape of another encoder. Which units go does not matter to time."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))["stages"]
    found = []
    for one in recorded:
        layers = []
        for number in range(len(dense.layers)):
            at = number * len(one["heads"]) // len(dense.layers)
            heads, units = round(one["heads"][at] * dense.num_heads), round(one["ffn"][at] * dense.num_ffn)
            layers.append(LayerPlan(tuple(range(heads)), tuple(range(units))))
        hidden = tuple(range(round(one["hidden"] * dense.hidden_size)))
        plan = PruningPlan(
            dense.hidden_size, dense.num_heads, dense.head_size, dense.num_ffn, hidden, tuple(layers)
        )
        found.append(Stage(one["share"], plan))
    return found


class Seconds(NamedTuple):
    """Of one step on one batch."""

    cached: float
    """The step of this package, its teacher's outputs read from a cache."""
    teaching: float
    """The teacher's forward pass, which it has in addition where there is no cache."""
    naive: float


def line(stage: Stage, timed: list[Seconds]) -> str:
    """For people."""
    cached, teaching, naive = (1e3 * statistics.median(column) for column in zip(*timed, strict=True))
    return (
        f"{stage.share:6.1%} of the run at sparsity {stage.plan.sparsity:.3f}: step {cached:6.0f} ms "
        f"(+ {teaching:4.0f} ms without a cache), naive {naive:6.0f} ms"
    )


def summary(found: list[tuple[Stage, list[Seconds]]]) -> dict[str, Any]:
    """Paired ratios to the naive step: medians of each stage, weighted by its share of the run.

    Returns:
        `run_ratio`, of the whole run with a cached teacher; `run_ratio_uncached`; `cached_ratio`, before the
        student shrinks, and `uncached_ratio`.
    """
    cached = [statistics.median(t.cached / t.naive for t in timed) for _, timed in found]
    uncached = [statistics.median((t.cached + t.teaching) / t.naive for t in timed) for _, timed in found]
    shares = [stage.share for stage, _ in found]
    return {
        "run_ratio": sum(s * r for s, r in zip(shares, cached, strict=True)) / sum(shares),
        "run_ratio_uncached": sum(s * r for s, r in zip(shares, uncached, strict=True)) / sum(shares),
        "cached_ratio": cached[0],
        "uncached_ratio": uncached[0],
        "naive_step_ms": 1e3 * statistics.median(t.naive for _, timed in found for t in timed),
        "stages": [[s.share, round(s.plan.sparsity, 4), r] for (s, _), r in zip(found, cached, strict=True)],
    }


def at(stage: Stage, student: CofiForSequenceClassification, method: Method) -> CofiForSequenceClassification:
    """The student as small as it is in a stage; the method follows."""
    if stage.plan == stage.plan.dense:
        return student
    small, _ = shrinking.shrink(student, stage.plan, method.gates, method.matching)
    small.embeddings.requires_grad_(False)
    return small


def kept_outputs(
    directory: Path, split: EncodedSplit, teacher: CofiForSequenceClassification, batches: Sequence[Batch]
) -> KeptOutputs:
    """A teacher's outputs as a search keeps them, for the rows of a few batches alone.

    Args:
        directory: where the files go.
        split: of the rows.
        teacher: of BERT-base's shape.
        batches: the rows.
    """
    layers = distillation.teacher_layers(len(teacher.layers))
    arrays: dict[str, np.ndarray] = {}
    for part in train_parts(teacher.config, split, layers):
        path = directory / f"{part.name}.npy"
        arrays[part.name] = np.lib.format.open_memmap(path, "w+", part.dtype, part.shape)
    for batch in batches:
        with torch.no_grad():
            out = encode(teacher, batch, NO_GATES, True)
        arrays[LOGITS][batch.rows_B] = out.logits_BC.cpu().numpy()
        for layer in layers:
            arrays[layer_name(layer)][batch.tokens_N] = out.hidden_states_NH[layer + 1].half().cpu().numpy()
    return as_guide(arrays)


def record() -> dict[str, Any]:
    """Run, and say for how long the student had which size."""
    from cofi_tune import methods, tasks, teacher
    from cofi_tune.components import pretrained
    from cofi_tune.config import TrialConfig
    from cofi_tune.data.arguments import Parser, add_source_arguments, source_from_arguments
    from cofi_tune.data.batches import steps_per_epoch
    from cofi_tune.data.encode import encode
    from cofi_tune.loop import Training

    parser = Parser()
    add_source_arguments(parser)
    task, source = source_from_arguments(parser.parse_args(["--task", "grammar"]))
    output = Path("runs")
    data = encode(task, source, pretrained.tokenizer_of("mini"), output / "data")
    taught = teacher.prepare(data, "mini", output, epochs=tasks.load("grammar").random_teacher_epochs)
    dense, student = (teacher.load(taught, "cpu") for _ in range(2))
    rate = teacher.base_learning_rate("mini")
    options = {"target_sparsity": TARGET_SPARSITY}
    trial = TrialConfig(options=options, epochs=EPOCHS, learning_rate=rate, seed=SEED)
    torch.manual_seed(SEED)
    method = methods.load("cofi")(trial, student, steps_per_epoch(len(data.splits["train"]), 32))
    training = Training(student, method, dense, data, trial, data.selection_split("train"))
    whole = student.config
    lasted: dict[tuple[Any, ...], int] = {}
    for _ in training.steps():
        config = training.student.config
        size = (config.hidden_size, (*config.heads_per_layer,), (*config.ffn_per_layer,))
        lasted[size] = lasted.get(size, 0) + 1
    return as_shares(lasted, whole.hidden_size, whole.heads_per_layer[0], whole.ffn_per_layer[0])


def as_shares(lasted: dict[tuple[Any, ...], int], hidden: int, heads: int, ffn: int) -> dict[str, Any]:
    """Steps by size, as shares of a run and of an encoder."""
    num_steps = sum(lasted.values())
    made: list[dict[str, Any]] = [
        {
            "share": round(steps / num_steps, 4),
            "hidden": round(size[0] / hidden, 4),
            "heads": [round(n / heads, 4) for n in size[1]],
            "ffn": [round(n / ffn, 4) for n in size[2]],
        }
        for size, steps in lasted.items()
    ]
    return {"target_sparsity": TARGET_SPARSITY, "num_steps": num_steps, "stages": made}


def lines(record: dict[str, Any]) -> Iterator[str]:
    """JSON with a stage to a line."""
    stages = ",\n  ".join(json.dumps(stage) for stage in record["stages"])
    rest = {name: value for name, value in record.items() if name != "stages"}
    yield json.dumps(rest)[:-1] + f', "stages": [\n  {stages}\n]}}\n'


if __name__ == "__main__":
    RECORDED.write_text("".join(lines(record())), encoding="utf-8")
