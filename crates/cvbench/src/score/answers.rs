//! Reading answers to a CV-Bench, and judging them.
//!
//! Answers are JSONL. A line names a question (`idx`, `id` or `question_id`) and has an `answer`
//! (`output`, `prediction`, `response`) that is judged here, or a `score`. What else is needed is taken
//! from the line, or from the questions if they are given: then every question must have an answer.
//!
//! A score that somebody gave is no score by the protocol that is asked for. So an answer is judged
//! wherever what is right is known, whatever score stands beside it; a score is taken as it stands only
//! where no protocol is asked for, or where the run says that it was judged by this one, and such scores
//! are counted.
//!
//! Of a run of `eval` the records count that its own summary counts: of a question that was asked again the
//! last one.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use opabinia_eval::scorer::{Aggregate, Gold, Judgement, Protocol, Scorer};
use opabinia_eval::{EvalError, Record, SetDescription, current_records};
use serde_json::Value;

use crate::error::CvBenchError;
use crate::question::Question;

/// The records of a run, in its folder.
const RECORDS: &str = "records.jsonl";

/// An answer that has been judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The question.
    pub id: String,
    /// What was shown: `on` if the line does not say.
    pub vision: String,
    /// The task, if it is known.
    pub task: Option<String>,
    /// The format of the annotations, if it is known.
    pub source: Option<String>,
    /// How often guessing is right, if it is known.
    pub chance: Option<f64>,
    /// Whether it is right.
    pub judgement: Judgement,
    /// Whether the question could not be asked; it counts as wrong.
    pub failed: bool,
    /// Whether the score was there already, and was not judged here.
    pub as_given: bool,
    /// Whose rules judged; `None` of a score of which nobody says.
    pub protocol: Option<Protocol>,
}

/// How answers are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScoreOptions {
    /// How answers are judged; `None` takes that of the run, or the standard one, and takes scores as they
    /// stand that cannot be judged anew.
    pub protocol: Option<Protocol>,
    /// Whether questions may be without an answer; they are then left out and counted.
    pub partial: bool,
}

/// Reads answers. `questions` say what is right and fill in what the lines leave out.
///
/// # Errors
/// If the file cannot be read, a line is no answer, or an answer belongs to no question, or to one that
/// has one.
pub fn read_answers(
    path: &Path,
    questions: Option<&[Question]>,
    options: ScoreOptions,
) -> Result<Vec<Answer>, CvBenchError> {
    let text = fs::read_to_string(path).map_err(CvBenchError::read("the answers", path))?;
    let lines = text
        .lines()
        .zip(1..)
        .filter(|(line, _)| !line.trim().is_empty());
    let lines = lines.map(|(line, place)| Line {
        place: Place::Line(place),
        value: serde_json::from_str(line).map_err(|error| format!("it is no JSON: {error}")),
        judged_by: None,
    });
    read_lines(path, lines, questions, options)
}

/// Reads the answers of a run of `eval`: those to CV-Bench, if it was asked other benchmarks too.
///
/// # Errors
/// As [`read_answers`], and if the folder is none of a run, or the run is not finished and
/// [`ScoreOptions::partial`] does not allow that.
pub fn read_run(
    folder: &Path,
    questions: Option<&[Question]>,
    options: ScoreOptions,
) -> Result<Vec<Answer>, CvBenchError> {
    let (description, records) = current_records(folder)?;
    let ours: Vec<&SetDescription> = description
        .sets
        .iter()
        .filter(|set| set.rules.aggregate == Aggregate::CvBench || set.benchmark.is_none())
        .collect();
    if ours.is_empty() {
        return Err(CvBenchError::NoBench {
            path: folder.to_owned(),
        });
    }
    let records: Vec<&Record> = records
        .iter()
        .filter(|record| ours.iter().any(|set| set.benchmark == record.benchmark))
        .collect();
    let wanted = ours.iter().flat_map(|set| set.ways.values());
    let wanted: usize = wanted.map(|way| way.wanted.len()).sum();
    let left = wanted.saturating_sub(records.len());
    if left > 0 && !options.partial {
        return Err(CvBenchError::Run(EvalError::Unfinished {
            path: folder.to_owned(),
            left,
        }));
    }
    let lines = records.iter().map(|record| {
        let mut sets = ours.iter();
        let set = sets.find(|set| set.benchmark == record.benchmark);
        Line {
            place: Place::Record(record.id.clone(), record.vision.to_string()),
            value: serde_json::to_value(record).map_err(|error| error.to_string()),
            judged_by: set.map(|set| set.rules.protocol),
        }
    });
    read_lines(&folder.join(RECORDS), lines, questions, options)
}

/// A line, and where it is from.
struct Line {
    place: Place,
    value: Result<Value, String>,
    /// Whose rules gave it its score, if that is known.
    judged_by: Option<Protocol>,
}

