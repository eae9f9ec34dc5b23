//! From records to a table: what a model scores, and how much of it is vision.
//!
//! **Visual gain** is the score with the picture minus the larger of the score without it and
//! chance: what the picture is worth, given that one can also guess. It follows the comparison of
//! Cambrian-1, section 3.1 (vision on, vision off, random guess). A gain below 0 says that the
//! pictures harm.
//!
//! The score of a row is the mean over its questions, not over its tasks.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::interval::{Interval, wilson};
use crate::record::{Outcome, Record};
use crate::run::Evaluation;
use crate::vision::Vision;

/// What visual gain means, for people.
pub const VISUAL_GAIN: &str =
    "visual gain = score − max(score without picture, chance), in percentage points";

/// Scores of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// What the model is called.
    pub model: String,
    /// Everything, then each group, each followed by its tasks.
    pub rows: Vec<Row>,
    /// Questions that are still to be asked, each way of asking counted.
    pub unfinished: usize,
    /// Questions that could not be asked; they count as wrong.
    pub failed: usize,
    /// Answers that were cut at the limit of their length.
    pub cut_off: usize,
    /// Tokens of all answers.
    pub answer_tokens: usize,
    /// Seconds that reading prompts and answering took, over all workers.
    pub answer_seconds: f64,
    /// What visual gain means.
    pub visual_gain: &'static str,
}

/// Scores on some of the questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The group; `None` for everything.
    pub group: Option<String>,
    /// The task; `None` for the whole group.
    pub task: Option<String>,
    /// Questions.
    pub n: usize,
    /// Mean chance of guessing right, from 0 to 1.
    pub chance: f64,
    /// Score for each way of asking.
    pub scores: BTreeMap<Vision, Score>,
    /// From −1 to 1; `None` unless the same questions were asked with and without their pictures.
    pub visual_gain: Option<f64>,
}

/// A score and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Questions.
    pub n: usize,
    /// Mean score, from 0 to 1.
    pub mean: f64,
    /// 95 % interval of it, after Wilson.
    pub interval: Interval,
}

/// A table for people, every row as long as the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub header: Vec<String>,
    /// The cells.
    pub rows: Vec<Vec<String>>,
}

impl Summary {
    /// The scores of an evaluation, finished or not.
    #[must_use]
    pub fn of(model: &str, evaluation: &Evaluation) -> Self {
        let records = &evaluation.records;
        let answered = records.iter().filter_map(|record| match &record.outcome {
            Outcome::Answered(answered) => Some(answered),
            Outcome::Failed { .. } => None,
        });
        Self {
            model: model.to_owned(),
            rows: rows(records),
            unfinished: evaluation.wanted - records.len(),
            failed: records.len() - answered.clone().count(),
            cut_off: answered.clone().filter(|answered| answered.cut_off).count(),
            answer_tokens: answered
                .clone()
                .map(|answered| answered.answer_tokens)
                .sum(),
            answer_seconds: answered.map(|answered| answered.seconds).sum(),
            visual_gain: VISUAL_GAIN,
        }
    }

    /// The row of everything; `None` if nothing was asked.
    #[must_use]
    pub fn overall(&self) -> Option<&Row> {
        self.rows.first()
    }

    /// Percentages with one digit. The score with picture has its interval beside it.
    #[must_use]
    pub fn table(&self) -> Table {
        let has = |vision: &Vision| self.rows.iter().any(|row| row.scores.contains_key(vision));
        let visions: Vec<Vision> = Vision::ALL.into_iter().filter(has).collect();
        let mut header = vec!["questions".to_owned(), "n".to_owned()];
        for vision in &visions {
            header.push(vision.heading().into());
            if *vision == Vision::On {
                header.push("95 %".into());
            }
        }
        header.extend(["chance".to_owned(), "visual gain".to_owned()]);
        let rows = self.rows.iter().map(|row| row.cells(&visions));
        Table {
            header,
            rows: rows.collect(),
        }
    }

