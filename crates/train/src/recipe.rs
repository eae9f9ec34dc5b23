//! Recipes: everything that fixes a run, in one TOML file per stage.
//!
//! A recipe says what is trained, from what, on which samples and how. It is read strictly: a key
//! that nobody knows is refused with the nearest one that is known, a value that cannot be used is
//! refused with the file and the line it stands in, and tables of other stages are refused too.
//! `--set key.path=value` changes a value from the command line. The recipe with all defaults
//! filled in ([`Recipe::resolved_toml`]) is written beside a run's outputs, and is itself a recipe.
//!
//! Paths are relative to the folder in which the program is started, like those on its command line.

mod check;
mod error;
mod model_tables;
mod overrides;
mod resolve;
mod run_tables;
mod tables;

use std::path::{Path, PathBuf};

use opabinia_data::FaultLimit;
use opabinia_model::config::ConnectorKeys;
use opabinia_model::{EncoderPart, ModelParts};
use sha2::{Digest, Sha256};

use crate::groups::{Part, PartRate, PartRates};
use crate::optimizer::AdamWConfig;
use check::Check;
use error::{Places, explain};
use tables::Document;

pub use error::{Place, RecipeError};
pub use model_tables::{
    ConnectorTable, ContrastiveTable, DecoderTable, DenseTable, EncoderSource, EncoderTable,
    LexicalTable, MaeTable, ModelTable, TextTable, TokenizerTable,
};
pub use run_tables::{
    BatchTable, DataTable, FeatureCache, Folders, LogTable, LoraTable, LoraTarget, MemoryTable,
    OptimizerTable, PartTable, Precision, SaveTable, SavedResult, SavedWeights, ScheduleTable,
    TurnsOf,
};
pub use tables::Stage;

/// A recipe whose values have been checked.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// What the run is called.
    pub name: String,
    /// The seed of everything random.
    pub seed: u64,
    /// What is trained.
    pub work: Work,
    /// Samples and pictures.
    pub data: DataTable,
    /// How many samples make a step.
    pub batch: BatchTable,
    /// Rules and rates; every part of the stage is filled in.
    pub optimizer: OptimizerTable,
    /// How long, and how rates change.
    pub schedule: ScheduleTable,
    /// What is traded for memory.
    pub memory: MemoryTable,
    /// Adapters in place of the decoder's own weights.
    pub lora: Option<LoraTable>,
    /// Checkpoints and the result.
    pub save: SaveTable,
    /// What is said on the way.
    pub log: LogTable,
    source: Source,
}

/// What a recipe was read from, for overrides.
#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    text: String,
    overrides: Vec<(String, String)>,
}

/// What a recipe trains, with the tables that only this stage has.
#[derive(Clone, Debug)]
pub enum Work {
    /// The connector's words, before stage 1.
    Lexical {
        /// The model.
        model: Model,
        /// The words.
        lexical: LexicalTable,
    },
    /// Stage 1.
    Align(Model),
    /// Stage 2.
    Instruct(Model),
    /// A vision encoder from pictures and captions.
    Contrastive {
        /// The encoder.
        encoder: EncoderTable,
        /// The text tower.
        text: TextTable,
        /// The loss.
        loss: ContrastiveTable,
    },
    /// A vision encoder from pictures.
    Mae {
        /// The encoder.
        encoder: EncoderTable,
        /// Masks and reconstruction.
        masking: MaeTable,
    },
    /// A vision encoder from pictures and maps of what is where in them.
    Dense {
        /// The encoder.
        encoder: EncoderTable,
        /// The maps.
        labels: DenseTable,
    },
    /// A decoder from text.
    Language {
        /// Its sizes.
        decoder: DecoderTable,
        /// Its tokenizer.
        tokenizer: TokenizerTable,
    },
}

impl Work {
    /// The stage.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Lexical { .. } => Stage::Lexical,
            Self::Align(_) => Stage::Align,
            Self::Instruct(_) => Stage::Instruct,
            Self::Contrastive { .. } => Stage::Contrastive,
            Self::Mae { .. } => Stage::Mae,
            Self::Dense { .. } => Stage::Dense,
            Self::Language { .. } => Stage::Language,
        }
    }
}

/// The model that a stage of the recipe starts from.
#[derive(Clone, Debug)]
pub struct Model {
    /// Where it comes from.
    pub start: ModelStart,
    /// Connector weights that replace those it starts with (`mm_projector.bin`).
    pub adapter: Option<PathBuf>,
    /// Name of the chat template; the checkpoint's own, if `None`.
    pub template: Option<String>,
    /// Longest packed sequence; the checkpoint's own, if `None`.
    pub max_length: Option<usize>,
    table: ModelTable,
}

