//! The tables that say how a run goes: samples, batches, rates, memory, checkpoints.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use opabinia_data::FaultLimit;
use opabinia_data::mask::Turns;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::groups::Part;
use crate::optimizer::Rule;
use crate::scaling::Scaling;
use crate::schedule::{Schedule, ScheduleKind, warmup_steps};

/// `[data]`: samples and pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataTable {
    /// LLaVA-style JSON or JSONL files.
    pub files: Vec<PathBuf>,
    /// The folder that the pictures' names are relative to; in the two stages of the recipe each file
    /// may have its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<Folders>,
    /// Samples that are never trained on, in the same format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// The folder that their pictures' names are relative to, where it is another than `images`, or than
    /// the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_images: Option<PathBuf>,
    /// How many samples may be bad: a count, or a share such as `"0.1%"`.
    pub max_bad: FaultLimit,
    /// Whether a batch holds samples of one modality and similar length; so in stage 2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_by_modality_length: Option<bool>,
    /// What the exchanges of a conversation see of each other; each file may have its own rule.
    #[serde(skip_serializing_if = "is_default")]
    pub turns: TurnsOf,
    /// Threads that read samples and decode pictures.
    pub workers: usize,
    /// Folder in which features of frozen encoders are kept, or `"off"`.
    pub feature_cache: FeatureCache,
}

impl Default for DataTable {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            images: None,
            validation: None,
            validation_images: None,
            max_bad: FaultLimit::default(),
            group_by_modality_length: None,
            turns: TurnsOf::default(),
            workers: 2,
            feature_cache: FeatureCache::Off,
        }
    }
}

/// Where what belongs to the samples of `data.files` is: pictures, or label maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Folders {
    /// All in one folder.
    One(PathBuf),
    /// That of each file in a folder of its own, in the order of the files.
    OfFiles(Vec<PathBuf>),
}

/// What the exchanges in `data.files` see of each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TurnsOf {
    /// The same in all files.
    All(Turns),
    /// A rule for each file, in the order of the files.
    OfFiles(Vec<Turns>),
}

impl Default for TurnsOf {
    fn default() -> Self {
        Self::All(Turns::default())
    }
}

/// By hand, so that the error about an unknown rule names those that there are.
impl<'de> Deserialize<'de> for TurnsOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RuleOrList;
        impl<'de> Visitor<'de> for RuleOrList {
            type Value = TurnsOf;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("`together`, `apart`, or a list of them")
            }

            fn visit_str<E: de::Error>(self, rule: &str) -> Result<TurnsOf, E> {
                Turns::deserialize(rule.into_deserializer()).map(TurnsOf::All)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<TurnsOf, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(TurnsOf::OfFiles)
            }
        }
        deserializer.deserialize_any(RuleOrList)
    }
}

impl TurnsOf {
    /// The rule of a file by its number.
    #[must_use]
    pub fn of(&self, file: usize) -> Turns {
        match self {
            Self::All(turns) => *turns,
            Self::OfFiles(turns) => turns.get(file).copied().unwrap_or_default(),
        }
    }
}

/// Whether a value need not be written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Where features of frozen encoders are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum FeatureCache {
    /// Nowhere.
    #[default]
    Off,
    /// In this folder.
    Folder(PathBuf),
}

impl From<String> for FeatureCache {
    fn from(text: String) -> Self {
        match text.as_str() {
            "off" => Self::Off,
            _ => Self::Folder(text.into()),
        }
    }
}

impl From<FeatureCache> for String {
    fn from(cache: FeatureCache) -> Self {
        match cache {
            FeatureCache::Off => "off".to_owned(),
            FeatureCache::Folder(path) => path.display().to_string(),
        }
    }
}

/// `[batch]`: how many samples make a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchTable {
    /// Samples of a step.
    pub global: usize,
    /// Samples that are computed at once; the global batch is accumulated from them.
    pub micro: usize,
    /// Accelerators that share the step.
    #[serde(default = "one")]
    pub devices: usize,
    /// Micro-batches that are computed side by side on one device; 0 chooses.
    #[serde(default)]
    pub parallel: usize,
    /// How learning rates follow the batch.
    #[serde(default)]
    pub scaling: Scaling,
    /// The batch that the rates were chosen for; needed for scaling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<usize>,
}

fn one() -> usize {
    1
}

impl BatchTable {
    /// Micro-batches of a step on each device.
    #[must_use]
    pub fn accumulation(&self) -> usize {
        self.global.div_ceil(self.micro * self.devices)
    }

    /// What scaling multiplies learning rates by.
    #[must_use]
    pub fn rate_factor(&self) -> f64 {
        let base = self.base.unwrap_or(self.global);
        self.scaling.factor(self.global, base)
    }
}

