//! Questions as conversations: the lines of an instruction file.
//!
//! A model that is trained on short answers alone answers everything in one word, the "answer
//! machine" of Cambrian-1 (arXiv 2406.16860, section 4.2). The cure is to say in the question which
//! answer is wanted: a question in [`Form::Short`] or [`Form::Letter`] carries a format prompt on a
//! line of its own, and one in [`Form::Sentence`] carries none and is answered in a sentence.
//!
//! A conversation keeps its form ([`exchanges`]). The prompt for short answers is said once and holds
//! until the end: most of a conversation would be this one sentence otherwise.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::question::Question;

/// Asks for a short answer; prompt 1 of the reference's data.
pub const SHORT_PROMPT: &str = "Answer the question using a single word or phrase.";
/// Asks for a letter; prompt 3 of the reference's data.
pub const LETTER_PROMPT: &str = "Answer with the option's letter from the given choices directly.";
/// Stands for the picture in a prompt.
pub const PLACEHOLDER: &str = "<image>";

/// How a question is asked and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A word or a phrase.
    Short,
    /// The letter of an option; as [`Short`](Self::Short) where a question offers none.
    Letter,
    /// A full sentence.
    Sentence,
}

/// One utterance, with the names of the LLaVA format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// `human` or `gpt`.
    pub from: String,
    /// What is said.
    pub value: String,
}

/// One line of an instruction file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Unique within the file.
    pub id: String,
    /// Path of the picture, relative to the folder of the file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<String>,
    /// Which part of the world it comes from.
    pub source: String,
    /// Group of questions, for balancing.
    pub category: String,
    /// Human and machine in turns, the human first.
    pub conversations: Vec<Turn>,
}

impl Sample {
    /// A conversation of questions and answers. With a picture, the placeholder comes first.
    pub fn new(
        id: String,
        image: Option<String>,
        source: &str,
        category: &str,
        exchanges: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut conversations = Vec::new();
        for (asked, answered) in exchanges {
            let value = if image.is_some() && conversations.is_empty() {
                format!("{PLACEHOLDER}\n{asked}")
            } else {
                asked
            };
            conversations.push(Turn {
                from: "human".to_owned(),
                value,
            });
            conversations.push(Turn {
                from: "gpt".to_owned(),
                value: answered,
            });
        }
        Self {
            id,
            image,
            source: source.to_owned(),
            category: category.to_owned(),
            conversations,
        }
    }
}

/// The questions of one conversation, in one form, and their answers. What asks for short answers is
/// said with the first question alone.
pub fn exchanges(questions: &[Question], form: Form) -> Vec<(String, String)> {
    let mut said = false;
    let in_form = |question: &Question| {
        if form == Form::Sentence || (form == Form::Letter && question.choices.is_some()) {
            return exchange(question, form);
        }
        if std::mem::replace(&mut said, true) {
            return (question.text.clone(), question.answer.clone());
        }
        exchange(question, Form::Short)
    };
    questions.iter().map(in_form).collect()
}

/// A question as it is asked, and its answer, in a form.
pub fn exchange(question: &Question, form: Form) -> (String, String) {
    match (form, &question.choices) {
        (Form::Sentence, _) => (question.text.clone(), question.sentence.clone()),
        (Form::Letter, Some(choices)) => letters(question, choices),
        _ => (
            format!("{}\n{SHORT_PROMPT}", question.text),
            question.answer.clone(),
        ),
    }
}

/// With options: `(A) left (B) right`.
fn letters(question: &Question, choices: &[String]) -> (String, String) {
    let lettered = || choices.iter().zip('A'..='Z');
    let options: Vec<String> = lettered()
        .map(|(choice, letter)| format!("({letter}) {choice}"))
        .collect();
    let answer = lettered()
        .find(|(choice, _)| **choice == question.answer)
        .map_or_else(|| question.answer.clone(), |(_, letter)| letter.to_string());
    let asked = format!("{}\n{}\n{LETTER_PROMPT}", question.text, options.join(" "));
    (asked, answer)
}

/// Shares of the forms among the conversations of a file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forms {
    /// Share of conversations whose questions are answered in sentences.
    pub sentences: f64,
    /// Share of the others that are answered by a letter, where there are options.
    pub letters: f64,
}

impl Default for Forms {
    fn default() -> Self {
        Self {
            sentences: 0.3,
            letters: 0.15,
        }
    }
}

impl Forms {
    /// The form of one conversation.
    pub fn draw(&self, random: &mut ChaCha8Rng) -> Form {
        if random.random_bool(self.sentences.clamp(0.0, 1.0)) {
            Form::Sentence
        } else if random.random_bool(self.letters.clamp(0.0, 1.0)) {
            Form::Letter
        } else {
            Form::Short
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{Group, Task};

    fn question() -> Question {
        Question {
            id: "spatial".to_owned(),
            group: Group::VisionCentric,
            task: Task::Spatial,
            text: "Is the ball left or right of the cube?".to_owned(),
            choices: Some(vec!["right".to_owned(), "left".to_owned()]),
            answer: "left".to_owned(),
            sentence: "The ball is to the left of the cube.".to_owned(),
            chance: 0.5,
        }
    }

    #[test]
    fn each_form_has_its_prompt_and_answer() {
        let (asked, answer) = exchange(&question(), Form::Short);
        assert_eq!(
            asked,
            "Is the ball left or right of the cube?\n\
             Answer the question using a single word or phrase."
        );
        assert_eq!(answer, "left");
        let (asked, answer) = exchange(&question(), Form::Letter);
        assert_eq!(
            asked,
            "Is the ball left or right of the cube?\n(A) right (B) left\n\
             Answer with the option's letter from the given choices directly."
        );
        assert_eq!(answer, "B");
        let (asked, answer) = exchange(&question(), Form::Sentence);
        assert_eq!(asked, "Is the ball left or right of the cube?");
        assert_eq!(answer, "The ball is to the left of the cube.");
    }

    #[test]
    fn short_answers_are_asked_for_once() {
        let questions = [question(), question()];
        let [first, second] = &exchanges(&questions, Form::Short)[..] else {
            panic!("two questions")
        };
        assert!(first.0.ends_with(SHORT_PROMPT));
        assert_eq!(second, &(question().text, "left".to_owned()));
        let lettered = exchanges(&questions, Form::Letter);
        assert!(
            lettered
                .iter()
                .all(|(asked, _)| asked.ends_with(LETTER_PROMPT))
        );
        let said = exchanges(&questions, Form::Sentence);
        assert!(said.iter().all(|(asked, _)| !asked.contains('\n')));
    }

    #[test]
    fn a_question_without_options_is_never_asked_by_letter() {
        let open = Question {
            choices: None,
            ..question()
        };
        assert_eq!(exchange(&open, Form::Letter), exchange(&open, Form::Short));
    }

    #[test]
    fn the_placeholder_opens_the_first_turn_alone() {
        let exchanges = || [("Q1", "A1"), ("Q2", "A2")].map(|(q, a)| (q.to_owned(), a.to_owned()));
        let image = Some("images/00/000000.png".to_owned());
        let seen = Sample::new("1".to_owned(), image, "world", "general", exchanges());
        let said: Vec<&str> = seen
            .conversations
            .iter()
            .map(|turn| turn.value.as_str())
            .collect();
        assert_eq!(said, ["<image>\nQ1", "A1", "Q2", "A2"]);
        let unseen = Sample::new("1".to_owned(), None, "world", "general", exchanges());
        assert_eq!(unseen.conversations[0].value, "Q1");
        assert!(!serde_json::to_string(&unseen).unwrap().contains("image"));
    }
}
