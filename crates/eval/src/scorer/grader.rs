//! What a model is asked that grades answers, and what its reply says.
//!
//! Three benchmarks leave judging to a model: MM-Vet wants a grade from 0.0 to 1.0, the paper's
//! ablation of fuzzy matching a CORRECT or INCORRECT (Cambrian-1, arXiv 2406.16860, table 24), and
//! MathVista a short answer out of a long one, which is then compared by rule. Here are the words;
//! who asks whom is not this module's business. A reply that says nothing clear is `None`: it is to be
//! asked for again or reported, never a zero. Numbers of one wording do not compare with those of
//! another, so a wording that changes is another scorer.

use serde::{Deserialize, Serialize};

use super::gold::{Gold, Judgement};

/// What a model is asked to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grader {
    /// Grade it from 0.0 to 1.0; `<AND>` and `<OR>` join right answers (MM-Vet).
    Score,
    /// Say whether it is right; numbers may be off by 5%.
    Verdict,
    /// Shorten it to what is to be compared (MathVista).
    Extraction,
}

/// What a reply says.
#[derive(Clone, Debug, PartialEq)]
pub enum Grade {
    /// From 0, wrong, to 1, right.
    Score(f64),
    /// The short answer, which a scorer judges in place of the long one.
    Answer(String),
}

impl Grader {
    /// The message to the grading model. `question` is what the judged model was asked.
    #[must_use]
    pub fn prompt(self, question: &str, gold: &Gold, prediction: &str) -> String {
        let right = right_answer(gold);
        let (task, examples) = match self {
            Self::Score => (SCORE, cases(&SCORED, "Grade")),
            Self::Verdict => (VERDICT, cases(&VERDICTS, "Verdict")),
            Self::Extraction => (EXTRACTION, extractions()),
        };
        let question = question.trim();
        let prediction = prediction.trim();
        let case = match self {
            Self::Score => case(question, &right, prediction, "Grade"),
            Self::Verdict => case(question, &right, prediction, "Verdict"),
            Self::Extraction => extraction(question, &options(gold), prediction),
        };
        format!("{task}\n\n{examples}{case}")
    }

    /// What the grading model's reply says, if it says something clear.
    #[must_use]
    pub fn parse(self, reply: &str) -> Option<Grade> {
        match self {
            Self::Score => score(reply).map(Grade::Score),
            Self::Verdict => verdict(reply).map(|right| Grade::Score(f64::from(u8::from(right)))),
            Self::Extraction => answer(reply).map(Grade::Answer),
        }
    }
}

/// Stands for a judgement that only a grader can make.
pub(super) fn ungraded(prediction: &str, gold: &Gold) -> Judgement {
    Judgement::unparsed(prediction, right_answer(gold))
}

/// The right answers; several accepted ones as MM-Vet joins them.
fn right_answer(gold: &Gold) -> String {
    if gold.answers.is_empty() {
        return gold.right_text().unwrap_or_default().to_owned();
    }
    gold.answers.join(" <OR> ")
}

const SCORE: &str = "\
Grade how far an answer to a question about a picture agrees with the right answer. You do not see \
the picture; the right answer is all there is to know about it.

Where the right answer consists of parts joined by <AND>, every part must be in the answer, and each \
missing or wrong part costs its share of the grade. Where parts are joined by <OR>, one of them is \
enough. Wording does not matter, only what is said.

Reply with the grade alone: 0.0 (nothing is right), 0.1, 0.2, … or 1.0 (all is right).";

/// Question, right answer, answer, grade.
const SCORED: [[&str; 4]; 6] = [
    [
        "What number is on the player's shirt?",
        "17",
        "The shirt has the number 71.",
        "0.0",
    ],
    [
        "What number is on the player's shirt?",
        "17",
        "It says seventeen.",
        "1.0",
    ],
    [
        "Which fruits are on the table?",
        "apple <AND> pear <AND> plum <AND> fig <AND> grapes",
        "I can see an apple, a pear and some grapes.",
        "0.6",
    ],
    [
        "Which fruits are on the table?",
        "apple <AND> pear <AND> plum <AND> fig <AND> grapes",
        "There is fruit on the table, such as figs.",
        "0.2",
    ],
    [
        "What is parked in front of the house?",
        "a van <OR> a delivery van",
        "A white delivery van.",
        "1.0",
    ],
    [
        "Why do the people in the cartoon laugh?",
        "The dog drives the car while its owner sits in the back",
        "A dog is in the car with its owner.",
        "0.4",
    ],
];

