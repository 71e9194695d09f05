//! `windlass keys`, `windlass audit` and `windlass records`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use windlass_api::keys::Rate;
use windlass_api::scope::Grant;

use super::parse_span;

/// `windlass keys`.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: KeysVerb,
}

/// What can be done with API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysVerb {
    /// Make a key and print it, the only time; of it only a hash is kept.
    Create(KeysCreate),
    /// Show all keys: what they allow, when they end, when they were last used.
    List,
    /// End a key at once; running APIs know within seconds.
    Revoke {
        /// The key's id, as list shows it.
        id: String,
    },
    /// Give a key a second secret and print it; the old one is taken for a while more.
    Rotate {
        /// The key's id, as list shows it.
        id: String,
        /// How long the old one is taken: 10m, 24h, 0s; at most 30d.
        #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "24h")]
        overlap: Duration,
    },
    /// Show every scope and what it allows.
    Scopes,
}

/// `windlass keys create`.
#[derive(Debug, Args)]
pub(crate) struct KeysCreate {
    /// What it is for.
    #[arg(long)]
    pub(crate) name: String,
    /// What it allows: a scope such as jobs:write, jobs:*, *:read or *; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',')]
    pub(crate) scopes: Vec<Grant>,
    /// Whose it is: it sees and makes only this tenant's jobs, values, locks and sessions.
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// How often it may ask, such as 100/s or 5000/h [default: WINDLASS_RATE_LIMIT].
    #[arg(long, value_name = "N/UNIT")]
    pub(crate) rate: Option<Rate>,
    /// When it ends by itself, from now: 12h, 90d [default: never].
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) expires: Option<Duration>,
}

/// `windlass audit`.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// At most so many, the newest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub(crate) limit: u16,
}

/// `windlass records`.
#[derive(Debug, Args)]
pub(crate) struct RecordsArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: RecordsVerb,
}

/// What can be done with the records.
#[derive(Debug, Subcommand)]
pub(crate) enum RecordsVerb {
    /// Write all records to a file, which only this user can read.
    Export {
        /// The file; one that is there is replaced.
        file: PathBuf,
    },
    /// Take in an exported file; what is there already stays.
    Import {
        /// The file.
        file: PathBuf,
        /// What the file holds takes the place of what is there.
        #[arg(long)]
        replace: bool,
    },
}
