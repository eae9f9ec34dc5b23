//! Looking at files of samples without changing them: checks and statistics.
//!
//! Both walk over all lines, several parts at a time, and hand what they find on in the order of the
//! files, so that the same files give the same report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opabinia_data::{PictureFolder, Place, Role, Sample, SampleError};
use opabinia_image::ImageLimits;
use rayon::prelude::*;
use serde::Serialize;

use crate::classify::{Class, Classified, Classifier};
use crate::error::CurateError;
use crate::part::{PART_BYTES, Part, cut, read_lines};
use crate::recipe::Placeholders;
use crate::run::{Progress, Watch};
use crate::sources::{Origin, Rules, SourceRule, file_name};

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// The folder that paths of pictures start from.
    pub images: Option<PathBuf>,
    /// Whether pictures are decoded.
    pub decode: bool,
    /// Which source is which.
    pub source: Vec<SourceRule>,
}

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// What is wrong with it: the name of a class, or `no_trainable_token`.
    pub kind: &'static str,
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// What was found, and what to do.
    pub what: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Lines that should be samples.
    pub samples: u64,
    /// Those that can be used.
    pub good: u64,
    /// Blank lines, which are nothing.
    pub blank: u64,
    /// Those that cannot be used, by kind.
    pub bad: BTreeMap<&'static str, u64>,
}

impl Checked {
    /// Number of samples that cannot be used.
    pub fn bad_total(&self) -> u64 {
        self.bad.values().sum()
    }
}

/// Whether something can be learned from a sample.
pub type Trains<'a> = &'a (dyn Fn(&Sample) -> Result<(), SampleError> + Sync);

/// What something can be learned from, as far as that is known without a tokenizer: a question with
/// an answer, neither of them empty.
///
/// # Errors
/// [`SampleError::NoTrainableToken`]
pub fn has_an_answer(sample: &Sample) -> Result<(), SampleError> {
    let full = |turn: &opabinia_data::Turn| !turn.text.trim().is_empty();
    let answered = sample
        .turns
        .chunks(2)
        .any(|exchange| exchange.len() == 2 && exchange.iter().all(full));
    match answered {
        true => Ok(()),
        false => Err(SampleError::NoTrainableToken {
            place: sample.place.clone(),
            what: "no question has an answer; remove the sample".to_owned(),
        }),
    }
}

/// Checks every line; `found` is called with every bad one, in order.
///
/// # Errors
/// If a file or the folder of pictures cannot be read, `found` fails, or somebody asked for an end.
pub fn check(
    files: &Files,
    trains: Trains<'_>,
    found: &mut dyn FnMut(BadLine) -> Result<(), CurateError>,
    watch: &Watch<'_>,
) -> Result<Checked, CurateError> {
    let mut checked = Checked::default();
    let judge = |classified: Classified, _: &Place| -> (Option<&'static str>, String, bool) {
        match (classified.class, &classified.sample) {
            (Class::Blank, _) => (None, String::new(), true),
            (Class::Ok, Some(sample)) => match trains(sample) {
                Ok(()) => (None, String::new(), false),
                Err(error) => {
                    let kind = match &error {
                        SampleError::NoTrainableToken { .. } => "no_trainable_token",
                        _ => Class::Schema.name(),
                    };
                    (Some(kind), error.in_full(), false)
                }
            },
            (class, _) => {
                let what = classified.what.unwrap_or_default();
                (Some(class.name()), what, false)
            }
        }
    };
    let take =
        |file: &Path, line: u64, (kind, what, blank): (Option<&'static str>, String, bool)| {
            if blank {
                checked.blank += 1;
                return Ok(());
            }
            checked.samples += 1;
            let Some(kind) = kind else {
                checked.good += 1;
                return Ok(());
            };
            *checked.bad.entry(kind).or_default() += 1;
            found(BadLine {
                kind,
                file: file.to_owned(),
                line,
                what,
            })
        };
    walk(files, "check", &judge, take, watch)?;
    Ok(checked)
}

