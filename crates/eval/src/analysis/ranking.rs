//! Who is best, and how sure that is.
//!
//! Models are ranked by their average over all benchmarks. Two things could have been otherwise, and
//! each is tried by resampling:
//!
//! - **the benchmarks**: another fair choice of benchmarks would have been possible. Benchmarks are
//!   drawn with replacement and all models ranked on the draw; the middle 95 % of a model's ranks is
//!   its rank interval, and Kendall's τ with the full ranking says how stable the whole is;
//! - **the questions**: other questions of the same kind could have been asked. Clusters of questions
//!   are drawn with replacement, the same for all models. Where only the number of questions is
//!   known, scores move by their binomial error instead, each for itself; that is cautious, because
//!   two models fail on the same questions more often than not.

use std::collections::BTreeMap;

use opabinia_data::stream::{below, stream};
use serde::Serialize;

use super::averages::{average, competition_ranks, members};
use super::correlation::kendall;
use super::resolution::sampling_error;
use super::runs::QuestionScore;
use super::statistics::{mean, middle_95};
use super::table::{ScoreTable, Selection};
use crate::{Interval, Vision};

/// Models in order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranking {
    /// The best first.
    pub models: Vec<RankedModel>,
    /// The groups that the models' group averages stand for.
    pub groups: Vec<String>,
    /// What the intervals over questions are made of; `None` if there are none.
    pub question_noise: Option<QuestionNoise>,
    /// Mean of Kendall's τ between the ranking and that on drawn benchmarks.
    pub stability: Option<f64>,
    /// τ that 95 % of the draws reach.
    pub stability_at_least: Option<f64>,
    /// τ with the ranking on all benchmarks but one, the most influential benchmark first.
    pub without_one: Vec<WithoutOne>,
}

/// What intervals over questions are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QuestionNoise {
    /// The scores of single questions.
    Resampled,
    /// The numbers of questions alone.
    FromCounts,
    /// Single questions for some benchmarks, numbers for others.
    Mixed,
}

/// A model and its place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedModel {
    /// Its row in the table.
    pub row: usize,
    /// What it is called.
    pub name: String,
    /// What it is one of.
    pub family: Option<String>,
    /// Its average over all benchmarks, in per cent.
    pub average: f64,
    /// Its place.
    pub rank: usize,
    /// Places that 95 % of the draws of benchmarks leave open.
    pub rank_interval: (usize, usize),
    /// Share of the draws in which nobody is better.
    pub share_first: f64,
    /// 95 % interval of the average over questions.
    pub average_interval: Option<Interval>,
    /// Places that 95 % of the draws of questions leave open.
    pub question_rank_interval: Option<(usize, usize)>,
    /// Average of each group.
    pub group_averages: Vec<Option<f64>>,
    /// Place in each group.
    pub group_ranks: Vec<Option<usize>>,
}

/// A ranking on all benchmarks but one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WithoutOne {
    /// The benchmark that is left out.
    pub benchmark: String,
    /// Kendall's τ with the full ranking.
    pub tau: f64,
}

/// Ranks the models of a part without holes; `None` of fewer than two models or of no benchmark.
#[must_use]
pub fn ranking(
    table: &ScoreTable,
    selection: &Selection,
    resamples: usize,
    seed: u64,
) -> Option<Ranking> {
    let (models, benchmarks) = (&selection.models, &selection.benchmarks);
    if models.len() < 2 || benchmarks.is_empty() {
        return None;
    }
    let columns = table.complete_columns(selection);
    let averages = averages_of(&columns, 0..columns.len());
    let by_benchmarks = draw_benchmarks(&columns, resamples, seed);
    let taus: Vec<f64> = by_benchmarks
        .iter()
        .filter_map(|drawn| kendall(&averages, drawn))
        .collect();
    let sources = Source::of(table, selection);
    let by_questions = draw_questions(&averages, &sources, resamples, seed);
    let groups = groups_of(table, benchmarks);
    let group_averages = group_averages(table, selection, &groups);
    let ranks = competition_ranks(&averages);
    let mut ranked: Vec<RankedModel> = (0..models.len())
        .map(|i| RankedModel {
            row: models[i],
            name: table.models[models[i]].name.clone(),
            family: table.models[models[i]].family.clone(),
            average: averages[i],
            rank: ranks[i],
            rank_interval: rank_interval(&by_benchmarks, i).unwrap_or((ranks[i], ranks[i])),
            share_first: share_first(&by_benchmarks, i),
            average_interval: value_interval(&by_questions, i),
            question_rank_interval: rank_interval(&by_questions, i),
            group_averages: group_averages.iter().map(|averages| averages[i]).collect(),
            group_ranks: group_averages
                .iter()
                .map(|averages| rank_of(averages, i))
                .collect(),
        })
        .collect();
    ranked.sort_by(|a, b| b.average.total_cmp(&a.average));
    Some(Ranking {
        models: ranked,
        groups,
        question_noise: noise_kind(&sources).filter(|_| !by_questions.is_empty()),
        stability: (!taus.is_empty()).then(|| mean(&taus)),
        stability_at_least: lowest_twentieth(taus),
        without_one: without_one(table, benchmarks, &columns, &averages),
    })
}

