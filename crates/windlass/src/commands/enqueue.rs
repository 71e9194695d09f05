//! `windlass enqueue KIND`.

mod flow;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use windlass_jobs::{DependsOn, JobId, NewJob, OnClash, Options, Queue, Unique, Violation, When};
use windlass_producer::{Accepted, Catalogue, Producer};
use windlass_store::{Digest, Services};
use windlass_worker::{KindSpec, Registry, Worker};

use super::{report, task};
use crate::cli::Enqueue;
use crate::runtime::Stores;
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, args: Enqueue, as_json: bool) -> anyhow::Result<ExitCode> {
    let registry = crate::kinds::registry();
    let stores = Stores::open(settings).await?;
    if let Some(file) = &args.flow {
        return flow::run(&registry, &stores, file, as_json).await;
    }
    let kind = Kind::find(&registry, &stores, args.kind.as_deref().unwrap_or_default()).await?;
    let value = read_args(&args, &stores.services).await?;
    kind.refuse_wrong(&registry, &value)?;

    let mut queue = match &args.queue {
        Some(queue) => queue.clone(),
        None => Queue::new(kind.queue())?,
    };
    for parent in &args.after {
        if stores.broker.get(parent).await?.is_none_or(|record| record.id != *parent) {
            bail!("job {parent} is not known at {}", stores.place);
        }
    }
    let mut job = new_job(&args, &kind, &value)?;
    place(&stores.producer(), &mut queue, &mut job)?;
    let id = JobId::new(job.ulid, queue.clone());
    hold_inputs(&registry, &stores.services, kind.name(), &value, &id).await?;
    let taken = stores.producer().enqueue(&queue, job).await?;
    let id = taken.id.clone();
    if taken.clash.is_some_and(|clash| clash.replaced) {
        hold_inputs(&registry, &stores.services, kind.name(), &value, &id).await?;
    }
    if !args.wait || taken.spooled {
        return Ok(accepted(&taken, as_json));
    }
    let registry = crate::kinds::for_worker(settings, &stores)?;
    wait(settings, &stores, registry, &id, args.out.as_deref(), as_json).await
}

/// A kind this program knows, or one that workers of another have published.
enum Kind {
    Own(KindSpec),
    Published { name: String, queue: String, catalogue: Catalogue },
}

impl Kind {
    async fn find(registry: &Registry, stores: &Stores, name: &str) -> anyhow::Result<Self> {
        if let Some(spec) = registry.spec(name) {
            return Ok(Self::Own(spec.clone()));
        }
        let catalogue = Catalogue::new(stores.broker.kinds().await?);
        let Some(info) = catalogue.get(name) else {
            let known: Vec<&str> = registry.specs().map(|spec| spec.name).collect();
            bail!("kind {name:?} is not known, and no worker ever published it; there are {}", known.join(", "));
        };
        Ok(Self::Published { name: info.name.clone(), queue: info.queue.clone(), catalogue })
    }

    fn name(&self) -> &str {
        match self {
            Self::Own(spec) => spec.name,
            Self::Published { name, .. } => name,
        }
    }

    fn queue(&self) -> &str {
        match self {
            Self::Own(spec) => spec.queue,
            Self::Published { queue, .. } => queue,
        }
    }

    fn refuse_wrong(&self, registry: &Registry, args: &Value) -> anyhow::Result<()> {
        match self {
            Self::Own(spec) => refuse_wrong(registry, spec.name, args),
            Self::Published { name, catalogue, .. } => refuse(name, &catalogue.check(name, args).unwrap_or_default()),
        }
    }

    /// Runs at most when that is not the default of all kinds; a published kind's workers know.
    fn max_attempts(&self) -> Option<u32> {
        match self {
            Self::Own(spec) => (spec.max_attempts != KindSpec::MAX_ATTEMPTS).then_some(spec.max_attempts),
            Self::Published { .. } => None,
        }
    }
}

/// Enqueues a job of ours and waits for its end, running it here when nobody else does.
pub(crate) async fn submit_and_wait(
    settings: &Settings,
    stores: &Stores,
    kind: &str,
    args: &Value,
    queue: &Queue,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let job = NewJob::new(kind, args)?;
    let id = stores.producer().enqueue(queue, job).await?.id;
    wait(settings, stores, crate::kinds::for_worker(settings, stores)?, &id, None, as_json).await
}

