//! What can go wrong when a world is made.

use std::path::PathBuf;

use crate::error::WorldError;

/// A world could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// An option is out of range.
    #[error("cannot make a world: `{option}` is {found}, wanted {wanted}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        wanted: String,
    },
    /// The path does not name a folder that can be created.
    #[error("cannot make a world in `{}`: the path ends without a name; name a new folder", folder.display())]
    NoName {
        /// What was given.
        folder: PathBuf,
    },
    /// There are files that are not a world's.
    #[error("cannot make a world in `{}`: it holds other files; name a new or an empty folder", folder.display())]
    NotAWorld {
        /// Which folder.
        folder: PathBuf,
    },
    /// There is another world.
    #[error(
        "cannot make a world in `{}`: it holds a world that was made with other options or by \
         another version, see its world.json; name another folder, or replace it by force",
        folder.display()
    )]
    OtherWorld {
        /// Which folder.
        folder: PathBuf,
    },
    /// `world.json` is not what this program writes.
    #[error("cannot read `{}` as the description of a world; name another folder, or replace it by force", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Something that is there cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The threads could not be started.
    #[error("cannot start {threads} threads; ask for fewer")]
    Threads {
        /// How many were wanted.
        threads: usize,
        /// The system's reason.
        #[source]
        source: rayon::ThreadPoolBuildError,
    },
    /// A picture or a file could not be written.
    #[error(transparent)]
    World(#[from] WorldError),
}
