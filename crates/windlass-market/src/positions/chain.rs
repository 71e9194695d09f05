//! A chain of hashes over the history, so that a line which was forged, taken away or swapped is found.
//!
//! A link is SHA-256 over the link before and the line, part by part with their lengths. Links are made
//! within a second of their lines, not in the transactions that write these: a closing does not wait for
//! them. Lines become visible in another order than that of their numbers; the chain's order is the
//! one in which they were found.
//!
//! Whoever may change the tables as he likes may make the chain anew from where he changed it: only a
//! head that was noted elsewhere tells that. A check compares it.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::audit::audit_row;
use super::cells::Cells;
use super::{AuditRow, Error, Positions, Result, on};

/// A link: its number from 1, and its hash in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Its number.
    pub n: i64,
    /// Its hash.
    pub hash: String,
}

impl Link {
    /// Before the first link.
    fn origin() -> Self {
        Self { n: 0, hash: String::new() }
    }

    /// Reads `12:0a1b…`, as it is shown.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (n, hash) = text.split_once(':')?;
        let is_hash = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        let n = n.parse().ok().filter(|n: &i64| *n > 0 && is_hash)?;
        Some(Self { n, hash: hash.to_ascii_lowercase() })
    }

    /// The link of a line after this one.
    fn next(&self, line: &AuditRow) -> Self {
        let AuditRow { id, at_ms, position_id, kind, actor, detail } = line;
        let position = position_id.map_or(String::new(), |id| id.to_string());
        let mut hash = Sha256::new();
        for part in [&self.hash, &id.to_string(), &at_ms.to_string(), &position, kind, actor, detail] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Self { n: self.n + 1, hash: hex::encode(hash.finalize()) }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.n, self.hash)
    }
}

/// Something that is not as it was when it was linked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// The link.
    pub n: i64,
    /// The line of history; none where the link itself is gone.
    pub audit_id: Option<i64>,
    /// `line_changed`, `line_missing`, `link_missing`, or `head_differs`: the chain was made anew.
    pub what: &'static str,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Links that were looked at.
    pub links: u64,
    /// Lines that are not linked yet; those of the last second or so.
    pub unlinked: i64,
    /// The newest link: to be noted elsewhere, and compared later.
    pub head: Option<Link>,
    /// What is broken, at most 1,000.
    pub broken: Vec<Broken>,
}

/// Lines linked, or links checked, by one statement.
const BATCH: i64 = 5_000;
/// Lines linked by one call.
pub(crate) const LINKED_AT_ONCE: usize = BATCH as usize;
/// Faults that are listed.
const LISTED: usize = 1_000;

