//! Isolated runs: whatever a handler does to its child costs one run, and a child reaches nothing
//! but its own directory.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass_jobs::NewJob;
use windlass_testkit::shared_redis;

use crate::faults::Direct;
use crate::harness::{Daemon, Home, SOON, wait};

fn home() -> Home {
    Home::on(shared_redis())
}

/// Enqueues a job that has one attempt.
fn once(home: &Home, kind: &str, args: &Value, more: &[&str]) -> String {
    home.enqueue(kind, &args.to_string(), &[&["--max-attempts", "1"], more].concat())
}

fn crash(home: &Home, how: &str) -> String {
    once(home, "probe.crash", &json!({ "how": how }), &[])
}

fn noop(home: &Home) -> Value {
    let id = once(home, "probe.isolated_noop", &json!({}), &[]);
    home.wait_for(&id, "success")["result"]["value"].clone()
}

fn worker_pid(home: &Home) -> u64 {
    home.json(&["queues"])["workers"][0]["pid"].as_u64().unwrap()
}

/// The processes whose parent is `pid`, from /proc.
fn children(pid: u64) -> Vec<u64> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = all.filter_map(|e| e.file_name().to_str()?.parse::<u64>().ok());
    numbers.filter(|n| status(*n, "PPid:").is_some_and(|parent| parent == pid)).collect()
}

/// A number of /proc/PID/status.
pub(crate) fn status(pid: u64, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok())
}

/// F11, F12, F13, F47: each way to go down is one failed job with its reason; neighbours that run
/// at the same time are neither hurt nor charged; the worker lives on.
#[test]
fn f11_f12_f13_f47_every_crash_is_one_failed_job() {
    let home = home();
    let mut worker = home.worker("probe", &["--slots", "4"]);
    let rows = [
        ("panic", "error", "panics as asked"),
        ("abort", "crashed", "SIGABRT"),
        ("overflow", "crashed", "stack overflow"),
        ("memory", "oom", "more memory"),
        ("garbage_frames", "crashed", "child_protocol"),
        ("fd_close", "crashed", "crashed"),
        ("fd_close_loop", "crashed", "closed its pipes"),
        ("disk", "crashed", "SIGXFSZ"),
        ("big_result", "result_too_large", "result"),
        ("huge_result", "result_too_large", "result"),
    ];
    let mut jobs = Vec::new();
    let mut neighbours = Vec::new();
    for row in rows {
        jobs.push((crash(&home, row.0), row));
        neighbours.push(once(&home, "probe.isolated_noop", &json!({}), &[]));
        neighbours.push(once(&home, "probe.sleep", &json!({ "ms": 50 }), &[]));
    }
    for (id, (how, reason, part)) in jobs {
        let task = home.wait_for(&id, "failure");
        assert_eq!((&task["reason"], &task["attempt"]), (&json!(reason), &json!(1)), "{how}: {task:#}");
        assert!(task["error"].to_string().contains(part), "{how}: {:#}", task["error"]);
    }
    for id in neighbours {
        assert_eq!(home.wait_for(&id, "success")["attempt"], 1);
    }
    let id = crash(&home, "garbage");
    assert_eq!(home.wait_for(&id, "success")["result"]["value"]["printed"], true, "printing disturbs nothing");
    let rss_kib = status(worker_pid(&home), "VmRSS:").unwrap();
    assert!(rss_kib < 256 * 1024, "the worker has {rss_kib} KiB");
    assert!(worker.is_up(), "{}", worker.log());
}

