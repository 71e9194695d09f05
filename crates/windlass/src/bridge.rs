//! The bridge in this program: its settings, its sources, and the kinds that hand jobs to stock
//! apalis workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use async_trait::async_trait;
use serde_json::json;
use serde_json::value::RawValue;
use windlass_bridge::{
    AnySource, ApalisRoutes, Bridge, CeleryOptions, CeleryQueues, Forward, ForwardRoutes, Options, TaskRoutes,
};
use windlass_jobs::{Done, Outcome, Queue};
use windlass_redis::Link;
use windlass_worker::{InlineKind, KindSpec, Registry, RunContext};

use crate::redis_settings::{of_store, of_url};
use crate::runtime::Stores;
use crate::settings::Found;

/// The queue of jobs for stock apalis workers.
const FORWARD: &str = "forward";

/// What the bridge is told.
#[derive(Debug, Clone)]
pub(crate) struct BridgeSettings {
    /// `WINDLASS_APALIS_SOURCES` (`namespace=kind[@queue]`); default none.
    apalis: ApalisRoutes,
    /// `WINDLASS_APALIS_TARGETS` (`kind=namespace`); default none.
    targets: ForwardRoutes,
    /// `WINDLASS_APALIS_REDIS_URL`, default that of the queue.
    apalis_redis: Option<windlass_redis::Options>,
    /// `WINDLASS_CELERY_QUEUES` (`name[=queue]`); default none: then the `CELERY_…` names are not read.
    celery: CeleryQueues,
    /// `WINDLASS_CELERY_TASKS` (`task=kind[:argument…]`).
    tasks: TaskRoutes,
    /// `CELERY_BROKER_URL`, default that of the queue.
    broker: Option<windlass_redis::Options>,
    /// `CELERY_RESULT_BACKEND`; none: results are written nowhere.
    results: Option<windlass_redis::Options>,
    /// `WINDLASS_CELERY_VISIBILITY_SECONDS`, 1–31,536,000, default 3,600.
    visibility: Duration,
    /// `CELERY_RESULT_EXPIRES`, 1–31,536,000 s, default 86,400.
    result_ttl: Duration,
    /// Where a bridge says how it is. `WINDLASS_BRIDGE_LISTEN`; default nowhere.
    pub(crate) listen: Option<SocketAddr>,
}

impl BridgeSettings {
    pub(crate) fn read(found: &Found, queue: Option<&windlass_redis::Options>) -> anyhow::Result<Self> {
        let (sources, targets) = ("WINDLASS_APALIS_SOURCES", "WINDLASS_APALIS_TARGETS");
        let apalis: ApalisRoutes = found
            .parse(
                sources,
                "namespace=kind or namespace=kind@queue, each namespace once, separated by commas,",
                |_| true,
            )?
            .unwrap_or_default();
        let targets: ForwardRoutes =
            found.parse(targets, "kind=namespace, each kind once, separated by commas,", |_| true)?.unwrap_or_default();
        check_targets(&apalis, &targets)?;
        let queues = "names, or name=queue, each once, separated by commas,";
        let celery: CeleryQueues = found.parse("WINDLASS_CELERY_QUEUES", queues, |_| true)?.unwrap_or_default();
        let tasks = "task=kind, or task=kind:argument:argument with the names of positional arguments, each task once,";
        let tasks = found.parse("WINDLASS_CELERY_TASKS", tasks, |_| true)?.unwrap_or_default();
        let seconds = |s: &u64| (1..=31_536_000).contains(s);
        let visibility = found.parse("WINDLASS_CELERY_VISIBILITY_SECONDS", "1 to 31536000", seconds)?;
        let ttl = found.parse("CELERY_RESULT_EXPIRES", "1 to 31536000 seconds", seconds);
        // An old `.env` may name a broker that is no Redis; that matters to who takes Celery's jobs.
        let is_celery = !celery.0.is_empty();
        let url = |name| if is_celery { celery_url(name, found) } else { Ok(None) };
        let this = Self {
            apalis_redis: of_store("WINDLASS_APALIS_REDIS_URL", found)?.or_else(|| queue.cloned()),
            broker: url("CELERY_BROKER_URL")?.or_else(|| queue.cloned()),
            results: url("CELERY_RESULT_BACKEND")?,
            result_ttl: if is_celery { ttl? } else { None }.map_or(CeleryOptions::RESULT_TTL, Duration::from_secs),
            visibility: visibility.map_or(CeleryOptions::VISIBILITY, Duration::from_secs),
            listen: found.parse("WINDLASS_BRIDGE_LISTEN", "an address and a port such as 127.0.0.1:8004", |_| true)?,
            apalis,
            targets,
            celery,
            tasks,
        };
        if (!this.apalis.0.is_empty() || !this.targets.0.is_empty()) && this.apalis_redis.is_none() {
            bail!(
                "WINDLASS_APALIS_SOURCES and WINDLASS_APALIS_TARGETS need a Redis: set WINDLASS_APALIS_REDIS_URL or REDIS_URL"
            );
        }
        if is_celery && this.broker.is_none() {
            bail!("WINDLASS_CELERY_QUEUES needs a Redis: set CELERY_BROKER_URL or REDIS_URL");
        }
        Ok(this)
    }

