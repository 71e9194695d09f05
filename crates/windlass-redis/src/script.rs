//! Lua scripts, sent by hash and loaded when the server does not know them.

use redis::{Cmd, Value};

use crate::error::Error;
use crate::link::Link;

/// A Lua script and its hash.
#[derive(Debug)]
pub struct Script {
    text: String,
    hash: String,
}

impl Script {
    /// A script from its text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// The start of a call on one key, to which arguments are added. All keys a script
    /// touches share this key's hash tag.
    #[must_use]
    pub fn on(&self, key: &str) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(1).arg(key);
        command
    }

    /// The same with other commands right behind it on the same connection, such as `WAIT`; answers
    /// what became of each.
    ///
    /// # Errors
    /// [`Error`] when there is no answer at all.
    pub async fn run_with(&self, link: &Link, call: Cmd, rest: &[Cmd]) -> Result<Vec<Result<Value, Error>>, Error> {
        let mut row = vec![call];
        row.extend_from_slice(rest);
        let mut replies = link.call_row(key_of(&row[0]), &row).await?;
        for _ in 0..Self::LOADS {
            if !matches!(replies.first(), Some(Err(e)) if e.code() == Some("NOSCRIPT")) {
                break;
            }
            link.call_at(key_of(&row[0]), redis::cmd("SCRIPT").arg("LOAD").arg(&self.text)).await?;
            replies = link.call_row(key_of(&row[0]), &row).await?;
        }
        Ok(replies)
    }

    /// How often a script is given again to a server that forgets it between load and call.
    const LOADS: usize = 5;

    /// Runs a call begun by [`Script::on`]. A server that has lost its scripts (restart,
    /// failover, `SCRIPT FLUSH`) is given this one, and the call is sent again: it had not run.
    /// By hash alone, so that the server's users need no right to `EVAL`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn run(&self, link: &Link, call: &Cmd) -> Result<Value, Error> {
        for _ in 0..Self::LOADS {
            match link.call(call).await {
                Err(e) if e.code() == Some("NOSCRIPT") => {
                    link.call_at(key_of(call), redis::cmd("SCRIPT").arg("LOAD").arg(&self.text)).await?;
                }
                other => return other,
            }
        }
        link.call(call).await
    }
}

/// The key of a call: `EVALSHA hash 1 key …`. In a cluster its server alone is given the script.
fn key_of(call: &Cmd) -> &[u8] {
    match call.args_iter().nth(3) {
        Some(redis::Arg::Simple(key)) => key,
        _ => &[],
    }
}
