"""What must not stand in a file that is copied, committed and shown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cluster.findings import Finding, Text

ADVICE = "use an instance profile or a file of mode 0600 that is mounted"
SHAPES = {
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    # 40 letters and digits of every kind: a commit's hex digits are of one kind of letter.
    "an AWS secret key": re.compile(
        r"(?<![\w/+=-])(?=[^a-z\s]*[a-z])(?=[^A-Z\s]*[A-Z])(?=\D*\d)[A-Za-z0-9/+]{40}(?![\w/+=-])"
    ),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]|github_pat)_[A-Za-z0-9_]{16,}"),
    "a GitLab token": re.compile(r"\bglpat-[\w-]{16,}"),
    "a Google API key": re.compile(r"\bAIza[\w-]{35}"),
    "a Slack token": re.compile(r"\bxox[abprs]-[\w-]{10,}"),
    "an API key": re.compile(r"\bsk-[\w-]{20,}"),
}
"""Known by themselves, wherever they stand: in a comment too."""
USES = {
    # A variable of the shell is none: its value is elsewhere.
    "a password in an address": re.compile(
        r"://[^/\s:@]*:(?!\$\{?\w+\}?@)[^/\s@]+@|https?://(?!\$\{?\w+\}?@)[^/\s:@]+@"
    ),
    "a token in a command": re.compile(
        r"(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|ACCESS_KEY(?:_ID)?|API_KEY)[\"']?\s*[:=]\s*[\"']?[^\s\"'$]"
        r"|--[\w-]*(?:password|token|secret|api-key)[= ]\s*[\"']?[^\s\"'$-]"
        r"|\bconfigure\s+set\s+\S*(?:secret|key|token|password)\S*\s+[\"']?[^\s\"'$]",
        re.IGNORECASE,
    ),
    "a command that writes credentials": re.compile(
        r"(?:>|\btee\b)[^;&|\n]*(?:pgpass|netrc|credentials|auth_token|kaggle\.json|\.my\.cnf|/id_\w+|/token\b)"
    ),
}
"""Known by what is done with them."""
SECRET_KEYS = re.compile(
    r"^[^/]*(?:password|secret|api_?key|auth_?token|(?:^|[_-])token|access_?key(?:_id)?|credentials"
    r"|private_?key)$",
    re.IGNORECASE,
)
NO_SECRETS = {"ssh_private_key", "ssh_public_key"}
"""Keys that name a file."""


def rules(text: Text) -> Iterator[Finding]:
    """Secrets, each by its kind and never by itself.

    Args:
        text: of the file.
    """
    for number, line in enumerate(text.raw.splitlines(), 1):
        for name, pattern in SHAPES.items():
            if pattern.search(line):
                yield Finding(number, f"{name} in the file; {ADVICE}")
    for where, _, value in text.scalars:
        # One that is written over several lines, or with escapes, is only seen once YAML has read it.
        patterns = USES if value in text.raw else SHAPES | USES
        what = next((name for name, pattern in patterns.items() if pattern.search(value)), None)
        key = next((str(part) for part in reversed(where) if isinstance(part, str)), "")
        if what is None and value not in ("", key) and key not in NO_SECRETS and SECRET_KEYS.search(key):
            what = f"a {key}"
        if what is not None:
            yield Finding(where, f"{what} in the file; {ADVICE}")
