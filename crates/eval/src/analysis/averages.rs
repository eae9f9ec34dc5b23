//! Averages over benchmarks, as the paper makes them.
//!
//! A group's score is the plain mean of its benchmarks, the overall average the plain mean of all
//! benchmarks, in per cent (Cambrian-1, sections 3.1 and A: MME divided by 20, CV-Bench 2D and 3D
//! counted as two). An average of which one score is missing is missing.

use serde::Serialize;

use super::statistics::mean;
use super::table::ScoreTable;

/// The average of a model over these benchmarks; `None` if a score is missing or there are none.
#[must_use]
pub fn average(table: &ScoreTable, model: usize, benchmarks: &[usize]) -> Option<f64> {
    let scores: Option<Vec<f64>> = benchmarks.iter().map(|&b| table.score(model, b)).collect();
    scores
        .filter(|scores| !scores.is_empty())
        .map(|scores| mean(&scores))
}

/// Which of these benchmarks belong to a group.
#[must_use]
pub fn members(table: &ScoreTable, benchmarks: &[usize], group: &str) -> Vec<usize> {
    let of_group = |b: &usize| table.benchmarks[*b].group.as_deref() == Some(group);
    benchmarks.iter().copied().filter(of_group).collect()
}

/// Ranks from 1, the highest first; values that are equal but for rounding share a rank and the next
/// ones are skipped.
#[must_use]
pub fn competition_ranks(values: &[f64]) -> Vec<usize> {
    let better = |than: f64| values.iter().filter(|v| **v > than + 1e-9).count();
    values.iter().map(|&value| 1 + better(value)).collect()
}

/// An average that a file states, beside the one that its scores give.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrintedCheck {
    /// The model.
    pub model: String,
    /// The group; `None` for the average of everything.
    pub group: Option<String>,
    /// What the file states.
    pub printed: f64,
    /// What its scores give; `None` if one is missing.
    pub computed: Option<f64>,
}

/// Computes every average that the file states.
#[must_use]
pub fn printed_checks(table: &ScoreTable) -> Vec<PrintedCheck> {
    let all: Vec<usize> = (0..table.benchmarks.len()).collect();
    let models = table.models.iter().enumerate();
    models
        .flat_map(|(m, model)| {
            let all = &all;
            model.printed.iter().map(move |printed| {
                let benchmarks = match &printed.group {
                    Some(group) => members(table, all, group),
                    None => all.clone(),
                };
                PrintedCheck {
                    model: model.name.clone(),
                    group: printed.group.clone(),
                    printed: printed.average,
                    computed: average(table, m, &benchmarks),
                }
            })
        })
        .collect()
}

/// How a family of models does in a group of benchmarks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FamilyAverage {
    /// The family.
    pub family: String,
    /// Models of it that have all scores.
    pub models: usize,
    /// `(group, mean over the models)`.
    pub groups: Vec<(String, f64)>,
    /// `[group][model]`: what the means are of.
    #[serde(skip)]
    pub each: Vec<Vec<f64>>,
}

/// The mean of each family in each group, over models and benchmarks of a part without holes.
#[must_use]
pub fn family_averages(
    table: &ScoreTable,
    models: &[usize],
    benchmarks: &[usize],
) -> Vec<FamilyAverage> {
    let of_family = |family: String| {
        let mine: Vec<usize> = models
            .iter()
            .copied()
            .filter(|&m| table.models[m].family.as_ref() == Some(&family))
            .collect();
        let groups = table.groups().into_iter().filter_map(|group| {
            let benchmarks = members(table, benchmarks, &group);
            let each = mine.iter().filter_map(|&m| average(table, m, &benchmarks));
            let each: Vec<f64> = each.collect();
            (!each.is_empty()).then(|| ((group, mean(&each)), each))
        });
        let (groups, each) = groups.unzip();
        FamilyAverage {
            groups,
            each,
            models: mine.len(),
            family,
        }
    };
    let families = table.families().into_iter().map(of_family);
    families.filter(|family| family.models > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_rank() {
        assert_eq!(
            competition_ranks(&[2.0, 3.0, 2.0 + 1e-12, 1.0]),
            [2, 1, 2, 4]
        );
    }
}
