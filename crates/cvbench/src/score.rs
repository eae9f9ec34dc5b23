//! Answers to a CV-Bench, and what they score.
//!
//! Accuracy_2D = (COCO + ADE20K) / 2, Accuracy_3D = Omni3D, CV-Bench = (2D + 3D) / 2 (Cambrian-1,
//! section 3.3); the plain mean over all questions is there too, under the name `micro`. Every figure
//! has a 95 % interval and the score that guessing has: a mean of means has the normal interval of
//! independent parts, a plain share Wilson's.
//!
//! Answers are JSONL. A line names a question (`idx`, `id` or `question_id`) and has a `score`, or an
//! `answer` (`output`, `prediction`, `response`) that is judged here. What else is needed is taken from
//! the line, or from the questions if they are given: then every question must have an answer.
//!
//! Of a run of `eval` the records count that its own summary counts: of a question that was asked again the
//! last one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use opabinia_eval::scorer::{Aggregate, Gold, Judged, Judgement, Metric, Protocol, Scorer};
use opabinia_eval::{EvalError, Record, SetDescription, Z, current_records, wilson};
use serde::Serialize;
use serde_json::Value;

use crate::error::CvBenchError;
use crate::question::Question;

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
}

/// How answers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreOptions {
    /// How answers are judged that have no score.
    pub protocol: Protocol,
    /// Whether questions may be without an answer; they are then left out and counted.
    pub partial: bool,
}

/// The figures of one way of showing the pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// What was shown.
    pub vision: String,
    /// Answers.
    pub answers: usize,
    /// Questions without one.
    pub unanswered: usize,
    /// Questions that could not be asked; they count as wrong.
    pub failed: usize,
    /// Answers in which nothing usable was found.
    pub unparsed: usize,
    /// `overall`, `2D`, `3D`, `micro`, `source/…` and `task/…`.
    pub figures: Vec<Figure>,
}

