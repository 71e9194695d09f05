//! Pictures made in code: cards that can be recognised in a rendered page, and files in
//! every format and condition.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

/// Nominal size of a card, in millimetres.
pub(crate) const CARD_MM: (f64, f64) = (63.0, 88.0);
/// Width of the coloured frame of a test card, in millimetres.
pub(crate) const FRAME_MM: f64 = 5.0;
/// Distance of the row of bits from the top of a card, and the size of a bit, in millimetres.
const BITS_Y_MM: f64 = 20.0;
const BIT_MM: f64 = 5.0;
/// The arrow: its tip, its base and half its width at the base, in millimetres.
const TIP_Y_MM: f64 = 35.0;
const BASE_Y_MM: f64 = 70.0;
const HALF_BASE_MM: f64 = 17.5;

const BLACK: Rgb<u8> = Rgb([0, 0, 0]);
const WHITE: Rgb<u8> = Rgb([255, 255, 255]);

/// The frame colour of card `n`: no two of 0–63 are alike, none is near white or black.
pub(crate) fn frame_color(n: u8) -> [u8; 3] {
    [60 + (n % 4) * 40, 60 + (n / 4 % 4) * 40, 60 + (n / 16 % 4) * 40]
}

/// Where bit `bit` of the number lies: its centre in millimetres from the top left.
pub(crate) fn bit_centre_mm(bit: u8) -> (f64, f64) {
    (CARD_MM.0 / 2.0 + (f64::from(bit) - 3.5) * (BIT_MM + 1.0), BITS_Y_MM)
}

/// Points inside the arrow, and points beside it that would be inside were it turned.
pub(crate) const ARROW_INSIDE_MM: [(f64, f64); 3] = [(31.5, 40.0), (20.5, 66.0), (42.5, 66.0)];
/// See [`ARROW_INSIDE_MM`].
pub(crate) const ARROW_OUTSIDE_MM: [(f64, f64); 2] = [(20.5, 40.0), (42.5, 40.0)];

/// Card `n`: a frame of its own colour, its number as 8 bits, an arrow upwards.
pub(crate) fn card(n: u8, px_per_mm: f64) -> RgbImage {
    let (width, height) = ((CARD_MM.0 * px_per_mm) as u32, (CARD_MM.1 * px_per_mm) as u32);
    RgbImage::from_fn(width, height, |x, y| {
        card_pixel(n, (f64::from(x) + 0.5) / px_per_mm, (f64::from(y) + 0.5) / px_per_mm)
    })
}

fn card_pixel(n: u8, x: f64, y: f64) -> Rgb<u8> {
    let inner = |v: f64, size: f64| v >= FRAME_MM && v < size - FRAME_MM;
    if !inner(x, CARD_MM.0) || !inner(y, CARD_MM.1) {
        return Rgb(frame_color(n));
    }
    let is_bit = |bit: u8| {
        let (cx, cy) = bit_centre_mm(bit);
        n >> bit & 1 == 1 && (x - cx).abs() < BIT_MM / 2.0 && (y - cy).abs() < BIT_MM / 2.0
    };
    let down = (y - TIP_Y_MM) / (BASE_Y_MM - TIP_Y_MM);
    let is_arrow = (0.0..1.0).contains(&down) && (x - CARD_MM.0 / 2.0).abs() < down * HALF_BASE_MM;
    if is_arrow || (0..8).any(is_bit) { BLACK } else { WHITE }
}

/// A picture in a format that the image library writes.
pub(crate) fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.write_to(&mut out, format).unwrap();
    out.into_inner()
}

/// Card `n` as PNG.
pub(crate) fn png_card(n: u8, px_per_mm: f64) -> Vec<u8> {
    encode(&card(n, px_per_mm).into(), ImageFormat::Png)
}

