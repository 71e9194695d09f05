//! What a run can learn of the jobs that its job depended on.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use windlass_broker::{Inspect, SharedBroker};
use windlass_jobs::{JobId, JobRecord, RunError, State};

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

/// A result that the worker did not write counts as a plain value.
fn stored(record: &JobRecord) -> StoredResult {
    let text = record.result.as_deref().unwrap_or("null");
    let plain = || StoredResult { value: serde_json::from_str(text).unwrap_or_default(), ..StoredResult::default() };
    serde_json::from_str(text).unwrap_or_else(|_| plain())
}
