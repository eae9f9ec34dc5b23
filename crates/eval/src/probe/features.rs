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
use opabinia_data::FaultLimit;
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

/// Faults that a message shows.
const FAULTS_SHOWN: usize = 3;

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

/// How an encoder looks at many pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LookOptions {
    /// Pictures that it looks at together.
    pub batch: usize,
    /// How many pictures and entries may be unusable.
    pub max_bad: FaultLimit,
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

    /// The vectors of all pictures; known ones come from the store. A picture that cannot be used is listed.
    ///
    /// # Errors
    /// If the store cannot be used, or if more pictures cannot be used than the limit allows, those
    /// counted that the data lists already.
    pub fn look(
        &self,
        data: &ProbeData,
        store: &FeatureStore,
        limits: &ImageLimits,
        options: LookOptions,
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
        for chunk in data.pictures.chunks(options.batch.max(1)) {
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
            check_faults(data, &table, options.max_bad)?;
        }
        check_faults(data, &table, options.max_bad)?;
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
        let mut seen = self.see(&found, paths)?.into_iter();
        let mut vectors = Vec::with_capacity(found.len());
        for found in found {
            vectors.push(match found {
                Found::Known(hash, values) => Ok(Vector {
                    hash,
                    values,
                    known: true,
                }),
                Found::Broken(problem) => Err(problem),
                Found::New(hash, ..) => {
                    let values = seen.next().unwrap_or_default();
                    if values.is_empty() || !values.iter().all(|value| value.is_finite()) {
                        vectors.push(Err(format!(
                            "`{}` gives no finite features for it; are its weights sound?",
                            self.name
                        )));
                        continue;
                    }
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
            Ok(picture) => prepared(hash, picture, &self.preprocessor, &self.name),
            Err(error) => Found::Broken(in_full(&error)),
        })
    }

    /// Looks at the pictures that are new.
    fn see(&self, found: &[Found], paths: &[&Path]) -> Result<Vec<Vec<f32>>, ProbeError> {
        let mut pictures: Vec<&RgbImage> = Vec::new();
        let mut prepared: Vec<PixelBatch> = Vec::new();
        let mut about: Vec<&Path> = Vec::new();
        for (found, path) in found.iter().zip(paths) {
            if let Found::New(_, picture, pixels) = found {
                pictures.push(picture);
                prepared.push(pixels.clone());
                about.push(path);
            }
        }
        let paths = about;
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
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
            preprocessing: &self.encoder.settings(),
            grid: (1, 1),
        })
    }
}

/// Whether what cannot be used is few enough.
fn check_faults(
    data: &ProbeData,
    table: &FeatureTable,
    limit: FaultLimit,
) -> Result<(), ProbeError> {
    let of = data.pictures.len() + data.faults.len();
    let bad = data.faults.len() + table.faults.len();
    if bad as u64 <= limit.of(of) {
        return Ok(());
    }
    let all = data.faults.iter().chain(&table.faults);
    let examples: Vec<String> = all
        .take(FAULTS_SHOWN)
        .map(|fault| format!("{}: {}", fault.what, fault.problem))
        .collect();
    Err(ProbeError::TooManyFaults {
        bad,
        of,
        limit,
        examples: examples.join("; "),
    })
}

/// What is known of a picture before the encoder looks.
enum Found {
    Known([u8; 32], Vec<f32>),
    New([u8; 32], RgbImage, PixelBatch),
    Broken(String),
}

/// A picture as an encoder takes it, or why it cannot.
fn prepared(
    hash: [u8; 32],
    picture: RgbImage,
    preprocessor: &Preprocessor,
    encoder: &str,
) -> Found {
    match prepare(&picture, preprocessor) {
        Ok(pixels) => Found::New(hash, picture, pixels),
        Err(error) => Found::Broken(format!(
            "it cannot be prepared for `{encoder}`: {}",
            in_full(&error)
        )),
    }
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

    /// One picture that cannot be prepared is a fault of its own; too many faults are an error that
    /// names them.
    #[test]
    fn a_picture_that_cannot_be_prepared_is_listed() {
        let picture = || RgbImage::filled(4, 4, [9; 3]).unwrap();
        let ready = prepared([0; 32], picture(), &Preprocessor::siglip(16), "x");
        assert!(matches!(ready, Found::New(..)));
        let broken = prepared([0; 32], picture(), &Preprocessor::siglip(60_000), "x");
        let Found::Broken(problem) = broken else {
            panic!("no memory holds that");
        };
        assert!(
            problem.contains("cannot be prepared for `x`: "),
            "{problem}"
        );

        let fault = ProbeFault {
            what: "a.png".into(),
            problem,
        };
        let mut table = FeatureTable {
            rows: Matrix::new(1),
            pictures: Vec::new(),
            faults: vec![fault],
            known: 0,
            leaked: 0,
        };
        let data = ProbeData {
            name: "toy".into(),
            task: crate::probe::Task::Classes,
            labels: Vec::new(),
            pictures: Vec::new(),
            faults: Vec::new(),
            other_files: 0,
        };
        assert!(check_faults(&data, &table, FaultLimit::Count(1)).is_ok());
        table.faults.push(table.faults[0].clone());
        let error = check_faults(&data, &table, FaultLimit::Count(1)).unwrap_err();
        let error = error.to_string();
        for part in [
            "2 of 0 pictures",
            "at most 1 may",
            "a.png: it cannot",
            "--max-bad",
        ] {
            assert!(error.contains(part), "`{part}` is not in `{error}`");
        }
    }

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