/// The average of each model over some columns.
fn averages_of(columns: &[Vec<f64>], chosen: impl ExactSizeIterator<Item = usize>) -> Vec<f64> {
    let n = chosen.len() as f64;
    let mut sums = vec![0.0; columns.first().map_or(0, Vec::len)];
    for column in chosen {
        for (sum, score) in sums.iter_mut().zip(&columns[column]) {
            *sum += score;
        }
    }
    sums.into_iter().map(|sum| sum / n).collect()
}

/// `[draw][model]`: averages over benchmarks drawn with replacement.
fn draw_benchmarks(columns: &[Vec<f64>], resamples: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut random = stream(seed, "analysis benchmarks", 0);
    let n = columns.len();
    let draw = |_| {
        let chosen: Vec<usize> = (0..n)
            .map(|_| below(&mut random, n as u64) as usize)
            .collect();
        averages_of(columns, chosen.into_iter())
    };
    (0..resamples).map(draw).collect()
}

/// Where the noise of a benchmark's scores comes from.
enum Source {
    /// Clusters of questions.
    Questions(Vec<Cluster>),
    /// `[model]`: standard errors in points.
    Errors(Vec<f64>),
    /// Nothing is known.
    Unknown,
}

/// Questions that depend on each other.
struct Cluster {
    questions: usize,
    /// `[model]`: sums of their scores.
    sums: Vec<f64>,
}

impl Source {
    /// The source of each benchmark of a selection.
    fn of(table: &ScoreTable, selection: &Selection) -> Vec<Self> {
        let one = |&benchmark: &usize| {
            if let Some(clusters) = clusters(table, &selection.models, benchmark) {
                return Self::Questions(clusters);
            }
            let models = selection.models.iter();
            let errors: Option<Vec<f64>> = models
                .map(|&m| sampling_error(table, m, benchmark))
                .collect();
            errors.map_or(Self::Unknown, Self::Errors)
        };
        selection.benchmarks.iter().map(one).collect()
    }
}

/// The questions of a benchmark by cluster; `None` unless all models were asked the same.
fn clusters(table: &ScoreTable, models: &[usize], benchmark: usize) -> Option<Vec<Cluster>> {
    let name = &table.benchmarks[benchmark].name;
    let answers = |&m: &usize| table.models[m].answers.get(name)?.get(&Vision::On);
    let asked: Vec<_> = models.iter().map(answers).collect::<Option<_>>()?;
    let first = asked.first()?;
    let same = |other: &&Vec<QuestionScore>| {
        other.len() == first.len() && other.iter().zip(*first).all(|(a, b)| a.id == b.id)
    };
    if first.is_empty() || !asked.iter().all(same) {
        return None;
    }
    let mut places = BTreeMap::new();
    let mut clusters: Vec<Cluster> = Vec::new();
    for (i, question) in first.iter().enumerate() {
        let key = question.cluster.as_deref().unwrap_or(&question.id);
        let place = *places.entry(key).or_insert_with(|| {
            clusters.push(Cluster {
                questions: 0,
                sums: vec![0.0; models.len()],
            });
            clusters.len() - 1
        });
        clusters[place].questions += 1;
        for (sum, answers) in clusters[place].sums.iter_mut().zip(&asked) {
            *sum += answers[i].score;
        }
    }
    Some(clusters)
}

