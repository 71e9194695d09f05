//! Pages of listings, and their cursors: where a page ended, signed, so that nobody makes one up.
//!
//! *Shape of a cursor*: base64url of 16 bytes of MAC and the position. The MAC covers the listing, its
//! filter and the caller's tenant too: a cursor of another listing or tenant is none (B37).

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use crate::auth::Caller;
use crate::problem::{Code, Problem};

/// Entries of a page unless its reader says otherwise.
pub(crate) const PAGE: usize = 50;
/// Entries of a page at most.
pub(crate) const MAX_PAGE: usize = 500;
const MAC_BYTES: usize = 16;
/// The longest cursor that is looked at, in characters.
const MAX_CURSOR: usize = 1024;

/// The secret that cursors are signed with.
#[derive(Clone, Copy)]
pub(crate) struct Signer([u8; 32]);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(***)")
    }
}

impl Signer {
    /// A new secret.
    pub(crate) fn new() -> Self {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).expect("the system gives random bytes");
        Self(secret)
    }

    /// The secret as it is kept.
    pub(crate) fn to_json(self) -> String {
        format!("\"{}\"", hex::encode(self.0))
    }

    /// A secret that was kept.
    pub(crate) fn from_json(json: &str) -> Option<Self> {
        let mut secret = [0; 32];
        hex::decode_to_slice(json.trim_matches('"'), &mut secret).ok()?;
        Some(Self(secret))
    }

    fn mac(self, listing: &Listing<'_>, position: &str) -> [u8; MAC_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in [listing.path, listing.filter, listing.caller.tenant().unwrap_or_default(), position] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut mac = [0; MAC_BYTES];
        hasher.finalize_xof().fill(&mut mac);
        mac
    }
}

/// One listing as a caller sees it.
pub(crate) struct Listing<'a> {
    /// Its path.
    pub(crate) path: &'a str,
    /// What it is narrowed to.
    pub(crate) filter: &'a str,
    pub(crate) caller: &'a Caller,
}

impl Listing<'_> {
    /// The cursor of a position.
    pub(crate) fn seal(&self, signer: Signer, position: &str) -> String {
        let mac = signer.mac(self, position);
        URL_SAFE_NO_PAD.encode([&mac[..], position.as_bytes()].concat())
    }

    /// The position of a cursor.
    ///
    /// # Errors
    /// 422 unless it is one of this listing.
    pub(crate) fn open(&self, signer: Signer, cursor: &str) -> Result<String, Problem> {
        let position = || {
            let bytes = URL_SAFE_NO_PAD.decode(cursor).ok().filter(|_| cursor.len() <= MAX_CURSOR)?;
            let (mac, position) = bytes.split_at_checked(MAC_BYTES)?;
            let position = std::str::from_utf8(position).ok()?;
            bool::from(signer.mac(self, position).ct_eq(mac)).then(|| position.to_owned())
        };
        position().ok_or_else(|| Problem::new(Code::CursorInvalid, "cursor is what next of the page before said"))
    }
}

/// `?cursor=&limit=` of a listing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageQuery {
    pub(crate) cursor: Option<String>,
    pub(crate) limit: Option<usize>,
}

/// What was asked for.
pub(crate) fn asked(query: Result<Query<PageQuery>, QueryRejection>) -> Result<PageQuery, Problem> {
    let wrong = |_| Problem::new(Code::QueryInvalid, "only ?cursor= and ?limit= are known here, limit a number");
    query.map(|Query(query)| query).map_err(wrong)
}

/// The limit of a page, as asked for.
pub(crate) fn limit(asked: Option<usize>, default: usize) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(default);
    if (1..=MAX_PAGE).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::new(Code::QueryInvalid, format!("limit is {limit}; 1 to {MAX_PAGE} is allowed")))
}

impl PageQuery {
    /// Where the page begins, and how long it is.
    pub(crate) fn read(
        self,
        signer: Signer,
        listing: &Listing<'_>,
        default: usize,
    ) -> Result<(Option<String>, usize), Problem> {
        let after = self.cursor.map(|cursor| listing.open(signer, &cursor)).transpose()?;
        Ok((after, limit(self.limit, default)?))
    }
}

/// A page of things in the order of their names: those after `after`; and the name it ends with when
/// there are more.
pub(crate) fn page<T>(
    mut all: Vec<T>,
    name: impl Fn(&T) -> &str,
    after: Option<&str>,
    limit: usize,
) -> (Vec<T>, Option<String>) {
    all.sort_by(|a, b| name(a).cmp(name(b)));
    let from = after.map_or(0, |after| all.partition_point(|item| name(item) <= after));
    let mut rest = all.split_off(from);
    let more = rest.len() > limit;
    rest.truncate(limit);
    let next = rest.last().filter(|_| more).map(|last| name(last).to_owned());
    (rest, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_on_where_the_one_before_ended() {
        let names = || vec!["c", "a", "e", "b", "d"];
        let take = |after, limit| page(names(), |name| name, after, limit);
        assert_eq!(take(None, 2), (vec!["a", "b"], Some("b".into())));
        assert_eq!(take(Some("b"), 2), (vec!["c", "d"], Some("d".into())));
        assert_eq!(take(Some("d"), 2), (vec!["e"], None));
        assert_eq!(take(Some("bb"), 3), (vec!["c", "d", "e"], None), "its last one went meanwhile");
    }
}
