//! `windlass keys` and `windlass audit`.

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use windlass_api::audit::{self, Entry};
use windlass_api::keys::{Book, Key, NewKey};
use windlass_api::scope::Scope;
use windlass_jobs::Timestamp;
use windlass_store::records::Records;

use super::report;
use crate::cli::{Audit, KeysCreate, KeysVerb};
use crate::runtime::Stores;
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, verb: KeysVerb, as_json: bool) -> anyhow::Result<ExitCode> {
    if matches!(verb, KeysVerb::Scopes) {
        scopes(as_json);
        return Ok(ExitCode::SUCCESS);
    }
    let records = Stores::open(settings).await?.records;
    let book = Book::new(Arc::clone(&records));
    match verb {
        KeysVerb::Create(args) => create(&book, records.as_ref(), args, as_json).await?,
        KeysVerb::List => list(&book, as_json).await?,
        KeysVerb::Revoke { id } => {
            let key = book.revoke(&id).await?;
            audit::write(records.as_ref(), &Entry::of_cli("keys revoke", &key.id)).await?;
            if as_json {
                report::json_line(&key.to_json(Timestamp::now(), None));
            } else {
                report::line(format_args!("key {} ({}) is revoked", key.id, key.name));
            }
        }
        KeysVerb::Rotate { id, overlap } => {
            let (text, key) = book.rotate(&id, overlap).await?;
            audit::write(records.as_ref(), &Entry::of_cli("keys rotate", &key.id)).await?;
            say(&text, &key, as_json);
        }
        KeysVerb::Scopes => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(book: &Book, records: &dyn Records, args: KeysCreate, as_json: bool) -> anyhow::Result<()> {
    let KeysCreate { name, scopes, tenant, rate, expires } = args;
    let expires_at = expires.map(|span| Timestamp::now().plus(span));
    let (text, key) = book.create(NewKey { name, scopes, tenant, rate, expires_at }).await?;
    audit::write(records, &Entry::of_cli("keys create", &key.id)).await?;
    say(&text, &key, as_json);
    Ok(())
}

/// The key goes to standard output, alone, so that a program can take it.
fn say(text: &str, key: &Key, as_json: bool) {
    if as_json {
        let mut body = key.to_json(Timestamp::now(), None);
        body["key"] = text.into();
        report::json_line(&body);
    } else {
        report::notice(format_args!("key {} ({}), shown this once:", key.id, key.name));
        report::line(text);
    }
}

async fn list(book: &Book, as_json: bool) -> anyhow::Result<()> {
    let (all, now) = (book.all().await?, Timestamp::now());
    if as_json {
        let keys: Vec<_> = all.iter().map(|(key, used_at)| key.to_json(now, *used_at)).collect();
        report::json_line(&json!({ "keys": keys }));
        return Ok(());
    }
    if all.is_empty() {
        report::line("no keys; make one: windlass keys create --name NAME --scope SCOPE");
    }
    for (key, used_at) in &all {
        let view = key.to_json(now, *used_at);
        let scopes: Vec<String> = key.scopes.iter().map(ToString::to_string).collect();
        report::line(format_args!("{}  {}  {}", key.id, view["status"].as_str().unwrap_or_default(), key.name));
        report::line(format_args!("  allows    {}", scopes.join(", ")));
        if let Some(tenant) = &key.tenant {
            report::line(format_args!("  tenant    {tenant}"));
        }
        for (name, at) in [("created", Some(key.created_at)), ("ends", key.expires_at), ("last used", *used_at)] {
            if let Some(at) = at {
                report::line(format_args!("  {name:<9} {at}"));
            }
        }
    }
    Ok(())
}

fn scopes(as_json: bool) {
    if as_json {
        let all: Vec<_> = Scope::ALL.iter().map(|s| json!({ "scope": s.as_str(), "about": s.about() })).collect();
        report::json_line(&json!({ "scopes": all }));
        return;
    }
    for scope in Scope::ALL {
        report::line(format_args!("{:<17} {}", scope.as_str(), scope.about()));
    }
}

pub(crate) async fn audit(settings: &Settings, args: &Audit, as_json: bool) -> anyhow::Result<ExitCode> {
    let records = Stores::open(settings).await?.records;
    let entries = audit::read(records.as_ref(), 0, usize::from(args.limit)).await?;
    if as_json {
        report::json_line(&json!({ "entries": entries }));
        return Ok(ExitCode::SUCCESS);
    }
    for entry in &entries {
        let status = if entry.status == 0 { String::new() } else { format!("  {}", entry.status) };
        let who = entry.name.as_ref().map_or_else(|| entry.who.clone(), |name| format!("{} ({name})", entry.who));
        report::line(format_args!("{}  {who}  {}  {}{status}", entry.at, entry.action, entry.target));
    }
    Ok(ExitCode::SUCCESS)
}
