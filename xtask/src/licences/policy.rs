//! The part of cargo-deny's `deny.toml` that this project uses.
//!
//! A key that is not here is an error, not a rule that is silently left out.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::failure::Failure;

/// All rules.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) graph: Graph,
    pub(super) licenses: Licenses,
    pub(super) bans: Bans,
    pub(super) sources: Sources,
}

/// Which packages count.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Graph {
    /// Systems the program is built for.
    pub(super) targets: Vec<String>,
    pub(super) all_features: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Licenses {
    /// Names of SPDX licences, `WITH` an exception where that is meant.
    pub(super) allow: Vec<String>,
    pub(super) exceptions: Vec<LicenseException>,
    pub(super) clarify: Vec<Clarification>,
}

/// Licences that one crate may have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LicenseException {
    #[serde(rename = "crate")]
    pub(super) krate: String,
    pub(super) allow: Vec<String>,
}

/// The licence of a crate whose manifest does not state it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Clarification {
    #[serde(rename = "crate")]
    pub(super) krate: String,
    pub(super) expression: String,
    pub(super) license_files: Vec<LicenseFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LicenseFile {
    pub(super) path: PathBuf,
    /// CRC-32 of its bytes.
    pub(super) hash: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Bans {
    /// cargo-deny's own: not checked here beyond `deny`.
    #[serde(rename = "multiple-versions")]
    _multiple_versions: Option<Leniency>,
    pub(super) deny: Vec<Ban>,
}

/// A crate that must not be there, or not twice.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Ban {
    #[serde(rename = "crate")]
    pub(super) krate: String,
    /// Only a second version is refused.
    #[serde(default)]
    pub(super) deny_multiple_versions: bool,
    pub(super) reason: Option<String>,
}

/// Always checked as if all were `deny`; the keys are for cargo-deny.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Sources {
    #[serde(rename = "unknown-registry")]
    _unknown_registry: Option<Strictness>,
    #[serde(rename = "unknown-git")]
    _unknown_git: Option<Strictness>,
}

/// The only value that is checked as it says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Leniency {
    Allow,
}

/// The only value that is checked as it says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Strictness {
    Deny,
}

impl Policy {
    /// Reads `deny.toml`.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|source| Failure::File {
            path: path.to_path_buf(),
            source,
        })?;
        toml::from_str(&text).map_err(|source| Failure::Policy {
            path: path.to_path_buf(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_not_understood_is_an_error() {
        let error = toml::from_str::<Policy>("[licenses]\nunlicensed = \"deny\"").unwrap_err();
        assert!(error.to_string().contains("unlicensed"), "{error}");
        assert!(toml::from_str::<Policy>("[sources]\nunknown-git = \"warn\"").is_err());
    }
}
