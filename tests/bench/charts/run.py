#!/usr/bin/env python3
"""Charts of mplfinance and of Windlass beside each other: the same picture, the same pinned core,
in turn, by processor time.

    cargo build --release -p windlass-chart --example bench
    python3 -m venv venv && venv/bin/pip install mplfinance six
    taskset -c 1 venv/bin/python tests/bench/charts/run.py

mplfinance 0.12.10b0 imports six without declaring it. Each of its charts is a fresh figure on the
Agg canvas, as a worker draws them; imports and a first chart are not counted.
"""
import csv
import io
import json
import resource
import statistics
import subprocess
import sys
import time

ROUNDS, OURS, THEIRS = 3, 300, 8
DATA = "crates/windlass-chart/assets/data/GOOG_1d.csv"


def ours(effort):
    run = subprocess.run(["target/release/examples/bench", effort, str(OURS)], check=True, capture_output=True, text=True)
    return json.loads(run.stdout)


def theirs():
    """One round in this process: milliseconds of processor time a chart, peak KiB, bytes."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import mplfinance as mpf
    import numpy as np
    import pandas as pd

    rows = list(csv.DictReader(open(DATA)))
    frame = pd.DataFrame(
        {name.title(): [float(row[name]) for row in rows] for name in ("open", "high", "low", "close", "volume")},
        index=pd.DatetimeIndex([row["time"] for row in rows]),
    )
    close = frame["Close"]
    change = close.diff()
    up, down = change.clip(lower=0), -change.clip(upper=0)
    mean = lambda series: series.ewm(alpha=1 / 14, adjust=False).mean()
    rsi = 100 - 100 / (1 + mean(up) / mean(down))
    shown = frame.tail(200)
    level = lambda value: np.full(200, value)

    def draw():
        plots = [
            mpf.make_addplot(close.rolling(20).mean().tail(200), width=1),
            mpf.make_addplot(close.rolling(50).mean().tail(200), width=1),
            mpf.make_addplot(rsi.tail(200), panel=2, width=1),
            mpf.make_addplot(level(70.0), panel=2, width=0.7, linestyle="--"),
            mpf.make_addplot(level(30.0), panel=2, width=0.7, linestyle="--"),
        ]
        out = io.BytesIO()
        figure, _ = mpf.plot(shown, type="candle", volume=True, addplot=plots, panel_ratios=(4, 1, 1), style="yahoo",
                             title="GOOG", returnfig=True, figsize=(12, 8))
        figure.savefig(out, dpi=100)
        plt.close(figure)
        return len(out.getvalue())

    draw()
    begun = time.process_time()
    for _ in range(THEIRS):
        size = draw()
    spent = (time.process_time() - begun) / THEIRS * 1e3
    return {"cpu_ms_per_chart": spent, "charts_per_cpu_s": 1e3 / spent, "file_bytes": size,
            "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def main():
    if sys.argv[1:] == ["--theirs"]:
        print(json.dumps(theirs()))
        return
    rounds = {"mplfinance": [], "fast": [], "balanced": []}
    for _ in range(ROUNDS):
        child = subprocess.run([sys.executable, __file__, "--theirs"], check=True, capture_output=True, text=True)
        rounds["mplfinance"].append(json.loads(child.stdout.strip().splitlines()[-1]))
        rounds["fast"].append(ours("fast"))
        rounds["balanced"].append(ours("balanced"))
    middle = lambda name, key: statistics.median(round[key] for round in rounds[name])
    base = middle("mplfinance", "charts_per_cpu_s")
    for name in rounds:
        rate = middle(name, "charts_per_cpu_s")
        print(f"{name:11} {rate:8.1f} charts/cpu-s  {middle(name, 'cpu_ms_per_chart'):7.2f} ms  {rate / base:6.1f} x  "
              f"{middle(name, 'peak_kib') / 1024:6.1f} MiB peak  {middle(name, 'file_bytes') / 1000:5.0f} KB")


main()
