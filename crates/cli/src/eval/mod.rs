//! `eval`: what a model scores, and how much of that is vision; and what is done with such runs.

mod bar;
mod hub;
mod list;
mod peers;
mod run;
mod runs;
mod sources;

use clap::{Args, Subcommand};

use crate::Outcome;

/// Score a model on benchmarks or on a file of questions, with pictures, without, and with wrong ones.
/// The same command goes on where an interrupted run stands.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Eval {
    #[command(subcommand)]
    verb: Option<EvalVerb>,
    #[command(flatten)]
    run: run::Run,
}

#[derive(Subcommand)]
enum EvalVerb {
    /// List the benchmarks.
    List(list::List),
    /// Show a benchmark: prompt, address, chance, what the protocols do differently.
    Show(list::Show),
    /// Put runs of several machines together: shards, or several benchmarks of one model.
    Merge(runs::Merge),
    /// Compare two runs question by question: which is better, what flipped, what differs.
    Diff(runs::Diff),
}

impl Eval {
    /// Does what the verb says; without one, evaluates.
    pub fn run(self) -> Outcome {
        match self.verb {
            None => self.run.run(),
            Some(EvalVerb::List(verb)) => verb.run(),
            Some(EvalVerb::Show(verb)) => verb.run(),
            Some(EvalVerb::Merge(verb)) => verb.run(),
            Some(EvalVerb::Diff(verb)) => verb.run(),
        }
    }
}
