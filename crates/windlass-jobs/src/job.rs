//! What a job is: states and reasons, what a producer hands in, what anyone can read back.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::backoff::Backoff;
use crate::durability::Durability;
use crate::flow::{DependsOn, OnFailure};
use crate::id::{JobId, Ulid, check_kind, new_ulid};
use crate::outcome::{RunError, Violation};
use crate::time::Timestamp;
use crate::trace::TraceContext;
use crate::unique::{Unique, check_key};

/// Runs of a job, the first included, unless its kind or its producer says otherwise.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;
/// The most runs a job may ask for.
pub const MAX_MAX_ATTEMPTS: u32 = 1_000;
/// The largest args, as JSON text. Larger inputs are uploaded as blobs and named by digest.
pub const MAX_ARGS_BYTES: usize = 1024 * 1024;
/// The largest result, as JSON text. Larger results are artifacts.
pub const MAX_RESULT_BYTES: usize = 1024 * 1024;
/// How often a job's lease may expire before it is taken for a killer of workers.
pub const MAX_DELIVERIES: u32 = 3;
/// How far ahead a job may be scheduled.
pub const MAX_SCHEDULE_AHEAD: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for its time.
    Scheduled,
    /// Waits for a worker.
    Pending,
    /// A worker has it.
    Running,
    /// Failed, waits its backoff.
    Retrying,
    /// Done.
    Success,
    /// Will not be done; lies in the dead set. See [`Reason`].
    Failure,
    /// No longer wanted.
    Cancelled,
}

impl State {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 7] =
        [Self::Scheduled, Self::Pending, Self::Running, Self::Retrying, Self::Success, Self::Failure, Self::Cancelled];

    /// The word on the wire and in the job's hash.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
        }
    }

    /// True when the job will not change by itself any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Cancelled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|state| state.as_str() == s).ok_or_else(|| format!("unknown state {s:?}"))
    }
}

/// Why a job is in [`State::Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The handler said so, or its attempts are spent.
    Error,
    /// It ran longer than its limit.
    Timeout,
    /// Its process died: a signal, an abort, a stack overflow.
    Crashed,
    /// It asked for more memory than it may have.
    Oom,
    /// Its lease expired [`MAX_DELIVERIES`] times: it kills workers.
    Poisoned,
    /// It was not started before its expiry.
    Expired,
    /// Its kind or args could not be read.
    Decode,
    /// Its result was over [`MAX_RESULT_BYTES`].
    ResultTooLarge,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::Error,
        Self::Timeout,
        Self::Crashed,
        Self::Oom,
        Self::Poisoned,
        Self::Expired,
        Self::Decode,
        Self::ResultTooLarge,
    ];

    /// The word on the wire and in the job's hash.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Crashed => "crashed",
            Self::Oom => "oom",
            Self::Poisoned => "poisoned",
            Self::Expired => "expired",
            Self::Decode => "decode",
            Self::ResultTooLarge => "result_too_large",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == s).ok_or_else(|| format!("unknown reason {s:?}"))
    }
}

/// Which of a queue's waiting jobs are taken first: all high ones before any normal one,
/// all normal ones before any low one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// First.
    High,
    /// The default.
    #[default]
    Normal,
    /// Last.
    Low,
}

impl Priority {
    /// All priorities, first taken first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// 0 for high, 1 for normal, 2 for low: the number of the list `p0`–`p2`.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// An instant a job names: when it may first run, or when it expires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum When {
    /// As soon as a worker is free.
    #[default]
    Now,
    /// Not before this instant of the broker's clock; an instant past means now.
    At(Timestamp),
    /// Not before this long after the broker accepted it.
    After(Duration),
}

impl When {
    /// The instant by a broker's clock; `None` for [`When::Now`].
    #[must_use]
    pub fn instant(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Now => None,
            Self::At(at) => Some(at),
            Self::After(delay) => Some(now.plus(delay)),
        }
    }

    fn is_within_a_year(self) -> bool {
        match self {
            Self::Now => true,
            Self::At(at) => at <= Timestamp::now().plus(MAX_SCHEDULE_AHEAD),
            Self::After(delay) => delay <= MAX_SCHEDULE_AHEAD,
        }
    }
}

