//! From records to a score in each way of asking, how sure it is, and what pictures are worth.
//!
//! **Visual gain** is the score with the picture minus the larger of the score without it and
//! chance: what the picture is worth, given that one can also guess. It follows the comparison of
//! Cambrian-1, section 3.1 (vision on, vision off, random guess). A gain below 0 says that the
//! pictures harm.
//!
//! Intervals are of 95 %. A mean of right and wrong has Wilson's; where scores lie between 0 and 1, or
//! questions share a picture, Wilson's with the number of questions that the clustered standard error
//! is worth. A benchmark with a score of its own (pairs, circles, points, a mean of means) is resampled
//! by clusters, within its categories and collections where the score is made of those.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::analysis::statistics::clustered_standard_error;
use crate::interval::{Interval, Z, wilson, wilson_of};
use crate::items::Rules;
use crate::record::Record;
use crate::resample::Drawn;
use crate::scorer::{Aggregate, Judged, Judgement, Metric, ScorerError, Unit};
use crate::vision::Vision;

/// What a score is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scale {
    /// Its unit.
    pub unit: Unit,
    /// The best that can be had in that unit.
    pub full_marks: f64,
}

impl Scale {
    /// From 0 to 100.
    pub const PERCENT: Self = Self {
        unit: Unit::Percent,
        full_marks: 100.0,
    };
}

/// A score and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Questions.
    pub n: usize,
    /// Score as a share of full marks, from 0 to 1.
    pub mean: f64,
    /// 95 % interval of it.
    pub interval: Interval,
}

/// The scores on some questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What the scores are counted in.
    #[serde(flatten)]
    pub scale: Scale,
    /// Questions that have a score.
    pub n: usize,
    /// What guessing is expected to get, as a share of full marks.
    pub chance: f64,
    /// Score for each way of asking.
    pub scores: BTreeMap<Vision, Score>,
    /// From −1 to 1; `None` unless the same questions were asked with and without their pictures.
    pub visual_gain: Option<f64>,
    /// 95 % interval of the gain.
    pub visual_gain_interval: Option<Interval>,
}

/// Records of some questions by way of asking; only those that have a score.
pub(crate) type ByVision<'r> = BTreeMap<Vision, Vec<&'r Record>>;

impl Figure {
    /// Mean scores.
    #[must_use]
    pub fn of_mean(records: &[&Record]) -> Self {
        let by_vision = by_vision(records);
        let widest = widest(&by_vision);
        let chance = mean(widest.iter().map(|record| record.chance));
        let scores: BTreeMap<Vision, Score> = by_vision
            .iter()
            .map(|(vision, records)| (*vision, mean_score(records)))
            .collect();
        let (visual_gain, visual_gain_interval) = mean_gain(&by_vision, &scores, chance).unzip();
        Self {
            scale: Scale::PERCENT,
            n: widest.len(),
            chance,
            scores,
            visual_gain,
            visual_gain_interval: visual_gain_interval.flatten(),
        }
    }

    /// The scores of a benchmark, as it sums up its questions.
    ///
    /// # Errors
    /// If it cannot: a pair is incomplete, a category is not one that it knows.
    pub fn of_benchmark(rules: &Rules, records: &[&Record]) -> Result<Self, ScorerError> {
        if is_mean(rules.aggregate) {
            return Ok(Self::of_mean(records));
        }
        let by_vision = by_vision(records);
        let widest = widest(&by_vision);
        let guessed: Vec<Judgement> = widest
            .iter()
            .map(|record| Judgement::new(record.chance, "", ""))
            .collect();
        let guessed = judged(widest, &guessed);
        let (chance, scale) = share(&rules.standard(), &guessed)?;
        let mut shares = BTreeMap::new();
        for (vision, records) in &by_vision {
            let judgements = judgements(records);
            let (share, _) = share(rules, &judged(records, &judgements))?;
            shares.insert(*vision, share);
        }
        let drawn = Drawn::of(rules, &by_vision, chance);
        let score = |(vision, mean): (&Vision, &f64)| {
            let records = by_vision.get(vision).map_or(&[][..], Vec::as_slice);
            let interval = drawn.scores.get(vision).copied();
            let score = Score {
                n: records.len(),
                mean: *mean,
                interval: interval.unwrap_or_else(|| wilson(*mean, clusters(records).len())),
            };
            (*vision, score)
        };
        let gain = gain(&by_vision, |vision| shares.get(&vision).copied(), chance);
        Ok(Self {
            scale,
            n: widest.len(),
            chance,
            scores: shares.iter().map(score).collect(),
            visual_gain: gain,
            visual_gain_interval: gain.and(drawn.gain),
        })
    }
}

/// All figures of a benchmark in one way of asking, the first of which is the headline.
///
/// # Errors
/// If the benchmark cannot be summed up.
pub fn metrics(rules: &Rules, records: &[&Record]) -> Result<Vec<Metric>, ScorerError> {
    let scored: Vec<&Record> = records
        .iter()
        .copied()
        .filter(|record| record.score().is_some())
        .collect();
    let judgements = judgements(&scored);
    rules
        .aggregate
        .metrics_under(rules.protocol, &judged(&scored, &judgements))
}

