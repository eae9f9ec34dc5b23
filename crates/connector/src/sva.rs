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
use crate::layout::{PictureSize, visible_region};
use crate::sampler::{Sampler, SamplerConfig, Windows};

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

/// What the in-LLM layers look at for one picture: the windows under its visible cells.
#[derive(Clone, Debug)]
pub struct PictureContext {
    /// Under the visible cells, row-major.
    pub windows: Windows,
    /// The global context feature, `[1, V]`.
    pub context: Tensor<2>,
    /// The visible cells.
    pub grid: Grid,
}

impl Sva {
    /// An aggregator with random weights.
    #[must_use]
    pub fn new(config: &SvaConfig, device: &Device) -> Self {
        let SvaConfig { width, hidden, .. } = *config;
        let sampler = |query_width, depth, cells| {
            Sampler::new(
                &SamplerConfig {
                    query_width,
                    context_width: width,
                    width,
                    window_sides: config.window_sides(cells),
                    depth,
                    layer_type: config.layer_type,
                },
                device,
            )
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
                .map(|&cells| sampler(width, config.depth, cells))
                .collect(),
            projector: Mlp::new(groups * width, hidden, hidden, Activation::Gelu, device),
            in_llm: (0..in_llm)
                .map(|_| sampler(hidden, 1, config.token_grid))
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
    /// - output: `[b, S·S, H]`, and per picture what in-LLM layers will look at
    ///
    /// # Errors
    /// If a picture has no visible cell.
    pub fn forward(
        &self,
        grids: &[FeatureGrid],
        sizes: &[PictureSize],
        trace: &mut Trace,
    ) -> Result<(FeatureGrid, Vec<PictureContext>), ConnectorError> {
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
        let contexts = self.picture_contexts(&token_windows, &context, sizes, trace)?;
        Ok((tokens, contexts))
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
        let visible = self.masks(sizes, cells, &Region::whole(cells), &context.device());
        let windows = Windows { latents, visible };
        let query = self.queries.val().slice([group..group + 1, 0..width]);
        let queries = self.groups[group].forward(
            query.expand([n, width]),
            context,
            &windows,
            &mut Trace::off(),
        );
        trace.record(format_args!("sampler{group}"), || {
            queries.clone().unsqueeze_dim::<3>(1)
        });
        let grid = FeatureGrid::new(queries.reshape([b, cells.len(), width]), cells);
        grid.resample(self.config.token_grid).features
    }

    /// Which features the windows under `region` of `cells` may show, for each encoder.
    ///
    /// A feature of padding is hidden, except in windows that show nothing else: those see all.
    /// `None` if no picture has padding.
    fn masks(
        &self,
        sizes: &[PictureSize],
        cells: Grid,
        region: &Region,
        device: &Device,
    ) -> Option<Vec<Tensor<2, Bool>>> {
        if sizes.iter().all(|size| size.width == size.height) {
            return None;
        }
        let mask = |grid: &Grid| {
            let side = grid.rows / cells.rows;
            let visible: Vec<bool> = sizes
                .iter()
                .flat_map(|size| window_mask(*size, grid.rows, side, region))
                .collect();
            let shape = [sizes.len() * region.grid().len(), side * side];
            Tensor::from_data(TensorData::new(visible, shape), device)
        };
        Some(self.config.encoder_grids.iter().map(mask).collect())
    }

    fn picture_contexts(
        &self,
        windows: &[Tensor<4>],
        context: &Tensor<2>,
        sizes: &[PictureSize],
        trace: &mut Trace,
    ) -> Result<Vec<PictureContext>, ConnectorError> {
        if self.in_llm.is_empty() {
            return Ok(Vec::new());
        }
        let cells = self.config.token_grid;
        let contexts = sizes.iter().enumerate().map(|(i, &size)| {
            let region = visible_region(size, cells)?;
            let latents = windows
                .iter()
                .map(|all| crop_windows(all.clone(), i, cells, &region))
                .collect();
            let visible = self.masks(&[size], cells, &region, &context.device());
            let width = context.dims()[1];
            Ok(PictureContext {
                windows: Windows { latents, visible },
                context: context.clone().slice([i..i + 1, 0..width]),
                grid: region.grid(),
            })
        });
        let contexts = contexts.collect::<Result<Vec<_>, ConnectorError>>()?;
        if let Some(first) = contexts.first() {
            first.record(trace);
        }
        Ok(contexts)
    }

    /// Which in-LLM layer follows a decoder layer.
    #[must_use]
    pub fn layer_after(&self, decoder_layer: usize) -> Option<usize> {
        self.config
            .in_llm
            .and_then(|layers: InLlmConfig| layers.after(decoder_layer))
    }

    /// Lets some of a picture's visual tokens, inside the language model, look again.
    ///
    /// # Shapes
    /// - `hidden`: `[n, H]`, the tokens of `cells` (indices into the visible cells, row-major)
    /// - output: `[n, H]`, the tokens updated
    #[must_use]
    pub fn look_again(
        &self,
        layer: usize,
        hidden: Tensor<2>,
        picture: &PictureContext,
        cells: std::ops::Range<usize>,
        trace: &mut Trace,
    ) -> Tensor<2> {
        let windows = picture.windows.of_cells(cells, picture.grid.len());
        let updated =
            self.in_llm[layer].forward(hidden, &picture.context, &windows, &mut Trace::off());
        trace.record(format_args!("llm_sampler{layer}"), || {
            updated.clone().unsqueeze_dim::<3>(1)
        });
        updated
    }
}

impl PictureContext {
    fn record(&self, trace: &mut Trace) {
        let cells = self.grid.len();
        trace.record(format_args!("llm_global_context"), || {
            let width = self.context.dims()[1];
            let context = self.context.clone().expand([cells, width]);
            context.unsqueeze_dim::<3>(1)
        });
        for (i, latents) in self.windows.latents.iter().enumerate() {
            trace.record(format_args!("llm_kv{i}"), || latents.clone());
            trace.record(format_args!("llm_mask{i}"), || {
                match &self.windows.visible {
                    Some(masks) => masks[i].clone().float(),
                    None => Tensor::ones([cells, latents.dims()[1]], &latents.device()),
                }
            });
        }
    }
}

impl Windows {
    /// The windows of some of `total` cells.
    fn of_cells(&self, cells: std::ops::Range<usize>, total: usize) -> Self {
        if cells == (0..total) {
            return self.clone();
        }
        let latents = self.latents.iter().map(|x| {
            let [_, k, d] = x.dims();
            x.clone().slice([cells.clone(), 0..k, 0..d])
        });
        let visible = self.visible.as_ref().map(|masks| {
            let part = |x: &Tensor<2, Bool>| x.clone().slice([cells.clone(), 0..x.dims()[1]]);
            masks.iter().map(part).collect()
        });
        Self {
            latents: latents.collect(),
            visible,
        }
    }
}

/// The windows of every encoder under the cells of a grid, `[b, cells, k_i, d]`.
fn cut(grids: &[FeatureGrid], cells: Grid) -> Vec<Tensor<4>> {
    let windows = |grid: &FeatureGrid| grid.clone().windows(cells);
    grids.iter().map(windows).collect()
}

/// The windows of picture `i` under a region of the cells: `[b, cells, k, d]` → `[r·c, k, d]`.
fn crop_windows(all: Tensor<4>, i: usize, cells: Grid, region: &Region) -> Tensor<3> {
    let [_, _, k, d] = all.dims();
    let visible = region.grid();
    all.slice([i..i + 1, 0..cells.len(), 0..k, 0..d])
        .reshape([cells.rows, cells.cols, k * d])
        .slice([region.rows.clone(), region.cols.clone(), 0..k * d])
        .reshape([visible.len(), k, d])
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
