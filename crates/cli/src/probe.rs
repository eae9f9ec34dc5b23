//! `probe`: what is in the features of frozen encoders, by the traditional protocol.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::prelude::Device;
use clap::{Args, ValueEnum};
use opabinia_data::FaultLimit;
use opabinia_data::features::{FeatureStore, Precision};
use opabinia_eval::analysis::Inputs;
use opabinia_eval::probe::{
    Beside, CocoPart, LookOptions, Method, Pooling, ProbeData, ProbeEncoder, ProbeOptions,
    ProbeReport, ProbeRow, SplitRule, probe,
};
use opabinia_eval::run_scores;
use opabinia_model::fit::Size;
use opabinia_vision::{EncoderSpec, load_encoder};
use opabinia_weights::{Checkpoint, LoadOptions};

use crate::args::{DtypeArg, ImageArgs};
use crate::failure::Failure;
use crate::progress::Stages;
use crate::{Outcome, device, load, output};

/// Score vision encoders without a language model: a linear layer and the nearest neighbours on their
/// frozen features.
#[derive(Args)]
#[command(after_help = "Example: opabinia probe --world data/world --encoder \
    opabinia/small-siglip-128 --encoder opabinia/small-convnext-256")]
pub struct Probe {
    /// A folder of classes: `train/CLASS/…` and `val/CLASS/…`, or `CLASS/…`, which is divided by the
    /// seed.
    #[arg(long, value_name = "FOLDER", group = "pictures")]
    classes: Option<PathBuf>,
    /// Annotations in COCO's format of instances: which categories are in a picture.
    #[arg(
        long,
        value_name = "FILE",
        group = "pictures",
        requires = "coco_pictures"
    )]
    coco: Option<PathBuf>,
    /// The folder of their pictures.
    #[arg(long, value_name = "FOLDER", requires = "coco")]
    coco_pictures: Option<PathBuf>,
    /// Annotations to test on; without them `--coco` is divided by the seed.
    #[arg(long, value_name = "FILE", requires_all = ["coco", "coco_test_pictures"])]
    coco_test: Option<PathBuf>,
    /// The folder of their pictures.
    #[arg(long, value_name = "FOLDER", requires = "coco_test")]
    coco_test_pictures: Option<PathBuf>,
    /// A small world (`opabinia world make`): which shapes, colors and materials are in a scene.
    #[arg(long, value_name = "FOLDER", group = "pictures")]
    world: Option<PathBuf>,
    /// An encoder, by its published name (`opabinia encoders` lists them) and, if it is not on the hub
    /// or beside the shipped model, its weights: `NAME=PATH`. Several stand beside each other.
    #[arg(long = "encoder", value_name = "NAME[=PATH]", required = true)]
    encoders: Vec<String>,
    /// What one vector is made of: the token for the whole picture, or the mean over the picture;
    /// `auto` takes the token where there is one.
    #[arg(long, value_enum, default_value_t = PoolArg::Auto)]
    pool: PoolArg,
    /// How features are read.
    #[arg(
        long = "method",
        value_enum,
        value_delimiter = ',',
        default_value = "linear,knn"
    )]
    methods: Vec<MethodArg>,
    /// Strengths of the linear layer's L2 penalty to choose from.
    #[arg(long, value_delimiter = ',', value_name = "λ,…", default_values_t = ProbeOptions::default().l2,
        allow_negative_numbers = true)]
    l2: Vec<f64>,
    /// Numbers of neighbors to choose from.
    #[arg(short, long = "neighbors", value_delimiter = ',', value_name = "K,…",
        default_values_t = ProbeOptions::default().neighbours)]
    neighbours: Vec<usize>,
    /// Temperatures of the neighbors' votes to choose from.
    #[arg(long, value_delimiter = ',', value_name = "T,…",
        default_values_t = ProbeOptions::default().temperatures, allow_negative_numbers = true)]
    temperature: Vec<f64>,
    /// Share of the training pictures that chooses among these.
    #[arg(long, default_value_t = ProbeOptions::default().held_out, allow_negative_numbers = true)]
    held_out: f64,
    /// Share of the pictures that is tested, where the source has no test.
    #[arg(long, default_value_t = 0.2, allow_negative_numbers = true, value_parser = share)]
    test_share: f64,
    /// Most pictures of each split, drawn by the seed.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Same pictures, weights, options and seed, same scores.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Draws of each resampled interval.
    #[arg(long, default_value_t = ProbeOptions::default().resamples)]
    resamples: usize,
    /// Steps of one fit at most.
    #[arg(long, default_value_t = ProbeOptions::default().iterations)]
    iterations: usize,
    /// Pictures that an encoder looks at together.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// How many pictures may be unusable: a count, or a share such as `0.1%`. They are listed.
    #[arg(long, default_value_t = FaultLimit::default())]
    max_bad: FaultLimit,
    /// Where features are kept; `opabinia/features` in the user's cache if not given.
    #[arg(long, value_name = "FOLDER")]
    feature_cache: Option<PathBuf>,
    /// Scores of models that see with these encoders, called by the encoders' names: tables and runs
    /// as `analyze` takes them. They stand beside the probe, with the correlation of both.
    #[arg(long, value_name = "SCORES")]
    beside: Vec<PathBuf>,
    /// Folder to write: `probe.json`, `probe.md`, and `scores.csv` for `analyze`.
    #[arg(short, long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Everything as one JSON object on standard output, instead of the table.
    #[arg(long)]
    json: bool,
    /// Type of the large weights in memory.
    #[arg(long, value_enum, default_value_t = DtypeArg::Stored)]
    dtype: DtypeArg,
    /// Device to run on.
    #[arg(long, default_value = "auto")]
    device: String,
    #[command(flatten)]
    limits: ImageArgs,
}