/// Calls `judge` for every line, several parts at a time, and `take` with what came of it, in order.
fn walk<T: Send>(
    files: &Files,
    stage: &'static str,
    judge: &(dyn Fn(Classified, &Place) -> T + Sync),
    mut take: impl FnMut(&Path, u64, T) -> Result<(), CurateError>,
    watch: &Watch<'_>,
) -> Result<(), CurateError> {
    let rules = Rules::new(&files.source);
    let images = files.images.as_ref();
    let pictures = images.map(|images| PictureFolder::open(images, ImageLimits::default()));
    let pictures = pictures.transpose()?;
    let classifier = Classifier {
        rules: &rules,
        pictures: pictures.as_ref(),
        decode: files.decode,
        placeholders: Placeholders::Once,
        compare: None,
    };
    let sizes = files.files.iter().map(|file| {
        let size = file.metadata().map(|about| about.len());
        size.map_err(CurateError::io("read the samples", file))
    });
    let sizes = sizes.collect::<Result<Vec<u64>, _>>()?;
    let parts = cut(&sizes, PART_BYTES);
    let mut lines = vec![0_u64; sizes.len()];
    let mut done = 0;
    // A few parts at a time bound the memory; within them order is kept.
    for group in parts.chunks(2 * rayon::current_num_threads()) {
        if (watch.cancelled)() {
            return Err(CurateError::Interrupted);
        }
        // Line numbers of a part need the number of lines before it, so a group is read first.
        let read = group
            .par_iter()
            .map(|part| read_lines(&files.files[part.file as usize], part).map(|(_, text)| text))
            .collect::<Result<Vec<Vec<u8>>, _>>()?;
        let mut firsts = Vec::with_capacity(group.len());
        for (part, text) in group.iter().zip(&read) {
            let before = &mut lines[part.file as usize];
            firsts.push(*before);
            *before += text.split_inclusive(|&byte| byte == b'\n').count() as u64;
        }
        let judged: Vec<Vec<T>> = group
            .par_iter()
            .zip(&read)
            .zip(&firsts)
            .map(|((part, text), &first)| judge_part(files, part, text, first, &classifier, judge))
            .collect();
        for ((part, first), values) in group.iter().zip(firsts).zip(judged) {
            let file = &files.files[part.file as usize];
            for (row, value) in values.into_iter().enumerate() {
                take(file, first + row as u64 + 1, value)?;
            }
        }
        done += group.len();
        (watch.progress)(Progress {
            stage,
            done: done as u64,
            total: parts.len() as u64,
        });
    }
    Ok(())
}

fn judge_part<T>(
    files: &Files,
    part: &Part,
    text: &[u8],
    first: u64,
    classifier: &Classifier<'_>,
    judge: &(dyn Fn(Classified, &Place) -> T + Sync),
) -> Vec<T> {
    let path = &files.files[part.file as usize];
    let (name, path): (String, Arc<Path>) = (file_name(path), path.as_path().into());
    let mut line = first;
    text.split_inclusive(|&byte| byte == b'\n')
        .map(|bytes| {
            line += 1;
            let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
            let bytes = match line {
                1 => bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes),
                _ => bytes,
            };
            let place = Place::new(Arc::clone(&path), line);
            judge(classifier.classify(bytes, place.clone(), &name), &place)
        })
        .collect()
}

/// Counts by powers of two: `counts[0]` are zeros, `counts[i]` those of 2^(i−1) to 2^i − 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// The counts.
    pub counts: Vec<u64>,
    /// How many were counted.
    pub total: u64,
    /// Their sum.
    pub sum: u64,
    /// The largest.
    pub max: u64,
}

impl Histogram {
    /// Counts a number.
    pub fn add(&mut self, number: u64) {
        let slot = (u64::BITS - number.leading_zeros()) as usize;
        if self.counts.len() <= slot {
            self.counts.resize(slot + 1, 0);
        }
        self.counts[slot] += 1;
        self.total += 1;
        self.sum = self.sum.saturating_add(number);
        self.max = self.max.max(number);
    }

