//! Batches against golden cases of the reference implementation of Cambrian-1 (arXiv 2406.16860):
//! which samples make a batch, and what of a sample fits into its row.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use opabinia_data::Tokenized;
use opabinia_data::order::{Modality, SampleLength, plan, split_evenly};
use opabinia_llm::PromptToken;
use proptest::prelude::*;
use serde_json::Value;

fn golden(name: &str) -> Value {
    let root = std::env::var_os("OPABINIA_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        PathBuf::from,
    );
    let path = root.join("recipe/batch").join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}

fn numbers(value: &Value) -> Vec<i64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_i64().unwrap())
        .collect()
}

fn indices(value: &Value) -> Vec<u32> {
    numbers(value)
        .into_iter()
        .map(|n| n.try_into().unwrap())
        .collect()
}

/// The reference's lengths: positive with a picture, negative without.
fn lengths(value: &Value) -> Vec<SampleLength> {
    let length = |n: i64| SampleLength {
        tokens: n.unsigned_abs().try_into().unwrap(),
        modality: if n > 0 {
            Modality::Image
        } else {
            Modality::Text
        },
    };
    numbers(value).into_iter().map(length).collect()
}

#[test]
fn a_batch_is_divided_as_in_the_reference() {
    let golden = golden("length_grouping.json");
    let cases = golden["split_to_even_chunks"].as_array().unwrap();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let parts = case["num_chunks"].as_u64().unwrap() as usize;
        let found = split_evenly(
            &indices(&case["indices"]),
            &lengths(&case["lengths"]),
            parts,
        );
        let expected: Vec<_> = case["chunks"]
            .as_array()
            .unwrap()
            .iter()
            .map(indices)
            .collect();
        assert_eq!(found, expected);
    }
}

fn one_modality(batch: &[u32], lengths: &[SampleLength]) -> bool {
    let modality = |i: &u32| lengths[*i as usize].modality;
    batch.iter().all(|i| modality(i) == modality(&batch[0]))
}

/// The properties of the reference's order: each sample once; batches of one modality as long as
/// one fills them; what is left of both at the end, sorted.
fn check_plan(lengths: &[SampleLength], batch: usize, batches: &[Vec<u32>]) {
    let mut all = batches.concat();
    all.sort_unstable();
    assert_eq!(all, (0..lengths.len() as u32).collect::<Vec<_>>());
    let count = |modality| {
        lengths
            .iter()
            .filter(|length| length.modality == modality)
            .count()
    };
    let full = count(Modality::Image) / batch + count(Modality::Text) / batch;
    for samples in &batches[..full] {
        assert_eq!(samples.len(), batch);
        assert!(one_modality(samples, lengths));
        let tokens = |i: &u32| lengths[*i as usize].tokens;
        assert!(samples.is_sorted_by(|a, b| tokens(a) >= tokens(b)));
    }
    assert!(batches[full..].concat().is_sorted());
}

#[test]
fn the_order_has_the_properties_of_the_reference() {
    let golden = golden("length_grouping.json");
    let cases = golden["grouped"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let lengths = lengths(&case["lengths"]);
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let batch = number("batch_size") * number("world_size");
        let found = plan(&lengths, batch, number("torch_manual_seed") as u64, 0);
        check_plan(&lengths, batch, &found);

        // The reference's own order: as many batches of one modality, in as many places.
        let theirs = case["megabatch_is_one_modality"].as_array().unwrap();
        let mixed = |batches: &[bool]| batches.iter().filter(|&&one| !one).count();
        let theirs: Vec<bool> = theirs.iter().map(|one| one.as_bool().unwrap()).collect();
        let ours: Vec<bool> = found
            .iter()
            .map(|samples| one_modality(samples, &lengths))
            .collect();
        assert_eq!(ours.len(), theirs.len());
        assert!(mixed(&ours) <= mixed(&theirs).max(1));
    }
}

