//! Groups of benchmarks that the scores themselves suggest.
//!
//! Cambrian-1 read its four groups off a picture of two components and named them by hand; no
//! algorithm is documented. Two standard ones stand here as an aid: k-means on the standardised
//! benchmarks, and average linkage on the distance 1 − r. Neither returns the published groups, which
//! is a finding and not a fault; `agreement` says how near they come.
//!
//! Labels are canonical: numbered from 0 in the order in which they first appear.

use opabinia_data::stream::{below, stream};
use serde::Serialize;

/// Restarts of k-means. With tens of points each takes microseconds, and the best of so many is the
/// best there is for all that anybody can tell.
const RESTARTS: u64 = 400;

/// Points in groups around their means.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KMeans {
    /// The cluster of each point.
    pub labels: Vec<usize>,
    /// Sum of squared distances from the means.
    pub inertia: f64,
}

/// The best of many runs of k-means (Lloyd, with the starts of k-means++). `None` if there are fewer
/// points than clusters, no cluster, or points of different dimensions.
#[must_use]
pub fn k_means(points: &[Vec<f64>], clusters: usize, seed: u64) -> Option<KMeans> {
    let dimensions = points.first()?.len();
    let uneven = points.iter().any(|point| point.len() != dimensions);
    if clusters == 0 || points.len() < clusters || uneven {
        return None;
    }
    let best = (0..RESTARTS)
        .map(|restart| {
            let means = starts(points, clusters, seed, restart);
            settle(points, means)
        })
        .min_by(|a, b| a.inertia.total_cmp(&b.inertia))?;
    Some(KMeans {
        labels: canonical(&best.labels),
        inertia: best.inertia,
    })
}

/// Starts far from each other: each next one is drawn with a probability that grows with the squared
/// distance from those that are there (Arthur and Vassilvitskii, 2007).
fn starts(points: &[Vec<f64>], clusters: usize, seed: u64, restart: u64) -> Vec<Vec<f64>> {
    const UNIT: u64 = 1 << 53;
    let mut random = stream(seed, "analysis k-means", restart);
    let first = below(&mut random, points.len() as u64) as usize;
    let mut means = vec![points[first].clone()];
    while means.len() < clusters {
        let weights: Vec<f64> = points.iter().map(|p| nearest(p, &means).1).collect();
        let total: f64 = weights.iter().sum();
        let mut left = below(&mut random, UNIT) as f64 / UNIT as f64 * total;
        let chosen = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        // All points are means already: it does not matter which is taken twice.
        means.push(points[chosen.unwrap_or(0)].clone());
    }
    means
}

/// Moves means to the middle of their points until nothing changes.
fn settle(points: &[Vec<f64>], mut means: Vec<Vec<f64>>) -> KMeans {
    let mut labels = vec![usize::MAX; points.len()];
    loop {
        let next: Vec<usize> = points.iter().map(|p| nearest(p, &means).0).collect();
        if next == labels {
            break;
        }
        labels = next;
        for (cluster, middle) in means.iter_mut().enumerate() {
            let mine = || points.iter().zip(&labels).filter(|(_, l)| **l == cluster);
            let n = mine().count();
            // A mean without points stays where it is; another restart will do better.
            if n > 0 {
                for (dimension, value) in middle.iter_mut().enumerate() {
                    *value = mine().map(|(point, _)| point[dimension]).sum::<f64>() / n as f64;
                }
            }
        }
    }
    let inertia = points.iter().map(|p| nearest(p, &means).1).sum();
    KMeans { labels, inertia }
}

/// Which mean is nearest, and its squared distance.
fn nearest(point: &[f64], means: &[Vec<f64>]) -> (usize, f64) {
    let mut best = (0, f64::INFINITY);
    for (i, mean) in means.iter().enumerate() {
        let distance = squared_distance(point, mean);
        if distance < best.1 {
            best = (i, distance);
        }
    }
    best
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// Points joined two by two, the nearest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tree {
    /// How many points there are.
    pub leaves: usize,
    /// The joins in their order. The result of join `i` is node `leaves + i`.
    pub joins: Vec<Join>,
}

/// Two nodes that become one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Join {
    /// The node with the earlier first point.
    pub first: usize,
    /// The other one.
    pub second: usize,
    /// Mean distance between the points of both.
    pub height: f64,
}

impl Tree {
    /// Average linkage (UPGMA) of points whose `[point][point]` distances are known; `None` if the
    /// matrix is not square or empty.
    #[must_use]
    pub fn average_linkage(distances: &[Vec<f64>]) -> Option<Self> {
        let leaves = distances.len();
        if leaves == 0 || distances.iter().any(|row| row.len() != leaves) {
            return None;
        }
        // Each group that is left: its node and its points, in the order of their first points.
        let mut groups: Vec<(usize, Vec<usize>)> = (0..leaves).map(|i| (i, vec![i])).collect();
        let mut joins = Vec::new();
        while groups.len() > 1 {
            let (i, j, height) = nearest_groups(&groups, distances);
            let (second, points) = groups.remove(j);
            let first = groups[i].0;
            groups[i].0 = leaves + joins.len();
            groups[i].1.extend(points);
            joins.push(Join {
                first,
                second,
                height,
            });
        }
        Some(Self { leaves, joins })
    }

