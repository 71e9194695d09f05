//! What an accepted job survives.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is waited for before a job is answered as accepted. More than [`Durability::Fast`] is a
/// wish: the answer says what was reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The store has it. What the store loses it loses: see how it is run. The default.
    #[default]
    Fast,
    /// So many replicas have it as the broker is set to wait for: it survives the primary.
    Replicated,
    /// It is on the store's disk: it survives a loss of power there.
    Fsynced,
}

impl Durability {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Replicated, Self::Fsynced];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Replicated => "replicated",
            Self::Fsynced => "fsynced",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Durability {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|word| word.as_str() == s);
        found.ok_or_else(|| format!("unknown durability {s:?}; fast, replicated or fsynced is allowed"))
    }
}
