//! Jobs as HTTP callers write them, read into [`NewJob`]s with everything that is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use windlass_jobs::{
    Backoff, DependsOn, Durability, JobId, NewJob, OnFailure, Options, Priority, Queue, Timestamp, Unique, Violation,
    When, new_ulid,
};

use crate::door::Kinds;
use crate::problem::{Code, Problem};
use crate::{flow, json};

/// The members of a job. `kind` and `args` must be there; null means absent, but for `args`.
const FIELDS: [&str; 20] = [
    "kind",
    "args",
    "queue",
    "priority",
    "run_at",
    "delay_ms",
    "expires_at",
    "expires_in_ms",
    "max_attempts",
    "backoff",
    "timeout_ms",
    "labels",
    "unique",
    "tenant",
    "ordering_key",
    "concurrency_key",
    "rate_key",
    "depends_on",
    "on_failure",
    "durability",
];
/// Most violations an answer lists; the total is always told.
const MAX_LISTED: usize = 1_000;
/// The longest message of a violation, in bytes: it may repeat what the caller sent.
const MAX_MESSAGE: usize = 300;

/// A job that may be enqueued.
pub(crate) struct Ready {
    pub(crate) queue: Queue,
    pub(crate) job: NewJob,
    /// Digests of the blobs it needs.
    pub(crate) blobs: Vec<String>,
}

/// A body's jobs.
pub(crate) struct Jobs {
    /// In the caller's order.
    pub(crate) ready: Vec<Ready>,
    /// True when the body was an array or a flow.
    pub(crate) is_batch: bool,
    /// True when the body was a flow: its jobs are queued from its end to its start.
    pub(crate) is_flow: bool,
}

/// What became of a body.
pub(crate) struct Read {
    pub(crate) jobs: Result<Jobs, Problem>,
    /// Some job is of a kind this program does not know itself: what others have published counts.
    pub(crate) needs_others: bool,
}

/// Something wrong with one of the jobs.
pub(crate) struct Fault {
    pub(crate) index: usize,
    pub(crate) violation: Violation,
}

/// The args of a job as the caller wrote them: kept byte for byte.
#[derive(Deserialize)]
struct ArgsOnly<'a> {
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
}

/// Reads one job, an array of jobs or a flow. Pure; may take some tens of ms for the largest bodies.
///
/// # Errors
/// 400 when it is not acceptable JSON, 413 when there are too many jobs, 422 with everything
/// wrong with any of them.
pub(crate) fn read(body: &[u8], kinds: &Kinds, max_jobs: usize) -> Read {
    let mut needs_others = false;
    let jobs = read_all(body, kinds, max_jobs, &mut needs_others);
    Read { jobs, needs_others }
}

fn read_all(body: &[u8], kinds: &Kinds, max_jobs: usize, needs_others: &mut bool) -> Result<Jobs, Problem> {
    let not_json = |detail: String| Problem::new(Code::JsonInvalid, cut(detail));
    let document = json::parse(body).map_err(not_json)?;
    let mut shape = None;
    let (items, is_batch): (Vec<&Value>, bool) = match &document {
        Value::Array(items) => (items.iter().collect(), true),
        Value::Object(_) if flow::is_flow(&document) => (Vec::new(), true),
        Value::Object(_) => (vec![&document], false),
        _ => return Err(Problem::new(Code::JobInvalid, "the body is neither a job nor an array of jobs")),
    };
    let jobs = if flow::is_flow(&document) {
        let text = std::str::from_utf8(body).map_err(|e| not_json(e.to_string()))?;
        let mut jobs = Vec::new();
        let taken = flow::take_apart(&document, text, &mut jobs);
        shape = Some(taken.map_err(|detail| Problem::new(Code::JobInvalid, cut(detail)))?);
        jobs
    } else {
        let raw = raw_args(body, &items, is_batch).map_err(not_json)?;
        items.into_iter().zip(raw).collect()
    };
    if jobs.is_empty() {
        return Err(Problem::new(Code::JobInvalid, "the batch is empty"));
    }
    if jobs.len() > max_jobs {
        let detail = format!("{} jobs; at most {max_jobs} are taken at once", jobs.len());
        return Err(Problem::new(Code::BatchTooLarge, detail));
    }
    if !jobs.iter().filter_map(|(item, _)| item.get("args")).all(json::is_signed) {
        return Err(not_json("an integer in args is above 2^63 − 1".to_owned()));
    }
    let mut faults = Vec::new();
    let mut ready = Vec::with_capacity(jobs.len());
    for (index, (item, raw)) in jobs.into_iter().enumerate() {
        match read_job(item, raw, shape.is_some(), kinds, needs_others) {
            Ok(job) => ready.push(job),
            Err(wrong) => faults.extend(wrong.into_iter().map(|violation| Fault { index, violation })),
        }
    }
    if let Some(shape) = shape.as_ref().filter(|_| faults.is_empty())
        && let Err(wrong) = flow::tie(shape, &mut ready)
    {
        faults = wrong;
    }
    let is_flow = shape.is_some();
    if faults.is_empty() { Ok(Jobs { ready, is_batch, is_flow }) } else { Err(refuse(faults, is_batch)) }
}

