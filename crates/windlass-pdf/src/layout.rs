//! Where cards and crop marks lie on a sheet: pure geometry, as versioned data.
//!
//! A layout never changes once it is released, because users keep cutting templates that
//! fit it: a correction gets a new name (`…_v2`) beside the old one.

/// Points per millimetre (1 pt = 1/72 in, 1 in = 25.4 mm).
pub const PT_PER_MM: f64 = 72.0 / 25.4;

/// Clear space between the grid of cards and a crop mark, in millimetres.
pub const MARK_GAP_MM: f64 = 1.0;
/// Length of a crop mark, in millimetres.
///
/// With [`MARK_GAP_MM`] it ends 5 mm from the grid, which leaves 5.7 mm to the edge of a
/// letter sheet: most of the mark is inside what home printers can print.
pub const MARK_LENGTH_MM: f64 = 4.0;
/// Width of a crop mark, in points.
pub const MARK_WIDTH_PT: f64 = 0.25;

/// One way to lay cards on a paper: a centred grid of equal cards.
///
/// *Units*: millimetres of the real sheet in landscape; the origin is the top left corner, y downwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// The set it belongs to, as a job names it.
    pub set: &'static str,
    /// The paper, as a job names it.
    pub paper: &'static str,
    /// The card, as a job names it.
    pub card: &'static str,
    /// The versioned name that results carry; users pick the cutting template by it.
    pub template: &'static str,
    /// Width of the sheet.
    pub paper_width_mm: f64,
    /// Height of the sheet.
    pub paper_height_mm: f64,
    /// Cards side by side.
    pub columns: usize,
    /// Rows of cards.
    pub rows: usize,
    /// Width of a card.
    pub card_width_mm: f64,
    /// Height of a card.
    pub card_height_mm: f64,
    /// Space between two cards, in both directions.
    pub gutter_mm: f64,
}

/// Every layout there is.
///
/// Set `exact`: the nominal card size to the last digit, cut along crop marks. Source:
/// ISO 216 (A4), ANSI Y14.1 (letter), 63×88 mm as printed by the makers of trading cards.
/// Four by two is the most a letter sheet holds with room for marks.
pub static LAYOUTS: [Layout; 2] = [
    Layout {
        set: "exact",
        paper: "letter",
        card: "standard",
        template: "letter_standard_exact_v1",
        paper_width_mm: 279.4,
        paper_height_mm: 215.9,
        columns: 4,
        rows: 2,
        card_width_mm: 63.0,
        card_height_mm: 88.0,
        gutter_mm: 2.0,
    },
    Layout {
        set: "exact",
        paper: "a4",
        card: "standard",
        template: "a4_standard_exact_v1",
        paper_width_mm: 297.0,
        paper_height_mm: 210.0,
        columns: 4,
        rows: 2,
        card_width_mm: 63.0,
        card_height_mm: 88.0,
        gutter_mm: 2.0,
    },
];

/// A rectangle on the sheet, in millimetres from the top left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RectMm {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// A straight line on the sheet, in millimetres from the top left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LineMm {
    /// Start, as (x, y).
    pub from: (f64, f64),
    /// End, as (x, y).
    pub to: (f64, f64),
}

/// The layout of that set, paper and card, if there is one.
#[must_use]
pub fn find(set: &str, paper: &str, card: &str) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|l| l.set == set && l.paper == paper && l.card == card)
}