/// How a job is to be treated; everything has a default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Default normal.
    pub priority: Priority,
    /// Runs at most, the first included: 1–1,000, default [`DEFAULT_MAX_ATTEMPTS`].
    pub max_attempts: Option<u32>,
    /// The wait after a failed run.
    pub backoff: Option<Backoff>,
    /// The hard limit of one run, 1 ms to 24 h; default: the kind's.
    pub timeout: Option<Duration>,
    /// Not started by then: it ends in failure, reason expired. [`When::Now`] means never.
    pub expires: When,
    /// Names for people and searches: at most 16, key `[a-z0-9_-]{1,32}`, value at most 64 bytes.
    pub labels: BTreeMap<String, String>,
    /// The only one with its key.
    pub unique: Option<Unique>,
    /// Whose it is: tenants take turns, however many jobs each has. A key, as those below: 1 to
    /// [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES) bytes without control characters.
    pub tenant: Option<String>,
    /// Jobs of one key run one at a time, in order; one that is to run again holds back the rest.
    pub ordering_key: Option<String>,
    /// Of jobs of one key so many run at once as the queue's [`Limits`](crate::Limits) say.
    pub concurrency_key: Option<String>,
    /// Jobs of one key start as often as the queue's [`Limits`](crate::Limits) say.
    pub rate_key: Option<String>,
    /// The jobs that have to end before it starts. Its `when` and `expires` count from its enqueue.
    pub depends_on: Option<DependsOn>,
    /// What its acceptance waits for. It is not kept with the job.
    pub durability: Durability,
    /// The span that enqueued it; its own belong under that. A producer with a trace of its own sets it.
    pub trace: Option<TraceContext>,
}

impl Options {
    /// The longest time one run may ask for.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

    /// Everything wrong with them, each under its own path.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        let mut wrong = Vec::new();
        if let Some(n) = self.max_attempts
            && !(1..=MAX_MAX_ATTEMPTS).contains(&n)
        {
            wrong.push(Violation::new(
                "/max_attempts",
                "out_of_range",
                format!("{n}; 1 to {MAX_MAX_ATTEMPTS} is allowed"),
            ));
        }
        if let Some(timeout) = self.timeout
            && (timeout < Duration::from_millis(1) || timeout > Self::MAX_TIMEOUT)
        {
            wrong.push(Violation::new(
                "/timeout_ms",
                "out_of_range",
                format!("{} ms; 1 to 86400000 is allowed", timeout.as_millis()),
            ));
        }
        if !self.expires.is_within_a_year() {
            wrong.push(Violation::new("/expires_at", "out_of_range", "at most a year ahead is allowed"));
        }
        if let Some(Err(message)) = self.backoff.as_ref().map(Backoff::check) {
            wrong.push(Violation::new("/backoff", "out_of_range", message));
        }
        if let Some(unique) = &self.unique {
            unique.check(&mut wrong);
        }
        let keys = [
            ("/tenant", &self.tenant),
            ("/ordering_key", &self.ordering_key),
            ("/concurrency_key", &self.concurrency_key),
            ("/rate_key", &self.rate_key),
        ];
        for (path, key) in keys {
            if let Some(Err(message)) = key.as_deref().map(check_key) {
                wrong.push(Violation::new(path, "key_invalid", message));
            }
        }
        if self.labels.len() > 16 {
            wrong.push(Violation::new(
                "/labels",
                "too_many",
                format!("{} labels; at most 16 are allowed", self.labels.len()),
            ));
        }
        for (key, value) in &self.labels {
            let key_fits = (1..=32).contains(&key.len())
                && key.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
            if !key_fits || value.len() > 64 || value.chars().any(char::is_control) {
                let message = "a key is 1 to 32 of a-z 0-9 _ -, a value at most 64 bytes without control characters";
                wrong.push(Violation::new("/labels", "label_invalid", message));
                break;
            }
        }
        wrong
    }

    /// The rarely used options in the short form kept with a job, `""` when all are default:
    /// `after=c timeout=30000 backoff=exp:1000:600000 unique=f:86400000:k`. At most 160 bytes, and 62 more
    /// with a trace, which comes last; `after` comes first.
    ///
    /// A unique key itself is not in it, and [`Options::read_short`] leaves the word alone: see
    /// [`Unique::from_short`]. Nor are the jobs it waits for.
    #[must_use]
    pub fn to_short(&self) -> String {
        let mut words = Vec::new();
        if let Some(after) = &self.depends_on {
            words.push(format!("after={}", after.on_failure.letter()));
        }
        if let Some(timeout) = self.timeout {
            words.push(format!("timeout={}", timeout.as_millis()));
        }
        if let Some(backoff) = &self.backoff {
            words.push(format!("backoff={backoff}"));
        }
        if let Some(unique) = &self.unique {
            words.push(format!("unique={unique}"));
        }
        if let Some(trace) = &self.trace {
            words.push(format!("trace={trace}"));
        }
        words.join(" ")
    }

    /// The unique key's options in a short form, with the key that is kept beside it.
    pub fn read_unique(&mut self, short: &str, key: Option<&str>) {
        let word = short.split_ascii_whitespace().find_map(|word| word.strip_prefix("unique="));
        self.unique = word.zip(key).and_then(|(word, key)| Unique::from_short(word, key));
    }

    /// Reads the short form back into `self`, of what it waits for only that it does; a word it does not know is left alone, so that
    /// an older worker can run a newer producer's job.
    ///
    /// # Errors
    /// A sentence that names the word that cannot be read.
    pub fn read_short(&mut self, short: &str) -> Result<(), String> {
        for word in short.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("timeout", ms)) => {
                    let ms = ms.parse().map_err(|_| format!("option {word:?} is not a number of milliseconds"))?;
                    self.timeout = Some(Duration::from_millis(ms));
                }
                Some(("backoff", text)) => self.backoff = Some(text.parse()?),
                Some(("after", letter)) => {
                    let on_failure = if letter == "r" { OnFailure::Run } else { OnFailure::Cancel };
                    self.depends_on = Some(DependsOn { parents: Vec::new(), on_failure });
                }
                // One that is damaged costs the job its place in a trace, not its run.
                Some(("trace", text)) => self.trace = text.parse().ok(),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A job as a producer hands it in.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its unique part of the id. Enqueuing a known id again changes nothing.
    pub ulid: Ulid,
    /// What is to be done.
    pub kind: String,
    /// With what: any JSON value, at most [`MAX_ARGS_BYTES`] as text.
    pub args: Box<RawValue>,
    /// When it may first run.
    pub when: When,
    /// How it is to be treated.
    pub options: Options,
}

