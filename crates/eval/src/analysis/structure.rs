//! Which benchmarks measure the same thing: components and clusters beside the published groups.

use serde::Serialize;

use super::agreement::Agreement;
use super::catalog::PUBLISHED_GROUPS;
use super::clusters::{KMeans, Tree, k_means, silhouette};
use super::components::{Components, standardised};
use super::correlation::pearson;
use super::statistics::mean;
use super::table::ScoreTable;

/// The structure of the benchmarks of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Structure {
    /// The benchmarks; all lists below are in this order.
    pub benchmarks: Vec<String>,
    /// Their groups as the table has them.
    pub groups: Vec<Option<String>>,
    /// Their numbers of questions.
    pub questions: Vec<Option<u64>>,
    /// Models that it was computed from.
    pub models: usize,
    /// What was left out, and why.
    pub left_out: Vec<String>,
    /// Share of all variance over models along each component of the models.
    pub model_shares: Vec<f64>,
    /// Components with benchmarks as points.
    pub components: Components,
    /// How many clusters were asked for.
    pub clusters: usize,
    /// k-means on the standardised benchmarks.
    pub k_means: KMeans,
    /// Average linkage on 1 − r.
    pub tree: Tree,
    /// The tree cut into as many clusters.
    pub linkage: Vec<usize>,
    /// What the clusters have to do with the groups.
    pub comparison: Option<Comparison>,
}

/// Computed clusters beside the groups of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The names of the groups, in the order of their labels.
    pub group_names: Vec<String>,
    /// The group of each benchmark.
    pub labels: Vec<usize>,
    /// Whether these are the four groups that Cambrian-1 published.
    pub published: bool,
    /// Agreement of k-means with them.
    pub k_means: Agreement,
    /// Agreement of the linkage with them.
    pub linkage: Agreement,
    /// How well the groups separate the standardised benchmarks.
    pub groups_silhouette: Option<f64>,
    /// How well k-means does.
    pub k_means_silhouette: Option<f64>,
    /// Mean correlation of two benchmarks of one group.
    pub within: Option<f64>,
    /// Mean correlation of two benchmarks of different groups.
    pub between: Option<f64>,
}

/// The structure of the part of a table without holes; `None` of fewer than three models or three
/// benchmarks that vary, or of fewer benchmarks than clusters.
#[must_use]
pub fn structure(table: &ScoreTable, clusters: usize, seed: u64) -> Option<Structure> {
    let selection = table.selection();
    let mut left_out = selection.left_out.clone();
    let (mut chosen, mut points, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for (&benchmark, column) in selection
        .benchmarks
        .iter()
        .zip(table.complete_columns(&selection))
    {
        match standardised(&column) {
            Some(point) => {
                chosen.push(&table.benchmarks[benchmark]);
                points.push(point);
                raw.push(column);
            }
            None => {
                let name = &table.benchmarks[benchmark].name;
                left_out.push(format!("benchmark {name}: all models have the same score"));
            }
        }
    }
    if selection.models.len() < 3 || points.len() < 3 || points.len() < clusters {
        return None;
    }
    let tree = Tree::average_linkage(&distances(&raw))?;
    let k_means = k_means(&points, clusters, seed)?;
    let groups: Vec<Option<String>> = chosen.iter().map(|b| b.group.clone()).collect();
    let linkage = tree.cut(clusters);
    Some(Structure {
        benchmarks: chosen.iter().map(|b| b.name.clone()).collect(),
        questions: chosen.iter().map(|b| b.questions).collect(),
        models: selection.models.len(),
        left_out,
        model_shares: Components::of(&transposed(&points))?.shares,
        components: Components::of(&points)?,
        clusters,
        comparison: comparison(&groups, &points, &raw, &k_means, &linkage, seed),
        groups,
        k_means,
        tree,
        linkage,
    })
}

/// `[benchmark][benchmark]`: 1 − r.
fn distances(columns: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let distance = |a: &[f64], b: &[f64]| 1.0 - pearson(a, b).unwrap_or(0.0);
    let row = |a: &Vec<f64>| columns.iter().map(|b| distance(a, b)).collect();
    columns.iter().map(row).collect()
}

/// `None` if a benchmark has no group, or if there is only one group.
fn comparison(
    groups: &[Option<String>],
    points: &[Vec<f64>],
    columns: &[Vec<f64>],
    k_means: &KMeans,
    linkage: &[usize],
    seed: u64,
) -> Option<Comparison> {
    let mut group_names: Vec<String> = Vec::new();
    let mut labels = Vec::new();
    for group in groups {
        let group = group.as_ref()?;
        let known = group_names.iter().position(|name| name == group);
        labels.push(known.unwrap_or_else(|| {
            group_names.push(group.clone());
            group_names.len() - 1
        }));
    }
    if group_names.len() < 2 {
        return None;
    }
    let (mut within, mut between) = (Vec::new(), Vec::new());
    for i in 0..columns.len() {
        for j in 0..i {
            let side = if labels[i] == labels[j] {
                &mut within
            } else {
                &mut between
            };
            side.extend(pearson(&columns[i], &columns[j]));
        }
    }
    let mean_of = |values: Vec<f64>| (!values.is_empty()).then(|| mean(&values));
    Some(Comparison {
        published: group_names
            .iter()
            .all(|name| PUBLISHED_GROUPS.contains(&name.as_str())),
        k_means: Agreement::of(&labels, &k_means.labels, seed)?,
        linkage: Agreement::of(&labels, linkage, seed)?,
        groups_silhouette: silhouette(points, &labels),
        k_means_silhouette: silhouette(points, &k_means.labels),
        within: mean_of(within),
        between: mean_of(between),
        group_names,
        labels,
    })
}

fn transposed(points: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let width = points.first().map_or(0, Vec::len);
    (0..width)
        .map(|i| points.iter().map(|point| point[i]).collect())
        .collect()
}
