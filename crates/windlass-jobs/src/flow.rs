//! Jobs that wait for others, and what queues say to each other about it.
//!
//! A job that depends on others is accepted at once, on its own queue, and held there. Its queue
//! *asks* each parent's queue to be told when that has ended, and is told: two sorts of
//! [`Message`], each of which lies in the outbox of the queue that has something to say, written by
//! the same step that caused it, until any worker has carried it over. Both may arrive any number
//! of times: a child hears of each parent once. Nothing but the arrival lets a child go on, so
//! that it goes on once.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{JobId, Queue, Ulid};
use crate::job::State;
use crate::outcome::Violation;
use crate::time::Timestamp;

/// The most jobs that one job may depend on.
pub const MAX_PARENTS: usize = 1_000;
/// How long a job waits for one that its queue does not know: a flow that is being enqueued comes
/// from its end to its start.
pub const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// After how long a job that is not known is asked about again, when that was first done so long
/// ago: 50 ms, doubled each time up to 5 s.
#[must_use]
pub fn ask_again_after(age: Duration) -> Duration {
    age.clamp(Duration::from_millis(50), Duration::from_secs(5))
}

/// The jobs that have to end before one starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependsOn {
    /// 1 to [`MAX_PARENTS`], each once, on any queue.
    pub parents: Vec<JobId>,
    /// What becomes of the job when one of them ends without success.
    pub on_failure: OnFailure,
}

/// What becomes of a job when one that it depends on ends in failure, is cancelled, or is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is cancelled at once, its error has the code `dependency`.
    #[default]
    Cancel,
    /// It runs all the same, once all have ended.
    Run,
}

impl OnFailure {
    /// Its letter in the short form of options: `c`, `r`.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Cancel => 'c',
            Self::Run => 'r',
        }
    }
}

impl DependsOn {
    /// Waits for these; what fails cancels.
    #[must_use]
    pub const fn on(parents: Vec<JobId>) -> Self {
        Self { parents, on_failure: OnFailure::Cancel }
    }

    /// Everything wrong with it. `own`: the job that waits.
    pub(crate) fn check(&self, own: Ulid, wrong: &mut Vec<Violation>) {
        let mut refuse = |code: &str, message: String| wrong.push(Violation::new("/depends_on", code, message));
        if !(1..=MAX_PARENTS).contains(&self.parents.len()) {
            refuse("out_of_range", format!("{} jobs; 1 to {MAX_PARENTS} are allowed", self.parents.len()));
        }
        if self.parents.iter().collect::<BTreeSet<_>>().len() < self.parents.len() {
            refuse("duplicate", "a job is named twice".into());
        }
        if self.parents.iter().any(|parent| parent.ulid == own) {
            refuse("circular", "a job cannot wait for itself".into());
        }
    }
}

/// How a job that others wait for has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Done.
    Success,
    /// In the dead set.
    Failure,
    /// No longer wanted.
    Cancelled,
    /// Never there, or past retention.
    Unknown,
}

impl Ended {
    const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::Cancelled, Self::Unknown];

    /// How a job in this state has ended; `None`: it has not.
    #[must_use]
    pub const fn of(state: State) -> Option<Self> {
        match state {
            State::Success => Some(Self::Success),
            State::Failure => Some(Self::Failure),
            State::Cancelled => Some(Self::Cancelled),
            _ => None,
        }
    }

    /// `s`, `f`, `c`, `u`.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Success => 's',
            Self::Failure => 'f',
            Self::Cancelled => 'c',
            Self::Unknown => 'u',
        }
    }

    /// Reads [`Ended::letter`] back.
    #[must_use]
    pub fn from_letter(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|ended| ended.letter() == letter)
    }
}

/// What one job's queue has to say to another's.
///
/// *Shape as text*, in the outbox of `from`'s queue: `w <to> <ulid of from> <since, ms>` and
/// `e <to> <ulid of from> <letter>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The job that is to hear it.
    pub to: JobId,
    /// The job that it is about.
    pub from: JobId,
    /// What is to be said.
    pub news: News,
}

/// See [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// To a parent: a job waits for it to end, since then.
    Waits(Timestamp),
    /// To a child: a job that it waits for has ended.
    Ended(Ended),
}

impl Message {
    /// Reads a message of a queue's outbox; `None` when it is damaged.
    #[must_use]
    pub fn parse(queue: &Queue, text: &str) -> Option<Self> {
        let [word, to, from, last] = <[&str; 4]>::try_from(text.split(' ').collect::<Vec<_>>()).ok()?;
        let news = match word {
            "w" => News::Waits(Timestamp(last.parse().ok()?)),
            "e" => News::Ended(Ended::from_letter(last.parse().ok()?)?),
            _ => return None,
        };
        let from = JobId::new(Ulid::from_string(from).ok()?, queue.clone());
        Some(Self { to: JobId::from_str(to).ok()?, from, news })
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.news {
            News::Waits(since) => write!(f, "w {} {} {}", self.to, self.from.ulid, since.0),
            News::Ended(ended) => write!(f, "e {} {} {}", self.to, self.from.ulid, ended.letter()),
        }
    }
}

/// What a queue answers to a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is noted.
    Noted,
    /// The job has ended, or is not known: there is nothing to wait for.
    Ended(Ended),
}

/// What a queue answers to some of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// The queue's clock.
    pub now: Timestamp,
    /// One per message, in order.
    pub heard: Vec<Heard>,
}

/// What of a queue's outbox is to be carried over now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mail {
    /// The queue's clock.
    pub now: Timestamp,
    /// At most [`SLICE`](crate::command::SLICE), oldest first.
    pub messages: Vec<Message>,
}

/// The error kept with a job that is cancelled because of one it depends on, as JSON text.
#[must_use]
pub fn dependency_error(parent: &JobId, ended: Ended) -> String {
    let what = match ended {
        Ended::Failure => "ended in failure",
        Ended::Cancelled => "was cancelled",
        Ended::Success => "has ended",
        Ended::Unknown => "is not known",
    };
    format!(r#"{{"code":"dependency","message":"{parent} {what}"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::new_ulid;

    #[test]
    fn messages_round_trip() {
        let (here, there) = (Queue::new("here").unwrap(), Queue::new("there.3").unwrap());
        let mut news: Vec<News> = Ended::ALL.into_iter().map(News::Ended).collect();
        news.push(News::Waits(Timestamp(1_700_000_000_000)));
        for news in news {
            let message =
                Message { to: JobId::new(new_ulid(), there.clone()), from: JobId::new(new_ulid(), here.clone()), news };
            assert_eq!(Message::parse(&here, &message.to_string()), Some(message));
        }
        for damaged in ["", "e", "x 1 2 3", "e a b s", "w  "] {
            assert_eq!(Message::parse(&here, damaged), None, "{damaged:?}");
        }
    }

    #[test]
    fn wrong_dependencies_are_named() {
        let own = JobId::new(new_ulid(), Queue::new("q").unwrap());
        let other = JobId::new(new_ulid(), Queue::new("q").unwrap());
        let check = |parents: Vec<JobId>, code: Option<&str>| {
            let mut wrong = Vec::new();
            DependsOn::on(parents).check(own.ulid, &mut wrong);
            assert_eq!(wrong.first().map(|v| v.code.as_str()), code);
        };
        check(vec![other.clone()], None);
        check(vec![], Some("out_of_range"));
        check(vec![other.clone(), other], Some("duplicate"));
        check(vec![own.clone()], Some("circular"));
    }
}
