//! Where a picture lies on a page, and which way up: matrices only.

use image::metadata::Orientation;

use crate::args::Fit;
use crate::layout::{Layout, PT_PER_MM, RectMm};
use crate::writer::{Matrix, PageOp, RectPt};

/// Applies `first`, then `second`.
fn then(first: Matrix, second: Matrix) -> Matrix {
    let [a, b, c, d, e, f] = first;
    let [g, h, i, j, k, l] = second;
    [a * g + b * i, a * h + b * j, c * g + d * i, c * h + d * j, e * g + f * i + k, e * h + f * j + l]
}

/// Brings the stored unit square upright, as EXIF asks.
///
/// *Source*: EXIF 2.32, tag 0x0112; the unit square of an image in PDF has its first row
/// at the top (ISO 32000-1, 8.9.5.2).
fn upright(orientation: Orientation) -> Matrix {
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

/// True when width and height change places.
fn lies_on_its_side(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    )
}

/// A rectangle of the sheet in the units and directions of a PDF page.
pub(crate) fn to_page(layout: &Layout, rect: RectMm) -> RectPt {
    RectPt {
        x: rect.x * PT_PER_MM,
        y: (layout.paper_height_mm - rect.y - rect.height) * PT_PER_MM,
        width: rect.width * PT_PER_MM,
        height: rect.height * PT_PER_MM,
    }
}

/// The drawing of a picture of `size` stored pixels into `rect`; `turned` by 180 degrees on backs.
pub(crate) fn picture(
    id: &str,
    size: (u32, u32),
    orientation: Orientation,
    fit: Fit,
    rect: RectPt,
    turned: bool,
) -> PageOp {
    let mut matrix = upright(orientation);
    if turned {
        matrix = then(matrix, upright(Orientation::Rotate180));
    }
    let target = match fit {
        Fit::Stretch => rect,
        Fit::Crop => cover(size, orientation, rect),
    };
    matrix = then(matrix, [target.width, 0.0, 0.0, target.height, target.x, target.y]);
    let clip = (fit == Fit::Crop).then_some(rect);
    PageOp::Picture { id: id.to_owned(), matrix, clip }
}

/// The smallest rectangle of the picture's shape that covers `rect`, on the same centre.
fn cover(size: (u32, u32), orientation: Orientation, rect: RectPt) -> RectPt {
    let (stored_width, stored_height) = (f64::from(size.0), f64::from(size.1));
    let (width, height) = match lies_on_its_side(orientation) {
        true => (stored_height, stored_width),
        false => (stored_width, stored_height),
    };
    let scale = (rect.width / width).max(rect.height / height);
    let (width, height) = (width * scale, height * scale);
    RectPt { x: rect.x + (rect.width - width) / 2.0, y: rect.y + (rect.height - height) / 2.0, width, height }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECT: RectPt = RectPt { x: 10.0, y: 20.0, width: 60.0, height: 90.0 };

    /// Where the stored top left corner and top right corner of a picture end up.
    #[track_caller]
    fn check(exif: u8, fit: Fit, turned: bool, top_left: (f64, f64), top_right: (f64, f64)) {
        let orientation = Orientation::from_exif(exif).unwrap();
        let PageOp::Picture { matrix: [a, b, c, d, e, f], .. } =
            picture("x", (200, 100), orientation, fit, RECT, turned)
        else {
            panic!("a picture is drawn as a picture");
        };
        assert_eq!((c + e, d + f), top_left, "top left of exif {exif}");
        assert_eq!((a + c + e, b + d + f), top_right, "top right of exif {exif}");
    }

    #[test]
    fn every_exif_orientation_ends_upright() {
        let (left, right, bottom, top) = (10.0, 70.0, 20.0, 110.0);
        check(1, Fit::Stretch, false, (left, top), (right, top));
        check(2, Fit::Stretch, false, (right, top), (left, top));
        check(3, Fit::Stretch, false, (right, bottom), (left, bottom));
        check(4, Fit::Stretch, false, (left, bottom), (right, bottom));
        check(5, Fit::Stretch, false, (left, top), (left, bottom));
        check(6, Fit::Stretch, false, (right, top), (right, bottom));
        check(7, Fit::Stretch, false, (right, bottom), (right, top));
        check(8, Fit::Stretch, false, (left, bottom), (left, top));
    }

    #[test]
    fn a_back_is_turned_about_the_middle_of_its_place() {
        check(1, Fit::Stretch, true, (70.0, 20.0), (10.0, 20.0));
        check(6, Fit::Stretch, true, (10.0, 20.0), (10.0, 110.0));
    }

    #[test]
    fn crop_keeps_the_shape_and_the_centre() {
        // 200×100 covers 60×90 at 180×90: 60 stick out on either side.
        check(1, Fit::Crop, false, (-50.0, 110.0), (130.0, 110.0));
        // Lying on its side it is 100×200, which covers at 60×120: 15 above and below.
        check(6, Fit::Crop, false, (70.0, 125.0), (70.0, 5.0));
    }
}
