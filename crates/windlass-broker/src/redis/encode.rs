//! Turns calls into the words a script reads.

use std::borrow::Cow;
use std::collections::HashSet;

use windlass_jobs::command::{Claim, Exchange, Filter, Finish, MAX_EXCHANGE, Settle};
use windlass_jobs::flow::{Message, News};
use windlass_jobs::lanes::lane_name;
use windlass_jobs::{Limits, MAX_DELIVERIES, NewJob, OnClash, Options, Priority, Rate, Unique, When, millis};
use windlass_redis::Cmd;

use crate::pieces;

/// Args up to this many bytes lie in the job's hash, cut into pieces; larger ones in a key of
/// their own.
const INLINE_ARGS_BYTES: usize = 256;

/// The words for priorities, by their index.
const PRIORITIES: [&str; 3] = ["0", "1", "2"];

/// Opens `opts` when a field of its own stands beside it: `+`, the letter of a unique key's end, a space.
const RARE: char = '+';

pub(super) fn enqueue(call: &mut Cmd, wake_prefix: &str, jobs: &[NewJob]) {
    let mut ids = HashSet::with_capacity(jobs.len());
    let twice = jobs.iter().any(|job| !ids.insert(job.ulid));
    call.arg(wake_prefix).arg(u8::from(twice)).arg(jobs.len());
    for job in jobs {
        enqueue_one(call, job);
    }
}

fn enqueue_one(call: &mut Cmd, job: &NewJob) {
    let mut id = [0; 26];
    call.arg(&*job.ulid.array_to_str(&mut id));
    let lane = lane_name(&job.options, job.options.priority);
    let place = match (&job.options.unique, &lane) {
        (None, None) => Cow::Borrowed(PRIORITIES[job.options.priority.index()]),
        (unique, lane) => Cow::Owned(special_words(job.options.priority, unique.as_ref(), lane.as_deref())),
    };
    match &job.options.depends_on {
        None => call.arg(&*place),
        Some(after) => {
            let parents: Vec<String> = after.parents.iter().map(ToString::to_string).collect();
            call.arg(format!("d{}\n{place}", parents.join(" ")))
        }
    };
    add_instant(call, job.when);
    add_instant(call, job.options.expires);
    let args = job.args.get();
    let inline = (1..=INLINE_ARGS_BYTES).contains(&args.len());
    call.arg(if inline { "" } else { args });

    let short = claim_options(&job.options);
    let label_words = job.options.labels.len() * 2;
    let piece_words = |text: &str| pieces(text.as_bytes()).len() * 2;
    let words = 2
        + if inline { piece_words(args) } else { 0 }
        + piece_words(&short)
        + if job.options.priority == Priority::Normal && lane.is_none() { 0 } else { 2 }
        + lane_fields(&job.options).count() * 2
        + if job.options.max_attempts.is_some() { 2 } else { 0 }
        + if job.options.unique.is_some() { 2 } else { 0 }
        + label_words;
    call.arg(words).arg("kind").arg(&job.kind);
    if inline {
        add_pieces(call, "args", args);
    }
    add_pieces(call, "opts", &short);
    if lane.is_some() {
        call.arg("priority").arg(format!("{}l", job.options.priority.index()));
    } else if job.options.priority != Priority::Normal {
        call.arg("priority").arg(job.options.priority.index());
    }
    for (field, key) in lane_fields(&job.options) {
        call.arg(field).arg(key);
    }
    if let Some(max) = job.options.max_attempts {
        call.arg("max_attempts").arg(max);
    }
    if let Some(unique) = &job.options.unique {
        call.arg("unique").arg(&unique.key);
    }
    for (key, value) in &job.options.labels {
        call.arg(format!("l.{key}")).arg(value);
    }
}

/// What a claim reads of the options: their short form, after [`RARE`] when there are fields of
/// their own beside it. Absent: all are default, and the claim asks for no more.
fn claim_options(options: &Options) -> String {
    let short = options.to_short();
    match &options.unique {
        Some(unique) => format!("{RARE}{} {short}", unique.until.letter()),
        None if options.max_attempts.is_none() && options.expires == When::Now => short,
        None => format!("{RARE} {short}"),
    }
}

/// The options without what [`claim_options`] opens them by.
pub(super) fn without_rare(options: &str) -> &str {
    match options.strip_prefix(RARE) {
        Some(rest) => rest.split_once(' ').map_or("", |(_, short)| short),
        None => options,
    }
}

/// The options that make a lane, by the fields they are kept in.
fn lane_fields(options: &Options) -> impl Iterator<Item = (&'static str, &str)> {
    let keys = [
        ("tenant", &options.tenant),
        ("order", &options.ordering_key),
        ("conc", &options.concurrency_key),
        ("rate", &options.rate_key),
    ];
    keys.into_iter().filter_map(|(field, key)| Some((field, key.as_deref()?)))
}

/// Priority, until and on clash, ttl, debounce, key, lane: with tabs between, which no key contains.
fn special_words(priority: Priority, unique: Option<&Unique>, lane: Option<&str>) -> String {
    let (index, lane) = (priority.index(), lane.unwrap_or_default());
    let Some(unique) = unique else { return format!("{index}\t\t\t\t\t{lane}") };
    let clash = if unique.on_clash == OnClash::Replace { 'r' } else { 'k' };
    let debounce = unique.debounce.map(|most| millis(most).to_string()).unwrap_or_default();
    let (until, ttl) = (unique.until.letter(), millis(unique.ttl));
    format!("{index}\t{until}{clash}\t{ttl}\t{debounce}\t{}\t{lane}", unique.key)
}

