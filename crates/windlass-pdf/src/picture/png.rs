//! Takes the coded pixels out of a PNG file: a PDF can hold them as they are.
//!
//! *Source*: W3C PNG, third edition; ISO 32000-1, 7.4.4.4 (predictor 15 = PNG filters).

use crate::writer::{Coding, Colors, StoredImage};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The picture with its own bytes, if it has 8 bits a channel, no alpha and no interlacing.
///
/// The file has been decoded before, so its checksums and sizes are known to be right.
pub(super) fn pass_through(bytes: &[u8]) -> Option<StoredImage> {
    let mut header = None;
    let mut palette = Vec::new();
    let mut data = Vec::new();
    let mut rest = bytes.strip_prefix(SIGNATURE)?;
    while let Some((kind, body, after)) = chunk(rest) {
        match kind {
            b"IHDR" => header = body.first_chunk::<13>(),
            b"PLTE" => palette = body.to_vec(),
            b"tRNS" => return None,
            b"IDAT" => data.extend_from_slice(body),
            b"IEND" => break,
            _ => {}
        }
        rest = after;
    }
    let [w3, w2, w1, w0, h3, h2, h1, h0, depth, color, _, _, interlace] = *header?;
    let colors = match (depth, color, interlace) {
        (8, 0, 0) => Colors::Grey,
        (8, 2, 0) => Colors::Rgb,
        (8, 3, 0) => Colors::Palette { rgb: whole_palette(palette) },
        _ => return None,
    };
    Some(StoredImage {
        width: u32::from_be_bytes([w3, w2, w1, w0]),
        height: u32::from_be_bytes([h3, h2, h1, h0]),
        colors,
        icc: None,
        coding: Coding::Png,
        data,
    })
}

/// Kind and contents of the first chunk, and what follows it.
fn chunk(bytes: &[u8]) -> Option<(&[u8; 4], &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first_chunk::<4>()?;
    let (body, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let (_crc, rest) = rest.split_first_chunk::<4>()?;
    Some((kind, body, rest))
}

/// All 256 entries: an index past the end of a palette is black for decoders, but for PDF
/// viewers it is the last entry.
fn whole_palette(mut rgb: Vec<u8>) -> Vec<u8> {
    rgb.resize(256 * 3, 0);
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wrong_byte_and_no_cut_upsets_the_parser() {
        let mut file = SIGNATURE.to_vec();
        for (kind, body) in
            [(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0][..]), (b"IDAT", &[1, 2]), (b"IEND", &[])]
        {
            file.extend((body.len() as u32).to_be_bytes());
            file.extend(kind);
            file.extend(body);
            file.extend([0; 4]);
        }
        assert_eq!(pass_through(&file).unwrap().data, [1, 2]);
        for at in 0..file.len() {
            let _ = pass_through(&file[..at]);
            for byte in 0..=255 {
                let mut damaged = file.clone();
                damaged[at] = byte;
                let _ = pass_through(&damaged);
            }
        }
    }
}
