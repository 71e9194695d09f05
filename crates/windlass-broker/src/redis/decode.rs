//! Turns what a script answers into replies.

use std::borrow::Cow;
use std::collections::BTreeMap;

use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::command::{Ack, Cancel, Claimed, Clash, Counts, Enqueued, Exchanged, Page, WorkerInfo};
use windlass_jobs::flow::{Ended, Heard, Mail, Message, Received};
use windlass_jobs::{
    DEFAULT_MAX_ATTEMPTS, JobId, JobRecord, Lease, Limits, NewJob, Options, Priority, Progress, Queue, Rate, Reason,
    RunError, State, Timestamp, Ulid,
};
use windlass_redis::Value;

use super::holds::Held;
use crate::{Error, Result, Wake};

fn unexpected(operation: &'static str, detail: impl Into<String>) -> Error {
    Error::Unexpected { operation, detail: detail.into() }
}

fn array(operation: &'static str, value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(unexpected(operation, format!("{other:?} where a list was expected"))),
    }
}

/// A string, or a number as a string; bytes that are no UTF-8 are replaced, so that one
/// damaged job is refused by whoever reads it and not by everyone.
fn text(value: Value) -> String {
    match value {
        Value::BulkString(bytes) => {
            String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
        }
        Value::SimpleString(text) => text,
        Value::Int(n) => n.to_string(),
        _ => String::new(),
    }
}

fn optional_text(value: Value) -> Option<String> {
    (!matches!(value, Value::Nil)).then(|| text(value))
}

fn number<T: std::str::FromStr + Default + TryFrom<i64>>(value: &Value) -> T {
    match value {
        Value::Int(n) => T::try_from(*n).unwrap_or_default(),
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok().and_then(|t| t.parse().ok()).unwrap_or_default(),
        _ => T::default(),
    }
}

/// An instant where the script says `''` for none. Redis prints large scores as floats.
fn instant(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Int(n) => Some(Timestamp(*n)),
        Value::BulkString(bytes) if !bytes.is_empty() => millis_text(std::str::from_utf8(bytes).ok()?),
        _ => None,
    }
}

fn millis_text(text: &str) -> Option<Timestamp> {
    #[expect(clippy::cast_possible_truncation, reason = "a score is a whole number of ms far below 2^53")]
    text.parse::<i64>().ok().or_else(|| text.parse::<f64>().ok().map(|f| f as i64)).map(Timestamp)
}

const fn ack(byte: &u8) -> Ack {
    match *byte {
        b'1' => Ack::Taken,
        b'2' => Ack::Cancel,
        _ => Ack::Stale,
    }
}

/// `1` and `0`, one per id.
pub(super) fn flags(operation: &'static str, value: &Value) -> Result<Vec<bool>> {
    Ok(acks(operation, value)?.into_iter().map(|ack| ack == Ack::Taken).collect())
}

pub(super) fn cancel(value: Value) -> Result<Cancel> {
    match text(value).as_str() {
        "done" => Ok(Cancel::Done),
        "requested" => Ok(Cancel::Requested),
        "unknown" => Ok(Cancel::Unknown),
        state => state.parse().map(Cancel::Ended).map_err(|e| unexpected("cancel", e)),
    }
}

/// A message on a worker's channel; see [`super::keys`].
pub(super) fn wake(text: &str) -> Wake {
    let words: Vec<&str> = text.split(':').collect();
    match words[..] {
        ["k", token] => Wake::Canary(token.to_owned()),
        ["c", queue, ulid, epoch] => match (Queue::new(queue), Ulid::from_string(ulid), epoch.parse()) {
            (Ok(queue), Ok(ulid), Ok(epoch)) => Wake::Cancel(queue, Lease { ulid, epoch }),
            _ => Wake::All,
        },
        [queue] => Queue::new(queue).map_or(Wake::All, Wake::Queue),
        _ => Wake::All,
    }
}

/// How many came back, and the last id looked at.
pub(super) fn unparked(value: Value) -> Result<(usize, String)> {
    let mut values = array("unpark", value)?.into_iter();
    let (back, last) = (values.next().unwrap_or(Value::Nil), values.next().unwrap_or(Value::Nil));
    Ok((number::<u32>(&back) as usize, text(last)))
}

pub(super) fn tidied(value: &Value) -> usize {
    number::<u32>(value) as usize
}

pub(super) fn acks(operation: &'static str, value: &Value) -> Result<Vec<Ack>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.iter().map(ack).collect()),
        other => Err(unexpected(operation, format!("{other:?} where acks were expected"))),
    }
}

