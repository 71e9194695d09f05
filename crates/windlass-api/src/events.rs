//! `GET /api/tasks/{id}/events`: a job's life as server-sent events.
//!
//! *Shape*: `state` when its state changed (first of all the one it is in), `progress` when
//! only the progress did, `end` once it is terminal; the data of each is the task as
//! `GET /api/tasks/{id}` answers it. The stream closes after `end`; a browser that connects
//! again with the `Last-Event-ID` of that event is told by 204 to stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use windlass_jobs::{JobId, JobRecord};

use crate::Shared;
use crate::auth::Caller;
use crate::problem::{Code, Problem, chain};
use crate::task::{self, Standing, Task};

/// How often a job is looked at although nothing was said of it: a word may be lost with a
/// connection.
const UNASKED: Duration = Duration::from_secs(2);
/// How often a comment is sent, so that proxies keep the stream and a vanished client is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The id of the last event.
const END: &str = "end";

pub(crate) async fn events(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    if headers.get("last-event-id").is_some_and(|id| id == END) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let Ok(permit) = Arc::clone(&shared.streams).try_acquire_owned() else {
        let detail = format!("{} event streams are open", shared.options.event_streams);
        return Err(Problem::new(Code::TooManyStreams, detail).retry_after(5));
    };
    let record = task::find(&shared, &caller, id).await?;
    let signals = shared.broker.watch(&record.id).await;
    let watch = Watch { id: record.id.clone(), shared, first: Some(record), seen: None, signals, _permit: permit };
    // The stream ends with its connection: nothing polls when nobody reads.
    let events = stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        let (event, ended) = watch.next().await?;
        Some((Ok::<_, Infallible>(event), (!ended).then_some(watch)))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

/// One client's view of one job.
struct Watch {
    shared: Shared,
    id: JobId,
    first: Option<JobRecord>,
    /// What was told last.
    seen: Option<(Standing, String)>,
    /// Says that the job may have changed.
    signals: UnboundedReceiver<()>,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    /// The next event, and whether it is the last; `None` when the server stops or the job is
    /// past retention.
    async fn next(&mut self) -> Option<(Event, bool)> {
        let shutdown = self.shared.shutdown.clone();
        loop {
            let record = tokio::select! {
                () = shutdown.cancelled() => return None,
                record = self.look() => record?,
            };
            if let Some(told) = self.tell(&record) {
                return Some(told);
            }
        }
    }

    /// Waits for a word, then reads the job; while the queue is away it goes on waiting.
    async fn look(&mut self) -> Option<JobRecord> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let word = tokio::time::timeout(UNASKED, self.signals.recv()).await;
            if word == Ok(None) {
                tokio::time::sleep(UNASKED).await;
            }
            // One look answers all words so far.
            while self.signals.try_recv().is_ok() {}
            match self.shared.broker.get(&self.id).await {
                Ok(record) => return record,
                Err(error) => tracing::debug!(error = %chain(&error), "an event stream waits for the queue"),
            }
        }
    }

    /// The event for what changed, if anything did.
    fn tell(&mut self, record: &JobRecord) -> Option<(Event, bool)> {
        let task = Task::of(record, self.shared.door.registry());
        let (standing, json) = (task.standing(), task.to_json());
        let name = match &self.seen {
            Some((_, seen)) if *seen == json => return None,
            _ if record.state.is_terminal() => END,
            Some((seen, _)) if *seen == standing => "progress",
            _ => "state",
        };
        let event = Event::default().event(name).data(&json);
        self.seen = Some((standing, json));
        Some(if name == END { (event.id(END), true) } else { (event, false) })
    }
}
