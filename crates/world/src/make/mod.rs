//! A whole world on disk: pictures, captions, conversations, benchmark questions, annotations.
//!
//! ```text
//! DIR/world.json                what it is: options, counts, version, time
//! DIR/train/images/00/000000.png …
//! DIR/train/align.jsonl         a caption per picture (stage 1)
//! DIR/train/instruct.jsonl      a conversation per picture (stage 2)
//! DIR/train/apart.jsonl         a dozen questions per picture or more, with short answers, and how things stand
//!                               to each other, to be read apart
//! DIR/train/single.jsonl        the same, answered by words, letters and sentences as each asks for
//! DIR/train/listed.jsonl        all parts of a picture in random orders, to be read apart
//! DIR/train/text.jsonl          samples without a picture
//! DIR/train/annotations/        the truth of the scenes, in the formats of real sources
//! DIR/train/labels/             what is in each cell of each picture, for dense supervision
//! DIR/test/images/ …, align.jsonl, instruct.jsonl, annotations/
//! DIR/test/questions.jsonl      benchmark questions
//! ```
//!
//! Every picture has a seed of its own, drawn from the world's seed, its split and its number, so
//! the files do not depend on the number of threads, and a larger world begins with the smaller
//! one. No picture is in both splits. A world is written beside its folder and renamed at the end,
//! so that nothing half-written is taken for whole.

mod annotate;
mod count;
mod error;
mod folder;
mod lines;
mod options;
mod page;
mod text;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use count::TaskCount;
pub use error::MakeError;
pub use folder::WORLD_FILE;
pub use options::{MakeOptions, Mix, MixError, subject};
pub use page::{BenchmarkQuestion, Split};

use self::annotate::{Annotations, Record};
use self::count::Counts;
use self::folder::{Found, Unfinished};
use self::lines::{Lines, line};
use self::page::{Identity, Page, page};
use crate::error::WorldError;
use crate::labels;
use crate::picture::Subject;
use crate::question::Task;
use crate::stream::stream;
use crate::truth::Picture;

/// Raised whenever the same options no longer give the same files.
const FORMAT: u32 = 7;
/// The folder of label maps, whose names are those of the pictures.
const LABELS: &str = "labels";
/// What their planes and values mean.
const LABELS_FILE: &str = "labels.json";
/// Pictures that are in memory at once.
const CHUNK: usize = 256;

/// What was made; also the content of `world.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MakeReport {
    /// Version of the files.
    pub format: u32,
    /// What made it.
    pub program: String,
    /// From what.
    pub options: MakeOptions,
    /// Pictures per split and subject.
    pub pictures: BTreeMap<Split, BTreeMap<String, usize>>,
    /// Lines per file.
    pub lines: BTreeMap<String, usize>,
    /// Questions per task.
    pub questions: BTreeMap<Task, TaskCount>,
    /// Test pictures that were drawn again because the training split has the same, and how often.
    pub redrawn: BTreeMap<usize, usize>,
    /// Pictures that are in both splits nevertheless; 0 unless a subject has hardly any pictures.
    pub in_both: usize,
    /// Wall-clock time.
    pub seconds: f64,
    /// Threads that worked.
    pub threads: usize,
    /// Whether it was there before and nothing was done.
    #[serde(skip)]
    pub already_there: bool,
}

impl MakeReport {
    /// Whether making a world of these options would give the same files.
    fn is_of(&self, options: &MakeOptions) -> bool {
        let decisive = |options: &MakeOptions| MakeOptions {
            threads: None,
            force: false,
            ..options.clone()
        };
        self.is_of_this_version() && decisive(&self.options) == decisive(options)
    }

    /// Whether this version of the program draws the same pictures.
    #[must_use]
    pub fn is_of_this_version(&self) -> bool {
        self.format == FORMAT
    }

    /// Pictures that were drawn per second of wall-clock time.
    pub fn pictures_per_second(&self) -> f64 {
        let pictures: usize = self.pictures.values().flat_map(BTreeMap::values).sum();
        pictures as f64 / self.seconds.max(1e-9)
    }
}

/// Reads what a world is.
///
/// # Errors
/// [`MakeError::Read`] if there is no `world.json` in the folder, [`MakeError::Damaged`] if it is not
/// what this program writes.
pub fn read(folder: &Path) -> Result<MakeReport, MakeError> {
    let path = folder.join(WORLD_FILE);
    match fs::read(&path) {
        Ok(text) => {
            serde_json::from_slice(&text).map_err(|source| MakeError::Damaged { path, source })
        }
        Err(source) => Err(MakeError::Read { path, source }),
    }
}

