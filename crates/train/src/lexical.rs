//! Lexical alignment: the connector learns to say what is in a picture in the decoder's own words.
//!
//! A decoder looks things up by likeness: a word attends to what resembles its embedding. Visual
//! tokens of a new connector resemble no word, and a small decoder takes very long to find out by
//! questions alone which of them shows the thing that a question names. So, before the two stages of
//! the recipe, the connector learns what label maps know. A token that shows a red ball must point
//! along the embeddings of *red* and *ball*, and along those of no other class. This is dense
//! supervision ([`crate::pretrain::dense`]) with the decoder's embeddings as the classifier; encoders
//! and decoder are frozen, and the decoder does not even run, so in-LLM layers stay as they are.
//!
//! For a visual token `x` and a class `k` whose word has the embedding `eₖ`, the score is
//! `s(x, k) = 20 · x·êₖ / 2ē − 4`, where `êₖ` has length 1 and `ē` is the mean length of the
//! embeddings: a token that is the sum of a few words has about the right length. The loss of a token is
//! summed over the words:
//!
//! - for a class of a plane that is named in words (or of several planes that have a class of this name),
//!   the binary cross-entropy of `σ(s)`; it is wanted if at least an eighth of the token's cells show it;
//! - for a plane that is a scale between two words (columns from *left* to *right*), `(s − s*)² / 32` with
//!   `s* = 8w − 4`. At the mean place `p` of the cells on the scale, from 0 to 1, the last word is wanted
//!   `w = 2 · max(0, 2p − 1)` times, the first one `2 · max(0, 1 − 2p)` times, and neither where the plane
//!   says nothing. What is the sum of words and grows evenly along the scale can be read, and compared, by
//!   one product; and at the ends a scale is as loud as two words, because what attention reads there is
//!   a mean over much that says nothing of it.
//!
//! A thing covers several tokens, and a token may show parts of several things. Where a plane marks one
//! cell of each thing (its middle), a token with such a cell says the mark's word and, for the rest, what
//! the marked cells show and no other: there is one token for each thing, which names it and it alone.

use std::collections::BTreeSet;
use std::path::PathBuf;

use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::activation::log_sigmoid;
use opabinia_connector::layout;
use opabinia_data::order::shuffled;
use opabinia_data::pictures::PictureFolder;
use opabinia_data::{Faults, Sample, SampleSet};
use opabinia_model::{Model, ModelConfig, Network, PictureInput, connect_pictures};
use opabinia_nn::Grid;
use rand_chacha::ChaCha8Rng;

use self::lexicon::{Entry, Lexicon};
use crate::pretrain::labels::{LabelDescription, LabelFiles};
use crate::recipe::LexicalTable;
use crate::stage::{FrozenEyes, load_picture, visible_region};
use crate::{BatchSize, LossSum, Metric, Task, TrainError};

mod lexicon;

/// What scores grow by.
const SCALE: f64 = 20.0;
/// Score of a class that a token has nothing in common with.
const BIAS: f64 = -4.0;
/// What squared differences of scores on a scale are divided by.
const SQUARES: f64 = 32.0;

/// Pictures with their label maps, and how they are seen.
pub struct LexicalData {
    /// A sample for each picture.
    samples: Vec<Sample>,
    labels: LabelFiles,
    pictures: PictureFolder,
    faults: Faults,
}

impl LexicalData {
    /// Every picture of `set` once, with its map; `labels` has the folder of maps of each file of samples.
    ///
    /// # Errors
    /// If a sample cannot be read, or a folder does not say what its maps mean.
    pub fn new(
        set: &SampleSet,
        pictures: PictureFolder,
        labels: &[PathBuf],
        faults: Faults,
    ) -> Result<Self, TrainError> {
        let (mut samples, mut names, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for index in 0..set.len() {
            let Some(sample) = faults.keep(set.sample(index))? else {
                continue;
            };
            let (Some(name), Some(folder)) = (&sample.image, labels.get(set.file_of(index))) else {
                continue;
            };
            if seen.insert((folder, name.clone())) {
                names.push((folder.as_path(), name.clone()));
                samples.push(sample);
            }
        }
        if samples.is_empty() {
            return Err(TrainError::Refused(
                "no sample has a picture, and lexical alignment is about pictures".into(),
            ));
        }
        Ok(Self {
            labels: LabelFiles::of_folders(&names)?,
            samples,
            pictures,
            faults,
        })
    }

    /// What determines a training: the label maps.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn hash(&self) -> Result<String, TrainError> {
        self.labels.hash()
    }
}