/// Whether the headline is the mean over questions.
fn is_mean(aggregate: Aggregate) -> bool {
    match aggregate {
        Aggregate::Mean
        | Aggregate::Seed
        | Aggregate::QBench
        | Aggregate::OcrBench
        | Aggregate::Mmmu
        | Aggregate::Pope
        | Aggregate::MmVet => true,
        Aggregate::Mme
        | Aggregate::MmvpPairs
        | Aggregate::Circular
        | Aggregate::CvBench
        | Aggregate::ScienceQa
        | Aggregate::EditDistance => false,
    }
}

fn by_vision<'r>(records: &[&'r Record]) -> ByVision<'r> {
    let mut by_vision = ByVision::new();
    for record in records {
        if record.score().is_some() {
            by_vision.entry(record.vision).or_default().push(record);
        }
    }
    by_vision
}

/// Of an unfinished run the way of asking that got furthest.
fn widest<'b, 'r>(by_vision: &'b ByVision<'r>) -> &'b [&'r Record] {
    let widest = by_vision.values().rev().max_by_key(|records| records.len());
    widest.map_or(&[][..], Vec::as_slice)
}

/// The headline as a share of full marks.
pub(crate) fn share(rules: &Rules, judged: &[Judged<'_>]) -> Result<(f64, Scale), ScorerError> {
    let metrics = rules.aggregate.metrics_under(rules.protocol, judged)?;
    let headline = metrics.first().map(|metric| (metric, scale_of(metric)));
    Ok(match headline {
        Some((metric, scale)) => (metric.value / scale.full_marks, scale),
        None => (0.0, Scale::PERCENT),
    })
}

fn scale_of(metric: &Metric) -> Scale {
    let full_marks = match (metric.unit, metric.name.as_str()) {
        // MME: 200 for each of ten and four categories.
        (Unit::Points, "perception") => 2000.0,
        (Unit::Points, "cognition") => 800.0,
        (Unit::Points, "total") => 2800.0,
        (Unit::Fraction, _) => 1.0,
        _ => 100.0,
    };
    Scale {
        unit: metric.unit,
        full_marks,
    }
}

pub(crate) fn judgements(records: &[&Record]) -> Vec<Judgement> {
    records
        .iter()
        .filter_map(|record| record.judgement())
        .collect()
}

pub(crate) fn judged<'r>(records: &[&'r Record], judgements: &'r [Judgement]) -> Vec<Judged<'r>> {
    let pairs = records.iter().zip(judgements);
    let judged = pairs.map(|(record, judgement)| Judged {
        id: &record.id,
        unit: record.unit.as_deref(),
        picture: record.own_picture.as_deref(),
        category: (!record.task.is_empty()).then_some(record.task.as_str()),
        source: record.source.as_deref(),
        judgement,
    });
    judged.collect()
}

fn mean_score(records: &[&Record]) -> Score {
    let values = values(records);
    let mean = mean(values.iter().copied());
    Score {
        n: records.len(),
        mean,
        interval: mean_interval(mean, &values, &clusters_of(records)),
    }
}

fn mean_interval(mean: f64, values: &[f64], names: &[&str]) -> Interval {
    let n = values.len();
    let distinct = names.iter().collect::<BTreeSet<_>>().len();
    let binary = values.iter().all(|value| *value == 0.0 || *value == 1.0);
    if binary && distinct == n {
        return wilson(mean, n);
    }
    match clustered_standard_error(values, names) {
        // All clusters say the same, so each of them counts as one.
        Some(error) if error > 0.0 => {
            let worth = mean * (1.0 - mean) / (error * error);
            wilson_of(mean, worth)
        }
        _ => wilson(mean, distinct),
    }
}

/// The gain of mean scores, and how sure it is.
fn mean_gain(
    by_vision: &ByVision<'_>,
    scores: &BTreeMap<Vision, Score>,
    chance: f64,
) -> Option<(f64, Option<Interval>)> {
    let mean_of = |vision| scores.get(&vision).map(|score| score.mean);
    let gain = gain(by_vision, mean_of, chance)?;
    let (on, off) = (by_vision.get(&Vision::On)?, by_vision.get(&Vision::Off)?);
    let differences: Vec<f64> = match mean_of(Vision::Off)? >= chance {
        true => {
            let without: BTreeMap<&str, f64> = off
                .iter()
                .filter_map(|record| Some((record.id.as_str(), record.score()?)))
                .collect();
            let difference = |record: &&Record| {
                let without = without.get(record.id.as_str())?;
                Some(record.score()? - without)
            };
            on.iter().filter_map(difference).collect()
        }
        // Chance is no measurement.
        false => values(on),
    };
    let error = clustered_standard_error(&differences, &clusters_of(on));
    let interval = error.filter(|error| *error > 0.0).map(|error| Interval {
        low: (gain - Z * error).max(-1.0),
        high: (gain + Z * error).min(1.0),
    });
    Some((gain, interval))
}

