//! How many samples of each source a mixture takes: quotas of categories.
//!
//! Cambrian-1 (arXiv 2406.16860, section 4.2) limits every source to a threshold *t* and balances
//! categories by ratios; its released 7M mixture is neither alone. The steps compose in one order: caps
//! of single sources, the cap of all, quotas of categories. Only the last is computed here, counts from counts;
//! caps, and which samples fill the counts, are somebody else's decision.
//!
//! All arithmetic that a result depends on is exact or ordered, so equal inputs give equal mixtures.

/// What happens where a category has fewer samples than its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Shortfall {
    /// The mixture is smaller than asked for, by as much as is missing.
    #[default]
    Report,
    /// Categories that are too small give all they have, and the rest of the total is shared out among
    /// the others by their ratios, until none is too small.
    Redistribute,
}

/// Shares `total` out by weights: the whole part of each exact share, and one more for the largest
/// remainders; the earlier of two equal ones. The shares add up to `total`.
///
/// Weights need not add up to anything: the published ratios of Cambrian-7M add up to 100.40. A weight
/// that is negative or no number counts as 0. `None` if no weight is left and there is something to
/// share.
pub fn largest_remainder(total: u64, weights: &[f64]) -> Option<Vec<u64>> {
    let usable = |weight: &f64| match weight.is_finite() && *weight > 0.0 {
        true => *weight,
        false => 0.0,
    };
    let weights: Vec<f64> = weights.iter().map(usable).collect();
    let sum: f64 = weights.iter().sum();
    if total == 0 {
        return Some(vec![0; weights.len()]);
    }
    if sum <= 0.0 || !sum.is_finite() {
        return None;
    }
    let exact: Vec<f64> = weights.iter().map(|w| total as f64 * w / sum).collect();
    let mut shares: Vec<u64> = exact.iter().map(|share| share.floor() as u64).collect();
    let mut order: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
    // Stable, so that equal remainders stay in order.
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let left = total.saturating_sub(shares.iter().sum());
    for &i in order.iter().cycle().take(usize::try_from(left).ok()?) {
        shares[i] += 1;
    }
    Some(shares)
}

/// How many samples each category gives to a mixture of `total`.
///
/// `weights` and `available` are parallel. `None` as in [`largest_remainder`], or if they differ in
/// length.
pub fn quotas(
    total: u64,
    weights: &[f64],
    available: &[u64],
    shortfall: Shortfall,
) -> Option<Vec<u64>> {
    if weights.len() != available.len() {
        return None;
    }
    let wanted = largest_remainder(total, weights)?;
    match shortfall {
        Shortfall::Report => {
            let pairs = wanted.iter().zip(available);
            Some(pairs.map(|(&wanted, &has)| wanted.min(has)).collect())
        }
        Shortfall::Redistribute => redistributed(total, weights, available),
    }
}

fn redistributed(total: u64, weights: &[f64], available: &[u64]) -> Option<Vec<u64>> {
    let mut given: Vec<Option<u64>> = vec![None; weights.len()];
    loop {
        let spent: u64 = given.iter().flatten().sum();
        let open = |(i, &weight): (usize, &f64)| match given[i] {
            Some(_) => 0.0,
            None => weight,
        };
        let open: Vec<f64> = weights.iter().enumerate().map(open).collect();
        let Some(wanted) = largest_remainder(total.saturating_sub(spent), &open) else {
            // Everything that has a weight is used up: the mixture stays smaller.
            return match spent {
                0 => None,
                _ => Some(given.into_iter().map(Option::unwrap_or_default).collect()),
            };
        };
        let short: Vec<usize> = (0..weights.len())
            .filter(|&i| given[i].is_none() && wanted[i] > available[i])
            .collect();
        if short.is_empty() {
            let pairs = given.into_iter().zip(wanted);
            return Some(
                pairs
                    .map(|(given, wanted)| given.unwrap_or(wanted))
                    .collect(),
            );
        }
        for i in short {
            given[i] = Some(available[i]);
        }
    }
}

/// Shares the quota of a category out among its sources, in proportion to what they have.
///
/// A quota above the sum takes everything.
pub fn per_source(quota: u64, available: &[u64]) -> Vec<u64> {
    let sum = available
        .iter()
        .fold(0_u64, |sum, &n| sum.saturating_add(n));
    if quota >= sum {
        return available.to_vec();
    }
    let weights: Vec<f64> = available.iter().map(|&n| n as f64).collect();
    let mut shares = largest_remainder(quota, &weights).unwrap_or_else(|| vec![0; available.len()]);
    for (share, &has) in shares.iter_mut().zip(available) {
        *share = (*share).min(has);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_ties_go_to_the_earlier() {
        // 10 by thirds is 3.33 each.
        assert_eq!(largest_remainder(10, &[1.0, 1.0, 1.0]), Some(vec![4, 3, 3]));
        assert_eq!(
            largest_remainder(3, &[0.0, f64::NAN, 2.0]),
            Some(vec![0, 0, 3])
        );
        assert_eq!(largest_remainder(3, &[0.0, -1.0]), None);
        assert_eq!(largest_remainder(0, &[0.0]), Some(vec![0]));
    }

    #[test]
    fn a_small_category_is_reported_or_made_up_for() {
        let (weights, has) = ([1.0, 1.0, 2.0], [5, 100, 100]);
        let quotas = |shortfall| quotas(40, &weights, &has, shortfall);
        assert_eq!(quotas(Shortfall::Report), Some(vec![5, 10, 20]));
        // 35 are left for weights 1 and 2: 11.67 and 23.33.
        assert_eq!(quotas(Shortfall::Redistribute), Some(vec![5, 12, 23]));
    }

    #[test]
    fn nothing_is_taken_that_is_not_there() {
        let all = quotas(1000, &[1.0, 1.0], &[3, 4], Shortfall::Redistribute);
        assert_eq!(all, Some(vec![3, 4]));
        assert_eq!(per_source(10, &[3, 4]), [3, 4]);
        assert_eq!(per_source(5, &[3, 7]), [2, 3]);
    }
}
