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

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::prelude::*;
use opabinia_data::order::shuffled;
use opabinia_image::{ImageLimits, ImageSource, PixelBatch, Preprocessor, load};
use opabinia_nn::{Grid, LayerNorm, Linear, cross_entropy};
use opabinia_vision::{Encoder, pixel_tensor};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::encoder::{EncoderChoice, EncoderTask, Outputs, first_value};
use super::pictures::{Pictures, prepared};
use super::start::{Start, plain, start};
use crate::{BatchSize, LossSum, Metric, Task, TrainError};

/// The file in a folder of label maps that says what they mean.
const DESCRIPTION: &str = "labels.json";
/// Cells of a map are at most so many, both ways.
const MOST_CELLS: usize = 512;
/// Classes of a plane are bytes, and one byte means that nothing is said.
const MOST_CLASSES: usize = 255;

/// What label maps mean: the content of `labels.json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelDescription {
    rows: usize,
    cols: usize,
    /// Value of a cell that a plane says nothing about.
    ignore: u8,
    planes: Vec<PlaneDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaneDescription {
    name: String,
    classes: Vec<String>,
    /// The class of cells that show nothing, if there is one.
    background: Option<u8>,
}

impl LabelDescription {
    /// Reads the description in a folder of label maps.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(DESCRIPTION);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            TrainError::Refused(format!(
                "could not read {}, which says what label maps mean: {error}",
                path.display()
            ))
        })?;
        let refuse = |what: String| {
            TrainError::Refused(format!("{} cannot be used: {what}", path.display()))
        };
        let description: Self =
            serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        description.check().map_err(refuse)?;
        Ok(description)
    }

    fn check(&self) -> Result<(), String> {
        let sides = [("rows", self.rows), ("cols", self.cols)];
        for (name, side) in sides {
            if !(1..=MOST_CELLS).contains(&side) {
                return Err(format!(
                    "`{name}` is {side}; it must be from 1 to {MOST_CELLS}"
                ));
            }
        }
        if self.planes.is_empty() {
            return Err("`planes` is empty".into());
        }
        for plane in &self.planes {
            let classes = plane.classes.len();
            if !(2..=MOST_CLASSES).contains(&classes) {
                return Err(format!(
                    "plane `{}` has {classes} classes; it must have 2 to {MOST_CLASSES}",
                    plane.name
                ));
            }
            if plane
                .background
                .is_some_and(|class| usize::from(class) >= classes)
            {
                return Err(format!(
                    "`background` of plane `{}` is none of its classes",
                    plane.name
                ));
            }
            if usize::from(self.ignore) < classes {
                return Err(format!(
                    "`ignore` is {}, a class of plane `{}`",
                    self.ignore, plane.name
                ));
            }
        }
        Ok(())
    }

    fn cells(&self) -> usize {
        self.rows * self.cols
    }
}

/// Label maps in files: grey pictures, the planes below each other.
#[derive(Clone, Debug)]
pub struct LabelFiles {
    description: LabelDescription,
    paths: Vec<PathBuf>,
}

impl LabelFiles {
    /// The maps in a folder that belong to pictures with these names, in this order: the same names,
    /// ending in `.png`.
    ///
    /// # Errors
    /// If the folder does not say what its maps mean.
    pub fn open(folder: &Path, names: &[String]) -> Result<Self, TrainError> {
        let path = |name: &String| folder.join(name).with_extension("png");
        Ok(Self {
            description: LabelDescription::read(folder)?,
            paths: names.iter().map(path).collect(),
        })
    }