impl NewJob {
    /// A job that may run at once, with every option at its default and an id of its own.
    ///
    /// # Errors
    /// When `args` cannot be written as JSON.
    pub fn new(kind: impl Into<String>, args: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self {
            ulid: new_ulid(),
            kind: kind.into(),
            args: serde_json::value::to_raw_value(args)?,
            when: When::Now,
            options: Options::default(),
        })
    }

    /// Everything wrong with it that can be known without its kind.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        let mut wrong = self.options.check();
        if let Some(after) = &self.options.depends_on {
            after.check(self.ulid, &mut wrong);
        }
        if let Err(e) = check_kind(&self.kind) {
            wrong.push(Violation::new("/kind", "kind_invalid", e.to_string()));
        }
        if self.args.get().len() > MAX_ARGS_BYTES {
            let message =
                format!("{} bytes; at most {MAX_ARGS_BYTES} are allowed: upload a blob", self.args.get().len());
            wrong.push(Violation::new("/args", "args_too_large", message));
        }
        if !self.when.is_within_a_year() {
            let path = if matches!(self.when, When::After(_)) { "/delay_ms" } else { "/run_at" };
            wrong.push(Violation::new(path, "out_of_range", "at most a year ahead is allowed"));
        }
        wrong
    }
}

/// How far a running job is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// 0–100, with decimals.
    pub percent: f32,
    /// What is being done; at most [`Progress::MAX_MESSAGE`] bytes.
    pub message: String,
}

impl Progress {
    /// The longest message, in bytes: with the number it stays within one small hash field.
    pub const MAX_MESSAGE: usize = 56;

    /// Progress within its bounds: the number clamped, the message cut.
    #[must_use]
    pub fn new(percent: f32, message: &str) -> Self {
        let percent = if percent.is_finite() { percent.clamp(0.0, 100.0) } else { 0.0 };
        let end = message.floor_char_boundary(Self::MAX_MESSAGE);
        Self { percent: (percent * 10.0).round() / 10.0, message: message[..end].replace(char::is_control, " ") }
    }