    /// The table in Markdown, groups in bold, with what its words mean below.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Table { header, rows } = self.table();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&header);
        text.push_str("| --- |");
        text.push_str(&" ---: |".repeat(header.len() - 1));
        text.push('\n');
        for (row, mut cells) in self.rows.iter().zip(rows) {
            if row.task.is_none() {
                for cell in &mut cells {
                    *cell = format!("**{cell}**");
                }
            }
            text.push_str(&line(&cells));
        }
        text.push_str(
            "\nScores are percentages of right answers, with Wilson's 95 % interval; a wrong picture \
             is that of another question. ",
        );
        text.push_str(&capital(VISUAL_GAIN));
        text.push_str(".\n");
        text
    }
}

impl Row {
    fn of(group: Option<&str>, task: Option<&str>, records: &[&Record]) -> Self {
        let mut by_vision: BTreeMap<Vision, Vec<&Record>> = BTreeMap::new();
        for record in records {
            by_vision.entry(record.vision).or_default().push(record);
        }
        // Of an unfinished run the way of asking that got furthest.
        let widest = by_vision.values().max_by_key(|records| records.len());
        let widest = widest.map_or(&[][..], Vec::as_slice);
        let chance = mean(widest.iter().map(|record| record.chance));
        let scores: BTreeMap<Vision, Score> = by_vision
            .iter()
            .map(|(vision, records)| (*vision, Score::of(records)))
            .collect();
        let visual_gain = match (by_vision.get(&Vision::On), by_vision.get(&Vision::Off)) {
            (Some(on), Some(off)) if same_questions(on, off) => {
                let without = scores[&Vision::Off].mean.max(chance);
                Some(scores[&Vision::On].mean - without)
            }
            _ => None,
        };
        Self {
            group: group.map(str::to_owned),
            task: task.map(str::to_owned),
            n: widest.len(),
            chance,
            scores,
            visual_gain,
        }
    }

    fn cells(&self, visions: &[Vision]) -> Vec<String> {
        let name = match (&self.group, &self.task) {
            (_, Some(task)) => task.clone(),
            (Some(group), None) => group.clone(),
            (None, None) => "all".into(),
        };
        let mut cells = vec![name, self.n.to_string()];
        for vision in visions {
            let score = self.scores.get(vision);
            cells.push(score.map_or_else(dash, |score| percent(score.mean)));
            if *vision == Vision::On {
                cells.push(score.map_or_else(dash, |score| {
                    let Interval { low, high } = score.interval;
                    format!("{}–{}", percent(low), percent(high))
                }));
            }
        }
        cells.push(percent(self.chance));
        cells.push(self.visual_gain.map_or_else(dash, signed_percent));
        cells
    }
}

impl Score {
    fn of(records: &[&Record]) -> Self {
        let mean = mean(records.iter().map(|record| record.score()));
        Self {
            n: records.len(),
            mean,
            interval: wilson(mean, records.len()),
        }
    }
}

/// Everything, then each group with its tasks, in the order in which they first appear.
fn rows(records: &[Record]) -> Vec<Row> {
    if records.is_empty() {
        return Vec::new();
    }
    let all: Vec<&Record> = records.iter().collect();
    let mut rows = vec![Row::of(None, None, &all)];
    for (group, records) in divided(&all, |record| &record.group) {
        rows.push(Row::of(Some(group), None, &records));
        for (task, records) in divided(&records, |record| &record.task) {
            rows.push(Row::of(Some(group), Some(task), &records));
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
    for &record in records {
        let name = name(record);
        match parts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, part)) => part.push(record),
            None => parts.push((name, vec![record])),
        }
    }
    parts
}

