//! A byte-level BPE tokenizer, trained on the texts that a small model will read and write.
//!
//! - Bytes are the alphabet (GPT-2's), so every text can be written and comes back as it was.
//! - Digits are always tokens of their own: a small model copies and counts numbers digit by digit
//!   and cannot learn ten thousand number words.
//! - The markup of one chat template is part of the vocabulary: each of its markers is a single
//!   token that no text can be merged with. Markers are found by rendering a conversation and
//!   looking, so a new template needs no list.
//! - A beginning-of-text token is put in front of every text, unless the template writes it itself
//!   (Llama 3), because then there would be two.
//!
//! Training is deterministic: pairs are counted exactly, and ties go to the pair with the smaller
//! ids.

use std::path::Path;
use std::sync::LazyLock;

use opabinia_llm::{ChatTemplate, Conversation, Tokenizer, Turn};
use regex::Regex;
use serde_json::{Value, json};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, PreTokenizerWrapper};

use super::folder::write_json;
use crate::TrainError;

/// What a tokenizer is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerOptions {
    /// Tokens in all, markers included. Fewer come out if the texts have no more pairs to merge.
    pub vocabulary: usize,
    /// Name of the chat template whose markers are tokens.
    pub template: String,
    /// Tokens that the model is trained to see at once; goes to `tokenizer_config.json`.
    pub max_length: usize,
}

/// The tokens with a meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Markers {
    /// Begins a text.
    pub bos: String,
    /// Ends a document.
    pub eos: String,
    /// Fills up batches; never trained, never looked at.
    pub pad: String,
    /// The template's own, in the order in which they appear in a conversation.
    pub markup: Vec<String>,
    /// Whether the template itself writes the beginning of text.
    pub writes_bos: bool,
}

/// Trains a tokenizer on `texts` and writes `tokenizer.json` and `tokenizer_config.json` to
/// `folder`, as transformers' `PreTrainedTokenizerFast` reads them.
///
/// # Errors
/// If the template is unknown, if the vocabulary has no room for bytes and markers, or if the
/// folder cannot be written.
pub fn train_tokenizer<S, I>(
    texts: I,
    options: &TokenizerOptions,
    folder: &Path,
) -> Result<Tokenizer, TrainError>
where
    S: AsRef<str> + Send,
    I: Iterator<Item = S> + Send,
{
    let template = ChatTemplate::by_name(&options.template).map_err(refused)?;
    let markers = Markers::of(template)?;
    check_vocabulary(options.vocabulary, &markers)?;
    let tokenizer = merge_pairs(texts, options.vocabulary, &markers).map_err(|source| {
        TrainError::Refused(format!("could not train the tokenizer: {source}"))
    })?;
    let json = serde_json::to_value(&tokenizer).map_err(|source| {
        TrainError::Refused(format!("could not write the tokenizer as JSON: {source}"))
    })?;
    write_json(folder, "tokenizer.json", &json)?;
    let settings = settings(&markers, &tokenizer, options.max_length);
    write_json(folder, "tokenizer_config.json", &settings)?;
    Ok(Tokenizer::from_folder(folder)?)
}

