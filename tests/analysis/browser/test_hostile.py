"""Every string of a document may be an attack, and stays a text."""

from __future__ import annotations

from typing import Any

import pytest

OWNED = "[window.owned, document.querySelectorAll('img, iframe, object, embed, base, form[action]').length]"


@pytest.fixture
def hostile(opened: Any) -> Any:
    one = opened("hostile", {"viewport": {"width": 1600, "height": 1000}})
    one.draw("#all-trials")
    return one


def test_nothing_of_it_runs_and_charts_show_it(hostile: Any) -> None:
    hostile.draw()
    assert hostile.page.evaluate(OWNED) == [None, 0]
    links = hostile.page.evaluate(
        "[...document.querySelectorAll('*')].flatMap((each) => ['href', 'xlink:href']"
        ".map((name) => each.getAttribute(name)).filter(Boolean))"
    )
    # A heat map is a picture that plotly draws itself.
    assert [link for link in links if not link.startswith(("#", "data:image/png;"))] == []
    handlers = (
        "[...document.querySelectorAll('*')].filter((e) => [...e.attributes].some((a) => /^on/.test(a.name)))"
    )
    assert hostile.page.evaluate(f"({handlers}).length") == 0
    drawn = hostile.page.evaluate(
        "[...document.querySelectorAll('.plot')].map((p) => p.textContent).join('\\n')"
    )
    assert '"><svg onload=window.owned=3>' in drawn
    assert "{{7*7}}" in drawn
    assert "</a>" in drawn
    assert "&lt;" not in drawn
    hostile.is_clean()


def test_all_of_it_can_be_read(hostile: Any, payloads: tuple[str, ...]) -> None:
    for details in hostile.page.locator("details").all():
        details.evaluate("(each) => { each.open = true; }")
    text = hostile.page.evaluate("document.body.textContent")
    for payload in payloads:
        assert payload in text
    assert "49" not in hostile.page.inner_text(".notes")
    assert hostile.page.title() == "cola: accuracy against measured speed" + payloads[0]


def test_hovering_shows_markup_as_text(hostile: Any, payloads: tuple[str, ...]) -> None:
    texts = hostile.page.evaluate(
        """() => {
          const place = document.getElementById("all-trials");
          const drawn = place.data.flatMap((t) => (Array.isArray(t.hovertext) ? t.hovertext : []));
          const trace = place.data.findIndex((t) => Array.isArray(t.marker?.symbol) && t.error_x);
          Plotly.Fx.hover(place, [{ curveNumber: trace, pointNumber: 0 }]);
          return [drawn[0], place.querySelector(".hoverlayer").textContent,
            place.querySelectorAll(".hoverlayer a").length];
        }"""
    )
    assert "<a" not in texts[0]
    assert "<a href=javascript:window.owned=2>link</a>" in texts[1]
    assert "<img" in texts[1]
    assert texts[2] == 0
    hostile.is_clean()


def test_choosing_from_hostile_names(hostile: Any) -> None:
    for name in ("#study", "#method"):
        for value in hostile.page.locator(f"{name} option").evaluate_all("(all) => all.map((o) => o.value)"):
            hostile.page.select_option(name, value)
    hostile.page.fill("#min-score", "0.3")
    assert "owned" in hostile.page.locator("#verdict").inner_text() + "owned"
    assert hostile.page.evaluate(OWNED) == [None, 0]
    hostile.is_clean()


def test_the_policy_refuses_what_gets_in_all_the_same(opened: Any) -> None:
    one = opened()
    one.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.owned = 4";
          document.body.append(script);
          const image = document.createElement("img");
          image.src = "https://example.org/x.png";
          document.body.append(image);
        }"""
    )
    one.page.wait_for_function("() => window.violations.length >= 2")
    assert sorted(one.page.evaluate("window.violations")) == ["img-src", "script-src-elem"]
    assert one.page.evaluate("window.owned") is None
