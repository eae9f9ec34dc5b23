//! Where in a definition a key is, so that errors can name the line.

use std::path::Path;

use toml::de::{DeArray, DeTable, DeValue};

use super::error::{BenchmarkError, Place, nearest};

/// A definition and its text.
pub(super) struct Places<'a> {
    pub path: &'a Path,
    pub text: &'a str,
}

impl Places<'_> {
    /// An error of the TOML reader, with the nearest name where a name is unknown.
    pub(super) fn explain(&self, error: &toml::de::Error) -> BenchmarkError {
        let place = self.at(error.span().map(|span| span.start));
        let message = error.message();
        // serde's own sentence: "unknown field `x`, expected one of `a`, `b`".
        let mut names = message.split('`').skip(1).step_by(2).map(str::to_owned);
        let is_name = ["unknown field", "unknown variant"];
        let is_name = is_name.iter().any(|start| message.starts_with(start));
        match names.next().filter(|_| is_name) {
            Some(name) => {
                let allowed: Vec<String> = names.collect();
                BenchmarkError::UnknownKey {
                    place,
                    nearest: nearest(&name, allowed.iter().map(String::as_str)),
                    name,
                    allowed,
                }
            }
            None => BenchmarkError::Toml {
                place,
                message: message.to_owned(),
            },
        }
    }

    /// An error about the value of a key.
    pub(super) fn refuse(&self, key: &str, problem: &str) -> BenchmarkError {
        BenchmarkError::Value {
            place: self.at(self.offset(key)),
            key: key.to_owned(),
            problem: problem.to_owned(),
        }
    }

    fn at(&self, offset: Option<usize>) -> Place {
        let before = offset.and_then(|offset| self.text.as_bytes().get(..offset));
        Place {
            path: self.path.to_owned(),
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
