//! Several files as one: a zip archive without compression, for pictures are packed already.
//!
//! *Source*: PKWARE APPNOTE 6.3, without zip64.

/// An archive of these files, in order; `None` when they are over its 4 GiB or 65,535 files.
/// Equal files give equal bytes: no time is written but the earliest there is.
pub(super) fn stored(files: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    /// 1980-01-01.
    const DATE: u16 = 1 << 5 | 1;
    let mut out = Vec::with_capacity(files.iter().map(|(name, bytes)| bytes.len() + 2 * name.len() + 76).sum());
    let mut directory = Vec::new();
    for (name, bytes) in files {
        let (length, offset) = (u32::try_from(bytes.len()).ok()?, u32::try_from(out.len()).ok()?);
        let name_length = u16::try_from(name.len()).ok()?;
        // Version 2.0, names in UTF-8, no compression, then time and date.
        let mut facts = Vec::with_capacity(26);
        for short in [20, 1 << 11, 0, 0, DATE] {
            facts.extend(u16::to_le_bytes(short));
        }
        for long in [crc32(bytes), length, length] {
            facts.extend(long.to_le_bytes());
        }
        facts.extend(name_length.to_le_bytes());
        facts.extend([0, 0]);
        out.extend(b"PK\x03\x04");
        out.extend(&facts);
        out.extend(name.as_bytes());
        out.extend(*bytes);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&facts);
        // No comment, first disk, no attributes.
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, length) = (u32::try_from(out.len()).ok()?, u32::try_from(directory.len()).ok()?);
    let count = u16::try_from(files.len()).ok()?;
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    out.extend(length.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    Some(out)
}

fn crc32(bytes: &[u8]) -> u32 {
    const fn table() -> [u32; 256] {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    }
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn an_archive_says_where_its_files_are() {
        let archive = stored(&[("page1.png", b"one"), ("page2.png", b"two!")]).unwrap();
        assert!(archive.starts_with(b"PK\x03\x04"));
        let end = archive.len() - 22;
        assert_eq!(&archive[end..end + 4], b"PK\x05\x06");
        assert_eq!(&archive[end + 8..end + 12], [2, 0, 2, 0]);
        let start = u32::from_le_bytes(archive[end + 16..end + 20].try_into().unwrap()) as usize;
        let length = u32::from_le_bytes(archive[end + 12..end + 16].try_into().unwrap()) as usize;
        assert_eq!((&archive[start..start + 4], start + length), (b"PK\x01\x02".as_slice(), end));
        // The second file's own header, as the directory says.
        let second = start + 46 + 9;
        let offset = u32::from_le_bytes(archive[second + 42..second + 46].try_into().unwrap()) as usize;
        assert_eq!(&archive[offset + 30..offset + 43], b"page2.pngtwo!");
    }
}
