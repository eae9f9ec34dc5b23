//! The evaluation itself.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgGroup, Args, ValueEnum};
use opabinia_data::features::{FeatureStore, Precision};
use opabinia_eval::{
    Candidate, EvalOptions, Evaluation, Items, QuestionSet, Record, RunFolder, Shard, Summary,
    Vision, evaluate,
};
use opabinia_llm::Conversation;
use opabinia_model::{Generation, ImagePosition, Model};

use super::bar::Bar;
use super::peers::PeerArgs;
use super::sources::{DefinitionArgs, SourceArgs};
use crate::args::{ImageArgs, ModelArgs, PositionArg};
use crate::failure::Failure;
use crate::watch::time;
use crate::{Outcome, ask, interrupt, load, output};

/// Questions that went wrong and are shown.
const FAILURES_SHOWN: usize = 5;

/// What is asked of whom.
#[derive(Args)]
#[command(group = ArgGroup::new("asked").required(true).args(["questions", "benchmarks"]))]
pub struct Run {
    /// Questions as `opabinia world make` writes them: `DIR/test/questions.jsonl`.
    questions: Option<PathBuf>,
    /// Benchmarks by name or by their data set, `hub:lmms-lab/POPE`, or a definition of your own by its
    /// file, `./mine.toml`; `opabinia eval list` lists the names. What is not here is fetched from the hub.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    benchmarks: Vec<String>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    definitions: DefinitionArgs,
    /// What is shown beside each question: its picture, none, that of another question, or a gray
    /// one.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "on,off,shuffled"
    )]
    vision: Vec<VisionArg>,
    /// Only the first questions of each benchmark, and the rest of their pairs.
    #[arg(long)]
    limit: Option<usize>,
    /// Only one of several parts, such as `2/4`; parts in one folder, or merged, make a whole.
    #[arg(long, value_parser = shard, value_name = "PART/PARTS")]
    shard: Option<Shard>,
    /// Questions that are asked side by side; one per core if not given, four of a served model.
    #[arg(long)]
    workers: Option<usize>,
    /// Questions that are answered together, per worker; pays on a GPU.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Keep features of pictures in this folder, for the next run; those of a large model are large.
    #[arg(long, value_name = "FOLDER")]
    feature_cache: Option<PathBuf>,
    /// Longest answer in tokens; what each benchmark says if not given, 32 for a file of questions.
    #[arg(long)]
    max_new_tokens: Option<usize>,
    /// Decides which picture is the wrong one for which question.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where in-LLM layers look for visual tokens: at the constant of config.json, as the reference
    /// does, or where they are.
    #[arg(long, value_enum, default_value_t = PositionArg::Config)]
    image_position: PositionArg,
    /// Folder of the run; one for this model below `runs/eval` if not given.
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
    peers: PeerArgs,
    #[command(flatten)]
    image: ImageArgs,
}

/// See [`Vision`].
#[derive(Clone, Copy, ValueEnum)]
pub enum VisionArg {
    /// The question's picture.
    On,
    /// No picture.
    Off,
    /// Another question's picture.
    Shuffled,
    /// A gray picture.
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

impl Run {
    /// Reads, loads, asks, reports.
    pub fn run(self) -> Outcome {
        // Questions first: a broken line should not cost the time to load a model.
        let items = self.items()?;
        let options = self.options()?;
        if let Some(endpoint) = self.peers.endpoint()? {
            let name = self.name.clone();
            let name = name.unwrap_or_else(|| endpoint.model().to_owned());
            let candidate = Candidate::served(&endpoint, name);
            return self.judge(&candidate, &items, &options);
        }
        let model = load::model(&self.model, self.verbose)?;
        self.warn_of_position(&model, &items, &options)?;
        let candidate = Candidate::new(&model, self.model_name());
        self.judge(&candidate, &items, &options)
    }

    fn items(&self) -> Result<Items, Failure> {
        match &self.questions {
            Some(path) => Ok(Items::of_file(&QuestionSet::read(path)?)?),
            None => self.source.items(&self.benchmarks, &self.definitions),
        }
    }

