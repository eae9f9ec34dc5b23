//! One line of a file: is it a sample, which source is it of, and what identifies it?
//!
//! The order of the checks is fixed, so that every line is of exactly one class: blank, no JSON, not a
//! sample, half a character, placeholder, picture. Duplicates are found later, over the index.

use std::path::Path;

use opabinia_data::{PictureFolder, Place, Role, Sample, SampleError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::benchmarks::Benchmarks;
use crate::lines::{Line, MAX_LINE_BYTES};
use crate::looks::{Look, Looks};
use crate::minhash::{self, BANDS};
use crate::recipe::{Pictures, Placeholders};
use crate::sources::{Origin, Rules};

/// An answer of at most that many words counts as short.
pub const SHORT_ANSWER_WORDS: u32 = 3;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Class {
    /// A sample.
    Ok = 0,
    /// Nothing but white space.
    Blank = 1,
    /// Not UTF-8, not one JSON object, or longer than any sample is.
    BrokenJson = 2,
    /// An object, but no sample.
    Schema = 3,
    /// Half of a character that is written as two.
    BadUnicode = 4,
    /// Placeholder without picture, picture without placeholder, or several.
    PlaceholderMismatch = 5,
    /// There is no such picture.
    MissingImage = 6,
    /// The picture cannot be decoded.
    BadImage = 7,
    /// A benchmark has its question or its picture.
    Contaminated = 8,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Blank,
        Self::BrokenJson,
        Self::Schema,
        Self::BadUnicode,
        Self::PlaceholderMismatch,
        Self::MissingImage,
        Self::BadImage,
        Self::Contaminated,
    ];

    /// From its number in an index.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its name in ledgers and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Blank => "blank",
            Self::BrokenJson => "broken_json",
            Self::Schema => "schema",
            Self::BadUnicode => "bad_unicode",
            Self::PlaceholderMismatch => "placeholder_mismatch",
            Self::MissingImage => "missing_image",
            Self::BadImage => "bad_image",
            Self::Contaminated => "contaminated",
        }
    }

    /// Whether it is a sample that cannot be used.
    pub fn is_bad(self) -> bool {
        !matches!(self, Self::Ok | Self::Blank | Self::Contaminated)
    }
}

/// Lengths of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Words of all turns.
    pub words: u32,
    /// Words of all answers.
    pub answer_words: u32,
    /// Turns.
    pub turns: u32,
    /// Answers.
    pub answers: u32,
    /// Answers of at most [`SHORT_ANSWER_WORDS`] words.
    pub short_answers: u32,
}

impl Lengths {
    fn of(sample: &Sample) -> Self {
        let mut lengths = Self::default();
        for turn in &sample.turns {
            let words = count(word_count(&turn.text));
            lengths.turns += 1;
            lengths.words = lengths.words.saturating_add(words);
            if turn.role == Role::Assistant {
                lengths.answers += 1;
                lengths.answer_words = lengths.answer_words.saturating_add(words);
                lengths.short_answers += u32::from(words <= SHORT_ANSWER_WORDS);
            }
        }
        lengths
    }
}

/// How many words `split_whitespace` finds. Most texts are ASCII, and need no look at characters.
fn word_count(text: &str) -> usize {
    if !text.is_ascii() {
        return text.split_whitespace().count();
    }
    let (mut words, mut after_space) = (0, true);
    for &byte in text.as_bytes() {
        let is_space = matches!(byte, b'\t'..=b'\r' | b' ');
        words += usize::from(after_space && !is_space);
        after_space = is_space;
    }
    words
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What is known of a line.
#[derive(Debug)]
pub struct Classified {
    /// What it is.
    pub class: Class,
    /// Why it is no sample, in full.
    pub what: Option<String>,
    /// The sample; of bad lines as far as it can be read.
    pub sample: Option<Sample>,
    /// Its source and category.
    pub origin: Option<Origin>,
    /// Hash of picture's name and turns: equal for duplicates.
    pub content: [u8; 16],
    /// Its lengths.
    pub lengths: Lengths,
    /// Keys of its bands, if near duplicates are looked for.
    pub bands: Option<[u64; BANDS]>,
}

/// Classifies lines of one file.
#[derive(Clone, Debug)]
pub struct Classifier<'a> {
    /// Which source is which.
    pub rules: &'a Rules,
    /// Where pictures are looked for.
    pub pictures: Option<&'a PictureFolder>,
    /// Whether they are decoded.
    pub decode: bool,
    /// Where they must be shown.
    pub placeholders: Placeholders,
    /// What else is looked for.
    pub compare: Option<&'a Comparisons>,
}

/// What samples are compared by, and with.
#[derive(Debug, Default)]
pub struct Comparisons {
    /// What makes two pictures the same.
    pub pictures: Pictures,
    /// Whether near duplicates are looked for.
    pub near: bool,
    /// What samples are kept away from.
    pub benchmarks: Option<Benchmarks>,
    /// Hashes of pictures that were looked at.
    pub looks: Looks,
}

