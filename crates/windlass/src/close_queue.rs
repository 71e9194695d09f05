//! Closings that another application carries out, as jobs on the queues of this installation.

use async_trait::async_trait;
use windlass_broker::SharedBroker;
use windlass_jobs::{JobId, NewJob, Queue, State, chain};
use windlass_market::callback::{CloseJobs, Fate};
use windlass_producer::Producer;

use crate::commands::report::stored_result;

/// The queues, as the market asks them.
pub(crate) struct CloseQueue {
    pub(crate) producer: Producer,
    pub(crate) broker: SharedBroker,
}

#[async_trait]
impl CloseJobs for CloseQueue {
    async fn enqueue(&self, queue: &Queue, job: NewJob) -> Result<(), String> {
        self.producer.enqueue(queue, job).await.map(|_| ()).map_err(|e| chain(&e))
    }

    async fn fate(&self, id: &JobId) -> Result<Fate, String> {
        let Some(record) = self.broker.get(id).await.map_err(|e| chain(&e))? else { return Ok(Fate::Unknown) };
        Ok(match record.state {
            State::Success => Fate::Done(stored_result(&record).map(|result| result.value).unwrap_or_default()),
            State::Failure | State::Cancelled => {
                let code = record.error.as_ref().map(|error| error.code.clone());
                Fate::Dead(code.unwrap_or_else(|| record.state.as_str().to_owned()))
            }
            _ => Fate::Open,
        })
    }
}
