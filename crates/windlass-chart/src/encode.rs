//! Files from pixels: PNG, indexed and small or RGB and quick, JPEG, WebP.
//!
//! Never writes a time or another changing value: equal pixels give equal bytes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use png::{BitDepth, ColorType, Compression, Encoder, Filter};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::args::{ChartArgs, Format};
use crate::raster::Pixels;

/// What to spend on a small file. Default `balanced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// RGB with the fastest sensible compression: every pixel exact, about three times
    /// the bytes in a sixth of the time (1200 × 800, 2026-11-20).
    Fast,
    /// An indexed image of the 256 commonest colours, well compressed. Pixels of rarer
    /// colours (smoothed edges) take the nearest one; up to 256 colours it is exact.
    #[default]
    Balanced,
}

/// Colours of an indexed PNG (PNG specification, 11.2.2 PLTE).
const PALETTE_COLORS: usize = 256;

/// The quality of JPEG and lossy WebP when nobody says: no blur is seen at 100 %.
pub const DEFAULT_QUALITY: u8 = 85;

/// `pixels` as a file in the format that `args` ask for; SVG is no matter of pixels.
///
/// # Errors
/// [`Error::Encode`] when the encoder refuses, which no image of [`crate::raster::draw`] causes.
pub fn file(pixels: &Pixels, args: &ChartArgs) -> Result<Vec<u8>, Error> {
    let quality = args.quality.unwrap_or(DEFAULT_QUALITY);
    match args.format {
        Format::Png | Format::Svg => png(pixels, args.effort.unwrap_or_default()),
        Format::Jpeg => jpeg(pixels, quality),
        Format::Webp if args.lossy => webp_lossy(pixels, quality),
        Format::Webp => webp(pixels),
    }
}

/// `pixels` as a PNG file.
///
/// # Errors
/// As [`file()`].
pub fn png(pixels: &Pixels, effort: Effort) -> Result<Vec<u8>, Error> {
    match effort {
        Effort::Fast => rgb(pixels),
        Effort::Balanced => indexed(pixels),
    }
}

/// `pixels` as a JPEG file of `quality` 1–100, with one colour sample a pixel: with one in four,
/// as usual, green and red wicks turn grey.
///
/// # Errors
/// As [`file()`].
pub fn jpeg(pixels: &Pixels, quality: u8) -> Result<Vec<u8>, Error> {
    let mut file = Vec::with_capacity(pixels.rgba().len() / 16);
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_1_1);
    let side = |px: u32| u16::try_from(px).map_err(Error::encode);
    let (width, height) = (side(pixels.width_px())?, side(pixels.height_px())?);
    with_rgb(pixels, |data| encoder.encode(data, width, height, jpeg_encoder::ColorType::Rgb))
        .map_err(Error::encode)?;
    Ok(file)
}

/// `pixels` as a lossless WebP file.
///
/// # Errors
/// As [`file()`].
pub fn webp(pixels: &Pixels) -> Result<Vec<u8>, Error> {
    let mut file = Vec::with_capacity(pixels.rgba().len() / 16);
    let encoder = image_webp::WebPEncoder::new(&mut file);
    let (width, height) = (pixels.width_px(), pixels.height_px());
    with_rgb(pixels, |data| encoder.encode(data, width, height, image_webp::ColorType::Rgb8)).map_err(Error::encode)?;
    Ok(file)
}

/// `pixels` as a lossy WebP file of `quality` 1–100.
///
/// # Errors
/// As [`file()`].
pub fn webp_lossy(pixels: &Pixels, quality: u8) -> Result<Vec<u8>, Error> {
    let rgba = pixels.rgba();
    let side = |px: u32| i32::try_from(px).map_err(Error::encode);
    let (width, height) = (side(pixels.width_px())?, side(pixels.height_px())?);
    let mut out = std::ptr::null_mut();
    // SAFETY: `rgba` has width × height pixels of four bytes, row by row; libwebp only reads
    // it. It leaves `out` null, or pointing at as many bytes as it answers, ours to free.
    let file = unsafe {
        let bytes =
            libwebp_sys::WebPEncodeRGBA(rgba.as_ptr(), width, height, width * 4, f32::from(quality), &raw mut out);
        let file = if out.is_null() { Vec::new() } else { std::slice::from_raw_parts(out, bytes).to_vec() };
        libwebp_sys::WebPFree(out.cast());
        file
    };
    if file.is_empty() { Err(Error::encode("libwebp gave no image")) } else { Ok(file) }
}

