//! The walk over all lines, several parts at a time, in order.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opabinia_data::{PictureFolder, Place, SampleError};
use opabinia_image::{ImageLimits, ImageSource};
use rayon::prelude::*;

use super::Files;
use crate::classify::{Class, Classified, Classifier};
use crate::convert::{Incoming, Kind, name_inside, read};
use crate::error::CurateError;
use crate::lines::PartText;
use crate::part::{PART_BYTES, cut};
use crate::recipe::Placeholders;
use crate::run::{Progress, Watch};
use crate::sources::{Rules, file_name};

/// Calls `judge` for every line, several parts at a time, and `take` with what came of it, in order.
pub(super) fn walk<T: Send>(
    files: &Files,
    stage: &'static str,
    judge: &(dyn Fn(Seen) -> T + Sync),
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
    let mut progress = Steps {
        stage,
        done: 0,
        total: 0,
        watch,
    };
    let mut found = Vec::new();
    for file in &files.files {
        let about = file.metadata();
        let bytes = about.map_err(CurateError::io("read the samples", file))?;
        progress.total += bytes.len();
        found.push((file, bytes.len(), Kind::of(file)?));
    }
    for (file, bytes, kind) in found {
        match kind.is_lines() {
            true => walk_lines(file, bytes, &classifier, judge, &mut take, &mut progress)?,
            false => {
                let stream = Stream {
                    file,
                    name: file_name(file),
                    classifier: &classifier,
                    decode: files.decode || files.decode_inside,
                    judge,
                };
                stream.walk(&mut take, &mut progress)?;
            }
        }
        progress.done += bytes;
        progress.show(0);
    }
    Ok(())
}

/// A line that was looked at.
pub(super) struct Seen {
    /// What it is.
    pub classified: Classified,
    /// Sizes of pictures that came inside of the file, if they were decoded.
    pub sizes: Vec<(u32, u32)>,
    /// Number of those that could not be.
    pub broken: u64,
}

/// How far the walk is, in bytes.
struct Steps<'a> {
    stage: &'static str,
    done: u64,
    total: u64,
    watch: &'a Watch<'a>,
}

impl Steps<'_> {
    fn show(&self, more: u64) {
        (self.watch.progress)(Progress {
            stage: self.stage,
            done: self.done + more,
            total: self.total,
        });
    }

    fn check(&self) -> Result<(), CurateError> {
        match (self.watch.cancelled)() {
            true => Err(CurateError::Interrupted),
            false => Ok(()),
        }
    }
}

/// Walks over plain lines, in parts.
fn walk_lines<T: Send>(
    file: &Path,
    bytes: u64,
    classifier: &Classifier<'_>,
    judge: &(dyn Fn(Seen) -> T + Sync),
    take: &mut impl FnMut(&Path, u64, T) -> Result<(), CurateError>,
    progress: &mut Steps<'_>,
) -> Result<(), CurateError> {
    let mut lines = 0;
    // A few parts at a time bound the memory; within them order is kept.
    for group in cut(&[bytes], PART_BYTES).chunks(2 * rayon::current_num_threads()) {
        progress.check()?;
        // Line numbers of a part need the number of lines before it, so a group is read first.
        let read = group
            .par_iter()
            .map(|part| PartText::read(file, part))
            .collect::<Result<Vec<PartText>, _>>()?;
        let mut firsts = Vec::with_capacity(group.len());
        for text in &read {
            firsts.push(lines);
            lines += text.count();
        }
        let judged: Vec<Vec<T>> = read
            .par_iter()
            .zip(&firsts)
            .map(|(text, &first)| judge_part(file, text, first, classifier, judge))
            .collect();
        for (first, values) in firsts.into_iter().zip(judged) {
            for (row, value) in values.into_iter().enumerate() {
                take(file, first + row as u64 + 1, value)?;
            }
        }
        progress.show(group.last().map_or(0, |part| part.end));
    }
    Ok(())
}

fn judge_part<T>(
    path: &Path,
    text: &PartText,
    first: u64,
    classifier: &Classifier<'_>,
    judge: &(dyn Fn(Seen) -> T + Sync),
) -> Vec<T> {
    let (name, path): (String, Arc<Path>) = (file_name(path), path.into());
    let judged = text.lines().zip(first + 1..).map(|(text, line)| {
        let place = Place::new(Arc::clone(&path), line);
        judge(Seen {
            classified: classifier.classify_line(&text, place, &name),
            sizes: Vec::new(),
            broken: 0,
        })
    });
    judged.collect()
}

