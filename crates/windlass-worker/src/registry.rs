//! The kinds a process knows, looked up by name or alias.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tower::{Layer, Service};
use windlass_jobs::catalogue::{KindInfo, MAX_SCHEMA_BYTES};
use windlass_jobs::{Outcome, RunError, Timestamp, Violation};
use windlass_store::Services;

use crate::kind::{InlineKind, Inputs, IsolatedKind, KindSpec, RunContext, decode_args};
use crate::middleware::{Handler, Layers, RunReply, RunRequest};
use crate::result::StoredResult;

/// Where a kind runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executor {
    /// As a future of the worker.
    Inline,
    /// In a child process of its own.
    Isolated,
}

/// A kind with its args' type forgotten.
#[async_trait]
pub(crate) trait AnyKind: Send + Sync {
    fn spec(&self) -> &KindSpec;
    fn executor(&self) -> Executor;
    fn schema(&self) -> Option<Value>;
    /// Everything wrong with the args.
    fn check(&self, args: &Value) -> Vec<Violation>;
    fn inputs(&self, args: &Value) -> Inputs;
    /// What the result cache's key is made of.
    fn cache_args(&self, args: &Value) -> Value;
    /// Whether an equal job's result may be taken.
    fn takes_cached(&self, args: &Value) -> bool;
    /// Fills in what the args leave to settings.
    fn fill(&self, args: &mut Value);
    /// Puts in place what the args name.
    fn resolve<'a>(&'a self, args: &'a mut Value) -> BoxFuture<'a, Result<(), Outcome>>;
    /// Whether a cached result may be answered.
    fn revive<'a>(&'a self, result: &'a mut StoredResult, services: &'a Services) -> BoxFuture<'a, bool>;
    fn run_isolated(&self, args: &Value, dir: &Path, ctx: &dyn RunContext) -> Outcome;
    async fn run_inline(&self, args: &str, ctx: &dyn RunContext) -> Outcome;
    fn publish<'a>(
        &'a self,
        result: &'a mut StoredResult,
        services: &'a Services,
    ) -> BoxFuture<'a, Result<(), RunError>>;
}

struct Isolated<K> {
    kind: K,
    spec: KindSpec,
}

#[async_trait]
impl<K: IsolatedKind> AnyKind for Isolated<K> {
    fn spec(&self) -> &KindSpec {
        &self.spec
    }
    fn executor(&self) -> Executor {
        Executor::Isolated
    }
    fn schema(&self) -> Option<Value> {
        self.kind.schema()
    }
    fn check(&self, args: &Value) -> Vec<Violation> {
        match decode_args::<K::Args>(args) {
            Ok(args) => self.kind.check(&args),
            Err(violations) => violations,
        }
    }
    fn inputs(&self, args: &Value) -> Inputs {
        decode_args::<K::Args>(args).map(|args| self.kind.inputs(&args)).unwrap_or_default()
    }
    fn cache_args(&self, args: &Value) -> Value {
        let canonical = decode_args::<K::Args>(args).ok().and_then(|args| self.kind.cache_args(&args));
        canonical.unwrap_or_else(|| args.clone())
    }
    fn takes_cached(&self, args: &Value) -> bool {
        decode_args::<K::Args>(args).is_ok_and(|args| self.kind.takes_cached(&args))
    }
    fn fill(&self, args: &mut Value) {
        self.kind.fill(args);
    }
    fn resolve<'a>(&'a self, args: &'a mut Value) -> BoxFuture<'a, Result<(), Outcome>> {
        self.kind.resolve(args)
    }
    fn revive<'a>(&'a self, result: &'a mut StoredResult, services: &'a Services) -> BoxFuture<'a, bool> {
        self.kind.revive(result, services)
    }
    fn run_isolated(&self, args: &Value, dir: &Path, ctx: &dyn RunContext) -> Outcome {
        match decode_args::<K::Args>(args) {
            Ok(args) => self.kind.run(args, dir, ctx),
            Err(violations) => refused(&violations),
        }
    }
    async fn run_inline(&self, _args: &str, _ctx: &dyn RunContext) -> Outcome {
        Outcome::fatal("wrong_executor", "this kind runs in a child process")
    }
    fn publish<'a>(
        &'a self,
        result: &'a mut StoredResult,
        services: &'a Services,
    ) -> BoxFuture<'a, Result<(), RunError>> {
        self.kind.publish(result, services)
    }
}

