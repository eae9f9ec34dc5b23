//! The text, copied once: kept lines into shards, in the order of the inputs.
//!
//! A shard is a range of the kept samples, so shards are written side by side, each by itself, and a
//! shard that is there need not be written again. A line is copied as it is, byte for byte, unless a
//! format prompt is added to it, or an answer of it is written out.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use opabinia_data::{Offsets, Place, Sample};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::CurateError;
use crate::index::{Index, Row};
use crate::job::{Job, index_path};
use crate::part::Part;
use crate::prompt::{self, Prompt};
use crate::rewrite::within::{Settled, Within};
use crate::run::Watch;
use crate::select::Decisions;
use crate::sources::Origin;
use crate::table::{hex, temporary, write_text};

/// A line that is farther than this from the one before is read by itself.
const GAP_BYTES: u64 = 256 << 10;

/// A shard that is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Name of its file.
    pub file: String,
    /// Its samples.
    pub samples: u64,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// Samples that got a format prompt, by source and category.
    pub prompted: BTreeMap<String, BTreeMap<String, u64>>,
    /// Short answers by what became of them, if they were to be written out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rewritten: BTreeMap<String, u64>,
}

/// Who takes kept lines: the file, what is known of the line, and its bytes.
type Take<'a> = &'a mut dyn FnMut(&Path, &Row<'_>, &[u8]) -> Result<(), CurateError>;

/// Which kept samples make a shard: numbers among all kept ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPlan {
    /// Its number.
    pub number: u64,
    /// Number of its first sample.
    pub first: u64,
    /// Its samples.
    pub samples: u64,
}

/// Divides `kept` samples.
pub fn plan_shards(kept: u64, shard_samples: u64) -> Vec<ShardPlan> {
    let shards = kept.div_ceil(shard_samples.max(1));
    let plan = |number| ShardPlan {
        number,
        first: number * shard_samples,
        samples: shard_samples.min(kept - number * shard_samples),
    };
    (0..shards).map(plan).collect()
}

/// What copying needs to know.
pub struct Copier<'a> {
    job: &'a Job,
    job_path: &'a Path,
    parts: &'a [Part],
    decisions: &'a Decisions,
    /// Number of the first kept sample of each part, and the number of all.
    firsts: Vec<u64>,
    /// Format prompts of sources that get any, by key.
    prompts: HashMap<u64, (&'a Origin, Vec<&'a Prompt>)>,
    /// Who writes answers out, and those of which sources, by key.
    rewriting: Option<(&'a Within<'a>, HashSet<u64>)>,
}