    /// The mean; 0 of nothing.
    pub fn mean(&self) -> f64 {
        match self.total {
            0 => 0.0,
            total => self.sum as f64 / total as f64,
        }
    }

    /// What a slot counts: the smallest and the largest number.
    pub fn range(slot: usize) -> (u64, u64) {
        match slot {
            0 => (0, 0),
            _ => {
                let low = 1_u64 << (slot - 1).min(63);
                (low, low.saturating_mul(2).saturating_sub(1))
            }
        }
    }
}

/// What is counted of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceStats {
    /// Samples.
    pub samples: u64,
    /// Of these, with a picture.
    pub with_picture: u64,
    /// Words of a sample.
    pub words: Histogram,
    /// Turns of a sample.
    pub turns: Histogram,
    /// Words of an answer.
    pub answer_words: Histogram,
    /// Answers of at most three words.
    pub short_answers: u64,
}

/// Statistics of files of samples.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// By source and category, in the order of names.
    pub sources: Vec<(String, String, SourceStats)>,
    /// All of them.
    pub total: SourceStats,
    /// Lines that are no samples.
    pub bad: u64,
    /// Longer sides of pictures, in pixels, where they were looked at; each file counts once.
    pub picture_sides: Histogram,
    /// Pictures by shape, width over height: up to 1:2, 3:4, 4:3, 2:1, and wider.
    pub picture_shapes: [u64; 5],
}

impl SourceStats {
    fn merge(&mut self, other: &Self) {
        let add = |to: &mut Histogram, from: &Histogram| {
            if to.counts.len() < from.counts.len() {
                to.counts.resize(from.counts.len(), 0);
            }
            for (to, from) in to.counts.iter_mut().zip(&from.counts) {
                *to += from;
            }
            to.total += from.total;
            to.sum = to.sum.saturating_add(from.sum);
            to.max = to.max.max(from.max);
        };
        self.samples += other.samples;
        self.with_picture += other.with_picture;
        self.short_answers += other.short_answers;
        add(&mut self.words, &other.words);
        add(&mut self.turns, &other.turns);
        add(&mut self.answer_words, &other.answer_words);
    }

    /// Share of short answers: what makes an answer machine.
    pub fn short_share(&self) -> f64 {
        match self.answer_words.total {
            0 => 0.0,
            total => self.short_answers as f64 / total as f64,
        }
    }
}

struct Measured {
    origin: Origin,
    has_picture: bool,
    answers: Vec<u32>,
    words: u32,
    turns: u32,
    image: Option<String>,
}

/// Counts what is in files of samples. Pictures are measured if `files.decode` says so.
///
/// # Errors
/// As [`check`].
pub fn stats(files: &Files, watch: &Watch<'_>) -> Result<Stats, CurateError> {
    let mut by_origin: BTreeMap<Origin, SourceStats> = BTreeMap::new();
    let mut stats = Stats::default();
    let mut images: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
    let measure_pictures = files.decode && files.images.is_some();
    let judge = |classified: Classified, _: &Place| -> Option<Option<Measured>> {
        let (Class::Ok, Some(sample), Some(origin)) =
            (classified.class, classified.sample, classified.origin)
        else {
            return (classified.class != Class::Blank).then_some(None);
        };
        let answers = sample
            .turns
            .iter()
            .filter(|turn| turn.role == Role::Assistant);
        let words = answers.map(|turn| turn.text.split_whitespace().count() as u32);
        Some(Some(Measured {
            origin,
            has_picture: sample.image.is_some(),
            answers: words.collect(),
            words: classified.lengths.words,
            turns: classified.lengths.turns,
            image: sample.image.filter(|_| measure_pictures),
        }))
    };
    // Pictures are measured once each, afterwards, not with every sample that shows them.
    let found = Files {
        decode: false,
        ..files.clone()
    };
    walk(
        &found,
        "read",
        &judge,
        |_, _, measured| {
            match measured {
                None => {}
                Some(None) => stats.bad += 1,
                Some(Some(measured)) => {
                    let own = by_origin.entry(measured.origin).or_default();
                    own.samples += 1;
                    own.with_picture += u64::from(measured.has_picture);
                    own.words.add(measured.words.into());
                    own.turns.add(measured.turns.into());
                    for words in measured.answers {
                        own.answer_words.add(words.into());
                        own.short_answers +=
                            u64::from(words <= crate::classify::SHORT_ANSWER_WORDS);
                    }
                    images.extend(measured.image);
                }
            }
            Ok(())
        },
        watch,
    )?;
    by_origin.values().for_each(|own| stats.total.merge(own));
    stats.sources = by_origin
        .into_iter()
        .map(|(origin, own)| (origin.source, origin.category, own))
        .collect();
    if let Some(root) = files.images.as_ref().filter(|_| measure_pictures) {
        measure(&mut stats, root, &images, watch)?;
    }
    Ok(stats)
}

