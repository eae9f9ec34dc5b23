//! Damaged pictures of every format: an error or a picture, never a panic.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;

use opabinia_image::{ImageError, ImageLimits, ImageSource, load};
use proptest::prelude::*;

/// Small, so that a header that lies is refused rather than allotted.
const LIMITS: ImageLimits = ImageLimits {
    max_pixels: 1 << 20,
    max_side: 4096,
    max_bytes: 1 << 20,
};

const FILES: [&str; 14] = [
    "palette.png",
    "rgba.png",
    "one_bit.png",
    "rgb420.jpg",
    "progressive.jpg",
    "cmyk.jpg",
    "palette.gif",
    "animated.gif",
    "palette.bmp",
    "rgb.tif",
    "cmyk.tif",
    "one_bit.tif",
    "lossy.webp",
    "animated.webp",
];

fn read(name: &str) -> Vec<u8> {
    std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(name),
    )
    .unwrap()
}

/// Loads and makes sure that the answer is an orderly one.
fn load_damaged(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let source = ImageSource::Bytes {
        bytes,
        name: "damaged".to_owned(),
    };
    match load(&source, &LIMITS) {
        Ok(picture) => {
            prop_assert!(picture.width() > 0 && picture.height() > 0);
            prop_assert_eq!(
                picture.data().len(),
                picture.width() as usize * picture.height() as usize * 3
            );
        }
        Err(error) => {
            let unread = matches!(error, ImageError::Read { .. });
            prop_assert!(!unread && !error.to_string().is_empty(), "{error}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_bytes_never_panic(
        file in prop::sample::select(&FILES[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = read(file);
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        load_damaged(bytes)?;
    }

    /// Headers are short, and most of what can go wrong goes wrong there.
    #[test]
    fn changed_headers_never_panic(
        file in prop::sample::select(&FILES[..]),
        changes in prop::collection::vec((8..90_usize, any::<u8>()), 1..4),
    ) {
        let mut bytes = read(file);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        load_damaged(bytes)?;
    }

    #[test]
    fn cut_off_pictures_never_panic(
        file in prop::sample::select(&FILES[..]),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = read(file);
        bytes.truncate(cut.index(bytes.len()));
        load_damaged(bytes)?;
    }

    #[test]
    fn noise_behind_a_magic_number_never_panics(
        file in prop::sample::select(&FILES[..]),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = read(file);
        bytes.truncate(12);
        bytes.extend(noise);
        load_damaged(bytes)?;
    }
}
