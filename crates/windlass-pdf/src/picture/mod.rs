//! Decides which bytes of a picture go into the document.
//!
//! A header is checked against every limit before a pixel is decoded; and nothing goes in
//! unverified: every picture is decoded once, even when its own bytes are then passed through.

mod jpeg;
mod png;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{ResizeAlg, ResizeOptions, Resizer};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::metadata::Orientation;
use image::{
    DynamicImage, GenericImageView as _, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
};

use crate::writer::{Coding, Colors, StoredImage};

/// Largest file of one picture, in bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 25 * 1024 * 1024;
/// Most pixels of one picture.
pub(crate) const MAX_PIXELS: u64 = 64 * 1024 * 1024;
/// Most pixels a side.
pub(crate) const MAX_SIDE: u32 = 16_384;
/// Most memory the pixels of one picture may take, in bytes.
pub(crate) const MAX_DECODED_BYTES: u64 = 256 * 1024 * 1024;
/// Quality of a CMYK JPEG that is encoded again as RGB; nobody sees the difference at 95.
const CMYK_QUALITY: u8 = 95;
/// Quality of a picture that was scaled down or is stored as JPEG on request.
const FINE_QUALITY: u8 = 90;

/// How a picture is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Storage {
    /// Whether pictures that are not JPEGs are stored as JPEG.
    pub(crate) as_jpeg: bool,
    pub(crate) keep_cmyk: bool,
    /// Scale to this part of width and height, under 1, when it is finer than anyone can print.
    pub(crate) scale: Option<f64>,
}

/// What a picture's header says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Header {
    format: ImageFormat,
    /// Width and height of the stored pixels.
    pub(crate) stored: (u32, u32),
    /// How its pixels have to be turned to stand upright.
    pub(crate) orientation: Orientation,
}

impl Header {
    /// Width and height once it stands upright.
    pub(crate) fn upright(&self) -> (u32, u32) {
        let (width, height) = self.stored;
        if lies_on_its_side(self.orientation) { (height, width) } else { (width, height) }
    }
}

/// True when width and height change places.
pub(crate) fn lies_on_its_side(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    )
}

/// Why a picture is not printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Damaged, or no picture at all.
    Unreadable(String),
    /// A picture of a sort that is not taken.
    Unsupported(String),
    /// Past one of the limits.
    TooLarge(String),
}

impl Refusal {
    /// The stable word for it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "image_unreadable",
            Self::Unsupported(_) => "unsupported_image",
            Self::TooLarge(_) => "image_too_large",
        }
    }

    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Unreadable(text) | Self::Unsupported(text) | Self::TooLarge(text) => text,
        }
    }
}

/// Reads a picture's header and checks it against every limit; no pixel is decoded.
pub(crate) fn header(bytes: &[u8]) -> Result<Header, Refusal> {
    guarded(|| {
        check_file_size(bytes.len() as u64)?;
        let format = sniff(bytes)?;
        if format == ImageFormat::Jpeg {
            jpeg::parse(bytes)?;
        }
        let mut decoder = decoder(bytes, format)?;
        let stored = decoder.dimensions();
        check_header(stored, decoder.total_bytes())?;
        Ok(Header { format, stored, orientation: decoder.orientation().map_err(refusal)? })
    })
}

/// Decodes a picture whose header has been checked; its pixels stand as they are stored.
pub(crate) fn decode(bytes: &[u8], header: &Header) -> Result<DynamicImage, Refusal> {
    guarded(|| DynamicImage::from_decoder(decoder(bytes, header.format)?).map_err(refusal))
}

/// The bytes that go into the document for a picture that has been decoded.
pub(crate) fn store(
    bytes: &[u8],
    header: &Header,
    decoded: DynamicImage,
    how: &Storage,
) -> Result<StoredImage, Refusal> {
    guarded(move || {
        if let Some(scale) = how.scale {
            return scaled(decoded, scale);
        }
        let mut image = match header.format {
            ImageFormat::Jpeg => store_jpeg(bytes, &decoded, how)?,
            _ if how.as_jpeg => return encode_jpeg(&flatten(decoded), FINE_QUALITY),
            ImageFormat::Png => match png::pass_through(bytes) {
                Some(image) => image,
                None => encode_png(decoded)?,
            },
            _ => encode_png(decoded)?,
        };
        let icc = decoder(bytes, header.format)?.icc_profile().ok().flatten();
        image.icc = icc.filter(|icc| icc_fits(icc, &image.colors));
        Ok(image)
    })
}

