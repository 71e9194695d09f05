//! Pictures that must not be printed: refused soon, for good, and by name.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::fixtures::{PngParts, jpeg_card, png_card, png_file};
use crate::flat_jpeg::{Frame, flat_jpeg};
use crate::job::{Job, cards};

/// Fails unless a job with this picture as its second card fails for good, within a second.
#[track_caller]
fn check(file: &[u8], code: &str, message: &str) {
    let job = Job::new();
    let fronts = cards([job.blob(&png_card(1, 1.0)), job.blob(file)]);
    let started = Instant::now();
    let error = job.fatal(json!({"cards": fronts, "sides": "fronts"}));
    let took = started.elapsed();
    assert_eq!(error.code, code, "{}", error.message);
    assert!(error.message.starts_with("front of card 2 (/cards/1/front): "), "{}", error.message);
    assert!(error.message.contains(message), "{}", error.message);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(job.left_behind(), [""; 0]);
}

/// A PNG whose header claims a size it does not have.
fn claiming(width: u32, height: u32) -> Vec<u8> {
    let parts = PngParts { width, height, depth: 8, color: 2, interlaced: false, extra: &[] };
    png_file(&parts, &[0; 64])
}

#[test]
fn sizes_past_the_limits_are_refused_from_the_header() {
    check(&claiming(60_000, 60_000), "image_too_large", "60000x60000 pixels");
    check(&claiming(60_000, 1), "image_too_large", "60000x1 pixels");
    check(&claiming(16_000, 16_000), "image_too_large", "16000x16000 pixels");
    let mut jpeg = jpeg_card(1, 2.0);
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    check(&jpeg, "image_too_large", "60000x60000 pixels");
    check(&vec![0; 25 * 1024 * 1024 + 1], "image_too_large", "26214401 bytes");
}

/// §8.12: every picture that its header refuses is named in one error, with its path.
#[test]
fn all_refused_pictures_are_named_together() {
    let job = Job::new();
    let (bomb, text) = (job.blob(&claiming(14_000, 14_000)), job.blob(b"no picture"));
    let error = job.fatal(json!({"cards": cards([job.blob(&png_card(1, 1.0)), bomb]), "back": text}));
    assert_eq!(error.code, "image_too_large");
    assert!(error.message.contains("/cards/1/front") && error.message.contains("/back"), "{}", error.message);
}

/// §8.12: a PNG of 13,300 px square in half a megabyte would unpack to 531 MB.
#[test]
fn a_bomb_of_13300_pixels_square_is_refused_unpacked() {
    check(&claiming(13_300, 13_300), "image_too_large", "13300x13300 pixels");
    check(&claiming(1, 60_000), "image_too_large", "1x60000 pixels");
}

#[test]
fn headers_without_pixels_are_refused() {
    check(&claiming(0, 0), "image_unreadable", "");
    let mut jpeg = jpeg_card(1, 2.0);
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0);
    check(&jpeg, "image_unreadable", "no pixels");
}

#[test]
fn damaged_files_are_refused() {
    let jpeg = jpeg_card(1, 2.0);
    check(&jpeg[..jpeg.len() / 2], "image_unreadable", "ends before its picture does");
    let progressive = flat_jpeg(Frame::Progressive, None, (4, 4), 3, |_, _| vec![9, 99, 199]);
    check(&progressive[..progressive.len() - 3], "image_unreadable", "ends before its picture does");
    let png_file = png_card(1, 2.0);
    check(&png_file[..png_file.len() / 2], "image_unreadable", "");
    let mut wrong_crc = png_file;
    let crc = wrong_crc.len() - 13;
    wrong_crc[crc] ^= 1;
    check(&wrong_crc, "image_unreadable", "CRC");
    check(b"", "image_unreadable", "empty");
}

#[test]
fn what_is_no_picture_or_none_of_ours_is_refused() {
    check(b"this is not a picture", "image_unreadable", "JPEG, PNG, WebP, GIF, BMP and TIFF");
    check(b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "unsupported_image", "SVG");
    check(b"\0\0\0\x20ftypavif\0\0\0\0mif1", "unsupported_image", "Avif");
    let mut arithmetic = jpeg_card(1, 2.0);
    let frame = arithmetic.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    arithmetic[frame + 1] = 0xc9;
    check(&arithmetic, "unsupported_image", "arithmetic coding");
}

#[test]
fn a_blob_that_is_not_there_is_named() {
    let job = Job::new();
    let missing = format!("sha256:{}", "0f".repeat(32));
    let front = job.blob(&png_card(1, 1.0));
    let error = job.fatal(json!({"cards": cards([front.clone()]), "back": missing}));
    assert_eq!(error.code, "blob_missing");
    assert_eq!(error.message, format!("the common back (/back): there is no blob {missing}"));
    let error = job.fatal(json!({"cards": [{"front": front, "back": missing}]}));
    assert!(error.message.starts_with("back of card 1 (/cards/0/back): "), "{}", error.message);
}
