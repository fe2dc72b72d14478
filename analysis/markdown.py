"""The report as Markdown, for a pull request: the answer of `report.html`, with its pictures beside it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis import sentences, words

SPECIAL = re.compile(r"([\\`*_\[\]#|~])")
Table = Sequence[Sequence[object]]


def text(document: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """The report.

    Args:
        document: of `analysis.document`.
        pictures: file names of the fronts' pictures, in their order, and of the models' structures.
    """
    parts = [f"# {plain(document['heading'])}", *(plain(note) for note in document["notes"])]
    for number, front in enumerate(document["fronts"]):
        parts += _front(front, pictures[number])
    if "structure.svg" in pictures:
        parts += ["## Inside the models", "![What is left of each layer](structure.svg)"]
    for study in document["studies"]:
        parts += _study(study)
    parts += _published(document)
    for front in document["fronts"]:
        rows = [(name, value) for name, value in front["contract"].items()]
        parts += [f"## Measured under: {plain(front['label'])}", table(("", ""), rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(value: object) -> str:
    """A text that Markdown and HTML take for nothing but text, in one line."""
    shown = "".join(sign if sign.isprintable() else " " for sign in str(value))
    return SPECIAL.sub(r"\\\1", html.escape(" ".join(shown.split()), quote=False))


def table(heads: Sequence[object], rows: Table) -> str:
    """A table; everything in it is text."""
    lines = [heads, ["---"] * len(heads), *rows]
    cells = ([cell if cell == "---" else plain(cell) for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def block(content: str, language: str = "") -> str:
    """A fenced block, with a longer fence than any inside."""
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}"


def _front(front: Mapping[str, Any], picture: str) -> Iterable[str]:
    yield f"## {plain(front['task'])} on {plain(front['label'])}"
    yield plain(front["recommendation"])
    yield f"![The front](<{picture}>)"
    kept = sorted((r for r in front["trials"] if r["on_front"]), key=lambda r: (r["speedup"], -r["score"]))
    scenarios = list(front["trials"][0]["scenarios"])
    heads = ["model", front["metric"], "of dense", *(f"{name} speedup" for name in scenarios)]
    dense = front["dense"]
    first = ["dense", words.score(dense), "100 %", *("1.00x" for _ in scenarios)]
    first += [words.whole(dense["num_parameters"]), words.whole(dense["macs"]), "0.000", ""]
    yield table(
        [*heads, "parameters", "MACs", "sparsity", "share of fronts"],
        [first, *(_row(row, scenarios) for row in kept)],
    )
    for row in kept:
        if row.get("timed_as"):
            yield f"{plain(row['trial'])} is timed as {plain(row['timed_as'])}, of the same structure."
    others = len(front["trials"]) - len(kept)
    if others:
        yield f"{others} more {'model is' if others == 1 else 'models are'} beaten on both, or not of use."
    said = [*sentences.neighbours(front, {}), *sentences.uncertainty(front), *sentences.timing(front)]
    yield "\n".join(f"- {plain(sentence)}" for sentence in said)
    best = next((row for row in kept if row["trial"] == front["recommended"]), kept[-1] if kept else None)
    if best is not None:
        yield f"To load {plain(best['trial'])}, and the others likewise:"
        yield block(best["load"], "python")
        if best.get("chain"):
            yield f"It is {plain(best['chain'])}: each link goes on from where the one before ended pruning."
        if best["reproduce"]:
            yield "To make it again without a search:"
            yield block(best["reproduce"], "console")


def _row(row: Mapping[str, Any], scenarios: Sequence[str]) -> list[str]:
    return [
        row["trial"],
        words.score(row),
        words.percent(row["score_share"]),
        *(words.speedup(row["scenarios"][name]) for name in scenarios),
        words.whole(row["num_parameters"]),
        words.whole(row["macs"]),
        f"{row['sparsity']:.3f}",
        words.percent(row["front_share"]),
    ]


def _study(study: Mapping[str, Any]) -> Iterable[str]:
    yield f"## How {plain(study['name'])} went"
    counts = ", ".join(f"{number} {kind}" for kind, number in study["counts"].items())
    yield f"Trials: {plain(counts or 'none')}."
    if study["ends"]:
        rows = [(e["state"], e["reason"], e["count"], e["message"]) for e in study["ends"]]
        yield table(("end", "reason", "trials", "for example"), rows)
    if study["importance"]:
        names = sorted({name for shares in study["importance"].values() for name in shares})
        yield "How much each setting matters for coming out among the best:"
        heads = ("setting", *(f"by {objective}" for objective in study["importance"]))
        shares = [[name, *(f"{s.get(name, 0):.2f}" for s in study["importance"].values())] for name in names]
        yield table(heads, sorted(shares, key=lambda row: str(row[1]), reverse=True))
    elif study["importance_note"]:
        yield plain(study["importance_note"])
    if study["command"]:
        yield block(study["command"], "console")


def _published(document: Mapping[str, Any]) -> Iterable[str]:
    if not document["published"]:
        return
    source = document["published_source"]
    yield "## Published figures, measured elsewhere"
    yield f"{plain(source['text'])}. Contract: {plain(source['contract'])}: not to be compared."
    heads = ("task", "model", "metric", "score", "speedup", "sparsity")
    shown = {"score": "{:.3f}", "speedup": "{:.1f}x", "sparsity": "{:.3f}"}
    yield table(heads, [[shown.get(n, "{}").format(row[n]) for n in heads] for row in document["published"]])
