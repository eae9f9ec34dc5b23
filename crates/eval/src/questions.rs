//! Questions of a benchmark, from a file of JSON lines.
//!
//! The format is the one that `opabinia world make` writes as `test/questions.jsonl`. Reading is
//! strict: a benchmark with a broken line is another benchmark, so the first thing that is wrong ends
//! it, with file and line. Pictures are read too, once: their digests tell whether two questions
//! really have different pictures, and make the digest of the whole set that a run is known by.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use opabinia_data::stays_inside;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::digest;
use crate::error::EvalError;
use crate::scorer::{Expected, normalise};

/// One question of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Unique within the file.
    pub id: String,
    /// Path of the picture, relative to the folder of the file.
    pub image: String,
    /// Group of benchmarks, such as `vision_centric`.
    pub group: String,
    /// Kind of question, such as `count`.
    pub task: String,
    /// The text that is asked, format prompt included, image placeholder not.
    pub question: String,
    /// Options, where there are some; whether they are part of `question` is the benchmark's choice.
    pub choices: Option<Vec<String>>,
    /// The right answer.
    pub answer: String,
    /// How often guessing is right, between 0 and 1.
    pub chance: f64,
}

impl Question {
    /// What a scorer compares answers with.
    #[must_use]
    pub fn expected(&self) -> Expected<'_> {
        Expected {
            answer: &self.answer,
            choices: self.choices.as_deref().unwrap_or_default(),
            lettered: self.shows_letters(),
        }
    }

    /// Whether every option stands in the question with its letter, as `A. red` or `(A) red`.
    fn shows_letters(&self) -> bool {
        let shown = |(letter, choice): (char, &String)| {
            [
                format!("{letter}. {choice}"),
                format!("({letter}) {choice}"),
            ]
            .iter()
            .any(|option| self.question.contains(option))
        };
        let choices = self.choices.as_deref().unwrap_or_default();
        !choices.is_empty() && choices.len() <= 26 && ('A'..='Z').zip(choices).all(shown)
    }

    /// What is wrong with the values, if anything is.
    fn problem(&self) -> Option<String> {
        let texts = [
            ("id", &self.id),
            ("group", &self.group),
            ("task", &self.task),
            ("question", &self.question),
            ("answer", &self.answer),
        ];
        if let Some((name, _)) = texts.iter().find(|(_, text)| text.trim().is_empty()) {
            return Some(format!("`{name}` is empty"));
        }
        if !(0.0..=1.0).contains(&self.chance) {
            return Some(format!(
                "`chance` is {}, wanted a share from 0 to 1",
                self.chance
            ));
        }
        if !stays_inside(&self.image) {
            return Some(format!(
                "`image` is `{}`, wanted a path inside the folder of the questions",
                self.image
            ));
        }
        let answer = normalise(&self.answer);
        let choices = self.choices.as_ref()?;
        let listed = choices.iter().any(|choice| normalise(choice) == answer);
        (!listed && !self.shows_letters()).then(|| {
            format!(
                "`answer` is `{}`, which is not among `choices`",
                self.answer
            )
        })
    }
}

/// A picture of a set of questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureFile {
    /// Where it is.
    pub path: PathBuf,
    /// Digest of the file.
    pub sha256: String,
}

/// All questions of a file.
#[derive(Clone, Debug)]
pub struct QuestionSet {
    /// The file.
    pub path: PathBuf,
    /// The questions, in the order of the file.
    pub questions: Vec<Question>,
    /// The pictures, each content once, in the order of the first question about it.
    pub pictures: Vec<PictureFile>,
    /// For every question its picture.
    pub picture_of: Vec<usize>,
    /// Digest of questions and pictures.
    pub sha256: String,
}

impl QuestionSet {
    /// Reads a file of questions and the pictures that they name.
    ///
    /// # Errors
    /// If a file cannot be read, a line is not a question or has an impossible value, an id comes
    /// twice, or there is no question.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let bytes = fs::read(path).map_err(EvalError::read("questions", path))?;
        let (questions, lines) = parse(path, &bytes)?;
        if questions.is_empty() {
            return Err(EvalError::NoQuestions {
                path: path.to_owned(),
            });
        }
        let (pictures, picture_of) = find_pictures(path, &questions, &lines)?;
        let mut whole = Sha256::new();
        whole.update(&bytes);
        for picture in &pictures {
            whole.update(&picture.sha256);
        }
        Ok(Self {
            path: path.to_owned(),
            questions,
            pictures,
            picture_of,
            sha256: digest::hex(whole.finalize()),
        })
    }
}

/// The questions of a file, and the line of each.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<Question>, Vec<usize>), EvalError> {
    let mut questions = Vec::new();
    let mut lines = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let numbered = bytes.split(|&byte| byte == b'\n').zip(1..);
    for (text, line) in numbered.filter(|(text, _)| !text.trim_ascii().is_empty()) {
        let wrong = |problem| EvalError::Question {
            path: path.to_owned(),
            line,
            problem,
        };
        let question: Question =
            serde_json::from_slice(text).map_err(|source| EvalError::NotAQuestion {
                path: path.to_owned(),
                line,
                source,
            })?;
        if let Some(problem) = question.problem() {
            return Err(wrong(problem));
        }
        if let Some(first) = known.insert(question.id.clone(), line) {
            let id = &question.id;
            return Err(wrong(format!(
                "`id` is `{id}`, which line {first} has already"
            )));
        }
        questions.push(question);
        lines.push(line);
    }
    Ok((questions, lines))
}

