//! What the bridge needs of a source, and what it tells it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use windlass_jobs::{JobRecord, NewJob, Queue, Reason, RunError, State, Ulid};
use windlass_redis::{Cmd, Error, Link, Message, Script};

use crate::apalis::Apalis;
use crate::celery::{Celery, CeleryOptions};
use crate::custody::{Custody, Note, Row};
use crate::routes::{ApalisRoute, CeleryQueue};

/// A place from which jobs are taken.
#[derive(Clone)]
pub struct AnySource(pub(crate) Arc<dyn Source>);

/// A source that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("celery keeps its queues on one server; {0} is a cluster")]
pub struct BadSource(String);

impl AnySource {
    /// A namespace of a stock apalis-redis storage.
    #[must_use]
    pub fn apalis(link: Link, route: ApalisRoute) -> Self {
        Self(Arc::new(Apalis::new(link, route)))
    }

    /// A queue of Celery clients.
    ///
    /// # Errors
    /// [`BadSource`] for a cluster, which Celery does not know.
    pub fn celery(link: Link, queue: CeleryQueue, options: CeleryOptions) -> Result<Self, BadSource> {
        if link.options().is_cluster() {
            return Err(BadSource(link.shown().to_owned()));
        }
        Ok(Self(Arc::new(Celery::new(link, queue, options))))
    }

    /// What it is called in metrics and logs, as in `"celery pdf"`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The newest jobs of it that were refused, newest first.
    ///
    /// # Errors
    /// When its Redis does not answer.
    pub async fn refused(&self, most: usize) -> Result<Vec<Note>, Error> {
        self.0.custody().notes(most).await
    }
}

impl std::fmt::Debug for AnySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AnySource({})", self.name())
    }
}

/// A job as a source has it.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) id: String,
    pub(crate) job: NewJob,
    /// Where it goes; `None`: where its kind belongs.
    pub(crate) queue: Option<Queue>,
    pub(crate) group: Option<String>,
    pub(crate) is_quiet: bool,
}

/// A job that cannot be one here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Its id at the source, `""` if it has none.
    pub(crate) id: String,
    pub(crate) reason: String,
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Waiting,
    Running {
        percent: f32,
        message: String,
    },
    Retrying(RunError),
    Done(Value),
    Failed(Reason, RunError),
    Cancelled(String),
    /// It is known no more.
    Lost,
    Refused(String),
}

impl What {
    /// It runs, and has said nothing yet.
    pub(crate) const START: Self = Self::Running { percent: 0.0, message: String::new() };

    pub(crate) fn of(record: Option<&JobRecord>) -> Self {
        let Some(record) = record else { return Self::Lost };
        let error = || record.error.clone().unwrap_or_else(|| RunError::new("unknown", "no error was kept"));
        match record.state {
            State::Scheduled | State::Pending => Self::Waiting,
            State::Running => {
                let progress = record.progress.clone().unwrap_or_default();
                Self::Running { percent: progress.percent, message: progress.message }
            }
            State::Retrying => Self::Retrying(error()),
            State::Success => Self::Done(result_of(record)),
            State::Failure => Self::Failed(record.reason.unwrap_or(Reason::Error), error()),
            State::Cancelled => Self::Cancelled(error().message),
        }
    }

    pub(crate) const fn is_end(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Running { .. } | Self::Retrying(_))
    }

    /// How what is said of a run begins.
    pub(crate) fn run(attempt: u32) -> String {
        format!("r{attempt} ")
    }

    /// What is compared to know whether it is news.
    pub(crate) fn short(&self, attempt: u32) -> String {
        match self {
            Self::Waiting => String::new(),
            Self::Running { percent, message } => format!("{}{percent} {message}", Self::run(attempt)),
            Self::Retrying(_) => format!("t{attempt}"),
            _ => "e".to_owned(),
        }
    }
}

/// What the handler answered; with files, an object that names them and the job they are fetched from.
fn result_of(record: &JobRecord) -> Value {
    let stored: Value = record.result.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let value = stored.get("value").cloned().unwrap_or_default();
    let Some(artifacts) = stored.get("artifacts").filter(|files| files.as_array().is_some_and(|f| !f.is_empty()))
    else {
        return value;
    };
    let mut members = match value {
        Value::Object(members) => members,
        Value::Null => serde_json::Map::new(),
        other => serde_json::Map::from_iter([("value".to_owned(), other)]),
    };
    members.insert("artifacts".to_owned(), artifacts.clone());
    members.insert("windlass_task_id".to_owned(), json!(record.id));
    Value::Object(members)
}

/// What is told a source about one of its jobs.
#[derive(Debug)]
pub(crate) struct News {
    /// Its id there.
    pub(crate) id: String,
    pub(crate) group: Option<String>,
    pub(crate) is_quiet: bool,
    /// Which run it is or was, from 1.
    pub(crate) attempt: u32,
    pub(crate) worker: Option<String>,
    /// This run was not told of before.
    pub(crate) is_new_run: bool,
    pub(crate) what: What,
}

/// A kind of place from which jobs are taken.
#[async_trait]
pub(crate) trait Source: Send + Sync {
    fn name(&self) -> &str;
    fn custody(&self) -> &Custody;
    /// The call that takes so many jobs and names so many that are due.
    fn turn(&self, take: usize, look: usize, hold: Duration) -> (&'static Script, Cmd);
    /// What is to be sent. Pure.
    fn read(&self, row: &Row) -> Result<Foreign, Refusal>;
    /// Tells what became of jobs, in the source's own format. A repeat changes nothing.
    async fn tell(&self, news: &[News]) -> Result<(), Error>;
    /// Takes jobs into custody that a worker of the source took and then was gone; answers how many.
    async fn recover(&self) -> Result<usize, Error> {
        Ok(0)
    }
    /// Where the source's clients say that jobs are no longer wanted.
    fn revocations(&self) -> Option<mpsc::UnboundedReceiver<Message>> {
        None
    }
    /// Takes note of what was said there.
    fn revoke(&self, _message: &str) {}
    /// True when a job in this state is no longer wanted.
    fn is_revoked(&self, _id: &str, _state: State) -> bool {
        false
    }
}

/// The unique part of a job's id, always the same for the same job of a source.
pub(crate) fn derived(scope: &str, id: &str) -> Ulid {
    let mut hasher = blake3::Hasher::new();
    hasher.update(scope.as_bytes()).update(b"\0").update(id.as_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    Ulid(u128::from_be_bytes(bytes))
}

/// A label, if the value fits.
pub(crate) fn label(job: &mut NewJob, name: &str, value: &str) {
    if value.len() <= 64 && !value.chars().any(char::is_control) {
        job.options.labels.insert(name.to_owned(), value.to_owned());
    }
}
