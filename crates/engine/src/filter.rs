//! Filters of texts: leakage and form.

use std::collections::HashSet;

use crate::plan::FiltersTable;

/// Words in lower case, without marks.
pub(crate) fn words(text: &str) -> Vec<String> {
    let pieces = text.split(|c: char| !c.is_alphanumeric());
    pieces
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Words that say nothing by themselves.
const COMMON: [&str; 30] = [
    "a", "an", "the", "of", "in", "on", "at", "to", "for", "and", "or", "is", "are", "was", "were",
    "it", "its", "this", "that", "these", "by", "with", "as", "from", "be", "which", "what", "has",
    "have", "their",
];

/// Why a question with its answer is dropped; `None` if it is good.
pub(crate) fn complaint(
    table: &FiltersTable,
    question: &str,
    answer: &str,
) -> Option<(&'static str, String)> {
    let (asked, said) = (words(question), words(answer));
    if asked.len() < table.min_question_words {
        return Some(("form", format!("the question has {} words", asked.len())));
    }
    if said.is_empty() || said.len() > table.max_answer_words {
        return Some(("form", format!("the answer has {} words", said.len())));
    }
    if question.contains("<image>") || answer.contains("<image>") {
        return Some(("form", "`<image>` is in the words".to_owned()));
    }
    // By whole words: "the text" is not in "the texture".
    let holds = |phrase: &[String]| {
        !phrase.is_empty() && asked.windows(phrase.len()).any(|some| some == phrase)
    };
    if let Some(found) = table.forbidden.iter().find(|phrase| holds(&words(phrase))) {
        return Some(("form", format!("the question speaks of `{found}`")));
    }
    let content: HashSet<&String> = said
        .iter()
        .filter(|word| !COMMON.contains(&word.as_str()))
        .collect();
    let held = content.iter().filter(|word| asked.contains(word)).count();
    let share = held as f64 / content.len().max(1) as f64;
    (!content.is_empty() && share > table.max_leak).then(|| {
        (
            "leak",
            format!(
                "the question holds {held} of the answer's {} words",
                content.len()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn leaks_and_bad_form_are_told_apart() {
        let table = FiltersTable::default();
        let kind = |question, answer| complaint(&table, question, answer).map(|(kind, _)| kind);
        assert_eq!(
            kind(
                "What does the yeast cell do here?",
                "It divides by budding."
            ),
            None
        );
        assert_eq!(
            kind("Is the budding yeast shown here?", "The budding yeast."),
            Some("leak")
        );
        assert_eq!(kind("What is it?", ""), Some("form"));
        assert_eq!(
            kind("According to the caption, what is it?", "A cell"),
            Some("form")
        );
        assert_eq!(
            kind(
                "Why is the texture of the rock so coarse?",
                "It cooled slowly."
            ),
            None
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(question in ".{0,60}", answer in ".{0,40}", forbidden in ".{0,8}") {
            let table = FiltersTable { forbidden: vec![forbidden], ..FiltersTable::default() };
            let _ = complaint(&table, &question, &answer);
        }

        #[test]
        fn an_answer_that_the_question_repeats_is_a_leak(answer in "[b-z]{4,8}( [b-z]{4,8}){0,4}") {
            let found = complaint(&FiltersTable::default(), &format!("Is this what {answer} means?"), &answer);
            prop_assert_eq!(found.map(|(kind, _)| kind), Some("leak"));
        }
    }
}
