//! An evaluation: every question in every way that was wanted, resuming where an earlier run stopped.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::time::Instant;

use opabinia_image::ImageLimits;
use opabinia_model::{ImagePosition, Model};

use crate::candidate::Candidate;
use crate::error::EvalError;
use crate::examiner::Examiner;
use crate::plan::{Ask, Shard, plan, select};
use crate::questions::QuestionSet;
use crate::record::Record;
use crate::run_folder::RunFolder;
use crate::scorer::Scorer;
use crate::settings::{Description, Settings};
use crate::vision::Vision;

/// What is asked, and how.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// The ways in which each question is asked.
    pub vision: Vec<Vision>,
    /// Only the first questions of the file.
    pub limit: Option<usize>,
    /// Only a part of these.
    pub shard: Shard,
    /// Decides which picture is the wrong one for which question.
    pub seed: u64,
    /// Longest answer in tokens.
    pub max_new_tokens: usize,
    /// Where in-LLM layers look for visual tokens.
    pub image_position: ImagePosition,
    /// How answers are judged.
    pub scorer: Scorer,
    /// Questions that are asked side by side; `None` is one per core on a CPU, and one elsewhere.
    pub workers: Option<usize>,
    /// What a picture may be.
    pub image_limits: ImageLimits,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self {
            vision: vec![Vision::On, Vision::Off, Vision::Shuffled],
            limit: None,
            shard: Shard::WHOLE,
            seed: 0,
            max_new_tokens: 32,
            image_position: ImagePosition::Config,
            scorer: Scorer::ShortAnswer,
            workers: None,
            image_limits: ImageLimits::default(),
        }
    }
}

impl EvalOptions {
    fn check(&self, model: &Model) -> Result<(), EvalError> {
        let out_of_range = |option, found: String, wanted| {
            Err(EvalError::Option {
                option,
                found,
                wanted,
            })
        };
        let Shard { index, count } = self.shard;
        if index >= count {
            let found = format!("{index} of {count}");
            return out_of_range(
                "shard",
                found,
                "a number from 0, below the number of shards",
            );
        }
        for (option, value) in [
            ("limit", self.limit),
            ("workers", self.workers),
            ("max_new_tokens", Some(self.max_new_tokens)),
        ] {
            if value == Some(0) {
                return out_of_range(option, "0".into(), "at least 1");
            }
        }
        if self.vision.is_empty() {
            return out_of_range("vision", "empty".into(), "at least one way of asking");
        }
        let looks = self.vision.iter().any(|vision| vision.shows_something());
        if looks && model.config.vision.is_none() {
            return Err(EvalError::NoVision);
        }
        Ok(())
    }
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Questions that are done, each way of asking counted.
    pub done: usize,
    /// Those among them that an earlier run did.
    pub earlier: usize,
    /// Questions that are wanted.
    pub wanted: usize,
}

/// What an evaluation gave.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// A record per question and way of asking, in the order of the questions; those of earlier runs
    /// among them.
    pub records: Vec<Record>,
    /// How many there are when all is done.
    pub wanted: usize,
    /// Questions that were asked now.
    pub asked: usize,
    /// Seconds that this took.
    pub seconds: f64,
    /// Questions that were asked side by side.
    pub workers: usize,
}

impl Evaluation {
    /// Whether nothing is left to ask.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.records.len() == self.wanted
    }
}

/// Asks what the folder has no answer to yet. `progress` is called before the first question and
/// after each; when it breaks, the questions under way are finished and the rest is left.
///
/// # Errors
/// If an option is out of range, the model cannot see and should, there is no wrong picture, or the
/// folder cannot be written. A question that cannot be asked is no error but a record that says why.
pub fn evaluate(
    candidate: &Candidate<'_>,
    set: &QuestionSet,
    options: &EvalOptions,
    folder: &mut RunFolder,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Evaluation, EvalError> {
    options.check(candidate.model)?;
    let start = Instant::now();
    let work = Work::new(candidate, set, options);
    let open = work.open(folder);
    let earlier = work.asks.len() - open.len();
    let mut state = Progress {
        done: earlier,
        earlier,
        wanted: work.asks.len(),
    };
    let units = plan(set, open, options.seed)?;
    folder.write_json("run.json", &Description::new(candidate, set, options))?;

    let examiner = Examiner::new(candidate.model, set, options, &work.settings);
    let pools = examiner.pools(units.len())?;
    if progress(&state).is_continue() {
        examiner.ask_all(&units, &pools, &mut |record| {
            folder.append(record)?;
            state.done += 1;
            Ok(progress(&state))
        })?;
    }
    Ok(Evaluation {
        records: work
            .records(folder)
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
        wanted: work.asks.len(),
        asked: state.done - state.earlier,
        seconds: start.elapsed().as_secs_f64(),
        workers: pools.len(),
    })
}

/// What is wanted.
struct Work<'a> {
    set: &'a QuestionSet,
    /// In the order of the questions.
    asks: Vec<Ask>,
    /// Digest of the settings of each way of asking.
    settings: BTreeMap<Vision, String>,
}

impl<'a> Work<'a> {
    fn new(candidate: &Candidate<'_>, set: &'a QuestionSet, options: &EvalOptions) -> Self {
        let digest = |vision| Settings::new(candidate, set, options, vision).digest();
        let settings: BTreeMap<Vision, String> = options
            .vision
            .iter()
            .map(|&vision| (vision, digest(vision)))
            .collect();
        let asks = select(set, options.limit, options.shard)
            .into_iter()
            .flat_map(|question| settings.keys().map(move |&vision| Ask { question, vision }))
            .collect();
        Self {
            set,
            asks,
            settings,
        }
    }

    /// For everything that is wanted the last record of it.
    fn records<'r>(&self, folder: &'r RunFolder) -> Vec<Option<&'r Record>> {
        let last: HashMap<(&str, &str), &Record> = folder
            .records()
            .iter()
            .map(|record| ((record.id.as_str(), record.settings.as_str()), record))
            .collect();
        let find = |ask: &Ask| {
            let id = self.set.questions[ask.question].id.as_str();
            let settings = self.settings[&ask.vision].as_str();
            last.get(&(id, settings)).copied()
        };
        self.asks.iter().map(find).collect()
    }

    /// What has no answer yet.
    fn open(&self, folder: &RunFolder) -> Vec<Ask> {
        let records = self.records(folder);
        let open = self.asks.iter().zip(records).filter(|(_, record)| {
            let answered = record.is_some_and(|record| record.failure().is_none());
            !answered
        });
        open.map(|(ask, _)| *ask).collect()
    }
}
