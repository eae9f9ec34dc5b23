//! A benchmark of one's own: a definition of one file, and a folder of questions and pictures.

#![allow(
    dead_code,
    reason = "every test file takes what it needs of this module"
)]

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Run, model, opabinia, picture, text};

/// Yes-or-no questions in pairs.
pub const QUIZ: &str = r#"# Pairs of questions about shapes.
name = "quiz"
title = "Quiz"
group = "vision_centric"

[[source]]
files = ["test.jsonl"]
pictures = "pictures"

[row]
id = "id"
picture = "image"
answer = "answer"
category = "kind"
unit = "pair"
unit_size = 2

[prompt]
body = "{{ question }}"
suffix = "Answer yes or no."
max_new_tokens = 2

[scoring]
scorer = "mme"
aggregate = "mmvp-pairs"
chance = "yes-no"
chance_of = "units"
"#;

/// The folder: `data/quiz` with questions and pictures, `quiz.toml`, and room for runs.
pub struct Quiz {
    pub folder: TempDir,
}

impl Quiz {
    /// So many pairs of questions, about two pictures in turn.
    pub fn of(pairs: usize) -> Self {
        let quiz = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(quiz.path("data/quiz/pictures")).unwrap();
        for name in ["square", "wide"] {
            let to = quiz.path(&format!("data/quiz/pictures/{name}.png"));
            fs::copy(picture(name), to).unwrap();
        }
        let rows: Vec<Value> = (0..2 * pairs).map(Self::row).collect();
        quiz.write_rows(&rows);
        fs::write(quiz.path("quiz.toml"), QUIZ).unwrap();
        quiz
    }

    /// One question; even ones are right with `yes`.
    pub fn row(index: usize) -> Value {
        let pair = index / 2;
        let image = format!("{}.png", ["square", "wide"][pair % 2]);
        let (answer, kind) = (["yes", "no"][index % 2], ["even", "odd"][pair % 2]);
        json!({
            "id": format!("q{index}"), "image": image, "question": format!("Is it number {index}?"),
            "answer": answer, "kind": kind, "pair": format!("p{pair}"),
        })
    }

    pub fn write_rows(&self, rows: &[Value]) {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        fs::write(self.path("data/quiz/test.jsonl"), lines).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path in the folder as an argument.
    pub fn text(&self, name: &str) -> String {
        text(&self.path(name))
    }

    /// Arguments for an evaluation by a model into a folder.
    pub fn arguments(&self, out: &str, more: &[&str]) -> Vec<String> {
        let mut arguments: Vec<String> = ["eval", "--benchmarks"].map(str::to_owned).into();
        arguments.push(self.text("quiz.toml"));
        for (flag, value) in [
            ("--data", self.text("data")),
            ("--picture-cache", self.text("cache")),
            ("--out", self.text(out)),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        arguments.extend(more.iter().map(|&flag| flag.to_owned()));
        arguments
    }

    /// Judges the golden model.
    pub fn eval(&self, out: &str, more: &[&str]) -> Run {
        let mut arguments = self.arguments(out, more);
        arguments.extend(["--model".to_owned(), text(&model())]);
        opabinia(&arguments)
    }

    /// The records of a run.
    pub fn records(&self, out: &str) -> Vec<Value> {
        let path = self.path(out).join("records.jsonl");
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}
