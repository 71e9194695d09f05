//! What a run of a handler may end in, and what is wrong with a job that was refused.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One thing wrong with a job's args.
///
/// *Shape*: all violations of one document are reported together, in document order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Where: a JSON pointer into the args (`"/cards/3/front"`), `""` for the whole document.
    pub path: String,
    /// A stable, lower-case word a program can branch on (`"out_of_range"`).
    pub code: String,
    /// What was found and what is allowed, for a person.
    pub message: String,
}

impl Violation {
    /// A violation at `path`, with its stable `code` and a message for a person.
    pub fn new(path: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), code: code.into(), message: message.into() }
    }
}

/// A file that a run wrote into its private directory and wants kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactFile {
    /// What it is called when it is downloaded, such as `"cards.pdf"`; no directory in it.
    pub name: String,
    /// Its media type, such as `"application/pdf"`.
    pub media_type: String,
    /// Where it lies, relative to the run's private directory.
    pub path: PathBuf,
}

/// What a successful run leaves behind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The result as JSON; an object, or null when there is nothing to say.
    pub value: Value,
    /// Files to keep. The first is what `GET /api/tasks/{id}/result` answers.
    pub artifacts: Vec<ArtifactFile>,
    /// True when there was nothing to do: the job is a success with `skipped: true`.
    pub skipped: bool,
}

/// An error of a run, as it is kept with the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// A stable, lower-case word a program can branch on (`"image_unreadable"`).
    pub code: String,
    /// What happened, for a person; never a secret.
    pub message: String,
}

impl RunError {
    /// An error with its stable `code` and a message for a person.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl std::fmt::Display for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// How one run of a handler ended, in the handler's own words.
///
/// The worker maps this to what the broker records in one function; a handler never
/// speaks of states, attempts or dead sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The work is done.
    Done(Done),
    /// It failed and may work later. Spends an attempt; `after` overrides the job's backoff.
    Retry {
        /// How long to wait; `None` asks for the job's own backoff.
        after: Option<Duration>,
        /// Why.
        error: RunError,
    },
    /// Not yet: put off without spending an attempt.
    Snooze {
        /// How long to wait.
        delay: Duration,
    },
    /// It is no longer wanted: the job ends `cancelled`.
    Cancel {
        /// Why, for a person.
        reason: String,
    },
    /// It failed and always will: no retry whatever attempts are left.
    Fatal(RunError),
}

impl Outcome {
    /// A permanent failure with a stable `code`.
    pub fn fatal(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Fatal(RunError::new(code, message))
    }

    /// A failure that is retried after the job's own backoff.
    pub fn retry(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Retry { after: None, error: RunError::new(code, message) }
    }
}
