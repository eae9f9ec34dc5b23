//! What was built out of what, and what became of everything else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::question::{Question, Task};
use crate::select::Fate;
use crate::source::{Fault, Read};

/// `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The program's version.
    pub version: String,
    /// The seed of the rules.
    pub seed: u64,
    /// Files of annotations with their SHA-256.
    pub files: Vec<(String, String)>,
    /// What was read, by data set.
    pub read: BTreeMap<String, Read>,
    /// What became of every candidate.
    pub candidates: Vec<Candidates>,
    /// The questions.
    pub questions: Spread,
    /// Pictures that were chosen and could not be used; they were left out and the choice made anew.
    pub unusable_pictures: usize,
    /// Entries and pictures that could not be used.
    pub faults: Vec<Fault>,
}

/// The candidates of one task and data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidates {
    /// The task.
    pub task: Task,
    /// The data set.
    pub source_dataset: String,
    /// How many there were.
    pub candidates: usize,
    /// What became of them; the numbers add up to `candidates`.
    pub fates: BTreeMap<Fate, usize>,
}

impl Report {
    /// Whether every candidate has one fate, and those chosen are the questions.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let chosen = |row: &Candidates| row.fates.get(&Fate::Chosen).copied().unwrap_or(0);
        let rows = self.candidates.iter();
        rows.clone()
            .all(|row| row.fates.values().sum::<usize>() == row.candidates)
            && rows.map(chosen).sum::<usize>() == self.questions.questions
    }
}

/// How questions are spread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many there are.
    pub questions: usize,
    /// By task and data set.
    pub cells: Vec<Cell>,
}

/// The questions of one task and data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The task.
    pub task: Task,
    /// The format of the annotations.
    pub source: String,
    /// The data set.
    pub source_dataset: String,
    /// How many there are.
    pub questions: usize,
    /// How often guessing is right: the mean of one over the number of options.
    pub chance: f64,
    /// How often the most frequent right answer is right.
    pub majority: f64,
    /// How often each letter is right.
    pub letters: BTreeMap<String, usize>,
    /// How often each answer is right.
    pub answers: BTreeMap<String, usize>,
}

/// How questions are spread over tasks, data sets, letters and answers.
#[must_use]
pub fn summarise(questions: &[Question]) -> Spread {
    let mut cells: BTreeMap<(Task, &str, &str), Vec<&Question>> = BTreeMap::new();
    for question in questions {
        let cell = (
            question.task,
            question.source.as_str(),
            question.source_dataset.as_str(),
        );
        cells.entry(cell).or_default().push(question);
    }
    let cells = cells.into_iter();
    let cell = |((task, source, dataset), questions): ((Task, &str, &str), Vec<&Question>)| {
        let count = questions.len() as f64;
        let chances = questions.iter().map(|question| question.gold().chance());
        let chance = chances.sum::<f64>() / count;
        let mut letters = BTreeMap::new();
        let mut answers: BTreeMap<String, usize> = BTreeMap::new();
        for question in &questions {
            *letters.entry(question.answer.clone()).or_default() += 1;
            if let Some(text) = question.gold().right_text() {
                *answers.entry(text.to_owned()).or_default() += 1;
            }
        }
        let most = answers.values().max().copied().unwrap_or(0);
        Cell {
            task,
            source: source.to_owned(),
            source_dataset: dataset.to_owned(),
            questions: questions.len(),
            chance,
            majority: most as f64 / count,
            letters,
            answers,
        }
    };
    Spread {
        questions: questions.len(),
        cells: cells.map(cell).collect(),
    }
}
