//! With pictures, without them, by chance: how much of a benchmark is vision.
//!
//! Cambrian-1, section 3.1 (arXiv 2406.16860): models are asked with and without the pictures, and
//! the benchmarks are put in the order of the difference. The paper reads a gap below five points as
//! a benchmark that hardly needs vision, and a score without pictures far above chance as one whose
//! answers can be guessed from the question.

use serde::Serialize;

use super::distribution::t_critical;
use super::statistics::{clustered_standard_error, mean, standard_error};
use super::table::ScoreTable;
use crate::{Interval, Vision};

/// A gap that is smaller, in points, says that the pictures hardly matter (the paper's reading of
/// ScienceQA, MMMU, MathVista and AI2D).
pub const HARDLY_VISUAL: f64 = 5.0;

/// A score without pictures so many points above chance can be had by knowing the language.
pub const GUESSABLE: f64 = 20.0;

/// A score without pictures so many points below chance says that the question misleads.
pub const MISLEADING: f64 = 5.0;

/// What the pictures of one benchmark are worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gap {
    /// The benchmark.
    pub benchmark: String,
    /// Its group.
    pub group: Option<String>,
    /// Models that were asked with and without pictures; all means are over these.
    pub models: usize,
    /// Mean score with the pictures, in per cent.
    pub with: f64,
    /// Mean score without them.
    pub without: f64,
    /// Mean score with pictures of other questions, if all models were asked so.
    pub wrong: Option<f64>,
    /// What guessing gets.
    pub chance: Option<f64>,
    /// `with − without`, in points.
    pub gap: f64,
    /// 95 % interval of the gap: over models if there are at least three, else over the questions of
    /// the one or two; `None` if neither is known.
    pub interval: Option<Interval>,
    /// Visual gain: `with − max(without, chance)`.
    pub gain: f64,
    /// What that says.
    pub reading: Reading,
}

/// What with, without and chance say about a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// Pictures hardly matter ([`HARDLY_VISUAL`]).
    AnsweredBlind,
    /// Pictures matter, but much can be had without them ([`GUESSABLE`]).
    PartlyGuessable,
    /// Without pictures models do worse than guessing ([`MISLEADING`]).
    MisleadsTheBlind,
    /// Pictures matter.
    NeedsVision,
}

impl Reading {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::AnsweredBlind => "can be answered blind",
            Self::PartlyGuessable => "needs vision, but much can be guessed from the question",
            Self::MisleadsTheBlind => "needs vision; without it models do worse than guessing",
            Self::NeedsVision => "needs vision",
        }
    }

    fn of(gap: f64, without: f64, chance: Option<f64>) -> Self {
        let above_chance = chance.map_or(0.0, |chance| without - chance);
        if gap < HARDLY_VISUAL {
            Self::AnsweredBlind
        } else if above_chance > GUESSABLE {
            Self::PartlyGuessable
        } else if above_chance < -MISLEADING {
            Self::MisleadsTheBlind
        } else {
            Self::NeedsVision
        }
    }
}

/// The gaps of all benchmarks that some model was asked with and without pictures, the largest visual
/// gain first.
#[must_use]
pub fn gaps(table: &ScoreTable) -> Vec<Gap> {
    let all = (0..table.benchmarks.len()).filter_map(|benchmark| gap(table, benchmark));
    let mut gaps: Vec<Gap> = all.collect();
    gaps.sort_by(|a, b| b.gain.total_cmp(&a.gain).then(b.gap.total_cmp(&a.gap)));
    gaps
}

