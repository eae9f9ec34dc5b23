//! Loading pictures of every format, against what Pillow makes of the same bytes.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{exif_with_orientation, grey_tiff, load_bytes, png};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use opabinia_image::{
    ImageError, ImageLimits, ImageSource, PictureFormat, RgbImage, load, load_with_info,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn load_fixture(name: &str) -> RgbImage {
    load(&ImageSource::File(fixture(name)), &ImageLimits::default()).unwrap()
}

/// `(file, counts)`: how far a sample may be from Pillow's. Lossless formats are exact; lossy
/// decoders round differently, and halve chroma with other filters.
const FIXTURES: [(&str, u8); 19] = [
    ("palette.png", 0),
    ("one_bit.png", 0),
    ("rgba.png", 0),
    ("grey_alpha.png", 0),
    ("palette.gif", 0),
    ("animated.gif", 0),
    ("palette.bmp", 0),
    ("rgb.tif", 0),
    ("one_bit.tif", 0),
    ("cmyk.tif", 1),
    ("rgba.webp", 0),
    ("animated.webp", 0),
    ("lossy.webp", 2),
    ("grey.jpg", 2),
    ("rgb420.jpg", 4),
    ("progressive.jpg", 4),
    ("cmyk.jpg", 2),
    ("ycck.jpg", 4),
    ("cmyk_without_adobe.jpg", 2),
];

#[test]
fn every_format_looks_as_pillow_sees_it() {
    for (name, counts) in FIXTURES {
        let found = load_fixture(name);
        let expected = load_fixture(&format!("{name}.expected.png"));
        assert_eq!(found.size(), expected.size(), "{name}");
        let differences = found
            .data()
            .iter()
            .zip(expected.data())
            .map(|(a, b)| a.abs_diff(*b));
        let largest = differences.max().unwrap();
        assert!(
            largest <= counts,
            "{name}: off by {largest}, allowed {counts}"
        );
    }
}

#[test]
fn sixteen_bits_become_their_high_byte() {
    // Native byte order is what the encoder takes.
    let bytes = |samples: &[u16]| -> Vec<u8> {
        samples
            .iter()
            .flat_map(|sample| sample.to_ne_bytes())
            .collect()
    };
    let samples = [0x12ff, 0x34ff, 0x56ff, 0x0080];
    let load = |kind, count: usize| load_bytes(&png(1, 1, kind, &bytes(&samples[..count])));
    let pixel = |kind, count| load(kind, count).unwrap().0.pixel(0, 0).unwrap();
    assert_eq!(pixel(ExtendedColorType::Rgb16, 3), [0x12, 0x34, 0x56]);
    assert_eq!(pixel(ExtendedColorType::Rgba16, 4), [0x12, 0x34, 0x56]);
    assert_eq!(pixel(ExtendedColorType::L16, 1), [0x12; 3]);
    assert_eq!(pixel(ExtendedColorType::La16, 2), [0x12; 3]);
    let (_, info) = load(ExtendedColorType::Rgba16, 4).unwrap();
    assert_eq!((info.bit_depth, info.had_alpha), (16, true));
}

#[test]
fn alpha_is_dropped_and_reported() {
    let (picture, info) =
        load_bytes(&png(1, 1, ExtendedColorType::Rgba8, &[200, 100, 50, 0])).unwrap();
    assert_eq!(picture.pixel(0, 0), Some([200, 100, 50]));
    assert!(info.had_alpha);
    let (_, info) = load_bytes(&png(1, 1, ExtendedColorType::Rgba8, &[1, 2, 3, 255])).unwrap();
    assert!(!info.had_alpha);
}

#[test]
fn the_info_tells_what_was_found() {
    let (_, info) = load_with_info(
        &ImageSource::File(fixture("palette.png")),
        &ImageLimits::default(),
    )
    .unwrap();
    assert_eq!(info.format, PictureFormat::Png);
    assert_eq!(
        (info.stored_width, info.stored_height, info.bit_depth),
        (20, 12, 4)
    );
    assert!(info.had_alpha);
    let text = info.to_string();
    assert!(text.ends_with("PNG, 20 × 12 pixels, 4 bits per sample, 181 bytes, alpha dropped"));
}