/// A baseline JPEG of quality 90, with a JFIF header and no other metadata.
pub(crate) fn jpeg(image: &DynamicImage) -> Vec<u8> {
    let mut out = Vec::new();
    image.write_with_encoder(JpegEncoder::new_with_quality(&mut out, 90)).unwrap();
    out
}

/// Card `n` as JPEG.
pub(crate) fn jpeg_card(n: u8, px_per_mm: f64) -> Vec<u8> {
    jpeg(&card(n, px_per_mm).into())
}

/// The same JPEG with a segment after its first two bytes.
pub(crate) fn with_segment(jpeg: &[u8], marker: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xff, marker], &length, body, &jpeg[2..]].concat()
}

/// What a GPS position looks like in our EXIF segments.
pub(crate) const GPS_TEXT: &[u8] = b"GPS 51.5007N 0.1246W";

/// An EXIF body (APP1) with an orientation, and a position behind it.
pub(crate) fn exif(orientation: u8) -> Vec<u8> {
    let mut body = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    body.extend([orientation, 0, 0, 0, 0, 0, 0]);
    body.extend(GPS_TEXT);
    body
}

/// A colour profile that is one by its header; `space` is `b"RGB "` or `b"GRAY"`.
pub(crate) fn icc(space: &[u8; 4]) -> Vec<u8> {
    let mut profile = vec![0; 132];
    profile[..4].copy_from_slice(&132_u32.to_be_bytes());
    profile[8] = 4;
    profile[12..16].copy_from_slice(b"mntr");
    profile[16..20].copy_from_slice(space);
    profile[20..24].copy_from_slice(b"XYZ ");
    profile[36..40].copy_from_slice(b"acsp");
    profile
}

/// The parts of a PNG file that tests vary.
pub(crate) struct PngParts<'a> {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) depth: u8,
    /// 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
    pub(crate) color: u8,
    pub(crate) interlaced: bool,
    /// Chunks between header and pixels.
    pub(crate) extra: &'a [(&'a [u8; 4], &'a [u8])],
}

/// A PNG file written by hand; `pixel` gives the bytes of each pixel.
pub(crate) fn png(parts: &PngParts<'_>, pixel: impl Fn(u32, u32) -> Vec<u8>) -> Vec<u8> {
    /// First column, first row, step right, step down of each pass of Adam7.
    const ADAM7: [(u32, u32, u32, u32); 7] =
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];
    let passes: &[(u32, u32, u32, u32)] = if parts.interlaced { &ADAM7 } else { &[(0, 0, 1, 1)] };
    let mut rows = Vec::new();
    for &(x0, y0, dx, dy) in passes {
        for y in (y0..parts.height).step_by(dy as usize) {
            rows.push(0);
            for x in (x0..parts.width).step_by(dx as usize) {
                rows.extend(pixel(x, y));
            }
        }
    }
    png_file(parts, &rows)
}

/// A PNG file around these rows, whether they fit its header or not.
pub(crate) fn png_file(parts: &PngParts<'_>, rows: &[u8]) -> Vec<u8> {
    let mut header = [parts.width.to_be_bytes(), parts.height.to_be_bytes()].concat();
    header.extend([parts.depth, parts.color, 0, 0, u8::from(parts.interlaced)]);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut out, b"IHDR", &header);
    for (kind, body) in parts.extra {
        chunk(&mut out, kind, body);
    }
    chunk(&mut out, b"IDAT", &zlib_stored(rows));
    chunk(&mut out, b"IEND", b"");
    out
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], body: &[u8]) {
    out.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    out.extend(kind);
    out.extend(body);
    let crc = crc32(&[kind.as_slice(), body].concat());
    out.extend(crc.to_be_bytes());
}

/// A zlib stream of stored blocks.
fn zlib_stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let last = bytes.chunks(0xffff).count().saturating_sub(1);
    for (i, block) in bytes.chunks(0xffff).enumerate() {
        let length = u16::try_from(block.len()).unwrap();
        out.push(u8::from(i == last));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
