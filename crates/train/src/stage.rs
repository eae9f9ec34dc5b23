//! The two stages of the recipe as a task: samples with pictures, through the model, to a loss.
//!
//! Where no encoder trains, a picture's features are computed once on the loader threads, without a
//! graph, and kept in the feature cache; the training step then never sees a pixel. Where encoders
//! train, pictures are only prepared ahead of the step, and encoded inside it.
//!
//! A sample that cannot be used leaves its place in the batch empty and is counted and listed
//! ([`opabinia_data::faults`]); it is never replaced by another.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module as _, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::TensorData;
use opabinia_connector::{PictureSize, layout};
use opabinia_data::features::{FeatureStore, Features, Key, KeyParts};
use opabinia_data::mask::{Masker, Tokenized};
use opabinia_data::order::{self, Modality, SampleLength};
use opabinia_data::pictures::{PictureFolder, picture_hash};
use opabinia_data::{Faults, Sample, SampleError, SampleSet};
use opabinia_image::{Preprocessor, RgbImage, prepare};
use opabinia_model::{
    LossOptions, Model, ModelConfig, Network, PictureInput, TrainingRow, training_gradients,
    training_loss,
};
use opabinia_nn::{FeatureGrid, Grid};
use opabinia_vision::{Encoder, pixel_tensor};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::TrainError;
use crate::task::{BatchSize, LossSum, Metric, Task};

/// Samples for a stage.
pub struct StageData {
    /// The samples.
    pub samples: SampleSet,
    /// The folder of their pictures; none if no sample has one.
    pub pictures: Option<PictureFolder>,
    /// Bad samples, counted and bounded.
    pub faults: Faults,
    /// Whether batches hold samples of one modality and similar length.
    pub grouped: bool,
}

/// The task of a stage.
pub struct StageTask {
    data: StageData,
    /// Present if batches are grouped.
    lengths: Option<Vec<SampleLength>>,
    masker: Masker,
    config: Arc<ModelConfig>,
    options: LossOptions,
    eyes: Eyes,
    /// Visual tokens of a square picture, the most there can be.
    token_grid: Option<Grid>,
}

/// How pictures come in.
pub enum Eyes {
    /// Encoders that train, in the step: pictures are only prepared.
    Train(Vec<Preprocessor>),
    /// Frozen encoders, ahead of the step.
    Frozen(FrozenEyes),
}

/// Frozen encoders and what they have seen.
pub struct FrozenEyes {
    encoders: Vec<FrozenEncoder>,
    store: Option<FeatureStore>,
    /// Sizes of pictures whose features are known.
    sizes: Mutex<HashMap<[u8; 32], PictureSize>>,
}

struct FrozenEncoder {
    name: String,
    encoder: Encoder,
    /// Where it is.
    device: Device,
    grid: Grid,
    preprocessor: Preprocessor,
    /// Hash of the weights.
    weights: String,
    /// What preparation does, in words.
    preprocessing: String,
}

/// A sample of a micro-batch.
pub struct Row {
    tokens: Tokenized,
    pictures: Vec<PictureInput>,
    /// Slots of its visual tokens.
    visual: usize,
}

/// A micro-batch.
pub struct Batch {
    rows: Vec<Row>,
}

impl FrozenEyes {
    /// Takes the encoders of a model as they are, off the graph, on the device that they are on
    /// (`device`, without gradients); features go to `store`.
    #[must_use]
    pub fn new(model: &Model, device: &Device, store: Option<FeatureStore>) -> Self {
        let Some(vision) = &model.config.vision else {
            return Self {
                encoders: Vec::new(),
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
                name: name.clone(),
                device: device.clone(),
                grid: *grid,
                weights: match store {
                    Some(_) => weights_hash(&encoder),
                    None => String::new(),
                },
                preprocessing: format!("{preprocessor:?}"),
                preprocessor,
                encoder,
            }
        };
        Self {
            encoders: encoders.map(freeze).collect(),
            store,
            sizes: Mutex::default(),
        }
    }

    /// Features of a picture with every encoder, from the cache where they are known.
    fn see(
        &self,
        path: &Path,
        load: impl FnOnce() -> Result<RgbImage, SampleError>,
    ) -> Result<Result<PictureInput, SampleError>, TrainError> {
        let Some(store) = &self.store else {
            return Ok(match load() {
                Ok(picture) => {
                    let grids = self.encoders.iter().map(|eye| eye.see(&picture));
                    let grids = grids.collect::<Result<_, _>>()?;
                    Ok(PictureInput::Features(grids, size_of(&picture)))
                }
                Err(error) => Err(error),
            });
        };
        let picture = picture_hash(path)?;
        if let Some(known) = self.known(store, &picture)? {
            return Ok(Ok(known));
        }
        let pixels = match load() {
            Ok(pixels) => pixels,
            Err(error) => return Ok(Err(error)),
        };
        for eye in &self.encoders {
            let seen = eye.see(&pixels)?;
            store.put(&eye.key(&picture), &features_of(&seen)?)?;
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
            let Some(features) = store.get(&eye.key(picture))? else {
                return Ok(None);
            };
            let Features {
                rows,
                width,
                values,
            } = features;
            let data = TensorData::new(values, [1, rows, width]);
            let tensor = Tensor::from_data(data, &Device::flex());
            grids.push(FeatureGrid::new(tensor, eye.grid));
        }
        Ok(Some(PictureInput::Features(grids, size)))
    }
}

