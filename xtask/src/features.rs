//! `cargo xtask features`: do the GPU backends, the dashboard and the cluster still compile?
//!
//! Each is a Cargo feature of the binary. They are checked in a target directory of their own,
//! because a feature changes the dependencies' features and would throw away what the tests built.

use clap::Args;

use crate::failure::{Failure, Outcome};
use crate::workspace::{Metadata, cargo, shown};

/// The features of the binary.
const ALL: [&str; 6] = ["cluster", "cuda", "dashboard", "metal", "rocm", "vulkan"];

/// Those that compile on this system without a vendor's toolkit.
const HERE: &[&str] = if cfg!(target_os = "macos") {
    &["cluster", "dashboard", "metal"]
} else {
    &["cluster", "dashboard", "vulkan", "cuda", "rocm"]
};

/// Type-checks the optional features that this system can compile.
#[derive(Args)]
pub(crate) struct Features {
    /// Which ones; those that this system can compile, if none is named.
    names: Vec<String>,
}

impl Features {
    /// Checks one feature after the other.
    pub(crate) fn run(self) -> Outcome {
        let unknown = self.names.iter().find(|name| !ALL.contains(&name.as_str()));
        if let Some(name) = unknown {
            return Err(Failure::Unknown {
                kind: "feature",
                name: name.clone(),
                known: ALL.to_vec(),
            });
        }
        let named: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let chosen = if named.is_empty() { HERE } else { &named };
        let target = Metadata::of_members()?.target_directory.join("features");
        for feature in chosen {
            let mut command = cargo();
            command
                .args([
                    "check",
                    "--release",
                    "--locked",
                    "--package",
                    "opabinia-cli",
                ])
                .args(["--features", feature])
                .env("CARGO_TARGET_DIR", &target);
            println!("$ {}", shown(&command));
            let status = command.status().map_err(|source| Failure::Run {
                command: shown(&command),
                source,
            })?;
            if !status.success() {
                return Err(Failure::Command {
                    command: shown(&command),
                    status,
                });
            }
        }
        Ok(())
    }
}