/// The task of lexical alignment.
pub struct LexicalTask {
    data: LexicalData,
    lexicon: Lexicon,
    /// `[words, hidden]`, without a graph.
    directions: Tensor<2>,
    config: ModelConfig,
    grid: Grid,
    eyes: FrozenEyes,
}

/// A picture and what its tokens are to say.
struct Seen {
    picture: PictureInput,
    /// Its rows and columns of visual tokens.
    shape: Grid,
    /// `shape · words`.
    wanted: Vec<f32>,
}

/// A micro-batch.
pub struct LexicalBatch {
    seen: Vec<Seen>,
}

impl LexicalTask {
    /// A task for a model; its encoders are `eyes`.
    ///
    /// # Errors
    /// If the model sees no pictures, or label maps have no such planes or are coarser than its
    /// visual tokens.
    pub fn new(
        data: LexicalData,
        table: &LexicalTable,
        model: &Model,
        eyes: FrozenEyes,
    ) -> Result<Self, TrainError> {
        let Some(vision) = &model.config.vision else {
            return Err(TrainError::Refused(
                "the model has no connector that could learn words".into(),
            ));
        };
        let grid = vision.connector.token_grid();
        let lexicon = Lexicon::new(data.labels.description.clone(), table)?;
        let LabelDescription { rows, cols, .. } = lexicon.description;
        if rows < grid.rows || cols < grid.cols {
            return Err(TrainError::Refused(format!(
                "label maps have {rows} × {cols} cells and the model {} × {} visual tokens; maps must \
                 not be coarser",
                grid.rows, grid.cols
            )));
        }
        let (lexicon, directions) = lexicon.directions(model)?;
        Ok(Self {
            directions,
            config: model.config.clone(),
            data,
            lexicon,
            grid,
            eyes,
        })
    }

    /// The bad samples so far.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.data.faults
    }

    fn seen(&self, index: usize) -> Result<Option<Seen>, TrainError> {
        let faults = &self.data.faults;
        let Some(sample) = self.data.samples.get(index) else {
            return Ok(None);
        };
        let Some(path) = faults.keep(self.data.pictures.find(sample))?.flatten() else {
            return Ok(None);
        };
        let load = || load_picture(&self.data.pictures, sample);
        let Some(picture) = faults.keep(self.eyes.see(&path, load)?)? else {
            return Ok(None);
        };
        let region = visible_region(sample, picture.size(), self.grid);
        let Some(region) = faults.keep(region)? else {
            return Ok(None);
        };
        let map = self.data.labels.read(index)?;
        Ok(Some(Seen {
            wanted: self.lexicon.wanted(&map, self.grid, &region),
            shape: region.grid(),
            picture,
        }))
    }
}

impl Task for LexicalTask {
    type Module = Network;
    type Batch = LexicalBatch;

    fn samples(&self) -> usize {
        self.data.samples.len()
    }

    fn place(&self, sample: u32) -> Option<String> {
        let sample = self.data.samples.get(sample as usize)?;
        Some(sample.place.to_string())
    }

    fn plan(&self, seed: u64, epoch: usize, batch: usize) -> Vec<Vec<u32>> {
        shuffled(self.samples(), batch.max(1), seed, epoch)
    }

    fn load(
        &self,
        samples: &[u32],
        _: &mut ChaCha8Rng,
    ) -> Result<Option<LexicalBatch>, TrainError> {
        let mut seen = Vec::with_capacity(samples.len());
        for &sample in samples {
            seen.extend(self.seen(sample as usize)?);
        }
        Ok((!seen.is_empty()).then_some(LexicalBatch { seen }))
    }

