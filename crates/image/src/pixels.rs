//! Prepared pictures: what a vision encoder takes.

use crate::error::PrepareError;
use crate::rgb::CHANNELS;

/// Normalised pictures of one size, `[batch, 3, height, width]`, planes of red, green, blue.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelBatch {
    data: Vec<f32>,
    batch: usize,
    height: usize,
    width: usize,
}

impl PixelBatch {
    /// Takes values laid out `[batch, 3, height, width]`.
    ///
    /// # Errors
    /// [`PrepareError::WrongBuffer`] if the number of values is not `batch · 3 · height · width`.
    pub fn from_raw(
        batch: usize,
        height: usize,
        width: usize,
        data: Vec<f32>,
    ) -> Result<Self, PrepareError> {
        let expected = [CHANNELS, height, width]
            .into_iter()
            .try_fold(batch, usize::checked_mul);
        if expected != Some(data.len()) {
            return Err(PrepareError::WrongBuffer {
                batch,
                height,
                width,
                found: data.len(),
            });
        }
        Ok(Self {
            data,
            batch,
            height,
            width,
        })
    }

    /// Puts batches of pictures of the same size behind each other.
    ///
    /// # Errors
    /// [`PrepareError::EmptyBatch`] for no batches, [`PrepareError::DifferentSizes`] if two differ
    /// in width or height.
    pub fn stack(batches: Vec<Self>) -> Result<Self, PrepareError> {
        let mut batches = batches.into_iter();
        let mut stacked = batches.next().ok_or(PrepareError::EmptyBatch)?;
        for next in batches {
            if (next.width, next.height) != (stacked.width, stacked.height) {
                return Err(PrepareError::DifferentSizes {
                    first_width: stacked.width,
                    first_height: stacked.height,
                    index: stacked.batch,
                    width: next.width,
                    height: next.height,
                });
            }
            stacked.batch += next.batch;
            stacked.data.extend_from_slice(&next.data);
        }
        Ok(stacked)
    }

    /// `[batch, 3, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        [self.batch, CHANNELS, self.height, self.width]
    }

    /// Number of pictures.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Rows of each picture.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns of each picture.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All values, in the order of [`shape`](Self::shape).
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Gives the values away, in the order of [`shape`](Self::shape).
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(width: usize, value: f32) -> PixelBatch {
        PixelBatch::from_raw(1, 2, width, vec![value; 6 * width]).unwrap()
    }

    #[test]
    fn stacking_keeps_the_order() {
        let stacked = PixelBatch::stack(vec![batch(1, 0.0), batch(1, 1.0)]).unwrap();
        assert_eq!(stacked.shape(), [2, 3, 2, 1]);
        assert_eq!(stacked.data()[5..7], [0.0, 1.0]);
    }

    #[test]
    fn stacking_refuses_what_does_not_fit() {
        assert_eq!(PixelBatch::stack(vec![]), Err(PrepareError::EmptyBatch));
        assert!(matches!(
            PixelBatch::stack(vec![batch(1, 0.0), batch(2, 0.0)]),
            Err(PrepareError::DifferentSizes {
                index: 1,
                width: 2,
                ..
            })
        ));
    }

    #[test]
    fn a_buffer_of_the_wrong_length_is_refused() {
        assert!(PixelBatch::from_raw(1, 2, 2, vec![0.0; 11]).is_err());
        assert!(PixelBatch::from_raw(usize::MAX, 2, 2, vec![]).is_err());
    }
}
