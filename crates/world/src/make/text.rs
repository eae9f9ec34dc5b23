//! Samples without a picture: facts, small sums, and conversations about a picture in words.
//!
//! The decoder learns the world's language from them before it ever sees a picture, and keeps it
//! while it learns to see: a mixture without text samples makes a language model forget (the
//! reference's mixture has 24 % of them).

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::caption;
use crate::conversation::{Forms, SHORT_PROMPT, Sample, exchanges};
use crate::knowledge::{Fact, facts};
use crate::question::wording::{capital, number, phrase, with_article, yes_no};
use crate::question::{Question, Task, several};
use crate::truth::Truth;

/// Sample number `index` of a file of text.
pub(super) fn sample(index: usize, forms: &Forms, random: &mut ChaCha8Rng) -> Sample {
    let (category, exchanges) = match index % 5 {
        0 | 1 => ("knowledge", quiz(index, forms, random)),
        2 => ("language", lecture(random)),
        3 => ("language", sums(random)),
        _ => ("language", small_talk(random)),
    };
    Sample::new(
        format!("text-{index:06}"),
        None,
        "world/text",
        category,
        exchanges,
    )
}

/// Questions about facts. The first goes through all facts in turn, so that none is left out.
fn quiz(index: usize, forms: &Forms, random: &mut ChaCha8Rng) -> Vec<(String, String)> {
    let turn = index / 5 * 2 + index % 5;
    let first = facts().get(turn % facts().len().max(1));
    let more = random.random_range(0..4);
    let others = facts()
        .choose_multiple(random, more)
        .filter(|fact| Some(*fact) != first);
    let asked: Vec<&Fact> = first.into_iter().chain(others).collect();
    let asked: Vec<_> = asked.into_iter().map(|fact| fact.ask(random)).collect();
    exchanges(&asked, forms.draw(random))
}

/// A few facts about one topic.
fn lecture(random: &mut ChaCha8Rng) -> Vec<(String, String)> {
    let Some(topic) = facts().choose(random).map(|fact| fact.topic.as_str()) else {
        return Vec::new();
    };
    let about: Vec<&Fact> = facts().iter().filter(|fact| fact.topic == topic).collect();
    let count = random.random_range(1..=4);
    let said: Vec<&str> = about
        .choose_multiple(random, count)
        .filter_map(|fact| fact.statements.choose(random))
        .map(String::as_str)
        .collect();
    let templates = [
        "Tell me something about {t}.",
        "What do you know about {t}?",
        "Teach me about {t}.",
        "Say something true about {t}.",
    ];
    let asked = phrase(&templates, &[("t", topic)], random);
    vec![(asked, said.join(" "))]
}

/// Small numbers: sums, order, comparison, spelling.
fn sums(random: &mut ChaCha8Rng) -> Vec<(String, String)> {
    let count = random.random_range(1..=4);
    (0..count)
        .map(|_| {
            let (asked, short, sentence) = sum(random);
            if random.random_bool(0.5) {
                (format!("{asked}\n{SHORT_PROMPT}"), short)
            } else {
                (asked, sentence)
            }
        })
        .collect()
}

/// A question, its short answer and its answer in a sentence.
fn sum(random: &mut ChaCha8Rng) -> (String, String, String) {
    let a = random.random_range(0..=20u32);
    let b = random.random_range(0..=20u32);
    match random.random_range(0..6) {
        0 => {
            let total = a + b;
            let text = format!("{a} plus {b} is {total}.");
            (format!("What is {a} plus {b}?"), total.to_string(), text)
        }
        1 => {
            let (more, less) = (a.max(b), a.min(b));
            let rest = more - less;
            let text = format!("{more} minus {less} is {rest}.");
            (
                format!("What is {more} minus {less}?"),
                rest.to_string(),
                text,
            )
        }
        2 => {
            let text = format!("{} comes after {a}.", a + 1);
            (
                format!("Which number comes after {a}?"),
                (a + 1).to_string(),
                text,
            )
        }
        3 if a != b => {
            let larger = a.max(b);
            let text = format!("{larger} is larger than {}.", a.min(b));
            (
                format!("Which number is larger, {a} or {b}?"),
                larger.to_string(),
                text,
            )
        }
        4 if a != b => {
            let asked = format!("Is {a} larger than {b}?");
            let word = if a > b { "larger" } else { "smaller" };
            let text = format!("{}, {a} is {word} than {b}.", capital(yes_no(a > b)));
            (asked, yes_no(a > b).to_owned(), text)
        }
        _ => {
            let small = random.random_range(0..=12usize);
            let word = number(small);
            let text = format!("The number {small} in words is {word}.");
            (format!("How do you write {small} in words?"), word, text)
        }
    }
}

