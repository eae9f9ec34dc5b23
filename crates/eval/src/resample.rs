//! Intervals of scores that are no mean over questions, by drawing clusters again.
//!
//! What is drawn are clusters, with replacement: pictures, or what must be answered together. Where a
//! score is made of parts (the categories of MME, the collections of CV-Bench) every part keeps its
//! number of clusters, because the benchmark fixes it.

use std::collections::BTreeMap;

use opabinia_data::stream::{below, stream};

use crate::analysis::statistics::middle_95;
use crate::figure::{ByVision, judged, judgements, share};
use crate::interval::Interval;
use crate::items::Rules;
use crate::record::Record;
use crate::scorer::{Aggregate, Judged, Judgement};
use crate::vision::Vision;

/// Draws.
const RESAMPLES: usize = 300;

/// What a cluster is drawn within: a category of a collection.
type Stratum<'r> = (&'r str, &'r str);
/// A cluster.
type Key<'r> = (Stratum<'r>, &'r str);

/// Intervals by resampling.
#[derive(Default)]
pub struct Drawn {
    /// Of each way of asking.
    pub scores: BTreeMap<Vision, Interval>,
    /// Of the visual gain.
    pub gain: Option<Interval>,
}

impl Drawn {
    /// Draws; nothing of fewer than two clusters.
    pub fn of(rules: &Rules, by_vision: &ByVision<'_>, chance: f64) -> Self {
        let rules = rules.standard();
        let judgements: BTreeMap<Vision, Vec<Judgement>> = by_vision
            .iter()
            .map(|(vision, records)| (*vision, judgements(records)))
            .collect();
        // The questions of each cluster, in each way of asking.
        let mut clusters: BTreeMap<Key<'_>, BTreeMap<Vision, Vec<Judged<'_>>>> = BTreeMap::new();
        for (vision, records) in by_vision {
            let Some(judgements) = judgements.get(vision) else {
                continue;
            };
            let questions = judged(records, judgements);
            for (record, question) in records.iter().zip(questions) {
                let name = record.cluster().unwrap_or(&record.id);
                let ways = clusters.entry((stratum(&rules, record), name)).or_default();
                ways.entry(*vision).or_default().push(question);
            }
        }
        if clusters.len() < 2 {
            return Self::default();
        }
        let mut strata: BTreeMap<Stratum<'_>, Vec<Key<'_>>> = BTreeMap::new();
        for key in clusters.keys() {
            strata.entry(key.0).or_default().push(*key);
        }
        let mut scores: BTreeMap<Vision, Vec<f64>> = BTreeMap::new();
        let mut gains = Vec::new();
        let mut random = stream(0, "eval.intervals", 0);
        for _ in 0..RESAMPLES {
            let mut chosen: Vec<Key<'_>> = Vec::new();
            for keys in strata.values() {
                for _ in keys {
                    let place = below(&mut random, keys.len() as u64) as usize;
                    chosen.extend(keys.get(place));
                }
            }
            let units: Vec<String> = (0..chosen.len()).map(|draw| draw.to_string()).collect();
            let mut drawn = BTreeMap::new();
            for vision in by_vision.keys() {
                let questions: Vec<Judged<'_>> = chosen
                    .iter()
                    .zip(&units)
                    .flat_map(|(key, unit)| {
                        let ways = clusters.get(key);
                        let questions = ways.and_then(|ways| ways.get(vision));
                        // A cluster that is drawn twice is two.
                        questions.into_iter().flatten().map(move |question| Judged {
                            unit: question.unit.map(|_| unit.as_str()),
                            ..*question
                        })
                    })
                    .collect();
                if let Ok((share, _)) = share(&rules, &questions) {
                    scores.entry(*vision).or_default().push(share);
                    drawn.insert(*vision, share);
                }
            }
            if let (Some(on), Some(off)) = (drawn.get(&Vision::On), drawn.get(&Vision::Off)) {
                gains.push(on - off.max(chance));
            }
        }
        let interval = |values: &mut Vec<f64>| {
            let enough = values.len() == RESAMPLES;
            enough.then(|| middle_95(values))
        };
        Self {
            scores: scores
                .iter_mut()
                .filter_map(|(vision, values)| Some((*vision, interval(values)?)))
                .collect(),
            gain: interval(&mut gains),
        }
    }
}

/// What a question is drawn within, where the score is made of parts.
fn stratum<'r>(rules: &Rules, record: &'r Record) -> Stratum<'r> {
    match rules.aggregate {
        Aggregate::Mme | Aggregate::CvBench => (
            record.task.as_str(),
            record.source.as_deref().unwrap_or_default(),
        ),
        _ => ("", ""),
    }
}