/// Draws picture `index` of a split once more, or `None` if the world has no such picture. It is the
/// one in the world's folder if the world [is of this version](MakeReport::is_of_this_version).
pub fn picture(world: &MakeReport, split: Split, index: usize) -> Option<(Subject, Picture)> {
    if index >= world.options.pictures(split) {
        return None;
    }
    let attempt = match split {
        Split::Train => 0,
        Split::Test => world.redrawn.get(&index).copied().unwrap_or(0),
    };
    Some(page::draw_attempt(&world.options, split, index, attempt))
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pictures so far.
    pub done: usize,
    /// Pictures in all.
    pub total: usize,
}

/// Makes a world in `folder`, or finds that it is there already.
///
/// `progress` is called after every picture, from the threads that draw.
///
/// # Errors
/// [`MakeError`] if an option is out of range, if the folder holds something else, or if a file
/// cannot be written. What was in the folder is then untouched.
pub fn make(
    folder: &Path,
    options: &MakeOptions,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<MakeReport, MakeError> {
    options.check()?;
    let found = folder::look(folder, options)?;
    if let Found::Same(mut report) = found {
        report.already_there = true;
        return Ok(*report);
    }
    let threads = options.threads.unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|source| MakeError::Threads { threads, source })?;
    let unfinished = Unfinished::begin(folder)?;
    let started = Instant::now();
    let maker = Maker {
        root: &unfinished.path,
        options,
        progress,
        done: AtomicUsize::new(0),
        counts: Counts::default(),
    };
    let counts = pool.install(|| maker.make())?;
    let report = MakeReport {
        format: FORMAT,
        program: format!("opabinia {}", env!("CARGO_PKG_VERSION")),
        options: options.clone(),
        pictures: counts.pictures,
        lines: counts.lines,
        questions: counts.questions.finish(),
        redrawn: counts.redrawn,
        in_both: counts.in_both,
        seconds: started.elapsed().as_secs_f64(),
        threads: pool.current_num_threads(),
        already_there: false,
    };
    write_report(&unfinished.path, &report)?;
    unfinished.finish(&found)?;
    Ok(report)
}

fn write_report(root: &Path, report: &MakeReport) -> Result<(), WorldError> {
    let path = root.join(WORLD_FILE);
    let text = serde_json::to_string_pretty(report).map_err(|source| WorldError::Json {
        what: "description of the world",
        source,
    })?;
    fs::write(&path, text).map_err(|source| WorldError::Write { path, source })
}

/// One run of [`make`].
struct Maker<'a> {
    root: &'a Path,
    options: &'a MakeOptions,
    progress: &'a (dyn Fn(Progress) + Sync),
    done: AtomicUsize,
    counts: Counts,
}

impl Maker<'_> {
    fn make(mut self) -> Result<Counts, WorldError> {
        let train = self.split(Split::Train, &HashSet::new())?;
        self.split(Split::Test, &train)?;
        Ok(self.counts)
    }

    /// Writes a split, and returns what its pictures are known by. `taken` is what the other has.
    fn split(
        &mut self,
        split: Split,
        taken: &HashSet<Identity>,
    ) -> Result<HashSet<Identity>, WorldError> {
        let root = self.root.join(split.name());
        let pictures = self.options.pictures(split);
        for index in (0..pictures).step_by(page::SHARD) {
            let shard = Path::new("images").join(page::shard_folder(index));
            create_folder(&root.join(&shard))?;
            if self.options.labels {
                create_folder(&root.join(LABELS).join(&shard))?;
            }
        }
        create_folder(&root)?;
        if self.options.labels {
            describe_labels(&root.join(LABELS))?;
        }
        let mut files = Files::create(&root, split)?;
        let mut annotations = self
            .options
            .annotations
            .then(|| Annotations::create(&root, split.name(), pictures))
            .transpose()?;
        let mut identities = HashSet::with_capacity(pictures);
        let indices: Vec<usize> = (0..pictures).collect();
        for chunk in indices.chunks(CHUNK) {
            let pages: Vec<(Page, Option<Record>)> = chunk
                .par_iter()
                .map(|&index| self.page(&root, split, index, taken))
                .collect::<Result<_, _>>()?;
            for (&index, (page, record)) in chunk.iter().zip(pages) {
                files.push(&page)?;
                if let (Some(annotations), Some(record)) = (&mut annotations, record) {
                    annotations.push(record)?;
                }
                identities.insert(page.identity);
                self.counts.add(split, index, &page, taken);
            }
        }
        if let Some(annotations) = annotations {
            annotations.finish()?;
        }
        if let Some(text) = &mut files.text {
            self.texts(text)?;
        }
        files.finish(split, &mut self.counts.lines)?;
        Ok(identities)
    }

    /// Makes a page, and writes its picture and what else is in files of its own.
    fn page(
        &self,
        root: &Path,
        split: Split,
        index: usize,
        taken: &HashSet<Identity>,
    ) -> Result<(Page, Option<Record>), WorldError> {
        let page = page(self.options, split, index, taken);
        let path = root.join(&page.file);
        let picture = &page.picture.pixels;
        let saved = picture.save_png(&path);
        saved.map_err(|source| WorldError::Picture { path, source })?;
        if self.options.labels {
            write_labels(&root.join(LABELS).join(&page.file), &page.picture)?;
        }
        let record = self
            .options
            .annotations
            .then(|| Record::of(root, index, &page))
            .transpose()?;
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.options.pictures_train + self.options.pictures_test;
        (self.progress)(Progress { done, total });
        Ok((page, record))
    }

    /// Writes the samples that belong to no picture.
    fn texts(&self, file: &mut Lines) -> Result<(), WorldError> {
        let lines: Vec<String> = (0..self.options.texts)
            .into_par_iter()
            .map(|index| {
                let mut random = stream(self.options.seed, "text", index as u64);
                line(&text::sample(index, &self.options.forms, &mut random))
            })
            .collect::<Result<_, _>>()?;
        lines.iter().try_for_each(|line| file.push(line))
    }
}

