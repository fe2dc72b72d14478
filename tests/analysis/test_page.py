"""The report's page as text: what can be said of it without a browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html.parser
import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import pytest

from analysis import charts, columns, contracts, figure, heatmap, labels, names, page, sentences
from analysis.labels import Box
from analysis.svg import BARE, NARROW

FILES = {"front.csv": "trial\na\n", "front.json": "{}\n"}
KINDS = ("search", "plain", "empty", "all failed", "hostile")
Make = Callable[..., Any]


class Tags(html.parser.HTMLParser):
    """The tags of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs).get("type") or "", ""))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", {}))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = kind, text + data


def embedded(text: str) -> Any:
    [data] = [body for kind, body in Tags(text).scripts if kind == "application/json"]
    return json.loads(data)


@pytest.mark.parametrize("kind", KINDS)
def test_same_document_same_bytes(make_document: Make, kind: str) -> None:
    assert page.html(make_document(kind), FILES) == page.html(make_document(kind), FILES)


@pytest.mark.parametrize("kind", KINDS)
def test_policy_names_exactly_the_scripts_that_run(make_document: Make, kind: str) -> None:
    tags = Tags(page.html(make_document(kind), FILES))
    [policy] = [str(a["content"]) for tag, a in tags.tags if a.get("http-equiv") == "Content-Security-Policy"]
    hashes = [
        base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        for kind, body in tags.scripts
        if kind == ""
    ]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("style-src")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched_and_nothing_handles_events(make_document: Make, kind: str) -> None:
    for tag, attributes in Tags(page.html(make_document(kind), FILES)).tags:
        assert tag not in {"img", "link", "iframe", "object", "embed", "base", "use", "image"}
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert (attributes.get("href") or "#").startswith("#")


def test_hostile_strings_end_no_script(make_document: Make, payloads: tuple[str, ...]) -> None:
    text = page.html(make_document("hostile"), FILES)
    tags = Tags(text)
    assert [kind for kind, _ in tags.scripts] == ["application/json", "", ""]
    data = tags.scripts[0][1]
    assert not set("<>&\u2028\u2029") & set(data)
    assert payloads[1] in embedded(text)["fronts"][0]["methods"][0]
    assert text.count("{{7*7}}") > 0


def test_a_lone_surrogate_is_no_error(make_document: Make) -> None:
    document = make_document()
    document["notes"].append("half \ud800 a sign")
    page.html(document, {"front.csv": "\ud800"}).encode("utf-8")


def test_files_come_back_whole(make_document: Make) -> None:
    files = {"front.csv": "a,b\r\n1,ü\n", "front.json": json.dumps({"a": "</script>"})}
    packed = embedded(page.html(make_document(), files))["files"]
    assert {n: gzip.decompress(base64.b64decode(t)).decode() for n, t in packed.items()} == files


def test_ten_thousand_trials_stay_small(make_document: Make) -> None:
    document = make_document("search", num_trials=10_000)
    files = {"front.csv": "x\n", "front.json": json.dumps(document, indent=2)}
    text = page.html(document, files)
    assert len(text.encode()) < 12_000_000
    assert len(embedded(text)["fronts"][0]["trial"]) == 10_000


def test_numbers_that_are_none_are_left_out(make_document: Make) -> None:
    document = make_document()
    document["fronts"][0]["trials"][-1]["settings"]["learning_rate_ratio"] = float("nan")
    document["studies"][0]["course"][2]["hypervolume"] = float("inf")
    assert "NaN" not in json.dumps(embedded(page.html(document, FILES)))
    assert columns.rounded(float("inf")) is None
    assert columns.rounded(1 / 3) == 0.333333
    assert columns.rounded(True) is True


def test_plain_takes_the_meaning_from_markup() -> None:
    assert charts.plain("<a href='javascript:x'>&") == "&lt;a href='javascript:x'&gt;&amp;"
    assert len(charts.plain("x" * 500)) < 90


@pytest.mark.parametrize("most", [2, 7, 300])
def test_thinning_keeps_the_ends(most: int) -> None:
    kept = charts.some(list(range(1000)), most)
    assert (kept[0], kept[-1], len(kept)) == (0, 999, most)


def test_published_figures_have_axes_of_their_own(make_document: Make) -> None:
    drawn = embedded(page.html(make_document(), FILES))["charts"]
    for name, chart in drawn.items():
        assert ("CoFi-CoLA-s95" in json.dumps(chart)) == name.startswith("published-")


