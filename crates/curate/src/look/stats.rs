//! Statistics: what is in files of samples.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use opabinia_data::Role;
use opabinia_image::ImageLimits;
use rayon::prelude::*;
use serde::Serialize;

use super::walk::{Seen, walk};
use super::{Files, Histogram};
use crate::classify::{Class, SHORT_ANSWER_WORDS};
use crate::error::CurateError;
use crate::run::{Progress, Watch};
use crate::sources::Origin;

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
    /// Pictures that cannot be decoded, where they were looked at; each file counts once.
    pub bad_pictures: u64,
    /// Pictures by shape, width over height: up to 1:2, 3:4, 4:3, 2:1, and wider.
    pub picture_shapes: [u64; 5],
}

impl Stats {
    fn add_picture(&mut self, (width, height): (u32, u32)) {
        self.picture_sides.add(width.max(height).into());
        let shape = f64::from(width) / f64::from(height.max(1));
        let slot = [0.5, 0.75, 4.0 / 3.0, 2.0]
            .iter()
            .filter(|&&bound| shape > bound)
            .count();
        self.picture_shapes[slot] += 1;
    }
}

impl SourceStats {
    fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.with_picture += other.with_picture;
        self.short_answers += other.short_answers;
        self.words.merge(&other.words);
        self.turns.merge(&other.turns);
        self.answer_words.merge(&other.answer_words);
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
    /// Of pictures that came inside of the file.
    sizes: Vec<(u32, u32)>,
}

/// Counts what is in files of samples. Pictures are measured if `files.decode` says so.
///
/// # Errors
/// As [`check`].
pub fn stats(files: &Files, watch: &Watch<'_>) -> Result<Stats, CurateError> {
    let mut by_origin: BTreeMap<Origin, SourceStats> = BTreeMap::new();
    let mut stats = Stats::default();
    let mut images: BTreeSet<String> = BTreeSet::new();
    let measure_pictures = files.decode && files.images.is_some();
    // Broken pictures, and what was measured: nothing of a blank line, and no sample in a bad one.
    let judge = |seen: Seen| -> (u64, Option<Option<Measured>>) {
        let Seen {
            classified,
            sizes,
            broken,
        } = seen;
        let (Class::Ok, Some(sample), Some(origin)) =
            (classified.class, classified.sample, classified.origin)
        else {
            let is_bad = classified.class != Class::Blank;
            return (broken, is_bad.then_some(None));
        };
        let answers = sample
            .turns
            .iter()
            .filter(|turn| turn.role == Role::Assistant);
        let words = answers.map(|turn| turn.text.split_whitespace().count() as u32);
        let measured = Measured {
            origin,
            has_picture: sample.image.is_some(),
            answers: words.collect(),
            words: classified.lengths.words,
            turns: classified.lengths.turns,
            image: sample
                .image
                .filter(|_| measure_pictures && sizes.is_empty()),
            sizes,
        };
        (broken, Some(Some(measured)))
    };
    // Pictures are measured once each, afterwards, not with every sample that shows them.
    let found = Files {
        decode: false,
        decode_inside: files.decode,
        ..files.clone()
    };
    walk(
        &found,
        "read",
        &judge,
        |_, _, (broken, measured)| {
            stats.bad_pictures += broken;
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
                        own.short_answers += u64::from(words <= SHORT_ANSWER_WORDS);
                    }
                    images.extend(measured.image);
                    for size in measured.sizes {
                        stats.add_picture(size);
                    }
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
    images: &BTreeSet<String>,
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
        for size in sizes {
            match size {
                Some(size) => stats.add_picture(size),
                None => stats.bad_pictures += 1,
            }
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