/// What people say before and after their questions.
const SMALL_TALK: [(&str, &str); 14] = [
    ("Hello!", "Hello! Show me a picture and ask me about it."),
    (
        "Hi, who are you?",
        "I am a small model that looks at pictures and answers questions about them.",
    ),
    (
        "What can you do?",
        "I can tell you what is in a picture, count things, say where they are, and read words, tables and charts.",
    ),
    ("Can you see?", "Yes, if you give me a picture."),
    (
        "Which shapes do you know?",
        "I know balls, cubes, cylinders, cones, pyramids and rings.",
    ),
    (
        "Which colors do you know?",
        "I know red, green, blue, yellow, orange, purple, cyan and gray.",
    ),
    ("Which materials do you know?", "I know rubber and metal."),
    (
        "Can you read?",
        "Yes, I can read words, lines, labels, tables and charts.",
    ),
    (
        "Can you count?",
        "Yes, I can count a few things in a picture.",
    ),
    ("Thank you!", "You are welcome!"),
    ("Thanks, that helps.", "I am glad to help."),
    ("Goodbye!", "Goodbye!"),
    ("Are you a person?", "No, I am a program."),
    ("How are you?", "I am fine. What would you like to know?"),
];

fn small_talk(random: &mut ChaCha8Rng) -> Vec<(String, String)> {
    let mut talk: Vec<(String, String)> = SMALL_TALK
        .choose_multiple(random, 2)
        .map(|&(asked, said)| (asked.to_owned(), said.to_owned()))
        .collect();
    if random.random_bool(0.5) {
        talk.extend(facts().choose(random).map(|fact| {
            let question = fact.ask(random);
            (question.text, question.sentence)
        }));
    }
    talk.shuffle(random);
    talk
}

/// A picture in words, and questions that the words answer.
pub(super) fn described(
    id: String,
    truth: &Truth,
    turns: usize,
    forms: &Forms,
    random: &mut ChaCha8Rng,
) -> Option<Sample> {
    let measured = random.random_bool(0.75);
    let words = match truth {
        Truth::Scene(scene) if measured && !scene.close_up => caption::measured(scene),
        Truth::Scene(scene) => caption::dense(scene),
        other => caption::caption(other, random),
    };
    let templates = [
        "Here is a description of a picture. {x}",
        "A picture is described like this: {x}",
        "Imagine {a}. {x}",
        "Read about a picture, then answer. {x}",
    ];
    let values = [("x", words), ("a", with_article("picture"))];
    let opening = phrase(&templates, &values, random);
    let questions = several(truth, turns, random);
    let questions: Vec<Question> = questions
        .into_iter()
        .filter(|question| is_said(question.task, truth, measured))
        .collect();
    let mut said = exchanges(&questions, forms.draw(random));
    let (first, _) = said.first_mut()?;
    *first = format!("{opening}\n{first}");
    Some(Sample::new(id, None, "world/described", "language", said))
}

