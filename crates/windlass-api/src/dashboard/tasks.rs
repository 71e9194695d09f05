//! The page of tasks: one queue's jobs in a state, by kind and label, and what is done to many.

use maud::{Markup, html};
use windlass_jobs::command::{Filter, Found, SEARCH_WINDOW};
use windlass_jobs::{JobRecord, Queue, State as JobState};

use super::Body;
use super::sample::Sample;
use super::view::{away, moment, state};
use crate::Shared;
use crate::problem::{Code, Problem};
use crate::task;

/// Jobs on a page.
const PAGE: usize = 50;

/// The lists there are, as the page names them.
const LISTS: [(&str, &str); 8] = [
    ("pending", "Waiting"),
    ("running", "Running"),
    ("scheduled", "Scheduled"),
    ("retrying", "Retrying"),
    ("success", "Done"),
    ("failure", "Dead"),
    ("cancelled", "Cancelled"),
    ("parked", "Parked"),
];

/// Which jobs are wanted.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Wish {
    /// A job by its id: the page leads to it.
    pub(super) id: Option<String>,
    queue: Option<Queue>,
    /// One of [`LISTS`]; empty: the first.
    list: String,
    kind: String,
    /// `name=value`.
    label: String,
    cursor: u64,
}

impl Wish {
    pub(super) fn read(pairs: &[(String, String)]) -> Result<Self, Problem> {
        let wrong = |detail: String| Problem::new(Code::QueryInvalid, detail);
        let mut wish = Self::default();
        for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            match name.as_str() {
                "id" => wish.id = Some(value.trim().to_owned()),
                "queue" => {
                    wish.queue = Some(value.parse().map_err(|_| wrong(format!("there is no queue {value:?}")))?);
                }
                "state" if LISTS.iter().any(|(list, _)| list == value) => wish.list.clone_from(value),
                "kind" => wish.kind.clone_from(value),
                "label" => wish.label.clone_from(value),
                "cursor" => {
                    let cursor = value.parse().ok().filter(|cursor| *cursor <= SEARCH_WINDOW);
                    wish.cursor = cursor.ok_or_else(|| wrong(format!("there is no page {value:?}")))?;
                }
                _ => return Err(wrong(format!("{name:?} is not known here, or not with this value"))),
            }
        }
        Ok(wish)
    }

    fn list(&self) -> &str {
        if self.list.is_empty() { LISTS[0].0 } else { &self.list }
    }

    fn filter(&self) -> Filter {
        let parked = self.list() == "parked";
        let state = if parked { JobState::Pending } else { self.list().parse().unwrap_or(JobState::Pending) };
        let mut filter = Filter { parked, ..Filter::of(state) };
        filter.kind = (!self.kind.is_empty()).then(|| self.kind.clone());
        if let Some((name, value)) = self.label.split_once('=') {
            filter.labels.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        filter
    }

    /// This page's address, on another list or from another place.
    fn link(&self, base: &str, queue: &Queue, list: &str, cursor: u64) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("queue", queue.as_str()).append_pair("state", list);
        for (name, value) in [("kind", &self.kind), ("label", &self.label)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        if cursor > 0 {
            query.append_pair("cursor", &cursor.to_string());
        }
        format!("{base}/tasks?{}", query.finish())
    }
}

pub(super) async fn body(shared: &Shared, sample: &Sample, wish: &Wish) -> Result<Body, Problem> {
    let base = shared.options.base_path.as_str();
    let names: Vec<&Queue> = sample.queues.iter().map(|queue| &queue.name).collect();
    // Without a word about it, the queue where most is to be seen in this list.
    let busiest = || sample.queues.iter().max_by_key(|queue| in_list(&queue.counts, wish.list())).map(|q| &q.name);
    let Some(queue) = wish.queue.as_ref().or_else(busiest) else {
        let content = html! { h1 { "Tasks" } (away(sample.away)) p class="empty" { "No queue has had a job yet." } };
        return Ok(Body::new("Tasks", content));
    };
    let Found { ids, next, beyond } = shared.broker.search(queue, &wish.filter(), wish.cursor, PAGE).await?;
    let records = task::records(shared, queue, &ids).await?;
    let counts = sample.queues.iter().find(|q| &q.name == queue).map(|q| q.counts).unwrap_or_default();
    let here = wish.link(base, queue, wish.list(), wish.cursor);
    let content = html! {
        (away(sample.away))
        h1 { "Tasks" }
        (search(base, wish, queue, &names))
        nav class="tabs" aria-label="States" {
            @for (list, name) in LISTS {
                a href=(wish.link(base, queue, list, 0)) aria-current=[(list == wish.list()).then_some("true")] {
                    (name) @if let Some(n) = tab_count(&counts, list) { " " span class="quiet" { (super::view::number(n)) } }
                }
            }
        }
        (table(base, wish.list(), &here, &records))
        nav class="pages" {
            @if wish.cursor > 0 { a href=(wish.link(base, queue, wish.list(), 0)) { "First page" } }
            @if let Some(next) = next { a href=(wish.link(base, queue, wish.list(), next)) { "Next page" } }
            @if beyond { span class="quiet" { "Only the first " (super::view::number(SEARCH_WINDOW)) " of this list are searched." } }
        }
    };
    Ok(Body::new(format!("Tasks of {queue}"), content))
}

