//! Mode raster: each page as one picture, composed the way Silhouette Card Maker does.
//!
//! *Source*: the peer's `draw_card_layout`: sizes and places are rounded down after scaling,
//! bleeds are rounded up.

use image::RgbImage;

use super::place::Treatment;
use crate::args::OffsetArgs;
use crate::font::{self, Face};
use crate::layout::{LABEL_SIZE, LabelPlace, Layout, Rect};
use crate::picture::{self, Refusal};

const WHITE: u8 = 255;

/// A page in pixels.
pub(crate) struct Canvas {
    pub(crate) pixels: RgbImage,
    /// Pixels a px300.
    ratio: f64,
}

/// A picture brought to the size of its card, corners cut off.
pub(crate) struct Ready {
    pixels: RgbImage,
    /// Pixels that were cut off each side.
    inset: i64,
}

impl Ready {
    /// How much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.pixels.as_raw().len()
    }
}

/// Brings an upright picture to the size of its card.
pub(crate) fn ready(
    picture: &RgbImage,
    treatment: &Treatment,
    layout: &Layout,
    ppi: i64,
    turned: bool,
) -> Result<Ready, Refusal> {
    let ratio = ppi as f64 / 300.0;
    let size = |px: f64| (px * ratio).floor().max(1.0) as u32;
    let (width, height) = (size(layout.card_size.0), size(layout.card_size.1));
    let part = treatment.filling(picture.dimensions(), layout.card_size);
    let mut pixels = picture::resize(picture, part, (width, height))?;
    if turned {
        image::imageops::rotate180_in_place(&mut pixels);
    }
    let inset = ((treatment.extend * ratio).floor() as u32).min((width.min(height) - 1) / 2);
    if inset > 0 {
        let (inner_width, inner_height) = (width - 2 * inset, height - 2 * inset);
        pixels = image::imageops::crop_imm(&pixels, inset, inset, inner_width, inner_height).to_image();
    }
    Ok(Ready { pixels, inset: inset.into() })
}

impl Canvas {
    /// A white page with its marks.
    pub(crate) fn new(layout: &Layout, ppi: i64, marks: &[Rect]) -> Self {
        let ratio = ppi as f64 / 300.0;
        // Papers that are no whole number of pixels are rounded, those of the tables are exact.
        let size = |px: f64| (px.round() * ratio).floor().max(1.0) as u32;
        let (width, height) = (size(layout.page.0), size(layout.page.1));
        let pixels = RgbImage::from_pixel(width, height, image::Rgb([WHITE; 3]));
        let mut canvas = Self { pixels, ratio };
        for mark in marks {
            let (x, y) = (canvas.px(mark.x), canvas.px(mark.y));
            let (right, bottom) = (canvas.px(mark.right()).max(x + 1), canvas.px(mark.bottom()).max(y + 1));
            for y in y..bottom {
                canvas.fill_row(x, right, y, [0; 3]);
            }
        }
        canvas
    }

    fn px(&self, value: f64) -> i64 {
        (value * self.ratio).round() as i64
    }

    fn put(&mut self, x: i64, y: i64, color: [u8; 3]) {
        if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
            && x < self.pixels.width()
            && y < self.pixels.height()
        {
            self.pixels.put_pixel(x, y, image::Rgb(color));
        }
    }

    fn fill_row(&mut self, from: i64, to: i64, y: i64, color: [u8; 3]) {
        (from..to).for_each(|x| self.put(x, y, color));
    }

    /// Copies a row of pixels to (x, y), as much of it as lies on the page.
    fn copy_row(&mut self, row: &[u8], x: i64, y: i64) {
        let (width, height) = (i64::from(self.pixels.width()), i64::from(self.pixels.height()));
        let length = (row.len() / 3) as i64;
        let (from, to) = (x.max(0), (x + length).min(width));
        if y < 0 || y >= height || from >= to {
            return;
        }
        let source = &row[(from - x) as usize * 3..(to - x) as usize * 3];
        let start = ((y * width + from) * 3) as usize;
        self.pixels.as_mut()[start..start + source.len()].copy_from_slice(source);
    }

    /// Puts a card with its left top corner at `slot`, and `bleed` px300 of its outermost pixels
    /// around it.
    pub(crate) fn card(&mut self, ready: &Ready, slot: Rect, bleed: (f64, f64)) {
        let x = (slot.x * self.ratio).floor() as i64 + ready.inset;
        let y = (slot.y * self.ratio).floor() as i64 + ready.inset;
        let reach = |b: f64| (b * self.ratio).ceil() as i64 + ready.inset;
        let (bleed_x, bleed_y) = (reach(bleed.0), reach(bleed.1));
        let width = ready.pixels.width() as usize * 3;
        let rows: Vec<&[u8]> = ready.pixels.as_raw().chunks_exact(width).collect();
        let last = rows.len() as i64 - 1;
        for dy in -bleed_y..=last + bleed_y {
            let row = rows[dy.clamp(0, last) as usize];
            self.copy_row(row, x, y + dy);
            let end = |at: usize| [row[at], row[at + 1], row[at + 2]];
            let right = x + (width / 3) as i64;
            self.fill_row(x - bleed_x, x, y + dy, end(0));
            self.fill_row(right, right + bleed_x, y + dy, end(width - 3));
        }
    }

