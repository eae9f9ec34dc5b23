//! One type for all encoders: pixels in, a feature grid out.

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use opabinia_image::{PixelBatch, Preprocessor};
use opabinia_nn::{FeatureGrid, Grid, Trace, packed};
use opabinia_weights::{Checkpoint, KeyMap, LoadOptions, LoadReport, load_into, parameters};
use sha2::{Digest, Sha256};

use crate::clip::Clip;
use crate::config::EncoderConfig;
use crate::convnext::{self, ConvNext};
use crate::dinov2::Dinov2;
use crate::error::VisionError;
use crate::siglip::Siglip;
use crate::spec::{EncoderSpec, Select};
use crate::transformer::VitConfig;
use crate::{clip, dinov2, siglip};

/// A vision encoder: a network, and what was asked of it.
///
/// It is a Burn module: `valid()`, `no_grad()`, `fork()` and optimizers work on it as on any other.
#[derive(Module, Debug)]
pub struct Encoder {
    network: Network,
    #[module(skip)]
    spec: EncoderSpec,
    #[module(skip)]
    config: EncoderConfig,
}

#[derive(Module, Debug)]
enum Network {
    Clip(Clip),
    Siglip(Siglip),
    Dinov2(Dinov2),
    ConvNext(ConvNext),
}

impl Encoder {
    /// A network with random weights, of which nothing is allocated before it is first used.
    ///
    /// # Errors
    /// If the configuration is of another family than the row, if the layer or the side that was
    /// asked for does not exist in it.
    pub fn new(
        spec: &EncoderSpec,
        config: EncoderConfig,
        device: &Device,
    ) -> Result<Self, VisionError> {
        let (wanted, found) = (spec.entry.family, config.family());
        if wanted != found {
            let name = spec.entry.name();
            return Err(VisionError::FamilyMismatch {
                name,
                wanted,
                found,
            });
        }
        let encoder = Self {
            network: Network::new(spec, &config, device)?,
            spec: *spec,
            config,
        };
        encoder.check_side()?;
        Ok(encoder)
    }

    /// A network of the published size with random weights, for benchmarks and tests.
    ///
    /// # Errors
    /// If the side that was asked for does not fit the encoder.
    pub fn random(spec: &EncoderSpec, device: &Device) -> Result<Self, VisionError> {
        Self::new(spec, spec.entry.config, device)
    }

    /// Fills the network from a checkpoint. Tensors that are known not to belong to it (text
    /// towers, pooling, layers after the selected one) are listed as ignored, all others that were
    /// not used as unused.
    ///
    /// # Errors
    /// If the names of the tensors follow no known layout, or a tensor is missing or misshapen.
    pub fn load(
        self,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
    ) -> Result<(Self, LoadReport), VisionError> {
        let map = self.key_map_for(checkpoint)?;
        let options = self
            .ignored_keys()
            .iter()
            .fold(options.clone(), |options, pattern| options.ignore(pattern));
        Ok(load_into(self, checkpoint, &map, &options)?)
    }

    /// The features on the network's own grid; of several stages, on the finest one's.
    ///
    /// # Shapes
    /// - `pixels`: `[b, 3, px, px]`, prepared by [`preprocessor`](Self::preprocessor)
    /// - output: `[b, grid.len(), width]`
    ///
    /// # Panics
    /// If the pixels do not have the side of this encoder (DINOv2 and ConvNeXt take any).
    pub fn forward(&self, pixels: Tensor<4>) -> FeatureGrid {
        let native = self.native_grid(pixels.dims());
        self.encode(pixels, Some(native))
    }

