//! The settings file, `windlass.toml`: settings under the names of the environment in small letters
//! without `WINDLASS_`, and what does not fit on one line: `[[schedule]]` and `[trading]`.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Map, Value};

use crate::settings::NAMES;

/// What a file holds besides single values.
#[derive(Default)]
pub(crate) struct Tables {
    /// Each `[[schedule]]`; what is in them is looked at where kinds are known.
    pub(crate) schedules: Vec<Map<String, Value>>,
    /// `[trading]`: see [`crate::market_settings`].
    pub(crate) trading: Option<Value>,
}

/// Values by environment name, and the tables; nothing where no file is asked for and none is there.
///
/// # Errors
/// Names the file, and the setting that is none.
pub(crate) fn read(dir: &Path, config: Option<&Path>) -> anyhow::Result<(Vec<(&'static str, String)>, Tables)> {
    let path = config.map_or_else(|| dir.join("windlass.toml"), Path::to_owned);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if config.is_none() && e.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(e) => return Err(e).with_context(|| format!("settings file {}", path.display())),
    };
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| anyhow!("settings file {} is not TOML: {}", path.display(), e.message()))?;
    let mut found = Vec::new();
    let mut tables = Tables::default();
    for (key, value) in table {
        if key == "schedule" {
            tables.schedules = schedules(value).with_context(|| format!("settings file {}", path.display()))?;
            continue;
        }
        if key == "trading" {
            tables.trading = Some(json(value));
            continue;
        }
        let Some((name, _)) = NAMES.iter().find(|(_, known)| *known == key) else {
            let known: Vec<&str> = NAMES.iter().map(|(_, known)| *known).collect();
            bail!("settings file {}: {key} is no setting; there are {}", path.display(), known.join(", "));
        };
        found.push((*name, one_line(name, &value)?));
    }
    Ok((found, tables))
}

fn schedules(value: toml::Value) -> anyhow::Result<Vec<Map<String, Value>>> {
    let toml::Value::Array(items) = value else { bail!("schedule is not a list: write [[schedule]]") };
    let read = |item| match json(item) {
        Value::Object(members) => Ok(members),
        _ => bail!("a schedule is not a table: write [[schedule]]"),
    };
    items.into_iter().map(read).collect()
}

/// TOML as JSON; an instant as its text.
fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(n) => n.into(),
        toml::Value::Float(n) => n.into(),
        toml::Value::Boolean(b) => b.into(),
        toml::Value::Datetime(at) => at.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(json).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, json(value))).collect(),
    }
}

fn one_line(name: &str, value: &toml::Value) -> anyhow::Result<String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(n) => Ok(n.to_string()),
        toml::Value::Float(n) => Ok(n.to_string()),
        toml::Value::Boolean(b) => Ok(b.to_string()),
        toml::Value::Array(items) => {
            let texts: anyhow::Result<Vec<String>> = items.iter().map(|item| one_line(name, item)).collect();
            Ok(texts?.join(","))
        }
        other => bail!("{name} in the settings file is a {}; a text, number or list is allowed", other.type_str()),
    }
}
