//! The two stages of the recipe as a task: samples with pictures, through the model, to a loss.
//!
//! Where no encoder trains, a picture's features are computed once on the loader threads, without a
//! graph, and kept in the feature cache; the training step then never sees a pixel. Where encoders
//! train, pictures are only prepared ahead of the step, and encoded inside it.
//!
//! A sample that cannot be used leaves its place in the batch empty and is counted and listed
//! ([`opabinia_data::faults`]); it is never replaced by another.

mod eyes;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::optim::GradientsParams;
use burn::prelude::*;
use opabinia_connector::{PictureSize, layout};
use opabinia_data::mask::{Masker, Tokenized};
use opabinia_data::order::{self, Modality, SampleLength};
use opabinia_data::pictures::PictureFolder;
use opabinia_data::{Faults, Sample, SampleError, SampleSet};
use opabinia_image::{Preprocessor, RgbImage, prepare};
use opabinia_model::{
    LossOptions, Model, ModelConfig, Network, PictureInput, TrainingRow, training_gradients,
    training_loss,
};
use opabinia_nn::{Grid, Region};
use rand_chacha::ChaCha8Rng;

use crate::TrainError;
use crate::recipe::TurnsOf;
use crate::task::{BatchSize, LossSum, Metric, Task};

pub use eyes::FrozenEyes;
use eyes::size_of;

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
    /// What the exchanges of a conversation see of each other.
    pub turns: TurnsOf,
}

/// The task of a stage.
pub struct StageTask {
    data: StageData,
    /// Present if batches are grouped.
    lengths: Option<Vec<SampleLength>>,
    /// How the samples of each file become tokens.
    maskers: Vec<Masker>,
    config: Arc<ModelConfig>,
    options: LossOptions,
    eyes: Eyes,
    /// Visual tokens of a square picture, the most there can be.
    token_grid: Option<Grid>,
    shortened: Shortened,
}

/// What was left out of samples that were otherwise used, each time they were.
#[derive(Debug, Default)]
struct Shortened {
    /// Samples that were longer than the model reads.
    samples: AtomicU64,
    /// Their tokens beyond that.
    tokens: AtomicU64,
    /// Exchanges without a question or an answer.
    exchanges: AtomicU64,
}

impl Shortened {
    fn count(&self, tokens: &Tokenized) {
        let add = |to: &AtomicU64, number: usize| to.fetch_add(number as u64, Ordering::Relaxed);
        add(&self.samples, usize::from(tokens.cut > 0));
        add(&self.tokens, tokens.cut);
        add(&self.exchanges, tokens.left_out);
    }

    fn describe(&self) -> Option<String> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let cut = (of(&self.samples) > 0).then(|| {
            format!(
                "{} times a sample was longer than `model.max_length`, and {} tokens at the end were \
                 cut off",
                of(&self.samples),
                of(&self.tokens)
            )
        });
        let left_out = (of(&self.exchanges) > 0).then(|| {
            let exchanges = of(&self.exchanges);
            format!("{exchanges} times a question or its answer was empty, and both were left out")
        });
        let parts: Vec<String> = cut.into_iter().chain(left_out).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// How pictures come in.
pub enum Eyes {
    /// Encoders that train, in the step: pictures are only prepared.
    Train(Vec<Preprocessor>),
    /// Frozen encoders, ahead of the step.
    Frozen(FrozenEyes),
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

impl StageTask {
    /// A task over samples for a model. What exchanges see of each other is up to the data.
    #[must_use]
    pub fn new(
        data: StageData,
        masker: Masker,
        model: &Model,
        eyes: Eyes,
        options: LossOptions,
    ) -> Self {
        let lengths = data.grouped.then(|| data.samples.lengths());
        let masker_of = |file| masker.clone().with_turns(data.turns.of(file));
        Self {
            lengths,
            maskers: (0..data.samples.files().len()).map(masker_of).collect(),
            config: Arc::new(model.config.clone()),
            options,
            eyes,
            token_grid: model
                .config
                .vision
                .as_ref()
                .map(|v| v.connector.token_grid()),
            shortened: Shortened::default(),
            data,
        }
    }

    /// The bad samples so far.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.data.faults
    }

    /// What was left out of samples that were used, in words, if anything was.
    #[must_use]
    pub fn shortened(&self) -> Option<String> {
        self.shortened.describe()
    }

    /// The samples.
    #[must_use]
    pub fn sample_set(&self) -> &SampleSet {
        &self.data.samples
    }

    /// How a sample becomes tokens.
    ///
    /// # Panics
    /// If there are not that many samples.
    #[must_use]
    pub fn masker(&self, sample: usize) -> &Masker {
        &self.maskers[self.data.samples.file_of(sample)]
    }

    /// A sample as tokens with its loss mask, and the slots of its visual tokens; `None` if it is
    /// bad, which is counted.
    ///
    /// # Errors
    /// If too many are bad.
    pub fn look_at(&self, sample: usize) -> Result<Option<(Sample, Tokenized, usize)>, TrainError> {
        let masker = self.masker(sample);
        let result = self.data.samples.sample(sample).and_then(|sample| {
            let (_, visual) = self.picture_size(&sample)?;
            let tokens = masker.tokenize(&sample, visual)?;
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
        Ok(layout::token_count(
            visible_region(sample, size, grid)?.grid(),
        ))
    }

    fn row(&self, sample: usize) -> Result<Option<Row>, TrainError> {
        let faults = &self.data.faults;
        let masker = self.masker(sample);
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
        let Some(tokens) = faults.keep(masker.tokenize(&sample, visual))? else {
            return Ok(None);
        };
        self.shortened.count(&tokens);
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
        let load = || load_picture(folder, sample);
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

/// The picture of a sample that has one.
pub(crate) fn load_picture(
    folder: &PictureFolder,
    sample: &Sample,
) -> Result<RgbImage, SampleError> {
    let missing = || SampleError::MissingPicture {
        place: sample.place.clone(),
        path: PathBuf::new(),
        similar: None,
    };
    folder.load(sample)?.ok_or_else(missing)
}

/// The visual tokens that show the picture of a sample.
pub(crate) fn visible_region(
    sample: &Sample,
    size: PictureSize,
    grid: Grid,
) -> Result<Region, SampleError> {
    layout::visible_region(size, grid).map_err(|error| SampleError::Schema {
        place: sample.place.clone(),
        what: format!("the picture cannot be used: {error}"),
    })
}

impl Batch {
    fn rows(&self) -> Vec<TrainingRow<'_>> {
        self.rows
            .iter()
            .map(|row| TrainingRow {
                tokens: &row.tokens.tokens,
                trained: &row.tokens.trained,
                pictures: &row.pictures,
                branches: &row.tokens.branches,
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

    fn place(&self, sample: u32) -> Option<String> {
        let samples = &self.data.samples;
        let sample = sample as usize;
        (sample < samples.len()).then(|| samples.place(sample).to_string())
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
