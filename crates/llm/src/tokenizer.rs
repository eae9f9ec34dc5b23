//! Text to token ids and back, with the tokenizer that a model folder brings along.
//!
//! A folder's `tokenizer.json` is read by the `tokenizers` crate; a folder that has only
//! sentencepiece's `tokenizer.model` is converted to the same thing (see
//! [`crate::sentencepiece`]). What the folder says of special tokens beside the vocabulary is
//! applied on top, as transformers does it.
//!
//! [`Tokenizer::encode_with_images`] is the reference's way of tokenizing a prompt with images
//! (Cambrian-1, arXiv 2406.16860): the text between placeholders is tokenized piece by piece, each
//! piece as a text of its own, and only the first keeps its beginning-of-text token.

use std::error::Error;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::json;
use tokenizers::{AddedToken, Encoding, PostProcessorWrapper};

use crate::sentencepiece::{self, SentencePieceError};
use crate::template::IMAGE_PLACEHOLDER;

mod settings;

use settings::{Ends, Settings};

/// Ten times the largest vocabulary known to us.
const MAX_BYTES: u64 = 512 << 20;

/// Why a tokenizer cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The folder has no file with a vocabulary.
    #[error(
        "no tokenizer in `{}`: it has neither `tokenizer.json` nor `tokenizer.model`",
        .folder.display()
    )]
    Missing {
        /// The model folder.
        folder: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is larger than any tokenizer is.
    #[error("`{}` has {bytes} bytes, the limit for a file of a tokenizer is {limit}", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// A settings file is not what it should be.
    #[error("cannot understand `{}`", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        source: serde_json::Error,
    },
    /// `tokenizer.json` is damaged or of an unknown kind.
    #[error("cannot build a tokenizer from `{}`", .path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// `tokenizer.model` is damaged or of an unknown kind.
    #[error("cannot build a tokenizer from `{}`", .path.display())]
    SentencePiece {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SentencePieceError,
    },
    /// Two files of the folder disagree; one of them belongs to another model.
    #[error(
        "the settings in `{}` say that `{token}` is token {stated}, but the vocabulary makes it \
         token {found}",
        .folder.display()
    )]
    IdMismatch {
        /// The model folder.
        folder: PathBuf,
        /// Text of the token.
        token: String,
        /// Its id in `tokenizer_config.json` or `added_tokens.json`.
        stated: u32,
        /// Its id in the tokenizer.
        found: u32,
    },
    /// A text cannot be tokenized.
    #[error("cannot tokenize a text of {bytes} bytes")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// What is wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Tokens cannot be turned into text.
    #[error("cannot turn {tokens} tokens into text")]
    Decode {
        /// Number of tokens.
        tokens: usize,
        /// What is wrong.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// What happens to special tokens (beginning of text, end of turn, …).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Encoding puts those around the text that the tokenizer is set to; decoding writes them out.
    Include,
    /// Encoding adds none (those written in the text still count); decoding leaves them out.
    Omit,
}

/// One element of a prompt with images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptToken {
    /// A token of the vocabulary.
    Text(u32),
    /// The place of an image, −200 in the reference.
    Image,
}

/// A [`PromptToken`] and where in the prompt it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedToken {
    /// The token.
    pub token: PromptToken,
    /// Bytes of the prompt that it covers. Empty for tokens that the tokenizer added. White space
    /// at its ends may be left out, and tokens that share a character share its range; so ask for
    /// its *end* when deciding which part of a prompt a token belongs to.
    pub bytes: Range<usize>,
}

