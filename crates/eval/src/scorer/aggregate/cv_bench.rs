//! CV-Bench: the mean of 2D and 3D, each the mean over the collections that its pictures are from.
//!
//! Accuracy_2D = (COCO + ADE20K) / 2, Accuracy_3D = Omni3D, and the score is the mean of both
//! (Cambrian-1, section 3.3). Many harnesses print the plain mean over all questions instead; it is
//! here too, under its own name. Other collections count in the same way, by the dimension of their
//! tasks.

use super::group::{accuracies, accuracy, grouped, mean, percent};
use super::{Aggregate, Judged, Metric};
use crate::scorer::ScorerError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Dimension {
    Two,
    Three,
}

pub(super) fn metrics(judged: &[Judged<'_>]) -> Result<Vec<Metric>, ScorerError> {
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    for question in judged {
        dimension(question)?;
    }
    let parts = grouped(&all, |question| dimension(question).ok());
    let figures: Vec<Metric> = parts
        .iter()
        .map(|(dimension, questions)| {
            let name = match dimension {
                Dimension::Two => "2D",
                Dimension::Three => "3D",
            };
            percent(name, mean_over_sources(questions), questions.len())
        })
        .collect();
    let mut metrics = Vec::new();
    if let [two, three] = &figures[..] {
        let overall = (two.value + three.value) / 200.0;
        metrics.push(percent("overall", overall, all.len()));
    }
    metrics.extend(figures);
    metrics.push(accuracy("micro", &all));
    metrics.extend(accuracies(
        "source",
        grouped(&all, |question| question.source),
    ));
    metrics.extend(accuracies(
        "task",
        grouped(&all, |question| question.category),
    ));
    Ok(metrics)
}

fn mean_over_sources(questions: &[&Judged<'_>]) -> f64 {
    let sources = grouped(questions, |question| Some(question.source));
    let sum: f64 = sources.values().map(|questions| mean(questions)).sum();
    sum / sources.len() as f64
}

/// By the task, or else by where the picture is from.
fn dimension(question: &Judged<'_>) -> Result<Dimension, ScorerError> {
    match (question.category, question.source) {
        (Some("Count" | "Relation" | "2D"), _) => Ok(Dimension::Two),
        (Some("Depth" | "Distance" | "3D"), _) => Ok(Dimension::Three),
        (_, Some("COCO" | "ADE20K")) => Ok(Dimension::Two),
        (_, Some(source)) if source.starts_with("Omni3D") => Ok(Dimension::Three),
        (Some(category), _) => Err(ScorerError::Category {
            aggregate: Aggregate::CvBench,
            id: question.id.to_owned(),
            category: category.to_owned(),
            wanted: "Count, Relation, Depth or Distance".to_owned(),
        }),
        (None, _) => Err(ScorerError::Missing {
            aggregate: Aggregate::CvBench,
            id: question.id.to_owned(),
            field: "category",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Judgement;

    #[test]
    fn macro_over_sources_micro_within() {
        let (right, wrong) = (Judgement::new(1.0, "", ""), Judgement::new(0.0, "", ""));
        let question = |category, source, judgement| Judged {
            id: "q",
            unit: None,
            picture: None,
            category: Some(category),
            source: Some(source),
            judgement,
        };
        let judged = [
            question("Count", "COCO", &right),
            question("Relation", "COCO", &right),
            question("Count", "COCO", &wrong),
            question("Count", "COCO", &wrong),
            question("Count", "ADE20K", &right),
            question("Depth", "Omni3D", &wrong),
            question("Distance", "Omni3D", &wrong),
            question("Distance", "Omni3D", &wrong),
            question("Distance", "Omni3D", &right),
        ];
        let metrics = metrics(&judged).unwrap();
        let figures: Vec<_> = metrics.iter().map(|m| (m.name.as_str(), m.value)).collect();
        assert_eq!(
            figures[..3],
            [("overall", 50.0), ("2D", 75.0), ("3D", 25.0)]
        );
        assert_eq!(figures[3].0, "micro");
        assert!((figures[3].1 - 400.0 / 9.0).abs() < 1e-9);
        assert!(figures.contains(&("source/COCO", 50.0)));
        assert!(figures.contains(&("task/Depth", 0.0)));
        let flat = super::metrics(&judged[..5]).unwrap();
        assert_eq!(flat[0].name, "2D", "there is no 3D, so no overall score");
        assert!(super::metrics(&[question("Colour", "World", &right)]).is_err());
    }
}