/// Where a line is.
enum Place {
    /// Its number, from 1.
    Line(usize),
    /// The question and what was shown, in a run.
    Record(String, String),
}

impl Place {
    /// In words; a line of which question is told too, if that is known.
    fn words(&self, question: Option<&str>) -> String {
        match (self, question) {
            (Self::Line(line), None) => format!("line {line}"),
            (Self::Line(line), Some(question)) => format!("line {line} (question {question})"),
            (Self::Record(question, vision), _) => format!("question {question} ({vision})"),
        }
    }
}

/// Judges lines.
fn read_lines(
    path: &Path,
    lines: impl Iterator<Item = Line>,
    questions: Option<&[Question]>,
    options: ScoreOptions,
) -> Result<Vec<Answer>, CvBenchError> {
    let known = questions.map(|questions| {
        let questions = questions.iter();
        let named = questions.map(|question| (question.idx.to_string(), question));
        named.collect::<HashMap<String, &Question>>()
    });
    let mut answers = Vec::new();
    let mut seen = HashSet::new();
    for Line {
        place,
        value,
        judged_by,
    } in lines
    {
        let id = value.as_ref().ok().and_then(id_of);
        let fail = |problem: String| CvBenchError::Answer {
            path: path.to_owned(),
            place: place.words(id.as_deref()),
            problem,
        };
        let rules = ProtocolOf {
            wanted: options.protocol,
            judged_by,
        };
        let answer = value.and_then(|value| answer(&value, known.as_ref(), rules));
        let answer = answer.map_err(fail)?;
        if !seen.insert((answer.id.clone(), answer.vision.clone())) {
            return Err(fail("it is answered twice".to_owned()));
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// Whose rules are wanted, and whose gave the score that is there.
#[derive(Clone, Copy)]
struct ProtocolOf {
    wanted: Option<Protocol>,
    judged_by: Option<Protocol>,
}

impl ProtocolOf {
    /// By which an answer is judged.
    fn judging(self) -> Protocol {
        self.wanted.or(self.judged_by).unwrap_or_default()
    }

    /// Whether a score that is there is one by the rules that are wanted.
    ///
    /// # Errors
    /// What is to be done, if it is not.
    fn accepts_score(self) -> Result<(), String> {
        let Some(wanted) = self.wanted else {
            return Ok(());
        };
        match self.judged_by {
            Some(judged_by) if judged_by == wanted => Ok(()),
            Some(judged_by) => Err(format!(
                "its score is by the {judged_by} protocol, and cannot be had by the {wanted} one while \
                 what is right is not known; give the questions"
            )),
            None => Err(format!(
                "it has a score, and nobody says that it is by the {wanted} protocol; give an answer and \
                 the questions, or leave `--protocol` out to take scores as they stand"
            )),
        }
    }
}

fn id_of(line: &Value) -> Option<String> {
    first(line, &["idx", "id", "question_id"]).and_then(name)
}

fn answer(
    line: &Value,
    known: Option<&HashMap<String, &Question>>,
    rules: ProtocolOf,
) -> Result<Answer, String> {
    let id = id_of(line).ok_or("it names no question: `idx`, `id` or `question_id`")?;
    let question = match known {
        None => None,
        Some(known) => match known.get(&id) {
            Some(question) => Some(*question),
            None => return Err(format!("there is no question {id}")),
        },
    };
    let gold = match question {
        Some(question) => Some(question.gold()),
        None => gold_of(line),
    };
    let failed = line.get("error").is_some_and(Value::is_string);
    let judging = rules.judging();
    let (judgement, as_given, protocol) = match (score_of(line)?, said(line), &gold) {
        (_, Some(said), Some(gold)) if !failed => {
            let judgement = Scorer::CvBench.judge(judging, said, gold);
            (judgement, false, Some(judging))
        }
        (Some(score), _, _) => {
            rules.accepts_score()?;
            (Judgement::new(score, "", ""), true, rules.judged_by)
        }
        // Who was not asked is wrong by all rules.
        _ if failed => (Judgement::new(0.0, "", ""), false, Some(judging)),
        (None, Some(_), _) => {
            return Err(
                "it has an answer, but what is right is not known; give the questions".into(),
            );
        }
        (None, None, _) => return Err("it has neither a `score` nor an `answer`".into()),
    };
    let text = |key: &str| line.get(key).and_then(Value::as_str).map(str::to_owned);
    let chance = line.get("chance").and_then(Value::as_f64);
    let chance = chance.filter(|chance| (0.0..=1.0).contains(chance));
    Ok(Answer {
        id,
        vision: text("vision").unwrap_or_else(|| "on".to_owned()),
        task: match question {
            Some(question) => Some(question.task.name().to_owned()),
            None => text("task").or_else(|| text("category")),
        },
        source: match question {
            Some(question) => Some(question.source.clone()),
            None => text("source"),
        },
        chance: gold.map(|gold| gold.chance()).or(chance),
        judgement,
        failed,
        as_given,
        protocol,
    })
}

fn first<'a>(line: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    keys.iter().find_map(|key| line.get(*key))
}

fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => number.as_i64().map(|number| number.to_string()),
        _ => None,
    }
}

