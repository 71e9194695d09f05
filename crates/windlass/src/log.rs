//! Where log lines go: through a bounded queue and a thread of its own to the error output, so
//! that a reader that is slow, or stopped reading, stops no job.
//!
//! A line that finds the queue full is dropped and counted; the count is logged when there is
//! room again.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Lines that wait for the reader at most.
const QUEUE: usize = 2048;
/// How long the end of the process waits for a reader.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

static LINES: OnceLock<SyncSender<Entry>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Entry {
    Line(Vec<u8>),
    /// Answered when every line before it is written.
    Flush(SyncSender<()>),
}

/// A writer for the log, one for each line.
pub(crate) fn lines() -> fn() -> Line {
    LINES.get_or_init(|| {
        let (lines, inbox) = sync_channel(QUEUE);
        // Without the thread lines find no reader and are written in place.
        let _ = std::thread::Builder::new().name("windlass-log".into()).spawn(move || write_out(&inbox));
        lines
    });
    || Line
}

/// Waits a moment until what was logged is written.
pub(crate) fn flush() {
    let Some(lines) = LINES.get() else { return };
    let (done, written) = sync_channel(1);
    if lines.try_send(Entry::Flush(done)).is_ok() {
        let _ = written.recv_timeout(FLUSH_WITHIN);
    }
}

fn write_out(inbox: &Receiver<Entry>) {
    for entry in inbox {
        match entry {
            // Nobody is left to tell that the error output is closed.
            Entry::Line(line) => drop(std::io::stderr().write_all(&line)),
            Entry::Flush(done) => drop(done.try_send(())),
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "log lines dropped: whoever reads the log is too slow");
        }
    }
}

/// One line: the subscriber writes each with one call.
pub(crate) struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        match LINES.get().map(|lines| lines.try_send(Entry::Line(line.to_vec()))) {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_))) => drop(DROPPED.fetch_add(1, Ordering::Relaxed)),
            Some(Err(TrySendError::Disconnected(_))) | None => std::io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
