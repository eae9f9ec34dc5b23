//! What a benchmark can tell apart: the spread of scores over models beside the noise of measuring.
//!
//! A score on n questions has a standard error of about √(p(1 − p)/n). If models differ by no more
//! than that, the benchmark says nothing about which of them is better, however useful its questions
//! are. The *reliability* is the share of the variance over models that is not such noise.

use serde::Serialize;

use super::statistics::{RULE_OF_THREE, clustered_standard_error, deviation, mean};
use super::table::ScoreTable;
use crate::{Vision, Z};

/// Spread and noise of one benchmark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resolution {
    /// The benchmark.
    pub benchmark: String,
    /// Its group.
    pub group: Option<String>,
    /// Its scored questions.
    pub questions: Option<u64>,
    /// Models with a score.
    pub models: usize,
    /// Their mean, in per cent.
    pub mean: f64,
    /// The lowest of them.
    pub lowest: f64,
    /// The highest of them.
    pub highest: f64,
    /// Standard deviation over models, in points.
    pub spread: f64,
    /// Standard error of one score (root mean square over models), in points; `None` if the number of
    /// questions is not known.
    pub noise: Option<f64>,
    /// 1 − noise²/spread², not below 0.
    pub reliability: Option<f64>,
}

/// The resolution of each benchmark that at least two models were asked.
#[must_use]
pub fn resolutions(table: &ScoreTable) -> Vec<Resolution> {
    (0..table.benchmarks.len())
        .filter_map(|benchmark| resolution(table, benchmark))
        .collect()
}

fn resolution(table: &ScoreTable, benchmark: usize) -> Option<Resolution> {
    let models: Vec<usize> = (0..table.models.len())
        .filter(|&m| table.score(m, benchmark).is_some())
        .collect();
    let scores: Vec<f64> = table
        .column(benchmark, &models)
        .into_iter()
        .flatten()
        .collect();
    let spread = deviation(&scores)?;
    let noise = models
        .iter()
        .map(|&m| sampling_error(table, m, benchmark).map(|e| e * e))
        .collect::<Option<Vec<f64>>>()
        .map(|squares| mean(&squares).sqrt());
    let facts = &table.benchmarks[benchmark];
    Some(Resolution {
        benchmark: facts.name.clone(),
        group: facts.group.clone(),
        questions: facts.questions,
        models: models.len(),
        mean: mean(&scores),
        lowest: scores.iter().copied().fold(f64::INFINITY, f64::min),
        highest: scores.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        spread,
        noise,
        reliability: noise.map(|noise| reliability(spread, noise)),
    })
}

fn reliability(spread: f64, noise: f64) -> f64 {
    if spread > 0.0 {
        (1.0 - noise * noise / (spread * spread)).max(0.0)
    } else {
        0.0
    }
}

/// The standard error of a score in points: from the scores of its questions, which counts questions
/// about one picture as one cluster, or else from their number alone. `None` if that is not known
/// either.
#[must_use]
pub fn sampling_error(table: &ScoreTable, model: usize, benchmark: usize) -> Option<f64> {
    let name = &table.benchmarks[benchmark].name;
    let answers = table.models[model].answers.get(name);
    if let Some(questions) = answers.and_then(|answers| answers.get(&Vision::On)) {
        let scores: Vec<f64> = questions.iter().map(|q| q.score).collect();
        let clusters: Vec<&str> = questions
            .iter()
            .map(|q| q.cluster.as_deref().unwrap_or(&q.id))
            .collect();
        let error = clustered_standard_error(&scores, &clusters)?;
        return Some(at_least(100.0 * error, scores.len() as f64));
    }
    let share = table.score(model, benchmark)? / 100.0;
    let n = table.benchmarks[benchmark].questions.filter(|n| *n > 0)?;
    Some(at_least(
        100.0 * (share * (1.0 - share) / n as f64).sqrt(),
        n as f64,
    ))
}

/// Questions that are all right, or all wrong, have an error too: that of the rule of three.
fn at_least(error: f64, questions: f64) -> f64 {
    if error > 0.0 {
        error
    } else {
        100.0 * RULE_OF_THREE / questions / Z
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// 50 % of 100 questions: ± 5 points.
    #[test]
    fn by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        let text = "model,benchmark,score,questions\na,q,50,100\nb,q,50,100\na,r,10,\nb,r,20,\n";
        std::fs::write(&path, text).unwrap();
        let table = ScoreTable::read(Path::new(&path)).unwrap();
        let found = resolutions(&table);
        assert_eq!(found[0].noise, Some(5.0));
        assert_eq!((found[0].spread, found[0].reliability), (0.0, Some(0.0)));
        assert_eq!((found[1].noise, found[1].reliability), (None, None));
        assert_eq!((found[1].lowest, found[1].highest), (10.0, 20.0));
        assert!((reliability(10.0, 5.0) - 0.75).abs() < 1e-15);
    }
}