/// A tokenizer of a model folder.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same without an eye for special tokens; made when first needed.
    blind: OnceLock<Box<tokenizers::Tokenizer>>,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    model_max_length: Option<usize>,
    clean_up_spaces: bool,
    /// Whether a text that begins with a space gets another in front, as any other text would.
    /// The reference's (slow) tokenizers do so where the `tokenizers` crate does not.
    doubled_space: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads the tokenizer of a model folder. `tokenizer.json` is preferred to `tokenizer.model`.
    ///
    /// # Errors
    /// If the folder has neither, if a file cannot be read or understood, or if the files disagree
    /// about the id of a token.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let folder = folder.as_ref();
        let settings = Settings::read(folder)?;
        let json = folder.join("tokenizer.json");
        let model = folder.join("tokenizer.model");
        if json.is_file() {
            return Self::with_settings(from_json(&json, &settings)?, &settings, folder);
        }
        if !model.is_file() {
            return Err(TokenizerError::Missing {
                folder: folder.to_owned(),
            });
        }
        let tokenizer =
            Self::with_settings(from_sentencepiece(&model, &settings)?, &settings, folder)?;
        Ok(Self {
            doubled_space: !settings.legacy() && settings.add_prefix_space() != Some(false),
            ..tokenizer
        })
    }

    fn with_settings(
        mut inner: tokenizers::Tokenizer,
        settings: &Settings,
        folder: &Path,
    ) -> Result<Self, TokenizerError> {
        add_missing_tokens(&mut inner, settings);
        for (&stated, token) in &settings.added {
            match inner.token_to_id(&token.content) {
                Some(found) if found != stated => {
                    let (folder, token) = (folder.to_owned(), token.content.clone());
                    return Err(TokenizerError::IdMismatch {
                        folder,
                        token,
                        stated,
                        found,
                    });
                }
                _ => {}
            }
        }
        let id = |token: &Option<String>| token.as_ref().and_then(|t| inner.token_to_id(t));
        Ok(Self {
            bos: id(&settings.bos),
            eos: id(&settings.eos),
            pad: id(&settings.pad),
            model_max_length: settings.model_max_length,
            clean_up_spaces: settings.clean_up_spaces(),
            doubled_space: false,
            blind: OnceLock::new(),
            inner,
        })
    }

    /// Ids of a text.
    ///
    /// # Errors
    /// If the tokenizer has no way to write some part of the text.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.encoding(text, special)?.get_ids().to_vec())
    }

    /// Ids of a prompt whose images are written as `<image>`.
    ///
    /// Every stretch of text between images is tokenized as a text of its own; the
    /// beginning-of-text token that each of them gets stays on the first only.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_images(&self, prompt: &str) -> Result<Vec<PromptToken>, TokenizerError> {
        Ok(self
            .encode_with_places(prompt)?
            .into_iter()
            .map(|placed| placed.token)
            .collect())
    }

    /// [`Tokenizer::encode_with_images`] with the bytes of the prompt that each token covers.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_places(&self, prompt: &str) -> Result<Vec<PlacedToken>, TokenizerError> {
        let mut placed = Vec::new();
        let mut start = 0;
        for (index, text) in prompt.split(IMAGE_PLACEHOLDER).enumerate() {
            if index > 0 {
                let bytes = start..start + IMAGE_PLACEHOLDER.len();
                start = bytes.end;
                placed.push(PlacedToken {
                    token: PromptToken::Image,
                    bytes,
                });
            }
            let encoding = self.encoding(text, SpecialTokens::Include)?;
            let ids = encoding.get_ids();
            let repeated = index > 0 && self.bos.is_some() && ids.first().copied() == self.bos;
            let shift = usize::from(self.gets_another_space(text));
            let place = |at: usize| start + at.saturating_sub(shift);
            let tokens = ids
                .iter()
                .zip(encoding.get_offsets())
                .skip(usize::from(repeated));
            placed.extend(tokens.map(|(&id, &(from, to))| PlacedToken {
                token: PromptToken::Text(id),
                bytes: place(from)..place(to),
            }));
            start += text.len();
        }
        Ok(placed)
    }

    /// [`Tokenizer::encode_with_places`] where some bytes of the prompt are mere text: a special
    /// token that is written inside one of `literal` is spelled out in ordinary tokens, so that
    /// whoever writes `</s>` or `<|eot_id|>` into a question ends nothing with it. Everything else
    /// is tokenized as ever, and each of the spelling tokens has the place of what it spells.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_literals(
        &self,
        prompt: &str,
        literal: &[Range<usize>],
    ) -> Result<Vec<PlacedToken>, TokenizerError> {
        let mut placed = Vec::new();
        for token in self.encode_with_places(prompt)? {
            let PromptToken::Text(id) = token.token else {
                placed.push(token);
                continue;
            };
            let bytes = token.bytes.clone();
            let inside = |text: &Range<usize>| text.start <= bytes.start && bytes.end <= text.end;
            let written = prompt.get(bytes.clone()).filter(|text| !text.is_empty());
            match written {
                Some(text) if self.is_special(id) && literal.iter().any(inside) => {
                    let ids = self.spell(text)?;
                    placed.extend(ids.into_iter().map(|id| PlacedToken {
                        token: PromptToken::Text(id),
                        bytes: bytes.clone(),
                    }));
                }
                _ => placed.push(token),
            }
        }
        Ok(placed)
    }

    /// Ordinary tokens for a text, even if it is the text of a special token.
    fn spell(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        // What stands at the beginning of a text may get a space in front, so something else
        // stands there; no vocabulary joins a line break with what follows it.
        const FRONT: &str = "\n";
        let blind = self.blind.get_or_init(|| {
            let mut blind = self.inner.clone();
            blind.set_encode_special_tokens(true);
            Box::new(blind)
        });
        let text = format!("{FRONT}{text}");
        let encoding = guarded(|| blind.encode(text.as_str(), false)).map_err(|source| {
            TokenizerError::Encode {
                bytes: text.len(),
                source,
            }
        })?;
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        Ok(tokens
            .filter(|(_, (_, end))| *end > FRONT.len())
            .map(|(&id, _)| id)
            .collect())
    }

    /// Text of some ids. Ids that are no token at all (a model's output layer may be padded) are
    /// left out.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], special: SpecialTokens) -> Result<String, TokenizerError> {
        guarded(|| self.inner.decode(ids, special == SpecialTokens::Omit)).map_err(|source| {
            TokenizerError::Decode {
                tokens: ids.len(),
                source,
            }
        })
    }

    /// A whole answer as the reference prints it: without special tokens, without white space at
    /// its ends, and, if the checkpoint's tokenizer is set to it, without spaces in front of
    /// punctuation (transformers' `clean_up_tokenization_spaces`).
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn decode_answer(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let text = self.decode(ids, SpecialTokens::Omit)?;
        let text = if self.clean_up_spaces {
            clean_up_spaces(&text)
        } else {
            text
        };
        Ok(text.trim().to_owned())
    }

    /// Id of the token with this text.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Text of a token as the vocabulary writes it, markup for spaces and bytes included.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether a token is left out by [`SpecialTokens::Omit`].
    pub fn is_special(&self, id: u32) -> bool {
        self.inner
            .id_to_token(id)
            .is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// Number of tokens, added ones included. A model may have more rows than that.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token that begins a text, if the checkpoint names one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, as the tokenizer's settings name it. What ends *generation* is
    /// said by the checkpoint's `generation_config.json`, and may be more than one token.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// The token that fills up batches, if the checkpoint names one.
    pub fn pad_id(&self) -> Option<u32> {
        self.pad
    }

    /// Tokens that the checkpoint was trained to see at once, if its settings give a number.
    pub fn model_max_length(&self) -> Option<usize> {
        self.model_max_length
    }

    fn gets_another_space(&self, text: &str) -> bool {
        self.doubled_space && text.starts_with(' ')
    }

    fn encoding(&self, text: &str, special: SpecialTokens) -> Result<Encoding, TokenizerError> {
        let doubled = self.gets_another_space(text).then(|| format!(" {text}"));
        let written = doubled.as_deref().unwrap_or(text);
        guarded(|| {
            self.inner
                .encode(written, special == SpecialTokens::Include)
        })
        .map_err(|source| TokenizerError::Encode {
            bytes: text.len(),
            source,
        })
    }
}