/// Greys of a picture of 3 × 2 cells (1 2 3 / 4 5 6, times 40), as people should see it.
fn upright(orientation: u8) -> (usize, Vec<u8>) {
    let (columns, cells) = match orientation {
        1 => (3, [1, 2, 3, 4, 5, 6]),
        2 => (3, [3, 2, 1, 6, 5, 4]),
        3 => (3, [6, 5, 4, 3, 2, 1]),
        4 => (3, [4, 5, 6, 1, 2, 3]),
        5 => (2, [1, 4, 2, 5, 3, 6]),
        6 => (2, [4, 1, 5, 2, 6, 3]),
        7 => (2, [6, 3, 5, 2, 4, 1]),
        _ => (2, [3, 6, 2, 5, 1, 4]),
    };
    (columns, cells.map(|cell| cell * 40).to_vec())
}

/// The stored picture, each cell `cell × cell` pixels of grey.
fn stored(cell: usize) -> Vec<u8> {
    let value = |x: usize, y: usize| (y / cell * 3 + x / cell + 1) as u8 * 40;
    (0..2 * cell)
        .flat_map(|y| (0..3 * cell).map(move |x| value(x, y)))
        .collect()
}

fn check_orientation(bytes: &[u8], orientation: u8, cell: usize) {
    let (picture, info) = load_bytes(bytes).unwrap();
    let (columns, expected) = upright(orientation);
    let rows = 6 / columns;
    assert_eq!(
        picture.size(),
        ((columns * cell) as u32, (rows * cell) as u32)
    );
    for (index, grey) in expected.into_iter().enumerate() {
        let (x, y) = (
            index % columns * cell + cell / 2,
            index / columns * cell + cell / 2,
        );
        let found = picture.pixel(x as u32, y as u32).unwrap()[0];
        assert!(
            found.abs_diff(grey) <= 2,
            "{orientation}: {found} at ({x}, {y}), want {grey}"
        );
    }
    assert_eq!(info.turn.exif(), orientation);
    assert_eq!(
        (info.stored_width, info.stored_height),
        (3 * cell as u32, 2 * cell as u32)
    );
}

#[test]
fn all_eight_orientations_are_turned_upright() {
    for orientation in 1..=8 {
        let exif = exif_with_orientation(orientation);

        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 100);
        encoder.set_exif_metadata(exif.clone()).unwrap();
        encoder
            .write_image(&stored(8), 24, 16, ExtendedColorType::L8)
            .unwrap();
        check_orientation(&bytes, orientation, 8);

        let mut bytes = Vec::new();
        let mut encoder = PngEncoder::new(&mut bytes);
        encoder.set_exif_metadata(exif.clone()).unwrap();
        encoder
            .write_image(&stored(1), 3, 2, ExtendedColorType::L8)
            .unwrap();
        check_orientation(&bytes, orientation, 1);

        // With the prefix that belongs to JPEG alone, as some writers have it.
        let mut bytes = Vec::new();
        let mut encoder = WebPEncoder::new_lossless(&mut bytes);
        encoder
            .set_exif_metadata([b"Exif\0\0".as_slice(), &exif].concat())
            .unwrap();
        encoder
            .write_image(&stored(1), 3, 2, ExtendedColorType::L8)
            .unwrap();
        check_orientation(&bytes, orientation, 1);

        check_orientation(&grey_tiff(3, 2, orientation, &stored(1)), orientation, 1);
    }
}

#[test]
fn a_broken_orientation_means_upright() {
    let mut bytes = Vec::new();
    let mut encoder = PngEncoder::new(&mut bytes);
    encoder
        .set_exif_metadata(exif_with_orientation(77))
        .unwrap();
    encoder
        .write_image(&stored(1), 3, 2, ExtendedColorType::L8)
        .unwrap();
    check_orientation(&bytes, 1, 1);
}