    /// The cluster of each point when the tree is cut so that `clusters` remain (at least one, at
    /// most one for each point).
    #[must_use]
    pub fn cut(&self, clusters: usize) -> Vec<usize> {
        let clusters = clusters.clamp(1, self.leaves);
        let mut labels: Vec<usize> = (0..self.leaves).collect();
        for (i, join) in self.joins[..self.leaves - clusters].iter().enumerate() {
            for label in &mut labels {
                if *label == join.first || *label == join.second {
                    *label = self.leaves + i;
                }
            }
        }
        canonical(&labels)
    }

    /// The points in an order in which no branches cross.
    #[must_use]
    pub fn order(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.leaves);
        let mut to_visit = vec![self.leaves + self.joins.len() - 1];
        while let Some(node) = to_visit.pop() {
            match node.checked_sub(self.leaves) {
                None => order.push(node),
                Some(join) => to_visit.extend([self.joins[join].second, self.joins[join].first]),
            }
        }
        order
    }
}

/// The two groups with the smallest mean distance, the first ones if several have it.
fn nearest_groups(groups: &[(usize, Vec<usize>)], distances: &[Vec<f64>]) -> (usize, usize, f64) {
    let mut best = (0, 1, f64::INFINITY);
    for j in 1..groups.len() {
        for i in 0..j {
            let (a, b) = (&groups[i].1, &groups[j].1);
            let sum: f64 = a
                .iter()
                .map(|&p| b.iter().map(|&q| distances[p][q]).sum::<f64>())
                .sum();
            let mean = sum / (a.len() * b.len()) as f64;
            if mean < best.2 {
                best = (i, j, mean);
            }
        }
    }
    best
}

/// Labels renumbered from 0 in the order in which they first appear.
#[must_use]
pub fn canonical<L: PartialEq>(labels: &[L]) -> Vec<usize> {
    let mut known: Vec<&L> = Vec::new();
    labels
        .iter()
        .map(|label| {
            known.iter().position(|k| *k == label).unwrap_or_else(|| {
                known.push(label);
                known.len() - 1
            })
        })
        .collect()
}

/// The mean silhouette: how much nearer points are to their own cluster than to the next one, from
/// −1 to 1 (Rousseeuw, 1987). `None` unless there are at least two clusters and fewer than points.
#[must_use]
pub fn silhouette(points: &[Vec<f64>], labels: &[usize]) -> Option<f64> {
    let clusters = labels.iter().max()? + 1;
    if points.len() != labels.len() || clusters < 2 || clusters >= points.len() {
        return None;
    }
    let of_point = |i: usize| {
        let mean_distance = |cluster: usize| {
            let others = (0..points.len()).filter(|&j| j != i && labels[j] == cluster);
            let distances = others.map(|j| squared_distance(&points[i], &points[j]).sqrt());
            let (sum, n) = distances.fold((0.0, 0), |(sum, n), d| (sum + d, n + 1));
            (n > 0).then(|| sum / f64::from(n))
        };
        let others = (0..clusters).filter(|&cluster| cluster != labels[i]);
        let next = others.filter_map(mean_distance).min_by(f64::total_cmp);
        match (mean_distance(labels[i]), next) {
            (Some(own), Some(next)) if own.max(next) > 0.0 => (next - own) / own.max(next),
            // A point alone in its cluster says nothing, by convention.
            _ => 0.0,
        }
    };
    Some((0..points.len()).map(of_point).sum::<f64>() / points.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_line(values: &[f64]) -> Vec<Vec<f64>> {
        values.iter().map(|&v| vec![v]).collect()
    }

    #[test]
    fn two_heaps_on_a_line() {
        let points = on_a_line(&[10.0, 0.0, 11.0, 1.0, 12.0]);
        let found = k_means(&points, 2, 1).unwrap();
        assert_eq!(found.labels, [0, 1, 0, 1, 0]);
        assert_eq!(found.inertia, 2.0 + 0.5);
        assert!(silhouette(&points, &found.labels).unwrap() > 0.8);
        assert_eq!(k_means(&points, 6, 1), None);
        assert_eq!(k_means(&points, 0, 1), None);
        assert_eq!(k_means(&on_a_line(&[2.0; 3]), 2, 1).unwrap().inertia, 0.0);
    }

    /// 0 and 1 join at 1, then 4 at (4 + 3)/2.
    #[test]
    fn linkage_by_hand() {
        let values = [4.0_f64, 0.0, 1.0];
        let distances: Vec<Vec<f64>> = values
            .iter()
            .map(|a| values.iter().map(|b| (a - b).abs()).collect())
            .collect();
        let tree = Tree::average_linkage(&distances).unwrap();
        let heights: Vec<f64> = tree.joins.iter().map(|join| join.height).collect();
        assert_eq!(heights, [1.0, 3.5]);
        assert_eq!(tree.cut(2), [0, 1, 1]);
        assert_eq!(tree.cut(1), [0, 0, 0]);
        assert_eq!(tree.cut(99), [0, 1, 2]);
        assert_eq!(tree.order(), [0, 1, 2]);
        let one = Tree::average_linkage(&[vec![0.0]]).unwrap();
        assert_eq!((one.order(), one.cut(3)), (vec![0], vec![0]));
        assert_eq!(Tree::average_linkage(&[]), None);
    }

    #[test]
    fn labels_by_first_appearance() {
        assert_eq!(canonical(&["b", "a", "b", "c"]), [0, 1, 0, 2]);
    }
}
