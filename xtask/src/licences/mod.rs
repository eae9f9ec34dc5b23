//! `cargo xtask licences`: what may be linked into this program.
//!
//! The rules are `deny.toml`, the file of cargo-deny, so that who has that tool gets the same answer
//! from it; this check needs nothing beyond Cargo. Every package of every supported system and
//! feature counts, tests included.

mod expression;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::failure::{Failure, Outcome};
use crate::workspace::{Metadata, Package, root};
use expression::Expression;
use policy::{Clarification, Policy};

/// The only registry.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks every dependency.
pub(crate) fn run() -> Outcome {
    let policy = Policy::read(&root().join("deny.toml"))?;
    let metadata = Metadata::of_everything(&policy.graph.targets, policy.graph.all_features)?;
    let packages: Vec<&Package> = metadata.packages().collect();
    let mut complaints = Vec::new();
    for package in &packages {
        complaints.extend(licence_complaint(package, &policy));
        complaints.extend(source_complaint(package));
    }
    complaints.extend(version_complaints(&packages, &policy));
    if complaints.is_empty() {
        println!(
            "licences: {} packages, all as deny.toml wants them",
            packages.len()
        );
        return Ok(());
    }
    Err(Failure::Rules {
        what: "dependencies break the rules of deny.toml",
        complaints,
    })
}

/// What is wrong with a package's licence.
fn licence_complaint(package: &Package, policy: &Policy) -> Option<String> {
    let Package { name, version, .. } = package;
    let clarified = policy
        .licenses
        .clarify
        .iter()
        .find(|rule| rule.krate == *name);
    let stated = match clarified {
        Some(rule) if !texts_are_unchanged(rule, package) => {
            return Some(format!(
                "{name} {version}: the licence text is not the one that deny.toml clarifies; read \
                 it again"
            ));
        }
        Some(rule) => &rule.expression,
        None => match &package.license {
            Some(expression) => expression,
            None => return Some(format!("{name} {version} states no licence")),
        },
    };
    let Some(expression) = Expression::parse(stated) else {
        return Some(format!(
            "{name} {version}: cannot read the licence `{stated}`"
        ));
    };
    let exceptions = policy.licenses.exceptions.iter();
    let excepted: Vec<&String> = exceptions
        .filter(|exception| exception.krate == *name)
        .flat_map(|exception| &exception.allow)
        .collect();
    let allowed = |licence: &str| {
        policy
            .licenses
            .allow
            .iter()
            .chain(excepted.iter().copied())
            .any(|known| known == licence)
    };
    (!expression.is_satisfied(&allowed))
        .then(|| format!("{name} {version}: `{stated}` is not allowed"))
}

/// Whether the licence files are those that somebody read when the clarification was written.
fn texts_are_unchanged(rule: &Clarification, package: &Package) -> bool {
    let Some(folder) = package.manifest_path.parent() else {
        return false;
    };
    let unchanged = |file: &policy::LicenseFile| {
        let text = fs::read(folder.join(&file.path));
        text.is_ok_and(|text| crc32(&text) == file.hash)
    };
    !rule.license_files.is_empty() && rule.license_files.iter().all(unchanged)
}

/// CRC-32 (ISO-HDLC), which cargo-deny identifies licence texts by.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(!0, step)
}

/// Whether a package comes from elsewhere than crates.io or this repository.
fn source_complaint(package: &Package) -> Option<String> {
    let source = package
        .source
        .as_ref()
        .filter(|source| *source != CRATES_IO)?;
    Some(format!(
        "{} {} comes from {source}; only crates.io is allowed",
        package.name, package.version
    ))
}

