//! Vision encoders before they have learnt anything.

use std::path::{Path, PathBuf};

use burn::prelude::*;
use opabinia_vision::{Encoder, EncoderConfig, EncoderSpec, Select};
use opabinia_weights::{Checkpoint, LoadOptions, WeightDtype};

use super::start::{Start, grid_waves, plain};
use crate::{Task, TrainError};

/// First scale of ConvNeXt's residual branches: CaiT's for shallow networks (arXiv 2103.17239).
/// The 10⁻⁶ of the published ones, which train for hundreds of epochs, costs a short run its
/// beginning.
const BRANCH_SCALE: f64 = 0.1;

/// Which encoder is trained: a row of the registry, the sizes to build it in, and what it starts
/// from.
#[derive(Clone, Debug)]
pub struct EncoderChoice {
    /// The row: family, preparation of pictures, side.
    pub spec: EncoderSpec,
    /// The sizes, from a `config.json` of the family or the row's own.
    pub config: EncoderConfig,
    /// A folder or file of weights to start from; first weights if there is none.
    pub weights: Option<PathBuf>,
}

/// Which outputs of an encoder with several stages are trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outputs {
    /// The last, through which the gradient reaches all others.
    Last,
    /// All, side by side, as a connector gets them.
    All,
}

/// A task that ends in a vision encoder.
pub trait EncoderTask: Task {
    /// The encoder and what serves its training, with first weights.
    ///
    /// # Errors
    /// If the weights to start from cannot be used.
    fn module(&self, seed: u64, device: &Device) -> Result<Self::Module, TrainError>;

    /// A hash of what determines the training beside samples, if anything does.
    ///
    /// # Errors
    /// If it cannot be read.
    fn supervision(&self) -> Result<Option<String>, TrainError> {
        Ok(None)
    }

    /// The encoder in it.
    fn encoder(module: &Self::Module) -> &Encoder;

    /// Writes the encoder as its family publishes it; what served its training has served.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn finish(
        &self,
        module: &Self::Module,
        folder: &Path,
        dtype: WeightDtype,
    ) -> Result<(), TrainError> {
        Self::encoder(module).valid().save(folder, dtype)?;
        Ok(())
    }
}

impl EncoderChoice {
    /// The encoder as the training sees it.
    pub(crate) fn build(&self, outputs: Outputs, device: &Device) -> Result<Encoder, TrainError> {
        let select = match (self.spec.select, outputs) {
            (Select::AllStages, Outputs::Last) => Select::LastStage,
            (other, _) => other,
        };
        let spec = EncoderSpec {
            select,
            tokens: None,
            ..self.spec
        };
        Ok(Encoder::new(&spec, self.config, device)?)
    }

    /// Puts the weights to start from in place, if there are any.
    pub(crate) fn with_weights(
        &self,
        encoder: Encoder,
        device: &Device,
    ) -> Result<Encoder, TrainError> {
        let Some(path) = &self.weights else {
            return Ok(encoder);
        };
        let options = LoadOptions::new(WeightDtype::F32).on_device(device);
        let (encoder, _) = encoder.load(&Checkpoint::open(path)?, &options)?;
        Ok(encoder)
    }
}

/// The first weights of an encoder's parameter: Xavier's, as masked autoencoding starts transformers (arXiv
/// 2111.06377, appendix A), and waves as positions. ConvNeXt's published start, normal with 0.02,
/// fits widths of a thousand and drowns the signal of a narrow network, so it is Xavier's, too.
pub(crate) fn first_value(config: &EncoderConfig, path: &str, shape: &[usize]) -> Start {
    let name = path.rsplit('.').next();
    match (config.vit(), name) {
        (None, Some("gamma")) => Start::Constant(BRANCH_SCALE),
        (None, _) => plain(path, shape, Start::Xavier),
        (Some(_), Some("class")) => Start::Normal(0.02),
        (Some(vit), Some("position")) => {
            let grid = vit.grid();
            let waves = grid_waves(grid.rows, grid.cols, vit.width);
            // A class token's row, if there is one, comes first and knows no place.
            let mut table = vec![0.0; shape.iter().product::<usize>() - waves.len()];
            table.extend(waves);
            Start::Values(table)
        }
        (Some(_), _) => plain(path, shape, Start::Xavier),
    }
}
