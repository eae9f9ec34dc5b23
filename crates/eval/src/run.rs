//! An evaluation: every question in every way that was wanted, resuming where an earlier run stopped.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use opabinia_data::features::FeatureStore;
use opabinia_image::ImageLimits;
use opabinia_model::ImagePosition;

use crate::candidate::{Candidate, Who};
use crate::description::{Invocation, RUN_FILE, RunDescription};
use crate::error::EvalError;
use crate::examiner::{Examiner, SettingsOf};
use crate::feature_cache::FeatureCache;
use crate::items::{ItemSet, Items};
use crate::judging::JudgeModel;
use crate::plan::{Ask, Shard, Showing, plan, select};
use crate::record::{Answered, Record};
use crate::run_folder::RunFolder;
use crate::settings::{Settings, asked};
use crate::vision::Vision;

/// What is asked, and how.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// The ways in which each question is asked.
    pub vision: Vec<Vision>,
    /// Only the first questions of each benchmark, and the rest of their pairs.
    pub limit: Option<usize>,
    /// Only a part of these.
    pub shard: Shard,
    /// Decides which picture is the wrong one for which question.
    pub seed: u64,
    /// Longest answer in tokens; `None` for what each benchmark says.
    pub max_new_tokens: Option<usize>,
    /// Where in-LLM layers look for visual tokens.
    pub image_position: ImagePosition,
    /// Questions that are asked side by side; `None` is one per core on a CPU, one on another device,
    /// and four of a served model.
    pub workers: Option<usize>,
    /// Questions that a model which was loaded here answers together, per worker.
    pub batch: usize,
    /// Where features of pictures are kept from one run to the next.
    pub feature_cache: Option<Arc<FeatureStore>>,
    /// What a picture may be.
    pub image_limits: ImageLimits,
    /// Who judges where no rule can.
    pub judge: Option<JudgeModel>,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self {
            vision: vec![Vision::On, Vision::Off, Vision::Shuffled],
            limit: None,
            shard: Shard::WHOLE,
            seed: 0,
            max_new_tokens: None,
            image_position: ImagePosition::Config,
            workers: None,
            batch: 1,
            feature_cache: None,
            image_limits: ImageLimits::default(),
            judge: None,
        }
    }
}

impl EvalOptions {
    /// Longest answer to a question of a benchmark, in tokens.
    #[must_use]
    pub fn max_new_tokens(&self, set: &ItemSet) -> usize {
        self.max_new_tokens.unwrap_or(set.max_new_tokens)
    }

