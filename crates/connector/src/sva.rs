//! The Spatial Vision Aggregator (Cambrian-1, section 3.2).
//!
//! Queries lie on a grid over the picture, each encoder's features on a grid of their own. The query
//! at a cell looks at the window of each feature grid that covers the same part of the picture, so
//! locality is kept however fine an encoder sees. The aggregator works before the language model
//! (query groups, `depth` layers each) and inside it: after some decoder layers the visual tokens'
//! hidden states are the queries of one more layer that looks at the same windows again.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use opabinia_nn::{Activation, FeatureGrid, Grid, LayerNorm, Mlp, Region, Trace};

use crate::config::{ConnectorError, InLlmConfig, SvaConfig};
use crate::layout::{PictureSize, indices, visible_region};
use crate::look::{Look, PictureContext};
use crate::sampler::{GlobalContext, Sampler, SamplerConfig, Windows};

/// Brings one encoder's features to the connector's width.
#[derive(Module, Debug)]
pub struct EncoderProjector {
    /// `D_i → V`, GELU, `V → V`.
    pub mlp: Mlp,
    /// Over the result.
    pub norm: LayerNorm,
}

/// The aggregator.
#[derive(Module, Debug)]
pub struct Sva {
    /// One per encoder.
    pub encoders: Vec<EncoderProjector>,
    /// One learned vector per query group, the same for every cell; `[groups, V]`.
    pub queries: Param<Tensor<2>>,
    /// One per query group.
    pub groups: Vec<Sampler>,
    /// `groups · V → H → H`.
    pub projector: Mlp,
    /// Layers between those of the language model; empty if it only sees the tokens.
    pub in_llm: Vec<Sampler>,
    #[module(skip)]
    config: SvaConfig,
}

impl Sva {
    /// An aggregator with random weights; its layers inside the language model change nothing until they
    /// are trained.
    #[must_use]
    pub fn new(config: &SvaConfig, device: &Device) -> Self {
        let SvaConfig { width, hidden, .. } = *config;
        let sampler = |query_width, depth, cells| SamplerConfig {
            query_width,
            context_width: width,
            width,
            window_sides: config.window_sides(cells),
            depth,
            layer_type: config.layer_type,
        };
        let groups = config.query_grids.len();
        let std = 1.0 / (width as f64).sqrt();
        let in_llm = config.in_llm.map_or(0, |layers| layers.count);
        Self {
            encoders: config
                .encoder_widths
                .iter()
                .map(|&d| EncoderProjector {
                    mlp: Mlp::new(d, width, width, Activation::Gelu, device),
                    norm: LayerNorm::new(width, 1e-5, device),
                })
                .collect(),
            queries: Initializer::Normal { mean: 0.0, std }.init([groups, width], device),
            groups: config
                .query_grids
                .iter()
                .map(|&cells| Sampler::new(&sampler(width, config.depth, cells), device))
                .collect(),
            projector: Mlp::new(groups * width, hidden, hidden, Activation::Gelu, device),
            in_llm: (0..in_llm)
                .map(|_| Sampler::at_rest(&sampler(hidden, 1, config.token_grid), device))
                .collect(),
            config: config.clone(),
        }
    }

    /// The configuration it was built from.
    #[must_use]
    pub fn config(&self) -> &SvaConfig {
        &self.config
    }

