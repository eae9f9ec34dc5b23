//! The traditional protocol: frozen features, and a classifier so plain that what it finds was there.
//!
//! Cambrian-1 judges encoders by what a language model can do with them, and sets that beside the
//! protocol that vision research uses, linear probing of ImageNet (arXiv 2406.16860, section 3.4 and
//! table 7). Here is the latter: a linear layer ([`logistic`]) and the nearest neighbours
//! ([`neighbours`]) on one vector for each picture ([`ProbeEncoder`]), over folders of classes, COCO's
//! instances, or the small world ([`ProbeData`]).
//!
//! ```text
//! pictures, labels ─ ProbeData ─┐
//! encoder ──────── ProbeEncoder ┴─ look ─▶ FeatureTable ─ probe ─▶ ProbeScores ─▶ ProbeReport
//! ProbeReport + tables and runs of models ─ Beside::of ─▶ do both protocols rank alike?
//! ```
//!
//! Hyper-parameters are chosen on a part of the training pictures that is held out by the seed, each
//! class alike; then the classifier is fitted to all of them and the test is looked at once. Everything
//! is a function of files, weights, options and seed.

mod beside;
mod coco;
mod data;
mod error;
mod features;
pub mod logistic;
pub mod matrix;
pub mod metrics;
pub mod minimise;
pub mod neighbours;
mod options;
mod probing;
mod report;

use serde::Serialize;

pub use beside::{Agreement, Beside, BesideRow};
pub use coco::CocoPart;
pub use data::{Label, ProbeData, ProbeFault, ProbePicture, Split, SplitRule, Targets, Task};
pub use error::ProbeError;
pub use features::{FeatureTable, LookOptions, Pooling, ProbeEncoder};
pub use options::{Method, ProbeOptions, Setting};
pub use report::{ProbeReport, ProbeRow};

use self::probing::{Part, Probing};
use crate::interval::Interval;

/// A number with a name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measure {
    /// Such as `top-5`, or the name of a group of labels.
    pub name: String,
    /// In percent.
    pub percent: f64,
    /// How many pictures, or labels, it is about.
    pub of: usize,
}

/// What a method found in the features of one encoder.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeScore {
    /// By what.
    pub method: Method,
    /// `accuracy` or `mAP`.
    pub metric: &'static str,
    /// The score in percent.
    pub percent: f64,
    /// Its 95 % interval in percent: Wilson's of an accuracy, resampled pictures of a mAP.
    pub interval: Interval,
    /// What was chosen.
    pub setting: Setting,
    /// What there was to choose from, and what each got on the pictures held out, in percent.
    pub tried: Vec<(Setting, f64)>,
    /// Whether the optimum of the last fit was reached; neighbours are not fitted.
    pub converged: bool,
    /// More numbers.
    pub more: Vec<Measure>,
    /// Each class's accuracy, or each label's average precision, on `of` test pictures that have it.
    pub by_label: Vec<Measure>,
}

/// The scores of one encoder, and what they were measured on.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeScores {
    /// One for each method.
    pub scores: Vec<ProbeScore>,
    /// Pictures that were trained on.
    pub train: usize,
    /// Pictures that were tested.
    pub test: usize,
    /// What is reached without looking, in percent: by the most common class, or by any order of the
    /// pictures (the mean share of pictures that have a label).
    pub without_looking: f64,
    /// Labels that are not scored, because in one of the splits all pictures have them or none.
    pub left_out: Vec<String>,
}

/// Probes the features of an encoder.
///
/// # Errors
/// If an option is out of range, or too few pictures could be used.
pub fn probe(
    data: &ProbeData,
    table: &FeatureTable,
    options: &ProbeOptions,
) -> Result<ProbeScores, ProbeError> {
    options.check()?;
    let rows_of = |split: Split| -> Vec<usize> {
        let mut rows: Vec<usize> = (0..table.pictures.len()).collect();
        rows.retain(|row| {
            let picture = table
                .pictures
                .get(*row)
                .and_then(|at| data.pictures.get(*at));
            picture.is_some_and(|picture| picture.split == split)
        });
        rows
    };
    let part = |rows: &[usize]| {
        let pictures: Vec<usize> = rows
            .iter()
            .filter_map(|row| table.pictures.get(*row).copied())
            .collect();
        Part {
            features: table.rows.select(rows),
            targets: data.targets(&pictures),
        }
    };
    let (train, test) = (part(&rows_of(Split::Train)), part(&rows_of(Split::Test)));
    if train.targets.rows() < 2 || test.targets.rows() == 0 {
        return Err(ProbeError::Data {
            path: data.name.clone().into(),
            problem: format!(
                "{} pictures to train on and {} to test on can be used; at least 2 and 1 are needed",
                train.targets.rows(),
                test.targets.rows()
            ),
        });
    }
    let scored = scored_labels(&train.targets, &test.targets);
    if scored.is_empty() {
        return Err(ProbeError::Data {
            path: data.name.clone().into(),
            problem: "no label is in some pictures and not in others, in both splits".into(),
        });
    }
    let probing = Probing {
        data,
        options,
        scored,
        train,
        test,
    };
    let scores = options.methods.iter().map(|method| probing.score(*method));
    Ok(ProbeScores {
        scores: scores.collect(),
        train: probing.train.targets.rows(),
        test: probing.test.targets.rows(),
        without_looking: probing.without_looking(),
        left_out: probing.left_out(),
    })
}