/// A figure in percent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of its 95 % interval.
    pub high: f64,
    /// What guessing scores, if the options are known.
    pub chance: Option<f64>,
    /// How many questions it is made of.
    pub questions: usize,
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
    let lines = lines.map(|(line, place)| {
        let value = serde_json::from_str(line);
        (
            place,
            value.map_err(|error| format!("it is no JSON: {error}")),
        )
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
    let values = records
        .iter()
        .map(|record| serde_json::to_value(record).map_err(|error| error.to_string()));
    read_lines(folder, (1..).zip(values), questions, options)
}

/// Judges lines, each with its number.
fn read_lines(
    path: &Path,
    lines: impl Iterator<Item = (usize, Result<Value, String>)>,
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
    for (line, value) in lines {
        let fail = |problem: String| CvBenchError::Answer {
            path: path.to_owned(),
            line,
            problem,
        };
        let answer = value.and_then(|value| answer(&value, known.as_ref(), options.protocol));
        let answer = answer.map_err(fail)?;
        if !seen.insert((answer.id.clone(), answer.vision.clone())) {
            return Err(fail(format!("question {} is answered twice", answer.id)));
        }
        answers.push(answer);
    }
    Ok(answers)
}

fn answer(
    line: &Value,
    known: Option<&HashMap<String, &Question>>,
    protocol: Protocol,
) -> Result<Answer, String> {
    let id = first(line, &["idx", "id", "question_id"]).and_then(name);
    let id = id.ok_or("it names no question: `idx`, `id` or `question_id`")?;
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
    let judgement = match (score_of(line)?, said(line), &gold) {
        (Some(score), _, _) => Judgement::new(score, "", ""),
        _ if failed => Judgement::new(0.0, "", ""),
        (None, Some(said), Some(gold)) => Scorer::CvBench.judge(protocol, said, gold),
        (None, Some(_), None) => {
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

/// The figures, for each way of showing the pictures in the order that they come in.
///
/// # Errors
/// If there are no answers, if some questions have none, or if a task and a source are not known.
pub fn score(
    answers: &[Answer],
    questions: Option<&[Question]>,
    options: ScoreOptions,
) -> Result<Vec<Scores>, CvBenchError> {
    let mut visions: Vec<&str> = Vec::new();
    for answer in answers {
        if !visions.contains(&answer.vision.as_str()) {
            visions.push(&answer.vision);
        }
    }
    if visions.is_empty() {
        visions.push("on");
    }
    let of = |vision: &str| {
        let answers = answers.iter().filter(|answer| answer.vision == vision);
        scores(vision, &answers.collect::<Vec<_>>(), questions, options)
    };
    visions.into_iter().map(of).collect()
}

fn scores(
    vision: &str,
    answers: &[&Answer],
    questions: Option<&[Question]>,
    options: ScoreOptions,
) -> Result<Scores, CvBenchError> {
    let there: HashSet<&str> = answers.iter().map(|answer| answer.id.as_str()).collect();
    let questions = questions.unwrap_or_default();
    let missing = questions.iter().filter(|question| {
        let id = question.idx.to_string();
        !there.contains(id.as_str())
    });
    let missing: Vec<i64> = missing.map(|question| question.idx).collect();
    if let (Some(&first), false) = (missing.first(), options.partial) {
        return Err(CvBenchError::Unanswered {
            missing: missing.len(),
            questions: questions.len(),
            first,
        });
    }
    let metrics = metrics(answers, |answer| answer.judgement.clone())?;
    let guessed = match answers.iter().all(|answer| answer.chance.is_some()) {
        true => self::metrics(answers, |answer| {
            Judgement::new(answer.chance.unwrap_or(0.0), "", "")
        })?,
        false => Vec::new(),
    };
    let figures = metrics.iter().filter(|metric| metric.name != "unparsed");
    let figures = figures.map(|metric| figure(metric, answers, &guessed));
    Ok(Scores {
        vision: vision.to_owned(),
        answers: answers.len(),
        unanswered: missing.len(),
        failed: answers.iter().filter(|answer| answer.failed).count(),
        unparsed: answers
            .iter()
            .filter(|answer| !answer.judgement.parsed)
            .count(),
        figures: figures.collect(),
    })
}

fn metrics(
    answers: &[&Answer],
    judgement: impl Fn(&Answer) -> Judgement,
) -> Result<Vec<Metric>, CvBenchError> {
    let judgements: Vec<Judgement> = answers.iter().map(|answer| judgement(answer)).collect();
    let judged = answers.iter().zip(&judgements);
    let judged: Vec<Judged<'_>> = judged
        .map(|(answer, judgement)| Judged {
            id: &answer.id,
            unit: None,
            picture: None,
            category: answer.task.as_deref(),
            source: answer.source.as_deref(),
            judgement,
        })
        .collect();
    Ok(Aggregate::CvBench.metrics(&judged)?)
}

fn figure(metric: &Metric, answers: &[&Answer], guessed: &[Metric]) -> Figure {
    let chance = guessed.iter().find(|other| other.name == metric.name);
    let (low, high) = match deviation(&metric.name, answers) {
        Some(deviation) => {
            let half = 100.0 * Z * deviation;
            (
                (metric.value - half).max(0.0),
                (metric.value + half).min(100.0),
            )
        }
        None => {
            let interval = wilson(metric.value / 100.0, metric.questions);
            (100.0 * interval.low, 100.0 * interval.high)
        }
    };
    Figure {
        name: metric.name.clone(),
        value: metric.value,
        low,
        high,
        chance: chance.map(|chance| chance.value),
        questions: metric.questions,
    }
}

/// Standard error of a mean of means, as a share; nothing for a plain mean.
fn deviation(name: &str, answers: &[&Answer]) -> Option<f64> {
    let parts: &[&str] = match name {
        "overall" => &["2D", "3D"],
        "2D" => &["2D"],
        "3D" => &["3D"],
        _ => return None,
    };
    let mut variance = 0.0;
    for part in parts {
        let mut sources: BTreeMap<Option<&str>, Vec<f64>> = BTreeMap::new();
        for answer in answers.iter().filter(|answer| dimension(answer) == *part) {
            let scores = sources.entry(answer.source.as_deref()).or_default();
            scores.push(answer.judgement.score);
        }
        let weight = 1.0 / (parts.len() * sources.len().max(1)) as f64;
        let of_means = sources.values().map(|scores| variance_of_mean(scores));
        variance += weight * weight * of_means.sum::<f64>();
    }
    Some(variance.sqrt())
}

fn dimension(answer: &Answer) -> &'static str {
    let task = answer.task.as_deref();
    match (task, answer.source.as_deref()) {
        (Some("Count" | "Relation" | "2D"), _) => "2D",
        (Some("Depth" | "Distance" | "3D"), _) => "3D",
        (_, Some("COCO" | "ADE20K")) => "2D",
        _ => "3D",
    }
}

/// s² / n with the variance of n − 1 degrees of freedom; of one score the largest there could be.
fn variance_of_mean(scores: &[f64]) -> f64 {
    let count = scores.len() as f64;
    if scores.len() < 2 {
        return 0.25;
    }
    let mean = scores.iter().sum::<f64>() / count;
    let squares = scores.iter().map(|score| (score - mean) * (score - mean));
    squares.sum::<f64>() / (count - 1.0) / count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Answer>, CvBenchError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        fs::write(&path, text).unwrap();
        let options = ScoreOptions {
            protocol: Protocol::Standard,
            partial: false,
        };
        read_answers(&path, None, options)
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

    /// Two of four in one source: variance of the mean is (4 · ¼ / 3) / 4 = 1/12.
    #[test]
    fn means_of_means_have_intervals() {
        assert!((variance_of_mean(&[1.0, 1.0, 0.0, 0.0]) - 1.0 / 12.0).abs() < 1e-12);
        assert_eq!(variance_of_mean(&[1.0]), 0.25);
    }
}