pub(super) fn enqueued(value: Value, jobs: &[NewJob], replies: &mut Vec<Enqueued>) -> Result<()> {
    let mut names = match value {
        Value::Array(values) => values.into_iter(),
        flags => vec![flags].into_iter(),
    };
    let flags = names.next().unwrap_or(Value::Nil);
    let Value::BulkString(flags) = &flags else { return Err(unexpected("enqueue", format!("{flags:?}"))) };
    if flags.len() != jobs.len() {
        return Err(unexpected("enqueue", format!("{} answers to {} jobs", flags.len(), jobs.len())));
    }
    let mut names = names.map(text);
    for (job, flag) in jobs.iter().zip(flags) {
        let clash = match flag {
            b'2' | b'3' => {
                let with = names.next().and_then(|name| Ulid::from_string(&name).ok());
                let with = with.ok_or_else(|| unexpected("enqueue", "a clash without a name"))?;
                Some(Clash { with, replaced: *flag == b'3' })
            }
            _ => None,
        };
        replies.push(Enqueued { fresh: *flag == b'1', clash, ..Enqueued::known(job.ulid) });
    }
    Ok(())
}

/// Values per claimed job in the exchange's reply.
const CLAIM_WIDTH: usize = 4;

/// What ends with a run whose claim says no more than its lane; `-` where it says nothing.
fn held_in(lane: &str) -> Cow<'_, str> {
    let mut keys = lane.splitn(5, '\t').skip(2);
    match (keys.next(), keys.next()) {
        (Some(order), Some(conc)) => format!("{order}\t{conc}\t").into(),
        _ => "-".into(),
    }
}

/// Answers also what ends with the runs that were claimed, where that is said.
pub(super) fn exchanged(value: Value) -> Result<(Exchanged, Vec<Held>)> {
    let mut values = array("exchange", value)?.into_iter();
    let mut next = || values.next().unwrap_or(Value::Nil);
    let now = instant(&next()).ok_or_else(|| unexpected("exchange", "no time"))?;
    let acks = acks("exchange", &next())?;
    let (next_due, next_lease, since) = (instant(&next()), instant(&next()), instant(&next()));
    let next_message = instant(&next());
    let mut claimed = Vec::with_capacity(values.len() / CLAIM_WIDTH);
    let mut holds = Vec::new();
    while let Some(ulid) = values.next() {
        let mut word = || values.next().map(text).unwrap_or_default();
        let (kind, args, rest) = (word(), word(), word());
        // An id that is no ULID was pushed by hand; its lease runs out and the poison rule buries it.
        let Ok(ulid) = Ulid::from_string(&text(ulid)) else { continue };
        let (held, numbers) =
            rest.split_once('\n').map_or_else(|| (held_in(&rest), ""), |(held, numbers)| (held.into(), numbers));
        let mut numbers = numbers.splitn(5, '\t');
        let mut number = |default: u32| numbers.next().and_then(|n| n.parse().ok()).unwrap_or(default);
        let (epoch, deliveries, failures) = (number(1), number(1), number(0));
        let lease = Lease { ulid, epoch };
        if held.is_empty() || held.matches('\t').count() == 2 {
            holds.push((lease, held.into()));
        }
        claimed.push(Claimed {
            lease,
            kind,
            args,
            failures,
            max_attempts: numbers.next().and_then(|n| n.parse().ok()),
            deliveries,
            options: super::encode::without_rare(numbers.next().unwrap_or_default()).to_owned(),
        });
    }
    Ok((Exchanged { now, acks, claimed, next_due, next_lease, since, next_message }, holds))
}

