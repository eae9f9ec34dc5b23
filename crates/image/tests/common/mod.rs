//! Small encoded pictures for tests.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use opabinia_image::{ImageError, ImageLimits, ImageSource, LoadInfo, RgbImage, load_with_info};

pub fn load_bytes(bytes: &[u8]) -> Result<(RgbImage, LoadInfo), ImageError> {
    let source = ImageSource::Bytes {
        bytes: bytes.to_vec(),
        name: "test".to_owned(),
    };
    load_with_info(&source, &ImageLimits::default())
}

pub fn png(width: u32, height: u32, kind: ExtendedColorType, samples: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(samples, width, height, kind)
        .unwrap();
    bytes
}

/// One entry of a TIFF directory (little-endian): tag, type 3 (16 bits) or 4 (32 bits), one value.
fn entry(tag: u16, kind: u16, value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(tag.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes
}

fn tiff(entries: &[Vec<u8>], data: &[u8]) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((entries.len() as u16).to_le_bytes());
    bytes.extend(entries.concat());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(data);
    bytes
}

/// EXIF metadata (a TIFF without pixels) that says only how the picture lies.
pub fn exif_with_orientation(orientation: u8) -> Vec<u8> {
    tiff(&[entry(0x112, 3, orientation.into())], &[])
}

/// An uncompressed grey TIFF.
pub fn grey_tiff(width: u32, height: u32, orientation: u8, samples: &[u8]) -> Vec<u8> {
    const ENTRIES: u32 = 9;
    let entries = [
        entry(256, 4, width),
        entry(257, 4, height),
        entry(258, 3, 8),
        entry(259, 3, 1),
        entry(262, 3, 1),
        entry(273, 4, 8 + 2 + 12 * ENTRIES + 4),
        entry(274, 3, orientation.into()),
        entry(278, 4, height),
        entry(279, 4, samples.len() as u32),
    ];
    tiff(&entries, samples)
}

/// The checksum of a PNG chunk (ISO 3309), one bit at a time.
pub fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| {
        if crc & 1 == 1 {
            (crc >> 1) ^ 0xedb8_8320
        } else {
            crc >> 1
        }
    };
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| step(c))
    })
}