    /// The places from which jobs are taken; none are contacted yet.
    pub(crate) fn sources(&self) -> anyhow::Result<Vec<AnySource>> {
        let mut sources = Vec::new();
        if let Some(options) = self.apalis_redis.as_ref().filter(|_| !self.apalis.0.is_empty()) {
            let link = Link::new(options.clone())?;
            sources.extend(self.apalis.0.iter().map(|route| AnySource::apalis(link.clone(), route.clone())));
        }
        if let Some(options) = self.broker.as_ref().filter(|_| !self.celery.0.is_empty()) {
            let link = Link::new(options.clone())?;
            let celery = CeleryOptions {
                tasks: self.tasks.clone(),
                results: self.results.clone().map(Link::new).transpose()?,
                visibility: self.visibility,
                result_ttl: self.result_ttl,
            };
            for queue in &self.celery.0 {
                sources.push(AnySource::celery(link.clone(), queue.clone(), celery.clone())?);
            }
        }
        Ok(sources)
    }

    /// Starts the bridge of this process; `None` where no source is set.
    pub(crate) fn start(&self, stores: &Stores) -> anyhow::Result<Option<Bridge>> {
        let sources = self.sources()?;
        if sources.is_empty() {
            return Ok(None);
        }
        let registry = crate::kinds::registry();
        let queue_of = Arc::new(move |kind: &str| registry.spec(kind).and_then(|spec| Queue::new(spec.queue).ok()));
        Ok(Some(Bridge::start(&stores.broker, sources, queue_of, &Options::default())))
    }

    /// Adds the kinds whose jobs go to stock apalis workers.
    pub(crate) fn register(&self, registry: &mut Registry) -> anyhow::Result<()> {
        let Some(options) = self.apalis_redis.as_ref().filter(|_| !self.targets.0.is_empty()) else { return Ok(()) };
        let link = Link::new(options.clone()).context("WINDLASS_APALIS_TARGETS, their Redis")?;
        for (kind, namespace) in &self.targets.0 {
            // Once in a process, as long as which the kinds of a registry live.
            let name: &'static str = Box::leak(kind.clone().into_boxed_str());
            registry.inline(Forwarding { name, forward: Forward::new(link.clone(), namespace) });
        }
        Ok(())
    }
}

/// A namespace is not its own target, and a kind has one meaning.
fn check_targets(sources: &ApalisRoutes, targets: &ForwardRoutes) -> anyhow::Result<()> {
    if targets.0.is_empty() {
        return Ok(());
    }
    let built_in = crate::kinds::registry();
    for (kind, namespace) in &targets.0 {
        if built_in.spec(kind).is_some() {
            bail!("WINDLASS_APALIS_TARGETS names {kind}, which this program does itself");
        }
        if sources.0.iter().any(|route| route.namespace == *namespace) {
            bail!(
                "namespace {namespace} is in WINDLASS_APALIS_SOURCES and in WINDLASS_APALIS_TARGETS: its jobs would go round"
            );
        }
    }
    Ok(())
}

/// A Celery URL; what it says about certificates is checked here, as they always are.
fn celery_url(name: &'static str, found: &Found) -> anyhow::Result<Option<windlass_redis::Options>> {
    let Some(text) = found.text(name) else { return Ok(None) };
    let (url, query) = text.trim().split_once('?').unwrap_or((text.trim(), ""));
    if !matches!(query, "" | "ssl_cert_reqs=required" | "ssl_cert_reqs=CERT_REQUIRED") {
        return Err(anyhow!(
            "{name}: behind the ? only ssl_cert_reqs=required is allowed; REDIS_SSL_CA_CERTS names an authority"
        ));
    }
    of_url(name, url, found).map(Some)
}

