//! The folder of a run: checkpoints that appear whole or not at all, and the log.
//!
//! ```text
//! RUN/
//!   recipe.toml                     what was asked for, defaults filled in
//!   log.jsonl                       one line per step
//!   checkpoints/step-00000120/      weights, optimizer and state; the newest ones are kept
//!   best/                           the same for the best validation loss
//!   .lock                           locked while a process trains here
//! ```
//!
//! A checkpoint is written under a temporary name, flushed to the disk and renamed, so a run that is
//! killed at any moment finds either the whole of it or the one before.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::parameters::Values;
use super::record::StepRecord;
use crate::TrainError;

const CHECKPOINTS: &str = "checkpoints";
const BEST: &str = "best";
const LOG: &str = "log.jsonl";
const WEIGHTS: &str = "weights.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const PREFIX: &str = "step-";
const LOCK: &str = ".lock";

/// Version of the layout of a checkpoint.
const FORMAT: u32 = 1;

/// Where a run stands. Random streams need no state: each is a function of the seed and the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of the layout.
    pub format: u32,
    /// What determines the course of the run; another one cannot go on from here.
    pub fingerprint: String,
    /// Steps done.
    pub step: u64,
    /// Totals so far.
    pub totals: Totals,
    /// The best validation loss so far, and its step.
    pub best: Option<(u64, f64)>,
    /// Whether the validation that was due at this step failed, and comes first when the run goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owes_validation: bool,
}

/// Sums over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Samples seen.
    pub samples: u64,
    /// Tokens through the language model.
    pub tokens: u64,
    /// Pictures.
    pub pictures: u64,
    /// Seconds of training.
    pub seconds: f64,
}

impl State {
    /// The state before the first step.
    #[must_use]
    pub fn new(fingerprint: &str) -> Self {
        Self {
            format: FORMAT,
            fingerprint: fingerprint.to_owned(),
            step: 0,
            totals: Totals::default(),
            best: None,
            owes_validation: false,
        }
    }
}

/// A run's folder, which no other process may open meanwhile.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    log: Option<File>,
    /// Locked until all handles are gone.
    lock: Arc<File>,
}

