//! Where the model that ships with the program is.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Path of the model below the folder of the project, or of an installation.
const MODEL: &str = "models/small";

/// The encoder of this name that the shipped model has, if it has it.
pub fn tower(name: &str) -> Option<PathBuf> {
    let folder = model().ok()?.join("towers").join(name.replace('/', "--"));
    folder.is_dir().then_some(folder)
}

/// The shipped model: beside the executable, in a folder above it (`target/release` of a checkout,
/// `bin` of an installation), in the working folder or one above it, or in the checkout that this
/// executable was built from.
pub fn model() -> Result<PathBuf, Failure> {
    let executable = std::env::current_exe().ok();
    let working = std::env::current_dir().ok();
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [executable.as_deref(), working.as_deref(), Some(built_in)];
    places
        .into_iter()
        .flatten()
        .flat_map(Path::ancestors)
        .flat_map(|folder| [folder.join(MODEL), folder.join("share/opabinia").join(MODEL)])
        .find(|folder| folder.join("config.json").is_file())
        .ok_or_else(|| {
            Failure::new(format!(
                "the model that ships with the program was not found: no `{MODEL}` in the folder of \
                 the executable, the working folder, or any folder above them"
            ))
            .hint("pass `--model FOLDER`, or run inside a checkout of the project")
        })
}
