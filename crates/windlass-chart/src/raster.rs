//! Turns a [`Scene`] into pixels with tiny-skia and the embedded font.
//!
//! Never depends on the machine: equal scenes give equal pixels.

use std::cell::Cell;

use tiny_skia::{
    FillRule, IntSize, LineCap, LineJoin, Mask, Paint, PathBuilder, Pixmap, PixmapMut, PremultipliedColorU8, Stroke,
    Transform,
};

use crate::Error;
use crate::font;
use crate::scene::{Canvas, Color, Path, Point, Rect, Scene, Segment, Text};

/// A drawn scene: opaque pixels.
pub struct Pixels(Option<Pixmap>);

impl Drop for Pixels {
    /// Leaves the memory to the next image of this thread.
    fn drop(&mut self) {
        let spare = self.0.take().map(Pixmap::take).unwrap_or_default();
        if spare.capacity() <= MAX_SPARE_BYTES {
            SPARE.set(spare);
        }
    }
}

impl Pixels {
    /// Columns.
    #[must_use]
    pub fn width_px(&self) -> u32 {
        self.pixmap().width()
    }

    /// Rows.
    #[must_use]
    pub fn height_px(&self) -> u32 {
        self.pixmap().height()
    }

    /// Row by row from the top, four bytes a pixel: red, green, blue, 255.
    #[must_use]
    pub fn rgba(&self) -> &[u8] {
        self.pixmap().data()
    }

    fn pixmap(&self) -> &Pixmap {
        self.0.as_ref().expect("only dropping takes it out")
    }
}

/// Draws `scene`.
///
/// # Errors
/// [`Error::Canvas`] when the image has no pixel or more than memory can hold.
pub fn draw(scene: &Scene) -> Result<Pixels, Error> {
    let (width_px, height_px) = (scene.width_px, scene.height_px);
    let pixmap = pixmap(width_px, height_px).ok_or(Error::Canvas { width_px, height_px })?;
    let whole = Rect::new(0, 0, as_i32(width_px), as_i32(height_px));
    let mut surface = Surface { pixmap, visible: whole, outer: Vec::new() };
    scene.draw_on(&mut surface);
    Ok(Pixels(Some(surface.pixmap)))
}

thread_local! {
    /// The last image's memory: a fresh allocation for every chart costs page faults.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Larger buffers are given back to the system: 16 MiB, four times an image of 1200 × 800.
const MAX_SPARE_BYTES: usize = 16 << 20;

fn pixmap(width_px: u32, height_px: u32) -> Option<Pixmap> {
    let size = IntSize::from_wh(width_px, height_px)?;
    let bytes = usize::try_from(u64::from(width_px) * u64::from(height_px) * 4).ok()?;
    let mut data = SPARE.take();
    // Whatever it held is painted over by the ground.
    data.resize(bytes, 0);
    Pixmap::from_vec(data, size)
}

struct Surface {
    pixmap: Pixmap,
    /// What may be drawn on; always inside the image.
    visible: Rect,
    /// What could be drawn on outside the open clips.
    outer: Vec<Rect>,
}

impl Canvas for Surface {
    fn ground(&mut self, _: u32, _: u32, color: Color) {
        self.pixmap.pixels_mut().fill(premultiplied(color));
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

    fn polyline(&mut self, points: &[Point], width_px: f32, color: Color) {
        self.stroke_path(polyline(points), width_px, color);
    }

    fn fill(&mut self, path: &Path, color: Color) {
        if let Some(path) = skia_path(path) {
            self.paint(&path, 0.0, |band, transform, mask| {
                band.fill_path(&path, &paint(color), FillRule::Winding, transform, mask);
            });
        }
    }

    fn stroke(&mut self, path: &Path, width_px: f32, color: Color) {
        self.stroke_path(skia_path(path), width_px, color);
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

    fn push_clip(&mut self, rect: Rect) {
        self.outer.push(self.visible);
        self.visible = intersection(rect, self.visible);
    }

    fn pop_clip(&mut self) {
        if let Some(outer) = self.outer.pop() {
            self.visible = outer;
        }
    }
}

impl Surface {
    fn stroke_path(&mut self, path: Option<tiny_skia::Path>, width_px: f32, color: Color) {
        let stroke =
            Stroke { width: width_px, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
        if let Some(path) = path {
            self.paint(&path, width_px, |band, transform, mask| {
                band.stroke_path(&path, &paint(color), &stroke, transform, mask);
            });
        }
    }

    /// Paints on the visible rows alone, which are one piece of memory; columns are masked
    /// only when the path reaches beyond them.
    fn paint(
        &mut self,
        path: &tiny_skia::Path,
        width_px: f32,
        draw: impl FnOnce(&mut PixmapMut<'_>, Transform, Option<&Mask>),
    ) {
        let (visible, width) = (self.visible, self.pixmap.width());
        if visible.width <= 0 || visible.height <= 0 {
            return;
        }
        let (bounds, reach) = (path.bounds(), width_px / 2.0 + 1.0);
        let beyond = bounds.left() - reach < visible.x as f32 || bounds.right() + reach > visible.right() as f32;
        let narrower = visible.x > 0 || visible.right() < as_i32(width);
        let height = visible.height as u32;
        let mask = (beyond && narrower).then(|| column_mask(visible, width, height)).flatten();
        let row_bytes = width as usize * 4;
        let first = visible.y as usize * row_bytes;
        let rows = &mut self.pixmap.data_mut()[first..first + height as usize * row_bytes];
        if let Some(mut band) = PixmapMut::from_bytes(rows, width, height) {
            draw(&mut band, Transform::from_translate(0.0, -(visible.y as f32)), mask.as_ref());
        }
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

/// A mask of `height` rows that shows the columns of `rect`.
fn column_mask(rect: Rect, width_px: u32, height: u32) -> Option<Mask> {
    let mut mask = Mask::new(width_px, height)?;
    for row in mask.data_mut().chunks_exact_mut(width_px as usize) {
        row[rect.x as usize..rect.right() as usize].fill(255);
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