/// The JSONL files of a split.
struct Files {
    instruct: Lines,
    align: Lines,
    apart: Option<Lines>,
    single: Option<Lines>,
    listed: Option<Lines>,
    text: Option<Lines>,
    questions: Option<Lines>,
}

impl Files {
    fn create(root: &Path, split: Split) -> Result<Self, WorldError> {
        let lines = |name: &str| Lines::create(root.join(name));
        let only = |wanted: Split, name: &str| (split == wanted).then(|| lines(name)).transpose();
        Ok(Self {
            instruct: lines("instruct.jsonl")?,
            align: lines("align.jsonl")?,
            apart: only(Split::Train, "apart.jsonl")?,
            single: only(Split::Train, "single.jsonl")?,
            listed: only(Split::Train, "listed.jsonl")?,
            text: only(Split::Train, "text.jsonl")?,
            questions: only(Split::Test, "questions.jsonl")?,
        })
    }

    fn push(&mut self, page: &Page) -> Result<(), WorldError> {
        if let Some(sample) = &page.instruct {
            self.instruct.push(&line(sample)?)?;
        }
        self.align.push(&line(&page.align)?)?;
        if let (Some(file), Some(sample)) = (&mut self.apart, &page.apart) {
            file.push(&line(sample)?)?;
        }
        if let (Some(file), Some(sample)) = (&mut self.single, &page.single) {
            file.push(&line(sample)?)?;
        }
        if let (Some(file), Some(sample)) = (&mut self.listed, &page.listed) {
            file.push(&line(sample)?)?;
        }
        if let (Some(file), Some(sample)) = (&mut self.text, &page.described) {
            file.push(&line(sample)?)?;
        }
        if let Some(file) = &mut self.questions {
            for question in &page.benchmark {
                file.push(&line(question)?)?;
            }
        }
        Ok(())
    }

    fn finish(self, split: Split, lines: &mut BTreeMap<String, usize>) -> Result<(), WorldError> {
        let named = [
            ("instruct", Some(self.instruct)),
            ("align", Some(self.align)),
            ("apart", self.apart),
            ("single", self.single),
            ("listed", self.listed),
            ("text", self.text),
            ("questions", self.questions),
        ];
        for (name, file) in named {
            if let Some(file) = file {
                lines.insert(format!("{}/{name}.jsonl", split.name()), file.finish()?);
            }
        }
        Ok(())
    }
}

fn describe_labels(folder: &Path) -> Result<(), WorldError> {
    create_folder(folder)?;
    let path = folder.join(LABELS_FILE);
    let text =
        serde_json::to_string_pretty(&labels::describe()).map_err(|source| WorldError::Json {
            what: "description of the labels",
            source,
        })?;
    fs::write(&path, text).map_err(|source| WorldError::Write { path, source })
}

fn write_labels(path: &Path, picture: &Picture) -> Result<(), WorldError> {
    labels::label_map(picture)
        .and_then(|map| map.save_png(path))
        .map_err(|source| WorldError::Picture {
            path: path.to_owned(),
            source,
        })
}

fn create_folder(path: &Path) -> Result<(), WorldError> {
    fs::create_dir_all(path).map_err(|source| WorldError::Write {
        path: path.to_owned(),
        source,
    })
}
