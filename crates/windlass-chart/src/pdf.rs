//! Scenes as the pages of a PDF file, all vectors.
//!
//! Letters are drawn as contours, so the file holds no font and looks the same everywhere. It
//! has no links, no scripts, no times: equal scenes give equal bytes. PDF 1.4 (ISO 32000-1).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::scene::{Canvas, Color, Path, Point, Rect, Scene, Segment, Text};

/// Points per pixel: a page shown at 100 % on a screen of 96 dots per inch has the chart's size.
const PT_PER_PX: f32 = 0.75;

/// A document with one page for each scene, in order.
#[must_use]
pub fn document(scenes: &[Scene]) -> Vec<u8> {
    let mut opacities = BTreeSet::new();
    let pages: Vec<Page> = scenes.iter().map(|scene| Page::of(scene, &mut opacities)).collect();
    let mut file = File { bytes: b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n".to_vec(), offsets: Vec::new() };
    let first_page = 3;
    let kids = (0..pages.len()).map(|index| format!("{} 0 R", first_page + 2 * index)).collect::<Vec<_>>().join(" ");
    file.object("<< /Type /Catalog /Pages 2 0 R >>", None);
    file.object(&format!("<< /Type /Pages /Kids [{kids}] /Count {} >>", pages.len()), None);
    let states: String = opacities.iter().fold(String::new(), |mut all, opacity| {
        let part = short(f32::from(*opacity) / 255.0);
        let _ = write!(all, "/A{opacity} << /ca {part} /CA {part} >> ");
        all
    });
    for (index, page) in pages.iter().enumerate() {
        let content = first_page + 2 * index + 1;
        file.object(
            &format!(
                "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {} {}] /Contents {content} 0 R \
                 /Resources << /ExtGState << {states}>> >> >>",
                short(page.width_pt),
                short(page.height_pt)
            ),
            None,
        );
        let packed = miniz_oxide::deflate::compress_to_vec_zlib(page.content.as_bytes(), 6);
        file.object(&format!("<< /Length {} /Filter /FlateDecode >>", packed.len()), Some(&packed));
    }
    file.end()
}

struct File {
    bytes: Vec<u8>,
    /// Where each object begins, from object 1.
    offsets: Vec<usize>,
}

impl File {
    fn object(&mut self, dictionary: &str, stream: Option<&[u8]>) {
        self.offsets.push(self.bytes.len());
        self.bytes.extend(format!("{} 0 obj\n{dictionary}\n", self.offsets.len()).bytes());
        if let Some(stream) = stream {
            self.bytes.extend(b"stream\n");
            self.bytes.extend(stream);
            self.bytes.extend(b"\nendstream\n");
        }
        self.bytes.extend(b"endobj\n");
    }

    fn end(mut self) -> Vec<u8> {
        let (table, objects) = (self.bytes.len(), self.offsets.len() + 1);
        let mut tail = format!("xref\n0 {objects}\n0000000000 65535 f \n");
        for offset in &self.offsets {
            let _ = writeln!(tail, "{offset:010} 00000 n ");
        }
        let _ = write!(tail, "trailer\n<< /Size {objects} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n");
        self.bytes.extend(tail.bytes());
        self.bytes
    }
}

/// A page's content stream, in the scene's own pixels: the first operator turns them into points.
struct Page {
    width_pt: f32,
    height_pt: f32,
    content: String,
    /// What was set last, so that it is not set again.
    state: (Option<Color>, Option<Color>, u8),
    outer: Vec<(Option<Color>, Option<Color>, u8)>,
    opacities: BTreeSet<u8>,
}

impl Page {
    fn of(scene: &Scene, opacities: &mut BTreeSet<u8>) -> Self {
        let (width_pt, height_pt) = (scene.width_px as f32 * PT_PER_PX, scene.height_px as f32 * PT_PER_PX);
        let content = format!("{PT_PER_PX} 0 0 -{PT_PER_PX} 0 {} cm 1 J 1 j\n", short(height_pt));
        let state = (None, None, 255);
        let mut page = Self { width_pt, height_pt, content, state, outer: Vec::new(), opacities: BTreeSet::new() };
        scene.draw_on(&mut page);
        opacities.append(&mut page.opacities);
        // A page that never changed its opacity still names none.
        opacities.insert(255);
        page
    }

    fn put(&mut self, args: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.content.write_fmt(args);
    }

    fn opacity(&mut self, opacity: u8) {
        if self.state.2 != opacity {
            self.state.2 = opacity;
            self.opacities.insert(opacity);
            self.put(format_args!("/A{opacity} gs\n"));
        }
    }

    fn rgb(color: Color) -> String {
        let part = |value: u8| short4(f32::from(value) / 255.0);
        format!("{} {} {}", part(color.r), part(color.g), part(color.b))
    }

    fn filling(&mut self, color: Color) {
        self.opacity(color.a);
        if self.state.0 != Some(color) {
            self.state.0 = Some(color);
            let rgb = Self::rgb(color);
            self.put(format_args!("{rgb} rg\n"));
        }
    }

    fn stroking(&mut self, width_px: f32, color: Color) {
        self.opacity(color.a);
        if self.state.1 != Some(color) {
            self.state.1 = Some(color);
            let rgb = Self::rgb(color);
            self.put(format_args!("{rgb} RG\n"));
        }
        self.put(format_args!("{} w\n", short(width_px)));
    }

    fn path(&mut self, path: &Path) {
        let at = |p: Point| format!("{} {}", short(p.x), short(p.y));
        for segment in &path.segments {
            match *segment {
                Segment::MoveTo(p) => self.put(format_args!("{} m ", at(p))),
                Segment::LineTo(p) => self.put(format_args!("{} l ", at(p))),
                Segment::CubicTo(a, b, p) => self.put(format_args!("{} {} {} c ", at(a), at(b), at(p))),
                Segment::Close => self.content.push_str("h "),
            }
        }
    }
}

impl Canvas for Page {
    fn ground(&mut self, width_px: u32, height_px: u32, color: Color) {
        let whole = |side: u32| i32::try_from(side).unwrap_or(i32::MAX);
        self.rect(Rect::new(0, 0, whole(width_px), whole(height_px)), color);
    }

    fn rect(&mut self, rect: Rect, fill: Color) {
        if rect.width > 0 && rect.height > 0 {
            self.filling(fill);
            self.put(format_args!("{} {} {} {} re f\n", rect.x, rect.y, rect.width, rect.height));
        }
    }

    fn polyline(&mut self, points: &[Point], width_px: f32, color: Color) {
        let Some((first, rest)) = points.split_first().filter(|(_, rest)| !rest.is_empty()) else { return };
        self.stroking(width_px, color);
        self.put(format_args!("{} {} m ", short(first.x), short(first.y)));
        for point in rest {
            self.put(format_args!("{} {} l ", short(point.x), short(point.y)));
        }
        self.content.push_str("S\n");
    }

    fn fill(&mut self, path: &Path, color: Color) {
        if !path.segments.is_empty() {
            self.filling(color);
            self.path(path);
            self.content.push_str("f\n");
        }
    }

    fn stroke(&mut self, path: &Path, width_px: f32, color: Color) {
        if !path.segments.is_empty() {
            self.stroking(width_px, color);
            self.path(path);
            self.content.push_str("S\n");
        }
    }

    fn text(&mut self, text: &Text) {
        self.fill(&text.outline(), text.color);
    }

    fn push_clip(&mut self, rect: Rect) {
        self.outer.push(self.state);
        let (width, height) = (rect.width.max(0), rect.height.max(0));
        self.put(format_args!("q {} {} {width} {height} re W n\n", rect.x, rect.y));
    }

    fn pop_clip(&mut self) {
        self.content.push_str("Q\n");
        self.state = self.outer.pop().unwrap_or((None, None, 255));
    }
}

fn trimmed(text: &str) -> String {
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn short(value: f32) -> String {
    trimmed(&format!("{value:.2}"))
}

fn short4(value: f32) -> String {
    trimmed(&format!("{value:.4}"))
}
