#!/usr/bin/env bash
# schemathesis against a running API of ours, by its own document, with a key, on a Redis of its own.
# tests/bench/api.sh [SECONDS] [SEED]; needs redis-server, python3 with venv, and a built binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds="${1:-300}" seed="${2:-20261121}"
binary="${WINDLASS_BINARY:-target/debug/windlass}"
venv="${SCHEMATHESIS_VENV:-/tmp/windlass-schemathesis}"
[ -x "$venv/bin/schemathesis" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet 'schemathesis==4.*'; }

work="$(mktemp -d)"
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
redis-server --port "$port" --save "" --dir "$work" >"$work/redis.log" &
redis=$!
api=
stop() { kill ${api:+"$api"} "$redis" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"; }
trap stop EXIT
program="$(realpath "$binary")"
key="wl-soak-$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')"
until redis-cli -p "$port" ping >/dev/null 2>&1; do sleep 0.1; done
(cd "$work" && REDIS_URL="redis://127.0.0.1:$port" WINDLASS_API_KEYS="$key" \
  WINDLASS_BODY_TIMEOUT_MS=2000 WINDLASS_LOG=warn exec "$program" up --listen 127.0.0.1:0 --json >"$work/first.json" 2>"$work/api.log") &
api=$!
until grep -q api "$work/first.json" 2>/dev/null; do sleep 0.1; kill -0 "$api" || { cat "$work/api.log"; exit 1; }; done
url="http://$(sed 's/.*"api":"\([^"]*\)".*/\1/' "$work/first.json")"

# Not asked for: whether what the schema allows is taken (a kind's own rules, and a plan that never fires, are
# refused with 422); whether what was made is there (a session may last a millisecond). Event streams do not end.
cat >"$work/schemathesis.toml" <<'TOML'
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 408, 409, 413, 414, 415, 422, 428, 429, "5xx"]
[checks.positive_data_acceptance]
enabled = false
[checks.ensure_resource_availability]
enabled = false
# A batch of quotes is taken as a whole; what is wrong with one stands in the answer, by its index.
[[operations]]
include-name = "POST /api/quotes"
checks.negative_data_rejection.enabled = false
# The replaced system lists what is left of a symbol, also when that is nothing.
[[operations]]
include-path = "/redis/images/{symbol}"
checks.use_after_free.enabled = false
TOML
status=0
cd "$work"
timeout $((seconds + 120)) "$venv/bin/schemathesis" --config-file "$work/schemathesis.toml" run "$url/api/openapi.json" \
  --url "$url" --header "Authorization: Bearer $key" --seed "$seed" --max-time "$seconds" --max-examples 100000 \
  --exclude-path-regex '/events$' --request-timeout 70 --generation-database none --workers 2 --no-color || status=$?
grep -E 'panicked|ERROR' "$work/api.log" && status=1
kill -0 "$api" || { echo "the API ended"; status=1; }
exit "$status"