/// See [`Pooling`].
#[derive(Clone, Copy, ValueEnum)]
enum PoolArg {
    /// The class token where there is one, else the mean.
    Auto,
    /// The class token.
    Class,
    /// The mean over the picture.
    Mean,
}

/// See [`Method`].
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum MethodArg {
    /// A linear layer.
    Linear,
    /// The nearest neighbors.
    Knn,
}

impl Probe {
    /// Reads, looks, fits, reports.
    pub fn run(self) -> Outcome {
        let options = self.options();
        options.check()?;
        let wanted = self.wanted()?;
        let models = self.models()?;
        let data = self.data()?;
        let found = device::find(&self.device)?;
        let store = FeatureStore::open(self.cache()?, Precision::F32)?;
        let mut report = ProbeReport::new(&data, &options);
        for (name, spec, weights) in wanted {
            let row = self.row(
                &data,
                &options,
                &store,
                &found.device,
                (name, spec, &weights),
            )?;
            report.encoders.push(row);
        }
        if let Some(models) = models {
            report.beside = Some(Beside::of(&report, models)?);
        }
        for note in report.notes() {
            output::note(&format!("note: {note}"));
        }
        if let Some(folder) = &self.out {
            write(folder, &report)?;
            output::note(&format!("the report is in {}", folder.display()));
        }
        if self.json {
            output::data(&serde_json::to_string(&report)?);
            return Ok(ExitCode::SUCCESS);
        }
        let beside = report.beside.iter().map(Beside::table);
        let tables: Vec<String> = std::iter::once(report.table())
            .chain(beside)
            .map(|table| {
                let header: Vec<&str> = table.header.iter().map(String::as_str).collect();
                output::table(&header, &table.rows)
            })
            .collect();
        output::data(&tables.join("\n\n"));
        Ok(ExitCode::SUCCESS)
    }

