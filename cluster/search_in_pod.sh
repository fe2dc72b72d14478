#!/usr/bin/env bash
# In the head's pod: a search whose study and runs are in databases outside. Usage: the flags of a search.
set -euo pipefail
cd "$(dirname "$0")/.."
bash cluster/start_mlflow.sh
exec python -m cofi_tune.search --address auto --storage "$COFI_STORAGE" --tracking-uri http://127.0.0.1:5000 "$@"
