//! The manifest: what a curation read, decided and wrote, in numbers that add up.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::convert::Kind;
use crate::copy::Shard;
use crate::error::CurateError;
use crate::index::Row;
use crate::recipe::Recipe;
use crate::select::Outcome;
use crate::sources::Origin;

/// Name of the file in the folder of a pool.
pub const FILE: &str = "manifest.json";

/// What became of the lines of a source, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Lines by what became of them.
    pub outcomes: BTreeMap<String, u64>,
    /// Samples that can be used, before duplicates are dropped.
    pub samples: u64,
    /// Of these, with a picture.
    pub with_picture: u64,
    /// Their words.
    pub words: u64,
    /// Their turns.
    pub turns: u64,
    /// Their answers.
    pub answers: u64,
    /// Words of these.
    pub answer_words: u64,
    /// Answers of at most three words.
    pub short_answers: u64,
}

impl Tally {
    fn add(&mut self, outcome: Outcome, row: &Row<'_>) {
        match self.outcomes.get_mut(outcome.name()) {
            Some(count) => *count += 1,
            None => {
                self.outcomes.insert(outcome.name().to_owned(), 1);
            }
        }
        if !matches!(outcome, Outcome::Class(_)) {
            self.samples += 1;
            self.with_picture += u64::from(row.has_image);
            self.words += u64::from(row.lengths.words);
            self.turns += u64::from(row.lengths.turns);
            self.answers += u64::from(row.lengths.answers);
            self.answer_words += u64::from(row.lengths.answer_words);
            self.short_answers += u64::from(row.lengths.short_answers);
        }
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        for (name, count) in &other.outcomes {
            *self.outcomes.entry(name.clone()).or_default() += count;
        }
        self.samples += other.samples;
        self.with_picture += other.with_picture;
        self.words += other.words;
        self.turns += other.turns;
        self.answers += other.answers;
        self.answer_words += other.answer_words;
        self.short_answers += other.short_answers;
    }

    /// Lines of one outcome.
    pub fn of(&self, outcome: &str) -> u64 {
        self.outcomes.get(outcome).copied().unwrap_or_default()
    }

    /// Samples that are no duplicates.
    pub fn unique(&self) -> u64 {
        self.after(Outcome::NearDuplicate)
    }

    /// All lines.
    pub fn lines(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Samples that are left when steps up to and with this one have dropped theirs.
    pub fn after(&self, step: Outcome) -> u64 {
        let steps = Outcome::STEPS.iter();
        let dropped: u64 = steps
            .take_while(|taken| **taken <= step)
            .map(|taken| self.of(taken.name()))
            .sum();
        self.samples.saturating_sub(dropped)
    }
}

/// Tallies by the keys of sources; that of lines without one is 0.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    by_key: BTreeMap<u64, Tally>,
}

impl Counts {
    /// Counts a line.
    pub fn add(&mut self, outcome: Outcome, row: &Row<'_>) {
        self.by_key.entry(row.source).or_default().add(outcome, row);
    }

    /// Adds others.
    pub fn merge(&mut self, others: &Self) {
        for (key, tally) in &others.by_key {
            self.by_key.entry(*key).or_default().merge(tally);
        }
    }

    /// All lines.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.by_key.values().for_each(|tally| total.merge(tally));
        total
    }

    /// By source, in the order of names. `origins` are the sources by their keys.
    pub fn sources(&self, origins: &BTreeMap<u64, Origin>) -> Vec<SourceTally> {
        let named = self.by_key.iter();
        let named = named.filter_map(|(key, tally)| Some((origins.get(key)?, tally)));
        let mut named: Vec<(&Origin, &Tally)> = named.collect();
        named.sort_by_key(|(origin, _)| *origin);
        let tally = |(origin, tally): (&Origin, &Tally)| SourceTally {
            source: origin.source.clone(),
            category: origin.category.clone(),
            prompted: 0,
            tally: tally.clone(),
        };
        named.into_iter().map(tally).collect()
    }
}

/// What became of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTally {
    /// Its name.
    pub source: String,
    /// Its category.
    pub category: String,
    /// Kept samples that got a format prompt.
    pub prompted: u64,
    /// The numbers.
    #[serde(flatten)]
    pub tally: Tally,
}

/// An input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputTally {
    /// As the recipe names it.
    pub file: String,
    /// What it is; the hash is that of its lines, where these had to be unpacked.
    pub kind: Kind,
    /// Its size.
    pub bytes: u64,
    /// Its lines.
    pub lines: u64,
    /// SHA-256 over the SHA-256 of its parts, in hexadecimal digits; parts begin at the first line
    /// break behind every multiple of `part_bytes`.
    pub sha256_of_parts: String,
}

