//! Flags that several verbs share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::prelude::Device;
use clap::{Args, ValueEnum};
use opabinia_eval::scorer::Protocol;
use opabinia_image::ImageLimits;
use opabinia_llm::SamplingOptions;
use opabinia_model::fit::Size;
use opabinia_model::{Generation, ImagePosition};
use opabinia_nn::cpu::is_plain_cpu;
use opabinia_weights::WeightDtype;

use crate::failure::Failure;
use crate::{memory, output};

/// Which model, and how it is loaded.
#[derive(Args)]
pub struct ModelArgs {
    /// Model folder, or a name on the Hugging Face hub such as `nyu-visionx/cambrian-8b`; without
    /// it, `models/small` beside the program or above the working folder.
    #[arg(short, long, env = "OPABINIA_MODEL")]
    pub model: Option<String>,
    /// Weights of a vision encoder, `NAME=PATH`; NAME is its published name or its position.
    ///
    /// Without it they are looked for inside the checkpoint, in `towers/` of the model folder, and
    /// on the hub.
    #[arg(long = "encoder-weights", value_name = "NAME=PATH")]
    pub encoder_weights: Vec<String>,
    /// Type of the large weights in memory.
    #[arg(long, value_enum, default_value_t = DtypeArg::Stored)]
    pub dtype: DtypeArg,
    /// Device to run on: auto, cpu, cuda, cuda:1, vulkan, metal, rocm.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Chat template instead of the checkpoint's own.
    #[arg(long)]
    pub template: Option<String>,
}

impl ModelArgs {
    /// Another model on the same device, with numbers of the same type; its encoders and its template are
    /// its own.
    pub fn for_another(&self, model: &str) -> Self {
        Self {
            model: Some(model.to_owned()),
            encoder_weights: Vec::new(),
            dtype: self.dtype,
            device: self.device.clone(),
            template: None,
        }
    }
}

/// Types of weights in memory.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum DtypeArg {
    /// As the file has them, computed in f32.
    Stored,
    /// 32 bits.
    F32,
    /// 16 bits with the range of f32; on a CPU activations may be rounded to them, too.
    Bf16,
    /// 16 bits, computed in f32.
    F16,
    /// 8 bits, activations too; made for CPUs.
    Int8,
    /// 4 bits, activations 8; 8 bits for encoders, the connector and the output head; made for CPUs.
    Int4,
    /// The most exact of stored, bf16, int8 and int4 that fits into the free memory.
    Auto,
}

impl DtypeArg {
    /// The library's type. `size` is asked only where the memory decides.
    pub fn resolve(
        self,
        device: &Device,
        size: impl FnOnce() -> Result<Size, Failure>,
    ) -> Result<WeightDtype, Failure> {
        Ok(match self {
            Self::Stored => WeightDtype::AsStored,
            Self::F32 => WeightDtype::F32,
            Self::Bf16 if is_plain_cpu(device) => WeightDtype::PackedBf16,
            Self::Bf16 => WeightDtype::Bf16,
            Self::F16 => WeightDtype::F16,
            Self::Int8 => WeightDtype::Int8,
            Self::Int4 => WeightDtype::Int4,
            // What other devices have free nobody can ask.
            Self::Auto if !is_plain_cpu(device) => WeightDtype::AsStored,
            Self::Auto => fitting(size()?)?,
        })
    }
}

/// What the free memory of the machine allows.
fn fitting(size: Size) -> Result<WeightDtype, Failure> {
    // A system that does not tell has enough, as far as anybody knows.
    let free = memory::free().unwrap_or(u64::MAX);
    size.best(free).ok_or_else(|| {
        Failure::new(format!(
            "the model has {} numbers, and not even 4 bits of each fit into the {} that are free",
            output::count(size.parameters),
            output::bytes(free)
        ))
        .hint("close other programs, or take a smaller model; `--dtype int4` tries nevertheless")
    })
}

impl ModelArgs {
    /// The `NAME=PATH` pairs.
    pub fn encoder_paths(&self) -> Result<BTreeMap<String, PathBuf>, Failure> {
        encoder_paths(&self.encoder_weights)
    }
}

/// See [`Protocol`].
#[derive(Clone, Copy, ValueEnum)]
pub enum ProtocolArg {
    /// Those of common harnesses.
    Standard,
    /// Those of the reference's scripts, for parity with published numbers.
    Reference,
}

