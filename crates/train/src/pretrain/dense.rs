//! Dense supervision: an encoder learns to say what is in each cell of a grid over the picture.
//!
//! This is what segmentation, depth and text detection teach (among the encoders that the paper
//! compares, SAM and MiDaS; section 3.2 of arXiv 2406.16860). A label map has several planes, each a
//! question about every cell with an answer from a list of classes, or none. A linear layer for each
//! plane answers from the normalised features, so whatever is learnt can be read linearly from what a
//! connector gets. These layers have served when the encoder is trained.
//!
//! The loss of a picture is the sum over the planes of the mean cross-entropy over the cells that
//! the plane speaks about in the micro-batch: each question counts the same, however rarely it makes
//! sense. Where a plane has a class that means that there is nothing, which most cells have, the mean
//! over these and the mean over the others count half each: otherwise saying that there is nothing
//! anywhere would be nearly right, and it takes long to learn more.

use std::sync::Arc;

use burn::module::Module;
use burn::prelude::*;
use opabinia_data::order::shuffled;
use opabinia_image::{PixelBatch, Preprocessor};
use opabinia_nn::{Grid, LayerNorm, Linear, cross_entropy};
use opabinia_vision::{Encoder, pixel_tensor};
use rand_chacha::ChaCha8Rng;

use super::encoder::{EncoderChoice, EncoderTask, Outputs, first_value};
use super::labels::{IGNORE, LabelFiles, PlaneDescription};
use super::pictures::{Pictures, prepared};
use super::start::{Start, plain, start};
use crate::{BatchSize, LossSum, Metric, Task, TrainError};

/// Encoder and the layers that answer.
#[derive(Module, Debug)]
pub struct DenseModel {
    /// The encoder that is kept.
    pub encoder: Encoder,
    norm: LayerNorm,
    /// One for each plane.
    heads: Vec<Linear>,
}

/// The cells of a micro-batch that a plane speaks about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    /// Their numbers, pictures one after the other.
    cells: Vec<i32>,
    /// Their classes.
    classes: Vec<u32>,
}

/// A micro-batch.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseBatch {
    pixels: PixelBatch,
    /// For each plane.
    asked: Vec<Asked>,
}

/// Dense supervision of an encoder.
pub struct DenseTask {
    choice: EncoderChoice,
    preprocessor: Preprocessor,
    pictures: Arc<dyn Pictures>,
    labels: LabelFiles,
    grid: Grid,
}

impl DenseTask {
    /// Pictures and their label maps.
    ///
    /// # Errors
    /// If the sizes do not fit, or there is not a map for each picture.
    pub fn new(
        choice: EncoderChoice,
        pictures: Arc<dyn Pictures>,
        labels: LabelFiles,
    ) -> Result<Self, TrainError> {
        if pictures.count() != labels.paths.len() {
            return Err(TrainError::Refused(format!(
                "{} pictures came with label maps for {}",
                pictures.count(),
                labels.paths.len()
            )));
        }
        let encoder = choice.build(Outputs::All, &Device::flex())?;
        Ok(Self {
            preprocessor: encoder.preprocessor(),
            grid: Grid {
                rows: labels.description.rows,
                cols: labels.description.cols,
            },
            choice,
            pictures,
            labels,
        })
    }

    fn first_value(&self, path: &str, shape: &[usize]) -> Start {
        match path {
            path if path.starts_with("encoder.") => first_value(&self.choice.config, path, shape),
            path => plain(path, shape, Start::Xavier),
        }
    }

    /// The normalised features of every cell, `[b · cells, d]`.
    fn features(&self, module: &DenseModel, batch: &DenseBatch, device: &Device) -> Tensor<2> {
        let pixels = pixel_tensor(batch.pixels.clone(), device);
        let features = module.encoder.encode(pixels, Some(self.grid)).features;
        let [b, cells, width] = features.dims();
        let rows = features.reshape([b * cells, width]);
        module.norm.forward(rows)
    }
}

impl EncoderTask for DenseTask {
    fn module(&self, seed: u64, device: &Device) -> Result<DenseModel, TrainError> {
        let encoder = self.choice.build(Outputs::All, device)?;
        let width = encoder.width();
        let model = DenseModel {
            norm: LayerNorm::new(width, 1e-6, device),
            heads: (self.labels.description.planes.iter())
                .map(|plane| Linear::new(width, plane.classes.len(), true, device))
                .collect(),
            encoder,
        };
        let mut model = start(model, seed, |path, shape| self.first_value(path, shape));
        model.encoder = self.choice.with_weights(model.encoder, device)?;
        Ok(model)
    }

    fn encoder(module: &DenseModel) -> &Encoder {
        &module.encoder
    }

    fn supervision(&self) -> Result<Option<String>, TrainError> {
        self.labels.hash().map(Some)
    }
}

impl Task for DenseTask {
    type Module = DenseModel;
    type Batch = DenseBatch;

    fn samples(&self) -> usize {
        self.pictures.count()
    }

