"""The command `python -m cluster.check FILE...`: what is wrong with a cluster file, at no cost.

It knows files of `ray up` (AWS, Google Cloud, machines of your own) and RayJobs of KubeRay, asks no network
and changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster import findings, kuberay_rules, launcher_rules
from cluster.findings import Finding

USAGE_EXIT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0; 2 if a file cannot be read or something is wrong with it.
    """
    parser = argparse.ArgumentParser(prog="python -m cluster.check", description="Check cluster files.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    status = 0
    for path in parser.parse_args(argv).files:
        try:
            found = problems(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            found = [str(error)]
        for line in found:
            print(f"{path}: {line}", file=sys.stderr)
        if found:
            status = USAGE_EXIT
        else:
            print(f"{path}: fine")
    return status


def problems(text: str) -> list[str]:
    """What is wrong with a cluster file.

    Args:
        text: of the file.

    Returns:
        Sentences with the line that each is about, in the file's order; empty: nothing.
    """
    try:
        read = findings.read(text)
    except ValueError as error:
        return [str(error)]
    found = {(read.line(where), what) for where, what in _findings(read)}
    return [f"line {line}: {what}" for line, what in sorted(found)]


def _findings(text: findings.Text) -> Iterator[Finding]:
    yield from findings.placeholders(text)
    yield from findings.open_addresses(text)
    yield from findings.secrets(text)
    if not text.documents or not all(isinstance(document, dict) for document in text.documents):
        yield Finding((0,), "no cluster file: a mapping is expected")
    elif any("apiVersion" in document for document in text.documents):
        yield from kuberay_rules.rules(text.documents)
    elif len(text.documents) > 1:
        yield Finding((1,), "a file of `ray up` has one document")
    else:
        only: dict[str, Any] = text.documents[0]
        yield from launcher_rules.rules(only)


if __name__ == "__main__":
    sys.exit(main())
