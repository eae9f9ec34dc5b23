//! Whether runs may stand beside each other: the same questions, judged by the same rules.
//!
//! A table of scores hides what it compares. So runs of other questions under the same ids, and runs
//! that were judged by other rules, are refused with what differs. Whatever else differs, such as the
//! files that the same questions were read from or the judge, is listed, as are answers that nobody
//! judged: these questions then count for no run.

use std::collections::{BTreeMap, BTreeSet};

use super::{QuestionFacts, RunScores};
use crate::Vision;
use crate::analysis::error::AnalysisError;

/// Questions that a message names.
const SHOWN: usize = 3;

/// The runs of one benchmark of which something was judged, with the questions that count in all.
///
/// # Errors
/// See [`super::table_of`].
pub(super) fn comparable(
    runs: Vec<RunScores>,
    notes: &mut Vec<String>,
    cautions: &mut Vec<String>,
) -> Result<Vec<RunScores>, AnalysisError> {
    let (mut judged, unjudged): (Vec<RunScores>, Vec<RunScores>) = runs
        .into_iter()
        .partition(|run| run.asked.values().any(|asked| !asked.questions.is_empty()));
    notes.extend(unjudged.iter().map(|run| {
        format!(
            "{} of {} (`{}`): none of its answers was judged",
            run.benchmark, run.model, run.run
        )
    }));
    let mut before: Option<(&RunScores, BTreeSet<String>)> = None;
    for run in &judged {
        let ids = question_ids(run)?;
        match &before {
            None => before = Some((run, ids)),
            Some((first, theirs)) => {
                let problem = other_ids(run, &ids, first, theirs)
                    .or_else(|| other_questions(run, first))
                    .or_else(|| other_rules(run, first));
                if let Some(problem) = problem {
                    return Err(AnalysisError::Conflict {
                        input: run.run.clone(),
                        problem,
                    });
                }
            }
        }
    }
    cautions.extend(differing(&judged));
    notes.extend(leave_out_unjudged(&mut judged));
    Ok(judged)
}

/// The questions of a run, the same for each way of asking.
fn question_ids(run: &RunScores) -> Result<BTreeSet<String>, AnalysisError> {
    let mut first: Option<(Vision, BTreeSet<String>)> = None;
    for (vision, asked) in &run.asked {
        let mut ids = BTreeSet::new();
        let judged = asked.questions.iter().map(|question| &question.id);
        for id in judged.chain(&asked.unjudged) {
            if !ids.insert(id.clone()) {
                return Err(AnalysisError::DuplicateQuestion {
                    run: run.run.clone(),
                    question: id.clone(),
                });
            }
        }
        match &first {
            Some((before, theirs)) if *theirs != ids => {
                return Err(AnalysisError::Conflict {
                    input: run.run.clone(),
                    problem: format!(
                        "of {} it was asked {} questions for `{before}` and {} for `{vision}`; finish \
                         the run",
                        run.benchmark,
                        theirs.len(),
                        ids.len()
                    ),
                });
            }
            Some(_) => {}
            None => first = Some((*vision, ids)),
        }
    }
    Ok(first.map(|(_, ids)| ids).unwrap_or_default())
}

fn other_ids(
    run: &RunScores,
    ids: &BTreeSet<String>,
    first: &RunScores,
    theirs: &BTreeSet<String>,
) -> Option<String> {
    if ids == theirs {
        return None;
    }
    let only = |these: &BTreeSet<String>, those: &BTreeSet<String>| -> Vec<String> {
        these
            .difference(those)
            .map(|id| format!("`{id}`"))
            .collect()
    };
    let mut examples = Vec::new();
    for (ids, place) in [(only(ids, theirs), "here"), (only(theirs, ids), "there")] {
        if !ids.is_empty() {
            examples.push(format!("only {place}: {}", some_of(&ids, ", ")));
        }
    }
    Some(format!(
        "of {} it was asked {} questions and `{}` {}, with {} in common ({}); judge both on the same \
         questions",
        run.benchmark,
        ids.len(),
        first.run,
        theirs.len(),
        ids.intersection(theirs).count(),
        examples.join("; ")
    ))
}