/// The args of each job; null where there are none.
fn raw_args<'a>(body: &'a [u8], items: &[&Value], is_batch: bool) -> Result<Vec<&'a RawValue>, String> {
    if !items.iter().all(|item| item.is_object()) {
        return Ok(vec![RawValue::NULL; items.len()]); // refused by `read_job`
    }
    let all: Vec<ArgsOnly<'a>> = if is_batch {
        serde_json::from_slice(body).map_err(|e| e.to_string())?
    } else {
        vec![serde_json::from_slice(body).map_err(|e| e.to_string())?]
    };
    Ok(all.into_iter().map(|job| job.args.unwrap_or(RawValue::NULL)).collect())
}

/// The answer to jobs with faults: the code is that of the first fault.
pub(crate) fn refuse(faults: Vec<Fault>, is_batch: bool) -> Problem {
    let total = faults.len();
    let code = faults.first().map_or(Code::JobInvalid, |fault| code_of(&fault.violation));
    let summary = match faults.first() {
        Some(Fault { index, violation }) if is_batch => {
            format!("job {index}, {}: {}", violation.path, violation.message)
        }
        Some(Fault { violation, .. }) => format!("{}: {}", violation.path, violation.message),
        None => String::new(),
    };
    let mut indexes: Vec<usize> = faults.iter().map(|fault| fault.index).collect();
    indexes.dedup();
    let entry = |Fault { index, violation }: Fault| {
        let Violation { path, code, message } = violation;
        let mut entry = serde_json::json!({ "path": path, "code": code, "message": cut(message) });
        if is_batch {
            entry["index"] = index.into();
        }
        entry
    };
    let listed: Vec<Value> = faults.into_iter().take(MAX_LISTED).map(entry).collect();
    let more = if total > 1 { format!(" (and {} more)", total - 1) } else { String::new() };
    let mut problem =
        Problem::new(code, cut(summary) + &more).with("violations", listed).with("violations_total", total);
    if is_batch {
        problem = problem.with("indexes", indexes);
    }
    problem
}

fn code_of(violation: &Violation) -> Code {
    let in_args = violation.path == "/args" || violation.path.starts_with("/args/");
    match violation.code.as_str() {
        "unknown_field" if !in_args => Code::UnknownField,
        "unknown_kind" => Code::UnknownKind,
        "blob_missing" => Code::BlobMissing,
        "required" if violation.path == "/args" => Code::JobInvalid,
        _ if in_args => Code::ArgsInvalid,
        _ => Code::JobInvalid,
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_MESSAGE));
    text
}

/// Reads one job, or says everything that is wrong with it.
fn read_job(
    item: &Value,
    raw: &RawValue,
    in_flow: bool,
    kinds: &Kinds,
    needs_others: &mut bool,
) -> Result<Ready, Vec<Violation>> {
    let Value::Object(object) = item else {
        return Err(vec![Violation::new("", "wrong_type", "a job is an object")]);
    };
    let mut fields = Fields { object, wrong: unknown_fields(object) };
    let named = fields.required("kind", "a string", |v| v.as_str().map(str::to_owned));
    let is_named = named.is_some();
    let kind = named.unwrap_or_default();
    let args = fields.object.get("args");
    if args.is_none() {
        fields.refuse("args", "required", "args are needed; {} if there are none");
    }
    let options = fields.options();
    let when = fields.when("run_at", "delay_ms");
    let queue = fields.queue();
    let job = NewJob { ulid: new_ulid(), kind, args: raw.to_owned(), when, options };
    *needs_others |= !job.kind.is_empty() && !kinds.is_own(&job.kind);
    let default_queue = kinds.queue(&job.kind);
    if default_queue.is_none() && is_named {
        fields.refuse("kind", "unknown_kind", "this kind is not known here");
    }
    // An ill-formed kind is an unknown one; said once.
    let follows = in_flow && job.options.depends_on.as_ref().is_some_and(|after| after.parents.is_empty());
    let said = |violation: &Violation| violation.path != "/kind" && !(follows && violation.path == "/depends_on");
    fields.wrong.extend(job.check().into_iter().filter(said));
    let args = args.unwrap_or(&Value::Null);
    if object.contains_key("args") {
        let inside = kinds.check(&job.kind, args).unwrap_or_default().into_iter();
        fields.wrong.extend(inside.map(|v| Violation { path: format!("/args{}", v.path), ..v }));
    }
    match default_queue {
        Some(default_queue) if fields.wrong.is_empty() => {
            let queue = queue
                .or(default_queue)
                .ok_or_else(|| vec![Violation::new("/queue", "required", "this kind has no queue of its own")])?;
            let blobs = kinds.blobs(&job.kind, args);
            Ok(Ready { queue, job, blobs })
        }
        _ => Err(fields.wrong),
    }
}

fn unknown_fields(object: &Map<String, Value>) -> Vec<Violation> {
    let unknown = object.keys().filter(|name| !FIELDS.contains(&name.as_str()));
    let violation = |name: &String| {
        let shown: String = name.chars().take(64).collect();
        // RFC 6901: ~ and / are escaped.
        let path = format!("/{}", shown.replace('~', "~0").replace('/', "~1"));
        Violation::new(path, "unknown_field", format!("{shown:?} is not a member of a job"))
    };
    unknown.map(violation).collect()
}

