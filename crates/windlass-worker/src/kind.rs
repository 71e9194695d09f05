//! What a kind of job is made of: its name and limits, the check of its args, and the
//! three steps `inputs`, `run` and `publish`.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use windlass_jobs::{JobId, Lease, Outcome, RunError, State, Violation};
use windlass_store::Services;

use crate::result::StoredResult;

/// The fixed facts of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindSpec {
    /// The stable name on the wire, such as `"pdf.card_sheet"`; at most 64 bytes.
    pub name: &'static str,
    /// Raised whenever equal args may give another result; part of the result cache's key.
    pub version: u32,
    /// Older names that mean the same kind.
    pub aliases: &'static [&'static str],
    /// The queue a job goes to when its producer names none.
    pub queue: &'static str,
    /// How often a job runs at most, the first run included. Default [`KindSpec::MAX_ATTEMPTS`].
    pub max_attempts: u32,
    /// After this the run is ended: a child is killed, a future dropped.
    pub timeout: Duration,
    /// After this the run is told that it takes long ([`RunContext::over_soft_limit`]) and a
    /// warning is logged. `None`: 80 % of the timeout.
    pub soft_timeout: Option<Duration>,
    /// How long an equal job is answered from the result cache; `None`: never.
    pub cache_ttl: Option<Duration>,
    /// The most memory a run is expected to need, in bytes, where [`Inputs`] do not say more;
    /// counted against the worker's budget. Default 0.
    pub peak_memory_bytes: u64,
    /// One line for people.
    pub about: &'static str,
}

impl KindSpec {
    /// Runs of a job, the first included, unless the kind or the job says otherwise.
    pub const MAX_ATTEMPTS: u32 = windlass_jobs::DEFAULT_MAX_ATTEMPTS;
    /// The longest a run takes unless the kind or the job says otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(300);
    /// How long results are cached unless the kind says otherwise.
    pub const CACHE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

    /// A kind with every default: queue `"default"`, no result cache.
    #[must_use]
    pub const fn new(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            version: 1,
            aliases: &[],
            queue: "default",
            max_attempts: Self::MAX_ATTEMPTS,
            timeout: Self::TIMEOUT,
            soft_timeout: None,
            cache_ttl: None,
            peak_memory_bytes: 0,
            about,
        }
    }
}

/// What a job needs before it can run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// SHA-256 digests (64 lower-case hex digits) of the blobs to lay into the private
    /// directory, each once, in the order in which the args name them.
    pub blobs: Vec<String>,
    /// The most memory a run is expected to need, in bytes; the child's limit is set from it.
    pub peak_memory_bytes: u64,
}

/// What a running job may say and ask. Cheap to call often: the worker thins the writes out.
pub trait RunContext: Send + Sync {
    /// Reports progress: `percent` 0–100, never falling, and what is being done now.
    fn progress(&self, percent: f32, message: &str);
    /// True once nobody wants the result: stop soon and answer [`Outcome::Cancel`].
    fn cancelled(&self) -> bool;
    /// Names what is being done from here on; it ends when the next stage begins, or the run ends. Traces show
    /// how long each took; the first 64 of a run. Default: nothing.
    fn stage(&self, _name: &'static str) {}
    /// What is left until the hard limit.
    fn remaining(&self) -> Duration;
    /// True once the soft limit has passed ([`KindSpec::soft_timeout`]): finish soon, with less
    /// if need be. The worker has logged a warning.
    fn over_soft_limit(&self) -> bool {
        false
    }
    /// Which run this is, from 1.
    fn attempt(&self) -> u32;
    /// The job and how often it was claimed: by it an effect is made once, and a run that lost its job
    /// known. `None` in a child.
    fn lease(&self) -> Option<Lease> {
        None
    }
    /// The jobs that this one depends on, in the order in which it names them, with what came out.
    /// Read when it is asked for: a result is only as old as its queue keeps it. For an isolated kind
    /// it was read before the run, and the future is ready at once (`now_or_never`). What depends on it
    /// is no part of the result cache's key.
    ///
    /// # Errors
    /// When the queue's store does not answer: as a retry.
    fn parents(&self) -> BoxFuture<'_, Result<Vec<Parent>, RunError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// A job that another depended on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    /// Which.
    pub id: JobId,
    /// How it ended; `None`: it is past retention.
    pub state: Option<State>,
    /// What came out, if it succeeded.
    pub result: Option<StoredResult>,
}

/// A kind whose `run` is synchronous and happens in a child process: for everything that parses
/// a user's bytes or burns CPU.
///
/// A child runs one job at a time and then the next one's, so `run` keeps nothing of a job in
/// statics. It can open no file but those in its private directory (and the time zones), no
/// socket, and start no process; threads are allowed when they end with the run. Cancelling a
/// job kills its child, as does its timeout.
///
/// The child sees only the files laid into its private directory: every blob of
/// [`Inputs::blobs`] as `in/<digest>`. What `run` wants kept it writes below `out/` and
/// names in [`windlass_jobs::Done::artifacts`].
pub trait IsolatedKind: Send + Sync + 'static {
    /// The args as a type. Unknown fields should be refused (`deny_unknown_fields`).
    type Args: DeserializeOwned + Send;