fn store_jpeg(bytes: &[u8], decoded: &DynamicImage, how: &Storage) -> Result<StoredImage, Refusal> {
    let jpeg = jpeg::parse(bytes)?;
    let colors = match jpeg.components {
        1 => Colors::Grey,
        4 if how.keep_cmyk => Colors::Cmyk { inverted: jpeg.is_adobe },
        4 => return encode_jpeg(decoded, CMYK_QUALITY),
        _ => Colors::Rgb,
    };
    let (width, height) = (decoded.width(), decoded.height());
    Ok(StoredImage { width, height, colors, icc: None, coding: Coding::Jpeg, data: jpeg.without_metadata(bytes) })
}

/// Decoders parse what strangers send: a panic in one is a bad picture, not a bad worker.
fn guarded<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Refusal::Unreadable("the decoder gave up on it".into())))
}

fn decoder(bytes: &[u8], format: ImageFormat) -> Result<impl ImageDecoder + '_, Refusal> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    reader.into_decoder().map_err(refusal)
}

/// Refuses a file by its size alone.
pub(crate) fn check_file_size(bytes: u64) -> Result<(), Refusal> {
    if bytes > MAX_FILE_BYTES {
        return Err(Refusal::TooLarge(format!("{bytes} bytes; at most {MAX_FILE_BYTES} are allowed")));
    }
    Ok(())
}

/// What the bytes are, by content; names and media types are never asked.
fn sniff(bytes: &[u8]) -> Result<ImageFormat, Refusal> {
    const TAKEN: &str = "taken are JPEG, PNG, WebP, GIF, BMP and TIFF";
    if bytes.is_empty() {
        return Err(Refusal::Unreadable("the file is empty".into()));
    }
    match image::guess_format(bytes) {
        Ok(format) if format.reading_enabled() => Ok(format),
        Ok(format) => Err(Refusal::Unsupported(format!("a {format:?} picture; {TAKEN}"))),
        Err(_) => match known_but_not_taken(bytes) {
            Some(what) => Err(Refusal::Unsupported(format!("{what}; {TAKEN}"))),
            None => Err(Refusal::Unreadable(format!("not a picture; {TAKEN}"))),
        },
    }
}

/// Formats that people do upload, told by their first bytes.
fn known_but_not_taken(bytes: &[u8]) -> Option<&'static str> {
    let head = &bytes[..bytes.len().min(1024)];
    let brand = head.get(4..12);
    if brand.is_some_and(|b| [b"ftyphei", b"ftypmif", b"ftyphev"].iter().any(|m| b.starts_with(*m))) {
        return Some("a HEIC picture");
    }
    if head.starts_with(b"%PDF-") {
        return Some("a PDF document");
    }
    if head.starts_with(&[0xff, 0x0a]) || head.starts_with(b"\0\0\0\x0cJXL ") {
        return Some("a JPEG XL picture");
    }
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    (text.starts_with('<') && text.contains("<svg")).then_some("an SVG drawing")
}

fn check_header((width, height): (u32, u32), decoded_bytes: u64) -> Result<(), Refusal> {
    if width == 0 || height == 0 {
        return Err(Refusal::Unreadable(format!("its header says {width}x{height} pixels")));
    }
    if width > MAX_SIDE || height > MAX_SIDE {
        let message = format!("{width}x{height} pixels; at most {MAX_SIDE} a side are allowed");
        return Err(Refusal::TooLarge(message));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        let message = format!("{width}x{height} pixels; at most {MAX_PIXELS} in all are allowed");
        return Err(Refusal::TooLarge(message));
    }
    if decoded_bytes > MAX_DECODED_BYTES {
        let message = format!("{decoded_bytes} bytes unpacked; at most {MAX_DECODED_BYTES} are allowed");
        return Err(Refusal::TooLarge(message));
    }
    Ok(())
}