    fn check(&self, candidate: &Candidate<'_>) -> Result<(), EvalError> {
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
            ("batch", Some(self.batch)),
            ("max_new_tokens", self.max_new_tokens),
        ] {
            if value == Some(0) {
                return out_of_range(option, "0".into(), "at least 1");
            }
        }
        if self.vision.is_empty() {
            return out_of_range("vision", "empty".into(), "at least one way of asking");
        }
        let looks = self.vision.iter().any(|vision| vision.shows_something());
        match candidate.who {
            Who::Local(model) if looks && model.config.vision.is_none() => Err(EvalError::NoVision),
            _ => Ok(()),
        }
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
    /// Records that were written now.
    pub done: usize,
    /// Those among them whose answer was there, from an equal question.
    pub reused: usize,
    /// Seconds that this took.
    pub seconds: f64,
    /// Questions that were asked side by side.
    pub workers: usize,
    /// Pictures whose features were in the cache.
    pub known_pictures: usize,
    /// What is wrong with the cache of features, if anything; pictures were looked at instead.
    pub cache_problem: Option<String>,
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
/// What the folder has an answer to is never asked again: a question whose answer is there but was
/// judged otherwise (by the other protocol, by a judge that failed) is judged anew.
///
/// # Errors
/// If an option is out of range, the model cannot see and should, there is no wrong picture, a served
/// model does not answer, or the folder cannot be written. A question that cannot be asked is no error
/// but a record that says why.
pub fn evaluate(
    candidate: &Candidate<'_>,
    items: &Items,
    options: &EvalOptions,
    folder: &mut RunFolder,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Evaluation, EvalError> {
    options.check(candidate)?;
    let start = Instant::now();
    let work = Work::new(candidate, items, options);
    let showing = Showing::new(items, &options.vision, options.seed)?;
    let open = work.open(folder);
    let earlier = work.asks.len() - open.len();
    let mut state = Progress {
        done: earlier,
        earlier,
        wanted: work.asks.len(),
    };
    let known = Known::of(folder);
    let units = plan(
        &showing,
        &open,
        |ask, shown| asked(candidate, items, options, ask, shown),
        |asked| known.find(folder, asked),
    );
    let before = RunDescription::find(folder.path())?;
    let mut description = RunDescription::adding(before, candidate, items, options, &work.selected);
    folder.write_json(RUN_FILE, &description)?;

    let examiner = Examiner::new(candidate, items, options, &work.settings);
    let pools = examiner.pools(units.len())?;
    let mut result = Ok(());
    let mut reused = 0;
    if progress(&state).is_continue() {
        result = examiner.ask_all(&units, &pools, &mut |record| {
            reused += usize::from(record.answered().is_some_and(|answered| answered.reused));
            folder.append(record)?;
            state.done += 1;
            Ok(progress(&state))
        });
    }
    let evaluation = Evaluation {
        records: work
            .records(folder)
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
        wanted: work.asks.len(),
        done: state.done - state.earlier,
        reused,
        seconds: start.elapsed().as_secs_f64(),
        workers: pools.len(),
        known_pictures: examiner.features().map_or(0, FeatureCache::known),
        cache_problem: examiner.features().and_then(FeatureCache::problem),
    };
    description.invocations.push(Invocation {
        benchmarks: items.sets.iter().map(|set| set.name().to_owned()).collect(),
        vision: options.vision.clone(),
        limit: options.limit,
        shard: [options.shard.index, options.shard.count],
        seed: options.seed,
        workers: evaluation.workers,
        done: evaluation.done,
        seconds: evaluation.seconds,
        peak_memory_bytes: peak_memory(),
    });
    folder.write_json(RUN_FILE, &description)?;
    result.map(|()| evaluation)
}

/// Most memory that this process had, in bytes; `None` where the system does not say.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Answers of a folder, by what was asked.
struct Known(HashMap<String, usize>);

impl Known {
    fn of(folder: &RunFolder) -> Self {
        let records = folder.records().iter().enumerate();
        let answered = records.filter_map(|(place, record)| {
            let asked = &record.answered()?.asked;
            (!asked.is_empty()).then(|| (asked.clone(), place))
        });
        Self(answered.collect())
    }

    fn find(&self, folder: &RunFolder, asked: &str) -> Option<Answered> {
        let record = folder.records().get(*self.0.get(asked)?)?;
        record.answered().cloned()
    }
}

/// What is wanted.
struct Work<'a> {
    items: &'a Items,
    /// In the order of the questions.
    asks: Vec<Ask>,
    /// The questions of each benchmark.
    selected: Vec<Vec<usize>>,
    /// Digest of the settings of each benchmark and way of asking.
    settings: SettingsOf,
}

impl<'a> Work<'a> {
    fn new(candidate: &Candidate<'_>, items: &'a Items, options: &EvalOptions) -> Self {
        let mut vision = options.vision.clone();
        vision.sort_unstable();
        vision.dedup();
        let mut settings = SettingsOf::new();
        let mut asks = Vec::new();
        let mut selected = Vec::new();
        for (place, set) in items.sets.iter().enumerate() {
            for &vision in &vision {
                let digest = Settings::new(candidate, set, options, vision).digest();
                settings.insert((place, vision), digest);
            }
            let questions = select(set, options.limit, options.shard);
            asks.extend(questions.iter().flat_map(|&item| {
                vision.iter().map(move |&vision| Ask {
                    set: place,
                    item,
                    vision,
                })
            }));
            selected.push(questions);
        }
        Self {
            items,
            asks,
            selected,
            settings,
        }
    }

    /// For everything that is wanted the last record of it.
    fn records<'r>(&self, folder: &'r RunFolder) -> Vec<Option<&'r Record>> {
        // The digest of the settings names the benchmark too.
        let last: HashMap<(&str, &str), &Record> = folder
            .records()
            .iter()
            .map(|record| ((record.id.as_str(), record.settings.as_str()), record))
            .collect();
        let find = |ask: &Ask| {
            let id = self.items.sets[ask.set].items[ask.item].id.as_str();
            let settings = self.settings[&(ask.set, ask.vision)].as_str();
            last.get(&(id, settings)).copied()
        };
        self.asks.iter().map(find).collect()
    }

    /// What is still to be asked or judged.
    fn open(&self, folder: &RunFolder) -> Vec<Ask> {
        let records = self.records(folder);
        let open = self
            .asks
            .iter()
            .zip(records)
            .filter(|(_, record)| !record.is_some_and(Record::is_final));
        open.map(|(ask, _)| *ask).collect()
    }
}
