//! A chart's scene as vectors of a page.

use windlass_chart::scene::{Anchor, Canvas, Color as SceneColor, Path, Point, Rect, Segment, Text, Weight};

use crate::font::{self, Face};
use crate::writer::{Color, PageOp, PathStep, RectPt, TextRun, rect_path};

/// Takes a scene's calls down as what is drawn on a page, in the scene's own pixels, y down.
#[derive(Default)]
pub(super) struct VectorCanvas {
    pub(super) ops: Vec<PageOp>,
}

fn color(color: SceneColor) -> Color {
    Color { rgb: [color.r, color.g, color.b], alpha: color.a }
}

fn area(rect: Rect) -> RectPt {
    let side = |v: i32| f64::from(v);
    RectPt { x: side(rect.x), y: side(rect.y), width: side(rect.width), height: side(rect.height) }
}

fn steps(path: &Path) -> Vec<PathStep> {
    let at = |p: Point| (f64::from(p.x), f64::from(p.y));
    let step = |segment: &Segment| match *segment {
        Segment::MoveTo(p) => PathStep::Move(at(p).0, at(p).1),
        Segment::LineTo(p) => PathStep::Line(at(p).0, at(p).1),
        Segment::CubicTo(a, b, p) => {
            let (a, b, p) = (at(a), at(b), at(p));
            PathStep::Curve([a.0, a.1, b.0, b.1, p.0, p.1])
        }
        Segment::Close => PathStep::Close,
    };
    path.segments.iter().map(step).collect()
}

impl Canvas for VectorCanvas {
    fn ground(&mut self, width_px: u32, height_px: u32, ground: SceneColor) {
        let whole = RectPt { x: 0.0, y: 0.0, width: width_px.into(), height: height_px.into() };
        self.ops.push(PageOp::fill_rect(whole, color(ground)));
    }

    fn rect(&mut self, rect: Rect, fill: SceneColor) {
        if rect.width >= 1 && rect.height >= 1 {
            self.ops.push(PageOp::Fill(rect_path(area(rect)), color(fill)));
        }
    }

    fn polyline(&mut self, points: &[Point], width_px: f32, line: SceneColor) {
        let [first, rest @ ..] = points else { return };
        if rest.is_empty() {
            return;
        }
        let mut path = vec![PathStep::Move(first.x.into(), first.y.into())];
        path.extend(rest.iter().map(|p| PathStep::Line(p.x.into(), p.y.into())));
        self.ops.push(PageOp::Stroke { path, width_pt: width_px.into(), color: color(line), round: true });
    }

    fn fill(&mut self, path: &Path, fill: SceneColor) {
        self.ops.push(PageOp::Fill(steps(path), color(fill)));
    }

    fn stroke(&mut self, path: &Path, width_px: f32, line: SceneColor) {
        self.ops.push(PageOp::Stroke { path: steps(path), width_pt: width_px.into(), color: color(line), round: true });
    }

    fn text(&mut self, text: &Text) {
        if !font::missing_glyphs(&text.text).is_empty() {
            // What only the charts' second font has is drawn as contours: the document embeds Inter alone.
            return self.fill(&text.outline(), text.color);
        }
        let face = match text.weight {
            Weight::Regular => Face::Regular,
            Weight::SemiBold => Face::Bold,
        };
        let shaped = font::shape(&text.text, face);
        let size_pt = f64::from(text.size_px);
        let width = shaped.width_em * size_pt;
        let x = match text.anchor {
            Anchor::Start => f64::from(text.x),
            Anchor::Middle => f64::from(text.x) - width / 2.0,
            Anchor::End => f64::from(text.x) - width,
        };
        let matrix = [1.0, 0.0, 0.0, -1.0, x, f64::from(text.baseline_y)];
        self.ops.push(PageOp::Text(TextRun { shaped, face, size_pt, matrix, color: color(text.color) }));
    }

    fn push_clip(&mut self, rect: Rect) {
        self.ops.extend([PageOp::Save, PageOp::Clip(area(rect))]);
    }

    fn pop_clip(&mut self) {
        self.ops.push(PageOp::Restore);
    }
}
