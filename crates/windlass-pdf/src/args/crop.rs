//! What is cut off a picture: `"3mm"`, `"0.125in"`, or a bare number of percent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::layout::PX_PER_MM;

/// What is cut off the pictures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CropArgs {
    /// Off fronts and own backs. Default nothing.
    pub fronts: Option<CropText>,
    /// Off the common back. Default nothing.
    pub backs: Option<CropText>,
}

/// A crop as a job writes it: `"3mm"`, `"0.125in"`, `"6.5"`, `"6.5%"` or `6.5`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CropText {
    /// With its unit.
    Text(String),
    /// Percent.
    Percent(f64),
}

/// A crop that has been understood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Crop {
    /// Off each side, measured on the nominal card, in px300.
    Length(f64),
    /// Of width and height in total: half of it off each side, 0–1.
    Share(f64),
}

/// Less than this part of a picture may be cut off a side.
const MAX_SHARE_A_SIDE: f64 = 0.45;

impl CropText {
    /// What it means, or why it means nothing.
    ///
    /// # Errors
    /// A sentence for a person.
    pub fn parse(&self) -> Result<Crop, String> {
        let text = match self {
            Self::Percent(percent) => return Crop::percent(*percent),
            Self::Text(text) => text.trim(),
        };
        let number = |digits: &str| -> Result<f64, String> {
            let digits = digits.trim();
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            digits.parse().ok().filter(|_| plain).ok_or_else(|| {
                let shown: String = text.chars().take(40).collect();
                format!("{shown:?} is not a crop; allowed: \"3mm\", \"0.125in\" or percent such as \"6.5\"")
            })
        };
        match text {
            _ if text.ends_with("mm") => Ok(Crop::Length(number(text.trim_end_matches("mm"))? * PX_PER_MM)),
            _ if text.ends_with("in") => Ok(Crop::Length(number(text.trim_end_matches("in"))? * 300.0)),
            _ => Crop::percent(number(text.strip_suffix('%').unwrap_or(text))?),
        }
    }
}

impl Crop {
    fn percent(percent: f64) -> Result<Self, String> {
        if percent.is_finite() && percent >= 0.0 {
            return Ok(Self::Share(percent / 100.0));
        }
        Err(format!("{percent} percent is not a crop; allowed: 0 to 90"))
    }

    /// The part of width and height that is cut off in total, each 0–1.
    fn shares(self, card: (f64, f64)) -> (f64, f64) {
        match self {
            Self::Length(px) => (2.0 * px / card.0, 2.0 * px / card.1),
            Self::Share(share) => (share, share),
        }
    }

    /// Whether it leaves enough of a card of this size.
    pub(crate) fn fits(self, card: (f64, f64)) -> bool {
        let (x, y) = self.shares(card);
        x.max(y) < 2.0 * MAX_SHARE_A_SIDE
    }

    /// Whole pixels off each side of a picture, in x and y.
    ///
    /// *Source*: the peer cuts floor(size / 2 · share).
    #[must_use]
    pub fn pixels(self, picture: (u32, u32), card: (f64, f64)) -> (f64, f64) {
        let (x, y) = self.shares(card);
        let off = |size: u32, share: f64| (f64::from(size) / 2.0 * share).floor();
        (off(picture.0, x), off(picture.1, y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDARD: (f64, f64) = (742.0, 1036.0);

    fn text(text: &str) -> Result<Crop, String> {
        CropText::Text(text.into()).parse()
    }

    /// §8.13: 3 mm off 750 × 1050 are 35 pixels a side in x and y.
    #[test]
    fn lengths_are_measured_on_the_nominal_card() {
        assert_eq!(text("3mm").unwrap().pixels((750, 1050), STANDARD), (35.0, 35.0));
        assert_eq!(text("0.125in").unwrap().pixels((742, 1036), STANDARD), (37.0, 37.0));
        assert_eq!(text("3mm"), text(" 3.0 mm "));
    }

    #[test]
    fn a_bare_number_is_percent_of_the_whole_half_of_it_a_side() {
        assert_eq!(text("6.5").unwrap().pixels((1000, 2000), STANDARD), (32.0, 65.0));
        assert_eq!(text("6.5%"), CropText::Percent(6.5).parse());
    }

    #[test]
    fn what_leaves_nothing_does_not_fit() {
        for bad in ["60mm", "100", "90", "1.2in"] {
            assert!(!text(bad).unwrap().fits(STANDARD), "{bad}");
        }
        assert!(text("20mm").unwrap().fits(STANDARD));
    }

    #[test]
    fn what_is_no_crop_is_refused() {
        for bad in ["abc", "", "mm", "-3mm", "3 cm", "NaN", "infmm", "1e3mm", "3,5mm", "0x3mm"] {
            assert!(text(bad).is_err(), "{bad}");
        }
        assert!(CropText::Percent(-1.0).parse().is_err());
    }
}
