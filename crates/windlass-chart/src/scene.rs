//! A drawing as a list of rectangles, lines, filled paths and texts.
//!
//! Knows no market and no pixel format. All lengths are device pixels, x to the right and
//! y downwards from the top left corner; items are drawn in order, later ones on top.
//!
//! A back end implements [`Canvas`] and is handed to [`Scene::draw_on`]: the pixels of
//! [`crate::raster`], the SVG of [`crate::svg`] and the vector pages of a PDF all see the same
//! calls. One that has no fonts of its own draws [`Text::outline`]; one that embeds fonts
//! takes [`crate::font::file`].

pub use crate::font::missing_glyphs;

/// A colour: red, green, blue and opacity, 0–255 each, not premultiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color {
    /// Red.
    pub r: u8,
    /// Green.
    pub g: u8,
    /// Blue.
    pub b: u8,
    /// Opacity; 255 hides what lies below.
    pub a: u8,
}

impl Color {
    /// An opaque colour from `0xRRGGBB`.
    #[must_use]
    pub const fn rgb(hex: u32) -> Self {
        let [_, r, g, b] = hex.to_be_bytes();
        Self { r, g, b, a: 255 }
    }

    /// The opaque colour seen when `self` covers `part` (0–1) of `ground`.
    #[must_use]
    pub fn over(self, ground: Self, part: f32) -> Self {
        let mix = |top: u8, below: u8| (f32::from(top) * part + f32::from(below) * (1.0 - part)).round() as u8;
        let (r, g, b) = (mix(self.r, ground.r), mix(self.g, ground.g), mix(self.b, ground.b));
        Self { r, g, b, a: 255 }
    }
}

/// A place, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// To the right.
    pub x: f32,
    /// Downwards.
    pub y: f32,
}

impl Point {
    /// The point (`x`, `y`).
    #[must_use]
    pub const fn new(x: f32, y: f32) -> Self {
        Self { x, y }
    }
}

/// A rectangle on whole pixels. It never has a smoothed edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// Left edge, the first column inside.
    pub x: i32,
    /// Top edge, the first row inside.
    pub y: i32,
    /// Columns; nothing is drawn below 1.
    pub width: i32,
    /// Rows; nothing is drawn below 1.
    pub height: i32,
}

impl Rect {
    /// The rectangle of `width` × `height` at (`x`, `y`).
    #[must_use]
    pub const fn new(x: i32, y: i32, width: i32, height: i32) -> Self {
        Self { x, y, width, height }
    }

    /// The first column to the right of it.
    #[must_use]
    pub const fn right(&self) -> i32 {
        self.x + self.width
    }

    /// The first row below it.
    #[must_use]
    pub const fn bottom(&self) -> i32 {
        self.y + self.height
    }
}

/// One step of a [`Path`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Segment {
    /// Starts a contour.
    MoveTo(Point),
    /// A straight line.
    LineTo(Point),
    /// A cubic Bézier curve: two control points, then the end.
    CubicTo(Point, Point, Point),
    /// A straight line back to the start of the contour.
    Close,
}

/// A map of the plane: x' = a·x + c·y + e, y' = b·x + d·y + f.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// x from x.
    pub a: f32,
    /// y from x.
    pub b: f32,
    /// x from y.
    pub c: f32,
    /// y from y.
    pub d: f32,
    /// Added to x.
    pub e: f32,
    /// Added to y.
    pub f: f32,
}

impl Affine {
    /// Scales by `factor` around the origin, then moves by (`x`, `y`).
    #[must_use]
    pub const fn scale_then_move(factor: f32, x: f32, y: f32) -> Self {
        Self { a: factor, b: 0.0, c: 0.0, d: factor, e: x, f: y }
    }

    /// Half a turn around `center`.
    #[must_use]
    pub const fn half_turn(center: Point) -> Self {
        Self { a: -1.0, b: 0.0, c: 0.0, d: -1.0, e: 2.0 * center.x, f: 2.0 * center.y }
    }

