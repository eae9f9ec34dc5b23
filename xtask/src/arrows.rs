//! `cargo xtask arrows`: dependencies between crates point one way.
//!
//! The table below is ARCHITECTURE.md's. A crate that would need an arrow that is not in it wants a
//! trait instead, or the architecture wants a discussion; either way not a line in a manifest that
//! nobody sees. Only normal and build dependencies count: tests may look at anything.

use crate::failure::{Failure, Outcome};
use crate::workspace::{Metadata, Package};

/// A crate, and the crates of ours that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("opabinia-endpoint", &[]),
    ("opabinia-image", &[]),
    ("opabinia-kernels", &[]),
    ("opabinia-nn", &["opabinia-kernels"]),
    ("opabinia-unify", &[]),
    ("opabinia-weights", &["opabinia-nn"]),
    (
        "opabinia-vision",
        &["opabinia-image", "opabinia-nn", "opabinia-weights"],
    ),
    ("opabinia-connector", &["opabinia-nn"]),
    ("opabinia-llm", &["opabinia-nn"]),
    (
        "opabinia-model",
        &[
            "opabinia-connector",
            "opabinia-image",
            "opabinia-llm",
            "opabinia-nn",
            "opabinia-vision",
            "opabinia-weights",
        ],
    ),
    ("opabinia-data", &["opabinia-image", "opabinia-llm"]),
    (
        "opabinia-curate",
        &["opabinia-data", "opabinia-endpoint", "opabinia-image"],
    ),
    ("opabinia-world", &["opabinia-image"]),
    ("opabinia-cvbench", &["opabinia-eval", "opabinia-image"]),
    (
        "opabinia-engine",
        &["opabinia-data", "opabinia-endpoint", "opabinia-image"],
    ),
    (
        "opabinia-eval",
        &[
            "opabinia-data",
            "opabinia-endpoint",
            "opabinia-image",
            "opabinia-llm",
            "opabinia-model",
            "opabinia-nn",
            "opabinia-vision",
        ],
    ),
    (
        "opabinia-server",
        &["opabinia-image", "opabinia-llm", "opabinia-model"],
    ),
    (
        "opabinia-train",
        &[
            "opabinia-connector",
            "opabinia-data",
            "opabinia-image",
            "opabinia-llm",
            "opabinia-model",
            "opabinia-nn",
            "opabinia-vision",
            "opabinia-weights",
        ],
    ),
    (
        "opabinia-cli",
        &[
            "opabinia-connector",
            "opabinia-cvbench",
            "opabinia-curate",
            "opabinia-data",
            "opabinia-endpoint",
            "opabinia-engine",
            "opabinia-eval",
            "opabinia-image",
            "opabinia-llm",
            "opabinia-model",
            "opabinia-nn",
            "opabinia-server",
            "opabinia-train",
            "opabinia-vision",
            "opabinia-weights",
            "opabinia-world",
        ],
    ),
    ("xtask", &[]),
];

/// Checks the workspace.
pub(crate) fn run() -> Outcome {
    let metadata = Metadata::of_members()?;
    let complaints = complaints(metadata.packages());
    if complaints.is_empty() {
        println!(
            "arrows: {} crates, each knows only what it may",
            ARROWS.len()
        );
        return Ok(());
    }
    Err(Failure::Rules {
        what: "dependencies between crates do not follow ARCHITECTURE.md",
        complaints,
    })
}

/// What is wrong with the dependencies of the workspace's packages.
fn complaints<'a>(packages: impl Iterator<Item = &'a Package>) -> Vec<String> {
    let packages: Vec<&Package> = packages.collect();
    let ours = |name: &str| packages.iter().any(|package| package.name == name);
    let complain = |package: &&Package| -> Vec<String> {
        let name = &package.name;
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| known == name) else {
            return vec![format!(
                "`{name}` is not in the table of xtask/src/arrows.rs; say there and in \
                 ARCHITECTURE.md what it may depend on"
            )];
        };
        let dependencies = package.dependencies.iter();
        let counted = dependencies.filter(|dependency| dependency.kind.as_deref() != Some("dev"));
        counted
            .map(|dependency| &dependency.name)
            .filter(|dependency| ours(dependency) && !allowed.contains(&dependency.as_str()))
            .map(|dependency| format!("`{name}` must not depend on `{dependency}`"))
            .collect()
    };
    packages.iter().flat_map(complain).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies: Vec<_> = dependencies
            .iter()
            .map(|(name, kind)| json!({"name": name, "kind": kind}))
            .collect();
        serde_json::from_value(json!({
            "id": name, "name": name, "version": "0.1.0", "license": null, "source": null,
            "manifest_path": "Cargo.toml", "dependencies": dependencies,
        }))
        .unwrap()
    }

    #[test]
    fn the_workspace_follows_its_architecture() {
        let metadata = Metadata::of_members().unwrap();
        assert_eq!(complaints(metadata.packages()), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_arrow_is_named() {
        let packages = [
            package("opabinia-vision", &[("opabinia-llm", None), ("burn", None)]),
            package("opabinia-llm", &[("opabinia-vision", Some("dev"))]),
            package("opabinia-connector", &[("opabinia-llm", Some("build"))]),
        ];
        assert_eq!(
            complaints(packages.iter()),
            [
                "`opabinia-vision` must not depend on `opabinia-llm`",
                "`opabinia-connector` must not depend on `opabinia-llm`",
            ]
        );
    }

    #[test]
    fn a_crate_without_a_row_is_refused() {
        let found = complaints([package("opabinia-new", &[])].iter());
        assert!(
            found[0].contains("`opabinia-new` is not in the table"),
            "{found:?}"
        );
    }
}
