//! Mode embed: each picture is an object of the document, placed by maps.
//!
//! Everything is drawn in px300 with y downwards; one map at the start of the page turns that
//! into points.

use std::collections::HashMap;

use image::metadata::Orientation;

use super::place::{Cut, Edges, Role, upright};
use crate::args::{Bleed, OffsetArgs};
use crate::layout::{PT_PER_PX, Rect};
use crate::writer::{
    Coding, Color, Colors, Matrix, PageOp, PathStep, RectPt, SheetWriter, StoredImage, WriteError, rect_path, then,
};

/// How far a bleed reaches below the picture it belongs to, in px300, so that no white line is
/// left where two smoothed edges meet.
const OVERLAP: f64 = 1.0;

/// The map from px300, y down, to the points of a page of this height.
pub(crate) fn page_map(page_height: f64) -> Matrix {
    [PT_PER_PX, 0.0, 0.0, -PT_PER_PX, 0.0, page_height * PT_PER_PX]
}

/// Moves and turns a back page, in px300 with y down; clockwise around its middle.
pub(crate) fn offset_map(offset: &OffsetArgs, page: (f64, f64)) -> Matrix {
    let (x, y) = offset.px();
    let (sin, cos) = offset.angle.to_radians().sin_cos();
    let (cx, cy) = (page.0 / 2.0, page.1 / 2.0);
    let turn = [cos, sin, -sin, cos, cx - cos * cx + sin * cy, cy - sin * cx - cos * cy];
    then(turn, [1.0, 0.0, 0.0, 1.0, x, y])
}

/// Half a turn around the middle of a rectangle.
fn half_turn(rect: Rect) -> Matrix {
    [-1.0, 0.0, 0.0, -1.0, 2.0 * rect.x + rect.width, 2.0 * rect.y + rect.height]
}

/// As the writer wants it; the direction of y makes no difference to a rectangle.
pub(crate) fn area(rect: Rect) -> RectPt {
    RectPt { x: rect.x, y: rect.y, width: rect.width, height: rect.height }
}

/// Maps the unit square of a picture, first row on top, to a rectangle with y down.
fn onto(rect: Rect) -> Matrix {
    [rect.width, 0.0, 0.0, -rect.height, rect.x, rect.y + rect.height]
}

/// A picture that is in the document.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// How it has to be turned.
    orientation: Option<Orientation>,
    roles: HashMap<Role, InRole>,
}

/// A picture with the options of a role.
#[derive(Debug)]
struct InRole {
    cut: Cut,
    bleed: Option<Strips>,
}

/// What is drawn around a card: one colour a side, or a strip of pixels under its own id.
#[derive(Debug)]
struct Strips {
    sides: [Strip; 4],
    corners: [[u8; 3]; 4],
}

#[derive(Debug)]
enum Strip {
    Plain([u8; 3]),
    Picture(String),
}

const TOP: usize = 0;
const BOTTOM: usize = 1;
const LEFT: usize = 2;
const RIGHT: usize = 3;

impl Known {
    /// Whether it is ready to be drawn in this role.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains_key(&role)
    }

    /// Whether its pixels are in the document.
    pub(crate) fn is_stored(&self) -> bool {
        self.orientation.is_some()
    }

    /// Notes that its pixels are in the document.
    pub(crate) fn stored(&mut self, orientation: Orientation) {
        self.orientation = Some(orientation);
    }

    /// Makes it ready for a role; `edges` where it gets an edge bleed.
    pub(crate) fn add(
        &mut self,
        id: &str,
        role: Role,
        cut: Cut,
        edges: Option<Edges>,
        writer: &mut impl SheetWriter,
    ) -> Result<(), WriteError> {
        let bleed = match edges {
            Some(edges) => Some(store_strips(id, role, &edges, writer)?),
            None => None,
        };
        self.roles.insert(role, InRole { cut, bleed });
        Ok(())
    }

    /// Draws it on the card at `rect`.
    pub(crate) fn draw(&self, id: &str, look: &Look, rect: Rect, turned: bool, role: Role, ops: &mut Vec<PageOp>) {
        let (Some(orientation), Some(InRole { cut, bleed })) = (self.orientation, self.roles.get(&role)) else {
            return;
        };
        let visible = rect.inset(cut.inset, cut.inset);
        let reach = (look.reach.0 + cut.inset, look.reach.1 + cut.inset);
        if turned {
            ops.push(PageOp::Save);
            ops.push(PageOp::Transform(half_turn(rect)));
        }
        if let Some(strips) = bleed {
            strips.draw(cut, visible, reach, ops);
        }
        if look.bleed == Bleed::Scale {
            picture(id, orientation, cut, visible.inset(-reach.0, -reach.1), ops);
        }
        picture(id, orientation, cut, visible, ops);
        if turned {
            ops.push(PageOp::Restore);
        }
    }
}

/// What all cards of a job have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) bleed: Bleed,
    /// How far a bleed reaches beyond the card, in px300.
    pub(crate) reach: (f64, f64),
}

/// A picture of which the part that shows fills `visible`.
fn picture(id: &str, orientation: Orientation, cut: &Cut, visible: Rect, ops: &mut Vec<PageOp>) {
    let matrix = then(upright(orientation), onto(cut.spread(visible)));
    if cut.is_whole() {
        ops.push(PageOp::Picture(id.to_owned(), matrix));
    } else {
        clipped(id.to_owned(), matrix, visible, ops);
    }
}

