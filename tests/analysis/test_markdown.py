"""The report as Markdown: what it says, and that nothing in it is taken for more than text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from analysis import markdown
from analysis.document import Report

MakeSource = Callable[..., Any]


def test_it_says_what_to_ship_and_how_to_load_it(make_source: MakeSource) -> None:
    document = Report(make_source(12)).document()
    text = markdown.text(document, ["front.svg", "structure.svg"])
    assert text.startswith("# cola: accuracy against measured speed\n")
    [front] = document["fronts"]
    for row in front["trials"]:
        assert (f"| {row['trial']} |" in text) == row["on_front"]
    assert "![The front](<front.svg>)" in text
    assert "(structure.svg)" in text
    assert "AutoModelForSequenceClassification.from_pretrained" in text
    assert "1,000 resamples of the 400 dev rows" in text
    assert "V100" in text
    lengths = {line.count(" | ") for line in text.splitlines() if line.startswith("| s-")}
    assert len(lengths) == 1


def test_it_says_whose_timing_a_model_has(make_source: MakeSource) -> None:
    document = Report(make_source(12)).document()
    kept, *_ = (row for row in document["fronts"][0]["trials"] if row["on_front"])
    beaten, *_ = (row for row in document["fronts"][0]["trials"] if not row["on_front"])
    kept["timed_as"] = beaten["timed_as"] = "s-9999"
    text = markdown.text(document, ["front.svg", "structure.svg"])
    assert text.count("s-9999") == 1
    assert f"{kept['trial']} is timed as s-9999, of the same structure." in text


@pytest.mark.parametrize("kind", ["empty", "all failed", "plain"])
def test_documents_with_little_in_them(make_document: Callable[..., Any], kind: str) -> None:
    document = make_document(kind)
    text = markdown.text(document, ["front.svg"] * len(document["fronts"]))
    assert document["notes"][0] in text
    assert "None" not in text


def test_hostile_texts_stay_text(make_document: Callable[..., Any], payloads: tuple[str, ...]) -> None:
    document = make_document("hostile")
    document["notes"] += ["a\n# heading", "[link](javascript:x)", "| cell |", "`code`", "**bold**", "~~no~~"]
    text = markdown.text(document, ["front.svg"])
    outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"<(?!front\.svg>)\w", outside)
    assert not re.search(r"(?<!\\)\]\(javascript", outside)
    assert "a \\# heading" in outside
    assert "\\*\\*bold\\*\\*" in outside
    assert "\\`code\\`" in outside


def test_a_block_cannot_be_left_from_inside() -> None:
    content = "one\n```\ntwo ````` three"
    fenced = markdown.block(content, "console")
    assert fenced.splitlines()[0] == "``````console"
    assert fenced.splitlines()[-1] == "``````"
