//! An answer as text while it is being written: token ids in, pieces of text out, as early as they
//! are certain and never taken back.
//!
//! Two things make a piece uncertain. A token may hold a part of a character only, so text that
//! ends in an unfinished character waits for the next token. And it may be the beginning of a
//! stop string, which is not part of the answer, so that waits, too. All pieces together are what
//! [`Tokenizer::decode`] gives for all ids at once, up to the stop string if one came.

use serde::{Deserialize, Serialize};

use crate::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};

/// Why generation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// The model produced this token, one of those that end an answer.
    EndToken(u32),
    /// The text came to this stop string.
    StopString(String),
    /// As many tokens were produced as were asked for.
    MaxTokens,
    /// The decoder's context is full.
    ContextFull,
    /// Whoever asked for the answer no longer wants it.
    Cancelled,
}

/// Turns token ids into text, one by one.
///
/// Only the last few tokens are decoded again for each new one: a token decodes to the same text
/// wherever it stands, but for the first (which may lose a space) and for unfinished characters.
/// So a window that begins with at least one settled token and ends with the new one is enough.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    special: SpecialTokens,
    /// Settled tokens that give the decoder its context, then tokens whose text is not all sent.
    window: Vec<u32>,
    /// How many tokens of `window` are settled.
    settled: usize,
    /// How many bytes of the window's text have been passed on.
    sent: usize,
    stop: StopMatcher,
}

impl<'a> TextStream<'a> {
    /// A stream that ends at the first of `stop_strings`; empty ones are ignored.
    pub fn new(
        tokenizer: &'a Tokenizer,
        special: SpecialTokens,
        stop_strings: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            tokenizer,
            special,
            window: Vec::new(),
            settled: 0,
            sent: 0,
            stop: StopMatcher::new(stop_strings),
        }
    }

    /// Takes the next token and returns the text that has become certain, often none. After a stop
    /// string it is always none.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        let Some(token) = self.tokenizer.id_to_token(id) else {
            return Ok(String::new());
        };
        let omitted = self.special == SpecialTokens::Omit && self.tokenizer.is_special(id);
        if omitted || self.stop.matched().is_some() {
            return Ok(String::new());
        }
        self.window.push(id);
        let text = self.decode_window()?;
        let certain = certain_len(&text, &token).max(self.sent);
        // Text that was passed on stays as it is; a decoder that would rather rewrite it has to
        // wait until its text fits again.
        let Some(fresh) = text.get(self.sent..certain) else {
            return Ok(String::new());
        };
        let piece = self.stop.feed(fresh);
        self.sent = certain;
        if certain == text.len() {
            self.settle_window()?;
        }
        Ok(piece)
    }

    /// Returns what was held back: the answer ends here, so an unfinished character stays one
    /// (U+FFFD) and the beginning of a stop string is text.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn finish(mut self) -> Result<String, TokenizerError> {
        let text = self.decode_window()?;
        let mut piece = self.stop.feed(text.get(self.sent..).unwrap_or_default());
        piece.push_str(&self.stop.flush());
        Ok(piece)
    }

    /// The stop string that the text has come to, if it has.
    pub fn stop_string(&self) -> Option<&str> {
        self.stop.matched()
    }

    fn decode_window(&self) -> Result<String, TokenizerError> {
        // What is in the window was let in by `push`; nothing is left to omit.
        self.tokenizer.decode(&self.window, SpecialTokens::Include)
    }

    /// All text of the window has been passed on: the newest tokens become the context of the next
    /// ones. They must have some text, or the space that a decoder takes from the beginning would
    /// be taken from the next token.
    fn settle_window(&mut self) -> Result<(), TokenizerError> {
        let newest = self.window.split_off(self.settled);
        let text = self.tokenizer.decode(&newest, SpecialTokens::Include)?;
        if text.is_empty() {
            self.window.extend(newest);
        } else {
            self.settled = newest.len();
            self.window = newest;
            self.sent = text.len();
        }
        Ok(())
    }
}

/// How many bytes of a text can no longer change, whatever token comes next.
///
/// The text of byte tokens is open until their run ends: a run that is not valid UTF-8 as a whole
/// decodes to one U+FFFD per byte, even for the characters that were complete. Of other tokens
/// only an unfinished character at the end is open, and that decodes to one U+FFFD.
fn certain_len(text: &str, last_token: &str) -> usize {
    if is_byte_token(last_token) {
        return 0;
    }
    text.strip_suffix(char::REPLACEMENT_CHARACTER)
        .unwrap_or(text)
        .len()
}

