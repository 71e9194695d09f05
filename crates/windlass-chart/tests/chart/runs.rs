//! The job kind: what a run leaves behind, and how it ends otherwise.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use windlass_chart::{ChartArgs, ChartRender, render_file};
use windlass_jobs::Outcome;
use windlass_worker::{IsolatedKind, RunContext};

use crate::goog;

/// Remembers progress; cancelled from the start or never.
#[derive(Default)]
pub(crate) struct Watcher {
    pub(crate) cancelled: bool,
    pub(crate) seen: Mutex<Vec<f32>>,
}

impl RunContext for Watcher {
    fn progress(&self, percent: f32, _: &str) {
        self.seen.lock().expect("no panic holds it").push(percent);
    }

    fn cancelled(&self) -> bool {
        self.cancelled
    }

    fn remaining(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn attempt(&self) -> u32 {
        1
    }
}

fn run(args: ChartArgs, dir: &Path, watcher: &Watcher) -> Outcome {
    ChartRender::default().run(args, dir, watcher)
}

#[test]
fn a_run_leaves_the_image_and_says_what_it_drew() {
    let (dir, watcher) = (tempfile::tempdir().expect("a directory"), Watcher::default());
    let Outcome::Done(done) = run(goog(200), dir.path(), &watcher) else {
        panic!("good args are drawn");
    };
    let file = std::fs::read(dir.path().join(&done.artifacts[0].path)).expect("the image");
    assert_eq!(file, render_file(&goog(200)).expect("good args").file);
    assert_eq!(done.artifacts[0].media_type, "image/png");
    for (field, expected) in [
        ("format", json!("png")),
        ("width_px", json!(1200)),
        ("height_px", json!(800)),
        ("bytes", json!(file.len())),
        ("bars", json!(2148)),
        ("visible_bars", json!(200)),
        ("notes", json!([])),
        ("renderer_version", json!(windlass_chart::RENDERER_VERSION)),
    ] {
        assert_eq!(done.value[field], expected, "{field}");
    }
    assert!(done.value["draw_ms"].is_number() && done.value["encode_ms"].is_number());
    let seen = watcher.seen.into_inner().expect("no panic held it");
    assert!(seen.is_sorted() && seen.last() == Some(&100.0), "{seen:?}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("the directory").count(), 1, "only out/");
    assert_eq!(done.artifacts[1].name, "thumb.png");
}

#[test]
fn wrong_args_end_the_job() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = ChartArgs { scale: 9, ..goog(200) };
    let outcome = run(args, dir.path(), &Watcher::default());
    assert!(matches!(outcome, Outcome::Fatal(error) if error.code == "out_of_range"));
}

#[test]
fn a_cancelled_job_draws_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let watcher = Watcher { cancelled: true, ..Watcher::default() };
    assert!(matches!(run(goog(200), dir.path(), &watcher), Outcome::Cancel { .. }));
    assert_eq!(std::fs::read_dir(dir.path()).expect("the directory").count(), 0);
}

#[test]
fn a_directory_that_cannot_be_written_is_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("out"), b"in the way").expect("a file");
    let outcome = run(goog(200), dir.path(), &Watcher::default());
    assert!(matches!(outcome, Outcome::Retry { error, .. } if error.code == "write_failed"));
}

#[test]
fn the_kind_keeps_its_word() {
    let spec = ChartRender::default().spec();
    assert_eq!((spec.name, spec.queue, spec.version), ("chart.render", "chart", windlass_chart::RENDERER_VERSION));
    assert_eq!(spec.timeout, Duration::from_secs(60));
    assert_eq!(spec.cache_ttl, Some(Duration::from_secs(86_400)));
    let inputs = ChartRender::default().inputs(&goog(200));
    assert!(inputs.blobs.is_empty());
    assert_eq!(inputs.peak_memory_bytes, (64 << 20) + 1200 * 800 * 10);
}
