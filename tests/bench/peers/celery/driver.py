"""Drives Celery on Redis. See ../driver.rs for the protocol.

The worker is a process of its own, as Celery has it; its start is not counted: the drain is
timed from the start of the first job until nothing is queued and nothing is unacknowledged.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE_S = 300


def number(name):
    return int(os.environ[name])


JOBS, ONE, SAMPLES, SLOTS = (number(f"BENCH_{name}") for name in ("JOBS", "ONE", "SAMPLES", "SLOTS"))
POOL = os.environ["BENCH_POOL"]

# Here, in the folder of this run: the harness ends this process and takes the folder away.
runs_file = tempfile.NamedTemporaryFile(prefix="bench-celery-", dir=os.getcwd())
runs_file.truncate(16 + JOBS)
os.environ["BENCH_RUNS"] = runs_file.name

import redis  # noqa: E402 (the application reads the environment)

from tasks import HEAD, KEPT, app, noop, runs  # noqa: E402

store = redis.Redis(port=number("BENCH_PORT"))


def args(i):
    """Keyword arguments of exactly 100 bytes as JSON."""
    return {"i": i, "padding": "x" * (100 - len('{"i": , "padding": ""}') - len(str(i)))}


def say(value):
    print(json.dumps(value), flush=True)


def at(place):
    say({"at": place})
    sys.stdin.readline()


def enqueue(producer, jobs, queue):
    """One awaited after the other, through one producer: Celery has no bulk call."""
    start = time.perf_counter()
    for i in range(jobs):
        noop.apply_async(kwargs=args(i), producer=producer, queue=queue)
    took_s = time.perf_counter() - start
    assert store.llen(queue) == jobs, "jobs are missing"
    return took_s


def start_worker(queue, log):
    celery = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-Q", queue, "-P", POOL, "-c", str(SLOTS)]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
    return subprocess.Popen(celery + quiet, cwd=HERE, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def instant(offset):
    return int.from_bytes(runs[offset : offset + 8], "little")


def wait_until(ready, worker, pause_s=0.01):
    start = time.monotonic()
    while not ready():
        assert worker.poll() is None, "the worker ended"
        assert time.monotonic() - start < PATIENCE_S, "the worker did not get there"
        time.sleep(pause_s)


def stop(worker):
    worker.terminate()
    try:
        worker.wait(10)
    except subprocess.TimeoutExpired:
        # Seen once, with results kept. Its figures are taken by then.
        print("the worker did not stop in 10 s; it was killed", file=sys.stderr)
        worker.kill()
        worker.wait()


def results():
    return sum(1 for _ in store.scan_iter("celery-task-meta-*", 1000))


def drain(log):
    runs[0:16] = bytes(16)
    worker = start_worker("bulk", log)
    done = lambda: not store.exists("bulk", "unacked")  # noqa: E731
    try:
        wait_until(lambda: instant(8) and done(), worker)
        # Acknowledged early, as is Celery's default: the last ones may still run.
        wait_until(lambda: runs.find(b"\0", HEAD) < 0, worker)
        if KEPT:
            wait_until(lambda: results() == JOBS, worker)
        took_s = (time.monotonic_ns() - instant(8)) / 1e9
    finally:
        stop(worker)
    return took_s, results() if KEPT else None


def latency(producer, log):
    worker = start_worker("idle", log)
    samples = []
    try:
        for sample in range(SAMPLES + 20):
            runs[0:8] = bytes(8)
            time.sleep(0.003)
            start = time.monotonic_ns()
            noop.apply_async(kwargs=args(-1), producer=producer, queue="idle")
            wait_until(lambda: instant(0), worker, 0.0002)
            if sample >= 20:
                samples.append((instant(0) - start) // 1000)
    finally:
        stop(worker)
    return samples


def main():
    with app.producer_pool.acquire(block=True) as producer, open(os.environ["BENCH_LOG"], "ab") as log:
        one_s = enqueue(producer, ONE, "one")
        at("empty")
        enqueue(producer, JOBS, "bulk")
        at("full")
        drain_s, finished = drain(log)
        figures = {
            "one": [ONE, one_s],
            "drain": [JOBS, drain_s],
            "latency_us": latency(producer, log),
            "ran_once": runs[HEAD:].count(b"\1"),
            "finished": finished,
        }
    say({"figures": figures})


main()
