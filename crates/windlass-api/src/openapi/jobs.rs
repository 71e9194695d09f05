//! Jobs, blobs, card sheets, queues and schedules in the document.

use serde_json::{Value, json};

use super::schemas::{array, count, flag, instant, number, object, object_with, or_null, text};
use super::{Op, named, op};
use crate::problem::Code;

/// A queue's name, and which of its shards.
const QUEUE: &str = r"^[a-z0-9_-]{1,64}(\.(0|[1-9][0-9]{0,4}))?$";
const QUEUE_AWAY: [Code; 3] = [Code::QueueUnavailable, Code::StoreFull, Code::QueueFull];

fn blob_name() -> Value {
    json!({ "type": "string", "format": "binary" })
}

/// A job as callers write it. Its members are those that are read (a test).
pub(crate) fn job() -> Value {
    let span = |max: u64| json!({ "type": ["integer", "null"], "minimum": 0, "maximum": max });
    let key = json!({ "type": ["string", "null"], "minLength": 1, "maxLength": 64 });
    json!({
        "type": "object",
        "description": "Which kinds there are, and the schema of each one's args: GET /api/kinds",
        "required": ["kind", "args"],
        "additionalProperties": false,
        "properties": {
            "kind": { "type": "string" },
            "args": { "description": "As the kind's schema says" },
            "queue": { "type": ["string", "null"], "pattern": QUEUE },
            "priority": { "enum": ["high", "normal", "low", null] },
            "run_at": { "type": ["string", "null"], "format": "date-time" },
            "delay_ms": span(31_622_400_000),
            "expires_at": { "type": ["string", "null"], "format": "date-time" },
            "expires_in_ms": { "type": ["integer", "null"], "minimum": 1, "maximum": 31_622_400_000_u64 },
            "max_attempts": { "type": ["integer", "null"], "minimum": 1, "maximum": 1000 },
            "backoff": { "type": ["object", "null"], "description": "{type: fixed, delay_ms}, {type: exponential, base_ms, max_ms} or {type: list, delays_ms}" },
            "timeout_ms": { "type": ["integer", "null"], "minimum": 1, "maximum": 86_400_000 },
            "labels": { "type": ["object", "null"], "additionalProperties": text() },
            "unique": { "type": ["object", "null"], "description": "{key, ttl_ms, until, on_clash, debounce_ms}" },
            "tenant": key, "ordering_key": key, "concurrency_key": key, "rate_key": key,
            "depends_on": { "type": ["array", "null"], "items": text(), "maxItems": 1000, "uniqueItems": true },
            "on_failure": { "enum": ["cancel", "run", null] },
            "durability": { "enum": ["fast", "replicated", "fsynced", null] },
        },
    })
}

/// A flow: what runs one after the other, and what runs beside each other.
pub(super) fn chain() -> Value {
    let steps = json!({ "type": "array", "items": step(), "minItems": 1 });
    json!({ "type": "object", "required": ["chain"], "additionalProperties": false, "properties": { "chain": steps } })
}

/// See [`chain`].
pub(super) fn group() -> Value {
    let steps = json!({ "type": "array", "items": step(), "minItems": 1 });
    let properties = json!({ "group": steps, "then": step() });
    json!({ "type": "object", "required": ["group"], "additionalProperties": false, "properties": properties })
}

fn step() -> Value {
    json!({ "oneOf": [job(), named("Chain"), named("Group")] })
}

