//! How many samples of each source are kept after each step.

use std::collections::BTreeMap;

use opabinia_data::mixture::{capped, per_source, quotas};

use crate::error::CurateError;
use crate::recipe::{Ratios, Recipe};
use crate::sources::Origin;

/// What is left of a source after each step; each is at most the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// By its own cap.
    pub own: u64,
    /// By the cap of all.
    pub all: u64,
    /// By the quota of its category.
    pub quota: u64,
}

/// Computes the limits of sources from what they have. `available` is in the order of origins.
///
/// # Errors
/// If no category with a weight has a sample.
pub fn limits(
    recipe: &Recipe,
    available: &BTreeMap<Origin, u64>,
) -> Result<BTreeMap<Origin, Limits>, CurateError> {
    let mut limits: BTreeMap<Origin, Limits> = BTreeMap::new();
    for (origin, &has) in available {
        let own = capped(has, recipe.own_cap(&origin.source), None);
        let all = capped(own, None, recipe.cap.all);
        let quota = all;
        limits.insert(origin.clone(), Limits { own, all, quota });
    }
    let Some(mix) = &recipe.mix else {
        return Ok(limits);
    };
    let Ratios::Table(ratios) = &mix.ratios else {
        return Err(CurateError::Mix {
            problem: "the ratios are still a path".to_owned(),
        });
    };
    let categories = categories(recipe, ratios);
    let weights: Vec<f64> = categories
        .iter()
        .map(|name| ratios.get(*name).copied().unwrap_or(0.0))
        .collect();
    let has = |name: &&str| {
        let own = limits
            .iter()
            .filter(|(origin, _)| origin.category == **name);
        own.map(|(_, limits)| limits.all).sum()
    };
    let has: Vec<u64> = categories.iter().map(has).collect();
    let shares =
        quotas(mix.total, &weights, &has, mix.shortfall).ok_or_else(|| CurateError::Mix {
            problem: "no category with a weight has any sample".to_owned(),
        })?;
    for limits in limits.values_mut() {
        limits.quota = 0;
    }
    for (name, quota) in categories.iter().zip(shares) {
        let own = limits.iter().filter(|(origin, _)| origin.category == *name);
        let (origins, has): (Vec<Origin>, Vec<u64>) = own
            .map(|(origin, limits)| (origin.clone(), limits.all))
            .unzip();
        for (origin, share) in origins.iter().zip(per_source(quota, &has)) {
            if let Some(limits) = limits.get_mut(origin) {
                limits.quota = share;
            }
        }
    }
    Ok(limits)
}

/// Categories in the order that ties are decided by.
fn categories<'a>(recipe: &'a Recipe, ratios: &'a BTreeMap<String, f64>) -> Vec<&'a str> {
    match recipe.categories.is_empty() {
        true => ratios.keys().map(String::as_str).collect(),
        false => recipe.categories.iter().map(String::as_str).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(source: &str, category: &str) -> Origin {
        Origin {
            source: source.to_owned(),
            category: category.to_owned(),
        }
    }

    /// Own caps first, then the cap of all, then quotas of what these leave: 30 and 50 of A share its
    /// quota of 40 as 15 and 25, and B has 20 for its 40.
    #[test]
    fn caps_and_quotas_compose_in_one_order() {
        let text = "categories = ['A', 'B']\n[cap]\nall = 50\n[cap.sources]\nx = 30\n\
                    [mix]\ntotal = 80\nratios = {A = 1.0, B = 1.0}\n";
        let recipe: Recipe = toml::from_str(text).unwrap();
        let available = BTreeMap::from([
            (origin("x", "A"), 100),
            (origin("y", "A"), 100),
            (origin("z", "B"), 20),
        ]);
        let limits = limits(&recipe, &available).unwrap();
        let of = |source, category| {
            let Limits { own, all, quota } = limits[&origin(source, category)];
            [own, all, quota]
        };
        assert_eq!(of("x", "A"), [30, 30, 15]);
        assert_eq!(of("y", "A"), [100, 50, 25]);
        assert_eq!(of("z", "B"), [20, 20, 20]);
    }
}
