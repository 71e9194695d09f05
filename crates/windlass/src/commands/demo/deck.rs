//! A standard deck of 52 cards and its back, drawn in code for the demo.
//!
//! Never reads a file and never differs from run to run: each card is 750 × 1050 pixels,
//! 63 × 88 mm at 302 pixels an inch, without bleed.

use windlass_chart::scene::{Affine, Color, Item, Path, Point, Rect, Scene, Weight};
use windlass_chart::{encode, font, raster};

/// A card as an image.
pub(crate) struct CardFile {
    /// Its file name, such as `"queen-of-hearts.png"`; unique in the deck.
    pub(crate) name: String,
    /// The file.
    pub(crate) png: Vec<u8>,
}

const WIDTH_PX: u32 = 750;
const HEIGHT_PX: u32 = 1050;
const CENTER: Point = Point::new(375.0, 525.0);

const PAPER: Color = Color::rgb(0xff_fd_f8);
const RED: Color = Color::rgb(0xc4_12_2f);
const BLACK: Color = Color::rgb(0x17_1a_23);
const GOLD: Color = Color::rgb(0xd9_a7_3a);
const NAVY: Color = Color::rgb(0x1b_2f_5b);
const NAVY_LINE: Color = Color::rgb(0x4a_62_9b);

/// The 52 fronts: spades, hearts, diamonds, clubs, each from the ace to the king.
pub(crate) fn fronts() -> Vec<CardFile> {
    let ranks = |suit| Rank::ALL.iter().map(move |rank| front(suit, *rank));
    Suit::ALL.iter().flat_map(|suit| ranks(*suit)).collect()
}

/// The back: it looks the same upside down.
pub(crate) fn back() -> CardFile {
    let mut scene = Scene::new(WIDTH_PX, HEIGHT_PX, PAPER);
    scene.fill(inset(34.0, 30.0), NAVY);
    lattice(&mut scene);
    scene.stroke(inset(52.0, 16.0), 3.0, GOLD);
    scene.stroke(inset(64.0, 8.0), 6.0, GOLD);
    medallion(&mut scene);
    card_file("back.png".to_owned(), &scene)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Suit {
    Spades,
    Hearts,
    Diamonds,
    Clubs,
}

impl Suit {
    const ALL: [Self; 4] = [Self::Spades, Self::Hearts, Self::Diamonds, Self::Clubs];

    const fn name(self) -> &'static str {
        match self {
            Self::Spades => "spades",
            Self::Hearts => "hearts",
            Self::Diamonds => "diamonds",
            Self::Clubs => "clubs",
        }
    }

    const fn color(self) -> Color {
        match self {
            Self::Hearts | Self::Diamonds => RED,
            Self::Spades | Self::Clubs => BLACK,
        }
    }

    /// The shape around the origin, reaching from −1 to 1 in height.
    fn shape(self) -> Path {
        match self {
            Self::Spades => spade(),
            Self::Hearts => heart(),
            Self::Diamonds => diamond(),
            Self::Clubs => club(),
        }
    }

    /// The shape around (`x`, `y`), `half` high in each direction.
    fn at(self, x: f32, y: f32, half: f32) -> Path {
        self.shape().mapped(Affine::scale_then_move(half, x, y))
    }
}

#[derive(Clone, Copy)]
enum Rank {
    Ace,
    Pips(u8),
    Jack,
    Queen,
    King,
}

impl Rank {
    const ALL: [Self; 13] = [
        Self::Ace,
        Self::Pips(2),
        Self::Pips(3),
        Self::Pips(4),
        Self::Pips(5),
        Self::Pips(6),
        Self::Pips(7),
        Self::Pips(8),
        Self::Pips(9),
        Self::Pips(10),
        Self::Jack,
        Self::Queen,
        Self::King,
    ];

