//! Which type of weights fits into the memory at hand: `--dtype auto`.
//!
//! The most exact type that leaves room for everything else. What the files hold comes first: it costs
//! no rounding, and is mapped. Then bf16, int8, int4.

use std::path::Path;

use opabinia_weights::{Checkpoint, WeightDtype};

use crate::describe::describe_parts;
use crate::{ModelConfig, ModelError};

/// How large a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Numbers in it.
    pub parameters: u64,
    /// Bytes of its files.
    pub stored: u64,
    /// Whether they are packed already, so that there is nothing to choose.
    pub packed: bool,
}

/// Bits per number of each choice, scales included, the most exact first. Embeddings keep 16 bits, and
/// int4 models have parts in int8; both are small.
const CHOICES: [(WeightDtype, f64); 3] = [
    (WeightDtype::PackedBf16, 16.0),
    (WeightDtype::Int8, 8.5),
    (WeightDtype::Int4, 5.0),
];

/// Share of the free memory that weights may take; the rest is for activations, the cache of keys and
/// values, and whoever else is there.
const SHARE: f64 = 0.8;

impl Size {
    /// The size of the model in a folder, encoders that lie with it included; others count as bf16.
    ///
    /// # Errors
    /// If the configuration or the headers of the files cannot be read.
    pub fn of_model(folder: &Path) -> Result<Self, ModelError> {
        let config = ModelConfig::from_folder(folder)?;
        let checkpoint = Checkpoint::open(folder)?;
        let (parts, _) = describe_parts(folder, &config, &checkpoint)?;
        Ok(Self {
            parameters: parts.iter().map(|part| part.parameters).sum(),
            stored: parts
                .iter()
                .map(|part| part.bytes.unwrap_or(2 * part.parameters))
                .sum(),
            packed: checkpoint.is_packed(),
        })
    }

    /// The size of a checkpoint that holds one network.
    #[must_use]
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Self {
        let infos = checkpoint.keys().filter_map(|key| checkpoint.info(key));
        let (mut parameters, mut stored) = (0, 0);
        for info in infos {
            parameters += info.shape.iter().map(|n| *n as u64).product::<u64>();
            stored += info.bytes as u64;
        }
        Self {
            parameters,
            stored,
            packed: checkpoint.is_packed(),
        }
    }

    /// The most exact type that fits into `free` bytes; none if not even the shortest does.
    #[must_use]
    pub fn best(&self, free: u64) -> Option<WeightDtype> {
        let room = free as f64 * SHARE;
        if self.packed || self.stored as f64 <= room {
            return Some(WeightDtype::AsStored);
        }
        let fits = |bits: f64| self.parameters as f64 * bits / 8.0 <= room;
        let choice = CHOICES.iter().find(|(_, bits)| fits(*bits));
        choice.map(|(dtype, _)| *dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight billion numbers in f32: 32 GB, 16, 8.5, 5.
    #[test]
    fn the_most_exact_that_fits() {
        let size = Size {
            parameters: 8_000_000_000,
            stored: 32_000_000_000,
            packed: false,
        };
        let at = |gigabytes: u64| size.best(gigabytes * 1_000_000_000);
        assert_eq!(at(48), Some(WeightDtype::AsStored));
        assert_eq!(at(24), Some(WeightDtype::PackedBf16));
        assert_eq!(at(12), Some(WeightDtype::Int8));
        assert_eq!(at(7), Some(WeightDtype::Int4));
        assert_eq!(at(5), None);
        let packed = Size {
            packed: true,
            ..size
        };
        assert_eq!(packed.best(0), Some(WeightDtype::AsStored));
    }
}
