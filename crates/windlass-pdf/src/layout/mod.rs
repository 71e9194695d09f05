//! Where cards and marks lie on a sheet: pure geometry, as versioned data.
//!
//! All lengths are in px300: pixels of a page at 300 ppi, the unit of the tables that users'
//! cutting templates were made for (1 px300 = 1/300 in = 0.24 pt). The origin is the top left
//! corner of the page, y downwards.
//!
//! A layout never changes once it is released: a correction gets a new template name.

mod label;
mod tables;

use std::sync::LazyLock;

pub(crate) use label::LABEL_SIZE;
pub use label::LabelPlace;

/// Points per px300.
pub const PT_PER_PX: f64 = 0.24;
/// px300 per millimetre.
pub const PX_PER_MM: f64 = 300.0 / 25.4;

/// Clear space between the grid and a crop mark of the set `exact`, in millimetres.
pub const CROP_MARK_GAP_MM: f64 = 1.0;
/// Length of a crop mark, in millimetres: with the gap it ends 5 mm from the grid, inside what
/// home printers can print.
pub const CROP_MARK_LENGTH_MM: f64 = 4.0;
/// Width of a crop mark, in px300 (0.25 pt).
pub const CROP_MARK_WIDTH: f64 = 0.25 / PT_PER_PX;

/// A rectangle on the page, in px300.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Rect {
    /// The rectangle of this size at (`x`, `y`).
    #[must_use]
    pub const fn new(x: f64, y: f64, width: f64, height: f64) -> Self {
        Self { x, y, width, height }
    }

    /// Its right edge.
    #[must_use]
    pub fn right(&self) -> f64 {
        self.x + self.width
    }

    /// Its bottom edge.
    #[must_use]
    pub fn bottom(&self) -> f64 {
        self.y + self.height
    }

    /// Smaller by `x` at the left and right and `y` at the top and bottom; negative: larger.
    #[must_use]
    pub fn inset(&self, x: f64, y: f64) -> Self {
        Self::new(self.x + x, self.y + y, self.width - 2.0 * x, self.height - 2.0 * y)
    }

    /// Whether they share more than an edge.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.x < other.right() && other.x < self.right() && self.y < other.bottom() && other.y < self.bottom()
    }
}

/// How a cutting machine, or a person with a knife, finds its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Marks {
    /// A filled square and bars, as measured on the peer's pages.
    Bars(Vec<Rect>),
    /// Computed: stroke, inset from the paper's edges and arm length, in px300.
    Computed { stroke: f64, inset: f64, arm: f64 },
    /// Hairlines around the grid at every line a card is cut along.
    Crop,
}

/// One way to lay cards on a paper: a grid of equal cards.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// The set it belongs to: `v1`, `api`, `spec` or `exact`.
    pub set: &'static str,
    /// The paper, as a job names it.
    pub paper: String,
    /// The card, as a job names it.
    pub card: String,
    /// `default`, or `borderless` (set `spec` only).
    pub variant: String,
    /// The versioned name that results and labels carry; users pick the cutting template by it.
    pub template: String,
    /// Width and height of the page.
    pub page: (f64, f64),
    /// Width and height of a card.
    pub card_size: (f64, f64),
    /// Left edges of the columns, rising.
    pub xs: Vec<f64>,
    /// Top edges of the rows, rising.
    pub ys: Vec<f64>,
    /// Radius of a card's corners, for the outline.
    pub radius: f64,
    pub(crate) marks: Marks,
    /// How far above the bottom of the page the label's letters stand.
    pub(crate) label_rise: f64,
}

/// Every layout there is, in the order of sets, papers and cards.
pub static LAYOUTS: LazyLock<Vec<Layout>> = LazyLock::new(tables::all);

/// The layout of that set, paper, card and variant, if there is one. Set `spec` knows some
/// cards by a second name.
#[must_use]
pub fn find(set: &str, paper: &str, card: &str, variant: &str) -> Option<&'static Layout> {
    let card = tables::canonical_card(set, card);
    LAYOUTS.iter().find(|l| l.set == set && l.paper == paper && l.card == card && l.variant == variant)
}

/// Other names of cards in set `spec`, as (alias, name).
pub fn card_aliases() -> impl Iterator<Item = (&'static str, &'static str)> {
    tables::aliases()
}

