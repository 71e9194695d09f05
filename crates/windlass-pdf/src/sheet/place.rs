//! Which part of a picture shows on a card, and the maps that bring it there.

use image::DynamicImage;
use image::metadata::Orientation;

use crate::args::{CardSheetArgs, Crop, Fit};
use crate::layout::Rect;
use crate::picture::{self, Header};
use crate::writer::Matrix;

/// Whose options a picture follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// A front or a card's own back.
    Own,
    /// The common back.
    Common,
}

/// What is done to a picture before it lies on its card.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Treatment {
    pub(crate) crop: Option<Crop>,
    /// What is cut off each side of the card and filled again, in px300.
    pub(crate) extend: f64,
    pub(crate) fit: Fit,
}

impl Treatment {
    pub(crate) fn of(args: &CardSheetArgs, role: Role) -> Self {
        let (crop, extend) = match role {
            Role::Own => (&args.crop.fronts, args.extend_corners.fronts),
            Role::Common => (&args.crop.backs, args.extend_corners.backs),
        };
        // Args without violations parse, and fit into the range.
        let crop = crop.as_ref().and_then(|text| text.parse().ok());
        Self { crop, extend: extend as f64, fit: args.fit }
    }

    /// The part of an upright picture of `size` that fills a whole card, before corners are
    /// extended: (left, top, width, height) in its pixels.
    pub(crate) fn filling(&self, size: (u32, u32), card: (f64, f64)) -> (f64, f64, f64, f64) {
        let (x, y) = self.crop.map_or((0.0, 0.0), |crop| crop.pixels(size, card));
        let (width, height) = (f64::from(size.0) - 2.0 * x, f64::from(size.1) - 2.0 * y);
        match self.fit {
            Fit::Stretch => (x, y, width, height),
            Fit::Crop => {
                let scale = (width / card.0).min(height / card.1);
                let (shown_width, shown_height) = (card.0 * scale, card.1 * scale);
                (x + (width - shown_width) / 2.0, y + (height - shown_height) / 2.0, shown_width, shown_height)
            }
        }
    }

    /// The part that shows.
    pub(crate) fn cut(&self, size: (u32, u32), card: (f64, f64)) -> Cut {
        let (left, top, width, height) = self.filling(size, card);
        let (x, y) = (self.extend * width / card.0, self.extend * height / card.1);
        Cut {
            size,
            left: left + x,
            top: top + y,
            right: left + width - x,
            bottom: top + height - y,
            inset: self.extend,
        }
    }
}

/// The part of an upright picture that shows on a card.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cut {
    /// Width and height of the picture.
    size: (u32, u32),
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
    /// How far from the edges of the card it lies, in px300.
    pub(crate) inset: f64,
}

impl Cut {
    /// True when nothing of the picture is cut off.
    pub(crate) fn is_whole(&self) -> bool {
        let (width, height) = (f64::from(self.size.0), f64::from(self.size.1));
        self.left == 0.0 && self.top == 0.0 && self.right == width && self.bottom == height
    }

    /// Where the whole picture lies when the part that shows fills `visible`.
    pub(crate) fn spread(&self, visible: Rect) -> Rect {
        let (x, y) = self.scale(visible);
        let (width, height) = (f64::from(self.size.0) * x, f64::from(self.size.1) * y);
        Rect::new(visible.x - self.left * x, visible.y - self.top * y, width, height)
    }

    /// px300 a pixel.
    fn scale(&self, visible: Rect) -> (f64, f64) {
        (visible.width / (self.right - self.left), visible.height / (self.bottom - self.top))
    }

    /// First column, column after the last, first row, row after the last that show at all.
    fn pixels(&self) -> (u32, u32, u32, u32) {
        /// A part of a pixel this small is rounding.
        const NOTHING: f64 = 1e-6;
        let first = |v: f64| (v + NOTHING).floor().max(0.0) as u32;
        let after = |v: f64, size: u32| ((v - NOTHING).ceil() as u32).min(size);
        (first(self.left), after(self.right, self.size.0), first(self.top), after(self.bottom, self.size.1))
    }

    /// Where the columns that show lie across `visible`, and the rows: (x, width, y, height).
    pub(crate) fn strip_span(&self, visible: Rect) -> (f64, f64, f64, f64) {
        let (x, y) = self.scale(visible);
        let (c0, c1, r0, r1) = self.pixels();
        let (left, top) = (f64::from(c0), f64::from(r0));
        let (columns, rows) = (f64::from(c1) - left, f64::from(r1) - top);
        (visible.x + (left - self.left) * x, columns * x, visible.y + (top - self.top) * y, rows * y)
    }
}

/// The outermost pixels that show of a picture, upright, as RGB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edges {
    /// From left to right.
    pub(crate) top: Vec<[u8; 3]>,
    /// From left to right.
    pub(crate) bottom: Vec<[u8; 3]>,
    /// From top to bottom.
    pub(crate) left: Vec<[u8; 3]>,
    /// From top to bottom.
    pub(crate) right: Vec<[u8; 3]>,
}

impl Edges {
    /// Takes them from the stored pixels.
    pub(crate) fn of(decoded: &DynamicImage, header: &Header, cut: &Cut) -> Self {
        let (c0, c1, r0, r1) = cut.pixels();
        let at = |x: u32, y: u32| {
            let (x, y) = stored_place(header, x, y);
            picture::pixel_on_white(decoded, x, y)
        };
        let row = |y: u32| (c0..c1).map(|x| at(x, y)).collect();
        let column = |x: u32| (r0..r1).map(|y| at(x, y)).collect();
        Self { top: row(r0), bottom: row(r1 - 1), left: column(c0), right: column(c1 - 1) }
    }