impl FrozenEncoder {
    fn see(&self, picture: &RgbImage) -> Result<FeatureGrid, TrainError> {
        let pixels = prepare(picture, &self.preprocessor)
            .map_err(|error| TrainError::Refused(format!("{}: {error}", self.name)))?;
        let pixels = pixel_tensor(pixels, &self.device);
        let seen = self.encoder.encode(pixels, Some(self.grid));
        let features = seen.features.to_device(&Device::flex());
        Ok(FeatureGrid::new(features, self.grid))
    }

    fn key(&self, picture: &[u8; 32]) -> Key {
        Key::of(&KeyParts {
            picture,
            encoder: &self.name,
            weights: &self.weights,
            preprocessing: &self.preprocessing,
            grid: (self.grid.rows, self.grid.cols),
        })
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

fn size_of(picture: &RgbImage) -> PictureSize {
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

/// Hash of every parameter, so that features of other weights are never taken.
fn weights_hash(encoder: &Encoder) -> String {
    struct Hash(Sha256);
    impl ModuleVisitor for Hash {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.update(param.val().into_data().as_bytes());
        }
    }
    let mut hash = Hash(Sha256::new());
    encoder.visit(&mut hash);
    hash.0
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

impl StageTask {
    /// A task over samples for a model.
    #[must_use]
    pub fn new(
        data: StageData,
        masker: Masker,
        model: &Model,
        eyes: Eyes,
        options: LossOptions,
    ) -> Self {
        let lengths = data.grouped.then(|| data.samples.lengths());
        Self {
            lengths,
            masker,
            config: Arc::new(model.config.clone()),
            options,
            eyes,
            token_grid: model
                .config
                .vision
                .as_ref()
                .map(|v| v.connector.token_grid()),
            data,
        }
    }

    /// The bad samples so far.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.data.faults
    }

    /// The samples.
    #[must_use]
    pub fn sample_set(&self) -> &SampleSet {
        &self.data.samples
    }

    /// How samples become tokens.
    #[must_use]
    pub fn masker(&self) -> &Masker {
        &self.masker
    }

    /// A sample as tokens with its loss mask, and the slots of its visual tokens; `None` if it is
    /// bad, which is counted.
    ///
    /// # Errors
    /// If too many are bad.
    pub fn look_at(&self, sample: usize) -> Result<Option<(Sample, Tokenized, usize)>, TrainError> {
        let result = self.data.samples.sample(sample).and_then(|sample| {
            let (_, visual) = self.picture_size(&sample)?;
            let tokens = self.masker.tokenize(&sample, visual)?;
            Ok((sample, tokens, visual))
        });
        Ok(self.data.faults.keep(result)?)
    }

    fn picture_size(&self, sample: &Sample) -> Result<(Option<PictureSize>, usize), SampleError> {
        let Some(pictures) = self.pictures(sample)? else {
            return Ok((None, 0));
        };
        let Some(picture) = pictures.load(sample)? else {
            return Ok((None, 0));
        };
        let size = size_of(&picture);
        Ok((Some(size), self.visual_tokens(sample, size)?))
    }

    /// The folder of pictures, where the sample needs one.
    fn pictures(&self, sample: &Sample) -> Result<Option<&PictureFolder>, SampleError> {
        if sample.image.is_none() {
            return Ok(None);
        }
        let schema = |what: &str| SampleError::Schema {
            place: sample.place.clone(),
            what: what.to_owned(),
        };
        if self.token_grid.is_none() {
            return Err(schema(
                "the sample has a picture, and the model has no vision encoder",
            ));
        }
        match &self.data.pictures {
            Some(pictures) => Ok(Some(pictures)),
            None => Err(schema(
                "the sample has a picture, and the recipe does not say where pictures are; set \
                 `images` in `[data]`",
            )),
        }
    }

    /// Slots that a picture takes: its rows, each with an end-of-row token.
    fn visual_tokens(&self, sample: &Sample, size: PictureSize) -> Result<usize, SampleError> {
        let Some(grid) = self.token_grid else {
            return Ok(0);
        };
        match layout::visible_region(size, grid) {
            Ok(region) => Ok(layout::token_count(region.grid())),
            Err(error) => Err(SampleError::Schema {
                place: sample.place.clone(),
                what: format!("the picture cannot be used: {error}"),
            }),
        }
    }

    fn row(&self, sample: usize) -> Result<Option<Row>, TrainError> {
        let faults = &self.data.faults;
        let Some(sample) = faults.keep(self.data.samples.sample(sample))? else {
            return Ok(None);
        };
        let Some(picture) = faults.keep(self.pictures(&sample))? else {
            return Ok(None);
        };
        let mut pictures = Vec::new();
        let mut visual = 0;
        if let Some(folder) = picture {
            let seen = self.see(folder, &sample)?;
            let sized = seen.and_then(|input| {
                let tokens = self.visual_tokens(&sample, input.size())?;
                Ok((input, tokens))
            });
            let Some((input, tokens)) = faults.keep(sized)? else {
                return Ok(None);
            };
            pictures.push(input);
            visual = tokens;
        }
        let Some(tokens) = faults.keep(self.masker.tokenize(&sample, visual))? else {
            return Ok(None);
        };
        // A picture that only unanswered questions show is left out with them.
        if !tokens.has_image() {
            pictures.clear();
            visual = 0;
        }
        Ok(Some(Row {
            tokens,
            pictures,
            visual,
        }))
    }

    fn see(
        &self,
        folder: &PictureFolder,
        sample: &Sample,
    ) -> Result<Result<PictureInput, SampleError>, TrainError> {
        let path = match folder.find(sample) {
            Ok(path) => path.unwrap_or_default(),
            Err(error) => return Ok(Err(error)),
        };
        let load = || {
            folder
                .load(sample)?
                .ok_or_else(|| SampleError::MissingPicture {
                    place: sample.place.clone(),
                    path: PathBuf::new(),
                    similar: None,
                })
        };
        match &self.eyes {
            Eyes::Frozen(eyes) => eyes.see(&path, load),
            Eyes::Train(preprocessors) => match load() {
                Ok(picture) => {
                    let prepared = preprocessors.iter().map(|p| prepare(&picture, p));
                    let pixels = prepared.collect::<Result<Vec<_>, _>>().map_err(|error| {
                        TrainError::Refused(format!("could not prepare a picture: {error}"))
                    })?;
                    Ok(Ok(PictureInput::Pixels(pixels, size_of(&picture))))
                }
                Err(error) => Ok(Err(error)),
            },
        }
    }
}

impl Batch {
    fn rows(&self) -> Vec<TrainingRow<'_>> {
        self.rows
            .iter()
            .map(|row| TrainingRow {
                tokens: &row.tokens.tokens,
                trained: &row.tokens.trained,
                pictures: &row.pictures,
            })
            .collect()
    }
}

impl Task for StageTask {
    type Module = Network;
    type Batch = Batch;

