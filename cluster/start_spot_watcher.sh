#!/usr/bin/env bash
# On a worker: watches for the provider's notice in the background. A second start changes nothing.
# Usage: start_spot_watcher.sh aws|gcp
set -euo pipefail
if [ $# -ne 1 ] || { [ "$1" != aws ] && [ "$1" != gcp ]; }; then
    echo "usage: start_spot_watcher.sh aws|gcp" >&2
    exit 2
fi
project=$(cd "$(dirname "$0")/.." && pwd)
RAY_AUTH_MODE=token nohup setsid "$project/.venv/bin/python" "$project/cluster/spot_watcher.py" --provider "$1" \
    >>"$HOME/spot_watcher.log" 2>&1 </dev/null &