impl Comparisons {
    fn wants_looks(&self) -> bool {
        let benchmarks = self.benchmarks.as_ref();
        self.pictures != Pictures::Path || benchmarks.is_some_and(Benchmarks::wants_looks)
    }
}

impl Classifier<'_> {
    /// Classifies a line of a part.
    pub fn classify_line(&self, line: &Line<'_>, place: Place, file: &str) -> Classified {
        if !line.is_too_long() {
            return self.classify(line.text, place, file);
        }
        let error = SampleError::TooLong {
            place,
            bytes: line.bytes,
            limit: MAX_LINE_BYTES as u64,
        };
        bad(Class::BrokenJson, Some(error.in_full()), None)
    }

    /// Classifies a line, without its line break. `file` is the file's name as rules know it.
    pub fn classify(&self, line: &[u8], place: Place, file: &str) -> Classified {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            return bad(Class::Blank, None, None);
        }
        let (sample, halved) = match parse(line, &place) {
            Ok(parsed) => parsed,
            Err((class, what)) => return bad(class, Some(what), None),
        };
        let origin = self.rules.origin(&sample, file);
        let fault = match halved {
            true => Some((
                Class::BadUnicode,
                format!(
                    "{place}: an escape such as `\\ud83d` is half of a character; write the whole \
                     character, or remove the sample"
                ),
            )),
            false => self.fault(&sample),
        };
        match fault {
            Some((class, what)) => bad(class, Some(what), Some((sample, origin))),
            None => self.compared(sample, origin),
        }
    }

    /// A good sample, with what it is compared by.
    fn compared(&self, sample: Sample, origin: Origin) -> Classified {
        let default = Comparisons::default();
        let compare = self.compare.unwrap_or(&default);
        let look = match self.look(&sample, compare) {
            Ok(look) => look,
            Err(error) => {
                return bad(
                    Class::BadImage,
                    Some(error.in_full()),
                    Some((sample, origin)),
                );
            }
        };
        let dhash = look.map(|look| look.dhash);
        let hit = compare.benchmarks.as_ref();
        if let Some(why) = hit.and_then(|benchmarks| benchmarks.hit(&sample, dhash)) {
            return bad(Class::Contaminated, Some(why), Some((sample, origin)));
        }
        let picture = match (compare.pictures, look) {
            (Pictures::Pixels, Some(look)) => Some(format!("{:016x}", look.pixels)),
            (Pictures::Looks, Some(look)) => Some(format!("{:016x}", look.dhash)),
            _ => None,
        };
        let picture = picture.as_deref();
        let bands = compare.near.then(|| {
            let about = picture.or(sample.image.as_deref());
            minhash::bands(&minhash::shingles(&minhash::plain_text(&sample)), about)
        });
        Classified {
            class: Class::Ok,
            what: None,
            content: content(&sample, picture),
            lengths: Lengths::of(&sample),
            bands: bands.flatten(),
            origin: Some(origin),
            sample: Some(sample),
        }
    }

    fn look(&self, sample: &Sample, compare: &Comparisons) -> Result<Option<Look>, SampleError> {
        let Some(pictures) = self.pictures.filter(|_| compare.wants_looks()) else {
            return Ok(None);
        };
        match pictures.find(sample)? {
            None => Ok(None),
            Some(path) => compare.looks.of(&path, sample).map(Some),
        }
    }

    fn fault(&self, sample: &Sample) -> Option<(Class, String)> {
        let say = |error: SampleError| {
            let class = match &error {
                SampleError::Placeholder { .. } => Class::PlaceholderMismatch,
                SampleError::BrokenPicture { .. } => Class::BadImage,
                _ => Class::MissingImage,
            };
            Some((class, error.in_full()))
        };
        if let Err(error) = sample.check_placeholder() {
            let shows = |turn: &opabinia_data::Turn| turn.text.contains("<image>");
            let shown = sample.turns.iter().any(shows);
            let agrees = shown == sample.image.is_some();
            if self.placeholders == Placeholders::Once || !agrees {
                return say(error);
            }
        }
        let pictures = self.pictures?;
        let looked = match self.decode {
            true => pictures.load(sample).map(|_| ()),
            false => pictures.find(sample).map(|_| ()),
        };
        looked.err().and_then(say)
    }
}

fn bad(class: Class, what: Option<String>, read: Option<(Sample, Origin)>) -> Classified {
    let (sample, origin) = read.unzip();
    Classified {
        class,
        what,
        sample,
        origin,
        content: [0; 16],
        lengths: Lengths::default(),
        bands: None,
    }
}

/// The sample, and whether it has a half of a character.
fn parse(line: &[u8], place: &Place) -> Result<(Sample, bool), (Class, String)> {
    let error = match Sample::parse(line, place.clone()) {
        Ok(sample) => return Ok((sample, false)),
        Err(error) => error,
    };
    // A line is one JSON object, or nothing that could be mended.
    let is_object = line.trim_ascii_start().first() == Some(&b'{');
    let class = match &error {
        SampleError::Schema { .. } if is_object => Class::Schema,
        _ => Class::BrokenJson,
    };
    let said = || (class, error.in_full());
    if class != Class::BrokenJson || std::str::from_utf8(line).is_err() {
        return Err(said());
    }
    let Some(whole) = without_halves(line) else {
        return Err(said());
    };
    match Sample::parse(&whole, place.clone()) {
        Ok(sample) => Ok((sample, true)),
        Err(error @ SampleError::Schema { .. }) if is_object => {
            Err((Class::Schema, error.in_full()))
        }
        Err(_) => Err(said()),
    }
}

