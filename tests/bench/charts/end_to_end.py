#!/usr/bin/env python3
"""Charts a second through Redis: jobs that wait, one worker process with its children pinned to one
core, images in the image store. Each chart is another one, so that none comes from the cache.

    cargo build --release -p windlass
    tests/bench/charts/end_to_end.py [CHARTS]

Needs redis-server. The API and Redis run on the other core.
"""
import csv
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

DATA = "crates/windlass-chart/assets/data/GOOG_1d.csv"
WINDLASS = os.path.abspath("target/release/windlass")
CHARTS = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
BATCH = 100


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def call(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def candles():
    rows = list(csv.reader(open(DATA)))[-250:]
    header = [name.lower() for name in next(csv.reader(open(DATA)))]
    columns = {name: [row[header.index(name)] for row in rows] for name in header}
    first = 1_600_000_000_000
    numbers = {short: [float(v) for v in columns[name]] for short, name in
               (("o", "open"), ("h", "high"), ("l", "low"), ("c", "close"), ("v", "volume"))}
    return {"t": [first + day * 86_400_000 for day in range(len(rows))], **numbers}


def job(number, bars, effort):
    return {"kind": "chart.render", "args": {
        "symbol": "GOOG", "interval": "1d", "candles": bars, "visible_bars": 200, "effort": effort,
        "title": f"chart {number} {effort}", "panels": [{"kind": "volume"}, {"kind": "rsi", "period": 14}],
        "overlays": [{"kind": "sma", "period": 20}, {"kind": "sma", "period": 50}],
        "width_px": 1200, "height_px": 800, "format": "png"}}


def success(url):
    queues = call(f"{url}/api/queues")["queues"]
    return sum(queue.get("success_total", 0) for queue in queues if queue["name"] == "chart")


def main():
    with tempfile.TemporaryDirectory() as work:
        port = free_port()
        redis = subprocess.Popen(["taskset", "-c", "0", "redis-server", "--port", str(port), "--save", "", "--dir", work],
                                 stdout=subprocess.DEVNULL)
        env = {**os.environ, "REDIS_URL": f"redis://127.0.0.1:{port}", "WINDLASS_LOG": "warn",
               "WINDLASS_WORKER_LISTEN": "off", "WINDLASS_LOOPBACK_ACCESS": "all", "WINDLASS_DATA_DIR": f"{work}/data"}
        time.sleep(0.5)
        api = subprocess.Popen(["taskset", "-c", "0", WINDLASS, "api", "--listen", "127.0.0.1:0", "--json"],
                               env=env, cwd=work, stdout=subprocess.PIPE, text=True)
        worker = subprocess.Popen(["taskset", "-c", "1", WINDLASS, "worker", "--queues", "chart", "--slots", "2"],
                                  env=env, cwd=work, stdout=subprocess.DEVNULL)
        try:
            url = "http://" + json.loads(api.stdout.readline())["api"]
            bars = candles()
            for effort in ("fast", "balanced"):
                before = success(url)
                call(f"{url}/api/queues/chart/pause", {})
                for start in range(0, CHARTS, BATCH):
                    call(f"{url}/api/tasks", [job(n, bars, effort) for n in range(start, start + BATCH)])
                begun = time.monotonic()
                call(f"{url}/api/queues/chart/resume", {})
                while success(url) - before < CHARTS:
                    time.sleep(0.02)
                wall = time.monotonic() - begun
                print(json.dumps({"effort": effort, "charts": CHARTS, "charts_per_s": round(CHARTS / wall, 1)}))
        finally:
            for process in (worker, api, redis):
                process.terminate()
                process.wait()


main()