/// F13: jobs that loop for ever in every slot are ended at their limit, their slots are free at
/// once, and no lease is lost meanwhile. The soft limit is said before.
#[test]
fn f13_loops_in_all_slots_are_ended_in_time() {
    let home = home().with("WINDLASS_LEASE_MS", "500");
    let worker = home.worker("probe", &["--slots", "2"]);
    noop(&home);
    let loops: Vec<String> =
        (0..2).map(|_| once(&home, "probe.crash", &json!({ "how": "loop" }), &["--timeout", "2s"])).collect();
    let after = once(&home, "probe.isolated_noop", &json!({}), &[]);
    wait(SOON, "both loop", || loops.iter().all(|id| home.task(id)["status"] == "running"));
    let running = Instant::now();
    home.wait_for(&after, "success");
    assert!(running.elapsed() < Duration::from_secs(3), "a slot was free after {:?}", running.elapsed());
    for id in &loops {
        assert_eq!(home.wait_for(id, "failure")["reason"], "timeout");
        assert!(said(&worker, id, "run over its soft limit"), "{}", worker.log());
    }
    let queues = home.json(&["queues"]);
    assert_eq!(queues["queues"][0]["counts"]["expired_leases_total"], 0, "{queues:#}");
}

/// Whether a line of the log has both.
fn said(worker: &Daemon, id: &str, text: &str) -> bool {
    let ulid = id.split('.').next().unwrap();
    worker.log().lines().any(|line| line.contains(ulid) && line.contains(text))
}

/// A child cannot open a socket, start a process or a program, read a file of the machine or of
/// another child, make a link, signal or trace another process.
#[test]
fn a_child_reaches_nothing_but_its_own_directory() {
    let home = home();
    let sandbox = home.json(&["doctor"])["sandbox"].clone();
    if sandbox["seccomp"] != true || sandbox["landlock_full"] != true {
        eprintln!("SKIPPED: this kernel does not have the whole sandbox: {sandbox}");
        return;
    }
    let worker = home.worker("probe", &["--slots", "2"]);
    let tries = ["socket", "fork", "exec", "read_etc", "read_neighbours", "link", "kill"];
    let jobs: Vec<_> = tries.into_iter().map(|how| (how, crash(&home, how))).collect();
    let ptrace = crash(&home, "ptrace");
    for (how, id) in jobs {
        let task = home.wait_for(&id, "failure");
        assert_eq!(task["error"]["code"], "denied", "{how}: {task:#}");
    }
    let task = home.wait_for(&ptrace, "failure");
    assert_eq!(task["reason"], "crashed");
    assert!(task["error"]["message"].as_str().unwrap().contains("SIGSYS"), "{task:#}");
    assert_eq!(worker.log().matches("children are confined").count(), 1, "{}", worker.log());
}

/// A child runs many jobs, one after the other, and is replaced after its number of jobs, after a
/// panic, when it left a thread behind, and when it grew.
#[test]
fn children_are_used_again_until_they_are_worn() {
    let home = home().with("WINDLASS_CHILD_JOBS", "3");
    let _worker = home.worker("probe", &["--slots", "1"]);
    let runs: Vec<Value> = (0..7).map(|_| noop(&home)["runs_of_child"].clone()).collect();
    assert_eq!(json!(runs), json!([1, 2, 3, 1, 2, 3, 1]));
    let before = noop(&home);
    home.wait_for(&crash(&home, "panic"), "failure");
    let after = noop(&home);
    assert!(before["child"] != after["child"] && after["runs_of_child"] == 1, "{before} {after}");
    home.wait_for(&crash(&home, "thread"), "success");
    assert_eq!(noop(&home)["runs_of_child"], 1);

    let home = self::home().with("WINDLASS_CHILD_MEMORY_MIB", "1");
    let _worker = home.worker("probe", &["--slots", "1"]);
    let runs: Vec<Value> = (0..3).map(|_| noop(&home)["runs_of_child"].clone()).collect();
    assert_eq!(json!(runs), json!([1, 1, 1]));
}

/// A child that died while it was idle costs the next job nothing.
#[test]
fn a_child_that_died_idle_is_replaced_unseen() {
    let home = home();
    let _worker = home.worker("probe", &["--slots", "1"]);
    for _ in 0..3 {
        let child = noop(&home)["child"].as_u64().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(child).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        assert_ne!(noop(&home)["child"].as_u64().unwrap(), child);
    }
}