impl From<ProtocolArg> for Protocol {
    fn from(protocol: ProtocolArg) -> Self {
        match protocol {
            ProtocolArg::Standard => Self::Standard,
            ProtocolArg::Reference => Self::Reference,
        }
    }
}

/// `NAME=PATH` pairs.
pub fn encoder_paths(pairs: &[String]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let pair = |text: &String| {
        let (name, path) = text.split_once('=').ok_or_else(|| {
            Failure::new(format!("`--encoder-weights {text}` has no `=`"))
                .hint("write `--encoder-weights NAME=PATH`, once per encoder")
        })?;
        Ok((name.to_owned(), PathBuf::from(path)))
    };
    pairs.iter().map(pair).collect()
}

/// How answers are generated.
#[derive(Args)]
pub struct SamplingArgs {
    /// Randomness; 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Only the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Only this many of the likeliest tokens.
    #[arg(long)]
    pub top_k: Option<u32>,
    /// Only tokens at least this likely, relative to the likeliest.
    #[arg(long, allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Above 1 avoids tokens that were written before.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub repetition_penalty: f32,
    /// Same seed, same answer.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Longest answer in tokens.
    #[arg(long, default_value_t = 512)]
    pub max_new_tokens: usize,
    /// Text that ends an answer; may be given several times.
    #[arg(long)]
    pub stop: Vec<String>,
    /// Token id that ends an answer; may be given several times.
    #[arg(long = "stop-id")]
    pub stop_ids: Vec<u32>,
    /// Tokens of the prompt that are read at once; fewer need less memory.
    #[arg(long, default_value_t = 1024, value_parser = positive)]
    pub prefill_chunk: usize,
    /// Most tokens that are guessed from what was said before and checked together (speculative decoding by
    /// prompt lookup); 0 for none. The answer is the same, sooner.
    #[arg(long, value_name = "N", default_value_t = opabinia_model::MAX_GUESSES)]
    pub guesses: usize,
    /// Where in-LLM layers look for visual tokens: at the constant of config.json, as the reference
    /// does, or where they are.
    #[arg(long, value_enum, default_value_t = PositionArg::Config)]
    pub image_position: PositionArg,
}

/// See [`ImagePosition`].
#[derive(Clone, Copy, ValueEnum)]
pub enum PositionArg {
    /// The constant `image_position`.
    Config,
    /// Their real place.
    Actual,
}

impl SamplingArgs {
    /// As the library takes them, checked.
    pub fn generation(&self) -> Result<Generation, Failure> {
        let sampling = SamplingOptions {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            max_new_tokens: self.max_new_tokens,
            stop: self.stop.clone(),
            stop_ids: self.stop_ids.clone(),
        };
        sampling.validate()?;
        Ok(Generation {
            sampling,
            prefill_chunk: self.prefill_chunk,
            image_position: match self.image_position {
                PositionArg::Config => ImagePosition::Config,
                PositionArg::Actual => ImagePosition::Actual,
            },
            guesses: self.guesses,
            ..Generation::default()
        })
    }
}

/// Limits for pictures from outside.
#[derive(Args)]
pub struct ImageArgs {
    /// Maximum number of pixels of a picture.
    #[arg(long, env = "OPABINIA_MAX_IMAGE_PIXELS", default_value_t = ImageLimits::default().max_pixels)]
    pub max_image_pixels: u64,
    /// Longest side of a picture in pixels.
    #[arg(long, env = "OPABINIA_MAX_IMAGE_SIDE", default_value_t = ImageLimits::default().max_side)]
    pub max_image_side: u32,
    /// Largest file of a picture in bytes.
    #[arg(long, env = "OPABINIA_MAX_IMAGE_BYTES", default_value_t = ImageLimits::default().max_bytes)]
    pub max_image_bytes: u64,
}

impl ImageArgs {
    /// As the library takes them.
    pub fn limits(&self) -> ImageLimits {
        ImageLimits {
            max_pixels: self.max_image_pixels,
            max_side: self.max_image_side,
            max_bytes: self.max_image_bytes,
        }
    }
}

/// A number of 1 or more.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}

/// A folder of this program in the user's cache.
pub fn user_cache(name: &str) -> Option<PathBuf> {
    let variable = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty());
    let cache = variable.map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("opabinia").join(name))
}