    fn judge(&self, candidate: &Candidate<'_>, items: &Items, options: &EvalOptions) -> Outcome {
        let folder = self.out.clone();
        let folder = folder.unwrap_or_else(|| default_folder(candidate, items));
        let mut folder = RunFolder::open(folder)?;
        interrupt::watch()?;
        let mut bar = Bar::new();
        let evaluation = evaluate(candidate, items, options, &mut folder, &mut |progress| {
            bar.show(progress);
            if interrupt::asked() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        bar.finish();
        // What was answered before something broke counts too.
        let summary = folder.summarise();
        let evaluation = evaluation?;
        let summary = summary?;
        for path in folder.write_submissions()? {
            output::note(&format!("for the benchmark's server: {}", path.display()));
        }
        self.report(&summary)?;
        tell(&evaluation, &summary, folder.path());
        let mut records = evaluation.records.iter();
        Ok(match evaluation.is_complete() {
            false => ExitCode::from(130),
            true if records.all(Record::is_final) => ExitCode::SUCCESS,
            true => ExitCode::FAILURE,
        })
    }

    fn options(&self) -> Result<EvalOptions, Failure> {
        Ok(EvalOptions {
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
            batch: self.batch,
            feature_cache: match &self.feature_cache {
                Some(folder) => Some(Arc::new(FeatureStore::open(folder, Precision::F32)?)),
                None => None,
            },
            image_limits: self.image.limits(),
            judge: self.peers.judge(&self.model, self.verbose)?,
        })
    }

    /// The first question stands for all: pictures come before the text.
    fn warn_of_position(
        &self,
        model: &Model,
        items: &Items,
        options: &EvalOptions,
    ) -> Result<(), Failure> {
        let looks = options.vision.iter().any(|vision| vision.shows_something());
        let mut questions = items.sets.iter().flat_map(|set| &set.items);
        let first = questions.find(|item| item.picture.is_some());
        let (true, Some(question)) = (looks, first) else {
            return Ok(());
        };
        let conversation = Conversation::question(question.prompt.as_str()).with_images(1);
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

/// One folder for each model, and for each file of questions, whatever their paths.
fn default_folder(candidate: &Candidate<'_>, items: &Items) -> PathBuf {
    let short = |digest: &str| digest.chars().take(6).collect::<String>();
    let name = candidate.name.replace(['/', '\\'], "-");
    let mut folder = format!("{name}-{}", short(&candidate.sha256));
    let mut files = items.sets.iter().filter(|set| set.benchmark.is_none());
    if let Some(file) = files.next() {
        folder.push_str(&format!("-{}", short(&file.sha256)));
    }
    Path::new("runs/eval").join(folder)
}

/// The table with numbers to the right and tasks below their groups, and by whose rules it was judged.
pub fn table(summary: &Summary) -> String {
    let mut table = summary.table();
    for (cells, row) in table.rows.iter_mut().zip(&summary.rows) {
        if row.task.is_some()
            && let Some(name) = cells.first_mut()
        {
            name.insert_str(0, "  ");
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
    let rows = output::table(&header, &table.rows);
    match summary.protocols() {
        none if none.is_empty() => rows,
        protocols => format!("{rows}\n{protocols}"),
    }
}

/// What it took, and what went wrong.
fn tell(evaluation: &Evaluation, summary: &Summary, folder: &Path) {
    output::note(&summary.visual_gain);
    let earlier = evaluation.records.len().saturating_sub(evaluation.done);
    let reused = match evaluation.reused {
        0 => String::new(),
        count => format!(" ({count} of them answered already)"),
    };
    let memory = match summary.performance.peak_memory_bytes {
        Some(bytes) => format!(", {} of memory at most", output::bytes(bytes)),
        None => String::new(),
    };
    output::note(&format!(
        "{} asked now{reused} in {} ({:.1} per second, {} side by side{memory}), {earlier} earlier; \
         records are in {}",
        evaluation.done,
        time(evaluation.seconds),
        evaluation.done as f64 / evaluation.seconds.max(1e-9),
        evaluation.workers,
        folder.display()
    ));
    if evaluation.known_pictures > 0 {
        output::note(&format!(
            "{} times a picture's features were in the cache",
            evaluation.known_pictures
        ));
    }
    if let Some(problem) = &evaluation.cache_problem {
        output::note(&format!(
            "warning: the cache of features cannot be used, so pictures were looked at: {problem}"
        ));
    }
    for (count, what) in [
        (summary.cut_off, "answers were cut at --max-new-tokens"),
        (summary.empty, "answers are empty and count as wrong"),
        (
            summary.unparsed.saturating_sub(summary.empty),
            "answers say nothing that could be judged and count as wrong",
        ),
    ] {
        if count > 0 {
            output::note(&format!("{count} {what}"));
        }
    }
    for set in &summary.sets {
        for (vision, way) in &set.ways {
            if let Some(reason) = &way.no_metrics {
                output::note(&format!("{} has no score ({vision}): {reason}", set.title));
            }
        }
    }
    tell_failures(evaluation);
    if !evaluation.is_complete() {
        output::note(&format!(
            "interrupted: {} of {} are left; the same command goes on",
            evaluation.wanted - evaluation.records.len(),
            evaluation.wanted
        ));
    } else if summary.unfinished > 0 {
        output::note(&format!(
            "{} questions of earlier commands are left in this folder",
            summary.unfinished
        ));
    }
}

/// Lists what could not be asked, and what could not be judged.
fn tell_failures(evaluation: &Evaluation) {
    type Problem = fn(&Record) -> Option<&str>;
    let kinds: [(Problem, &str); 2] = [
        (
            Record::failure,
            "questions could not be asked and count as wrong",
        ),
        (
            Record::judge_failure,
            "answers got no grade and count nowhere; the same command asks the judge again",
        ),
    ];
    for (problem, what) in kinds {
        let found: Vec<String> = evaluation
            .records
            .iter()
            .filter_map(|record| {
                let problem = problem(record)?;
                let set = record.benchmark.iter().map(|name| format!("{name}/"));
                let set: String = set.collect();
                Some(format!(
                    "  {set}{} ({}): {problem}",
                    record.id, record.vision
                ))
            })
            .collect();
        if found.is_empty() {
            continue;
        }
        output::note(&format!("error: {} {what}:", found.len()));
        for line in found.iter().take(FAILURES_SHOWN) {
            output::note(line);
        }
    }
}