/// A kind whose jobs are pushed into the storage of a namespace.
struct Forwarding {
    name: &'static str,
    forward: Forward,
}

#[async_trait]
impl InlineKind for Forwarding {
    type Args = Box<RawValue>;

    fn spec(&self) -> KindSpec {
        let about = "hands the job to a stock apalis worker";
        // Its backoff grows: about two days in which that Redis may be away.
        KindSpec {
            queue: FORWARD,
            max_attempts: 20,
            timeout: Duration::from_secs(60),
            ..KindSpec::new(self.name, about)
        }
    }

    async fn run(&self, args: Box<RawValue>, ctx: &dyn RunContext) -> Outcome {
        let Some(lease) = ctx.lease() else { return Outcome::fatal("no_job", "a forwarded job needs its id") };
        match self.forward.push(lease.ulid, args).await {
            Ok(()) => {
                Outcome::Done(Done { value: json!({ "apalis_task_id": lease.ulid.to_string() }), ..Done::default() })
            }
            Err(error) => Outcome::retry("apalis", error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::tests::read;

    #[test]
    fn the_bridge_is_off_until_it_is_told_what_to_take() {
        let env = [("CELERY_BROKER_URL", "amqp://geheim@old"), ("CELERY_RESULT_EXPIRES", "never")];
        assert!(read(&env, &[]).unwrap().bridge.sources().unwrap().is_empty());
        let env = [
            ("REDIS_URL", "redis://a"),
            ("WINDLASS_APALIS_SOURCES", "app::Email=mail.welcome"),
            ("WINDLASS_CELERY_QUEUES", "celery,slow=pdf"),
            ("CELERY_BROKER_URL", "rediss://:x@b/1?ssl_cert_reqs=required"),
        ];
        let settings = read(&env, &[]).unwrap();
        let names: Vec<String> = settings.bridge.sources().unwrap().iter().map(|s| s.name().to_owned()).collect();
        assert_eq!(names, ["apalis app::Email", "celery celery", "celery slow"]);
    }

    /// B36.
    #[test]
    fn b36_wrong_settings_of_the_bridge_are_named() {
        let check = |env: &[(&str, &str)], parts: &[&str]| {
            let text = format!("{:#}", read(env, &[]).unwrap_err());
            assert!(parts.iter().all(|part| text.contains(part)) && !text.contains("geheim"), "{text}");
        };
        let on = ("REDIS_URL", "redis://a");
        check(&[("WINDLASS_APALIS_SOURCES", "a=b")], &["WINDLASS_APALIS_REDIS_URL"]);
        check(&[on, ("WINDLASS_APALIS_SOURCES", "a=B")], &["WINDLASS_APALIS_SOURCES", "namespace=kind"]);
        check(&[on, ("WINDLASS_APALIS_TARGETS", "pdf.report=x")], &["pdf.report"]);
        check(&[on, ("WINDLASS_APALIS_TARGETS", "a=x,a=y")], &["WINDLASS_APALIS_TARGETS", "each kind once"]);
        check(&[on, ("WINDLASS_CELERY_TASKS", "t=a,t=b")], &["WINDLASS_CELERY_TASKS", "each task once"]);
        check(&[on, ("WINDLASS_APALIS_SOURCES", "n=a"), ("WINDLASS_APALIS_TARGETS", "b=n")], &["round"]);
        check(&[("WINDLASS_CELERY_QUEUES", "celery")], &["CELERY_BROKER_URL"]);
        check(
            &[("WINDLASS_CELERY_QUEUES", "celery"), ("CELERY_BROKER_URL", "amqp://u:geheim@b")],
            &["CELERY_BROKER_URL", "redis://"],
        );
        let celery = ("WINDLASS_CELERY_QUEUES", "celery");
        check(&[on, celery, ("CELERY_RESULT_BACKEND", "rpc://")], &["CELERY_RESULT_BACKEND"]);
        check(&[on, celery, ("CELERY_RESULT_EXPIRES", "0")], &["1 to 31536000"]);
        check(&[on, celery, ("CELERY_BROKER_URL", "rediss://b?ssl_cert_reqs=none")], &["ssl_cert_reqs=required"]);
    }
}
