//! Writes JPEG files of the sorts that the image library does not write: progressive, and
//! CMYK. Every block of 8×8 pixels has one value a channel, so the DC terms say it all.

/// The sorts of file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// One scan.
    Baseline = 0xc0,
    /// A scan of DC terms, then one of (empty) AC terms for each channel.
    Progressive = 0xc2,
}

/// A JPEG of `blocks` (across, down), whose channel values `at` gives for each block.
///
/// `adobe` is the transform of an Adobe segment; with it, four channels are CMYK with 255
/// for no ink.
pub(crate) fn flat_jpeg(
    frame: Frame,
    adobe: Option<u8>,
    blocks: (u16, u16),
    channels: usize,
    at: impl Fn(u16, u16) -> Vec<u8>,
) -> Vec<u8> {
    let mut out = vec![0xff, 0xd8];
    if let Some(transform) = adobe {
        segment(&mut out, 0xee, &[b"Adobe\0\x64\0\0\0\0".as_slice(), &[transform]].concat());
    }
    // A quantiser of 8 makes a DC term the value itself, less 128.
    segment(&mut out, 0xdb, &[&[0], [8; 64].as_slice()].concat());
    let mut header = vec![8];
    header.extend((blocks.1 * 8).to_be_bytes());
    header.extend((blocks.0 * 8).to_be_bytes());
    header.push(channels as u8);
    header.extend((1..=channels as u8).flat_map(|id| [id, 0x11, 0]));
    segment(&mut out, frame as u8, &header);
    // DC: categories 0–11 have the codes 0000–1011. AC: "end of block" is 0.
    segment(&mut out, 0xc4, &[&[0x00, 0, 0, 0, 12], [0; 12].as_slice(), &(0..12).collect::<Vec<u8>>()].concat());
    segment(&mut out, 0xc4, &[&[0x10, 1], [0; 15].as_slice(), &[0]].concat());

    let mut dc = Bits::default();
    let mut last = vec![0; channels];
    for (y, x) in (0..blocks.1).flat_map(|y| (0..blocks.0).map(move |x| (y, x))) {
        for (channel, value) in at(x, y).into_iter().enumerate() {
            let value = i32::from(value) - 128;
            dc.push_difference(value - last[channel]);
            last[channel] = value;
            if frame == Frame::Baseline {
                dc.push(0, 1);
            }
        }
    }
    let all: Vec<u8> = (1..=channels as u8).collect();
    let end = if frame == Frame::Baseline { 63 } else { 0 };
    scan(&mut out, &all, (0, end), dc);
    if frame == Frame::Progressive {
        for channel in all {
            let mut ac = Bits::default();
            (0..u32::from(blocks.0) * u32::from(blocks.1)).for_each(|_| ac.push(0, 1));
            scan(&mut out, &[channel], (1, 63), ac);
        }
    }
    out.extend([0xff, 0xd9]);
    out
}

fn segment(out: &mut Vec<u8>, marker: u8, body: &[u8]) {
    out.extend([0xff, marker]);
    out.extend(u16::try_from(body.len() + 2).unwrap().to_be_bytes());
    out.extend(body);
}

fn scan(out: &mut Vec<u8>, channels: &[u8], (start, end): (u8, u8), bits: Bits) {
    let mut header = vec![channels.len() as u8];
    header.extend(channels.iter().flat_map(|id| [*id, 0x00]));
    header.extend([start, end, 0]);
    segment(out, 0xda, &header);
    for byte in bits.finish() {
        out.push(byte);
        if byte == 0xff {
            out.push(0);
        }
    }
}

/// Bits, most significant first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        for i in (0..count).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            let bit = (value >> i & 1) as u8;
            *self.bytes.last_mut().unwrap() |= bit << (7 - self.used);
            self.used = (self.used + 1) % 8;
        }
    }

    /// A DC difference: its category, then that many bits.
    fn push_difference(&mut self, difference: i32) {
        let category = 32 - difference.unsigned_abs().leading_zeros();
        self.push(category, 4);
        let bits = if difference < 0 { difference + (1 << category) - 1 } else { difference };
        self.push(bits as u32, category);
    }

    fn finish(mut self) -> Vec<u8> {
        while self.used != 0 {
            self.push(1, 1);
        }
        self.bytes
    }
}