/// What a curation read, decided and wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program.
    pub version: String,
    /// Equal for equal curations of the same files.
    pub fingerprint: String,
    /// The recipe with all defaults and tables.
    pub recipe: Recipe,
    /// Bytes of a part of an input.
    pub part_bytes: u64,
    /// The inputs.
    pub inputs: Vec<InputTally>,
    /// All lines.
    pub total: Tally,
    /// By source, in the order of names.
    pub sources: Vec<SourceTally>,
    /// The shards.
    pub shards: Vec<Shard>,
    /// Short answers by what became of them, if the recipe has them written out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rewritten: BTreeMap<String, u64>,
    /// What looks like a mistake of the recipe, but stops nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Manifest {
    /// Reads the manifest of a pool.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(pool: &Path) -> Result<Self, CurateError> {
        let path = pool.join(FILE);
        let text = std::fs::read(&path).map_err(CurateError::io("read the manifest", &path))?;
        serde_json::from_slice(&text).map_err(|error| CurateError::Format {
            path,
            problem: format!("not a manifest of this version: {error}"),
        })
    }

    /// Checks that every line is accounted for.
    ///
    /// # Errors
    /// [`CurateError::DoesNotAddUp`]
    pub fn check(&self) -> Result<(), CurateError> {
        let say = |what: String| Err(CurateError::DoesNotAddUp { what });
        let read: u64 = self.inputs.iter().map(|input| input.lines).sum();
        let (lines, kept) = (self.total.lines(), self.total.of(Outcome::Kept.name()));
        let written: u64 = self.shards.iter().map(|shard| shard.samples).sum();
        if read != lines {
            return say(format!("{read} lines were read, {lines} are in the ledger"));
        }
        if kept != written {
            return say(format!("{kept} samples are kept, {written} are written"));
        }
        if self.total.after(Outcome::Quota) != kept {
            return say(format!("the steps leave another number than {kept}"));
        }
        Ok(())
    }

    /// By category, in the order of the recipe, then of names.
    pub fn categories(&self) -> Vec<(String, Tally)> {
        let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
        for source in &self.sources {
            let tally = tallies.entry(&source.category).or_default();
            tally.merge(&source.tally);
        }
        let named = self.recipe.categories.iter();
        let mut ordered: Vec<(String, Tally)> = named
            .filter_map(|name| Some((name.clone(), tallies.remove(name.as_str())?)))
            .collect();
        let rest = tallies.into_iter();
        ordered.extend(rest.map(|(name, tally)| (name.to_owned(), tally)));
        ordered
    }

    /// Sources by what they have in all categories, the smallest first, with the running total: the view by
    /// which a cap is chosen.
    pub fn cumulative(&self) -> Vec<(String, u64, u64)> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for source in &self.sources {
            *sums.entry(&source.source).or_default() += source.tally.unique();
        }
        let mut sources: Vec<(u64, &str)> =
            sums.into_iter().map(|(name, has)| (has, name)).collect();
        sources.sort_unstable();
        let mut running = 0;
        let step = |(has, name): (u64, &str)| {
            running += has;
            (name.to_owned(), has, running)
        };
        sources.into_iter().map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten lines: a bad one, two duplicates, three over the cap, four that are kept and written.
    fn manifest() -> Manifest {
        let outcomes = [("schema", 1), ("duplicate", 2), ("cap_all", 3), ("kept", 4)];
        let outcomes = outcomes.map(|(name, count)| (name.to_owned(), count));
        Manifest {
            version: String::new(),
            fingerprint: String::new(),
            recipe: Recipe::default(),
            part_bytes: 1,
            inputs: vec![InputTally {
                file: "a".to_owned(),
                kind: Kind::Lines,
                bytes: 1,
                lines: 10,
                sha256_of_parts: String::new(),
            }],
            total: Tally {
                outcomes: outcomes.into(),
                samples: 9,
                ..Tally::default()
            },
            sources: Vec::new(),
            shards: vec![Shard {
                file: "b".to_owned(),
                samples: 4,
                bytes: 1,
                sha256: String::new(),
                prompted: BTreeMap::new(),
                rewritten: BTreeMap::new(),
            }],
            rewritten: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn totals_that_do_not_add_up_are_refused() {
        assert!(manifest().check().is_ok());
        let refused = |change: fn(&mut Manifest)| {
            let mut changed = manifest();
            change(&mut changed);
            changed.check().unwrap_err().to_string()
        };
        let lost = refused(|m| m.inputs[0].lines = 11);
        assert!(lost.contains("11 lines were read, 10 are in"), "{lost}");
        let unwritten = refused(|m| m.shards[0].samples = 3);
        assert!(unwritten.contains("4 samples are kept, 3"), "{unwritten}");
        let steps = refused(|m| m.total.samples = 8);
        assert!(steps.contains("another number than 4"), "{steps}");
    }
}
