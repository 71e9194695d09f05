//! Runs a card sheet job the way a worker's child does: blobs in a private directory.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use windlass_jobs::{Done, Outcome, RunError};
use windlass_pdf::{CardSheet, CardSheetArgs};
use windlass_worker::{IsolatedKind, RunContext};

/// A private directory with blobs in it.
pub(crate) struct Job {
    dir: TempDir,
    pub(crate) ctx: Context,
}

impl Job {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        Self { dir, ctx: Context::default() }
    }

    /// Lays a blob into the directory and answers its name.
    pub(crate) fn blob(&self, bytes: &[u8]) -> String {
        let digest = hex::encode(Sha256::digest(bytes));
        std::fs::write(self.dir.path().join("in").join(&digest), bytes).unwrap();
        format!("sha256:{digest}")
    }

    pub(crate) fn run(&self, args: Value) -> Outcome {
        let args: CardSheetArgs = serde_json::from_value(args).unwrap();
        let violations = CardSheet.check(&args);
        assert!(violations.is_empty(), "{violations:?}");
        CardSheet.run(args, self.dir.path(), &self.ctx)
    }

    /// Runs a job that must succeed; answers the file and the result.
    #[track_caller]
    pub(crate) fn pdf(&self, args: Value) -> (PathBuf, Value) {
        match self.run(args) {
            Outcome::Done(Done { value, artifacts, skipped: false }) => {
                assert_eq!(artifacts.len(), 1);
                assert_eq!(artifacts[0].media_type, "application/pdf");
                (self.dir.path().join(&artifacts[0].path), value)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Runs a job that must fail for good.
    #[track_caller]
    pub(crate) fn fatal(&self, args: Value) -> RunError {
        match self.run(args) {
            Outcome::Fatal(error) => error,
            other => panic!("{other:?}"),
        }
    }

    /// The names of the files that a run left below `out/`.
    pub(crate) fn left_behind(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.dir.path().join("out")).unwrap();
        files.map(|f| f.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Cards with these fronts, in order.
pub(crate) fn cards(fronts: impl IntoIterator<Item = String>) -> Value {
    fronts.into_iter().map(|front| json!({"front": front})).collect()
}

/// Remembers progress; says "cancelled" after so many questions.
#[derive(Default)]
pub(crate) struct Context {
    pub(crate) progress: Mutex<Vec<(f32, String)>>,
    asked: AtomicUsize,
    pub(crate) cancel_at: Option<usize>,
}

impl RunContext for Context {
    fn progress(&self, percent: f32, message: &str) {
        self.progress.lock().unwrap().push((percent, message.into()));
    }

    fn cancelled(&self) -> bool {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        self.cancel_at.is_some_and(|at| asked >= at)
    }

    fn remaining(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn attempt(&self) -> u32 {
        1
    }
}