    /// Aggregates the features of `b` pictures on the grid of visual tokens.
    ///
    /// # Shapes
    /// - `grids[i]`: `[b, n_i, D_i]`
    /// - output: `[b, S·S, H]`, and what in-LLM layers will look at if there are any
    ///
    /// # Errors
    /// If a picture has no visible cell.
    pub fn forward(
        &self,
        grids: &[FeatureGrid],
        sizes: &[PictureSize],
        trace: &mut Trace,
    ) -> Result<(FeatureGrid, Option<PictureContext>), ConnectorError> {
        let projected: Vec<FeatureGrid> = grids
            .iter()
            .zip(&self.encoders)
            .map(|(grid, net)| {
                FeatureGrid::new(
                    net.norm.forward(net.mlp.forward(grid.features.clone())),
                    grid.grid,
                )
            })
            .collect();
        for (i, grid) in projected.iter().enumerate() {
            trace.record(format_args!("aux_proj{i}"), || grid.features.clone());
        }
        // The first encoder's mean, padding included: one vector per picture.
        let [b, _, width] = projected[0].features.dims();
        let context = projected[0]
            .features
            .clone()
            .mean_dim(1)
            .reshape([b, width]);

        // Cut once for everybody who looks from the grid of visual tokens.
        let cells = self.config.token_grid;
        let needed = !self.in_llm.is_empty() || self.config.query_grids.contains(&cells);
        let token_windows = if needed {
            cut(&projected, cells)
        } else {
            Vec::new()
        };
        let groups = (0..self.groups.len())
            .map(|group| self.run_group(group, &projected, &token_windows, &context, sizes, trace))
            .collect();
        let joined = Tensor::cat(groups, 2);
        let tokens = FeatureGrid::new(self.projector.forward(joined), self.config.token_grid);
        if self.in_llm.is_empty() {
            return Ok((tokens, None));
        }
        let context = self.picture_context(token_windows, context, sizes)?;
        context.record(trace);
        Ok((tokens, Some(context)))
    }

    /// One query group on its own grid, then resampled to the grid of visual tokens.
    fn run_group(
        &self,
        group: usize,
        grids: &[FeatureGrid],
        token_windows: &[Tensor<4>],
        context: &Tensor<2>,
        sizes: &[PictureSize],
        trace: &mut Trace,
    ) -> Tensor<3> {
        let cells = self.config.query_grids[group];
        let [b, width] = context.dims();
        let n = b * cells.len();
        let windows = if cells == self.config.token_grid {
            token_windows.to_vec()
        } else {
            cut(grids, cells)
        };
        let latents = windows
            .into_iter()
            .map(|windows| {
                let [_, _, k, d] = windows.dims();
                windows.reshape([n, k, d])
            })
            .collect();
        let regions = vec![Region::whole(cells); sizes.len()];
        let visible = self.masks(sizes, cells, &regions, &context.device());
        let windows = Windows { latents, visible };
        let query = self.queries.val().slice([group..group + 1, 0..width]);
        let queries = self.groups[group].forward(
            query.expand([n, width]),
            &GlobalContext::even(context.clone()),
            &windows,
            &mut Trace::off(),
        );
        trace.record(format_args!("sampler{group}"), || {
            queries.clone().unsqueeze_dim::<3>(1)
        });
        let grid = FeatureGrid::new(queries.reshape([b, cells.len(), width]), cells);
        grid.resample(self.config.token_grid).features
    }

    /// Which features the windows under a region of `cells` may show, for each encoder, the pictures
    /// one after the other.
    ///
    /// A feature of padding is hidden, except in windows that show nothing else: those see all.
    /// `None` if no picture has padding.
    fn masks(
        &self,
        sizes: &[PictureSize],
        cells: Grid,
        regions: &[Region],
        device: &Device,
    ) -> Option<Vec<Tensor<2, Bool>>> {
        if sizes.iter().all(|size| size.width == size.height) {
            return None;
        }
        let queries: usize = regions.iter().map(|region| region.grid().len()).sum();
        let mask = |grid: &Grid| {
            let side = grid.rows / cells.rows;
            let visible: Vec<bool> = sizes
                .iter()
                .zip(regions)
                .flat_map(|(size, region)| window_mask(*size, grid.rows, side, region))
                .collect();
            Tensor::from_data(TensorData::new(visible, [queries, side * side]), device)
        };
        Some(self.config.encoder_grids.iter().map(mask).collect())
    }

