//! Checks: what is wrong with samples.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use opabinia_data::{Sample, SampleError};
use serde::{Serialize, Serializer};

use super::Files;
use super::walk::{Seen, walk};
use crate::classify::Class;
use crate::error::CurateError;
use crate::run::Watch;

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// What is wrong with it: the name of a class, or `no_trainable_token`.
    pub kind: &'static str,
    /// The file; in JSON, what is not UTF-8 of its path is replaced.
    #[serde(serialize_with = "as_text")]
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// What was found, and what to do.
    pub what: String,
}

fn as_text<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&path.to_string_lossy())
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Lines that should be samples.
    pub samples: u64,
    /// Those that can be used.
    pub good: u64,
    /// Blank lines, which are nothing.
    pub blank: u64,
    /// Those that cannot be used, by kind.
    pub bad: BTreeMap<&'static str, u64>,
}

impl Checked {
    /// Number of samples that cannot be used.
    pub fn bad_total(&self) -> u64 {
        self.bad.values().sum()
    }
}

/// What was found, with what to do where the finding itself does not say it.
fn with_advice(class: Class, what: String) -> String {
    let advice = match class {
        Class::BrokenJson => "mend the line, or remove it",
        Class::Schema => "mend the sample, or remove it",
        Class::MissingImage => "put the picture there, mend `image`, or remove the sample",
        Class::BadImage => "replace the picture, or remove the sample",
        _ => return what,
    };
    let end = if what.ends_with(['?', '.']) { "" } else { ";" };
    format!("{what}{end} {advice}")
}

/// Whether something can be learned from a sample.
pub type Trains<'a> = &'a (dyn Fn(&Sample) -> Result<(), SampleError> + Sync);

/// What something can be learned from, as far as that is known without a tokenizer: a question with
/// an answer, neither of them empty.
///
/// # Errors
/// [`SampleError::NoTrainableToken`]
pub fn has_an_answer(sample: &Sample) -> Result<(), SampleError> {
    let full = |turn: &opabinia_data::Turn| !turn.text.trim().is_empty();
    let answered = sample
        .turns
        .chunks(2)
        .any(|exchange| exchange.len() == 2 && exchange.iter().all(full));
    match answered {
        true => Ok(()),
        false => Err(SampleError::NoTrainableToken {
            place: sample.place.clone(),
            what: "no question has an answer; remove the sample".to_owned(),
        }),
    }
}

/// Checks every line; `found` is called with every bad one, in order.
///
/// # Errors
/// If a file or the folder of pictures cannot be read, `found` fails, or somebody asked for an end.
pub fn check(
    files: &Files,
    trains: Trains<'_>,
    found: &mut dyn FnMut(BadLine) -> Result<(), CurateError>,
    watch: &Watch<'_>,
) -> Result<Checked, CurateError> {
    let mut checked = Checked::default();
    let judge = |Seen { classified, .. }: Seen| -> (Option<&'static str>, String, bool) {
        match (classified.class, &classified.sample) {
            (Class::Blank, _) => (None, String::new(), true),
            (Class::Ok, Some(sample)) => match trains(sample) {
                Ok(()) => (None, String::new(), false),
                Err(error) => {
                    let what = error.in_full();
                    let (kind, what) = match &error {
                        SampleError::NoTrainableToken { .. } => ("no_trainable_token", what),
                        _ => (Class::Schema.name(), with_advice(Class::Schema, what)),
                    };
                    (Some(kind), what, false)
                }
            },
            (class, _) => {
                let what = with_advice(class, classified.what.unwrap_or_default());
                (Some(class.name()), what, false)
            }
        }
    };
    let take =
        |file: &Path, line: u64, (kind, what, blank): (Option<&'static str>, String, bool)| {
            if blank {
                checked.blank += 1;
                return Ok(());
            }
            checked.samples += 1;
            let Some(kind) = kind else {
                checked.good += 1;
                return Ok(());
            };
            *checked.bad.entry(kind).or_default() += 1;
            found(BadLine {
                kind,
                file: file.to_owned(),
                line,
                what,
            })
        };
    walk(files, "check", &judge, take, watch)?;
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.jsonl");
        std::fs::write(&path, text).unwrap();
        let files = Files {
            files: vec![path],
            ..Files::default()
        };
        (folder, files)
    }

    const WATCH: Watch<'static> = Watch {
        progress: &|_| {},
        cancelled: &|| false,
    };

    #[test]
    fn faults_come_in_order_with_their_lines() {
        let good = r#"{"source": "a", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "one two"}]}"#;
        let open = r#"{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": " "}]}"#;
        let (_folder, files) = files(&format!("{good}\n\nnonsense\n{open}\n{good}\n"));
        let mut found = Vec::new();
        let mut take = |bad: BadLine| {
            found.push((bad.line, bad.kind));
            assert!(
                bad.what.contains(&format!(":{}`: ", bad.line)),
                "{}",
                bad.what
            );
            Ok(())
        };
        let checked = check(&files, &has_an_answer, &mut take, &WATCH).unwrap();
        assert_eq!(found, [(3, "broken_json"), (4, "no_trainable_token")]);
        assert_eq!((checked.samples, checked.good, checked.blank), (4, 2, 1));
        let stats = super::super::stats(&files, &WATCH).unwrap();
        assert_eq!((stats.total.samples, stats.bad), (3, 1));
        assert_eq!(stats.sources[0].0, "a");
        assert_eq!(stats.sources[0].2.words.counts, [0, 0, 2]);
        assert_eq!(stats.total.short_answers, 3);
    }
}
