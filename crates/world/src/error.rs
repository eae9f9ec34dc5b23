//! What can go wrong when pictures of the world are written.
//!
//! Drawing itself cannot fail: it is a pure function of a seed.

use std::path::PathBuf;

/// A picture or its annotations could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The system refused to create or write a file or folder.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// What was being written.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The system refused to write to a stream that has no path.
    #[error("cannot write the {what}")]
    Stream {
        /// What was being written.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A record has no JSON form.
    #[error("cannot write the {what} as JSON")]
    Json {
        /// What was being written.
        what: &'static str,
        /// The serializer's reason.
        #[source]
        source: serde_json::Error,
    },
    /// A picture has no PNG form.
    #[error("cannot write the picture `{}`", path.display())]
    Picture {
        /// Where it was to go.
        path: PathBuf,
        /// The picture crate's reason.
        #[source]
        source: opabinia_image::ImageError,
    },
    /// The name of a picture has no last part, so nothing can be named after it.
    #[error("`{name}` is not the name of a picture file, wanted for instance `000001.png`")]
    FileName {
        /// The name.
        name: String,
    },
}
