//! The first stage of the recipe as `train` runs it: the shipped recipes of the small model, on a
//! world of a few pictures.
//!
//! Everything is made in a temporary folder: the world, a decoder (one step of its own recipe, for the
//! tokenizer), encoders with random weights. What is timed are the steps, reading and waiting for
//! data included; loading the model and saving the result are not.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::Instant;

use burn::prelude::*;
use opabinia_model::config::ConnectorKeys;
use opabinia_nn::Grid;
use opabinia_train::engine::record::{Observer, StepRecord, Unobserved};
use opabinia_train::job::{self, Finished, JobOptions};
use opabinia_train::recipe::{FeatureCache, Folders, ModelStart, Recipe, Work};
use opabinia_vision::{Encoder, EncoderSpec};
use opabinia_weights::WeightDtype;
use opabinia_world::make::{MakeOptions, make};
use tempfile::TempDir;

use crate::{Fallible, Workload};

const DECODER: &str = include_str!("../../../../recipes/small/decoder.toml");
const WORDS: &str = include_str!("../../../../recipes/small/words.toml");
const ALIGN: &str = include_str!("../../../../recipes/small/align.toml");

/// Pictures of the world whose epoch is timed, each with one sample of the first stage.
const PICTURES: usize = 256;
/// Pictures of the long run: few enough to have all been computed in one epoch and read back from the
/// cache, whose files are mapped, in another before the first halt.
const LONG_PICTURES: usize = 128;
/// Samples of a step of the long run.
const LONG_BATCH: usize = 4;
/// Steps after which it halts.
const HALTS: [u64; 2] = [100, 2000];
/// Steps after the last halt, lest the run be winding up when its memory is read.
const REST: u64 = 10;

/// A pass is an epoch. With the cache the first epoch, which fills it, is the one that warms up.
pub(super) fn epoch(smoke: bool, cached: bool) -> Fallible<Workload> {
    let ground = Ground::new(if smoke { 8 } else { PICTURES }, Size::Small)?;
    let mut recipe = ground.align()?;
    if cached {
        recipe.data.feature_cache = FeatureCache::Folder(ground.path("features"));
    }
    if smoke {
        (recipe.batch.global, recipe.batch.micro) = (4, 2);
    }
    let mut runs = 0;
    Ok(Workload {
        // The task knows its network, and both sides of the comparison run the same one.
        parameters: 0,
        amount: ground.pictures as f64,
        losses: Vec::new(),
        pass: Box::new(move || {
            runs += 1;
            let folder = ground.path(&format!("runs/{runs}"));
            let finished = run(&recipe, &folder, &mut Unobserved)?;
            std::fs::remove_dir_all(folder)?;
            Ok(finished.totals.seconds)
        }),
    })
}

/// A tiny model for many steps. Each pass ends with the run at a halt, after [`HALTS`], so that what
/// the process holds at the one can be compared with what it holds at the other.
pub(super) fn long(smoke: bool) -> Fallible<Workload> {
    let halts = if smoke { [2, 6] } else { HALTS };
    let ground = Ground::new(if smoke { 8 } else { LONG_PICTURES }, Size::Tiny)?;
    let mut recipe = ground.align()?;
    recipe.data.feature_cache = FeatureCache::Folder(ground.path("features"));
    (recipe.batch.global, recipe.batch.micro) = (LONG_BATCH, LONG_BATCH / 2);
    (recipe.schedule.epochs, recipe.schedule.steps) = (None, Some(halts[1] + REST));
    let mut run = LongRun::start(ground, recipe, halts);
    Ok(Workload {
        parameters: 0,
        amount: ((halts[1] - halts[0]) * LONG_BATCH as u64) as f64,
        losses: Vec::new(),
        pass: Box::new(move || {
            let start = Instant::now();
            run.go_on()?;
            Ok(start.elapsed().as_secs_f64())
        }),
    })
}

/// A run on a thread of its own that halts and goes on when it is told to.
struct LongRun {
    go_on: Option<Sender<()>>,
    halted: Receiver<()>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl LongRun {
    /// Makes everything ready and halts before the first step.
    fn start(ground: Ground, recipe: Recipe, halts: [u64; 2]) -> Self {
        let (go_on, may_go_on) = channel();
        let (has_halted, halted) = channel();
        let thread = spawn(move || {
            let mut observer = Halting {
                halts,
                has_halted,
                may_go_on,
            };
            let result = run(&recipe, &ground.path("runs/long"), &mut observer);
            result.map(|_| ()).map_err(|error| error.to_string())
        });
        Self {
            go_on: Some(go_on),
            halted,
            thread: Some(thread),
        }
    }

    /// Goes on to the next halt.
    fn go_on(&mut self) -> Fallible<()> {
        if let Some(go_on) = &self.go_on {
            // A run that has ended does not listen, and says why below.
            let _ = go_on.send(());
        }
        if self.halted.recv().is_ok() {
            return Ok(());
        }
        self.end()?;
        Err("the run is over".into())
    }

    /// Lets the run go on to its end.
    fn end(&mut self) -> Result<(), String> {
        drop(self.go_on.take());
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| "the run panicked")?,
            None => Ok(()),
        }
    }
}

impl Drop for LongRun {
    /// The run's folder is removed when it is over.
    fn drop(&mut self) {
        // How it ends no longer matters.
        let _ = self.end();
    }
}

