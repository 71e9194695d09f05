"""The Celery application: one task that does nothing but count its runs."""

import mmap
import os
import time

from celery import Celery

REDIS = f"redis://127.0.0.1:{os.environ['BENCH_PORT']}/0"
KEPT = os.environ["BENCH_RESULTS"] == "kept"

app = Celery("bench", broker=REDIS, backend=REDIS if KEPT else None)
app.conf.update(
    task_ignore_result=not KEPT,
    task_default_queue="bulk",
    # A worker fetches this many per process ahead: waiting for each would cost a round trip a job.
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
)

# Shared with every process of the worker: two instants, then one byte of runs per job.
HEAD = 16
with open(os.environ["BENCH_RUNS"], "r+b") as file:
    runs = mmap.mmap(file.fileno(), 0)


@app.task(name="noop")
def noop(i, padding):
    if runs[8:16] == bytes(8):
        runs[8:16] = time.monotonic_ns().to_bytes(8, "little")
    if i >= 0:
        runs[HEAD + i] += 1
    else:
        # A sample of the latency: tells the driver when it began.
        runs[0:8] = time.monotonic_ns().to_bytes(8, "little")