/// Whether a token is sentencepiece's way of writing one byte: `<0x0A>`.
fn is_byte_token(token: &str) -> bool {
    let digits = token
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Finds stop strings in text that comes in pieces.
struct StopMatcher {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
    matched: Option<usize>,
}

impl StopMatcher {
    fn new(stops: impl IntoIterator<Item = String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self {
            stops,
            held: String::new(),
            matched: None,
        }
    }

    fn matched(&self) -> Option<&str> {
        self.matched
            .and_then(|index| self.stops.get(index))
            .map(String::as_str)
    }

    /// Takes more text and returns what is certainly in front of any stop string.
    fn feed(&mut self, text: &str) -> String {
        if self.matched.is_some() {
            return String::new();
        }
        self.held.push_str(text);
        if let Some((start, index)) = self.first_match() {
            self.matched = Some(index);
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let keep = self.possible_beginning();
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// Returns the held text: no more is to come.
    fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Start and index of the stop string that is complete first; of several that end together,
    /// the longest. So the result does not depend on how the text was cut into pieces.
    fn first_match(&self) -> Option<(usize, usize)> {
        let found = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            let start = self.held.find(stop)?;
            Some((start + stop.len(), start, index))
        });
        found.min().map(|(_, start, index)| (start, index))
    }

    /// Bytes at the end of the held text with which some stop string begins.
    fn possible_beginning(&self) -> usize {
        let beginnings = self.stops.iter().flat_map(|stop| {
            stop.char_indices()
                .map(|(cut, _)| &stop[..cut])
                .filter(|part| self.held.ends_with(part))
        });
        beginnings.map(str::len).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tokenizer::tests::small_tokenizer;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().map(ToString::to_string))
    }

    #[test]
    fn a_possible_stop_string_is_held_back() {
        let mut stop = matcher(&["###"]);
        assert_eq!(stop.feed("a#"), "a");
        assert_eq!(stop.feed("#b"), "##b");
        assert_eq!(stop.feed("c##"), "c");
        assert_eq!(stop.feed("#d"), "");
        assert_eq!(stop.matched(), Some("###"));
        assert_eq!(stop.feed("e"), "");
        assert_eq!(stop.flush(), "");
    }

    #[test]
    fn the_first_complete_stop_string_wins() {
        let mut stop = matcher(&["cd", "", "abcde", "bcd"]);
        assert_eq!(stop.feed("xabcde"), "xa");
        assert_eq!(stop.matched(), Some("bcd"));
    }

    #[test]
    fn an_unfinished_stop_string_is_text() {
        let mut stop = matcher(&["###"]);
        assert_eq!(stop.feed("a##"), "a");
        assert_eq!(stop.flush(), "##");
    }

    /// `é` as two byte tokens: nothing until the run of bytes ends.
    #[test]
    fn a_character_waits_for_its_bytes() {
        let tokenizer = small_tokenizer();
        let mut stream = TextStream::new(&tokenizer, SpecialTokens::Omit, []);
        let pieces = [265, 1, 4 + 0xC3, 4 + 0xA9, 263].map(|id| stream.push(id).unwrap());
        assert_eq!(pieces, ["ab", "", "", "", "é a"]);
        assert_eq!(stream.finish().unwrap(), "");
    }

    #[test]
    fn an_unfinished_character_is_flushed_as_one() {
        let tokenizer = small_tokenizer();
        let mut stream = TextStream::new(&tokenizer, SpecialTokens::Omit, []);
        assert_eq!(stream.push(4 + 0xC3).unwrap(), "");
        assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
    }

    #[test]
    fn a_stop_string_may_span_tokens() {
        let tokenizer = small_tokenizer();
        let mut stream = TextStream::new(&tokenizer, SpecialTokens::Omit, ["b a".to_owned()]);
        assert_eq!(stream.push(264).unwrap(), "a");
        assert_eq!(stream.push(263).unwrap(), "");
        assert_eq!(stream.stop_string(), Some("b a"));
        assert_eq!(stream.push(262).unwrap(), "");
        assert_eq!(stream.finish().unwrap(), "");
    }

    proptest! {
        /// Byte tokens, spaces and whole tokens in any order, unknown ids among them.
        #[test]
        fn pieces_add_up_to_the_whole(
            ids in prop::collection::vec(prop_oneof![256u32..270, 0u32..270, 190u32..205], 0..30),
        ) {
            let tokenizer = small_tokenizer();
            for special in [SpecialTokens::Omit, SpecialTokens::Include] {
                let mut stream = TextStream::new(&tokenizer, special, []);
                let mut text = String::new();
                for &id in &ids {
                    text += &stream.push(id).unwrap();
                }
                text += &stream.finish().unwrap();
                prop_assert_eq!(text, tokenizer.decode(&ids, special).unwrap());
            }
        }
    }
}