fn clipped(id: String, matrix: Matrix, clip: Rect, ops: &mut Vec<PageOp>) {
    ops.extend([PageOp::Save, PageOp::Clip(area(clip)), PageOp::Picture(id, matrix), PageOp::Restore]);
}

fn store_strips(id: &str, role: Role, edges: &Edges, writer: &mut impl SheetWriter) -> Result<Strips, WriteError> {
    let role = match role {
        Role::Own => 'o',
        Role::Common => 'c',
    };
    let mut strip = |side: char, pixels: &[[u8; 3]]| -> Result<Strip, WriteError> {
        if pixels.iter().all(|pixel| *pixel == pixels[0]) {
            return Ok(Strip::Plain(pixels[0]));
        }
        let length = u32::try_from(pixels.len()).unwrap_or(u32::MAX);
        let (width, height) = if matches!(side, 't' | 'b') { (length, 1) } else { (1, length) };
        let id = format!("{id}{role}{side}");
        let data = pixels.as_flattened().to_vec();
        writer.image(&id, StoredImage { width, height, colors: Colors::Rgb, icc: None, coding: Coding::Raw, data })?;
        Ok(Strip::Picture(id))
    };
    let sides =
        [strip('t', &edges.top)?, strip('b', &edges.bottom)?, strip('l', &edges.left)?, strip('r', &edges.right)?];
    Ok(Strips { sides, corners: edges.corners() })
}

impl Strips {
    /// Corners first, then sides over them; the picture comes over both.
    fn draw(&self, cut: &Cut, visible: Rect, (x, y): (f64, f64), ops: &mut Vec<PageOp>) {
        let (over_x, over_y) = (OVERLAP.min(visible.width / 2.0), OVERLAP.min(visible.height / 2.0));
        let (left, top) = (visible.x - x, visible.y - y);
        let (right, bottom) = (visible.right() - over_x, visible.bottom() - over_y);
        let (width, height) = (x + over_x, y + over_y);
        let corners = [(left, top), (right, top), (left, bottom), (right, bottom)];
        if x > 0.0 && y > 0.0 {
            for ((x, y), color) in corners.into_iter().zip(self.corners) {
                fill(Rect::new(x, y, width, height), color, ops);
            }
        }
        let (span_x, span_width, span_y, span_height) = cut.strip_span(visible);
        if y > 0.0 {
            for (side, at) in [(TOP, top), (BOTTOM, bottom)] {
                let place = Rect::new(visible.x, at, visible.width, height);
                self.side(side, place, Rect { x: span_x, width: span_width, ..place }, ops);
            }
        }
        if x > 0.0 {
            for (side, at) in [(LEFT, left), (RIGHT, right)] {
                let place = Rect::new(at, visible.y, width, visible.height);
                self.side(side, place, Rect { y: span_y, height: span_height, ..place }, ops);
            }
        }
    }

    /// One side in `place`; a strip of pixels lies over `span`, which may be a little longer.
    fn side(&self, side: usize, place: Rect, span: Rect, ops: &mut Vec<PageOp>) {
        match &self.sides[side] {
            Strip::Plain(color) => fill(place, *color, ops),
            Strip::Picture(id) if span == place => ops.push(PageOp::Picture(id.clone(), onto(span))),
            Strip::Picture(id) => clipped(id.clone(), onto(span), place, ops),
        }
    }
}

fn fill(rect: Rect, rgb: [u8; 3], ops: &mut Vec<PageOp>) {
    ops.push(PageOp::fill_rect(area(rect), Color { rgb, alpha: 255 }));
}

/// Black rectangles as one path.
pub(crate) fn marks(marks: &[Rect]) -> PageOp {
    let path: Vec<PathStep> = marks.iter().flat_map(|mark| rect_path(area(*mark))).collect();
    PageOp::Fill(path, Color::BLACK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Unit;

    fn apply([a, b, c, d, e, f]: Matrix, (x, y): (f64, f64)) -> (f64, f64) {
        (a * x + c * y + e, b * x + d * y + f)
    }

    #[test]
    fn an_offset_moves_right_and_down_and_turns_clockwise_about_the_middle() {
        let moved = OffsetArgs { x: 60.0, y: -150.0, angle: 0.0, unit: Unit::Px300 };
        assert_eq!(apply(offset_map(&moved, (3300.0, 2550.0)), (100.0, 200.0)), (160.0, 50.0));
        let turned = OffsetArgs { angle: 90.0, ..OffsetArgs::default() };
        let (x, y) = apply(offset_map(&turned, (200.0, 100.0)), (100.0, 0.0));
        // The middle of the upper edge comes to lie right of the middle.
        assert!((x - 150.0).abs() < 1e-9 && (y - 50.0).abs() < 1e-9, "{x} {y}");
    }

    #[test]
    fn the_page_map_puts_the_top_left_corner_on_top() {
        assert_eq!(apply(page_map(2550.0), (0.0, 0.0)), (0.0, 612.0));
        assert_eq!(apply(page_map(2550.0), (3300.0, 2550.0)), (792.0, 0.0));
    }
}