    fn options(&self) -> ProbeOptions {
        let mut methods: Vec<Method> = Vec::new();
        for method in &self.methods {
            let method = match method {
                MethodArg::Linear => Method::Linear,
                MethodArg::Knn => Method::Knn,
            };
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        ProbeOptions {
            methods,
            l2: self.l2.clone(),
            neighbours: self.neighbours.clone(),
            temperatures: self.temperature.clone(),
            held_out: self.held_out,
            seed: self.seed,
            resamples: self.resamples,
            iterations: self.iterations,
            ..ProbeOptions::default()
        }
    }

    fn data(&self) -> Result<ProbeData, Failure> {
        let rule = SplitRule {
            test_share: self.test_share,
            seed: self.seed,
        };
        let mut data = if let Some(folder) = &self.classes {
            ProbeData::classes(folder, rule)?
        } else if let (Some(file), Some(pictures)) = (&self.coco, &self.coco_pictures) {
            let part = |file: &PathBuf, pictures: &PathBuf| CocoPart {
                annotations: file.clone(),
                pictures: pictures.clone(),
            };
            let test = self
                .coco_test
                .as_ref()
                .zip(self.coco_test_pictures.as_ref());
            let test = test.map(|(file, pictures)| part(file, pictures));
            ProbeData::coco(&part(file, pictures), test.as_ref(), rule)?
        } else if let Some(folder) = &self.world {
            ProbeData::world(folder, rule)?
        } else {
            return Err(Failure::new("there are no pictures to probe with").hint(
                "name some: `--classes FOLDER`, `--coco FILE --coco-pictures FOLDER`, or `--world \
                 FOLDER`",
            ));
        };
        if let Some(most) = self.limit {
            data.limit(most, self.seed);
        }
        Ok(data)
    }

    /// Names, rows of the registry, and where their weights are.
    fn wanted(&self) -> Result<Vec<(String, EncoderSpec, PathBuf)>, Failure> {
        let mut wanted: Vec<(String, EncoderSpec, PathBuf)> = Vec::new();
        for text in &self.encoders {
            let (name, path) = match text.split_once('=') {
                Some((name, path)) => (name, Some(PathBuf::from(path))),
                None => (text.as_str(), None),
            };
            let spec = EncoderSpec::parse(name)?;
            let weights = match path {
                Some(path) => path,
                None => load::encoder_weights(&spec)?,
            };
            if wanted.iter().any(|(other, ..)| other == name) {
                return Err(Failure::new(format!("the encoder `{name}` is named twice")));
            }
            wanted.push((name.to_owned(), spec, weights));
        }
        Ok(wanted)
    }

    /// Loads an encoder, looks at all pictures, and probes.
    fn row(
        &self,
        data: &ProbeData,
        options: &ProbeOptions,
        store: &FeatureStore,
        device: &Device,
        (name, spec, weights): (String, EncoderSpec, &Path),
    ) -> Result<ProbeRow, Failure> {
        let size = || Ok(Size::of_checkpoint(&Checkpoint::open(weights)?));
        let dtype = self.dtype.resolve(device, size)?.for_encoders();
        let load = LoadOptions::new(dtype).on_device(device);
        let (encoder, _) = load_encoder(&spec, weights, &load)?;
        let pooling = match self.pool {
            PoolArg::Auto => None,
            PoolArg::Class => Some(Pooling::ClassToken),
            PoolArg::Mean => Some(Pooling::Mean),
        };
        let encoder = ProbeEncoder::new(name, encoder, pooling, device)?;
        output::note(&format!("{}: {}", encoder.name(), encoder.pooling().name()));
        let shown = Stages::new();
        let look = LookOptions {
            batch: usize::from(self.batch),
            max_bad: self.max_bad,
        };
        let limits = self.limits.limits();
        let table = encoder.look(data, store, &limits, look, &mut |done, all| {
            shown.update("pictures", done as u64, all as u64);
        });
        shown.finish();
        let table = table?;
        if table.known > 0 {
            output::note(&format!(
                "{} of {} pictures were seen before",
                table.known,
                table.pictures.len()
            ));
        }
        let found = probe(data, &table, options)?;
        Ok(ProbeRow {
            encoder: encoder.name().to_owned(),
            weights_sha256: encoder.weights().to_owned(),
            side_px: encoder.side(),
            width: table.rows.width(),
            pooling: encoder.pooling(),
            leaked: table.leaked,
            faults: table.faults,
            found,
        })
    }

    /// The scores that stand beside.
    fn models(&self) -> Result<Option<Inputs>, Failure> {
        if self.beside.is_empty() {
            return Ok(None);
        }
        let (folders, tables): (Vec<PathBuf>, Vec<PathBuf>) =
            self.beside.iter().cloned().partition(|path| path.is_dir());
        let mut inputs = Inputs::read(&tables)?;
        for folder in &folders {
            inputs.runs.extend(run_scores(folder)?);
        }
        Ok(Some(inputs))
    }

    fn cache(&self) -> Result<PathBuf, Failure> {
        if let Some(folder) = &self.feature_cache {
            return Ok(folder.clone());
        }
        crate::args::user_cache("features").ok_or_else(|| {
            Failure::new("there is no folder for caches").hint("pass `--feature-cache FOLDER`")
        })
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "a number is wanted".to_owned())?;
    match share > 0.0 && share < 1.0 {
        true => Ok(share),
        false => Err("a share between 0 and 1 is wanted".to_owned()),
    }
}

/// Writes the report; each file appears whole.
fn write(folder: &Path, report: &ProbeReport) -> Result<(), Failure> {
    let files = [
        (
            "probe.json",
            format!("{}\n", serde_json::to_string_pretty(report)?),
        ),
        ("probe.md", report.markdown()),
        ("scores.csv", report.scores_csv()),
    ];
    let put = |name: &str, text: &str| -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let part = folder.join(format!(".{name}.part"));
        std::fs::write(&part, text)?;
        std::fs::rename(part, folder.join(name))
    };
    for (name, text) in files {
        put(name, &text).map_err(|error| {
            Failure::new(format!(
                "cannot write {}: {error}",
                folder.join(name).display()
            ))
        })?;
    }
    Ok(())
}
