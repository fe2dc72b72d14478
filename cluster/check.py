"""The command `python -m cluster.check FILE...`: what is wrong with a cluster file, at no cost.

It knows files of `ray up` (AWS, Google Cloud, machines of your own) and RayJobs of KubeRay, asks no network
and changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cluster import findings, kuberay_rules, launcher_rules, secret_rules
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
    rules: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("placeholders", lambda: findings.placeholders(text)),
        ("open addresses", lambda: findings.open_addresses(text)),
        ("secrets", lambda: secret_rules.rules(text)),
    ]
    if not text.documents or not all(isinstance(document, dict) for document in text.documents):
        yield Finding((0,), "no cluster file: a mapping is expected")
    elif any("apiVersion" in document for document in text.documents):
        rules.append(("a RayJob", lambda: kuberay_rules.rules(text.documents)))
    elif len(text.documents) > 1:
        yield Finding((1,), "a file of `ray up` has one document")
    else:
        rules.append(("a file of `ray up`", lambda: launcher_rules.rules(text.documents[0])))
    for name, rule in rules:
        try:
            yield from rule()
        except Exception as error:
            # A user's file never ends in a traceback, and one that is not understood is never fine.
            what = f"{type(error).__name__}: {error}"[:200]
            yield Finding(
                (0,), f"the rules of {name} stumbled ({' '.join(what.split())}); this may be ours to mend"
            )


if __name__ == "__main__":
    sys.exit(main())
