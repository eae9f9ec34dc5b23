//! The analysis of benchmarks against reference numbers: correlation, components, clusters, error
//! bars, power.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use opabinia_eval::analysis::clusters::{Tree, k_means, silhouette};
use opabinia_eval::analysis::components::{Components, standardised};
use opabinia_eval::analysis::correlation::{CorrelationMatrix, pearson, spearman};
use opabinia_eval::analysis::statistics::{
    Plan, clustered_standard_error, mcnemar, mean, paired_t, standard_error,
};
use opabinia_eval::analysis::{ScoreTable, statistics};
use opabinia_eval::wilson;
use serde_json::Value;

fn golden(folder: &str) -> PathBuf {
    let root = std::env::var("OPABINIA_GOLDEN").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        PathBuf::from,
    );
    root.join(folder)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Each case of the matrices: its standardised benchmarks, the table, what is expected.
fn matrices() -> Vec<(String, ScoreTable, Value)> {
    let folder = golden("scorers/analysis");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".expected.json") {
            let expected = json(&path);
            let table = folder.join(expected["csv"].as_str().unwrap());
            cases.push((
                name,
                ScoreTable::read(&table).unwrap(),
                expected["expected"].clone(),
            ));
        }
    }
    assert!(!cases.is_empty(), "no case in {}", folder.display());
    cases
}

fn columns(table: &ScoreTable) -> Vec<Vec<f64>> {
    let selection = table.selection();
    assert!(selection.left_out.is_empty());
    table.complete_columns(&selection)
}

fn points(table: &ScoreTable) -> Vec<Vec<f64>> {
    let columns = columns(table);
    columns
        .iter()
        .map(|column| standardised(column).unwrap())
        .collect()
}

fn transposed(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    (0..rows[0].len())
        .map(|i| rows.iter().map(|row| row[i]).collect())
        .collect()
}

fn floats(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|v| v.as_f64().unwrap()).collect()
}

fn labels(value: &Value) -> Vec<usize> {
    let values = value.as_array().unwrap().iter();
    values.map(|v| v.as_u64().unwrap() as usize).collect()
}

#[track_caller]
fn close(found: f64, expected: f64, scale: f64, what: &str) {
    let tolerance = 1e-8 * expected.abs().max(scale);
    assert!(
        (found - expected).abs() <= tolerance,
        "{what}: {found}, expected {expected}"
    );
}

#[test]
fn correlations_match() {
    for (name, table, expected) in matrices() {
        let columns: Vec<Vec<Option<f64>>> = columns(&table)
            .into_iter()
            .map(|column| column.into_iter().map(Some).collect())
            .collect();
        let names: Vec<String> = table.benchmarks.iter().map(|b| b.name.clone()).collect();
        for (kind, found) in [
            ("pearson", CorrelationMatrix::of(&names, &columns, pearson)),
            (
                "spearman",
                CorrelationMatrix::of(&names, &columns, spearman),
            ),
        ] {
            let rows = expected[kind].as_array().unwrap();
            assert_eq!(rows.len(), names.len(), "{name}");
            for (found, row) in found.values.iter().zip(rows) {
                for (found, expected) in found.iter().zip(floats(row)) {
                    close(found.unwrap(), expected, 1e-3, &format!("{name} {kind}"));
                }
            }
        }
    }
}

#[test]
fn components_of_models_match() {
    for (name, table, expected) in matrices() {
        let expected = &expected["pca_models_as_samples"];
        let rows = transposed(&points(&table));
        let found = Components::of(&rows).unwrap();
        let variances = floats(&expected["explained_variance"]);
        assert_eq!(found.variances.len(), variances.len(), "{name}");
        let freedom = (rows.len() - 1) as f64;
        for (i, variance) in variances.iter().enumerate() {
            close(
                found.variances[i],
                *variance,
                1e-3,
                &format!("{name} variance {i}"),
            );
            let share = expected["explained_variance_ratio"][i].as_f64().unwrap();
            close(found.shares[i], share, 1e-3, &format!("{name} share {i}"));
            let singular = expected["singular_values"][i].as_f64().unwrap();
            let length = (found.variances[i] * freedom).sqrt();
            close(
                length,
                singular,
                1e-3,
                &format!("{name} singular value {i}"),
            );
        }
        let axes = expected["components_up_to_sign"].as_array().unwrap();
        assert!(!axes.is_empty());
        for (axis, found) in axes.iter().zip(&found.axes) {
            same_up_to_sign(found, &floats(axis), &name);
        }
    }
}

