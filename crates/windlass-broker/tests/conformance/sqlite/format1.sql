-- A file of format 1, as windlass wrote it until format 2. Ulids are 1 to 9, times are ms.
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE queue (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    head INTEGER NOT NULL DEFAULT 0,
    tail INTEGER NOT NULL DEFAULT 0,
    ended INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0,
    pending INTEGER NOT NULL DEFAULT 0,
    scheduled INTEGER NOT NULL DEFAULT 0,
    retrying INTEGER NOT NULL DEFAULT 0,
    running INTEGER NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0,
    enqueued_total INTEGER NOT NULL DEFAULT 0,
    success_total INTEGER NOT NULL DEFAULT 0,
    failure_total INTEGER NOT NULL DEFAULT 0,
    cancelled_total INTEGER NOT NULL DEFAULT 0,
    retried_total INTEGER NOT NULL DEFAULT 0,
    expired_leases_total INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE job (
    id INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL,
    ulid BLOB NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    place INTEGER NOT NULL,
    position INTEGER NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0,
    deliveries INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    skipped INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER,
    kind TEXT NOT NULL,
    worker TEXT,
    progress TEXT,
    reason TEXT,
    options TEXT NOT NULL DEFAULT '',
    labels TEXT,
    error TEXT,
    args TEXT,
    result TEXT
) STRICT;
CREATE UNIQUE INDEX job_ulid ON job (queue, ulid);
CREATE INDEX job_place ON job (queue, place, position, ulid);
CREATE TABLE large_args (
    job INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    args TEXT NOT NULL
) STRICT;
CREATE TABLE worker (
    name TEXT PRIMARY KEY,
    seen_at INTEGER NOT NULL,
    info TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (key, value) VALUES ('format', 1);
INSERT INTO queue (id, name, head, tail, ended, done, pending, scheduled, running, dead, enqueued_total, success_total,
    failure_total, expired_leases_total) VALUES (1, 'q', 0, 8, 40, 1, 2, 1, 1, 3, 8, 1, 3, 2);
INSERT INTO queue (id, name) VALUES (2, 'empty');
INSERT INTO job (id, queue, ulid, state, priority, place, position, created_at, kind, args) VALUES
    (1, 1, x'00000000000000000000000000000001', 'pending', 1, 1, 3, 5000, 'a', '1'),
    (2, 1, x'00000000000000000000000000000002', 'pending', 0, 0, 4, 5001, 'a', NULL),
    (3, 1, x'00000000000000000000000000000003', 'scheduled', 1, 3, 900000, 5002, 'a', '3');
INSERT INTO large_args (job, args) VALUES (2, '"large"');
INSERT INTO job (id, queue, ulid, state, priority, place, position, epoch, deliveries, created_at, started_at, worker,
    kind, args) VALUES
    (4, 1, x'00000000000000000000000000000004', 'running', 1, 4, 70000, 1, 1, 4000, 10000, 'w1', 'a', '4');
INSERT INTO job (id, queue, ulid, state, priority, place, position, epoch, created_at, started_at, finished_at, worker,
    kind, args, result) VALUES
    (5, 1, x'00000000000000000000000000000005', 'success', 1, 5, 20, 1, 4000, 6000, 6500, 'w1', 'a', '5', '"yes"');
INSERT INTO job (id, queue, ulid, state, reason, priority, place, position, epoch, failures, created_at, started_at,
    finished_at, worker, kind, args, error) VALUES
    (6, 1, x'00000000000000000000000000000008', 'failure', 'error', 1, 6, 21, 1, 3, 4000, 6000, 7000, 'w1', 'a', '6', '{"code":"c","message":"m"}'),
    (7, 1, x'00000000000000000000000000000007', 'failure', 'error', 1, 6, 22, 1, 3, 4000, 6000, 7000, 'w1', 'a', '7', '{"code":"c","message":"m"}'),
    (8, 1, x'00000000000000000000000000000006', 'failure', 'error', 1, 6, 23, 1, 3, 4000, 6000, 8000, 'w1', 'a', '8', '{"code":"c","message":"m"}');
