//! What a world consists of, counted while it is written.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::page::{Identity, Page, Split};
use crate::question::Task;

/// How often a task was asked, and how balanced its answers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskCount {
    /// Questions in conversations of the training split.
    pub train: usize,
    /// Benchmark questions.
    pub test: usize,
    /// Share of the benchmark questions that have the most frequent answer: the score of somebody
    /// who always gives it.
    pub majority: f64,
    /// Mean chance rate of the benchmark questions.
    pub chance: f64,
}

/// Running counts.
#[derive(Default)]
pub(super) struct Counts {
    pub pictures: BTreeMap<Split, BTreeMap<String, usize>>,
    pub lines: BTreeMap<String, usize>,
    pub questions: QuestionCounts,
    pub redrawn: BTreeMap<usize, usize>,
    pub in_both: usize,
}

impl Counts {
    pub fn add(&mut self, split: Split, index: usize, page: &Page, taken: &HashSet<Identity>) {
        let subjects = self.pictures.entry(split).or_default();
        *subjects.entry(page.subject.name().to_owned()).or_default() += 1;
        if page.redrawn > 0 {
            self.redrawn.insert(index, page.redrawn);
        }
        self.in_both += usize::from(taken.contains(&page.identity));
        self.questions.add(split, page);
    }
}

/// Running counts of questions.
#[derive(Default)]
pub(super) struct QuestionCounts {
    train: BTreeMap<Task, usize>,
    answers: BTreeMap<Task, BTreeMap<String, usize>>,
    chance: BTreeMap<Task, f64>,
}

impl QuestionCounts {
    fn add(&mut self, split: Split, page: &Page) {
        if split == Split::Train {
            for question in &page.asked {
                *self.train.entry(question.task).or_default() += 1;
            }
        }
        for question in &page.benchmark {
            let answers = self.answers.entry(question.task).or_default();
            *answers.entry(question.answer.clone()).or_default() += 1;
            *self.chance.entry(question.task).or_default() += question.chance;
        }
    }

    pub fn finish(self) -> BTreeMap<Task, TaskCount> {
        let asked = |task: &Task| {
            let train = self.train.get(task).copied().unwrap_or(0);
            let answers = self.answers.get(task);
            let test: usize = answers.into_iter().flat_map(BTreeMap::values).sum();
            let most = answers
                .and_then(|answers| answers.values().max())
                .copied()
                .unwrap_or(0);
            let chance = self.chance.get(task).copied().unwrap_or(0.0);
            let all = test.max(1) as f64;
            TaskCount {
                train,
                test,
                majority: most as f64 / all,
                chance: chance / all,
            }
        };
        Task::ALL
            .iter()
            .map(|task| (*task, asked(task)))
            .filter(|(_, count)| count.train + count.test > 0)
            .collect()
    }
}