    /// Turns by `angle_rad` (clockwise on screen) around `center`.
    #[must_use]
    pub fn turn(angle_rad: f32, center: Point) -> Self {
        let (sin, cos) = angle_rad.sin_cos();
        Self {
            a: cos,
            b: sin,
            c: -sin,
            d: cos,
            e: center.x - cos * center.x + sin * center.y,
            f: center.y - sin * center.x - cos * center.y,
        }
    }

    /// Where `point` goes.
    #[must_use]
    pub fn apply(&self, point: Point) -> Point {
        Point::new(self.a * point.x + self.c * point.y + self.e, self.b * point.x + self.d * point.y + self.f)
    }
}

/// Closed or open contours of lines and cubic curves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Path {
    /// The steps, in order.
    pub segments: Vec<Segment>,
}

impl Path {
    /// How far the control points of a quarter circle of radius 1 stand from its ends.
    const QUARTER: f32 = 0.552_284_8;

    /// A path without steps.
    #[must_use]
    pub const fn new() -> Self {
        Self { segments: Vec::new() }
    }

    /// Starts a contour at (`x`, `y`).
    #[must_use]
    pub fn move_to(mut self, x: f32, y: f32) -> Self {
        self.segments.push(Segment::MoveTo(Point::new(x, y)));
        self
    }

    /// Adds a line to (`x`, `y`).
    #[must_use]
    pub fn line_to(mut self, x: f32, y: f32) -> Self {
        self.segments.push(Segment::LineTo(Point::new(x, y)));
        self
    }

    /// Adds a cubic curve: control points `c1`, `c2` and the end, each as (x, y).
    #[must_use]
    pub fn cubic_to(mut self, c1: (f32, f32), c2: (f32, f32), end: (f32, f32)) -> Self {
        let point = |(x, y)| Point::new(x, y);
        self.segments.push(Segment::CubicTo(point(c1), point(c2), point(end)));
        self
    }

    /// Closes the contour.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.segments.push(Segment::Close);
        self
    }

    /// Appends the contours of `other`.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.segments.extend_from_slice(&other.segments);
        self
    }

    /// The circle of `radius` around (`x`, `y`).
    #[must_use]
    pub fn circle(x: f32, y: f32, radius: f32) -> Self {
        Self::round_rect(x - radius, y - radius, 2.0 * radius, 2.0 * radius, radius)
    }

    /// A rectangle with corners rounded by `radius` (0: sharp).
    #[must_use]
    pub fn round_rect(x: f32, y: f32, width: f32, height: f32, radius: f32) -> Self {
        let (right, bottom, r) = (x + width, y + height, radius);
        let k = r * (1.0 - Self::QUARTER);
        Self::new()
            .move_to(x + r, y)
            .line_to(right - r, y)
            .cubic_to((right - k, y), (right, y + k), (right, y + r))
            .line_to(right, bottom - r)
            .cubic_to((right, bottom - k), (right - k, bottom), (right - r, bottom))
            .line_to(x + r, bottom)
            .cubic_to((x + k, bottom), (x, bottom - k), (x, bottom - r))
            .line_to(x, y + r)
            .cubic_to((x, y + k), (x + k, y), (x + r, y))
            .close()
    }

    /// The path as `map` moves it.
    #[must_use]
    pub fn mapped(&self, map: Affine) -> Self {
        let segments = self.segments.iter().map(|segment| match *segment {
            Segment::MoveTo(p) => Segment::MoveTo(map.apply(p)),
            Segment::LineTo(p) => Segment::LineTo(map.apply(p)),
            Segment::CubicTo(a, b, p) => Segment::CubicTo(map.apply(a), map.apply(b), map.apply(p)),
            Segment::Close => Segment::Close,
        });
        Self { segments: segments.collect() }
    }
}

