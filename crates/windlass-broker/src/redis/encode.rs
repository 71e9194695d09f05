//! Turns calls into the words a script reads.

use std::collections::HashSet;

use windlass_jobs::command::{Exchange, Filter, Finish, MAX_EXCHANGE, Settle};
use windlass_jobs::{MAX_DELIVERIES, NewJob, OnClash, Priority, Unique, When, millis};
use windlass_redis::Cmd;

use crate::pieces;

/// Args up to this many bytes lie in the job's hash, cut into pieces; larger ones in a key of
/// their own.
const INLINE_ARGS_BYTES: usize = 256;

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
    match &job.options.unique {
        None => call.arg(job.options.priority.index()),
        Some(unique) => call.arg(special_words(job.options.priority, unique)),
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
        + if job.options.priority == Priority::Normal { 0 } else { 2 }
        + if job.options.max_attempts.is_some() { 2 } else { 0 }
        + if job.options.unique.is_some() { 2 } else { 0 }
        + label_words;
    call.arg(words).arg("kind").arg(&job.kind);
    if inline {
        add_pieces(call, "args", args);
    }
    add_pieces(call, "opts", &short);
    if job.options.priority != Priority::Normal {
        call.arg("priority").arg(job.options.priority.index());
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
fn claim_options(options: &windlass_jobs::Options) -> String {
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

/// Priority, until and on clash, ttl, debounce, key: with tabs between, which no key contains.
fn special_words(priority: Priority, unique: &Unique) -> String {
    let clash = if unique.on_clash == OnClash::Replace { 'r' } else { 'k' };
    let debounce = unique.debounce.map(|most| millis(most).to_string()).unwrap_or_default();
    let (index, until, ttl) = (priority.index(), unique.until.letter(), millis(unique.ttl));
    format!("{index}\t{until}{clash}\t{ttl}\t{debounce}\t{}", unique.key)
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

pub(super) fn exchange(call: &mut Cmd, wake_prefix: &str, keep: usize, exchange: &Exchange) {
    call.arg(wake_prefix);
    match &exchange.claim {
        Some(claim) => {
            call.arg(&claim.worker)
                .arg(claim.max.min(MAX_EXCHANGE))
                .arg(millis(claim.lease))
                .arg(u8::from(claim.grace));
            match claim.sent_at {
                Some(at) => call.arg(at.0).arg(millis(claim.patience())),
                None => call.arg("").arg(0),
            }
        }
        None => call.arg("").arg(0).arg(0).arg(0).arg("").arg(0),
    };
    let finishes = &exchange.finishes[..exchange.finishes.len().min(MAX_EXCHANGE)];
    call.arg(MAX_DELIVERIES).arg(keep).arg(finishes.len());
    for finish in finishes {
        add_finish(call, finish);
    }
}

fn add_finish(call: &mut Cmd, finish: &Finish) {
    call.arg(finish.lease.to_string());
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
