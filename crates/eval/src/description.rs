//! `run.json`: what the whole folder of a run holds, not only what was asked last.
//!
//! A folder fills in several commands: shards, a limit and then the rest, one benchmark after another.
//! Each adds to what is wanted ([`Way::wanted`]); what is wanted and has no record is unfinished. A
//! command with other settings takes the place of what was asked before in the same way of the same
//! benchmark; the earlier records stay in the file and count no more.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::benchmark::submission::SubmissionForm;
use crate::benchmark::{Counts, Fault, FileDigest};
use crate::candidate::Candidate;
use crate::error::EvalError;
use crate::items::{ItemSet, Items, Rules};
use crate::ranges::Ranges;
use crate::record::Record;
use crate::run::EvalOptions;
use crate::settings::Settings;
use crate::vision::Vision;

/// Raised when the file changes its form.
const FORMAT: u32 = 2;

/// The file's name.
pub const RUN_FILE: &str = "run.json";

/// What the stamp of what judges is called.
const SCORER: &str = "scorer";

/// What a run's folder holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunDescription {
    /// Form of the file.
    pub format: u32,
    /// Version of the program that wrote it.
    pub version: String,
    /// What the model is called.
    pub model: String,
    /// What it is known by.
    pub model_sha256: String,
    /// What it consists of, by name: weights, template, preprocessing.
    pub stamps: BTreeMap<String, String>,
    /// The benchmarks, or the file of questions.
    pub sets: Vec<SetDescription>,
    /// The commands that filled the folder, in order.
    pub invocations: Vec<Invocation>,
}

/// A benchmark of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetDescription {
    /// Its name; `None` for a file of questions.
    pub benchmark: Option<String>,
    /// What tables call it.
    pub title: String,
    /// Its group; `None` where every question has its own.
    pub group: Option<String>,
    /// How it is judged.
    pub rules: Rules,
    /// Questions in all.
    pub questions: usize,
    /// What became of the rows of its files.
    pub counts: Counts,
    /// How many questions there should be, if there is another number.
    pub expected: Option<usize>,
    /// Digest of what is asked and what is right.
    pub sha256: String,
    /// What it consists of, by name: prompt, data, scorer.
    pub stamps: BTreeMap<String, String>,
    /// The files that were read.
    pub files: Vec<FileDigest>,
    /// Rows that cannot be asked.
    pub faults: Vec<Fault>,
    /// What the benchmark's server wants, if it wants something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submission: Option<SubmissionForm>,
    /// How its questions were asked.
    pub ways: BTreeMap<Vision, Way>,
}

/// One way of asking a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// Digest of the settings, as records have it.
    pub settings: String,
    /// What was set, by name: length of answers, seed, judge.
    pub stamps: BTreeMap<String, String>,
    /// The questions that are wanted, by number.
    pub wanted: Ranges,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Invocation {
    /// The benchmarks.
    pub benchmarks: Vec<String>,
    /// The ways of asking.
    pub vision: Vec<Vision>,
    /// Only the first questions.
    pub limit: Option<usize>,
    /// Part and number of parts, from 0.
    pub shard: [usize; 2],
    /// Decides about wrong pictures.
    pub seed: u64,
    /// Questions that were asked side by side.
    pub workers: usize,
    /// Records that were written.
    pub done: usize,
    /// Seconds that this took.
    pub seconds: f64,
    /// Most memory that the process had, in bytes, where the system says so.
    pub peak_memory_bytes: Option<u64>,
}

impl SetDescription {
    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        self.benchmark.as_deref().unwrap_or(&self.title)
    }

    fn of(set: &ItemSet) -> Self {
        let stamps = [
            ("prompt", set.prompt_sha256()),
            ("data", set.data_sha256()),
            ("questions", set.sha256.clone()),
            ("definition", set.definition_sha256.clone()),
            (SCORER, set.rules.stamp(&set.scorer_sha256)),
        ];
        Self {
            benchmark: set.benchmark.clone(),
            title: set.title.clone(),
            group: set.group.clone(),
            rules: set.rules,
            questions: set.items.len(),
            counts: set.counts,
            expected: set.expected,
            sha256: set.sha256.clone(),
            stamps: stamps.map(|(name, value)| (name.to_owned(), value)).into(),
            files: set.files.clone(),
            faults: set.faults.clone(),
            submission: set.submission.clone(),
            ways: BTreeMap::new(),
        }
    }

    /// Whether it asks the same questions and judges them in the same way.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let scorer = |set: &Self| set.stamps.get(SCORER).cloned();
        self.sha256 == other.sha256 && self.rules == other.rules && scorer(self) == scorer(other)
    }
}

