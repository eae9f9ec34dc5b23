//! With pictures, without them, by chance: how much of a benchmark is vision.
//!
//! Cambrian-1, section 3.1 (arXiv 2406.16860): models are asked with and without the pictures, and
//! the benchmarks are put in the order of the difference. The paper reads a gap below five points as
//! a benchmark that hardly needs vision, and a score without pictures far above chance as one whose
//! answers can be guessed from the question. It does so from points alone; here a benchmark is read
//! only where the 95 % interval leaves no other reading, and is undecided otherwise.

use serde::Serialize;

use super::statistics::{FEWEST_CLUSTERS, RULE_OF_THREE, mean, mean_interval, points_interval};
use super::table::ScoreTable;
use crate::{Interval, Vision, Z};

/// A gap that is smaller, in points, says that the pictures hardly matter (the paper's reading of
/// ScienceQA, MMMU, MathVista and AI2D).
pub const HARDLY_VISUAL: f64 = 5.0;

/// A score without pictures so many points above chance can be had by knowing the language.
pub const GUESSABLE: f64 = 20.0;

/// A score without pictures so many points below chance says that the question misleads.
pub const MISLEADING: f64 = 5.0;

/// From so many models on, intervals are over models; below, over questions.
const ENOUGH_MODELS: usize = 3;

/// What the pictures of one benchmark are worth. Intervals are of 95 %, over models if there are at
/// least three, else over the questions of the one or two, else from the number of questions; there is
/// none where nothing of this is known or enough.
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
    /// Its interval.
    pub interval: Option<Interval>,
    /// Visual gain: `with − max(without, chance)`.
    pub gain: f64,
    /// Its interval.
    pub gain_interval: Option<Interval>,
    /// Interval of `without − chance`.
    pub above_chance_interval: Option<Interval>,
    /// Interval of `with − wrong`: what a wrong picture costs.
    pub wrong_cost_interval: Option<Interval>,
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
    /// The interval allows for more than one of these.
    Undecided,
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
            Self::Undecided => "the data does not decide whether it needs vision",
        }
    }

    fn of(gap: f64, interval: Option<Interval>, above_chance: Option<(f64, Interval)>) -> Self {
        let Some(interval) = interval else {
            return Self::Undecided;
        };
        if interval.high < HARDLY_VISUAL {
            return Self::AnsweredBlind;
        }
        if interval.low <= 0.0 || gap < HARDLY_VISUAL {
            return Self::Undecided;
        }
        match above_chance {
            Some((_, above)) if above.low > GUESSABLE => Self::PartlyGuessable,
            Some((points, above)) if points < -MISLEADING && above.high < 0.0 => {
                Self::MisleadsTheBlind
            }
            _ => Self::NeedsVision,
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
    if models.is_empty() {
        return None;
    }
    let facts = &table.benchmarks[benchmark];
    let measure = Measure {
        table,
        models: &models,
        benchmark,
    };
    let with = mean(&measure.scores(Vision::On)?);
    let without = mean(&measure.scores(Vision::Off)?);
    let wrong = measure.scores(Vision::Shuffled).map(|wrong| mean(&wrong));
    let gap = with - without;
    let chance = facts.chance;
    let interval = measure.interval(Side::Asked(Vision::On), Side::Asked(Vision::Off));
    let below = chance.filter(|chance| *chance > without);
    let gain_interval = match below {
        Some(chance) => measure.interval(Side::Asked(Vision::On), Side::Known(chance)),
        None => interval,
    };
    let above_chance_interval =
        chance.and_then(|chance| measure.interval(Side::Asked(Vision::Off), Side::Known(chance)));
    let above_chance = chance.map(|chance| without - chance);
    Some(Gap {
        benchmark: facts.name.clone(),
        group: facts.group.clone(),
        models: models.len(),
        with,
        without,
        wrong,
        chance,
        gap,
        interval,
        gain: with - below.unwrap_or(without),
        gain_interval,
        above_chance_interval,
        wrong_cost_interval: wrong
            .and_then(|_| measure.interval(Side::Asked(Vision::On), Side::Asked(Vision::Shuffled))),
        reading: Reading::of(gap, interval, above_chance.zip(above_chance_interval)),
    })
}

/// One side of a difference.
#[derive(Clone, Copy)]
enum Side {
    /// Scores of models that were asked in this way.
    Asked(Vision),
    /// A number that has no error, in per cent.
    Known(f64),
}

/// Some models on one benchmark.
struct Measure<'t> {
    table: &'t ScoreTable,
    models: &'t [usize],
    benchmark: usize,
}

