//! `eval`: what a model scores on a file of questions, and how much of that is vision.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use opabinia_eval::{
    Candidate, EvalOptions, Evaluation, Progress, QuestionSet, Record, RunFolder, Shard, Summary,
    Vision, evaluate,
};
use opabinia_llm::Conversation;
use opabinia_model::{Generation, ImagePosition, Model};

use crate::args::{ImageArgs, ModelArgs, PositionArg};
use crate::failure::Failure;
use crate::watch::time;
use crate::{Outcome, ask, interrupt, load, output};

/// Time between plain lines.
const LINES_EVERY: Duration = Duration::from_secs(10);
/// Questions that could not be asked and are shown.
const FAILURES_SHOWN: usize = 5;

/// Score a model on a file of questions, with pictures, without, and with wrong ones; the same
/// command goes on where an interrupted run stands.
#[derive(Args)]
pub struct Eval {
    /// Questions as `opabinia world make` writes them: `DIR/test/questions.jsonl`.
    questions: PathBuf,
    /// What is shown beside each question: its picture, none, that of another question, or a grey
    /// one.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "on,off,shuffled"
    )]
    vision: Vec<VisionArg>,
    /// Only the first questions of the file.
    #[arg(long)]
    limit: Option<usize>,
    /// Only one of several parts, such as `2/4`; parts in one folder make a whole.
    #[arg(long, value_parser = shard, value_name = "PART/PARTS")]
    shard: Option<Shard>,
    /// Questions that are asked side by side; one per core if not given.
    #[arg(long)]
    workers: Option<usize>,
    /// Longest answer in tokens.
    #[arg(long, default_value_t = EvalOptions::default().max_new_tokens)]
    max_new_tokens: usize,
    /// Decides which picture is the wrong one for which question.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where in-LLM layers look for visual tokens: at the constant of config.json, as the reference
    /// does, or where they are.
    #[arg(long, value_enum, default_value_t = PositionArg::Config)]
    image_position: PositionArg,
    /// Folder of the run; one for this model and these questions below `runs/eval` if not given.
    #[arg(short, long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// What tables call the model.
    #[arg(long)]
    name: Option<String>,
    /// The summary as one JSON object on standard output, instead of the table.
    #[arg(long)]
    json: bool,
    /// Write the table as Markdown too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Say how the model was loaded.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    image: ImageArgs,
}

/// See [`Vision`].
#[derive(Clone, Copy, ValueEnum)]
enum VisionArg {
    /// The question's picture.
    On,
    /// No picture.
    Off,
    /// Another question's picture.
    Shuffled,
    /// A grey picture.
    Blank,
}

impl From<VisionArg> for Vision {
    fn from(vision: VisionArg) -> Self {
        match vision {
            VisionArg::On => Self::On,
            VisionArg::Off => Self::Off,
            VisionArg::Shuffled => Self::Shuffled,
            VisionArg::Blank => Self::Blank,
        }
    }
}

/// `2/4`: the second of four.
fn shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once('/').and_then(|(part, parts)| {
        let (part, count): (usize, usize) = (part.parse().ok()?, parts.parse().ok()?);
        let index = part.checked_sub(1).filter(|index| *index < count)?;
        Some(Shard { index, count })
    });
    parts.ok_or_else(|| "write `2/4` for the second of four parts".to_owned())
}

