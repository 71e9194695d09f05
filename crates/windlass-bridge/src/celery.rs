//! Queues of Celery clients on Redis: messages of protocol 2 in, results as Celery's own back end
//! writes them out.
//!
//! Formats after kombu 5.7 and celery 5.7, recorded in `tests/golden`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt as _, TryStreamExt as _};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use windlass_jobs::{NewJob, Options, Priority, Reason, State, Timestamp, Ulid, When, check_kind};
use windlass_redis::{Cmd, Error, FromRedisValue as _, Link, Message, Script, cmd};

use crate::custody::{Custody, Row, turn_script};
use crate::routes::{CeleryQueue, TaskRoutes};
use crate::source::{Foreign, News, Refusal, Source, What, derived, label};

/// Between a queue's name and the step of a priority, as kombu writes it.
const SEPARATOR: &str = "\u{6}\u{16}";
/// Steps of priority that may be in use; 0 is taken first, and the default.
const STEPS: u8 = 10;
/// Revocations that are remembered, as Celery's workers do; the oldest are forgotten.
const REVOKED: usize = 10_000;

/// Results written at once.
const TELLS_AT_ONCE: usize = 64;

/// Where kombu keeps what workers have taken.
const UNACKED: &str = "unacked";
const UNACKED_INDEX: &str = "unacked_index";

static UNACKED_PAGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/unacked.lua")));
static RECOVER: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/recover.lua")));
static TELL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/tell_celery.lua")));
static TURN: LazyLock<Script> = LazyLock::new(|| turn_script(include_str!("scripts/take_celery.lua")));

/// What a Celery installation agreed on.
#[derive(Debug, Clone)]
pub struct CeleryOptions {
    /// What its tasks become; one that is not named becomes the kind of its name.
    pub tasks: TaskRoutes,
    /// Where results are written; `None`: nowhere.
    pub results: Option<Link>,
    /// After how long a message that an old worker took and did not acknowledge is taken over
    /// (`visibility_timeout`, the longest of all workers). At least 1 s, default 1 h.
    pub visibility: Duration,
    /// How long results stay (`result_expires`). Default 24 h.
    pub result_ttl: Duration,
}

impl Default for CeleryOptions {
    fn default() -> Self {
        Self { tasks: TaskRoutes::default(), results: None, visibility: Self::VISIBILITY, result_ttl: Self::RESULT_TTL }
    }
}

impl CeleryOptions {
    /// Default of [`CeleryOptions::result_ttl`].
    pub const RESULT_TTL: Duration = Duration::from_secs(24 * 3600);
    /// Default of [`CeleryOptions::visibility`].
    pub const VISIBILITY: Duration = Duration::from_secs(3600);
}

pub(crate) struct Celery {
    name: String,
    lists: Vec<String>,
    queue: CeleryQueue,
    options: CeleryOptions,
    custody: Custody,
    revoked: Mutex<Revoked>,
}

/// Ids of tasks that are no longer wanted, and whether they are ended when they run.
#[derive(Default)]
struct Revoked {
    ids: HashMap<String, bool>,
    order: VecDeque<String>,
}

impl Revoked {
    fn add(&mut self, id: String, terminate: bool) {
        if let Some(known) = self.ids.get_mut(&id) {
            *known |= terminate;
            return;
        }
        self.ids.insert(id.clone(), terminate);
        self.order.push_back(id);
        if self.order.len() > REVOKED {
            self.order.pop_front().and_then(|oldest| self.ids.remove(&oldest));
        }
    }
}

impl Celery {
    pub(crate) fn new(link: Link, queue: CeleryQueue, options: CeleryOptions) -> Self {
        let step = |step| if step == 0 { queue.name.clone() } else { format!("{}{SEPARATOR}{step}", queue.name) };
        let custody = Custody { link, base: format!("{}:windlass", queue.name) };
        let lists = (0..STEPS).map(step).collect();
        Self { name: format!("celery {}", queue.name), lists, queue, options, custody, revoked: Mutex::default() }
    }