struct Inline<K> {
    kind: K,
    spec: KindSpec,
}

#[async_trait]
impl<K: InlineKind> AnyKind for Inline<K> {
    fn spec(&self) -> &KindSpec {
        &self.spec
    }
    fn executor(&self) -> Executor {
        Executor::Inline
    }
    fn schema(&self) -> Option<Value> {
        self.kind.schema()
    }
    fn check(&self, args: &Value) -> Vec<Violation> {
        match decode_args::<K::Args>(args) {
            Ok(args) => self.kind.check(&args),
            Err(violations) => violations,
        }
    }
    fn inputs(&self, _args: &Value) -> Inputs {
        Inputs::default()
    }
    fn cache_args(&self, args: &Value) -> Value {
        args.clone()
    }
    fn takes_cached(&self, _args: &Value) -> bool {
        true
    }
    fn fill(&self, _args: &mut Value) {}
    fn resolve<'a>(&'a self, _: &'a mut Value) -> BoxFuture<'a, Result<(), Outcome>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn revive<'a>(&'a self, _: &'a mut StoredResult, _: &'a Services) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(true))
    }
    fn run_isolated(&self, _args: &Value, _dir: &Path, _ctx: &dyn RunContext) -> Outcome {
        Outcome::fatal("wrong_executor", "this kind runs inside the worker")
    }
    async fn run_inline(&self, args: &str, ctx: &dyn RunContext) -> Outcome {
        match serde_json::from_str::<K::Args>(args) {
            Ok(args) => {
                let violations = self.kind.check(&args);
                if violations.is_empty() { self.kind.run(args, ctx).await } else { refused(&violations) }
            }
            Err(e) => Outcome::fatal("args_invalid", e.to_string()),
        }
    }
    fn publish<'a>(&'a self, _: &'a mut StoredResult, _: &'a Services) -> BoxFuture<'a, Result<(), RunError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The outcome of a job whose args are wrong.
pub(crate) fn refused(violations: &[Violation]) -> Outcome {
    let text = violations.iter().map(|v| format!("{}: {}", v.path, v.message)).collect::<Vec<_>>().join("; ");
    let code = violations.first().map_or("args_invalid", |v| v.code.as_str());
    Outcome::fatal(code, text)
}

/// The kinds a process knows.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: BTreeMap<String, Arc<dyn AnyKind>>,
    layers: Layers,
}

impl Registry {
    /// Without any kind.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind that runs in a child process.
    ///
    /// # Panics
    /// When its name or an alias is taken or does not fit the grammar: a fault of the program.
    pub fn isolated<K: IsolatedKind>(&mut self, kind: K) -> &mut Self {
        let spec = kind.spec();
        self.add(spec.clone(), Arc::new(Isolated { kind, spec }))
    }

    /// Adds a kind that runs inside the worker.
    ///
    /// # Panics
    /// When its name or an alias is taken or does not fit the grammar: a fault of the program.
    pub fn inline<K: InlineKind>(&mut self, kind: K) -> &mut Self {
        let spec = kind.spec();
        self.add(spec.clone(), Arc::new(Inline { kind, spec }))
    }

    fn add(&mut self, spec: KindSpec, kind: Arc<dyn AnyKind>) -> &mut Self {
        for name in std::iter::once(&spec.name).chain(spec.aliases) {
            windlass_jobs::check_kind(name).expect("a kind's name fits the grammar");
            assert!(
                self.kinds.insert((*name).to_owned(), Arc::clone(&kind)).is_none(),
                "kind {name} is registered twice"
            );
        }
        self
    }

