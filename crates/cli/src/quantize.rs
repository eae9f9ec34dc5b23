//! `model quantize`: a model folder with shorter weights, packed for the CPU, and what that costs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use burn::prelude::Device;
use clap::{Args, ValueEnum};
use opabinia_image::RgbImage;
use opabinia_llm::Conversation;
use opabinia_model::measure::{Deviation, deviation};
use opabinia_model::{EncoderPlacement, LoadModel, Model, SaveOptions};
use opabinia_weights::{WeightDtype, hub};

use crate::args::encoder_paths;
use crate::failure::Failure;
use crate::{Outcome, load, output};

/// Write a model folder with shorter weights, in the order in which the CPU reads them.
///
/// The folder loads at once: weights are used where the file is mapped. It holds the vision encoders,
/// too. Norms and biases stay f32, embeddings take 16 bits.
#[derive(Args)]
pub struct Quantize {
    /// Model folder, or a name on the hub.
    model: String,
    /// Folder to write; must not exist.
    out: PathBuf,
    /// Type of the weights of linear layers.
    #[arg(long, value_enum)]
    dtype: QuantizeType,
    /// Read some prompts with both models, print how far the shorter one is off, and write it on its
    /// model card.
    #[arg(long)]
    measure: bool,
    /// Picture for one more prompt of `--measure`; may be given several times.
    #[arg(long = "picture", value_name = "PICTURE", requires = "measure")]
    pictures: Vec<String>,
    /// Weights of a vision encoder, `NAME=PATH`, as for `ask`.
    #[arg(long = "encoder-weights", value_name = "NAME=PATH")]
    encoder_weights: Vec<String>,
}

/// What can be written.
#[derive(Clone, Copy, ValueEnum)]
enum QuantizeType {
    /// 16 bits; activations may be rounded to them, too.
    Bf16,
    /// 8 bits.
    Int8,
    /// 4 bits; 8 bits for encoders, the connector and the output head.
    Int4,
}

impl From<QuantizeType> for WeightDtype {
    fn from(dtype: QuantizeType) -> Self {
        match dtype {
            QuantizeType::Bf16 => Self::PackedBf16,
            QuantizeType::Int8 => Self::Int8,
            QuantizeType::Int4 => Self::Int4,
        }
    }
}

