//! Files: formats, sizes, and that each is what it says.

use windlass_chart::args::{Effort, Theme};
use windlass_chart::{ChartArgs, Format, render_file, thumbnail_png};

use crate::goog;

fn file(args: &ChartArgs) -> Vec<u8> {
    render_file(args).expect("good args").file
}

/// §9.3: signature, size and dimensions at every scale.
#[test]
fn every_format_is_what_it_says() {
    for scale in [1, 2, 3] {
        for (format, lossy, start, chunk) in [
            (Format::Png, false, b"\x89PNG".as_slice(), None),
            (Format::Jpeg, false, b"\xff\xd8\xff", None),
            (Format::Webp, false, b"RIFF", Some(b"VP8L")),
            (Format::Webp, true, b"RIFF", Some(b"VP8 ")),
        ] {
            let args = ChartArgs { width_px: 403, height_px: 301, scale, format, lossy, ..goog(60) };
            let file = file(&args);
            assert!(file.starts_with(start), "{format:?}");
            assert!(chunk.is_none_or(|chunk| &file[12..16] == chunk), "{format:?} lossy {lossy}");
            let image = image::load_from_memory(&file).expect("it decodes");
            assert_eq!((image.width(), image.height()), (403 * scale, 301 * scale), "{format:?}");
        }
    }
}

/// §9.3: full colour resolution in every component of a JPEG, and bytes that rise with quality.
#[test]
fn a_jpeg_keeps_its_colours() {
    let jpeg = |quality| file(&ChartArgs { format: Format::Jpeg, quality: Some(quality), ..goog(200) });
    let bytes = jpeg(85);
    let frame = bytes.windows(2).position(|marker| marker == [0xff, 0xc0]).expect("a baseline frame");
    let components = &bytes[frame + 10..frame + 10 + 9];
    assert_eq!([components[1], components[4], components[7]], [0x11; 3]);
    let sizes = [40, 85, 95].map(|quality| jpeg(quality).len());
    assert!(sizes.is_sorted() && sizes[0] < sizes[2], "{sizes:?}");
    assert_eq!(file(&ChartArgs { format: Format::Jpeg, ..goog(200) }), bytes, "85 is the default");
}

/// §9.4 on the reference chart: candles, two averages, volume, RSI.
#[test]
fn png_files_are_small() {
    let rsi = windlass_chart::args::PanelKind::Rsi { period: 14, bands: [30.0, 70.0] };
    for theme in [Theme::Light, Theme::Dark] {
        let mut args = ChartArgs { theme, ..goog(200) };
        args.panels.push(rsi.into());
        let (balanced, fast) = (file(&args), file(&ChartArgs { effort: Some(Effort::Fast), ..args.clone() }));
        assert!(balanced.len() <= 60_000 && fast.len() <= 150_000, "{} and {}", balanced.len(), fast.len());
        let pixels = |file: &[u8]| image::load_from_memory(file).expect("it decodes").to_rgb8();
        let (a, b) = (pixels(&balanced), pixels(&fast));
        let equal = a.pixels().zip(b.pixels()).filter(|(a, b)| a == b).count();
        assert!(equal * 100 >= 1200 * 800 * 99, "{equal} pixels are equal");
    }
}

#[test]
fn an_svg_says_what_the_picture_says() {
    let args = ChartArgs { format: Format::Svg, symbol: "M&M".to_owned(), ..goog(60) };
    let text = String::from_utf8(file(&args)).expect("text");
    assert!(text.starts_with("<svg xmlns") && text.ends_with("</svg>\n"));
    for part in [">M&amp;M</text>", ">806.19</text>", ">SMA 20</text>", "<clipPath", "<polyline points="] {
        assert!(text.contains(part), "{part}");
    }
    assert_eq!(text.matches("<g ").count(), text.matches("</g>").count());
    assert!(text.len() < 150_000, "{} bytes", text.len());
}

#[test]
fn a_thumbnail_is_small_and_keeps_the_shape() {
    for (width_px, expected) in [(320, (320, 213)), (64, (64, 42)), (640, (640, 426))] {
        let file = thumbnail_png(&goog(200), width_px).expect("good args");
        let image = image::load_from_memory(&file).expect("it decodes").to_rgb8();
        assert_eq!((image.width(), image.height()), expected);
        assert!(file.len() < 12_000, "{} bytes", file.len());
        let up = image.pixels().filter(|pixel| pixel.0 == [0x08, 0x99, 0x81]).count();
        assert!(up > 20, "{up} pixels of rising bars at {width_px}");
    }
}
