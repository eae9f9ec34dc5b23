//! How visual tokens lie in the sequence: the padding cropped, an end-of-row token after each row.

use burn::prelude::*;
use opabinia_nn::{FeatureGrid, Grid, Region};

use crate::ConnectorError;

/// Pixels of a picture before any padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PictureSize {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

/// The visual tokens of one picture.
#[derive(Clone, Debug)]
pub struct VisualTokens {
    /// `[rows · (cols + 1), hidden]`, row-major; the last token of each row is the end-of-row token.
    pub tokens: Tensor<2>,
    /// Rows and columns that show the picture, end-of-row tokens not counted.
    pub grid: Grid,
}

impl VisualTokens {
    /// Number of tokens in the sequence.
    #[must_use]
    pub fn len(&self) -> usize {
        token_count(self.grid)
    }

    /// Whether there is no token at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Tokens that a picture of this many rows and columns takes in the sequence.
#[must_use]
pub fn token_count(grid: Grid) -> usize {
    grid.rows * (grid.cols + 1)
}

/// The cells of the visual grid that show a picture.
///
/// # Errors
/// If there is none.
pub fn visible_region(size: PictureSize, grid: Grid) -> Result<Region, ConnectorError> {
    let PictureSize { width, height } = size;
    let region = Region::of_picture(width, height, grid.rows);
    if region.grid().is_empty() {
        return Err(ConnectorError::TooElongated {
            width,
            height,
            side: grid.rows,
        });
    }
    Ok(region)
}

/// Crops every picture's tokens to what shows the picture and ends each row with `newline`.
pub(crate) fn lay_out(
    grid: &FeatureGrid,
    sizes: &[PictureSize],
    newline: &Tensor<1>,
) -> Result<Vec<VisualTokens>, ConnectorError> {
    let hidden = grid.width();
    let rows = grid.clone().into_rows(); // [b, S, S, hidden]
    let picture = |(i, &size): (usize, &PictureSize)| {
        let region = visible_region(size, grid.grid)?;
        let visible = region.grid();
        let tokens = rows.clone().slice([
            i..i + 1,
            region.rows.clone(),
            region.cols.clone(),
            0..hidden,
        ]);
        let ends = newline.clone().reshape([1, 1, 1, hidden]);
        let ends = ends.expand([1, visible.rows, 1, hidden]);
        let tokens = Tensor::cat(vec![tokens, ends], 2);
        let tokens = tokens.reshape([token_count(visible), hidden]);
        Ok(VisualTokens {
            tokens,
            grid: visible,
        })
    };
    sizes.iter().enumerate().map(picture).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_picture_loses_its_padding_and_gains_row_ends() {
        let device = Device::flex();
        let cells = Tensor::<1, Int>::arange(0..16, &device)
            .float()
            .reshape([1, 16, 1]);
        let grid = FeatureGrid::new(cells, Grid::square(4));
        let newline = Tensor::from_floats([-1.0], &device);
        let size = PictureSize {
            width: 200,
            height: 100,
        };
        let laid = lay_out(&grid, &[size], &newline).unwrap();
        assert_eq!(laid[0].grid, Grid { rows: 2, cols: 4 });
        let tokens = laid[0]
            .tokens
            .clone()
            .into_data()
            .try_to_vec::<f32>()
            .unwrap();
        assert_eq!(
            tokens,
            [4.0, 5.0, 6.0, 7.0, -1.0, 8.0, 9.0, 10.0, 11.0, -1.0]
        );
    }

    #[test]
    fn a_line_is_refused_with_its_size() {
        let device = Device::flex();
        let grid = FeatureGrid::new(Tensor::zeros([1, 16, 1], &device), Grid::square(4));
        let size = PictureSize {
            width: 1,
            height: 20_000,
        };
        let error = lay_out(&grid, &[size], &Tensor::zeros([1], &device)).unwrap_err();
        assert!(error.to_string().contains("1 × 20000"), "{error}");
    }
}
