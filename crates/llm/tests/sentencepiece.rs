//! Token ids of `tokenizer.model` files against the sentencepiece library itself.
//!
//! `tests/data/*.model` were trained with sentencepiece 0.2.3 on random word lists (420 pieces,
//! byte fallback, one user-defined piece `<keep>`); `sentencepiece.json` holds what the library
//! makes of some texts. The BPE file is set as Llama's is, the Unigram file also removes extra
//! spaces.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use opabinia_llm::{SpecialTokens, Tokenizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    bpe: Vec<Example>,
    unigram: Vec<Example>,
}

#[derive(Deserialize)]
struct Example {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn expected() -> Expected {
    let bytes = std::fs::read(data("sentencepiece.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// A model folder with this file and nothing else.
fn tokenizer(model: &str) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(data(model), folder.path().join("tokenizer.model")).unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

fn check(model: &str, examples: &[Example]) {
    let tokenizer = tokenizer(model);
    assert_eq!(tokenizer.vocab_size(), 420);
    for Example { text, ids, decoded } in examples {
        let found = tokenizer.encode(text, SpecialTokens::Omit).unwrap();
        assert_eq!(found, *ids, "{model}: {text:?}");
        let back = tokenizer.decode(ids, SpecialTokens::Include).unwrap();
        assert_eq!(back, *decoded, "{model}: {ids:?}");
    }
}

#[test]
fn bpe_gives_the_ids_of_sentencepiece() {
    check("bpe.model", &expected().bpe);
}

#[test]
fn unigram_gives_the_ids_of_sentencepiece() {
    check("unigram.model", &expected().unigram);
}
