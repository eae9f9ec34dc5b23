//! Reads `tokenizer.model`, the file of the sentencepiece library, into the tokenizer of the
//! `tokenizers` crate that gives the same tokens.
//!
//! Vicuna and its kin publish only this file. The conversion is the one that transformers makes
//! for its Llama classes: a BPE or Unigram model over text whose spaces became `▁`, bytes where no
//! piece fits, and control pieces matched before anything else. BPE files hold scores, not merges;
//! a merge is every way of cutting a piece into two pieces, and the score of the whole orders them.
//!
//! In one thing it follows sentencepiece itself, as the reference does, which runs transformers'
//! slow tokenizers: user-defined pieces are cut out of a text *after* it got its leading space, so
//! no space appears behind them.
//!
//! Two differences are left, as in transformers' own conversion: a Unigram model takes a byte that
//! a text spells out (`<0x41>`) for the byte, and where only the first stretch of text gets a space
//! in front (`legacy` off), it gets none if it begins with one. The latter is mended by
//! [`crate::Tokenizer`], which writes that space itself.
//!
//! Field numbers are those of sentencepiece's `sentencepiece_model.proto`. Not supported, and
//! refused: word and character models, and spaces marked behind words.

use std::collections::HashMap;

use prost::Message;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Prepend, Replace};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer, decoders, normalizers, pre_tokenizers,
};

/// What stands for a space inside pieces.
const SPACE: &str = "▁";

/// Sentencepiece itself writes pieces of at most 16 characters unless told otherwise. A limit keeps
/// the search for merges, which is quadratic in it, short on damaged files.
const MAX_PIECE_BYTES: usize = 1024;