impl Eval {
    /// Reads, loads, asks, reports.
    pub fn run(self) -> Outcome {
        // Questions first: a broken line should not cost the time to load a model.
        let set = QuestionSet::read(&self.questions)?;
        let model = load::model(&self.model, self.verbose)?;
        let options = self.options();
        self.warn_of_position(&model, &set, &options)?;
        let candidate = Candidate::new(&model, self.model_name());
        let folder = self
            .out
            .clone()
            .unwrap_or_else(|| default_folder(&candidate, &set));
        let mut folder = RunFolder::open(folder)?;
        interrupt::watch()?;
        let mut bar = Bar::new();
        let evaluation = evaluate(&candidate, &set, &options, &mut folder, &mut |progress| {
            bar.show(progress);
            if interrupt::asked() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        bar.finish();
        let evaluation = evaluation?;
        let summary = Summary::of(&candidate.name, &evaluation);
        folder.write_json("summary.json", &summary)?;
        self.report(&summary)?;
        tell(&evaluation, &summary, folder.path());
        Ok(match (evaluation.is_complete(), summary.failed) {
            (false, _) => ExitCode::from(130),
            (true, 0) => ExitCode::SUCCESS,
            (true, _) => ExitCode::FAILURE,
        })
    }

    fn options(&self) -> EvalOptions {
        EvalOptions {
            vision: self.vision.iter().map(|&vision| vision.into()).collect(),
            limit: self.limit,
            shard: self.shard.unwrap_or(Shard::WHOLE),
            seed: self.seed,
            max_new_tokens: self.max_new_tokens,
            image_position: match self.image_position {
                PositionArg::Config => ImagePosition::Config,
                PositionArg::Actual => ImagePosition::Actual,
            },
            workers: self.workers,
            image_limits: self.image.limits(),
            ..EvalOptions::default()
        }
    }

    /// The first question stands for all: pictures come before the text.
    fn warn_of_position(
        &self,
        model: &Model,
        set: &QuestionSet,
        options: &EvalOptions,
    ) -> Result<(), Failure> {
        let looks = options.vision.iter().any(|vision| vision.shows_something());
        let (true, Some(question)) = (looks, set.questions.first()) else {
            return Ok(());
        };
        let conversation = Conversation::question(question.question.as_str()).with_images(1);
        let generation = Generation {
            image_position: options.image_position,
            ..Generation::default()
        };
        ask::warn_of_position(model, &conversation, &generation)
    }

    /// The folder's name; where that is but `model`, as in the folder of a training run, the two
    /// above it.
    fn model_name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let Some(model) = &self.model.model else {
            return "small".into();
        };
        let mut parts: Vec<&str> = model
            .split(['/', '\\'])
            .filter(|part| !matches!(*part, "" | "." | ".."))
            .collect();
        let last = parts.pop().unwrap_or("model");
        if last != "model" || parts.is_empty() {
            return last.to_owned();
        }
        parts.split_off(parts.len().saturating_sub(2)).join("-")
    }

    fn report(&self, summary: &Summary) -> Result<(), Failure> {
        if let Some(path) = &self.markdown {
            std::fs::write(path, summary.markdown()).map_err(|error| {
                Failure::new(format!("cannot write {}: {error}", path.display()))
            })?;
        }
        if self.json {
            output::data(&serde_json::to_string(summary)?);
        } else {
            output::data(&table(summary));
        }
        Ok(())
    }
}

/// One folder for each model and set of questions, whatever their paths.
fn default_folder(candidate: &Candidate<'_>, set: &QuestionSet) -> PathBuf {
    let short = |digest: &str| digest.chars().take(6).collect::<String>();
    Path::new("runs/eval").join(format!(
        "{}-{}-{}",
        candidate.name.replace(['/', '\\'], "-"),
        short(&candidate.sha256),
        short(&set.sha256)
    ))
}

/// The table with numbers to the right and tasks below their groups.
fn table(summary: &Summary) -> String {
    let mut table = summary.table();
    for (cells, row) in table.rows.iter_mut().zip(&summary.rows) {
        if row.task.is_some() {
            cells[0].insert_str(0, "  ");
        }
    }
    for column in 1..table.header.len() {
        let cells = || table.rows.iter().chain([&table.header]);
        let width = cells().map(|cells| cells[column].chars().count()).max();
        let width = width.unwrap_or(0);
        for cells in table.rows.iter_mut().chain([&mut table.header]) {
            cells[column] = format!("{:>width$}", cells[column]);
        }
    }
    let header: Vec<&str> = table.header.iter().map(String::as_str).collect();
    output::table(&header, &table.rows)
}

/// What it took, and what went wrong.
fn tell(evaluation: &Evaluation, summary: &Summary, folder: &Path) {
    output::note(summary.visual_gain);
    let earlier = evaluation.records.len().saturating_sub(evaluation.asked);
    output::note(&format!(
        "{} asked now in {} ({:.1} per second, {} side by side), {earlier} earlier; records are in \
         {}",
        evaluation.asked,
        time(evaluation.seconds),
        evaluation.asked as f64 / evaluation.seconds.max(1e-9),
        evaluation.workers,
        folder.display()
    ));
    if summary.cut_off > 0 {
        output::note(&format!(
            "{} answers were cut at --max-new-tokens",
            summary.cut_off
        ));
    }
    if summary.failed > 0 {
        output::note(&format!(
            "error: {} questions could not be asked and count as wrong:",
            summary.failed
        ));
        let failed = |record: &Record| {
            let failure = record.failure()?;
            Some(format!("  {} ({}): {failure}", record.id, record.vision))
        };
        let shown = evaluation.records.iter().filter_map(failed);
        for line in shown.take(FAILURES_SHOWN) {
            output::note(&line);
        }
    }
    if !evaluation.is_complete() {
        output::note(&format!(
            "interrupted: {} of {} are left; the same command goes on",
            summary.unfinished, evaluation.wanted
        ));
    }
}

/// A bar on a terminal, plain lines elsewhere.
struct Bar {
    bar: Option<ProgressBar>,
    start: Instant,
    shown: Instant,
}

impl Bar {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} questions  {msg}");
            let bar = ProgressBar::new(0);
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            bar,
            start: Instant::now(),
            shown: Instant::now(),
        }
    }

    fn show(&mut self, progress: &Progress) {
        let now = (progress.done - progress.earlier) as f64;
        let seconds = self.start.elapsed().as_secs_f64();
        let mut rate = String::new();
        if now > 0.0 {
            let left = (progress.wanted - progress.done) as f64 * seconds / now;
            rate = format!("{:.1} per second, {} left", now / seconds, time(left));
        }
        if let Some(bar) = &self.bar {
            bar.set_length(progress.wanted as u64);
            bar.set_position(progress.done as u64);
            bar.set_message(rate);
        } else if self.shown.elapsed() >= LINES_EVERY {
            self.shown = Instant::now();
            output::note(&format!(
                "{}/{} questions, {rate}",
                progress.done, progress.wanted
            ));
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
