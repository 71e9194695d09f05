//! What becomes of pictures of every format: which bytes are stored, and that they look right.

use std::collections::HashSet;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use serde_json::json;

use crate::fixtures::{self, GPS_TEXT, PngParts, card, frame_color, jpeg, jpeg_card, png, with_segment};
use crate::flat_jpeg::{Frame, flat_jpeg};
use crate::job::{Job, cards};
use crate::tools::{Rendered, arg, assert_sound, images, is_near, render, slot_mm, tool_text};

/// Prints these pictures as fronts of one sheet and renders it at 100 ppi.
fn printed(files: &[Vec<u8>]) -> (Job, std::path::PathBuf, Rendered) {
    let job = Job::new();
    let fronts = cards(files.iter().map(|f| job.blob(f)));
    let (pdf, _) = job.pdf(json!({"cards": fronts, "sides": "fronts"}));
    assert_sound(&pdf);
    let page = render(&pdf, 1, 100);
    (job, pdf, page)
}

/// Where a point of the card in a slot lies on a letter sheet; both in millimetres.
fn on_card(slot: usize, x: f64, y: f64) -> (f64, f64) {
    let rect = slot_mm(windlass_pdf::layout::find("exact", "letter", "standard", "default").unwrap(), slot);
    (rect.x + x, rect.y + y)
}

#[track_caller]
fn assert_color(page: &Rendered, slot: usize, (x, y): (f64, f64), color: [u8; 3]) {
    let found = page.at_mm(on_card(slot, x, y));
    assert!(is_near(found, color, 12), "slot {slot} at {x},{y}: {found:?}, not {color:?}");
}

/// The JPEG files in a PDF, as they are stored.
fn stored_jpegs(pdf: &Path) -> HashSet<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("x");
    tool_text("pdfimages", "poppler-utils", &["-j", arg(pdf), arg(&root)]);
    std::fs::read_dir(dir.path()).unwrap().map(|f| std::fs::read(f.unwrap().path()).unwrap()).collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}

#[test]
fn a_jpeg_is_stored_as_it_is_without_what_tells_about_its_owner() {
    let plain = jpeg_card(1, 4.0);
    let progressive = flat_jpeg(Frame::Progressive, None, (8, 11), 3, |x, y| vec![(x * 20 + y) as u8, 90, 160]);
    let mut grey = jpeg(&DynamicImage::from(card(2, 4.0)).to_luma8().into());
    let grey_plain = grey.clone();
    grey = with_segment(&grey, 0xfe, b"made by me");
    grey.extend(b"motion photo");
    let tagged = with_segment(&with_segment(&jpeg_card(3, 4.0), 0xe1, &fixtures::exif(1)), 0xed, GPS_TEXT);

    let (_job, pdf, page) = printed(&[plain.clone(), progressive.clone(), grey, tagged]);
    assert_eq!(stored_jpegs(&pdf), HashSet::from([plain, progressive, grey_plain, jpeg_card(3, 4.0)]));
    let bytes = std::fs::read(&pdf).unwrap();
    assert!(!contains(&bytes, GPS_TEXT) && !contains(&bytes, b"made by me") && !contains(&bytes, b"motion photo"));
    assert_color(&page, 0, (2.0, 2.0), frame_color(1));
    assert_color(&page, 3, (2.0, 2.0), frame_color(3));
    let listed: Vec<(String, String)> = images(&pdf).into_iter().map(|i| (i.color, i.encoding)).collect();
    let of = |color: &str| (color.to_owned(), "jpeg".to_owned());
    assert_eq!(listed, [of("rgb"), of("rgb"), of("gray"), of("rgb")]);
}

#[test]
fn every_exif_orientation_is_printed_upright() {
    let files: Vec<Vec<u8>> = (1..=8)
        .map(|exif| {
            // Stored so that turning it the way the tag asks puts it upright again.
            let undo = match exif {
                6 => 8,
                8 => 6,
                own_inverse => own_inverse,
            };
            let mut stored = DynamicImage::from(card(10 + exif, 4.0));
            stored.apply_orientation(Orientation::from_exif(undo).unwrap());
            with_segment(&jpeg(&stored), 0xe1, &fixtures::exif(exif))
        })
        .collect();
    let (_job, pdf, page) = printed(&files);
    for (slot, exif) in (1..=8_u8).enumerate() {
        for inside in fixtures::ARROW_INSIDE_MM {
            assert_color(&page, slot, inside, [0; 3]);
        }
        for outside in fixtures::ARROW_OUTSIDE_MM {
            assert_color(&page, slot, outside, [255; 3]);
        }
        for bit in 0..8 {
            let expected = if (10 + exif) >> bit & 1 == 1 { [0; 3] } else { [255; 3] };
            assert_color(&page, slot, fixtures::bit_centre_mm(bit), expected);
        }
    }
    assert!(!contains(&std::fs::read(&pdf).unwrap(), GPS_TEXT));
}

