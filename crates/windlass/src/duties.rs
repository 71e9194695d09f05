//! What has to be done from time to time to keep everything in order: the kinds for it, and the
//! schedules that are built in.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use windlass_api::RegistryKinds;
use windlass_broker::SharedBroker;
use windlass_jobs::command::{KEEP_FAILURE_FOR, KEEP_SUCCESS_FOR, TIDY_SLICE};
use windlass_jobs::{Done, Outcome, Violation};
use windlass_scheduler::{BUILTIN_PREFIX, Book, Counters, Definition, Origin, Runner, RunnerOptions};
use windlass_store::Services;
use windlass_worker::{InlineKind, KindSpec, Registry, RunContext};

use crate::runtime::Stores;
use crate::settings::Settings;
use crate::system::QUEUE;

/// Adds the kinds. Without stores they can be checked and enqueued, but not run.
pub(crate) fn register(registry: &mut Registry, stores: Option<&Stores>) {
    registry.inline(Retention { broker: stores.map(|stores| stores.broker.clone()) });
    registry.inline(Sweep { services: stores.map(|stores| stores.services.clone()) });
    registry.inline(Canary);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArgs {}

fn spec(name: &'static str, about: &'static str) -> KindSpec {
    KindSpec { queue: QUEUE, max_attempts: 1, timeout: Duration::from_secs(600), ..KindSpec::new(name, about) }
}

fn done(value: Value, nothing: bool) -> Outcome {
    Outcome::Done(Done { value, skipped: nothing, ..Done::default() })
}

/// `windlass.retention`: terminal jobs past their time leave every queue, also those that no
/// worker serves.
struct Retention {
    broker: Option<SharedBroker>,
}

#[async_trait]
impl InlineKind for Retention {
    type Args = NoArgs;

    fn spec(&self) -> KindSpec {
        spec("windlass.retention", "forgets ended jobs past their time, on every queue")
    }

    fn check(&self, _: &NoArgs) -> Vec<Violation> {
        Vec::new()
    }

    async fn run(&self, _: NoArgs, ctx: &dyn RunContext) -> Outcome {
        let Some(broker) = &self.broker else { return Outcome::fatal("no_broker", "this process has no broker") };
        let mut gone = 0;
        let queues = match broker.queues().await {
            Ok(queues) => queues,
            Err(e) => return Outcome::retry("queue", e.to_string()),
        };
        for queue in &queues {
            loop {
                match broker.tidy(queue, KEEP_SUCCESS_FOR, KEEP_FAILURE_FOR).await {
                    Ok(n) => {
                        gone += n;
                        if n < TIDY_SLICE || ctx.cancelled() {
                            break;
                        }
                    }
                    Err(e) => return Outcome::retry("queue", e.to_string()),
                }
            }
        }
        done(json!({ "queues": queues.len(), "forgotten": gone }), gone == 0)
    }
}

/// `windlass.cache_sweep`: artifacts, uploads and cached results past their time.
struct Sweep {
    services: Option<Services>,
}

#[async_trait]
impl InlineKind for Sweep {
    type Args = NoArgs;

    fn spec(&self) -> KindSpec {
        spec("windlass.cache_sweep", "forgets artifacts and cached results past their time")
    }

    fn check(&self, _: &NoArgs) -> Vec<Violation> {
        Vec::new()
    }

    async fn run(&self, _: NoArgs, ctx: &dyn RunContext) -> Outcome {
        let Some(services) = &self.services else { return Outcome::fatal("no_store", "this process has no store") };
        let mut gone = 0;
        loop {
            match services.artifacts.tidy().await {
                Ok(0) => break,
                Ok(n) => gone += n,
                Err(e) => return Outcome::retry("store", e.to_string()),
            }
            if ctx.cancelled() {
                break;
            }
        }
        done(json!({ "forgotten": gone }), gone == 0)
    }
}

/// `windlass.canary`: nothing, done by whoever serves the queue: proof that schedule, queue and
/// worker hang together.
struct Canary;

#[async_trait]
impl InlineKind for Canary {
    type Args = NoArgs;

    fn spec(&self) -> KindSpec {
        KindSpec { timeout: Duration::from_secs(10), ..spec("windlass.canary", "proves that scheduled jobs are run") }
    }

    fn check(&self, _: &NoArgs) -> Vec<Violation> {
        Vec::new()
    }

    async fn run(&self, _: NoArgs, _: &dyn RunContext) -> Outcome {
        done(json!({}), true)
    }
}

/// The built-in schedules: name, plan, kind or an alias of it. One appears once its kind is
/// registered. What they do is a sweep over all there is, so the last of those missed is enough,
/// and a run that has not ended is not overtaken.
const BUILTIN: &[(&str, &str, &str)] = &[
    ("windlass.retention", "@every 10m", "windlass.retention"),
    ("windlass.cache-sweep", "@every 10m", "windlass.cache_sweep"),
    ("windlass.canary", "@every 1m", "windlass.canary"),
    ("windlass.session-sweep", "@every 10m", "windlass.session_sweep"),
    ("windlass.spool-prune", "@hourly", "windlass.spool_prune"),
    ("windlass.audit-prune", "17 3 * * *", "windlass.audit_prune"),
    ("windlass.image-cleanup", "@every 60m", "images.cleanup"),
    ("windlass.sl-tp-sweep", "@every 5s", "market.sl_tp_watcher.check_sl_tp_positions"),
    ("windlass.mark", "@every 30s", "market.sl_tp_watcher.update_position_prices"),
    ("windlass.candles", "@every 5s", "market.candles"),
    ("windlass.calm-refresh", "@every 30s", "calm.refresh"),
    ("windlass.outbox-prune", "@hourly", "market.outbox_prune"),
];

/// The built-in schedules whose kinds are there.
fn builtin(registry: &Registry) -> Vec<Definition> {
    let known = |(name, plan, kind): &(&str, &str, &str)| Some(Definition::new(name, plan, registry.spec(kind)?.name));
    BUILTIN.iter().filter_map(known).collect()
}

/// What the settings file and the program want: `[[schedule]]` entries, those under a built-in
/// one's name laid over it, and the built-in ones that are left.
///
/// # Errors
/// Names the schedule, and what is wrong with its form.
fn wanted(settings: &Settings, registry: &Registry) -> anyhow::Result<(Vec<Definition>, Vec<Definition>)> {
    let mut builtin = builtin(registry);
    let mut own = Vec::new();
    for entry in &settings.schedules {
        let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        let mut members = match builtin.iter().position(|definition| definition.name == name) {
            Some(index) => as_members(&builtin.remove(index))?,
            None if name.starts_with(BUILTIN_PREFIX) => {
                bail!("[[schedule]] {name}: there is no built-in schedule of this name here")
            }
            None => Map::new(),
        };
        members.extend(entry.clone());
        let definition: Definition =
            serde_json::from_value(members.into()).map_err(|e| anyhow::anyhow!("[[schedule]] {name}: {e}"))?;
        own.push(definition);
    }
    Ok((own, builtin))
}

fn as_members(definition: &Definition) -> anyhow::Result<Map<String, Value>> {
    let value = serde_json::to_value(definition).context("a built-in schedule")?;
    value.as_object().cloned().context("a built-in schedule")
}

/// The book of schedules of these stores.
pub(crate) fn book(stores: &Stores) -> Book {
    let kinds = RegistryKinds(crate::kinds::registry());
    Book::new(Arc::clone(&stores.records), stores.broker.clone(), Arc::new(kinds))
}

/// The scheduler of this process.
pub(crate) struct Scheduling {
    runner: Arc<Runner>,
    sync: tokio::task::JoinHandle<()>,
}

impl Scheduling {
    /// Starts it, and has the book brought in line with the settings as soon as the store answers.
    ///
    /// # Errors
    /// When a schedule of the settings is wrong.
    pub(crate) async fn start(settings: &Settings, stores: &Stores) -> anyhow::Result<Self> {
        let (own, builtin) = wanted(settings, &crate::kinds::registry())?;
        let book = book(stores);
        book.check_settings(&own).await.context("[[schedule]]")?;
        let runner = Arc::new(Runner::start(&book, &RunnerOptions { snapshot: stores.snapshot.clone() }));
        let ready = Arc::clone(&runner);
        let sync = tokio::spawn(async move {
            // What the store lost is restored first, so that nothing counts as new.
            ready.ready().await;
            bring_in_line(&book, Origin::Settings, &own).await;
            bring_in_line(&book, Origin::Builtin, &builtin).await;
        });
        Ok(Self { runner, sync })
    }

    /// What it has done.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(self.runner.counters())
    }

    pub(crate) async fn stop(self) {
        self.sync.abort();
        self.runner.stop().await;
    }
}

