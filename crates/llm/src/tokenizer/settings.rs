//! What a model folder says of its tokenizer beside the vocabulary: `tokenizer_config.json`,
//! `special_tokens_map.json` and `added_tokens.json`.
//!
//! The three overlap. As in transformers, `tokenizer_config.json` wins, the other two fill what it
//! leaves open. Keys that do not concern tokens are not read; the files are not ours.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::AddedToken;

use super::{TokenizerError, read_limited};

/// A few kilobytes in every known checkpoint.
const MAX_BYTES: u64 = 16 << 20;

/// Lengths above this are transformers' way of writing "no limit" (`1e30`).
const MAX_LENGTH: f64 = 1e9;

/// Settings of a tokenizer, merged from all files that were there.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    class: Option<String>,
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub unk: Option<String>,
    pub pad: Option<String>,
    pub additional: Vec<String>,
    /// Tokens beside the vocabulary's own, by id.
    pub added: BTreeMap<u32, AddedToken>,
    add_bos: Option<bool>,
    add_eos: Option<bool>,
    legacy: Option<bool>,
    add_prefix_space: Option<bool>,
    pub model_max_length: Option<usize>,
    clean_up_spaces: Option<bool>,
}

/// Which special tokens a tokenizer puts around a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub bos: bool,
    pub eos: bool,
}

impl Settings {
    /// Reads whichever of the files `folder` has; none of them has to be there.
    pub fn read(folder: &Path) -> Result<Self, TokenizerError> {
        let config: ConfigFile = read_json(&folder.join("tokenizer_config.json"))?;
        let map: SpecialTokens = read_json(&folder.join("special_tokens_map.json"))?;
        let added: BTreeMap<String, u32> = read_json(&folder.join("added_tokens.json"))?;
        let special = config.special.or(map);
        let mut settings = Self {
            class: config.tokenizer_class,
            bos: special.bos_token.map(TokenField::text),
            eos: special.eos_token.map(TokenField::text),
            unk: special.unk_token.map(TokenField::text),
            pad: special.pad_token.map(TokenField::text),
            additional: special
                .additional_special_tokens
                .unwrap_or_default()
                .into_iter()
                .map(TokenField::text)
                .collect(),
            added: BTreeMap::new(),
            add_bos: config.add_bos_token,
            add_eos: config.add_eos_token,
            legacy: config.legacy,
            add_prefix_space: config.add_prefix_space,
            model_max_length: config.model_max_length.and_then(finite_length),
            clean_up_spaces: config.clean_up_tokenization_spaces,
        };
        for (id, entry) in config.added_tokens_decoder.unwrap_or_default() {
            settings.added.insert(id, entry.into());
        }
        for (text, id) in added {
            let special = settings.special_texts().any(|known| known == text);
            let token = AddedToken::from(text, special).normalized(false);
            settings.added.entry(id).or_insert(token);
        }
        Ok(settings)
    }

    /// Texts of all tokens that have a special meaning.
    pub fn special_texts(&self) -> impl Iterator<Item = &str> {
        [&self.bos, &self.eos, &self.unk, &self.pad]
            .into_iter()
            .flatten()
            .chain(&self.additional)
            .map(String::as_str)
    }

    /// What this folder's tokenizer class puts around a text, if the class does so itself; `None`
    /// if `tokenizer.json` has the say. The defaults are those of transformers' classes.
    pub fn ends_of_class(&self) -> Option<Ends> {
        self.is_sentencepiece_class().then_some(self.ends())
    }

    /// What is put around a text by a tokenizer that has no `tokenizer.json`.
    pub fn ends(&self) -> Ends {
        Ends {
            bos: self.add_bos.unwrap_or(true),
            eos: self.add_eos.unwrap_or(false),
        }
    }

    /// Whether every stretch of text between special tokens gets a space in front (transformers'
    /// `legacy` behaviour and its default), not only the first.
    pub fn legacy(&self) -> bool {
        self.legacy.unwrap_or(true)
    }

    /// Whether a space is put in front of a text, where the settings say so.
    pub fn add_prefix_space(&self) -> Option<bool> {
        self.add_prefix_space
    }

    /// Whether transformers removes spaces in front of punctuation from decoded text. Its default
    /// is to do so, but for the classes around sentencepiece.
    pub fn clean_up_spaces(&self) -> bool {
        self.clean_up_spaces
            .unwrap_or(!self.is_sentencepiece_class())
    }