#[test]
fn an_exif_orientation_goes_with_crop_and_with_backs() {
    // 880×630 stored, turned by its tag to the shape of a card: crop must take nothing off.
    let mut stored = DynamicImage::from(card(9, 4.0));
    stored.apply_orientation(Orientation::Rotate270);
    let job = Job::new();
    let file = job.blob(&with_segment(&jpeg(&stored), 0xe1, &fixtures::exif(6)));
    let (pdf, _) = job.pdf(json!({"cards": cards([file.clone()]), "back": file, "fit": "crop"}));
    let (front, back) = (render(&pdf, 1, 100), render(&pdf, 2, 100));
    assert_color(&front, 0, (1.0, 1.0), frame_color(9));
    assert_color(&front, 0, fixtures::bit_centre_mm(0), [0; 3]);
    assert_color(&back, 4, (62.0, 87.0), frame_color(9));
    let (x, y) = fixtures::bit_centre_mm(0);
    assert_color(&back, 4, (63.0 - x, 88.0 - y), [0; 3]);
}

#[test]
fn a_picture_of_another_shape_is_stretched_or_cropped_about_its_centre() {
    // Three bands of 63 mm width: red, blue, green. Cropped, only the middle one shows.
    let bands = RgbImage::from_fn(189 * 2, 88 * 2, |x, _| match x / 126 {
        0 => Rgb([200, 0, 0]),
        1 => Rgb([0, 0, 200]),
        _ => Rgb([0, 200, 0]),
    });
    let job = Job::new();
    let file = job.blob(&fixtures::encode(&bands.into(), ImageFormat::Png));
    let page = |fit: &str| {
        let (pdf, _) = job.pdf(json!({"cards": cards([file.clone()]), "sides": "fronts", "fit": fit}));
        render(&pdf, 1, 100)
    };
    let stretched = page("stretch");
    assert_color(&stretched, 0, (10.0, 44.0), [200, 0, 0]);
    assert_color(&stretched, 0, (31.5, 44.0), [0, 0, 200]);
    assert_color(&stretched, 0, (53.0, 44.0), [0, 200, 0]);
    let cropped = page("crop");
    assert_color(&cropped, 0, (1.0, 1.0), [0, 0, 200]);
    assert_color(&cropped, 0, (62.0, 87.0), [0, 0, 200]);
    assert_color(&cropped, 0, (64.0, 44.0), [255; 3]);
}

#[test]
fn plain_png_pixels_are_stored_as_they_are() {
    let size = |color| PngParts { width: 63, height: 88, depth: 8, color, interlaced: false, extra: &[] };
    let palette = [200, 30, 30, 30, 30, 200, 30, 200, 30];
    let left = |x: u32| x < 31;
    let rgb = png(&size(2), |x, _| if left(x) { vec![180, 90, 20] } else { vec![20, 90, 180] });
    let grey = png(&size(0), |x, _| vec![if left(x) { 70 } else { 190 }]);
    let with_palette = PngParts { extra: &[(b"PLTE", &palette)], ..size(3) };
    let indexed = png(&with_palette, |x, _| vec![u8::from(left(x))]);

    let (_job, pdf, page) = printed(&[rgb.clone(), grey, indexed]);
    for (slot, [l, r]) in
        [[[180, 90, 20], [20, 90, 180]], [[70; 3], [190; 3]], [[30, 30, 200], [200, 30, 30]]].into_iter().enumerate()
    {
        assert_color(&page, slot, (10.0, 44.0), l);
        assert_color(&page, slot, (50.0, 44.0), r);
    }
    let colors: Vec<String> = images(&pdf).into_iter().map(|i| i.color).collect();
    assert_eq!(colors, ["rgb", "gray", "index"]);
    let pixels = &rgb[rgb.windows(4).position(|w| w == b"IDAT").unwrap() + 4..rgb.len() - 16];
    assert!(contains(&std::fs::read(&pdf).unwrap(), pixels), "the coded pixels are not the file's own");
}

