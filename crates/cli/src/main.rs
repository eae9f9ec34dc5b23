//! The `opabinia` command line.
//!
//! One file per verb; a verb parses, builds, calls and prints, and everything a library user would
//! want lives in the libraries. Data goes to standard output, everything else to standard error.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 `parity` found a deviation, 130 interrupted.

mod analyze;
mod args;
mod ask;
mod chat;
mod cvbench;
#[cfg(feature = "dashboard")]
mod dashboard;
mod data;
mod device;
mod doctor;
mod encode;
mod encoders;
mod engine;
mod eval;
mod failure;
mod inspect;
mod interrupt;
mod load;
mod memory;
mod output;
mod parity;
mod probe;
mod progress;
mod pull;
mod quantize;
mod serve;
mod shipped;
mod train;
mod watch;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// Keeps freed memory in the process: every tensor operation allocates its result, and with the
/// system's allocator much of the time goes into page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Cambrian-1, a vision-centric multimodal language model, as one program.
#[derive(Parser)]
#[command(
    name = "opabinia",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 parity found a deviation, \
                  130 interrupted.\nEnvironment: OPABINIA_MODEL, OPABINIA_SERVE_KEY, OPABINIA_MAX_IMAGE_PIXELS, …_SIDE, \
                  …_BYTES; HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE; \
                  OPABINIA_LOG=debug shows what happens inside."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Ask a question, with pictures or without.
    Ask(ask::Ask),
    /// Talk with a model, with pictures or without.
    Chat(chat::Chat),
    /// Answer over HTTP, in the form of OpenAI's API, and on a page.
    Serve(serve::Serve),
    /// Write the features that a vision encoder gives for a picture.
    Encode(encode::Encode),
    /// List the vision encoders.
    Encoders(encoders::Encoders),
    /// Fetch and inspect models.
    #[command(subcommand)]
    Model(ModelVerb),
    /// Train what a recipe says, and draw the curves of runs.
    Train(train::Train),
    /// Look at samples, and make mixtures of them.
    #[command(subcommand)]
    Data(data::Data),
    /// Collect new samples from the web: run a plan, look at it, replay it.
    #[command(subcommand)]
    Engine(engine::Engine),
    /// Score a model on questions, with and without their pictures.
    Eval(eval::Eval),
    /// Score vision encoders without a language model: linear probe and nearest neighbors.
    Probe(probe::Probe),
    /// Draw a report of scores: gaps, correlations, components, clusters, ranks with intervals.
    Analyze(analyze::Analyze),
    /// Build, review and score CV-Bench.
    #[command(subcommand)]
    Cvbench(cvbench::Cvbench),
    /// Make and show the small world: pictures with exact ground truth, and questions.
    #[command(subcommand)]
    World(world::World),
    /// Prove that this program computes what the reference computed.
    Parity(parity::Parity),
    /// Show devices, processor, memory and caches, and what is wrong with them.
    Doctor(doctor::Doctor),
}

#[derive(Subcommand)]
enum ModelVerb {
    /// Download a model folder from the Hugging Face hub.
    Pull(pull::Pull),
    /// Show what a model is made of, without loading it.
    Inspect(inspect::Inspect),
    /// Write a model folder with shorter weights, packed for the CPU.
    Quantize(quantize::Quantize),
}

fn main() -> ExitCode {
    memory::keep();
    let cli = Cli::parse();
    output::start_log();
    if let Err(error) = opabinia_nn::cpu::Path::asked() {
        return Failure::from(error)
            .hint("leave OPABINIA_CPU unset to take the best path of this processor")
            .report();
    }
    let done = match cli.verb {
        Verb::Ask(verb) => verb.run(),
        Verb::Chat(verb) => verb.run(),
        Verb::Serve(verb) => verb.run(),
        Verb::Encode(verb) => verb.run(),
        Verb::Encoders(verb) => verb.run(),
        Verb::Model(ModelVerb::Pull(verb)) => verb.run(),
        Verb::Model(ModelVerb::Inspect(verb)) => verb.run(),
        Verb::Model(ModelVerb::Quantize(verb)) => verb.run(),
        Verb::Train(verb) => verb.run(),
        Verb::Data(verb) => verb.run(),
        Verb::Engine(verb) => verb.run(),
        Verb::Eval(verb) => verb.run(),
        Verb::Probe(verb) => verb.run(),
        Verb::Analyze(verb) => verb.run(),
        Verb::Cvbench(verb) => verb.run(),
        Verb::World(verb) => verb.run(),
        Verb::Parity(verb) => verb.run(),
        Verb::Doctor(verb) => verb.run(),
    };
    match done {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

/// What every verb returns.
type Outcome = Result<ExitCode, Failure>;