/// The distinct pictures, and which of them each question has.
fn find_pictures(
    path: &Path,
    questions: &[Question],
    lines: &[usize],
) -> Result<(Vec<PictureFile>, Vec<usize>), EvalError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut named: Vec<(&str, usize)> = Vec::new();
    let mut name_of = Vec::with_capacity(questions.len());
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (question, &line) in questions.iter().zip(lines) {
        let image = question.image.as_str();
        name_of.push(*names.entry(image).or_insert_with(|| {
            named.push((image, line));
            named.len() - 1
        }));
    }
    let read = |&(image, line): &(&str, usize)| {
        let file = folder.join(image);
        match fs::read(&file) {
            Ok(bytes) => Ok(PictureFile {
                sha256: digest::of(bytes),
                path: file,
            }),
            Err(error) => Err(EvalError::Question {
                path: path.to_owned(),
                line,
                problem: format!("cannot read the picture `{}`: {error}", file.display()),
            }),
        }
    };
    let files = named.par_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut pictures: Vec<PictureFile> = Vec::new();
    let mut contents: HashMap<String, usize> = HashMap::new();
    let mut picture_of_name = Vec::with_capacity(files.len());
    for file in files {
        picture_of_name.push(*contents.entry(file.sha256.clone()).or_insert_with(|| {
            pictures.push(file);
            pictures.len() - 1
        }));
    }
    let picture_of = name_of.into_iter().map(|name| picture_of_name[name]);
    Ok((pictures, picture_of.collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn line(id: &str) -> Value {
        json!({
            "id": id, "image": "a.png", "group": "general", "task": "colour",
            "question": "What colour is it?", "choices": ["red", "blue"], "answer": "red",
            "chance": 0.125,
        })
    }

    fn read(text: &str) -> Result<QuestionSet, EvalError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [("a.png", "one"), ("b.png", "two"), ("c.png", "one")] {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let path = folder.path().join("questions.jsonl");
        fs::write(&path, text).unwrap();
        QuestionSet::read(&path)
    }

    #[test]
    fn pictures_are_told_apart_by_content() {
        let mut lines = [line("1"), line("2"), line("3"), line("4")];
        lines[1]["image"] = json!("b.png");
        lines[2]["image"] = json!("c.png");
        let text = lines.iter().map(|line| format!("{line}\n\n"));
        let set = read(&text.collect::<String>()).unwrap();
        assert_eq!(set.picture_of, [0, 1, 0, 0]);
        assert_eq!(set.pictures.len(), 2);
        assert_eq!(set.questions[1].id, "2");
        assert_eq!(set.sha256.len(), 64);
    }

    #[test]
    fn letters_count_where_the_question_shows_them() {
        let question = |text: &str| Question {
            question: text.into(),
            ..serde_json::from_value(line("1")).unwrap()
        };
        assert!(
            question("Which? Options:\nA. red\nB. blue")
                .expected()
                .lettered
        );
        assert!(question("Which? (A) red (B) blue").expected().lettered);
        assert!(!question("Which? A. red or blue").expected().lettered);
        assert!(!question("Is it red or blue?").expected().lettered);
    }

    #[track_caller]
    fn refused(text: &str, expected: &[&str]) {
        let error = read(text).unwrap_err();
        let message = crate::error::in_full(&error);
        for part in expected {
            assert!(message.contains(part), "`{part}` is not in `{message}`");
        }
    }

    #[test]
    fn mistakes_are_named_with_file_and_line() {
        let good = line("1").to_string();
        refused("", &["no questions"]);
        refused(
            &format!("{good}\nnonsense"),
            &["questions.jsonl:2", "expected"],
        );
        refused(&format!("{good}\n\n{good}"), &["jsonl:3", "line 1"]);
        let with = |key: &str, value: Value| {
            let mut line = line("1");
            line[key] = value;
            line.to_string()
        };
        refused(&with("chance", json!(1.5)), &["jsonl:1", "`chance` is 1.5"]);
        refused(&with("answer", json!(" ")), &["`answer` is empty"]);
        refused(&with("answer", json!("green")), &["`green`", "choices"]);
        refused(&with("image", json!("../a.png")), &["`../a.png`", "inside"]);
        refused(&with("image", json!("no.png")), &["no.png", "cannot read"]);
        refused(&with("choises", json!([])), &["unknown field `choises`"]);
        let mut short = line("1");
        short.as_object_mut().unwrap().remove("task");
        refused(&short.to_string(), &["missing field `task`"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn damaged_lines_never_panic(at in 0usize..200, byte: u8, cut in 0usize..200) {
            let mut bytes = line("1").to_string().into_bytes();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut % length);
            let _ = parse(Path::new("questions.jsonl"), &bytes);
        }
    }
}