    fn index(self) -> String {
        match self {
            Self::Ace => "A".to_owned(),
            Self::Pips(count) => count.to_string(),
            Self::Jack => "J".to_owned(),
            Self::Queen => "Q".to_owned(),
            Self::King => "K".to_owned(),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Ace => "ace".to_owned(),
            Self::Pips(count) => count.to_string(),
            Self::Jack => "jack".to_owned(),
            Self::Queen => "queen".to_owned(),
            Self::King => "king".to_owned(),
        }
    }
}

fn front(suit: Suit, rank: Rank) -> CardFile {
    let mut scene = Scene::new(WIDTH_PX, HEIGHT_PX, PAPER);
    match rank {
        Rank::Ace => ace(&mut scene, suit),
        Rank::Pips(count) => pips(&mut scene, suit, count),
        Rank::Jack => court(&mut scene, suit, "J", &cap()),
        Rank::Queen => court(&mut scene, suit, "Q", &tiara()),
        Rank::King => court(&mut scene, suit, "K", &crown()),
    }
    corners(&mut scene, suit, &rank.index());
    card_file(format!("{}-of-{}.png", rank.name(), suit.name()), &scene)
}

fn card_file(name: String, scene: &Scene) -> CardFile {
    let pixels = raster::draw(scene).expect("a card is neither empty nor too large");
    let png = encode::png(&pixels, encode::Effort::Balanced).expect("a card can be encoded");
    CardFile { name, png }
}

/// Fills `path` and its copy turned by half around the card's middle.
fn fill_both(scene: &mut Scene, path: Path, color: Color) {
    let turned = path.mapped(Affine::half_turn(CENTER));
    scene.fill(path, color);
    scene.fill(turned, color);
}

fn stroke_both(scene: &mut Scene, path: Path, width_px: f32, color: Color) {
    let turned = path.mapped(Affine::half_turn(CENTER));
    scene.stroke(path, width_px, color);
    scene.stroke(turned, width_px, color);
}

/// A rectangle `by` pixels inside the card's edges.
fn inset(by: f32, radius: f32) -> Path {
    Path::round_rect(by, by, WIDTH_PX as f32 - 2.0 * by, HEIGHT_PX as f32 - 2.0 * by, radius)
}

/// A letter or number with its middle at `x`, at most `width` wide.
fn lettering(text: &str, size: f32, x: f32, baseline: f32, width: f32) -> Path {
    let natural = font::width_px(text, size, Weight::SemiBold);
    let narrowed = (width / natural).min(1.0);
    let narrow = Affine { a: narrowed, b: 0.0, c: 0.0, d: 1.0, e: x - natural * narrowed / 2.0, f: 0.0 };
    font::outline(text, size, Weight::SemiBold, 0.0, baseline).mapped(narrow)
}

fn corners(scene: &mut Scene, suit: Suit, index: &str) {
    const X: f32 = 80.0;
    fill_both(scene, lettering(index, 112.0, X, 132.0, 98.0), suit.color());
    fill_both(scene, suit.at(X, 190.0, 34.0), suit.color());
}

/// Rows of the pips, in the order of the traditional layouts.
const TOP: f32 = 195.0;
const BOTTOM: f32 = 1050.0 - TOP;
const MIDDLE: f32 = 525.0;
const UPPER: f32 = TOP + (BOTTOM - TOP) / 3.0;
const LOWER: f32 = BOTTOM - (BOTTOM - TOP) / 3.0;

fn pips(scene: &mut Scene, suit: Suit, count: u8) {
    let outer: &[f32] = match count {
        2 | 3 => &[],
        4 | 5 => &[TOP, BOTTOM],
        6..=8 => &[TOP, MIDDLE, BOTTOM],
        _ => &[TOP, UPPER, LOWER, BOTTOM],
    };
    let inner: &[f32] = match count {
        2 => &[TOP, BOTTOM],
        3 => &[TOP, MIDDLE, BOTTOM],
        5 | 9 => &[MIDDLE],
        7 => &[(TOP + MIDDLE) / 2.0],
        8 => &[(TOP + MIDDLE) / 2.0, (MIDDLE + BOTTOM) / 2.0],
        10 => &[(TOP + UPPER) / 2.0, (LOWER + BOTTOM) / 2.0],
        _ => &[],
    };
    let sides = outer.iter().flat_map(|y| [(235.0, *y), (515.0, *y)]);
    for (x, y) in sides.chain(inner.iter().map(|y| (CENTER.x, *y))) {
        let pip = suit.at(x, y, 68.0);
        let upright = y <= MIDDLE;
        let turn = Affine::half_turn(Point::new(x, y));
        scene.fill(if upright { pip } else { pip.mapped(turn) }, suit.color());
    }
}

