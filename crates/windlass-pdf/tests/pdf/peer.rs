//! Mode raster beside what Silhouette Card Maker does, written down a second time.
//!
//! The peer is Python on Pillow and not here. This is its way in its own terms: every card is
//! turned, scaled with the bicubic filter, pasted, and its outermost pixels are repeated around it,
//! one card after the other, on a page with marks. `tests/bench/sheets/run.py` does the same
//! with Pillow. Nothing of the crate under test is used but the job itself.

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize, rotate180};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

use crate::fixtures::{card, jpeg};
use crate::job::{Job, cards};
use crate::tools::{Rendered, render_mupdf};

/// Letter and standard cards of set v1 at 300 ppi: page, card, columns, rows, and how far a bleed
/// reaches in x and y.
const PAGE: (u32, u32) = (3300, 2550);
const CARD: (u32, u32) = (742, 1036);
const COLUMNS: [i64; 4] = [141, 900, 1658, 2417];
const ROWS: [i64; 2] = [232, 1282];
const BLEED: (i64, i64) = (9, 7);
/// Left, top, width and height of what is black on the peer's background.
const MARKS: [[u32; 4]; 5] =
    [[112, 112, 72, 72], [3092, 112, 97, 12], [3177, 112, 12, 97], [112, 2342, 12, 97], [112, 2427, 97, 12]];

fn background() -> RgbImage {
    let mut page = RgbImage::from_pixel(PAGE.0, PAGE.1, Rgb([255; 3]));
    for [left, top, width, height] in MARKS {
        for (x, y) in (left..left + width).flat_map(|x| (top..top + height).map(move |y| (x, y))) {
            page.put_pixel(x, y, Rgb([0; 3]));
        }
    }
    page
}

/// A page of eight cards as a JPEG of the peer's quality; backs lie in mirrored rows and stand on their
/// heads.
fn page(pictures: &[RgbImage], is_back: bool) -> RgbImage {
    let mut page = background();
    for (i, picture) in pictures.iter().enumerate() {
        let (row, column) = (i / COLUMNS.len(), i % COLUMNS.len());
        let turned = if is_back { rotate180(picture) } else { picture.clone() };
        let small = resize(&turned, CARD.0, CARD.1, FilterType::CatmullRom);
        let row = if is_back { ROWS.len() - 1 - row } else { row };
        paste(&mut page, &small, COLUMNS[column], ROWS[row]);
    }
    let mut coded = Vec::new();
    page.write_with_encoder(JpegEncoder::new_with_quality(&mut coded, 75)).unwrap();
    image::load_from_memory(&coded).unwrap().into_rgb8()
}

fn paste(page: &mut RgbImage, card: &RgbImage, left: i64, top: i64) {
    let (width, height) = (i64::from(CARD.0), i64::from(CARD.1));
    for y in -BLEED.1..height + BLEED.1 {
        for x in -BLEED.0..width + BLEED.0 {
            let from = card.get_pixel(x.clamp(0, width - 1) as u32, y.clamp(0, height - 1) as u32);
            page.put_pixel((left + x) as u32, (top + y) as u32, *from);
        }
    }
}

/// Card `n` with grain all over it: a resampler that reaches wrong, or a picture that lies a pixel
/// off, shows everywhere.
fn grainy(n: u8) -> RgbImage {
    let mut picture = card(n, 12.0);
    let mut state = u32::from(n) * 7919 + 1;
    let mut grain = [[0_i16; 3]; 16 * 16];
    for cell in grain.iter_mut().flatten() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *cell = (state >> 26) as i16 - 32;
    }
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let cell = grain[((y / 5) % 16 * 16 + (x / 5) % 16) as usize];
        pixel.0 = std::array::from_fn(|c| (i16::from(pixel.0[c]) + cell[c]).clamp(0, 255) as u8);
    }
    picture
}

/// The shift of at most one pixel at which most of a page agrees with another.
fn best_shift(page: &Rendered, other: &Rendered) -> (isize, isize) {
    let shifts = (-1..=1).flat_map(|dx| (-1..=1).map(move |dy| (dx, dy)));
    let off = |shift: &(isize, isize)| (page.differing_every(23, other, 40, *shift) * 1e9) as u64;
    shifts.min_by_key(off).unwrap()
}

/// §8.1, `tests/soak sheets` with its 64 cards, here with 16: rendered with MuPDF, which does not stretch a page's picture by a pixel as poppler does;
/// at most 0.5 % of the pixels off by more than 40, and no page moved. The label is what differs: 0.11 % of
/// a front, nothing of a back. All backs are one picture, so the first is looked at.
#[test]
fn pages_of_mode_raster_are_those_of_silhouette_card_maker() {
    let sheets: usize = std::env::var("WINDLASS_SOAK_SHEETS").map_or(2, |n| n.parse().unwrap());
    let job = Job::new();
    let files: Vec<Vec<u8>> = (0..sheets as u8 * 8).map(|n| jpeg(&grainy(n).into())).collect();
    let back = jpeg(&grainy(99).into());
    let deck = cards(files.iter().map(|file| job.blob(file)));
    let args = json!({"cards": deck, "back": job.blob(&back), "mode": "raster", "label": {"name": "deck"}});
    let (pdf, result) = job.default_pdf(args);
    assert_eq!((&result["pages"], &result["template"]), (&json!(sheets * 2), &Value::from("letter_standard_v3")));
    let decoded = |file: &Vec<u8>| image::load_from_memory(file).unwrap().to_rgb8();
    let back_page = Rendered::from_rgb(&page(&vec![decoded(&back); 8], true), 300.0);
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (files, back_page, pdf) = (&files, &back_page, &pdf);
            scope.spawn(move || {
                for sheet in (half..sheets).step_by(2) {
                    let pictures: Vec<RgbImage> = files[sheet * 8..sheet * 8 + 8].iter().map(decoded).collect();
                    check(
                        &render_mupdf(pdf, sheet * 2 + 1, 300),
                        &Rendered::from_rgb(&page(&pictures, false), 300.0),
                        sheet,
                    );
                    if sheet == 0 {
                        check(&render_mupdf(pdf, sheet * 2 + 2, 300), back_page, sheet);
                    }
                }
            });
        }
    });
}

#[track_caller]
fn check(ours: &Rendered, theirs: &Rendered, sheet: usize) {
    assert_eq!(ours.size(), theirs.size());
    let off = ours.differing(theirs, 40, (0, 0));
    assert!(off <= 0.005, "sheet {sheet}: {:.3} % of the pixels differ", off * 100.0);
    assert_eq!(best_shift(ours, theirs), (0, 0), "sheet {sheet} is moved");
}