    /// Top left, top right, bottom left, bottom right.
    pub(crate) fn corners(&self) -> [[u8; 3]; 4] {
        let (first, last) = (0, self.top.len() - 1);
        [self.top[first], self.top[last], self.bottom[first], self.bottom[last]]
    }
}

/// Where the pixel at (x, y) of the upright picture is stored.
fn stored_place(header: &Header, x: u32, y: u32) -> (u32, u32) {
    let (right, bottom) = (header.stored.0 - 1, header.stored.1 - 1);
    match header.orientation {
        Orientation::NoTransforms => (x, y),
        Orientation::FlipHorizontal => (right - x, y),
        Orientation::Rotate180 => (right - x, bottom - y),
        Orientation::FlipVertical => (x, bottom - y),
        Orientation::Rotate90FlipH => (y, x),
        Orientation::Rotate90 => (y, bottom - x),
        Orientation::Rotate270FlipH => (right - y, bottom - x),
        Orientation::Rotate270 => (right - y, x),
    }
}

/// Brings the stored unit square upright, as EXIF asks.
///
/// *Source*: EXIF 2.32, tag 0x0112; the unit square of an image in PDF has its first row
/// at the top (ISO 32000-1, 8.9.5.2).
pub(crate) fn upright(orientation: Orientation) -> Matrix {
    match orientation {
        Orientation::NoTransforms => [1.0, 0.0, 0.0, 1.0, 0.0, 0.0],
        Orientation::FlipHorizontal => [-1.0, 0.0, 0.0, 1.0, 1.0, 0.0],
        Orientation::Rotate180 => [-1.0, 0.0, 0.0, -1.0, 1.0, 1.0],
        Orientation::FlipVertical => [1.0, 0.0, 0.0, -1.0, 0.0, 1.0],
        Orientation::Rotate90FlipH => [0.0, -1.0, -1.0, 0.0, 1.0, 1.0],
        Orientation::Rotate90 => [0.0, -1.0, 1.0, 0.0, 0.0, 1.0],
        Orientation::Rotate270FlipH => [0.0, 1.0, 1.0, 0.0, 0.0, 0.0],
        Orientation::Rotate270 => [0.0, 1.0, -1.0, 0.0, 1.0, 0.0],
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;
    use crate::writer::then;

    const CARD: (f64, f64) = (742.0, 1036.0);

    fn treatment(fit: Fit, crop: Option<Crop>, extend: f64) -> Treatment {
        Treatment { crop, extend, fit }
    }

    #[test]
    fn the_whole_picture_shows_when_nothing_is_asked() {
        let cut = treatment(Fit::Stretch, None, 0.0).cut((750, 1050), CARD);
        assert!(cut.is_whole());
        let visible = Rect::new(141.0, 232.0, CARD.0, CARD.1);
        assert_eq!(cut.spread(visible), visible);
        assert_eq!(cut.strip_span(visible), (141.0, 742.0, 232.0, 1036.0));
    }

    #[test]
    fn crop_keeps_the_shape_and_the_centre() {
        let cut = treatment(Fit::Crop, None, 0.0).cut((742 * 2, 1036), CARD);
        assert_eq!((cut.left, cut.top, cut.right, cut.bottom), (371.0, 0.0, 1113.0, 1036.0));
    }

    /// §8.13.
    #[test]
    fn three_millimetres_off_a_picture_of_750_by_1050_are_35_pixels_a_side() {
        let cut = treatment(Fit::Stretch, Some(Crop::Length(3.0 * 300.0 / 25.4)), 0.0).cut((750, 1050), CARD);
        assert_eq!((cut.left, cut.top, cut.right, cut.bottom), (35.0, 35.0, 715.0, 1015.0));
    }

    #[test]
    fn extended_corners_leave_the_rest_where_it_was() {
        let cut = treatment(Fit::Stretch, None, 10.0).cut((742, 1036), CARD);
        let card = Rect::new(100.0, 100.0, CARD.0, CARD.1);
        assert_eq!(cut.spread(card.inset(cut.inset, cut.inset)), card);
    }

    /// Every orientation: the pixel that is drawn at a corner is the one that edges take there.
    #[test]
    fn edges_and_the_drawn_picture_agree_in_every_orientation() {
        let stored = DynamicImage::from(RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8 * 50, y as u8 * 50, 7])));
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut turned = stored.clone();
            turned.apply_orientation(orientation);
            let header = picture::tests_header((3, 2), orientation);
            let size = header.upright();
            assert_eq!(size, (turned.width(), turned.height()));
            let edges = Edges::of(&stored, &header, &treatment(Fit::Stretch, None, 0.0).cut(size, CARD));
            let upright_pixel = |x, y| turned.to_rgb8().get_pixel(x, y).0;
            assert_eq!(edges.top[0], upright_pixel(0, 0), "exif {exif}");
            assert_eq!(edges.right[size.1 as usize - 1], upright_pixel(size.0 - 1, size.1 - 1), "exif {exif}");
            // The matrix: where the stored top left corner comes to lie in the upright unit square.
            let [a, b, c, d, e, f] = then(upright(orientation), [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
            let (x, y) = (a * 0.0 + c * 1.0 + e, b * 0.0 + d * 1.0 + f);
            let corner = upright_pixel(if x > 0.5 { size.0 - 1 } else { 0 }, if y > 0.5 { 0 } else { size.1 - 1 });
            assert_eq!(corner, [0, 0, 7], "exif {exif}");
        }
    }
}
