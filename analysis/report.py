"""The command `python -m analysis.report --task cola`: which model to ship, how sure that is, how to load it.

`files` does the same for a search that ends.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.runs import Source
from cofi_tune.data.arguments import Parser
from cofi_tune.terminal import USAGE_EXIT

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 6
LONGEST_NAME = 100
RESERVED = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10)),
}
"""What Windows takes for a device."""
FIGURES_ONLY = ("curves", "points", "points_note", "structures")
"""Of a study in the document: drawn, and of no use to a program."""


def files(
    source: Source, output: str | None = None, *, with_pages: bool = True
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The report of some studies: the same studies make the same bytes.

    Args:
        source: where their runs are kept.
        output: what the search's output is called here; None: as it was called there.
        with_pages: make `report.html` and `report.md` too.

    Returns:
        The document, and every file by its name: `report.html` and `report.md` with their pictures,
        `front.csv`, `front.json`, `trials.parquet`.

    Raises:
        ValueError: the source cannot be read.
    """
    from analysis import figure, heatmap, markdown, page
    from analysis.document import Report

    report = Report(source, output)
    document = report.document()
    plain = _for_programs(document)
    texts = {"front.json": json.dumps(plain, indent=2, allow_nan=False) + "\n", "front.csv": to_csv(plain)}
    pictures = {}
    for number, front in enumerate(document["fronts"]):
        pictures["front.svg" if number == 0 else f"front-{front['id']}.svg"] = figure.of_front(front)
    structures = {t: plan for study in document["studies"] for t, plan in study["structures"].items()}
    if structures:
        pictures["structure.svg"] = heatmap.structure_svg(structures)
    if with_pages:
        texts["report.html"] = page.html(document, texts)
        texts["report.md"] = markdown.text(document, [*pictures])
    made = {name: text.encode() for name, text in {**texts, **pictures}.items()}
    return document, made | {"trials.parquet": _parquet(report.frame)}


def write(made: Mapping[str, bytes], directory: Path) -> list[Path]:
    """Write the files of a report; each is whole or not there.

    Returns:
        Their paths.

    Raises:
        OSError: the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("front-*.svg"):
        if old.name not in made:  # of a contract that is no more
            old.unlink()
    for name, content in made.items():
        beside = directory / f".{name}.new"
        beside.write_bytes(content)
        beside.replace(directory / name)
    return [directory / name for name in made]


def to_csv(document: Mapping[str, Any]) -> str:
    """One line for every measured model of every front."""
    rows = [_flat({"front": front["id"], **row}) for front in document["fronts"] for row in front["trials"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names or ["trial"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def directory_name(name: str) -> str:
    """A directory's name for a study, whatever MLflow calls it: never a path, never hidden, never empty."""
    plain = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:LONGEST_NAME].strip(".-")
    return f"study-{plain}" if plain.split(".")[0].upper() in RESERVED else plain or "study"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0; 2 for wrong flags, and for studies or an MLflow that cannot be read.
    """
    args = _parser().parse_args(argv)
    try:
        return _command(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_EXIT


def _command(args: argparse.Namespace) -> int:
    from analysis import tracked

    output = Path(args.output)
    if args.study and args.task:
        raise ValueError("--study and --task contradict each other; give one of them")
    if args.to == "" or (args.to and Path(args.to).is_file()):
        raise ValueError(f"--to {args.to or repr('')}: give a directory")
    if args.tracking_uri is not None and "://" not in args.tracking_uri:
        raise ValueError(
            f"--tracking-uri {args.tracking_uri}: give an address, such as sqlite:///{args.tracking_uri}"
        )
    if args.tracking_uri is None and not (output / "mlflow.db").is_file():
        raise ValueError(
            f"--output {output}: no mlflow.db in it (yet); give the search's --output, or --tracking-uri"
        )
    local = f"sqlite:///{output.absolute() / 'mlflow.db'}"
    source = tracked.connect(args.tracking_uri or local, None if args.tracking_uri else output)
    source.chosen = tracked.choose(source.studies(), args.study or [], args.task)
    names = [study.name for study in source.chosen]
    document, made = files(source, args.output if args.tracking_uri is None else None)
    directory = Path(args.to) if args.to else output / directory_name("-and-".join(names[:2]))
    write(made, directory)
    for line in _said(document, directory):
        print(line)
    return 0


def _said(document: Mapping[str, Any], directory: Path) -> Iterator[str]:
    yield from document["notes"]
    for front in document["fronts"]:
        kept = sum(row["on_front"] for row in front["trials"])
        number = len(front["trials"])
        models = f"{number} model{'s' if number != 1 else ''}, {kept} that no other beats"
        yield f"{front['task']}, {front['scenario']} on {front['label']}: {models}. {front['recommendation']}"
    yield f"Report: {directory / 'report.html'} (and report.md, front.csv, front.json, trials.parquet)"


def _for_programs(document: Mapping[str, Any]) -> dict[str, Any]:
    studies = [{k: v for k, v in study.items() if k not in FIGURES_ONLY} for study in document["studies"]]
    found: dict[str, Any] = rounded({**document, "studies": studies})
    return found


def rounded(value: Any) -> Any:
    """JSON whose numbers have `DIGITS` digits: none of ours is surer, and `trials.parquet` has them all."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, (list, tuple)) else value


def _parquet(frame: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.drop(columns=["run_id"]).to_parquet(out, index=False)
    return out.getvalue()


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        elif name not in ("load", "serve", "reproduce"):
            flat[prefix + name] = value
    return flat


def _harmless(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value[:1] else value


def _parser() -> Parser:
    made = Parser(
        prog="python -m analysis.report",
        description="Write the report of a search: which models are worth having, and how sure that is.",
    )
    made.add_argument("--task", help="the latest study of this task (default: the latest of all)")
    made.add_argument("--study", "--name", metavar="NAME", action="append", help="may be repeated")
    made.add_argument("--output", default="runs", metavar="DIR", help="of the search (default runs)")
    made.add_argument(
        "--tracking-uri",
        metavar="URI",
        type=str,
        help="of MLflow: a server or a database (default: mlflow.db in the output)",
    )
    made.add_argument("--to", metavar="DIR", help="where to write (default: the study's directory)")
    return made


if __name__ == "__main__":
    sys.exit(main())