/// Runs a call into the `tokenizers` crate. It indexes and unwraps where only a damaged file can
/// lead it (a decoder that strips more characters than a token has, a trie without a root), and
/// such files can be told from good ones only by trying; so, as a last resort, a panic is caught.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        Err("the tokenizer contradicts itself; its file is damaged or not meant for this".into())
    })
}

fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, TokenizerError> {
    let io = |source| TokenizerError::Io {
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    if bytes > limit {
        return Err(TokenizerError::TooLarge {
            path: path.to_owned(),
            bytes,
            limit,
        });
    }
    std::fs::read(path).map_err(io)
}

fn from_json(path: &Path, settings: &Settings) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let bytes = read_limited(path, MAX_BYTES)?;
    guarded(|| {
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes)?;
        // Whoever builds a batch pads and truncates it; a file must not.
        inner.with_padding(None).with_truncation(None)?;
        if let Some(ends) = settings.ends_of_class() {
            put_ends(&mut inner, settings, ends)?;
        }
        Ok(inner)
    })
    .map_err(|source| TokenizerError::Vocabulary {
        path: path.to_owned(),
        source,
    })
}

fn from_sentencepiece(
    path: &Path,
    settings: &Settings,
) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let bytes = read_limited(path, MAX_BYTES)?;
    let options = sentencepiece::Options {
        legacy: settings.legacy(),
        add_prefix_space: settings.add_prefix_space(),
    };
    let mut inner =
        sentencepiece::build(&bytes, options).map_err(|source| TokenizerError::SentencePiece {
            path: path.to_owned(),
            source,
        })?;
    put_ends(&mut inner, settings, settings.ends()).map_err(|source| {
        TokenizerError::Vocabulary {
            path: path.to_owned(),
            source,
        }
    })?;
    Ok(inner)
}

