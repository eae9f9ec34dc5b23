//! The probe against scikit-learn: the optimum of both regressions, average precision, neighbours.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use opabinia_eval::probe::logistic::Logistic;
use opabinia_eval::probe::matrix::{Matrix, Scaling};
use opabinia_eval::probe::metrics::Ranking;
use opabinia_eval::probe::minimise::Limits;
use opabinia_eval::probe::neighbours::{Neighbours, vote};
use opabinia_eval::probe::{ProbeOptions, Targets};
use serde::Deserialize;

const TOLERANCE: f64 = 1e-5;
const LIMITS: Limits = Limits {
    tolerance: 1e-9,
    iterations: 2000,
};

#[derive(Deserialize)]
struct Golden {
    features: Vec<Vec<f32>>,
    classes: Vec<usize>,
    labels: Vec<Vec<usize>>,
    train: usize,
    scaled_test: Vec<Vec<f64>>,
    multinomial: Vec<Multinomial>,
    labels_fit: Vec<LabelsFit>,
    neighbours: Nearest,
}

#[derive(Deserialize)]
struct Multinomial {
    l2: f64,
    coef: Vec<Vec<f64>>,
    intercept: Vec<f64>,
    prob: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct LabelsFit {
    l2: f64,
    labels: Vec<LabelFit>,
}

#[derive(Deserialize)]
struct LabelFit {
    coef: Vec<f64>,
    intercept: f64,
    score: Vec<f64>,
    average_precision: f64,
}

#[derive(Deserialize)]
struct Nearest {
    k: usize,
    temperature: f64,
    rows: Vec<Vec<usize>>,
    cosines: Vec<Vec<f64>>,
    votes: Vec<Vec<f64>>,
}

fn golden() -> Golden {
    let root = match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    };
    let path = root.join("probe/sklearn.json");
    let path = match path.is_file() {
        true => path,
        // Another folder of golden cases need not have this one.
        false => {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/probe/sklearn.json")
        }
    };
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Train and test.
fn halves(golden: &Golden) -> [Matrix; 2] {
    let (train, test) = golden.features.split_at(golden.train);
    [train, test].map(|rows| {
        let mut matrix = Matrix::new(rows[0].len());
        rows.iter().for_each(|row| matrix.push(row));
        matrix
    })
}

#[track_caller]
fn close(found: f64, wanted: f64, tolerance: f64) {
    assert!((found - wanted).abs() <= tolerance, "{found}, not {wanted}");
}

#[track_caller]
fn all_close(found: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        close(*found, *wanted, tolerance);
    }
}

#[test]
fn classes_have_the_same_optimum() {
    let golden = golden();
    let [train, test] = halves(&golden);
    let scaling = Scaling::of(&train);
    let (train, test) = (scaling.apply(&train), scaling.apply(&test));
    for (row, wanted) in golden.scaled_test.iter().enumerate() {
        let found: Vec<f64> = test.row(row).iter().map(|x| f64::from(*x)).collect();
        all_close(&found, wanted, 1e-6);
    }
    let targets = Targets::Classes {
        of: golden.classes[..golden.train].to_vec(),
        count: 3,
    };
    assert_eq!(golden.multinomial.len(), 2);
    for case in &golden.multinomial {
        let fitted = Logistic::fit(&train, &targets, case.l2, None, LIMITS);
        assert!(fitted.converged);
        let intercepts: Vec<f64> = (0..3).map(|k| fitted.weights(k).unwrap().1).collect();
        let mean = intercepts.iter().sum::<f64>() / 3.0;
        for class in 0..3 {
            all_close(
                fitted.weights(class).unwrap().0,
                &case.coef[class],
                TOLERANCE,
            );
            close(intercepts[class] - mean, case.intercept[class], TOLERANCE);
        }
        for (z, wanted) in fitted.scores(&test).iter().zip(&case.prob) {
            let total: f64 = z.iter().map(|z| z.exp()).sum();
            let found: Vec<f64> = z.iter().map(|z| z.exp() / total).collect();
            all_close(&found, wanted, TOLERANCE);
        }
    }
}

/// A probe stops earlier than the proof above does. With its own tolerance the coefficients are those of
/// scikit-learn to three digits, and every test picture gets the same class.
#[test]
fn the_probes_own_tolerance_gives_the_same_classes() {
    let golden = golden();
    let [train, test] = halves(&golden);
    let scaling = Scaling::of(&train);
    let (train, test) = (scaling.apply(&train), scaling.apply(&test));
    let targets = Targets::Classes {
        of: golden.classes[..golden.train].to_vec(),
        count: 3,
    };
    let options = ProbeOptions::default();
    let limits = Limits {
        tolerance: options.tolerance,
        iterations: options.iterations,
    };
    let best = |values: &[f64]| {
        let order = (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b]));
        order.unwrap()
    };
    for case in &golden.multinomial {
        let fitted = Logistic::fit(&train, &targets, case.l2, None, limits);
        assert!(fitted.converged);
        for class in 0..3 {
            all_close(fitted.weights(class).unwrap().0, &case.coef[class], 2e-3);
        }
        for (found, wanted) in fitted.scores(&test).iter().zip(&case.prob) {
            assert_eq!(best(found), best(wanted));
        }
    }
}

#[test]
fn labels_have_the_same_optimum_and_precision() {
    let golden = golden();
    let [train, test] = halves(&golden);
    let scaling = Scaling::of(&train);
    let (train, test) = (scaling.apply(&train), scaling.apply(&test));
    let (known, asked) = golden.labels.split_at(golden.train);
    let targets = Targets::Labels {
        of: known.to_vec(),
        count: 2,
    };
    assert_eq!(golden.labels_fit.len(), 2);
    for case in &golden.labels_fit {
        let fitted = Logistic::fit(&train, &targets, case.l2, None, LIMITS);
        let scores = fitted.scores(&test);
        for (label, wanted) in case.labels.iter().enumerate() {
            let (weights, intercept) = fitted.weights(label).unwrap();
            all_close(weights, &wanted.coef, TOLERANCE);
            close(intercept, wanted.intercept, TOLERANCE);
            let mine: Vec<f64> = scores.iter().map(|scores| scores[label]).collect();
            all_close(&mine, &wanted.score, TOLERANCE);
            let has: Vec<bool> = asked.iter().map(|labels| labels.contains(&label)).collect();
            let found = Ranking::of(&mine, &has).average_precision(|_| 1.0).unwrap();
            close(found, wanted.average_precision, 1e-12);
        }
    }
}

#[test]
fn the_same_neighbours_are_nearest() {
    let golden = golden();
    let [train, test] = halves(&golden);
    let wanted = &golden.neighbours;
    let targets = Targets::Classes {
        of: golden.classes[..golden.train].to_vec(),
        count: 3,
    };
    let found = Neighbours::of(&train).nearest(&test, wanted.k);
    for (row, nearest) in found.iter().enumerate() {
        let rows: Vec<usize> = nearest.iter().map(|(_, row)| *row).collect();
        let cosines: Vec<f64> = nearest.iter().map(|(cosine, _)| *cosine).collect();
        assert_eq!(rows, wanted.rows[row]);
        all_close(&cosines, &wanted.cosines[row], 1e-6);
        let votes = vote(nearest, wanted.k, wanted.temperature, &targets);
        all_close(&votes, &wanted.votes[row], 1e-5);
    }
}