fn ace(scene: &mut Scene, suit: Suit) {
    let half = if suit == Suit::Spades { 235.0 } else { 165.0 };
    let at = |part: f32| suit.at(CENTER.x, CENTER.y, half * part);
    scene.fill(at(1.0), suit.color());
    if suit == Suit::Spades {
        // The ace of spades is the ornate one, since it once carried the tax stamp.
        for ring in 0..2_u8 {
            let arc = Path::circle(CENTER.x, CENTER.y, 286.0 + 11.0 * f32::from(ring));
            scene.stroke(arc, 3.0, GOLD);
        }
        let heart = CENTER.y + half * 0.12;
        scene.fill(rosette(Point::new(CENTER.x, heart), 8, 18.0, 84.0, 17.0), GOLD);
        scene.fill(Path::circle(CENTER.x, heart, 14.0), PAPER);
    }
}

/// The frame of a court card.
const FRAME: Rect = Rect::new(150, 112, 450, 826);

fn court(scene: &mut Scene, suit: Suit, letter: &str, hat: &Hat) {
    let color = suit.color();
    let frame = |by: f32, radius: f32| {
        let (x, y) = (FRAME.x as f32 + by, FRAME.y as f32 + by);
        Path::round_rect(x, y, FRAME.width as f32 - 2.0 * by, FRAME.height as f32 - 2.0 * by, radius)
    };
    scene.fill(frame(0.0, 14.0), color.over(PAPER, 0.05));
    court_ground(scene, color);
    scene.stroke(frame(11.0, 6.0), 2.5, GOLD);
    ribbon(scene, suit);
    scene.stroke(frame(0.0, 14.0), 5.0, color);
    fill_both(scene, lettering(letter, 246.0, CENTER.x, 440.0, 240.0), color);
    for (path, fill) in &hat.parts {
        let placed = path.mapped(Affine::scale_then_move(0.88, CENTER.x, 212.0));
        fill_both(scene, placed.clone(), fill.unwrap_or(color));
        stroke_both(scene, placed, 4.0, BLACK);
    }
    fill_both(scene, suit.at(206.0, 180.0, 33.0), color);
}

/// Fine diagonals behind the figure.
fn court_ground(scene: &mut Scene, color: Color) {
    let line = color.over(PAPER, 0.13);
    let (left, right) = (FRAME.x as f32, FRAME.right() as f32);
    let lines = (-22..44).flat_map(|step| {
        let y = CENTER.y + (step as f32 - 11.0) * 30.0;
        let rise = right - left;
        [(y, y + rise), (y + rise, y)].map(|(from, to)| Item::Polyline {
            points: vec![Point::new(left, from), Point::new(right, to)],
            width_px: 1.5,
            color: line,
        })
    });
    let rect = Rect::new(FRAME.x + 12, FRAME.y + 12, FRAME.width - 24, FRAME.height - 24);
    scene.items.push(Item::Clip { rect, items: lines.collect() });
}