    /// Whether a message that was published there lies in our queue; exchanges are looked up once.
    async fn is_for_us(
        &self,
        bindings: &mut HashMap<String, Vec<Binding>>,
        exchange: &str,
        routing_key: &str,
    ) -> Result<bool, Error> {
        if !bindings.contains_key(exchange) && !exchange.is_empty() {
            let mut call = cmd("SMEMBERS");
            call.arg(format!("_kombu.binding.{exchange}"));
            let table = Vec::<String>::from_redis_value(self.custody.link.call(&call).await?).unwrap_or_default();
            bindings.insert(exchange.to_owned(), table.iter().filter_map(|entry| Binding::read(entry)).collect());
        }
        let name = &self.queue.name;
        Ok(match bindings.get(exchange) {
            Some(table) if !table.is_empty() => {
                table.iter().any(|binding| binding.queue == *name && binding.fits(routing_key))
            }
            // The exchange without a name leads to the queue of the key; so does one that nobody declared.
            _ => routing_key == name,
        })
    }
}

#[async_trait]
impl Source for Celery {
    fn name(&self) -> &str {
        &self.name
    }

    fn custody(&self) -> &Custody {
        &self.custody
    }

    fn turn(&self, take: usize, look: usize, hold: Duration) -> (&'static Script, Cmd) {
        let mut call = self.custody.begin(&TURN, &self.lists[0], take, look, hold);
        call.arg(&self.lists);
        (&TURN, call)
    }

    fn read(&self, row: &Row) -> Result<Foreign, Refusal> {
        let mut foreign = read(&row.held, &self.options.tasks)?;
        foreign.queue.clone_from(&self.queue.queue);
        Ok(foreign)
    }

    async fn tell(&self, news: &[News]) -> Result<(), Error> {
        let Some(results) = &self.options.results else { return Ok(()) };
        let ttl_s = self.options.result_ttl.as_secs().max(1);
        let mut calls = Vec::new();
        for news in news.iter().filter(|news| !news.is_quiet && !news.id.is_empty()) {
            let mut call = TELL.on(&format!("celery-task-meta-{}", news.id));
            call.arg(ttl_s);
            let is_start = news.is_new_run && matches!(news.what, What::Running { .. });
            let start = is_start.then(|| result(news, &What::START)).flatten();
            for body in start.into_iter().chain(result(news, &news.what).filter(|_| news.what != What::START)) {
                call.arg(u8::from(news.what.is_end())).arg(body);
            }
            calls.push(call);
        }
        let told = futures_util::stream::iter(calls).map(|call| async move { TELL.run(results, &call).await });
        told.buffer_unordered(TELLS_AT_ONCE).try_for_each(|_| std::future::ready(Ok(()))).await
    }

    async fn recover(&self) -> Result<usize, Error> {
        let link = &self.custody.link;
        let (mut first, mut found) = (0, 0);
        let mut bindings = HashMap::new();
        loop {
            let mut call = UNACKED_PAGE.on(UNACKED_INDEX);
            call.arg(UNACKED).arg(self.options.visibility.as_secs()).arg(first);
            let reply = UNACKED_PAGE.run(link, &call).await?;
            let page = Vec::<Vec<u8>>::from_redis_value(reply).unwrap_or_default();
            let mut taken = RECOVER.on(UNACKED_INDEX);
            taken.arg(UNACKED).arg(&self.custody.base);
            let mut count = 0;
            for [tag, entry] in page.as_chunks::<2>().0 {
                let entry = serde_json::from_slice::<(Box<RawValue>, Option<String>, Option<String>)>(entry);
                let Ok((message, exchange, key)) = entry else { continue };
                // Other queues' messages lie there, too.
                if self.is_for_us(&mut bindings, &exchange.unwrap_or_default(), &key.unwrap_or_default()).await? {
                    taken.arg(tag.as_slice()).arg(message.get());
                    count += 1;
                }
            }
            if count > 0 {
                RECOVER.run(link, &taken).await?;
            }
            found += count;
            first += page.len() / 2 - count;
            if page.len() < 200 {
                return Ok(found);
            }
        }
    }

