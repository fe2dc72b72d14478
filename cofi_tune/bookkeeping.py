"""What a training loop remembers between steps, and how it comes to a checkpoint and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