thread_local! {
    /// The last image without its opacity, whose memory the next one takes.
    static RGB: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Larger buffers are given back to the system: 12 MiB, four times an image of 1200 × 800.
const MAX_SPARE_BYTES: usize = 12 << 20;

/// Hands three bytes a pixel to `encode`.
fn with_rgb<T>(pixels: &Pixels, encode: impl FnOnce(&[u8]) -> T) -> T {
    let rgba = pixels.rgba();
    RGB.with_borrow_mut(|data| {
        data.resize(rgba.len() / 4 * 3, 0);
        for (to, from) in data.chunks_exact_mut(3).zip(rgba.chunks_exact(4)) {
            to.copy_from_slice(&from[..3]);
        }
        let encoded = encode(data);
        if data.capacity() > MAX_SPARE_BYTES {
            *data = Vec::new();
        }
        encoded
    })
}

fn rgb(pixels: &Pixels) -> Result<Vec<u8>, Error> {
    with_rgb(pixels, |data| {
        write(pixels, data, |encoder| {
            encoder.set_color(ColorType::Rgb);
            encoder.set_compression(Compression::Fast);
        })
    })
}

fn indexed(pixels: &Pixels) -> Result<Vec<u8>, Error> {
    let (palette, data) = quantised(pixels.rgba());
    write(pixels, &data, |encoder| {
        encoder.set_color(ColorType::Indexed);
        encoder.set_palette(palette);
        encoder.set_compression(Compression::Balanced);
        encoder.set_filter(Filter::NoFilter);
    })
}

fn write(
    pixels: &Pixels,
    data: &[u8],
    set: impl FnOnce(&mut Encoder<'static, &mut Vec<u8>>),
) -> Result<Vec<u8>, Error> {
    let mut file = Vec::with_capacity(data.len() / 16);
    let mut encoder = Encoder::new(&mut file, pixels.width_px(), pixels.height_px());
    encoder.set_depth(BitDepth::Eight);
    set(&mut encoder);
    let mut writer = encoder.write_header().map_err(Error::encode)?;
    writer.write_image_data(data).map_err(Error::encode)?;
    writer.finish().map_err(Error::encode)?;
    Ok(file)
}

/// A colour as one number: 0x00RRGGBB.
type Packed = u32;

fn packed(pixel: &[u8]) -> Packed {
    u32::from_be_bytes([0, pixel[0], pixel[1], pixel[2]])
}

/// The palette (red, green, blue each) and one index a pixel.
fn quantised(rgba: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let counted = colors_by_count(rgba);
    let kept = &counted[..counted.len().min(PALETTE_COLORS)];
    let mut index_of: HashMap<Packed, u8, Quick> = HashMap::with_capacity_and_hasher(counted.len(), Quick::default());
    for (index, &color) in (0_u8..=255).zip(kept) {
        index_of.insert(color, index);
    }
    for &color in &counted[kept.len()..] {
        index_of.insert(color, nearest(kept, color));
    }
    let mut data = Vec::with_capacity(rgba.len() / 4);
    let (mut last, mut index) = (packed(rgba), index_of[&packed(rgba)]);
    for pixel in rgba.chunks_exact(4) {
        let color = packed(pixel);
        if color != last {
            (last, index) = (color, index_of[&color]);
        }
        data.push(index);
    }
    let palette = kept.iter().flat_map(|color| color.to_be_bytes().into_iter().skip(1));
    (palette.collect(), data)
}

/// Every colour of the image, the commonest first; equal counts by value, so that the
/// order never depends on a hash.
fn colors_by_count(rgba: &[u8]) -> Vec<Packed> {
    let mut counts: HashMap<Packed, u32, Quick> = HashMap::default();
    let (mut last, mut run) = (packed(rgba), 0);
    for pixel in rgba.chunks_exact(4) {
        let color = packed(pixel);
        if color != last {
            *counts.entry(last).or_default() += run;
            (last, run) = (color, 0);
        }
        run += 1;
    }
    *counts.entry(last).or_default() += run;
    let mut colors: Vec<(Packed, u32)> = counts.into_iter().collect();
    colors.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    colors.into_iter().map(|(color, _)| color).collect()
}

fn nearest(palette: &[Packed], color: Packed) -> u8 {
    let distance = |other: Packed| -> i32 {
        let pairs = color.to_be_bytes().into_iter().zip(other.to_be_bytes());
        pairs.map(|(a, b)| (i32::from(a) - i32::from(b)).pow(2)).sum()
    };
    let best = (0_u8..=255).zip(palette).min_by_key(|&(_, &other)| distance(other));
    best.map_or(0, |(index, _)| index)
}

/// A hash for colours only: one multiplication (Fibonacci hashing). Colours come from our
/// own drawing, so nobody can choose colliding ones.
#[derive(Default)]
struct ColorHasher(u64);

type Quick = BuildHasherDefault<ColorHasher>;

impl Hasher for ColorHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}
