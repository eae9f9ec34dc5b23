//! TOML files, with complaints that say the line and the name that was meant.

use std::path::Path;

use crate::error::CurateError;

/// How alike names must be for one to be offered in place of the other.
const SIMILAR: f64 = 0.7;

/// Reads a TOML file.
pub(crate) fn read_toml<T: serde::de::DeserializeOwned>(
    path: &Path,
    doing: &'static str,
) -> Result<T, CurateError> {
    let text = std::fs::read_to_string(path).map_err(CurateError::io(doing, path))?;
    toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map(|text| 1 + text.matches('\n').count());
        let name = path.display();
        CurateError::Recipe {
            place: line.map_or_else(|| name.to_string(), |line| format!("{name}:{line}")),
            problem: explain(error.message()),
        }
    })
}

/// Adds the nearest name to serde's "unknown field `x`, expected one of `a`, `b`".
fn explain(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    match names.next() {
        Some(name) if message.starts_with("unknown") => with_nearest(message, name, names),
        _ => message.to_owned(),
    }
}

/// A message, with the known name that is most like the unknown one.
pub(crate) fn with_nearest<'a>(
    message: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> String {
    let rated = known.map(|known| (strsim::jaro_winkler(known, name), known));
    let alike = rated.filter(|(similarity, _)| *similarity > SIMILAR);
    match alike.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((_, nearest)) => format!("{message}; did you mean `{nearest}`?"),
        None => message.to_owned(),
    }
}
