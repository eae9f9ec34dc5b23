//! What can be answered without looking: a closed set of facts about the things of the world.
//!
//! Benchmarks of knowledge measure what the language model knows, and hardly change when the picture
//! is taken away (Cambrian-1, section 3.1). These facts give the world a group of the same kind:
//! they are in the training text, with and without a picture beside them, and nothing in a picture
//! says them. They are data, in `knowledge.toml`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use crate::question::wording::fill;
use crate::question::{Question, Task, options};

/// One fact, with the ways to ask for it and to say it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Unique, such as `faces-1`.
    pub id: String,
    /// What it is about: shapes, colours, materials, charts, time, numbers, seeing.
    pub topic: String,
    /// Ways to ask.
    pub questions: Vec<String>,
    /// The answer in a word or a phrase.
    pub answer: String,
    /// The answer in a sentence.
    pub sentences: Vec<String>,
    /// The fact by itself.
    pub statements: Vec<String>,
    /// All answers that questions of this kind have, this one among them; `None` if there is one.
    pub answers: Option<Vec<String>>,
    /// Whether the answers may be offered as options.
    offers: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    family: Vec<Family>,
}

/// Facts that are asked for in the same words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    id: String,
    topic: String,
    #[serde(default)]
    choices: bool,
    questions: Vec<String>,
    sentences: Vec<String>,
    #[serde(default)]
    no_sentences: Vec<String>,
    statements: Vec<String>,
    #[serde(default)]
    no_statements: Vec<String>,
    facts: Vec<BTreeMap<String, String>>,
}

/// All facts, in the order of the file.
///
/// # Panics
/// If the embedded file is damaged: a mistake in this crate, found by its tests.
pub fn facts() -> &'static [Fact] {
    static FACTS: OnceLock<Vec<Fact>> = OnceLock::new();
    FACTS.get_or_init(|| {
        let file: File = toml::from_str(include_str!("knowledge.toml"))
            .unwrap_or_else(|error| panic!("the embedded knowledge.toml is damaged: {error}"));
        file.family.iter().flat_map(Family::facts).collect()
    })
}

/// One fact at random, as a question.
pub fn ask(random: &mut ChaCha8Rng) -> Option<Question> {
    facts().choose(random).map(|fact| fact.ask(random))
}

impl Family {
    fn facts(&self) -> impl Iterator<Item = Fact> {
        let mut answers: Vec<String> = self
            .facts
            .iter()
            .map(|fact| answer(fact).to_owned())
            .collect();
        answers.sort_unstable();
        answers.dedup();
        let answers = (answers.len() > 1).then_some(answers);
        self.facts.iter().enumerate().map(move |(index, values)| {
            let values: Vec<(&str, &String)> =
                values.iter().map(|(k, v)| (k.as_str(), v)).collect();
            let all = |templates: &[String]| -> Vec<String> {
                templates
                    .iter()
                    .map(|template| fill(template, &values))
                    .collect()
            };
            let answer = answer(&self.facts[index]).to_owned();
            // A family without words of its own for no says no in the same words.
            let no = answer == "no" && !self.no_sentences.is_empty();
            Fact {
                id: format!("{}-{}", self.id, index + 1),
                topic: self.topic.clone(),
                questions: all(&self.questions),
                sentences: all(if no {
                    &self.no_sentences
                } else {
                    &self.sentences
                }),
                statements: all(if no {
                    &self.no_statements
                } else {
                    &self.statements
                }),
                answers: answers.clone(),
                offers: self.choices,
                answer,
            }
        })
    }
}

fn answer(values: &BTreeMap<String, String>) -> &str {
    values.get("answer").map_or("", String::as_str)
}

impl Fact {
    /// Asks for the fact in one of its phrasings.
    pub fn ask(&self, random: &mut ChaCha8Rng) -> Question {
        let one = |texts: &[String], random: &mut ChaCha8Rng| {
            texts.choose(random).cloned().unwrap_or_default()
        };
        let text = one(&self.questions, random);
        let sentence = one(&self.sentences, random);
        let mut question = Question::new(Task::Knowledge, text, self.answer.as_str(), sentence);
        question.id = self.id.clone();
        let Some(answers) = &self.answers else {
            return question;
        };
        let question = question.one_of(answers.len());
        if self.offers {
            let choices = options(&self.answer, answers, 4, random);
            return question.offering(choices);
        }
        question
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn there_are_about_a_hundred_and_fifty_facts_and_no_blanks() {
        let facts = facts();
        assert!((80..=150).contains(&facts.len()), "{}", facts.len());
        let ids: BTreeSet<&str> = facts.iter().map(|fact| fact.id.as_str()).collect();
        assert_eq!(ids.len(), facts.len());
        for fact in facts {
            assert!(fact.questions.len() >= 4, "{}", fact.id);
            assert!(
                !fact.sentences.is_empty() && fact.statements.len() >= 2,
                "{}",
                fact.id
            );
            assert!(!fact.answer.is_empty(), "{}", fact.id);
            let texts = fact
                .questions
                .iter()
                .chain(&fact.sentences)
                .chain(&fact.statements);
            for text in texts {
                assert!(!text.contains(['{', '}']), "{}: {text}", fact.id);
                assert!(text.ends_with(['.', '?']), "{}: {text}", fact.id);
                assert!(
                    text.starts_with(|c: char| !c.is_lowercase()),
                    "{}: {text}",
                    fact.id
                );
            }
        }
    }

    /// No question may have two answers, whichever fact it comes from.
    #[test]
    fn a_question_has_one_answer() {
        let mut known: BTreeMap<&str, &str> = BTreeMap::new();
        for fact in facts() {
            for question in &fact.questions {
                let before = known.insert(question, &fact.answer);
                assert!(
                    before.is_none_or(|before| before == fact.answer),
                    "{question}"
                );
            }
        }
    }

    #[test]
    fn yes_and_no_are_equally_frequent() {
        let count = |word| facts().iter().filter(|fact| fact.answer == word).count();
        let (yes, no) = (count("yes"), count("no"));
        assert_eq!(yes, no);
        assert!(yes >= 20, "{yes}");
    }

    #[test]
    fn facts_read_as_they_should() {
        let fact = |id: &str| facts().iter().find(|fact| fact.id == id).unwrap();
        let cube = fact("faces-1");
        assert_eq!(cube.questions[0], "How many faces does a cube have?");
        assert_eq!(
            (cube.answer.as_str(), cube.sentences[0].as_str()),
            ("6", "A cube has six faces.")
        );
        let roll = fact("roll-3");
        assert_eq!(roll.sentences[0], "No, a cube cannot roll.");
        assert_eq!(
            roll.statements[0],
            "A cube cannot roll, because all its sides are flat."
        );
    }

    #[test]
    fn options_contain_the_answer() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        for fact in facts() {
            let question = fact.ask(&mut random);
            assert_eq!(
                (question.task, &question.answer),
                (Task::Knowledge, &fact.answer)
            );
            if let Some(choices) = &question.choices {
                assert!(choices.contains(&question.answer), "{question:?}");
                assert!((2..=4).contains(&choices.len()), "{question:?}");
            }
        }
    }
}
