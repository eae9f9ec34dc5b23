//! MME: for each category the accuracy of questions plus the accuracy of pictures, at most 200.
//!
//! A picture is right (acc+) if both of its questions are. Perception is the sum over ten categories,
//! at most 2000, and is divided by 20 where it is averaged with other benchmarks; cognition is the sum
//! over four.

use super::group::{accuracy, all_right, grouped, mean, percent, points};
use super::pairs::{paired_by_order, pairs};
use super::{Aggregate, Judged, Metric};
use crate::scorer::{Protocol, ScorerError};

const PERCEPTION: [&str; 10] = [
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
];

const COGNITION: [&str; 4] = [
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
];

/// A category's figures, as shares of 1.
struct Category<'a> {
    name: &'a str,
    accuracy: f64,
    pairs: f64,
    questions: usize,
}

impl Category<'_> {
    fn points(&self) -> f64 {
        100.0 * (self.accuracy + self.pairs)
    }
}

pub(super) fn metrics(
    protocol: Protocol,
    judged: &[Judged<'_>],
) -> Result<Vec<Metric>, ScorerError> {
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    for question in judged {
        check_category(question)?;
    }
    let groups = grouped(&all, |question| question.category).into_iter();
    let categories = groups.map(|(name, questions)| {
        let pairs = match protocol {
            Protocol::Standard => share_of_pairs(&questions)?,
            Protocol::Reference => {
                let counted = |question: &Judged<'_>| question.category == Some(name);
                paired_by_order(judged.iter(), counted) as f64 / questions.len() as f64
            }
        };
        Ok(Category {
            name,
            accuracy: mean(&questions),
            pairs,
            questions: questions.len(),
        })
    });
    let categories: Vec<Category<'_>> = categories.collect::<Result<_, ScorerError>>()?;
    let mut metrics = sums(&categories);
    metrics.push(accuracy("accuracy", &all));
    for category in &categories {
        let Category {
            name, questions, ..
        } = category;
        metrics.push(points(
            format!("category/{name}"),
            category.points(),
            *questions,
        ));
        metrics.push(percent(
            format!("acc/{name}"),
            category.accuracy,
            *questions,
        ));
        metrics.push(percent(format!("acc+/{name}"), category.pairs, *questions));
    }
    Ok(metrics)
}

/// Perception and cognition, as far as there are questions of them, and their sum.
fn sums(categories: &[Category<'_>]) -> Vec<Metric> {
    let of = |names: &[&str]| -> (f64, usize) {
        let parts = categories
            .iter()
            .filter(|category| names.contains(&category.name));
        parts.fold((0.0, 0), |(sum, questions), category| {
            (sum + category.points(), questions + category.questions)
        })
    };
    let (perception, seen) = of(&PERCEPTION);
    let (cognition, thought) = of(&COGNITION);
    let mut metrics = Vec::new();
    if seen > 0 {
        metrics.push(points("perception", perception, seen));
        metrics.push(percent("perception/20", perception / 2000.0, seen));
    }
    if thought > 0 {
        metrics.push(points("cognition", cognition, thought));
    }
    metrics.push(points("total", perception + cognition, seen + thought));
    metrics
}

fn share_of_pairs(questions: &[&Judged<'_>]) -> Result<f64, ScorerError> {
    let pairs = pairs(Aggregate::Mme, questions, |question| question.category)?;
    let right: f64 = pairs.values().map(|pair| all_right(pair)).sum();
    Ok(right / pairs.len() as f64)
}

fn check_category(question: &Judged<'_>) -> Result<(), ScorerError> {
    let Some(category) = question.category else {
        return Err(ScorerError::Missing {
            aggregate: Aggregate::Mme,
            id: question.id.to_owned(),
            field: "category",
        });
    };
    if PERCEPTION.contains(&category) || COGNITION.contains(&category) {
        return Ok(());
    }
    Err(ScorerError::Category {
        aggregate: Aggregate::Mme,
        id: question.id.to_owned(),
        category: category.to_owned(),
        wanted: [&PERCEPTION[..], &COGNITION[..]].concat().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Judgement;

    #[test]
    fn accuracy_of_questions_and_of_pictures() {
        let (right, wrong) = (Judgement::new(1.0, "", ""), Judgement::new(0.0, "", ""));
        let question = |unit, category, judgement| Judged {
            id: "q",
            unit: Some(unit),
            picture: None,
            category: Some(category),
            source: None,
            judgement,
        };
        let judged = [
            question("a", "count", &right),
            question("a", "count", &right),
            question("b", "count", &right),
            question("b", "count", &wrong),
            question("a", "code_reasoning", &right),
            question("a", "code_reasoning", &wrong),
        ];
        let metrics = metrics(Protocol::Standard, &judged).unwrap();
        let figures: Vec<_> = metrics.iter().map(|m| (m.name.as_str(), m.value)).collect();
        assert_eq!(
            figures[..4],
            [
                ("perception", 125.0),
                ("perception/20", 6.25),
                ("cognition", 50.0),
                ("total", 175.0),
            ]
        );
        assert!(figures.contains(&("acc+/count", 50.0)));
        let said = super::metrics(Protocol::Standard, &[question("a", "counts", &right)]);
        let said = said.unwrap_err().to_string();
        assert!(
            said.contains("is of `counts`, wanted existence, count"),
            "{said}"
        );
        let alone = super::metrics(Protocol::Standard, &judged[..3])
            .unwrap_err()
            .to_string();
        assert!(alone.contains("of `count/b` there are 1"), "{alone}");
    }
}