impl Layout {
    /// How many cards one side of a sheet has room for.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.columns * self.rows
    }

    /// Where slot `slot` lies; slots count row by row from 0 at the top left.
    #[must_use]
    pub fn slot_rect(&self, slot: usize) -> RectMm {
        let (row, column) = (slot / self.columns, slot % self.columns);
        RectMm {
            x: self.left_mm() + offset(column, self.card_width_mm, self.gutter_mm),
            y: self.top_mm() + offset(row, self.card_height_mm, self.gutter_mm),
            width: self.card_width_mm,
            height: self.card_height_mm,
        }
    }

    /// Where, on the back page, the back of the card in `slot` lies.
    ///
    /// The sheet is flipped about its long, horizontal axis: (row, column) comes to lie
    /// behind (rows-1-row, column), and the picture is turned by 180 degrees.
    #[must_use]
    pub fn back_slot(&self, slot: usize) -> usize {
        let (row, column) = (slot / self.columns, slot % self.columns);
        (self.rows - 1 - row) * self.columns + column
    }

    /// The crop marks: one outside the grid at both ends of every line a card is cut
    /// along. Equal on fronts and backs, because the grid is centred.
    #[must_use]
    pub fn marks(&self) -> Vec<LineMm> {
        let (left, top) = (self.left_mm(), self.top_mm());
        let (right, bottom) = (self.paper_width_mm - left, self.paper_height_mm - top);
        let mut marks = Vec::new();
        for x in edges(left, self.columns, self.card_width_mm, self.gutter_mm) {
            for (y, outwards) in [(top, -1.0), (bottom, 1.0)] {
                marks.push(LineMm {
                    from: (x, y + outwards * MARK_GAP_MM),
                    to: (x, y + outwards * (MARK_GAP_MM + MARK_LENGTH_MM)),
                });
            }
        }
        for y in edges(top, self.rows, self.card_height_mm, self.gutter_mm) {
            for (x, outwards) in [(left, -1.0), (right, 1.0)] {
                marks.push(LineMm {
                    from: (x + outwards * MARK_GAP_MM, y),
                    to: (x + outwards * (MARK_GAP_MM + MARK_LENGTH_MM), y),
                });
            }
        }
        marks
    }

    fn left_mm(&self) -> f64 {
        (self.paper_width_mm - span(self.columns, self.card_width_mm, self.gutter_mm)) / 2.0
    }

    fn top_mm(&self) -> f64 {
        (self.paper_height_mm - span(self.rows, self.card_height_mm, self.gutter_mm)) / 2.0
    }
}

/// From the first edge of a row of cards to the first edge of its card `index`.
fn offset(index: usize, size: f64, gutter: f64) -> f64 {
    index as f64 * (size + gutter)
}

/// From the first edge of a row of `count` cards to its last.
fn span(count: usize, size: f64, gutter: f64) -> f64 {
    offset(count, size, gutter) - gutter
}

/// Both edges of every card in a row.
fn edges(start: f64, count: usize, size: f64, gutter: f64) -> impl Iterator<Item = f64> {
    (0..count).flat_map(move |i| {
        let first = start + offset(i, size, gutter);
        [first, first + size]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_is_centred_and_has_room_for_its_marks() {
        for layout in &LAYOUTS {
            let first = layout.slot_rect(0);
            let last = layout.slot_rect(layout.slots() - 1);
            let right = layout.paper_width_mm - (last.x + last.width);
            let bottom = layout.paper_height_mm - (last.y + last.height);
            assert!((first.x - right).abs() < 1e-9, "{}", layout.template);
            assert!((first.y - bottom).abs() < 1e-9, "{}", layout.template);
            assert!(first.x.min(first.y) > MARK_GAP_MM + MARK_LENGTH_MM, "{}", layout.template);
        }
    }

    #[test]
    fn letter_positions_are_written_out() {
        let layout = find("exact", "letter", "standard").unwrap();
        let rect = layout.slot_rect(0);
        assert!((rect.x - 10.7).abs() < 1e-9 && (rect.y - 18.95).abs() < 1e-9, "{rect:?}");
        assert!((rect.width - 63.0).abs() < 1e-9 && (rect.height - 88.0).abs() < 1e-9, "{rect:?}");
        let rect = layout.slot_rect(6);
        assert!((rect.x - 140.7).abs() < 1e-9 && (rect.y - 108.95).abs() < 1e-9, "{rect:?}");
    }

    #[test]
    fn a_back_lies_in_the_mirrored_row_and_flipping_twice_returns() {
        let layout = &LAYOUTS[0];
        let backs: Vec<usize> = (0..layout.slots()).map(|s| layout.back_slot(s)).collect();
        assert_eq!(backs, [4, 5, 6, 7, 0, 1, 2, 3]);
        assert!((0..layout.slots()).all(|s| layout.back_slot(layout.back_slot(s)) == s));
    }

    #[test]
    fn no_mark_touches_the_grid_or_leaves_the_sheet() {
        for layout in &LAYOUTS {
            let marks = layout.marks();
            assert_eq!(marks.len(), 2 * 2 * (layout.columns + layout.rows));
            let (left, top) = (layout.left_mm(), layout.top_mm());
            for (x, y) in marks.iter().flat_map(|m| [m.from, m.to]) {
                let beside = x < left || x > layout.paper_width_mm - left;
                let above = y < top || y > layout.paper_height_mm - top;
                assert!(beside || above, "({x}, {y}) lies in the grid");
                assert!(x > 0.0 && x < layout.paper_width_mm && y > 0.0 && y < layout.paper_height_mm);
            }
        }
    }
}
