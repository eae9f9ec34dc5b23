//! What can be wrong with a recipe, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeArray, DeTable, DeValue};

/// Below this, names have nothing to do with each other.
const SIMILAR: f64 = 0.6;

/// What can be wrong with a recipe.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file could not be read.
    #[error("could not read the recipe {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML, or a value is of another kind.
    #[error("{place}: {message}")]
    Toml {
        /// Where.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A name that recipes do not know.
    #[error(
        "{place}: recipes know no `{name}` here{}; allowed: {}",
        nearest.as_ref().map(|n| format!(", did you mean `{n}`?")).unwrap_or_default(),
        allowed.join(", ")
    )]
    Unknown {
        /// Where.
        place: Place,
        /// What was found.
        name: String,
        /// The most similar name that is known.
        nearest: Option<String>,
        /// All that are known.
        allowed: Vec<String>,
    },
    /// Something that the stage needs.
    #[error("{place}: stage `{stage}` needs `{key}`: {why}")]
    Missing {
        /// Where.
        place: Place,
        /// The stage.
        stage: &'static str,
        /// The key.
        key: String,
        /// What for.
        why: &'static str,
    },
    /// Something that the stage does not have.
    #[error("{place}: `{key}` means nothing to stage `{stage}`: {why}")]
    Misplaced {
        /// Where.
        place: Place,
        /// The stage.
        stage: &'static str,
        /// The key.
        key: String,
        /// Where it belongs.
        why: String,
    },
    /// A value that cannot be used.
    #[error("{place}: `{key}` is {found}, but {wanted}")]
    Value {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// An override that changes nothing that could exist.
    #[error("{place}: {problem}")]
    Override {
        /// Which.
        place: Place,
        /// What is wrong with it.
        problem: String,
    },
}

/// Where in a recipe something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file, and a line of it where one can be named.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
    },
    /// An override on the command line.
    Set {
        /// `key=value`.
        assignment: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Set { assignment } => write!(f, "--set {assignment}"),
        }
    }
}

/// Turns an error of the TOML reader into one with a name to propose.
pub(super) fn explain(error: &toml::de::Error, place: Place) -> RecipeError {
    let message = error.message();
    // serde's own sentence: "unknown field `x`, expected one of `a`, `b`".
    let mut names = message.split('`').skip(1).step_by(2).map(str::to_owned);
    let is_name = message.starts_with("unknown field") || message.starts_with("unknown variant");
    match names.next() {
        Some(name) if is_name => unknown(place, name, names.collect()),
        _ => RecipeError::Toml {
            place,
            message: message.to_owned(),
        },
    }
}

/// An error about a name that is not among `allowed`.
pub(super) fn unknown(place: Place, name: String, allowed: Vec<String>) -> RecipeError {
    let nearest = allowed
        .iter()
        .map(|known| (strsim::jaro_winkler(known, &name), known))
        .filter(|(similarity, _)| *similarity > SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known.clone());
    RecipeError::Unknown {
        place,
        name,
        nearest,
        allowed,
    }
}

/// Knows where each key of a recipe comes from.
pub(super) struct Places<'a> {
    pub path: &'a Path,
    pub text: &'a str,
    /// Keys that were overridden, with their values.
    pub overrides: &'a [(String, String)],
}

impl Places<'_> {
    /// Where the value of a key comes from: an override, a line, or the table around it.
    pub(super) fn of(&self, key: &str) -> Place {
        let inside = |set: &str| {
            key.strip_prefix(set)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        match self.overrides.iter().rev().find(|(set, _)| inside(set)) {
            Some((set, value)) => Place::Set {
                assignment: format!("{set}={value}"),
            },
            None => self.at(self.offset(key)),
        }
    }

    /// The place of a byte of the file.
    pub(super) fn at(&self, offset: Option<usize>) -> Place {
        let before = offset.and_then(|offset| self.text.as_bytes().get(..offset));
        Place::File {
            path: self.path.to_path_buf(),
            line: before.map(|text| 1 + text.iter().filter(|&&byte| byte == b'\n').count()),
        }
    }

    /// Where the deepest table or key on the way to `key` begins.
    fn offset(&self, key: &str) -> Option<usize> {
        let root = DeTable::parse(self.text).ok()?;
        let mut offset = None;
        let mut inside = Inside::Table(root.get_ref());
        for word in key.split('.') {
            let Some((found, value)) = inside.step(word) else {
                break;
            };
            offset = Some(found);
            inside = match value {
                DeValue::Table(table) => Inside::Table(table),
                DeValue::Array(array) => Inside::Array(array),
                _ => break,
            };
        }
        offset
    }
}

/// Something that has keys.
enum Inside<'a> {
    Table(&'a DeTable<'a>),
    Array(&'a DeArray<'a>),
}

impl<'a> Inside<'a> {
    /// Where a key is, and its value.
    fn step(&self, word: &str) -> Option<(usize, &'a DeValue<'a>)> {
        match self {
            Self::Table(table) => {
                let (name, value) = table.iter().find(|(name, _)| name.get_ref() == word)?;
                Some((name.span().start, value.get_ref()))
            }
            Self::Array(array) => {
                let value = array.get(word.parse::<usize>().ok()?)?;
                Some((value.span().start, value.get_ref()))
            }
        }
    }
}
