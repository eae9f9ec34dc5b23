//! Resizing against Pillow: six filters, many sizes, by content hash.
//!
//! `fixtures/pillow_resize.txt` was written with Pillow from the same generated pictures; each
//! line holds the sizes, the filter and the SHA-256 of the resized picture.

#![allow(missing_docs, clippy::unwrap_used)]

use opabinia_image::{Filter, RgbImage, resize};

#[test]
fn resizing_equals_pillow_to_the_last_bit() {
    let lines = include_str!("fixtures/pillow_resize.txt").lines();
    let cases: Vec<&str> = lines.filter(|line| !line.starts_with('#')).collect();
    assert!(cases.len() >= 90, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let words: Vec<&str> = case.split(' ').collect();
        let size = |index: usize| words[index].parse::<u32>().unwrap();
        let picture = noise(size(0), size(1));
        let resized = resize(&picture, size(2), size(3), filter(words[4]));
        if resized.content_hash() != words[5] {
            wrong.push(case);
        }
    }
    assert!(
        wrong.is_empty(),
        "pictures that differ from Pillow's:\n{}",
        wrong.join("\n")
    );
}

/// The picture that Pillow was given: a linear congruential generator's upper bytes.
fn noise(width: u32, height: u32) -> RgbImage {
    let mut state = width * 1000 + height;
    let bytes = (0..width * height * 3).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    RgbImage::from_raw(width, height, bytes.collect()).unwrap()
}

fn filter(name: &str) -> Filter {
    serde_json::from_value(name.into()).unwrap()
}