/// Labels that some pictures have and others have not, in both splits; all classes.
fn scored_labels(train: &Targets, test: &Targets) -> Vec<usize> {
    let mixed = |targets: &Targets, label: usize| {
        let having = (0..targets.rows()).filter(|row| targets.of(*row).contains(&label));
        let having = having.count();
        having > 0 && having < targets.rows()
    };
    let all = 0..train.outputs();
    match train {
        Targets::Classes { .. } => all.collect(),
        Targets::Labels { .. } => all
            .filter(|label| mixed(train, *label) && mixed(test, *label))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::matrix::Matrix;
    use super::*;

    /// Pictures of which one feature tells the class and another is noise.
    fn toy(task: Task) -> (ProbeData, FeatureTable) {
        let mut rows = Matrix::new(2);
        let mut pictures = Vec::new();
        for i in 0..40usize {
            let class = i % 2;
            let side = if class == 0 { -1.0 } else { 1.0 };
            rows.push(&[side * (1.0 + (i % 5) as f32), (i % 7) as f32 - 3.0]);
            pictures.push(ProbePicture {
                path: format!("{i}.png").into(),
                labels: match (task, class) {
                    (Task::Classes, class) => vec![class],
                    (Task::Labels, 0) => vec![1],
                    (Task::Labels, _) => vec![0, 1],
                },
                split: if i < 30 { Split::Train } else { Split::Test },
            });
        }
        let label = |name: &str| Label {
            group: "class".into(),
            name: name.into(),
        };
        let data = ProbeData {
            name: "toy".into(),
            task,
            labels: vec![label("a"), label("b")],
            pictures,
            faults: Vec::new(),
            other_files: 0,
        };
        let table = FeatureTable {
            rows,
            pictures: (0..40).collect(),
            faults: Vec::new(),
            known: 0,
            leaked: 0,
        };
        (data, table)
    }

    #[test]
    fn what_is_in_the_features_is_found() {
        for task in [Task::Classes, Task::Labels] {
            let (data, table) = toy(task);
            let found = probe(&data, &table, &ProbeOptions::default()).unwrap();
            assert_eq!((found.train, found.test, found.scores.len()), (30, 10, 2));
            assert_eq!(found.without_looking, 50.0);
            for score in &found.scores {
                assert_eq!(score.percent, 100.0, "{score:?}");
                assert!(score.interval.high >= 100.0 - 1e-9 && score.converged);
            }
            // Every picture has label b, so it says nothing.
            let left_out = usize::from(task == Task::Labels);
            assert_eq!(found.left_out.len(), left_out);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_report() {
        let (data, table) = toy(Task::Labels);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let found = pool.install(|| probe(&data, &table, &ProbeOptions::default()));
            serde_json::to_string(&found.unwrap()).unwrap()
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn options_that_mean_nothing_are_refused() {
        let (data, table) = toy(Task::Classes);
        let change = |change: fn(&mut ProbeOptions)| {
            let mut options = ProbeOptions::default();
            change(&mut options);
            probe(&data, &table, &options).unwrap_err().to_string()
        };
        assert!(change(|o| o.l2 = vec![-1.0]).contains("`l2` is -1"));
        assert!(change(|o| o.temperatures = vec![f64::NAN]).contains("`temperature` is NaN"));
        assert!(change(|o| o.neighbours = vec![0]).contains("`neighbours`"));
        assert!(change(|o| o.held_out = 1.0).contains("`held-out` is 1"));
        assert!(change(|o| o.methods.clear()).contains("`methods`"));
    }
}
