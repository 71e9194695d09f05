//! `windlass enqueue --flow FILE`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use windlass_jobs::JobId;
use windlass_producer::Producer;
use windlass_store::Services;
use windlass_worker::Registry;

use super::{hold_inputs, report, upload_named};
use crate::runtime::Stores;

/// Enqueues the jobs of a flow and names each, in the order of the file.
pub(super) async fn run(registry: &Registry, stores: &Stores, file: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let (text, base) = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("flow on standard input")?;
        (text, PathBuf::new())
    } else {
        let text = std::fs::read_to_string(file).with_context(|| format!("flow file {}", file.display()))?;
        (text, file.parent().unwrap_or(Path::new("")).to_owned())
    };
    let mut value: Value = serde_json::from_str(&text).context("the flow is not JSON")?;
    upload_args(&mut value, &base, &stores.services).await?;
    let published = stores.broker.kinds().await?;
    let mut jobs = match windlass_api::read_flow(value.to_string().as_bytes(), registry, published) {
        Ok(jobs) => jobs,
        Err(wrong) => bail!("{}: {wrong}", file.display()),
    };
    let placed = stores.producer().place(&mut jobs.iter_mut().map(|(queue, job)| (queue, job)).collect::<Vec<_>>());
    placed.map_err(windlass_producer::Error::Refused)?;
    for (queue, job) in &jobs {
        let args: Value = serde_json::from_str(job.args.get())?;
        let id = JobId::new(job.ulid, queue.clone());
        hold_inputs(registry, &stores.services, &job.kind, &args, &id).await?;
        for parent in job.options.depends_on.iter().flat_map(|after| &after.parents) {
            let comes_too = jobs.iter().any(|(queue, job)| job.ulid == parent.ulid && *queue == parent.queue);
            if !comes_too && stores.broker.get(parent).await?.is_none() {
                bail!("job {parent} is not known at {}", stores.place);
            }
        }
    }
    let kinds: Vec<String> = jobs.iter().map(|(_, job)| job.kind.clone()).collect();
    let accepted = Producer::new(stores.broker.clone()).enqueue_tied(jobs).await?;
    for (accepted, kind) in accepted.iter().zip(kinds) {
        if as_json {
            let mut line = json!({ "task_id": accepted.id, "queue": accepted.id.queue, "kind": kind });
            if let Some(durability) = accepted.durability {
                line["durability"] = durability.as_str().into();
            }
            report::json_line(&line);
        } else {
            report::line(format_args!("{}  {kind}", accepted.id));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Uploads the files that args name with `"@path"`, wherever in the flow the job stands.
async fn upload_args(flow: &mut Value, base: &Path, services: &Services) -> anyhow::Result<()> {
    let mut todo = vec![flow];
    while let Some(value) = todo.pop() {
        match value {
            Value::Array(steps) => todo.extend(steps),
            Value::Object(members) => {
                for (name, member) in members {
                    match name.as_str() {
                        "args" => upload_named(member, base, services).await?,
                        "chain" | "group" | "then" => todo.push(member),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}