    fn revocations(&self) -> Option<mpsc::UnboundedReceiver<Message>> {
        let link = &self.custody.link;
        Some(windlass_redis::subscribe(link, format!("/{}.celery.pidbox", link.options().db())))
    }

    fn revoke(&self, message: &str) {
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revocation(message).into_iter().for_each(|(id, terminate)| revoked.add(id, terminate));
    }

    fn is_revoked(&self, id: &str, state: State) -> bool {
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.ids.get(id).is_some_and(|terminate| *terminate || state != State::Running)
    }
}

/// How an exchange leads to a queue, as kombu keeps it in `_kombu.binding.EXCHANGE`.
#[derive(Debug)]
struct Binding {
    routing_key: String,
    /// Of an exchange that goes by topics: which keys fit.
    pattern: Option<Regex>,
    queue: String,
}

impl Binding {
    fn read(entry: &str) -> Option<Self> {
        let mut fields = entry.split(SEPARATOR).map(str::to_owned);
        let (routing_key, pattern, queue) = (fields.next()?, fields.next()?, fields.next()?);
        let pattern = if pattern.is_empty() { None } else { Some(Regex::new(&pattern).ok()?) };
        Some(Self { routing_key, pattern, queue })
    }

    fn fits(&self, routing_key: &str) -> bool {
        self.pattern.as_ref().map_or(self.routing_key == routing_key, |pattern| pattern.is_match(routing_key))
    }
}