/// Names the tables' bytes, for the key of a result.
pub(crate) fn data_hash() -> &'static str {
    tables::data_hash()
}

impl Layout {
    /// How many cards one side of a sheet has room for.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.xs.len() * self.ys.len()
    }

    /// Where slot `slot` lies; slots count row by row from 0 at the top left.
    ///
    /// # Panics
    /// When there is no such slot.
    #[must_use]
    pub fn slot(&self, slot: usize) -> Rect {
        let (row, column) = (slot / self.xs.len(), slot % self.xs.len());
        Rect::new(self.xs[column], self.ys[row], self.card_size.0, self.card_size.1)
    }

    /// Where, on the back page, the back of the card in `slot` lies: the sheet is turned about
    /// its horizontal axis, so (row, column) comes to lie behind (rows − 1 − row, column).
    #[must_use]
    pub fn back_slot(&self, slot: usize) -> usize {
        let (row, column) = (slot / self.xs.len(), slot % self.xs.len());
        (self.ys.len() - 1 - row) * self.xs.len() + column
    }

    /// How far the bleed of a card reaches to the sides and up and down: half of the first gap
    /// between two cards, rounded up, as the peer does; the other direction's where a grid has
    /// one column or row.
    #[must_use]
    pub fn bleed(&self) -> (f64, f64) {
        let half_gap = |at: &[f64], size: f64| match at {
            [first, second, ..] => Some(((second - first - size) / 2.0 - 1e-6).ceil().max(0.0)),
            _ => None,
        };
        let (x, y) = (half_gap(&self.xs, self.card_size.0), half_gap(&self.ys, self.card_size.1));
        let fallback = x.or(y).unwrap_or(0.0);
        (x.unwrap_or(fallback), y.unwrap_or(fallback))
    }

    /// True when the sheet is wider than high: its horizontal axis is then the long edge.
    #[must_use]
    pub fn is_landscape(&self) -> bool {
        self.page.0 >= self.page.1
    }

    /// The black marks of a page, fronts and backs alike. `pattern` is the number of corners
    /// that carry a mark, 3 or 4; 4 only in set `spec`.
    #[must_use]
    pub fn marks(&self, pattern: u8) -> Vec<Rect> {
        match &self.marks {
            Marks::Bars(bars) => bars.clone(),
            Marks::Computed { stroke, inset, arm } => computed_marks(self.page, *stroke, *inset, *arm, pattern),
            Marks::Crop => self.crop_marks(),
        }
    }

    /// Where the label of a front goes, `width` px300 wide; `None` when the page has no room
    /// for it beside cards and marks.
    #[must_use]
    pub fn label(&self, width: f64, pattern: u8) -> Option<LabelPlace> {
        label::place(self, width, &self.marks(pattern))
    }

    /// The rectangle from the first card to the last.
    #[must_use]
    pub fn grid(&self) -> Rect {
        let (left, top) = (self.xs[0], self.ys[0]);
        let right = self.xs[self.xs.len() - 1] + self.card_size.0;
        let bottom = self.ys[self.ys.len() - 1] + self.card_size.1;
        Rect::new(left, top, right - left, bottom - top)
    }

    fn crop_marks(&self) -> Vec<Rect> {
        let grid = self.grid();
        let (gap, length) = (CROP_MARK_GAP_MM * PX_PER_MM, CROP_MARK_LENGTH_MM * PX_PER_MM);
        let half = CROP_MARK_WIDTH / 2.0;
        let mut marks = Vec::new();
        for x in self.xs.iter().flat_map(|x| [*x, x + self.card_size.0]) {
            for y in [grid.y - gap - length, grid.bottom() + gap] {
                marks.push(Rect::new(x - half, y, CROP_MARK_WIDTH, length));
            }
        }
        for y in self.ys.iter().flat_map(|y| [*y, y + self.card_size.1]) {
            for x in [grid.x - gap - length, grid.right() + gap] {
                marks.push(Rect::new(x, y - half, length, CROP_MARK_WIDTH));
            }
        }
        marks
    }
}