    fn is_sentencepiece_class(&self) -> bool {
        const CLASSES: [&str; 6] = [
            "LlamaTokenizer",
            "LlamaTokenizerFast",
            "CodeLlamaTokenizer",
            "CodeLlamaTokenizerFast",
            "GemmaTokenizer",
            "GemmaTokenizerFast",
        ];
        self.class
            .as_deref()
            .is_some_and(|class| CLASSES.contains(&class))
    }
}

fn finite_length(length: f64) -> Option<usize> {
    // The range is checked, and a fraction of a token means nothing.
    (1.0..=MAX_LENGTH)
        .contains(&length)
        .then_some(length as usize)
}

fn read_json<T: DeserializeOwned + Default>(path: &Path) -> Result<T, TokenizerError> {
    if !path.is_file() {
        return Ok(T::default());
    }
    let bytes = read_limited(path, MAX_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|source| TokenizerError::Json {
        path: path.to_owned(),
        source,
    })
}

#[derive(Default, Deserialize)]
struct ConfigFile {
    tokenizer_class: Option<String>,
    #[serde(flatten)]
    special: SpecialTokens,
    added_tokens_decoder: Option<BTreeMap<u32, TokenEntry>>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    legacy: Option<bool>,
    add_prefix_space: Option<bool>,
    model_max_length: Option<f64>,
    clean_up_tokenization_spaces: Option<bool>,
}

#[derive(Default, Deserialize)]
struct SpecialTokens {
    bos_token: Option<TokenField>,
    eos_token: Option<TokenField>,
    unk_token: Option<TokenField>,
    pad_token: Option<TokenField>,
    additional_special_tokens: Option<Vec<TokenField>>,
}

impl SpecialTokens {
    fn or(self, other: Self) -> Self {
        Self {
            bos_token: self.bos_token.or(other.bos_token),
            eos_token: self.eos_token.or(other.eos_token),
            unk_token: self.unk_token.or(other.unk_token),
            pad_token: self.pad_token.or(other.pad_token),
            additional_special_tokens: self
                .additional_special_tokens
                .or(other.additional_special_tokens),
        }
    }
}

/// A token is written as its text or as an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenField {
    Text(String),
    Entry(TokenEntry),
}

impl TokenField {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Entry(entry) => entry.content,
        }
    }
}

#[derive(Deserialize)]
struct TokenEntry {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

impl From<TokenEntry> for AddedToken {
    fn from(entry: TokenEntry) -> Self {
        Self::from(entry.content, entry.special)
            .single_word(entry.single_word)
            .lstrip(entry.lstrip)
            .rstrip(entry.rstrip)
            .normalized(entry.normalized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Settings, TokenizerError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Settings::read(folder.path())
    }

    #[test]
    fn an_empty_folder_has_defaults() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.bos, None);
        assert_eq!(
            settings.ends(),
            Ends {
                bos: true,
                eos: false
            }
        );
        assert_eq!(settings.ends_of_class(), None);
        assert!(settings.legacy() && settings.clean_up_spaces());
    }

    #[test]
    fn files_fill_each_other_up() {
        let settings = read(&[
            (
                "tokenizer_config.json",
                r#"{"tokenizer_class": "LlamaTokenizer", "add_bos_token": false, "legacy": false,
                    "bos_token": {"content": "<s>", "lstrip": false}, "pad_token": null,
                    "model_max_length": 1000000000000000019884624838656,
                    "added_tokens_decoder": {"7": {"content": "<|im_end|>", "special": true}}}"#,
            ),
            (
                "special_tokens_map.json",
                r#"{"bos_token": "<other>", "eos_token": "</s>"}"#,
            ),
            ("added_tokens.json", r#"{"<extra>": 8, "<shadowed>": 7}"#),
        ])
        .unwrap();
        assert_eq!(settings.bos.as_deref(), Some("<s>"));
        assert_eq!(settings.eos.as_deref(), Some("</s>"));
        assert_eq!(settings.pad, None);
        assert_eq!(settings.model_max_length, None);
        assert_eq!(
            settings.ends_of_class(),
            Some(Ends {
                bos: false,
                eos: false
            })
        );
        assert!(!settings.legacy() && !settings.clean_up_spaces());
        let added: Vec<_> = settings
            .added
            .iter()
            .map(|(id, t)| (*id, &*t.content))
            .collect();
        assert_eq!(added, [(7, "<|im_end|>"), (8, "<extra>")]);
        assert!(settings.added[&7].special && !settings.added[&8].special);
    }

    #[test]
    fn a_broken_file_is_named() {
        let error = read(&[("added_tokens.json", "{\"<a>\": -1}")]).unwrap_err();
        assert!(error.to_string().contains("added_tokens.json"), "{error}");
    }
}
