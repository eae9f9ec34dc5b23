//! What can go wrong between judged questions and a score.

use super::Aggregate;

/// A scorer is not known, or figures cannot be made of judged questions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScorerError {
    /// Nothing has this name.
    #[error("there is no {what} `{name}`{}", did_you_mean(nearest.as_deref()))]
    UnknownName {
        /// What was wanted.
        what: &'static str,
        /// The name.
        name: String,
        /// The name that is most like it.
        nearest: Option<&'static str>,
    },
    /// There is nothing to sum up.
    #[error("cannot sum up by `{aggregate}`: there are no judged questions")]
    NoQuestions {
        /// The way to sum up.
        aggregate: Aggregate,
    },
    /// A question lacks what the figures are grouped by.
    #[error(
        "cannot sum up by `{aggregate}`: question `{id}` has no {field}; name its column in the \
         file of the benchmark"
    )]
    Missing {
        /// The way to sum up.
        aggregate: Aggregate,
        /// The question.
        id: String,
        /// What it lacks.
        field: &'static str,
    },
    /// Of two questions that belong together not both are there, or there are more.
    #[error(
        "cannot sum up by `{aggregate}`: of `{unit}` there are {found} questions, wanted 2; the \
         run is not finished, or was limited in the middle of a pair"
    )]
    Pair {
        /// The way to sum up.
        aggregate: Aggregate,
        /// What the questions have in common.
        unit: String,
        /// How many there are.
        found: usize,
    },
    /// A question is of a category that the figures do not know.
    #[error("cannot sum up by `{aggregate}`: question `{id}` is of `{category}`, wanted {wanted}")]
    Category {
        /// The way to sum up.
        aggregate: Aggregate,
        /// The question.
        id: String,
        /// What it is of.
        category: String,
        /// What it may be of.
        wanted: String,
    },
    /// The right answer of a question is neither yes nor no.
    #[error("cannot sum up by `{aggregate}`: the answer to `{id}` is `{found}`, wanted yes or no")]
    NotYesNo {
        /// The way to sum up.
        aggregate: Aggregate,
        /// The question.
        id: String,
        /// The right answer.
        found: String,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

/// Finds what has this name.
pub(super) fn named<T: Copy>(
    what: &'static str,
    known: &[T],
    name_of: impl Fn(T) -> &'static str,
    name: &str,
) -> Result<T, ScorerError> {
    let found = known.iter().find(|one| name_of(**one) == name);
    found.copied().ok_or_else(|| {
        let names = known.iter().map(|one| name_of(*one));
        let rated = names.map(|known| (strsim::jaro_winkler(known, name), known));
        let similar = rated.filter(|(likeness, _)| *likeness > 0.7);
        ScorerError::UnknownName {
            what,
            name: name.to_owned(),
            nearest: similar
                .max_by(|(one, _), (other, _)| one.total_cmp(other))
                .map(|(_, known)| known),
        }
    })
}
