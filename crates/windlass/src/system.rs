//! Kinds that look after the queues themselves: verbs over many jobs, done in slices by a
//! worker so that none of them holds the store up.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;
use windlass_broker::SharedBroker;
use windlass_jobs::command::MAX_CONTROL;
use windlass_jobs::{Done, JobId, JobRecord, Outcome, Queue, Reason, State, Timestamp, Ulid, Violation};
use windlass_worker::{InlineKind, KindSpec, Registry, RunContext};

/// The queue these kinds run on.
pub(crate) const QUEUE: &str = "windlass";

/// Adds the kinds. Without a broker they can be checked and enqueued, but not run.
pub(crate) fn register(registry: &mut Registry, broker: Option<&SharedBroker>) {
    registry.inline(DeadSet { verb: Verb::Replay, broker: broker.cloned() });
    registry.inline(DeadSet { verb: Verb::Delete, broker: broker.cloned() });
}

/// Which jobs of a dead set are meant; everything absent means any.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    /// Only this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    /// Only this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<Reason>,
    /// Only with these labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
}

impl Filter {
    pub(crate) fn matches(&self, record: &JobRecord) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == record.kind)
            && self.reason.is_none_or(|reason| record.reason == Some(reason))
            && self.labels.iter().all(|(key, value)| record.options.labels.get(key) == Some(value))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Replay,
    Delete,
}

/// `windlass.replay` and `windlass.delete`: `{"queue": …, "filter": {kind, reason, labels}}`.
struct DeadSet {
    verb: Verb,
    broker: Option<SharedBroker>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadSetArgs {
    queue: Queue,
    #[serde(default)]
    filter: Filter,
}

#[async_trait]
impl InlineKind for DeadSet {
    type Args = DeadSetArgs;

    fn spec(&self) -> KindSpec {
        let spec = match self.verb {
            Verb::Replay => KindSpec::new("windlass.replay", "lets failed jobs of a queue start anew, by filter"),
            Verb::Delete => KindSpec::new("windlass.delete", "forgets failed jobs of a queue, by filter"),
        };
        KindSpec { queue: QUEUE, timeout: Duration::from_secs(3600), ..spec }
    }

    fn check(&self, _: &DeadSetArgs) -> Vec<Violation> {
        Vec::new()
    }

    async fn run(&self, args: DeadSetArgs, ctx: &dyn RunContext) -> Outcome {
        let Some(broker) = &self.broker else { return Outcome::fatal("no_broker", "this process has no broker") };
        let (mut seen, mut done) = (0, 0);
        for queue in args.queue.spread(broker.shards(&args.queue)) {
            match walk(broker, self.verb, &queue, &args.filter, ctx).await {
                Ok((seen_there, done_there)) => {
                    seen += seen_there;
                    done += done_there;
                }
                Err(error) => return Outcome::retry("queue", error.to_string()),
            }
        }
        Outcome::Done(Done { value: json!({ "seen": seen, "done": done }), ..Done::default() })
    }
}

/// Walks the dead set, newest first, a page at a time. Jobs that failed after the walk began are
/// left alone, so that it ends although replayed jobs may fail again.
async fn walk(
    broker: &SharedBroker,
    verb: Verb,
    queue: &Queue,
    filter: &Filter,
    ctx: &dyn RunContext,
) -> windlass_broker::Result<(u64, u64)> {
    let total = broker.counts(queue).await?.dead.max(1);
    let mut began: Option<Timestamp> = None;
    let (mut cursor, mut seen, mut done) = (0, 0, 0);
    while !ctx.cancelled() {
        let page = broker.list(queue, State::Failure, cursor, MAX_CONTROL).await?;
        let mut meant = Vec::new();
        for ulid in &page.ids {
            let id = JobId::new(*ulid, queue.clone());
            let Some(record) = broker.get(&id).await? else { continue };
            // The newest failure when the walk began is the last one it looks at.
            let failed_at = record.finished_at.unwrap_or_default();
            if failed_at <= *began.get_or_insert(failed_at) && filter.matches(&record) {
                meant.push(*ulid);
            }
        }
        let gone = apply(broker, verb, queue, &meant).await?;
        seen += u64::try_from(page.ids.len()).unwrap_or(0);
        done += gone;
        #[expect(clippy::cast_precision_loss, reason = "progress is a picture, not a count")]
        ctx.progress(100.0 * seen as f32 / total as f32, &format!("{done} of {seen} jobs"));
        match page.next {
            Some(next) => cursor = next.saturating_sub(gone),
            None => break,
        }
    }
    Ok((seen, done))
}

async fn apply(broker: &SharedBroker, verb: Verb, queue: &Queue, ulids: &[Ulid]) -> windlass_broker::Result<u64> {
    let answers = match verb {
        Verb::Replay => broker.replay(queue, ulids).await?,
        Verb::Delete => broker.delete(queue, ulids).await?,
    };
    Ok(answers.into_iter().map(u64::from).sum())
}
