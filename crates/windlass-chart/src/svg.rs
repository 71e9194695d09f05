//! A [`Scene`] as an SVG file.
//!
//! Letters stay text, so that they can be found and read aloud. The file names the font
//! Inter and sans-serif behind it; `textLength` holds every text to the width it was laid
//! out with, whichever font the viewer has. Never writes a script, a link or a time.

use std::fmt::Write as _;

use crate::scene::{Anchor, Canvas, Color, Path, Point, Rect, Scene, Segment, Text, Weight};

/// `scene` as an SVG document. Equal scenes give equal text.
#[must_use]
pub fn document(scene: &Scene) -> String {
    let mut writer = Writer { out: String::with_capacity(64 * 1024), clips: 0 };
    scene.draw_on(&mut writer);
    writer.out.push_str("</svg>\n");
    writer.out
}

struct Writer {
    out: String,
    /// Clips so far: their ids.
    clips: usize,
}

impl Writer {
    fn put(&mut self, args: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.out.write_fmt(args);
    }

    /// An attribute for a colour, and one for its opacity when it has one.
    fn color(&mut self, name: &str, color: Color) {
        self.put(format_args!(" {name}=\"#{:02x}{:02x}{:02x}\"", color.r, color.g, color.b));
        if color.a < 255 {
            self.put(format_args!(" {name}-opacity=\"{}\"", short(f32::from(color.a) / 255.0)));
        }
    }

    fn stroked(&mut self, width_px: f32, color: Color) {
        self.out.push_str(" fill=\"none\" stroke-linejoin=\"round\" stroke-linecap=\"round\"");
        self.put(format_args!(" stroke-width=\"{}\"", short(width_px)));
        self.color("stroke", color);
        self.out.push_str("/>\n");
    }

    fn path(&mut self, path: &Path) {
        self.out.push_str("<path d=\"");
        let at = |p: Point| format!("{} {}", short(p.x), short(p.y));
        for segment in &path.segments {
            match *segment {
                Segment::MoveTo(p) => self.put(format_args!("M{}", at(p))),
                Segment::LineTo(p) => self.put(format_args!("L{}", at(p))),
                Segment::CubicTo(a, b, p) => self.put(format_args!("C{} {} {}", at(a), at(b), at(p))),
                Segment::Close => self.out.push('Z'),
            }
        }
        self.out.push('"');
    }
}

impl Canvas for Writer {
    fn ground(&mut self, width_px: u32, height_px: u32, color: Color) {
        self.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width_px}\" height=\"{height_px}\" \
             viewBox=\"0 0 {width_px} {height_px}\" font-family=\"Inter, Helvetica, Arial, sans-serif\">\n"
        ));
        let whole = |side: u32| i32::try_from(side).unwrap_or(i32::MAX);
        self.rect(Rect::new(0, 0, whole(width_px), whole(height_px)), color);
    }

    fn rect(&mut self, rect: Rect, fill: Color) {
        if rect.width < 1 || rect.height < 1 {
            return;
        }
        let Rect { x, y, width, height } = rect;
        self.put(format_args!("<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\""));
        self.color("fill", fill);
        // Whole pixels stay whole when the viewer does not scale.
        self.out.push_str(" shape-rendering=\"crispEdges\"/>\n");
    }

    fn polyline(&mut self, points: &[Point], width_px: f32, color: Color) {
        if points.len() < 2 {
            return;
        }
        self.out.push_str("<polyline points=\"");
        for (index, point) in points.iter().enumerate() {
            let gap = if index > 0 { " " } else { "" };
            self.put(format_args!("{gap}{},{}", short(point.x), short(point.y)));
        }
        self.out.push('"');
        self.stroked(width_px, color);
    }

    fn fill(&mut self, path: &Path, color: Color) {
        self.path(path);
        self.color("fill", color);
        self.out.push_str("/>\n");
    }

    fn stroke(&mut self, path: &Path, width_px: f32, color: Color) {
        self.path(path);
        self.stroked(width_px, color);
    }

    fn text(&mut self, text: &Text) {
        let anchor = match text.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = match text.weight {
            Weight::Regular => 400,
            Weight::SemiBold => 600,
        };
        self.put(format_args!(
            "<text x=\"{}\" y=\"{}\" font-size=\"{}\" font-weight=\"{weight}\" text-anchor=\"{anchor}\" \
             textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\"",
            short(text.x),
            short(text.baseline_y.round()),
            short(text.size_px),
            short(text.width_px()),
        ));
        self.color("fill", text.color);
        let escaped = escape(&text.text);
        self.put(format_args!(">{escaped}</text>\n"));
    }

    fn push_clip(&mut self, rect: Rect) {
        self.clips += 1;
        let (id, Rect { x, y, .. }) = (self.clips, rect);
        let (width, height) = (rect.width.max(0), rect.height.max(0));
        self.put(format_args!(
            "<clipPath id=\"c{id}\"><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/></clipPath>\n\
             <g clip-path=\"url(#c{id})\">\n"
        ));
    }

    fn pop_clip(&mut self) {
        self.out.push_str("</g>\n");
    }
}

/// At most two decimals, without trailing zeros: a hundredth of a pixel is not seen.
fn short(value: f32) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Text for XML 1.0: markup escaped, characters that XML forbids left out.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::Item;

    #[test]
    fn a_scene_is_written_in_order_and_escaped() {
        let mut scene = Scene::new(200, 100, Color::rgb(0xff_ff_ff));
        let rect = Rect::new(10, 20, 30, 40);
        let items = vec![Item::Rect { rect, fill: Color { a: 51, ..Color::rgb(0x08_99_81) } }];
        scene.items.push(Item::Clip { rect: Rect::new(0, 0, 100, 100), items });
        scene.stroke(Path::new().move_to(1.0, 2.0).line_to(3.456, 4.0), 1.5, Color::rgb(0x29_62_ff));
        scene.items.push(Item::Text(Text {
            text: "M&M <b>\u{0}".to_owned(),
            x: 5.0,
            baseline_y: 50.4,
            size_px: 12.0,
            weight: Weight::SemiBold,
            anchor: Anchor::Start,
            color: Color::rgb(0x13_17_22),
        }));
        let text = document(&scene);
        let parts = [
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"200\" height=\"100\"",
            "<g clip-path=\"url(#c1)\">",
            "<rect x=\"10\" y=\"20\" width=\"30\" height=\"40\" fill=\"#089981\" fill-opacity=\"0.2\"",
            "</g>",
            "M1 2L3.46 4",
            "y=\"50\"",
            ">M&amp;M &lt;b&gt;</text>",
            "</svg>",
        ];
        let mut from = 0;
        for part in parts {
            from += text[from..].find(part).unwrap_or_else(|| panic!("{part} follows in {text}"));
        }
    }
}