/// The slanted band that parts the two heads.
fn ribbon(scene: &mut Scene, suit: Suit) {
    const HALF: f32 = 32.0;
    const SLOPE: f32 = -0.16;
    let (left, right) = (FRAME.x as f32, FRAME.right() as f32);
    let y = |x: f32, offset: f32| CENTER.y + (x - CENTER.x) * SLOPE + offset;
    let band = |from: f32, to: f32| {
        Path::new()
            .move_to(left, y(left, from))
            .line_to(right, y(right, from))
            .line_to(right, y(right, to))
            .line_to(left, y(left, to))
            .close()
    };
    scene.fill(band(-HALF - 9.0, HALF + 9.0), GOLD);
    scene.fill(band(-HALF - 3.0, HALF + 3.0), PAPER);
    scene.fill(band(-HALF, HALF), suit.color());
    for place in [-5_i8, -3, -1, 1, 3, 5] {
        let x = CENTER.x + f32::from(place) * 37.0;
        let pip = suit.at(x, y(x, 0.0), 18.0);
        // The right half belongs to the lower head, which sees the card upside down.
        let turned = pip.mapped(Affine::half_turn(Point::new(x, y(x, 0.0))));
        scene.fill(if place > 0 { turned } else { pip }, PAPER);
    }
}

/// What a figure wears: shapes around (0, 0), in gold, paper or (`None`) the suit's colour.
struct Hat {
    parts: Vec<(Path, Option<Color>)>,
}

fn band(half_width: f32) -> Path {
    Path::round_rect(-half_width, 30.0, 2.0 * half_width, 26.0, 8.0)
}

fn crown() -> Hat {
    let points = Path::new()
        .move_to(-92.0, 38.0)
        .line_to(-112.0, -34.0)
        .cubic_to((-92.0, -10.0), (-72.0, 0.0), (-54.0, 2.0))
        .cubic_to((-34.0, -14.0), (-14.0, -38.0), (0.0, -64.0))
        .cubic_to((14.0, -38.0), (34.0, -14.0), (54.0, 2.0))
        .cubic_to((72.0, 0.0), (92.0, -10.0), (112.0, -34.0))
        .line_to(92.0, 38.0)
        .close();
    let mut parts = vec![(points, Some(GOLD)), (band(96.0), None)];
    for (x, y) in [(-113.0, -42.0), (0.0, -73.0), (113.0, -42.0)] {
        parts.push((Path::circle(x, y, 11.0), Some(PAPER)));
    }
    parts.extend(gems(&[-56.0, 0.0, 56.0]));
    Hat { parts }
}

fn tiara() -> Hat {
    let arches = Path::new()
        .move_to(-84.0, 38.0)
        .cubic_to((-104.0, 12.0), (-106.0, -10.0), (-96.0, -30.0))
        .cubic_to((-78.0, -30.0), (-62.0, -18.0), (-52.0, 0.0))
        .cubic_to((-50.0, -30.0), (-28.0, -56.0), (0.0, -66.0))
        .cubic_to((28.0, -56.0), (50.0, -30.0), (52.0, 0.0))
        .cubic_to((62.0, -18.0), (78.0, -30.0), (96.0, -30.0))
        .cubic_to((106.0, -10.0), (104.0, 12.0), (84.0, 38.0))
        .close();
    let mut parts = vec![(arches, Some(GOLD)), (band(88.0), None)];
    for (x, y) in [(-97.0, -38.0), (-52.0, -8.0), (0.0, -74.0), (52.0, -8.0), (97.0, -38.0)] {
        parts.push((Path::circle(x, y, 9.0), Some(PAPER)));
    }
    let drop = Path::new()
        .move_to(0.0, -44.0)
        .cubic_to((10.0, -26.0), (17.0, -16.0), (17.0, -4.0))
        .cubic_to((17.0, 18.0), (-17.0, 18.0), (-17.0, -4.0))
        .cubic_to((-17.0, -16.0), (-10.0, -26.0), (0.0, -44.0))
        .close();
    parts.push((drop, None));
    parts.extend(gems(&[-46.0, 0.0, 46.0]));
    Hat { parts }
}

