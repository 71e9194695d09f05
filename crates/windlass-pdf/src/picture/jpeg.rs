//! Walks through the segments of a JPEG file, and leaves out those that tell about its owner.
//!
//! *Source*: ITU-T T.81 Annex B (markers), ICC.1:2022 Annex B.4 (profiles in APP2).

use std::ops::Range;

use super::Refusal;

/// What a JPEG file consists of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Jpeg {
    /// Colour channels: 1, 3 or 4.
    pub(super) components: u8,
    /// It has Adobe's APP14, whose CMYK is inverted.
    pub(super) is_adobe: bool,
    /// The parts of the file that are needed to show it, in order.
    kept: Vec<Range<usize>>,
}

impl Jpeg {
    /// The file without comments, EXIF (which may say where it was taken), thumbnails and
    /// whatever follows the picture. Pixels are not touched; a file that has none of
    /// these comes back as it is.
    pub(super) fn without_metadata(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.kept.iter().map(ExactSizeIterator::len).sum());
        for range in &self.kept {
            out.extend_from_slice(&bytes[range.clone()]);
        }
        out
    }
}

/// Checks that a file is a whole JPEG of a kind that every PDF viewer shows.
///
/// # Errors
/// [`Refusal::Unreadable`] for a damaged or truncated file, [`Refusal::Unsupported`] for
/// arithmetic coding, lossless, hierarchical and 12-bit files.
pub(super) fn parse(bytes: &[u8]) -> Result<Jpeg, Refusal> {
    /// Length of the first marker, which the file is known to begin with.
    const SOI: usize = 2;
    let (mut components, mut is_adobe) = (None, false);
    let mut kept = Vec::new();
    keep(&mut kept, 0..SOI);
    let mut at = SOI;
    loop {
        let start = at;
        let (marker, after) = marker(bytes, at)?;
        if marker == 0xd9 {
            keep(&mut kept, start..after);
            break;
        }
        if marker == 0x01 || (0xd0..=0xd7).contains(&marker) {
            keep(&mut kept, start..after);
            at = after;
            continue;
        }
        let body = segment(bytes, after)?;
        at = body.end;
        match marker {
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                components = Some(frame(marker, &bytes[body])?);
            }
            0xee => is_adobe |= bytes[body].starts_with(b"Adobe"),
            0xcc => return Err(unsupported("arithmetic coding")),
            0xda => at = end_of_scan(bytes, at)?,
            _ => {}
        }
        if is_needed(marker, &bytes[after + 2..]) {
            keep(&mut kept, start..at);
        }
    }
    match components {
        Some(components) => Ok(Jpeg { components, is_adobe, kept }),
        None => Err(Refusal::Unreadable("a JPEG without a picture in it".into())),
    }
}

/// Adds a range, as part of the last one where they touch.
fn keep(kept: &mut Vec<Range<usize>>, range: Range<usize>) {
    match kept.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => kept.push(range),
    }
}

/// The marker at `at`, which may be preceded by fill bytes, and where it ends.
fn marker(bytes: &[u8], at: usize) -> Result<(u8, usize), Refusal> {
    let mut next = at;
    while bytes.get(next) == Some(&0xff) {
        next += 1;
    }
    match bytes.get(next) {
        None => Err(truncated()),
        Some(marker) if next > at && *marker != 0 => Ok((*marker, next + 1)),
        Some(_) => Err(Refusal::Unreadable(format!("a damaged JPEG: no marker at byte {at}"))),
    }
}

/// The contents of the segment whose length stands at `at`.
fn segment(bytes: &[u8], at: usize) -> Result<Range<usize>, Refusal> {
    let length = bytes.get(at..at + 2).ok_or_else(truncated)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length < 2 {
        return Err(Refusal::Unreadable(format!("a damaged JPEG: no segment at byte {at}")));
    }
    if at + length > bytes.len() {
        return Err(truncated());
    }
    Ok(at + 2..at + length)
}

/// How many components a frame header names, if a PDF may hold such a frame.
fn frame(marker: u8, header: &[u8]) -> Result<u8, Refusal> {
    let [precision, h1, h0, w1, w0, components, ..] = header else { return Err(truncated()) };
    if [h1, h0] == [&0, &0] || [w1, w0] == [&0, &0] {
        return Err(Refusal::Unreadable("a JPEG whose header says it has no pixels".into()));
    }
    match marker {
        0xc0..=0xc2 => {}
        0xc9..=0xcf => return Err(unsupported("arithmetic coding")),
        0xc3 => return Err(unsupported("lossless coding")),
        _ => return Err(unsupported("hierarchical coding")),
    }
    if *precision != 8 {
        return Err(unsupported(&format!("{precision} bits a channel")));
    }
    match components {
        1 | 3 | 4 => Ok(*components),
        n => Err(unsupported(&format!("{n} channels"))),
    }
}

