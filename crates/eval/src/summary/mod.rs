//! From records to a table: what a model scores, and how much of it is vision.
//!
//! A summary is of the whole folder of a run. Each row has the score, the score without the picture and
//! with a wrong one, what guessing gets, and the visual gain ([`Figure`]), each with its interval. A
//! file of questions has a row for everything, for each group and each task; the score is the mean over
//! questions, not over tasks. Each benchmark has a row for its own score, as the benchmark sums up, and
//! below it the mean of each category.
//!
//! Nothing is dropped: [`SetSummary`] says of each benchmark how many rows, questions and answers there
//! are, and they add up.

mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::benchmark::Counts;
use crate::description::{RunDescription, SetDescription};
use crate::figure::{Figure, metrics};
use crate::record::{Record, Unscored};
use crate::scorer::{Metric, Protocol};
use crate::vision::Vision;

pub use table::Table;

/// What visual gain means, for people.
pub const VISUAL_GAIN: &str =
    "visual gain = score − max(score without picture, chance), in the unit of the score";

/// The file's name.
pub const SUMMARY_FILE: &str = "summary.json";

/// Scores of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// What the model is called.
    pub model: String,
    /// What it is known by.
    pub model_sha256: String,
    /// The table.
    pub rows: Vec<Row>,
    /// What became of the questions of each benchmark.
    pub sets: Vec<SetSummary>,
    /// Questions that are wanted, each way of asking counted.
    pub wanted: usize,
    /// Questions that are still to be asked, each way of asking counted.
    pub unfinished: usize,
    /// Questions that could not be asked; they count as wrong.
    pub failed: usize,
    /// Answers that nobody could judge; they count nowhere.
    pub unscored: usize,
    /// Those among them of which the judge gave no grade; it is asked again by the next run.
    pub judge_failed: usize,
    /// Answers in which nothing usable was found; they count as wrong.
    pub unparsed: usize,
    /// Empty answers; they count as wrong.
    pub empty: usize,
    /// Answers that were cut at the limit of their length.
    pub cut_off: usize,
    /// Answers that were taken from an equal question.
    pub reused: usize,
    /// Records of the folder that count no more: earlier attempts, other settings.
    pub superseded: usize,
    /// How fast it was.
    pub performance: Performance,
    /// What visual gain means.
    pub visual_gain: String,
}

/// What the answers took; those that were reused do not count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Performance {
    /// Tokens of all answers.
    pub answer_tokens: usize,
    /// Seconds that reading prompts and answering took, over all workers.
    pub answer_seconds: f64,
    /// Seconds that the commands took.
    pub seconds: f64,
    /// Questions per second of those.
    pub questions_per_second: f64,
    /// Most memory that a process had, in bytes, where the system says so.
    pub peak_memory_bytes: Option<u64>,
}

/// What became of the questions of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SetSummary {
    /// Its name; `None` for a file of questions.
    pub benchmark: Option<String>,
    /// What tables call it.
    pub title: String,
    /// Which rules judged.
    pub protocol: Protocol,
    /// What became of the rows of its files.
    pub counts: Counts,
    /// How many questions there should be, if there is another number.
    pub expected: Option<usize>,
    /// Each way of asking.
    pub ways: BTreeMap<Vision, WaySummary>,
}

/// What became of the questions of a benchmark in one way of asking: `wanted` is the sum of the next
/// four.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WaySummary {
    /// Questions that are wanted.
    pub wanted: usize,
    /// Answers with a score.
    pub scored: usize,
    /// Answers that nobody could judge.
    pub unscored: usize,
    /// Questions that could not be asked.
    pub failed: usize,
    /// Questions that are still to be asked.
    pub unfinished: usize,
    /// All figures of the benchmark, its own score first.
    pub metrics: Vec<Metric>,
    /// Why there are none.
    pub no_metrics: Option<String>,
}

/// Scores on some of the questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The benchmark, as tables call it; `None` for a file of questions.
    pub benchmark: Option<String>,
    /// The group; `None` for everything.
    pub group: Option<String>,
    /// The task or category; `None` for the whole group or benchmark.
    pub task: Option<String>,
    /// The scores.
    #[serde(flatten)]
    pub figure: Figure,
}