/// A message as kombu lays it into a list.
#[derive(Deserialize)]
struct Envelope {
    body: String,
    #[serde(rename = "content-type", default)]
    content_type: Option<String>,
    #[serde(rename = "content-encoding", default)]
    content_encoding: Option<String>,
    #[serde(default)]
    headers: Headers,
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
struct Headers {
    task: Option<String>,
    id: Option<String>,
    eta: Option<String>,
    /// Text in a task, a number in a broadcast.
    expires: Option<Value>,
    group: Option<String>,
    retries: Option<u32>,
    /// Hard, soft, in seconds.
    timelimit: Option<Vec<Option<f64>>>,
    ignore_result: Option<bool>,
    compression: Option<String>,
    traceparent: Option<String>,
}

#[derive(Default, Deserialize)]
struct Properties {
    priority: Option<i64>,
    body_encoding: Option<String>,
}

/// What is to happen with a task's result.
#[derive(Default, Deserialize)]
struct Embed {
    callbacks: Option<Value>,
    errbacks: Option<Value>,
    chain: Option<Value>,
    chord: Option<Value>,
}

type Body = (Vec<Box<RawValue>>, BTreeMap<String, Box<RawValue>>, Embed);

/// A job of a message.
fn read(message: &[u8], tasks: &TaskRoutes) -> Result<Foreign, Refusal> {
    let nameless = |reason: String| Refusal { id: String::new(), reason };
    let envelope: Envelope =
        serde_json::from_slice(message).map_err(|e| nameless(format!("it is no message of kombu: {e}")))?;
    let Some(id) = envelope.headers.id.clone().filter(|id| !id.is_empty()) else {
        return Err(nameless("it has no id: only task protocol 2 is read".to_owned()));
    };
    read_named(envelope, id.clone(), tasks).map_err(|reason| Refusal { id, reason })
}

fn read_named(envelope: Envelope, id: String, tasks: &TaskRoutes) -> Result<Foreign, String> {
    let body = decoded(&envelope)?;
    let Envelope { headers, properties, .. } = envelope;
    let task = headers.task.ok_or("it names no task: only task protocol 2 is read")?;
    let (args, kwargs, embed): Body = serde_json::from_slice(&body).map_err(|e| format!("its body: {e}"))?;
    for (what, value) in
        [("link", embed.callbacks), ("link_error", embed.errbacks), ("chain", embed.chain), ("chord", embed.chord)]
    {
        let is_empty = value.as_ref().is_none_or(|value| value.is_null() || *value == json!([]));
        if !is_empty {
            return Err(format!("{what} is not taken over: let the caller enqueue what follows, or use depends_on"));
        }
    }
    let route = tasks.0.get(&task);
    let kind = match route {
        Some(route) => route.kind.clone(),
        None => check_kind(&task).map(|()| task.clone()).map_err(|_| format!("no kind is named for task {task:?}"))?,
    };
    let args = args_of(route.map_or(&[], |route| &route.names), args, kwargs)?;
    let hard = headers.timelimit.as_deref().and_then(|limits| limits.first().copied().flatten());
    let mut job = NewJob {
        ulid: ulid_of(&id, headers.retries.unwrap_or(0)),
        kind,
        args,
        when: instant("eta", headers.eta.as_deref())?,
        options: Options {
            // The lower steps are the later ones; most tasks have none and stay normal.
            priority: if properties.priority.unwrap_or(0) > 0 { Priority::Low } else { Priority::Normal },
            expires: instant("expires", headers.expires.as_ref().map(|at| at.as_str().unwrap_or_default()))?,
            trace: headers.traceparent.and_then(|trace| trace.parse().ok()),
            timeout: hard.and_then(|s| Duration::try_from_secs_f64(s).ok()),
            ..Options::default()
        },
    };
    label(&mut job, "celery", &task);
    label(&mut job, "celery-id", &id);
    let is_quiet = headers.ignore_result.unwrap_or(false);
    Ok(Foreign { id, job, queue: None, group: headers.group, is_quiet })
}

/// The body as JSON text: anything else could be made to run code.
fn decoded(envelope: &Envelope) -> Result<Vec<u8>, String> {
    if let Some(compression) = &envelope.headers.compression {
        return Err(format!("its body is packed with {compression}: set task_compression to None"));
    }
    let (kind, encoding) = (&envelope.content_type, &envelope.content_encoding);
    if kind.as_deref() != Some("application/json") || encoding.as_deref().is_some_and(|e| e != "utf-8") {
        let found = kind.as_deref().unwrap_or("nothing");
        return Err(format!("its body is {found}: only JSON is read (task_serializer = 'json')"));
    }
    match envelope.properties.body_encoding.as_deref() {
        Some("base64") => STANDARD.decode(&envelope.body).map_err(|e| format!("its body is no base64: {e}")),
        None => Ok(envelope.body.clone().into_bytes()),
        Some(other) => Err(format!("its body is in {other}: only base64 is read")),
    }
}

/// One JSON value of positional and named arguments: the named ones; the one object there is; both
/// together where the positional ones have names; else `{"args": […], "kwargs": {…}}`.
fn args_of(
    names: &[String],
    args: Vec<Box<RawValue>>,
    mut kwargs: BTreeMap<String, Box<RawValue>>,
) -> Result<Box<RawValue>, String> {
    let written = |value: serde_json::Result<Box<RawValue>>| value.map_err(|e| e.to_string());
    if !names.is_empty() && args.len() > names.len() {
        return Err(format!("{} positional arguments, of which {} are named", args.len(), names.len()));
    }
    if args.is_empty() || !names.is_empty() {
        for (name, value) in names.iter().zip(args) {
            if kwargs.insert(name.clone(), value).is_some() {
                return Err(format!("argument {name} is there twice"));
            }
        }
        return written(serde_json::value::to_raw_value(&kwargs));
    }
    if let [only] = args.as_slice()
        && kwargs.is_empty()
        && only.get().starts_with('{')
    {
        return Ok(only.clone());
    }
    #[derive(Serialize)]
    struct Both {
        args: Vec<Box<RawValue>>,
        kwargs: BTreeMap<String, Box<RawValue>>,
    }
    written(serde_json::value::to_raw_value(&Both { args, kwargs }))
}

/// ISO 8601; without a zone it is UTC, as Celery means it.
fn instant(name: &str, text: Option<&str>) -> Result<When, String> {
    let Some(text) = text else { return Ok(When::Now) };
    let zoned = Timestamp::parse_rfc3339(text).or_else(|_| Timestamp::parse_rfc3339(&format!("{text}Z")));
    zoned.map(When::At).map_err(|_| format!("its {name} {text:?} is no instant"))
}

/// A UUID is a ULID of the same bits, so that either id leads to the other. A task that an old
/// worker sends again to be retried is another job.
fn ulid_of(id: &str, retries: u32) -> Ulid {
    let is_uuid = id.len() == 36 && id.bytes().enumerate().all(|(i, b)| (b == b'-') == matches!(i, 8 | 13 | 18 | 23));
    let bits = is_uuid.then(|| u128::from_str_radix(&id.replace('-', ""), 16).ok()).flatten();
    match (bits, retries) {
        (Some(bits), 0) => Ulid(bits),
        _ => derived("celery", &format!("{id}\0{retries}")),
    }
}

/// The ids of a broadcast that revokes, and whether running ones are ended.
fn revocation(message: &str) -> Vec<(String, bool)> {
    #[derive(Deserialize)]
    struct Control {
        method: String,
        #[serde(default)]
        arguments: Value,
    }
    let read = || {
        let envelope: Envelope = serde_json::from_str(message).ok()?;
        let control: Control = serde_json::from_slice(&decoded(&envelope).ok()?).ok()?;
        let terminate = control.arguments["terminate"].as_bool().unwrap_or(false);
        let ids = match &control.arguments["task_id"] {
            Value::Array(ids) => ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Value::String(id) => vec![id.clone()],
            _ => Vec::new(),
        };
        let is_revoke = matches!(control.method.as_str(), "revoke" | "terminate");
        let terminate = terminate || control.method == "terminate";
        is_revoke.then(|| ids.into_iter().map(|id| (id, terminate)).collect())
    };
    read().unwrap_or_default()
}

/// What Celery's result back end keeps of a task; `None`: nothing yet.
fn result(news: &News, what: &What) -> Option<String> {
    let error = |kind: &str, module: &str, message: &str| {
        let text = format!("{kind}: {message}\n");
        (json!({ "exc_type": kind, "exc_message": [message], "exc_module": module }), Some(text))
    };
    let (status, (value, traceback)) = match what {
        What::Waiting => return None,
        start if *start == What::START => ("STARTED", (json!({ "pid": null, "hostname": news.worker }), None)),
        What::Running { percent, message } => {
            let meta =
                json!({ "progress": percent, "current": percent, "total": 100, "message": message, "status": message });
            ("PROGRESS", (meta, None))
        }
        What::Retrying(why) => ("RETRY", error("RuntimeError", "builtins", &why.to_string())),
        What::Done(value) => ("SUCCESS", (value.clone(), None)),
        What::Failed(Reason::Expired, _) => ("REVOKED", error("TaskRevokedError", "celery.exceptions", "expired")),
        What::Failed(reason, why) => {
            let (kind, module) = match reason {
                Reason::Timeout => ("TimeLimitExceeded", "celery.exceptions"),
                Reason::Crashed | Reason::Oom | Reason::Poisoned => ("WorkerLostError", "celery.exceptions"),
                Reason::Decode => ("TypeError", "builtins"),
                _ => ("RuntimeError", "builtins"),
            };
            ("FAILURE", error(kind, module, &why.to_string()))
        }
        What::Cancelled(_) => ("REVOKED", error("TaskRevokedError", "celery.exceptions", "revoked")),
        What::Lost => ("FAILURE", error("RuntimeError", "builtins", "lost: it is known no more")),
        What::Refused(why) => ("FAILURE", error("ValueError", "builtins", &format!("refused: {why}"))),
    };
    let done = what.is_end().then(|| Timestamp::now().to_string().replace('Z', "+00:00"));
    let mut meta = json!({
        "status": status, "result": value, "traceback": traceback, "children": [], "date_done": done,
        "task_id": news.id,
    });
    if let Some(group) = &news.group {
        meta["group_id"] = json!(group);
    }
    serde_json::to_string(&meta).ok()
}

#[cfg(test)]
mod tests {
    use windlass_jobs::RunError;

