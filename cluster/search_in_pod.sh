#!/usr/bin/env bash
# In the head's pod: a search whose study and runs are in databases outside. Usage: the flags of a search.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${COFI_STORAGE:?is not set: the address of the database of studies}"
bash cluster/start_mlflow.sh
# The password goes by the environment, as PostgreSQL reads it: everybody sees commands.
exec python -c '
import os, sys
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

try:
    url = make_url(os.environ.pop("COFI_STORAGE"))
except (ArgumentError, ValueError):
    sys.exit("search_in_pod.sh: COFI_STORAGE is no address of a database, such as postgresql://USER:PASSWORD@HOST/NAME")
password = url.password or url.query.get("password")
if password and url.get_backend_name() != "postgresql":
    sys.exit("search_in_pod.sh: COFI_STORAGE with a password must be of PostgreSQL (postgresql://...)")
if password:
    os.environ["PGPASSWORD"] = str(password)
# url.set() takes None for "as it is".
plain = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
storage = str(plain.difference_update_query(["password"]))
words = [sys.executable, "-m", "cofi_tune.search", "--address", "auto", "--storage", storage]
os.execv(sys.executable, words + ["--tracking-uri", "http://127.0.0.1:5000", *sys.argv[1:]])
' "$@"
