//! What a model is shown beside the question.
//!
//! Cambrian-1 (section 3.1) asks each benchmark with and without its pictures to see how much of the
//! score is vision. A wrong picture and a blank one tell more: whether a model uses what it sees or
//! only that something is there.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a model is shown beside the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vision {
    /// The question's own picture.
    On,
    /// No picture: the same prompt without the image placeholder.
    Off,
    /// The picture of another question, never one with the same content.
    Shuffled,
    /// A picture of the same size that is mean grey all over.
    Blank,
}

impl Vision {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 4] = [Self::On, Self::Off, Self::Shuffled, Self::Blank];

    /// As it is written in files and flags.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Shuffled => "shuffled",
            Self::Blank => "blank",
        }
    }

    /// As tables say it.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Self::On => "score",
            Self::Off => "without picture",
            Self::Shuffled => "wrong picture",
            Self::Blank => "blank picture",
        }
    }

    /// Whether there is an image placeholder in the prompt.
    #[must_use]
    pub fn shows_something(self) -> bool {
        self != Self::Off
    }
}

impl fmt::Display for Vision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