/// What pictures are worth.
fn gain(
    by_vision: &ByVision<'_>,
    score: impl Fn(Vision) -> Option<f64>,
    chance: f64,
) -> Option<f64> {
    let (on, off) = (by_vision.get(&Vision::On)?, by_vision.get(&Vision::Off)?);
    let ids = |records: &[&Record]| -> BTreeSet<String> {
        records.iter().map(|record| record.id.clone()).collect()
    };
    let same = ids(on) == ids(off);
    same.then_some(score(Vision::On)? - score(Vision::Off)?.max(chance))
}

fn values(records: &[&Record]) -> Vec<f64> {
    records.iter().filter_map(|record| record.score()).collect()
}

fn clusters_of<'r>(records: &[&'r Record]) -> Vec<&'r str> {
    let names = records.iter();
    names
        .map(|record| record.cluster().unwrap_or(&record.id))
        .collect()
}

fn clusters<'r>(records: &[&'r Record]) -> BTreeSet<&'r str> {
    clusters_of(records).into_iter().collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len().max(1) as f64;
    values.sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;
    use crate::scorer::{Protocol, Scorer};

    fn rules(aggregate: Aggregate) -> Rules {
        Rules {
            scorer: Scorer::Letter,
            aggregate,
            protocol: Protocol::Standard,
        }
    }

    /// Pairs of questions, with the picture and without.
    fn pairs(count: usize) -> Vec<Record> {
        let each = (0..2 * count).flat_map(|index| {
            let right = f64::from(u8::from(index % 5 != 0));
            [(Vision::On, right), (Vision::Off, 0.0)].map(|(vision, score)| Record {
                unit: Some((index / 2).to_string()),
                chance: 0.5,
                ..record(index, vision, "pairs", score)
            })
        });
        each.collect()
    }

    fn refs(records: &[Record]) -> Vec<&Record> {
        records.iter().collect()
    }

    /// Of every ten questions 0 and 5 are wrong, so of every five pairs 0 and 2.
    #[test]
    fn pairs_have_their_own_score_and_interval() {
        let records = pairs(50);
        let figure = Figure::of_benchmark(&rules(Aggregate::MmvpPairs), &refs(&records)).unwrap();
        assert_eq!((figure.n, figure.chance), (100, 0.25));
        let on = figure.scores[&Vision::On];
        assert!((on.mean - 0.6).abs() < 1e-12);
        // Close to Wilson's of 50 pairs, 46.2 to 72.4 %.
        assert!((on.interval.low - 0.46).abs() < 0.04, "{:?}", on.interval);
        assert!((on.interval.high - 0.73).abs() < 0.04, "{:?}", on.interval);
        assert!((figure.visual_gain.unwrap() - 0.35).abs() < 1e-12);
        let gain = figure.visual_gain_interval.unwrap();
        assert!(gain.low > 0.15 && gain.high < 0.55, "{gain:?}");
        let again = Figure::of_benchmark(&rules(Aggregate::MmvpPairs), &refs(&records)).unwrap();
        assert_eq!(figure, again, "one seed, one interval");
    }

    #[test]
    fn half_a_pair_has_no_score() {
        let mut records = pairs(3);
        records.retain(|record| record.index != 1);
        let error = Figure::of_benchmark(&rules(Aggregate::MmvpPairs), &refs(&records));
        assert!(error.unwrap_err().to_string().contains("there are 1"));
        assert!(Figure::of_benchmark(&rules(Aggregate::Mean), &refs(&records)).is_ok());
    }

    #[test]
    fn questions_about_one_picture_are_worth_less() {
        let alone: Vec<Record> = (0..40)
            .map(|i| record(i, Vision::On, "x", f64::from(u8::from(i % 8 < 4))))
            .collect();
        let mut together = alone.clone();
        for record in &mut together {
            record.own_picture = Some((record.index / 4).to_string());
        }
        let interval = |records: &[Record]| {
            let figure = Figure::of_mean(&refs(records));
            figure.scores[&Vision::On].interval
        };
        assert_eq!(interval(&alone), wilson(0.5, 40));
        assert!(interval(&together).low < wilson(0.5, 12).low);
    }

    /// (1 + 0.4 + 0.1) / 3 = 0.5; their variance 0.21, so SE² = 0.07 and 0.25 / 0.07 questions.
    #[test]
    fn soft_scores() {
        let scores = [1.0, 0.4, 0.1].iter().enumerate();
        let records: Vec<Record> = scores
            .map(|(i, &score)| record(i, Vision::On, "x", score))
            .collect();
        let figure = Figure::of_mean(&refs(&records));
        let score = figure.scores[&Vision::On];
        let expected = wilson_of(0.5, 0.25 / 0.07);
        assert!((score.interval.low - expected.low).abs() < 1e-12);
        assert_eq!(figure.visual_gain, None);
    }
}