/// The same ids may stand for other questions.
fn other_questions(run: &RunScores, first: &RunScores) -> Option<String> {
    let others: Vec<String> = run
        .facts
        .iter()
        .filter_map(|(id, mine)| {
            let what = what_differs(mine, first.facts.get(id)?)?;
            Some(format!("`{id}` {what}"))
        })
        .collect();
    if others.is_empty() {
        return None;
    }
    Some(format!(
        "{} of {} questions of {} are others than those of `{}` with the same id: {}; judge both on the \
         same questions",
        others.len(),
        run.facts.len(),
        run.benchmark,
        first.run,
        some_of(&others, ", ")
    ))
}

fn what_differs(mine: &QuestionFacts, theirs: &QuestionFacts) -> Option<String> {
    if mine.answer != theirs.answer {
        return Some(format!(
            "has the answer `{}` here and `{}` there",
            mine.answer, theirs.answer
        ));
    }
    if mine.picture != theirs.picture {
        return Some("is about another picture".to_owned());
    }
    (mine.prompt != theirs.prompt).then(|| "is asked in other words".to_owned())
}

fn other_rules(run: &RunScores, first: &RunScores) -> Option<String> {
    if let (Some(mine), Some(theirs)) = (run.protocol, first.protocol)
        && mine != theirs
    {
        return Some(format!(
            "of {} it was judged by the {mine} protocol, and `{}` by the {theirs} one; judge both by the \
             same rules: `eval --protocol` does, and asks nothing again",
            run.benchmark, first.run
        ));
    }
    let scorer = |run: &RunScores| run.stamps.get("scorer").cloned();
    match (scorer(run), scorer(first)) {
        (Some(mine), Some(theirs)) if mine != theirs => Some(format!(
            "of {} it was judged by {mine}, and `{}` by {theirs}; judge both by the same scorer: the \
             same `eval` command does, and asks nothing again",
            run.benchmark, first.run
        )),
        _ => None,
    }
}

/// What else was not the same, a sentence for each name.
fn differing(runs: &[RunScores]) -> Vec<String> {
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.stamps.keys()).collect();
    let sentence = |name: &String| {
        let mut values: BTreeMap<Option<&String>, Vec<&str>> = BTreeMap::new();
        for run in runs {
            let value = run.stamps.get(name);
            values.entry(value).or_default().push(&run.run);
        }
        let first = runs.first().filter(|_| values.len() > 1)?;
        let values: Vec<String> = values
            .into_iter()
            .map(|(value, runs)| {
                let runs: Vec<String> = runs.iter().map(|run| format!("`{run}`")).collect();
                format!("{} in {}", short(value), some_of(&runs, ", "))
            })
            .collect();
        Some(format!(
            "{}: {name} differs: {}",
            first.benchmark,
            some_of(&values, "; ")
        ))
    };
    names.into_iter().filter_map(sentence).collect()
}

/// Digests are told apart by their beginning.
fn short(value: Option<&String>) -> String {
    match value {
        Some(text) if text.len() == 64 && !text.contains(' ') => text.chars().take(12).collect(),
        Some(text) => text.clone(),
        None => "nothing".to_owned(),
    }
}

/// Takes questions that some run has no judgement of out of all, and says so.
fn leave_out_unjudged(runs: &mut [RunScores]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut gone: BTreeSet<String> = BTreeSet::new();
    for run in runs.iter() {
        let mine: BTreeSet<&String> = run.asked.values().flat_map(|a| &a.unjudged).collect();
        if mine.is_empty() {
            continue;
        }
        let ids: Vec<String> = mine.iter().map(|id| format!("`{id}`")).collect();
        notes.push(format!(
            "{} questions of {}: nobody judged the answers of `{}` to {}; they count for no run, and the \
             score is the mean over the others",
            mine.len(),
            run.benchmark,
            run.run,
            some_of(&ids, ", ")
        ));
        gone.extend(mine.into_iter().cloned());
    }
    if gone.is_empty() {
        return notes;
    }
    for asked in runs.iter_mut().flat_map(|run| run.asked.values_mut()) {
        asked
            .questions
            .retain(|question| !gone.contains(&question.id));
        asked.unjudged.clear();
        // It was the figure of more questions.
        asked.headline = None;
    }
    notes
}