    /// The features on the grid `tokens`, else on that of the name's `-interp<N>`, else on the
    /// network's own as in [`forward`](Self::forward). Resampling is bilinear; of several stages,
    /// each is resampled alone.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn encode(&self, pixels: Tensor<4>, tokens: Option<Grid>) -> FeatureGrid {
        self.encode_traced(pixels, tokens, &mut Trace::off())
    }

    /// [`encode`](Self::encode), with somebody listening to intermediate tensors.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn encode_traced(
        &self,
        pixels: Tensor<4>,
        tokens: Option<Grid>,
        trace: &mut Trace,
    ) -> FeatureGrid {
        let native = self.native_grid(pixels.dims());
        let target = tokens.or(self.spec.tokens).unwrap_or(native);
        let (first, others) = self.outputs(pixels, trace);
        let first = first.resample(target);
        if others.is_empty() {
            return first;
        }
        let mut grids = vec![first];
        grids.extend(others.into_iter().map(|grid| grid.resample(target)));
        FeatureGrid::concat(&grids)
    }

    /// The tokens of a network that sees only some patches of each picture, class token first:
    /// what masked autoencoding trains (arXiv 2111.06377).
    ///
    /// # Shapes
    /// - `pixels`: `[b, 3, h, w]`, prepared by [`preprocessor`](Self::preprocessor)
    /// - `visible`: for each picture the `k` patches of its grid that are seen, row-major
    /// - output: `[b, 1 + k, d]`, patches in the order of `visible`
    ///
    /// # Errors
    /// If the network needs all patches; only DINOv2's does not.
    ///
    /// # Panics
    /// If the pictures differ in `k`, or a patch does not exist.
    pub fn encode_visible(
        &self,
        pixels: Tensor<4>,
        visible: &[Vec<usize>],
    ) -> Result<Tensor<3>, VisionError> {
        match &self.network {
            Network::Dinov2(network) => Ok(network.forward_visible(pixels, visible)),
            Network::Clip(_) | Network::Siglip(_) | Network::ConvNext(_) => {
                Err(VisionError::NeedsAllPatches {
                    name: self.spec.entry.name(),
                    family: self.spec.entry.family,
                })
            }
        }
    }

    /// Whether the network has a token that stands for the whole picture.
    #[must_use]
    pub fn has_class_token(&self) -> bool {
        matches!(self.network, Network::Clip(_) | Network::Dinov2(_))
    }

    /// The class token of the layer that gives the features: of CLIP without the norm that follows its
    /// last layer, of DINOv2 with it.
    ///
    /// # Shapes
    /// - `pixels`: `[b, 3, px, px]`, prepared by [`preprocessor`](Self::preprocessor)
    /// - output: `[b, width]`
    ///
    /// # Errors
    /// [`VisionError::NoClassToken`] if the network has none.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn class_token(&self, pixels: Tensor<4>) -> Result<Tensor<2>, VisionError> {
        let mut trace = Trace::off();
        let (tokens, _) = match &self.network {
            Network::Clip(network) => network.tokens(pixels, &mut trace),
            Network::Dinov2(network) => network.tokens(pixels, &mut trace),
            Network::Siglip(_) | Network::ConvNext(_) => {
                return Err(VisionError::NoClassToken {
                    name: self.spec.entry.name(),
                    family: self.spec.entry.family,
                });
            }
        };
        let [b, _, d] = tokens.dims();
        Ok(tokens.narrow(1, 0, 1).reshape([b, d]))
    }

    /// SHA-256 of all parameters as they are in memory, in hexadecimal: by it, features of other
    /// weights are told apart.
    #[must_use]
    pub fn weights_hash(&self) -> String {
        struct Hash(Sha256);
        impl ModuleVisitor for Hash {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                packed::with_bytes(param, |bytes| self.0.update(bytes));
            }
        }
        let mut hash = Hash(Sha256::new());
        self.visit(&mut hash);
        format!("{:x}", hash.0.finalize())
    }

    /// What, beside its weights, makes an encoder's features what they are: its network's configuration
    /// and how it prepares pictures.
    #[must_use]
    pub fn settings(&self) -> String {
        format!("{:?} {:?}", self.preprocessor(), self.config())
    }

    /// The selected outputs, each on its own grid, finest first.
    fn outputs(&self, pixels: Tensor<4>, trace: &mut Trace) -> (FeatureGrid, Vec<FeatureGrid>) {
        match &self.network {
            Network::Clip(network) => (network.forward(pixels, trace), Vec::new()),
            Network::Siglip(network) => (network.forward(pixels, trace), Vec::new()),
            Network::Dinov2(network) => (network.forward(pixels, trace), Vec::new()),
            Network::ConvNext(network) => {
                let [first, second, third, last] = network.forward(pixels, trace);
                match self.spec.select {
                    Select::AllStages => (first, vec![second, third, last]),
                    Select::Layer(_) | Select::Final | Select::LastStage => (last, Vec::new()),
                }
            }
        }
    }

    /// How pictures are prepared for this encoder, as the reference implementation does it.
    #[must_use]
    pub fn preprocessor(&self) -> Preprocessor {
        (self.spec.entry.preprocessor)(self.side())
    }

    /// What was asked for.
    #[must_use]
    pub fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    /// The architecture.
    #[must_use]
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Side of its pictures in pixels.
    #[must_use]
    pub fn side(&self) -> u32 {
        self.spec.side.unwrap_or_else(|| self.config.side())
    }

    /// The network's own grid on its pictures; of several stages, the finest one's.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.grid_at(self.side())
    }

    /// The network's own grid on pictures of another side in pixels.
    #[must_use]
    pub fn grid_at(&self, side: u32) -> Grid {
        self.native_grid([1, 3, side as usize, side as usize])
    }

    /// The grid that [`encode`](Self::encode) gives if nothing else is asked for.
    #[must_use]
    pub fn output_grid(&self) -> Grid {
        self.spec.tokens.unwrap_or_else(|| self.grid())
    }

    /// Pixels per cell of the network's own grid, both ways.
    #[must_use]
    pub fn stride(&self) -> usize {
        match self.config.vit() {
            Some(vit) => vit.patch,
            None => convnext::FIRST_STRIDE << self.first_stage(),
        }
    }

    /// Width of a feature.
    #[must_use]
    pub fn width(&self) -> usize {
        self.stage_widths().iter().sum()
    }

    /// Widths of the outputs that make up a feature: several for an encoder of which all stages are
    /// taken, finest first, else one.
    #[must_use]
    pub fn stage_widths(&self) -> Vec<usize> {
        match &self.config {
            EncoderConfig::ConvNext(config) => config.dims[self.first_stage()..].to_vec(),
            EncoderConfig::Clip(vit) | EncoderConfig::Dinov2(vit) => vec![vit.width],
            EncoderConfig::Siglip(siglip) => vec![siglip.vit.width],
        }
    }

    /// Blocks that are run.
    #[must_use]
    pub fn layers(&self) -> usize {
        match &self.network {
            Network::Clip(clip) => clip.blocks(),
            Network::Siglip(_) | Network::Dinov2(_) | Network::ConvNext(_) => self.config.layers(),
        }
    }

    /// Numbers in all parameters.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let count = |shape: &[usize]| shape.iter().map(|n| *n as u64).product::<u64>();
        parameters(self)
            .iter()
            .map(|parameter| count(&parameter.shape))
            .sum()
    }

    /// From the paths of this module to the keys of its published checkpoint, for saving it as it
    /// was published.
    #[must_use]
    pub fn key_map(&self) -> KeyMap {
        self.key_map_under(self.prefixes()[0])
    }

    /// The key map with the first prefix under which the checkpoint holds the network.
    fn key_map_for(&self, checkpoint: &Checkpoint) -> Result<KeyMap, VisionError> {
        let first_weight = match self.network {
            Network::ConvNext(_) => "stem.conv.weight",
            Network::Clip(_) | Network::Siglip(_) | Network::Dinov2(_) => "patch.weight",
        };
        let mut expected = Vec::new();
        for prefix in self.prefixes() {
            let map = self.key_map_under(prefix);
            let key = map.file_key(first_weight).key;
            if checkpoint.contains(&key) {
                return Ok(map);
            }
            expected.push(key);
        }
        Err(VisionError::Layout {
            path: checkpoint.location().to_path_buf(),
            expected,
        })
    }

    fn prefixes(&self) -> &'static [&'static str] {
        match &self.config {
            EncoderConfig::Clip(_) => clip::PREFIXES,
            EncoderConfig::Siglip(config) => config.prefixes(),
            EncoderConfig::Dinov2(_) => dinov2::PREFIXES,
            EncoderConfig::ConvNext(_) => convnext::PREFIXES,
        }
    }

    fn key_map_under(&self, prefix: &str) -> KeyMap {
        match &self.config {
            EncoderConfig::Clip(_) => clip::key_map(prefix),
            EncoderConfig::Siglip(config) => config.key_map(prefix),
            EncoderConfig::Dinov2(config) => dinov2::key_map(config, prefix),
            EncoderConfig::ConvNext(_) => convnext::key_map(prefix),
        }
    }

    fn ignored_keys(&self) -> Vec<String> {
        match &self.config {
            EncoderConfig::Clip(config) => clip::ignored_keys(self.layers(), config.layers),
            EncoderConfig::Siglip(_) => siglip::ignored_keys(),
            EncoderConfig::Dinov2(_) => dinov2::ignored_keys(),
            EncoderConfig::ConvNext(_) => convnext::ignored_keys(),
        }
    }

    /// The first stage that is taken; 0 where there is but one.
    fn first_stage(&self) -> usize {
        match (&self.config, self.spec.select) {
            (EncoderConfig::ConvNext(_), Select::AllStages) => 0,
            (EncoderConfig::ConvNext(config), _) => config.dims.len() - 1,
            _ => 0,
        }
    }

    /// The finest grid that the network makes of `[b, 3, h, w]` pixels.
    fn native_grid(&self, [_, _, height, width]: [usize; 4]) -> Grid {
        match self.config.vit() {
            Some(vit) => vit.grid_of(height, width),
            None => convnext::stage_grid(self.first_stage(), height, width),
        }
    }

    /// A position table that is not resampled fits one grid only, and every grid needs a cell.
    fn check_side(&self) -> Result<(), VisionError> {
        let (name, side) = (self.spec.entry.name(), self.side());
        let smallest = match self.config.vit() {
            Some(vit) => vit.patch,
            None => convnext::LAST_STRIDE,
        };
        if (side as usize) < smallest {
            return Err(VisionError::SideTooSmall {
                name,
                side,
                smallest,
            });
        }
        match (&self.config, self.config.vit()) {
            (EncoderConfig::Clip(_) | EncoderConfig::Siglip(_), Some(vit))
                if vit.grid() != self.grid() =>
            {
                let (native, patch) = (vit.side, vit.patch);
                Err(VisionError::FixedSide {
                    name,
                    side,
                    native,
                    patch,
                })
            }
            _ => Ok(()),
        }
    }
}