fn gap(table: &ScoreTable, benchmark: usize) -> Option<Gap> {
    let score = |vision, model| table.score_with(vision, model, benchmark);
    let models: Vec<usize> = (0..table.models.len())
        .filter(|&m| score(Vision::On, m).is_some() && score(Vision::Off, m).is_some())
        .collect();
    let scores =
        |vision| -> Option<Vec<f64>> { models.iter().map(|&model| score(vision, model)).collect() };
    let (with, without) = (scores(Vision::On)?, scores(Vision::Off)?);
    if models.is_empty() {
        return None;
    }
    let each: Vec<f64> = with.iter().zip(&without).map(|(a, b)| a - b).collect();
    let facts = &table.benchmarks[benchmark];
    let gap = mean(&each);
    let half = if models.len() >= 3 {
        standard_error(&each).map(|error| error * t_critical(0.05, each.len() as f64 - 1.0))
    } else {
        over_questions(table, &models, &facts.name)
    };
    let (with, without) = (mean(&with), mean(&without));
    Some(Gap {
        benchmark: facts.name.clone(),
        group: facts.group.clone(),
        models: models.len(),
        with,
        without,
        wrong: scores(Vision::Shuffled).map(|wrong| mean(&wrong)),
        chance: facts.chance,
        gap,
        interval: half.map(|half| Interval {
            low: gap - half,
            high: gap + half,
        }),
        gain: with - facts.chance.map_or(without, |chance| without.max(chance)),
        reading: Reading::of(gap, without, facts.chance),
    })
}

/// Half the 95 % interval of the gap of one or two models, in points: each question's difference is
/// averaged over the models.
fn over_questions(table: &ScoreTable, models: &[usize], benchmark: &str) -> Option<f64> {
    let mut sums: Vec<f64> = Vec::new();
    let mut clusters: Vec<&str> = Vec::new();
    for &model in models {
        let answers = table.models[model].answers.get(benchmark)?;
        let (on, off) = (answers.get(&Vision::On)?, answers.get(&Vision::Off)?);
        // Both are in the order of the same ids.
        let differences = on.iter().zip(off).map(|(on, off)| on.score - off.score);
        if sums.is_empty() {
            sums = differences.collect();
            clusters = on
                .iter()
                .map(|q| q.cluster.as_deref().unwrap_or(&q.id))
                .collect();
        } else {
            for (sum, difference) in sums.iter_mut().zip(differences) {
                *sum += difference;
            }
        }
    }
    let means: Vec<f64> = sums.iter().map(|sum| sum / models.len() as f64).collect();
    let error = clustered_standard_error(&means, &clusters)?;
    Some(100.0 * error * t_critical(0.05, means.len() as f64 - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> ScoreTable {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        std::fs::write(&path, text).unwrap();
        ScoreTable::read(&path).unwrap()
    }

    #[test]
    fn the_most_visual_benchmark_comes_first() {
        let found = gaps(&table(
            "model,benchmark,score,without_picture,chance\n\
             a,guess,62,40,0\nb,guess,62,40,0\na,know,70,68,40\na,see,60,20,25\na,trick,60,10,25\n\
             a,only,60,,25\n",
        ));
        let order: Vec<(&str, f64, Reading)> = found
            .iter()
            .map(|gap| (gap.benchmark.as_str(), gap.gain, gap.reading))
            .collect();
        // 60 − max(20, 25) and 60 − max(10, 25) are equal: the wider gap comes first.
        assert_eq!(
            order,
            [
                ("trick", 35.0, Reading::MisleadsTheBlind),
                ("see", 35.0, Reading::NeedsVision),
                ("guess", 22.0, Reading::PartlyGuessable),
                ("know", 2.0, Reading::AnsweredBlind),
            ]
        );
        assert_eq!((found[2].models, found[2].gap), (2, 22.0));
        assert_eq!(found[2].interval, None);
    }

    /// Gaps of 10, 20 and 30: 20 ± 4.303 · 10/√3.
    #[test]
    fn intervals_over_models() {
        let found = gaps(&table(
            "model,benchmark,score,without_picture\na,x,30,20\nb,x,40,20\nc,x,50,20\n",
        ));
        let interval = found[0].interval.unwrap();
        assert!((interval.high - 44.84).abs() < 0.01, "{interval:?}");
    }
}
