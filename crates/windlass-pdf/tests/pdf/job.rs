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

use crate::schemas::published;

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

    /// Runs a job on set exact without bleed and label, unless it says otherwise.
    pub(crate) fn run(&self, mut args: Value) -> Outcome {
        let plain = json!({"layout": {}, "bleed": "none", "label": {"show": false}});
        for (name, value) in plain.as_object().unwrap() {
            args.as_object_mut().unwrap().entry(name).or_insert_with(|| value.clone());
        }
        args["layout"].as_object_mut().unwrap().entry("set").or_insert("exact".into());
        self.run_as_it_is(args)
    }

    pub(crate) fn run_as_it_is(&self, args: Value) -> Outcome {
        assert_eq!(published(&CardSheet, &args), [""; 0]);
        let args: CardSheetArgs = serde_json::from_value(args).unwrap();
        let violations = CardSheet.check(&args);
        assert!(violations.is_empty(), "{violations:?}");
        CardSheet.run(args, self.dir.path(), &self.ctx)
    }

    /// Runs a job that must succeed; answers the file and the result.
    #[track_caller]
    pub(crate) fn pdf(&self, args: Value) -> (PathBuf, Value) {
        let (files, value) = self.files(self.run(args));
        assert_eq!(files.len(), 1);
        (files[0].clone(), value)
    }

    /// The same with every default.
    #[track_caller]
    pub(crate) fn default_pdf(&self, args: Value) -> (PathBuf, Value) {
        let (files, value) = self.files(self.run_as_it_is(args));
        assert_eq!(files.len(), 1);
        (files[0].clone(), value)
    }

    /// The files of a run that must have succeeded.
    #[track_caller]
    pub(crate) fn files(&self, outcome: Outcome) -> (Vec<PathBuf>, Value) {
        match outcome {
            Outcome::Done(Done { value, artifacts, skipped: false }) => {
                (artifacts.iter().map(|a| self.dir.path().join(&a.path)).collect(), value)
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

    /// Runs a job of another kind that must succeed; its only file and the result.
    #[track_caller]
    pub(crate) fn run_kind<K: IsolatedKind>(&self, kind: &K, args: Value) -> (PathBuf, Value) {
        let (files, value) = self.files(self.outcome_of(kind, args));
        assert_eq!(files.len(), 1);
        (files[0].clone(), value)
    }

    /// Runs a job of another kind that must pass its check.
    #[track_caller]
    pub(crate) fn outcome_of<K: IsolatedKind>(&self, kind: &K, args: Value) -> Outcome {
        assert_eq!(published(kind, &args), [""; 0]);
        let args: K::Args = windlass_worker::decode_args(&args).unwrap();
        let violations = kind.check(&args);
        assert!(violations.is_empty(), "{violations:?}");
        kind.run(args, self.dir.path(), &self.ctx)
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