impl Summary {
    /// The scores of a folder, finished or not.
    #[must_use]
    pub fn of(description: &RunDescription, records: &[Record]) -> Self {
        let current = description.current(records);
        let all: Vec<&Record> = current.iter().flatten().copied().collect();
        let pairs = || description.sets.iter().zip(&current);
        let sets: Vec<SetSummary> = pairs()
            .map(|(set, records)| SetSummary::of(set, records))
            .collect();
        let wanted = description.wanted();
        let count = |test: fn(&Record) -> bool| all.iter().filter(|record| test(record)).count();
        let answered = || all.iter().filter_map(|record| record.answered());
        Self {
            model: description.model.clone(),
            model_sha256: description.model_sha256.clone(),
            rows: pairs()
                .flat_map(|(set, records)| rows(set, records))
                .collect(),
            wanted,
            unfinished: wanted.saturating_sub(all.len()),
            failed: count(|record| record.failure().is_some()),
            unscored: count(|record| record.score().is_none()),
            judge_failed: count(|record| record.judge_failure().is_some()),
            unparsed: answered().filter(|answered| !answered.parsed).count(),
            empty: answered()
                .filter(|answered| answered.answer.trim().is_empty())
                .count(),
            cut_off: answered().filter(|answered| answered.cut_off).count(),
            reused: answered().filter(|answered| answered.reused).count(),
            superseded: records.len().saturating_sub(all.len()),
            performance: Performance::of(description, &all),
            visual_gain: VISUAL_GAIN.to_owned(),
            sets,
        }
    }

    /// The first row; `None` if nothing was asked.
    #[must_use]
    pub fn overall(&self) -> Option<&Row> {
        self.rows.first()
    }
}

impl Performance {
    fn of(description: &RunDescription, records: &[&Record]) -> Self {
        let answered = || {
            let answered = records.iter().filter_map(|record| record.answered());
            answered.filter(|answered| !answered.reused)
        };
        let invocations = || description.invocations.iter();
        let seconds: f64 = invocations().map(|one| one.seconds).sum();
        let done: usize = invocations().map(|one| one.done).sum();
        Self {
            answer_tokens: answered().map(|answered| answered.answer_tokens).sum(),
            answer_seconds: answered().map(|answered| answered.seconds).sum(),
            seconds,
            questions_per_second: if seconds > 0.0 {
                done as f64 / seconds
            } else {
                0.0
            },
            peak_memory_bytes: invocations().filter_map(|one| one.peak_memory_bytes).max(),
        }
    }
}

impl SetSummary {
    fn of(set: &SetDescription, records: &[&Record]) -> Self {
        let ways = set.ways.iter().map(|(vision, way)| {
            let records: Vec<&Record> = records
                .iter()
                .copied()
                .filter(|record| record.vision == *vision)
                .collect();
            (*vision, WaySummary::of(set, way.wanted.len(), &records))
        });
        Self {
            benchmark: set.benchmark.clone(),
            title: set.title.clone(),
            protocol: set.rules.protocol,
            counts: set.counts,
            expected: set.expected,
            ways: ways.collect(),
        }
    }
}

impl WaySummary {
    fn of(set: &SetDescription, wanted: usize, records: &[&Record]) -> Self {
        let count = |test: fn(&Record) -> bool| records.iter().filter(|one| test(one)).count();
        let failed = count(|record| record.failure().is_some());
        let unscored = count(|record| record.score().is_none());
        let scored = records.len() - failed - unscored;
        let (metrics, no_metrics) = match metrics(&set.rules, records) {
            Ok(metrics) => (metrics, None),
            Err(_) if scored + failed == 0 => {
                let reason = why_unscored(records).unwrap_or("nothing was asked yet");
                (Vec::new(), Some(reason.to_owned()))
            }
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Self {
            wanted,
            scored,
            unscored,
            failed,
            unfinished: wanted.saturating_sub(records.len()),
            metrics,
            no_metrics,
        }
    }
}

/// Why the first answer without a score has none.
fn why_unscored(records: &[&Record]) -> Option<&'static str> {
    let mut reasons = records
        .iter()
        .filter_map(|record| record.answered()?.unscored.as_ref());
    reasons.next().map(|reason| match reason {
        Unscored::Submission => "only the benchmark's server knows the right answers",
        Unscored::NeedsJudge => "a judge must grade the answers: `--judge`",
        Unscored::JudgeFailed(_) => "the judge gave no grades; the same command asks it again",
    })
}

/// The rows of a benchmark, or of a file of questions.
fn rows(set: &SetDescription, records: &[&Record]) -> Vec<Row> {
    match &set.benchmark {
        Some(_) => rows_of_benchmark(set, records),
        None => rows_of_file(records),
    }
}