/// `''` never, `+ms` after the server's now, `ms` that instant.
fn add_instant(call: &mut Cmd, when: When) {
    match when {
        When::Now => call.arg(""),
        When::After(delay) => call.arg(format!("+{}", millis(delay))),
        When::At(at) => call.arg(at.0),
    };
}

fn add_pieces(call: &mut Cmd, field: &str, text: &str) {
    for (index, piece) in pieces(text.as_bytes()).enumerate() {
        if index == 0 {
            call.arg(field).arg(piece);
        } else {
            call.arg(format!("{field}.{index}")).arg(piece);
        }
    }
}

pub(super) fn search(call: &mut Cmd, filter: &Filter, first: u64, entries: u64, most: usize) {
    let list = if filter.parked { "parked" } else { filter.state.as_str() };
    call.arg(list).arg(first).arg(entries).arg(most);
    call.arg(filter.state.as_str()).arg(filter.kind.as_deref().unwrap_or(""));
    for (name, value) in &filter.labels {
        call.arg(format!("l.{name}")).arg(value);
    }
}

/// Field and value of each limit: `q` and `c` a number, `r:` (the queue's), `r`, `c:<key>` and
/// `r:<key>`; a rate as its interval in µs, its burst, and as it was asked for.
pub(super) fn limits(call: &mut Cmd, limits: &Limits) {
    let mut add = |field: String, value: String| {
        call.arg(field).arg(value);
    };
    let rate_text = |rate: &Rate| {
        let json = serde_json::to_string(rate).expect("numbers can be written as JSON");
        format!("{} {} {json}", rate.interval_us(), rate.burst())
    };
    if *limits == Limits::default() {
        return;
    }
    for (field, own) in [("own_c", !limits.key_concurrencies.is_empty()), ("own_r", !limits.key_rates.is_empty())] {
        add(field.to_owned(), u8::from(own).to_string());
    }
    for (field, n) in [("q", limits.concurrency), ("c", limits.key_concurrency)] {
        n.into_iter().for_each(|n| add(field.to_owned(), n.to_string()));
    }
    for (field, rate) in [("r:", &limits.rate), ("r", &limits.key_rate)] {
        rate.iter().for_each(|rate| add(field.to_owned(), rate_text(rate)));
    }
    limits.key_concurrencies.iter().for_each(|(key, n)| add(format!("c:{key}"), n.to_string()));
    limits.key_rates.iter().for_each(|(key, rate)| add(format!("r:{key}"), rate_text(rate)));
}

/// Word, whom it is to, whom it is from, how that one ended.
pub(super) fn messages(call: &mut Cmd, messages: &[Message]) {
    for Message { to, from, news } in messages {
        match news {
            News::Waits(_) => call.arg("w").arg(to.ulid.to_string()).arg(from.to_string()).arg(""),
            News::Ended(ended) => {
                call.arg("e").arg(to.ulid.to_string()).arg(from.to_string()).arg(ended.letter().to_string())
            }
        };
    }
}

/// `n`, or with quotas `n:high:normal:low`.
fn wanted(claim: &Claim) -> String {
    let max = claim.max.min(MAX_EXCHANGE);
    match claim.quotas {
        None => max.to_string(),
        Some([high, normal, low]) => format!("{max}:{high}:{normal}:{low}"),
    }
}

/// The finishes that one call carries.
pub(super) fn sent(finishes: &[Finish]) -> &[Finish] {
    &finishes[..finishes.len().min(MAX_EXCHANGE)]
}

/// `holds`: what ends with the run of each finish, where it is known; see [`super::holds`].
pub(super) fn exchange(
    call: &mut Cmd,
    wake_prefix: &str,
    keep: usize,
    exchange: &Exchange,
    holds: &[Option<Box<str>>],
) {
    call.arg(wake_prefix);
    match &exchange.claim {
        Some(claim) => {
            call.arg(&claim.worker).arg(wanted(claim)).arg(millis(claim.lease)).arg(u8::from(claim.grace));
            match claim.sent_at {
                Some(at) => call.arg(at.0).arg(millis(claim.patience())),
                None => call.arg("").arg(0),
            }
        }
        None => call.arg("").arg(0).arg(0).arg(0).arg("").arg(0),
    };
    let finishes = sent(&exchange.finishes);
    call.arg(MAX_DELIVERIES).arg(keep).arg(finishes.len());
    for (place, finish) in finishes.iter().enumerate() {
        add_finish(call, finish, holds.get(place).and_then(Option::as_deref));
    }
}

fn add_finish(call: &mut Cmd, finish: &Finish, holds: Option<&str>) {
    call.arg(finish.lease.to_string());
    match holds {
        None => {}
        Some("") => drop(call.arg("N")),
        Some(keys) => {
            let keys: Vec<&str> = keys.split('\t').collect();
            match keys[..] {
                [order, "", ""] => call.arg("O").arg(order),
                ["", conc, ""] => call.arg("C").arg(conc),
                _ => call.arg("H").arg(&keys),
            };
        }
    }
    match &finish.settle {
        Settle::Success { result: None, skipped: false } => call.arg("s"),
        Settle::Success { result: Some(result), skipped: false } => call.arg("r").arg(result),
        Settle::Success { result, skipped: true } => call.arg("k").arg(result.as_deref().unwrap_or("")).arg("1"),
        Settle::Failure { reason, failures, error } => call.arg("f").arg(reason.as_str()).arg(failures).arg(error),
        Settle::Retry { delay, failures, error } => call.arg("t").arg(millis(*delay)).arg(failures).arg(error),
        Settle::Snooze { delay } => call.arg("z").arg(millis(*delay)),
        Settle::Cancelled { error } => call.arg("c").arg(error),
        Settle::Release => call.arg("b"),
        Settle::Unknown { delay, park_after } => call.arg("u").arg(millis(*delay)).arg(millis(*park_after)),
    };
}
