//! What the connector's in-LLM layers look at: the feature windows under visible cells.
//!
//! The aggregator cuts its projected features into windows once; layers inside the language model
//! look at the same windows again. A [`PictureContext`] holds those of one or several pictures, a
//! [`Look`] those of the visual tokens that are read in one go, in the order in which they stand
//! there. Any subset and any order will do, because every visual token is a query of its own.

use burn::prelude::*;
use opabinia_nn::{Grid, Trace};

use crate::layout::indices;
use crate::sampler::{GlobalContext, Windows};

/// What in-LLM layers can look at: the windows under the visible cells of `p` pictures.
#[derive(Clone, Debug)]
pub struct PictureContext {
    /// Under the visible cells of the first picture, row-major, then of the second, ….
    pub windows: Windows,
    /// The global context feature of each picture, `[p, V]`.
    pub context: Tensor<2>,
    /// The visible cells of each picture.
    pub grids: Vec<Grid>,
}

/// A visible cell: the picture's place in its [`PictureContext`], and the cell, row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Which picture.
    pub picture: usize,
    /// Which of its visible cells.
    pub index: usize,
}

/// What `n` queries look at, one window of every encoder each.
#[derive(Clone, Debug)]
pub struct Look {
    /// One row per query.
    pub windows: Windows,
    /// Of the pictures that the queries belong to.
    pub context: GlobalContext,
}

impl PictureContext {
    /// Puts the pictures of several contexts behind each other; `None` without a context.
    #[must_use]
    pub fn join(parts: &[&Self]) -> Option<Self> {
        let first = parts.first()?;
        if parts.len() == 1 {
            return Some((*first).clone());
        }
        let latents = (0..first.windows.latents.len())
            .map(|encoder| {
                let latents = parts
                    .iter()
                    .map(|part| part.windows.latents[encoder].clone());
                Tensor::cat(latents.collect(), 0)
            })
            .collect();
        let masked = parts.iter().any(|part| part.windows.visible.is_some());
        let visible = masked.then(|| {
            (0..first.windows.latents.len())
                .map(|encoder| {
                    let masks = parts.iter().map(|part| part.windows.mask(encoder));
                    Tensor::cat(masks.collect(), 0)
                })
                .collect()
        });
        Some(Self {
            windows: Windows { latents, visible },
            context: Tensor::cat(parts.iter().map(|part| part.context.clone()).collect(), 0),
            grids: parts.iter().flat_map(|part| part.grids.clone()).collect(),
        })
    }

    /// What the visual tokens at `cells` look at, in that order.
    ///
    /// # Panics
    /// If a cell is not visible: the caller counts them on the grids of this context.
    #[must_use]
    pub fn look(&self, cells: &[Cell]) -> Look {
        let starts = self.starts();
        let rows: Vec<usize> = cells
            .iter()
            .map(|cell| {
                let visible = self.grids[cell.picture].len();
                assert!(cell.index < visible, "cell {} of {visible}", cell.index);
                starts[cell.picture] + cell.index
            })
            .collect();
        let owners: Vec<usize> = cells.iter().map(|cell| cell.picture).collect();
        let all = starts[self.grids.len()];
        let windows = if rows.iter().copied().eq(0..all) {
            self.windows.clone()
        } else {
            self.windows.select(&rows)
        };
        Look {
            windows,
            context: GlobalContext::owned(self.context.clone(), &owners),
        }
    }

    /// First window of each picture, and behind the last one their number.
    fn starts(&self) -> Vec<usize> {
        let mut starts = vec![0];
        for grid in &self.grids {
            starts.push(starts[starts.len() - 1] + grid.len());
        }
        starts
    }

    /// Records what a single picture's tokens look at, under the reference's names.
    pub(crate) fn record(&self, trace: &mut Trace) {
        let [grid] = self.grids[..] else {
            return;
        };
        trace.record(format_args!("llm_global_context"), || {
            let width = self.context.dims()[1];
            let context = self.context.clone().expand([grid.len(), width]);
            context.unsqueeze_dim::<3>(1)
        });
        for (i, latents) in self.windows.latents.iter().enumerate() {
            trace.record(format_args!("llm_kv{i}"), || latents.clone());
            trace.record(format_args!("llm_mask{i}"), || self.windows.mask(i).float());
        }
    }
}

impl Windows {
    /// The windows of some queries.
    fn select(&self, rows: &[usize]) -> Self {
        let device = self.latents[0].device();
        let rows = indices(rows, &device);
        let latents = self
            .latents
            .iter()
            .map(|x| x.clone().select(0, rows.clone()));
        let visible = self.visible.as_ref().map(|masks| {
            let masks = masks
                .iter()
                .map(|mask| mask.clone().select(0, rows.clone()));
            masks.collect()
        });
        Self {
            latents: latents.collect(),
            visible,
        }
    }

    /// Which features of an encoder may be looked at, all of them where nothing is said.
    fn mask(&self, encoder: usize) -> Tensor<2, Bool> {
        if let Some(masks) = &self.visible {
            return masks[encoder].clone();
        }
        let latents = &self.latents[encoder];
        let [n, k, _] = latents.dims();
        Tensor::<2>::ones([n, k], &latents.device()).greater_elem(0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pictures of 2 and 1 cells, one encoder with single features 0, 1, 2.
    fn context() -> PictureContext {
        let device = Device::flex();
        let part = |first: i64, cells: i64, masked: bool| PictureContext {
            windows: Windows {
                latents: vec![
                    Tensor::<1, Int>::arange(first..first + cells, &device)
                        .float()
                        .reshape([cells as usize, 1, 1]),
                ],
                visible: masked.then(|| vec![Tensor::from_data([[false]], &device)]),
            },
            context: Tensor::from_floats([[10.0 * (first + 1) as f32]], &device),
            grids: vec![Grid {
                rows: 1,
                cols: cells as usize,
            }],
        };
        PictureContext::join(&[&part(0, 2, false), &part(2, 1, true)]).unwrap()
    }

    fn cell(picture: usize, index: usize) -> Cell {
        Cell { picture, index }
    }

    fn seen(look: &Look) -> (Vec<f32>, Vec<bool>, Vec<f32>) {
        let values = |x: Tensor<3>| x.into_data().try_to_vec::<f32>().unwrap();
        let n = look.windows.latents[0].dims()[0];
        let mask = look.windows.mask(0).into_data();
        let context = look.context.spread(look.context.pictures(), n);
        (
            values(look.windows.latents[0].clone()),
            mask.iter::<bool>().collect(),
            context.into_data().try_to_vec::<f32>().unwrap(),
        )
    }

    #[test]
    fn every_query_sees_its_own_window_and_its_own_picture() {
        let all = context().look(&[cell(0, 0), cell(0, 1), cell(1, 0)]);
        let expected = (
            vec![0.0, 1.0, 2.0],
            vec![true, true, false],
            vec![10.0, 10.0, 30.0],
        );
        assert_eq!(seen(&all), expected);
        let some = context().look(&[cell(1, 0), cell(0, 1), cell(1, 0)]);
        let expected = (
            vec![2.0, 1.0, 2.0],
            vec![false, true, false],
            vec![30.0, 10.0, 30.0],
        );
        assert_eq!(seen(&some), expected);
    }

    #[test]
    #[should_panic(expected = "cell 1 of 1")]
    fn a_cell_that_is_not_there_is_the_programmers_mistake() {
        let _ = context().look(&[cell(1, 1)]);
    }
}
