"""What a training loop remembers between steps, and how it comes to a checkpoint and back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cofi_tune.ranks import Ranks

Tensors = dict[str, Tensor]


class Mean:
    """Running means of named scalars, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self.sums: Tensors = {}
        self.count = 0
        """Steps, each of one or more additions."""

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add one part of a step."""
        for name, value in terms.items():
            value = value.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def take(self, ranks: Ranks) -> dict[str, float]:
        """The means since the last call; the one moment when the host waits for the device."""
        names = sorted(self.sums)
        if not names:
            return {}
        values = ranks.sum(torch.stack([self.sums[n].float() for n in names]))
        means = (values / self.count).tolist()
        self.sums, self.count = {}, 0
        return {**dict(zip(names, means, strict=True)), "loss": sum(means)}


class Best:
    """The weights with the best selection score so far; later ones win ties."""

    def __init__(self) -> None:
        self.score = -math.inf
        self.weights: Tensors = {}

    def offer(self, score: float, model: nn.Module) -> None:
        """Keep the model's weights if none were better."""
        if score >= self.score:
            self.score = score
            self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def restore(self, model: nn.Module) -> None:
        """Give the model the weights that were kept."""
        if self.weights:
            model.load_state_dict(self.weights)


def optimizer_state(optimizer: torch.optim.Optimizer) -> Tensors:
    """Moments and step counts by `<index of the parameter>/<name>`; rates belong to the phase."""
    state = optimizer.state_dict()["state"]
    return {f"{index}/{name}": value for index, own in state.items() for name, value in own.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_state`, for an optimizer of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, own = name.partition("/")
        state.setdefault(int(index), {})[own] = value
    groups: Any = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def guides(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Kinds of what has guided a run, one after the other; a change is no secret.

    Args:
        before: up to a checkpoint.
        now: from there on.
    """
    if [*before[-1:]] == [*now]:
        return [*before]
    warnings.warn(
        f"the run began with the teacher's outputs {' then '.join(before)} and goes on with them "
        f"{' '.join(now)}: kept states are rounded to fp16, so losses may differ in their fourth digit",
        stacklevel=3,
    )
    return [*before, *now]


def without_own_moments(tensors: Mapping[str, Tensor], groups: Sequence[Mapping[str, Any]]) -> Tensors:
    """A state without Adam's moments of parameters with a rate of their own, such as gates.

    Another run has left them in its ramp, when gradients were larger: they would shorten the steps of a new
    one for as long as Adam remembers (1,000 steps): gates would not travel as far as their rate says.

    Args:
        tensors: of a whole state.
        groups: of the optimizer whose moments are in it.
    """
    scheduled = [group["scheduled"] for group in groups for _ in group["params"]]
    own = tuple(f"optimizer/{index}/" for index, follows in enumerate(scheduled) if not follows)
    return {name: value for name, value in tensors.items() if not name.startswith(own)}


def carry_over(
    old: torch.optim.Optimizer,
    before: Mapping[str, nn.Parameter],
    new: torch.optim.Optimizer,
    after: Mapping[str, nn.Parameter],
    moments: Mapping[str, Callable[[Tensor], Tensor]],
) -> None:
    """Give a new optimizer what an old one remembers of the parameters of the same names.

    Args:
        old: an optimizer that has taken steps.
        before: its parameters.
        new: an optimizer that has taken none.
        after: its parameters; a name that is no longer there is forgotten.
        moments: what becomes of moments, for parameters of another shape or meaning than before.
    """
    for name, parameter in after.items():
        state = old.state.get(before[name])
        if state:
            change = moments.get(name, lambda moment: moment)
            new.state[parameter] = {k: v if k == "step" else change(v) for k, v in state.items()}


def random_state(device: torch.device) -> Tensors:
    """Torch's own random streams (dropout), of the CPU and of the device."""
    streams = {"cpu": torch.get_rng_state()}
    return streams if device.type == "cpu" else {**streams, "device": torch.cuda.get_rng_state(device)}


def restore_random(streams: Mapping[str, Tensor], device: torch.device) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(streams["cpu"])
    if device.type != "cpu" and "device" in streams:
        torch.cuda.set_rng_state(streams["device"], device)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """The tensors whose names begin with `prefix/`, without it."""
    return {k.removeprefix(f"{prefix}/"): v for k, v in tensors.items() if k.startswith(f"{prefix}/")}


def named(**groups: Mapping[str, Tensor]) -> Tensors:
    """The tensors of all groups, on the CPU, each under `<group>/`: the inverse of `under`."""
    return {f"{g}/{k}": v.detach().cpu() for g, tensors in groups.items() for k, v in tensors.items()}
