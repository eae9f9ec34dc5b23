//! `data balance`, `mix`, `dedup`, `prompt`: curations of one step.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use opabinia_curate::Recipe;
use opabinia_curate::recipe::{Decontaminate, Dedup, Input, Mix, Pictures, Prompts, Ratios};
use opabinia_data::FaultLimit;
use opabinia_data::mixture::Shortfall;

use super::FilesArgs;
use super::curate::{Machine, make};
use crate::Outcome;
use crate::failure::Failure;

/// What is read, and where the result goes.
#[derive(Args)]
struct PoolArgs {
    #[command(flatten)]
    files: FilesArgs,
    /// Folder to write.
    #[arg(short, long)]
    out: PathBuf,
    /// Decides which samples are kept where not all are.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many samples may be bad: a count, or a share such as `0.1%`.
    #[arg(long, default_value = "100%")]
    max_bad: FaultLimit,
    #[command(flatten)]
    machine: Machine,
}

impl PoolArgs {
    fn make(&self, change: impl FnOnce(&mut Recipe)) -> Outcome {
        let mut recipe = Recipe {
            seed: self.seed,
            input: Input {
                files: self.files.files.clone(),
                images: self.files.images.clone(),
                max_bad: self.max_bad,
                ..Input::default()
            },
            sources: self.files.sources.clone(),
            ..Recipe::default()
        };
        change(&mut recipe);
        // Paths on the command line start from the working folder.
        let recipe = recipe.resolved("these flags", std::path::Path::new(""))?;
        make(&recipe, &self.out, &self.machine)
    }
}

/// Keep at most so many samples of each source.
#[derive(Args)]
pub struct Balance {
    #[command(flatten)]
    pool: PoolArgs,
    /// At most that many samples of every source.
    #[arg(long)]
    cap: Option<u64>,
    /// At most that many samples of one source, `NAME=COUNT`; may be repeated.
    #[arg(long, value_name = "NAME=COUNT", value_parser = named_count)]
    cap_source: Vec<(String, u64)>,
}

impl Balance {
    /// Does it.
    pub fn run(self) -> Outcome {
        if self.cap.is_none() && self.cap_source.is_empty() && self.pool.files.sources.is_none() {
            return Err(Failure::new("no cap is given")
                .hint("pass `--cap COUNT`, `--cap-source NAME=COUNT`, or `--sources` with caps"));
        }
        self.pool.make(|recipe| {
            recipe.cap.all = self.cap;
            recipe.cap.sources = self.cap_source.into_iter().collect();
        })
    }
}

fn named_count(text: &str) -> Result<(String, u64), String> {
    let wanted = || format!("`{text}` is not `NAME=COUNT`");
    let (name, count) = text.rsplit_once('=').ok_or_else(wanted)?;
    Ok((name.to_owned(), count.parse().map_err(|_| wanted())?))
}

/// Mix categories by ratios to a total.
#[derive(Args)]
pub struct MixVerb {
    #[command(flatten)]
    pool: PoolArgs,
    /// Size of the mixture, in samples.
    #[arg(long)]
    total: u64,
    /// TOML file with a table `ratios`: category to weight.
    #[arg(long)]
    ratios: PathBuf,
    /// Where a category has too few samples.
    #[arg(long, value_enum, default_value_t = Policy::Report)]
    shortfall: Policy,
}

/// What happens where a category has too few samples.
#[derive(Clone, Copy, ValueEnum)]
enum Policy {
    /// The mixture is smaller than asked for.
    Report,
    /// The others give more.
    Redistribute,
}

impl MixVerb {
    /// Does it.
    pub fn run(self) -> Outcome {
        self.pool.make(|recipe| {
            recipe.mix = Some(Mix {
                total: self.total,
                ratios: Ratios::File(self.ratios),
                shortfall: match self.shortfall {
                    Policy::Report => Shortfall::Report,
                    Policy::Redistribute => Shortfall::Redistribute,
                },
            });
        })
    }
}

/// Keep the same sample once.
#[derive(Args)]
pub struct DedupVerb {
    #[command(flatten)]
    pool: PoolArgs,
    /// What makes two pictures the same; all but `path` need `--images`.
    #[arg(long, value_enum, default_value_t = Same::Path)]
    pictures: Same,
    /// Also drop samples whose texts are that alike, from 0.5 to 1; 0.8 is common.
    #[arg(long)]
    near: Option<f64>,
}

/// What makes two pictures the same.
#[derive(Clone, Copy, ValueEnum)]
enum Same {
    /// Their path.
    Path,
    /// Their pixels.
    Pixels,
    /// What they look like.
    Looks,
}

/// Drop samples that benchmarks ask or show.
#[derive(Args)]
pub struct DecontaminateVerb {
    #[command(flatten)]
    pool: PoolArgs,
    /// File of a benchmark's questions: JSON lines with `question`, `text` or `prompt`; may be repeated.
    #[arg(long)]
    questions: Vec<PathBuf>,
    /// Folder of a benchmark's pictures; may be repeated, and needs `--images`.
    #[arg(long)]
    benchmark_images: Vec<PathBuf>,
    /// Questions of fewer words do not count.
    #[arg(long, default_value_t = 8)]
    min_words: usize,
    /// Bits in which hashes of pictures that look alike may differ, 0 to 3.
    #[arg(long, default_value_t = 0)]
    distance: u32,
}

impl DecontaminateVerb {
    /// Does it.
    pub fn run(self) -> Outcome {
        if self.questions.is_empty() && self.benchmark_images.is_empty() {
            return Err(Failure::new("there is no benchmark to keep away from")
                .hint("pass `--questions FILE` or `--benchmark-images FOLDER`"));
        }
        self.pool.make(|recipe| {
            recipe.decontaminate = Some(Decontaminate {
                questions: self.questions,
                images: self.benchmark_images,
                min_words: self.min_words,
                distance: self.distance,
            });
        })
    }
}

impl DedupVerb {
    /// Does it.
    pub fn run(self) -> Outcome {
        self.pool.make(|recipe| {
            recipe.dedup = Some(Dedup {
                exact: true,
                near: self.near,
                pictures: match self.pictures {
                    Same::Path => Pictures::Path,
                    Same::Pixels => Pictures::Pixels,
                    Same::Looks => Pictures::Looks,
                },
            });
        })
    }
}

/// Add format prompts to the questions of sources that need them.
#[derive(Args)]
pub struct PromptVerb {
    #[command(flatten)]
    pool: PoolArgs,
    /// TOML file with the prompts, and which source gets which.
    #[arg(long)]
    prompts: PathBuf,
}

impl PromptVerb {
    /// Does it.
    pub fn run(self) -> Outcome {
        self.pool.make(|recipe| {
            recipe.prompts = Some(Prompts {
                file: Some(self.prompts),
                ..Prompts::default()
            });
        })
    }
}
