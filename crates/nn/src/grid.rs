//! The geometry that encoders, connectors and packing share: grids of features on a picture.
//!
//! A [`FeatureGrid`] carries its own [`Grid`], so nobody ever takes the square root of a token
//! count. All layouts are row-major.

use std::fmt;
use std::ops::Range;

use burn::prelude::*;

use crate::resample;

/// Rows × columns of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
}

impl Grid {
    /// A square grid.
    #[must_use]
    pub fn square(side: usize) -> Self {
        Self {
            rows: side,
            cols: side,
        }
    }

    /// Longest side that a configuration or a flag may ask for; far beyond what memory holds.
    pub const MAX_SIDE: usize = 512;

    /// The square grid of a published token count, which configurations store instead of a side.
    /// `None` if it is no square, or of a side beyond [`Grid::MAX_SIDE`].
    #[must_use]
    pub fn from_token_count(tokens: usize) -> Option<Self> {
        let side = tokens.isqrt();
        let fits = (1..=Self::MAX_SIDE).contains(&side) && side * side == tokens;
        fits.then(|| Self::square(side))
    }

    /// Number of cells.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Whether there is no cell at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}", self.rows, self.cols)
    }
}

/// The cells of a square grid that show the picture and not its padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Rows with content.
    pub rows: Range<usize>,
    /// Columns with content.
    pub cols: Range<usize>,
}

impl Region {
    /// All of a grid.
    #[must_use]
    pub fn whole(grid: Grid) -> Self {
        Self {
            rows: 0..grid.rows,
            cols: 0..grid.cols,
        }
    }

    /// Where a picture of `width × height` lies on the square grid of `side` cells that its
    /// centred square padding was cut into.
    ///
    /// The formula, truncations included, is the reference implementation's: for a wide picture
    /// `new_h = ⌊h · (side / w)⌋`, `pad = ⌊(side − new_h) / 2⌋`, rows `pad .. side − pad`. So the
    /// region may hold one row more than `new_h`. When the picture is more than `side` times longer
    /// than wide, it is empty if `side` is even, and a single row if it is odd.
    #[must_use]
    pub fn of_picture(width: u32, height: u32, side: usize) -> Self {
        let (w, h) = (f64::from(width), f64::from(height));
        let cells = side as f64;
        let content = |long: f64, short: f64| {
            let kept = (short * (cells / long)) as usize;
            let pad = side.saturating_sub(kept) / 2;
            pad..side - pad
        };
        if w / h > 1.0 {
            Self {
                rows: content(w, h),
                cols: 0..side,
            }
        } else {
            Self {
                rows: 0..side,
                cols: content(h, w),
            }
        }
    }

    /// Rows × columns of the region.
    #[must_use]
    pub fn grid(&self) -> Grid {
        Grid {
            rows: self.rows.len(),
            cols: self.cols.len(),
        }
    }

    /// Whether a cell lies in the region.
    #[must_use]
    pub fn contains(&self, row: usize, col: usize) -> bool {
        self.rows.contains(&row) && self.cols.contains(&col)
    }
}

/// What a vision encoder saw, laid out on its grid.
#[derive(Clone, Debug)]
pub struct FeatureGrid {
    /// `[b, rows·cols, d]`.
    pub features: Tensor<3>,
    /// The layout of the second dimension.
    pub grid: Grid,
}

impl FeatureGrid {
    /// # Panics
    /// If the features do not fill the grid: a wiring mistake in an encoder.
    #[must_use]
    pub fn new(features: Tensor<3>, grid: Grid) -> Self {
        let [_, n, _] = features.dims();
        assert_eq!(n, grid.len(), "{n} features do not fill a {grid} grid");
        Self { features, grid }
    }

    /// From `[b, rows, cols, d]`.
    #[must_use]
    pub fn from_rows(features: Tensor<4>) -> Self {
        let [b, rows, cols, d] = features.dims();
        Self::new(features.reshape([b, rows * cols, d]), Grid { rows, cols })
    }

    /// As `[b, rows, cols, d]`.
    #[must_use]
    pub fn into_rows(self) -> Tensor<4> {
        let [b, _, d] = self.features.dims();
        self.features
            .reshape([b, self.grid.rows, self.grid.cols, d])
    }

    /// Feature width `d`.
    #[must_use]
    pub fn width(&self) -> usize {
        self.features.dims()[2]
    }

