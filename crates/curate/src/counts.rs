//! How many samples of each source and category are kept after each step.
//!
//! Caps are of sources: the categories that a source is in share them, by the order of the seed. Quotas are
//! of categories.

use std::collections::BTreeMap;

use opabinia_data::mixture::{per_source, quotas};

use crate::error::CurateError;
use crate::places::Places;
use crate::recipe::{Ratios, Recipe};
use crate::sources::Origin;

/// What is left of a source, in one category or in all, after each step; each is at most the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// By the source's own cap.
    pub own: u64,
    /// By the cap of all.
    pub all: u64,
    /// By the quota of its category.
    pub quota: u64,
}

/// Computes what is left of each source and category from what they have.
///
/// # Errors
/// If no category with a weight has a sample.
pub fn limits(
    recipe: &Recipe,
    places: &BTreeMap<Origin, Places>,
) -> Result<BTreeMap<Origin, Limits>, CurateError> {
    let mut limits: BTreeMap<Origin, Limits> = BTreeMap::new();
    for (origin, places) in places {
        let cap = recipe.own_cap(&origin.source).unwrap_or(u64::MAX);
        let own = places.within(cap);
        let all = places.within(cap.min(recipe.cap.all.unwrap_or(u64::MAX)));
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

/// What is left of whole sources, by their names.
pub fn of_sources(limits: &BTreeMap<Origin, Limits>) -> BTreeMap<String, Limits> {
    let mut sums: BTreeMap<String, Limits> = BTreeMap::new();
    for (origin, limits) in limits {
        let sum = sums.entry(origin.source.clone()).or_default();
        sum.own += limits.own;
        sum.all += limits.all;
        sum.quota += limits.quota;
    }
    sums
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
        let places = BTreeMap::from([
            (origin("x", "A"), Places::Whole(100)),
            (origin("y", "A"), Places::Whole(100)),
            (origin("z", "B"), Places::Whole(20)),
        ]);
        let limits = limits(&recipe, &places).unwrap();
        let of = |source, category| {
            let Limits { own, all, quota } = limits[&origin(source, category)];
            [own, all, quota]
        };
        assert_eq!(of("x", "A"), [30, 30, 15]);
        assert_eq!(of("y", "A"), [100, 50, 25]);
        assert_eq!(of("z", "B"), [20, 20, 20]);
    }

    /// Six samples of x in the order of the seed: A, B, B, A, B, A. Its own cap keeps five of them and the cap
    /// of all three, of which one is of A; the quota of B then takes one of two.
    #[test]
    fn the_categories_of_a_source_share_its_caps() {
        let text = "categories = ['A', 'B']\n[cap]\nall = 3\n[cap.sources]\nx = 5\n\
                    [mix]\ntotal = 2\nratios = {A = 1.0, B = 1.0}\n";
        let recipe: Recipe = toml::from_str(text).unwrap();
        let places = BTreeMap::from([
            (origin("x", "A"), Places::Among(vec![1, 4, 6])),
            (origin("x", "B"), Places::Among(vec![2, 3, 5])),
        ]);
        let limits = limits(&recipe, &places).unwrap();
        let of = |limits: &Limits| [limits.own, limits.all, limits.quota];
        assert_eq!(of(&limits[&origin("x", "A")]), [2, 1, 1]);
        assert_eq!(of(&limits[&origin("x", "B")]), [3, 2, 1]);
        assert_eq!(of(&of_sources(&limits)["x"]), [5, 3, 2]);
    }
}
