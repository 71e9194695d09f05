//! The pages of schedules: when each fires next, what it did, and running one by hand.

use maud::{Markup, html};
use windlass_jobs::Timestamp;
use windlass_scheduler::View;

use super::Body;
use super::view::{button, moment, number};
use crate::Shared;
use crate::problem::Problem;

/// Firings foretold on a schedule's page.
const NEXT: usize = 10;
/// Entries of the ledger on it.
const ENTRIES: usize = 100;

pub(super) async fn list(shared: &Shared) -> Result<Body, Problem> {
    let base = shared.options.base_path.as_str();
    let all = shared.schedules.all().await?;
    let content = html! {
        h1 { "Schedules" }
        @if all.is_empty() {
            p class="empty" { "No schedule is kept. A scheduler brings the built-in ones: " code { "windlass scheduler" } }
        } @else {
            div class="scroll" { table {
                thead { tr {
                    th { "Schedule" } th { "Plan" } th { "Kind" } th { "Next" } th { "Last" }
                    th class="num" { "Fired" } th class="num" { "Skipped" } th class="num" { "Missed" } th {}
                } }
                tbody { @for view in &all { (row(base, view)) } }
            } }
        }
    };
    Ok(Body::new("Schedules", content))
}

fn row(base: &str, view: &View) -> Markup {
    let definition = &view.kept.definition;
    let name = &definition.name;
    let status = view.status();
    html! {
        tr id={ "schedule-" (name) } {
            td { a href={ (base) "/schedules/" (name) } { (name) } @if status != "active" { " " span class="state cancelled" { (status) } } }
            td { code { (definition.plan) } @if definition.zone != "UTC" { " " span class="quiet" { (definition.zone) } } }
            td { (definition.kind) }
            td {
                @match view.next { Some((_, due)) => (moment(due)), None => span class="quiet" { "–" } }
                @if view.overdue.is_some() { " " span class="state failure" { "overdue" } }
            }
            td { @match &view.state.last {
                Some(last) => { a href={ (base) "/tasks/" (last.job) } { (moment(last.fired_at)) } }
                None => span class="quiet" { "–" },
            } }
            td class="num" { (number(view.state.fired_total)) }
            td class="num" { (number(view.state.skipped_total)) }
            td class="num" { (number(view.state.missed_total)) }
            td { (verbs(base, view)) }
        }
    }
}

fn verbs(base: &str, view: &View) -> Markup {
    let name = &view.kept.definition.name;
    let (verb, label) = if view.kept.paused { ("resume", "Resume") } else { ("pause", "Pause") };
    html! {
        (button(&format!("{base}/ui/schedules/{name}/run"), "Run now", &[], false))
        (button(&format!("{base}/ui/schedules/{name}/{verb}"), label, &[], false))
    }
}

pub(super) async fn one(shared: &Shared, name: &str) -> Result<Body, Problem> {
    let base = shared.options.base_path.as_str();
    let view = shared.schedules.get(name).await?;
    let next = shared.schedules.next(name, NEXT).await?;
    let history = shared.schedules.history(name, 0, ENTRIES).await?;
    let definition = serde_json::to_string_pretty(&view.kept.definition).unwrap_or_default();
    let content = html! {
        h1 { (name) " " span class="quiet" { (view.status()) } }
        div class="actions" { (verbs(base, &view)) }
        section {
            h2 { "Next firings" }
            @if next.is_empty() { p class="empty" { "None." } }
            ol class="next" { @for (_, due) in &next { li { (moment(*due)) " " span class="quiet" { (due) } } } }
        }
        section {
            h2 { "Ledger" }
            @if history.is_empty() { p class="empty" { "No tick has been settled yet." } }
            @else { div class="scroll" { table {
                thead { tr { th { "Planned" } th { "Decision" } th class="num" { "Late" } th { "Task" } th { "More" } } }
                tbody { @for entry in &history { tr {
                    td { (Timestamp(entry.planned_ms)) @if let Some((_, n)) = entry.range { " and " (n.saturating_sub(1)) " more" } }
                    td { (entry.what.as_str()) }
                    td class="num" { (super::view::span(u64::try_from(entry.actual_ms - entry.planned_ms).unwrap_or(0))) }
                    td { @if let Some(job) = &entry.job { a href={ (base) "/tasks/" (job) } { code { (job.queue) } } } }
                    td { @if let Some(message) = &entry.message { (message) } }
                } } }
            } } }
        }
        section { h2 { "Definition" } pre { (definition) } }
    };
    Ok(Body::new(format!("Schedule {name}"), content))
}