#[test]
fn components_of_benchmarks_match() {
    for (name, table, expected) in matrices() {
        let expected = &expected["pca_benchmarks_as_points"];
        let found = Components::of(&points(&table)).unwrap();
        for (kind, found) in [
            ("explained_variance", &found.variances),
            ("explained_variance_ratio", &found.shares),
        ] {
            for (found, expected) in found.iter().zip(floats(&expected[kind])) {
                close(*found, expected, 1e-3, &format!("{name} {kind}"));
            }
        }
        let rows = expected["coordinates_up_to_sign_per_axis"]
            .as_array()
            .unwrap();
        let expected = transposed(&rows.iter().map(floats).collect::<Vec<_>>());
        let found = transposed(&found.coordinates);
        for (found, expected) in found.iter().zip(&expected) {
            same_up_to_sign(found, expected, &name);
        }
    }
}

#[track_caller]
fn same_up_to_sign(found: &[f64], expected: &[f64], name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let product: f64 = found.iter().zip(expected).map(|(a, b)| a * b).sum();
    let sign = if product < 0.0 { -1.0 } else { 1.0 };
    for (found, expected) in found.iter().zip(expected) {
        close(sign * found, *expected, 1.0, name);
    }
}

#[test]
fn k_means_matches() {
    let mut same = 0;
    for (name, table, expected) in matrices() {
        let all = points(&table);
        let two: Vec<Vec<f64>> = Components::of(&all)
            .unwrap()
            .coordinates
            .into_iter()
            .map(|point| point[..2].to_vec())
            .collect();
        for (kind, points) in [
            ("kmeans_benchmarks_standardised", &all),
            ("kmeans_first_two_components", &two),
        ] {
            let expected = &expected[kind];
            let k = expected["k"].as_u64().unwrap() as usize;
            let found = k_means(points, k, 42).unwrap();
            let inertia = expected["inertia"].as_f64().unwrap();
            let reference = labels(&expected["labels_canonical"]);
            close(
                inertia_of(points, &reference),
                inertia,
                1e-3,
                &format!("{name} {kind}"),
            );
            if let Some(expected) = expected["silhouette"].as_f64() {
                let found = silhouette(points, &reference).unwrap();
                close(found, expected, 1e-3, &format!("{name} {kind} silhouette"));
            }
            if found.inertia < inertia * (1.0 - 1e-8) {
                // The reference took the best of 45 restarts, which need not be the best there is. Ours is
                // as good as it says it is.
                let own = inertia_of(points, &found.labels);
                close(own, found.inertia, 1e-8, &format!("{name} {kind} better"));
                continue;
            }
            close(found.inertia, inertia, 1e-3, &format!("{name} {kind}"));
            assert_eq!(found.labels, reference, "{name} {kind}");
            same += 1;
        }
    }
    assert!(same > 0);
}

/// Sum of squared distances from the means of the clusters, straight from its definition.
fn inertia_of(points: &[Vec<f64>], labels: &[usize]) -> f64 {
    let clusters = labels.iter().max().unwrap() + 1;
    let of_cluster = |cluster: usize| {
        let mine: Vec<&Vec<f64>> = (0..points.len())
            .filter(|&i| labels[i] == cluster)
            .map(|i| &points[i])
            .collect();
        let dimensions = 0..points[0].len();
        dimensions
            .map(|d| {
                let values: Vec<f64> = mine.iter().map(|point| point[d]).collect();
                let centre = mean(&values);
                values
                    .iter()
                    .map(|v| (v - centre) * (v - centre))
                    .sum::<f64>()
            })
            .sum::<f64>()
    };
    (0..clusters).map(of_cluster).sum()
}

#[test]
fn average_linkage_matches() {
    for (name, table, expected) in matrices() {
        let expected = &expected["average_linkage_one_minus_r"];
        let columns = columns(&table);
        let distances: Vec<Vec<f64>> = columns
            .iter()
            .map(|a| {
                columns
                    .iter()
                    .map(|b| 1.0 - pearson(a, b).unwrap())
                    .collect()
            })
            .collect();
        let tree = Tree::average_linkage(&distances).unwrap();
        let heights = floats(&expected["merge_heights"]);
        assert_eq!(tree.joins.len(), heights.len(), "{name}");
        for (join, height) in tree.joins.iter().zip(heights) {
            close(join.height, height, 1e-3, &name);
        }
        let k = expected["k"].as_u64().unwrap() as usize;
        assert_eq!(tree.cut(k), labels(&expected["labels_canonical"]), "{name}");
    }
}

