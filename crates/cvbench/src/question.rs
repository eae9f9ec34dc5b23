//! A question: a row of the published CV-Bench.

use std::str::FromStr;

use opabinia_eval::hex;
use opabinia_eval::scorer::Gold;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Task {
    /// How many there are (2D).
    Count,
    /// Which side of something it is on (2D).
    Relation,
    /// Which of two is closer to the camera (3D).
    Depth,
    /// Which of two is closer to a third (3D).
    Distance,
}

impl Task {
    /// All four, in the order of the questions.
    pub const ALL: [Self; 4] = [Self::Count, Self::Relation, Self::Depth, Self::Distance];

    /// As in the column `task`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Relation => "Relation",
            Self::Depth => "Depth",
            Self::Distance => "Distance",
        }
    }

    /// As in the column `type`.
    #[must_use]
    pub fn dimension(self) -> &'static str {
        match self {
            Self::Count | Self::Relation => "2D",
            Self::Depth | Self::Distance => "3D",
        }
    }
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|task| task.name() == text);
        known.ok_or_else(|| format!("`{text}` is no task: Count, Relation, Depth, Distance"))
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Its number, unique over both files.
    pub idx: i64,
    /// `2D` or `3D`.
    #[serde(rename = "type")]
    pub dimension: String,
    /// What is asked.
    pub task: Task,
    /// The question alone.
    pub question: String,
    /// Texts of the options.
    pub choices: Vec<String>,
    /// Letter of the right one, such as `(B)`.
    pub answer: String,
    /// The question with its options.
    pub prompt: String,
    /// The picture, relative to the folder.
    pub filename: String,
    /// Format of the annotations: `COCO`, `ADE20K` or `Omni3D`.
    pub source: String,
    /// The data set, such as `Omni3D_SUNRGBD`.
    pub source_dataset: String,
    /// The picture in it.
    pub source_filename: String,
    /// The class that is asked about; COCO only.
    pub target_class: Option<String>,
    /// Square pixels of its (smallest) box; COCO only.
    pub target_size: Option<f64>,
    /// Boxes `[left, top, right, bottom]` in the order of their mention; Omni3D only.
    pub bbox: Option<Vec<Vec<f64>>>,
}

impl Question {
    /// Index of the right option, if the answer is the letter of one.
    #[must_use]
    pub fn right(&self) -> Option<usize> {
        let letter = self.answer.trim().trim_matches(['(', ')']).as_bytes();
        let &[letter] = letter else { return None };
        let index = letter.to_ascii_uppercase().checked_sub(b'A')?;
        let index = usize::from(index);
        (index < self.choices.len()).then_some(index)
    }

    /// What is right, for a scorer.
    #[must_use]
    pub fn gold(&self) -> Gold {
        Gold {
            answers: Vec::new(),
            options: self.choices.clone(),
            right: self.right(),
            category: Some(self.task.name().to_owned()),
            kind: None,
        }
    }

    /// Digest of what people see of it: question, options, answer and picture's name.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let texts = [&self.question, &self.answer, &self.filename];
        for text in texts.into_iter().chain(&self.choices) {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hex(hash.finalize())
    }
}

/// The letter of an option, such as `(B)`.
#[must_use]
pub(crate) fn lettered(index: usize) -> String {
    let letter = u8::try_from(index)
        .ok()
        .and_then(|index| index.checked_add(b'A'));
    format!("({})", char::from(letter.unwrap_or(b'?')))
}
