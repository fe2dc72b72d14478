#!/usr/bin/env bash
# On every node: the token is its user's alone, and the project with the versions of constraints.txt.
# Usage: setup.sh [aws|gcp]   (what the head needs to start nodes there; nothing: it starts none)
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
"" | aws | gcp) ;;
*)
    echo "usage: setup.sh [aws|gcp]" >&2
    exit 2
    ;;
esac
if ! test -s ~/.ray/auth_token; then
    echo "setup.sh: no ~/.ray/auth_token: make it where you type \`ray up\`, by \`ray get-auth-token --generate\`," \
        "and mount it (file_mounts)" >&2
    exit 1
fi
chmod 700 ~/.ray
chmod 600 ~/.ray/auth_token

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "setup.sh: $("$python" --version) is too old; take an image with Python 3.11 or newer" >&2
    exit 1
fi
if ! test -x .venv/bin/pip && ! "$python" -m venv .venv; then
    sudo apt-get update -qq
    sudo apt-get install -qq --yes python3-venv
    "$python" -m venv --clear .venv
fi
.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt --editable ".[s3,postgresql${1:+,$1}]"

# For `ray exec`, `ray attach` and `ray down`, whose commands start in a login shell.
mark='# cofi-tune'
if ! grep -qF "$mark" ~/.bashrc 2>/dev/null; then
    # First: many a .bashrc ends early for a shell that nobody types in.
    own="export PATH=\"$PWD/.venv/bin:\$PATH\" RAY_AUTH_MODE=token $mark"
    printf '%s\n%s\n' "$own" "$(cat ~/.bashrc 2>/dev/null)" > ~/.bashrc.new
    mv ~/.bashrc.new ~/.bashrc
fi
