"""Keeps passwords out of what is printed and kept."""

from __future__ import annotations

import re


def without_password(text: str) -> str:
    """A text whose addresses have lost their `user:password@`."""
    return re.sub(r"//[^/\s]*@", "//", text)