fn refusal(error: ImageError) -> Refusal {
    match error {
        ImageError::Unsupported(e) => Refusal::Unsupported(e.to_string()),
        ImageError::Limits(e) => Refusal::TooLarge(e.to_string()),
        e => Refusal::Unreadable(e.to_string()),
    }
}

/// True for a profile that says it is one, and for colours like these.
fn icc_fits(icc: &[u8], colors: &Colors) -> bool {
    let wanted: &[u8] = match colors {
        Colors::Grey => b"GRAY",
        Colors::Rgb | Colors::Palette { .. } => b"RGB ",
        Colors::Cmyk { .. } => b"CMYK",
    };
    // ICC.1:2022, 7.2: size at 0, colour space at 16, signature at 36.
    let size = icc.first_chunk().map(|b| u32::from_be_bytes(*b) as usize);
    size == Some(icc.len()) && icc.get(16..20) == Some(wanted) && icc.get(36..40) == Some(b"acsp".as_slice())
}

fn encode_jpeg(decoded: &DynamicImage, quality: u8) -> Result<StoredImage, Refusal> {
    let data = jpeg_file(&decoded.to_rgb8(), quality).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    let (width, height) = (decoded.width(), decoded.height());
    Ok(StoredImage { width, height, colors: Colors::Rgb, icc: None, coding: Coding::Jpeg, data })
}

/// A JPEG file of `quality` 1–100 with every colour for every pixel (4:4:4): with one in four, coloured
/// letters on cards lose their edges. Integers only: every machine writes the same bytes.
pub(crate) fn jpeg_file(pixels: &RgbImage, quality: u8) -> Result<Vec<u8>, jpeg_encoder::EncodingError> {
    let mut data = Vec::with_capacity(pixels.as_raw().len() / 16);
    let mut encoder = jpeg_encoder::Encoder::new(&mut data, quality);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_1_1);
    // A side past 65,535 pixels, of which JPEG knows nothing, becomes 0, which is refused.
    let side = |px: u32| u16::try_from(px).unwrap_or(0);
    let (width, height) = (side(pixels.width()), side(pixels.height()));
    encoder.encode(pixels.as_raw(), width, height, jpeg_encoder::ColorType::Rgb)?;
    Ok(data)
}

fn encode_png(decoded: DynamicImage) -> Result<StoredImage, Refusal> {
    let flat = flatten(decoded);
    let mut data = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut data, CompressionType::Fast, FilterType::Adaptive);
    flat.write_with_encoder(encoder).map_err(refusal)?;
    drop(flat);
    png::pass_through(&data).ok_or_else(|| Refusal::Unreadable("it could not be encoded again".into()))
}

fn scaled(decoded: DynamicImage, scale: f64) -> Result<StoredImage, Refusal> {
    let flat = flat_rgb(decoded);
    let part = |size: u32| ((f64::from(size) * scale).round() as u32).max(1);
    let whole = (0.0, 0.0, f64::from(flat.width()), f64::from(flat.height()));
    let small = resize(&flat, whole, (part(flat.width()), part(flat.height())))?;
    encode_jpeg(&small.into(), FINE_QUALITY)
}

/// The part (left, top, width, height) of a picture at a new size, by Catmull-Rom with as wide a
/// reach as scaling down asks for: what Pillow calls bicubic.
pub(crate) fn resize(
    picture: &RgbImage,
    (left, top, width, height): (f64, f64, f64, f64),
    to: (u32, u32),
) -> Result<RgbImage, Refusal> {
    let failed = |e: &dyn std::fmt::Display| Refusal::Unreadable(format!("it could not be scaled: {e}"));
    // Typed: the calls that choose by the sort of pixel at run time compile all sorts, minutes of it.
    let (source_width, source_height) = picture.dimensions();
    let source = TypedImageRef::<U8x3>::from_buffer(source_width, source_height, picture.as_raw());
    let source = source.map_err(|e| failed(&e))?;
    let mut small = RgbImage::new(to.0, to.1);
    let mut target = TypedImage::<U8x3>::from_buffer(to.0, to.1, small.as_mut()).map_err(|e| failed(&e))?;
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(fast_image_resize::FilterType::CatmullRom))
        .crop(left, top, width, height);
    Resizer::new().resize_typed(&source, &mut target, &options).map_err(|e| failed(&e))?;
    drop(target);
    Ok(small)
}