const VERDICT: &str = "\
Say whether an answer to a question about a picture is right. You do not see the picture; the right \
answer is all there is to know about it. A quantity is right if it is off by no more than 0.05 of the \
right one; names, and years and other numbers that name something, must be the same. Wording, spelling \
and units that go without saying do not matter.

Reply with one word: CORRECT or INCORRECT.";

/// Question, right answer, answer, verdict.
const VERDICTS: [[&str; 4]; 6] = [
    [
        "How many of the bars are above the line?",
        "29",
        "25",
        "INCORRECT",
    ],
    [
        "What was the share in the first year?",
        "80",
        "80",
        "CORRECT",
    ],
    [
        "Is the blue line above the red one?",
        "Yes",
        "Yes",
        "CORRECT",
    ],
    [
        "Which country has the smallest bar?",
        "Italy",
        "Ireland",
        "INCORRECT",
    ],
    ["Which country is first in the list?", "UK", "UK", "CORRECT"],
    ["In which year is the peak?", "2011", "2019", "INCORRECT"],
];

const EXTRACTION: &str = "\
Find the final answer in a response to a question, and write it as the question asks for it: the \
letter of an option, a number without its unit, a list, a word. Do not answer the question yourself, \
and do not correct the response. If the response has no final answer, write NONE.

Reply with the final answer alone.";

/// Question, response, final answer.
const EXTRACTIONS: [[&str; 3]; 4] = [
    [
        "How many metres does the car travel? Give a whole number.",
        "It travels for 3 s at 4 m/s, which makes 12 m in all.",
        "12",
    ],
    [
        "Which line is longest?\n(A) red (B) blue (C) both are equal",
        "Comparing the two, the blue line is clearly longer.",
        "B",
    ],
    [
        "Between which two values do the points lie?",
        "All points lie between 2 and 5, so the answer is [2, 5].",
        "[2, 5]",
    ],
    [
        "What is the angle at the top?",
        "To find the angle, one needs to know the other two.",
        "NONE",
    ],
];

fn cases(examples: &[[&str; 4]], label: &str) -> String {
    let examples = examples.iter().map(|[question, right, answer, reply]| {
        format!("{} {reply}\n\n", case(question, right, answer, label))
    });
    examples.collect()
}

fn case(question: &str, right: &str, answer: &str, label: &str) -> String {
    format!("Question: {question}\nRight answer: {right}\nAnswer: {answer}\n{label}:")
}

fn extractions() -> String {
    let examples = EXTRACTIONS.iter().map(|[question, response, answer]| {
        format!("{} {answer}\n\n", extraction(question, "", response))
    });
    examples.collect()
}

fn extraction(question: &str, options: &str, response: &str) -> String {
    format!("Question: {question}{options}\nResponse: {response}\nFinal answer:")
}

/// The options with their letters, where there are some.
fn options(gold: &Gold) -> String {
    let options = gold.letters().zip(&gold.options);
    let lines = options.map(|(letter, text)| format!("\n({letter}) {text}"));
    lines.collect()
}

/// The one number of a reply, or the one behind its last mention of a grade or score.
fn score(reply: &str) -> Option<f64> {
    let lowered = reply.to_lowercase();
    let named = ["grade", "score"]
        .iter()
        .filter_map(|word| lowered.rfind(word))
        .max();
    let text = &lowered[named.unwrap_or(0)..];
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, ':' | '=' | ','));
    let bare = words.map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()));
    let mut numbers = bare.filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let number: f64 = numbers.next()?.parse().ok()?;
    let alone = numbers.next().is_none();
    (alone && (0.0..=1.0).contains(&number)).then_some(number)
}

