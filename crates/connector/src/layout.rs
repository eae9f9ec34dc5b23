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
///
/// Returns the tokens of all pictures one after the other, `[n, hidden]`, and what is left of each
/// picture's grid. All of them are taken with one selection, whatever their number, so that the
/// way back scatters their gradients once.
pub(crate) fn lay_out(
    grid: FeatureGrid,
    sizes: &[PictureSize],
    newline: Tensor<1>,
) -> Result<(Tensor<2>, Vec<Grid>), ConnectorError> {
    let cells = grid.grid;
    let [b, n, hidden] = grid.features.dims();
    let device = grid.features.device();
    let row_end = b * n;
    let mut slots = Vec::new();
    let mut grids = Vec::with_capacity(sizes.len());
    for (picture, &size) in sizes.iter().enumerate() {
        let region = visible_region(size, cells)?;
        for row in region.rows.clone() {
            let first = picture * n + row * cells.cols;
            slots.extend(region.cols.clone().map(|col| first + col));
            slots.push(row_end);
        }
        grids.push(region.grid());
    }
    let table = Tensor::cat(
        vec![
            grid.features.reshape([b * n, hidden]),
            newline.reshape([1, hidden]),
        ],
        0,
    );
    Ok((table.select(0, indices(&slots, &device)), grids))
}

/// Row numbers as a tensor to select with.
pub(crate) fn indices(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = rows
        .iter()
        .map(|&row| i32::try_from(row).unwrap_or(i32::MAX))
        .collect();
    Tensor::from_data(rows.as_slice(), device)
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
        let (tokens, grids) = lay_out(grid, &[size], newline).unwrap();
        assert_eq!(grids, [Grid { rows: 2, cols: 4 }]);
        let tokens = tokens.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(
            tokens,
            [4.0, 5.0, 6.0, 7.0, -1.0, 8.0, 9.0, 10.0, 11.0, -1.0]
        );
    }

    #[test]
    fn pictures_follow_one_another() {
        let device = Device::flex();
        let cells = Tensor::<1, Int>::arange(0..8, &device).float();
        let grid = FeatureGrid::new(cells.reshape([2, 4, 1]), Grid::square(2));
        let newline = Tensor::from_floats([-1.0], &device);
        let tall = PictureSize {
            width: 1,
            height: 2,
        };
        let square = PictureSize {
            width: 9,
            height: 9,
        };
        let (tokens, grids) = lay_out(grid, &[square, tall], newline).unwrap();
        // Half of two columns is one, and the padding of half a column is cut to none.
        assert_eq!(grids, [Grid::square(2), Grid::square(2)]);
        let tokens = tokens.into_data().try_to_vec::<f32>().unwrap();
        let expected = [
            [0.0, 1.0, -1.0, 2.0, 3.0, -1.0],
            [4.0, 5.0, -1.0, 6.0, 7.0, -1.0],
        ];
        assert_eq!(tokens, expected.concat());
    }

    #[test]
    fn a_line_is_refused_with_its_size() {
        let device = Device::flex();
        let grid = FeatureGrid::new(Tensor::zeros([1, 16, 1], &device), Grid::square(4));
        let size = PictureSize {
            width: 1,
            height: 20_000,
        };
        let error = lay_out(grid, &[size], Tensor::zeros([1], &device)).unwrap_err();
        assert!(error.to_string().contains("1 × 20000"), "{error}");
    }
}