/// Puts the replacement character where escapes stand for half a character; `None` if none does.
fn without_halves(line: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| {
        let digits = line.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut out = line.to_vec();
    let mut found = false;
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        at += match (byte, unit(at)) {
            (b'\\', Some(0xD800..=0xDBFF)) => match unit(at + 6) {
                Some(0xDC00..=0xDFFF) => 12,
                _ => {
                    found = true;
                    out[at + 2..at + 6].copy_from_slice(b"fffd");
                    6
                }
            },
            (b'\\', Some(0xDC00..=0xDFFF)) => {
                found = true;
                out[at + 2..at + 6].copy_from_slice(b"fffd");
                6
            }
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    found.then_some(out)
}

/// Hash of what makes a sample: its picture and its turns, whatever else its line says. The picture is
/// known by its name, or by `picture` where pictures are compared.
pub fn content(sample: &Sample, picture: Option<&str>) -> [u8; 16] {
    let mut hash = Sha256::new();
    let mut put = |tag: u8, text: &str| {
        hash.update([tag]);
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    if let Some(image) = picture.or(sample.image.as_deref()) {
        put(b'i', image);
    }
    for turn in &sample.turns {
        let tag = match turn.role {
            Role::User => b'u',
            Role::Assistant => b'a',
        };
        put(tag, &turn.text);
    }
    let full: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&full[..16]);
    half
}

/// The place of a line.
pub fn place(file: &Path, line: u64) -> Place {
    Place::new(file, line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(line: &[u8]) -> Class {
        let rules = Rules::new(&[]);
        let classifier = Classifier {
            rules: &rules,
            pictures: None,
            decode: false,
            placeholders: Placeholders::Once,
            compare: None,
        };
        let place = place(Path::new("s.jsonl"), 1);
        classifier.classify(line, place, "s.jsonl").class
    }

    fn asking(text: &str) -> String {
        format!(r#"{{"conversations": [{{"from": "human", "value": "{text}"}}]}}"#)
    }

    #[test]
    fn every_line_is_of_one_class() {
        assert_eq!(class(b" \r"), Class::Blank);
        assert_eq!(class(b"{"), Class::BrokenJson);
        assert_eq!(class(b"\"\xff\""), Class::BrokenJson);
        assert_eq!(class(b"[]"), Class::BrokenJson);
        assert_eq!(class(b" {}"), Class::Schema);
        assert_eq!(
            class(asking("<image>").as_bytes()),
            Class::PlaceholderMismatch
        );
        assert_eq!(class(asking("a").as_bytes()), Class::Ok);
    }

    #[test]
    fn half_a_character_is_told_from_broken_json() {
        for half in [
            "\\ud83d",
            "\\ude00 x",
            "\\ud83d\\ud83d\\ude00",
            "\\\\\\ud83d",
        ] {
            assert_eq!(class(asking(half).as_bytes()), Class::BadUnicode, "{half}");
        }
        for whole in ["\\ud83d\\ude00", "\\\\ud83d"] {
            assert_eq!(class(asking(whole).as_bytes()), Class::Ok, "{whole}");
        }
        assert_eq!(class(br#"{"a": "\ud83d"}"#), Class::Schema);
        assert_eq!(class(br#"{"a": "\ud83d"#), Class::BrokenJson);
    }

    #[test]
    fn content_is_picture_and_turns() {
        let hash = |line: &str| {
            content(
                &Sample::parse(line.as_bytes(), place(Path::new("s"), 1)).unwrap(),
                None,
            )
        };
        let turns = r#""conversations": [{"value": "a", "from": "human"}]"#;
        let plain = hash(&format!("{{{turns}}}"));
        assert_eq!(
            plain,
            hash(&format!(
                r#"{{"id": 3, "source": "x", "image": "None", {turns}}}"#
            ))
        );
        assert_ne!(plain, hash(&format!(r#"{{"image": "a.png", {turns}}}"#)));
    }

    proptest! {
        #[test]
        fn words_are_what_white_space_separates(text in "[a-c\t\n\x0b\x0c\r\x1c\x1f \u{85}\u{a0}é]{0,30}") {
            prop_assert_eq!(word_count(&text), text.split_whitespace().count());
        }

        #[test]
        fn any_line_has_a_class(line in prop::collection::vec(any::<u8>(), 0..60)) {
            class(&line);
        }

        #[test]
        fn any_escapes_have_a_class(line in r#"[\\ud8c3f"{}: ]{0,40}"#) {
            class(line.as_bytes());
            class(asking(&line).as_bytes());
        }
    }
}
