//! Counts of mixtures against the golden pool: caps, quotas under both shortfall policies, and shares of
//! sources.

use std::path::Path;

use opabinia_data::mixture::{Shortfall, largest_remainder, per_source, quotas};
use serde_json::Value;

fn golden(name: &str) -> Value {
    let root = std::env::var_os("OPABINIA_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        Into::into,
    );
    let path = root.join("recipe/pool").join(name);
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).expect("the golden case is JSON")
}

fn categories() -> Vec<String> {
    let sources = golden("sources.json");
    let names = sources["categories_in_order"]
        .as_array()
        .expect("a list of categories");
    names
        .iter()
        .map(|n| n.as_str().expect("a name").to_owned())
        .collect()
}

/// Values of an object, in the order of the categories.
fn in_order(object: &Value) -> Vec<u64> {
    let value = |name: &String| object[name.as_str()].as_u64().expect("a count");
    categories().iter().map(value).collect()
}

fn weights(expected: &Value) -> Vec<f64> {
    let ratios = &expected["ratio_percent_as_published"];
    let weight = |name: &String| ratios[name.as_str()].as_f64().expect("a share");
    categories().iter().map(weight).collect()
}

fn counts(object: &Value) -> Vec<(String, u64)> {
    let entries = object.as_object().expect("an object").iter();
    entries
        .map(|(name, count)| (name.clone(), count.as_u64().expect("a count")))
        .collect()
}

#[test]
fn quotas_are_the_golden_ones_for_every_total() {
    let expected = golden("expected.json");
    let weights = weights(&expected);
    let has = in_order(&expected["after_threshold_per_category"]);
    let cases = expected["mixes_for_other_totals_after_threshold"]
        .as_array()
        .unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let total = case["total"].as_u64().unwrap();
        let quota = largest_remainder(total, &weights);
        assert_eq!(quota, Some(in_order(&case["quota"])), "{total}");
        for (policy, key) in [
            (Shortfall::Report, "report_shortfall"),
            (Shortfall::Redistribute, "redistribute"),
        ] {
            let mixture = quotas(total, &weights, &has, policy);
            assert_eq!(mixture, Some(in_order(&case[key])), "{total}, {key}");
        }
    }
    let total = expected["mix_total_wanted"].as_u64().unwrap();
    let has = in_order(&expected["accepted_unique_per_category"]);
    let whole = quotas(total, &weights, &has, Shortfall::Redistribute);
    let wanted = in_order(&expected["mix_without_threshold_redistribute"]);
    assert_eq!(whole, Some(wanted));
}

#[test]
fn sources_share_a_quota_as_the_golden_mixture_does() {
    let expected = golden("expected.json");
    let sources = golden("sources.json");
    let quota = &expected["mix_after_threshold_redistribute"];
    let left = counts(&expected["after_threshold_per_source"]);
    for category in categories() {
        let of_it = |source: &str| sources["sources"][source]["category"] == *category;
        let of_it: Vec<_> = left.iter().filter(|(name, _)| of_it(name)).collect();
        let has: Vec<u64> = of_it.iter().map(|(_, n)| *n).collect();
        let shares = per_source(quota[category.as_str()].as_u64().unwrap(), &has);
        for ((name, _), share) in of_it.iter().zip(shares) {
            let wanted = &expected["mix_after_threshold_redistribute_per_source"][name.as_str()];
            assert_eq!(Some(share), wanted.as_u64(), "{name}");
        }
    }
}