/// The number beside a tab: what is there now, not what ever was.
fn tab_count(counts: &windlass_jobs::command::Counts, list: &str) -> Option<u64> {
    (!matches!(list, "success" | "cancelled")).then(|| in_list(counts, list))
}

fn in_list(counts: &windlass_jobs::command::Counts, list: &str) -> u64 {
    match list {
        "running" => counts.running,
        "scheduled" => counts.scheduled,
        "retrying" => counts.retrying,
        "success" => counts.success_total,
        "failure" => counts.dead,
        "cancelled" => counts.cancelled_total,
        "parked" => counts.parked,
        _ => counts.pending,
    }
}

fn search(base: &str, wish: &Wish, queue: &Queue, names: &[&Queue]) -> Markup {
    html! {
        form class="filter" action={ (base) "/tasks" } {
            label { "Queue " select name="queue" {
                @for name in names { option value=(name) selected[*name == queue] { (name) } }
            } }
            input type="hidden" name="state" value=(wish.list());
            label { "Kind " input name="kind" value=(wish.kind) placeholder="any"; }
            label { "Label " input name="label" value=(wish.label) placeholder="name=value"; }
            button { "Filter" }
        }
    }
}

fn table(base: &str, list: &str, here: &str, records: &[JobRecord]) -> Markup {
    html! {
        @if records.is_empty() {
            p class="empty" { "Nothing here." }
        } @else {
            form method="post" action={ (base) "/ui/tasks" } {
                input type="hidden" name="back" value=(here);
                div class="scroll" { table {
                    thead { tr {
                        th { span class="hidden" { "Chosen" } } th { "Task" } th { "Kind" } th { "State" } th { "Progress" }
                        th class="num" { "Runs" } th { "Enqueued" } th { "Labels, error" }
                    } }
                    tbody { @for record in records { (row(base, record)) } }
                } }
                div class="bulk" {
                    span { "With those chosen:" }
                    @if matches!(list, "pending" | "running" | "scheduled" | "retrying" | "parked") {
                        button name="verb" value="cancel" class="danger" { "Cancel" }
                    }
                    @if list == "failure" { button name="verb" value="retry" { "Retry" } }
                    @if matches!(list, "failure" | "success" | "cancelled") {
                        button name="verb" value="delete" class="danger" { "Delete" }
                    }
                }
            }
        }
    }
}

fn row(base: &str, record: &JobRecord) -> Markup {
    let id = record.id.to_string();
    html! {
        tr id={ "task-" (id) } {
            td { input type="checkbox" name="id" value=(id) aria-label={ "Choose " (id) }; }
            td { a href={ (base) "/tasks/" (id) } { code { (id.get(..10).unwrap_or(&id)) "…" (id.get(20..26).unwrap_or_default()) } } }
            td { (record.kind) }
            td { (state(record.state)) @if let Some(reason) = record.reason { " " span class="quiet" { (reason) } } }
            td {
                @if let Some(progress) = &record.progress {
                    progress value=(progress.percent) max="100" {} " "
                    span class="quiet" { (progress.message) }
                }
            }
            td class="num" { (record.attempt()) "/" (record.max_attempts) }
            td { (moment(record.created_at)) }
            td {
                @for (name, value) in record.options.labels.iter().take(4) { span class="tag" { (name) "=" (value) } " " }
                @if let Some(error) = &record.error { span class="error" { (error) } }
            }
        }
    }
}