/// 8-bit RGB on white, whatever it was.
pub(crate) fn flat_rgb(image: DynamicImage) -> RgbImage {
    flatten(image).into_rgb8()
}

/// The colour of one stored pixel on white paper.
pub(crate) fn pixel_on_white(image: &DynamicImage, x: u32, y: u32) -> [u8; 3] {
    let [r, g, b, a] = image.get_pixel(x, y).0;
    let flat = on_white(vec![r, g, b, a], 3);
    [flat[0], flat[1], flat[2]]
}

/// 8 bits a channel and no alpha: paper is white, so what is transparent becomes white.
fn flatten(image: DynamicImage) -> DynamicImage {
    let (width, height) = (image.width(), image.height());
    let color = image.color();
    let flat = match (color.has_color(), color.has_alpha()) {
        (true, true) => {
            let raw = on_white(image.into_rgba8().into_raw(), 3);
            image::RgbImage::from_raw(width, height, raw).map(DynamicImage::from)
        }
        (false, true) => {
            let raw = on_white(image.into_luma_alpha8().into_raw(), 1);
            image::GrayImage::from_raw(width, height, raw).map(DynamicImage::from)
        }
        (true, false) => Some(image.into_rgb8().into()),
        (false, false) => Some(image.into_luma8().into()),
    };
    flat.expect("the pixels of a picture fill its width and height")
}

/// Blends pixels of `channels` and alpha on white, in place.
fn on_white(mut raw: Vec<u8>, channels: usize) -> Vec<u8> {
    let pixels = raw.len() / (channels + 1);
    for pixel in 0..pixels {
        let from = pixel * (channels + 1);
        let alpha = u32::from(raw[from + channels]);
        for channel in 0..channels {
            let value = u32::from(raw[from + channel]);
            raw[pixel * channels + channel] = ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        }
    }
    raw.truncate(pixels * channels);
    raw
}

/// A header for tests of what is done with pictures.
#[cfg(test)]
pub(crate) fn tests_header(stored: (u32, u32), orientation: Orientation) -> Header {
    Header { format: ImageFormat::Png, stored, orientation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_is_blended_on_white() {
        assert_eq!(
            on_white(vec![10, 20, 30, 255, 10, 20, 30, 0, 0, 0, 0, 128], 3),
            [10, 20, 30, 255, 255, 255, 127, 127, 127]
        );
        assert_eq!(on_white(vec![7, 255, 7, 0], 1), [7, 255]);
    }

    #[test]
    fn bytes_that_are_no_picture_are_told_apart_from_pictures_we_do_not_take() {
        let code = |bytes: &[u8]| header(bytes).unwrap_err().code();
        assert_eq!(code(b""), "image_unreadable");
        assert_eq!(code(b"hello"), "image_unreadable");
        assert_eq!(code(b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<svg xmlns=\"x\"/>"), "unsupported_image");
        assert_eq!(code(b"\0\0\0\x20ftypavif\0\0\0\0"), "unsupported_image");
        assert_eq!(code(b"\0\0\0\x20ftypheic\0\0\0\0"), "unsupported_image");
        assert_eq!(code(b"%PDF-1.7"), "unsupported_image");
    }

    #[test]
    fn a_profile_for_other_colours_is_not_kept() {
        let mut icc = vec![0; 128];
        icc[3] = 128;
        icc[16..20].copy_from_slice(b"RGB ");
        icc[36..40].copy_from_slice(b"acsp");
        assert!(icc_fits(&icc, &Colors::Rgb));
        assert!(!icc_fits(&icc, &Colors::Grey));
        assert!(!icc_fits(&icc[..100], &Colors::Rgb));
    }
}
