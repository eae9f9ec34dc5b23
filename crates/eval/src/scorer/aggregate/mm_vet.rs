//! MM-Vet: the mean grade, and that of the questions which need a capability, or exactly a
//! combination of capabilities. A question's category lists them, as in `ocr, spat`.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{accuracies, accuracy};
use super::{Judged, Metric};

pub(super) fn metrics(judged: &[Judged<'_>]) -> Vec<Metric> {
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    let mut capabilities: BTreeMap<&str, Vec<&Judged<'_>>> = BTreeMap::new();
    let mut combinations: BTreeMap<String, Vec<&Judged<'_>>> = BTreeMap::new();
    for question in &all {
        let needed = needed(question.category.unwrap_or_default());
        for capability in &needed {
            capabilities.entry(capability).or_default().push(question);
        }
        if !needed.is_empty() {
            let combination = needed.into_iter().collect::<Vec<_>>().join("+");
            combinations.entry(combination).or_default().push(question);
        }
    }
    let mut metrics = vec![accuracy("score", &all)];
    metrics.extend(accuracies("capability", capabilities));
    metrics.extend(
        combinations
            .into_iter()
            .map(|(name, questions)| accuracy(format!("combination/{name}"), &questions)),
    );
    metrics
}

/// The capabilities, sorted.
fn needed(category: &str) -> BTreeSet<&str> {
    let words = category.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Judgement;

    #[test]
    fn capabilities_and_combinations() {
        let (most, none) = (Judgement::new(0.8, "", ""), Judgement::new(0.0, "", ""));
        let question = |category, judgement| Judged {
            id: "q",
            unit: None,
            picture: None,
            category,
            source: None,
            judgement,
        };
        let judged = [
            question(Some("ocr, spat"), &most),
            question(Some("spat,ocr"), &none),
            question(Some("ocr"), &most),
            question(None, &none),
        ];
        let metrics = metrics(&judged);
        let figures: Vec<_> = metrics
            .iter()
            .map(|m| (m.name.as_str(), m.questions))
            .collect();
        let wanted = [
            ("score", 4),
            ("capability/ocr", 3),
            ("capability/spat", 2),
            ("combination/ocr", 1),
            ("combination/ocr+spat", 2),
        ];
        assert_eq!(figures, wanted);
        assert!((metrics[0].value - 40.0).abs() < 1e-9);
        assert!((metrics[4].value - 40.0).abs() < 1e-9);
    }
}