/// Where a model comes from.
#[derive(Clone, Debug)]
pub enum ModelStart {
    /// A whole model folder.
    Folder {
        /// The folder.
        from: PathBuf,
        /// Weights of encoders that lie elsewhere, by name.
        encoders: Vec<EncoderSource>,
    },
    /// Encoders and a language model, and a connector that nobody has trained yet.
    Parts {
        /// The language model's folder.
        decoder: PathBuf,
        /// The vision encoders.
        encoders: Vec<EncoderPart>,
        /// The connector.
        connector: ConnectorKeys,
        /// Layer of a CLIP encoder whose output is taken.
        select_layer: i64,
        /// Where the reference assumes visual tokens to begin.
        image_position: Option<usize>,
    },
}

impl Model {
    /// What to assemble with a seed; `None` if the model is a folder.
    #[must_use]
    pub fn parts(&self, seed: u64) -> Option<ModelParts> {
        let ModelStart::Parts {
            decoder,
            encoders,
            connector,
            select_layer,
            image_position,
        } = &self.start
        else {
            return None;
        };
        Some(ModelParts {
            decoder: decoder.clone(),
            encoders: encoders.clone(),
            connector: connector.clone(),
            select_layer: *select_layer,
            image_position: *image_position,
            template: self.template.clone(),
            max_length: self.max_length,
            seed,
        })
    }
}

impl Recipe {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// If it cannot be read, or is no recipe; the error names the line.
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a recipe; `path` is what errors call it.
    ///
    /// # Errors
    /// If it is no recipe.
    pub fn parse(path: &Path, text: &str) -> Result<Self, RecipeError> {
        Source {
            path: path.to_path_buf(),
            text: text.to_owned(),
            overrides: Vec::new(),
        }
        .resolve()
    }