fn cap() -> Hat {
    let feather = Path::new()
        .move_to(52.0, 28.0)
        .cubic_to((60.0, -18.0), (84.0, -64.0), (146.0, -82.0))
        .cubic_to((152.0, -40.0), (128.0, 6.0), (66.0, 30.0))
        .close();
    let quill = Path::new()
        .move_to(58.0, 30.0)
        .cubic_to((76.0, -10.0), (98.0, -42.0), (128.0, -64.0))
        .cubic_to((100.0, -38.0), (80.0, -8.0), (64.0, 30.0))
        .close();
    let crown = Path::new()
        .move_to(-86.0, 38.0)
        .cubic_to((-122.0, 18.0), (-112.0, -40.0), (-54.0, -46.0))
        .cubic_to((-10.0, -64.0), (60.0, -52.0), (78.0, -14.0))
        .cubic_to((92.0, 6.0), (92.0, 24.0), (86.0, 38.0))
        .close();
    let seam = |foot: f32, bend: f32, top: (f32, f32)| {
        let curve = Path::new().move_to(foot, 34.0);
        let curve = curve.cubic_to((foot + bend, 10.0), (top.0 + bend, top.1 + 22.0), top);
        curve.cubic_to((top.0 + bend, top.1 + 22.0), (foot + bend, 10.0), (foot, 34.0)).close()
    };
    let mut parts = vec![(crown, Some(GOLD))];
    for (foot, bend, top) in [(-48.0, -22.0, (-50.0, -45.0)), (-8.0, 0.0, (-2.0, -54.0)), (30.0, 20.0, (44.0, -44.0))] {
        parts.push((seam(foot, bend, top), Some(GOLD)));
    }
    parts.extend([(feather, Some(PAPER)), (quill, None), (band(92.0), None)]);
    parts.extend(gems(&[-50.0, 0.0]));
    parts.push((Path::circle(56.0, 43.0, 15.0), Some(GOLD)));
    Hat { parts }
}

fn gems(places: &[f32]) -> Vec<(Path, Option<Color>)> {
    let gem = |x: &f32| (diamond().mapped(Affine::scale_then_move(9.0, *x, 43.0)), Some(PAPER));
    places.iter().map(gem).collect()
}

fn heart() -> Path {
    Path::new()
        .move_to(0.0, -0.52)
        .cubic_to((-0.10, -0.80), (-0.30, -0.96), (-0.53, -0.96))
        .cubic_to((-0.82, -0.96), (-0.97, -0.72), (-0.97, -0.46))
        .cubic_to((-0.97, 0.04), (-0.36, 0.42), (0.0, 1.0))
        .cubic_to((0.36, 0.42), (0.97, 0.04), (0.97, -0.46))
        .cubic_to((0.97, -0.72), (0.82, -0.96), (0.53, -0.96))
        .cubic_to((0.30, -0.96), (0.10, -0.80), (0.0, -0.52))
        .close()
}

fn diamond() -> Path {
    Path::new()
        .move_to(0.0, -1.0)
        .cubic_to((0.22, -0.62), (0.48, -0.28), (0.80, 0.0))
        .cubic_to((0.48, 0.28), (0.22, 0.62), (0.0, 1.0))
        .cubic_to((-0.22, 0.62), (-0.48, 0.28), (-0.80, 0.0))
        .cubic_to((-0.48, -0.28), (-0.22, -0.62), (0.0, -1.0))
        .close()
}

fn spade() -> Path {
    Path::new()
        .move_to(0.0, -1.0)
        .cubic_to((0.34, -0.46), (0.94, -0.10), (0.94, 0.32))
        .cubic_to((0.94, 0.58), (0.76, 0.74), (0.52, 0.74))
        .cubic_to((0.32, 0.74), (0.16, 0.62), (0.07, 0.44))
        .cubic_to((0.09, 0.70), (0.18, 0.90), (0.36, 1.0))
        .line_to(-0.36, 1.0)
        .cubic_to((-0.18, 0.90), (-0.09, 0.70), (-0.07, 0.44))
        .cubic_to((-0.16, 0.62), (-0.32, 0.74), (-0.52, 0.74))
        .cubic_to((-0.76, 0.74), (-0.94, 0.58), (-0.94, 0.32))
        .cubic_to((-0.94, -0.10), (-0.34, -0.46), (0.0, -1.0))
        .close()
}

