//! Filters of texts: leakage, form, and what is there already.

use std::collections::HashSet;

use opabinia_data::{PictureFolder, SampleFile};
use opabinia_image::{ImageSource, dhash, load};
use sha2::{Digest, Sha256};

use crate::error::EngineError;
use crate::picture::limits;
use crate::plan::{FiltersTable, Plan};

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
    let lower = question.to_lowercase();
    if let Some(found) = table
        .forbidden
        .iter()
        .find(|word| lower.contains(&word.to_lowercase()))
    {
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

/// Identifies a question with its answer.
pub(crate) fn text_key(question: &str, answer: &str) -> [u8; 32] {
    let question = question.replace("<image>", " ");
    Sha256::digest(format!(
        "{}\n{}",
        words(&question).join(" "),
        words(answer).join(" ")
    ))
    .into()
}

/// What is in other pools.
#[derive(Default)]
pub(crate) struct Known {
    pub texts: HashSet<[u8; 32]>,
    pub hashes: Vec<u64>,
    /// Samples or pictures that could not be read.
    pub unread: u64,
}

impl Known {
    pub(crate) fn read(plan: &Plan) -> Result<Self, EngineError> {
        let mut known = Self::default();
        let folder = plan.filters.pool_pictures.as_ref();
        let folder = folder
            .map(|root| PictureFolder::open(root, limits(&plan.pictures)))
            .transpose()?;
        for path in &plan.filters.pools {
            let file = SampleFile::open(path)?;
            let mut seen = HashSet::new();
            for i in 0..file.len() {
                let Ok(sample) = file.sample(i) else {
                    known.unread += 1;
                    continue;
                };
                for pair in sample.turns.chunks_exact(2) {
                    known.texts.insert(text_key(&pair[0].text, &pair[1].text));
                }
                let (Some(folder), Some(image)) = (&folder, &sample.image) else {
                    continue;
                };
                if !seen.insert(image.clone()) {
                    continue;
                }
                let found = folder.find(&sample).ok().flatten();
                match found.map(|path| load(&ImageSource::File(path), &limits(&plan.pictures))) {
                    Some(Ok(picture)) => known.hashes.push(dhash(&picture)),
                    _ => known.unread += 1,
                }
            }
        }
        Ok(known)
    }
}

/// The first hash that differs in so few bits.
pub(crate) fn near(hashes: &[u64], hash: u64, bits: u32) -> bool {
    hashes
        .iter()
        .any(|known| (known ^ hash).count_ones() <= bits)
}

#[cfg(test)]
mod tests {
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
            text_key("<image>\nWhat is IT?", "a cell."),
            text_key("what is it", "A cell")
        );
        assert!(near(&[0b1000], 0b1011, 2) && !near(&[0b1000], 0b0111, 2));
    }
}
