//! A curation on disk: what is to be done, said once, for this process and for any other.
//!
//! `job.json` in the work folder holds the resolved recipe and the inputs as they were found. Whoever
//! indexes a part (a thread of this process, or an executor on another machine that sees the same
//! folders) needs its path and a number. Its fingerprint tells whether what an interrupted run left
//! belongs to the same curation.

use std::collections::HashMap;
use std::path::{Path, PathBuf, absolute};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use opabinia_data::PictureFolder;
use opabinia_image::ImageLimits;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::benchmarks::Benchmarks;
use crate::classify::{Classifier, Comparisons};
use crate::convert::Kind;
use crate::error::CurateError;
use crate::index::{Summary, read_summary};
use crate::part::{self, Part};
use crate::plain::PlainCopy;
use crate::recipe::Recipe;
use crate::sources::{Rules, file_name};
use crate::table::{hex, write_json};

/// Layout of work folders; a change makes older ones worthless.
const LAYOUT: u32 = 3;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    layout: u32,
    /// The recipe, without paths to tables.
    pub recipe: Recipe,
    /// The inputs.
    pub files: Vec<InputFile>,
    /// Bytes of a part.
    pub part_bytes: u64,
    /// Plain copies of inputs that are no lines; not part of what is asked for.
    #[serde(default)]
    pub copies: Vec<Option<PlainCopy>>,
    /// What the files of benchmarks were when they were found; empty if there are none.
    benchmarks: String,
}

/// An input as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Its absolute path.
    pub path: PathBuf,
    /// As the recipe names it.
    pub named: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified: u64,
    /// What it is.
    pub kind: Kind,
}

impl InputFile {
    /// Looks at a file.
    ///
    /// # Errors
    /// If it is not there, is no file, or its path is not UTF-8.
    pub fn find(named: &Path, doing: &'static str) -> Result<Self, CurateError> {
        let path = whole_path(named, doing)?;
        let about = path.metadata().map_err(CurateError::io(doing, named))?;
        if !about.is_file() {
            return Err(CurateError::Format {
                path: named.to_owned(),
                problem: "not a file".to_owned(),
            });
        }
        let modified = about.modified().ok();
        let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(Self {
            path,
            named: named.to_owned(),
            bytes: about.len(),
            modified: since.map_or(0, |since| since.as_nanos() as u64),
            kind: Kind::Lines,
        })
    }
}

/// The path from the root, links kept; it must be UTF-8, because jobs are written as JSON.
pub(crate) fn whole_path(named: &Path, doing: &'static str) -> Result<PathBuf, CurateError> {
    let path = absolute(named).map_err(CurateError::io(doing, named))?;
    if path.to_str().is_none() {
        return Err(CurateError::NotUtf8 { path });
    }
    path.metadata().map_err(CurateError::io(doing, named))?;
    Ok(path)
}

/// Hash of what files were when they were found: paths, sizes and times.
fn fingerprint_of(files: &[InputFile]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let mut hash = Sha256::new();
    for file in files {
        let path = file.path.as_os_str().as_encoded_bytes();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update(file.bytes.to_le_bytes());
        hash.update(file.modified.to_le_bytes());
    }
    hex(&hash.finalize())
}

impl Job {
    /// Looks at the inputs of a recipe.
    ///
    /// # Errors
    /// If an input is not there, or its path is not UTF-8.
    pub fn new(recipe: &Recipe, part_bytes: u64) -> Result<Self, CurateError> {
        let files = recipe.input.files.iter();
        let files = files.map(|named: &PathBuf| -> Result<InputFile, CurateError> {
            let file = InputFile::find(named, "find the samples")?;
            let kind = Kind::of(&file.path)?;
            Ok(InputFile { kind, ..file })
        });
        let mut recipe = recipe.clone();
        let mut benchmarks = Vec::new();
        // Executors may stand in other folders.
        if let Some(clean) = &mut recipe.decontaminate {
            for path in clean.questions.iter_mut().chain(&mut clean.images) {
                *path = whole_path(path, "find the benchmark")?;
            }
            benchmarks = clean.files()?;
        }
        if let Some(images) = &mut recipe.input.images {
            *images = whole_path(images, "find the folder of pictures")?;
        }
        Ok(Self {
            layout: LAYOUT,
            files: files.collect::<Result<_, CurateError>>()?,
            copies: Vec::new(),
            recipe,
            part_bytes,
            benchmarks: fingerprint_of(&benchmarks),
        })
    }

    /// All parts of all files.
    pub fn parts(&self) -> Vec<Part> {
        let sizes = (0..self.files.len()).map(|number| self.lines_of(number).map_or(0, |at| at.1));
        part::cut(&sizes.collect::<Vec<u64>>(), self.part_bytes)
    }

    /// Where the lines of an input are, and how many bytes they take: the file, or its plain copy.
    pub fn lines_of(&self, file: usize) -> Option<(&Path, u64)> {
        match self.copies.get(file) {
            Some(Some(copy)) => Some((&copy.path, copy.bytes)),
            _ => self
                .files
                .get(file)
                .map(|file| (file.path.as_path(), file.bytes)),
        }
    }

