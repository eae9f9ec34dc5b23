//! One vector for each picture: what a frozen encoder sees, pooled and kept by content.
//!
//! Pooling is stated in every report. `class-token` is the token that CLIP and DINOv2 have for the
//! picture, from the layer that gives the features (of CLIP the last but one, without the norm that
//! follows the last; see the registry). `mean` is the mean of the features of those cells that show the
//! picture and not its padding, on the encoder's own grid, or on one of 64 × 64 cells where that is
//! finer. Pictures are prepared as the encoder's row of the registry says, padded to a square.
//!
//! A vector is stored under a hash of the picture's file, the encoder and its weights, the preparation
//! and the pooling, in the store that training keeps features in.

use std::collections::HashMap;
use std::path::Path;

use burn::prelude::*;
use opabinia_data::features::{FeatureStore, Features, Key, KeyParts};
use opabinia_data::pictures::picture_hash;
use opabinia_image::{ImageLimits, ImageSource, PixelBatch, Preprocessor, RgbImage, load, prepare};
use opabinia_nn::{Grid, Region};
use opabinia_vision::{Encoder, pixel_tensor};
use rayon::prelude::*;
use serde::Serialize;

use super::data::{ProbeData, ProbeFault};
use super::error::ProbeError;
use super::matrix::Matrix;
use crate::error::in_full;

/// Cells of a grid that a mean is taken over, each way, at most.
const MOST_CELLS: usize = 64;

/// What a picture's features become one vector by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The token for the whole picture.
    ClassToken,
    /// The mean over the picture.
    Mean,
}

impl Pooling {
    /// As reports have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClassToken => "class token",
            Self::Mean => "mean",
        }
    }
}

/// A frozen encoder that gives a vector for a picture.
pub struct ProbeEncoder {
    name: String,
    encoder: Encoder,
    pooling: Pooling,
    preprocessor: Preprocessor,
    /// Hash of the weights.
    weights: String,
    device: Device,
}

/// The vectors of one encoder.
#[derive(Debug)]
pub struct FeatureTable {
    /// One row for each picture that could be used.
    pub rows: Matrix,
    /// Which picture each row is of, ascending.
    pub pictures: Vec<usize>,
    /// Pictures that could not be used.
    pub faults: Vec<ProbeFault>,
    /// Pictures whose vector was known already.
    pub known: usize,
    /// Test pictures whose file, byte by byte, is also one of the training's.
    pub leaked: usize,
}

impl ProbeEncoder {
    /// An encoder on a device. Without a wish, the class token is taken where there is one.
    ///
    /// # Errors
    /// If a class token is wished for that the encoder does not have.
    pub fn new(
        name: String,
        encoder: Encoder,
        pooling: Option<Pooling>,
        device: &Device,
    ) -> Result<Self, ProbeError> {
        let pooling = pooling.unwrap_or(match encoder.has_class_token() {
            true => Pooling::ClassToken,
            false => Pooling::Mean,
        });
        if pooling == Pooling::ClassToken && !encoder.has_class_token() {
            let entry = encoder.spec().entry;
            return Err(ProbeError::Vision(
                opabinia_vision::VisionError::NoClassToken {
                    name: entry.name(),
                    family: entry.family,
                },
            ));
        }
        Ok(Self {
            name,
            pooling,
            preprocessor: encoder.preprocessor(),
            weights: encoder.weights_hash(),
            device: device.clone(),
            encoder,
        })
    }

    /// What reports call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How vectors are made.
    #[must_use]
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// SHA-256 of its weights.
    #[must_use]
    pub fn weights(&self) -> &str {
        &self.weights
    }

    /// Side of the pictures that it sees, in pixels.
    #[must_use]
    pub fn side(&self) -> u32 {
        self.encoder.side()
    }