fn measure(
    stats: &mut Stats,
    root: &Path,
    images: &std::collections::BTreeSet<String>,
    watch: &Watch<'_>,
) -> Result<(), CurateError> {
    let images: Vec<&String> = images.iter().collect();
    let total = images.len() as u64;
    let mut done = 0;
    for group in images.chunks(256) {
        if (watch.cancelled)() {
            return Err(CurateError::Interrupted);
        }
        let sizes: Vec<Option<(u32, u32)>> = group
            .par_iter()
            .map(|image| {
                let source = opabinia_image::ImageSource::File(root.join(image));
                let picture = opabinia_image::load(&source, &ImageLimits::default());
                picture.ok().map(|picture| picture.size())
            })
            .collect();
        for (width, height) in sizes.into_iter().flatten() {
            stats.picture_sides.add(width.max(height).into());
            let shape = f64::from(width) / f64::from(height.max(1));
            let slot = [0.5, 0.75, 4.0 / 3.0, 2.0]
                .iter()
                .filter(|&&bound| shape > bound)
                .count();
            stats.picture_shapes[slot] += 1;
        }
        done += group.len() as u64;
        (watch.progress)(Progress {
            stage: "pictures",
            done,
            total,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.jsonl");
        std::fs::write(&path, text).unwrap();
        let files = Files {
            files: vec![path],
            ..Files::default()
        };
        (folder, files)
    }

    const WATCH: Watch<'static> = Watch {
        progress: &|_| {},
        cancelled: &|| false,
    };

    #[test]
    fn faults_come_in_order_with_their_lines() {
        let good = r#"{"source": "a", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "one two"}]}"#;
        let open = r#"{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": " "}]}"#;
        let (_folder, files) = files(&format!("{good}\n\nnonsense\n{open}\n{good}\n"));
        let mut found = Vec::new();
        let mut take = |bad: BadLine| {
            found.push((bad.line, bad.kind));
            assert!(
                bad.what.contains(&format!(":{}`: ", bad.line)),
                "{}",
                bad.what
            );
            Ok(())
        };
        let checked = check(&files, &has_an_answer, &mut take, &WATCH).unwrap();
        assert_eq!(found, [(3, "broken_json"), (4, "no_trainable_token")]);
        assert_eq!((checked.samples, checked.good, checked.blank), (4, 2, 1));
        let stats = stats(&files, &WATCH).unwrap();
        assert_eq!((stats.total.samples, stats.bad), (3, 1));
        assert_eq!(stats.sources[0].0, "a");
        assert_eq!(stats.sources[0].2.words.counts, [0, 0, 2]);
        assert_eq!(stats.total.short_answers, 3);
    }

    #[test]
    fn slots_are_powers_of_two() {
        let mut histogram = Histogram::default();
        [0, 1, 2, 3, 4, u64::MAX]
            .into_iter()
            .for_each(|n| histogram.add(n));
        assert_eq!(histogram.counts[..4], [1, 1, 2, 1]);
        assert_eq!(Histogram::range(3), (4, 7));
        assert_eq!(Histogram::range(64).0, 1 << 63);
    }
}