impl<'a> Copier<'a> {
    /// Gets ready to copy what the decisions keep.
    pub fn new(
        job: &'a Job,
        job_path: &'a Path,
        parts: &'a [Part],
        decisions: &'a Decisions,
        origins: &'a BTreeMap<u64, Origin>,
    ) -> Self {
        let mut firsts = vec![0];
        let mut sum = 0;
        for kept in decisions.kept() {
            sum += kept;
            firsts.push(sum);
        }
        let texts = job.recipe.prompts.as_ref();
        let prompts_of = |source: &str| -> Vec<&'a Prompt> {
            let named = job.recipe.prompts_of(source).iter();
            let texts = || texts.into_iter().flat_map(|prompts| &prompts.prompt);
            named
                .filter_map(|name| texts().find(|prompt| prompt.name == *name))
                .collect()
        };
        let prompts = origins
            .iter()
            .map(|(&key, origin)| (key, (origin, prompts_of(&origin.source))))
            .filter(|(_, (_, prompts))| !prompts.is_empty());
        Self {
            job,
            job_path,
            parts,
            decisions,
            firsts,
            prompts: prompts.collect(),
            rewriting: None,
        }
    }

    /// Has short answers written out.
    #[must_use]
    pub(crate) fn with_rewriting(
        mut self,
        within: &'a Within<'a>,
        origins: &BTreeMap<u64, Origin>,
    ) -> Self {
        let named = self.job.recipe.rewrite.iter();
        let named: HashSet<&String> = named.flat_map(|table| &table.sources).collect();
        let meant = origins
            .iter()
            .filter(|(_, origin)| named.is_empty() || named.contains(&origin.source));
        self.rewriting = Some((within, meant.map(|(&key, _)| key).collect()));
        self
    }

    /// Asks about all short answers of a shard; what is said is in the journal.
    ///
    /// # Errors
    /// If an input cannot be read, or the model cannot be asked.
    pub(crate) fn ask(&self, plan: ShardPlan, watch: &Watch<'_>) -> Result<(), CurateError> {
        let Some((within, sources)) = &self.rewriting else {
            return Ok(());
        };
        let is_meant = |row: &Row<'_>| sources.contains(&row.source);
        within.ask(
            |take| {
                self.each(plan, &is_meant, &mut |path, row, line| {
                    let (line, _) = self.with_prompts(path, row, line)?;
                    take(line.into_owned())
                })
            },
            watch,
        )
    }

    /// Number of kept samples.
    pub fn kept(&self) -> u64 {
        self.firsts.last().copied().unwrap_or_default()
    }

    /// Number, among all kept samples, of the first one of a part.
    pub fn first_of_part(&self, part: usize) -> u64 {
        self.firsts.get(part).copied().unwrap_or_default()
    }

    /// Writes a shard and its offset index into `folder`.
    ///
    /// # Errors
    /// If an input cannot be read or the shard cannot be written.
    pub fn write(&self, plan: ShardPlan, folder: &Path) -> Result<Shard, CurateError> {
        let file = shard_name(plan.number);
        let path = folder.join(&file);
        let mut out = ShardWriter::create(&path)?;
        let mut settled = Settled::default();
        self.each(plan, &|_| true, &mut |path, row, line| {
            self.put(path, row, line, &mut out, &mut settled)
        })?;
        // The shard comes last: where it is, this is too.
        if self.rewriting.is_some() {
            write_text(&folder.join(rewritten_name(plan.number)), &settled.text)?;
        }
        let written = out.finish()?;
        Ok(Shard {
            file,
            samples: written.samples,
            bytes: written.bytes,
            sha256: written.sha256,
            prompted: written.prompted,
            rewritten: settled.counts,
        })
    }

    /// Hands on the kept lines of a shard that `is_meant`, in their order.
    fn each(
        &self,
        plan: ShardPlan,
        is_meant: &dyn Fn(&Row<'_>) -> bool,
        take: Take<'_>,
    ) -> Result<(), CurateError> {
        let end = plan.first + plan.samples;
        let begin = self.firsts.partition_point(|&first| first <= plan.first);
        for part in begin.saturating_sub(1)..self.parts.len() {
            let first = self.first_of_part(part);
            if first >= end {
                break;
            }
            let from = plan.first.saturating_sub(first);
            let number = self.firsts.get(part + 1).map_or(0, |next| next - first);
            let to = number.min(end - first);
            if from < to {
                self.each_of_part(part, from..to, is_meant, take)?;
            }
        }
        Ok(())
    }

    /// Hands on kept lines of a part, by their numbers among those that are kept of it.
    fn each_of_part(
        &self,
        number: usize,
        numbers: Range<u64>,
        is_meant: &dyn Fn(&Row<'_>) -> bool,
        take: Take<'_>,
    ) -> Result<(), CurateError> {
        let Some(part) = self.parts.get(number) else {
            return Ok(());
        };
        let index = Index::read(&index_path(self.job_path, part.number))?;
        let rows = index.rows()?;
        let kept = rows.iter().enumerate();
        let kept = kept.filter(|(row, _)| self.decisions.keeps(number, *row));
        let wanted: Vec<&Row<'_>> = kept
            .map(|(_, row)| row)
            .skip(numbers.start as usize)
            .take((numbers.end - numbers.start) as usize)
            .filter(|row| is_meant(row))
            .collect();
        let Some((path, _)) = self.job.lines_of(part.file as usize) else {
            return Ok(());
        };
        for run in runs(&wanted) {
            each_of_run(path, run, take)?;
        }
        Ok(())
    }

    /// A line with the format prompts that it lacks, and whether it lacked any.
    fn with_prompts<'l>(
        &self,
        path: &Path,
        row: &Row<'_>,
        line: &'l [u8],
    ) -> Result<(Cow<'l, [u8]>, bool), CurateError> {
        let Some((_, prompts)) = self.prompts.get(&row.source) else {
            return Ok((Cow::Borrowed(line), false));
        };
        // It was a sample when it was indexed; the place is for no message.
        let Ok(sample) = Sample::parse(line, Place::new(path, 0)) else {
            return Err(changed(path));
        };
        Ok(match prompt::add(line, &sample, prompts) {
            None => (Cow::Borrowed(line), false),
            Some(edited) => (Cow::Owned(edited.into_bytes()), true),
        })
    }

    fn put(
        &self,
        path: &Path,
        row: &Row<'_>,
        line: &[u8],
        out: &mut ShardWriter,
        settled: &mut Settled,
    ) -> Result<(), CurateError> {
        let (line, is_prompted) = self.with_prompts(path, row, line)?;
        if let Some((origin, _)) = self.prompts.get(&row.source).filter(|_| is_prompted) {
            let of_source = out.prompted.entry(origin.source.clone()).or_default();
            *of_source.entry(origin.category.clone()).or_default() += 1;
        }
        let rewriting = self.rewriting.as_ref();
        let rewriting = rewriting.filter(|(_, sources)| sources.contains(&row.source));
        let changed = match rewriting {
            Some((within, _)) => within.written(&line, out.lines() + 1, settled)?,
            None => None,
        };
        out.line(changed.as_deref().map_or(&*line, str::as_bytes))
    }
}

