//! What a run can learn of the jobs that its job depended on.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;
use windlass_broker::{Inspect, SharedBroker};
use windlass_jobs::{JobId, JobRecord, RunError, State};
use windlass_store::{Digest, Services};

use crate::kind::Parent;
use crate::result::StoredResult;

/// How many are read at once.
const AT_ONCE: usize = 16;

/// Reads the parents of a job, in the order in which it names them.
pub(crate) async fn of(broker: SharedBroker, id: JobId) -> Result<Vec<Parent>, RunError> {
    let record = get(broker.as_ref(), &id).await?;
    let parents = record.and_then(|record| record.options.depends_on).map(|after| after.parents).unwrap_or_default();
    let read = parents.into_iter().map(|id| {
        let broker = SharedBroker::clone(&broker);
        async move {
            let record = get(broker.as_ref(), &id).await?;
            let state = record.as_ref().map(|record| record.state);
            let result = record.filter(|record| record.state == State::Success).map(|record| stored(&record));
            Ok(Parent { id, state, result })
        }
    });
    stream::iter(read).buffered(AT_ONCE).try_collect().await
}

async fn get<B: Inspect + ?Sized>(broker: &B, id: &JobId) -> Result<Option<JobRecord>, RunError> {
    broker.get(id).await.map_err(|e| RunError::new("queue_unavailable", format!("parent {id}: {e}")))
}

/// Holds the files that parents left for jobs that go on waiting, until those have ended: what nobody
/// uses goes after a day. Pairs of a job and one it depends on come when the pump has carried them over.
/// A file that cannot be held is there for its usual time.
pub(crate) async fn hold_for_waiting(
    broker: SharedBroker,
    services: Services,
    mut told: mpsc::UnboundedReceiver<Vec<(JobId, JobId)>>,
) {
    while let Some(pairs) = told.recv().await {
        let mut by_child: BTreeMap<JobId, Vec<JobId>> = BTreeMap::new();
        for (child, parent) in pairs {
            by_child.entry(child).or_default().push(parent);
        }
        for (child, parents) in by_child {
            if let Err(error) = hold(broker.as_ref(), &services, &child, parents).await {
                tracing::warn!(%child, %error, "what its parents left is not held for a job that waits");
            }
        }
    }
}

async fn hold<B: Inspect + ?Sized>(
    broker: &B,
    services: &Services,
    child: &JobId,
    parents: Vec<JobId>,
) -> Result<(), RunError> {
    let record = get(broker, child).await?;
    // One that starts now reads them now.
    if record.is_none_or(|record| record.state != State::Scheduled) {
        return Ok(());
    }
    for parent in parents {
        let Some(record) = get(broker, &parent).await? else { continue };
        let artifacts = stored(&record).artifacts;
        let digests: Vec<Digest> = artifacts.iter().filter_map(|file| file.blob.parse().ok()).collect();
        if !digests.is_empty() {
            let pinned = services.artifacts.pin(&child.to_string(), &digests).await;
            pinned.map_err(|e| RunError::new("storage", format!("what {parent} left: {e}")))?;
        }
    }
    Ok(())
}

/// A result that the worker did not write counts as a plain value.
fn stored(record: &JobRecord) -> StoredResult {
    let text = record.result.as_deref().unwrap_or("null");
    let plain = || StoredResult { value: serde_json::from_str(text).unwrap_or_default(), ..StoredResult::default() };
    serde_json::from_str(text).unwrap_or_else(|_| plain())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use windlass_broker::{Control as _, Enqueue as _, Leases as _};
    use windlass_jobs::command::{Claim, Exchange, Finish, Settle};
    use windlass_jobs::{DependsOn, NewJob, Queue};
    use windlass_store::{Limits, file_services};
    use windlass_testkit::ModelBroker;

    use super::*;

    /// What a parent left is held for a job that goes on waiting for another, and not for one that starts.
    #[tokio::test]
    async fn what_parents_left_is_held_for_a_job_that_waits() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { artifact_ttl: Duration::from_millis(1), ..Limits::default() };
        let services = file_services(dir.path(), limits);
        let broker = Arc::new(ModelBroker::default());
        let queue = Queue::new("q").unwrap();
        let job = |parents: &[&NewJob]| {
            let mut job = NewJob::new("noop", &()).unwrap();
            let ids = parents.iter().map(|parent| JobId::new(parent.ulid, queue.clone())).collect::<Vec<_>>();
            job.options.depends_on = (!ids.is_empty()).then(|| DependsOn::on(ids));
            job
        };
        let (parent, other) = (job(&[]), job(&[]));
        let (waits, starts) = (job(&[&parent, &other]), job(&[&parent]));
        let jobs = [parent.clone(), other.clone(), waits.clone(), starts.clone()];
        broker.enqueue(&queue, &jobs).await.unwrap();
        let claim = Claim {
            worker: "w".into(),
            max: 1,
            lease: Duration::from_secs(60),
            grace: false,
            sent_at: None,
            quotas: None,
        };
        let claimed =
            broker.exchange(&queue, &Exchange { finishes: vec![], claim: Some(claim) }).await.unwrap().claimed;
        assert_eq!(claimed[0].lease.ulid, parent.ulid);
        let digest = services.artifacts.put(vec![7; 100].into()).await.unwrap();
        let lone = services.artifacts.put(vec![8; 100].into()).await.unwrap();
        let result = serde_json::json!({ "value": 1, "artifacts":
            [{ "name": "a", "media_type": "x/y", "blob": digest.to_string(), "bytes": 100 }] });
        let settle = Settle::Success { result: Some(result.to_string()), skipped: false };
        let finishes = vec![Finish { lease: claimed[0].lease, settle }];
        broker.exchange(&queue, &Exchange { finishes, claim: None }).await.unwrap();
        let mut told = Vec::new();
        loop {
            let forwarded = windlass_broker::flow::forward(broker.as_ref(), &queue).await.unwrap();
            if forwarded.messages == 0 {
                break;
            }
            told.extend(forwarded.told);
        }
        let id = |job: &NewJob| JobId::new(job.ulid, queue.clone());
        told.sort();
        let mut expected = vec![(id(&waits), id(&parent)), (id(&starts), id(&parent))];
        expected.sort();
        assert_eq!(told, expected);
        let shared: SharedBroker = broker.clone();
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(told).unwrap();
        drop(sender);
        hold_for_waiting(shared.clone(), services.clone(), receiver).await;

        let is_there = async |digest: &Digest| services.artifacts.get(digest).await.unwrap().is_some();
        tokio::time::sleep(Duration::from_millis(20)).await;
        services.artifacts.tidy().await.unwrap();
        assert!(is_there(&digest).await, "held");
        assert!(!is_there(&lone).await, "past its time");
        // The job that waits has ended: nobody holds it any more.
        services.artifacts.release(&id(&starts).to_string()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        services.artifacts.tidy().await.unwrap();
        assert!(is_there(&digest).await, "the other never held it");
        broker.cancel(&id(&waits)).await.unwrap();
        services.artifacts.release(&id(&waits).to_string()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        services.artifacts.tidy().await.unwrap();
        assert!(!is_there(&digest).await);
    }
}
