//! OCRBench: one point for each right answer, in five groups of categories.

use super::group::{accuracy, grouped, per_category, points, total};
use super::{Judged, Metric};

/// What the categories of text recognition, of 50 questions each, are called together.
const RECOGNITION: &str = "Text Recognition";

pub(super) fn metrics(judged: &[Judged<'_>]) -> Vec<Metric> {
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    let mut metrics = vec![
        accuracy("accuracy", &all),
        points("points", total(&all), all.len()),
    ];
    let groups = grouped(&all, |question| question.category.map(group));
    metrics.extend(groups.into_iter().map(|(name, questions)| {
        points(format!("group/{name}"), total(&questions), questions.len())
    }));
    metrics.extend(per_category(&all, |category| category));
    metrics
}

/// The group of a category; most are groups of their own.
fn group(category: &str) -> &str {
    match category {
        "Regular Text Recognition"
        | "Irregular Text Recognition"
        | "Artistic Text Recognition"
        | "Handwriting Recognition"
        | "Digit String Recognition"
        | "Non-Semantic Text Recognition" => RECOGNITION,
        alone => alone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Judgement;

    #[test]
    fn points_per_group() {
        let (right, wrong) = (Judgement::new(1.0, "", ""), Judgement::new(0.0, "", ""));
        let question = |category, judgement| Judged {
            id: "q",
            unit: None,
            picture: None,
            category: Some(category),
            source: None,
            judgement,
        };
        let judged = [
            question("Handwriting Recognition", &right),
            question("Digit String Recognition", &right),
            question("Digit String Recognition", &wrong),
            question("Doc-oriented VQA", &right),
        ];
        let metrics = metrics(&judged);
        let figures: Vec<_> = metrics.iter().map(|m| (m.name.as_str(), m.value)).collect();
        assert_eq!(
            figures[..4],
            [
                ("accuracy", 75.0),
                ("points", 3.0),
                ("group/Doc-oriented VQA", 1.0),
                ("group/Text Recognition", 2.0),
            ]
        );
        assert!(figures.contains(&("category/Digit String Recognition", 50.0)));
    }
}