fn same_questions(one: &[&Record], other: &[&Record]) -> bool {
    let ids = |records: &[&Record]| {
        let mut ids: Vec<String> = records.iter().map(|record| record.id.clone()).collect();
        ids.sort_unstable();
        ids
    };
    ids(one) == ids(other)
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len().max(1) as f64;
    values.sum::<f64>() / n
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn signed_percent(share: f64) -> String {
    format!("{:+.1}", 100.0 * share)
}

fn dash() -> String {
    "–".to_owned()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Answered;

    fn record(id: usize, vision: Vision, task: &str, score: f64) -> Record {
        Record {
            id: id.to_string(),
            settings: vision.to_string(),
            vision,
            group: if task == "fact" {
                "knowledge"
            } else {
                "general"
            }
            .into(),
            task: task.into(),
            expected: "yes".into(),
            chance: 0.25,
            outcome: Outcome::Answered(Answered {
                prompt_sha256: String::new(),
                picture: None,
                answer: "yes".into(),
                score,
                cut_off: id == 0,
                seconds: 0.5,
                prompt_tokens: 4,
                visual_tokens: 0,
                answer_tokens: 2,
            }),
        }
    }

    /// Four questions: with pictures 3 are right, without 1.
    fn evaluation() -> Evaluation {
        let tasks = ["check", "fact", "check", "count"];
        let on = [1.0, 1.0, 0.0, 1.0];
        let off = [0.0, 1.0, 0.0, 0.0];
        let records = (0..4).flat_map(|i| {
            [
                record(i, Vision::On, tasks[i], on[i]),
                record(i, Vision::Off, tasks[i], off[i]),
            ]
        });
        Evaluation {
            records: records.collect(),
            wanted: 8,
            asked: 8,
            seconds: 1.0,
            workers: 1,
        }
    }

    #[test]
    fn rows_by_hand() {
        let summary = Summary::of("tiny", &evaluation());
        let shape = summary.rows.iter().map(|row| (row.task.as_deref(), row.n));
        let expected = [
            (None, 4),
            (None, 3),
            (Some("check"), 2),
            (Some("count"), 1),
            (None, 1),
            (Some("fact"), 1),
        ];
        assert_eq!(shape.collect::<Vec<_>>(), expected);
        let all = summary.overall().unwrap();
        assert_eq!(all.scores[&Vision::On].mean, 0.75);
        assert_eq!(all.scores[&Vision::On].interval, wilson(0.75, 4));
        assert_eq!(all.scores[&Vision::Off].mean, 0.25);
        assert_eq!(all.visual_gain, Some(0.5));
        let general = &summary.rows[1];
        assert_eq!(general.group.as_deref(), Some("general"));
        // Without pictures none is right, so chance counts: 2/3 − 1/4.
        assert!((general.visual_gain.unwrap() - (2.0 / 3.0 - 0.25)).abs() < 1e-12);
        assert_eq!(summary.rows[4].visual_gain, Some(0.0));
        assert_eq!((summary.unfinished, summary.failed), (0, 0));
        assert_eq!((summary.cut_off, summary.answer_tokens), (2, 16));
        assert_eq!(summary.answer_seconds, 4.0);
    }

    #[test]
    fn failures_and_what_is_left_are_counted() {
        let mut evaluation = evaluation();
        evaluation.records.truncate(7);
        evaluation.records[0].outcome = Outcome::Failed {
            error: "damaged".into(),
        };
        let summary = Summary::of("tiny", &evaluation);
        assert_eq!((summary.unfinished, summary.failed), (1, 1));
        let all = summary.overall().unwrap();
        assert_eq!(all.scores[&Vision::On].mean, 0.5);
        assert_eq!((all.n, all.scores[&Vision::Off].n), (4, 3));
        assert_eq!(all.visual_gain, None, "other questions");
        assert!(
            Summary::of(
                "tiny",
                &Evaluation {
                    records: vec![],
                    ..evaluation
                }
            )
            .rows
            .is_empty()
        );
    }

    #[test]
    fn markdown_by_hand() {
        let text = Summary::of("tiny", &evaluation()).markdown();
        let mut lines = text.lines();
        assert_eq!(
            lines.next().unwrap(),
            "| questions | n | score | 95 % | without picture | chance | visual gain |"
        );
        assert_eq!(
            lines.next().unwrap(),
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
        );
        assert_eq!(
            lines.next().unwrap(),
            "| **all** | **4** | **75.0** | **30.1–95.4** | **25.0** | **25.0** | **+50.0** |"
        );
        assert!(
            text.contains("\n| count | 1 | 100.0 | 20.7–100.0 | 0.0 | 25.0 | +75.0 |\n"),
            "{text}"
        );
        assert!(text.contains("Visual gain = score − max"), "{text}");
    }

    #[test]
    fn json_names_the_ways_of_asking() {
        let json = serde_json::to_value(Summary::of("tiny", &evaluation())).unwrap();
        assert_eq!(json["rows"][0]["scores"]["on"]["mean"], 0.75);
        assert_eq!(json["rows"][0]["scores"]["off"]["n"], 4);
        assert!(json["visual_gain"].as_str().unwrap().contains("chance"));
    }
}