/// kill -9 of a worker takes its children with it, busy and idle ones.
#[test]
fn children_die_with_their_worker() {
    let home = home();
    let worker = home.worker("probe", &["--slots", "2"]);
    noop(&home);
    let id = crash(&home, "loop");
    wait(SOON, "it loops", || home.task(&id)["status"] == "running");
    let pids = children(worker_pid(&home));
    assert!(!pids.is_empty());
    worker.kill();
    wait(SOON, "the children are gone", || pids.iter().all(|pid| status(*pid, "PPid:").is_none()));
}

/// F14: handlers that block every thread of the runtime. The watchdog says who within 2 s, and
/// no lease is lost, though the block outlasts several.
#[test]
fn f14_a_blocked_runtime_is_reported_and_keeps_its_leases() {
    let home = home().with("WINDLASS_LEASE_MS", "600");
    let worker = home.worker("probe", &["--slots", "64"]);
    let threads = std::thread::available_parallelism().unwrap().get();
    let args = json!({ "ms": 2_500 });
    let jobs: Vec<String> = (0..=threads).map(|_| once(&home, "probe.block", &args, &[])).collect();
    wait(SOON, "one blocks", || jobs.iter().any(|id| home.task(id)["status"] == "running"));
    let running = Instant::now();
    wait(SOON, "it is reported", || jobs.iter().any(|id| said(&worker, id, "runtime blocked")));
    assert!(running.elapsed() < Duration::from_secs(2), "reported after {:?}", running.elapsed());
    for id in &jobs {
        assert_eq!(home.wait_for(id, "success")["attempt"], 1);
    }
    let queues = home.json(&["queues"]);
    assert_eq!(queues["queues"][0]["counts"]["expired_leases_total"], 0, "{queues:#}");
}

