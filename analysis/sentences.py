"""What a front says in words: which models cannot be told apart, and where the intervals come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.contracts import crowded

BESIDE = (
    "These models were timed while other trials ran beside them, each in turn with the dense model: speedups "
    "hold within their quartiles, milliseconds are those of a busy machine."
)
UNEVEN = 1.15
"""How much longer the dense model may take beside one model than beside another before it is said."""


def neighbours(front: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """A sentence for each pair of models that follow each other on the front."""
    return [_pair(pair, names, front["uncertainty"] is not None) for pair in front["neighbours"]]


def uncertainty(front: Mapping[str, Any]) -> list[str]:
    """Where the intervals come from, and what they do not cover."""
    known, busy = front["uncertainty"], [BESIDE] if crowded(front["contract"]) else []
    if known is None:
        return [
            *busy,
            "No predictions of these models are stored, so their scores have no intervals: whether two "
            "scores differ by chance alone is not known.",
        ]
    said = [
        *busy,
        f"Intervals of scores: the middle 95 % over {known['num_resamples']:,} resamples of the "
        f"{known['num_rows']:,} dev rows, drawn alike for all models, so that differences are paired. "
        "Share of fronts: of those resamples, with speedups drawn within their error, the part in which "
        "nobody beats the model on both.",
    ]
    noise, times = known.get("seed_noise"), known.get("num_replicates") or 0
    if noise is None:
        said.append("What another seed would have given is not in them: no configuration was run twice.")
    else:
        said.append(
            f"They are widened by what another seed gives: a standard deviation of {noise:.3f} between "
            f"{times:,} trials that repeat a point."
        )
    if known.get("num_models", 0) > 1:
        said.append(
            f"{known['num_models']:,} models were scored on the same rows, so the best score among them is "
            "somewhat too good."
        )
    return said


def timing(front: Mapping[str, Any]) -> list[str]:
    """What is to be known of the speedups."""
    low, high = front["dense"].get("dense_ms") or (None, None)
    said = ["Speedups are given with the quartiles of their paired timings."]
    if low and high and high > UNEVEN * low:
        said.append(
            f"The dense model itself took {low:.3g} to {high:.3g} ms a row beside these models, so the "
            "machine was not always equally busy, and speedups shift with that; python -m cofi_tune.retime "
            "times all again, one after the other."
        )
    if len(front["trials"]) < front.get("num_models", 0):
        said.append(f"Only {len(front['trials'])} of {front['num_models']} models were timed this way.")
    return said


def landmarks(front: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Hypervolume and knee."""
    reference = front["reference"]
    words = ""
    if front.get("hypervolume") is not None:
        words = (
            f"Hypervolume {front['hypervolume']:.4g}, from a score of {reference['score']:g} "
            f"and {reference['speedup']:g}x."
        )
    if front.get("knee"):
        words += f" The front bends most at {names.get(front['knee'], front['knee'])}."
    return words.strip()


def _pair(pair: Mapping[str, Any], names: Mapping[str, str], known: bool) -> str:
    better, faster = (names.get(pair[key], pair[key]) for key in ("better", "faster"))
    low, high = pair.get("low"), pair.get("high")
    words = f"{better} scores {pair['difference']:.3f} more than {faster}"
    if not known or low is None or high is None:
        words += "; how sure that is cannot be said"
    else:
        sure = "they differ" if pair["distinguishable"] else "the dev rows cannot tell them apart"
        words += f" (95 %: {_signed(low)} to {_signed(high)}): {sure}"
    words += f". {faster} is {pair['speedup_ratio']:.2f} times as fast"
    if pair.get("ratio_low") is not None and pair.get("ratio_high") is not None:
        words += f" (95 %: {pair['ratio_low']:.2f} to {pair['ratio_high']:.2f})"
        words += "." if pair["faster_for_sure"] else ", which may be chance."
        return words
    return words + "."


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
