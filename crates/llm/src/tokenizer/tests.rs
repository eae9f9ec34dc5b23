use super::*;
use crate::sentencepiece::tests::small_model;

fn folder(files: &[(&str, &[u8])]) -> Result<Tokenizer, TokenizerError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    Tokenizer::from_folder(folder.path())
}

const LLAMA: &str = r#"{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>",
    "eos_token": "</s>", "pad_token": "<unk>", "model_max_length": 4096}"#;

/// A Llama tokenizer: ids as in the tests of `sentencepiece.rs`.
pub(crate) fn small_tokenizer() -> Tokenizer {
    let model = small_model();
    folder(&[
        ("tokenizer.model", &model),
        ("tokenizer_config.json", LLAMA.as_bytes()),
    ])
    .unwrap()
}

/// A word-level tokenizer with one damaged or unusual part.
fn word_level(part: &str) -> Result<Tokenizer, TokenizerError> {
    let json = format!(
        r#"{{"version": "1.0", {part} "model": {{"type": "WordLevel", "unk_token": "a",
            "vocab": {{"a": 0, "b": 1}}}}}}"#
    );
    folder(&[("tokenizer.json", json.as_bytes())])
}

#[test]
fn a_llama_folder_without_json() {
    let tokenizer = small_tokenizer();
    assert_eq!(tokenizer.bos_id(), Some(1));
    assert_eq!(tokenizer.eos_id(), Some(2));
    assert_eq!(tokenizer.pad_id(), Some(0));
    assert_eq!(tokenizer.model_max_length(), Some(4096));
    assert_eq!(tokenizer.vocab_size(), 266);
    assert_eq!(
        tokenizer.encode("ab", SpecialTokens::Include).unwrap(),
        [1, 265]
    );
    assert_eq!(tokenizer.encode("ab", SpecialTokens::Omit).unwrap(), [265]);
    assert_eq!(
        tokenizer
            .decode(&[1, 265, 2], SpecialTokens::Include)
            .unwrap(),
        "<s> ab</s>"
    );
    assert_eq!(
        tokenizer.decode(&[1, 265, 2], SpecialTokens::Omit).unwrap(),
        "ab"
    );
}

/// The line break after an image is tokenized as the beginning of a text: `▁`, then the byte.
#[test]
fn text_around_an_image_keeps_one_bos() {
    use PromptToken::{Image, Text};
    let tokens = small_tokenizer()
        .encode_with_images("a<image>\na<image>")
        .unwrap();
    let line_break = 4 + u32::from(b'\n');
    assert_eq!(
        tokens,
        [
            Text(1),
            Text(263),
            Image,
            Text(260),
            Text(line_break),
            Text(261),
            Image
        ]
    );
}

#[test]
fn every_token_knows_its_place() {
    let placed = small_tokenizer()
        .encode_with_places("b<image>ab</s>")
        .unwrap();
    let bytes: Vec<_> = placed.into_iter().map(|token| token.bytes).collect();
    assert_eq!(bytes, [0..0, 0..1, 0..1, 1..8, 8..10, 10..14]);
}

/// `</s>` is written twice: once as markup, once by somebody who talks about it.
#[test]
fn special_tokens_inside_literal_bytes_are_spelled_out() {
    let placed = small_tokenizer()
        .encode_with_literals("a</s>b</s>", std::slice::from_ref(&(0..6)))
        .unwrap();
    let ids: Vec<_> = placed.iter().map(|token| token.token).collect();
    let [lt, slash, letter, gt] = b"</s>".map(|byte| 4 + u32::from(byte));
    let expected = [1, 263, lt, slash, letter, gt, 260, 262, 2];
    assert_eq!(ids, expected.map(PromptToken::Text));
    assert_eq!(placed[2].bytes, 1..5);
    assert_eq!(placed[5].bytes, 1..5);
}

