"""What a measurement is comparable under: points of different contracts share no front.

A contract is the device and its name, threads, dtype and torch, whether it was alone with the two models, the
task, its data and its dense model, the rows that chose weights, and the scenario that is the objective; all
values as text, as MLflow keeps them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Contract = dict[str, str]

TIMED = {"search": "timed in the search", "again": "timed again"}
LONGEST_WORD = 24


def as_text(contract: Mapping[str, Any]) -> Contract:
    """A contract in the form in which two are compared."""
    return {name: str(value) for name, value in sorted(contract.items())}


def contract_id(contract: Mapping[str, Any]) -> str:
    """A name for a contract: for files, tags and links; the same wherever it is made."""
    plain = as_text(contract)
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
    words = re.sub(r"[^a-z0-9]+", "-", label(plain).lower()).strip("-")
    return f"{words[:40] or 'machine'}-{digest}"


def label(contract: Mapping[str, str]) -> str:
    """The machine in a few words: `CPU, 2 threads`, or a GPU's name; and that it was busy, if it was."""
    device, threads = contract.get("device", "this machine"), contract.get("num_threads", "None")
    busy = ", beside other trials" if crowded(contract) else ""
    if device == "cpu" and threads != "None":
        return f"CPU, {threads} thread{'' if threads == '1' else 's'}{busy}"
    return (device.upper() if device == "cpu" else contract.get("device_name", device)) + busy


def crowded(contract: Mapping[str, str]) -> bool:
    """Whether other trials ran where the models were timed."""
    return contract.get("alone") == "no"


def labels(contracts: Sequence[Mapping[str, str]]) -> list[str]:
    """A label for each that tells it from the others."""
    plain = [label(contract) for contract in contracts]
    told = []
    for contract, own in zip(contracts, plain, strict=True):
        alike = [other for other, its in zip(contracts, plain, strict=True) if its == own]
        names = sorted({name for other in alike for name in differing(contract, other)})
        if "task" in names:
            names = ["task"]  # other data and another dense model go with it
        told.append(own + "".join(f", {_words(name, contract[name])}" for name in names if name in contract))
    return told


def _words(name: str, value: str) -> str:
    """A part of a contract, short enough for a heading."""
    if name in ("task", "timed"):
        return TIMED.get(value, value)
    return f"{name.replace('_', ' ')} {value if len(value) <= LONGEST_WORD else value[:8]}"


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Names of what is not the same in two contracts."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def the_one(contracts: Iterable[Mapping[str, Any]]) -> Contract:
    """The contract that all of these are.

    Raises:
        ValueError: they are not all the same; names the first difference.
    """
    plain = [as_text(contract) for contract in contracts]
    for other in plain[1:]:
        names = differing(plain[0], other)
        if names:
            said = "; ".join(
                f"{name}: {plain[0].get(name, 'unknown')} and {other.get(name, 'unknown')}" for name in names
            )
            raise ValueError(f"these models were not measured alike, so they share no front ({said})")
    return plain[0] if plain else {}