pub(super) fn record(id: &JobId, value: Value) -> Result<Option<JobRecord>> {
    let mut parts = match value {
        Value::Nil => return Ok(None),
        Value::BulkString(_) => return Ok(Some(damaged(id))),
        other => array("get", other)?.into_iter(),
    };
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let fields = fields(next())?;
    let (args, result, error) = (optional_text(next()), optional_text(next()), optional_text(next()));
    let (error, earlier) = windlass_jobs::attempts::read(&error.unwrap_or_default());
    let parents = optional_text(next()).unwrap_or_default();
    let (waits_for, children) = (number(&next()), job_ids(next()));
    let get = |name: &str| fields.get(name).map(String::as_str);
    let at = |name: &str| get(name).and_then(millis_text);
    let pieces = |name: &str| fields.get(name).cloned();

    let mut run = get("run").unwrap_or_default().splitn(4, ' ');
    let epoch = run.next().and_then(|t| t.parse().ok()).unwrap_or(0);
    let deliveries = run.next().and_then(|t| t.parse().ok()).unwrap_or(0);
    let started_at = run.next().and_then(millis_text);
    let worker = run.next().map(str::to_owned);

    let state = match get("state") {
        Some("blocked") => State::Scheduled,
        word => word.and_then(|t| t.parse().ok()).unwrap_or(State::Pending),
    };
    let mut options = Options {
        priority: get("priority")
            .and_then(|t| t.trim_end_matches('l').parse::<usize>().ok())
            .and_then(|i| Priority::ALL.get(i).copied())
            .unwrap_or_default(),
        max_attempts: get("max_attempts").and_then(|t| t.parse().ok()),
        tenant: get("tenant").map(str::to_owned),
        ordering_key: get("order").map(str::to_owned),
        concurrency_key: get("conc").map(str::to_owned),
        rate_key: get("rate").map(str::to_owned),
        labels: fields.iter().filter_map(|(k, v)| Some((k.strip_prefix("l.")?.to_owned(), v.clone()))).collect(),
        ..Options::default()
    };
    // An option that cannot be read buries the job when a worker claims it; reading shows the rest.
    let short = pieces("opts").unwrap_or_default();
    let _ = options.read_short(&short);
    options.read_unique(&short, get("unique"));
    if let Some(after) = &mut options.depends_on {
        after.parents = parents.split(' ').filter_map(|id| id.parse().ok()).collect();
    }
    Ok(Some(JobRecord {
        id: id.clone(),
        kind: get("kind").unwrap_or_default().to_owned(),
        args: args.or_else(|| pieces("args")).unwrap_or_default(),
        state,
        reason: get("reason").and_then(|t| t.parse().ok()),
        failures: get("attempt").and_then(|t| t.parse().ok()).unwrap_or(0),
        max_attempts: options.max_attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS),
        epoch,
        deliveries,
        options,
        created_at: at("created_at").unwrap_or_default(),
        run_at: at("run_at"),
        expires_at: at("expires_at"),
        cancel_requested: state == State::Running && get("cancel").is_some(),
        started_at,
        finished_at: at("finished_at"),
        worker,
        progress: get("progress").map(Progress::from_short),
        result,
        skipped: get("skipped").is_some(),
        error,
        earlier,
        waits_for,
        children,
    }))
}

/// Ids of a set, in order.
fn job_ids(value: Value) -> Vec<JobId> {
    let Value::Array(values) = value else { return Vec::new() };
    let mut ids: Vec<JobId> = values.into_iter().filter_map(|id| text(id).parse().ok()).collect();
    ids.sort();
    ids
}

/// What is shown of a job whose key is no hash.
fn damaged(id: &JobId) -> JobRecord {
    JobRecord {
        id: id.clone(),
        kind: String::new(),
        args: String::new(),
        state: State::Failure,
        reason: Some(Reason::Decode),
        failures: 0,
        max_attempts: DEFAULT_MAX_ATTEMPTS,
        epoch: 0,
        deliveries: 0,
        options: Options::default(),
        created_at: Timestamp::default(),
        run_at: None,
        expires_at: None,
        cancel_requested: false,
        started_at: None,
        finished_at: None,
        worker: None,
        progress: None,
        result: None,
        skipped: false,
        error: Some(RunError::new("record_damaged", "the job's key is not a hash")),
        earlier: Vec::new(),
        waits_for: 0,
        children: Vec::new(),
    }
}

fn fields(value: Value) -> Result<BTreeMap<String, String>> {
    let mut words = array("get", value)?.into_iter();
    let mut fields = BTreeMap::<String, Vec<u8>>::new();
    while let (Some(field), Some(value)) = (words.next(), words.next()) {
        let bytes = match value {
            Value::BulkString(bytes) => bytes,
            other => text(other).into_bytes(),
        };
        fields.insert(text(field), bytes);
    }
    join_in_place(&mut fields);
    Ok(fields.into_iter().map(|(k, v)| (k, text(Value::BulkString(v)))).collect())
}

/// Joins `args`, `args.1`, … and `opts`, `opts.1`, … as bytes: a piece may end within a character.
fn join_in_place(fields: &mut BTreeMap<String, Vec<u8>>) {
    for name in ["args", "opts"] {
        let Some(mut whole) = fields.remove(name) else { continue };
        for index in 1.. {
            match fields.remove(&format!("{name}.{index}")) {
                Some(piece) => whole.extend(piece),
                None => break,
            }
        }
        fields.insert(name.to_owned(), whole);
    }
}

