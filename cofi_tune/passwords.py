"""Keeps passwords out of what is printed and kept."""

from __future__ import annotations

import re

OWNER = re.compile(r"//(?:[^/\s:@]*:\S*|[^/\s]*)@")
"""`//user:password@`; a password may have any sign, unescaped."""
DATABASE = re.compile(r"(postgresql|mysql)(\+\w+)?:$")
PARAMETER = re.compile(r"(?<=[?&])(password|sslpassword)=[^&\s]*")


def without_password(text: str) -> str:
    """A text whose addresses have lost their `user:password@` and their `password=`."""
    return PARAMETER.sub("", OWNER.sub("//", text))


def masked(text: str) -> str:
    """A text whose addresses show where these belong, and not what they are."""
    return PARAMETER.sub(r"\1=PASSWORD", OWNER.sub(_shown, text))


def _shown(owner: re.Match[str]) -> str:
    """A database's user alone is no secret, unlike what stands there for a server of the web."""
    is_database = DATABASE.search(owner.string[: owner.start()]) is not None
    return owner[0] if is_database and ":" not in owner[0] else "//USER:PASSWORD@"