impl RunDescription {
    /// What the folder holds when a run adds to it. `selected` are the questions of each benchmark.
    pub(crate) fn adding(
        earlier: Option<Self>,
        candidate: &Candidate<'_>,
        items: &Items,
        options: &EvalOptions,
        selected: &[Vec<usize>],
    ) -> Self {
        let earlier = earlier.filter(|earlier| earlier.model_sha256 == candidate.sha256);
        let (mut sets, invocations) = match earlier {
            Some(earlier) => (earlier.sets, earlier.invocations),
            None => (Vec::new(), Vec::new()),
        };
        for (set, selected) in items.sets.iter().zip(selected) {
            let mut now = SetDescription::of(set);
            let place = sets
                .iter()
                .position(|known| known.benchmark == now.benchmark);
            if let Some(known) = place.and_then(|place| sets.get(place))
                && known.is_like(&now)
            {
                now.ways.clone_from(&known.ways);
            }
            let selected = Ranges::of(selected.iter().copied());
            for &vision in &options.vision {
                let settings = Settings::new(candidate, set, options, vision);
                let digest = settings.digest();
                let before = now.ways.get(&vision);
                let before = before.filter(|way| way.settings == digest);
                let wanted = match before {
                    Some(way) => way.wanted.union(&selected),
                    None => selected.clone(),
                };
                let way = Way {
                    settings: digest,
                    stamps: settings.stamps(),
                    wanted,
                };
                now.ways.insert(vision, way);
            }
            match place.and_then(|place| sets.get_mut(place)) {
                Some(known) => *known = now,
                None => sets.push(now),
            }
        }
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: candidate.name.clone(),
            model_sha256: candidate.sha256.clone(),
            stamps: candidate.stamps.clone(),
            sets,
            invocations,
        }
    }

    /// Reads the file of a folder; `None` if there is none, or one of another form.
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>, EvalError> {
        match Self::read(folder) {
            Ok(description) => Ok(Some(description)),
            Err(EvalError::OtherFormat { .. }) => Ok(None),
            Err(EvalError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the file of a folder.
    ///
    /// # Errors
    /// If there is none, or if this program does not understand it.
    pub fn read(folder: &Path) -> Result<Self, EvalError> {
        #[derive(Deserialize)]
        struct Form {
            #[serde(default)]
            format: u32,
        }
        let path = folder.join(RUN_FILE);
        let bytes = fs::read(&path).map_err(EvalError::read("the run's file", &path))?;
        let damaged = |source| EvalError::RunFile {
            path: path.clone(),
            source,
        };
        let form: Form = serde_json::from_slice(&bytes).map_err(damaged)?;
        if form.format != FORMAT {
            return Err(EvalError::OtherFormat { path });
        }
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    /// For each benchmark the records that count: those of its ways of asking, of questions that are
    /// wanted, and of a question that was asked again the last one. In the order of the questions.
    #[must_use]
    pub fn current<'r>(&self, records: &'r [Record]) -> Vec<Vec<&'r Record>> {
        let ways: HashMap<(Option<&str>, &str), (usize, &Way)> = self
            .sets
            .iter()
            .enumerate()
            .flat_map(|(place, set)| {
                let name = set.benchmark.as_deref();
                let ways = set.ways.values();
                ways.map(move |way| ((name, way.settings.as_str()), (place, way)))
            })
            .collect();
        let mut found: Vec<BTreeMap<(usize, Vision), &Record>> =
            vec![BTreeMap::new(); self.sets.len()];
        for record in records {
            let key = (record.benchmark.as_deref(), record.settings.as_str());
            let Some(&(place, way)) = ways.get(&key) else {
                continue;
            };
            if let Some(found) = found
                .get_mut(place)
                .filter(|_| way.wanted.has(record.index))
            {
                found.insert((record.index, record.vision), record);
            }
        }
        let found = found.into_iter();
        found
            .map(|records| records.into_values().collect())
            .collect()
    }

    /// Questions that are wanted, each way of asking counted.
    #[must_use]
    pub fn wanted(&self) -> usize {
        let ways = self.sets.iter().flat_map(|set| set.ways.values());
        ways.map(|way| way.wanted.len()).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::scorer::{Aggregate, Protocol, Scorer};

    /// A file of so many questions, asked with their pictures and without.
    pub fn description(questions: usize) -> RunDescription {
        let way = |vision: Vision| Way {
            settings: vision.to_string(),
            stamps: BTreeMap::new(),
            wanted: Ranges::of(0..questions),
        };
        RunDescription {
            format: FORMAT,
            version: "0".into(),
            model: "tiny".into(),
            model_sha256: "m".into(),
            stamps: BTreeMap::new(),
            sets: vec![SetDescription {
                benchmark: None,
                title: "questions".into(),
                group: None,
                rules: Rules {
                    scorer: Scorer::ShortAnswer,
                    aggregate: Aggregate::Mean,
                    protocol: Protocol::Standard,
                },
                questions,
                counts: Counts::default(),
                expected: None,
                sha256: "q".into(),
                stamps: BTreeMap::new(),
                files: Vec::new(),
                faults: Vec::new(),
                submission: None,
                ways: [Vision::On, Vision::Off]
                    .map(|vision| (vision, way(vision)))
                    .into(),
            }],
            invocations: Vec::new(),
        }
    }

    #[test]
    fn another_form_is_told_from_damage() {
        let folder = tempfile::tempdir().unwrap();
        let find = || RunDescription::find(folder.path());
        assert_eq!(find().unwrap(), None);
        let file = folder.path().join(RUN_FILE);
        fs::write(&file, r#"{"model": "old", "settings": {}}"#).unwrap();
        assert_eq!(find().unwrap(), None);
        let error = RunDescription::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another version"), "{error}");
        fs::write(&file, "{").unwrap();
        assert!(matches!(find(), Err(EvalError::RunFile { .. })));
        let good = description(3);
        fs::write(&file, serde_json::to_vec(&good).unwrap()).unwrap();
        assert_eq!(find().unwrap(), Some(good));
    }
}
