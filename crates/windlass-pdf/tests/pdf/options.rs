//! Crop, bleed, extended corners, offset, outline, label, storage of pictures: seen on the page.

use std::collections::HashSet;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use windlass_pdf::CardSheet;
use windlass_pdf::layout::{self, Layout};
use windlass_worker::IsolatedKind;

use crate::fixtures::{self, encode, jpeg, jpeg_card, png_card};
use crate::flat_jpeg::{Frame, flat_jpeg};
use crate::job::{Job, cards};
use crate::tools::{Rendered, arg, assert_sound, images, is_near, render, tool_text};

fn v1() -> &'static Layout {
    layout::find("v1", "letter", "standard", "default").unwrap()
}

/// A picture whose pixels tell their place: red rises to the right, green downwards.
fn gradient(width: u32, height: u32) -> Vec<u8> {
    let image = RgbImage::from_fn(width, height, |x, y| {
        Rgb([(40 + x * 200 / width) as u8, (40 + y * 200 / height) as u8, 120])
    });
    encode(&image.into(), ImageFormat::Png)
}

#[track_caller]
fn assert_at(page: &Rendered, (x, y): (f64, f64), color: [u8; 3]) {
    let found = page.at(x as usize, y as usize);
    assert!(is_near(found, color, 6), "at {x},{y}: {found:?}, not {color:?}");
}

/// The colour of the gradient at a part of its width and height.
fn at(x: f64, y: f64) -> [u8; 3] {
    [(40.0 + x * 200.0) as u8, (40.0 + y * 200.0) as u8, 120]
}

#[test]
fn an_edge_bleed_draws_out_the_outermost_pixels_on_fronts_and_backs() {
    let job = Job::new();
    let picture = job.blob(&gradient(742, 1036));
    let (pdf, _) = job.default_pdf(json!({"cards": cards([picture.clone()]), "back": picture}));
    let card = v1().slot(0);
    let page = render(&pdf, 1, 300);
    let (cx, cy) = (card.x + card.width / 2.0, card.y + card.height / 2.0);
    assert_at(&page, (card.x - 7.0, cy), at(0.0, 0.5));
    assert_at(&page, (card.right() + 7.0, cy), at(1.0, 0.5));
    assert_at(&page, (cx, card.y - 5.0), at(0.5, 0.0));
    assert_at(&page, (cx, card.bottom() + 5.0), at(0.5, 1.0));
    assert_at(&page, (card.x - 6.0, card.y - 4.0), at(0.0, 0.0));
    assert_at(&page, (card.right() + 6.0, card.bottom() + 4.0), at(1.0, 1.0));
    assert_at(&page, (card.x - 12.0, cy), [255; 3]);
    let (back, slot) = (render(&pdf, 2, 300), v1().slot(v1().back_slot(0)));
    assert_at(&back, (slot.x - 6.0, slot.y + slot.height / 2.0), at(1.0, 0.5));
    assert_at(&back, (slot.x + slot.width / 2.0, slot.y - 5.0), at(0.5, 1.0));
    assert_sound(&pdf);
}

/// No white line between a picture and its bleed, whatever smooths the edges.
#[test]
fn a_bleed_joins_its_picture_without_a_gap() {
    let job = Job::new();
    let dark = job.blob(&encode(&RgbImage::from_pixel(333, 471, Rgb([20, 20, 20])).into(), ImageFormat::Png));
    for crop in [Value::Null, json!("2.1mm")] {
        let args = json!({"cards": cards([dark.clone()]), "crop": {"fronts": crop}, "extend_corners": {"fronts": 7}});
        let (pdf, _) = job.default_pdf(args);
        let card = v1().slot(0).inset(-6.0, -4.0);
        for page in [render(&pdf, 1, 300), crate::tools::render_mupdf(&pdf, 1, 300)] {
            for y in card.y as usize..card.bottom() as usize {
                for x in card.x as usize..card.right() as usize {
                    assert!(page.at(x, y)[0] < 60, "light at {x},{y}");
                }
            }
        }
    }
}

/// §8.13: 3 mm are 35 of 750 pixels a side in x, and of 1050 in y.
#[test]
fn crop_takes_from_each_side_and_not_from_the_common_back() {
    let job = Job::new();
    let picture = job.blob(&gradient(750, 1050));
    let crop = json!({"fronts": "3mm"});
    let (pdf, _) = job.default_pdf(json!({"cards": cards([picture.clone()]), "back": picture, "crop": crop}));
    let (page, card) = (render(&pdf, 1, 300), v1().slot(0));
    let (cx, cy) = (card.x + card.width / 2.0, card.y + card.height / 2.0);
    assert_at(&page, (card.x + 2.0, cy), at(36.0 / 750.0, 0.5));
    assert_at(&page, (card.right() - 3.0, cy), at(714.0 / 750.0, 0.5));
    assert_at(&page, (cx, card.y + 2.0), at(0.5, 36.0 / 1050.0));
    let (back, slot) = (render(&pdf, 2, 300), v1().slot(v1().back_slot(0)));
    assert_at(&back, (slot.x + 2.0, slot.y + slot.height / 2.0), at(1.0, 0.5));
}