impl Markers {
    /// What a template writes, and the names that its family gives to the rest.
    ///
    /// # Errors
    /// If the template cannot render an answered question.
    pub fn of(template: &ChatTemplate) -> Result<Self, TrainError> {
        static MARKER: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"<\|[^|<>\s]+\|>|</?s>|<(?:start|end)_of_turn>|<(?:b|e)os>")
                .expect("a constant, and tests run it")
        });
        let turns = vec![Turn::user("?"), Turn::assistant("!")];
        let rendered = match template.style {
            opabinia_llm::template::Style::Plain => String::new(),
            _ => {
                template
                    .render(&Conversation::new(turns))
                    .map_err(refused)?
                    .text
            }
        };
        let mut markup: Vec<String> = Vec::new();
        for found in MARKER.find_iter(&rendered) {
            if !markup.iter().any(|known| known == found.as_str()) {
                markup.push(found.as_str().to_owned());
            }
        }
        let tagged = markup.iter().any(|marker| marker.starts_with("<|"));
        let llama3 = markup.iter().any(|marker| marker == "<|begin_of_text|>");
        let (bos, eos, pad) = match (llama3, tagged) {
            (true, _) => ("<|begin_of_text|>", "<|end_of_text|>", "<|pad|>"),
            (false, true) => ("<|startoftext|>", "<|endoftext|>", "<|pad|>"),
            (false, false) => ("<s>", "</s>", "<pad>"),
        };
        Ok(Self {
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            pad: pad.to_owned(),
            writes_bos: rendered.starts_with(bos),
            markup,
        })
    }

    /// All of them once, in the order of their ids: padding is token 0.
    fn all(&self) -> Vec<&str> {
        let mut all: Vec<&str> = vec![&self.pad, &self.bos, &self.eos];
        for marker in &self.markup {
            if !all.contains(&marker.as_str()) {
                all.push(marker);
            }
        }
        all
    }
}

fn refused(error: impl std::fmt::Display) -> TrainError {
    TrainError::Refused(error.to_string())
}

fn check_vocabulary(vocabulary: usize, markers: &Markers) -> Result<(), TrainError> {
    let least = 256 + markers.all().len();
    if vocabulary >= least {
        return Ok(());
    }
    Err(TrainError::Refused(format!(
        "a vocabulary of {vocabulary} tokens is too small: 256 bytes and the template's {} markers \
         need {least}",
        least - 256
    )))
}

fn merge_pairs<S, I>(
    texts: I,
    vocabulary: usize,
    markers: &Markers,
) -> tokenizers::Result<tokenizers::Tokenizer>
where
    S: AsRef<str> + Send,
    I: Iterator<Item = S> + Send,
{
    let split: Vec<PreTokenizerWrapper> = vec![
        Digits::new(true).into(),
        ByteLevel::new(false, false, true).into(),
    ];
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(Sequence::new(split)))
        .with_decoder(Some(ByteLevel::new(false, false, true)));
    let special = |text: &&str| AddedToken::from((*text).to_owned(), true).normalized(false);
    let trainer = BpeTrainer::builder()
        .vocab_size(vocabulary)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(markers.all().iter().map(special).collect())
        .build();
    tokenizer.train(&mut TrainerWrapper::from(trainer), texts)?;
    if !markers.writes_bos {
        let id = tokenizer
            .token_to_id(&markers.bos)
            .ok_or("the marker for the beginning of text was not made a token")?;
        let processing = TemplateProcessing::builder()
            .try_single(format!("{}:0 $A:0", markers.bos))?
            .try_pair(format!("{0}:0 $A:0 {0}:1 $B:1", markers.bos))?
            .special_tokens(vec![(markers.bos.clone(), id)])
            .build()?;
        tokenizer.with_post_processor(Some(processing));
    }
    Ok(tokenizer)
}