/// F53: nobody reads the log, and its pipe is full. Jobs go on; lines are dropped and counted.
#[test]
fn f53_a_log_that_nobody_reads_stops_no_job() {
    let home = home();
    let direct = Direct::to(&home, "probe");
    let mut command = home.command(&["worker", "--queues", "probe", "--slots", "64"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut worker = windlass_testkit::spawn(command).unwrap();
    let mut log = worker.stderr.take().unwrap();
    rustix::pipe::fcntl_setpipe_size(&log, 4096).unwrap();
    // Each writes a warning.
    let fail = json!({ "how": "fatal" });
    let jobs: Vec<NewJob> = (0..5_000).map(|_| NewJob::new("probe.fail", &fail).unwrap()).collect();
    for part in jobs.chunks(500) {
        direct.enqueue(part);
    }
    direct.wait_drained(SOON);
    assert_eq!(direct.counts().failure_total, 5_000);
    let (heard, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = log.read(&mut part) {
            let _ = heard.send(String::from_utf8_lossy(&part[..n]).into_owned());
        }
    });
    let mut text = String::new();
    wait(SOON, "the dropped lines are counted", || {
        text.extend(lines.try_iter());
        text.contains("log lines dropped")
    });
    worker.kill().unwrap();
    worker.wait().unwrap();
}

/// A small file system, where the machine lets us make one.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "windlass-test"]).arg(at);
        let mounted = command.output().is_ok_and(|ran| ran.status.success());
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// F44: a job fills the disk its directory lies on. It fails; the next one finds room again.
#[test]
fn f44_a_full_disk_is_one_failed_job() {
    let home = home();
    let at = home.path().join("small");
    let Some(_disk) = SmallDisk::mount(&at, "size=8m,mode=1777") else {
        eprintln!("SKIPPED: no right to mount a file system");
        return;
    };
    let home = home.with("TMPDIR", at.to_str().unwrap());
    let mut worker = home.worker("probe", &["--slots", "1"]);
    for _ in 0..2 {
        let task = home.wait_for(&crash(&home, "disk_fill"), "failure");
        assert!(task["error"]["message"].as_str().unwrap().contains("No space"), "{task:#}");
        noop(&home);
    }
    assert!(worker.is_up(), "{}", worker.log());
}

/// `doctor` names what is wrong and tells it by its exit code.
#[test]
fn doctor_tells_whether_a_worker_can_work() {
    let home = home();
    let found = home.json(&["doctor"]);
    assert_eq!(found["usable"], true, "{found:#}");
    assert!(found["findings"].as_array().unwrap().iter().any(|f| f["name"] == "maxmemory_policy"));
    let check = |home: Home, name: &str| {
        let ran = home.run(&["doctor", "--json"]);
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        let found = ran.json();
        let failed = found["findings"].as_array().unwrap().iter().find(|f| f["health"] == "fail").unwrap();
        assert_eq!(failed["name"], name, "{found:#}");
    };
    check(self::home().with("WINDLASS_CHILD_PROGRAM", "/does/not/exist"), "sandbox");
    check(self::home().with("WINDLASS_CHILD_PROGRAM", "/bin/true"), "sandbox");
    check(self::home().with("TMPDIR", "/proc/nowhere"), "scratch");
    check(Home::embedded().with("REDIS_URL", "redis://127.0.0.1:1"), "store");
}

/// What a job says on its error output is in its own error at most, never in that of the next job
/// of the same child.
#[test]
fn a_childs_words_stay_with_their_job() {
    let home = home();
    let _worker = home.worker("probe", &["--slots", "1"]);
    for _ in 0..5 {
        let child = noop(&home)["child"].clone();
        home.wait_for(&crash(&home, "whisper"), "success");
        let kept = noop(&home);
        assert_eq!(kept["child"], child, "the same child runs them");
        home.wait_for(&crash(&home, "whisper"), "success");
        let task = home.wait_for(&crash(&home, "exit"), "failure");
        let error = task["error"].to_string();
        assert!(error.contains("exit status: 7") && !error.contains("secret"), "{error}");
    }
}

/// F44: the limit of one file is the kernel's; the sum of many is ours.
#[test]
fn f44_a_job_that_writes_too_much_in_all_is_killed() {
    let home = home().with("WINDLASS_CHILD_DISK_MIB", "8");
    let mut worker = home.worker("probe", &["--slots", "1"]);
    let task = home.wait_for(&crash(&home, "many_files"), "failure");
    assert_eq!(task["error"]["code"], "disk_limit", "{task:#}");
    noop(&home);
    assert!(worker.is_up(), "{}", worker.log());
}

/// F15: a handler that ignores its cancellation. The job is cancelled within 1 s of the call of the
/// API, its child is killed, and the slot is used again.
#[test]
fn f15_who_ignores_a_cancel_is_killed() {
    let home = home();
    let (_up, url) = home.serve(&["up", "--queues", "probe", "--slots", "1"]);
    let direct = Direct::to(&home, "probe");
    noop(&home);
    let id = once(&home, "probe.crash", &json!({ "how": "loop" }), &["--timeout", "1h"]);
    let job: windlass_jobs::JobId = id.parse().unwrap();
    direct.wait_running(&job);
    // One of them runs it; another may be idle, warmed at the start.
    let pool = children(worker_pid(&home));
    let begun = Instant::now();
    ureq::delete(format!("{url}/api/tasks/{id}")).call().unwrap();
    wait(SOON, "it is cancelled", || direct.get(&job).state == windlass_jobs::State::Cancelled);
    let took = begun.elapsed();
    wait(SOON, "its child is gone", || pool.iter().any(|pid| status(*pid, "PPid:").is_none()));
    eprintln!("cancelled {took:?} after the call");
    assert!(took < Duration::from_secs(1), "cancelled after {took:?}");
    noop(&home);
}