#[test]
fn a_lying_header_is_refused_before_decoding() {
    let mut bytes = png(1, 1, ExtendedColorType::Rgb8, &[1, 2, 3]);
    let ihdr = 12..29;
    bytes[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let checksum = common::crc32(&bytes[ihdr]);
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    assert!(bytes.len() < 100);
    let error = load_bytes(&bytes).unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::TooManyPixels {
                width: 60_000,
                height: 60_000,
                pixels: 3_600_000_000,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "cannot use image `test`: 60000 × 60000 = 3600000000 pixels, limit is 178956970; \
         pass `--max-image-pixels 3600000000` if you trust it"
    );
}

#[test]
fn limits_name_their_flags() {
    let source = ImageSource::File(fixture("rgb.tif"));
    let default = ImageLimits::default();
    let message = |limits: ImageLimits| load(&source, &limits).unwrap_err().to_string();
    assert!(
        message(ImageLimits {
            max_side: 19,
            ..default
        })
        .contains("--max-image-side")
    );
    assert!(
        message(ImageLimits {
            max_pixels: 239,
            ..default
        })
        .contains("--max-image-pixels 240")
    );
    assert!(
        message(ImageLimits {
            max_bytes: 800,
            ..default
        })
        .contains("--max-image-bytes")
    );
    let exact = ImageLimits {
        max_side: 20,
        max_pixels: 240,
        max_bytes: 872,
    };
    assert!(load(&source, &exact).is_ok());
}

#[test]
fn what_is_no_picture_is_described() {
    let message = |bytes: &[u8]| load_bytes(bytes).unwrap_err().to_string();
    assert!(message(b"<!DOCTYPE html>").contains("an HTML page"));
    assert!(message(b"\0\0\0\x1cftypavif").contains("AVIF is not supported"));
    assert!(matches!(load_bytes(b""), Err(ImageError::Empty { .. })));
}

#[test]
fn a_picture_without_area_is_an_error() {
    let mut bytes = std::fs::read(fixture("palette.gif")).unwrap();
    bytes[6..10].fill(0);
    assert!(matches!(
        load_bytes(&bytes),
        Err(ImageError::ZeroSized {
            width: 0,
            height: 0,
            ..
        })
    ));
    let mut bytes = std::fs::read(fixture("palette.bmp")).unwrap();
    bytes[18..26].fill(0);
    assert!(load_bytes(&bytes).is_err());
}

#[test]
fn floating_point_samples_are_refused() {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::Rgb32FImage::new(2, 2)
        .write_to(&mut bytes, image::ImageFormat::Tiff)
        .unwrap();
    let error = load_bytes(bytes.get_ref()).unwrap_err();
    assert!(
        matches!(error, ImageError::UnsupportedKind { .. }),
        "{error}"
    );
}

#[test]
fn a_picture_that_is_cut_off_is_refused() {
    // The first half of an animation holds its first frame.
    for (name, _) in FIXTURES
        .into_iter()
        .filter(|(name, _)| !name.starts_with("animated"))
    {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let error = load_bytes(&bytes[..bytes.len() / 2]).expect_err(name);
        let text = error.to_string();
        assert!(
            text.contains("cut off") || text.contains("damaged"),
            "{name}: {text}"
        );
    }
}

/// A decoder would fill the missing part with grey.
#[test]
fn a_jpeg_without_its_last_bytes_is_refused() {
    let bytes = std::fs::read(fixture("rgb420.jpg")).unwrap();
    for missing in [1, 2, 40] {
        let error = load_bytes(&bytes[..bytes.len() - missing]).unwrap_err();
        assert!(
            matches!(error, ImageError::Truncated { .. }),
            "{missing}: {error}"
        );
    }
}

#[test]
fn a_thread_of_pixels_is_a_picture() {
    let bytes = png(1, 20_000, ExtendedColorType::L8, &vec![7; 20_000]);
    assert_eq!(load_bytes(&bytes).unwrap().0.size(), (1, 20_000));
}
