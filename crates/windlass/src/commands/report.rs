//! What commands print on standard output.
#![expect(clippy::print_stdout, reason = "this module is where the CLI answers")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use windlass_broker::Inspect;
use windlass_jobs::{JobId, JobRecord, State};
use windlass_store::{Digest, Services};
use windlass_worker::StoredResult;

/// One line for people.
pub(crate) fn line(text: impl std::fmt::Display) {
    println!("{text}");
}

/// Something that must be seen although standard output is for programs.
pub(crate) fn notice(text: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The last line of `--json`.
pub(crate) fn json_line(value: &Value) {
    println!("{value}");
}

/// A job as JSON, with the names the HTTP API uses.
pub(crate) fn record_json(record: &JobRecord) -> Value {
    let progress = match record.state {
        State::Success => 100.0,
        _ => record.progress.as_ref().map_or(0.0, |p| p.percent),
    };
    json!({
        "task_id": record.id,
        "kind": record.kind,
        "queue": record.id.queue,
        "status": record.state,
        "reason": record.reason,
        "progress": progress,
        "message": record.progress.as_ref().map(|p| &p.message),
        "attempt": record.attempt(),
        "max_attempts": record.max_attempts,
        "priority": record.options.priority,
        "labels": record.options.labels,
        "created_at": record.created_at,
        "run_at": record.run_at,
        "expires_at": record.expires_at,
        "cancel_requested": record.cancel_requested,
        "started_at": record.started_at,
        "completed_at": record.finished_at,
        "worker": record.worker,
        "result": stored_result(record),
        "error": record.error,
        "attempts": record.attempts(),
        "skipped": record.skipped,
        "parents": record.options.depends_on.as_ref().map(|after| &after.parents),
        "children": record.children,
        "waits_for": record.waits_for,
        "trace_id": record.options.trace.map(|trace| trace.trace_id_hex()),
    })
}

/// A job's result as it is kept.
pub(crate) fn stored_result(record: &JobRecord) -> Option<StoredResult> {
    serde_json::from_str(record.result.as_deref()?).ok()
}

/// A job for people, on a few lines.
pub(crate) fn print_record(record: &JobRecord) {
    let reason = record.reason.map(|r| format!(" ({r})")).unwrap_or_default();
    line(format_args!("{}  {}  {}{reason}", record.id, record.kind, record.state));
    if let Some(progress) = record.progress.as_ref().filter(|_| !record.state.is_terminal()) {
        line(format_args!("  progress  {:.1} %  {}", progress.percent, progress.message));
    }
    line(format_args!("  run       {} of {}", record.attempt(), record.max_attempts));
    line(format_args!("  created   {}", record.created_at));
    let instants = [
        ("due", record.run_at),
        ("expires", record.expires_at),
        ("started", record.started_at),
        ("finished", record.finished_at),
    ];
    for (name, at) in instants.into_iter().filter_map(|(name, at)| Some((name, at?))) {
        line(format_args!("  {name:<9} {at}"));
    }
    if let (Some(start), Some(end)) = (record.started_at, record.finished_at) {
        line(format_args!("  took      {}", span(end.since(start))));
    }
    if let Some(worker) = &record.worker {
        line(format_args!("  worker    {worker}"));
    }
    if let Some(trace) = &record.options.trace {
        line(format_args!("  trace     {}", trace.trace_id_hex()));
    }
    for (key, value) in &record.options.labels {
        line(format_args!("  label     {key}={value}"));
    }
    for parent in record.options.depends_on.iter().flat_map(|after| &after.parents) {
        line(format_args!("  after     {parent}"));
    }
    if record.waits_for > 0 {
        line(format_args!("  waits for {} of them", record.waits_for));
    }
    for child in &record.children {
        line(format_args!("  before    {child}"));
    }
    print_attempts(record);
    if let Some(error) = &record.error {
        line(format_args!("  error     {error}"));
    }
    if let Some(result) = stored_result(record) {
        if result.cached {
            line("  cached    yes: an equal job had been done");
        }
        for artifact in &result.artifacts {
            line(format_args!("  file      {} ({}, {})", artifact.name, artifact.media_type, size(artifact.bytes)));
        }
        if !result.value.is_null() {
            line(format_args!("  result    {}", result.value));
        }
    }
}

/// Who ran it before, and how each of these runs ended.
fn print_attempts(record: &JobRecord) {
    let attempts = record.attempts();
    if attempts.len() < 2 {
        return;
    }
    for attempt in &attempts {
        let worker = attempt.worker.as_deref().unwrap_or_default();
        let took = attempt.duration_ms.map(|ms| format!(" after {}", span(Duration::from_millis(ms))));
        let reason = attempt.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let error = attempt.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let (n, end, took) = (attempt.attempt, &attempt.outcome, took.unwrap_or_default());
        line(format_args!("  attempt {n} {end}{reason}{took} on {worker}{error}"));
    }
}

/// A span for people: `340 ms`, `2.4 s`, `3 min 5 s`.
pub(crate) fn span(span: Duration) -> String {
    match span.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", span.as_secs_f64()),
        _ => format!("{} min {} s", span.as_secs() / 60, span.as_secs() % 60),
    }
}

/// A size for people: `812 B`, `38.2 kB`, `8.7 MB`.
pub(crate) fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let n = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", n / 1e3),
        _ => format!("{:.1} MB", n / 1e6),
    }
}

/// Writes a job's files into a folder, which is made if need be; a file is renamed into place.
pub(crate) async fn save_files(record: &JobRecord, services: &Services, dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Some(result) = stored_result(record) else { return Ok(Vec::new()) };
    tokio::fs::create_dir_all(dir).await.with_context(|| format!("folder {}", dir.display()))?;
    let mut paths = Vec::new();
    for artifact in &result.artifacts {
        let digest: Digest = artifact.blob.parse()?;
        let Some(bytes) = services.artifacts.get(&digest).await? else {
            bail!("{} is no longer kept: enqueue the job again", artifact.name);
        };
        let name =
            Path::new(&artifact.name).file_name().with_context(|| format!("a file named {:?}", artifact.name))?;
        let path = dir.join(name);
        let temporary = dir.join(format!(".{}.part", digest.hex()));
        tokio::fs::write(&temporary, &bytes).await.with_context(|| format!("file {}", temporary.display()))?;
        tokio::fs::rename(&temporary, &path).await.with_context(|| format!("file {}", path.display()))?;
        paths.push(path);
    }
    Ok(paths)
}

/// The longest time between two looks at a followed job.
const SLOWEST_LOOK: Duration = Duration::from_millis(64);

/// Waits for a job's end, telling `seen` of every change. A broker that does not answer is
/// asked again.
pub(crate) async fn follow(
    broker: &dyn Inspect,
    id: &JobId,
    mut seen: impl FnMut(&JobRecord),
) -> anyhow::Result<JobRecord> {
    let mut last: Option<JobRecord> = None;
    let mut silent = false;
    let mut pause = Duration::from_millis(2);
    loop {
        match broker.get(id).await {
            Ok(Some(record)) => {
                silent = false;
                if last.as_ref() != Some(&record) {
                    seen(&record);
                }
                if record.state.is_terminal() {
                    return Ok(record);
                }
                last = Some(record);
            }
            Ok(None) => bail!("job {id} is not known (any more)"),
            Err(e) if e.is_retryable() => {
                if !std::mem::replace(&mut silent, true) {
                    tracing::warn!(error = %e, "waiting for the queue to answer");
                }
            }
            Err(e) => return Err(e.into()),
        }
        // Soon at first, for the many jobs that are done at once; then at leisure.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SLOWEST_LOOK);
    }
}
