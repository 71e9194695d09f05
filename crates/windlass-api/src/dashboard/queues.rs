//! The page of queues: depth, oldest, pause and resume.

use maud::{Markup, html};
use windlass_jobs::Timestamp;

use super::Body;
use super::sample::{QueueSample, Sample};
use super::view::{away, button, moment, number};
use crate::Shared;

pub(super) fn body(shared: &Shared, sample: &Sample) -> Body {
    let content = html! {
        (away(sample.away))
        h1 { "Queues" }
        (table(&shared.options.base_path, sample))
    };
    Body::new("Queues", content)
}

/// One row per queue.
pub(super) fn table(base: &str, sample: &Sample) -> Markup {
    html! {
        @if sample.queues.is_empty() {
            p class="empty" { "No queue has had a job or a worker yet." }
        } @else {
            div class="scroll" { table {
                thead { tr {
                    th { "Queue" } th class="num" { "Waiting" } th { "Oldest" } th class="num" { "Running" }
                    th class="num" { "Scheduled" } th class="num" { "Retrying" } th class="num" { "Dead" }
                    th class="num" { "Parked" } th class="num" { "Done" } th {}
                } }
                tbody { @for queue in &sample.queues { (row(base, queue, sample.at)) } }
            } }
        }
    }
}

fn row(base: &str, queue: &QueueSample, now: Timestamp) -> Markup {
    let QueueSample { name, counts, oldest } = queue;
    let list = |state: &str, count: u64| {
        html! {
            @if count == 0 { span class="quiet" { "0" } }
            @else { a href={ (base) "/tasks?queue=" (name) "&state=" (state) } { (number(count)) } }
        }
    };
    let (verb, label) = if counts.paused { ("resume", "Resume") } else { ("pause", "Pause") };
    html! {
        tr id={ "queue-" (name) } {
            td { strong { (name) } @if counts.paused { " " span class="state cancelled" { "paused" } } }
            td class="num" {
                (list("pending", counts.pending))
                @if let Some(most) = counts.max_waiting { span class="quiet" { " of " (number(most)) } }
            }
            td class=[oldest.is_some_and(|at| now.since(at).as_secs() > 60).then_some("warn")] {
                @match oldest { Some(at) => (moment(*at)), None => span class="quiet" { "–" } }
            }
            td class="num" { (list("running", counts.running)) }
            td class="num" { (list("scheduled", counts.scheduled)) }
            td class="num" { (list("retrying", counts.retrying)) }
            td class="num" { (list("failure", counts.dead)) }
            td class="num" { (list("parked", counts.parked)) }
            td class="num" { (number(counts.success_total)) }
            td { (button(&format!("{base}/ui/queues/{name}/{verb}"), label, &[], false)) }
        }
    }
}
