//! `windlass records export` and `windlass records import`: API keys, schedules and the audit log, from
//! one store of records to a file and from a file to any other.
//!
//! *Shape*: `{"windlass_records": 1, "exported_at", "spaces": {space: {"sets": {set: {name: document}},
//! "logs": {log: [entry]}}}}`, logs newest first. Of keys it holds the hashes, so it is written for this
//! user only.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use windlass_api::audit::{self, Entry};
use windlass_api::keys;
use windlass_jobs::Timestamp;
use windlass_scheduler as sched;
use windlass_store::records::{Batch, Expect, MAX_WRITES, Records, Write, Written};

use super::report;
use crate::cli::RecordsVerb;
use crate::runtime::Stores;
use crate::settings::Settings;

/// The form of the file.
const FORMAT: u32 = 1;
/// Entries of a log that are taken.
const MAX_ENTRIES: usize = 100_000;
/// Entries written at once.
const SLICE: usize = 400;

/// A space, its sets, its logs, and the set whose documents have a log each by their name.
struct Space {
    name: &'static str,
    sets: &'static [&'static str],
    logs: &'static [&'static str],
    log_of_each: Option<&'static str>,
}

/// Everything there is in the records.
const SPACES: [Space; 2] = [
    Space {
        name: keys::SPACE,
        sets: &[keys::KEYS, keys::USES, keys::SETTINGS],
        logs: &[audit::LOG],
        log_of_each: None,
    },
    Space {
        name: sched::SPACE,
        sets: &[sched::SCHEDULES, sched::STATES],
        logs: &[],
        log_of_each: Some(sched::SCHEDULES),
    },
];

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Export {
    windlass_records: u32,
    exported_at: Timestamp,
    spaces: BTreeMap<String, Content>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Content {
    sets: BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
    logs: BTreeMap<String, Vec<Box<RawValue>>>,
}

pub(crate) async fn run(settings: &Settings, verb: RecordsVerb, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    let records = stores.records.as_ref();
    match verb {
        RecordsVerb::Export { file } => {
            let export = export(records).await?;
            let (documents, entries) = size(&export);
            write_file(&file, &serde_json::to_vec_pretty(&export)?)?;
            said(as_json, "exported", documents, entries);
        }
        RecordsVerb::Import { file, replace } => {
            let text = std::fs::read(&file).with_context(|| format!("file {}", file.display()))?;
            let export: Export =
                serde_json::from_slice(&text).with_context(|| format!("{} is no export of records", file.display()))?;
            let (documents, entries) = import(records, &export, replace).await?;
            audit::write(records, &Entry::of_cli("records import", &file.display().to_string())).await?;
            said(as_json, "imported", documents, entries);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn said(as_json: bool, what: &str, documents: usize, entries: usize) {
    if as_json {
        report::json_line(&json!({ "done": what, "documents": documents, "log_entries": entries }));
    } else {
        report::line(format_args!("{documents} documents and {entries} log entries {what}"));
    }
}

fn size(export: &Export) -> (usize, usize) {
    let documents = export.spaces.values().flat_map(|space| space.sets.values()).map(BTreeMap::len).sum();
    let entries = export.spaces.values().flat_map(|space| space.logs.values()).map(Vec::len).sum();
    (documents, entries)
}

async fn export(records: &dyn Records) -> anyhow::Result<Export> {
    let mut spaces = BTreeMap::new();
    for space in &SPACES {
        let mut content = Content::default();
        for set in space.sets {
            let mut documents = BTreeMap::new();
            for record in records.all(space.name, set).await? {
                let json = RawValue::from_string(record.json).with_context(|| format!("{set}/{}", record.name))?;
                documents.insert(record.name, json);
            }
            content.sets.insert((*set).to_owned(), documents);
        }
        let each = space.log_of_each.and_then(|set| content.sets.get(set)).map(|set| set.keys().cloned());
        let logs: BTreeSet<String> =
            space.logs.iter().map(|log| (*log).to_owned()).chain(each.into_iter().flatten()).collect();
        for log in logs {
            let entries = records.log(space.name, &log, 0, MAX_ENTRIES).await?;
            if !entries.is_empty() {
                let entries: Result<Vec<_>, _> = entries.into_iter().map(RawValue::from_string).collect();
                content.logs.insert(log, entries?);
            }
        }
        spaces.insert(space.name.to_owned(), content);
    }
    Ok(Export { windlass_records: FORMAT, exported_at: Timestamp::now(), spaces })
}

/// A file only this user reads, whole or not there.
fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", windlass_jobs::new_ulid()));
    let written = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    let result = written();
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result.with_context(|| format!("file {}", path.display()))
}

async fn import(records: &dyn Records, export: &Export, replace: bool) -> anyhow::Result<(usize, usize)> {
    if export.windlass_records != FORMAT {
        bail!("the file is of form {}; this version knows {FORMAT}", export.windlass_records);
    }
    let (mut documents, mut entries) = (0, 0);
    for (name, content) in &export.spaces {
        let Some(space) = SPACES.iter().find(|space| space.name == name) else {
            bail!("the file holds a space {name:?}, which this version does not know");
        };
        let mut writes = Vec::new();
        for (set, all) in &content.sets {
            let Some(set) = space.sets.iter().find(|known| *known == set) else {
                bail!("the file holds a set {set:?} of {name}, which this version does not know");
            };
            documents += all.len();
            for (document, json) in all {
                let (name, json) = (document.clone(), json.get().to_owned());
                writes.push(if replace {
                    Write::Put { set, name, json, expect: Expect::Any }
                } else {
                    Write::Seed { set: (*set).to_owned(), name, json }
                });
            }
        }
        for (log, all) in &content.logs {
            if replace {
                writes.push(Write::DropLog { log: log.clone() });
            } else if !records.log(space.name, log, 0, 1).await?.is_empty() {
                continue;
            }
            entries += all.len();
            for slice in all.chunks(SLICE) {
                let entries = slice.iter().map(|entry| entry.get().to_owned()).collect();
                writes.push(Write::Extend { log: log.clone(), entries });
            }
        }
        for slice in writes.chunks(MAX_WRITES) {
            let batch = Batch { notify: true, writes: slice.to_vec(), ..Batch::default() };
            match records.write(space.name, &batch).await? {
                Written::Done(_) => {}
                other => bail!("the records refused a part of the import: {other:?}"),
            }
        }
    }
    Ok((documents, entries))
}
