//! Letters that Inter lacks, with a font for them and without.
//!
//! A second font is set for the life of a process, so the part with one runs in a process of its own.

use std::process::Command;

use windlass_chart::font::{self, SecondFontError};
use windlass_chart::scene::Weight;
use windlass_chart::{ChartArgs, render_file};

use crate::goog;

const CHILD: &str = "WINDLASS_CHART_TEST_CHILD";
const HANGUL: &[u8] = include_bytes!("data/hangul.ttf");

fn titled(title: &str) -> ChartArgs {
    ChartArgs { title: Some(title.to_owned()), ..goog(60) }
}

/// Pixels of the title's rows that are not the ground's.
fn ink(title: &str) -> usize {
    let file = render_file(&titled(title)).expect("drawn").file;
    let picture = image::load_from_memory(&file).expect("a PNG").to_rgb8();
    picture.rows().take(40).flatten().filter(|pixel| pixel.0.iter().any(|c| *c < 200)).count()
}

/// §9.11: with a configured font a Hangul title is drawn, without one it is refused; never boxes, never
/// nothing in silence.
#[test]
fn a_title_in_hangul_is_drawn_with_a_font_for_it_and_refused_without() {
    if std::env::var_os(CHILD).is_none() {
        assert_eq!(titled("삼성전자").check()[0].code, "glyph_missing");
        let name = "second_font::a_title_in_hangul_is_drawn_with_a_font_for_it_and_refused_without";
        let child = Command::new(std::env::current_exe().expect("a path"))
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("it runs");
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let (latin, plain) = (font::width_px("GOOG", 20.0, Weight::Regular), render_file(&goog(60)).expect("drawn").file);
    assert_eq!(font::set_second(b"no font".to_vec()), Err(SecondFontError::NotAFont));
    font::set_second(HANGUL.to_vec()).expect("a font");
    font::set_second(HANGUL.to_vec()).expect("the same font");
    assert_eq!(font::second(), Some(windlass_store::Digest::of(HANGUL)));

    assert_eq!(titled("삼성전자 (GOOG) 日本").check(), []);
    let code = |title: &str| titled(title).check().first().map(|v| v.code.clone());
    assert_eq!(code("中").as_deref(), Some("glyph_missing"), "the second font lacks it too");
    assert_eq!(code("\u{5e9}").as_deref(), Some("glyph_missing"), "it runs from right to left");

    // Four letters of an em each, and each of them is ink.
    let width = font::width_px("삼성전자", 20.0, Weight::Regular);
    assert!((60.0..90.0).contains(&width), "{width}");
    let inks = [ink("."), ink("삼성"), ink("삼성전자")];
    assert!(inks[0] + 40 < inks[1] && inks[1] + 40 < inks[2], "{inks:?}");
    assert!((font::width_px("GOOG", 20.0, Weight::Regular) - latin).abs() < 0.01, "Inter draws what it can");
    assert_eq!(render_file(&goog(60)).expect("drawn").file, plain, "and charts without such letters are the same");
    if let Some(path) = std::env::var_os("WINDLASS_CHART_TEST_KEEP") {
        std::fs::write(path, render_file(&titled("삼성전자 daily 日本")).expect("drawn").file).expect("written");
    }
}