/// How heavy a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weight {
    /// Inter Regular, 400.
    Regular,
    /// Inter SemiBold, 600.
    SemiBold,
}

/// Which point of a text its `x` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// The left end.
    Start,
    /// The middle.
    Middle,
    /// The right end.
    End,
}

/// A line of text.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// What it says. Characters without a glyph draw nothing: ask [`missing_glyphs`] first.
    pub text: String,
    /// Where the `anchor` stands.
    pub x: f32,
    /// The line the letters stand on; rounded to a whole pixel.
    pub baseline_y: f32,
    /// The height of the em.
    pub size_px: f32,
    /// How heavy.
    pub weight: Weight,
    /// What `x` names.
    pub anchor: Anchor,
    /// In which colour.
    pub color: Color,
}

impl Text {
    /// How wide it is when drawn.
    #[must_use]
    pub fn width_px(&self) -> f32 {
        crate::font::width_px(&self.text, self.size_px, self.weight)
    }

    /// Its letters as contours, where they stand in the scene: for a back end without fonts.
    #[must_use]
    pub fn outline(&self) -> Path {
        crate::font::outline(&self.text, self.size_px, self.weight, self.left(), self.baseline_y.round())
    }

    /// The x of its left end.
    #[must_use]
    pub fn left(&self) -> f32 {
        match self.anchor {
            Anchor::Start => self.x,
            Anchor::Middle => self.x - self.width_px() / 2.0,
            Anchor::End => self.x - self.width_px(),
        }
    }
}

/// Where a [`Scene`] is drawn.
///
/// Colours may be translucent. Everything between [`Canvas::push_clip`] and its
/// [`Canvas::pop_clip`] shows inside that rectangle only; clips nest, and always come in pairs.
pub trait Canvas {
    /// The opaque ground, once, before everything else.
    fn ground(&mut self, width_px: u32, height_px: u32, color: Color);
    /// A rectangle on whole pixels.
    fn rect(&mut self, rect: Rect, fill: Color);
    /// Straight lines from point to point, with round joins and ends.
    fn polyline(&mut self, points: &[Point], width_px: f32, color: Color);
    /// The inside of a path, by the non-zero rule.
    fn fill(&mut self, path: &Path, color: Color);
    /// The line along a path, with round joins and ends.
    fn stroke(&mut self, path: &Path, width_px: f32, color: Color);
    /// A line of text.
    fn text(&mut self, text: &Text);
    /// Shows what follows inside `rect` only.
    fn push_clip(&mut self, rect: Rect);
    /// Ends the innermost clip.
    fn pop_clip(&mut self);
}

/// One thing to draw.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A rectangle on whole pixels.
    Rect {
        /// Where.
        rect: Rect,
        /// In which colour.
        fill: Color,
    },
    /// Straight lines from point to point, smoothed, with round joins.
    Polyline {
        /// The corners, in order; fewer than two draw nothing.
        points: Vec<Point>,
        /// How thick.
        width_px: f32,
        /// In which colour.
        color: Color,
    },
    /// The inside of a path (non-zero winding), smoothed.
    Fill {
        /// The contours; open ones are closed.
        path: Path,
        /// In which colour.
        color: Color,
    },
    /// The line along a path, smoothed, with round joins and ends.
    Stroke {
        /// The contours.
        path: Path,
        /// How thick.
        width_px: f32,
        /// In which colour.
        color: Color,
    },
    /// A line of text.
    Text(Text),
    /// Items of which only the part inside `rect` shows.
    Clip {
        /// What shows.
        rect: Rect,
        /// What is drawn.
        items: Vec<Item>,
    },
}