/// Where the coded pixels from `at` end: at the next marker that is not part of them.
fn end_of_scan(bytes: &[u8], mut at: usize) -> Result<usize, Refusal> {
    loop {
        match bytes.get(at..) {
            Some([0xff, 0x00 | 0xd0..=0xd7, ..]) => at += 2,
            Some([0xff, 0xff, ..]) => at += 1,
            Some([0xff, _, ..]) => return Ok(at),
            Some([_, ..]) => at += 1,
            Some([]) | None => return Err(truncated()),
        }
    }
}

/// True for what a viewer needs: coding tables and pixels, JFIF (APP0), a colour profile
/// (APP2) and Adobe's colour transform (APP14). Comments and all other APPn may carry
/// anything, including the place a picture was taken at.
fn is_needed(marker: u8, body: &[u8]) -> bool {
    match marker {
        0xe0 | 0xee => true,
        0xe2 => body.starts_with(b"ICC_PROFILE\0"),
        0xe1..=0xef | 0xfe => false,
        _ => true,
    }
}

fn truncated() -> Refusal {
    Refusal::Unreadable("a JPEG that ends before its picture does".into())
}

fn unsupported(what: &str) -> Refusal {
    Refusal::Unsupported(format!("a JPEG with {what}; taken are baseline and progressive, 8 bits a channel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A JPEG skeleton with these segments before its frame.
    fn skeleton(segments: &[(u8, &[u8])], sof: u8, frame: &[u8]) -> Vec<u8> {
        let mut out = vec![0xff, 0xd8];
        let scan: (u8, &[u8]) = (0xda, &[1, 1, 0, 0, 63, 0]);
        for (marker, body) in segments.iter().copied().chain([(sof, frame), scan]) {
            out.extend([0xff, marker]);
            out.extend((body.len() as u16 + 2).to_be_bytes());
            out.extend(body);
        }
        out.extend([1, 2, 0xff, 0x00, 3, 0xff, 0xd0, 4, 0xff, 0xd9]);
        out
    }

    const GREY: &[u8] = &[8, 0, 1, 0, 1, 1, 1, 0x11, 0];

    #[test]
    fn a_file_without_metadata_comes_back_as_it_is() {
        let file = skeleton(&[(0xe0, b"JFIF\0"), (0xdb, &[0; 65])], 0xc0, GREY);
        let jpeg = parse(&file).unwrap();
        assert_eq!(jpeg.without_metadata(&file), file);
        assert_eq!(jpeg.components, 1);
    }

    #[test]
    fn metadata_and_trailing_bytes_are_dropped_and_colour_is_kept() {
        let keep: [(u8, &[u8]); 2] = [(0xe2, b"ICC_PROFILE\0xx"), (0xee, b"Adobe")];
        let drop: [(u8, &[u8]); 4] = [(0xe1, b"Exif\0\0GPS"), (0xed, b"Photoshop"), (0xfe, b"me"), (0xe2, b"MPF\0")];
        let mut file = skeleton(&[drop[0], keep[0], drop[1], drop[2], keep[1], drop[3]], 0xc2, GREY);
        file.extend(b"more");
        assert_eq!(parse(&file).unwrap().without_metadata(&file), skeleton(&keep, 0xc2, GREY));
    }

    #[test]
    fn every_cut_is_noticed() {
        let file = skeleton(&[(0xe0, b"JFIF\0")], 0xc0, GREY);
        for end in 2..file.len() {
            assert!(matches!(parse(&file[..end]), Err(Refusal::Unreadable(_))), "cut at {end}");
        }
    }

    #[test]
    fn no_wrong_byte_upsets_the_parser() {
        let file = skeleton(&[(0xe2, b"ICC_PROFILE\0x"), (0xfe, b"me")], 0xc0, GREY);
        for at in 0..file.len() {
            for byte in 0..=255 {
                let mut damaged = file.clone();
                damaged[at] = byte;
                if let Ok(jpeg) = parse(&damaged) {
                    assert!(jpeg.without_metadata(&damaged).len() <= damaged.len());
                }
            }
        }
    }

    #[test]
    fn frames_that_viewers_do_not_show_are_refused() {
        for (sof, frame) in [
            (0xc3, GREY),
            (0xc9, GREY),
            (0xc5, GREY),
            (0xc1, &[12, 0, 1, 0, 1, 1, 1, 0x11, 0]),
            (0xc0, &[8, 0, 1, 0, 1, 2, 1, 0x11, 0]),
        ] {
            assert!(matches!(parse(&skeleton(&[], sof, frame)), Err(Refusal::Unsupported(_))), "{sof:x}");
        }
        let no_rows = skeleton(&[], 0xc0, &[8, 0, 0, 0, 1, 1, 1, 0x11, 0]);
        assert!(matches!(parse(&no_rows), Err(Refusal::Unreadable(_))));
    }
}
