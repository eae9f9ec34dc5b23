//! What the indexes of a job say beside their rows, together.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::classify::Class;
use crate::error::CurateError;
use crate::index::{Summary, read_summary};
use crate::job::{InputFile, Job, index_path};
use crate::manifest::InputTally;
use crate::part::{Part, name_key, source_key};
use crate::recipe::Recipe;
use crate::sources::Origin;
use crate::table::hex;

/// What the indexes say beside their rows.
pub(crate) struct Summaries {
    /// Of each part.
    pub parts: Vec<Summary>,
    /// Line of the first row of each part, from 1.
    pub first_lines: Vec<u64>,
    /// Sources by their keys.
    pub origins: BTreeMap<u64, Origin>,
}

impl Summaries {
    /// Reads all of them.
    pub fn read(job_path: &Path, job: &Job, parts: &[Part]) -> Result<Self, CurateError> {
        let summaries = parts
            .par_iter()
            .map(|part| read_summary(&index_path(job_path, part.number)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut first_lines = Vec::with_capacity(parts.len());
        let mut lines = vec![1; job.files.len()];
        let mut origins = BTreeMap::new();
        let mut names: BTreeMap<u64, String> = BTreeMap::new();
        for (part, summary) in parts.iter().zip(&summaries) {
            let line = &mut lines[part.file as usize];
            first_lines.push(*line);
            *line += summary.lines;
            for (&key, (source, category)) in &summary.sources {
                let origin = Origin {
                    source: source.clone(),
                    category: category.clone(),
                };
                let known = origins.entry(key).or_insert_with(|| origin.clone());
                if *known != origin || source_key(&origin) != key {
                    let what = format!("`{source}` and `{}` have one key", known.source);
                    return Err(CurateError::DoesNotAddUp { what });
                }
                let known = names.entry(name_key(source));
                let known = known.or_insert_with(|| source.clone());
                if known != source {
                    let what = format!("the names `{source}` and `{known}` have one key");
                    return Err(CurateError::DoesNotAddUp { what });
                }
            }
        }
        Ok(Self {
            parts: summaries,
            first_lines,
            origins,
        })
    }

    fn of(&self, class: Class) -> u64 {
        let of = |summary: &Summary| summary.classes.get(class.name()).copied();
        self.parts.iter().filter_map(of).sum()
    }

    /// Samples that can be used.
    pub fn samples(&self) -> u64 {
        self.of(Class::Ok)
    }

    /// Numbers of the parts with samples whose pictures are missing or broken.
    pub fn without_pictures(&self, parts: &[Part]) -> Vec<u32> {
        let lacks = |summary: &Summary| {
            [Class::MissingImage, Class::BadImage]
                .iter()
                .filter_map(|class| summary.classes.get(class.name()))
                .any(|&count| count > 0)
        };
        let found = parts.iter().zip(&self.parts);
        let found = found.filter(|(_, summary)| lacks(summary));
        found.map(|(part, _)| part.number).collect()
    }

    /// Whether the recipe allows that many bad samples.
    pub fn check_bad(&self, recipe: &Recipe) -> Result<(), CurateError> {
        let kinds: Vec<(Class, u64)> = Class::ALL
            .into_iter()
            .filter(|class| class.is_bad())
            .map(|class| (class, self.of(class)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let bad = kinds.iter().map(|(_, count)| count).sum();
        let lines = bad + self.samples();
        let limit = recipe.input.max_bad;
        if bad <= limit.of(usize::try_from(lines).unwrap_or(usize::MAX)) {
            return Ok(());
        }
        let kinds = kinds
            .iter()
            .map(|(class, count)| format!("{count} {}", class.name()));
        Err(CurateError::TooManyBad {
            bad,
            lines,
            kinds: kinds.collect::<Vec<_>>().join(", "),
            limit: limit.to_string(),
        })
    }

    /// The inputs, counted.
    pub fn inputs(&self, job: &Job, parts: &[Part]) -> Vec<InputTally> {
        let input = |(number, file): (usize, &InputFile)| {
            let own = parts.iter().zip(&self.parts);
            let own = own.filter(|(part, _)| part.file as usize == number);
            let mut hash = Sha256::new();
            let mut lines = 0;
            for (_, summary) in own {
                hash.update(&summary.sha256);
                lines += summary.lines;
            }
            InputTally {
                file: file.named.display().to_string(),
                kind: file.kind,
                bytes: file.bytes,
                lines,
                sha256_of_parts: hex(&hash.finalize()),
            }
        };
        job.files.iter().enumerate().map(input).collect()
    }
}
