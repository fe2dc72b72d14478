"""Keeps passwords out of what is printed and kept."""

from __future__ import annotations

import re

OWNER = re.compile(r"//(?:[^/\s:@]*:\S*|[^/\s]*)@")
"""`//user:password@`; a password may have any sign, unescaped."""
PARAMETER = re.compile(r"(?<=[?&])(password|sslpassword)=[^&\s]*")


def without_password(text: str) -> str:
    """A text whose addresses have lost their `user:password@` and their `password=`."""
    return PARAMETER.sub("", OWNER.sub("//", text))


def masked(text: str) -> str:
    """A text whose addresses show where these belong, and not what they are."""
    return PARAMETER.sub(r"\1=PASSWORD", OWNER.sub("//USER:PASSWORD@", text))