/// Why a `tokenizer.model` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SentencePieceError {
    /// Not a protobuf message of this kind.
    #[error("the file is not a sentencepiece model")]
    Protobuf(#[from] prost::DecodeError),
    /// A field has a value that no sentencepiece model has.
    #[error("piece {id}: {reason}")]
    Piece {
        /// Index of the piece, which is its token id.
        id: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No piece stands for unknown text.
    #[error("none of the {pieces} pieces stands for unknown text")]
    NoUnknown {
        /// Number of pieces in the file.
        pieces: usize,
    },
    /// A setting that is not supported.
    #[error("{setting} is not supported; publish a `tokenizer.json` beside the file")]
    Unsupported {
        /// The setting.
        setting: String,
    },
    /// The parts do not make a tokenizer.
    #[error("the pieces do not make a tokenizer")]
    Build(#[source] tokenizers::Error),
}

/// Settings that stand in `tokenizer_config.json`, not in the model file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Every stretch of text between special tokens gets the space in front, not only the first.
    pub legacy: bool,
    /// Overrides what the file says about that space.
    pub add_prefix_space: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(enumeration = "PieceKind", optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum PieceKind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerSpec {
    #[prost(enumeration = "ModelKind", optional, tag = "3")]
    model: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum ModelKind {
    Unigram = 1,
    Bpe = 2,
    Word = 3,
    Char = 4,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerSpec {
    #[prost(bytes = "vec", optional, tag = "2")]
    charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    escape_whitespaces: Option<bool>,
}

impl Piece {
    /// Whether ordinary text is cut into this piece. The others are matched as a whole (control,
    /// user-defined) or stand in for what no piece covers (unknown, byte).
    fn is_text(&self) -> bool {
        matches!(self.kind(), PieceKind::Normal | PieceKind::Unused)
    }
}

/// Builds the tokenizer of a `tokenizer.model`. It adds no special tokens around a text.
///
/// # Errors
/// If the bytes are not a sentencepiece model, or one of a kind that is not supported.
pub(crate) fn build(bytes: &[u8], options: Options) -> Result<Tokenizer, SentencePieceError> {
    let file = ModelProto::decode(bytes)?;
    let trainer = file.trainer.unwrap_or_default();
    let normalizer = file.normalizer.unwrap_or_default();
    refuse_unsupported(&trainer, &normalizer)?;
    check_pieces(&file.pieces)?;

    let model = match trainer
        .model
        .map_or(Ok(ModelKind::Unigram), ModelKind::try_from)
    {
        Ok(ModelKind::Bpe) => bpe(&file.pieces, trainer.byte_fallback())?,
        Ok(ModelKind::Unigram) => unigram(&file.pieces, trainer.byte_fallback())?,
        Ok(kind) => return Err(unsupported(format!("a model of kind {kind:?}"))),
        Err(kind) => return Err(unsupported(format!("a model of an unknown kind, {kind}"))),
    };
    let mut tokenizer = Tokenizer::new(model);

    // Without `legacy` transformers switches the file's own prefix off and writes one itself.
    let in_file = normalizer.add_dummy_prefix();
    let prefix = options
        .add_prefix_space
        .unwrap_or(in_file || !options.legacy);
    let mut normal = normalizer_steps(&normalizer)?;
    let mut cuts: Vec<PreTokenizerWrapper> = Vec::new();
    if options.legacy {
        if prefix {
            normal.push(Prepend::new(SPACE.to_owned()).into());
        }
        normal.push(replace(" ", SPACE)?.into());
    } else {
        let scheme = if prefix {
            PrependScheme::First
        } else {
            PrependScheme::Never
        };
        cuts.push(Metaspace::new('▁', scheme, false).into());
    }
    cuts.extend(user_defined_cut(&file.pieces)?.map(Into::into));
    // Sentencepiece's decoder takes away what its normalizer may have put there or removed.
    let spaces = match (normalizer.remove_extra_whitespaces(), prefix) {
        (true, _) => usize::MAX,
        (false, true) => 1,
        (false, false) => 0,
    };
    tokenizer.with_normalizer(Some(normalizers::Sequence::new(normal)));
    tokenizer.with_pre_tokenizer(Some(pre_tokenizers::sequence::Sequence::new(cuts)));
    tokenizer.with_decoder(Some(decoder(spaces)?));
    tokenizer.add_tokens(&special_pieces(&file.pieces));
    Ok(tokenizer)
}

fn unsupported(setting: impl Into<String>) -> SentencePieceError {
    SentencePieceError::Unsupported {
        setting: setting.into(),
    }
}

fn refuse_unsupported(
    trainer: &TrainerSpec,
    normalizer: &NormalizerSpec,
) -> Result<(), SentencePieceError> {
    if trainer.whitespace_as_suffix() {
        return Err(unsupported("`treat_whitespace_as_suffix = true`"));
    }
    if !normalizer.escape_whitespaces() {
        return Err(unsupported("`escape_whitespaces = false`"));
    }
    Ok(())
}

fn check_pieces(pieces: &[Piece]) -> Result<(), SentencePieceError> {
    let mut seen = HashMap::with_capacity(pieces.len());
    for (id, piece) in pieces.iter().enumerate() {
        let text = piece.text();
        let reason = if text.is_empty() {
            "its text is empty".to_owned()
        } else if text.len() > MAX_PIECE_BYTES {
            format!(
                "its text has {} bytes, the limit is {MAX_PIECE_BYTES}",
                text.len()
            )
        } else if !piece.score().is_finite() {
            format!("the score of `{text}` is {}", piece.score())
        } else if let Some(Err(kind)) = piece.kind.map(PieceKind::try_from) {
            format!("`{text}` is of an unknown kind, {kind}")
        } else if let Some(first) = seen.insert(text, id) {
            format!("`{text}` is piece {first}, too")
        } else {
            continue;
        };
        return Err(SentencePieceError::Piece { id, reason });
    }
    Ok(())
}

/// Position of the piece that stands for unknown text.
fn unknown(pieces: &[Piece]) -> Result<usize, SentencePieceError> {
    pieces
        .iter()
        .position(|piece| piece.kind() == PieceKind::Unknown)
        .ok_or(SentencePieceError::NoUnknown {
            pieces: pieces.len(),
        })
}

fn unigram(pieces: &[Piece], byte_fallback: bool) -> Result<ModelWrapper, SentencePieceError> {
    let unknown = unknown(pieces)?;
    let vocabulary = pieces
        .iter()
        .map(|piece| (piece.text().to_owned(), f64::from(piece.score())))
        .collect();
    Unigram::from(vocabulary, Some(unknown), byte_fallback)
        .map(Into::into)
        .map_err(SentencePieceError::Build)
}

fn bpe(pieces: &[Piece], byte_fallback: bool) -> Result<ModelWrapper, SentencePieceError> {
    let unknown = unknown(pieces)?;
    let vocabulary: Vocab = (0u32..)
        .zip(pieces)
        .map(|(id, piece)| (piece.text().to_owned(), id))
        .collect();
    BPE::builder()
        .vocab_and_merges(vocabulary, merges(pieces))
        .unk_token(pieces[unknown].text().to_owned())
        .fuse_unk(true)
        .byte_fallback(byte_fallback)
        // A user-defined piece stands alone and is in no merge; it has to be taken as it is.
        .ignore_merges(user_defined(pieces).next().is_some())
        .build()
        .map(Into::into)
        .map_err(SentencePieceError::Build)
}

/// All pairs of pieces that make a piece, best score of the whole first; equal scores in the order
/// of ids, as transformers sorts them.
fn merges(pieces: &[Piece]) -> Vec<(String, String)> {
    let ids: HashMap<&str, usize> = pieces
        .iter()
        .enumerate()
        .filter(|(_, piece)| piece.is_text())
        .map(|(id, piece)| (piece.text(), id))
        .collect();
    let mut found: Vec<(&Piece, usize, usize)> = Vec::new();
    for piece in pieces.iter().filter(|piece| piece.is_text()) {
        let first = found.len();
        for (cut, _) in piece.text().char_indices().skip(1) {
            let (left, right) = piece.text().split_at(cut);
            if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                found.push((piece, left, right));
            }
        }
        found[first..].sort_unstable_by_key(|&(_, left, right)| (left, right));
    }
    found.sort_by(|a, b| b.0.score().total_cmp(&a.0.score()));
    let text = |id: usize| pieces[id].text().to_owned();
    found
        .into_iter()
        .map(|(_, left, right)| (text(left), text(right)))
        .collect()
}

/// What the file itself does to a text before spaces become `▁`.
fn normalizer_steps(spec: &NormalizerSpec) -> Result<Vec<NormalizerWrapper>, SentencePieceError> {
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if let Some(charsmap) = spec.charsmap.as_deref().filter(|bytes| !bytes.is_empty()) {
        let charsmap =
            Precompiled::from(charsmap).map_err(|e| SentencePieceError::Build(e.into()))?;
        steps.push(charsmap.into());
    }
    if spec.remove_extra_whitespaces() {
        for (pattern, by) in [(r"\A +| +\z", ""), (" {2,}", " ")] {
            steps.push(replace(ReplacePattern::Regex(pattern.to_owned()), by)?.into());
        }
    }
    Ok(steps)
}

fn replace(pattern: impl Into<ReplacePattern>, by: &str) -> Result<Replace, SentencePieceError> {
    Replace::new(pattern, by).map_err(SentencePieceError::Build)
}

/// The way back: `▁` is a space, bytes are characters, and up to `spaces` leading spaces go.
fn decoder(spaces: usize) -> Result<DecoderWrapper, SentencePieceError> {
    let steps: Vec<DecoderWrapper> = vec![
        replace(SPACE, " ")?.into(),
        ByteFallback::new().into(),
        Fuse::new().into(),
        Strip::new(' ', spaces, 0).into(),
    ];
    Ok(decoders::sequence::Sequence::new(steps).into())
}

/// The pieces that are matched before the model sees a text. In sentencepiece itself control pieces
/// never match; transformers' classes, which prompts are written for, match them.
fn special_pieces(pieces: &[Piece]) -> Vec<AddedToken> {
    pieces
        .iter()
        .filter(|piece| matches!(piece.kind(), PieceKind::Control | PieceKind::Unknown))
        .map(|piece| AddedToken::from(piece.text(), true).normalized(false))
        .collect()
}

/// Cuts a normalized text so that every user-defined piece, the longest that fits, stands alone.
fn user_defined_cut(pieces: &[Piece]) -> Result<Option<Split>, SentencePieceError> {
    let mut texts: Vec<&str> = user_defined(pieces).map(Piece::text).collect();
    if texts.is_empty() {
        return Ok(None);
    }
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    let pattern = texts.into_iter().map(escape).collect::<Vec<_>>().join("|");
    Split::new(
        SplitPattern::Regex(pattern),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .map(Some)
    .map_err(SentencePieceError::Build)
}

fn user_defined(pieces: &[Piece]) -> impl Iterator<Item = &Piece> {
    pieces
        .iter()
        .filter(|piece| piece.kind() == PieceKind::UserDefined)
}

/// A regular expression that matches this text only.
fn escape(text: &str) -> String {
    let mut pattern = String::with_capacity(2 * text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(text: &str, score: f32, kind: PieceKind) -> Piece {
        Piece {
            text: Some(text.to_owned()),
            score: Some(score),
            kind: Some(kind as i32),
        }
    }

    /// `<unk> <s> </s> <img>`, all 256 bytes, then `▁ a b ▁a ab ▁ab`: ids 260 to 265.
    fn pieces() -> Vec<Piece> {
        use PieceKind::{Byte, Control, Normal, Unknown, UserDefined};
        let mut pieces = vec![
            piece("<unk>", 0.0, Unknown),
            piece("<s>", 0.0, Control),
            piece("</s>", 0.0, Control),
            piece("<img>", 0.0, UserDefined),
        ];
        pieces.extend((0..=255u8).map(|byte| piece(&format!("<0x{byte:02X}>"), 0.0, Byte)));
        let text = [
            ("▁", -9.0),
            ("a", -8.0),
            ("b", -7.0),
            ("▁a", -3.0),
            ("ab", -2.0),
            ("▁ab", -4.0),
        ];
        pieces.extend(text.map(|(text, score)| piece(text, score, Normal)));
        pieces
    }

    fn model(kind: ModelKind) -> ModelProto {
        ModelProto {
            pieces: pieces(),
            trainer: Some(TrainerSpec {
                model: Some(kind as i32),
                whitespace_as_suffix: None,
                byte_fallback: Some(true),
            }),
            normalizer: Some(NormalizerSpec {
                charsmap: None,
                add_dummy_prefix: Some(true),
                remove_extra_whitespaces: Some(false),
                escape_whitespaces: Some(true),
            }),
        }
    }

    const LEGACY: Options = Options {
        legacy: true,
        add_prefix_space: None,
    };
    const MODERN: Options = Options {
        legacy: false,
        add_prefix_space: None,
    };

    /// The bytes of a small BPE model with byte fallback, for tests of other modules.
    pub(crate) fn small_model() -> Vec<u8> {
        model(ModelKind::Bpe).encode_to_vec()
    }

    fn encode(options: Options, text: &str) -> Vec<u32> {
        let tokenizer = build(&small_model(), options).unwrap();
        tokenizer.encode(text, false).unwrap().get_ids().to_vec()
    }

    #[test]
    fn merges_are_ordered_by_the_score_of_the_whole() {
        let merges = merges(&pieces());
        let pairs: Vec<_> = merges
            .iter()
            .map(|(l, r)| (l.as_str(), r.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "b"), ("▁", "a"), ("▁", "ab"), ("▁a", "b")]);
    }

    /// `a b` merges first, so ` ab` becomes `▁ab` by way of `ab`; `c` has no piece but a byte.
    #[test]
    fn text_becomes_pieces_and_bytes() {
        assert_eq!(encode(LEGACY, "ab a"), [265, 263]);
        assert_eq!(encode(LEGACY, "c"), [260, 4 + u32::from(b'c')]);
        assert_eq!(encode(LEGACY, "é"), [260, 4 + 0xC3, 4 + 0xA9]);
        assert!(encode(LEGACY, "").is_empty());
    }

    #[test]
    fn only_legacy_repeats_the_space_after_a_special_token() {
        assert_eq!(encode(LEGACY, "a</s>a"), [263, 2, 263]);
        assert_eq!(encode(MODERN, "a</s>a"), [263, 2, 261]);
    }

    #[test]
    fn a_user_defined_piece_gets_no_space_behind_it() {
        assert_eq!(encode(LEGACY, "a<img>b"), [263, 3, 262]);
        assert_eq!(encode(LEGACY, "<img>b"), [260, 3, 262]);
    }

    #[test]
    fn no_prefix_where_the_settings_forbid_it() {
        let plain = Options {
            add_prefix_space: Some(false),
            ..LEGACY
        };
        assert_eq!(encode(plain, "a a"), [261, 263]);
        let mut file = model(ModelKind::Bpe);
        file.normalizer.as_mut().unwrap().add_dummy_prefix = Some(false);
        let tokenizer = build(&file.encode_to_vec(), LEGACY).unwrap();
        assert_eq!(tokenizer.encode("a", false).unwrap().get_ids(), [261]);
    }

    #[test]
    fn decoding_drops_the_first_space_only() {
        let tokenizer = build(&small_model(), LEGACY).unwrap();
        assert_eq!(tokenizer.decode(&[265, 263], false).unwrap(), "ab a");
        assert_eq!(
            tokenizer.decode(&[260, 4 + 0xC3, 4 + 0xA9], false).unwrap(),
            "é"
        );
    }

    #[test]
    fn extra_spaces_go_where_the_file_says_so() {
        let mut file = model(ModelKind::Bpe);
        file.normalizer.as_mut().unwrap().remove_extra_whitespaces = Some(true);
        let tokenizer = build(&file.encode_to_vec(), LEGACY).unwrap();
        assert_eq!(
            tokenizer.encode("  a   b  ", false).unwrap().get_ids(),
            [263, 260, 262]
        );
    }

    /// Best path: `▁ab` (−4) beats `▁` + `ab` (−11) and `▁a` + `b` (−10).
    #[test]
    fn unigram_takes_the_best_path() {
        let bytes = model(ModelKind::Unigram).encode_to_vec();
        let tokenizer = build(&bytes, LEGACY).unwrap();
        assert_eq!(tokenizer.encode("ab", false).unwrap().get_ids(), [265]);
        assert_eq!(
            tokenizer.encode("c", false).unwrap().get_ids(),
            [260, 4 + u32::from(b'c')]
        );
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let refused = |change: fn(&mut ModelProto)| {
            let mut file = model(ModelKind::Bpe);
            change(&mut file);
            build(&file.encode_to_vec(), LEGACY)
                .unwrap_err()
                .to_string()
        };
        let word = refused(|file| file.trainer.as_mut().unwrap().model = Some(3));
        assert!(word.contains("Word"), "{word}");
        let suffix =
            refused(|file| file.trainer.as_mut().unwrap().whitespace_as_suffix = Some(true));
        assert!(suffix.contains("treat_whitespace_as_suffix"), "{suffix}");
        let twice = refused(|file| file.pieces.push(piece("a", 0.0, PieceKind::Normal)));
        assert!(twice.contains("`a` is piece 261, too"), "{twice}");
        let no_unknown = refused(|file| file.pieces[0].kind = Some(PieceKind::Normal as i32));
        assert!(
            no_unknown.contains("none of the 266 pieces"),
            "{no_unknown}"
        );
        let score = refused(|file| file.pieces[5].score = Some(f32::NAN));
        assert!(score.contains("NaN"), "{score}");
    }

    proptest! {
        #[test]
        fn any_text_survives(text in "[ab ]{0,12}\\PC{0,12}") {
            let tokenizer = build(&small_model(), LEGACY).unwrap();
            let ids = tokenizer.encode(text.as_str(), false).unwrap().get_ids().to_vec();
            // `▁` in the text itself is a space to sentencepiece.
            prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text.replace(SPACE, " "));
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            position in 0usize..5000,
            value: u8,
            cut in 0usize..5000,
        ) {
            let mut bytes = small_model();
            let position = position % bytes.len();
            bytes[position] = value;
            let _ = build(&bytes, LEGACY);
            bytes.truncate(cut);
            let _ = build(&bytes, MODERN);
        }
    }
}
