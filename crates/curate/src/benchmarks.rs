//! Decontamination: samples that a benchmark would recognise.
//!
//! Of the pictures of 26 benchmarks, 15 % are in Cambrian-10M, of some more than half (arXiv 2406.16860,
//! appendix on leakage). A sample is dropped if its picture looks like one of a benchmark's, by the
//! difference hash, or if it asks a question of a benchmark, word by word. Short questions are
//! asked everywhere ("how many balls are there"), so only those of some length count.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use opabinia_data::{Role, Sample};
use rayon::prelude::*;
use serde_json::Value;

use crate::error::CurateError;
use crate::looks::look;
use crate::minhash::words;
use crate::recipe::Decontaminate;

/// Bits of a difference hash that are looked up at once: with four of these, hashes that differ in at
/// most three bits agree in one.
const PIECE_BITS: u32 = 16;

/// The largest difference that is found for certain.
pub const MAX_DISTANCE: u32 = 3;

/// What benchmarks ask and show.
#[derive(Debug, Default)]
pub struct Benchmarks {
    questions: HashSet<String>,
    min_words: usize,
    distance: u32,
    /// Hashes and files, by piece and its place.
    looks: HashMap<(u32, u16), Vec<(u64, PathBuf)>>,
}

impl Benchmarks {
    /// Reads questions and looks at pictures.
    ///
    /// # Errors
    /// If a file cannot be read, or a line is no JSON. Files in folders of pictures that are no
    /// pictures are passed over.
    pub fn load(table: &Decontaminate) -> Result<Self, CurateError> {
        let mut benchmarks = Self {
            min_words: table.min_words,
            distance: table.distance,
            ..Self::default()
        };
        for file in &table.questions {
            benchmarks.read_questions(file)?;
        }
        for folder in &table.images {
            benchmarks.look_at(folder)?;
        }
        Ok(benchmarks)
    }

    fn read_questions(&mut self, path: &Path) -> Result<(), CurateError> {
        let io = CurateError::io("read the benchmark's questions", path);
        let text = std::fs::read_to_string(path).map_err(io)?;
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let value: Value = serde_json::from_str(line).map_err(|error| CurateError::Recipe {
                place: format!("{}:{}", path.display(), number + 1),
                problem: format!("not a JSON object: {error}"),
            })?;
            for key in ["question", "text", "prompt"] {
                if let Some(question) = value.get(key).and_then(Value::as_str) {
                    self.add(question);
                }
            }
            let turns = value.get("conversations").and_then(Value::as_array);
            for turn in turns.into_iter().flatten() {
                let asked = turn.get("from").and_then(Value::as_str) == Some("human");
                let text = turn.get("value").and_then(Value::as_str);
                if let Some(question) = text.filter(|_| asked) {
                    self.add(question);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, question: &str) {
        let plain = words(question);
        // A sample that says nothing but its picture is in no benchmark.
        if !plain.is_empty() && plain.split(' ').count() >= self.min_words {
            self.questions.insert(plain);
        }
    }

    fn look_at(&mut self, folder: &Path) -> Result<(), CurateError> {
        let mut files = Vec::new();
        list(folder, &mut files)?;
        files.sort();
        let found: Vec<Option<u64>> = files
            .par_iter()
            .map(|file| look(file).ok().map(|look| look.dhash))
            .collect();
        for (file, hash) in files.into_iter().zip(found) {
            let Some(hash) = hash else { continue };
            for piece in pieces(hash) {
                let same = self.looks.entry(piece).or_default();
                same.push((hash, file.clone()));
            }
        }
        Ok(())
    }

    /// Whether pictures are compared.
    pub fn wants_looks(&self) -> bool {
        !self.looks.is_empty()
    }

    /// Why a sample is contaminated; `dhash` is the hash of its picture.
    pub fn hit(&self, sample: &Sample, dhash: Option<u64>) -> Option<String> {
        let asked = sample.turns.iter().filter(|turn| turn.role == Role::User);
        let known = |text: &str| {
            // Benchmarks ask without, training with a format prompt on a line of its own.
            let first = text.replace("<image>", " ");
            let first = first.trim().lines().next().unwrap_or_default().to_owned();
            [words(text), words(&first)]
                .into_iter()
                .any(|plain| self.questions.contains(&plain))
        };
        if let Some(turn) = asked.into_iter().find(|turn| known(&turn.text)) {
            let question: String = turn
                .text
                .replace("<image>", "")
                .trim()
                .chars()
                .take(80)
                .collect();
            return Some(format!("a benchmark asks \"{question}\""));
        }
        let hash = dhash?;
        let alike = pieces(hash)
            .into_iter()
            .filter_map(|piece| self.looks.get(&piece))
            .flatten()
            .find(|(other, _)| (hash ^ other).count_ones() <= self.distance);
        alike.map(|(_, file)| {
            format!(
                "its picture looks like the benchmark's `{}`",
                file.display()
            )
        })
    }
}

fn pieces(hash: u64) -> [(u32, u16); 4] {
    [0, 1, 2, 3].map(|place| (place, (hash >> (PIECE_BITS * place)) as u16))
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), CurateError> {
    let io = || CurateError::io("read the folder of the benchmark's pictures", folder);
    for entry in std::fs::read_dir(folder).map_err(io())? {
        let path = entry.map_err(io())?.path();
        match path.is_dir() {
            true => list(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use opabinia_data::Place;

    use super::*;

    fn sample(question: &str) -> Sample {
        let line = serde_json::json!({"conversations": [{"from": "human", "value": question}]});
        Sample::parse(line.to_string().as_bytes(), Place::new(Path::new("s"), 1)).unwrap()
    }

    #[test]
    fn long_questions_and_like_pictures_are_hits() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("q.jsonl");
        std::fs::write(
            &file,
            "{\"question\": \"Which of the two cars is nearer?\"}\n\n{\"text\": \"How many?\"}\n",
        )
        .unwrap();
        let pictures = folder.path().join("p/q");
        std::fs::create_dir_all(&pictures).unwrap();
        let ramp: Vec<u8> = (0..90u8).flat_map(|x| [200 - 2 * x; 3]).collect();
        let ramp = opabinia_image::RgbImage::from_raw(90, 16, ramp.repeat(16)).unwrap();
        ramp.save_png(pictures.join("ramp.png")).unwrap();
        std::fs::write(pictures.join("notes.txt"), "no picture").unwrap();
        let table = Decontaminate {
            questions: vec![file],
            images: vec![folder.path().join("p")],
            min_words: 5,
            distance: 3,
        };
        let benchmarks = Benchmarks::load(&table).unwrap();
        let hit = |question: &str, hash| benchmarks.hit(&sample(question), hash).is_some();
        assert!(hit("<image>\nwhich of the two cars is nearer", None));
        assert!(hit(
            "Which of the two cars is nearer?\nAnswer with one word.",
            None
        ));
        assert!(!hit("How many?", None));
        assert!(!hit("Which of the two cars is redder?", Some(0)));
        assert!(hit("?", Some(u64::MAX)));
        assert!(hit("?", Some(u64::MAX ^ 0x8000_0001_0000_0100)));
        assert!(!hit("?", Some(u64::MAX ^ 0x8000_0001_0001_0100)));
    }
}