/// `tokenizer_config.json` in transformers' words.
fn settings(markers: &Markers, tokenizer: &tokenizers::Tokenizer, max_length: usize) -> Value {
    let mut decoder = serde_json::Map::new();
    for marker in markers.all() {
        if let Some(id) = tokenizer.token_to_id(marker) {
            let entry = json!({
                "content": marker, "lstrip": false, "normalized": false, "rstrip": false,
                "single_word": false, "special": true,
            });
            decoder.insert(id.to_string(), entry);
        }
    }
    json!({
        "added_tokens_decoder": decoder,
        "additional_special_tokens": markers.markup,
        "bos_token": markers.bos,
        "clean_up_tokenization_spaces": false,
        "eos_token": markers.eos,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max_length,
        "pad_token": markers.pad,
        "padding_side": "right",
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
}

#[cfg(test)]
mod tests {
    use opabinia_llm::SpecialTokens;
    use proptest::prelude::*;

    use super::*;

    fn options(template: &str) -> TokenizerOptions {
        TokenizerOptions {
            vocabulary: 320,
            template: template.to_owned(),
            max_length: 256,
        }
    }

    fn texts() -> impl Iterator<Item = String> + Send {
        (0..200).map(|i| format!("There are {i} red balls and {} blue cubes.", i % 7))
    }

    fn trained(template: &str) -> (tempfile::TempDir, Tokenizer) {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = train_tokenizer(texts(), &options(template), folder.path()).unwrap();
        (folder, tokenizer)
    }

    #[test]
    fn markers_are_found_in_what_a_template_writes() {
        let of = |name| Markers::of(ChatTemplate::by_name(name).unwrap()).unwrap();
        let llama = of("llama_3");
        assert!(llama.writes_bos);
        assert_eq!(
            llama.markup,
            [
                "<|begin_of_text|>",
                "<|start_header_id|>",
                "<|end_header_id|>",
                "<|eot_id|>"
            ]
        );
        assert_eq!(of("vicuna_v1").markup, ["</s>"]);
        assert_eq!(of("chatml_direct").markup, ["<|im_start|>", "<|im_end|>"]);
        assert!(of("plain").markup.is_empty());
    }

    #[test]
    fn markers_are_single_tokens_and_digits_stand_alone() {
        let (_folder, tokenizer) = trained("llama_3");
        for marker in ["<|pad|>", "<|begin_of_text|>", "<|eot_id|>"] {
            let ids = tokenizer.encode(marker, SpecialTokens::Omit).unwrap();
            assert_eq!(ids.len(), 1, "{marker}");
            assert!(tokenizer.is_special(ids[0]));
        }
        assert_eq!(tokenizer.pad_id(), Some(0));
        let ids = tokenizer.encode("1234", SpecialTokens::Omit).unwrap();
        assert_eq!(ids.len(), 4);
        // Frequent words were merged.
        let ids = tokenizer.encode(" balls", SpecialTokens::Omit).unwrap();
        assert_eq!(ids.len(), 1);
    }

    /// One beginning of text, whoever writes it.
    #[test]
    fn a_prompt_begins_once() {
        for template in ["llama_3", "vicuna_v1", "chatml_direct"] {
            let (_folder, tokenizer) = trained(template);
            let chat = ChatTemplate::by_name(template).unwrap();
            let prompt = chat.render(&Conversation::question("How many?")).unwrap();
            let ids = tokenizer
                .encode(&prompt.text, SpecialTokens::Include)
                .unwrap();
            let bos = tokenizer.bos_id().unwrap();
            assert_eq!(ids[0], bos, "{template}");
            assert_eq!(ids.iter().filter(|id| **id == bos).count(), 1);
        }
    }

    #[test]
    fn the_same_texts_give_the_same_files() {
        let (first, _) = trained("llama_3");
        let (second, _) = trained("llama_3");
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            let read =
                |folder: &tempfile::TempDir| std::fs::read(folder.path().join(name)).unwrap();
            assert_eq!(read(&first), read(&second), "{name}");
        }
    }

    #[test]
    fn a_vocabulary_without_room_for_bytes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let small = TokenizerOptions {
            vocabulary: 256,
            ..options("llama_3")
        };
        let error = train_tokenizer(texts(), &small, folder.path()).unwrap_err();
        assert!(error.to_string().contains("too small"), "{error}");
        let unknown = options("lama_3");
        assert!(train_tokenizer(texts(), &unknown, folder.path()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever is written is read back, trained on or not.
        #[test]
        fn texts_survive_a_round_trip(text in "\\PC{0,40}|[a-z0-9 \n\t]{0,40}") {
            static TRAINED: LazyLock<(tempfile::TempDir, Tokenizer)> =
                LazyLock::new(|| trained("vicuna_v1"));
            let tokenizer = &TRAINED.1;
            let ids = tokenizer.encode(&text, SpecialTokens::Omit).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids, SpecialTokens::Include).unwrap(), text);
        }
    }
}