#[test]
fn other_pngs_are_unpacked_and_laid_on_white() {
    let size = |depth, color| PngParts { width: 63, height: 88, depth, color, interlaced: false, extra: &[] };
    let left = |x: u32| x < 31;
    let corner = |x: u32, y: u32| x < 10 && y < 10;
    let rgba = png(&size(8, 6), |x, y| if corner(x, y) { vec![9, 9, 9, 0] } else { vec![180, 90, 20, 255] });
    let half = png(&size(8, 6), |_, _| vec![0, 0, 0, 128]);
    let grey_alpha = png(&size(8, 4), |x, y| if corner(x, y) { vec![0, 0] } else { vec![70, 255] });
    let grey16 = png(&size(16, 0), |x, _| if left(x) { vec![70, 0] } else { vec![190, 200] });
    let interlaced =
        png(&PngParts { interlaced: true, ..size(8, 2) }, |x, _| vec![if left(x) { 180 } else { 20 }, 90, 20]);
    let palette = [180, 90, 20, 0, 0, 0];
    let extra: [(&[u8; 4], &[u8]); 2] = [(b"PLTE", &palette), (b"tRNS", &[255, 0])];
    let transparent = png(&PngParts { extra: &extra, ..size(8, 3) }, |x, y| vec![u8::from(corner(x, y))]);

    let (_job, _pdf, page) = printed(&[rgba, half, grey_alpha, grey16, interlaced, transparent]);
    for slot in [0, 2, 5] {
        assert_color(&page, slot, (4.0, 4.0), [255; 3]);
    }
    assert_color(&page, 0, (31.0, 44.0), [180, 90, 20]);
    assert_color(&page, 1, (31.0, 44.0), [127; 3]);
    assert_color(&page, 2, (31.0, 44.0), [70; 3]);
    assert_color(&page, 3, (10.0, 44.0), [70; 3]);
    assert_color(&page, 3, (50.0, 44.0), [190; 3]);
    assert_color(&page, 4, (10.0, 44.0), [180, 90, 20]);
    assert_color(&page, 4, (50.0, 44.0), [20, 90, 20]);
    assert_color(&page, 5, (31.0, 44.0), [180, 90, 20]);
}

#[test]
fn cmyk_jpegs_have_the_colours_they_have_on_screen() {
    // Adobe's files store 255 for no ink: red is full magenta and yellow.
    let red = flat_jpeg(Frame::Baseline, Some(0), (8, 11), 4, |_, _| vec![255, 0, 0, 255]);
    let grey = flat_jpeg(Frame::Baseline, Some(0), (8, 11), 4, |_, _| vec![255, 255, 255, 100]);
    let (_job, pdf, page) = printed(&[red, grey]);
    assert_color(&page, 0, (31.0, 44.0), [255, 0, 0]);
    assert_color(&page, 1, (31.0, 44.0), [100; 3]);
    assert!(images(&pdf).iter().all(|i| i.color == "rgb" && i.encoding == "jpeg"));
}

#[test]
fn other_formats_are_taken_by_content() {
    let picture = DynamicImage::from(card(21, 2.0));
    let mut with_alpha: RgbaImage = picture.to_rgba8();
    with_alpha.put_pixel(0, 0, Rgba([1, 2, 3, 0]));
    let formats = [ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];
    let mut files: Vec<Vec<u8>> = formats.map(|f| fixtures::encode(&picture, f)).to_vec();
    files.push(fixtures::encode(&with_alpha.into(), ImageFormat::WebP));
    let (_job, pdf, page) = printed(&files);
    for slot in 0..files.len() {
        assert_color(&page, slot, (3.0, 44.0), frame_color(21));
        assert_color(&page, slot, (31.5, 60.0), [0; 3]);
        assert_color(&page, slot, (10.0, 50.0), [255; 3]);
    }
    assert!(images(&pdf).iter().all(|i| i.encoding == "image"));
}

#[test]
fn colour_profiles_are_kept_once_each_where_they_fit() {
    let segment = |space: &[u8; 4]| [b"ICC_PROFILE\0\x01\x01".as_slice(), &fixtures::icc(space)].concat();
    let with = |n: u8, space: &[u8; 4]| with_segment(&jpeg_card(n, 2.0), 0xe2, &segment(space));
    let job = Job::new();
    let fronts = cards([with(1, b"RGB "), with(2, b"RGB "), with(3, b"GRAY")].map(|f| job.blob(&f)));
    let (pdf, _) = job.pdf(json!({"cards": fronts, "sides": "fronts"}));
    let colors: Vec<String> = images(&pdf).into_iter().map(|i| i.color).collect();
    assert_eq!(colors, ["icc", "icc", "rgb"]);
    let text = tool_text("qpdf", "qpdf", &["--qdf", "--object-streams=disable", arg(&pdf), "-"]);
    assert_eq!(text.matches("/Alternate").count(), 1, "one profile for both pictures");
}