/// Reads members one by one and collects what is wrong.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    wrong: Vec<Violation>,
}

impl Fields<'_> {
    fn refuse(&mut self, name: &str, code: &str, message: impl Into<String>) {
        self.wrong.push(Violation::new(format!("/{name}"), code, message));
    }

    fn optional<T>(&mut self, name: &str, allowed: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.object.get(name).filter(|value| !value.is_null())?;
        let read = read(value);
        if read.is_none() {
            let code = if value.is_number() { "out_of_range" } else { "wrong_type" };
            self.refuse(name, code, format!("{allowed} is allowed"));
        }
        read
    }

    fn required<T>(&mut self, name: &str, allowed: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        if self.object.get(name).is_none_or(Value::is_null) {
            self.refuse(name, "required", format!("{name} is needed: {allowed}"));
        }
        self.optional(name, allowed, read)
    }

    fn options(&mut self) -> Options {
        let priority = |v: &Value| Priority::deserialize(v).ok();
        let attempts = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let labels = |v: &Value| BTreeMap::<String, String>::deserialize(v).ok();
        let backoff = "{\"type\": \"fixed\", \"delay_ms\"}, {\"type\": \"exponential\", \"base_ms\", \"max_ms\"} \
                       or {\"type\": \"list\", \"delays_ms\"}";
        let unique = "{\"key\"} with \"ttl_ms\", \"until\": \"started\", \"finished\" or \"ttl\", \"on_clash\": \"keep\" or \
                      \"replace\", \"debounce_ms\"";
        Options {
            priority: self.optional("priority", "\"high\", \"normal\" or \"low\"", priority).unwrap_or_default(),
            max_attempts: self.optional("max_attempts", "1 to 1000", attempts),
            backoff: self.optional("backoff", backoff, |v| object(v).and_then(|v| Backoff::deserialize(v).ok())),
            timeout: self.optional("timeout_ms", "1 to 86400000", millis),
            expires: self.when("expires_at", "expires_in_ms"),
            labels: self.optional("labels", "an object of strings", labels).unwrap_or_default(),
            tenant: self.key("tenant"),
            ordering_key: self.key("ordering_key"),
            concurrency_key: self.key("concurrency_key"),
            rate_key: self.key("rate_key"),
            unique: self.optional("unique", unique, |v| object(v).and_then(|v| Unique::deserialize(v).ok())),
            depends_on: self.depends_on(),
            durability: self.durability(),
            // That of the request, which the producer knows.
            trace: None,
        }
    }

    /// In a flow `on_failure` may stand alone: what a job follows is said by its place.
    fn depends_on(&mut self) -> Option<DependsOn> {
        let ids = |v: &Value| Vec::<JobId>::deserialize(v).ok();
        let parents = self.optional("depends_on", "an array of ids of jobs", ids);
        let on_failure = self.optional("on_failure", "\"cancel\" or \"run\"", |v| OnFailure::deserialize(v).ok());
        if parents.is_none() && on_failure.is_none() {
            return None;
        }
        Some(DependsOn { parents: parents.unwrap_or_default(), on_failure: on_failure.unwrap_or_default() })
    }

    fn durability(&mut self) -> Durability {
        let read = |v: &Value| Durability::deserialize(v).ok();
        self.optional("durability", "\"fast\", \"replicated\" or \"fsynced\"", read).unwrap_or_default()
    }

    fn key(&mut self, name: &str) -> Option<String> {
        self.optional(name, "a string of 1 to 64 bytes", |v| v.as_str().map(str::to_owned))
    }

    /// An instant given as such or as a span from now; both at once are refused.
    fn when(&mut self, at_name: &str, span_name: &str) -> When {
        let instant = |v: &Value| v.as_str().and_then(|text| Timestamp::parse_rfc3339(text).ok());
        let at = self.optional(at_name, "an RFC 3339 instant with a zone", instant);
        let span = self.optional(span_name, "0 to 31622400000", millis);
        match (at, span) {
            (Some(_), Some(_)) => {
                self.refuse(span_name, "conflict", format!("{at_name} and {span_name} exclude each other"));
                When::Now
            }
            (Some(at), None) => When::At(at),
            (None, Some(span)) if span.is_zero() && span_name == "expires_in_ms" => {
                self.refuse(span_name, "out_of_range", "1 to 31622400000 is allowed");
                When::Now
            }
            (None, Some(span)) if !span.is_zero() => When::After(span),
            (None, _) => When::Now,
        }
    }

    fn queue(&mut self) -> Option<Queue> {
        self.optional("queue", "1 to 64 of a-z 0-9 _ -", |v| v.as_str().and_then(|name| Queue::new(name).ok()))
    }
}

/// serde also reads a list as a type's members, one after the other.
fn object(value: &Value) -> Option<&Value> {
    value.is_object().then_some(value)
}

fn millis(value: &Value) -> Option<Duration> {
    value.as_u64().map(Duration::from_millis)
}
