//! Every answer once more, by somebody who reads the question and looks at the truth.
//!
//! The checker shares no code with the generators: it takes the question's words apart, finds the
//! things they name by comparing every object, and works the answer out in the plainest way.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod checker;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use checker::check;
use opabinia_world::question::{Question, Task, ask, one_of_each, several};
use opabinia_world::stream::stream;
use opabinia_world::truth::Truth;
use opabinia_world::{PictureOptions, Subject, draw};

/// Seeds per subject.
const SEEDS: u64 = 300;

/// What is true about the first pictures of each subject, drawn once for all tests.
static TRUTHS: LazyLock<BTreeMap<Subject, Vec<Truth>>> = LazyLock::new(|| {
    // Small pictures are drawn faster, and questions do not depend on the size.
    let options = PictureOptions {
        side: 64,
        ..PictureOptions::default()
    };
    let truth = |subject| move |seed| draw(seed, subject, &options).truth;
    let truths = |subject| (subject, (0..SEEDS).map(truth(subject)).collect());
    Subject::ALL.into_iter().map(truths).collect()
});

fn truth(seed: u64, subject: Subject) -> &'static Truth {
    &TRUTHS[&subject][seed as usize]
}

#[test]
fn every_answer_is_right() {
    let mut checked: BTreeMap<Task, usize> = BTreeMap::new();
    for subject in Subject::ALL {
        for seed in 0..SEEDS {
            let truth = truth(seed, subject);
            let random = &mut stream(seed, "answers", 0);
            for question in several(truth, 12, random) {
                check(truth, &question).unwrap_or_else(|problem| {
                    panic!(
                        "{} {seed}: {problem}\n{question:#?}\n{truth:#?}",
                        subject.name()
                    );
                });
                *checked.entry(question.task).or_default() += 1;
            }
        }
    }
    for task in Task::ALL
        .into_iter()
        .filter(|&task| task != Task::Knowledge)
    {
        let count = checked.get(&task).copied().unwrap_or(0);
        assert!(count >= 40, "{}: only {count} questions", task.name());
    }
}

#[test]
fn questions_are_well_formed() {
    for subject in Subject::ALL {
        for seed in 0..SEEDS {
            let questions = several(truth(seed, subject), 12, &mut stream(seed, "form", 0));
            for question in &questions {
                well_formed(question);
            }
            let mut texts: Vec<&str> = questions.iter().map(|q| q.text.as_str()).collect();
            texts.sort_unstable();
            texts.dedup();
            assert_eq!(texts.len(), questions.len(), "asked twice: {questions:#?}");
        }
    }
}

fn well_formed(question: &Question) {
    let Question {
        text,
        answer,
        sentence,
        choices,
        chance,
        ..
    } = question;
    for said in [text, sentence] {
        assert!(said.ends_with(['?', '.']), "{question:#?}");
        assert!(
            !said.contains(['{', '}', '\n']) && !said.contains("  "),
            "{question:#?}"
        );
        assert!(
            said.starts_with(|c: char| !c.is_lowercase()) || said.starts_with('"'),
            "{question:#?}"
        );
    }
    assert!(
        !answer.is_empty() && !answer.ends_with('.'),
        "{question:#?}"
    );
    assert!((0.0..=0.5).contains(chance), "{question:#?}");
    if let Some(choices) = choices {
        assert!((2..=4).contains(&choices.len()), "{question:#?}");
        assert_eq!(
            choices.iter().filter(|choice| *choice == answer).count(),
            1,
            "{question:#?}"
        );
    }
}

/// How often each answer was given to the questions of a task, over many pictures.
fn answers(
    task: Task,
    subject: Subject,
    keep: impl Fn(&Question) -> bool,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for seed in 0..SEEDS {
        let truth = truth(seed, subject);
        let random = &mut stream(seed, task.name(), 0);
        // Several per picture, for a steadier count.
        for _ in 0..4 {
            if let Some(question) = ask(task, truth, random).filter(&keep) {
                *counts.entry(question.answer).or_default() += 1;
            }
        }
    }
    counts
}