    fn plan(&self, seed: u64, epoch: usize, batch: usize) -> Vec<Vec<u32>> {
        shuffled(self.pictures.count(), batch.max(1), seed, epoch)
    }

    fn load(&self, samples: &[u32], _: &mut ChaCha8Rng) -> Result<Option<DenseBatch>, TrainError> {
        if samples.is_empty() {
            return Ok(None);
        }
        let description = &self.labels.description;
        let cells = description.cells();
        let mut asked = vec![Asked::default(); description.planes.len()];
        for (row, &sample) in samples.iter().enumerate() {
            let values = self.labels.read(sample as usize)?;
            for (asked, plane) in asked.iter_mut().zip(values.chunks(cells)) {
                for (cell, &value) in plane.iter().enumerate() {
                    if value != IGNORE {
                        asked.cells.push((row * cells + cell) as i32);
                        asked.classes.push(u32::from(value));
                    }
                }
            }
        }
        // Of some pictures the planes that are learned say nothing: a scene has no words.
        if asked.iter().all(|asked| asked.cells.is_empty()) {
            return Ok(None);
        }
        Ok(Some(DenseBatch {
            pixels: prepared(self.pictures.as_ref(), samples, &self.preprocessor)?,
            asked,
        }))
    }

    fn terms(&self, batch: &DenseBatch) -> usize {
        batch.pixels.batch()
    }

    fn size(&self, batch: &DenseBatch) -> BatchSize {
        BatchSize {
            samples: batch.pixels.batch(),
            tokens: 0,
            pictures: batch.pixels.batch(),
        }
    }

    fn loss(
        &self,
        module: &DenseModel,
        batch: &DenseBatch,
        device: &Device,
    ) -> Result<LossSum, TrainError> {
        let features = self.features(module, batch, device);
        let [rows, _] = features.dims();
        let mut sum: Option<Tensor<1>> = None;
        let mut metrics = Vec::new();
        let planes = &self.labels.description.planes;
        for ((plane, asked), head) in planes.iter().zip(&batch.asked).zip(&module.heads) {
            if asked.cells.is_empty() {
                continue;
            }
            let features = features.clone();
            let answers = head.forward(if asked.cells.len() == rows {
                features
            } else {
                features.select(0, Tensor::from_data(asked.cells.as_slice(), device))
            });
            metrics.push(accuracy(plane, &answers, &asked.classes));
            let shares = plane.shares(&asked.classes);
            let shares = Tensor::<1>::from_data(shares.as_slice(), device);
            let loss = (cross_entropy(answers, &asked.classes) * shares).sum();
            sum = Some(match sum {
                Some(sum) => sum + loss,
                None => loss,
            });
        }
        let sum = sum.ok_or_else(|| {
            TrainError::Refused("no plane says anything about the pictures of a batch".into())
        })?;
        Ok(LossSum {
            sum: sum * batch.pixels.batch() as f64,
            metrics,
        })
    }
}

impl PlaneDescription {
    /// What the loss of each cell counts; all add up to 1. Cells that show nothing count half
    /// together, if there are others.
    fn shares(&self, classes: &[u32]) -> Vec<f32> {
        let empty = |class: u32| self.background.is_some_and(|b| u32::from(b) == class);
        let nothing = classes.iter().filter(|class| empty(**class)).count();
        let something = classes.len() - nothing;
        let groups = f32::from(u8::from(nothing > 0) + u8::from(something > 0));
        let share = |class: &u32| {
            let alike = if empty(*class) { nothing } else { something };
            1.0 / (groups * alike as f32)
        };
        classes.iter().map(share).collect()
    }
}

/// How often the most likely class of a cell that shows something is the right one.
fn accuracy(plane: &PlaneDescription, answers: &Tensor<2>, classes: &[u32]) -> Metric {
    let best = answers.clone().inner().argmax(1).into_data();
    let judged = best
        .iter::<i64>()
        .zip(classes)
        .filter(|(_, wanted)| plane.background.map(u32::from) != Some(**wanted));
    let (mut right, mut all) = (0, 0);
    for (found, wanted) in judged {
        all += 1;
        right += usize::from(found == i64::from(*wanted));
    }
    Metric {
        name: plane.name.clone().into(),
        sum: right as f64,
        count: all as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_without_a_meaning_do_not_count_as_found() {
        let device = Device::flex().autodiff();
        let answers = Tensor::<2>::from_floats([[1., 0.], [0., 1.], [1., 0.]], &device);
        let plane = PlaneDescription {
            name: "kind".into(),
            classes: vec!["none".into(), "ball".into()],
            background: Some(0),
            wide: false,
        };
        assert_eq!(
            plane.shares(&[0, 1, 0, 1, 0]),
            [1. / 6., 0.25, 1. / 6., 0.25, 1. / 6.]
        );
        assert_eq!(plane.shares(&[1, 1]), [0.5, 0.5]);
        let metric = accuracy(&plane, &answers, &[0, 1, 1]);
        assert_eq!((metric.sum, metric.count), (1.0, 2.0));
    }
}