    /// The form kept in the job's hash: `45.5 page 3 of 8`.
    #[must_use]
    pub fn to_short(&self) -> String {
        format!("{} {}", self.percent, self.message)
    }

    /// Reads the short form; a text without a number is progress 0 with that message.
    #[must_use]
    pub fn from_short(short: &str) -> Self {
        let (number, message) = short.split_once(' ').unwrap_or((short, ""));
        Self::new(number.parse().unwrap_or(0.0), message)
    }
}

/// A job as anyone can read it back.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// What is to be done.
    pub kind: String,
    /// With what, as JSON text.
    pub args: String,
    /// Where it stands.
    pub state: State,
    /// Why, in state failure.
    pub reason: Option<Reason>,
    /// Failed runs so far; a running job is in run `failures + 1`.
    pub failures: u32,
    /// Runs at most.
    pub max_attempts: u32,
    /// How often it was claimed.
    pub epoch: u32,
    /// Claims that did not end in order: running now, or lost with their worker.
    pub deliveries: u32,
    /// Its options.
    pub options: Options,
    /// When the broker accepted it.
    pub created_at: Timestamp,
    /// When it may run, while scheduled or retrying.
    pub run_at: Option<Timestamp>,
    /// When it expires unless it was started.
    pub expires_at: Option<Timestamp>,
    /// True when it is running and its cancel was asked for.
    pub cancel_requested: bool,
    /// When it was last claimed.
    pub started_at: Option<Timestamp>,
    /// When it became terminal.
    pub finished_at: Option<Timestamp>,
    /// Who claimed it last.
    pub worker: Option<String>,
    /// How far it is.
    pub progress: Option<Progress>,
    /// What came out, as JSON text.
    pub result: Option<String>,
    /// True when there was nothing to do.
    pub skipped: bool,
    /// The error of the last failed run, or why it was cancelled.
    pub error: Option<RunError>,
    /// The attempts that were followed by another one, newest first; see [`JobRecord::attempts`].
    pub earlier: Vec<crate::attempts::Entry>,
    /// How many of the jobs it depends on have not ended, while it is held for them.
    pub waits_for: u32,
    /// The jobs that are known to depend on it, by id.
    pub children: Vec<JobId>,
}

impl JobRecord {
    /// Which run this is or was, from 1; 0 before the first.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        match self.state {
            State::Running | State::Success => self.failures + 1,
            _ => self.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_stays_within_a_small_field() {
        for (percent, message) in [(33.333, "page 3"), (f32::NAN, ""), (1e9, &*"é".repeat(60)), (-1.0, "a\nb")] {
            let progress = Progress::new(percent, message);
            assert!(progress.to_short().len() <= 64);
            assert_eq!(Progress::from_short(&progress.to_short()), progress);
        }
    }

    #[test]
    fn the_short_form_of_options_round_trips_within_its_bound() {
        let options = Options {
            timeout: Some(Options::MAX_TIMEOUT),
            backoff: Some(Backoff::List { delays_ms: vec![2_592_000_000; 6] }),
            unique: Some(Unique {
                ttl: MAX_SCHEDULE_AHEAD,
                debounce: Some(MAX_SCHEDULE_AHEAD),
                ..Unique::new("k".repeat(64))
            }),
            ..Options::default()
        };
        assert!(options.check().is_empty());
        let short = options.to_short();
        assert!(short.len() <= 160, "{short}");
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok();
        let options = Options { trace, ..options };
        let short = options.to_short();
        assert!(short.len() <= 222, "{short}");
        let mut back = Options::default();
        back.read_short(&short).unwrap();
        back.read_unique(&short, Some(&"k".repeat(64)));
        assert_eq!(back, options);
    }

    #[test]
    fn wrong_options_are_named() {
        let check = |options: Options, path: &str| {
            assert_eq!(options.check().first().map(|v| v.path.as_str()), Some(path));
        };
        check(Options { max_attempts: Some(0), ..Options::default() }, "/max_attempts");
        check(Options { max_attempts: Some(1_001), ..Options::default() }, "/max_attempts");
        check(Options { timeout: Some(Duration::ZERO), ..Options::default() }, "/timeout_ms");
        check(Options { backoff: Some(Backoff::List { delays_ms: vec![] }), ..Options::default() }, "/backoff");
        check(Options { labels: [("A".into(), String::new())].into(), ..Options::default() }, "/labels");
    }
}
