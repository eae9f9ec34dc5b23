//! Random words in the lengths of published samples.

use std::io::Write;

/// Random numbers by splitmix64 (Steele et al. 2014): a stream for every sample, so that any of them can
/// be made again alone.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The stream of a sample.
    pub(super) fn new(seed: u64, source: u64, number: u64) -> Self {
        let mut random = Self(seed);
        for part in [source, number] {
            random.0 = random.next() ^ part;
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from `low` to `high`, small ones more often: lengths are skewed.
    fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let range = high - low + 1;
        low + self
            .below(range)
            .min(self.below(range))
            .min(self.below(range))
    }
}

/// Words of which texts are made, and how long these are.
#[derive(Debug)]
pub(super) struct Words {
    words: Vec<String>,
    /// Length of texts in percent.
    length: u64,
}

impl Words {
    /// Four thousand words of one to three syllables.
    pub(super) fn new(length: u64) -> Self {
        let mut random = Random::new(1, 2, 3);
        let syllable = |random: &mut Random| {
            let pick = |random: &mut Random, from: &[&'static str]| {
                from[random.below(from.len() as u64) as usize]
            };
            let onset = pick(
                random,
                &[
                    "b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "w", "st", "tr",
                ],
            );
            let vowel = pick(random, &["a", "e", "i", "o", "u", "ea", "ou"]);
            format!(
                "{onset}{vowel}{}",
                pick(random, &["", "", "n", "r", "s", "t", "ll"])
            )
        };
        let word = |_| {
            let syllables = 1 + random.below(3);
            (0..syllables).map(|_| syllable(&mut random)).collect()
        };
        Self {
            words: (0..4000).map(word).collect(),
            length,
        }
    }

    /// Appends words with `between` in between; frequent ones more often.
    fn put(&self, line: &mut Vec<u8>, random: &mut Random, count: u64, between: &[u8]) {
        let count = (count * self.length).div_ceil(100);
        for i in 0..count {
            if i > 0 {
                line.extend_from_slice(between);
            }
            let most = self.words.len() as u64;
            let at = random.below(most) * random.below(most) / most;
            line.extend_from_slice(self.words[at as usize].as_bytes());
        }
    }
}

/// What texts of a source are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One question, an answer of a word or a number.
    Vqa,
    /// The same with options.
    Choice,
    /// Several questions with short answers.
    Turns,
    /// A description.
    Caption,
    /// Text read from a picture.
    Ocr,
    /// Some exchanges in sentences.
    Chat,
    /// A long answer without a picture.
    Text,
    /// A question with a derivation.
    Reason,
    /// Programs, of which a few are very long.
    Code,
    /// Pages.
    Html,
}

impl Kind {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "vqa" => Self::Vqa,
            "choice" => Self::Choice,
            "turns" => Self::Turns,
            "caption" => Self::Caption,
            "ocr" => Self::Ocr,
            "chat" => Self::Chat,
            "text" => Self::Text,
            "reason" => Self::Reason,
            "code" => Self::Code,
            "html" => Self::Html,
            _ => return None,
        })
    }

    /// Questions of a sample.
    pub(super) fn exchanges(self, random: &mut Random) -> u64 {
        match self {
            Self::Turns => random.skewed(2, 12),
            Self::Chat => random.skewed(1, 5),
            Self::Vqa => random.skewed(1, 3),
            _ => 1,
        }
    }

    pub(super) fn question(self, line: &mut Vec<u8>, random: &mut Random, words: &Words) {
        let count = match self {
            Self::Text => random.skewed(30, 280),
            Self::Reason | Self::Code => random.skewed(20, 120),
            _ => random.skewed(5, 18),
        };
        words.put(line, random, count, b" ");
        line.push(b'?');
        if self == Self::Choice {
            for letter in [b'A', b'B', b'C', b'D'] {
                line.extend_from_slice(b"\\n");
                line.push(letter);
                line.extend_from_slice(b". ");
                words.put(line, random, 2, b" ");
            }
        }
    }

    pub(super) fn answer(self, line: &mut Vec<u8>, random: &mut Random, words: &Words) {
        match self {
            Self::Vqa | Self::Turns => match random.below(3) {
                // Writing to memory cannot fail.
                0 => drop(write!(line, "{}", random.below(1000))),
                _ => words.put(line, random, 1, b" "),
            },
            Self::Choice => line.push(b'A' + random.below(4) as u8),
            Self::Caption => {
                let count = random.skewed(50, 200);
                words.put(line, random, count, b" ");
            }
            Self::Ocr => {
                let count = random.skewed(30, 150);
                words.put(line, random, count, b" ");
            }
            Self::Chat => {
                let count = random.skewed(20, 140);
                words.put(line, random, count, b" ");
            }
            Self::Text => {
                let count = random.skewed(50, 600);
                words.put(line, random, count, b" ");
            }
            Self::Reason => {
                let count = random.skewed(40, 240);
                words.put(line, random, count, b"\\n");
            }
            Self::Code => {
                // One of two hundred is a hundred kilobytes.
                let count = match random.below(200) {
                    0 => 7_000,
                    _ => random.skewed(60, 700),
                };
                words.put(line, random, count, b"\\n    ");
            }
            Self::Html => {
                let count = random.skewed(40, 420);
                words.put(line, random, count, b"</div>\\n<div>");
            }
        }
    }
}