    /// The vectors of all pictures, `batch` at a time; known ones come from the store.
    ///
    /// # Errors
    /// If the store or a file cannot be read, or the encoder gives no numbers.
    pub fn look(
        &self,
        data: &ProbeData,
        store: &FeatureStore,
        limits: &ImageLimits,
        batch: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<FeatureTable, ProbeError> {
        let mut table = FeatureTable {
            rows: Matrix::new(self.encoder.width()),
            pictures: Vec::new(),
            faults: Vec::new(),
            known: 0,
            leaked: 0,
        };
        let mut trained: HashMap<[u8; 32], ()> = HashMap::new();
        let all = data.pictures.len();
        let mut done = 0;
        progress(done, all);
        for chunk in data.pictures.chunks(batch.max(1)) {
            let paths: Vec<&Path> = chunk.iter().map(|picture| picture.path.as_path()).collect();
            let vectors = self.vectors(&paths, store, limits)?;
            for (picture, vector) in chunk.iter().zip(vectors) {
                match vector {
                    Ok(vector) => {
                        table.rows.push(&vector.values);
                        table.pictures.push(done);
                        table.known += usize::from(vector.known);
                        match picture.split {
                            super::Split::Train => {
                                trained.insert(vector.hash, ());
                            }
                            super::Split::Test => {
                                table.leaked += usize::from(trained.contains_key(&vector.hash));
                            }
                        }
                    }
                    Err(problem) => table.faults.push(ProbeFault {
                        what: picture.path.display().to_string(),
                        problem,
                    }),
                }
                done += 1;
            }
            progress(done, all);
        }
        Ok(table)
    }

    /// The vectors of a few pictures, or why there is none.
    fn vectors(
        &self,
        paths: &[&Path],
        store: &FeatureStore,
        limits: &ImageLimits,
    ) -> Result<Vec<Result<Vector, String>>, ProbeError> {
        let found: Vec<_> = paths
            .par_iter()
            .map(|path| self.find(path, store, limits))
            .collect::<Result<_, _>>()?;
        let new: Vec<(usize, &RgbImage)> = found
            .iter()
            .enumerate()
            .filter_map(|(place, found)| match found {
                Found::New(_, picture) => Some((place, picture)),
                Found::Known(..) | Found::Broken(_) => None,
            })
            .collect();
        let pictures: Vec<&RgbImage> = new.iter().map(|(_, picture)| *picture).collect();
        let about: Vec<&Path> = new
            .iter()
            .filter_map(|(place, _)| paths.get(*place).copied())
            .collect();
        let mut seen = self.see(&pictures, &about)?.into_iter();
        let mut vectors = Vec::with_capacity(found.len());
        for found in found {
            vectors.push(match found {
                Found::Known(hash, values) => Ok(Vector {
                    hash,
                    values,
                    known: true,
                }),
                Found::Broken(problem) => Err(problem),
                Found::New(hash, _) => {
                    let values = seen.next().unwrap_or_default();
                    let features = Features {
                        rows: 1,
                        width: values.len(),
                        values,
                    };
                    store
                        .put(&self.key(&hash), &features)
                        .map_err(ProbeError::Cache)?;
                    Ok(Vector {
                        hash,
                        values: features.values,
                        known: false,
                    })
                }
            });
        }
        Ok(vectors)
    }

    fn find(
        &self,
        path: &Path,
        store: &FeatureStore,
        limits: &ImageLimits,
    ) -> Result<Found, ProbeError> {
        let hash = match picture_hash(path) {
            Ok(hash) => hash,
            Err(error) => return Ok(Found::Broken(in_full(&error))),
        };
        let known = store.get(&self.key(&hash)).map_err(ProbeError::Cache)?;
        if let Some(features) = known.filter(|found| found.values.len() == self.encoder.width()) {
            return Ok(Found::Known(hash, features.values));
        }
        Ok(match load(&ImageSource::File(path.to_owned()), limits) {
            Ok(picture) => Found::New(hash, picture),
            Err(error) => Found::Broken(in_full(&error)),
        })
    }

    /// Looks at pictures.
    fn see(&self, pictures: &[&RgbImage], paths: &[&Path]) -> Result<Vec<Vec<f32>>, ProbeError> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let prepared: Vec<PixelBatch> = pictures
            .par_iter()
            .zip(paths)
            .map(|(picture, path)| {
                prepare(picture, &self.preprocessor).map_err(|source| ProbeError::Prepare {
                    path: path.to_path_buf(),
                    encoder: self.name.clone(),
                    source,
                })
            })
            .collect::<Result<_, _>>()?;
        let pixels = PixelBatch::stack(prepared).map_err(|source| ProbeError::Prepare {
            path: paths
                .first()
                .map(|path| path.to_path_buf())
                .unwrap_or_default(),
            encoder: self.name.clone(),
            source,
        })?;
        let pixels = pixel_tensor(pixels, &self.device);
        let width = self.encoder.width();
        let vectors = match self.pooling {
            Pooling::ClassToken => {
                let values = self.numbers(self.encoder.class_token(pixels)?.into_data())?;
                values.chunks(width).map(<[f32]>::to_vec).collect()
            }
            Pooling::Mean => {
                let own = self.encoder.output_grid();
                let grid = match own.rows.max(own.cols) > MOST_CELLS {
                    true => Grid::square(MOST_CELLS),
                    false => own,
                };
                let seen = self.encoder.encode(pixels, Some(grid));
                let values = self.numbers(seen.features.into_data())?;
                let of_picture = values.chunks(grid.len() * width).zip(pictures);
                of_picture
                    .map(|(cells, picture)| mean(cells, width, grid, picture))
                    .collect::<Vec<_>>()
            }
        };
        for (vector, path) in vectors.iter().zip(paths) {
            if !vector.iter().all(|value| value.is_finite()) {
                return Err(ProbeError::NotFinite {
                    path: path.to_path_buf(),
                    encoder: self.name.clone(),
                });
            }
        }
        Ok(vectors)
    }