fn cases(file: &str) -> Vec<Value> {
    let cases = json(&golden("scorers").join(file))["cases"]
        .as_array()
        .unwrap()
        .clone();
    assert!(!cases.is_empty(), "no case in {file}");
    cases
}

#[test]
fn error_bars_match() {
    for case in cases("stats_error_bars.json") {
        let (given, expected) = (&case["prediction"], &case["expected"]);
        let id = case["id"].as_str().unwrap();
        let near = |found: f64, expected: &Value, what: &str| {
            close(
                found,
                expected.as_f64().unwrap(),
                1e-3,
                &format!("{id} {what}"),
            );
        };
        let (a, b) = (floats(&given["model_a"]), floats(&given["model_b"]));
        near(mean(&a), &expected["mean_a"], "mean");
        near(
            standard_error(&a).unwrap(),
            &expected["stderr_a"],
            "standard error",
        );
        let clustered = clustered_standard_error(&a, &labels(&given["clusters"])).unwrap();
        near(
            clustered,
            &expected["clustered_stderr_a"],
            "clustered standard error",
        );
        let (found, wanted) = (paired_t(&a, &b).unwrap(), &expected["paired_t"]);
        near(found.mean, &wanted["mean_diff"], "mean difference");
        near(
            found.standard_error,
            &wanted["se_diff"],
            "its standard error",
        );
        near(found.interval.low, &wanted["ci_lower"], "lower end");
        near(found.interval.high, &wanted["ci_upper"], "upper end");
        near(found.t, &wanted["t_stat"], "t");
        near(found.p, &wanted["p_value"], "p");
        assert_eq!(found.n as u64, wanted["n"].as_u64().unwrap(), "{id}");
        let found = mcnemar(&a, &b).unwrap();
        // The reference counts in b01 the questions that only the first model has right.
        assert_eq!(
            found.only_first,
            expected["mcnemar_b01"].as_u64().unwrap(),
            "{id}"
        );
        assert_eq!(
            found.only_second,
            expected["mcnemar_b10"].as_u64().unwrap(),
            "{id}"
        );
        near(found.p, &expected["mcnemar_exact_p"], "McNemar");
        let interval = wilson(mean(&a), a.len());
        near(interval.low, &expected["wilson95"][0], "Wilson, low");
        near(interval.high, &expected["wilson95"][1], "Wilson, high");
    }
}

#[test]
fn power_matches() {
    for case in cases("stats_power_analysis.json") {
        let (given, expected) = (&case["prediction"], &case["expected"]);
        let id = case["id"].as_str().unwrap();
        let number = |name: &str| expected[name].as_f64().unwrap();
        // Deviations that are not given are those of the first model, or of even odds.
        let first = given["std_a"].as_f64().unwrap_or(0.5);
        let second = given["std_b"].as_f64().unwrap_or(first);
        assert_eq!((first, second), (number("std_a"), number("std_b")), "{id}");
        let plan = Plan {
            effect: number("effect_size"),
            first_deviation: first,
            second_deviation: second,
            correlation: number("correlation"),
            alpha: number("alpha"),
            power: number("power"),
        };
        assert_eq!(plan.questions(), expected["min_n"].as_u64(), "{id}");
        if let Some(n) = expected["current_n"].as_u64() {
            let four_digits = |value: f64| (value * 1e4).round() / 1e4;
            assert_eq!(
                four_digits(plan.power_with(n)),
                number("current_power"),
                "{id}"
            );
            assert_eq!(
                four_digits(plan.detectable_with(n)),
                number("min_detectable_effect"),
                "{id}"
            );
        }
    }
}

/// Resampling gives what the formula gives, where both apply.
#[test]
fn resampling_agrees_with_the_formula() {
    let values: Vec<f64> = (0..400).map(|i| f64::from(i % 5 / 4)).collect();
    let half = 1.96 * standard_error(&values).unwrap();
    let found = statistics::bootstrap_interval(&values, 4_000, 1, "test").unwrap();
    assert!((found.low - (0.2 - half)).abs() < 0.004, "{found:?}");
    assert!((found.high - (0.2 + half)).abs() < 0.004, "{found:?}");
}