    fn terms(&self, batch: &LexicalBatch) -> usize {
        batch.seen.iter().map(|seen| seen.shape.len()).sum()
    }

    fn size(&self, batch: &LexicalBatch) -> BatchSize {
        BatchSize {
            samples: batch.seen.len(),
            tokens: self.terms(batch),
            pictures: batch.seen.len(),
        }
    }

    fn loss(
        &self,
        module: &Network,
        batch: &LexicalBatch,
        device: &Device,
    ) -> Result<LossSum, TrainError> {
        let pictures: Vec<&PictureInput> = batch.seen.iter().map(|seen| &seen.picture).collect();
        let (connected, places) = connect_pictures(module, &self.config, device, &pictures)?;
        // Visual tokens of the pictures in the order of the batch, end-of-row tokens left out.
        let mut firsts = Vec::with_capacity(places.len());
        let mut next = 0_i32;
        for grid in &connected.grids {
            firsts.push(next);
            next += layout::token_count(*grid) as i32;
        }
        let mut slots = Vec::with_capacity(self.terms(batch));
        for (seen, &place) in batch.seen.iter().zip(&places) {
            let first = firsts.get(place).copied().unwrap_or_default();
            let Grid { rows, cols } = seen.shape;
            let row = |row: usize| (row * (cols + 1)) as i32;
            slots.extend((0..rows).flat_map(|r| (0..cols).map(move |c| first + row(r) + c as i32)));
        }
        let words = self.lexicon.len();
        let wanted: Vec<f32> = batch
            .seen
            .iter()
            .flat_map(|seen| seen.wanted.clone())
            .collect();
        let tokens = connected
            .tokens
            .select(0, Tensor::from_data(slots.as_slice(), device));
        let directions = self.directions.clone().to_device(&device.clone().inner());
        let directions = match device.is_autodiff() {
            true => directions.autodiff(),
            false => directions,
        };
        let scores = tokens.matmul(directions.transpose()) + BIAS;
        let graded: Vec<bool> = self.lexicon.entries.iter().map(Entry::is_graded).collect();
        let metrics = said(&scores, &wanted, &graded);
        let wanted = Tensor::<2>::from_data(TensorData::new(wanted, [slots.len(), words]), device);
        let graded = Tensor::<2, Bool>::from_data(TensorData::new(graded, [1, words]), device)
            .expand([slots.len(), words]);
        // −w·log σ(s) − (1 − w)·log σ(−s)
        let classes = (log_sigmoid(scores.clone().neg()) + scores.clone() * wanted.clone()).neg();
        let scales = (scores - (wanted * (-2.0 * BIAS) + BIAS)).square() / SQUARES;
        Ok(LossSum {
            sum: classes.mask_where(graded, scales).sum(),
            metrics,
        })
    }
}

/// How many of the words that are wanted are said, and how many of those that are said are wanted; words
/// of scales are not counted.
fn said(scores: &Tensor<2>, wanted: &[f32], graded: &[bool]) -> Vec<Metric> {
    let scores = scores.clone().inner().into_data();
    let (mut both, mut only_said, mut only_wanted) = (0_usize, 0, 0);
    let all = scores.iter::<f32>().zip(wanted).zip(graded.iter().cycle());
    for ((score, wanted), _) in all.filter(|(_, graded)| !**graded) {
        match (score > 0.0, *wanted > 0.5) {
            (true, true) => both += 1,
            (true, false) => only_said += 1,
            (false, true) => only_wanted += 1,
            (false, false) => {}
        }
    }
    let metric = |name: &'static str, all: usize| Metric {
        name: name.into(),
        sum: both as f64,
        count: all as f64,
    };
    vec![
        metric("said", both + only_wanted),
        metric("right", both + only_said),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_counted() {
        let scores = Tensor::<2>::from_floats([[1.0, -1.0, 2.0]], &Device::flex().autodiff());
        let found = said(&scores, &[1.0, 1.0, 0.0], &[false; 3]);
        let counts: Vec<_> = found.iter().map(|m| (m.sum, m.count)).collect();
        assert_eq!(counts, [(1.0, 2.0), (1.0, 2.0)]);
    }
}