fn multipart(files: &[&str], fields: &[&str]) -> Value {
    let file = |name: &&str| ((*name).to_owned(), array(blob_name()));
    let field = |name: &&str| ((*name).to_owned(), text());
    let properties: serde_json::Map<String, Value> = files.iter().map(file).chain(fields.iter().map(field)).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

pub(super) fn operations() -> Vec<Op> {
    let batch =
        json!({ "oneOf": [job(), { "type": "array", "items": job(), "minItems": 1 }, named("Chain"), named("Group")] });
    let accepted = json!({ "oneOf": [named("Accepted"), object(json!({ "tasks": array(named("Accepted")) }))] });
    let key = json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" });
    let page =
        object_with(json!({ "tasks": array(named("Task")), "next": or_null("string") }), json!({ "window": {} }));
    let outcome = object(json!({ "task_id": text(), "outcome": text() }));
    let cancelled = object_with(
        json!({ "success": flag(), "message": text(), "task_id": text() }),
        json!({ "tasks": array(outcome) }),
    );
    let mut all = vec![
        op("POST", "/api/tasks", "Enqueue one job, a flow, or a batch of which all are accepted or none")
            .header("Idempotency-Key", key, "The same key and body is done once in 24 hours")
            .json(batch)
            .answers(202, "Accepted", accepted.clone())
            .answers(200, "The same request was accepted before", accepted)
            .fails(&[Code::JobInvalid, Code::UnknownKind, Code::ArgsInvalid, Code::BlobMissing, Code::BatchTooLarge])
            .fails(&[
                Code::IdempotencyKeyInvalid,
                Code::IdempotencyConflict,
                Code::StoreUnavailable,
                Code::TenantRefused,
            ])
            .fails(&QUEUE_AWAY),
        op("GET", "/api/tasks", "Find jobs of a queue by state, kind and label")
            .query_needed("queue", json!({ "type": "string", "pattern": QUEUE }), "The queue")
            .query("state", named("State"), "Default pending")
            .query("parked", flag(), "Pending ones that no worker knows")
            .query("kind", text(), "Only this kind")
            .paged()
            .answers(200, "A page", page.clone())
            .fails(&QUEUE_AWAY),
        op("GET", "/api/tasks/{id}", "Show a job")
            .query("include", json!({ "enum": ["args"] }), "With its args")
            .answers(200, "The job", named("Task"))
            .fails(&[Code::QueryInvalid]),
        op("DELETE", "/api/tasks/{id}", "Cancel a job")
            .query("tree", flag(), "With every job it is tied to")
            .answers(200, "It was waiting", cancelled.clone())
            .answers(202, "It is running, and told to stop", cancelled)
            .fails(&[Code::TaskCancelFailed, Code::QueryInvalid]),
        op("POST", "/api/tasks/{id}/retry", "Let a failed job start anew")
            .answers(202, "It waits again", named("Accepted"))
            .fails(&[Code::TaskNotFailed]),
        op("GET", "/api/tasks/{id}/events", "Follow a job by server-sent events")
            .sends(200, "state, progress and end, each with the job", &["text/event-stream"])
            .nothing(204, "The end was seen")
            .fails(&[Code::TooManyStreams]),
        op("GET", "/api/tasks/{id}/result", "What came out of a job, as bytes or JSON")
            .query("artifact", text(), "Its name or index; default the first")
            .sends(
                200,
                "The artifact or the value",
                &["application/json", "application/pdf", "application/octet-stream", "*/*"],
            )
            .nothing(304, "Unchanged")
            .fails(&[Code::TaskNotCompleted, Code::ArtifactNotFound, Code::ResultExpired, Code::QueryInvalid]),
        op("GET", "/api/queues/{queue}/dead", "The failed jobs of a queue, newest first")
            .paged()
            .answers(200, "A page", page)
            .fails(&QUEUE_AWAY),
    ];
    for op in &mut all {
        if op.route.1.contains("{id}") {
            let taken = std::mem::take(&mut op.errors);
            op.errors = [taken, vec![Code::TaskNotFound, Code::QueueUnavailable]].concat();
        }
    }
    all.extend(blobs());
    all.extend(sheets());
    all
}

fn blobs() -> Vec<Op> {
    let made = object(json!({ "blob": text(), "bytes": count() }));
    let store = [Code::StoreUnavailable, Code::StorageFull, Code::BlobQuotaFull];
    vec![
        op("POST", "/api/blobs", "Upload an input of jobs").bytes().answers(201, "Stored", made.clone()).fails(&store),
        op("PUT", "/api/blobs/{sha256}", "Upload an input under its digest")
            .bytes()
            .answers(201, "Stored", made)
            .fails(&store)
            .fails(&[Code::DigestMismatch, Code::BlobNotFound]),
        op("HEAD", "/api/blobs/{sha256}", "Whether a blob is there; keeps it for a day more")
            .nothing(200, "It is")
            .fails(&[Code::BlobNotFound, Code::StoreUnavailable]),
        op("GET", "/api/blobs/{sha256}", "The bytes of a blob")
            .sends(200, "The bytes", &["application/octet-stream"])
            .fails(&[Code::BlobNotFound, Code::StoreUnavailable]),
    ]
}

fn sheets() -> Vec<Op> {
    let files = ["application/pdf", "application/zip", "image/png", "image/jpeg"];
    let started = object(json!({ "success": flag(), "message": text(), "task_id": text(), "status_url": text() }));
    let fails = [Code::ArgsInvalid, Code::TaskFailed, Code::SyncTimeout, Code::ResultExpired, Code::StoreUnavailable];
    let old = |op: Op| op.fails(&fails).fails(&QUEUE_AWAY);
    vec![
        old(op("POST", "/api/pdf/card-sheets", "Make card sheets from uploaded pictures")
            .query("wait", json!({ "type": "integer", "minimum": 0, "maximum": 300 }), "Seconds to wait for the file")
            .multipart(multipart(&["fronts", "back", "double_sided"], &["args"]))
            .sends(200, "The file", &files)
            .answers(202, "Accepted", named("Accepted"))
            .fails(&[Code::QueryInvalid, Code::JsonInvalid, Code::UnknownField])),
        old(op("POST", "/api/generate", "Card sheets, as the replaced service made them")
            .multipart(multipart(&crate::sheets::legacy::FILES, &crate::sheets::legacy::FIELDS))
            .sends(200, "The file", &files)
            .answers(202, "Started", started.clone())
            .fails(&[Code::UnknownField])),
        old(op("POST", "/api/offset", "Move the pages of a PDF, as the replaced service did")
            .multipart(multipart(&["pdf_file"], &["x_offset", "y_offset", "ppi", "async_generation"]))
            .sends(200, "The file", &files)
            .answers(202, "Started", started)
            .fails(&[Code::UnknownField])),
        op("GET", "/api/config", "Sizes and bounds of the replaced service").answers(
            200,
            "The configuration",
            object(json!({
                "card_sizes": array(text()), "paper_sizes": array(text()), "layouts": {}, "max_file_size": count(),
                "allowed_extensions": array(text()), "bounds": {}, "optimization_features": {},
            })),
        ),
    ]
}

pub(super) fn queues() -> Vec<Op> {
    let paused = object(json!({ "queue": text(), "paused": flag() }));
    let bounds = json!({ "oneOf": [
        { "type": "object", "required": ["max_waiting"], "additionalProperties": false,
          "properties": { "max_waiting": { "type": ["integer", "null"], "minimum": 0 } } },
        { "type": "object", "required": ["limits"], "properties": { "limits": { "type": "object" } } },
    ] });
    let away = [Code::QueueUnavailable, Code::NotFound];
    let list = |name: &str, item: Value| object(json!({ name: array(item), "next": or_null("string") }));
    vec![
        op("GET", "/api/queues", "What waits, runs, is done and has failed, by queue")
            .paged()
            .answers(200, "The queues", list("queues", object(json!({ "name": text(), "pending": count() }))))
            .fails(&away),
        op("POST", "/api/queues/{queue}/pause", "Let nothing of a queue be claimed")
            .answers(200, "Paused", paused.clone())
            .fails(&away),
        op("POST", "/api/queues/{queue}/resume", "Let a paused queue go on")
            .answers(200, "Resumed", paused)
            .fails(&away),
        op("PUT", "/api/queues/{queue}/limits", "Bound a queue")
            .json(bounds)
            .answers(200, "Bound", object(json!({ "queue": text() })))
            .fails(&away)
            .fails(&[Code::JobInvalid]),
        op("GET", "/api/workers", "The workers that are there")
            .paged()
            .answers(200, "The workers", list("workers", object(json!({ "name": text(), "slots": count() }))))
            .fails(&away),
        op("GET", "/api/kinds", "The kinds that workers have published")
            .paged()
            .answers(200, "The kinds", list("kinds", object(json!({ "name": text(), "workers": count() }))))
            .fails(&away),
    ]
}

/// A schedule as callers write it.
fn definition(with_name: bool) -> Value {
    let mut required = vec!["plan", "kind"];
    if with_name {
        required.push("name");
    }
    json!({
        "type": "object",
        "required": required,
        "additionalProperties": false,
        "properties": {
            "name": { "type": "string", "pattern": "^[a-z0-9_.-]{1,64}$" },
            "plan": { "type": "string", "description": "Cron, or @every 10m" },
            "zone": or_null("string"),
            "clock_change": { "description": "What happens to local times when clocks are changed" },
            "kind": text(),
            "args": {},
            "queue": or_null("string"),
            "priority": { "enum": ["high", "normal", "low", null] },
            "max_attempts": or_null("integer"),
            "backoff": or_null("object"),
            "timeout_ms": or_null("integer"),
            "expires_in_ms": or_null("integer"),
            "labels": or_null("object"),
            "jitter_ms": or_null("integer"),
            "starts_at": { "type": ["string", "null"], "format": "date-time" },
            "ends_at": { "type": ["string", "null"], "format": "date-time" },
            "missed": { "description": "skip, latest, or {all: {max, window_ms}}" },
            "grace_ms": or_null("integer"),
            "overlap": { "enum": ["skip", "queue", "allow", "replace", null] },
            "enabled": or_null("boolean"),
        },
    })
}

pub(super) fn schedules() -> Vec<Op> {
    let fire = object(json!({ "planned_at": instant(), "fires_at": instant() }));
    let next = object(json!({ "name": text(), "next": array(fire) }));
    let wrong = [Code::ScheduleInvalid, Code::ScheduleManaged];
    let mut all = vec![
        op("GET", "/api/schedules", "All schedules, by name").paged().answers(
            200,
            "A page",
            object(json!({ "schedules": array(named("Schedule")), "next": or_null("string") })),
        ),
        op("POST", "/api/schedules", "Make a schedule")
            .query("dry_run", flag(), "Only answer the next firings")
            .json(definition(true))
            .answers(201, "Made", named("Schedule"))
            .answers(200, "The next firings", next.clone())
            .fails(&[Code::QueryInvalid, Code::ScheduleExists, Code::TooManySchedules])
            .fails(&wrong),
        op("GET", "/api/schedules/{name}", "Show a schedule").answers(200, "The schedule", named("Schedule")),
        op("PUT", "/api/schedules/{name}", "Replace a schedule's definition")
            .json(definition(false))
            .answers(200, "Changed", named("Schedule"))
            .fails(&wrong),
        op("DELETE", "/api/schedules/{name}", "Remove a schedule")
            .answers(200, "Removed", object(json!({ "success": flag(), "name": text() })))
            .fails(&wrong),
        op("POST", "/api/schedules/{name}/pause", "Put a schedule to rest")
            .answers(200, "Paused", named("Schedule"))
            .fails(&wrong),
        op("POST", "/api/schedules/{name}/resume", "Let a schedule go on from now")
            .answers(200, "Resumed", named("Schedule"))
            .fails(&wrong),
        op("POST", "/api/schedules/{name}/run", "Enqueue a schedule's job now")
            .answers(202, "Enqueued", object(json!({ "task_id": text(), "status_url": text() })))
            .fails(&QUEUE_AWAY),
        op("GET", "/api/schedules/{name}/next", "The next firings")
            .query("count", json!({ "type": "integer", "minimum": 1, "maximum": 100 }), "How many; default 10")
            .answers(200, "The firings", next)
            .fails(&[Code::QueryInvalid]),
        op("GET", "/api/schedules/{name}/history", "What was done about the last ticks, newest first").paged().answers(
            200,
            "A page",
            object(json!({
                "name": text(),
                "next": or_null("string"),
                "history": array(object(json!({ "decision": text(), "late_ms": number() }))),
            })),
        ),
    ];
    for op in &mut all {
        op.errors.push(Code::StoreUnavailable);
        if op.route.1.contains("{name}") {
            op.errors.push(Code::ScheduleNotFound);
        }
    }
    all
}
