//! What some bytes are, judged by how they begin; file names are not believed.

use super::PictureFormat;

/// What the first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sniffed {
    /// A format that is read.
    Supported(PictureFormat),
    /// A picture format that is not read, by its name.
    Unsupported(&'static str),
    /// Nothing known.
    Unknown,
}

/// Formats with a fixed beginning.
const BEGINNINGS: [(&[u8], Sniffed); 19] = [
    (b"\x89PNG\r\n\x1a\n", Sniffed::Supported(PictureFormat::Png)),
    (b"\xff\xd8\xff", Sniffed::Supported(PictureFormat::Jpeg)),
    (b"GIF87a", Sniffed::Supported(PictureFormat::Gif)),
    (b"GIF89a", Sniffed::Supported(PictureFormat::Gif)),
    (b"II*\0", Sniffed::Supported(PictureFormat::Tiff)),
    (b"MM\0*", Sniffed::Supported(PictureFormat::Tiff)),
    (b"BM", Sniffed::Supported(PictureFormat::Bmp)),
    (b"II+\0", Sniffed::Supported(PictureFormat::Tiff)),
    (b"MM\0+", Sniffed::Supported(PictureFormat::Tiff)),
    (b"\0\0\0\x0cJXL \r\n\x87\n", Sniffed::Unsupported("JPEG XL")),
    (b"\xff\x0a", Sniffed::Unsupported("JPEG XL")),
    (
        b"\0\0\0\x0cjP  \r\n\x87\n",
        Sniffed::Unsupported("JPEG 2000"),
    ),
    (b"\0\0\x01\0", Sniffed::Unsupported("ICO")),
    (b"8BPS", Sniffed::Unsupported("Photoshop")),
    (b"qoif", Sniffed::Unsupported("QOI")),
    (b"DDS ", Sniffed::Unsupported("DDS")),
    (b"\x76\x2f\x31\x01", Sniffed::Unsupported("OpenEXR")),
    (b"#?RADIANCE", Sniffed::Unsupported("Radiance HDR")),
    (b"<svg", Sniffed::Unsupported("SVG")),
];

/// The format of `bytes`.
pub(super) fn sniff(bytes: &[u8]) -> Sniffed {
    let at = |offset: usize, magic: &[u8]| {
        bytes
            .get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    if at(0, b"RIFF") && at(8, b"WEBP") {
        return Sniffed::Supported(PictureFormat::WebP);
    }
    if at(4, b"ftypavif") || at(4, b"ftypavis") {
        return Sniffed::Unsupported("AVIF");
    }
    if at(4, b"ftyphei") || at(4, b"ftyphev") || at(4, b"ftypmif1") || at(4, b"ftypmsf1") {
        return Sniffed::Unsupported("HEIC");
    }
    if at(0, b"P") && matches!(bytes.get(1), Some(b'1'..=b'7')) && at(2, b"\n") {
        return Sniffed::Unsupported("PNM");
    }
    BEGINNINGS
        .into_iter()
        .find_map(|(magic, sniffed)| bytes.starts_with(magic).then_some(sniffed))
        .unwrap_or(Sniffed::Unknown)
}

/// Things that people hand in for pictures, by how they begin (compared in lower case).
const IMPOSTORS: [(&[u8], &str); 7] = [
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML document"),
    (b"%pdf", "a PDF document"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"version https://git-lfs", "a Git LFS pointer"),
    (b"\x1f\x8b", "gzip-compressed data"),
];

/// A few words on what `bytes` look like, for a message.
pub(super) fn describe_start(bytes: &[u8]) -> String {
    let start = bytes
        .get(..bytes.len().min(32))
        .unwrap_or_default()
        .to_ascii_lowercase();
    let trimmed = start.trim_ascii_start();
    if let Some((_, what)) = IMPOSTORS
        .iter()
        .find(|(magic, _)| trimmed.starts_with(magic))
    {
        return what.to_string();
    }
    let head = bytes.get(..bytes.len().min(16)).unwrap_or_default();
    let printable = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    if !head.is_empty() && head.iter().all(printable) {
        return format!("the text {:?}", String::from_utf8_lossy(head));
    }
    let hex: Vec<String> = head.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("the bytes {}", hex.join(" "))
}

/// Whether the segments of a JPEG file lead to its end marker (ISO/IEC 10918-1, annex B).
///
/// A file that was cut off decodes all the same, with grey where data is missing. Segments are
/// followed by their length, so that the end marker of an embedded thumbnail is not mistaken for
/// the picture's own.
pub(super) fn jpeg_has_end(bytes: &[u8]) -> bool {
    const START_OF_IMAGE: u8 = 0xd8;
    const END_OF_IMAGE: u8 = 0xd9;
    let mut rest = bytes;
    while let Some((marker, after)) = next_marker(rest) {
        rest = match marker {
            END_OF_IMAGE => return true,
            START_OF_IMAGE => after,
            _ => {
                // The length counts its own two bytes.
                let Some(&[high, low]) = after.get(..2) else {
                    return false;
                };
                let length = usize::from(u16::from_be_bytes([high, low]));
                after.get(length.max(2)..).unwrap_or_default()
            }
        };
    }
    false
}

/// The next marker and what follows it, past any entropy-coded data, where `ff` is followed by
/// `00` (a stuffed byte), `d0` to `d7` (restart) or `ff` (fill).
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let at = bytes
        .windows(2)
        .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0x01 | 0xd0..=0xd7 | 0xff))?;
    Some((*bytes.get(at + 1)?, bytes.get(at + 2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        assert_eq!(
            sniff(b"\xff\xd8\xff\xe0"),
            Sniffed::Supported(PictureFormat::Jpeg)
        );
        assert_eq!(
            sniff(b"RIFF\x10\0\0\0WEBPVP8 "),
            Sniffed::Supported(PictureFormat::WebP)
        );
        assert_eq!(sniff(b"RIFF\x10\0\0\0WAVEfmt "), Sniffed::Unknown);
        assert_eq!(sniff(b"\0\0\0\x1cftypavif"), Sniffed::Unsupported("AVIF"));
        assert_eq!(sniff(b"\0\0\0\x18ftypheic"), Sniffed::Unsupported("HEIC"));
        assert_eq!(sniff(b"P6\n1 1 255\n"), Sniffed::Unsupported("PNM"));
        assert_eq!(sniff(b"Pig"), Sniffed::Unknown);
    }

    #[test]
    fn impostors_are_described() {
        assert_eq!(describe_start(b"\n<!DOCTYPE html><html>"), "an HTML page");
        assert_eq!(describe_start(b"PK\x03\x04rest"), "a ZIP archive");
        assert_eq!(
            describe_start(b"hello\nworld"),
            "the text \"hello\\nworld\""
        );
        assert_eq!(describe_start(b"\x00\x01"), "the bytes 00 01");
    }

    #[test]
    fn a_jpeg_ends_with_its_own_end_marker() {
        // Start, an APP1 segment of 4 bytes that holds `ff d9`, start of scan, data, end.
        let whole = b"\xff\xd8\xff\xe1\x00\x04\xff\xd9\xff\xda\x00\x02ab\xff\x00c\xff\xd3\xff\xd9";
        assert!(jpeg_has_end(whole));
        assert!(!jpeg_has_end(&whole[..whole.len() - 1]));
        assert!(!jpeg_has_end(&whole[..10]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_sniffing_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = sniff(&bytes);
            let _ = describe_start(&bytes);
            let _ = jpeg_has_end(&bytes);
        }
    }
}