#[test]
fn extended_corners_hide_what_lies_at_the_rim_and_move_nothing_else() {
    let rim = RgbImage::from_fn(742, 1036, |x, y| {
        let inside = (12..730).contains(&x) && (12..1024).contains(&y);
        Rgb(if inside { [40, 160, 90] } else { [0, 0, 0] })
    });
    let job = Job::new();
    let picture = job.blob(&encode(&rim.into(), ImageFormat::Png));
    for bleed in ["edge", "none"] {
        let extend = json!({"fronts": 14, "backs": 0});
        let args =
            json!({"cards": cards([picture.clone()]), "back": picture, "extend_corners": extend, "bleed": bleed});
        let (pdf, _) = job.default_pdf(args);
        let (page, card) = (render(&pdf, 1, 300), v1().slot(0));
        for (x, y) in
            [(card.x + 2.0, card.y + 2.0), (card.right() - 3.0, card.y + 500.0), (card.x + 300.0, card.bottom() - 3.0)]
        {
            assert_at(&page, (x, y), [40, 160, 90]);
        }
        let (back, slot) = (render(&pdf, 2, 300), v1().slot(v1().back_slot(0)));
        assert_at(&back, (slot.x + 4.0, slot.y + 4.0), [0; 3]);
    }
}

#[test]
fn a_scaled_bleed_shows_the_picture_around_the_card() {
    let job = Job::new();
    let picture = job.blob(&gradient(742, 1036));
    let (pdf, _) = job.default_pdf(json!({"cards": cards([picture]), "bleed": "scale", "sides": "fronts"}));
    let (page, card) = (render(&pdf, 1, 300), v1().slot(0));
    assert_at(&page, (card.x - 5.0, card.y + 518.0), at(0.01, 0.5));
    assert_at(&page, (card.x - 12.0, card.y + 518.0), [255; 3]);
}

/// §8.13: only backs move, right and down, and nothing comes in at the other edge.
#[test]
fn an_offset_moves_backs_alone_and_clips_at_the_page() {
    let job = Job::new();
    let picture = job.blob(&png_card(3, 8.0));
    let deck = json!([{"front": picture, "copies": 8}]);
    let run = |offset: Value| {
        let (pdf, _) = job.default_pdf(json!({"cards": deck, "back": picture, "offset": offset}));
        (render(&pdf, 1, 100), render(&pdf, 2, 100))
    };
    let (front, back) = run(json!({}));
    let (moved_front, moved_back) = run(json!({"x": 60, "y": -150}));
    assert_eq!(front.differing(&moved_front, 40, (0, 0)), 0.0);
    assert!(moved_back.differing(&back, 40, (20, -50)) < 0.01);
    // 200 mm to the left of a sheet of 279: what was there has not come back at the right.
    let (_, gone) = run(json!({"x": -84, "y": 0, "unit": "mm"}));
    assert!(gone.is_white((279.4 - 84.0, 0.0, 279.4, 215.9)));
    // In raster mode alike.
    let (pdf, _) = job.default_pdf(json!({
        "cards": deck, "back": picture, "mode": "raster", "ppi": 100, "offset": {"x": 60, "y": -150},
    }));
    assert!(render(&pdf, 2, 100).differing(&moved_back, 60, (0, 0)) < 0.03);
}

#[test]
fn a_turned_back_is_turned_clockwise_about_the_middle_in_both_modes() {
    let job = Job::new();
    let picture = job.blob(&png_card(3, 8.0));
    let page = |mode: &str| {
        let (pdf, _) = job.default_pdf(json!({
            "cards": [{"front": picture, "copies": 8}], "back": picture, "offset": {"angle": 2.0}, "mode": mode, "ppi": 100,
        }));
        render(&pdf, 2, 100)
    };
    let (embed, raster) = (page("embed"), page("raster"));
    assert!(embed.differing(&raster, 60, (0, 0)) < 0.04);
    // The square at the top left of the page has moved up and to the right.
    let (x, y) = (1100.0 / 2.0, 850.0 / 2.0);
    let (sin, cos) = 2.0_f64.to_radians().sin_cos();
    let (dx, dy) = (148.0 / 3.0 - x, 148.0 / 3.0 - y);
    assert!(embed.at((x + cos * dx - sin * dy) as usize, (y + sin * dx + cos * dy) as usize)[0] < 60);
}

#[test]
fn an_outline_follows_the_card_with_round_corners() {
    let job = Job::new();
    let white = job.blob(&encode(&RgbImage::from_pixel(74, 104, Rgb([255; 3])).into(), ImageFormat::Png));
    for mode in ["embed", "raster"] {
        let args = json!({"cards": cards([white.clone()]), "outline": true, "sides": "fronts", "mode": mode});
        let (pdf, _) = job.default_pdf(args);
        let (page, card) = (render(&pdf, 1, 300), v1().slot(0));
        let dark_near = |x: f64, y: f64| {
            (-2..=2).any(|dx| (-2..=2).any(|dy| page.at((x as i32 + dx) as usize, (y as i32 + dy) as usize)[0] < 160))
        };
        assert!(dark_near(card.x, card.y + 500.0) && dark_near(card.x + 300.0, card.y), "{mode}: no line");
        assert!(!dark_near(card.x + 2.0, card.y + 2.0), "{mode}: the corner is not round");
    }
}

