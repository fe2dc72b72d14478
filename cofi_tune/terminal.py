"""What every command says to a person: plain lines, and an error in one."""

from __future__ import annotations

import sys

USAGE_EXIT, DATA_EXIT, ENVIRONMENT_EXIT, NO_MODEL_EXIT, INTERRUPTED_EXIT = 2, 3, 4, 5, 130
"""Exit statuses: what was asked for, its rows, what it runs on, no model to show for it, Ctrl-C."""


def say(text: str) -> None:
    """Print a line at once, also where nobody watches."""
    print(text, flush=True)


def fail(error: object, status: int) -> int:
    """Say what went wrong, and give the exit status back."""
    print(f"error: {error}", file=sys.stderr)
    return status