/// `[draw][model]`: averages with other questions; empty if of some benchmark nothing is known.
///
/// A benchmark's own score moves as the mean over its questions does, also where it is not that mean.
fn draw_questions(
    averages: &[f64],
    sources: &[Source],
    resamples: usize,
    seed: u64,
) -> Vec<Vec<f64>> {
    if sources
        .iter()
        .any(|source| matches!(source, Source::Unknown))
    {
        return Vec::new();
    }
    let mut random = stream(seed, "analysis questions", 0);
    let mut pick = |limit| below(&mut random, limit);
    let n = sources.len() as f64;
    let draw = |_| {
        let mut drawn = averages.to_vec();
        for source in sources {
            let moves = match source {
                Source::Questions(clusters) => moved(clusters, averages.len(), &mut pick),
                Source::Errors(errors) => errors
                    .iter()
                    .map(|error| error * normal(&mut pick))
                    .collect(),
                Source::Unknown => Vec::new(),
            };
            for (average, moved) in drawn.iter_mut().zip(moves) {
                *average += moved / n;
            }
        }
        drawn
    };
    (0..resamples).map(draw).collect()
}

/// How far each model's score moves, in points, when clusters are drawn with replacement.
fn moved(clusters: &[Cluster], models: usize, pick: &mut impl FnMut(u64) -> u64) -> Vec<f64> {
    let (mut before, mut after) = (Total::new(models), Total::new(models));
    for cluster in clusters {
        before.add(cluster);
        after.add(&clusters[pick(clusters.len() as u64) as usize]);
    }
    let means = after.means().zip(before.means());
    means
        .map(|(after, before)| 100.0 * (after - before))
        .collect()
}

/// Sums over clusters.
struct Total {
    questions: usize,
    sums: Vec<f64>,
}

impl Total {
    fn new(models: usize) -> Self {
        Self {
            questions: 0,
            sums: vec![0.0; models],
        }
    }

    fn add(&mut self, cluster: &Cluster) {
        self.questions += cluster.questions;
        for (sum, more) in self.sums.iter_mut().zip(&cluster.sums) {
            *sum += more;
        }
    }

    fn means(&self) -> impl Iterator<Item = f64> {
        self.sums.iter().map(|sum| sum / self.questions as f64)
    }
}

/// A standard normal number, after Box and Muller.
fn normal(pick: &mut impl FnMut(u64) -> u64) -> f64 {
    const UNIT: u64 = 1 << 53;
    let mut uniform = || (pick(UNIT) as f64 + 0.5) / UNIT as f64;
    let radius = (-2.0 * uniform().ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform()).cos()
}

fn noise_kind(sources: &[Source]) -> Option<QuestionNoise> {
    let questions = |source: &Source| matches!(source, Source::Questions(_));
    let known = sources.iter().filter(|source| questions(source)).count();
    match known {
        0 => Some(QuestionNoise::FromCounts),
        n if n == sources.len() => Some(QuestionNoise::Resampled),
        _ => Some(QuestionNoise::Mixed),
    }
}

/// The groups of some benchmarks in the order of the table.
fn groups_of(table: &ScoreTable, benchmarks: &[usize]) -> Vec<String> {
    let groups = table.groups().into_iter();
    groups
        .filter(|group| !members(table, benchmarks, group).is_empty())
        .collect()
}

/// `[group][model of the selection]`.
fn group_averages(
    table: &ScoreTable,
    selection: &Selection,
    groups: &[String],
) -> Vec<Vec<Option<f64>>> {
    let of_group = |group: &String| {
        let benchmarks = members(table, &selection.benchmarks, group);
        let models = selection.models.iter();
        models.map(|&m| average(table, m, &benchmarks)).collect()
    };
    groups.iter().map(of_group).collect()
}

/// The rank of the `i`th of some averages.
fn rank_of(averages: &[Option<f64>], i: usize) -> Option<usize> {
    let mine = averages[i]?;
    let better = averages
        .iter()
        .flatten()
        .filter(|other| **other > mine + 1e-9);
    Some(1 + better.count())
}

/// The middle 95 % of a model's ranks over draws, widened to whole ranks; `None` without draws.
fn rank_interval(draws: &[Vec<f64>], model: usize) -> Option<(usize, usize)> {
    let rank = |draw: &Vec<f64>| {
        let better = draw.iter().filter(|other| **other > draw[model] + 1e-9);
        1.0 + better.count() as f64
    };
    let mut ranks: Vec<f64> = draws.iter().map(rank).collect();
    (!ranks.is_empty()).then(|| {
        let Interval { low, high } = middle_95(&mut ranks);
        (low.floor() as usize, high.ceil() as usize)
    })
}