    /// What in-LLM layers look at: of `windows` (`[b, cells, k_i, d]`) those under visible cells.
    fn picture_context(
        &self,
        windows: Vec<Tensor<4>>,
        context: Tensor<2>,
        sizes: &[PictureSize],
    ) -> Result<PictureContext, ConnectorError> {
        let cells = self.config.token_grid;
        let regions = sizes
            .iter()
            .map(|&size| visible_region(size, cells))
            .collect::<Result<Vec<_>, _>>()?;
        let device = context.device();
        let rows = visible_rows(&regions, cells);
        let rows = (rows.len() < sizes.len() * cells.len()).then(|| indices(&rows, &device));
        let latents = windows.into_iter().map(|all| {
            let [b, n, k, d] = all.dims();
            let all = all.reshape([b * n, k, d]);
            match &rows {
                Some(rows) => all.select(0, rows.clone()),
                None => all,
            }
        });
        Ok(PictureContext {
            windows: Windows {
                latents: latents.collect(),
                visible: self.masks(sizes, cells, &regions, &device),
            },
            context,
            grids: regions.iter().map(Region::grid).collect(),
        })
    }

    /// Which in-LLM layer follows a decoder layer.
    #[must_use]
    pub fn layer_after(&self, decoder_layer: usize) -> Option<usize> {
        self.config
            .in_llm
            .and_then(|layers: InLlmConfig| layers.after(decoder_layer))
    }

    /// Lets visual tokens, inside the language model, look again; returns what to add to them.
    ///
    /// # Shapes
    /// - `hidden`: `[n, H]`, the tokens that `look` was made for
    /// - output: `[n, H]`
    #[must_use]
    pub fn look_again(
        &self,
        layer: usize,
        hidden: Tensor<2>,
        look: &Look,
        trace: &mut Trace,
    ) -> Tensor<2> {
        let change = self.in_llm[layer].change(hidden.clone(), &look.context, &look.windows);
        trace.record(format_args!("llm_sampler{layer}"), || {
            (change.clone() + hidden).unsqueeze_dim::<3>(1)
        });
        change
    }
}

/// The windows of every encoder under the cells of a grid, `[b, cells, k_i, d]`.
fn cut(grids: &[FeatureGrid], cells: Grid) -> Vec<Tensor<4>> {
    let windows = |grid: &FeatureGrid| grid.clone().windows(cells);
    grids.iter().map(windows).collect()
}

/// Rows of the visible cells in the cells of all pictures, one picture after the other.
fn visible_rows(regions: &[Region], cells: Grid) -> Vec<usize> {
    let mut visible = Vec::with_capacity(regions.len() * cells.len());
    for (picture, region) in regions.iter().enumerate() {
        for row in region.rows.clone() {
            let first = picture * cells.len() + row * cells.cols;
            visible.extend(region.cols.clone().map(|col| first + col));
        }
    }
    visible
}

/// For each cell of `region`, which features of its window on a grid of `side` cells show the
/// picture; all of them where none does.
fn window_mask(size: PictureSize, grid_side: usize, window: usize, region: &Region) -> Vec<bool> {
    let content = Region::of_picture(size.width, size.height, grid_side);
    let mut mask = Vec::with_capacity(region.grid().len() * window * window);
    for row in region.rows.clone() {
        for col in region.cols.clone() {
            let start = mask.len();
            for r in row * window..(row + 1) * window {
                mask.extend((col * window..(col + 1) * window).map(|c| content.contains(r, c)));
            }
            if !mask[start..].contains(&true) {
                mask[start..].fill(true);
            }
        }
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_hidden_except_where_there_is_nothing_else() {
        // 100 × 50 on a grid of 4 with windows of 2: rows 1..3 show the picture.
        let size = PictureSize {
            width: 100,
            height: 50,
        };
        let whole = Region::whole(Grid::square(2));
        let mask = window_mask(size, 4, 2, &whole);
        let upper = [false, false, true, true];
        let lower = [true, true, false, false];
        assert_eq!(mask, [upper, upper, lower, lower].concat());
        // On a grid of 4 with windows of 1 the outer rows show nothing, so they see themselves.
        assert_eq!(
            window_mask(size, 4, 1, &Region::whole(Grid::square(4))),
            [true; 16]
        );
    }
}
