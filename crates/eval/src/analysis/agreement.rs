//! How far two ways of grouping the same things agree.

use opabinia_data::stream::{shuffle, stream};
use serde::Serialize;

/// Groupings that are tried to see what chance alone would give.
const SHUFFLES: u64 = 2_000;

/// How far computed clusters agree with groups that somebody published.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Adjusted Rand index: 1 for the same grouping, 0 on average for a random one.
    pub adjusted_rand: f64,
    /// Share of things in matching groups when groups are matched one to one as well as possible.
    pub matched: f64,
    /// The mean of that share when the same groups are dealt out at random; matched groups of few
    /// things agree a good deal by chance.
    pub matched_by_chance: f64,
    /// How often a random deal has at least this adjusted Rand index.
    pub p: f64,
}

impl Agreement {
    /// Compares two lists of labels; `None` of fewer than two things or of unequal lengths.
    #[must_use]
    pub fn of(one: &[usize], other: &[usize], seed: u64) -> Option<Self> {
        let adjusted_rand = adjusted_rand(one, other)?;
        let mut dealt = other.to_vec();
        let (mut as_good, mut matched_sum) = (0, 0.0);
        for index in 0..SHUFFLES {
            shuffle(&mut stream(seed, "analysis agreement", index), &mut dealt);
            // Rounding must not decide between equally good deals.
            as_good += u32::from(
                self::adjusted_rand(one, &dealt).is_some_and(|ari| ari >= adjusted_rand - 1e-12),
            );
            matched_sum += matched_share(one, &dealt);
        }
        Some(Self {
            adjusted_rand,
            matched: matched_share(one, other),
            matched_by_chance: matched_sum / SHUFFLES as f64,
            p: f64::from(as_good + 1) / (SHUFFLES + 1) as f64,
        })
    }
}

/// The Rand index corrected for chance (Hubert and Arabie, 1985). `None` of fewer than two things or
/// of unequal lengths.
#[must_use]
pub fn adjusted_rand(one: &[usize], other: &[usize]) -> Option<f64> {
    if one.len() != other.len() || one.len() < 2 {
        return None;
    }
    let pairs = |n: usize| (n * n.saturating_sub(1) / 2) as f64;
    let table = crossed(one, other);
    let both: f64 = table.iter().flatten().map(|&n| pairs(n)).sum();
    let rows: f64 = table.iter().map(|row| pairs(row.iter().sum())).sum();
    let columns: f64 = (0..table.first().map_or(0, Vec::len))
        .map(|column| pairs(table.iter().map(|row| row[column]).sum()))
        .sum();
    let expected = rows * columns / pairs(one.len());
    let most = f64::midpoint(rows, columns);
    // Both all together, or both all apart: the same grouping.
    Some(if most == expected {
        1.0
    } else {
        (both - expected) / (most - expected)
    })
}

/// Share of things in matching groups under the best one-to-one matching of groups.
///
/// Exact for up to 16 groups (over all subsets of the smaller side's groups); with more the largest
/// overlaps are matched first.
#[must_use]
pub fn matched_share(one: &[usize], other: &[usize]) -> f64 {
    let mut table = crossed(one, other);
    let width = table.first().map_or(0, Vec::len);
    if table.len() < width {
        table = (0..width)
            .map(|column| table.iter().map(|row| row[column]).collect())
            .collect();
    }
    let columns = table.first().map_or(0, Vec::len);
    let matched = if columns <= 16 {
        best_matching(&table, columns)
    } else {
        greedy_matching(&table)
    };
    matched as f64 / one.len().max(1) as f64
}

/// `best[set]`: the most things that rows seen so far can have in common with the columns of `set`.
fn best_matching(table: &[Vec<usize>], columns: usize) -> usize {
    let mut best = vec![0; 1 << columns];
    for row in table {
        // Larger sets first, so that a row is used once.
        for set in (0..best.len()).rev() {
            for (column, &overlap) in row.iter().enumerate() {
                if set & (1 << column) != 0 {
                    best[set] = best[set].max(best[set ^ (1 << column)] + overlap);
                }
            }
        }
    }
    best.last().copied().unwrap_or(0)
}

fn greedy_matching(table: &[Vec<usize>]) -> usize {
    let cells = table.iter().enumerate().flat_map(|(row, cells)| {
        let cells = cells.iter().enumerate();
        cells.map(move |(column, &overlap)| (overlap, row, column))
    });
    let mut cells: Vec<(usize, usize, usize)> = cells.collect();
    cells.sort_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    let mut matched = 0;
    for (overlap, row, column) in cells {
        if !rows.contains(&row) && !columns.contains(&column) {
            rows.push(row);
            columns.push(column);
            matched += overlap;
        }
    }
    matched
}

/// `[label of one][label of other]`: how many things have both.
fn crossed(one: &[usize], other: &[usize]) -> Vec<Vec<usize>> {
    let groups = |labels: &[usize]| labels.iter().max().map_or(0, |most| most + 1);
    let mut table = vec![vec![0; groups(other)]; groups(one)];
    for (&a, &b) in one.iter().zip(other) {
        table[a][b] += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_grouping_under_other_names() {
        let found = Agreement::of(&[0, 0, 1, 1, 2, 2], &[2, 2, 0, 0, 1, 1], 1).unwrap();
        assert_eq!((found.adjusted_rand, found.matched), (1.0, 1.0));
        // 15 ways to pair six things; one of them is right.
        assert!((found.p - 1.0 / 15.0).abs() < 0.02, "{found:?}");
    }

    /// Hubert and Arabie's index of {a, b | c, d} against {a, c | b, d}: no pair in common, of two
    /// expected 2·2/6: (0 − ⅔)/(2 − ⅔) = −½.
    #[test]
    fn crossed_groupings() {
        let (one, other) = ([0, 0, 1, 1], [0, 1, 0, 1]);
        assert!((adjusted_rand(&one, &other).unwrap() + 0.5).abs() < 1e-15);
        assert_eq!(matched_share(&one, &other), 0.5);
        assert_eq!(adjusted_rand(&[0], &[0]), None);
        assert_eq!(adjusted_rand(&[0, 0], &[0]), None);
        assert_eq!(adjusted_rand(&[0, 0], &[0, 0]), Some(1.0));
    }

    #[test]
    fn matching_is_one_to_one() {
        // Both groups of the first overlap most with group 0 of the second.
        assert_eq!(matched_share(&[0, 0, 0, 1, 1], &[0, 0, 1, 0, 0]), 3.0 / 5.0);
        assert_eq!(matched_share(&[0, 1, 2], &[0, 0, 0]), 1.0 / 3.0);
        let many: Vec<usize> = (0..20).collect();
        assert_eq!(matched_share(&many, &many), 1.0);
    }
}