/// Samples, and bytes of pictures, that are judged at once.
const GROUP: (usize, usize) = (1024, 64 << 20);

/// A file that is no plain lines, read as a stream; the number of a sample stands for its line.
struct Stream<'a, T> {
    file: &'a Path,
    name: String,
    classifier: &'a Classifier<'a>,
    /// Whether pictures inside are decoded.
    decode: bool,
    judge: &'a (dyn Fn(Seen) -> T + Sync),
}

impl<T: Send> Stream<'_, T> {
    fn walk(
        &self,
        take: &mut impl FnMut(&Path, u64, T) -> Result<(), CurateError>,
        progress: &mut Steps<'_>,
    ) -> Result<(), CurateError> {
        let position = AtomicU64::new(0);
        let (mut first, mut bytes) = (1, 0);
        let mut group: Vec<Incoming> = Vec::new();
        let mut flush = |group: &mut Vec<Incoming>, first: &mut u64| {
            progress.check()?;
            progress.show(position.load(Ordering::Relaxed));
            let from = *first;
            let judged: Vec<T> = std::mem::take(group)
                .into_par_iter()
                .enumerate()
                .map(|(i, incoming)| self.judge_one(incoming, from + i as u64))
                .collect();
            for value in judged {
                take(self.file, *first, value)?;
                *first += 1;
            }
            Ok::<(), CurateError>(())
        };
        read(self.file, &position, &mut |incoming| {
            match &incoming {
                Incoming::LeftOut => return Ok(()),
                Incoming::Record { pictures, .. } => {
                    bytes += pictures.iter().map(Vec::len).sum::<usize>();
                }
                Incoming::Line(_) | Incoming::Blank => {}
            }
            group.push(incoming);
            if group.len() < GROUP.0 && bytes < GROUP.1 {
                return Ok(());
            }
            bytes = 0;
            flush(&mut group, &mut first)
        })?;
        flush(&mut group, &mut first)
    }

    fn judge_one(&self, incoming: Incoming, line: u64) -> T {
        let place = Place::new(self.file, line);
        let (text, pictures) = as_line(incoming);
        let classifier = Classifier {
            // Pictures that came inside are looked for nowhere else.
            pictures: self.classifier.pictures.filter(|_| pictures.is_empty()),
            ..self.classifier.clone()
        };
        let mut classified = classifier.classify(&text, place.clone(), &self.name);
        let (mut sizes, mut broken) = (Vec::new(), 0);
        for bytes in pictures.into_iter().filter(|_| self.decode) {
            let source = ImageSource::Bytes {
                bytes,
                name: format!("the picture of {place}"),
            };
            let source = match opabinia_image::load(&source, &ImageLimits::default()) {
                Ok(picture) => {
                    sizes.push(picture.size());
                    continue;
                }
                Err(source) => source,
            };
            broken += 1;
            if classified.class == Class::Ok {
                let error = SampleError::BrokenPicture {
                    place: place.clone(),
                    source: Box::new(source),
                };
                classified.class = Class::BadImage;
                classified.what = Some(error.in_full());
            }
        }
        (self.judge)(Seen {
            classified,
            sizes,
            broken,
        })
    }
}

/// A sample as a line, and the pictures that came inside of its file.
pub type LineWithPictures = (Vec<u8>, Vec<Vec<u8>>);

/// A sample of another form as a line, and the pictures that came with it.
pub fn as_line(incoming: Incoming) -> LineWithPictures {
    match incoming {
        Incoming::Record {
            mut record,
            pictures,
            form,
        } => {
            if !pictures.is_empty() {
                name_inside(&mut record, pictures.len(), form);
            }
            (record.to_string().into_bytes(), pictures)
        }
        Incoming::Line(line) => (line, Vec::new()),
        Incoming::Blank | Incoming::LeftOut => (Vec::new(), Vec::new()),
    }
}

/// The sample numbered `line`, from 1, of a file that is no plain lines, as a line, with its pictures.
///
/// # Errors
/// If the file cannot be read.
pub fn nth(path: &Path, line: u64) -> Result<Option<LineWithPictures>, CurateError> {
    let (mut number, mut found) = (0, None);
    let position = AtomicU64::new(0);
    let read = read(path, &position, &mut |incoming| {
        number += u64::from(incoming != Incoming::LeftOut);
        if number < line {
            return Ok(());
        }
        found = Some(as_line(incoming));
        Err(CurateError::Interrupted)
    });
    match (read, found) {
        (_, Some(found)) => Ok(Some(found)),
        (Ok(()), None) => Ok(None),
        (Err(error), None) => Err(error),
    }
}
