"""What to do about a bucket that cannot be used, as far as waiting does not cure it."""

from __future__ import annotations

LENGTH = 160
LASTING = {
    ("NO_SUCH_BUCKET", "NoSuchBucket"): "there is no such bucket; make it, or correct --output",
    ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE", "UNRECOGNIZED_CLIENT", "HTTP status 403"): (
        "access is denied; the credentials of this machine (AWS_PROFILE, AWS_ACCESS_KEY_ID or its role, for "
        "s3) must be allowed to list, read, write and delete there"
    ),
}
"""How pyarrow puts it, and the remedy."""


def of(error: Exception) -> str | None:
    """The remedy; None where waiting may be one."""
    text = str(error)
    return next((remedy for words, remedy in LASTING.items() if any(word in text for word in words)), None)


def line(error: Exception) -> str:
    """An error in one line, cut between words."""
    words = " ".join(str(error).split())
    return words if len(words) <= LENGTH else words[:LENGTH].rpartition(" ")[0] + " ..."
