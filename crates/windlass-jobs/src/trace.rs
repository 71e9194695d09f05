//! Which trace a job belongs to, in the form of W3C Trace Context (Recommendation of 2021-11-23, level 1).

use std::fmt;
use std::str::FromStr;

/// The span of another process under which a job's own spans belong.
///
/// *Shape*, as text: `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`, the header `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole way of a request; never 0.
    pub trace_id: u128,
    /// The span on it; never 0.
    pub span_id: u64,
    /// Bit 0: the trace is recorded.
    pub flags: u8,
}

impl TraceContext {
    /// How many bytes its text has.
    pub const LENGTH: usize = 55;

    /// The context in the short form of a job's options, without reading the rest of it.
    #[must_use]
    pub fn of_short(short: &str) -> Option<Self> {
        // After the other words, of which none can contain it.
        let at = short.rfind("trace=")?;
        short[at + "trace=".len()..].split(' ').next()?.parse().ok()
    }

    /// The 32 hex digits by which a trace is looked up.
    #[must_use]
    pub fn trace_id_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// Whether whoever began the trace records it.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, all lower case, is expected")]
pub struct TraceError;

impl FromStr for TraceContext {
    type Err = TraceError;

    /// A later version is read by its first four parts, as the recommendation has it.
    fn from_str(text: &str) -> Result<Self, TraceError> {
        let mut parts = text.splitn(5, '-');
        let mut next = |digits| parts.next().and_then(|part| hex(part, digits)).ok_or(TraceError);
        let (version, trace_id, span_id, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        let narrow = |_| TraceError;
        let read =
            Self { trace_id, span_id: span_id.try_into().map_err(narrow)?, flags: flags.try_into().map_err(narrow)? };
        let has_more = parts.next().is_some();
        let fits = version != 0xff && (version != 0 || !has_more) && read.trace_id != 0 && read.span_id != 0;
        if fits { Ok(read) } else { Err(TraceError) }
    }
}

/// So many digits, lower case alone.
fn hex(part: &str, digits: usize) -> Option<u128> {
    let fits = part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    fits.then(|| u128::from_str_radix(part, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_examples_of_the_recommendation_are_read_and_written() {
        let read: TraceContext = EXAMPLE.parse().unwrap();
        assert_eq!((read.span_id, read.flags, read.is_sampled()), (0x00f0_67aa_0ba9_02b7, 1, true));
        assert_eq!(read.trace_id_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(read.to_string(), EXAMPLE);
        assert_eq!(EXAMPLE.len(), TraceContext::LENGTH);
        let later = format!("cc{}-what-the-future-will-be", &EXAMPLE[2..]);
        assert_eq!(later.parse(), Ok(read));
        assert_eq!(TraceContext::of_short(&format!("timeout=5 trace={EXAMPLE}")), Some(read));
        assert_eq!(TraceContext::of_short("timeout=5"), None);
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for text in [
            "",
            "00",
            &EXAMPLE[..54],
            &EXAMPLE.to_uppercase(),
            &format!("{EXAMPLE}-more"),
            &format!("ff{}", &EXAMPLE[2..]),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(TraceError), "{text}");
        }
    }
}
