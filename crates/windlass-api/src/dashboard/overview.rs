//! The overview: what happens now, what happened in the last ten minutes, and who does it.

use maud::{Markup, html};
use windlass_jobs::Timestamp;
use windlass_jobs::command::WorkerInfo;

use super::plot::{Series, chart};
use super::sample::{Point, Sample, rates};
use super::view::{away, moment, number, rate, span};
use super::{Body, queues};
use crate::Shared;

/// A canary older than this is a worker that takes nothing.
const CANARY_LATE_MS: u64 = 15_000;

pub(super) async fn body(shared: &Shared, sample: &Sample) -> Body {
    let base = shared.options.base_path.as_str();
    let history = shared.dashboard.sampler(shared).await.history();
    let content = html! {
        (away(sample.away))
        h1 { "Overview" }
        (tiles(base, sample, &history))
        (charts(&history, sample.at))
        section {
            h2 { "Queues" }
            (queues::table(base, sample))
        }
        section {
            h2 { "Workers" }
            (worker_table(base, &sample.workers))
        }
    };
    Body::new("Overview", content)
}

/// The page of workers alone.
pub(super) fn workers(shared: &Shared, sample: &Sample) -> Body {
    let base = shared.options.base_path.as_str();
    let content = html! {
        (away(sample.away))
        h1 { "Workers" }
        (worker_table(base, &sample.workers))
    };
    Body::new("Workers", content)
}

fn tiles(base: &str, sample: &Sample, history: &[Point]) -> Markup {
    let rates = rates(history);
    // The last ten seconds: one look is too jumpy to be read.
    let recent = &rates[rates.len().saturating_sub(5)..];
    #[expect(clippy::cast_precision_loss, reason = "at most five")]
    let mean = |of: fn(&super::sample::Rate) -> f64| match recent.len() {
        0 => 0.0,
        n => recent.iter().map(of).sum::<f64>() / n as f64,
    };
    let latency = history.last().map_or(0, |point| point.latency_ms);
    let late = sample.workers.iter().filter(|worker| is_late(worker)).count();
    let dead = sample.total(|c| c.dead);
    let tile = |name: &str, value: String, to: &str, class: &str| {
        html! { a class={ "tile " (class) } href={ (base) (to) } { span { (name) } strong { (value) } } }
    };
    html! {
        div class="tiles" {
            (tile("Done", rate(mean(|r| r.ended)), "/tasks", ""))
            (tile("Failing", rate(mean(|r| r.failed)), "/tasks?state=failure", if mean(|r| r.failed) > 0.0 { "bad" } else { "" }))
            (tile("Waiting", number(sample.total(|c| c.pending)), "/queues", ""))
            (tile("Longest wait", if latency == 0 { "–".to_owned() } else { span(latency) }, "/queues", if latency > 60_000 { "warn" } else { "" }))
            (tile("Running", number(sample.total(|c| c.running)), "/tasks?state=running", ""))
            (tile("Scheduled", number(sample.total(|c| c.scheduled + c.retrying)), "/tasks?state=scheduled", ""))
            (tile("Dead", number(dead), "/tasks?state=failure", if dead > 0 { "warn" } else { "" }))
            (tile("Workers", match late { 0 => number(sample.workers.len() as u64), n => format!("{} ({n} late)", sample.workers.len()) },
                "/workers", if late > 0 || sample.workers.is_empty() { "bad" } else { "" }))
        }
    }
}

fn charts(history: &[Point], now: Timestamp) -> Markup {
    let rates = rates(history);
    let by_rate = |of: fn(&super::sample::Rate) -> f64| rates.iter().map(|r| (r.at, of(r))).collect();
    #[expect(clippy::cast_precision_loss, reason = "a drawing")]
    let by_point = |of: fn(&Point) -> u64| history.iter().map(|p| (p.at, of(p) as f64)).collect();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts and ms, never negative")]
    let whole = |value: f64| value.round() as u64;
    html! {
        div class="charts" {
            (chart("Throughput", now, &[
                Series { name: "done", class: "ok", values: by_rate(|r| r.ended) },
                Series { name: "failed", class: "bad", values: by_rate(|r| r.failed) },
            ], rate))
            (chart("Depth", now, &[
                Series { name: "waiting", class: "wait", values: by_point(|p| p.waiting) },
                Series { name: "running", class: "run", values: by_point(|p| p.running) },
            ], |value| number(whole(value))))
            (chart("Latency", now, &[
                Series { name: "longest wait", class: "wait", values: by_point(|p| p.latency_ms) },
            ], |value| span(whole(value))))
        }
    }
}

fn is_late(worker: &WorkerInfo) -> bool {
    worker.canary_age_ms.is_some_and(|age| age > CANARY_LATE_MS)
}

fn worker_table(base: &str, workers: &[WorkerInfo]) -> Markup {
    html! {
        @if workers.is_empty() {
            p class="empty" { "No worker is there. Start one: " code { "windlass worker" } }
        } @else {
            div class="scroll" { table {
                thead { tr {
                    th { "Worker" } th { "Queues" } th { "Slots" } th { "Runs" } th { "Canary" } th { "Started" } th { "Version" }
                } }
                tbody {
                    @for worker in workers {
                        tr id={ "worker-" (worker.name) } {
                            td { strong { (worker.host) } " " span class="quiet" { "pid " (worker.pid) }
                                @if worker.draining { " " span class="state cancelled" { "draining" } } }
                            td { @for queue in &worker.queues { span class="tag" { (queue) } " " } }
                            td { progress value=(worker.running) max=(worker.slots) {} " " (worker.running) "/" (worker.slots) }
                            td {
                                @for job in worker.jobs.iter().take(5) {
                                    div { a href={ (base) "/tasks/" (job.id) } { (job.kind) } " " span class="quiet" { (span(job.running_ms)) } }
                                }
                                @if worker.jobs.len() > 5 { span class="quiet" { "and more" } }
                            }
                            td class=[is_late(worker).then_some("bad")] {
                                @match worker.canary_age_ms { Some(age) => { (span(age)) " ago" } None => "not yet" }
                            }
                            td { (moment(worker.started_at)) }
                            td { (worker.version) }
                        }
                    }
                }
            } }
        }
    }
}