    use super::*;
    use crate::routes::TaskRoute;

    /// What Celery 5.7 put into its lists: named, positional, countdown with expiry, priority with a
    /// time limit and no result, link, chain, group, chord.
    const MESSAGES: &str = include_str!("../tests/golden/messages.jsonl");
    /// What its worker wrote of STARTED, PROGRESS, SUCCESS, FAILURE, REVOKED and RETRY.
    const RESULTS: &str = include_str!("../tests/golden/results.jsonl");

    fn nth(index: usize, tasks: &TaskRoutes) -> Result<Foreign, Refusal> {
        read(MESSAGES.lines().nth(index).unwrap().as_bytes(), tasks)
    }

    #[test]
    fn recorded_messages_become_jobs() {
        let none = TaskRoutes::default();
        let named = nth(0, &none).unwrap();
        assert_eq!(
            (named.job.kind.as_str(), named.job.args.get()),
            ("old.work", r#"{"x": 5}"#.replace(' ', "").as_str())
        );
        assert_eq!(named.job.options.labels["celery-id"], named.id);
        let later = nth(2, &none).unwrap().job;
        let at = |text| When::At(Timestamp::parse_rfc3339(text).unwrap());
        assert_eq!(later.when, at("2026-11-21T20:17:04.197+00:00"));
        assert_eq!(later.options.expires, at("2026-11-21T20:18:04.197+00:00"));
        let low = nth(3, &none).unwrap();
        assert!(low.is_quiet);
        assert_eq!((low.job.options.priority, low.job.options.timeout), (Priority::Low, Some(Duration::from_secs(30))));
        for (index, word) in [(4, "link"), (5, "chain"), (7, "chord")] {
            assert!(nth(index, &none).unwrap_err().reason.starts_with(word), "{index}");
        }
        assert!(nth(6, &none).unwrap().group.is_some());
    }

    #[test]
    fn positional_arguments_get_the_names_of_their_route() {
        let route = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            TaskRoutes([("old.add".to_owned(), TaskRoute { kind: "sum".to_owned(), names })].into())
        };
        let job = nth(1, &route(&["a", "b"])).unwrap().job;
        assert_eq!((job.kind.as_str(), job.args.get()), ("sum", r#"{"a":1}"#));
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let check = |names: &[String], args: &[&str], kwargs: &[(&str, &str)], expected: Result<&str, &str>| {
            let kwargs = kwargs.iter().map(|(name, value)| ((*name).to_owned(), raw(value))).collect();
            let found = args_of(names, args.iter().map(|text| raw(text)).collect(), kwargs);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.get(), expected),
                (found, expected) => assert!(found.unwrap_err().contains(expected.unwrap_err())),
            }
        };
        let names = ["a".to_owned()];
        check(&[], &[], &[], Ok("{}"));
        check(&[], &[r#"{"big":18446744073709551615}"#], &[], Ok(r#"{"big":18446744073709551615}"#));
        check(&[], &["1", "2"], &[("c", "3")], Ok(r#"{"args":[1,2],"kwargs":{"c":3}}"#));
        check(&names, &["1"], &[("c", "3")], Ok(r#"{"a":1,"c":3}"#));
        check(&names, &["1"], &[("a", "3")], Err("twice"));
        check(&names, &["1", "2"], &[], Err("2 positional"));
    }

    #[test]
    fn one_task_is_always_the_same_job() {
        let id = "2859cf22-1d80-4bfb-97a2-a526e7cd883e";
        assert_eq!(ulid_of(id, 0).0, 0x2859_cf22_1d80_4bfb_97a2_a526_e7cd_883e);
        assert_ne!(ulid_of(id, 1), ulid_of(id, 0), "a retry by an old worker is a new message");
        assert_eq!(ulid_of("mine", 0), ulid_of("mine", 0));
    }

    /// Every member that Celery's own back end writes is there.
    #[test]
    fn results_have_the_shape_of_recorded_ones() {
        let error = RunError::new("bad", "thing");
        let running = |percent, message: &str| What::Running { percent, message: message.to_owned() };
        let ours = [
            running(0.0, ""),
            running(50.0, "half"),
            What::Done(json!({ "x": 1 })),
            What::Failed(Reason::Error, error.clone()),
            What::Cancelled(String::new()),
            What::Retrying(error),
        ];
        let by_status = |text: &str| -> (String, Value) {
            let value: Value = serde_json::from_str(text).unwrap();
            (value["status"].as_str().unwrap().to_owned(), value)
        };
        let recorded: BTreeMap<String, Value> = RESULTS.lines().map(by_status).collect();
        assert_eq!(recorded.len(), ours.len());
        for what in ours {
            let news =
                News { id: "i".into(), group: None, is_quiet: false, attempt: 1, worker: None, is_new_run: true, what };
            let (status, value) = by_status(&result(&news, &news.what).unwrap());
            let recorded = &recorded[&status];
            let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(members(&value), members(recorded), "{status}");
            assert_eq!(value["date_done"].is_null(), recorded["date_done"].is_null(), "{status}");
            assert_eq!(
                value["traceback"].is_null(),
                recorded["traceback"].is_null() && status != "REVOKED",
                "{status}"
            );
            for member in recorded["result"].as_object().into_iter().flatten().map(|(name, _)| name) {
                assert!(
                    !value["result"][member].is_null() || matches!(member.as_str(), "pid" | "hostname"),
                    "{member}"
                );
            }
        }
    }

    /// A bridge that was slow tells less than another has told: its clients keep the end.
    #[tokio::test]
    async fn what_is_told_late_covers_no_end() {
        let redis = windlass_testkit::RedisServer::start();
        let link = Link::new(windlass_redis::Options::from_url(&redis.url()).unwrap()).unwrap();
        let queue = CeleryQueue { name: "old".to_owned(), queue: None };
        let options = CeleryOptions { results: Some(link.clone()), ..CeleryOptions::default() };
        let celery = Celery::new(link.clone(), queue, options);
        let failed = || What::Failed(Reason::Error, RunError::new("bad", "thing"));
        let half = || What::Running { percent: 50.0, message: "half".to_owned() };
        let check = async |whats: Vec<What>, expected: &str| {
            let id = windlass_jobs::new_ulid().to_string();
            for what in whats {
                let (group, worker) = (None, None);
                let news = News { id: id.clone(), group, is_quiet: false, attempt: 1, worker, is_new_run: true, what };
                celery.tell(&[news]).await.unwrap();
            }
            let text = link.call(cmd("GET").arg(format!("celery-task-meta-{id}"))).await.unwrap();
            let meta: Value = serde_json::from_str(&String::from_redis_value(text).unwrap()).unwrap();
            assert_eq!(meta["status"], expected);
        };
        check(vec![half(), What::Retrying(RunError::new("a", "b")), What::START], "STARTED").await;
        check(vec![What::Done(json!(1)), half()], "SUCCESS").await;
        check(vec![failed(), What::START], "FAILURE").await;
        check(vec![What::Cancelled(String::new()), half()], "REVOKED").await;
        // A task that was sent again under its id may yet succeed; a success is final.
        check(vec![failed(), What::START, What::Done(json!(1))], "SUCCESS").await;
        check(vec![What::Done(json!(1)), What::Lost], "SUCCESS").await;
    }

    #[test]
    fn revocations_are_read() {
        let recorded = include_str!("../tests/golden/revoke.json");
        assert_eq!(revocation(recorded), [("f6f41f4b-153c-4116-bd3d-554122cb6b58".to_owned(), false)]);
        assert!(revocation("{}").is_empty());
    }
}
