//! What a connector looks like, checked before anything is built.

use opabinia_nn::Grid;

/// Either kind of connector.
#[derive(Clone, Debug, PartialEq)]
pub enum ConnectorConfig {
    /// The Spatial Vision Aggregator.
    Sva(SvaConfig),
    /// A per-token projector over concatenated features.
    Projector(ProjectorConfig),
}

impl ConnectorConfig {
    /// Width of the visual tokens.
    #[must_use]
    pub fn hidden(&self) -> usize {
        match self {
            Self::Sva(config) => config.hidden,
            Self::Projector(config) => config.hidden,
        }
    }

    /// The grid of visual tokens of a square picture, before the end-of-row tokens.
    #[must_use]
    pub fn token_grid(&self) -> Grid {
        match self {
            Self::Sva(config) => config.token_grid,
            Self::Projector(config) => config.token_grid,
        }
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// The first contradiction, naming the configuration keys of published checkpoints.
    pub fn check(&self) -> Result<(), ConnectorError> {
        match self {
            Self::Sva(config) => config.check(),
            Self::Projector(config) => config.check(),
        }
    }
}

/// The aggregator: queries on a grid, their windows on every encoder's grid.
#[derive(Clone, Debug, PartialEq)]
pub struct SvaConfig {
    /// Feature width of each encoder, `D_i`.
    pub encoder_widths: Vec<usize>,
    /// Grid of each encoder, `a_i × a_i`.
    pub encoder_grids: Vec<Grid>,
    /// Width inside the connector, `V` (`vision_hidden_size`).
    pub width: usize,
    /// Width of the language model, `H`.
    pub hidden: usize,
    /// Grid of each query group (`query_num_list`).
    pub query_grids: Vec<Grid>,
    /// Grid of the visual tokens, `S × S` (`image_token_len`).
    pub token_grid: Grid,
    /// Layers per query group, `D` (`connector_depth`).
    pub depth: usize,
    /// How a layer combines encoders.
    pub layer_type: LayerType,
    /// Layers between those of the language model.
    pub in_llm: Option<InLlmConfig>,
}

/// How a sampler layer combines encoders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayerType {
    /// One softmax over the keys of all encoders; the only type of the released models.
    #[default]
    Joint,
    /// Each encoder is aggregated alone, then they are mixed by predicted weights.
    Separate,
}

/// Where in-LLM layers stand: layer `j` acts on the output of decoder layer `start + j · stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InLlmConfig {
    /// Number of layers (`num_of_vision_sampler_layers`).
    pub count: usize,
    /// First decoder layer (`start_of_vision_sampler_layers`).
    pub start: usize,
    /// Decoder layers from one to the next (`stride_of_vision_sampler_layers`).
    pub stride: usize,
}

impl InLlmConfig {
    /// Which in-LLM layer follows a decoder layer.
    #[must_use]
    pub fn after(&self, decoder_layer: usize) -> Option<usize> {
        let offset = decoder_layer.checked_sub(self.start)?;
        let index = offset / self.stride;
        (offset % self.stride == 0 && index < self.count).then_some(index)
    }

    /// The decoder layer that the last in-LLM layer follows.
    #[must_use]
    pub fn last_decoder_layer(&self) -> usize {
        self.start
            .saturating_add(self.count.saturating_sub(1).saturating_mul(self.stride))
    }
}

/// The baselines of the reference implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectorKind {
    /// One linear layer.
    Linear,
    /// Linear layers with GELU between; `mlp2x_gelu` has two.
    Mlp {
        /// Number of linear layers.
        layers: usize,
    },
    /// Features as they are.
    Identity,
    /// A gate over channels (squeeze-and-excitation), then a two-layer MLP.
    SqueezeExcite,
    /// A strided 3×3 convolution, then a two-layer MLP; a quarter of the tokens.
    CAbstractor,
}

impl ProjectorKind {
    /// Finds a projector by the `mm_projector_type` of a configuration.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "linear" => Self::Linear,
            "identity" => Self::Identity,
            "se_mlp" => Self::SqueezeExcite,
            "CAbstractor" => Self::CAbstractor,
            _ => {
                let layers = name.strip_prefix("mlp")?.strip_suffix("x_gelu")?;
                let layers = layers.parse().ok().filter(|n| (1..=64).contains(n))?;
                Self::Mlp { layers }
            }
        })
    }
}

/// A projector over the encoders' concatenated features.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectorConfig {
    /// Which baseline.
    pub kind: ProjectorKind,
    /// Sum of the encoders' widths (`mm_hidden_size`).
    pub input: usize,
    /// Width of the language model.
    pub hidden: usize,
    /// Grid of the visual tokens.
    pub token_grid: Grid,
}