    /// The values of a map: planes, rows, columns.
    fn read(&self, index: usize) -> Result<Vec<u8>, TrainError> {
        let refuse = |what: String| TrainError::Refused(what);
        let path = self
            .paths
            .get(index)
            .ok_or_else(|| refuse(format!("there is no label map {index}")))?;
        let map = load(&ImageSource::File(path.clone()), &ImageLimits::default())?;
        let wanted = (
            self.description.cols,
            self.description.rows * self.description.planes.len(),
        );
        let found = (map.width() as usize, map.height() as usize);
        if found != wanted {
            return Err(refuse(format!(
                "label map {} has {} × {} cells; {DESCRIPTION} wants {} × {}",
                path.display(),
                found.0,
                found.1,
                wanted.0,
                wanted.1
            )));
        }
        let values: Vec<u8> = map.data().iter().step_by(3).copied().collect();
        let cells = self.description.cells();
        for (plane, values) in self.description.planes.iter().zip(values.chunks(cells)) {
            let unknown = values.iter().find(|value| {
                **value != self.description.ignore && usize::from(**value) >= plane.classes.len()
            });
            if let Some(value) = unknown {
                return Err(refuse(format!(
                    "label map {} has the value {value} in plane `{}`, which has {} classes",
                    path.display(),
                    plane.name,
                    plane.classes.len()
                )));
            }
        }
        Ok(values)
    }
}

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
                    if value != description.ignore {
                        asked.cells.push((row * cells + cell) as i32);
                        asked.classes.push(u32::from(value));
                    }
                }
            }
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

    fn described(text: &str) -> Result<LabelDescription, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(DESCRIPTION), text).unwrap();
        LabelDescription::read(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn descriptions_that_cannot_be_used_are_refused() {
        let good = r#"{"rows": 2, "cols": 3, "ignore": 255,
            "planes": [{"name": "kind", "classes": ["none", "ball"], "background": 0}]}"#;
        let description = described(good).unwrap();
        assert_eq!((description.cells(), description.planes.len()), (6, 1));
        for (from, to, why) in [
            ("\"rows\": 2", "\"rows\": 0", "`rows` is 0"),
            (
                "\"ignore\": 255",
                "\"ignore\": 1",
                "a class of plane `kind`",
            ),
            ("[\"none\", \"ball\"]", "[\"ball\"]", "has 1 classes"),
            (
                "\"background\": 0",
                "\"background\": 2",
                "`background` of plane `kind`",
            ),
            ("\"cols\"", "\"columns\"", "columns"),
            ("[{", "{", "cannot be used"),
        ] {
            let error = described(&good.replace(from, to)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_map_of_another_size_or_class_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"rows": 1, "cols": 2, "ignore": 9,
            "planes": [{"name": "kind", "classes": ["none", "ball"]},
                       {"name": "colour", "classes": ["red", "blue", "gray"]}]}"#;
        std::fs::write(folder.path().join(DESCRIPTION), text).unwrap();
        let save = |name: &str, width: u32, values: &[u8]| {
            let grey = values.iter().flat_map(|value| [*value; 3]).collect();
            let height = values.len() as u32 / width;
            let map = opabinia_image::RgbImage::from_raw(width, height, grey).unwrap();
            map.save_png(folder.path().join(name)).unwrap();
        };
        save("good.png", 2, &[1, 0, 2, 9]);
        save("wide.png", 4, &[1, 0, 2, 9]);
        save("class.png", 2, &[2, 0, 2, 9]);
        let names = ["good.jpg", "wide.png", "class.png"].map(str::to_owned);
        let labels = LabelFiles::open(folder.path(), &names).unwrap();
        assert_eq!(labels.read(0).unwrap(), [1, 0, 2, 9]);
        let error = labels.read(1).unwrap_err().to_string();
        assert!(error.contains("4 × 1 cells"), "{error}");
        let error = labels.read(2).unwrap_err().to_string();
        assert!(error.contains("value 2 in plane `kind`"), "{error}");
        assert!(labels.read(3).is_err());
    }

    #[test]
    fn cells_without_a_meaning_do_not_count_as_found() {
        let device = Device::flex().autodiff();
        let answers = Tensor::<2>::from_floats([[1., 0.], [0., 1.], [1., 0.]], &device);
        let plane = PlaneDescription {
            name: "kind".into(),
            classes: vec!["none".into(), "ball".into()],
            background: Some(0),
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
