#!/usr/bin/env bash
# On the head: MLflow's server, for this machine alone. It outlives searches; a second start changes nothing.
# MLFLOW_BACKEND_STORE_URI takes another database than SQLite, MLFLOW_PORT another port than 5000.
set -euo pipefail
python=$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/python
test -x "$python" || python=$(command -v python3)
port=${MLFLOW_PORT:-5000}
data=${MLFLOW_DATA:-$HOME/mlflow}
health=http://127.0.0.1:$port/health
answers() { "$python" -c "import urllib.request as u; u.urlopen('$health', timeout=2)" 2>/dev/null; }

if answers; then
    echo "MLflow is there already: http://127.0.0.1:$port"
    exit 0
fi
mkdir -p -m 700 "$data"
# In the environment, since an address may have a password, and everybody sees commands.
export MLFLOW_BACKEND_STORE_URI=${MLFLOW_BACKEND_STORE_URI:-sqlite:///$data/mlflow.db}
# Without jobs it is two processes, and not ten.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
nohup setsid "$python" -m mlflow server --host 127.0.0.1 --port "$port" --workers 1 \
    --allowed-hosts '127.0.0.1:*,localhost:*' --uvicorn-opts --no-access-log \
    --no-serve-artifacts --default-artifact-root "${MLFLOW_ARTIFACTS:-$data/artifacts}" \
    >>"$data/server.log" 2>&1 </dev/null &
server=$!
for _ in $(seq 120); do
    if answers; then
        echo "MLflow: http://127.0.0.1:$port"
        exit 0
    fi
    kill -0 "$server" 2>/dev/null || break
    sleep 1
done
echo "start_mlflow.sh: it does not answer; the end of $data/server.log:" >&2
tail -n 5 "$data/server.log" >&2
exit 1
