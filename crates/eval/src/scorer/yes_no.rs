//! Yes or no.
//!
//! The reference wants the bare word (MME). Common harnesses take what the answer begins with, so
//! that "Yes, there is a dog." is a yes, and so is "yesterday"; "There is no dog" is neither.

use super::gold::{Gold, Judgement};
use super::python::strip;

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Yes,
    No,
    Other,
}

impl Label {
    fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Other => "other",
        }
    }

    /// From the first four characters, full stops aside.
    fn of(answer: &str) -> Self {
        let lowered = answer.to_lowercase();
        let bare = strip(&lowered).replace('.', "");
        let opening: String = bare.chars().take(4).collect();
        match opening.as_str() {
            "y" => Self::Yes,
            "n" => Self::No,
            opening if opening.contains("yes") => Self::Yes,
            opening if opening.contains("no") => Self::No,
            _ => Self::Other,
        }
    }
}

/// By what the answer begins with.
pub(super) fn judge(prediction: &str, gold: &Gold) -> Judgement {
    let expected = right(gold);
    let found = Label::of(prediction);
    let right = found.name() == expected;
    Judgement::verdict(right, found != Label::Other, found.name(), expected)
}

/// The bare word, in any case, with full stops behind it or none (MME).
pub(super) fn judge_bare(prediction: &str, gold: &Gold) -> Judgement {
    let lowered = prediction.to_lowercase();
    let found = lowered.trim_end_matches('.');
    let expected = gold.right_text().unwrap_or_default().to_lowercase();
    let usable = matches!(found, "yes" | "no");
    Judgement::verdict(found == expected, usable, found, expected)
}

/// Whether the question is one of yes or no.
pub(super) fn is_yes_or_no(gold: &Gold) -> bool {
    matches!(right(gold).as_str(), "yes" | "no")
}

fn right(gold: &Gold) -> String {
    let lowered = gold.right_text().unwrap_or_default().to_lowercase();
    strip(&lowered).replace('.', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings() {
        let yes = [
            "Yes",
            "y.",
            "(yes)",
            "Yes, there is a dog.",
            "yesterday",
            "*yes*",
        ];
        let no = ["NO", "n", "nope", "Not sure", "noon", "no."];
        let other = ["", "There is no dog", "I see yes", "да", "ye"];
        for (answers, label) in [
            (&yes[..], Label::Yes),
            (&no[..], Label::No),
            (&other[..], Label::Other),
        ] {
            for answer in answers {
                assert_eq!(Label::of(answer), label, "`{answer}`");
            }
        }
    }

    #[test]
    fn the_bare_word() {
        let yes = Gold::text("Yes");
        assert_eq!(judge_bare("YES..", &yes).score, 1.0);
        for answer in ["yes ", "Yes, it is", "y"] {
            assert!(!judge_bare(answer, &yes).parsed, "`{answer}`");
        }
        let wrong = judge_bare("no", &yes);
        assert_eq!((wrong.score, wrong.parsed), (0.0, true));
    }
}