/// Whether a caption tells what a task asks for.
fn is_said(task: Task, truth: &Truth, measured: bool) -> bool {
    match task {
        // Said only by thirds of the picture, unless it is measured.
        Task::Spatial | Task::Depth | Task::Place => measured,
        // Needs places in space.
        Task::Distance => false,
        // Said in some captions only.
        Task::BarColour | Task::PieColour => false,
        Task::PieExtreme | Task::PieCompare => {
            matches!(truth, Truth::Chart(chart) if chart.written)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::picture::{PictureOptions, Subject, draw};
    use crate::question::refer::Description;
    use crate::stream::stream;

    fn samples(count: usize) -> Vec<Sample> {
        let forms = Forms::default();
        let one = |index| sample(index, &forms, &mut stream(9, "text", index as u64));
        (0..count).map(one).collect()
    }

    #[test]
    fn every_fact_is_asked_for() {
        let rounds = 5 * facts().len().div_ceil(2);
        let asked: BTreeSet<String> = samples(rounds)
            .iter()
            .flat_map(|sample| sample.conversations.iter().step_by(2))
            .filter_map(|turn| turn.value.lines().next().map(str::to_owned))
            .collect();
        for fact in facts() {
            let found = fact
                .questions
                .iter()
                .any(|question| asked.contains(question));
            assert!(found, "{}", fact.id);
        }
    }

    /// Sums are worked out once more from their sentences: `3 plus 4 is 7.`
    #[test]
    fn sums_are_right() {
        let random = &mut stream(2, "test", 0);
        let mut checked = 0;
        for _ in 0..500 {
            let (asked, short, sentence) = sum(random);
            let words: Vec<&str> = sentence.trim_end_matches('.').split(' ').collect();
            let number = |word: &str| word.parse::<i64>().unwrap();
            match words.as_slice() {
                [a, "plus", b, "is", c] => assert_eq!(number(a) + number(b), number(c)),
                [a, "minus", b, "is", c] => assert_eq!(number(a) - number(b), number(c)),
                [a, "comes", "after", b] => assert_eq!(number(a), number(b) + 1),
                [a, "is", "larger", "than", b] => assert!(number(a) > number(b)),
                [yes, a, "is", "larger", "than", b] => {
                    assert_eq!(*yes, "Yes,");
                    assert!(number(a) > number(b));
                }
                [no, a, "is", "smaller", "than", b] => {
                    assert_eq!(*no, "No,");
                    assert!(number(a) < number(b));
                }
                ["The", "number", ..] => continue,
                _ => panic!("{asked} {short} {sentence}"),
            }
            checked += 1;
            assert!(
                sentence.to_lowercase().contains(&short),
                "{asked} {short} {sentence}"
            );
        }
        assert!(checked > 300);
    }

    #[test]
    fn samples_without_a_picture_have_none() {
        for sample in samples(50) {
            assert_eq!(sample.image, None);
            assert!(sample.conversations.len() >= 2);
            assert!(
                sample
                    .conversations
                    .iter()
                    .all(|turn| !turn.value.contains("<image>"))
            );
        }
    }

    /// The words in front of the questions name what the truth has.
    #[test]
    fn a_described_scene_says_every_object_and_asks_only_for_places_that_are_said() {
        let options = PictureOptions {
            side: 64,
            ..PictureOptions::default()
        };
        for seed in 0..30 {
            let truth = draw(seed, Subject::Scene, &options).truth;
            let random = &mut stream(seed, "test", 0);
            let forms = Forms::default();
            let Some(sample) = described("id".to_owned(), &truth, 8, &forms, random) else {
                continue;
            };
            let first = &sample.conversations[0].value;
            let Truth::Scene(scene) = &truth else {
                panic!("asked for scenes")
            };
            for object in &scene.objects {
                let name = Description::of(object, caption::everything(scene)).singular();
                assert!(first.contains(&name), "{name} in {first}");
            }
            let measured = first.contains(caption::MEASURED);
            for turn in sample.conversations.iter().skip(2).step_by(2) {
                assert!(
                    !turn.value.contains("closer to the") || turn.value.contains("camera"),
                    "{turn:?}"
                );
                assert!(
                    measured || !turn.value.contains("camera") && !turn.value.contains("closer"),
                    "{turn:?}"
                );
            }
        }
    }
}