/// Reads neighbouring lines in one go and hands them on.
fn each_of_run(path: &Path, run: &[&Row<'_>], take: Take<'_>) -> Result<(), CurateError> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return Ok(());
    };
    let io = || CurateError::io("read", path);
    let bytes = last.offset + u64::from(last.length) - first.offset;
    let mut text = Vec::with_capacity(bytes as usize);
    let mut file = File::open(path).map_err(io())?;
    file.seek(SeekFrom::Start(first.offset)).map_err(io())?;
    file.take(bytes).read_to_end(&mut text).map_err(io())?;
    if (text.len() as u64) < bytes {
        return Err(changed(path));
    }
    for row in run {
        let start = (row.offset - first.offset) as usize;
        let line = text.get(start..start + row.length as usize);
        take(path, row, line.unwrap_or_default())?;
    }
    Ok(())
}

fn changed(path: &Path) -> CurateError {
    CurateError::Format {
        path: path.to_owned(),
        problem: "the file changed while it was read; run the command again".to_owned(),
    }
}

/// Name of the file of a shard.
pub fn shard_name(number: u64) -> String {
    format!("samples-{number:05}.jsonl")
}

/// Name of the file that says what became of the short answers of a shard.
fn rewritten_name(number: u64) -> String {
    format!("rewritten-{number:05}.jsonl")
}

/// Rows that are read in one go: no large gap between neighbours.
fn runs<'a, 'b>(rows: &'a [&'b Row<'b>]) -> impl Iterator<Item = &'a [&'b Row<'b>]> {
    rows.chunk_by(|one, next| {
        next.offset
            .saturating_sub(one.offset + u64::from(one.length))
            < GAP_BYTES
    })
}

/// Writes lines, their hash, and where each begins.
pub(crate) struct ShardWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
    starts: Vec<u64>,
    prompted: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What came of a shard's file.
pub(crate) struct Written {
    pub bytes: u64,
    pub sha256: String,
    pub samples: u64,
    pub prompted: BTreeMap<String, BTreeMap<String, u64>>,
}

impl ShardWriter {
    /// Begins a shard, under another name until it is whole.
    pub fn create(path: &Path) -> Result<Self, CurateError> {
        let temporary = temporary(path);
        let file = File::create(&temporary).map_err(CurateError::io("write", &temporary))?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file: BufWriter::with_capacity(1 << 20, file),
            hash: Sha256::new(),
            bytes: 0,
            starts: Vec::new(),
            prompted: BTreeMap::new(),
        })
    }

    /// Lines that are written.
    fn lines(&self) -> u64 {
        self.starts.len() as u64
    }

    /// Writes one line.
    pub fn line(&mut self, line: &[u8]) -> Result<(), CurateError> {
        self.starts.push(self.bytes);
        for piece in [line, b"\n"] {
            self.hash.update(piece);
            self.file
                .write_all(piece)
                .map_err(CurateError::io("write", &self.temporary))?;
            self.bytes += piece.len() as u64;
        }
        Ok(())
    }

    /// The shard appears.
    pub fn finish(self) -> Result<Written, CurateError> {
        let io = || CurateError::io("write", &self.path);
        let file = self
            .file
            .into_inner()
            .map_err(|error| io()(error.into_error()))?;
        file.sync_all().map_err(io())?;
        let sha256: [u8; 32] = self.hash.finalize().into();
        let samples = self.starts.len() as u64;
        let offsets = Offsets {
            bytes: self.bytes,
            sha256,
            starts: self.starts,
        };
        offsets.write(&self.path)?;
        std::fs::rename(&self.temporary, &self.path).map_err(io())?;
        Ok(Written {
            bytes: self.bytes,
            sha256: hex(&sha256),
            samples,
            prompted: self.prompted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_divide_what_is_kept() {
        let plan = |kept, size| -> Vec<(u64, u64)> {
            let shards = plan_shards(kept, size);
            shards
                .iter()
                .map(|shard| (shard.first, shard.samples))
                .collect()
        };
        assert_eq!(plan(5, 2), [(0, 2), (2, 2), (4, 1)]);
        assert_eq!(plan(4, 4), [(0, 4)]);
        assert_eq!(plan(0, 4), []);
    }
}
