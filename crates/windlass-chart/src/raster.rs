//! Turns a [`Scene`] into pixels with tiny-skia and the embedded font.
//!
//! Never depends on the machine: equal scenes give equal pixels.

use tiny_skia::{
    FillRule, LineCap, LineJoin, Mask, Paint, PathBuilder, Pixmap, PremultipliedColorU8, Stroke, Transform,
};

use crate::Error;
use crate::font;
use crate::scene::{Color, Item, Path, Point, Rect, Scene, Segment, Text};

/// A drawn scene: opaque pixels.
pub struct Pixels(Pixmap);

impl Pixels {
    /// Columns.
    #[must_use]
    pub fn width_px(&self) -> u32 {
        self.0.width()
    }

    /// Rows.
    #[must_use]
    pub fn height_px(&self) -> u32 {
        self.0.height()
    }

    /// Row by row from the top, four bytes a pixel: red, green, blue, 255.
    #[must_use]
    pub fn rgba(&self) -> &[u8] {
        self.0.data()
    }
}

/// Draws `scene`.
///
/// # Errors
/// [`Error::Canvas`] when the image has no pixel or more than memory can hold.
pub fn draw(scene: &Scene) -> Result<Pixels, Error> {
    let (width_px, height_px) = (scene.width_px, scene.height_px);
    let mut pixmap = Pixmap::new(width_px, height_px).ok_or(Error::Canvas { width_px, height_px })?;
    let ground = Color { a: 255, ..scene.background };
    pixmap.pixels_mut().fill(premultiplied(ground));
    let whole = Rect::new(0, 0, as_i32(width_px), as_i32(height_px));
    let mut canvas = Canvas { pixmap, visible: whole, mask: None };
    canvas.items(&scene.items);
    Ok(Pixels(canvas.pixmap))
}

struct Canvas {
    pixmap: Pixmap,
    /// What may be drawn on; always inside the image.
    visible: Rect,
    /// `visible` for tiny-skia; absent while everything is visible.
    mask: Option<Mask>,
}

impl Canvas {
    fn items(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Rect { rect, fill } => self.rect(*rect, *fill),
                Item::Polyline { points, width_px, color } => {
                    self.stroke(polyline(points), *width_px, *color);
                }
                Item::Fill { path, color } => self.fill(path, *color),
                Item::Stroke { path, width_px, color } => {
                    self.stroke(skia_path(path), *width_px, *color);
                }
                Item::Text(text) => self.text(text),
                Item::Clip { rect, items } => self.clipped(*rect, items),
            }
        }
    }

    fn clipped(&mut self, rect: Rect, items: &[Item]) {
        let inside = intersection(rect, self.visible);
        if inside.width <= 0 || inside.height <= 0 {
            return;
        }
        let outer = (self.visible, self.mask.take());
        self.visible = inside;
        self.mask = mask_of(inside, self.pixmap.width(), self.pixmap.height());
        self.items(items);
        (self.visible, self.mask) = outer;
    }

    fn rect(&mut self, rect: Rect, fill: Color) {
        let shown = intersection(rect, self.visible);
        if shown.width <= 0 {
            return;
        }
        let width = self.pixmap.width() as usize;
        let opaque = premultiplied(fill);
        let pixels = self.pixmap.pixels_mut();
        for y in shown.y..shown.bottom() {
            let start = y as usize * width + shown.x as usize;
            let row = &mut pixels[start..start + shown.width as usize];
            if fill.a == 255 {
                row.fill(opaque);
            } else {
                row.iter_mut().for_each(|pixel| *pixel = blended(*pixel, fill, 255));
            }
        }
    }

    fn fill(&mut self, path: &Path, color: Color) {
        if let Some(path) = skia_path(path) {
            let (paint, still) = (paint(color), Transform::identity());
            let mask = self.mask.as_ref();
            self.pixmap.fill_path(&path, &paint, FillRule::Winding, still, mask);
        }
    }

    fn stroke(&mut self, path: Option<tiny_skia::Path>, width_px: f32, color: Color) {
        let stroke =
            Stroke { width: width_px, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
        if let Some(path) = path {
            let (paint, still) = (paint(color), Transform::identity());
            self.pixmap.stroke_path(&path, &paint, &stroke, still, self.mask.as_ref());
        }
    }

    fn text(&mut self, text: &Text) {
        let start = (text.left(), text.baseline_y.round() as i32);
        let (visible, width) = (self.visible, self.pixmap.width() as usize);
        let pixels = self.pixmap.pixels_mut();
        font::for_each_mask(&text.text, text.size_px, text.weight, start, |x, baseline, mask| {
            let (left, top) = (x + mask.left, baseline - mask.top);
            for (dy, row) in mask.coverage.chunks_exact(mask.width).enumerate() {
                let y = top + as_i32(dy as u32);
                if y < visible.y || y >= visible.bottom() {
                    continue;
                }
                for (dx, &coverage) in row.iter().enumerate() {
                    let x = left + as_i32(dx as u32);
                    if coverage > 0 && x >= visible.x && x < visible.right() {
                        let pixel = &mut pixels[y as usize * width + x as usize];
                        *pixel = blended(*pixel, text.color, coverage);
                    }
                }
            }
        });
    }
}

