"""What the parts of the system tell each other. Plain data, no heavy imports."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple


class Objective(NamedTuple):
    """Something a study improves."""

    name: str
    direction: str


OBJECTIVES = (Objective("score", "maximize"), Objective("speedup", "maximize"))

SCENARIOS = ("throughput", "latency", "reference")
"""Ways to time a model: batches of 32 packed; one row at a time; the CoFi paper's padded protocol."""


INTERRUPTED = "interrupted"
"""Reason of a run that was stopped from outside, and can go on."""
DISK_FULL = "disk_full"
OUTPUT_AWAY = "output_away"
"""Reason of a run that could not write; it can go on once there is room."""

PARENT_LOST = "parent_lost"
"""Reason of a link of a chain that has nothing to begin with."""


NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How the system says that the disk is full."""


class Note(UserWarning):
    """Goes the way of a warning to whoever watches, but nothing is wrong."""


class Stopped(Exception):  # noqa: N818 - an end, not an error
    """A trial that ended early on purpose, with a reason; it has no objectives."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidPoint(ValueError):  # noqa: N818
    """A configuration that cannot give a model, whatever the training (everything pruned, say)."""


class InvalidMetric(InvalidPoint):
    """A result that cannot be one (a score of nan, a speedup of 0), which no sampler may see."""


@dataclass(frozen=True)
class Progress:
    """One report of a running training loop."""

    step: int
    num_steps: int
    phase: str
    losses: Mapping[str, float]
    """Every named term, averaged over the steps since the last report."""
    learning_rate: float
    seconds: float
    expected_sparsity: float | None = None
    """The mean over draws of the gates; once the student is cut, its own."""
    target_sparsity: float | None = None
    selection_score: float | None = None
    rss_mib: float | None = None
    """Resident memory of the process that trains; of several workers, the first one's."""
    peak_rss_mib: float | None = None
    """The most that it has been since that process started."""


@dataclass(frozen=True)
class LayerPlan:
    """Units of one layer that stay: indices of heads and of FFN units. Empty: the sublayer goes."""

    heads: tuple[int, ...]
    ffn: tuple[int, ...]


@dataclass(frozen=True)
class PruningPlan:
    """What remains of an encoder. Indices count the units of the model that the plan is applied to."""

    hidden_size: int
    num_heads: int
    head_size: int
    num_ffn: int
    hidden: tuple[int, ...]
    layers: tuple[LayerPlan, ...]

    def __post_init__(self) -> None:
        """Refuse what no model can be cut to."""
        if not self.hidden:
            raise InvalidPoint("no hidden unit is left: every gate of the residual stream is closed")
        _check_indices("hidden", self.hidden, self.hidden_size)
        for number, layer in enumerate(self.layers):
            _check_indices(f"layer {number} heads", layer.heads, self.num_heads)
            _check_indices(f"layer {number} ffn", layer.ffn, self.num_ffn)

    @property
    def dense(self) -> PruningPlan:
        """Everything of the same model."""
        layer = LayerPlan(tuple(range(self.num_heads)), tuple(range(self.num_ffn)))
        hidden = tuple(range(self.hidden_size))
        return replace(self, hidden=hidden, layers=(layer,) * len(self.layers))

    @property
    def num_parameters(self) -> int:
        """Weights and biases of the encoder's linear layers that stay (no norms, no embeddings)."""
        return encoder_parameters(
            len(self.hidden), self.head_size, [(len(p.heads), len(p.ffn)) for p in self.layers]
        )

    @property
    def prunable_parameters(self) -> int:
        """The same count before pruning: M."""
        dense = [(self.num_heads, self.num_ffn)] * len(self.layers)
        return encoder_parameters(self.hidden_size, self.head_size, dense)

    @property
    def sparsity(self) -> float:
        """Pruned / prunable parameters of the encoder layers, biases counted (Xia et al., 2022)."""
        return 1 - self.num_parameters / self.prunable_parameters

    def macs(self, num_tokens: int) -> int:
        """Multiply-accumulates of the encoder layers for one row of `num_tokens` tokens."""
        return encoder_macs(
            num_tokens, len(self.hidden), self.head_size, [(len(p.heads), len(p.ffn)) for p in self.layers]
        )

    def __str__(self) -> str:
        """One line a layer."""
        head = f"hidden {len(self.hidden)} of {self.hidden_size}, sparsity {self.sparsity:.4f}"
        lines = [
            f"layer {n}: heads {len(p.heads)} of {self.num_heads}, ffn {len(p.ffn)} of {self.num_ffn}"
            for n, p in enumerate(self.layers)
        ]
        return "\n".join([head, *lines])

    def to_json(self) -> str:
        """JSON that `from_json` reads back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PruningPlan:
        """The inverse of `to_json`."""
        raw = json.loads(text)
        layers = tuple(LayerPlan(tuple(p["heads"]), tuple(p["ffn"])) for p in raw.pop("layers"))
        return cls(hidden=tuple(raw.pop("hidden")), layers=layers, **raw)


def encoder_parameters(hidden: int, head_size: int, layers: list[tuple[int, int]]) -> int:
    """Weights and biases of linear layers, for layers of (heads, ffn units)."""
    total = 0
    for heads, ffn in layers:
        width = heads * head_size
        total += (4 * hidden * width + 3 * width + hidden) if heads else 0
        total += (2 * hidden * ffn + ffn + hidden) if ffn else 0
    return total


def encoder_macs(num_tokens: int, hidden: int, head_size: int, layers: list[tuple[int, int]]) -> int:
    """Multiply-accumulates of linear layers and of attention's two products, for one row."""
    total = 0
    for heads, ffn in layers:
        width = heads * head_size
        total += num_tokens * (4 * hidden * width + 2 * num_tokens * width + 2 * hidden * ffn)
    return total