    /// Bilinear resampling to another grid (half-pixel centres, no antialiasing); the same grid is
    /// returned untouched.
    #[must_use]
    pub fn resample(self, to: Grid) -> Self {
        if self.grid == to {
            return self;
        }
        Self::from_rows(resample::bilinear(self.into_rows(), (to.rows, to.cols)))
    }

    /// Concatenates the features of several encoders, cell by cell.
    ///
    /// # Panics
    /// If the grids differ: configurations are checked before.
    #[must_use]
    pub fn concat(grids: &[Self]) -> Self {
        let grid = grids.first().expect("at least one encoder").grid;
        assert!(grids.iter().all(|g| g.grid == grid), "grids differ");
        let features = grids.iter().map(|g| g.features.clone()).collect();
        Self::new(Tensor::cat(features, 2), grid)
    }

    /// Cuts the grid into the windows that lie under the cells of a coarser grid.
    ///
    /// # Shapes
    /// - output: `[b, cells.len(), window², d]`, windows row-major over `cells`, features row-major
    ///   inside a window of side `grid.rows / cells.rows`
    ///
    /// # Panics
    /// If the coarser grid does not divide this one: configurations are checked before.
    #[must_use]
    pub fn windows(self, cells: Grid) -> Tensor<4> {
        let Grid { rows, cols } = self.grid;
        assert!(
            rows.is_multiple_of(cells.rows) && cols.is_multiple_of(cells.cols),
            "a {} grid is not cut evenly by {cells} queries",
            self.grid
        );
        let (r, c) = (rows / cells.rows, cols / cells.cols);
        let [b, _, d] = self.features.dims();
        if (r, c) == (1, 1) {
            return self.features.reshape([b, rows * cols, 1, d]);
        }
        self.features
            .reshape([b, cells.rows, r, cells.cols, c, d])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([b, cells.len(), r * c, d])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wide_and_tall_pictures_by_hand() {
        // 160 × 90 on 6 cells: ⌊90 · 6/160⌋ = 3 rows, pad ⌊3/2⌋ = 1, rows 1..5 (one more than 3).
        let wide = Region::of_picture(160, 90, 6);
        assert_eq!(
            wide,
            Region {
                rows: 1..5,
                cols: 0..6
            }
        );
        let tall = Region::of_picture(70, 120, 6);
        assert_eq!(
            tall,
            Region {
                rows: 0..6,
                cols: 1..5
            }
        );
        assert_eq!(
            Region::of_picture(96, 96, 6),
            Region::whole(Grid::square(6))
        );
    }

    #[test]
    fn a_line_of_a_picture_has_no_cells() {
        assert!(Region::of_picture(20_000, 1, 24).grid().is_empty());
        assert!(Region::of_picture(1, 20_000, 24).grid().is_empty());
    }

    /// ⌊27 / 2⌋ = 13 cells of padding on either side leave one row of 27.
    #[test]
    fn a_line_on_an_odd_grid_keeps_its_middle_row() {
        let line = Region::of_picture(20_000, 1, 27);
        assert_eq!((line.rows, line.cols), (13..14, 0..27));
    }

    #[test]
    fn token_counts_are_squares() {
        assert_eq!(Grid::from_token_count(576), Some(Grid::square(24)));
        assert_eq!(Grid::from_token_count(575), None);
        assert_eq!(Grid::from_token_count(0), None);
    }

    #[test]
    fn windows_are_row_major_inside_and_out() {
        let x = Tensor::<1, Int>::arange(0..16, &Device::flex())
            .float()
            .reshape([1, 16, 1]);
        let windows = FeatureGrid::new(x, Grid::square(4)).windows(Grid::square(2));
        let values = windows.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(values[..8], [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]);
    }

    proptest! {
        /// The region is centred, inside the grid, and as long as the picture's long side.
        #[test]
        fn regions_are_centred(w in 1u32..5000, h in 1u32..5000, side in 1usize..64) {
            let region = Region::of_picture(w, h, side);
            let grid = region.grid();
            if w > h {
                prop_assert_eq!(grid.cols, side);
                if grid.rows > 0 {
                    prop_assert_eq!(region.rows.start, side - region.rows.end);
                    let exact = f64::from(h) * side as f64 / f64::from(w);
                    prop_assert!((grid.rows as f64 - exact).abs() <= 2.0);
                }
            } else {
                prop_assert_eq!(grid.rows, side);
            }
        }
    }
}