/// transformers' slow Llama tokenizer puts `▁` in front of whatever the text begins with.
#[test]
fn a_text_that_begins_with_a_space_gets_another() {
    let model = small_model();
    let config = LLAMA.replace('{', r#"{"legacy": false, "#);
    let files: [(&str, &[u8]); 2] = [
        ("tokenizer.model", &model),
        ("tokenizer_config.json", config.as_bytes()),
    ];
    let tokenizer = folder(&files).unwrap();
    let ids = tokenizer.encode(" ab", SpecialTokens::Omit).unwrap();
    assert_eq!(ids, [260, 265]);
    let placed = tokenizer.encode_with_places(" ab").unwrap();
    assert_eq!(placed[2].bytes, 0..3);
    assert_eq!(tokenizer.encode("ab", SpecialTokens::Omit).unwrap(), [265]);
}

#[test]
fn settings_decide_what_stands_around_a_text() {
    let model = small_model();
    let config = r#"{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>",
        "eos_token": "</s>", "add_bos_token": false, "add_eos_token": true}"#;
    let files: [(&str, &[u8]); 2] = [
        ("tokenizer.model", &model),
        ("tokenizer_config.json", config.as_bytes()),
    ];
    let tokenizer = folder(&files).unwrap();
    assert_eq!(
        tokenizer.encode("ab", SpecialTokens::Include).unwrap(),
        [265, 2]
    );
}

#[test]
fn tokens_beside_the_vocabulary_are_added() {
    let model = small_model();
    let tokenizer = folder(&[
        ("tokenizer.model", &model),
        (
            "tokenizer_config.json",
            br#"{"pad_token": "<pad>", "bos_token": "<s>"}"#,
        ),
        ("added_tokens.json", br#"{"<pad>": 266}"#),
    ])
    .unwrap();
    assert_eq!(tokenizer.pad_id(), Some(266));
    assert_eq!(
        tokenizer.encode("<pad>", SpecialTokens::Omit).unwrap(),
        [266]
    );
    assert!(tokenizer.is_special(266) && !tokenizer.is_special(265));
}

#[test]
fn files_that_disagree_are_refused() {
    let model = small_model();
    let error = folder(&[
        ("tokenizer.model", &model),
        ("added_tokens.json", br#"{"<s>": 7}"#),
    ])
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("`<s>` is token 7, but the vocabulary makes it token 1"),
        "{error}"
    );
}

#[test]
fn an_empty_folder_says_what_is_missing() {
    let error = folder(&[]).unwrap_err().to_string();
    assert!(
        error.contains("neither `tokenizer.json` nor `tokenizer.model`"),
        "{error}"
    );
}

#[test]
fn a_file_cannot_make_texts_huge() {
    let padding = r#""padding": {"strategy": {"Fixed": 1000000000000000}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},"#;
    let tokenizer = word_level(padding).unwrap();
    assert_eq!(tokenizer.encode("b", SpecialTokens::Include).unwrap(), [1]);
}

#[test]
fn a_damaged_part_is_an_error_not_a_panic() {
    let strip = r#""decoder": {"type": "Strip", "content": "a", "start": 0, "stop": 5},"#;
    let tokenizer = word_level(strip).unwrap();
    let error = tokenizer.decode(&[0], SpecialTokens::Omit).unwrap_err();
    assert!(matches!(error, TokenizerError::Decode { tokens: 1, .. }));

    let trie = r#""normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"},"#;
    assert!(matches!(
        word_level(trie).unwrap_err(),
        TokenizerError::Vocabulary { .. }
    ));
    let empty = r#""normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="},"#;
    let error = word_level(empty)
        .unwrap()
        .encode("b", SpecialTokens::Omit)
        .unwrap_err();
    assert!(matches!(error, TokenizerError::Encode { bytes: 1, .. }));
}

#[test]
fn clean_up_is_that_of_transformers() {
    assert_eq!(
        clean_up_spaces("It 's a dog , is n't it ?"),
        "It's a dog, isn't it?"
    );
    assert_eq!(clean_up_spaces("a ' b"), "a'b");
}
