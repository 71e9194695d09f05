//! Every Redis key of images, with its type. Nothing else builds one.
//!
//! With prefix `wl` all of them start with `wl:{img}:`; the braces keep them in one slot.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `b:<sha256>` | string, PX | an image's or thumbnail's bytes, by content |
//! | `m:<id>` | hash, PX | what is known of an image |
//! | `refs` | hash | sha → images and thumbnails with these bytes |
//! | `age` | sorted set, ms | id by when it was made |
//! | `exp` | sorted set, ms | id by when it goes, if that is before the store's own age |
//! | `size` | sorted set, bytes | id by its size |
//! | `use` | sorted set, ms | id by when it was read last; with `evict: lru` |
//! | `sym:<symbol>` | sorted set, ms | ids of a symbol by when they were made |
//! | `spec:<hash>` | string, PX | the id of an image drawn from these args |
//! | `stat` | hash | levels `bytes`, `created_sum` (ms) and counters; the key scripts are called on |
//!
//! The sets are bounded by the bytes of all images; the TTLs of `b:` and `m:` are twice the
//! sweep's interval beyond an image's age, so that they only matter when nothing sweeps.

use crate::Digest;

/// The Lua lines that name the keys from the one a script is called on.
pub(super) const LUA_NAMES: &str = r"
local P = string.sub(KEYS[1], 1, -5)
local B, M, REFS, AGE, EXP = P..'b:', P..'m:', P..'refs', P..'age', P..'exp'
local SIZE, USE, SYM, SPEC, STAT = P..'size', P..'use', P..'sym:', P..'spec:', KEYS[1]
";

/// The names of the keys under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    base: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { base: format!("{prefix}:{{img}}:") }
    }

    pub(super) fn stat(&self) -> String {
        format!("{}stat", self.base)
    }

    pub(super) fn age(&self) -> String {
        format!("{}age", self.base)
    }

    pub(super) fn refs(&self) -> String {
        format!("{}refs", self.base)
    }

    pub(super) fn blob(&self, digest: &Digest) -> String {
        format!("{}b:{}", self.base, digest.hex())
    }

    /// The pattern of all blobs, for the recount by hand alone.
    pub(super) fn blobs(&self) -> String {
        format!("{}b:*", self.base)
    }

    pub(super) fn meta(&self, id: &str) -> String {
        format!("{}m:{id}", self.base)
    }

    pub(super) fn spec(&self, hash: &str) -> String {
        format!("{}spec:{}", self.base, encoded(hash))
    }

    pub(super) fn symbol(&self, symbol: &str) -> String {
        format!("{}sym:{}", self.base, encoded(symbol))
    }
}

/// A symbol for a key: letters, digits, `.`, `_` and `-` as they are, the rest percent-escaped.
pub(super) fn encoded(symbol: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(symbol.len());
    for byte in symbol.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_symbol_reaches_a_key_unescaped() {
        let keys = Keys::new("wl");
        for (symbol, expected) in [
            ("M&M", "wl:{img}:sym:M%26M"),
            ("NIFTY 50", "wl:{img}:sym:NIFTY%2050"),
            ("BTC/USD", "wl:{img}:sym:BTC%2FUSD"),
            ("{x}:*", "wl:{img}:sym:%7Bx%7D%3A%2A"),
        ] {
            assert_eq!(keys.symbol(symbol), expected);
        }
    }
}