/// Holds a run before its first step and after others until it is told to go on.
struct Halting {
    halts: [u64; 2],
    has_halted: Sender<()>,
    may_go_on: Receiver<()>,
}

impl Halting {
    fn wait(&self) {
        // When nobody can tell any more, the run just goes on.
        let _ = self.may_go_on.recv();
    }
}

impl Observer for Halting {
    fn begin(&mut self, _: u64, _: u64) {
        self.wait();
    }

    fn step(&mut self, record: &StepRecord, _: u64) {
        if self.halts.contains(&record.step) {
            let _ = self.has_halted.send(());
            self.wait();
        }
    }

    fn note(&mut self, _: &str) {}
}

/// How big the model is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    /// As the recipes have it.
    Small,
    /// As small as the machinery allows.
    Tiny,
}

/// A folder with everything that the first stage needs; gone with this value.
struct Ground {
    folder: TempDir,
    pictures: usize,
    size: Size,
}

impl Ground {
    fn new(pictures: usize, size: Size) -> Fallible<Self> {
        let ground = Self {
            folder: tempfile::tempdir()?,
            pictures,
            size,
        };
        let options = MakeOptions {
            pictures_train: pictures,
            pictures_test: 0,
            texts: pictures,
            annotations: false,
            ..MakeOptions::default()
        };
        make(&ground.path("world"), &options, &|_| ())?;
        ground.make_decoder()?;
        ground.make_encoders()?;
        Ok(ground)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One step of the decoder's recipe: a folder with configuration, weights and tokenizer.
    fn make_decoder(&self) -> Fallible<()> {
        let mut recipe = Recipe::parse(Path::new("recipes/small/decoder.toml"), DECODER)?;
        let world = ["text", "instruct", "align"];
        let files = world.map(|name| self.path(&format!("world/train/{name}.jsonl")));
        recipe.data.files = files.into();
        recipe.data.validation = None;
        (recipe.schedule.epochs, recipe.schedule.steps) = (None, Some(1));
        (recipe.batch.global, recipe.batch.micro) = (2, 1);
        if let (Size::Tiny, Work::Language { decoder, .. }) = (self.size, &mut recipe.work) {
            (decoder.hidden, decoder.layers, decoder.intermediate) = (48, 2, 96);
        }
        run(&recipe, &self.path("decoder"), &mut Unobserved)?;
        Ok(())
    }

    fn make_encoders(&self) -> Fallible<()> {
        let recipe = Recipe::parse(Path::new("recipes/small/words.toml"), WORDS)?;
        for name in encoder_names(&recipe) {
            let encoder = Encoder::random(&EncoderSpec::parse(&name)?, &Device::flex())?;
            encoder.save(&self.path(&name), WeightDtype::F32)?;
        }
        Ok(())
    }

    /// The recipe of the first stage with everything in this folder, from parts and without a cache.
    fn align(&self) -> Fallible<Recipe> {
        let mut recipe = Recipe::parse(Path::new("recipes/small/align.toml"), ALIGN)?;
        let words = Recipe::parse(Path::new("recipes/small/words.toml"), WORDS)?;
        if let Work::Lexical { model, .. } = words.work {
            recipe.work = Work::Align(model);
        }
        recipe.data.files = vec![self.path("world/train/align.jsonl")];
        recipe.data.turns = Default::default();
        recipe.data.images = Some(Folders::One(self.path("world/train")));
        recipe.data.feature_cache = FeatureCache::Off;
        recipe.data.validation = None;
        recipe.data.validation_images = None;
        (recipe.schedule.epochs, recipe.schedule.steps) = (Some(1), None);
        if let Work::Align(model) = &mut recipe.work
            && let ModelStart::Parts {
                decoder,
                encoders,
                connector,
                ..
            } = &mut model.start
        {
            *decoder = self.path("decoder").join(job::MODEL);
            for encoder in encoders {
                encoder.weights = Some(self.path(&encoder.name));
            }
            if self.size == Size::Tiny {
                *connector = tiny(connector.clone());
            }
        }
        Ok(recipe)
    }
}

/// Published names of the encoders of a recipe.
fn encoder_names(recipe: &Recipe) -> Vec<String> {
    match &recipe.work {
        Work::Align(model) | Work::Lexical { model, .. } => match &model.start {
            ModelStart::Parts { encoders, .. } => {
                encoders.iter().map(|part| part.name.clone()).collect()
            }
            ModelStart::Folder { .. } => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// An SVA of the same kind with one narrow layer before the decoder, fewer queries, one layer inside.
fn tiny(connector: ConnectorKeys) -> ConnectorKeys {
    let cells = Grid::square(4);
    match connector {
        ConnectorKeys::Sva {
            layer_type, in_llm, ..
        } => ConnectorKeys::Sva {
            width: 32,
            query_grids: vec![cells],
            token_grid: cells,
            depth: 1,
            layer_type,
            in_llm: in_llm.map(|mut layers| {
                layers.count = 1;
                layers
            }),
        },
        other @ ConnectorKeys::Projector { .. } => other,
    }
}

fn run(recipe: &Recipe, folder: &Path, observer: &mut dyn Observer) -> Fallible<Finished> {
    let options = JobOptions {
        folder: Some(folder.to_path_buf()),
        devices: vec![Device::flex()],
        memory: None,
        disk: None,
        at_most: None,
        stop: &AtomicBool::new(false),
    };
    Ok(job::run(recipe, &options, observer)?)
}
