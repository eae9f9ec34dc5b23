//! A cap is one of a source, whatever its categories.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::Path;

use opabinia_curate::{Manifest, Options, Recipe, Watch, curate, ledger};
use serde_json::Value;

/// A sample of a source and category; samples of one number say the same.
fn line(source: &str, category: &str, number: u32) -> String {
    let line = serde_json::json!({"source": source, "category": category, "conversations": [
        {"from": "human", "value": format!("Which number comes after {number}?")},
        {"from": "gpt", "value": (number + 1).to_string()}]});
    format!("{line}\n")
}

/// 60 samples of `s`, a third of them of `a` and the others of `b`, and 10 of `t`, all of `a`.
fn pool() -> Vec<String> {
    let category = |number: u32| if number.is_multiple_of(3) { "a" } else { "b" };
    let s = (0..60).map(|number| line("s", category(number), number));
    s.chain((0..10).map(|number| line("t", "a", 100 + number)))
        .collect()
}

struct Made {
    manifest: Manifest,
    /// Source, category and question of what is kept.
    kept: BTreeSet<[String; 3]>,
    /// Why samples were dropped.
    why: BTreeSet<String>,
}

impl Made {
    fn of(&self, source: &str, category: &str) -> BTreeSet<[String; 3]> {
        let fits = |sample: &&[String; 3]| sample[0] == source && sample[1] == category;
        self.kept.iter().filter(fits).cloned().collect()
    }

    fn of_source(&self, source: &str) -> BTreeSet<[String; 3]> {
        &self.of(source, "a") | &self.of(source, "b")
    }
}

fn made(lines: &[String], more: &str, threads: usize, part_bytes: u64) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("pool.jsonl"), lines.concat()).unwrap();
    let text = format!("{more}\n[input]\nfiles = [{:?}]\n", at("pool.jsonl"));
    let recipe: Recipe = toml::from_str(&text).unwrap();
    let recipe = recipe.resolved("test", Path::new("")).unwrap();
    let options = Options {
        threads,
        part_bytes,
        cluster: None,
        memory_bytes: 64 << 20,
    };
    let watch = Watch {
        progress: &|_| {},
        cancelled: &|| false,
    };
    let manifest = curate(&recipe, &at("out"), &options, &watch).unwrap();
    let shard = std::fs::read_to_string(at("out/samples-00000.jsonl")).unwrap();
    let said = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let texts = [
            &line["source"],
            &line["category"],
            &line["conversations"][0]["value"],
        ];
        texts.map(|text| text.as_str().unwrap().to_owned())
    };
    let entries = ledger::find(&at("out"), usize::MAX, &|_| true).unwrap();
    Made {
        manifest,
        kept: shard.lines().map(said).collect(),
        why: entries.into_iter().map(|entry| entry.why).collect(),
    }
}

#[test]
fn the_categories_of_a_source_share_its_cap() {
    let lines = pool();
    let own = made(&lines, "[cap.sources]\ns = 10", 2, 500);
    assert_eq!(own.of_source("s").len(), 10);
    assert_eq!(own.of_source("t").len(), 10);
    assert_eq!(own.manifest.total.of("cap"), 50);
    assert!(
        own.why
            .iter()
            .any(|why| why.starts_with("the cap of `s` keeps 10 of its samples")),
        "{:?}",
        own.why
    );
    // The cap of all keeps the same ones, and a larger cap keeps what a smaller one kept.
    let all = made(&lines, "[cap]\nall = 10", 2, 500);
    assert_eq!(all.kept, own.kept);
    assert_eq!(all.manifest.total.of("cap_all"), 50);
    let smaller = made(&lines, "[cap]\nall = 6", 2, 500);
    assert_eq!(smaller.of_source("s").len(), 6);
    assert!(smaller.kept.is_subset(&all.kept));
    // The smaller of both holds.
    let both = made(&lines, "[cap]\nall = 6\n[cap.sources]\ns = 10", 2, 500);
    assert_eq!(both.kept, smaller.kept);
    let counts = ["cap", "cap_all"].map(|step| both.manifest.total.of(step));
    assert_eq!(counts, [50, 8]);
    // Sources are what a cap is chosen by.
    let cumulative = own.manifest.cumulative();
    assert_eq!(
        cumulative,
        [("t".to_owned(), 10, 10), ("s".to_owned(), 60, 70)]
    );
}

#[test]
fn neither_threads_nor_the_order_of_lines_decide_what_a_shared_cap_keeps() {
    let mut lines = pool();
    // The same content in both categories, and no duplicate is looked for.
    lines.extend((0..40).map(|number| line("s", if number < 20 { "a" } else { "b" }, number % 20)));
    for cap in [1, 13, 40, 77] {
        let more = format!("[cap]\nall = {cap}");
        let forward = made(&lines, &more, 1, 1 << 20);
        let total = cap.min(100) + cap.min(10);
        assert_eq!(forward.manifest.total.of("kept"), total, "{cap}");
        let backward: Vec<String> = lines.iter().rev().cloned().collect();
        let backward = made(&backward, &more, 4, 300);
        assert_eq!(forward.kept, backward.kept, "{cap}");
    }
}

/// Six of each category: after the cap of all, all of `b` are of `s`, and those of `a` are of both sources.
#[test]
fn quotas_take_the_first_of_what_a_shared_cap_leaves() {
    let lines = pool();
    let capped = made(&lines, "[cap]\nall = 20", 2, 500);
    let more = "[cap]\nall = 20\n[mix]\ntotal = 12\n[mix.ratios]\na = 1.0\nb = 1.0";
    let mixed = made(&lines, more, 2, 500);
    assert!(mixed.kept.is_subset(&capped.kept));
    assert_eq!(mixed.of("s", "b").len(), 6);
    assert_eq!(mixed.of("s", "a").len() + mixed.of("t", "a").len(), 6);
    assert_eq!(mixed.manifest.total.of("cap_all"), 40);
    // Smaller quotas keep the beginning of the same order.
    let fewer = made(&lines, &more.replace("total = 12", "total = 4"), 2, 500);
    assert_eq!(fewer.of("s", "b").len(), 2);
    assert!(fewer.of("s", "b").is_subset(&mixed.of("s", "b")));
}