    /// The line each card is cut along.
    pub(crate) fn outline(&mut self, slot: Rect, radius: f64) {
        let (left, top) = (self.px(slot.x), self.px(slot.y));
        let (right, bottom) = (self.px(slot.right()) - 1, self.px(slot.bottom()) - 1);
        let r = self.px(radius).min((right - left) / 2).min((bottom - top) / 2);
        for x in left + r..=right - r {
            self.put(x, top, [0; 3]);
            self.put(x, bottom, [0; 3]);
        }
        for y in top + r..=bottom - r {
            self.put(left, y, [0; 3]);
            self.put(right, y, [0; 3]);
        }
        // A quarter circle is shorter than twice its radius.
        let steps = (2 * r).max(1);
        for step in 0..=steps {
            let (sin, cos) = (std::f64::consts::FRAC_PI_2 * step as f64 / steps as f64).sin_cos();
            let (dx, dy) = (r - (r as f64 * cos).round() as i64, r - (r as f64 * sin).round() as i64);
            for (x, y) in
                [(left + dx, top + dy), (right - dx, top + dy), (left + dx, bottom - dy), (right - dx, bottom - dy)]
            {
                self.put(x, y, [0; 3]);
            }
        }
    }

    /// Writes the label in black.
    pub(crate) fn label(&mut self, text: &str, place: LabelPlace) {
        let size = (LABEL_SIZE * self.ratio) as f32;
        let (x, y) = ((place.x * self.ratio) as f32, (place.y * self.ratio) as f32);
        let mut ink = Vec::new();
        font::for_each_pixel(text, Face::Regular, size, (0.0, 0.0), |dx, dy, coverage| {
            let (px, py) = if place.upwards { (dy, -dx) } else { (dx, dy) };
            ink.push((x.round() as i64 + i64::from(px), y.round() as i64 + i64::from(py), coverage));
        });
        for (x, y, coverage) in ink {
            let (Ok(u), Ok(v)) = (u32::try_from(x), u32::try_from(y)) else { continue };
            let Some(below) = self.pixels.get_pixel_checked(u, v).map(|p| p.0) else { continue };
            let mixed = below.map(|c| (u32::from(c) * (255 - u32::from(coverage)) / 255) as u8);
            self.put(x, y, mixed);
        }
    }

    /// Moves and turns the page; what leaves it is gone, what comes in is white.
    pub(crate) fn offset(&mut self, offset: &OffsetArgs) {
        if offset.is_nothing() {
            return;
        }
        let (x, y) = offset.px();
        if offset.angle == 0.0 {
            self.shift(self.px(x), self.px(y));
        } else {
            self.turn(offset.angle, x * self.ratio, y * self.ratio);
        }
    }

    fn blank(&mut self) -> RgbImage {
        let white = RgbImage::from_pixel(self.pixels.width(), self.pixels.height(), image::Rgb([WHITE; 3]));
        std::mem::replace(&mut self.pixels, white)
    }

    fn shift(&mut self, dx: i64, dy: i64) {
        let old = self.blank();
        let width = old.width() as usize * 3;
        for (y, row) in old.as_raw().chunks_exact(width).enumerate() {
            self.copy_row(row, dx, y as i64 + dy);
        }
    }

    /// Takes each pixel from where it came, between the four nearest.
    fn turn(&mut self, angle: f64, dx: f64, dy: f64) {
        let old = self.blank();
        let (width, height) = (f64::from(old.width()), f64::from(old.height()));
        let (sin, cos) = angle.to_radians().sin_cos();
        let sample = |x: f64, y: f64| -> [f64; 3] {
            let at = |x: f64, y: f64| match (x >= 0.0 && y >= 0.0, old.get_pixel_checked(x as u32, y as u32)) {
                (true, Some(pixel)) => pixel.0.map(f64::from),
                _ => [f64::from(WHITE); 3],
            };
            let (fx, fy) = (x - x.floor(), y - y.floor());
            let (x, y) = (x.floor(), y.floor());
            let (a, b, c, d) = (at(x, y), at(x + 1.0, y), at(x, y + 1.0), at(x + 1.0, y + 1.0));
            std::array::from_fn(|i| (a[i] * (1.0 - fx) + b[i] * fx) * (1.0 - fy) + (c[i] * (1.0 - fx) + d[i] * fx) * fy)
        };
        for (px, py, pixel) in self.pixels.enumerate_pixels_mut() {
            let (x, y) = (f64::from(px) + 0.5 - dx - width / 2.0, f64::from(py) + 0.5 - dy - height / 2.0);
            // The way back: a turn to the left.
            let (x, y) = (cos * x + sin * y + width / 2.0, -sin * x + cos * y + height / 2.0);
            pixel.0 = sample(x - 0.5, y - 0.5).map(|c| c.round() as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Unit;
    use crate::layout;

    fn canvas() -> Canvas {
        let layout = layout::find("v1", "letter", "standard", "default").unwrap();
        Canvas::new(layout, 75, &[Rect::new(112.0, 112.0, 72.0, 72.0)])
    }

    #[test]
    fn what_leaves_the_page_is_gone_and_nothing_comes_in_at_the_other_edge() {
        let mut page = canvas();
        assert_eq!(page.pixels.get_pixel(30, 30).0, [0; 3]);
        page.offset(&OffsetArgs { x: -400.0, y: 0.0, angle: 0.0, unit: Unit::Px300 });
        assert!(page.pixels.pixels().all(|p| p.0 == [WHITE; 3]));
    }

    #[test]
    fn a_turn_by_nothing_but_a_hair_moves_nothing_by_a_pixel() {
        let mut page = canvas();
        let before = page.pixels.clone();
        page.offset(&OffsetArgs { x: 0.0, y: 0.0, angle: 1e-6, unit: Unit::Px300 });
        assert!(before.pixels().zip(page.pixels.pixels()).all(|(a, b)| a.0[0].abs_diff(b.0[0]) < 4));
    }
}
