"""The report as one page: a file that needs no network, no server and no library beside it.

Every text of the document may be hostile. Jinja escapes what goes into the page, `charts.plain` what goes to
plotly, the page's own script only ever sets `textContent`, and the page's policy lets nothing run but the
scripts whose hashes it names.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis import charts, columns, figure, heatmap, search_charts, sentences
from analysis.charts import Chart
from analysis.names import clipped, short_names
from analysis.svg import BARE, NARROW
from analysis.words import percent

TEMPLATES = Path(__file__).with_name("templates")
SCRIPTS = ("tables.js", "charts.js", "explore.js")
"""Of the page, in the order in which they run; together they are one script."""


def html(document: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """The page; the same document gives the same bytes.

    Args:
        document: what `analysis` knows of the studies; any string in it may be hostile.
        files: what the page offers for download, by file name.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    drawn: list[Chart] = []
    best = {row["trial"] for front in document["fronts"] for row in front["trials"] if row["on_front"]}
    names = short_names([row for front in document["fronts"] for row in front["trials"]])
    fronts = [_front(front, names, number, drawn) for number, front in enumerate(document["fronts"])]
    studies = [_study(study, best, number, drawn) for number, study in enumerate(document["studies"])]
    models = _models(document, names, drawn)
    published = charts.published(document["published"])
    drawn += published
    data = {
        "charts": {chart.id: chart.to_json() for chart in drawn},
        "fronts": [columns.of_front(front, names) for front in document["fronts"]],
        "files": {name: _packed(files[name]) for name in sorted(files)},
    }
    plotly, own = _plotly(), "\n".join(_template(name) for name in SCRIPTS)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    page = environment.get_template("report.html.j2").render(
        document=document,
        fronts=fronts,
        studies=studies,
        models=models,
        published=published,
        files=[(name, len(files[name].encode("utf-8", "replace"))) for name in sorted(files)],
        style=Markup(_template("report.css")),
        policy=_policy([plotly, own]),
        data=Markup(_inert(data)),
        plotly=Markup(plotly),
        script=Markup(own),
    )
    # A lone surrogate, which JSON can carry and UTF-8 cannot, ends as a question mark.
    return page.encode("utf-8", "replace").decode("utf-8")


def _front(
    front: Mapping[str, Any], names: Mapping[str, str], number: int, drawn: list[Chart]
) -> dict[str, Any]:
    from markupsafe import Markup

    best = [row for row in front["trials"] if row["on_front"]]
    bars = charts.bars(front, names, f"front-{number}") if best else []
    drawn += bars
    return {
        "number": number,
        "of": front,
        "rows": best,
        "names": names,
        "scenarios": columns.scenarios(front),
        "wide": Markup(figure.of_front(front, BARE, f"wide-{number}", names)),
        "narrow": Markup(figure.of_front(front, NARROW, f"narrow-{number}", names)),
        "legend": figure.legend(figure.dots_of(front, names)),
        "landmarks": sentences.landmarks(front, names),
        "neighbours": sentences.neighbours(front, names),
        "uncertainty": [*sentences.uncertainty(front), *sentences.timing(front)],
        "bars": bars,
    }


def _study(study: Mapping[str, Any], best: set[str], number: int, drawn: list[Chart]) -> dict[str, Any]:
    prefix = f"study-{number}"
    parallel = search_charts.parallel(study, prefix)
    parts = {
        "course": search_charts.course(study, prefix),
        "importance": search_charts.importance(study, prefix),
        "parallel": [parallel] if parallel else [],
        "slices": search_charts.slices(study, best, prefix),
    }
    drawn += [chart for part in parts.values() for chart in part]
    return {"of": study, "number": number, **parts}


def _models(document: Mapping[str, Any], names: Mapping[str, str], drawn: list[Chart]) -> dict[str, Any]:
    from markupsafe import Markup

    curves: dict[str, Any] = {}
    structures: dict[str, Any] = {}
    for study in document["studies"]:
        curves |= study["curves"]
        structures |= study["structures"]
    # In the order of the front.
    curves, structures = ({k: d[k] for k in [*names, *d] if k in d} for d in (curves, structures))
    curves = charts.thinned(curves)
    steps = charts.scores_over_steps(curves, names)
    layers = charts.layers(structures, names)
    training = [charts.training(trial, one, i) for i, (trial, one) in enumerate(curves.items())]
    drawn += [*([steps] if steps else []), *layers, *(chart for pair in training for chart in pair)]
    shown = {names.get(trial, trial): one for trial, one in structures.items()}
    return {
        "steps": [steps] if steps else [],
        "layers": layers,
        "picture": Markup(heatmap.structure_svg(shown)),
        "training": [names.get(trial, trial) for trial in curves],
        "first": training[0] if training else [],
    }


def _inert(data: Mapping[str, Any]) -> str:
    """JSON that no HTML parser takes for anything else, and that has no line ends of JavaScript's own."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _packed(text: str) -> str:
    """A file as base64 of gzip, which browsers unpack themselves: ten thousand rows take a tenth."""
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), mtime=0)).decode("ascii")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    script = str(get_plotlyjs()).replace("\r\n", "\n")
    assert "</script" not in script.lower()
    assert "<!--" not in script
    return script


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _decimals(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _short(number: float | None) -> str:
    """A count in thousands, millions or milliards: 5.03 M."""
    if number is None:
        return ""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {sign}"
    return f"{number:g}"


def _value(value: Any) -> str:
    """A setting as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


FILTERS = {"decimals": _decimals, "percent": percent, "short": _short, "value": _value, "clipped": clipped}
