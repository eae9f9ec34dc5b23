//! What loading did: how much was loaded, and which tensors of the file nobody asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use crate::error::{WeightsError, listed};

/// The outcome of [`crate::load_into`].
#[derive(Debug, Clone, PartialEq)]
pub struct LoadReport {
    /// The checkpoint.
    pub location: PathBuf,
    /// Parameters (tensors) that were filled.
    pub tensors: usize,
    /// Numbers in them.
    pub parameters: u64,
    /// Their size in memory.
    pub bytes: u64,
    /// Keys that were not used and are known not to be, sorted.
    pub ignored: Vec<String>,
    /// Keys that were not used although nothing says so, sorted. A fused tensor of which only some
    /// rows were used stands here too.
    pub unused: Vec<String>,
    /// Time taken.
    pub seconds: f64,
}

impl LoadReport {
    /// One report for several modules that were loaded from the same checkpoint: what one module
    /// leaves, another may use, so a key is unused only if all of them left it.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let left_by = |report: &Self| -> BTreeSet<String> {
            let keys = report.ignored.iter().chain(&report.unused);
            keys.cloned().collect()
        };
        let ignored: BTreeSet<&String> = self.ignored.iter().chain(&other.ignored).collect();
        let (ignored, unused) = left_by(&self)
            .intersection(&left_by(&other))
            .cloned()
            .partition(|key| ignored.contains(key));
        Self {
            location: self.location,
            tensors: self.tensors + other.tensors,
            parameters: self.parameters + other.parameters,
            bytes: self.bytes + other.bytes,
            ignored,
            unused,
            seconds: self.seconds + other.seconds,
        }
    }

    /// Makes tensors that were neither used nor ignored an error.
    ///
    /// # Errors
    /// [`WeightsError::Unused`] with their keys.
    pub fn deny_unused(self) -> Result<Self, WeightsError> {
        if self.unused.is_empty() {
            Ok(self)
        } else {
            Err(WeightsError::Unused {
                location: self.location,
                keys: self.unused,
            })
        }
    }
}

impl fmt::Display for LoadReport {
    /// `loaded 291 tensors, 303.5 M parameters, 1.21 GB in 0.84 s (1.45 GB/s); ignored 197;
    /// unused 1: logit_scale`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.bytes as f64 / 1e6;
        let bytes = match megabytes >= 1000.0 {
            true => format!("{:.2} GB", megabytes / 1e3),
            false => format!("{megabytes:.1} MB"),
        };
        write!(
            f,
            "loaded {} tensors, {:.1} M parameters, {bytes} in {:.2} s ({:.2} GB/s)",
            self.tensors,
            self.parameters as f64 / 1e6,
            self.seconds,
            megabytes / 1e3 / self.seconds.max(1e-9),
        )?;
        if !self.ignored.is_empty() {
            write!(f, "; ignored {}", self.ignored.len())?;
        }
        if !self.unused.is_empty() {
            let keys = listed(self.unused.iter());
            write!(f, "; unused {}: {keys}", self.unused.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ignored: &[&str], unused: &[&str]) -> LoadReport {
        let owned = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect();
        LoadReport {
            location: PathBuf::from("x"),
            tensors: 2,
            parameters: 1_500_000,
            bytes: 6_000_000,
            ignored: owned(ignored),
            unused: owned(unused),
            seconds: 0.5,
        }
    }

    #[test]
    fn merging_keeps_what_every_module_left() {
        // `a` is used by the second, `b` by the first; `t` is ignored by one only.
        let first = report(&["t"], &["a", "z"]);
        let second = report(&[], &["b", "t", "z"]);
        let merged = first.merge(second);
        assert_eq!(merged.ignored, ["t"]);
        assert_eq!(merged.unused, ["z"]);
        assert_eq!((merged.tensors, merged.parameters), (4, 3_000_000));
        assert!(merged.deny_unused().is_err());
    }

    #[test]
    fn display_names_the_unused_keys() {
        let text = report(&["t"], &["logit_scale"]).to_string();
        assert_eq!(
            text,
            "loaded 2 tensors, 1.5 M parameters, 6.0 MB in 0.50 s (0.01 GB/s); ignored 1; \
             unused 1: logit_scale"
        );
    }
}
