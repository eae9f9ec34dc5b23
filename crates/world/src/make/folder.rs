//! The folder of a world: written under another name, and given its own when it is whole.

use std::fs;
use std::path::{Path, PathBuf};

use super::{MakeError, MakeOptions, MakeReport};
use crate::error::WorldError;

/// The file that says what a world is; written last.
pub const WORLD_FILE: &str = "world.json";

/// What is in the way of a new world.
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// An empty folder.
    Empty,
    /// A world with the same options.
    Same(Box<MakeReport>),
    /// A world with other options, which may be replaced.
    Replaceable,
}

/// Looks at the folder.
///
/// # Errors
/// [`MakeError::NotAWorld`] if there are files of somebody else, and [`MakeError::OtherWorld`] if
/// there is another world and `options` do not say to replace it.
pub(super) fn look(folder: &Path, options: &MakeOptions) -> Result<Found, MakeError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(source) => {
            return Err(MakeError::Read {
                path: folder.to_owned(),
                source,
            });
        }
    };
    if entries.count() == 0 {
        return Ok(Found::Empty);
    }
    if !folder.join(WORLD_FILE).is_file() {
        return Err(MakeError::NotAWorld {
            folder: folder.to_owned(),
        });
    }
    if options.force {
        return Ok(Found::Replaceable);
    }
    let report = super::read(folder)?;
    if report.is_of(options) {
        return Ok(Found::Same(Box::new(report)));
    }
    Err(MakeError::OtherWorld {
        folder: folder.to_owned(),
    })
}

fn cannot_write(path: &Path) -> impl FnOnce(std::io::Error) -> MakeError {
    let path = path.to_owned();
    move |source| WorldError::Write { path, source }.into()
}

/// A world that is being made, beside where it will be.
pub(super) struct Unfinished {
    /// Where its files go.
    pub path: PathBuf,
    folder: PathBuf,
}

impl Unfinished {
    /// Makes the temporary folder. What an interrupted run has left there is removed.
    pub fn begin(folder: &Path) -> Result<Self, MakeError> {
        let name = folder.file_name().ok_or_else(|| MakeError::NoName {
            folder: folder.to_owned(),
        })?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".unfinished");
        let path = folder.with_file_name(hidden);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(cannot_write(&path))?;
        }
        fs::create_dir_all(&path).map_err(cannot_write(&path))?;
        Ok(Self {
            path,
            folder: folder.to_owned(),
        })
    }

    /// Gives the world its name, in place of what was found there.
    pub fn finish(self, found: &Found) -> Result<(), MakeError> {
        let failed = cannot_write(&self.folder);
        let done = match found {
            Found::Nothing => Ok(()),
            Found::Empty => fs::remove_dir(&self.folder),
            Found::Same(_) | Found::Replaceable => self.remove_old(),
        };
        done.and_then(|()| fs::rename(&self.path, &self.folder))
            .map_err(failed)
    }

    /// Removes what a world consists of. A folder with anything else in it is left, and the rename
    /// that follows fails.
    fn remove_old(&self) -> std::io::Result<()> {
        // First, so that what is left after a kill is not taken for a world.
        fs::remove_file(self.folder.join(WORLD_FILE))?;
        for part in ["train", "test"] {
            let part = self.folder.join(part);
            if part.exists() {
                fs::remove_dir_all(part)?;
            }
        }
        fs::remove_dir(&self.folder)
    }
}
