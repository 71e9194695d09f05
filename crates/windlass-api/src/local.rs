//! While the queue's store is away: routes whose callers wait for their files are answered by this
//! process itself, on a queue and stores of its own with children of its own. Such an answer is
//! marked; it is no job of the queue, and is never spooled.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::Response;
use tokio::sync::OnceCell;
use windlass_broker::SharedBroker;
use windlass_store::Services;

use crate::Shared;
use crate::problem::{Code, Problem};

/// Makes a queue and stores that live in this process, with a worker on them for the kinds that
/// need nobody else. Called once, when it is first needed; an error says why it cannot be.
pub type MakeLocal =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(SharedBroker, Services), String>> + Send>> + Send + Sync>;

/// How long the queue's store may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// What answers while the store is away.
pub(crate) struct Local {
    make: Option<MakeLocal>,
    made: OnceCell<Shared>,
}

impl Local {
    pub(crate) fn new(make: Option<MakeLocal>) -> Self {
        Self { make, made: OnceCell::new() }
    }

    async fn get(&self, shared: &Shared) -> Option<Shared> {
        let make = self.make.as_ref()?;
        let made = self.made.get_or_try_init(|| async {
            tracing::warn!("the queue's store is away: files that are waited for are made in this process");
            let (broker, services) = make().await?;
            Ok::<_, String>(shared.beside(broker, services))
        });
        match made.await {
            Ok(local) => Some(Arc::clone(local)),
            Err(error) => {
                tracing::error!(error, "nothing can be made in this process");
                None
            }
        }
    }
}

/// Where a request is answered.
pub(crate) struct Place {
    pub(crate) shared: Shared,
    is_local: bool,
}

impl Place {
    /// The queue, or this process while the queue's store is away.
    pub(crate) async fn of(shared: &Shared) -> Self {
        let is_there = matches!(tokio::time::timeout(PATIENCE, shared.broker.ping()).await, Ok(Ok(())));
        if !is_there && let Some(local) = shared.local.get(shared).await {
            return Self { shared: local, is_local: true };
        }
        Self { shared: Arc::clone(shared), is_local: false }
    }

    /// For a caller who does not wait: there has to be a queue.
    pub(crate) fn needs_queue(&self) -> Result<(), Problem> {
        if !self.is_local {
            return Ok(());
        }
        let detail =
            "the queue does not answer at the moment; a caller who waits for the file is answered all the same";
        Err(Problem::new(Code::QueueUnavailable, detail).retry_after(1))
    }

    /// Says of an answer that it was made without the queue: a file in its header, a problem as a
    /// member.
    pub(crate) fn mark(&self, answer: Result<Response, Problem>) -> Result<Response, Problem> {
        if !self.is_local {
            return answer;
        }
        let mut response = answer.map_err(|problem| problem.with("degraded", true))?;
        let headers = response.headers_mut();
        // The task is known to nobody.
        headers.remove("x-task-id");
        headers.insert("x-degraded", HeaderValue::from_static("true"));
        Ok(response)
    }
}