/// Puts a job on its shard, if its queue has some: its id is known from then on.
pub(crate) fn place(producer: &Producer, queue: &mut Queue, job: &mut NewJob) -> anyhow::Result<()> {
    let placed = producer.place(&mut [(queue, job)]);
    placed.map_err(|wrong| windlass_producer::Error::Refused(wrong).into())
}

/// Holds the blobs a job needs until it has ended, whenever that is.
pub(crate) async fn hold_inputs(
    registry: &Registry,
    services: &Services,
    kind: &str,
    args: &Value,
    id: &JobId,
) -> anyhow::Result<()> {
    let blobs = registry.inputs(kind, args).unwrap_or_default().blobs;
    let digests: Vec<Digest> = blobs.iter().map(|blob| blob.parse()).collect::<Result<_, _>>()?;
    if digests.is_empty() {
        return Ok(());
    }
    match services.artifacts.pin(&id.to_string(), &digests).await?.first() {
        Some(missing) => bail!("blob {missing} is not stored: name a file with \"@path\" to upload it"),
        None => Ok(()),
    }
}

fn accepted(taken: &Accepted, as_json: bool) -> ExitCode {
    let Accepted { id, clash, spooled, durability, .. } = taken;
    let unique = clash.map(|clash| if clash.replaced { "replaced" } else { "kept" });
    if as_json {
        let mut line = json!({ "task_id": id, "queue": id.queue });
        if let Some(unique) = unique {
            line["unique"] = unique.into();
        }
        if *spooled {
            line["accepted"] = "spooled".into();
        }
        if let Some(durability) = durability {
            line["durability"] = durability.as_str().into();
        }
        report::json_line(&line);
    } else {
        report::line(format_args!("{id}"));
        match unique {
            Some("replaced") => report::line(format_args!("it held the unique key, and was replaced in its place")),
            Some(_) => report::line(format_args!("it holds the unique key: nothing was enqueued")),
            None => {}
        }
        if let Some(durability) = durability {
            report::line(format_args!("durability reached: {durability}"));
        }
        if *spooled {
            let word = "Redis is away: it waits on this machine's disk, and goes to its queue while `windlass api`, \
                        `worker` or `up` runs with this data directory";
            report::line(format_args!("{word}"));
        }
        report::line(format_args!("see it with `windlass task {id} --follow`"));
    }
    ExitCode::SUCCESS
}

async fn wait(
    settings: &Settings,
    stores: &Stores,
    registry: Registry,
    id: &JobId,
    out: Option<&Path>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    if !as_json {
        report::line(format_args!("{id}"));
    }
    let mut own = own_worker(settings, stores, registry, &id.queue).await?;
    let mut shown = task::Shown::default();
    let record = report::follow(stores.broker.as_ref(), id, |record| shown.show(record, as_json)).await?;
    if let Some(worker) = &mut own {
        worker.drain(settings.grace);
        worker.wait().await?;
    }
    task::finish(stores, &record, out, as_json).await
}

/// A worker of this process for a queue that nobody serves, on the embedded store.
pub(crate) async fn own_worker(
    settings: &Settings,
    stores: &Stores,
    registry: Registry,
    queue: &Queue,
) -> anyhow::Result<Option<Worker>> {
    let workers = stores.broker.workers().await?;
    let serves = |own: &Queue| own == queue || own.as_str() == queue.name();
    let served = workers.iter().any(|worker| worker.queues.iter().any(serves));
    // Someone asked for a result on a machine where nobody works: this process does it.
    let own = match (served, stores.embedded) {
        (false, true) => Some(stores.worker(settings, registry, vec![queue.clone()], None)?),
        (false, false) => {
            tracing::warn!("no worker serves queue {}: start one with `windlass worker --queues {}`", queue, queue);
            None
        }
        (true, _) => None,
    };
    Ok(own)
}

