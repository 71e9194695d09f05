//! Which kinds may be enqueued: those this program knows itself, checked by their own code, and
//! those that workers of other programs have published, checked against their schema.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use windlass_broker::SharedBroker;
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::{Queue, Violation};
use windlass_producer::Catalogue;
use windlass_worker::Registry;

use crate::problem::{Code, Problem};

/// What was published is asked for again after this, when a job needs it.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How long a request waits for the catalogue.
const PATIENCE: Duration = Duration::from_secs(2);

/// The kinds as they are known at one moment. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Kinds {
    registry: Registry,
    published: Arc<Catalogue>,
}

impl Kinds {
    /// Those of a registry, and those that were published.
    pub(crate) fn new(registry: Registry, published: Vec<KindInfo>) -> Self {
        Self { registry, published: Arc::new(Catalogue::new(published)) }
    }

    /// True when this program knows the kind itself.
    pub(crate) fn is_own(&self, kind: &str) -> bool {
        self.registry.spec(kind).is_some()
    }

    /// Where the kind's jobs go unless they say otherwise; `None` when it is not known.
    pub(crate) fn queue(&self, kind: &str) -> Option<Option<Queue>> {
        let name = match self.registry.spec(kind) {
            Some(spec) => spec.queue,
            None => &self.published.get(kind)?.queue,
        };
        Some(Queue::new(name).ok())
    }

    /// Everything wrong with the args; `None` when the kind is not known.
    pub(crate) fn check(&self, kind: &str, args: &Value) -> Option<Vec<Violation>> {
        self.registry.check(kind, args).or_else(|| self.published.check(kind, args))
    }

    /// The blobs a job needs, as far as this program can tell.
    pub(crate) fn blobs(&self, kind: &str, args: &Value) -> Vec<String> {
        self.registry.inputs(kind, args).unwrap_or_default().blobs
    }
}

/// The kinds of this program, and the latest word about those of others.
pub(crate) struct Door {
    registry: Registry,
    broker: SharedBroker,
    latest: Mutex<Latest>,
}

#[derive(Default)]
struct Latest {
    published: Arc<Catalogue>,
    asked_at: Option<Instant>,
}

impl Door {
    pub(crate) fn new(registry: Registry, broker: SharedBroker) -> Self {
        Self { registry, broker, latest: Mutex::default() }
    }

    /// The kinds of this program.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The kinds as they were last known.
    pub(crate) fn kinds(&self) -> Kinds {
        Kinds { registry: self.registry.clone(), published: Arc::clone(&self.lock().published) }
    }

    /// Asks the catalogue, unless that was done just now; false: nothing newer than
    /// [`Door::kinds`] said.
    ///
    /// # Errors
    /// 503 when it does not answer.
    pub(crate) async fn refresh(&self) -> Result<bool, Problem> {
        if self.lock().asked_at.is_some_and(|at| at.elapsed() < FRESH_FOR) {
            return Ok(false);
        }
        let asked_at = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, self.broker.kinds()).await;
        let silent = |_| Problem::new(Code::QueueUnavailable, "the catalogue of kinds does not answer at the moment");
        let kinds = answer.map_err(silent).map_err(|problem| problem.retry_after(1))??;
        let published = Arc::new(Catalogue::new(kinds));
        *self.lock() = Latest { published, asked_at: Some(asked_at) };
        Ok(true)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