fn score_of(line: &Value) -> Result<Option<f64>, String> {
    let score = match line.get("score") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Bool(right)) => Some(f64::from(u8::from(*right))),
        Some(value) => value.as_f64(),
    };
    match score.filter(|score| (0.0..=1.0).contains(score)) {
        Some(score) => Ok(Some(score)),
        None => Err("its score is not between 0 and 1".to_owned()),
    }
}

fn said(line: &Value) -> Option<&str> {
    first(line, &["answer", "output", "prediction", "response"])?.as_str()
}

/// What is right, if the line itself says so.
fn gold_of(line: &Value) -> Option<Gold> {
    let options = line.get("choices")?.as_array()?;
    let options: Option<Vec<&str>> = options.iter().map(Value::as_str).collect();
    let gold = first(line, &["gold", "gt_answer", "expected"])?.as_str()?;
    let letter = gold.trim().trim_matches(['(', ')']).to_ascii_uppercase();
    let &[letter] = letter.as_bytes() else {
        return None;
    };
    let right = usize::from(letter.checked_sub(b'A')?);
    let options = options?;
    (right < options.len()).then(|| Gold::option(right, &options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Answer>, CvBenchError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        fs::write(&path, text).unwrap();
        read_answers(&path, None, ScoreOptions::default())
    }

    /// One line, by the rules that are asked for.
    fn by(protocol: Protocol, text: &str) -> Result<f64, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        fs::write(&path, text).unwrap();
        let options = ScoreOptions {
            protocol: Some(protocol),
            partial: false,
        };
        let answers = read_answers(&path, None, options);
        let answers = answers.map_err(|error| error.to_string())?;
        assert!(!answers[0].as_given && answers[0].protocol == Some(protocol));
        Ok(answers[0].judgement.score)
    }

    /// What is announced at the end counts for the reference's script; other harnesses want the letter first.
    #[test]
    fn the_protocol_that_is_asked_for_judges() {
        let line = r#"{"id": 1, "source": "COCO", "task": "Count", "score": 1, "answer": "The answer is B",
            "choices": ["1", "2"], "gold": "(B)"}"#
            .replace('\n', " ");
        assert_eq!(by(Protocol::Reference, &line), Ok(1.0));
        assert_eq!(
            by(Protocol::Standard, &line),
            Ok(0.0),
            "the score is not believed"
        );
        let bare = r#"{"id": 7, "source": "COCO", "task": "Count", "score": 1}"#;
        let error = by(Protocol::Standard, bare).unwrap_err();
        for part in [
            "line 1 (question 7) of ",
            "answers.jsonl",
            "nobody says",
            "leave `--protocol` out",
        ] {
            assert!(error.contains(part), "`{part}` is not in `{error}`");
        }
        let given = read(bare).unwrap();
        assert!(given[0].as_given && given[0].protocol.is_none());
    }

    #[test]
    fn lines_of_other_programs_are_understood() {
        let text = r#"
            {"question_id": 1, "source": "COCO", "task": "Count", "score": true}
            {"idx": "2", "source": "COCO", "category": "Count", "response": "(B)", "choices": ["1", "2"], "gold": "(B)"}
            {"id": "3", "source": "Omni3D", "task": "Depth", "error": "no picture"}
            {"id": 4, "source": "Omni3D", "task": "Depth", "score": 1, "vision": "off"}
        "#;
        let answers = read(text).unwrap();
        let scores: Vec<f64> = answers
            .iter()
            .map(|answer| answer.judgement.score)
            .collect();
        assert_eq!(scores, [1.0, 1.0, 0.0, 1.0]);
        assert_eq!(answers[1].chance, Some(0.5));
        assert!(answers[2].failed);
        assert_eq!(answers[3].vision, "off");
    }

    #[test]
    fn lines_that_are_no_answers_are_refused() {
        let refuse = |text: &str| read(text).unwrap_err().to_string();
        assert!(refuse("{").contains("line 1"));
        assert!(refuse(r#"{"score": 1}"#).contains("names no question"));
        assert!(refuse(r#"{"id": 1}"#).contains("neither"));
        assert!(refuse(r#"{"id": 1, "score": 2}"#).contains("between 0 and 1"));
        assert!(refuse(r#"{"id": 1, "answer": "A"}"#).contains("give the questions"));
        let twice = r#"{"id": 1, "score": 1}"#;
        assert!(refuse(&format!("{twice}\n{twice}")).contains("answered twice"));
    }
}