fn rows_of_benchmark(set: &SetDescription, records: &[&Record]) -> Vec<Row> {
    let row = |task: Option<&str>, figure| Row {
        benchmark: Some(set.title.clone()),
        group: set.group.clone(),
        task: task.map(str::to_owned),
        figure,
    };
    // What cannot be summed up has no score; the reason is in the summary of the benchmark.
    let figure = Figure::of_benchmark(&set.rules, records);
    let mut rows = vec![row(None, figure.unwrap_or_else(|_| Figure::of_mean(&[])))];
    let categories = divided(records, |record| &record.task);
    if categories.len() > 1 {
        let parts = categories.into_iter();
        rows.extend(parts.map(|(task, records)| row(Some(task), Figure::of_mean(&records))));
    }
    rows
}

/// Everything, then each group with its tasks, in the order in which they first appear.
fn rows_of_file(records: &[&Record]) -> Vec<Row> {
    if records.is_empty() {
        return Vec::new();
    }
    let row = |group: Option<&str>, task: Option<&str>, records: &[&Record]| Row {
        benchmark: None,
        group: group.map(str::to_owned),
        task: task.map(str::to_owned),
        figure: Figure::of_mean(records),
    };
    let mut rows = vec![row(None, None, records)];
    for (group, records) in divided(records, |record| &record.group) {
        rows.push(row(Some(group), None, &records));
        for (task, records) in divided(&records, |record| &record.task) {
            rows.push(row(Some(group), Some(task), &records));
        }
    }
    rows
}