impl Measure<'_> {
    /// A score for each model, if all have one.
    fn scores(&self, vision: Vision) -> Option<Vec<f64>> {
        let score = |&model| self.table.score_with(vision, model, self.benchmark);
        self.models.iter().map(score).collect()
    }

    fn values(&self, side: Side) -> Option<Vec<f64>> {
        match side {
            Side::Asked(vision) => self.scores(vision),
            Side::Known(value) => Some(vec![value; self.models.len()]),
        }
    }

    /// 95 % interval of the mean difference `one − other`, in points.
    fn interval(&self, one: Side, other: Side) -> Option<Interval> {
        let (first, second) = (self.values(one)?, self.values(other)?);
        let each: Vec<f64> = first.iter().zip(&second).map(|(a, b)| a - b).collect();
        if each.len() >= ENOUGH_MODELS {
            return mean_interval(&each);
        }
        match self.over_questions(one, other) {
            Some((differences, clusters)) => points_interval(mean(&each), &differences, &clusters),
            None => self.by_counts(mean(&each), &first, one, &second, other),
        }
    }

    /// The difference of each question, in points, averaged over the models, and its cluster. `None`
    /// where single questions are not known.
    fn over_questions(&self, one: Side, other: Side) -> Option<(Vec<f64>, Vec<&str>)> {
        let name = &self.table.benchmarks[self.benchmark].name;
        let mut sums: Vec<f64> = Vec::new();
        let mut clusters: Vec<&str> = Vec::new();
        for &model in self.models {
            let answers = self.table.models[model].answers.get(name)?;
            let points = |side: Side, n: usize| -> Option<Vec<f64>> {
                match side {
                    Side::Asked(vision) => {
                        let questions = answers.get(&vision)?;
                        Some(questions.iter().map(|q| 100.0 * q.score).collect())
                    }
                    Side::Known(value) => Some(vec![value; n]),
                }
            };
            let shown = match (one, other) {
                (Side::Asked(vision), _) | (_, Side::Asked(vision)) => answers.get(&vision)?,
                _ => return None,
            };
            let (first, second) = (points(one, shown.len())?, points(other, shown.len())?);
            if sums.is_empty() {
                sums = vec![0.0; shown.len()];
                clusters = shown
                    .iter()
                    .map(|q| q.cluster.as_deref().unwrap_or(&q.id))
                    .collect();
            }
            // All are in the order of the same ids.
            for (sum, (a, b)) in sums.iter_mut().zip(first.iter().zip(&second)) {
                *sum += a - b;
            }
        }
        let count = self.models.len() as f64;
        Some((sums.into_iter().map(|sum| sum / count).collect(), clusters))
    }

    /// From the number of questions: each side moves by its binomial error, as if other questions had
    /// been asked each time, which is cautious.
    fn by_counts(
        &self,
        centre: f64,
        first: &[f64],
        one: Side,
        second: &[f64],
        other: Side,
    ) -> Option<Interval> {
        let n = self.table.benchmarks[self.benchmark].questions?;
        if n < FEWEST_CLUSTERS as u64 {
            return None;
        }
        let variance = |values: &[f64], side: Side| match side {
            Side::Known(_) => 0.0,
            Side::Asked(_) => {
                let share = mean(values) / 100.0;
                (share * (1.0 - share) / n as f64).max(0.0)
            }
        };
        let error = (variance(first, one) + variance(second, other)).sqrt();
        let half = 100.0 * (Z * error).max(RULE_OF_THREE / n as f64);
        Some(Interval {
            low: centre - half,
            high: centre + half,
        })
    }
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
            "model,benchmark,score,without_picture,chance,questions\n\
             a,guess,62,40,0,900\nb,guess,62,40,0,900\na,know,70,68,40,9000\na,see,60,20,25,900\n\
             a,trick,60,10,25,900\na,only,60,,25,900\n",
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
        // 22 ± 1.96 · √(0.62·0.38/900 + 0.40·0.60/900)
        let interval = found[2].interval.unwrap();
        assert!((interval.low - 17.49).abs() < 0.01, "{interval:?}");
    }

    /// The same points, but nobody knows of how many questions, or there are few.
    #[test]
    fn what_has_no_interval_is_undecided() {
        for questions in ["", "1", "9"] {
            let text = format!(
                "model,benchmark,score,without_picture,chance,questions\na,trick,60,10,25,{questions}\n"
            );
            let found = gaps(&table(&text));
            assert_eq!(found[0].interval, None);
            assert_eq!(found[0].reading, Reading::Undecided);
        }
        // 50 ± 1.96 · √(0.24/20 + 0.09/20): pictures matter; ± 13.1 about 10 reaches no 25, and would
        // with other questions.
        let found = gaps(&table(
            "model,benchmark,score,without_picture,chance,questions\na,trick,60,10,20,20\n",
        ));
        assert_eq!(found[0].reading, Reading::NeedsVision);
        assert!(found[0].above_chance_interval.unwrap().high > 0.0);
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
