//! What a chart looks like: geometry and labels of the scene, pixels of the image.

use windlass_chart::args::{Candles, Effort, PanelKind, Side, Theme};
use windlass_chart::render::{Style, chart};
use windlass_chart::scene::{Color, Item, Rect, Scene, Text, Weight};
use windlass_chart::{ChartArgs, RENDERER_VERSION, encode, raster, render_file};
use windlass_store::Digest;

use crate::{goog, hourly};

fn scene(args: &ChartArgs) -> Scene {
    chart(args).expect("the args are right").scene
}

/// Rows and columns a text covers, descenders included.
fn text_box(text: &Text) -> (f32, f32, f32, f32) {
    let (left, size) = (text.left(), text.size_px);
    (left, text.baseline_y - 0.74 * size, left + text.width_px(), text.baseline_y + 0.15 * size)
}

/// No text touches another or leaves the image.
#[track_caller]
pub(crate) fn check_words(args: &ChartArgs) {
    let scene = scene(args);
    let texts = scene.texts();
    let size = (scene.width_px as f32, scene.height_px as f32);
    for (index, text) in texts.iter().enumerate() {
        let area = text_box(text);
        let inside = area.0 >= 0.0 && area.1 >= 0.0 && area.2 <= size.0 && area.3 <= size.1;
        assert!(inside, "{:?} leaves the image: {area:?} in {size:?}", text.text);
        for other in &texts[..index] {
            assert!(!overlap(area, text_box(other)), "{:?} touches {:?}", text.text, other.text);
        }
    }
}

type Area = (f32, f32, f32, f32);

fn overlap(a: Area, b: Area) -> bool {
    a.0 < b.2 && b.0 < a.2 && a.1 < b.3 && b.1 < a.3
}

/// As [`check_words`], and no coloured mark runs through a text, except a tag behind its own.
#[track_caller]
pub(crate) fn check_texts(args: &ChartArgs) {
    check_words(args);
    let scene = scene(args);
    for text in scene.texts() {
        let area = text_box(text);
        for (rect, fill) in rects(&scene) {
            let mark = (rect.x as f32, rect.y as f32, rect.right() as f32, rect.bottom() as f32);
            let is_ground = overlap(area, mark) && text.color == Color::rgb(0xff_ff_ff);
            let style = Style::of(args.theme);
            let coloured = fill == style.up || fill == style.down;
            let clear = !coloured || is_ground || !overlap(area, mark);
            assert!(clear, "{rect:?} runs through {:?}", text.text);
        }
    }
}

fn rects(scene: &Scene) -> impl Iterator<Item = (Rect, Color)> {
    scene.items.iter().filter_map(|item| match item {
        Item::Rect { rect, fill } => Some((*rect, *fill)),
        _ => None,
    })
}

#[test]
fn texts_never_overlap_and_are_never_cut() {
    for (bars, width_px, height_px, scale) in [
        (200, 1200, 800, 1),
        (200, 1200, 800, 2),
        (60, 1200, 800, 3),
        (2000, 1200, 200, 1),
        (5000, 800, 1600, 1),
        (30, 400, 300, 1),
        (12, 160, 120, 1),
        (2, 300, 2000, 2),
    ] {
        let mut args = goog(bars);
        (args.width_px, args.height_px, args.scale) = (width_px, height_px, scale);
        check_texts(&args);
        args.title = Some("A title that is as long as titles may be: ".repeat(3));
        args.subtitle = Some("and what it is about".to_owned());
        args.price_scale.side = Side::Left;
        args.theme = Theme::Dark;
        check_texts(&args);
    }
    for height_px in (200..=1600).step_by(56) {
        check_texts(&ChartArgs { height_px, ..goog(150) });
    }
    check_texts(&hourly(100));
}

#[track_caller]
fn check_times(args: &ChartArgs, expected: &str) {
    let scene = scene(args);
    let texts = scene.texts();
    let lowest = texts.iter().map(|text| text.baseline_y).fold(0.0, f32::max);
    let mut labels: Vec<_> = texts.into_iter().filter(|text| text.baseline_y == lowest).collect();
    labels.sort_by(|a, b| a.x.total_cmp(&b.x));
    let star = |text: &Text| if text.weight == Weight::SemiBold { "*" } else { "" };
    let words: Vec<_> = labels.iter().map(|text| format!("{}{}", text.text, star(text))).collect();
    assert_eq!(words.join(" "), expected);
}