/// Records by a name that they have, in the order in which the names first appear.
fn divided<'r>(
    records: &[&'r Record],
    name: impl Fn(&'r Record) -> &'r str,
) -> Vec<(&'r str, Vec<&'r Record>)> {
    let mut parts: Vec<(&str, Vec<&Record>)> = Vec::new();
    let mut places: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    for &record in records {
        let name = name(record);
        let place = *places.entry(name).or_insert_with(|| {
            parts.push((name, Vec::new()));
            parts.len() - 1
        });
        if let Some((_, part)) = parts.get_mut(place) {
            part.push(record);
        }
    }
    parts
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::description::tests::description;
    use crate::interval::wilson;
    use crate::items::Rules;
    use crate::ranges::Ranges;
    use crate::record::Outcome;
    use crate::record::tests::record;
    use crate::scorer::Aggregate;

    /// Four questions: with pictures 3 are right, without 1.
    pub fn records() -> Vec<Record> {
        let tasks = ["check", "fact", "check", "count"];
        let on = [1.0, 1.0, 0.0, 1.0];
        let off = [0.0, 1.0, 0.0, 0.0];
        let one = |i: usize, vision, score| Record {
            group: ["general", "knowledge"][usize::from(tasks[i] == "fact")].into(),
            ..record(i, vision, tasks[i], score)
        };
        let records = (0..4).flat_map(|i| [one(i, Vision::On, on[i]), one(i, Vision::Off, off[i])]);
        records.collect()
    }

    pub fn summary(records: &[Record]) -> Summary {
        Summary::of(&description(4), records)
    }

    #[test]
    fn rows_by_hand() {
        let summary = summary(&records());
        let rows = summary.rows.iter();
        let shape = rows.map(|row| (row.task.as_deref(), row.figure.n));
        let expected = [
            (None, 4),
            (None, 3),
            (Some("check"), 2),
            (Some("count"), 1),
            (None, 1),
            (Some("fact"), 1),
        ];
        assert_eq!(shape.collect::<Vec<_>>(), expected);
        let all = &summary.overall().unwrap().figure;
        assert_eq!(all.scores[&Vision::On].mean, 0.75);
        assert_eq!(all.scores[&Vision::On].interval, wilson(0.75, 4));
        assert_eq!(all.scores[&Vision::Off].mean, 0.25);
        assert_eq!(all.visual_gain, Some(0.5));
        // Differences 1, 0, 0, 1: variance 1/3, SE² = 1/12.
        let interval = all.visual_gain_interval.unwrap();
        assert!((interval.low - (0.5 - 1.96 / 12_f64.sqrt())).abs() < 1e-4);
        assert_eq!(summary.rows[1].group.as_deref(), Some("general"));
        let general = &summary.rows[1].figure;
        // Without pictures none is right, so chance counts: 2/3 − 1/4.
        assert!((general.visual_gain.unwrap() - (2.0 / 3.0 - 0.25)).abs() < 1e-12);
        assert_eq!(summary.rows[4].figure.visual_gain, Some(0.0));
        assert_eq!((summary.unfinished, summary.failed), (0, 0));
        assert_eq!(summary.cut_off, 2);
        assert_eq!(summary.performance.answer_tokens, 16);
        assert_eq!(summary.performance.answer_seconds, 4.0);
    }

    #[test]
    fn failures_and_what_is_left_are_counted() {
        let mut records = records();
        records.truncate(7);
        records[0].outcome = Outcome::Failed {
            error: "damaged".into(),
        };
        let summary = summary(&records);
        assert_eq!((summary.unfinished, summary.failed), (1, 1));
        let all = &summary.overall().unwrap().figure;
        assert_eq!(all.scores[&Vision::On].mean, 0.5);
        assert_eq!((all.n, all.scores[&Vision::Off].n), (4, 3));
        assert_eq!(all.visual_gain, None, "other questions");
        for way in summary.sets[0].ways.values() {
            let sum = way.scored + way.unscored + way.failed + way.unfinished;
            assert_eq!(sum, way.wanted, "{way:?}");
        }
        assert!(Summary::of(&description(4), &[]).rows.is_empty());
    }

    /// An answer that waits for its judge is in no mean.
    #[test]
    fn what_nobody_judged_counts_nowhere() {
        let mut records = records();
        if let Outcome::Answered(answered) = &mut records[4].outcome {
            answered.score = None;
            answered.unscored = Some(Unscored::JudgeFailed("silence".into()));
        }
        let summary = summary(&records);
        assert_eq!((summary.unscored, summary.judge_failed), (1, 1));
        let all = &summary.overall().unwrap().figure;
        assert_eq!(
            (all.scores[&Vision::On].n, all.scores[&Vision::On].mean),
            (3, 1.0)
        );
        assert_eq!(all.visual_gain, None, "not the same questions");
        assert_eq!(summary.sets[0].ways[&Vision::On].unscored, 1);
    }

    #[test]
    fn only_what_is_wanted_counts_and_the_last_attempt() {
        let mut records = records();
        records.push(record(9, Vision::On, "check", 1.0));
        records.push(Record {
            settings: "others".into(),
            ..record(1, Vision::On, "check", 0.0)
        });
        records.push(Record {
            group: "general".into(),
            ..record(2, Vision::On, "check", 1.0)
        });
        let summary = summary(&records);
        assert_eq!(summary.superseded, 3);
        let all = &summary.overall().unwrap().figure;
        assert_eq!(all.scores[&Vision::On].mean, 1.0);
    }

    #[test]
    fn a_benchmark_has_its_own_score() {
        let mut described = description(4);
        let set = &mut described.sets[0];
        (set.benchmark, set.title) = (Some("pairs".into()), "Pairs".into());
        set.rules = Rules {
            aggregate: Aggregate::MmvpPairs,
            ..set.rules
        };
        let mut records = records();
        for record in &mut records {
            record.benchmark = Some("pairs".into());
            record.unit = Some((record.index / 2).to_string());
        }
        let summary = Summary::of(&described, &records);
        assert_eq!(summary.rows.len(), 4, "the benchmark and three categories");
        let cells = &summary.table().rows[0];
        assert_eq!(cells[..3], ["Pairs", "4", "50.0"]);
        assert!(summary.markdown().contains("- Pairs: standard protocol"));
        described.sets[0].ways.get_mut(&Vision::On).unwrap().wanted = Ranges::of(0..3);
        let part = Summary::of(&described, &records);
        let reason = part.sets[0].ways[&Vision::On].no_metrics.as_deref();
        assert!(
            reason.unwrap().contains("in the middle of a pair"),
            "{reason:?}"
        );
        assert_eq!(part.rows[0].figure.scores, BTreeMap::new());
    }

    #[test]
    fn json_names_the_ways_of_asking() {
        let json = serde_json::to_value(summary(&records())).unwrap();
        assert_eq!(json["rows"][0]["scores"]["on"]["mean"], 0.75);
        assert_eq!(json["rows"][0]["scores"]["off"]["n"], 4);
        assert_eq!(json["rows"][0]["unit"], "percent");
        assert!(json["visual_gain"].as_str().unwrap().contains("chance"));
    }
}
