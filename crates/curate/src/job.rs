//! A curation on disk: what is to be done, said once, for this process and for any other.
//!
//! `job.json` in the work folder holds the resolved recipe and the inputs as they were found. Whoever
//! indexes a part (a thread of this process, or an executor on another machine that sees the same
//! folders) needs its path and a number. Its fingerprint tells whether what an interrupted run left
//! belongs to the same curation.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use opabinia_data::PictureFolder;
use opabinia_image::ImageLimits;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::benchmarks::Benchmarks;
use crate::classify::{Classifier, Comparisons};
use crate::error::CurateError;
use crate::part::{self, Part, Summary};
use crate::recipe::Recipe;
use crate::sources::{Rules, file_name};

/// Layout of work folders; a change makes older ones worthless.
const LAYOUT: u32 = 1;

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
}

impl Job {
    /// Looks at the inputs of a recipe.
    ///
    /// # Errors
    /// If an input is not there.
    pub fn new(recipe: &Recipe, part_bytes: u64) -> Result<Self, CurateError> {
        let found = |named: &PathBuf| {
            let io = || CurateError::io("find the samples", named);
            let path = named.canonicalize().map_err(io())?;
            let about = path.metadata().map_err(io())?;
            if !about.is_file() {
                return Err(CurateError::Format {
                    path: named.clone(),
                    problem: "not a file".to_owned(),
                });
            }
            let modified = about.modified().ok();
            let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            Ok(InputFile {
                path,
                named: named.clone(),
                bytes: about.len(),
                modified: since.map_or(0, |since| since.as_nanos() as u64),
            })
        };
        let files = recipe.input.files.iter().map(found);
        let mut recipe = recipe.clone();
        // Executors may stand in other folders.
        if let Some(clean) = &mut recipe.decontaminate {
            for path in clean.questions.iter_mut().chain(&mut clean.images) {
                let io = CurateError::io("find", path);
                *path = path.canonicalize().map_err(io)?;
            }
        }
        if let Some(images) = &mut recipe.input.images {
            let io = CurateError::io("find the folder of pictures", images);
            *images = images.canonicalize().map_err(io)?;
        }
        Ok(Self {
            layout: LAYOUT,
            files: files.collect::<Result<_, _>>()?,
            recipe,
            part_bytes,
        })
    }

    /// All parts of all files.
    pub fn parts(&self) -> Vec<Part> {
        let sizes: Vec<u64> = self.files.iter().map(|file| file.bytes).collect();
        part::cut(&sizes, self.part_bytes)
    }

    /// Equal for equal curations.
    pub fn fingerprint(&self) -> String {
        part::hex(&Sha256::digest(serde_json::json!(self).to_string()))
    }

    /// Writes `job.json`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), CurateError> {
        let temporary = part::temporary(path);
        let io = || CurateError::io("write", path);
        std::fs::write(&temporary, serde_json::json!(self).to_string()).map_err(io())?;
        std::fs::rename(&temporary, path).map_err(io())
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

static RUNNING: Mutex<Option<HashMap<PathBuf, Arc<Running>>>> = Mutex::new(None);

impl Running {
    /// The job whose `job.json` is at `path`; read once in a process.
    ///
    /// # Errors
    /// If it cannot be read, or its folder of pictures is not there.
    pub fn at(path: &Path) -> Result<Arc<Self>, CurateError> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.get_or_insert_default();
        if let Some(known) = running.get(path) {
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
        running.insert(path.to_owned(), Arc::clone(&made));
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
            true => part::read_summary(&out)?,
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
        let bytes = file.path.metadata().map(|about| about.len());
        if bytes.map_err(CurateError::io("read", &file.path))? != file.bytes {
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
        part::index(&file.path, &name, part, &classifier, out, bands)
    }
}