#[test]
fn time_labels_name_what_changed() {
    let months = "15 Jun 15 Jul 16 Aug 15 Sep 17 Oct 15 Nov 15 Dec 17 2013* 15 Feb 15 Mar";
    check_times(&goog(200), months);
    let years = "Jul 2006* Jul 2007* Jul 2008* Jul 2009* Jul 2010* Jul 2011* Jul 2012* Jul 2013*";
    check_times(&goog(2000), years);
    check_times(&goog(10), "15 19 20 21 22 25 26 27 28 Mar");
}

/// On 2017-03-12 New York went from UTC−5 to UTC−4: Friday noon UTC is 07:00, Sunday
/// 20:00 UTC is 16:00.
#[test]
fn intraday_labels_follow_the_zone() {
    let mut args = hourly(40);
    check_times(&args, "15:00 18:00 12 13 03:00 06:00 09:00 12:00 15:00 18:00 21:00 14");
    args.time_zone = "America/New_York".to_owned();
    check_times(&args, "09:00 12:00 15:00 12 18:00 21:00 13 03:00 06:00 09:00 12:00 15:00 18:00 21:00");
    let texts = scene(&args).texts().iter().map(|text| text.text.clone()).collect::<Vec<_>>();
    let named = texts.iter().filter(|text| text.contains("America/New_York")).count();
    assert_eq!(named, 1, "{texts:?}");
}

#[test]
fn the_header_tells_the_last_bar() {
    let scene = scene(&goog(200));
    let words: Vec<_> = scene.texts().iter().map(|text| text.text.as_str()).collect();
    let expected = "GOOG 1D 1 Mar 2013 O 797.80 H 807.14 L 796.15 C 806.19 +4.99 (+0.62%) \
                    SMA 20 786.96 SMA 50 751.36";
    assert!(words.join(" ").ends_with(expected), "{words:?}");
    assert!(words.contains(&"Volume") && words.contains(&"4.35M"), "{words:?}");
}

/// Wicks are as wide as `scale`; bodies are wider.
#[track_caller]
fn check_spacing(args: &ChartArgs, bars: usize) {
    let (scene, style, wick) = (scene(args), Style::of(args.theme), args.scale as i32);
    let bar = |fill: Color| fill == style.up || fill == style.down;
    let axis = scene.width_px as i32 - rects(&scene).map(|(rect, _)| rect.width).max().unwrap_or(0);
    assert!(axis <= 0, "the border runs through");
    let columns: Vec<_> = rects(&scene).filter(|(_, fill)| bar(*fill)).map(|(rect, _)| rect).collect();
    let wicks: Vec<_> = columns.iter().filter(|rect| rect.width == wick).map(|rect| rect.x).collect();
    assert_eq!(wicks.len(), bars);
    let steps: Vec<_> = wicks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (least, most) = (steps.iter().min(), steps.iter().max());
    assert!(most.zip(least).is_none_or(|(most, least)| most - least <= 1), "{steps:?}");
    for body in columns.iter().filter(|rect| rect.width > wick && rect.height != 20 * wick) {
        let wick_x = body.x + (body.width - wick) / 2;
        assert!(wicks.contains(&wick_x), "a wick stands in the middle of {body:?}");
        assert!(body.height >= wick, "a doji is drawn");
    }
}

#[test]
fn bars_stand_evenly_across_weekends() {
    for (bars, scale) in [(200, 1), (200, 2), (60, 1), (119, 3), (2, 1)] {
        // Without the dotted line, whose dots are coloured rectangles too.
        check_spacing(&ChartArgs { last_price: false, scale, ..goog(bars) }, bars as usize);
    }
    check_spacing(&ChartArgs { last_price: false, ..hourly(100) }, 100);
}

#[test]
fn up_and_down_colours_are_exact() {
    for theme in [Theme::Light, Theme::Dark] {
        let args = ChartArgs { theme, ..goog(200) };
        let image = decoded(&render_file(&args).expect("good args").file);
        let style = Style::of(theme);
        for color in [style.up, style.down, style.background, style.volume(true)] {
            let found = image.rgb.chunks(3).filter(|p| **p == [color.r, color.g, color.b]).count();
            assert!(found > 200, "{color:?} on {found} pixels");
        }
    }
}

#[test]
fn too_many_bars_become_columns() {
    let drawn = chart(&goog(2000)).expect("good args");
    assert!(drawn.notes[0].starts_with("2000 bars in 11"), "{:?}", drawn.notes);
    let style = Style::of(Theme::Light);
    let columns =
        rects(&drawn.scene).filter(|(rect, fill)| rect.width == 1 && (*fill == style.up || *fill == style.down));
    assert!(columns.count() < 1200);
}

