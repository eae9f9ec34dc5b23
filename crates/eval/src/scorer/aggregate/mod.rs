//! Judged questions become the figures of a benchmark.
//!
//! Questions that belong together (the two of a pair, all rotations of a circle) are found by their
//! unit, never by their order: a missing line then is an error and no silent shift. The reference
//! counts lines; under [`Protocol::Reference`] so do MME and MMVP here, for parity with it.
//!
//! Every figure carries its unit, categories are sorted, and the last figure is the number of answers
//! in which nothing usable was found.

mod cv_bench;
mod group;
mod mm_vet;
mod mme;
mod mmmu;
mod ocr_bench;
mod pairs;
mod pope;
mod science_qa;

use serde::{Deserialize, Serialize};

use super::gold::Judgement;
use super::text::EDITS;
use super::{Protocol, ScorerError};
use group::{accuracy, mean, per_category};

/// How judged questions become figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Aggregate {
    /// The mean, also per category.
    Mean,
    /// The mean; categories are SEED-Bench's numbers.
    Seed,
    /// The mean; categories are Q-Bench's numbers.
    QBench,
    /// MME.
    Mme,
    /// MMVP.
    MmvpPairs,
    /// MMBench.
    Circular,
    /// CV-Bench.
    CvBench,
    /// OCRBench.
    OcrBench,
    /// ScienceQA.
    ScienceQa,
    /// MMMU.
    Mmmu,
    /// POPE.
    Pope,
    /// SynthDoG.
    EditDistance,
    /// MM-Vet.
    MmVet,
}

/// A judged question, and what it is grouped by.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// The question's name.
    pub id: &'a str,
    /// What questions that belong together have in common: a pair, a circle or a picture.
    pub unit: Option<&'a str>,
    /// The picture that the question is about, whether it was shown or not.
    pub picture: Option<&'a str>,
    /// Category: a task, a subject, a split.
    pub category: Option<&'a str>,
    /// Collection that the picture is from.
    pub source: Option<&'a str>,
    /// What the scorer says.
    pub judgement: &'a Judgement,
}

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name; figures of a part are called `category/Count`, `source/COCO` and so on.
    pub name: String,
    /// Its value in `unit`.
    pub value: f64,
    /// What the value is counted in.
    pub unit: Unit,
    /// How many questions it is made of.
    pub questions: usize,
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// From 0 to 100.
    Percent,
    /// The benchmark's own points, such as 0 to 2000 in MME.
    Points,
    /// From 0 to 1.
    Fraction,
    /// A number of questions.
    Count,
}

impl Aggregate {
    /// Every way to sum up.
    pub const ALL: [Self; 13] = [
        Self::Mean,
        Self::Seed,
        Self::QBench,
        Self::Mme,
        Self::MmvpPairs,
        Self::Circular,
        Self::CvBench,
        Self::OcrBench,
        Self::ScienceQa,
        Self::Mmmu,
        Self::Pope,
        Self::EditDistance,
        Self::MmVet,
    ];

    /// Every way to sum up.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }

    /// As it is written in the file of a benchmark.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// What it does, in one line.
    #[must_use]
    pub fn describe(self) -> &'static str {
        self.entry().1
    }

    fn entry(self) -> (&'static str, &'static str) {
        match self {
            Self::Mean => ("mean", "mean score, also per category"),
            Self::Seed => (
                "seed",
                "as `mean`; categories 1 to 9 get SEED-Bench's names",
            ),
            Self::QBench => (
                "q-bench",
                "as `mean`; categories 0 to 2 get Q-Bench's names",
            ),
            Self::Mme => (
                "mme",
                "points: per category accuracy, and accuracy of pairs (unit); perception is the sum",
            ),
            Self::MmvpPairs => ("mmvp-pairs", "share of pairs (unit) that are all right"),
            Self::Circular => ("circular", "share of circles (unit) that are all right"),
            Self::CvBench => (
                "cv-bench",
                "mean of 2D and 3D, each the mean over its sources",
            ),
            Self::OcrBench => (
                "ocr-bench",
                "share right, and points per group of categories",
            ),
            Self::ScienceQa => ("science-qa", "mean score of the questions with a picture"),
            Self::Mmmu => ("mmmu", "mean score, also per domain and subject"),
            Self::Pope => (
                "pope",
                "accuracy, precision, recall and F1 with yes as positive",
            ),
            Self::EditDistance => (
                "edit-distance",
                "shares of texts within 0, 5, 10, 25 and 50 edits",
            ),
            Self::MmVet => ("mm-vet", "mean grade, also per capability and combination"),
        }
    }

    /// The figures, of which the first is the headline.
    ///
    /// # Errors
    /// If there are no questions, one lacks what is grouped by, a pair is incomplete, or a category is
    /// not one that the figures know.
    pub fn metrics(&self, judged: &[Judged<'_>]) -> Result<Vec<Metric>, ScorerError> {
        self.metrics_under(Protocol::Standard, judged)
    }

    /// The figures as one of the protocols makes them. That of the reference pairs the questions of
    /// MME and MMVP by their order, and of ScienceQA adds the accuracy that its script prints.
    ///
    /// # Errors
    /// As [`Self::metrics`].
    pub fn metrics_under(
        &self,
        protocol: Protocol,
        judged: &[Judged<'_>],
    ) -> Result<Vec<Metric>, ScorerError> {
        if judged.is_empty() {
            return Err(ScorerError::NoQuestions { aggregate: *self });
        }
        let mut metrics = match self {
            Self::Mean => mean_per_category(judged, |category| category),
            Self::Seed => mean_per_category(judged, seed_category),
            Self::QBench => mean_per_category(judged, q_bench_category),
            Self::Mme => mme::metrics(protocol, judged)?,
            Self::MmvpPairs => pairs::mmvp(protocol, judged)?,
            Self::Circular => pairs::circular(judged)?,
            Self::CvBench => cv_bench::metrics(judged)?,
            Self::OcrBench => ocr_bench::metrics(judged),
            Self::ScienceQa => science_qa::metrics(protocol, judged),
            Self::Mmmu => mmmu::metrics(judged),
            Self::Pope => pope::metrics(judged)?,
            Self::EditDistance => edit_distance(judged),
            Self::MmVet => mm_vet::metrics(judged),
        };
        metrics.push(unparsed(judged));
        Ok(metrics)
    }

    /// The headline that guessing may expect, in its own unit. The judgements are those of
    /// [`Judgement::guessing`]: as guesses are independent of each other, the chance that all
    /// questions of a unit are right is the product of theirs.
    ///
    /// # Errors
    /// As [`Self::metrics`].
    pub fn chance(&self, guessed: &[Judged<'_>]) -> Result<f64, ScorerError> {
        let metrics = self.metrics(guessed)?;
        Ok(metrics.first().map_or(0.0, |headline| headline.value))
    }
}

fn mean_per_category(judged: &[Judged<'_>], name: fn(&str) -> &str) -> Vec<Metric> {
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    let mut metrics = vec![accuracy("accuracy", &all)];
    metrics.extend(per_category(&all, name));
    metrics
}

/// SEED-Bench's names of its categories.
fn seed_category(category: &str) -> &str {
    match category {
        "1" => "Scene Understanding",
        "2" => "Instance Identity",
        "3" => "Instance Attribute",
        "4" => "Instance Location",
        "5" => "Instance Counting",
        "6" => "Spatial Relation",
        "7" => "Instance Interaction",
        "8" => "Visual Reasoning",
        "9" => "Text Recognition",
        named => named,
    }
}

/// Q-Bench's names of its kinds of question.
fn q_bench_category(category: &str) -> &str {
    match category {
        "0" => "Yes/No",
        "1" => "What",
        "2" => "How",
        named => named,
    }
}

/// Shares of texts within each number of edits, which the scores tell.
fn edit_distance(judged: &[Judged<'_>]) -> Vec<Metric> {
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    let count = EDITS.len();
    let mut metrics: Vec<Metric> = EDITS
        .iter()
        .enumerate()
        .map(|(place, edits)| {
            // A text within this many edits is also within all larger numbers.
            let needed = (count - place) as f64 / count as f64;
            let within = |judged: &&Judged<'_>| judged.judgement.score >= needed - 1e-9;
            let share = all.iter().copied().filter(within).count() as f64 / all.len() as f64;
            Metric {
                name: format!("within-{edits}-edits"),
                value: 100.0 * share,
                unit: Unit::Percent,
                questions: all.len(),
            }
        })
        .collect();
    metrics.push(Metric {
        name: "mean".to_owned(),
        value: 100.0 * mean(&all),
        unit: Unit::Percent,
        questions: all.len(),
    });
    metrics
}

fn unparsed(judged: &[Judged<'_>]) -> Metric {
    let unparsed = judged.iter().filter(|judged| !judged.judgement.parsed);
    Metric {
        name: "unparsed".to_owned(),
        value: unparsed.count() as f64,
        unit: Unit::Count,
        questions: judged.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Gold;

    fn judgement(score: f64) -> Judgement {
        Judgement::new(score, "", "")
    }

    fn judged<'a>(
        judgement: &'a Judgement,
        unit: &'a str,
        category: &'a str,
        source: &'a str,
    ) -> Judged<'a> {
        Judged {
            id: "q",
            unit: Some(unit),
            picture: Some(unit),
            category: Some(category),
            source: Some(source),
            judgement,
        }
    }

    #[track_caller]
    fn value(metrics: &[Metric], name: &str) -> f64 {
        let metric = metrics.iter().find(|metric| metric.name == name);
        metric
            .unwrap_or_else(|| panic!("no `{name}` in {metrics:?}"))
            .value
    }

    #[test]
    fn means() {
        let (right, wrong) = (judgement(1.0), judgement(0.0));
        let unparsed = Judgement::unparsed("", "");
        let all = [
            judged(&right, "", "8", ""),
            judged(&right, "", "1", ""),
            judged(&wrong, "", "8", ""),
            judged(&unparsed, "", "8", ""),
        ];
        let metrics = Aggregate::Seed.metrics(&all).unwrap();
        let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        let sorted = ["category/Scene Understanding", "category/Visual Reasoning"];
        assert_eq!(names, [&["accuracy"], &sorted[..], &["unparsed"]].concat());
        assert_eq!(metrics[0].value, 50.0);
        assert_eq!(metrics[2].questions, 3);
        assert_eq!(value(&metrics, "unparsed"), 1.0);
        let none = Aggregate::Mean.metrics(&[]).unwrap_err();
        assert_eq!(
            none.to_string(),
            "cannot sum up by `mean`: there are no judged questions"
        );
    }

    #[test]
    fn guessing() {
        let four = Judgement::guessing(&Gold::option(0, &["1", "2", "3", "4"]));
        let two = Judgement::guessing(&Gold::text("yes"));
        let chance =
            |aggregate: Aggregate, guessed: &[Judged<'_>]| aggregate.chance(guessed).unwrap();
        let mixed = [judged(&four, "a", "", ""), judged(&two, "b", "", "")];
        assert_eq!(chance(Aggregate::Mean, &mixed), 37.5);
        let pair = [judged(&two, "a", "OCR", ""), judged(&two, "a", "OCR", "")];
        assert_eq!(chance(Aggregate::MmvpPairs, &pair), 25.0);
        assert_eq!(chance(Aggregate::Mme, &pair), 75.0);
        let circle = [judged(&four, "a", "x", ""); 4];
        assert_eq!(chance(Aggregate::Circular, &circle), 100.0 / 256.0);
        let cv = [
            judged(&four, "", "Count", "COCO"),
            judged(&two, "", "Relation", "ADE20K"),
            judged(&two, "", "Depth", "Omni3D"),
        ];
        assert_eq!(chance(Aggregate::CvBench, &cv), 43.75);
    }

    #[test]
    fn edits() {
        let scores = [1.0, 0.8, 0.2, 0.0].map(judgement);
        let all: Vec<_> = scores.iter().map(|one| judged(one, "", "", "")).collect();
        let metrics = Aggregate::EditDistance.metrics(&all).unwrap();
        assert_eq!(metrics[0].name, "within-0-edits");
        let share = |edits: usize| value(&metrics, &format!("within-{edits}-edits"));
        assert_eq!(
            [0, 5, 10, 25, 50].map(share),
            [25.0, 50.0, 50.0, 50.0, 75.0]
        );
        assert_eq!(value(&metrics, "mean"), 50.0);
    }
}