/// The queue's limits, from the fields and values [`super::encode::limits`] writes.
pub(super) fn limits(value: Value) -> Result<Limits> {
    let mut words = array("limits", value)?.into_iter().map(text);
    let mut limits = Limits::default();
    while let (Some(field), Some(value)) = (words.next(), words.next()) {
        match field.split_once(':') {
            None if field == "q" => limits.concurrency = value.parse().ok(),
            None if field == "c" => limits.key_concurrency = value.parse().ok(),
            None if field == "r" => limits.key_rate = rate_of(&value),
            None => {}
            Some(("r", "")) => limits.rate = rate_of(&value),
            Some(("c", key)) => limits.key_concurrencies.extend(value.parse().ok().map(|n| (key.to_owned(), n))),
            Some((_, key)) => limits.key_rates.extend(rate_of(&value).map(|rate| (key.to_owned(), rate))),
        }
    }
    Ok(limits)
}

/// The third word is the rate as it was asked for.
fn rate_of(text: &str) -> Option<Rate> {
    serde_json::from_str(text.splitn(3, ' ').nth(2)?).ok()
}

pub(super) fn page(value: Value, cursor: u64) -> Result<Page> {
    let mut values = array("list", value)?.into_iter();
    let total: u64 = number(&values.next().unwrap_or(Value::Nil));
    let read: u64 = number(&values.next().unwrap_or(Value::Nil));
    let end = cursor + read;
    let ids = values.map(text).filter_map(|t| Ulid::from_string(t.get(..26)?).ok()).collect();
    Ok(Page { ids, next: (end < total && read > 0).then_some(end) })
}

pub(super) fn counts(value: Value) -> Result<Counts> {
    let values = array("counts", value)?;
    let at = |i: usize| values.get(i).map_or(0, number::<u64>);
    let due = at(1);
    let retrying = at(14).min(due);
    Ok(Counts {
        pending: at(0),
        scheduled: due - retrying,
        retrying,
        running: at(2),
        dead: at(3),
        parked: at(4),
        paused: at(5) == 1,
        max_waiting: values.get(6).filter(|v| **v != Value::Nil).map(number),
        blocked: at(7),
        enqueued_total: at(8),
        success_total: at(9),
        failure_total: at(10),
        cancelled_total: at(11),
        retried_total: at(12),
        expired_leases_total: at(13),
    })
}

/// What is due of a queue's outbox. A damaged message is passed over, and stays.
pub(super) fn mail(queue: &Queue, value: Value) -> Result<Mail> {
    let mut values = array("read outbox", value)?.into_iter();
    let now = values.next().as_ref().and_then(instant).ok_or_else(|| unexpected("read outbox", "no time"))?;
    Ok(Mail { now, messages: values.filter_map(|line| Message::parse(queue, &text(line))).collect() })
}

pub(super) fn received(value: Value, messages: usize) -> Result<Received> {
    let mut values = array("receive", value)?.into_iter();
    let now = values.next().as_ref().and_then(instant).ok_or_else(|| unexpected("receive", "no time"))?;
    let letters = text(values.next().unwrap_or(Value::Nil));
    let heard: Vec<Heard> =
        letters.chars().map(|letter| Ended::from_letter(letter).map_or(Heard::Noted, Heard::Ended)).collect();
    if heard.len() != messages {
        return Err(unexpected("receive", format!("{} answers to {messages} messages", heard.len())));
    }
    Ok(Received { now, heard })
}

pub(super) fn kinds(value: Value) -> Result<Vec<KindInfo>> {
    let mut values = array("kinds", value)?.into_iter().skip(1);
    let mut kinds = Vec::new();
    while let (Some(seen), Some(json)) = (values.next(), values.next()) {
        let Some(seen_at) = instant(&seen) else { continue };
        // What a newer version publishes in a form of its own is not known here.
        let Ok(info) = serde_json::from_str::<KindInfo>(&text(json)) else { continue };
        kinds.push(KindInfo { seen_at, ..info });
    }
    kinds.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(kinds)
}

pub(super) fn workers(value: Value) -> Result<Vec<WorkerInfo>> {
    let mut values = array("workers", value)?.into_iter();
    let now = values.next().as_ref().and_then(instant).ok_or_else(|| unexpected("workers", "no time"))?;
    let mut workers = Vec::new();
    while let (Some(_), Some(seen), Some(json)) = (values.next(), values.next(), values.next()) {
        let Some(seen_at) = instant(&seen) else { continue };
        let Ok(mut info) = serde_json::from_str::<WorkerInfo>(&text(json)) else { continue };
        if now.since(seen_at) <= WorkerInfo::GONE_AFTER {
            info.seen_at = seen_at;
            workers.push(info);
        }
    }
    workers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(workers)
}
