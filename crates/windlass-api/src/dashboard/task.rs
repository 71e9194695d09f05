//! The page of one task: where it stands, with what it runs, what came out, and what is done to it.

use maud::{Markup, html};
use serde_json::Value;
use windlass_jobs::{JobId, JobRecord, State as JobState};

use super::Body;
use super::view::{button, bytes, moment, span, state};
use crate::Shared;
use crate::problem::{Code, Problem};
use crate::task::stored_result;

/// Args and values longer than this are cut on the page, in bytes.
const SHOWN: usize = 32 * 1024;

pub(super) async fn body(shared: &Shared, id: &JobId) -> Result<Body, Problem> {
    let base = shared.options.base_path.as_str();
    let gone = || Problem::new(Code::TaskNotFound, "there is no task of this id, or it is past retention");
    let record = shared.broker.get(id).await?.ok_or_else(gone)?;
    let content = html! {
        h1 { (record.kind) " " (state(record.state)) }
        p class="quiet" { code { (record.id) } }
        (actions(base, &record))
        (progress(&record))
        @if let Some(error) = &record.error {
            section class="problem" {
                h2 { "Error" @if let Some(reason) = record.reason { " " span class="quiet" { (reason) } } }
                p { strong { (error.code) } }
                pre { (error.message) }
            }
        }
        (result(base, &record))
        (facts(base, &record))
        (attempts(&record))
        section { h2 { "Arguments" } pre { (shown(&record.args)) } }
    };
    let done = record.state.is_terminal();
    Ok(Body { title: format!("{} {}", record.kind, record.id), content, done })
}

fn actions(base: &str, record: &JobRecord) -> Markup {
    let id = record.id.to_string();
    let here = format!("{base}/tasks/{id}");
    let verb = |verb: &str, label: &str, back: &str, danger: bool| {
        button(&format!("{base}/ui/tasks"), label, &[("id", &id), ("verb", verb), ("back", back)], danger)
    };
    html! {
        div class="actions" {
            @match record.state {
                JobState::Failure => { (verb("retry", "Retry", &here, false)) (verb("delete", "Delete", &format!("{base}/tasks?state=failure"), true)) }
                JobState::Success | JobState::Cancelled => { (verb("delete", "Delete", &format!("{base}/tasks"), true)) }
                _ if record.cancel_requested => span class="quiet" { "Its worker is told to stop." },
                _ => { (verb("cancel", "Cancel", &here, true)) }
            }
        }
    }
}

fn progress(record: &JobRecord) -> Markup {
    let at = record.progress.as_ref().filter(|_| !record.state.is_terminal());
    html! {
        @if let Some(progress) = at {
            div class="progress" {
                progress value=(progress.percent) max="100" aria-label="Progress" {}
                " " strong { (format!("{:.1} %", progress.percent)) } " " (progress.message)
            }
        }
    }
}

fn result(base: &str, record: &JobRecord) -> Markup {
    if record.state != JobState::Success {
        return html! {};
    }
    let stored = stored_result(record);
    html! {
        section {
            h2 { "Result" @if stored.cached { " " span class="tag" { "from the cache" } } @if record.skipped { " " span class="tag" { "nothing to do" } } }
            @for (index, artifact) in stored.artifacts.iter().enumerate() {
                @let url = format!("{base}/api/tasks/{}/result?artifact={index}", record.id);
                figure class="artifact" {
                    figcaption { a href=(url) { (artifact.name) } " " span class="quiet" { (artifact.media_type) ", " (bytes(artifact.bytes)) } }
                    @if artifact.media_type.starts_with("image/") && artifact.media_type != "image/svg+xml" {
                        img src=(url) alt=(artifact.name) loading="lazy";
                    } @else if artifact.media_type == "application/pdf" {
                        iframe src=(url) title=(artifact.name) loading="lazy" {}
                    }
                }
            }
            @if stored.value != Value::Null { pre { (shown(&stored.value.to_string())) } }
        }
    }
}

fn facts(base: &str, record: &JobRecord) -> Markup {
    let row = |name: &str, value: Markup| html! { tr { th scope="row" { (name) } td { (value) } } };
    let ran = record.started_at.zip(record.finished_at).map(|(from, to)| to.since(from));
    let waited = record.started_at.map(|at| at.since(record.created_at));
    let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let queue = record.id.queue.as_str();
    html! {
        section {
            h2 { "Life" }
            div class="scroll" { table class="facts" { tbody {
                (row("Queue", html! { a href={ (base) "/tasks?queue=" (queue) } { (queue) } }))
                (row("Run", html! { (record.attempt()) " of " (record.max_attempts) ", " (record.failures) " failed, claimed " @if record.epoch == 1 { "once" } @else { (record.epoch) " times" } }))
                (row("Enqueued", moment(record.created_at)))
                @if let Some(at) = record.run_at { (row("Runs", moment(at))) }
                @if let Some(at) = record.expires_at { (row("Expires", moment(at))) }
                @if let Some(at) = record.started_at { (row("Started", html! { (moment(at)) @if let Some(waited) = waited { ", " (span(ms(waited))) " after it was enqueued" } })) }
                @if let Some(at) = record.finished_at { (row("Ended", html! { (moment(at)) @if let Some(ran) = ran { ", it ran " (span(ms(ran))) } })) }
                @if let Some(worker) = &record.worker { (row("Worker", html! { code { (worker) } })) }
                @if let Some(trace) = &record.options.trace { (row("Trace", html! { code { (trace.trace_id_hex()) } })) }
                @if !record.options.labels.is_empty() {
                    (row("Labels", html! { @for (name, value) in &record.options.labels { span class="tag" { (name) "=" (value) } " " } }))
                }
            } } }
        }
    }
}

/// Who ran it, and how each run ended, the last one first.
fn attempts(record: &JobRecord) -> Markup {
    let all = record.attempts();
    html! {
        @if !all.is_empty() {
            section {
                h2 { "Attempts" }
                div class="scroll" { table id="attempts" {
                    thead { tr { th { "Attempt" } th { "Worker" } th { "Started" } th { "Took" } th { "Outcome" } th { "Error" } } }
                    tbody { @for attempt in all.iter().rev() { tr {
                        td { (attempt.attempt) }
                        td { @if let Some(worker) = &attempt.worker { code { (worker) } } }
                        td { @if let Some(at) = attempt.started_at { (moment(at)) } }
                        td { @if let Some(ms) = attempt.duration_ms { (span(ms)) } }
                        td { (attempt.outcome) @if let Some(reason) = attempt.reason { " (" (reason) ")" } }
                        td { @if let Some(error) = &attempt.error { strong { (error.code) } " " (error.message) } }
                    } } }
                } }
            }
        }
    }
}

/// JSON with line breaks, cut where it is too long to be read.
fn shown(json: &str) -> String {
    let pretty = serde_json::from_str::<Value>(json).and_then(|value| serde_json::to_string_pretty(&value));
    let mut text = pretty.unwrap_or_else(|_| json.to_owned());
    if text.len() > SHOWN {
        let more = text.len() - SHOWN;
        text.truncate(text.floor_char_boundary(SHOWN));
        text.push_str(&format!("\n… and {more} bytes more"));
    }
    text
}