impl Quantize {
    /// Loads, packs, measures, writes.
    pub fn run(self) -> Outcome {
        if self.out.exists() {
            return Err(Failure::new(format!("`{}` exists", self.out.display()))
                .hint("name a folder that does not exist; nothing is written over"));
        }
        let folder = hub::resolve(&self.model, None, &[])?;
        let start = Instant::now();
        output::note(&format!("packing {}", folder.display()));
        let model = self.load(&folder, self.dtype.into())?;
        let partial = partial_name(&self.out)?;
        if partial.exists() {
            // Left by a run that was stopped.
            fs::remove_dir_all(&partial).map_err(|error| failed("remove", &partial, &error))?;
        }
        let lost = self
            .measure
            .then(|| self.measured(&folder, &model))
            .transpose()?;
        output::note(&format!("writing {}", self.out.display()));
        let options = SaveOptions {
            encoders: EncoderPlacement::Towers,
            ..SaveOptions::default()
        };
        let report = model.save(&partial, &options)?;
        let card = partial.join("README.md");
        fs::write(&card, self.card(lost.as_ref()))
            .map_err(|error| failed("write", &card, &error))?;
        fs::rename(&partial, &self.out).map_err(|error| failed("write", &self.out, &error))?;
        output::data(&format!(
            "{}  {} of decoder and connector, {:.1} s",
            self.out.display(),
            output::bytes(report.bytes),
            start.elapsed().as_secs_f64()
        ));
        if let Some(lost) = &lost {
            output::data(&table(lost));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn load(&self, folder: &Path, dtype: WeightDtype) -> Result<Model, Failure> {
        let options = LoadModel {
            dtype,
            device: Device::flex(),
            encoders: encoder_paths(&self.encoder_weights)?,
            template: None,
        };
        let (model, loaded) = Model::load(folder, &options)?;
        for report in loaded.reports() {
            output::note(&format!("{}: {report}", report.location.display()));
        }
        Ok(model)
    }

    fn measured(&self, folder: &Path, model: &Model) -> Result<Deviation, Failure> {
        output::note("measuring beside the weights as they are stored");
        let original = self.load(folder, WeightDtype::AsStored)?;
        let mut prompts = vec![asked(TEXT, Vec::new())];
        if model.config.vision.is_some() {
            let limits = opabinia_image::ImageLimits::default();
            prompts.push(asked(LOOK, vec![gradient()?]));
            for picture in &self.pictures {
                prompts.push(asked(LOOK, vec![load::picture(picture, &limits, false)?]));
            }
        }
        Ok(deviation(&original, model, &prompts)?)
    }

    /// What the folder is, for people.
    fn card(&self, lost: Option<&Deviation>) -> String {
        let dtype = WeightDtype::from(self.dtype);
        let mut card = format!(
            "# {} in {dtype}\n\nMade by `opabinia model quantize --dtype {dtype}` (version {}) from \
             `{}`. The license is that of the original.\n\n## What is lost\n\n",
            Path::new(&self.model).file_name().map_or_else(
                || self.model.clone(),
                |name| name.to_string_lossy().into_owned()
            ),
            env!("CARGO_PKG_VERSION"),
            self.model
        );
        match lost {
            Some(lost) => {
                let _ = writeln!(
                    card,
                    "Beside the original on {} positions of prompts:\n\n```text\n{}\n```",
                    lost.positions,
                    table(lost)
                );
            }
            None => card.push_str("Not measured; `--measure` does.\n"),
        }
        card
    }
}

/// A text of facts, names, numbers and code: a little of everything that models are asked for.
const TEXT: &str = "The Cambrian sea was home to animals that look like nothing alive today. Opabinia had five \
    eyes and a trunk that ended in a claw; it was about 7 cm long and was described in 1912 by Charles Walcott. \
    In the year 1975 a student drew it again from 10 specimens, and when the drawing was shown, people laughed. \
    Write the first four square numbers as a list in Python: squares = [1, 4, 9, 16]. If a train leaves at 09:15 \
    and arrives at 11:40, how many minutes did it take? Answer with a number and nothing else.";

/// For pictures.
const LOOK: &str = "What is in this picture? Name the colors and where they are.";

fn asked(question: &str, pictures: Vec<RgbImage>) -> (Conversation, Vec<RgbImage>) {
    (
        Conversation::question(question).with_images(pictures.len()),
        pictures,
    )
}

/// A picture that is the same everywhere: colors that run into each other, a dark disc, stripes.
fn gradient() -> Result<RgbImage, Failure> {
    const SIDE: u32 = 256;
    let mut data = Vec::with_capacity((SIDE * SIDE * 3) as usize);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (dx, dy) = (x.abs_diff(90), y.abs_diff(110));
            let pixel = match (dx * dx + dy * dy < 2500, y > 200 && x / 16 % 2 == 0) {
                (true, _) => [30, 20, 60],
                (_, true) => [240, 240, 230],
                _ => [x as u8, y as u8, (255 - x) as u8],
            };
            data.extend_from_slice(&pixel);
        }
    }
    Ok(RgbImage::from_raw(SIDE, SIDE, data)?)
}

fn table(lost: &Deviation) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    output::table(
        &["what", "how far"],
        &[
            row(
                "scores, share of their spread",
                format!("{:.2} %", 100.0 * lost.scores),
            ),
            row(
                "probabilities, divergence in nats",
                format!("{:.5}", lost.divergence),
            ),
            row(
                "same likeliest token",
                format!("{:.1} %", 100.0 * lost.same_choice),
            ),
        ],
    )
}

/// A name beside the folder, on the same file system, so that it can be renamed.
fn partial_name(out: &Path) -> Result<PathBuf, Failure> {
    let name = out
        .file_name()
        .ok_or_else(|| Failure::new(format!("`{}` is no name of a folder", out.display())))?;
    let mut partial = name.to_os_string();
    partial.push(".partial");
    Ok(out.with_file_name(partial))
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot {what} `{}`: {error}", path.display()))
}