/// Packages that must not be there, or not twice.
fn version_complaints(packages: &[&Package], policy: &Policy) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        versions
            .entry(&package.name)
            .or_default()
            .insert(&package.version);
    }
    let complain = |rule: &policy::Ban| {
        let found = versions.get(rule.krate.as_str())?;
        let list = found.iter().copied().collect::<Vec<_>>().join(", ");
        let (name, reason) = (
            &rule.krate,
            rule.reason.as_deref().unwrap_or("see deny.toml"),
        );
        if rule.deny_multiple_versions {
            return (found.len() > 1)
                .then(|| format!("{name} is there in several versions ({list}): {reason}"));
        }
        Some(format!("{name} {list} is banned: {reason}"))
    };
    policy.bans.deny.iter().filter_map(complain).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    fn package(name: &str, version: &str, license: Option<&str>) -> Package {
        serde_json::from_value(json!({
            "id": format!("{name}@{version}"), "name": name, "version": version,
            "license": license, "source": CRATES_IO, "manifest_path": "Cargo.toml",
            "dependencies": [],
        }))
        .unwrap()
    }

    fn policy() -> Policy {
        toml::from_str(
            r#"
            [licenses]
            allow = ["MIT", "Apache-2.0"]
            exceptions = [{ crate = "colours", allow = ["MPL-2.0"] }]
            [bans]
            deny = [
                { crate = "openssl", reason = "rustls" },
                { crate = "burn", deny-multiple-versions = true, reason = "one tensor type" },
            ]
            "#,
        )
        .unwrap()
    }

    #[test]
    fn licences_are_allowed_for_all_or_for_one() {
        let complaint =
            |name, licence| licence_complaint(&package(name, "1.0.0", licence), &policy());
        assert_eq!(complaint("a", Some("MIT OR GPL-3.0-only")), None);
        assert_eq!(complaint("colours", Some("MPL-2.0")), None);
        let wrong = complaint("a", Some("MPL-2.0")).unwrap();
        assert_eq!(wrong, "a 1.0.0: `MPL-2.0` is not allowed");
        assert!(complaint("a", None).unwrap().contains("states no licence"));
        assert!(
            complaint("a", Some("MIT OR"))
                .unwrap()
                .contains("cannot read")
        );
    }

    #[test]
    fn a_clarification_holds_for_one_text() {
        let folder = tempfile::tempdir().unwrap();
        let text = b"123456789";
        fs::write(folder.path().join("LICENSE"), text).unwrap();
        // The check value in the definition of CRC-32.
        assert_eq!(crc32(text), 0xcbf4_3926);
        let mut package = package("a", "1.0.0", None);
        package.manifest_path = folder.path().join("Cargo.toml");
        let with_hash = |hash| {
            let mut policy = policy();
            policy.licenses.clarify.push(Clarification {
                krate: "a".into(),
                expression: "MIT".into(),
                license_files: vec![policy::LicenseFile {
                    path: PathBuf::from("LICENSE"),
                    hash,
                }],
            });
            policy
        };
        assert_eq!(licence_complaint(&package, &with_hash(0xcbf4_3926)), None);
        assert!(
            licence_complaint(&package, &with_hash(1))
                .unwrap()
                .contains("read it again")
        );
    }

    #[test]
    fn banned_and_doubled_packages_are_named() {
        let packages = [
            package("burn", "0.22.1", None),
            package("burn", "0.23.0", None),
            package("openssl", "0.10.0", None),
            package("rand", "0.8.0", None),
            package("rand", "0.9.0", None),
        ];
        let packages: Vec<&Package> = packages.iter().collect();
        assert_eq!(
            version_complaints(&packages, &policy()),
            [
                "openssl 0.10.0 is banned: rustls",
                "burn is there in several versions (0.22.1, 0.23.0): one tensor type",
            ]
        );
    }

    #[test]
    fn other_sources_are_refused() {
        let mut package = package("a", "1.0.0", Some("MIT"));
        assert_eq!(source_complaint(&package), None);
        package.source = Some("git+https://example.org/a".into());
        assert!(
            source_complaint(&package)
                .unwrap()
                .contains("only crates.io")
        );
    }

    #[test]
    fn the_projects_own_rules_are_readable() {
        let policy = Policy::read(&root().join("deny.toml")).unwrap();
        assert!(policy.licenses.allow.iter().any(|licence| licence == "MIT"));
    }
}