proptest! {
    #[test]
    fn any_order_has_these_properties(
        lengths in proptest::collection::vec((0_u32..50, any::<bool>()), 0..80),
        batch in 1_usize..9,
        seed: u64,
        epoch in 0_usize..3,
    ) {
        let lengths: Vec<_> = lengths
            .into_iter()
            .map(|(tokens, image)| SampleLength {
                tokens,
                modality: if image { Modality::Image } else { Modality::Text },
            })
            .collect();
        let batches = plan(&lengths, batch, seed, epoch);
        check_plan(&lengths, batch, &batches);
        prop_assert_eq!(&batches, &plan(&lengths, batch, seed, epoch));
        for samples in &batches {
            for parts in 1..4 {
                let mut divided = split_evenly(samples, &lengths, parts).concat();
                divided.sort_unstable();
                let mut samples = samples.clone();
                samples.sort_unstable();
                prop_assert_eq!(divided, samples);
            }
        }
    }
}

/// A row as it comes out of tokenization.
fn tokenized(row: &Value) -> Tokenized {
    let token = |id: i64| match id {
        -200 => PromptToken::Image,
        id => PromptToken::Text(id.try_into().unwrap()),
    };
    Tokenized {
        tokens: numbers(&row["in_input_ids"])
            .into_iter()
            .map(token)
            .collect(),
        trained: numbers(&row["in_labels"])
            .iter()
            .map(|&label| label != -100)
            .collect(),
        ..Tokenized::default()
    }
}

/// The reference makes room for a picture in every row, so a text of 1600 tokens of which 800 are
/// trained keeps 648 of those in 2048 positions. Here a text uses its row, and pictures take what
/// they have visual tokens: never more than there.
#[test]
fn a_row_without_a_picture_loses_nothing() {
    let mut texts = 0;
    for config in golden("collator.json").as_array().unwrap() {
        let number = |key: &str| config[key].as_u64().unwrap() as usize;
        let side = number("image_token_len").isqrt();
        let visual_tokens = side * (side + 1);
        let max_length = number("model_max_length");
        for row in config["rows"].as_array().unwrap() {
            let what = format!("{} {}", config["config"], row["name"]);
            let mut found = tokenized(row);
            let whole = found.clone();
            found.truncate(max_length, visual_tokens);
            assert!(found.positions(visual_tokens) <= max_length, "{what}");
            let theirs = row["trained_tokens_out"].as_u64().unwrap() as usize;
            assert!(found.trained_tokens() >= theirs, "{what}");
            if !whole.has_image() {
                texts += 1;
                let expected = &whole.tokens[..whole.tokens.len().min(max_length)];
                assert_eq!(found.tokens, expected, "{what}");
            }
            if config["config"] == "full_scripts_8b" && row["name"] == "text_only" {
                assert_eq!((theirs, found.trained_tokens()), (648, 800));
            }
        }
    }
    assert_eq!(texts, 10);
}

/// With the visual tokens of a whole square, padding included, both make the same room.
#[test]
fn a_row_with_a_picture_keeps_what_the_reference_keeps() {
    let mut rows = 0;
    for config in golden("collator.json").as_array().unwrap() {
        let number = |key: &str| config[key].as_u64().unwrap() as usize;
        if config["padding_side"] != "right" {
            continue;
        }
        let side = number("image_token_len").isqrt();
        let visual_tokens = side * (side + 1);
        for row in config["rows"].as_array().unwrap() {
            let mut found = tokenized(row);
            if !found.has_image() {
                continue;
            }
            found.truncate(number("model_max_length"), visual_tokens);
            let trained: Vec<i64> = found.labels().into_iter().filter(|&l| l != -100).collect();
            let theirs: Vec<i64> = numbers(&row["out_labels"])
                .into_iter()
                .filter(|&label| label != -100)
                .collect();
            assert_eq!(trained, theirs, "{} {}", config["config"], row["name"]);
            rows += 1;
        }
    }
    assert_eq!(rows, 13);
}
