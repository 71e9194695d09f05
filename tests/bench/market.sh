#!/usr/bin/env bash
# `windlass bench market` on a private PostgreSQL with its default settings (fsync on).
# tests/bench/market.sh [POSITIONS] [SECONDS]; needs PostgreSQL's programs and a built binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
binary="$(realpath "${WINDLASS_BINARY:-target/release/windlass}")"
bin="${POSTGRES_BIN:-$(dirname "$(realpath "$(command -v initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' | tail -1)")")}"
work="$(mktemp -d)"
chmod 755 "$work"
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
# Its programs refuse to run as root.
as=()
if [ "$(id -u)" -eq 0 ]; then as=(setpriv --reuid=postgres --regid=postgres --clear-groups); fi
mkdir "$work/data"
if [ "$(id -u)" -eq 0 ]; then chown postgres "$work/data"; fi
cd "$work"
"${as[@]}" "$bin/initdb" --auth=trust --username=postgres --encoding=UTF8 --locale=C.UTF-8 -D "$work/data" >/dev/null
"${as[@]}" "$bin/postgres" -D "$work/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
  -c shared_buffers=512MB -c max_wal_size=4GB >"$work/log" 2>&1 &
postgres=$!
stop() { kill -INT "$postgres" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"; }
trap stop EXIT
until "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; do sleep 0.1; kill -0 "$postgres" || { cat "$work/log"; exit 1; }; done
"$bin/createdb" -h 127.0.0.1 -p "$port" -U postgres bench
"$binary" bench market --positions "${1:-1000000}" --seconds "${2:-20}" --json \
  --database-url "postgres://postgres@127.0.0.1:$port/bench"