    fn numbers(&self, data: TensorData) -> Result<Vec<f32>, ProbeError> {
        let numbers = data.convert::<f32>().try_to_vec::<f32>();
        numbers.map_err(|error| ProbeError::Features {
            encoder: self.name.clone(),
            problem: format!("{error:?}"),
        })
    }

    fn key(&self, picture: &[u8; 32]) -> Key {
        Key::of(&KeyParts {
            picture,
            encoder: &format!(
                "{}, {} of each picture",
                self.encoder.spec(),
                self.pooling.name()
            ),
            weights: &self.weights,
            preprocessing: &format!("{:?}", self.preprocessor),
            grid: (1, 1),
        })
    }
}

/// What is known of a picture before the encoder looks.
enum Found {
    Known([u8; 32], Vec<f32>),
    New([u8; 32], RgbImage),
    Broken(String),
}

/// A picture's vector.
struct Vector {
    /// Of its file.
    hash: [u8; 32],
    values: Vec<f32>,
    known: bool,
}

/// The mean over the cells that show the picture.
fn mean(cells: &[f32], width: usize, grid: Grid, picture: &RgbImage) -> Vec<f32> {
    let mut region = Region::whole(grid);
    if grid.rows == grid.cols {
        let found = Region::of_picture(picture.width(), picture.height(), grid.rows);
        if !found.grid().is_empty() {
            region = found;
        }
    }
    let mut sums = vec![0.0f64; width];
    let mut count = 0.0;
    for (cell, values) in cells.chunks(width.max(1)).enumerate() {
        if !region.contains(cell / grid.cols.max(1), cell % grid.cols.max(1)) {
            continue;
        }
        count += 1.0;
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += f64::from(*value);
        }
    }
    sums.iter()
        .map(|sum| (sum / f64::max(count, 1.0)) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wide picture on 4 × 4 cells fills the two rows in the middle.
    #[test]
    fn padding_is_not_part_of_the_mean() {
        let cells: Vec<f32> = (0..16u8).map(f32::from).collect();
        let wide = RgbImage::filled(8, 4, [0; 3]).unwrap();
        let square = RgbImage::filled(8, 8, [0; 3]).unwrap();
        let grid = Grid::square(4);
        // Cells 4 to 11.
        assert_eq!(mean(&cells, 1, grid, &wide), [7.5]);
        assert_eq!(mean(&cells, 1, grid, &square), [7.5]);
        let cells: Vec<f32> = (0..16u8).map(|i| f32::from(i * i)).collect();
        // (16 + 25 + … + 121) / 8 and (0 + … + 225) / 16.
        assert_eq!(mean(&cells, 1, grid, &wide), [61.5]);
        assert_eq!(mean(&cells, 1, grid, &square), [77.5]);
    }
}