#[test]
fn averages_are_warm_at_the_left_edge() {
    let drawn = chart(&goog(200)).expect("good args");
    let lines = drawn.scene.items.iter().filter_map(|item| match item {
        Item::Clip { items, .. } => Some(items.len()),
        _ => None,
    });
    assert_eq!((lines.collect::<Vec<_>>(), drawn.notes.len()), (vec![1, 1], 0));
    let short = ChartArgs { visible_bars: None, ..goog(2) };
    assert_eq!(short.visible_of(short.candles.t.len()), 2148 - 49, "all but the warm-up");
}

struct Image {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

fn decoded(png: &[u8]) -> Image {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().expect("a PNG");
    let mut rgb = vec![0; reader.output_buffer_size().expect("it fits")];
    let info = reader.next_frame(&mut rgb).expect("a whole PNG");
    assert_eq!(info.color_type, png::ColorType::Rgb);
    Image { width: info.width, height: info.height, rgb }
}

#[test]
fn images_have_the_size_that_was_asked_for() {
    for (scale, effort) in [(1, Effort::Balanced), (2, Effort::Fast), (3, Effort::Balanced)] {
        let args = ChartArgs { width_px: 401, height_px: 303, scale, effort: Some(effort), ..goog(50) };
        let drawn = render_file(&args).expect("good args");
        assert!(drawn.file.starts_with(b"\x89PNG\r\n\x1a\n"));
        let image = decoded(&drawn.file);
        assert_eq!((image.width, image.height), (401 * scale, 303 * scale));
        assert_eq!((drawn.width_px, drawn.height_px), (401 * scale, 303 * scale));
    }
}

/// Acceptance list, point 4: sizes, and the palette's faithfulness.
#[test]
fn balanced_is_small_and_nearly_exact() {
    let pixels = raster::draw(&scene(&goog(200))).expect("it can be drawn");
    let fast = encode::png(&pixels, Effort::Fast).expect("it can be encoded");
    let balanced = encode::png(&pixels, Effort::Balanced).expect("it can be encoded");
    assert!(balanced.len() <= 60 << 10, "{} bytes", balanced.len());
    assert!(fast.len() <= 150 << 10, "{} bytes", fast.len());
    let (exact, mapped) = (decoded(&fast).rgb, decoded(&balanced).rgb);
    let equal = exact.chunks(3).zip(mapped.chunks(3)).filter(|(a, b)| a == b).count();
    assert!(equal * 100 >= exact.len() / 3 * 99, "{equal} of {} pixels", exact.len() / 3);
    let visibly = exact.iter().zip(&mapped).filter(|(a, b)| a.abs_diff(**b) > 32).count();
    assert!(visibly <= 200, "{visibly} channels are off by more than 32");
}

#[test]
fn equal_args_give_equal_bytes() {
    let png = || render_file(&goog(200)).expect("good args").file;
    let first = png();
    // Another digest means other pictures for equal args: RENDERER_VERSION rises with it.
    assert_eq!(RENDERER_VERSION, 3);
    assert_eq!(Digest::of(&first).hex(), "ac46f2d0fff195aa9426ca2a284a985f890bfb67de8eae1762c9b27694d8f5b1");
    assert_eq!(first, png());
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(png)).collect();
    for thread in threads {
        assert_eq!(first, thread.join().expect("no panic"));
    }
}

/// One bar, or several equal ones, of any size.
fn flat(bars: u32, price: f64, spread: f64) -> ChartArgs {
    let column = |value: f64| (0..bars).map(|_| value).collect();
    let candles = Candles {
        t: (0..bars).map(|bar| f64::from(bar) * 86_400_000.0).collect(),
        o: column(price),
        h: column(price + spread),
        l: column(price - spread),
        c: column(price),
        v: Some(column(0.0)),
    };
    let mut args = ChartArgs::new("FLAT", "1d".parse().expect("1d is an interval"), candles);
    args.panels = vec![PanelKind::Volume {}.into()];
    args
}

#[test]
fn extreme_but_honest_bars_draw() {
    for price in [1e-8, 1e-12, 0.0, 1.0, -37.63, 1e12, -9e14, 1e15] {
        for bars in [1, 2, 300] {
            for (width_px, height_px) in [(1200, 800), (160, 120)] {
                let args = ChartArgs { width_px, height_px, ..flat(bars, price, 0.0) };
                check_texts(&args);
                assert!(render_file(&args).is_ok());
                let spread = if price < 1e15 { price.abs().min(1e14) } else { 0.0 };
                check_texts(&ChartArgs { width_px, height_px, ..flat(bars, price, spread) });
            }
        }
    }
    let mut tick = flat(3, 100.0, 40.0);
    tick.price_scale.tick_size = Some(1e-12);
    check_texts(&tick);
    tick.price_scale.tick_size = Some(1e12);
    check_texts(&tick);
}