fn new_job(args: &Enqueue, kind: &Kind, value: &Value) -> anyhow::Result<NewJob> {
    let mut job = NewJob::new(kind.name(), value)?;
    job.when = args.delay.map_or(When::Now, When::After);
    job.options = Options {
        priority: args.priority.into(),
        max_attempts: args.max_attempts.or(kind.max_attempts()),
        backoff: None,
        timeout: args.timeout,
        expires: args.expires.map_or(When::Now, When::After),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        tenant: args.tenant.clone(),
        ordering_key: args.ordering_key.clone(),
        concurrency_key: args.concurrency_key.clone(),
        rate_key: args.rate_key.clone(),
        depends_on: (!args.after.is_empty())
            .then(|| DependsOn { parents: args.after.clone(), on_failure: args.on_failure.into() }),
        durability: args.durability.into(),
        unique: args.unique.as_ref().map(|key| Unique {
            key: key.clone(),
            ttl: args.unique_for.unwrap_or(Unique::DEFAULT_TTL),
            until: args.unique_until.into(),
            on_clash: if args.replace { OnClash::Replace } else { OnClash::Keep },
            debounce: args.debounce,
        }),
        trace: None,
    };
    Ok(job)
}

/// Names everything that is wrong with the args.
pub(crate) fn refuse_wrong(registry: &Registry, kind: &str, args: &Value) -> anyhow::Result<()> {
    refuse(kind, &registry.check(kind, args).unwrap_or_default())
}

fn refuse(kind: &str, violations: &[Violation]) -> anyhow::Result<()> {
    if violations.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = violations.iter().map(|v| format!("\n  {} ({}) {}", v.path, v.code, v.message)).collect();
    bail!("the args do not fit {kind}:{}", lines.concat());
}

async fn read_args(args: &Enqueue, services: &Services) -> anyhow::Result<Value> {
    let (text, base) = match args.args.as_deref() {
        None => ("{}".to_owned(), PathBuf::new()),
        Some(path) if path == Path::new("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("args on standard input")?;
            (text, PathBuf::new())
        }
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("args file {}", path.display()))?;
            (text, path.parent().unwrap_or(Path::new("")).to_owned())
        }
    };
    let mut value: Value = serde_json::from_str(&text).context("the args are not JSON")?;
    upload_named(&mut value, &base, services).await?;
    if let Some(dir) = &args.cards {
        add_cards(object(&mut value)?, dir, services).await?;
    }
    if let Some(file) = &args.candles {
        let text = std::fs::read_to_string(file).with_context(|| format!("candles file {}", file.display()))?;
        let candles =
            windlass_chart::csv::candles_from_csv(&text).with_context(|| format!("candles file {}", file.display()))?;
        object(&mut value)?.insert("candles".into(), serde_json::to_value(candles)?);
    }
    Ok(value)
}

fn object(value: &mut Value) -> anyhow::Result<&mut Map<String, Value>> {
    value.as_object_mut().context("the args are not a JSON object")
}

/// Replaces every string `"@path"` by the digest of that file, uploaded.
pub(crate) async fn upload_named(value: &mut Value, base: &Path, services: &Services) -> anyhow::Result<()> {
    let mut todo = vec![value];
    while let Some(value) = todo.pop() {
        match value {
            Value::String(text) => {
                if let Some(path) = text.strip_prefix('@') {
                    *text = upload(&base.join(path), services).await?;
                }
            }
            Value::Array(items) => todo.extend(items),
            Value::Object(members) => todo.extend(members.values_mut()),
            _ => {}
        }
    }
    Ok(())
}

pub(crate) async fn upload(path: &Path, services: &Services) -> anyhow::Result<String> {
    let (digest, _) =
        services.artifacts.upload_file(path).await.with_context(|| format!("upload of {}", path.display()))?;
    Ok(digest.to_string())
}

/// Fills `cards` and `back` from a folder.
pub(crate) async fn add_cards(args: &mut Map<String, Value>, dir: &Path, services: &Services) -> anyhow::Result<()> {
    let deck = windlass_pdf::read_folder(dir).with_context(|| format!("cards folder {}", dir.display()))?;
    let mut cards = Vec::with_capacity(deck.cards.len());
    for card in &deck.cards {
        let mut one = json!({ "front": upload(&card.front, services).await? });
        if let Some(back) = &card.back {
            one["back"] = upload(back, services).await?.into();
        }
        cards.push(one);
    }
    args.insert("cards".into(), cards.into());
    if let Some(back) = &deck.back {
        args.insert("back".into(), upload(back, services).await?.into());
    }
    Ok(())
}