    /// Puts a tower layer around every run of every kind; the first added is the outermost. See
    /// [`RunRequest`] for what it sees. An error of its service is a failed run that is retried.
    ///
    /// ```
    /// # use windlass_worker::{Handler, Registry, RunReply, RunRequest};
    /// use tower::ServiceExt as _;
    /// let mut registry = Registry::new();
    /// registry.layer(tower::layer::layer_fn(|inner: Handler| {
    ///     inner.map_response(|reply: RunReply| {
    ///         println!("done: {}", reply.is_done());
    ///         reply
    ///     })
    /// }));
    /// registry.layer(tower::limit::ConcurrencyLimitLayer::new(3));
    /// ```
    pub fn layer<L>(&mut self, layer: L) -> &mut Self
    where
        L: Layer<Handler> + Send + Sync + 'static,
        L::Service: Service<RunRequest, Response = RunReply> + Clone + Send + Sync + 'static,
        <L::Service as Service<RunRequest>>::Error: std::fmt::Display,
        <L::Service as Service<RunRequest>>::Future: Send + 'static,
    {
        self.layers.add(layer);
        self
    }

    pub(crate) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// The fixed facts of a kind, by name or alias.
    #[must_use]
    pub fn spec(&self, kind: &str) -> Option<&KindSpec> {
        self.kinds.get(kind).map(|kind| kind.spec())
    }

    /// Where a kind runs.
    #[must_use]
    pub fn executor(&self, kind: &str) -> Option<Executor> {
        self.kinds.get(kind).map(|kind| kind.executor())
    }

    /// Everything wrong with a job's args; `None` when the kind is not known.
    #[must_use]
    pub fn check(&self, kind: &str, args: &Value) -> Option<Vec<Violation>> {
        self.kinds.get(kind).map(|kind| kind.check(args))
    }

    /// The blobs a job needs; `None` when the kind is not known.
    #[must_use]
    pub fn inputs(&self, kind: &str, args: &Value) -> Option<Inputs> {
        self.kinds.get(kind).map(|kind| kind.inputs(args))
    }

    /// Every kind, once, by name.
    pub fn specs(&self) -> impl Iterator<Item = &KindSpec> {
        self.kinds.iter().filter(|(name, kind)| *name == kind.spec().name).map(|(_, kind)| kind.spec())
    }

    /// Every kind as it is published to others, by name.
    ///
    /// A schema over [`MAX_SCHEMA_BYTES`] is left out, and said so in the log.
    #[must_use]
    pub fn catalogue(&self) -> Vec<KindInfo> {
        let kinds = self.kinds.iter().filter(|(name, kind)| *name == kind.spec().name);
        kinds.map(|(_, kind)| publication(kind.as_ref())).collect()
    }

    /// Every name and alias.
    pub(crate) fn names(&self) -> Vec<String> {
        self.kinds.keys().cloned().collect()
    }

    pub(crate) fn get(&self, kind: &str) -> Option<&Arc<dyn AnyKind>> {
        self.kinds.get(kind)
    }
}

fn publication(kind: &dyn AnyKind) -> KindInfo {
    let spec = kind.spec();
    let fits = |schema: &Value| {
        let bytes = schema.to_string().len();
        if bytes > MAX_SCHEMA_BYTES {
            tracing::warn!(kind = spec.name, bytes, max = MAX_SCHEMA_BYTES, "the schema is too long to be published");
        }
        bytes <= MAX_SCHEMA_BYTES
    };
    KindInfo {
        name: spec.name.to_owned(),
        version: spec.version,
        aliases: spec.aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        queue: spec.queue.to_owned(),
        schema: kind.schema().filter(fits),
        max_attempts: spec.max_attempts,
        timeout_ms: u64::try_from(spec.timeout.as_millis()).unwrap_or(u64::MAX),
        isolated: kind.executor() == Executor::Isolated,
        about: spec.about.to_owned(),
        seen_at: Timestamp::default(),
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.kinds.keys()).finish()
    }
}
