//! A time zone, and what happens to a local time that does not exist or exists twice.

use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Timestamp as Instant, civil};

use super::BadPlan;

/// An IANA time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    zone: TimeZone,
    name: String,
}

/// Seconds since 1970-01-01 00:00, as an instant in UTC or as what a local clock shows.
pub(super) type Seconds = i64;

impl Zone {
    /// The longest name, in bytes. The longest in use has 32.
    pub const MAX_BYTES: usize = 64;

    /// UTC.
    #[must_use]
    pub fn utc() -> Self {
        Self { zone: TimeZone::UTC, name: "UTC".to_owned() }
    }

    /// Looks a zone up by its IANA name, in any case: `"Europe/Berlin"`.
    ///
    /// # Errors
    /// [`BadPlan`] with code `zone_unknown`.
    pub fn new(name: &str) -> Result<Self, BadPlan> {
        let shown: String = name.chars().take(Self::MAX_BYTES).collect();
        let unknown =
            || BadPlan::new("zone_unknown", format!("{shown:?} is no IANA time zone, such as Europe/Berlin or UTC"));
        if name.is_empty() || name.len() > Self::MAX_BYTES {
            return Err(unknown());
        }
        let zone = TimeZone::get(name).map_err(|_| unknown())?;
        let name = zone.iana_name().ok_or_else(unknown)?.to_owned();
        Ok(Self { zone, name })
    }

    /// Its IANA name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The local clock at an instant.
    pub(super) fn local(&self, instant: Seconds) -> Seconds {
        instant + self.offset(instant)
    }

    fn offset(&self, instant: Seconds) -> Seconds {
        let at = Instant::from_second(instant).unwrap_or(Instant::MAX);
        self.zone.to_offset(at).seconds().into()
    }

    /// The first change of the zone's rules after an instant.
    pub(super) fn change_after(&self, instant: Seconds) -> Option<Seconds> {
        let at = Instant::from_second(instant).ok()?;
        self.zone.following(at).next().map(|change| change.timestamp().as_second())
    }

    /// When the local clock shows `local`.
    pub(super) fn resolve(&self, local: Seconds) -> Resolved {
        match self.zone.to_ambiguous_timestamp(civil_of(local)).offset() {
            AmbiguousOffset::Unambiguous { offset } => Resolved::Once(local - seconds(offset)),
            AmbiguousOffset::Fold { before, after } => {
                Resolved::Twice { first: local - seconds(before), second: local - seconds(after) }
            }
            AmbiguousOffset::Gap { before, after } => {
                // With the later offset it lies before the change, with the earlier one behind it.
                let end = self.change_after(local - seconds(after)).unwrap_or(local - seconds(before));
                Resolved::Never { gap_end: end }
            }
        }
    }
}

/// The instants of a local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolved {
    Once(Seconds),
    /// The clock was put back.
    Twice {
        first: Seconds,
        second: Seconds,
    },
    /// The clock was put forward over it, at this instant.
    Never {
        gap_end: Seconds,
    },
}

fn seconds(offset: Offset) -> Seconds {
    offset.seconds().into()
}

/// Seconds as a date and time of day.
pub(super) fn civil_of(local: Seconds) -> civil::DateTime {
    Offset::UTC.to_datetime(Instant::from_second(local).unwrap_or(Instant::MAX))
}

/// A date and time of day as seconds.
pub(super) fn seconds_of(civil: civil::DateTime) -> Seconds {
    Offset::UTC.to_timestamp(civil).map_or(Seconds::MAX / 2, Instant::as_second)
}