@pytest.mark.parametrize("frame", [None, BARE, NARROW])
def test_labels_of_close_points_do_not_overlap(make_document: Make, frame: Any) -> None:
    front = make_document("search", num_trials=60)["fronts"][0]
    root = ElementTree.fromstring(figure.of_front(front, frame))
    boxes = [
        box_of(node) for node in root.iter("{http://www.w3.org/2000/svg}text") if node.get("class") == "label"
    ]
    assert len(boxes) > 5
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def box_of(node: ElementTree.Element) -> Box:
    """Where a text of 12 pixels lies, half of whose size is the width of an average sign."""
    x, y, width = float(node.get("x", 0)), float(node.get("y", 0)), 6.0 * len(node.text or "")
    left = x - width if node.get("text-anchor") == "end" else x
    return Box(left, y - 9, left + width, y + 2)


def test_labels_that_fit_nowhere_are_left_out() -> None:
    crowd = [(50.0, 50.0, "a rather long label")] * 40
    placed = labels.place(crowd, Box(0, 0, 200, 100), [])
    assert 0 < len(placed) < 40


def test_intervals_are_bars_of_the_picture(make_document: Make) -> None:
    front = make_document()["fronts"][0]
    text = figure.of_front(front)
    assert text.count('class="interval"') == 1 + sum(row["on_front"] for row in front["trials"])
    assert 'class="interval"' not in figure.of_front(make_document("plain")["fronts"][0])


def test_a_picture_of_many_stays_small(make_document: Make) -> None:
    front = make_document("search", num_trials=10_000)["fronts"][0]
    assert len(figure.of_front(front)) < 250_000


def test_names_are_short_and_distinct() -> None:
    def short(*pairs: tuple[str, str]) -> list[str]:
        return list(names.short_names([{"study": s, "trial": t} for s, t in pairs]).values())

    assert short(("s", "s-0001"), ("s", "s-0002")) == ["0001", "0002"]
    assert short(("a-b", "a-b-1"), ("a-c", "a-c-1")) == ["b-1", "c-1"]
    assert short(("a", "a-1"), ("a-2", "a-2-1")) == ["a-1", "a-2-1"]
    assert short(("s", "elsewhere")) == ["elsewhere"]
    assert short() == []
    assert names.clipped("abcdefghij", 5) == "ab…ij"


def test_heat_map_shows_every_layer(make_document: Make) -> None:
    structures = make_document()["studies"][0]["structures"]
    root = ElementTree.fromstring(heatmap.structure_svg(structures))
    titles = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert sum(text.startswith("layer ") for text in titles) == 8 * len(structures)
    assert heatmap.structure_svg({}) == ""
    hostile = heatmap.structure_svg({"<script>": next(iter(structures.values()))}, name="other")
    assert not [node for node in ElementTree.fromstring(hostile).iter() if node.tag.endswith("script")]


def test_sentences_say_what_cannot_be_told_apart(make_document: Make) -> None:
    front = make_document()["fronts"][0]
    said = sentences.neighbours(front, {})
    assert len(said) == len(front["neighbours"])
    assert any("cannot tell them apart" in one for one in said)
    assert any("they differ" in one for one in said)
    assert "1,000 resamples of the 1,043 dev rows" in sentences.uncertainty(front)[0]
    assert "no intervals" in sentences.uncertainty(make_document("plain")["fronts"][0])[0]
    assert "Hypervolume 1.93" in sentences.landmarks(front, {})


def contrast(one: str, other: str) -> float:
    """WCAG 2's ratio of two colours, 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_texts_can_be_read_in_both_schemes(scheme: int) -> None:
    css = (page.TEMPLATES / "report.css").read_text(encoding="utf-8")
    found = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", found))
    for text in ("ink", "soft", "accent"):
        for ground in ("paper", "wash"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["ink"], colours["pale"]) >= 4.5
    for mark in ("accent", "rest", *(name for name in colours if re.fullmatch(r"c\d", name))):
        assert contrast(colours[mark], colours["paper"]) >= 2.9, mark


def test_models_timed_in_a_crowd_are_said_to_be(make_document: Any) -> None:
    front = make_document("plain")["fronts"][0]
    alone = {**front, "contract": {**front["contract"], "alone": "yes"}}
    crowd = {**front, "contract": {**front["contract"], "alone": "no"}}
    assert sentences.BESIDE in sentences.uncertainty(crowd)
    assert sentences.BESIDE not in sentences.uncertainty(alone) + sentences.uncertainty(front)
    assert contracts.label(crowd["contract"]) == contracts.label(front["contract"]) + ", beside other trials"
    assert contracts.contract_id(alone["contract"]) != contracts.contract_id(crowd["contract"])