impl RunFolder {
    /// Opens or makes the folder, and removes what a killed run left half-written.
    ///
    /// # Errors
    /// If it cannot be made, or another process has it open.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let checkpoints = path.join(CHECKPOINTS);
        fs::create_dir_all(&checkpoints).map_err(io("make", &checkpoints))?;
        let lock = lock(path)?;
        remove_unfinished(path);
        remove_unfinished(&checkpoints);
        Ok(Self {
            path: path.to_path_buf(),
            log: None,
            lock: Arc::new(lock),
        })
    }

    /// Another handle on the open folder, without a log.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            path: self.path.clone(),
            log: None,
            lock: Arc::clone(&self.lock),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a text file of the run, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), TrainError> {
        let wanted = self.path.join(name);
        let temporary = self.path.join(format!(".{name}.tmp"));
        write_synced(&temporary, text.as_bytes())?;
        fs::rename(&temporary, &wanted).map_err(io("replace", &wanted))
    }

    /// The newest checkpoint, if there is one.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn newest(&self) -> Result<Option<PathBuf>, TrainError> {
        Ok(self.checkpoints()?.pop())
    }

    /// The newest checkpoint with its state, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or belongs to a run with another fingerprint.
    pub fn resume(&self, fingerprint: &str) -> Result<Option<(PathBuf, State)>, TrainError> {
        let Some(checkpoint) = self.newest()? else {
            return Ok(None);
        };
        let state = read_state(&checkpoint)?;
        if state.fingerprint != fingerprint {
            return Err(TrainError::Refused(format!(
                "{} belongs to a run with another recipe, other data or other weights to begin with; \
                 give this run a folder of its own, or remove that one",
                checkpoint.display()
            )));
        }
        Ok(Some((checkpoint, state)))
    }

    /// All checkpoints, oldest first.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn checkpoints(&self) -> Result<Vec<PathBuf>, TrainError> {
        let folder = self.path.join(CHECKPOINTS);
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(io("list", &folder))? {
            let path = entry.map_err(io("list", &folder))?.path();
            let is_step = path.file_name().is_some_and(|name| {
                name.to_string_lossy()
                    .strip_prefix(PREFIX)
                    .is_some_and(|step| step.parse::<u64>().is_ok())
            });
            if is_step {
                found.push(path);
            }
        }
        // Fixed width, so the order of names is the order of steps.
        found.sort();
        Ok(found)
    }

    /// Saves a checkpoint and removes the oldest ones beyond `keep`.
    ///
    /// # Errors
    /// If something cannot be written; what was there before is untouched then.
    pub fn save(
        &self,
        state: &State,
        weights: &[Values],
        optimizer: impl FnOnce(&Path) -> Result<(), TrainError>,
        keep: usize,
    ) -> Result<PathBuf, TrainError> {
        let folder = self.path.join(CHECKPOINTS);
        let wanted = folder.join(format!("{PREFIX}{:08}", state.step));
        write_checkpoint(&wanted, state, weights, optimizer)?;
        let all = self.checkpoints()?;
        let surplus = all.len().saturating_sub(keep.max(1));
        for old in &all[..surplus] {
            fs::remove_dir_all(old).map_err(io("remove", old))?;
        }
        Ok(wanted)
    }

    /// Saves the best checkpoint so far.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_best(&self, state: &State, weights: &[Values]) -> Result<(), TrainError> {
        write_checkpoint(&self.path.join(BEST), state, weights, |_| Ok(()))
    }

    /// The best checkpoint, if one was saved.
    #[must_use]
    pub fn best(&self) -> Option<PathBuf> {
        let path = self.path.join(BEST);
        path.join(STATE).is_file().then_some(path)
    }

    /// Starts the log, keeping the lines up to `step`.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn start_log(&mut self, step: u64) -> Result<(), TrainError> {
        let path = self.path.join(LOG);
        if path.is_file() {
            let kept = lines_up_to(&path, step)?;
            self.write(LOG, &kept)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        self.log = Some(file.map_err(io("open", &path))?);
        Ok(())
    }

    /// Adds a line to the log.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn log(&mut self, record: &StepRecord) -> Result<(), TrainError> {
        let Some(file) = &mut self.log else {
            return Ok(());
        };
        let mut line = serde_json::to_string(record).map_err(|error| {
            TrainError::Refused(format!("could not write a line of the log: {error}"))
        })?;
        line.push('\n');
        file.write_all(line.as_bytes())
            .map_err(io("write", &self.path.join(LOG)))
    }
}

/// Reads the log of a run.
///
/// # Errors
/// If it cannot be read. Lines that are no records (the torn end of a killed run) are left out.
pub fn read_log(run: &Path) -> Result<Vec<StepRecord>, TrainError> {
    let path = run.join(LOG);
    let file = File::open(&path).map_err(io("read", &path))?;
    let mut records = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(io("read", &path))?;
        if let Ok(record) = serde_json::from_str(&line) {
            records.push(record);
        }
    }
    Ok(records)
}

/// Reads the state in a checkpoint.
///
/// # Errors
/// If it cannot be read or is of another version.
pub fn read_state(checkpoint: &Path) -> Result<State, TrainError> {
    let path = checkpoint.join(STATE);
    let text = fs::read_to_string(&path).map_err(io("read", &path))?;
    let state: State = serde_json::from_str(&text).map_err(|error| damaged(&path, &error))?;
    if state.format != FORMAT {
        return Err(TrainError::Refused(format!(
            "{} is of format {}, this program reads format {FORMAT}; start the run in another folder",
            path.display(),
            state.format
        )));
    }
    Ok(state)
}

/// Reads the weights in a checkpoint.
///
/// # Errors
/// If they cannot be read.
pub fn read_weights(checkpoint: &Path) -> Result<Vec<Values>, TrainError> {
    read_values(&checkpoint.join(WEIGHTS))
}

/// Where the optimizer's state is in a checkpoint.
#[must_use]
pub fn optimizer_file(checkpoint: &Path) -> PathBuf {
    checkpoint.join(OPTIMIZER)
}

