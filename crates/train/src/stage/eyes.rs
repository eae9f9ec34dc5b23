//! Frozen encoders: what they see is computed once, off the graph, and kept by content.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use burn::module::Module as _;
use burn::prelude::*;
use burn::tensor::TensorData;
use opabinia_connector::PictureSize;
use opabinia_data::SampleError;
use opabinia_data::features::{EncoderKey, FeatureStore, Features, Key, KeyParts};
use opabinia_data::pictures::picture_hash;
use opabinia_image::{Preprocessor, RgbImage, prepare};
use opabinia_model::{Model, PictureInput};
use opabinia_nn::{FeatureGrid, Grid};
use opabinia_vision::{Encoder, pixel_tensor};

use crate::TrainError;

/// Frozen encoders and what they have seen.
pub struct FrozenEyes {
    encoders: Vec<FrozenEncoder>,
    /// Where they are, without gradients.
    device: Device,
    store: Option<FeatureStore>,
    /// Sizes of pictures whose features are known.
    sizes: Mutex<HashMap<[u8; 32], PictureSize>>,
}

struct FrozenEncoder {
    encoder: Encoder,
    grid: Grid,
    preprocessor: Preprocessor,
    /// What its features depend on besides the picture.
    key: EncoderKey,
}

impl FrozenEyes {
    /// Takes the encoders of a model as they are, off the graph, on the device that they are on
    /// (`device`, without gradients); features go to `store`.
    #[must_use]
    pub fn new(model: &Model, device: &Device, store: Option<FeatureStore>) -> Self {
        let Some(vision) = &model.config.vision else {
            return Self {
                encoders: Vec::new(),
                device: device.clone(),
                store,
                sizes: Mutex::default(),
            };
        };
        let named = vision.encoders.iter().zip(&vision.grids);
        let encoders = model.network.encoders.iter().zip(named);
        let freeze = |(encoder, (name, grid)): (&Encoder, (&String, &Grid))| {
            let encoder = encoder.valid();
            let preprocessor = encoder.preprocessor();
            FrozenEncoder {
                grid: *grid,
                key: EncoderKey {
                    encoder: name.clone(),
                    weights: match store {
                        Some(_) => encoder.weights_hash(),
                        None => String::new(),
                    },
                    preprocessing: encoder.settings(),
                    grid: (grid.rows, grid.cols),
                },
                preprocessor,
                encoder,
            }
        };
        Self {
            encoders: encoders.map(freeze).collect(),
            device: device.clone(),
            store,
            sizes: Mutex::default(),
        }
    }

    /// Features of a picture with every encoder, from the cache where they are known.
    pub(crate) fn see(
        &self,
        path: &Path,
        load: impl FnOnce() -> Result<RgbImage, SampleError>,
    ) -> Result<Result<PictureInput, SampleError>, TrainError> {
        let Some(store) = &self.store else {
            return Ok(match load() {
                Ok(picture) => {
                    let grids = self
                        .encoders
                        .iter()
                        .map(|eye| eye.see(&picture, &self.device));
                    let grids = grids.collect::<Result<_, _>>()?;
                    Ok(PictureInput::Features(grids, size_of(&picture)))
                }
                Err(error) => Err(error),
            });
        };
        let picture = match picture_hash(path) {
            Ok(picture) => picture,
            // Loading it says what is wrong, and with which sample.
            Err(error) => {
                return match load() {
                    Err(bad) => Ok(Err(bad)),
                    Ok(_) => Err(error.into()),
                };
            }
        };
        if let Some(known) = self.known(store, &picture)? {
            return Ok(Ok(known));
        }
        let pixels = match load() {
            Ok(pixels) => pixels,
            Err(error) => return Ok(Err(error)),
        };
        for eye in &self.encoders {
            let seen = eye.see(&pixels, &self.device)?;
            store.put(&eye.key.of(&picture), &features_of(&seen)?)?;
        }
        store.put(&size_key(&picture), &write_size(size_of(&pixels)))?;
        // What is kept is rounded. A run that finds features here and one that has just put them
        // here must see the same, or a run that was killed would go on with other losses.
        match self.known(store, &picture)? {
            Some(known) => Ok(Ok(known)),
            None => Err(TrainError::Refused(format!(
                "the features of {} were written to the feature cache and are not there; is its \
                 disk sound?",
                path.display()
            ))),
        }
    }

    fn known(
        &self,
        store: &FeatureStore,
        picture: &[u8; 32],
    ) -> Result<Option<PictureInput>, TrainError> {
        let remembered = || self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = remembered().get(picture).copied();
        let size = match known {
            Some(size) => size,
            None => {
                let Some(size) = store.get(&size_key(picture))?.and_then(|f| read_size(&f)) else {
                    return Ok(None);
                };
                remembered().insert(*picture, size);
                size
            }
        };
        let mut grids = Vec::with_capacity(self.encoders.len());
        for eye in &self.encoders {
            let Some(features) = store.get(&eye.key.of(picture))? else {
                return Ok(None);
            };
            let Features {
                rows,
                width,
                values,
            } = features;
            let data = TensorData::new(values, [1, rows, width]);
            let tensor = Tensor::from_data(data, &self.device);
            grids.push(FeatureGrid::new(tensor, eye.grid));
        }
        Ok(Some(PictureInput::Features(grids, size)))
    }
}

impl FrozenEncoder {
    fn see(&self, picture: &RgbImage, device: &Device) -> Result<FeatureGrid, TrainError> {
        let pixels = prepare(picture, &self.preprocessor)
            .map_err(|error| TrainError::Refused(format!("{}: {error}", self.key.encoder)))?;
        let pixels = pixel_tensor(pixels, device);
        Ok(self.encoder.encode(pixels, Some(self.grid)))
    }
}

/// The size of a picture is kept beside its features, because the features do not tell it.
fn size_key(picture: &[u8; 32]) -> Key {
    Key::of(&KeyParts {
        picture,
        encoder: "size of the picture",
        weights: "",
        preprocessing: "",
        grid: (1, 4),
    })
}

/// Digits of base 1024, which half precision holds exactly.
fn write_size(size: PictureSize) -> Features {
    let digits = [
        size.width / 1024,
        size.width % 1024,
        size.height / 1024,
        size.height % 1024,
    ];
    Features {
        rows: 1,
        width: 4,
        values: digits.map(|digit| digit as f32).into(),
    }
}

fn read_size(features: &Features) -> Option<PictureSize> {
    let [a, b, c, d] = features.values[..] else {
        return None;
    };
    Some(PictureSize {
        width: a as u32 * 1024 + b as u32,
        height: c as u32 * 1024 + d as u32,
    })
}

pub(super) fn size_of(picture: &RgbImage) -> PictureSize {
    PictureSize {
        width: picture.width(),
        height: picture.height(),
    }
}

fn features_of(grid: &FeatureGrid) -> Result<Features, TrainError> {
    let [_, rows, width] = grid.features.dims();
    let data = grid.features.clone().into_data().convert::<f32>();
    let values = data
        .try_to_vec()
        .map_err(|error| TrainError::Refused(format!("features are no floats: {error:?}")))?;
    Ok(Features {
        rows,
        width,
        values,
    })
}
