//! Runs of several machines become one.
//!
//! Shards, or different benchmarks of one model, put together: the same scores come out as if all had
//! been asked in one run. Runs that were made differently are refused, and what differs is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::description::{RUN_FILE, RunDescription, SetDescription};
use crate::error::EvalError;
use crate::record::Record;
use crate::run_folder::{RECORDS, read_only};
use crate::submissions;
use crate::summary::{SUMMARY_FILE, Summary};
use crate::vision::Vision;

/// What a merge gave.
#[derive(Debug)]
pub struct Merged {
    /// The scores of all.
    pub summary: Summary,
    /// Questions that several runs had asked; one record of each was kept.
    pub twice: usize,
    /// Files for the servers of benchmarks.
    pub submissions: Vec<PathBuf>,
}

/// Puts runs together in a new folder.
///
/// # Errors
/// If a folder is none of a run, if runs are of different models, questions or settings, if `out`
/// exists, or cannot be written.
pub fn merge(folders: &[PathBuf], out: &Path) -> Result<Merged, EvalError> {
    let is_new = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !out.exists(),
    };
    if !is_new {
        return Err(EvalError::Exists {
            path: out.to_owned(),
        });
    }
    let mut whole: Option<RunDescription> = None;
    let mut records = Vec::new();
    for folder in folders {
        let description = RunDescription::read(folder)?;
        let found = read_only(folder)?;
        let current = description.current(&found).into_iter().flatten().cloned();
        records.extend(current);
        whole = Some(match whole {
            None => description,
            Some(whole) => joined(whole, description).map_err(|problem| EvalError::Merge {
                path: folder.clone(),
                problem,
            })?,
        });
    }
    let whole = whole.ok_or(EvalError::Option {
        option: "folders",
        found: "empty".into(),
        wanted: "at least one run",
    })?;
    let (records, twice) = once(&whole, records);
    let summary = Summary::of(&whole, &records);
    let submissions = write(out, &whole, &records, &summary)?;
    Ok(Merged {
        summary,
        twice,
        submissions,
    })
}

/// Two descriptions as one; what does not fit, if it does not.
fn joined(mut whole: RunDescription, other: RunDescription) -> Result<RunDescription, String> {
    if whole.model_sha256 != other.model_sha256 {
        let different = differing(&whole.stamps, &other.stamps);
        return Err(format!(
            "it is a run of another model, `{}` and not `{}` ({different})",
            other.model, whole.model
        ));
    }
    for set in other.sets {
        let known = whole.sets.iter_mut();
        match known
            .into_iter()
            .find(|known| known.benchmark == set.benchmark)
        {
            Some(known) => join_sets(known, set)?,
            None => whole.sets.push(set),
        }
    }
    whole.invocations.extend(other.invocations);
    Ok(whole)
}

fn join_sets(known: &mut SetDescription, other: SetDescription) -> Result<(), String> {
    let name = known.name().to_owned();
    if !known.is_like(&other) {
        let mut different = differing(&known.stamps, &other.stamps);
        if known.rules != other.rules {
            different.push_str(&format!(
                ": scorer {} and {}, protocol {} and {}",
                known.rules.scorer, other.rules.scorer, known.rules.protocol, other.rules.protocol
            ));
        }
        return Err(format!(
            "`{name}` has other questions or rules ({different})"
        ));
    }
    // A run of an earlier version does not have it.
    known.submission = known.submission.take().or(other.submission);
    for (vision, way) in other.ways {
        match known.ways.get_mut(&vision) {
            None => {
                known.ways.insert(vision, way);
            }
            Some(before) if before.settings == way.settings => {
                before.wanted = before.wanted.union(&way.wanted);
            }
            Some(before) => {
                let different = differing(&before.stamps, &way.stamps);
                return Err(format!(
                    "`{name}` was asked with other settings for `{vision}` ({different})"
                ));
            }
        }
    }
    Ok(())
}

/// The names of what differs.
fn differing(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> String {
    let names = one
        .keys()
        .chain(other.keys().filter(|name| !one.contains_key(*name)));
    let different = names.filter(|name| one.get(*name) != other.get(*name));
    let different: Vec<&str> = different.map(String::as_str).collect();
    different.join(", ")
}

/// Every question once, in order; of two records one that is final.
fn once(whole: &RunDescription, records: Vec<Record>) -> (Vec<Record>, usize) {
    let place = |record: &Record| {
        let mut sets = whole.sets.iter();
        sets.position(|set| set.benchmark == record.benchmark)
    };
    let mut kept: BTreeMap<(Option<usize>, usize, Vision), Record> = BTreeMap::new();
    let mut twice = 0;
    for record in records {
        let key = (place(&record), record.index, record.vision);
        match kept.get(&key) {
            Some(known) => {
                twice += 1;
                if !known.is_final() {
                    kept.insert(key, record);
                }
            }
            None => {
                kept.insert(key, record);
            }
        }
    }
    (kept.into_values().collect(), twice)
}

/// Writes the folder beside its place first, so that it is there whole or not at all.
fn write(
    out: &Path,
    description: &RunDescription,
    records: &[Record],
    summary: &Summary,
) -> Result<Vec<PathBuf>, EvalError> {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = out.with_file_name(name);
    fs::create_dir_all(&part).map_err(EvalError::write(&part))?;
    let json = |source| EvalError::Json {
        what: "the merged run",
        source,
    };
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record).map_err(json)?;
        lines.push(b'\n');
    }
    let files = [
        (RECORDS, lines),
        (
            RUN_FILE,
            serde_json::to_vec_pretty(description).map_err(json)?,
        ),
        (
            SUMMARY_FILE,
            serde_json::to_vec_pretty(summary).map_err(json)?,
        ),
    ];
    for (name, content) in files {
        let path = part.join(name);
        fs::write(&path, content).map_err(EvalError::write(&path))?;
    }
    let names = submissions::write(&part, description, records)?;
    if out.exists() {
        fs::remove_dir(out).map_err(EvalError::write(out))?;
    }
    fs::rename(&part, out).map_err(EvalError::write(out))?;
    Ok(names.iter().map(|name| out.join(name)).collect())
}
