//! ScienceQA: reported are the questions with a picture.

use super::group::{accuracy, grouped, per_category, percent, total};
use super::{Judged, Metric};
use crate::scorer::Protocol;

/// The accuracy that the reference's script prints beside the one with pictures: it sums up the
/// categories, one of which holds all questions with pictures, so that these count twice.
const PICTURES_TWICE: &str = "accuracy-with-pictures-twice";

pub(super) fn metrics(protocol: Protocol, judged: &[Judged<'_>]) -> Vec<Metric> {
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    let by_picture = grouped(&all, |question| Some(question.picture.is_some()));
    let seeing = by_picture.get(&true).map(Vec::as_slice).unwrap_or_default();
    let mut metrics = Vec::new();
    if !seeing.is_empty() {
        metrics.push(accuracy("accuracy-with-picture", seeing));
    }
    metrics.push(accuracy("accuracy", &all));
    if let Some(blind) = by_picture.get(&false) {
        metrics.push(accuracy("accuracy-without-picture", blind));
    }
    if protocol == Protocol::Reference {
        let counted = all.len() + seeing.len();
        let share = (total(&all) + total(seeing)) / counted as f64;
        metrics.push(percent(PICTURES_TWICE, share, counted));
    }
    metrics.extend(per_category(&all, |category| category));
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Judgement;

    #[test]
    fn pictures_first() {
        let (right, wrong) = (Judgement::new(1.0, "", ""), Judgement::new(0.0, "", ""));
        let question = |picture, judgement| Judged {
            id: "q",
            unit: None,
            picture,
            category: Some("grade5"),
            source: None,
            judgement,
        };
        let judged = [
            question(Some("p"), &right),
            question(Some("p"), &wrong),
            question(None, &right),
            question(None, &right),
        ];
        let figures = |protocol, judged: &[Judged<'_>]| -> Vec<(String, f64)> {
            let metrics = metrics(protocol, judged).into_iter();
            metrics.map(|metric| (metric.name, metric.value)).collect()
        };
        let standard = figures(Protocol::Standard, &judged);
        assert_eq!(standard[0], ("accuracy-with-picture".to_owned(), 50.0));
        assert_eq!(standard[1], ("accuracy".to_owned(), 75.0));
        assert_eq!(standard.len(), 4);
        let reference = figures(Protocol::Reference, &judged);
        assert_eq!(reference[3].0, PICTURES_TWICE);
        assert!((reference[3].1 - 400.0 / 6.0).abs() < 1e-9);
        assert_eq!(figures(Protocol::Standard, &judged[2..])[0].0, "accuracy");
    }
}