fn value_interval(draws: &[Vec<f64>], model: usize) -> Option<Interval> {
    let mut values: Vec<f64> = draws.iter().map(|draw| draw[model]).collect();
    (!values.is_empty()).then(|| middle_95(&mut values))
}

fn share_first(draws: &[Vec<f64>], model: usize) -> f64 {
    let first = draws
        .iter()
        .filter(|draw| draw.iter().all(|other| *other <= draw[model] + 1e-9));
    first.count() as f64 / draws.len().max(1) as f64
}

/// The value that 95 % of some values reach.
fn lowest_twentieth(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 20).copied()
}

fn without_one(
    table: &ScoreTable,
    benchmarks: &[usize],
    columns: &[Vec<f64>],
    averages: &[f64],
) -> Vec<WithoutOne> {
    let mut all: Vec<WithoutOne> = (0..columns.len())
        .filter(|_| columns.len() > 1)
        .filter_map(|left_out| {
            let chosen: Vec<usize> = (0..columns.len()).filter(|&c| c != left_out).collect();
            let without = averages_of(columns, chosen.into_iter());
            Some(WithoutOne {
                benchmark: table.benchmarks[benchmarks[left_out]].name.clone(),
                tau: kendall(averages, &without)?,
            })
        })
        .collect();
    all.sort_by(|a, b| a.tau.total_cmp(&b.tau));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::runs::{Asked, RunScores, table_of};

    fn run(model: &str, benchmark: &str, right: usize, of: usize) -> RunScores {
        let questions = (0..of).map(|i| QuestionScore {
            id: format!("{i:03}"),
            cluster: Some((i / 2).to_string()),
            score: f64::from(u8::from(i < right)),
        });
        let asked = Asked {
            questions: questions.collect(),
            ..Asked::default()
        };
        RunScores {
            run: model.into(),
            model: model.into(),
            benchmark: benchmark.into(),
            group: Some("all".into()),
            asked: BTreeMap::from([(Vision::On, asked)]),
            ..RunScores::default()
        }
    }

    fn ranked(runs: Vec<RunScores>) -> Ranking {
        let table = table_of(runs).unwrap();
        ranking(&table, &table.selection(), 400, 3).unwrap()
    }

    /// Who is better on every benchmark is first on every draw.
    #[test]
    fn a_clear_winner_is_certain() {
        let found = ranked(vec![
            run("b", "x", 50, 100),
            run("b", "y", 50, 100),
            run("a", "x", 90, 100),
            run("a", "y", 80, 100),
        ]);
        let first = &found.models[0];
        assert_eq!(
            (first.name.as_str(), first.rank, first.average),
            ("a", 1, 85.0)
        );
        assert_eq!((first.rank_interval, first.share_first), ((1, 1), 1.0));
        assert_eq!(found.stability, Some(1.0));
        assert_eq!(found.question_noise, Some(QuestionNoise::Resampled));
        assert_eq!(first.question_rank_interval, Some((1, 1)));
        // Pairs share their score: 50 clusters, ± 1.96 · √(½·½/50) = ± 14 points over two benchmarks
        // that is ± 9.8.
        let second = found.models[1].average_interval.unwrap();
        assert!((second.high - second.low - 19.6).abs() < 3.0, "{second:?}");
    }

    #[test]
    fn opposite_benchmarks_leave_everything_open() {
        let found = ranked(vec![
            run("a", "x", 90, 100),
            run("a", "y", 10, 100),
            run("b", "x", 10, 100),
            run("b", "y", 89, 100),
        ]);
        assert_eq!(found.models[0].rank_interval, (1, 2));
        assert!(found.models[1].share_first > 0.15);
        // Twice x, twice y, one of each (half of the draws): ¼ − ¼ + ½.
        assert!((found.stability.unwrap() - 0.5).abs() < 0.1);
        assert_eq!(found.without_one[0].benchmark, "x");
        assert_eq!(found.without_one[0].tau, -1.0);
        assert_eq!(found.models[0].group_ranks, [Some(1)]);
    }

    #[test]
    fn one_model_is_no_ranking() {
        let table = table_of(vec![run("a", "x", 1, 2)]).unwrap();
        assert_eq!(ranking(&table, &table.selection(), 10, 1), None);
    }
}