/// The square at the top left and an L at each other corner; with pattern 4 an L there too, and
/// with pattern 3 none at the bottom right.
fn computed_marks(page: (f64, f64), stroke: f64, inset: f64, arm: f64, pattern: u8) -> Vec<Rect> {
    const SQUARE_MM: f64 = 5.0;
    let half = stroke / 2.0;
    let (near, far_x, far_y) = (inset - half, page.0 - inset + half, page.1 - inset + half);
    let long = arm + half;
    // Each corner: one bar along x, one along y.
    let corner = |right: bool, bottom: bool| {
        let x = if right { far_x - long } else { near };
        let y = if bottom { far_y - long } else { near };
        let (bar_y, bar_x) = (if bottom { far_y - stroke } else { near }, if right { far_x - stroke } else { near });
        [Rect::new(x, bar_y, long, stroke), Rect::new(bar_x, y, stroke, long)]
    };
    let mut marks = Vec::new();
    if pattern == 4 {
        marks.extend(corner(false, false));
        marks.extend(corner(true, true));
    } else {
        let side = SQUARE_MM * PX_PER_MM + stroke;
        marks.push(Rect::new(near, near, side, side));
    }
    marks.extend(corner(true, false));
    marks.extend(corner(false, true));
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_has_the_layouts_of_its_source() {
        let count = |set: &str| LAYOUTS.iter().filter(|l| l.set == set).count();
        assert_eq!((count("v1"), count("spec"), count("exact")), (19, 190, 2));
        assert!(count("api") > 19);
        let letter = find("v1", "letter", "standard", "default").unwrap();
        assert_eq!(letter.template, "letter_standard_v3");
        assert_eq!((letter.page, letter.card_size), ((3300.0, 2550.0), (742.0, 1036.0)));
        assert_eq!(letter.xs, [141.0, 900.0, 1658.0, 2417.0]);
        assert_eq!(letter.bleed(), (9.0, 7.0));
        assert_eq!(find("api", "letter", "standard", "default").unwrap().template, "letter_standard_v4");
        assert_eq!(find("spec", "letter", "euro_poker", "borderless").unwrap().card, "standard");
        assert!(find("v1", "letter", "euro_poker", "default").is_none());
    }

    #[test]
    fn no_card_and_no_mark_leaves_its_page_and_no_cards_overlap() {
        for layout in LAYOUTS.iter() {
            let page = Rect::new(0.0, 0.0, layout.page.0, layout.page.1);
            let inside = |r: &Rect| r.x >= 0.0 && r.y >= 0.0 && r.right() <= page.width && r.bottom() <= page.height;
            let cards: Vec<Rect> = (0..layout.slots()).map(|s| layout.slot(s)).collect();
            assert!(cards.iter().all(inside), "{layout:?}");
            assert!(layout.marks(3).iter().all(inside), "{layout:?}");
            for (i, a) in cards.iter().enumerate() {
                assert!(cards[i + 1..].iter().all(|b| !a.overlaps(b)), "{layout:?}");
            }
        }
    }

    #[test]
    fn backs_mirror_rows_and_twice_is_the_same_place() {
        let layout = find("v1", "letter", "poker_half", "default").unwrap();
        for slot in 0..layout.slots() {
            let back = layout.back_slot(slot);
            assert_eq!(layout.slot(back).x, layout.slot(slot).x);
            assert_eq!(layout.back_slot(back), slot);
        }
    }

    #[test]
    fn computed_marks_fit_those_measured_on_the_peers_pages() {
        // The peer's letter page, 10 mm inset and 1 mm stroke: square at 112, L at the right ends at 3189.
        let marks = computed_marks((3300.0, 2550.0), PX_PER_MM, 10.0 * PX_PER_MM, 7.7 * PX_PER_MM, 3);
        let measured = find("v1", "letter", "standard", "default").unwrap().marks(3);
        let near = |a: &Rect, b: &Rect| {
            [(a.x, b.x), (a.y, b.y), (a.right(), b.right()), (a.bottom(), b.bottom())]
                .iter()
                .all(|(a, b)| (a - b).abs() <= 1.6)
        };
        assert_eq!(marks.len(), measured.len());
        for mark in &marks {
            assert!(measured.iter().any(|m| near(mark, m)), "{mark:?} is not among {measured:?}");
        }
        assert_eq!(computed_marks((3300.0, 2550.0), 12.0, 118.0, 100.0, 4).len(), 8);
    }
}