/// How many names one log line holds.
const NAMES_SAID: usize = 20;

/// The first names, and how many more there are.
fn some_of(names: &[String]) -> String {
    let said = names.iter().take(NAMES_SAID).map(String::as_str).collect::<Vec<_>>().join(" ");
    match names.len().saturating_sub(NAMES_SAID) {
        0 => said,
        more => format!("{said} and {more} more"),
    }
}

async fn bring_in_line(book: &Book, origin: Origin, wanted: &[Definition]) {
    let mut said = false;
    loop {
        match book.sync(origin, wanted).await {
            Ok(synced) => {
                if !synced.is_empty() {
                    tracing::info!(
                        ?origin,
                        added = some_of(&synced.added),
                        changed = some_of(&synced.changed),
                        removed = some_of(&synced.removed),
                        "schedules_synchronised"
                    );
                }
                return;
            }
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(
                        ?origin,
                        error = format!("{:#}", anyhow::Error::new(error)),
                        "schedules not synchronised yet"
                    );
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Settings {
        crate::settings::tests::read(&[], &[("windlass.toml", toml)]).unwrap()
    }

    fn check(toml: &str) -> anyhow::Result<(Vec<Definition>, Vec<Definition>)> {
        wanted(&settings(toml), &crate::kinds::registry())
    }

    #[test]
    fn every_built_in_schedule_of_a_known_kind_is_right() {
        let registry = crate::kinds::registry();
        let all = builtin(&registry);
        assert!(all.iter().any(|definition| definition.name == "windlass.retention"));
        for definition in all {
            let wrong = definition.check(&RegistryKinds(registry.clone()), Some(windlass_jobs::Timestamp::now()));
            assert!(wrong.is_empty(), "{}: {wrong:?}", definition.name);
        }
        for (name, plan, kind) in BUILTIN {
            assert!(name.starts_with(BUILTIN_PREFIX) && windlass_scheduler::is_name(name));
            let definition = Definition::new(name, plan, "probe.noop");
            assert!(definition.check(&RegistryKinds(registry.clone()), None).is_empty(), "{name}");
            windlass_jobs::check_kind(kind).unwrap();
        }
    }

    #[test]
    fn the_settings_file_sets_schedules_and_retimes_built_in_ones() {
        let toml = "
            [[schedule]]
            name = 'check-sl-tp-positions'
            plan = '@every 5s'
            kind = 'probe.noop'
            missed = 'skip'
            [schedule.args]
            [[schedule]]
            name = 'windlass.canary'
            enabled = false
            [[schedule]]
            name = 'once'
            plan = '@daily'
            kind = 'probe.sleep'
            args = { ms = 5 }
            starts_at = 2026-01-01T00:00:00Z
            missed = { all = { max = 3, window_ms = 60000 } }
        ";
        let (own, builtin) = check(toml).unwrap();
        assert_eq!(own.len(), 3);
        assert_eq!(own[0].missed, windlass_scheduler::Missed::Skip);
        assert_eq!((own[1].plan.as_str(), own[1].enabled), ("@every 1m", false));
        assert_eq!(own[2].args, json!({ "ms": 5 }));
        assert!(builtin.iter().all(|definition| definition.name != "windlass.canary"));
    }

    /// B14: a wrong schedule stops the start, and is named.
    #[test]
    fn b14_wrong_schedules_in_the_settings_are_named() {
        let kinds = RegistryKinds(crate::kinds::registry());
        let check = |toml: &str, parts: &[&str]| {
            let text = match check(toml) {
                Ok((own, _)) => format!("{} {:?}", own[0].name, own[0].check(&kinds, None)),
                Err(e) => format!("{e:#}"),
            };
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        };
        let one = |more: &str| format!("[[schedule]]\nname = 'x'\nkind = 'probe.noop'\n{more}");
        check(&one("plan = '61 * * * *'"), &["x", "minute"]);
        check(&one("plan = '@daily'\nzone = 'Mars/Phobos'"), &["x", "Mars/Phobos"]);
        check("[[schedule]]\nname = 'x'\nkind = 'probe.sleep'\nplan = '@daily'\nargs = { z = 1 }", &["x", "/args"]);
        check(&one(""), &["x", "plan"]);
        check(&one("plan = '@daily'\nplam = 1"), &["x", "plam"]);
        check("[[schedule]]\nname = 'windlass.nope'\nenabled = false", &["windlass.nope"]);
    }
}
