//! Decontamination: samples that a benchmark would recognise.
//!
//! Of the pictures of 26 benchmarks, 15 % are in Cambrian-10M, of some more than half (arXiv 2406.16860,
//! appendix on leakage). A sample is dropped if its picture looks like one of a benchmark's, by the
//! difference hash, or if it asks a question of a benchmark, word by word. Short questions are
//! asked everywhere ("how many balls are there"), so only those of some length count.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use opabinia_data::{Role, Sample};
use opabinia_image::ImageError;
use rayon::prelude::*;
use serde_json::Value;

use crate::error::CurateError;
use crate::job::InputFile;
use crate::lines::Lines;
use crate::looks::look;
use crate::minhash::words;
use crate::recipe::Decontaminate;

/// Bits of a difference hash that are looked up at once: with four of these, hashes that differ in at
/// most three bits agree in one.
const PIECE_BITS: u32 = 16;

/// The largest difference that is found for certain.
pub const MAX_DISTANCE: u32 = 3;

/// Under which keys a benchmark's line asks.
const KEYS: [&str; 3] = ["question", "text", "prompt"];

/// Endings of the names of pictures that this program reads.
const PICTURES: [&str; 8] = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];

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
    /// If a file cannot be read, a line is no JSON or asks nothing, a picture cannot be decoded, or a
    /// file or folder holds nothing that samples could be kept away from. Files in folders of
    /// pictures that are not named as pictures are passed over.
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
        let io = || CurateError::io("read the benchmark's questions", path);
        let mut lines = Lines::new(BufReader::new(File::open(path).map_err(io())?));
        let (mut found, mut long_enough) = (0, 0);
        while let Some(line) = lines.next_line().map_err(io())? {
            if line.text.trim_ascii().is_empty() {
                continue;
            }
            let wrong = |problem: String| CurateError::Recipe {
                place: format!("{}:{}", path.display(), line.number),
                problem,
            };
            let value: Value = serde_json::from_slice(line.text)
                .map_err(|error| wrong(format!("not a JSON object: {error}")))?;
            let questions = questions_of(&value);
            if questions.is_empty() {
                return Err(wrong(format!(
                    "no question is here; a benchmark's line has one of {}, or `conversations`",
                    KEYS.map(|key| format!("`{key}`")).join(", ")
                )));
            }
            found += questions.len();
            long_enough += questions.into_iter().filter(|text| self.add(text)).count();
        }
        let problem = match (found, long_enough) {
            (0, _) => "it has no question, so nothing could be kept away from it".to_owned(),
            (_, 0) => format!(
                "none of its {found} questions has {} words, so nothing could be kept away from it; \
                 lower `min_words`",
                self.min_words
            ),
            _ => return Ok(()),
        };
        Err(CurateError::Format {
            path: path.to_owned(),
            problem,
        })
    }

    /// Whether the question is long enough to count.
    fn add(&mut self, question: &str) -> bool {
        let plain = words(question);
        // A sample that says nothing but its picture is in no benchmark.
        let counts = !plain.is_empty() && plain.split(' ').count() >= self.min_words;
        if counts {
            self.questions.insert(plain);
        }
        counts
    }

    fn look_at(&mut self, folder: &Path) -> Result<(), CurateError> {
        let mut files = Vec::new();
        list(folder, &mut files)?;
        let found: Vec<Result<u64, ImageError>> = files
            .par_iter()
            .map(|file| look(file).map(|look| look.dhash))
            .collect();
        let mut looked_at = 0;
        for (file, hash) in files.into_iter().zip(found) {
            let hash = match hash {
                Ok(hash) => hash,
                Err(error) if is_named_as_picture(&file) => {
                    return Err(CurateError::Format {
                        path: file,
                        problem: format!(
                            "the benchmark's picture cannot be looked at: {error}; mend it, or take it \
                             out of the folder"
                        ),
                    });
                }
                Err(_) => continue,
            };
            looked_at += 1;
            for piece in pieces(hash) {
                let same = self.looks.entry(piece).or_default();
                same.push((hash, file.clone()));
            }
        }
        match looked_at {
            0 => Err(CurateError::Format {
                path: folder.to_owned(),
                problem:
                    "there is no picture in this folder, so nothing could be kept away from it"
                        .to_owned(),
            }),
            _ => Ok(()),
        }
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

/// What a line asks.
fn questions_of(value: &Value) -> Vec<&str> {
    let named = KEYS.iter().filter_map(|key| value.get(key)?.as_str());
    let turns = value.get("conversations").and_then(Value::as_array);
    let asked = turns.into_iter().flatten().filter_map(|turn| {
        let asks = turn.get("from").and_then(Value::as_str) == Some("human");
        turn.get("value")?.as_str().filter(|_| asks)
    });
    named.chain(asked).collect()
}

/// Whether the end of a name promises a picture that this program reads.
fn is_named_as_picture(file: &Path) -> bool {
    let ending = file.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| PICTURES.contains(&ending.to_lowercase().as_str()))
}

/// All files below a folder, by name.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), CurateError> {
    let io = || CurateError::io("read the folder of the benchmark's pictures", folder);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io())? {
        entries.push(entry.map_err(io())?.path());
    }
    entries.sort();
    for path in entries {
        match path.is_dir() {
            true => list(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

impl Decontaminate {
    /// All files of the benchmarks, as they are now.
    ///
    /// # Errors
    /// If one is not there.
    pub fn files(&self) -> Result<Vec<InputFile>, CurateError> {
        let mut files = self.questions.clone();
        for folder in &self.images {
            list(folder, &mut files)?;
        }
        let find = |file: &PathBuf| InputFile::find(file, "find the benchmark");
        files.iter().map(find).collect()
    }
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

    #[test]
    fn what_would_decontaminate_nothing_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let load = |questions: Option<&str>| {
            let file = at("q.jsonl");
            std::fs::write(&file, questions.unwrap_or_default()).unwrap();
            let table = Decontaminate {
                questions: questions.map(|_| file).into_iter().collect(),
                images: match questions {
                    None => vec![at("p")],
                    Some(_) => Vec::new(),
                },
                ..Decontaminate::default()
            };
            Benchmarks::load(&table).unwrap_err().to_string()
        };
        let unknown = load(Some("\n{\"frage\": \"Which of the two cars is nearer?\"}"));
        assert!(unknown.contains("q.jsonl:2: no question"), "{unknown}");
        assert!(load(Some("\n")).contains("no question"));
        let short = load(Some("{\"text\": \"How many?\"}"));
        assert!(short.contains("has 8 words"), "{short}");
        std::fs::create_dir(at("p")).unwrap();
        assert!(load(None).contains("no picture"));
        std::fs::write(at("p/a.PNG"), "no picture").unwrap();
        assert!(load(None).contains("cannot be looked at"));
    }
}