/// §8.14: what is printed can be read back; what cannot be printed is refused at the door.
#[test]
fn a_label_reads_as_it_was_written_or_is_refused() {
    let job = Job::new();
    let front = job.blob(&jpeg_card(1, 2.0));
    let label = json!({"name": "Łódź Ωμέγα"});
    let (pdf, _) = job.default_pdf(json!({"cards": cards([front.clone()]), "label": label}));
    let text = tool_text("pdftotext", "poppler-utils", &["-layout", arg(&pdf), "-"]);
    assert!(text.contains("name: Łódź Ωμέγα, sheet: 1, template: letter_standard_v3"), "{text}");
    assert!(!text.contains('?'));
    let fonts = tool_text("pdffonts", "poppler-utils", &[arg(&pdf)]);
    let row = fonts.lines().nth(2).unwrap();
    assert!(row.contains("Inter-Regular") && row.contains("yes yes yes"), "{fonts}");
    assert!(std::fs::metadata(&pdf).unwrap().len() < 40_000, "the whole font is in the file");

    let bad = serde_json::from_value(json!({"cards": cards([front]), "label": {"name": "Łódź 日本"}})).unwrap();
    let violations = CardSheet.check(&bad);
    assert_eq!((violations.len(), violations[0].code.as_str()), (1, "glyph_missing"));
}

/// §8.6.
#[test]
fn sixty_four_cards_and_a_back_are_sixty_five_pictures_each_as_it_was() {
    let job = Job::new();
    let files: Vec<Vec<u8>> = (0..64).map(|n| jpeg_card(n, 3.0)).collect();
    let back = job.blob(&jpeg_card(200, 3.0));
    let deck = cards(files.iter().map(|file| job.blob(file)));
    let (pdf, result) = job.default_pdf(json!({"cards": deck, "back": back, "bleed": "none"}));
    let uses = images(&pdf);
    let objects: HashSet<&str> = uses.iter().map(|i| i.object.as_str()).collect();
    assert_eq!((objects.len(), result["pictures"].as_u64(), result["pages"].as_u64()), (65, Some(65), Some(16)));
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("x");
    tool_text("pdfimages", "poppler-utils", &["-j", "-f", "1", "-l", "1", arg(&pdf), arg(&root)]);
    let stored: HashSet<Vec<u8>> =
        std::fs::read_dir(dir.path()).unwrap().map(|f| std::fs::read(f.unwrap().path()).unwrap()).collect();
    assert_eq!(stored, files[..8].iter().cloned().collect());
}

#[test]
fn a_picture_finer_than_anyone_prints_is_scaled_down_once() {
    let job = Job::new();
    let fine = job.blob(&jpeg(&DynamicImage::from(fixtures::card(5, 30.0))));
    let args = |max: u32| json!({"cards": cards([fine.clone()]), "sides": "fronts", "max_source_ppi": max});
    let list = |max: u32| {
        let (pdf, _) = job.pdf(args(max));
        let list = tool_text("pdfimages", "poppler-utils", &["-list", arg(&pdf)]);
        let row: Vec<String> = list.lines().nth(2).unwrap().split_whitespace().map(str::to_owned).collect();
        let page = render(&pdf, 1, 100);
        assert!(
            is_near(page.at_mm((14.0, 60.0)), fixtures::frame_color(5), 20)
                || is_near(page.at_mm((13.0, 60.0)), fixtures::frame_color(5), 20)
        );
        (row[3].parse::<u32>().unwrap(), row[8].clone())
    };
    assert_eq!(list(2400), (1890, "jpeg".to_owned()));
    assert_eq!(list(720), (1890, "jpeg".to_owned()), "762 ppi are close enough: its own bytes stay");
    let (width, encoding) = list(300);
    assert!((743..=745).contains(&width) && encoding == "jpeg", "{width} {encoding}");
}

#[test]
fn pngs_can_be_stored_as_jpeg_and_cmyk_can_be_kept() {
    let job = Job::new();
    let png = job.blob(&png_card(2, 4.0));
    let red = job.blob(&flat_jpeg(Frame::Baseline, Some(0), (8, 11), 4, |_, _| vec![255, 0, 0, 255]));
    let deck = cards([png, red]);
    let (pdf, _) = job.pdf(json!({"cards": deck, "sides": "fronts", "png": "jpeg", "cmyk": "keep"}));
    let found: Vec<(String, String)> = images(&pdf).into_iter().map(|i| (i.color, i.encoding)).collect();
    assert_eq!(found, [("rgb", "jpeg"), ("cmyk", "jpeg")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    let page = render(&pdf, 1, 100);
    let [r, g, b] = page.at_mm((14.0 + 65.0 + 31.0, 60.0));
    assert!(r > 180 && g < 90 && b < 90, "kept CMYK is shown as {r},{g},{b}");
    assert_sound(&pdf);
}