/// `[optimizer]`: AdamW, and Muon for matrices of hidden layers if asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerTable {
    /// Learning rate of every part that has none of its own.
    pub lr: f64,
    /// What moves matrices of hidden layers; all else moves by AdamW.
    #[serde(default)]
    pub matrices: Rule,
    /// Decays of AdamW's two moments.
    #[serde(default = "betas")]
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[serde(default = "eps")]
    pub eps: f64,
    /// Decoupled weight decay of every part that has none of its own.
    #[serde(default)]
    pub weight_decay: f64,
    /// Largest global norm of the gradients; 0 for no limit.
    #[serde(default = "clip")]
    pub clip: f64,
    /// `[optimizer.parts.PART]`: what is different for a part.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<Part, PartTable>,
}

fn betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn eps() -> f64 {
    1e-8
}

fn clip() -> f64 {
    1.0
}

/// `[optimizer.parts.PART]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PartTable {
    /// Whether it trains; the stage's default where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<bool>,
    /// Its learning rate; the general one where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Its weight decay; the general one where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

/// `[schedule]`: how long, and how rates change. The warm-up is a share of the run or a number of
/// steps; the run is a number of epochs or of steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleTable {
    /// What follows the warm-up.
    pub kind: ScheduleKind,
    /// Share of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_ratio: Option<f64>,
    /// Steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Passes over the samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Steps of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
}

impl ScheduleTable {
    /// Steps of the run if an epoch has `per_epoch`.
    #[must_use]
    pub fn total(&self, per_epoch: u64) -> u64 {
        match self.steps {
            Some(steps) => steps,
            None => self.epochs.unwrap_or(1).saturating_mul(per_epoch),
        }
    }

    /// The schedule of a run of `total` steps.
    #[must_use]
    pub fn schedule(&self, total: u64) -> Schedule {
        Schedule {
            kind: self.kind,
            warmup: match self.warmup_steps {
                Some(steps) => steps,
                None => warmup_steps(self.warmup_ratio.unwrap_or(0.0), total),
            },
            steps: total,
        }
    }
}

/// `[memory]`: what is traded for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryTable {
    /// Whether decoder layers are computed again in the backward pass instead of remembered.
    pub gradient_checkpointing: bool,
    /// What matrices are multiplied in; parameters and optimizer stay `f32`.
    pub precision: Precision,
}

/// A number format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit float.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
}

/// `[lora]`: low-rank adapters in place of the decoder's own weights (arXiv 2106.09685).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraTable {
    /// Rank of the two factors.
    pub rank: usize,
    /// Their product is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Share of the adapters' inputs that are dropped.
    pub dropout: f64,
    /// Linear layers of the decoder that get one.
    pub targets: Vec<LoraTarget>,
}

impl Default for LoraTable {
    /// The reference's flags: every linear layer of the decoder, the head excluded.
    fn default() -> Self {
        Self {
            rank: 64,
            alpha: 16.0,
            dropout: 0.05,
            targets: LoraTarget::ALL.to_vec(),
        }
    }
}

/// A kind of linear layer in the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraTarget {
    /// Queries.
    QProj,
    /// Keys.
    KProj,
    /// Values.
    VProj,
    /// Output of attention.
    OProj,
    /// Gate of the feed-forward layer.
    GateProj,
    /// Into the feed-forward layer.
    UpProj,
    /// Out of it.
    DownProj,
}

impl LoraTarget {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// The field of the decoder layer that it is.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
        }
    }
}

/// `[save]`: checkpoints and the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaveTable {
    /// The folder of the run; `runs/NAME` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Steps between checkpoints; 0 for none but the last.
    pub every: u64,
    /// Checkpoints that are kept.
    pub keep: usize,
    /// Whether the one with the best validation loss is kept too.
    pub best: bool,
    /// Which weights the resulting model has.
    #[serde(skip_serializing_if = "is_default")]
    pub result: SavedResult,
    /// What they are written in.
    pub weights: SavedWeights,
}

impl Default for SaveTable {
    fn default() -> Self {
        Self {
            folder: None,
            every: 500,
            keep: 2,
            best: true,
            result: SavedResult::Last,
            weights: SavedWeights::F32,
        }
    }
}

/// Which weights a resulting model has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedResult {
    /// Those of the last step.
    #[default]
    Last,
    /// Those with the best validation loss.
    Best,
}

/// The format of a resulting model's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedWeights {
    /// 32-bit float: nothing is lost.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

/// `[log]`: what is said on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogTable {
    /// Steps between lines where there is no terminal; the log file has every step.
    pub every: u64,
    /// Steps between validations; 0 for one at the end.
    pub validate_every: u64,
}

impl Default for LogTable {
    fn default() -> Self {
        Self {
            every: 10,
            validate_every: 0,
        }
    }
}