/// Three leaves and a stem, all clockwise, so that where they overlap they stay filled.
fn club() -> Path {
    let stem = Path::new()
        .move_to(-0.10, 0.0)
        .line_to(0.10, 0.0)
        .cubic_to((0.09, 0.50), (0.18, 0.88), (0.36, 1.0))
        .line_to(-0.36, 1.0)
        .cubic_to((-0.18, 0.88), (-0.09, 0.50), (-0.10, 0.0))
        .close();
    Path::circle(0.0, -0.55, 0.44)
        .and(&Path::circle(-0.54, 0.20, 0.44))
        .and(&Path::circle(0.54, 0.20, 0.44))
        .and(&Path::circle(0.0, -0.04, 0.24))
        .and(&stem)
}

/// `petals` leaves around `center`, from `inner` to `outer`, `half` wide at their widest.
fn rosette(center: Point, petals: u8, inner: f32, outer: f32, half: f32) -> Path {
    let reach = outer - inner;
    let petal = Path::new()
        .move_to(0.0, -inner)
        .cubic_to((half, -inner - reach * 0.25), (half * 1.1, -inner - reach * 0.65), (0.0, -outer))
        .cubic_to((-half * 1.1, -inner - reach * 0.65), (-half, -inner - reach * 0.25), (0.0, -inner))
        .close()
        .mapped(Affine::scale_then_move(1.0, center.x, center.y));
    let turn = std::f32::consts::TAU / f32::from(petals);
    let turned = (0..petals).map(|step| petal.mapped(Affine::turn(turn * f32::from(step), center)));
    turned.fold(Path::new(), |path, next| path.and(&next))
}

/// A net of diamonds with a smaller one in each, the same in all four quarters.
fn lattice(scene: &mut Scene) {
    const STEP: (f32, f32) = (44.0, 62.0);
    let (mut net, mut inner, mut dots) = (Path::new(), Path::new(), Path::new());
    let rows = (-9_i8..=9).flat_map(|row| (-8_i8..=8).map(move |column| (column, row)));
    for (column, row) in rows.filter(|(column, row)| (column + row) % 2 == 0) {
        let x = CENTER.x + f32::from(column) * STEP.0;
        let y = CENTER.y + f32::from(row) * STEP.1;
        let lozenge = |part: f32| {
            Path::new()
                .move_to(x, y - STEP.1 * part)
                .line_to(x + STEP.0 * part, y)
                .line_to(x, y + STEP.1 * part)
                .line_to(x - STEP.0 * part, y)
                .close()
        };
        net = net.and(&lozenge(1.0));
        inner = inner.and(&lozenge(0.62));
        dots = dots.and(&diamond().mapped(Affine::scale_then_move(13.0, x, y)));
    }
    let by = 66;
    let rect = Rect::new(by, by, WIDTH_PX as i32 - 2 * by, HEIGHT_PX as i32 - 2 * by);
    let items = vec![
        Item::Stroke { path: net, width_px: 2.5, color: NAVY_LINE },
        Item::Stroke { path: inner, width_px: 2.0, color: NAVY_LINE },
        Item::Fill { path: dots, color: GOLD },
    ];
    scene.items.push(Item::Clip { rect, items });
}

fn medallion(scene: &mut Scene) {
    let circle = |radius: f32| Path::circle(CENTER.x, CENTER.y, radius);
    scene.fill(circle(196.0), GOLD);
    scene.fill(circle(190.0), NAVY);
    scene.stroke(circle(178.0), 3.0, GOLD);
    scene.fill(rosette(CENTER, 16, 66.0, 168.0, 17.0), NAVY_LINE);
    scene.fill(rosette(CENTER, 8, 30.0, 150.0, 27.0), GOLD);
    scene.fill(rosette(CENTER, 8, 44.0, 128.0, 13.0), NAVY);
    scene.fill(circle(40.0), GOLD);
    scene.fill(circle(34.0), NAVY);
    scene.fill(rosette(CENTER, 4, 3.0, 27.0, 9.0), PAPER);
}
