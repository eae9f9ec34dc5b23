//! Features of pictures, kept from one run to the next.
//!
//! Looking costs most of an evaluation of short answers. What an encoder sees of a picture depends on the
//! picture's pixels, the encoder's weights, the preparation and the grid, and is stored under a hash of
//! these, in 32 bits, so that scores are the same with and without the store. (Training keeps 16 bits;
//! its keys are others.) Features of a large model are large, so nothing is stored unless somebody names
//! a folder.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use burn::prelude::*;
use burn::tensor::TensorData;
use opabinia_data::features::{EncoderKey, FeatureStore, Features, Key};
use opabinia_image::RgbImage;
use opabinia_model::{Model, ModelError, Seen};
use opabinia_nn::{FeatureGrid, Grid, Trace};
use sha2::{Digest, Sha256};

use crate::error::in_full;

/// A model's eyes, and what they have seen.
pub struct FeatureCache<'a> {
    model: &'a Model,
    store: &'a FeatureStore,
    encoders: Vec<Parts>,
    known: AtomicUsize,
    problem: Mutex<Option<String>>,
}

/// What the features of an encoder depend on besides the picture.
struct Parts {
    key: EncoderKey,
    grid: Grid,
    width: usize,
}

impl<'a> FeatureCache<'a> {
    /// Reads all weights of the encoders, for their hashes.
    pub fn new(model: &'a Model, store: &'a FeatureStore) -> Self {
        let vision = model.config.vision.iter();
        let named = vision.flat_map(|vision| vision.encoders.iter().zip(&vision.grids));
        let encoders = model.network.encoders.iter().zip(named);
        let parts = encoders.map(|(encoder, (name, grid))| Parts {
            key: EncoderKey {
                encoder: name.clone(),
                weights: encoder.weights_hash(),
                preprocessing: format!("{} in 32 bits", encoder.settings()),
                grid: (grid.rows, grid.cols),
            },
            grid: *grid,
            width: encoder.width(),
        });
        Self {
            model,
            store,
            encoders: parts.collect(),
            known: AtomicUsize::new(0),
            problem: Mutex::default(),
        }
    }

    /// Looks at a picture with those encoders whose features of it are not known.
    pub fn see(&self, picture: &RgbImage) -> Result<Arc<Seen>, ModelError> {
        let pixels: [u8; 32] = Sha256::digest(picture.content_hash()).into();
        let mut all_known = true;
        let seen = self
            .model
            .see_through(picture, &mut Trace::off(), &mut |index, look| {
                let Some(parts) = self.encoders.get(index) else {
                    return look();
                };
                let key = parts.key.of(&pixels);
                if let Some(features) = self.find(parts, &key) {
                    return Ok(features);
                }
                all_known = false;
                let features = look()?;
                self.keep(&key, &features);
                Ok(features)
            })?;
        if all_known {
            self.known.fetch_add(1, Ordering::Relaxed);
        }
        Ok(seen)
    }

    /// Pictures that no encoder had to look at.
    pub fn known(&self) -> usize {
        self.known.load(Ordering::Relaxed)
    }

    /// What is wrong with the store, if anything: pictures were then looked at.
    pub fn problem(&self) -> Option<String> {
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        problem.clone()
    }

    fn find(&self, parts: &Parts, key: &Key) -> Option<FeatureGrid> {
        let found = match self.store.get(key) {
            Ok(found) => found?,
            Err(error) => {
                self.note(in_full(&error));
                return None;
            }
        };
        // The key says so; a record of another shape is no answer to it.
        if (found.rows, found.width) != (parts.grid.len(), parts.width) {
            return None;
        }
        let data = TensorData::new(found.values, [1, found.rows, found.width]);
        let tensor = Tensor::from_data(data, &self.model.device);
        Some(FeatureGrid::new(tensor, parts.grid))
    }

    fn keep(&self, key: &Key, features: &FeatureGrid) {
        let [_, rows, width] = features.features.dims();
        let data = features.features.clone().into_data().convert::<f32>();
        let kept = match data.try_to_vec() {
            Ok(values) => self.store.put(
                key,
                &Features {
                    rows,
                    width,
                    values,
                },
            ),
            Err(error) => {
                return self.note(format!("features are no numbers of 32 bits: {error:?}"));
            }
        };
        if let Err(error) = kept {
            self.note(in_full(&error));
        }
    }

    fn note(&self, problem: String) {
        let mut noted = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get_or_insert(problem);
    }
}
