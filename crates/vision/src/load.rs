//! From a published folder to an encoder.

use std::path::Path;

use opabinia_weights::{Checkpoint, LoadOptions, LoadReport};

use crate::config::EncoderConfig;
use crate::encoder::Encoder;
use crate::error::VisionError;
use crate::spec::EncoderSpec;

/// Loads an encoder from a folder with its configuration and weights, or from a weights file with
/// the configuration beside it.
///
/// # Errors
/// If the configuration cannot be used ([`EncoderConfig::read`]), is of another family than the
/// name, or does not fit the weights or the side that was asked for.
pub fn load_encoder(
    spec: &EncoderSpec,
    path: &Path,
    options: &LoadOptions,
) -> Result<(Encoder, LoadReport), VisionError> {
    let folder = match path.parent() {
        Some(parent) if path.is_file() => parent,
        _ => path,
    };
    let config = EncoderConfig::read(folder)?;
    load_with_config(spec, config, path, options)
}

/// Loads an encoder whose configuration is not beside its weights.
///
/// # Errors
/// As [`load_encoder`].
pub fn load_with_config(
    spec: &EncoderSpec,
    config: EncoderConfig,
    path: &Path,
    options: &LoadOptions,
) -> Result<(Encoder, LoadReport), VisionError> {
    let device = options.device.clone().unwrap_or_default();
    let encoder = Encoder::new(spec, config, &device)?;
    encoder.load(&Checkpoint::open(path)?, options)
}