impl Network {
    fn new(
        spec: &EncoderSpec,
        config: &EncoderConfig,
        device: &Device,
    ) -> Result<Self, VisionError> {
        Ok(match config {
            EncoderConfig::Clip(vit) => {
                Self::Clip(Clip::new(vit, blocks_for(spec.select, vit)?, device))
            }
            EncoderConfig::Siglip(siglip) => Self::Siglip(Siglip::new(&siglip.vit, device)),
            EncoderConfig::Dinov2(vit) => Self::Dinov2(Dinov2::new(vit, device)),
            EncoderConfig::ConvNext(convnext) => Self::ConvNext(ConvNext::new(convnext, device)),
        })
    }
}

/// How many blocks are needed for the selected layer.
fn blocks_for(select: Select, vit: &VitConfig) -> Result<usize, VisionError> {
    let Select::Layer(layer) = select else {
        return Ok(vit.layers);
    };
    let from_end = usize::try_from(layer.unsigned_abs()).ok();
    let blocks = if layer < 0 {
        from_end.and_then(|back| (vit.layers + 1).checked_sub(back))
    } else {
        from_end.filter(|blocks| *blocks <= vit.layers)
    };
    blocks.ok_or(VisionError::SelectLayer {
        layer,
        layers: vit.layers,
    })
}

/// Prepared pictures as a tensor, `[b, 3, h, w]`.
#[must_use]
pub fn pixel_tensor(pixels: PixelBatch, device: &Device) -> Tensor<4> {
    let shape = pixels.shape();
    Tensor::from_data(TensorData::new(pixels.into_data(), shape), device)
}

/// The start of every key map: paths inside an [`Encoder`] become paths inside its network.
pub(crate) fn network_paths() -> KeyMap {
    KeyMap::new().rename(r"^network\.\w+\.", "")
}

#[cfg(test)]
mod tests;