/// The part of an image that can be addressed with `i32`; larger images are refused earlier.
fn as_i32(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn intersection(a: Rect, b: Rect) -> Rect {
    let (x, y) = (a.x.max(b.x), a.y.max(b.y));
    let right = a.x.saturating_add(a.width).min(b.right());
    let bottom = a.y.saturating_add(a.height).min(b.bottom());
    Rect::new(x, y, right.saturating_sub(x), bottom.saturating_sub(y))
}

fn mask_of(rect: Rect, width_px: u32, height_px: u32) -> Option<Mask> {
    let mut mask = Mask::new(width_px, height_px)?;
    let width = width_px as usize;
    for y in rect.y..rect.bottom() {
        let start = y as usize * width + rect.x as usize;
        mask.data_mut()[start..start + rect.width as usize].fill(255);
    }
    Some(mask)
}

fn premultiplied(color: Color) -> PremultipliedColorU8 {
    tiny_skia::ColorU8::from_rgba(color.r, color.g, color.b, color.a).premultiply()
}

/// `color` with `coverage` (0–255) of its opacity over an opaque pixel.
fn blended(below: PremultipliedColorU8, color: Color, coverage: u8) -> PremultipliedColorU8 {
    let part = u32::from(color.a) * u32::from(coverage);
    let mix = |top: u8, below: u8| {
        let sum = u32::from(top) * part + u32::from(below) * (255 * 255 - part);
        ((sum + 255 * 255 / 2) / (255 * 255)) as u8
    };
    let (r, g, b) = (mix(color.r, below.red()), mix(color.g, below.green()), mix(color.b, below.blue()));
    PremultipliedColorU8::from_rgba(r, g, b, 255).unwrap_or(below)
}

fn paint(color: Color) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(color.r, color.g, color.b, color.a);
    paint.anti_alias = true;
    paint
}

fn polyline(points: &[Point]) -> Option<tiny_skia::Path> {
    let (first, rest) = points.split_first()?;
    let mut builder = PathBuilder::with_capacity(points.len(), points.len());
    builder.move_to(first.x, first.y);
    rest.iter().for_each(|point| builder.line_to(point.x, point.y));
    builder.finish()
}

fn skia_path(path: &Path) -> Option<tiny_skia::Path> {
    let mut builder = PathBuilder::new();
    for segment in &path.segments {
        match *segment {
            Segment::MoveTo(p) => builder.move_to(p.x, p.y),
            Segment::LineTo(p) => builder.line_to(p.x, p.y),
            Segment::CubicTo(a, b, p) => builder.cubic_to(a.x, a.y, b.x, b.y, p.x, p.y),
            Segment::Close => builder.close(),
        }
    }
    builder.finish()
}
