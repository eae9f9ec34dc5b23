//! Run-length encoding of masks, as COCO defines it: column by column, alternating lengths of
//! outside and inside, beginning with outside.

use serde::{Deserialize, Serialize};

/// A mask as runs; the uncompressed form of COCO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rle {
    /// Height and width.
    pub size: [u32; 2],
    /// Lengths of runs, outside first.
    pub counts: Vec<u32>,
}

/// A mask as runs in a string; the compressed form of COCO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressedRle {
    /// Height and width.
    pub size: [u32; 2],
    /// Lengths of runs, each in groups of five bits with a sign and a mark for "more", as printable
    /// ASCII from `0`; from the fourth on only the difference to the length two before.
    pub counts: String,
}

/// Runs that are not a mask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RleError {
    /// A character does not belong there.
    #[error("cannot read run lengths: byte {byte:#04x} at {at} is not between `0` and `o`")]
    Character {
        /// The byte.
        byte: u8,
        /// Where it is, from 0.
        at: usize,
    },
    /// The last length is cut off.
    #[error("cannot read run lengths: the text ends within a number")]
    CutOff,
    /// A length is negative or too large.
    #[error("cannot read run lengths: number {index} is {found}, wanted 0 to 4294967295")]
    Length {
        /// Which run, from 0.
        index: usize,
        /// Its length.
        found: i64,
    },
    /// The runs do not cover the picture.
    #[error("{found} pixels in runs do not make {height} × {width} pixels")]
    Total {
        /// Sum of all runs.
        found: u64,
        /// Height of the picture.
        height: u32,
        /// Width of the picture.
        width: u32,
    },
}

impl Rle {
    /// The pixels of a row-major mask that belong to `owner`.
    pub fn of(mask: &[u8], width: u32, height: u32, owner: u8) -> Self {
        let mut counts = Vec::new();
        let (mut inside, mut run) = (false, 0);
        for x in 0..width as usize {
            for row in mask.chunks(width as usize).take(height as usize) {
                if (row.get(x) == Some(&owner)) != inside {
                    counts.push(run);
                    inside = !inside;
                    run = 0;
                }
                run += 1;
            }
        }
        counts.push(run);
        Self {
            size: [height, width],
            counts,
        }
    }

    /// Which pixels are inside, row by row.
    ///
    /// # Errors
    /// [`RleError::Total`] if the runs are not as long as the picture.
    pub fn to_mask(&self) -> Result<Vec<bool>, RleError> {
        let [height, width] = self.size;
        let found: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        if found != u64::from(height) * u64::from(width) {
            return Err(RleError::Total {
                found,
                height,
                width,
            });
        }
        let (height, width) = (height as usize, width as usize);
        let mut mask = vec![false; width * height];
        let mut at = 0;
        for (index, count) in self.counts.iter().enumerate() {
            let end = at + *count as usize;
            if index % 2 == 1 {
                for pixel in at..end {
                    mask[pixel % height * width + pixel / height] = true;
                }
            }
            at = end;
        }
        Ok(mask)
    }

    /// The same in a string.
    pub fn compress(&self) -> CompressedRle {
        let mut text = String::new();
        for (index, count) in self.counts.iter().enumerate() {
            let before = if index > 2 { self.counts[index - 2] } else { 0 };
            push_number(&mut text, i64::from(*count) - i64::from(before));
        }
        CompressedRle {
            size: self.size,
            counts: text,
        }
    }
}

impl CompressedRle {
    /// The same as numbers.
    ///
    /// # Errors
    /// [`RleError`] if the text is not run lengths.
    pub fn expand(&self) -> Result<Rle, RleError> {
        let mut counts: Vec<u32> = Vec::new();
        let mut bytes = self.counts.bytes().enumerate();
        while let Some(difference) = next_number(&mut bytes)? {
            let index = counts.len();
            let before = if index > 2 { counts[index - 2] } else { 0 };
            let found = difference.saturating_add(i64::from(before));
            let count = u32::try_from(found).map_err(|_| RleError::Length { index, found })?;
            counts.push(count);
        }
        Ok(Rle {
            size: self.size,
            counts,
        })
    }
}

/// Bits of a group that belong to the number.
const BITS: u32 = 5;
/// Marks a group that is not the last of its number.
const MORE: i64 = 0x20;
/// The sign, in the last group.
const SIGN: i64 = 0x10;

fn push_number(text: &mut String, mut number: i64) {
    loop {
        let group = number & 0x1f;
        number >>= BITS;
        let rest = if group & SIGN == 0 { 0 } else { -1 };
        let more = if number == rest { 0 } else { MORE };
        text.push(char::from(b'0' + (group | more) as u8));
        if more == 0 {
            return;
        }
    }
}

/// Reads one number; `None` at the end of the text.
fn next_number(bytes: &mut impl Iterator<Item = (usize, u8)>) -> Result<Option<i64>, RleError> {
    let mut number: i64 = 0;
    let mut shift = 0;
    for (at, byte) in bytes.by_ref() {
        let group = match byte.checked_sub(b'0') {
            Some(group) if group < 64 && shift < 60 => i64::from(group),
            _ => return Err(RleError::Character { byte, at }),
        };
        number |= (group & 0x1f) << shift;
        shift += BITS;
        if group & MORE == 0 {
            let sign = if group & SIGN == 0 { 0 } else { -1 << shift };
            return Ok(Some(number | sign));
        }
    }
    if shift == 0 {
        Ok(None)
    } else {
        Err(RleError::CutOff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The mask `0 1 / 1 1` by columns is 0 1 1 1.
    #[test]
    fn runs_go_down_the_columns() {
        let rle = Rle::of(&[0, 7, 7, 7], 2, 2, 7);
        assert_eq!(rle.counts, [1, 3]);
        assert_eq!(rle.to_mask().unwrap(), [false, true, true, true]);
        assert_eq!(rle.compress().counts, "13");
    }

    /// 100 = 0b11_00100: groups 00100 with "more", then 00011.
    #[test]
    fn numbers_are_groups_of_five_bits() {
        let text = |number| {
            let mut text = String::new();
            push_number(&mut text, number);
            text
        };
        assert_eq!(text(0), "0");
        assert_eq!(text(15), "?");
        assert_eq!(text(16), "`0");
        assert_eq!(text(100), "T3");
        assert_eq!(text(-1), "O");
    }

    #[test]
    fn what_is_no_mask_is_refused() {
        let expand = |counts: &str| {
            let size = [2, 2];
            let counts = counts.to_owned();
            CompressedRle { size, counts }.expand()
        };
        assert_eq!(expand("1 "), Err(RleError::Character { byte: 32, at: 1 }));
        assert_eq!(expand("`"), Err(RleError::CutOff));
        assert_eq!(
            expand("O"),
            Err(RleError::Length {
                index: 0,
                found: -1
            })
        );
        let short = expand("11").unwrap().to_mask();
        assert!(matches!(short, Err(RleError::Total { found: 2, .. })));
    }

    proptest! {
        #[test]
        fn masks_survive(mask in proptest::collection::vec(0u8..2, 35)) {
            let rle = Rle::of(&mask, 7, 5, 1);
            let inside: Vec<bool> = mask.iter().map(|owner| *owner == 1).collect();
            prop_assert_eq!(rle.to_mask().unwrap(), inside);
            prop_assert_eq!(rle.compress().expand().unwrap(), rle);
        }

        #[test]
        fn any_text_is_read_or_refused(counts in "[ -~]{0,40}") {
            let size = [4, 4];
            if let Ok(rle) = (CompressedRle { size, counts }).expand() {
                let _ = rle.to_mask();
            }
        }
    }
}