    /// Equal for equal curations.
    ///
    /// # Errors
    /// If the job cannot be written as JSON: a fault of this program.
    pub fn fingerprint(&self) -> Result<String, CurateError> {
        let mut asked = Self {
            copies: Vec::new(),
            ..self.clone()
        };
        if let Some(rewrite) = &mut asked.recipe.rewrite {
            *rewrite = rewrite.identity();
        }
        let text = serde_json::to_string(&asked).map_err(|error| CurateError::Recipe {
            place: "the recipe".to_owned(),
            problem: format!("it cannot be written as JSON: {error}"),
        })?;
        Ok(hex(&Sha256::digest(text)))
    }

    /// Writes `job.json`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), CurateError> {
        write_json(path, self)
    }

    /// Reads `job.json`.
    ///
    /// # Errors
    /// If it cannot be read, or is of another version of this program.
    pub fn read(path: &Path) -> Result<Self, CurateError> {
        let bytes = std::fs::read(path).map_err(CurateError::io("read", path))?;
        serde_json::from_slice(&bytes).map_err(|error| CurateError::Format {
            path: path.to_owned(),
            problem: format!("not a curation of this version: {error}"),
        })
    }
}

/// Path of the index of a part; `job` is the path of `job.json`.
pub fn index_path(job: &Path, number: u32) -> PathBuf {
    job.with_file_name("index")
        .join(format!("part-{number:05}.parquet"))
}

/// Path of the bands of a part; `job` is the path of `job.json`.
pub fn bands_path(job: &Path, number: u32) -> PathBuf {
    job.with_file_name("bands")
        .join(format!("part-{number:05}.parquet"))
}

/// A job that is being worked on.
#[derive(Debug)]
pub struct Running {
    /// What is to be done.
    pub job: Job,
    path: PathBuf,
    parts: Vec<Part>,
    rules: Rules,
    pictures: Option<PictureFolder>,
    compare: Comparisons,
    /// Parts that are done.
    pub done: AtomicU64,
    /// Whether somebody asked for an end.
    pub cancelled: AtomicBool,
}

/// Jobs by the path of `job.json`, with size and time of the file that they were read from: executors
/// live longer than a curation, and the same path may be another one's later.
type Jobs = HashMap<PathBuf, ((u64, Option<SystemTime>), Arc<Running>)>;

static RUNNING: Mutex<Option<Jobs>> = Mutex::new(None);

impl Running {
    /// The job whose `job.json` is at `path`; read once in a process, unless it changes.
    ///
    /// # Errors
    /// If it cannot be read, or its folder of pictures is not there.
    pub fn at(path: &Path) -> Result<Arc<Self>, CurateError> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.get_or_insert_default();
        let about = path.metadata().map_err(CurateError::io("read", path))?;
        let stamp = (about.len(), about.modified().ok());
        if let Some((of, known)) = running.get(path)
            && *of == stamp
        {
            return Ok(Arc::clone(known));
        }
        let job = Job::read(path)?;
        let images = job.recipe.input.images.as_ref();
        let pictures = images.map(|images| PictureFolder::open(images, ImageLimits::default()));
        let dedup = job.recipe.dedup.clone().unwrap_or_default();
        let clean = job.recipe.decontaminate.as_ref();
        let compare = Comparisons {
            pictures: dedup.pictures,
            near: dedup.near.is_some(),
            benchmarks: clean.map(Benchmarks::load).transpose()?,
            ..Comparisons::default()
        };
        let made = Arc::new(Self {
            compare,
            path: path.to_owned(),
            parts: job.parts(),
            rules: Rules::new(&job.recipe.source),
            pictures: pictures.transpose()?,
            job,
            done: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
        });
        running.insert(path.to_owned(), (stamp, Arc::clone(&made)));
        Ok(made)
    }

    /// Forgets a job, so that its path may mean another one.
    pub fn forget(path: &Path) {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_mut() {
            running.remove(path);
        }
    }

    /// Indexes a part, unless that is done; gives the number of its lines.
    ///
    /// # Errors
    /// If there is no such part, its file changed or cannot be read, or the index cannot be written.
    pub fn index_part(&self, number: u32) -> Result<u64, CurateError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(CurateError::Interrupted);
        }
        let out = index_path(&self.path, number);
        let summary = match out.exists() {
            true => read_summary(&out)?,
            false => self.make(number, &out)?,
        };
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(summary.lines)
    }

    fn make(&self, number: u32, out: &Path) -> Result<Summary, CurateError> {
        let wrong = |problem: String| CurateError::Format {
            path: self.path.clone(),
            problem,
        };
        let part = self.parts.get(number as usize);
        let part = part.ok_or_else(|| wrong(format!("there is no part {number}")))?;
        let file = self.job.files.get(part.file as usize);
        let file = file.ok_or_else(|| wrong(format!("there is no file {}", part.file)))?;
        let lines = self.job.lines_of(part.file as usize);
        let (path, expected) = lines.unwrap_or((file.path.as_path(), file.bytes));
        let bytes = path.metadata().map(|about| about.len());
        if bytes.map_err(CurateError::io("read", path))? != expected {
            return Err(CurateError::Format {
                path: file.named.clone(),
                problem: "the file changed while it was read; run the command again".to_owned(),
            });
        }
        let classifier = Classifier {
            rules: &self.rules,
            pictures: self.pictures.as_ref(),
            decode: self.job.recipe.input.decode,
            placeholders: self.job.recipe.input.placeholders,
            compare: Some(&self.compare),
        };
        let name = file_name(&file.named);
        let bands = bands_path(&self.path, number);
        let bands = self.compare.near.then_some(bands.as_path());
        part::index(path, &name, part, &classifier, out, bands)
    }
}