impl Item {
    /// The same, moved by whole pixels.
    #[must_use]
    pub fn moved(self, x: i32, y: i32) -> Self {
        let (dx, dy) = (x as f32, y as f32);
        let shift = |rect: Rect| Rect::new(rect.x + x, rect.y + y, rect.width, rect.height);
        let map = Affine::scale_then_move(1.0, dx, dy);
        match self {
            Self::Rect { rect, fill } => Self::Rect { rect: shift(rect), fill },
            Self::Polyline { mut points, width_px, color } => {
                points.iter_mut().for_each(|point| *point = map.apply(*point));
                Self::Polyline { points, width_px, color }
            }
            Self::Fill { path, color } => Self::Fill { path: path.mapped(map), color },
            Self::Stroke { path, width_px, color } => Self::Stroke { path: path.mapped(map), width_px, color },
            Self::Text(text) => Self::Text(Text { x: text.x + dx, baseline_y: text.baseline_y + dy, ..text }),
            Self::Clip { rect, items } => {
                Self::Clip { rect: shift(rect), items: items.into_iter().map(|item| item.moved(x, y)).collect() }
            }
        }
    }
}

/// A drawing on an opaque ground.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Columns of the image.
    pub width_px: u32,
    /// Rows of the image.
    pub height_px: u32,
    /// What is seen where nothing is drawn; its opacity is taken as full.
    pub background: Color,
    /// What is drawn, first to last.
    pub items: Vec<Item>,
}

impl Scene {
    /// An empty drawing.
    #[must_use]
    pub const fn new(width_px: u32, height_px: u32, background: Color) -> Self {
        Self { width_px, height_px, background, items: Vec::new() }
    }

    /// Adds a rectangle on whole pixels.
    pub fn rect(&mut self, rect: Rect, fill: Color) {
        self.items.push(Item::Rect { rect, fill });
    }

    /// Adds a filled path.
    pub fn fill(&mut self, path: Path, color: Color) {
        self.items.push(Item::Fill { path, color });
    }

    /// Adds the line along a path.
    pub fn stroke(&mut self, path: Path, width_px: f32, color: Color) {
        self.items.push(Item::Stroke { path, width_px, color });
    }

    /// Adds `other`, its ground and everything on it, with its upper left corner at (`x`, `y`).
    /// Nothing of it is seen beyond its own edges.
    pub fn place(&mut self, other: Self, x: i32, y: i32) {
        let side = |px: u32| i32::try_from(px).unwrap_or(i32::MAX);
        let place = Rect::new(x, y, side(other.width_px), side(other.height_px));
        let ground = Item::Rect { rect: place, fill: Color { a: 255, ..other.background } };
        let moved = other.items.into_iter().map(|item| item.moved(x, y));
        self.items.push(Item::Clip { rect: place, items: std::iter::once(ground).chain(moved).collect() });
    }

    /// Draws everything on `canvas`, first to last.
    pub fn draw_on(&self, canvas: &mut impl Canvas) {
        canvas.ground(self.width_px, self.height_px, Color { a: 255, ..self.background });
        draw_all(&self.items, canvas);
    }

    /// Every text of the drawing, clipped ones included, in drawing order.
    #[must_use]
    pub fn texts(&self) -> Vec<&Text> {
        fn collect<'a>(items: &'a [Item], found: &mut Vec<&'a Text>) {
            for item in items {
                match item {
                    Item::Text(text) => found.push(text),
                    Item::Clip { items, .. } => collect(items, found),
                    _ => {}
                }
            }
        }
        let mut found = Vec::new();
        collect(&self.items, &mut found);
        found
    }
}

fn draw_all(items: &[Item], canvas: &mut impl Canvas) {
    for item in items {
        match item {
            Item::Rect { rect, fill } => canvas.rect(*rect, *fill),
            Item::Polyline { points, width_px, color } => canvas.polyline(points, *width_px, *color),
            Item::Fill { path, color } => canvas.fill(path, *color),
            Item::Stroke { path, width_px, color } => canvas.stroke(path, *width_px, *color),
            Item::Text(text) => canvas.text(text),
            Item::Clip { rect, items } => {
                canvas.push_clip(*rect);
                draw_all(items, canvas);
                canvas.pop_clip();
            }
        }
    }
}