def _check_indices(what: str, kept: tuple[int, ...], size: int) -> None:
    if list(kept) != sorted(set(kept)) or (kept and not 0 <= kept[0] <= kept[-1] < size):
        raise ValueError(f"{what}: indices must be increasing and within 0..{size - 1}")


@dataclass(frozen=True)
class Latency:
    """A model's time in one scenario, paired with the dense model's in the same process."""

    scenario: str
    dense_ms: float
    """Median milliseconds per row of the dense model."""
    latency_ms: float
    """Median milliseconds per row of this model."""
    speedup: float
    """Median over pairs of dense / this."""
    speedup_low: float
    """First quartile of the paired ratios."""
    speedup_high: float
    """Third quartile."""
    num_pairs: int
    batch_size: int
    rows: int


TIMED = ("speedup", "speedup_low", "speedup_high", "latency_ms", "dense_ms", "num_pairs")
"""Of a `Latency`, as metrics."""


@dataclass(frozen=True)
class Measurement:
    """A trial's last word: what was shipped, scored and timed."""

    score: float
    speedup: float
    scores: Mapping[str, float]
    teacher_scores: Mapping[str, float]
    latencies: tuple[Latency, ...]
    sparsity: float
    model_sparsity: float
    """1 - parameters / dense parameters of the whole model, embeddings included."""
    num_parameters: int
    dense_num_parameters: int
    macs: int
    """Multiply-accumulates of the encoder for a row of `mean_tokens` tokens."""
    dense_macs: int
    mean_tokens: int
    expected_sparsity: float | None
    """As the last `Progress` has it."""
    target_sparsity: float | None
    seconds: float
    guided_by: str = "live"
    """Which outputs of the teacher the student learned from: "live", as it ran; "kept", whose hidden states
    are rounded to half precision; both, where a run was resumed the other way; "", if it had no teacher."""
    contract: Mapping[str, Any] = field(default_factory=dict)
    """Device, versions, data hash, threads, protocol: points of different contracts share no front."""
    timed_as: str | None = None
    """Id of the trial of the same structure whose model was timed; None: this one's own."""

    def __post_init__(self) -> None:
        """Refuse objectives no sampler may see."""
        for name, value in (("score", self.score), ("speedup", self.speedup)):
            if not math.isfinite(value):
                raise InvalidMetric(f"{name} is {value}")
        if self.speedup <= 0:
            raise InvalidMetric(f"speedup is {self.speedup}; it must be positive")
        if abs(self.score) > 1 + 1e-9:
            raise InvalidMetric(f"score is {self.score}; every metric lies within -1..1")

    def latency(self, scenario: str) -> Latency | None:
        """The timing of one scenario, or None where it was not taken."""
        return next((t for t in self.latencies if t.scenario == scenario), None)

    def to_json(self) -> dict[str, Any]:
        """A JSON document that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Measurement:
        """The inverse of `to_json`."""
        return cls(**{**raw, "latencies": tuple(Latency(**t) for t in raw["latencies"])})