fn share(counts: &BTreeMap<String, usize>, answer: &str) -> f64 {
    let total: usize = counts.values().sum();
    assert!(total >= 100, "only {total} questions: {counts:?}");
    counts.get(answer).copied().unwrap_or(0) as f64 / total as f64
}

#[track_caller]
fn balanced(counts: &BTreeMap<String, usize>, answers: [&str; 2], tolerance: f64) {
    let (a, b) = (share(counts, answers[0]), share(counts, answers[1]));
    assert!(
        (a - b).abs() <= 2.0 * tolerance && a + b > 0.99,
        "{counts:?}"
    );
}

#[test]
fn yes_and_no_are_balanced() {
    let is_yes_no = |question: &Question| ["yes", "no"].contains(&question.answer.as_str());
    for (task, subject) in [
        (Task::Presence, Subject::Scene),
        (Task::Check, Subject::Scene),
        (Task::Spatial, Subject::Scene),
        (Task::Depth, Subject::Scene),
        (Task::WordCheck, Subject::Word),
        (Task::WordCheck, Subject::Lines),
        (Task::WordCheck, Subject::Labels),
        (Task::BarCompare, Subject::Bar),
        (Task::PieCompare, Subject::Pie),
    ] {
        let counts = answers(task, subject, is_yes_no);
        balanced(&counts, ["yes", "no"], 0.05);
    }
}

#[test]
fn two_words_to_choose_from_are_balanced() {
    let both = |question: &Question, one: &str| {
        question
            .choices
            .as_ref()
            .is_some_and(|choices| choices.iter().any(|c| c == one))
    };
    let spatial = |one: &'static str| answers(Task::Spatial, Subject::Scene, move |q| both(q, one));
    balanced(&spatial("left"), ["left", "right"], 0.05);
    balanced(&spatial("above"), ["above", "below"], 0.06);
    balanced(
        &answers(Task::Size, Subject::Scene, |_| true),
        ["small", "large"],
        0.07,
    );
    balanced(
        &answers(Task::Material, Subject::Scene, |_| true),
        ["rubber", "metal"],
        0.07,
    );
    balanced(
        &answers(Task::LineTrend, Subject::Line, |_| true),
        ["up", "down"],
        0.05,
    );
}

/// Somebody who always takes the first thing that the question names is right half of the time.
#[test]
fn the_first_option_is_no_better_than_the_second() {
    for task in [Task::Depth, Task::Distance] {
        let (mut first, mut all) = (0, 0);
        for seed in 0..SEEDS {
            let truth = truth(seed, Subject::Scene);
            let random = &mut stream(seed, task.name(), 1);
            for _ in 0..4 {
                let Some(question) = ask(task, truth, random) else {
                    continue;
                };
                let Some(choices) = question.choices else {
                    continue;
                };
                all += 1;
                first += usize::from(choices[0] == question.answer);
            }
        }
        let share = f64::from(first as u32) / f64::from(all);
        assert!(
            all > 300 && (0.45..=0.55).contains(&share),
            "{}: {share} of {all}",
            task.name()
        );
    }
}

#[test]
fn colours_and_numbers_are_spread() {
    let colours = answers(Task::Colour, Subject::Scene, |_| true);
    assert_eq!(colours.len(), 8, "{colours:?}");
    assert!(
        colours.keys().all(|colour| share(&colours, colour) > 0.07),
        "{colours:?}"
    );
    let counts = answers(Task::Count, Subject::Scene, |_| true);
    assert_eq!(
        counts.keys().collect::<Vec<_>>(),
        ["0", "1", "2", "3", "4", "5", "6"],
        "{counts:?}"
    );
    assert!(
        counts
            .keys()
            .all(|n| (0.03..0.3).contains(&share(&counts, n))),
        "{counts:?}"
    );
}

#[test]
fn the_same_stream_asks_the_same() {
    for subject in Subject::ALL {
        let truth = truth(3, subject);
        let questions = || one_of_each(truth, &mut stream(3, "same", 0));
        assert_eq!(questions(), questions());
        assert!(!questions().is_empty(), "{}", subject.name());
    }
}