/// Writes values as an `f32` safetensors file, flushed to the disk.
///
/// # Errors
/// If it cannot be written.
pub fn write_values(path: &Path, values: &[Values]) -> Result<(), TrainError> {
    let views = values
        .iter()
        .map(|v| {
            let bytes = bytemuck::cast_slice(&v.values);
            TensorView::new(Dtype::F32, v.shape.clone(), bytes)
                .map(|view| (v.name.as_str(), view))
                .map_err(|error| damaged(path, &error))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let bytes = safetensors::serialize(views, None).map_err(|error| damaged(path, &error))?;
    write_synced(path, &bytes)
}

/// Reads an `f32` safetensors file.
///
/// # Errors
/// If it cannot be read or is no such file.
pub fn read_values(path: &Path) -> Result<Vec<Values>, TrainError> {
    let bytes = fs::read(path).map_err(io("read", path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(path, &error))?;
    file.iter()
        .map(|(name, view)| {
            if view.dtype() != Dtype::F32 {
                let found = format!("`{name}` holds {:?} where F32 is expected", view.dtype());
                return Err(damaged(path, &found));
            }
            Ok(Values {
                name: name.to_owned(),
                shape: view.shape().to_vec(),
                values: bytemuck::pod_collect_to_vec(view.data()),
            })
        })
        .collect()
}

fn write_checkpoint(
    wanted: &Path,
    state: &State,
    weights: &[Values],
    optimizer: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let name = wanted.file_name().unwrap_or_default().to_string_lossy();
    let temporary = wanted.with_file_name(format!(".{name}.tmp"));
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(io("remove", &temporary))?;
    }
    fs::create_dir_all(&temporary).map_err(io("make", &temporary))?;
    write_values(&temporary.join(WEIGHTS), weights)?;
    optimizer(&temporary.join(OPTIMIZER))?;
    let text = serde_json::to_string_pretty(state).map_err(|error| damaged(wanted, &error))?;
    write_synced(&temporary.join(STATE), text.as_bytes())?;
    sync(&temporary)?;
    if wanted.exists() {
        // A folder cannot replace another that is not empty; the old one steps aside first.
        let old = wanted.with_file_name(format!(".{name}.old.tmp"));
        fs::rename(wanted, &old).map_err(io("move", wanted))?;
        fs::rename(&temporary, wanted).map_err(io("replace", wanted))?;
        fs::remove_dir_all(&old).map_err(io("remove", &old))?;
    } else {
        fs::rename(&temporary, wanted).map_err(io("make", wanted))?;
    }
    wanted.parent().map_or(Ok(()), sync)
}

/// Flushes a folder and the files in it.
fn sync(folder: &Path) -> Result<(), TrainError> {
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let path = entry.map_err(io("list", folder))?.path();
        if path.is_file() {
            let file = File::open(&path).map_err(io("open", &path))?;
            file.sync_all().map_err(io("flush", &path))?;
        }
    }
    // Folders can be flushed on Unix only; elsewhere the rename is all there is.
    #[cfg(unix)]
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(io("flush", folder))?;
    Ok(())
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let mut file = File::create(path).map_err(io("write", path))?;
    file.write_all(bytes).map_err(io("write", path))?;
    file.sync_all().map_err(io("flush", path))
}

/// Keeps other processes out until the file is closed. Where locks are not known, the folder is taken
/// on trust.
fn lock(folder: &Path) -> Result<File, TrainError> {
    let path = folder.join(LOCK);
    let open = OpenOptions::new().create(true).append(true).open(&path);
    let file = open.map_err(io("open", &path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(TrainError::Refused(format!(
            "{} is being trained by another process; wait for it, or give this run a folder of its own \
             (`--out`)",
            folder.display()
        ))),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// What a killed run left half-written.
fn remove_unfinished(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !(name.starts_with('.') && name.ends_with(".tmp")) {
            continue;
        }
        // If the program died between the two renames, the old checkpoint is the only one.
        if let Some(kept) = name
            .strip_prefix('.')
            .and_then(|n| n.strip_suffix(".old.tmp"))
        {
            let wanted = path.with_file_name(kept);
            if !wanted.exists() && fs::rename(&path, wanted).is_ok() {
                continue;
            }
        }
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        if let Err(error) = removed {
            tracing::warn!("could not remove {}: {error}", path.display());
        }
    }
}

fn lines_up_to(path: &Path, step: u64) -> Result<String, TrainError> {
    let text = fs::read_to_string(path).map_err(io("read", path))?;
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        let record = serde_json::from_str::<StepRecord>(line);
        if record.is_ok_and(|record| record.step <= step) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    Ok(kept)
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> TrainError + 'a {
    move |source| TrainError::Io {
        doing,
        path: path.to_path_buf(),
        source,
    }
}

fn damaged(path: &Path, what: &dyn std::fmt::Display) -> TrainError {
    TrainError::Refused(format!("{} is damaged: {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(x: f32) -> Vec<Values> {
        vec![Values {
            name: "a.weight".into(),
            shape: vec![2],
            values: vec![x, -x],
        }]
    }

    fn state(step: u64) -> State {
        State {
            step,
            ..State::new("f")
        }
    }

    #[test]
    fn the_newest_checkpoints_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::open(folder.path()).unwrap();
        for step in [1, 9, 10, 100] {
            let x = step as f32;
            run.save(&state(step), &value(x), |_| Ok(()), 2).unwrap();
        }
        let names: Vec<_> = run.checkpoints().unwrap();
        let names: Vec<_> = names
            .iter()
            .filter_map(|p| p.file_name()?.to_str())
            .collect();
        assert_eq!(names, ["step-00000010", "step-00000100"]);
        let newest = run.newest().unwrap().unwrap();
        assert_eq!(read_state(&newest).unwrap(), state(100));
        assert_eq!(read_weights(&newest).unwrap(), value(100.0));
    }

    #[test]
    fn what_a_killed_run_left_half_written_is_no_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::open(folder.path()).unwrap();
        run.save(&state(1), &value(1.0), |_| Ok(()), 2).unwrap();
        let torn = folder.path().join("checkpoints/.step-00000002.tmp");
        fs::create_dir_all(&torn).unwrap();
        let best = folder.path().join(".best.old.tmp");
        fs::create_dir_all(&best).unwrap();
        let other = RunFolder::open(folder.path()).unwrap_err().to_string();
        assert!(other.contains("by another process"), "{other}");
        assert!(torn.exists(), "it may be that process that is writing it");
        drop(run);
        let run = RunFolder::open(folder.path()).unwrap();
        assert_eq!(run.checkpoints().unwrap().len(), 1);
        assert!(!torn.exists());
        assert!(
            folder.path().join("best").exists(),
            "the only copy comes back"
        );
    }

    #[test]
    fn handles_share_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let again = RunFolder::open(folder.path()).unwrap().again();
        assert!(RunFolder::open(folder.path()).is_err());
        drop(again);
        assert!(RunFolder::open(folder.path()).is_ok());
    }

    #[test]
    fn the_log_goes_on_where_the_checkpoint_stands() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = RunFolder::open(folder.path()).unwrap();
        run.start_log(0).unwrap();
        for step in 1..=5 {
            run.log(&StepRecord::at(step)).unwrap();
        }
        OpenOptions::new()
            .append(true)
            .open(folder.path().join(LOG))
            .unwrap()
            .write_all(b"{\"step\":6,\"lo")
            .unwrap();
        run.start_log(3).unwrap();
        run.log(&StepRecord::at(4)).unwrap();
        let steps: Vec<_> = read_log(folder.path())
            .unwrap()
            .iter()
            .map(|r| r.step)
            .collect();
        assert_eq!(steps, [1, 2, 3, 4]);
    }

    #[test]
    fn damaged_weights_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        for bytes in [&b""[..], &b"12345678"[..], &[255; 64][..]] {
            fs::write(&path, bytes).unwrap();
            assert!(read_values(&path).is_err());
        }
    }
}