    /// The kind's fixed facts.
    fn spec(&self) -> KindSpec;

    /// JSON Schema of the args, published so that doors of other programs can check them; see
    /// [`schema_of`](crate::schema_of). Default `None`: not described, this program alone checks.
    fn schema(&self) -> Option<Value> {
        None
    }

    /// Everything wrong with well-formed args; empty when they are right. Called at the
    /// door (nothing is queued then) and again in the worker. Pure and quick.
    fn check(&self, args: &Self::Args) -> Vec<Violation>;

    /// The blobs and memory this job needs. Pure.
    fn inputs(&self, args: &Self::Args) -> Inputs;

    /// What the result depends on, with one spelling for all args that mean the same: the
    /// result cache's key is made of it. Default: the args as they were sent.
    fn cache_args(&self, _args: &Self::Args) -> Option<Value> {
        None
    }

    /// Whether an equal job's result may be taken; what a run leaves is kept in any case.
    /// Default: yes.
    fn takes_cached(&self, _args: &Self::Args) -> bool {
        true
    }

    /// Does the work, in the child. `dir` is the private directory.
    fn run(&self, args: Self::Args, dir: &Path, ctx: &dyn RunContext) -> Outcome;

    /// Fills in what the args leave to the worker's settings, before anything else looks at them.
    /// Default: nothing.
    fn fill(&self, _args: &mut Value) {}

    /// Puts in place, in the worker and before the args are checked, what they name and a child could
    /// not reach. Runs again when the job does. Default: nothing.
    ///
    /// # Errors
    /// How the job ends instead of running.
    fn resolve<'a>(&'a self, _args: &'a mut Value) -> BoxFuture<'a, Result<(), Outcome>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Looks after the cached result of an equal job, in the worker, before it is answered: that
    /// what it names in other stores is still there. False: the job runs. Default: true.
    fn revive<'a>(&'a self, _result: &'a mut StoredResult, _services: &'a Services) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(true))
    }

    /// Lets the rest of the world know, in the worker, after the artifacts are stored and
    /// before the job is finished: indexes an image, enqueues what follows. Runs again when the
    /// job does, so it must be idempotent. Default: nothing.
    fn publish<'a>(
        &'a self,
        _result: &'a mut StoredResult,
        _services: &'a Services,
    ) -> BoxFuture<'a, Result<(), RunError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A kind whose `run` is async and happens inside the worker: for work that waits rather
/// than computes.
#[async_trait]
pub trait InlineKind: Send + Sync + 'static {
    /// The args as a type. Unknown fields should be refused (`deny_unknown_fields`).
    type Args: DeserializeOwned + Send;

    /// The kind's fixed facts.
    fn spec(&self) -> KindSpec;

    /// JSON Schema of the args, published so that doors of other programs can check them; see
    /// [`schema_of`](crate::schema_of). Default `None`: not described, this program alone checks.
    fn schema(&self) -> Option<Value> {
        None
    }

    /// Everything wrong with well-formed args; empty when they are right. Default: nothing is.
    fn check(&self, _args: &Self::Args) -> Vec<Violation> {
        Vec::new()
    }

    /// Does the work. Must not block the thread.
    async fn run(&self, args: Self::Args, ctx: &dyn RunContext) -> Outcome;
}

/// Turns args into a kind's type, or says what is wrong with their form.
///
/// # Errors
/// One violation with code `args_invalid` that names the field serde stumbled over.
pub fn decode_args<A: DeserializeOwned>(args: &Value) -> Result<A, Vec<Violation>> {
    A::deserialize(args).map_err(|e| vec![Violation::new("", "args_invalid", e.to_string())])
}

/// The JSON Schema (2020-12) of a type, for [`InlineKind::schema`] and [`IsolatedKind::schema`].
///
/// Its descriptions are the type's doc comments, without their code and link brackets.
///
/// ```
/// # use windlass_worker::{schema_of, schemars};
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct Args {
///     who: String,
/// }
/// assert_eq!(schema_of::<Args>().unwrap()["required"][0], "who");
/// ```
#[must_use]
pub fn schema_of<A: schemars::JsonSchema>() -> Option<Value> {
    let mut schema = schemars::schema_for!(A).to_value();
    describe_plainly(&mut schema);
    Some(schema)
}

/// Takes out of descriptions what only rustdoc understands.
fn describe_plainly(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "description" => *text = plain(text),
                    other => describe_plainly(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(describe_plainly),
        _ => {}
    }
}

fn plain(doc: &str) -> String {
    let prose: Vec<&str> = doc.split("```").step_by(2).map(str::trim_end).collect();
    prose.concat().replace("[`", "`").replace("`]", "`")
}