/// Why a connector cannot be built or cannot take a picture.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// Numbers of a configuration contradict each other.
    #[error("the connector's configuration contradicts itself: {0}")]
    Config(String),
    /// The picture has no visible cell.
    #[error(
        "a picture of {width} × {height} pixels leaves no row of the {side}×{side} visual grid: it \
         is more than {side} times longer than wide; crop it or pad it to a squarer shape"
    )]
    TooElongated {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Side of the visual grid.
        side: usize,
    },
}

fn contradiction(text: String) -> ConnectorError {
    ConnectorError::Config(text)
}

impl SvaConfig {
    /// Number of encoders.
    #[must_use]
    pub fn encoders(&self) -> usize {
        self.encoder_widths.len()
    }

    /// Side of the window of each encoder under one cell of a grid.
    #[must_use]
    pub fn window_sides(&self, cells: Grid) -> Vec<usize> {
        self.encoder_grids
            .iter()
            .map(|grid| grid.rows / cells.rows)
            .collect()
    }

    fn check(&self) -> Result<(), ConnectorError> {
        if self.encoder_widths.is_empty() || self.encoder_widths.len() != self.encoder_grids.len() {
            return Err(contradiction(format!(
                "{} encoder widths for {} encoder grids (`mm_vision_tower_aux_list`, \
                 `mm_vision_tower_aux_token_len_list`)",
                self.encoder_widths.len(),
                self.encoder_grids.len()
            )));
        }
        if self.query_grids.is_empty() {
            return Err(contradiction("`query_num_list` is empty".into()));
        }
        if !(1..=1 << 20).contains(&self.width) || !self.width.is_multiple_of(crate::sampler::HEADS)
        {
            return Err(contradiction(format!(
                "`vision_hidden_size` {} is no positive multiple of {} heads",
                self.width,
                crate::sampler::HEADS
            )));
        }
        let in_llm = self.in_llm.map(|_| self.token_grid);
        for cells in self.query_grids.iter().copied().chain(in_llm) {
            for grid in &self.encoder_grids {
                let fits = !cells.is_empty()
                    && grid.rows.is_multiple_of(cells.rows)
                    && grid.cols.is_multiple_of(cells.cols);
                if !fits {
                    return Err(contradiction(format!(
                        "an encoder grid of {grid} is not a multiple of the query grid {cells} \
                         (`mm_vision_tower_aux_token_len_list`, `query_num_list`, \
                         `image_token_len`)"
                    )));
                }
            }
        }
        if self.in_llm.is_some_and(|layers| layers.stride == 0) {
            return Err(contradiction(
                "`stride_of_vision_sampler_layers` is 0".into(),
            ));
        }
        Ok(())
    }
}

impl ProjectorConfig {
    fn check(&self) -> Result<(), ConnectorError> {
        if self.kind == ProjectorKind::Identity && self.input != self.hidden {
            return Err(contradiction(format!(
                "`mm_projector_type` identity needs features of width {} for a language model of \
                 width {}",
                self.input, self.hidden
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projector_names_are_the_published_ones() {
        assert_eq!(
            ProjectorKind::by_name("mlp2x_gelu"),
            Some(ProjectorKind::Mlp { layers: 2 })
        );
        assert_eq!(
            ProjectorKind::by_name("mlp12x_gelu"),
            Some(ProjectorKind::Mlp { layers: 12 })
        );
        for wrong in [
            "mlp0x_gelu",
            "mlpx_gelu",
            "mlp2x_silu",
            "Linear",
            "mlp99999999999x_gelu",
        ] {
            assert_eq!(ProjectorKind::by_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn in_llm_layers_stand_at_start_plus_stride() {
        let layers = InLlmConfig {
            count: 3,
            start: 1,
            stride: 4,
        };
        let found: Vec<_> = (0..14)
            .filter_map(|i| layers.after(i).map(|j| (i, j)))
            .collect();
        assert_eq!(found, [(1, 0), (5, 1), (9, 2)]);
        assert_eq!(layers.last_decoder_layer(), 9);
    }

    #[test]
    fn contradictions_are_named() {
        let good = SvaConfig {
            encoder_widths: vec![8, 8],
            encoder_grids: vec![Grid::square(4), Grid::square(8)],
            width: 32,
            hidden: 16,
            query_grids: vec![Grid::square(4)],
            token_grid: Grid::square(4),
            depth: 1,
            layer_type: LayerType::Joint,
            in_llm: None,
        };
        assert!(good.check().is_ok());
        let uneven = SvaConfig {
            query_grids: vec![Grid::square(3)],
            ..good.clone()
        };
        assert!(
            uneven
                .check()
                .unwrap_err()
                .to_string()
                .contains("query grid 3×3")
        );
        let narrow = SvaConfig { width: 24, ..good };
        assert!(
            narrow
                .check()
                .unwrap_err()
                .to_string()
                .contains("vision_hidden_size")
        );
    }
}
