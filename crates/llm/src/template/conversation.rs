//! What a template renders: turns of two who take turns.

use serde::{Deserialize, Serialize};

use super::IMAGE_PLACEHOLDER;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::User => "the user",
            Self::Assistant => "the assistant",
        })
    }
}

/// One utterance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said, with an [`IMAGE_PLACEHOLDER`] wherever an image is shown. `None` is the
    /// assistant's turn that the model is to write; an empty text means the same, as in the
    /// reference.
    pub text: Option<String>,
}

impl Turn {
    /// Something the user says.
    pub fn user(text: impl Into<String>) -> Self {
        Self {
            role: Role::User,
            text: Some(text.into()),
        }
    }

    /// A finished answer.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self {
            role: Role::Assistant,
            text: Some(text.into()),
        }
    }

    /// The answer that the model is to write.
    pub fn open() -> Self {
        Self {
            role: Role::Assistant,
            text: None,
        }
    }

    pub(super) fn said(&self) -> Option<&str> {
        self.text.as_deref().filter(|text| !text.is_empty())
    }
}

/// What a template renders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// Replaces the template's own system text. Markup around that text stays.
    pub system: Option<String>,
    /// Alternating turns, the user's first.
    pub turns: Vec<Turn>,
}

impl Conversation {
    /// A conversation with the template's own system text.
    pub fn new(turns: Vec<Turn>) -> Self {
        Self {
            system: None,
            turns,
        }
    }

    /// One question, and the answer left to the model.
    pub fn question(text: impl Into<String>) -> Self {
        Self::new(vec![Turn::user(text), Turn::open()])
    }

    /// Shows `images` images at the head of the first user turn, each as `<image>\n`: the
    /// placement that the released checkpoints were evaluated with.
    #[must_use]
    pub fn with_images(mut self, images: usize) -> Self {
        let placeholders = format!("{IMAGE_PLACEHOLDER}\n").repeat(images);
        if let Some(turn) = self.turns.iter_mut().find(|turn| turn.role == Role::User) {
            turn.text = Some(placeholders + turn.said().unwrap_or_default());
        }
        self
    }
}