    fn samples(&self) -> usize {
        self.data.samples.len()
    }

    fn plan(&self, seed: u64, epoch: usize, batch: usize) -> Vec<Vec<u32>> {
        match &self.lengths {
            Some(lengths) => order::plan(lengths, batch, seed, epoch),
            None => order::shuffled(self.samples(), batch, seed, epoch),
        }
    }

    fn divide(&self, samples: &[u32], micro: usize) -> Vec<Vec<u32>> {
        // Similar lengths together, so that little of a micro-batch is padding.
        match &self.lengths {
            Some(lengths) => {
                let parts = samples.len().div_ceil(micro.max(1)).max(1);
                let mut sorted = samples.to_vec();
                sorted.sort_by_key(|&i| {
                    lengths
                        .get(i as usize)
                        .map(|l| (l.modality == Modality::Image, l.tokens))
                });
                sorted
                    .chunks(sorted.len().div_ceil(parts).max(1))
                    .map(<[u32]>::to_vec)
                    .collect()
            }
            None => samples.chunks(micro.max(1)).map(<[u32]>::to_vec).collect(),
        }
    }

    fn load(&self, samples: &[u32], _: &mut ChaCha8Rng) -> Result<Option<Batch>, TrainError> {
        let mut rows = Vec::with_capacity(samples.len());
        for &sample in samples {
            rows.extend(self.row(sample as usize)?);
        }
        Ok((!rows.is_empty()).then_some(Batch { rows }))
    }

    fn terms(&self, batch: &Batch) -> usize {
        batch
            .rows
            .iter()
            .map(|row| row.tokens.trained_tokens())
            .sum()
    }

    fn size(&self, batch: &Batch) -> BatchSize {
        BatchSize {
            samples: batch.rows.len(),
            tokens: batch
                .rows
                .iter()
                .map(|row| row.tokens.positions(row.visual))
                .sum(),
            pictures: batch.rows.iter().map(|row| row.pictures.len()).sum(),
        }
    }

    fn loss(
        &self,
        module: &Network,
        batch: &Batch,
        device: &Device,
    ) -> Result<LossSum, TrainError> {
        let loss = training_loss(module, &self.config, device, &batch.rows(), &self.options)?;
        Ok(LossSum {
            sum: loss.sum,
            metrics: Vec::new(),
        })
    }

    fn gradients(
        &self,
        module: &Network,
        batch: &Batch,
        scale: f64,
        device: &Device,
    ) -> Result<(f64, GradientsParams, Vec<Metric>), TrainError> {
        let rows = batch.rows();
        let options = &self.options;
        let found = training_gradients(module, &self.config, device, &rows, options, scale)?;
        Ok((found.sum, found.gradients, Vec::new()))
    }
}