    /// The same recipe with values replaced: pairs of a key such as `optimizer.lr` and a value, in
    /// order. What is not overridden has the defaults that it would have had.
    ///
    /// # Errors
    /// If a key is unknown or a value cannot be used; the error names the pair.
    pub fn with_overrides<K, V>(&self, overrides: &[(K, V)]) -> Result<Self, RecipeError>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let mut source = self.source.clone();
        for (key, value) in overrides {
            let pair = (key.as_ref().to_owned(), value.as_ref().to_owned());
            source.overrides.push(pair);
        }
        source.resolve()
    }

    /// What it trains.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.work.stage()
    }

    /// What the run begins with and reads, each with the key that names it: samples, and the parts of a model.
    #[must_use]
    pub fn inputs(&self) -> Vec<(&'static str, &Path)> {
        let mut inputs: Vec<(&str, &Path)> = Vec::new();
        let files = self.data.files.iter();
        inputs.extend(files.map(|file| ("data.files", file.as_path())));
        let validation = self.data.validation.iter();
        inputs.extend(validation.map(|file| ("data.validation", file.as_path())));
        let (Work::Lexical { model, .. } | Work::Align(model) | Work::Instruct(model)) = &self.work
        else {
            return inputs;
        };
        let weights = match &model.start {
            ModelStart::Folder { from, encoders } => {
                inputs.push(("model.from", from));
                let weights = encoders.iter().map(|encoder| &encoder.weights);
                weights.collect::<Vec<_>>()
            }
            ModelStart::Parts {
                decoder, encoders, ..
            } => {
                inputs.push(("model.decoder", decoder));
                encoders.iter().map(|encoder| &encoder.weights).collect()
            }
        };
        let weights = weights.into_iter().flatten();
        inputs.extend(weights.map(|path| ("model.encoders.weights", path.as_path())));
        inputs
    }

    /// The folder of the run.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        match &self.save.folder {
            Some(folder) => folder.clone(),
            None => Path::new("runs").join(&self.name),
        }
    }

    /// Learning rate and decay of every part, scaled to the batch if the recipe asks for it.
    #[must_use]
    pub fn rates(&self) -> PartRates {
        let rates =
            PartRates::new(|part| self.unscaled_rate(part)).scaled(self.batch.rate_factor());
        match self.lora {
            Some(_) => rates.with_decoder_adapters(),
            None => rates,
        }
    }

    fn unscaled_rate(&self, part: Part) -> PartRate {
        let table = self.optimizer.parts.get(&part).copied().unwrap_or_default();
        PartRate {
            train: table.train.unwrap_or(false),
            lr: table.lr.unwrap_or(self.optimizer.lr),
            weight_decay: table.weight_decay.unwrap_or(self.optimizer.weight_decay),
            matrices: self.optimizer.matrices,
        }
    }

    /// AdamW's constants.
    #[must_use]
    pub fn adamw(&self) -> AdamWConfig {
        let [beta1, beta2] = self.optimizer.betas;
        AdamWConfig {
            beta1,
            beta2,
            eps: self.optimizer.eps,
        }
    }

    /// Largest global norm of the gradients; `None` for no limit.
    #[must_use]
    pub fn clip(&self) -> Option<f64> {
        (self.optimizer.clip > 0.0).then_some(self.optimizer.clip)
    }

    /// Whether batches hold samples of one modality and similar length.
    #[must_use]
    pub fn groups_by_modality_length(&self) -> bool {
        self.data
            .group_by_modality_length
            .unwrap_or(self.stage() == Stage::Instruct)
    }

    /// The same recipe for a run in another folder.
    #[must_use]
    pub fn kept_in(&self, folder: &Path) -> Self {
        let mut recipe = self.clone();
        recipe.save.folder = Some(folder.to_path_buf());
        recipe
    }

    /// The recipe with all defaults and overrides filled in.
    #[must_use]
    pub fn resolved_toml(&self) -> String {
        to_toml(&self.document())
    }

    /// A short text that is the same for recipes that make the same run: where it is kept, what is
    /// logged, how many bad samples are put up with, and how the work is divided over threads and
    /// devices make no difference.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut document = self.document();
        document.name = String::new();
        document.save = SaveTable::default();
        document.log = LogTable::default();
        document.data.workers = 0;
        document.data.max_bad = FaultLimit::default();
        document.data.feature_cache = FeatureCache::Off;
        document.batch.parallel = 0;
        document.batch.devices = 1;
        let digest = Sha256::digest(to_toml(&document));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn document(&self) -> Document {
        let mut document = Document {
            name: self.name.clone(),
            stage: self.stage(),
            seed: self.seed,
            model: None,
            encoder: None,
            text: None,
            contrastive: None,
            mae: None,
            dense: None,
            lexical: None,
            decoder: None,
            tokenizer: None,
            data: self.data.clone(),
            batch: self.batch,
            optimizer: self.optimizer.clone(),
            schedule: self.schedule,
            memory: self.memory,
            lora: self.lora.clone(),
            save: self.save.clone(),
            log: self.log,
        };
        match self.work.clone() {
            Work::Align(model) | Work::Instruct(model) => document.model = Some(model.table),
            Work::Lexical { model, lexical } => {
                document.model = Some(model.table);
                document.lexical = Some(lexical);
            }
            Work::Contrastive {
                encoder,
                text,
                loss,
            } => {
                document.encoder = Some(encoder);
                document.text = Some(text);
                document.contrastive = Some(loss);
            }
            Work::Mae { encoder, masking } => {
                document.encoder = Some(encoder);
                document.mae = Some(masking);
            }
            Work::Dense { encoder, labels } => {
                document.encoder = Some(encoder);
                document.dense = Some(labels);
            }
            Work::Language { decoder, tokenizer } => {
                document.decoder = Some(decoder);
                document.tokenizer = Some(tokenizer);
            }
        }
        document
    }
}

/// # Panics
/// Never: tables of numbers, texts and lists are always TOML.
fn to_toml(document: &Document) -> String {
    match toml::to_string_pretty(document) {
        Ok(text) => text,
        Err(error) => panic!("a recipe could not be written as TOML: {error}"),
    }
}

impl Source {
    fn resolve(&self) -> Result<Recipe, RecipeError> {
        let document = self.document()?;
        let places = Places {
            path: &self.path,
            text: &self.text,
            overrides: &self.overrides,
        };
        let check = Check {
            places: &places,
            stage: document.stage,
        };
        check.recipe(document, self.clone())
    }

    /// The tables of the file with the overrides applied.
    fn document(&self) -> Result<Document, RecipeError> {
        let places = Places {
            path: &self.path,
            text: &self.text,
            overrides: &[],
        };
        let wrong = |error: toml::de::Error| {
            let place = places.at(error.span().map(|span| span.start));
            explain(&error, place)
        };
        let document: Document = toml::from_str(&self.text).map_err(wrong)?;
        if self.overrides.is_empty() {
            return Ok(document);
        }
        let mut table: toml::Table = self.text.parse().map_err(wrong)?;
        for (key, value) in &self.overrides {
            overrides::apply(&mut table, key, value)?;
        }
        table.try_into().map_err(wrong)
    }
}