/// The first few, and how many more there are.
fn some_of(items: &[String], between: &str) -> String {
    let shown = items.get(..SHOWN).unwrap_or(items).join(between);
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}{between}and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table_of;
    use super::super::tests::run;
    use super::*;
    use crate::scorer::Protocol;

    #[track_caller]
    fn refused(first: &RunScores, second: RunScores, parts: &[&str]) {
        let error = table_of(vec![first.clone(), second])
            .unwrap_err()
            .to_string();
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in `{error}`");
        }
    }

    #[test]
    fn other_questions_are_refused() {
        let first = run("a", &[("1", 1.0)], &[("1", 1.0)]);
        let other = run("b", &[("2", 1.0)], &[("2", 1.0)]);
        refused(
            &first,
            other,
            &[
                "`runs/b`",
                "with 0 in common (only here: `2`; only there: `1`)",
            ],
        );
        let unfinished = run("b", &[("1", 1.0)], &[]);
        refused(
            &first,
            unfinished,
            &["1 questions for `on` and 0 for `off`"],
        );
        let twice = run("b", &[("1", 1.0), ("1", 1.0)], &[("1", 1.0)]);
        let error = table_of(vec![twice]).unwrap_err();
        assert!(matches!(error, AnalysisError::DuplicateQuestion { .. }));
        assert!(matches!(
            table_of(vec![first.clone(), first]),
            Err(AnalysisError::Conflict { .. })
        ));
    }

    /// The same ids: another answer, another picture, other words.
    #[test]
    fn the_same_id_must_be_the_same_question() {
        let first = run("a", &[("1", 1.0), ("2", 1.0)], &[("1", 1.0), ("2", 0.0)]);
        let changed = |change: fn(&mut QuestionFacts)| {
            let mut other = RunScores {
                run: "runs/b".into(),
                model: "b".into(),
                ..first.clone()
            };
            change(other.facts.get_mut("2").unwrap());
            other
        };
        refused(
            &first,
            changed(|facts| facts.answer = "no".into()),
            &[
                "1 of 2 questions of Quiz",
                "`2` has the answer `no` here and `yes` there",
            ],
        );
        refused(
            &first,
            changed(|facts| facts.picture = None),
            &["`2` is about another picture"],
        );
        refused(
            &first,
            changed(|facts| facts.prompt = "x".into()),
            &["`2` is asked in other words"],
        );
        assert!(table_of(vec![first.clone(), changed(|_| ())]).is_ok());
    }

    #[test]
    fn other_rules_are_refused_and_other_data_is_listed() {
        let scores: &[(&str, f64)] = &[("1", 1.0)];
        let first = run("a", scores, scores);
        let mut other = run("b", scores, scores);
        other.protocol = Some(Protocol::Reference);
        refused(&first, other, &["reference protocol", "the standard one"]);
        let mut other = run("b", scores, scores);
        other.stamps.insert("scorer".into(), "t".into());
        refused(&first, other, &["judged by t", "`runs/a` by s"]);
        let mut other = run("b", scores, scores);
        other.stamps.insert("data".into(), "e".repeat(64));
        let table = table_of(vec![first, other]).unwrap();
        assert_eq!(
            table.cautions,
            ["Quiz: data differs: d in `runs/a`; eeeeeeeeeeee in `runs/b`"]
        );
    }

    /// What one run has no judgement of counts for none; who has none at all is left out.
    #[test]
    fn unjudged_answers_are_listed() {
        let first = run("a", &[("1", 1.0), ("2", 0.0)], &[("1", 1.0), ("2", 0.0)]);
        let mut second = run("b", &[("1", 0.0)], &[("1", 1.0), ("2", 0.0)]);
        second.asked.get_mut(&Vision::On).unwrap().unjudged = vec!["2".into()];
        let mut third = run("c", &[], &[]);
        for asked in third.asked.values_mut() {
            asked.unjudged = vec!["1".into(), "2".into()];
        }
        let table = table_of(vec![first, second, third]).unwrap();
        assert_eq!(
            (table.score(0, 0), table.score(1, 0)),
            (Some(100.0), Some(0.0))
        );
        assert_eq!(table.models.len(), 2);
        assert_eq!(table.benchmarks[0].questions, Some(1));
        assert_eq!(table.notes.len(), 2);
        assert!(
            table.notes[0].contains("none of its answers"),
            "{:?}",
            table.notes
        );
        assert!(
            table.notes[1].contains("1 questions of Quiz"),
            "{:?}",
            table.notes
        );
    }
}
