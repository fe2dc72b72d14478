#!/usr/bin/env bash
# On the head: MLflow's server, for this machine alone. It outlives searches; a second start changes nothing.
# MLFLOW_BACKEND_STORE_URI takes another database than SQLite, MLFLOW_PORT another port than 5000.
set -euo pipefail
python=$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/python
test -x "$python" || python=$(command -v python3)
port=${MLFLOW_PORT:-5000}
data=${MLFLOW_DATA:-$HOME/mlflow}
# MLflow's /health says OK and its /version a version: another server may have a /health too.
answers() {
    "$python" - "http://127.0.0.1:$port" 2>/dev/null <<'ASK'
import re, sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
health, version = (opener.open(sys.argv[1] + path, timeout=2).read(100).decode() for path in ("/health", "/version"))
sys.exit(health.strip() != "OK" or not re.fullmatch(r"\d+\.\d+\S*", version.strip()))
ASK
}
is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

if answers; then
    echo "MLflow is there already: http://127.0.0.1:$port"
    exit 0
fi
if is_taken; then
    echo "start_mlflow.sh: port $port is taken by something that is not MLflow; end it, or set MLFLOW_PORT" >&2
    exit 1
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