/// Makes the tokenizer put the beginning and the end of text around every text, if it is to and
/// has such tokens.
fn put_ends(
    inner: &mut tokenizers::Tokenizer,
    settings: &Settings,
    ends: Ends,
) -> tokenizers::Result<()> {
    let id = |token: &Option<String>, wanted: bool| {
        let token = token.as_deref().filter(|_| wanted)?;
        Some((token.to_owned(), inner.token_to_id(token)?))
    };
    let bos = id(&settings.bos, ends.bos);
    let eos = id(&settings.eos, ends.eos);
    if bos.is_none() && eos.is_none() {
        inner.with_post_processor(None::<PostProcessorWrapper>);
        return Ok(());
    }
    let piece = |(token, _): &(String, u32), sequence: u32| json!({"SpecialToken": {"id": token, "type_id": sequence}});
    let around = |name: &str, sequence: u32| {
        let text = json!({"Sequence": {"id": name, "type_id": sequence}});
        let bos = bos.iter().map(|token| piece(token, sequence));
        let eos = eos.iter().map(|token| piece(token, sequence));
        bos.chain([text]).chain(eos).collect::<Vec<_>>()
    };
    let pair = [around("A", 0), around("B", 1)].concat();
    let special_tokens: serde_json::Map<_, _> = bos
        .iter()
        .chain(&eos)
        .map(|(token, id)| {
            (
                token.clone(),
                json!({"id": token, "ids": [id], "tokens": [token]}),
            )
        })
        .collect();
    let template = json!({
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": pair,
        "special_tokens": special_tokens,
    });
    let template: PostProcessorWrapper = serde_json::from_value(template)?;
    inner.with_post_processor(Some(template));
    Ok(())
}

/// Adds the tokens that the settings name and the vocabulary file did not add itself: those with
/// an id in the order of their ids, then special tokens that are known by their text only.
fn add_missing_tokens(inner: &mut tokenizers::Tokenizer, settings: &Settings) {
    let known = inner.get_added_vocabulary().get_vocab();
    let mut missing: Vec<AddedToken> = Vec::new();
    let with_id = settings.added.values().cloned();
    let by_text = settings
        .special_texts()
        .map(|text| AddedToken::from(text, true));
    for token in with_id.chain(by_text) {
        let listed = missing.iter().any(|other| other.content == token.content);
        if !listed && !known.contains_key(&token.content) {
            missing.push(token);
        }
    }
    if !missing.is_empty() {
        inner.add_tokens(&missing);
    }
}

/// The replacements of transformers' `clean_up_tokenization`, in its order.
fn clean_up_spaces(text: &str) -> String {
    const REPLACEMENTS: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    REPLACEMENTS
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
pub(crate) mod tests;
