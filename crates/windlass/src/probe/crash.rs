//! `probe.crash`: everything a handler should not do, to see that it costs one run and nothing
//! else.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use windlass_jobs::{Done, Outcome, Violation};
use windlass_worker::{Inputs, IsolatedKind, KindSpec, RunContext};

/// Descriptors a child can have: its limit is 64.
const DESCRIPTORS: std::ops::Range<i32> = 0..64;

/// `probe.crash`: `{"how": …}`, in a child. What the sandbox refuses ends in failure `denied`;
/// what it lets through, in success with `{"escaped": true}`.
pub(super) struct Crash;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    how: How,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    Panic,
    Abort,
    Overflow,
    Memory,
    Loop,
    /// Prints to standard output.
    Garbage,
    /// Writes nonsense into every descriptor, the frames' too.
    GarbageFrames,
    /// Closes every descriptor and ends.
    FdClose,
    /// Closes every descriptor and stays.
    FdCloseLoop,
    /// Writes past the largest file.
    Disk,
    /// Writes 64 MiB.
    DiskFill,
    /// Writes files of 1 MiB without end, slowly.
    ManyFiles,
    /// Says something on the error output, and succeeds.
    Whisper,
    /// Ends its process without a word.
    Exit,
    /// Answers 2 MB.
    BigResult,
    /// Answers 20 MB, more than a frame holds.
    HugeResult,
    /// Leaves a thread behind.
    Thread,
    Socket,
    Fork,
    Exec,
    ReadEtc,
    /// Looks at the directories of other children.
    ReadNeighbours,
    /// Answers with a link to a file of the worker's machine.
    Link,
    Kill,
    Ptrace,
}

impl IsolatedKind for Crash {
    type Args = Args;

    fn spec(&self) -> KindSpec {
        let timeout = Duration::from_secs(30);
        KindSpec {
            queue: super::QUEUE,
            timeout,
            ..KindSpec::new("probe.crash", "crashes its child process as args.how says")
        }
    }
    fn check(&self, _: &Args) -> Vec<Violation> {
        Vec::new()
    }
    fn inputs(&self, _: &Args) -> Inputs {
        Inputs { blobs: Vec::new(), peak_memory_bytes: 64 * 1024 * 1024 }
    }
    fn run(&self, args: Args, dir: &Path, ctx: &dyn RunContext) -> Outcome {
        ctx.progress(10.0, "about to crash");
        match args.how {
            How::Panic => panic!("panics as asked"),
            How::Abort => std::process::abort(),
            How::Overflow => done(overflow(0).into()),
            How::Memory => eat(),
            How::Loop => spin(),
            How::Garbage => print(),
            How::GarbageFrames => scribble(),
            How::FdClose => {
                close_all();
                done(Value::Null)
            }
            How::FdCloseLoop => {
                close_all();
                spin()
            }
            How::Disk => written(write_past_limit(dir)),
            How::DiskFill => written(fill(dir)),
            How::ManyFiles => written(many_files(dir)),
            How::Whisper => {
                eprint!("a secret of this job");
                done(true.into())
            }
            How::Exit => std::process::exit(7),
            How::BigResult => done("x".repeat(2_000_000).into()),
            How::HugeResult => done("x".repeat(20_000_000).into()),
            How::Thread => leave_a_thread(),
            How::Socket => tried("socket", std::net::UdpSocket::bind("127.0.0.1:0")),
            How::Fork => tried("fork", Command::new("/proc/self/exe").arg("--version").spawn()),
            How::Exec => tried::<()>("exec", Err(Command::new("/proc/self/exe").arg("--version").exec())),
            How::ReadEtc => tried("open", File::open("/etc/passwd")),
            How::ReadNeighbours => tried("list", std::fs::read_dir(dir.join("../.."))),
            How::Link => tried("link", std::os::unix::fs::symlink("/etc/passwd", dir.join("out/link"))),
            How::Kill => tried("kill", kill_parent()),
            How::Ptrace => tried("ptrace", nix::sys::ptrace::traceme().map_err(Into::into)),
        }
    }
}

fn done(value: Value) -> Outcome {
    Outcome::Done(Done { value, ..Done::default() })
}

fn tried<T>(what: &str, result: std::io::Result<T>) -> Outcome {
    match result {
        Ok(_) => done(json!({ "escaped": true })),
        Err(e) => Outcome::fatal("denied", format!("{what}: {e}")),
    }
}

fn written(result: std::io::Result<()>) -> Outcome {
    match result {
        Ok(()) => done(json!({ "written": true })),
        Err(e) => Outcome::retry("storage", format!("writing: {e}")),
    }
}

/// Never ends; what it answers keeps the compiler from making a loop of it.
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    overflow(depth + 1) + frame[511]
}

fn eat() -> ! {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 64 * 1024 * 1024]);
        std::hint::black_box(&all);
    }
}

fn spin() -> ! {
    loop {
        std::hint::black_box(());
    }
}

#[expect(clippy::print_stdout, reason = "shows that what a handler prints does not disturb the frames")]
fn print() -> Outcome {
    println!("this is no frame");
    done(json!({ "printed": true }))
}

fn scribble() -> Outcome {
    for fd in DESCRIPTORS {
        // SAFETY: the number is used for one write; one that is not open answers EBADF.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let _ = nix::unistd::write(fd, b"this is no frame");
    }
    done(Value::Null)
}

fn close_all() {
    for fd in DESCRIPTORS {
        let _ = nix::unistd::close(fd);
    }
}

/// The one byte lies behind a hole, so that nothing is really filled.
fn write_past_limit(dir: &Path) -> std::io::Result<()> {
    let mut file = File::create(dir.join("out/large"))?;
    file.seek(SeekFrom::Start(1 << 40))?;
    file.write_all(b"x")
}

/// A million files, if nobody minds.
fn many_files(dir: &Path) -> std::io::Result<()> {
    for n in 0..1_000_000 {
        std::fs::write(dir.join(format!("out/{n}")), vec![1; 1 << 20])?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn fill(dir: &Path) -> std::io::Result<()> {
    let mut file = File::create(dir.join("out/filling"))?;
    let part = vec![b'x'; 1024 * 1024];
    (0..64).try_for_each(|_| file.write_all(&part))?;
    file.sync_all()
}

fn leave_a_thread() -> Outcome {
    std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
    done(json!({ "child": std::process::id() }))
}

/// Signal 0: asks whether it could.
fn kill_parent() -> std::io::Result<()> {
    Ok(nix::sys::signal::kill(nix::unistd::getppid(), None)?)
}