/// Whether a reply says CORRECT, and not INCORRECT.
fn verdict(reply: &str) -> Option<bool> {
    let upper = reply.to_uppercase();
    let words = upper
        .split(|c: char| !c.is_alphabetic())
        .filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    let negated = words.windows(2).any(|pair| pair == ["NOT", "CORRECT"]);
    let incorrect = negated || words.contains(&"INCORRECT");
    let correct = !negated && words.contains(&"CORRECT");
    match (correct, incorrect) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

/// The last line that says something, without the label.
fn answer(reply: &str) -> Option<String> {
    const LABEL: &str = "final answer:";
    let mut lines = reply.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.next_back()?;
    let labelled = line.to_ascii_lowercase().rfind(LABEL);
    let text = labelled.map_or(line, |place| &line[place + LABEL.len()..]);
    let text = text.trim().trim_matches(['*', '`']).trim();
    (!text.is_empty() && text != "NONE").then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prompts_hold_the_case_at_the_end() {
        let gold = Gold::text("apple <AND> pear");
        let prompt = Grader::Score.prompt("What is there?\n", &gold, " a pear ");
        assert!(prompt.ends_with(
            "Question: What is there?\nRight answer: apple <AND> pear\nAnswer: a pear\nGrade:"
        ));
        assert_eq!(prompt.matches("\nGrade: ").count(), SCORED.len());
        let verdict = Grader::Verdict.prompt("How many?", &Gold::text("4"), "five");
        assert!(verdict.ends_with("Right answer: 4\nAnswer: five\nVerdict:"));
        let options = Gold::option(0, &["red", "blue"]);
        let extraction = Grader::Extraction.prompt("Which?", &options, "I think red.");
        assert!(extraction.ends_with(
            "Question: Which?\n(A) red\n(B) blue\nResponse: I think red.\nFinal answer:"
        ));
        assert!(!extraction.contains("Right answer"), "it is not to know");
    }

    #[test]
    fn examples_obey_the_rules() {
        for [_, _, _, reply] in SCORED {
            assert!(score(reply).is_some(), "`{reply}`");
        }
        for [_, _, _, reply] in VERDICTS {
            assert!(verdict(reply).is_some(), "`{reply}`");
        }
    }

    #[test]
    fn grades() {
        let cases = [
            ("0.5", Some(0.5)),
            ("**1.0**", Some(1.0)),
            ("Grade: 0.8.", Some(0.8)),
            ("All 3 parts are there, so the score is 1", Some(1.0)),
            ("0", Some(0.0)),
            ("7", None),
            ("0.5 or 0.6", None),
            ("8/10", None),
            ("half", None),
            ("", None),
        ];
        for (reply, grade) in cases {
            assert_eq!(score(reply), grade, "`{reply}`");
        }
    }

    #[test]
    fn verdicts() {
        let cases = [
            ("CORRECT", Some(true)),
            ("Incorrect.", Some(false)),
            ("This is not correct.", Some(false)),
            ("Verdict: **CORRECT**", Some(true)),
            ("CORRECT or INCORRECT", None),
            ("I cannot say", None),
        ];
        for (reply, right) in cases {
            assert_eq!(verdict(reply), right, "`{reply}`");
        }
    }

    #[test]
    fn answers() {
        let cases = [
            ("12", Some("12")),
            ("Let me see.\nFinal answer: **B**\n", Some("B")),
            ("İ final answer: İx", Some("İx")),
            ("NONE", None),
            ("Final answer:", None),
            (" \n", None),
        ];
        for (reply, text) in cases {
            assert_eq!(answer(reply).as_deref(), text, "`{reply}`");
        }
        let grade = Grader::Extraction.parse("7.5");
        assert_eq!(grade, Some(Grade::Answer("7.5".to_owned())));
    }

    proptest! {
        #[test]
        fn any_reply_is_parsed(reply in "([a-zİ0-9. :]|score|final answer:|\n){0,12}") {
            for grader in [Grader::Score, Grader::Verdict, Grader::Extraction] {
                if let Some(Grade::Score(score)) = grader.parse(&reply) {
                    prop_assert!((0.0..=1.0).contains(&score));
                }
            }
        }
    }
}
