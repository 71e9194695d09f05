//! The args of a card sheet job. What can be wrong with them is in `check`.

mod canonical;
mod check;
mod crop;

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::layout::{self, Layout};

pub(crate) use canonical::RENDERER_VERSION;
pub(crate) use check::MAX_SOURCE_PPI;
pub use check::{MAX_ANGLE, MAX_CARDS, MAX_EXTEND, MAX_OFFSET_PX, MAX_PAGES, MAX_PPI, MAX_TEXT_CHARS, MIN_PPI};
pub(crate) use check::{check_blob, check_offset, check_text, in_range};
pub use crop::{Crop, CropArgs, CropText};

/// What to print, and how.
///
/// *Shape*: a JSON object; only `cards` is required, and an unknown field is refused.
/// A picture is named by its content: `"sha256:"` and 64 lower-case hex digits.
///
/// ```
/// let args: windlass_pdf::CardSheetArgs = serde_json::from_value(serde_json::json!({
///     "cards": [{"front": format!("sha256:{}", "ab".repeat(32)), "copies": 4}],
///     "layout": {"paper": "a4"},
/// })).unwrap();
/// assert!(args.violations().is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CardSheetArgs {
    /// Which sheet the cards are laid on.
    pub layout: LayoutArgs,
    /// The cards in printing order, 1–[`MAX_CARDS`] with copies.
    #[schemars(length(min = 1, max = MAX_CARDS))]
    pub cards: Vec<CardArgs>,
    /// The back of every card that has none of its own. Default: none, which leaves those
    /// places empty but for the marks.
    pub back: Option<String>,
    /// Whether back pages are printed. Default `"duplex"`.
    pub sides: Sides,
    /// In which order. Default `"input"`.
    pub order: Order,
    /// How a picture fills its card. Default `"stretch"`.
    pub fit: Fit,
    /// What lies around each card, so that a cut beside the line shows no paper. Default `"edge"`.
    pub bleed: Bleed,
    /// What is cut off the pictures. Default: nothing.
    pub crop: CropArgs,
    /// How much of each side, in px300, is replaced by repeating what lies inside of it: hides
    /// rounded corners. 0–[`MAX_EXTEND`], default 0.
    pub extend_corners: PerSide,
    /// Places left empty on every sheet, row by row from 0 at the top left of the front. Default none.
    pub skip: Vec<i64>,
    /// Default `"embed"`.
    pub mode: Mode,
    /// Resolution of a page in mode raster, [`MIN_PPI`]–[`MAX_PPI`]. Default 300.
    #[schemars(range(min = MIN_PPI, max = MAX_PPI))]
    pub ppi: i64,
    /// JPEG quality of a page in mode raster, 1–100. Default 75.
    #[schemars(range(min = 1, max = 100))]
    pub quality: i64,
    /// In mode embed a picture finer than this on paper by over a tenth is scaled down to it,
    /// [`MIN_PPI`]–2,400. Default 600.
    #[schemars(range(min = MIN_PPI, max = MAX_SOURCE_PPI))]
    pub max_source_ppi: i64,
    /// How pictures that are not JPEGs are stored in mode embed. Default `"auto"`.
    pub png: PngStorage,
    /// What becomes of CMYK pictures in mode embed. Default `"rgb"`.
    pub cmyk: Cmyk,
    /// Moves the back pages, to make up for a printer that is off. Default: not at all.
    pub offset: OffsetArgs,
    /// The line at the bottom of each front. Default: without a name.
    pub label: LabelArgs,
    /// Whether the line each card is cut along is drawn. Default false.
    pub outline: bool,
    /// Whether registration or crop marks are printed. Default true.
    pub marks: bool,
    /// Format of the result, and what it says about itself.
    pub output: OutputArgs,
    /// Whether an equal job's result is taken. Default `"use"`.
    pub cache: CacheUse,
}

impl Default for CardSheetArgs {
    fn default() -> Self {
        Self {
            layout: LayoutArgs::default(),
            cards: Vec::new(),
            back: None,
            sides: Sides::default(),
            order: Order::default(),
            fit: Fit::default(),
            bleed: Bleed::default(),
            crop: CropArgs::default(),
            extend_corners: PerSide::default(),
            skip: Vec::new(),
            mode: Mode::default(),
            ppi: 300,
            quality: 75,
            max_source_ppi: 600,
            png: PngStorage::default(),
            cmyk: Cmyk::default(),
            offset: OffsetArgs::default(),
            label: LabelArgs::default(),
            outline: false,
            marks: true,
            output: OutputArgs::default(),
            cache: CacheUse::default(),
        }
    }
}