impl Positions {
    /// Links lines above this number that are not linked yet; answers how many, and the highest number
    /// among them. One process at a time does so; a second one fails and changes nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn link_history(&self, above: i64) -> Result<(usize, i64)> {
        let mut head = self.head().await?.unwrap_or_else(Link::origin);
        let sql = "SELECT a.id, a.at_ms, a.position_id, a.kind, a.actor, CAST(a.detail AS text) AS detail FROM audit a
                   WHERE a.id > $1 AND NOT EXISTS (SELECT 1 FROM audit_chain c WHERE c.audit_id = a.id) ORDER BY a.id LIMIT $2";
        let lines = on!(self, pool => {
            let rows = sqlx::query(sql).bind(above).bind(BATCH).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(audit_row).collect::<sqlx::Result<Vec<_>>>())
        });
        let lines = lines.map_err(Error::sql("chain"))?;
        let Some(last) = lines.last().map(|line| line.id) else { return Ok((0, above)) };
        let mut links = Vec::with_capacity(lines.len());
        for line in &lines {
            head = head.next(line);
            links.push(json!({ "n": head.n, "audit_id": line.id, "hash": head.hash }));
        }
        let from = self.records("$1", &[("n", "bigint"), ("audit_id", "bigint"), ("hash", "text")]);
        let sql = self.sql(&format!(
            "INSERT INTO audit_chain(n, audit_id, hash) SELECT d.n, d.audit_id, d.hash FROM {from} AS d"
        ));
        let done = on!(self, pool => sqlx::query(sql).bind(json!(links).to_string()).execute(pool).await.map(|_| ()));
        done.map_err(Error::sql("chain"))?;
        Ok((lines.len(), last))
    }

    /// The line above which lines are to be linked, when none is added by a transaction that takes longer than
    /// `span`: the newest that is so much older than the highest linked one. 0 where none is.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn link_floor(&self, span: Duration) -> Result<i64> {
        let highest = "SELECT id, at_ms FROM audit WHERE id = (SELECT max(audit_id) FROM audit_chain)";
        let older = "SELECT id FROM audit WHERE id < $1 AND at_ms < $2 ORDER BY id DESC LIMIT 1";
        let floor: sqlx::Result<Option<i64>> = on!(self, pool => {
            let run = async {
                let highest: Option<(i64, i64)> = sqlx::query_as(highest).fetch_optional(pool).await?;
                let Some((id, at_ms)) = highest else { return Ok(None) };
                let before_ms = at_ms.saturating_sub(windlass_jobs::millis(span));
                sqlx::query_scalar(older).bind(id).bind(before_ms).fetch_optional(pool).await
            };
            run.await
        });
        Ok(floor.map_err(Error::sql("chain"))?.unwrap_or(0))
    }

    /// The newest link.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn head(&self) -> Result<Option<Link>> {
        let sql = "SELECT n, hash FROM audit_chain ORDER BY n DESC LIMIT 1";
        let row = on!(self, pool => {
            let row = sqlx::query(sql).fetch_optional(pool).await;
            row.and_then(|row| row.map(|row| Ok(Link { n: row.int("n")?, hash: row.text("hash")? })).transpose())
        });
        row.map_err(Error::sql("chain"))
    }

    /// Holds the history against its chain, over the newest `most` links or all of them, and the chain
    /// against a head that was noted before.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn check_history(&self, most: Option<i64>, noted: Option<&Link>) -> Result<Checked> {
        let sql = "SELECT count(*) FROM audit a WHERE NOT EXISTS (SELECT 1 FROM audit_chain c WHERE c.audit_id = a.id)";
        let unlinked = on!(self, pool => sqlx::query_scalar(sql).fetch_one(pool).await).map_err(Error::sql("chain"))?;
        let mut checked = Checked { unlinked, head: self.head().await?, ..Checked::default() };
        if let Some(noted) = noted {
            let kept = self.links(noted.n - 1, 1).await?.into_iter().next().filter(|(link, _)| link.n == noted.n);
            if kept.is_none_or(|(link, _)| link.hash != noted.hash) {
                checked.broken.push(Broken { n: noted.n, audit_id: None, what: "head_differs" });
            }
        }
        let top = checked.head.as_ref().map_or(0, |head| head.n);
        let after = most.map_or(0, |most| top.saturating_sub(most)).max(0);
        // The link before the first one is taken as it stands.
        let mut before = match after {
            0 => Link::origin(),
            n => self.links(n - 1, 1).await?.into_iter().next().map_or_else(Link::origin, |(link, _)| link),
        };
        while before.n < top {
            let links = self.links(before.n, BATCH).await?;
            if links.is_empty() {
                break;
            }
            let ids: Vec<i64> = links.iter().map(|(_, id)| *id).collect();
            let lines = self.lines(&ids).await?;
            for (link, id) in links {
                checked.judge(&before, &link, id, lines.get(&id));
                checked.links += 1;
                before = link;
            }
        }
        Ok(checked)
    }

    /// Links after a number, each with its line's number.
    async fn links(&self, after: i64, limit: i64) -> Result<Vec<(Link, i64)>> {
        let sql = "SELECT n, audit_id, hash FROM audit_chain WHERE n > $1 ORDER BY n LIMIT $2";
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(after).bind(limit).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(link).collect::<sqlx::Result<Vec<_>>>())
        });
        rows.map_err(Error::sql("chain"))
    }

    async fn lines(&self, ids: &[i64]) -> Result<HashMap<i64, AuditRow>> {
        let sql = self.sql(&format!(
            "SELECT id, at_ms, position_id, kind, actor, CAST(detail AS text) AS detail FROM audit WHERE id IN (SELECT {})",
            self.each_int("$1")
        ));
        let rows = on!(self, pool => {
            let rows = sqlx::query(sql).bind(json!(ids).to_string()).fetch_all(pool).await;
            rows.and_then(|rows| rows.iter().map(audit_row).collect::<sqlx::Result<Vec<_>>>())
        });
        Ok(rows.map_err(Error::sql("chain"))?.into_iter().map(|line| (line.id, line)).collect())
    }
}

impl Checked {
    fn judge(&mut self, before: &Link, link: &Link, id: i64, line: Option<&AuditRow>) {
        let what = match line {
            _ if link.n != before.n + 1 => {
                // One of the links between is gone; this one stands on a hash that nobody has.
                self.fault(before.n + 1, None, "link_missing");
                return;
            }
            None => "line_missing",
            Some(line) if before.next(line) != *link => "line_changed",
            Some(_) => return,
        };
        self.fault(link.n, Some(id), what);
    }

    fn fault(&mut self, n: i64, audit_id: Option<i64>, what: &'static str) {
        if self.broken.len() < LISTED {
            self.broken.push(Broken { n, audit_id, what });
        }
    }
}

fn link(row: &impl Cells) -> sqlx::Result<(Link, i64)> {
    Ok((Link { n: row.int("n")?, hash: row.text("hash")? }, row.int("audit_id")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_told_by_all_of_its_line_8_29() {
        let line = AuditRow {
            id: 7,
            at_ms: 5,
            position_id: None,
            kind: "gap".into(),
            actor: "feed".into(),
            detail: "{}".into(),
        };
        let first = Link::origin().next(&line);
        assert_eq!(Link::parse(&first.to_string()).unwrap(), first);
        let others = [
            AuditRow { id: 8, ..line.clone() },
            AuditRow { at_ms: 6, ..line.clone() },
            AuditRow { position_id: Some(0), ..line.clone() },
            AuditRow { kind: "ga".into(), actor: "pfeed".into(), ..line.clone() },
            AuditRow { detail: "{ }".into(), ..line.clone() },
        ];
        for other in others {
            assert_ne!(Link::origin().next(&other), first, "{other:?}");
        }
        assert_ne!(first.next(&line).hash, first.hash);
        for bad in ["", "1", "0:ab", "x:y", &format!("1:{}", "z".repeat(64))] {
            assert_eq!(Link::parse(bad), None, "{bad}");
        }
    }
}
