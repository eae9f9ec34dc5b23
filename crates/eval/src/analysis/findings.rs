//! What the numbers support and what they do not, in plain sentences computed from the data.
//!
//! A sentence is never written unless its numbers are there, and every one carries them, so that a
//! reader can disagree. Thresholds are named constants beside them.

mod benchmarks;
mod models;

use serde::Serialize;

use super::Analysis;
use super::statistics::FEWEST_CLUSTERS;

/// A sentence about the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether the numbers support something or fail to.
    pub support: Support,
    /// What it is about, in a word or two.
    pub about: &'static str,
    /// The sentence.
    pub text: String,
}

/// Whether the numbers support something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// They do.
    Supported,
    /// They do not: a claim that one might have expected to hold.
    Unsupported,
}

/// Sentences that are being collected.
#[derive(Default)]
struct Sentences(Vec<Finding>);

impl Sentences {
    fn yes(&mut self, about: &'static str, text: String) {
        self.add(Support::Supported, about, text);
    }

    fn no(&mut self, about: &'static str, text: String) {
        self.add(Support::Unsupported, about, text);
    }

    fn add(&mut self, support: Support, about: &'static str, text: String) {
        self.0.push(Finding {
            support,
            about,
            text,
        });
    }
}

/// All that can be said.
pub(super) fn findings(analysis: &Analysis) -> Vec<Finding> {
    let mut say = Sentences::default();
    benchmarks::vision(&analysis.gaps, &mut say);
    if let Some(ranking) = &analysis.ranking {
        let benchmarks = analysis.selection.benchmarks.len();
        let few = few_questions(analysis);
        models::best_model(ranking, benchmarks, &few, &mut say);
        if benchmarks >= models::FEWEST_BENCHMARKS {
            models::stability(ranking, &mut say);
        }
        if few.is_empty() {
            models::question_noise(ranking, &mut say);
        } else {
            let text = format!(
                "How far other questions would move the averages is not known: there are too few of {few}."
            );
            say.no("Noise of questions", text);
        }
    }
    models::families(&analysis.families, &mut say);
    benchmarks::resolution(&analysis.resolutions, &mut say);
    if let Some(structure) = &analysis.structure {
        benchmarks::components(structure, &mut say);
        if let Some(comparison) = &structure.comparison {
            benchmarks::groups(structure, comparison, &mut say);
        }
    }
    benchmarks::correlations(analysis, &mut say);
    benchmarks::printed(analysis, &mut say);
    say.0
}

/// Ranked benchmarks with so few questions that their scores have no interval.
fn few_questions(analysis: &Analysis) -> String {
    let benchmarks = analysis.selection.benchmarks.iter();
    let few = benchmarks.filter_map(|&b| {
        let benchmark = analysis.table.benchmarks.get(b)?;
        let n = benchmark.questions?;
        (n < FEWEST_CLUSTERS as u64).then(|| format!("{} ({n})", benchmark.name))
    });
    some(few)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// `a, b and c`.
fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match items.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
    }
}

/// Names that a sentence takes.
const SHOWN: usize = 8;

/// The first few of a list, and how many more there are.
fn some(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<String> = items.collect();
    if items.len() > SHOWN {
        let more = items.split_off(SHOWN - 1);
        items.push(format!("{} more", more.len()));
    }
    list(items.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_well() {
        let of = |items: &[&str]| list(items.iter().map(|item| (*item).to_owned()));
        assert_eq!(of(&[]), "");
        assert_eq!(of(&["a"]), "a");
        assert_eq!(of(&["a", "b"]), "a and b");
        assert_eq!(of(&["a", "b", "c"]), "a, b and c");
        let many = some((0..9).map(|i| i.to_string()));
        assert_eq!(many, "0, 1, 2, 3, 4, 5, 6 and 2 more");
    }
}