/// Names a [`Layout`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LayoutArgs {
    /// `"v1"` (Silhouette Card Maker 1.0), `"api"` (its API), `"spec"` (its 2.x) or `"exact"`
    /// (true measures and crop marks). Default `"v1"`.
    pub set: String,
    /// Such as `"letter"` or `"a4"`. Default `"letter"`.
    pub paper: String,
    /// Such as `"standard"`, `"poker"` or `"tarot"`. Default `"standard"`.
    pub card: String,
    /// `"default"`, or `"borderless"` in set spec. Default `"default"`.
    pub variant: String,
    /// How many corners carry a registration mark: 3, or 4 in set spec. Default 3.
    #[schemars(range(min = 3, max = 4))]
    pub registration: i64,
}

impl Default for LayoutArgs {
    fn default() -> Self {
        Self {
            set: "v1".into(),
            paper: "letter".into(),
            card: "standard".into(),
            variant: "default".into(),
            registration: 3,
        }
    }
}

/// One card of a deck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CardArgs {
    /// The picture of its front.
    #[schemars(regex(pattern = BLOB_PATTERN))]
    pub front: String,
    /// The picture of its own back. Default: the common back.
    #[serde(default)]
    pub back: Option<String>,
    /// How often it is printed, 1–[`MAX_CARDS`]. Default 1.
    #[serde(default = "one_copy")]
    #[schemars(range(min = 1, max = MAX_CARDS))]
    pub copies: i64,
    /// What it is called, such as its file name: used by order `"peer"` alone. Default none.
    #[serde(default)]
    pub name: Option<String>,
}

fn one_copy() -> i64 {
    1
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $(#[$first_doc:meta])* $first:ident, $($(#[$more_doc:meta])* $more:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $(#[$first_doc])*
            #[default]
            $first,
            $($(#[$more_doc])* $more,)*
        }
    };
}

words! {
    /// Which sides of a sheet are printed.
    Sides {
        /// Pages alternate front, back.
        Duplex,
        /// Fronts only.
        Fronts,
    }
}
words! {
    /// In which order cards are dealt to sheets.
    Order {
        /// As the job lists them.
        Input,
        /// Cards without an own back first, then those with one, each sorted by name as people
        /// sort, and the two sorts never on one sheet: what Silhouette Card Maker does.
        Peer,
    }
}
words! {
    /// How a picture fills a card of another shape.
    Fit {
        /// Width and height are scaled apart; the whole picture shows.
        Stretch,
        /// Keeps the shape; what sticks out is cut off evenly on both sides.
        Crop,
    }
}
words! {
    /// What lies around each card.
    Bleed {
        /// The outermost pixels of its picture, drawn out.
        Edge,
        /// The picture itself, a little enlarged, below the card.
        Scale,
        /// Nothing.
        None,
    }
}
words! {
    /// How pictures come into the document.
    Mode {
        /// Each picture as an object of its own, its pixels untouched where a PDF can hold them.
        Embed,
        /// Each page as one picture, the way Silhouette Card Maker makes them.
        Raster,
    }
}
words! {
    /// How a picture that is not a JPEG is stored.
    PngStorage {
        /// Lossless, unless the pictures of the job are over 64 MiB together.
        Auto,
        /// Every pixel as it is.
        Lossless,
        /// As JPEG of quality 90.
        Jpeg,
    }
}
words! {
    /// What becomes of CMYK pictures.
    Cmyk {
        /// They are turned into RGB.
        Rgb,
        /// They stay; how they look is the viewer's choice.
        Keep,
    }
}
words! {
    /// The unit of an offset.
    Unit {
        /// 1/300 inch.
        Px300,
        /// Millimetres.
        Mm,
    }
}
words! {
    /// The format of the result.
    Format {
        /// One PDF.
        Pdf,
        /// A picture per page. Needs mode raster.
        Png,
        /// Likewise.
        Jpg,
        /// Likewise, lossless.
        Webp,
    }
}
words! {
    /// Whether an equal job's result is taken.
    CacheUse {
        /// It is taken, and kept for later jobs.
        Use,
        /// The job is run in any case, and its result replaces the one that is kept.
        Refresh,
    }
}

/// A number for pictures of the card's own and one for the common back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PerSide {
    /// Of fronts and own backs.
    #[schemars(range(min = 0, max = MAX_EXTEND))]
    pub fronts: i64,
    /// Of the common back.
    #[schemars(range(min = 0, max = MAX_EXTEND))]
    pub backs: i64,
}

