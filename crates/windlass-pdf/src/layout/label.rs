//! Finds room for the label of a sheet.

use super::{Layout, Rect};

/// Height of the label's letters, in px300 (9.6 pt), as the peer prints it.
pub(crate) const LABEL_SIZE: f64 = 40.0;
/// How far from the right edge of the page the label ends, as the peer prints it.
const FROM_RIGHT: f64 = 180.0;
/// Space that letters take above and below the line they stand on, with some air.
const RISE: f64 = 34.0;
const DROP: f64 = 12.0;
/// Space kept to a mark, which a machine looks for.
const FROM_MARK: f64 = 40.0;

/// Where a label goes, in px300.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelPlace {
    /// Where its first letter begins.
    pub x: f64,
    /// The line its letters stand on.
    pub y: f64,
    /// False: it reads from left to right; true: upwards, turned by a quarter to the left.
    pub upwards: bool,
}

/// Below the cards with its end near the right edge, as the peer does; else along the right
/// edge of the page; never over a card, a bleed or a mark.
pub(super) fn place(layout: &Layout, width: f64, marks: &[Rect]) -> Option<LabelPlace> {
    below(layout, width, marks).or_else(|| beside(layout, width, marks))
}

fn below(layout: &Layout, width: f64, marks: &[Rect]) -> Option<LabelPlace> {
    let (page_width, page_height) = layout.page;
    let y = page_height - layout.label_rise;
    let mut right = page_width - FROM_RIGHT;
    let ink = |right: f64| Rect::new(right - width, y - RISE, width, RISE + DROP);
    for mark in marks {
        if mark.overlaps(&ink(right).inset(-FROM_MARK, 0.0)) && mark.x > page_width / 2.0 {
            right = right.min(mark.x - FROM_MARK);
        }
    }
    fits(layout, &ink(right), marks).then_some(LabelPlace { x: right - width, y, upwards: false })
}

fn beside(layout: &Layout, width: f64, marks: &[Rect]) -> Option<LabelPlace> {
    let (page_width, page_height) = layout.page;
    let x = page_width - layout.label_rise.min(60.0) + DROP;
    let start = (page_height + width) / 2.0;
    let ink = Rect::new(x - RISE, start - width, RISE + DROP, width);
    fits(layout, &ink, marks).then_some(LabelPlace { x, y: start, upwards: true })
}

/// Inside the page, clear of every card with its bleed and of every mark.
fn fits(layout: &Layout, ink: &Rect, marks: &[Rect]) -> bool {
    let (bleed_x, bleed_y) = layout.bleed();
    let inside = ink.x >= 0.0 && ink.y >= 0.0 && ink.right() <= layout.page.0 && ink.bottom() <= layout.page.1;
    let cards = layout.grid().inset(-bleed_x, -bleed_y);
    inside && !ink.overlaps(&cards) && marks.iter().all(|mark| !mark.overlaps(ink))
}

#[cfg(test)]
mod tests {
    use super::super::{LAYOUTS, find};
    use super::*;

    #[test]
    fn the_label_stands_where_the_peer_prints_it() {
        let place = find("v1", "letter", "standard", "default").unwrap().label(667.0, 3).unwrap();
        assert_eq!(place, LabelPlace { x: 3120.0 - 667.0, y: 2446.0, upwards: false });
    }

    /// §8.3: inside the page on all, clear of marks: the peer's falls off its tabloid sheet.
    #[test]
    fn a_label_never_leaves_the_page_nor_covers_a_mark() {
        let mut none = Vec::new();
        for layout in LAYOUTS.iter() {
            match layout.label(667.0, 3) {
                Some(place) => assert!(place.x > 0.0 && place.y < layout.page.1, "{layout:?}"),
                None => none.push(&layout.template),
            }
        }
        assert!(LAYOUTS.iter().filter(|l| l.set != "spec").all(|l| l.label(667.0, 3).is_some()));
        assert!(none.len() < 30, "{} without: {none:?}", none.len());
    }
}
