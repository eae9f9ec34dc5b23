//! The workspace as Cargo sees it.

use std::collections::HashSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::failure::Failure;

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable for what it runs; the other one is where this was compiled.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package
        .parent()
        .map_or_else(|| package.clone(), Path::to_path_buf)
}

/// The Cargo that runs this program, in the folder of the workspace.
pub(crate) fn cargo() -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(root());
    // `cargo run` describes this package to this program. Build scripts that watch those variables
    // (ring's does) would run again, and all above them be compiled again, each time a developer
    // changes between `cargo test` and `cargo xtask`.
    for (name, _) in env::vars_os() {
        if describes_package(&name) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether `cargo run` sets this variable to describe the package that it runs.
fn describes_package(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    let arguments = command
        .get_args()
        .map(|argument| argument.to_string_lossy());
    let words = std::iter::once(name.to_string_lossy()).chain(arguments);
    words.collect::<Vec<_>>().join(" ")
}

/// What `cargo metadata` says.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    packages: Vec<Package>,
    resolve: Option<Resolve>,
    /// Where Cargo puts what it builds.
    pub(crate) target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
}

/// A package of the workspace or below it.
#[derive(Deserialize)]
pub(crate) struct Package {
    id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression.
    pub(crate) license: Option<String>,
    /// Where it was fetched from; `None` for packages of this repository.
    pub(crate) source: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as a manifest states it.
#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

impl Metadata {
    /// Only the packages of the workspace; reads nothing from the network.
    pub(crate) fn of_members() -> Result<Self, Failure> {
        Self::read(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))
    }

    /// Every package that can be part of a build for one of `targets` (all if empty).
    pub(crate) fn of_everything(targets: &[String], all_features: bool) -> Result<Self, Failure> {
        let mut command = cargo();
        command.args(["metadata", "--format-version", "1", "--locked"]);
        if all_features {
            command.arg("--all-features");
        }
        for target in targets {
            command.args(["--filter-platform", target]);
        }
        Self::read(&mut command)
    }

    fn read(command: &mut Command) -> Result<Self, Failure> {
        let text = output_of(command)?;
        serde_json::from_str(&text).map_err(|source| Failure::Output {
            command: shown(command),
            line: text.chars().take(200).collect(),
            source,
        })
    }

    /// The packages that the chosen features and targets need; all if nothing was resolved.
    pub(crate) fn packages(&self) -> impl Iterator<Item = &Package> {
        let nodes = self.resolve.as_ref().map(|resolve| &resolve.nodes);
        let needed: Option<HashSet<&str>> =
            nodes.map(|nodes| nodes.iter().map(|node| node.id.as_str()).collect());
        self.packages
            .iter()
            .filter(move |package| needed.as_ref().is_none_or(|ids| ids.contains(&*package.id)))
    }
}

/// What a command prints; what it complains about goes to the terminal.
pub(crate) fn output_of(command: &mut Command) -> Result<String, Failure> {
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|source| Failure::Run {
            command: shown(command),
            source,
        })?;
    if !output.status.success() {
        return Err(Failure::Command {
            command: shown(command),
            status: output.status,
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_describes_this_package_is_not_handed_on() {
        for name in ["CARGO_PKG_VERSION", "CARGO_MANIFEST_DIR"] {
            assert!(describes_package(OsStr::new(name)));
        }
        for name in ["CARGO", "CARGO_TARGET_DIR", "CARGO_HOME", "PATH"] {
            assert!(!describes_package(OsStr::new(name)));
        }
    }

    #[test]
    fn a_command_is_shown_as_typed() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["test", "--release"]);
        assert_eq!(shown(&command), "cargo test --release");
    }
}