/// Where back pages are moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OffsetArgs {
    /// To the right; at most [`MAX_OFFSET_PX`] px300 either way. Default 0.
    pub x: f64,
    /// Downwards, likewise. Default 0.
    pub y: f64,
    /// Clockwise around the middle of the page, in degrees, at most [`MAX_ANGLE`] either way.
    /// Default 0.
    #[schemars(range(min = -MAX_ANGLE, max = MAX_ANGLE))]
    pub angle: f64,
    /// Of `x` and `y`. Default `"px300"`.
    pub unit: Unit,
}

/// The line at the bottom of a front: `[name: X, ]sheet: N, template: T`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LabelArgs {
    /// Its first part; at most [`MAX_TEXT_CHARS`] characters that the embedded font has. Default none.
    #[schemars(length(max = MAX_TEXT_CHARS))]
    pub name: Option<String>,
    /// Default true.
    pub show: bool,
}

impl Default for LabelArgs {
    fn default() -> Self {
        Self { name: None, show: true }
    }
}

/// Format of the result, and what a PDF says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutputArgs {
    /// Default `"pdf"`.
    pub format: Format,
    /// Its title, at most [`MAX_TEXT_CHARS`] characters, no control ones. Default none.
    #[schemars(length(max = MAX_TEXT_CHARS))]
    pub title: Option<String>,
    /// Its author, likewise. Default none.
    #[schemars(length(max = MAX_TEXT_CHARS))]
    pub author: Option<String>,
}

impl OffsetArgs {
    /// `x` and `y` in px300.
    #[must_use]
    pub fn px(&self) -> (f64, f64) {
        let unit = match self.unit {
            Unit::Px300 => 1.0,
            Unit::Mm => layout::PX_PER_MM,
        };
        (self.x * unit, self.y * unit)
    }

    /// True when nothing is moved.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.x == 0.0 && self.y == 0.0 && self.angle == 0.0
    }
}

impl CardSheetArgs {
    /// The layout that is asked for, if there is one.
    #[must_use]
    pub fn find_layout(&self) -> Option<&'static Layout> {
        let LayoutArgs { set, paper, card, variant, .. } = &self.layout;
        layout::find(set, paper, card, variant)
    }

    /// The digests of all pictures, each once, in order of first mention: each card's
    /// front and own back, then the common back. Malformed names are left out.
    #[must_use]
    pub fn digests(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let of_cards = self.cards.iter().flat_map(|c| [Some(c.front.as_str()), c.back.as_deref()]);
        of_cards
            .chain([self.back.as_deref()])
            .flatten()
            .filter_map(blob_digest)
            .filter(|digest| seen.insert(*digest))
            .collect()
    }

    /// The slots of `layout` that are filled, in order.
    pub(crate) fn usable_slots(&self, layout: &Layout) -> Vec<usize> {
        (0..layout.slots()).filter(|slot| !self.skip.iter().any(|s| usize::try_from(*s) == Ok(*slot))).collect()
    }

    /// The number of marked corners; args without violations have 3 or 4.
    pub(crate) fn pattern(&self) -> u8 {
        if self.layout.registration == 4 { 4 } else { 3 }
    }

    /// How many cards are printed, copies counted. Nonsense copies count as none.
    pub(crate) fn card_count(&self) -> usize {
        let copies = self.cards.iter().map(|c| usize::try_from(c.copies).unwrap_or(0));
        copies.fold(0, usize::saturating_add)
    }
}

/// What [`blob_digest`] takes, as a regular expression.
pub(crate) const BLOB_PATTERN: &str = "^sha256:[0-9a-f]{64}$";

/// The hex digest in a blob's name, if the name is well formed.
pub(crate) fn blob_digest(name: &str) -> Option<&str> {
    let digest = name.strip_prefix("sha256:")?;
    let is_hex = digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (digest.len() == 64 && is_hex).then_some(digest)
}
