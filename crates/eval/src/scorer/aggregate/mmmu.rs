//! MMMU: the mean over all questions, and over those of each subject and domain.

use super::group::{accuracies, accuracy, grouped};
use super::{Judged, Metric};

pub(super) fn metrics(judged: &[Judged<'_>]) -> Vec<Metric> {
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    let mut metrics = vec![accuracy("accuracy", &all)];
    let domains = grouped(&all, |question| domain(question.category?));
    metrics.extend(accuracies("domain", domains));
    metrics.extend(accuracies(
        "category",
        grouped(&all, |question| question.category),
    ));
    metrics
}

/// The domain of a subject, as the benchmark's authors divide them.
fn domain(subject: &str) -> Option<&'static str> {
    Some(match subject {
        "Art" | "Art_Theory" | "Design" | "Music" => "Art and Design",
        "Accounting" | "Economics" | "Finance" | "Manage" | "Marketing" => "Business",
        "Biology" | "Chemistry" | "Geography" | "Math" | "Physics" => "Science",
        "Basic_Medical_Science"
        | "Clinical_Medicine"
        | "Diagnostics_and_Laboratory_Medicine"
        | "Pharmacy"
        | "Public_Health" => "Health and Medicine",
        "History" | "Literature" | "Psychology" | "Sociology" => "Humanities and Social Science",
        "Agriculture"
        | "Architecture_and_Engineering"
        | "Computer_Science"
        | "Electronics"
        | "Energy_and_Power"
        | "Materials"
        | "Mechanical_Engineering" => "Tech and Engineering",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Judgement;

    #[test]
    fn domains_weigh_questions_not_subjects() {
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
            question("Math", &right),
            question("Math", &right),
            question("Math", &right),
            question("Physics", &wrong),
            question("Astrology", &wrong),
        ];
        let metrics = metrics(&judged);
        let figures: Vec<_> = metrics.iter().map(|m| (m.name.as_str(), m.value)).collect();
        assert_eq!(figures[0], ("accuracy", 60.0));
        assert_eq!(figures[1], ("domain/Science", 75.0));
        assert!(figures.contains(&("category/Astrology", 0.0)));
    }
}
