//! What can be wrong with samples, one by one and as files.
//!
//! A [`SampleError`] is about one sample and always says where it is written; training counts it,
//! lists it and goes on without the sample ([`crate::faults`]). A [`DataError`] is about a file or a
//! folder, or about too many of the former, and ends the run.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opabinia_image::ImageError;
use opabinia_llm::{TemplateError, TokenizerError};

use crate::faults::FaultKind;

/// Where a sample is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file of samples.
    pub file: Arc<Path>,
    /// Its line, from 1; in a JSON array, the line where the element begins.
    pub line: u64,
}

impl Place {
    /// A line of a file.
    pub fn new(file: impl Into<Arc<Path>>, line: u64) -> Self {
        Self {
            file: file.into(),
            line,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}:{}`", self.file.display(), self.line)
    }
}

/// Why one sample cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The line cannot be read from the file.
    #[error("{place}: cannot read the sample")]
    Io {
        /// Where it is written.
        place: Place,
        /// What the system says.
        source: io::Error,
    },
    /// The line is longer than any sample is.
    #[error(
        "{place}: the sample has {bytes} bytes, the limit is {limit}; is a line break missing?"
    )]
    TooLong {
        /// Where it is written.
        place: Place,
        /// Its size.
        bytes: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// The line is not JSON.
    #[error("{place}: the line is not one JSON object")]
    Json {
        /// Where it is written.
        place: Place,
        /// What is wrong, and in which column.
        source: serde_json::Error,
    },
    /// The JSON is no sample.
    #[error("{place}: {what}")]
    Schema {
        /// Where it is written.
        place: Place,
        /// What was found, and what a sample has there.
        what: String,
    },
    /// Placeholders and pictures do not belong together.
    #[error("{place}: {what}")]
    Placeholder {
        /// Where it is written.
        place: Place,
        /// What was found, and what to do.
        what: String,
    },
    /// The picture is not where the sample says.
    #[error("{place}: no picture `{}`{}", .path.display(), hint(.similar))]
    MissingPicture {
        /// Where the sample is written.
        place: Place,
        /// Where the picture should be.
        path: PathBuf,
        /// A file of the same folder whose name differs in the case of letters only.
        similar: Option<String>,
    },
    /// The sample asks for a file outside of the folder of pictures.
    #[error("{place}: the picture `{image}` is outside of the folder of pictures")]
    PictureOutside {
        /// Where the sample is written.
        place: Place,
        /// What it says.
        image: String,
    },
    /// The picture cannot be decoded.
    #[error("{place}: cannot use its picture")]
    BrokenPicture {
        /// Where the sample is written.
        place: Place,
        /// What is wrong with the picture.
        source: Box<ImageError>,
    },
    /// The template cannot render the conversation.
    #[error("{place}: cannot render the conversation")]
    Template {
        /// Where it is written.
        place: Place,
        /// What is wrong.
        source: TemplateError,
    },
    /// The tokenizer cannot write the conversation.
    #[error("{place}: cannot tokenize the conversation")]
    Tokenizer {
        /// Where it is written.
        place: Place,
        /// What is wrong.
        source: Box<TokenizerError>,
    },
    /// There would be nothing to learn.
    #[error("{place}: no trainable token: {what}")]
    NoTrainableToken {
        /// Where it is written.
        place: Place,
        /// Why not, and what to do.
        what: String,
    },
}

fn hint(similar: &Option<String>) -> String {
    match similar {
        Some(name) => format!("; there is `{name}`, and the case of letters matters"),
        None => String::new(),
    }
}

impl SampleError {
    /// Where the sample is written.
    pub fn place(&self) -> &Place {
        match self {
            Self::Io { place, .. }
            | Self::TooLong { place, .. }
            | Self::Json { place, .. }
            | Self::Schema { place, .. }
            | Self::Placeholder { place, .. }
            | Self::MissingPicture { place, .. }
            | Self::PictureOutside { place, .. }
            | Self::BrokenPicture { place, .. }
            | Self::Template { place, .. }
            | Self::Tokenizer { place, .. }
            | Self::NoTrainableToken { place, .. } => place,
        }
    }

    /// Under what it is counted.
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Io { .. } => FaultKind::Unreadable,
            Self::TooLong { .. } | Self::Json { .. } => FaultKind::BrokenJson,
            Self::Schema { .. } | Self::Template { .. } | Self::Tokenizer { .. } => {
                FaultKind::Schema
            }
            Self::Placeholder { .. } => FaultKind::PlaceholderMismatch,
            Self::MissingPicture { .. } | Self::PictureOutside { .. } => FaultKind::MissingPicture,
            Self::BrokenPicture { .. } => FaultKind::BrokenPicture,
            Self::NoTrainableToken { .. } => FaultKind::NoTrainableToken,
        }
    }

    /// The message and those of its causes, in one line.
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// Why data cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder cannot be read or written.
    #[error("cannot {doing} `{}`", .path.display())]
    Io {
        /// What was being done: "read", "write", ….
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of samples has none.
    #[error("`{}` has no samples; it should hold one JSON object per line, or one array of them", .path.display())]
    NoSamples {
        /// The file.
        path: PathBuf,
    },
    /// A JSON array is cut off.
    #[error("`{}`: the array that begins the file never ends; the file is cut off", .path.display())]
    OpenArray {
        /// The file.
        path: PathBuf,
    },
    /// Something follows the array.
    #[error("`{}:{line}`: something follows the array of samples; a file is one array or one object per line", .path.display())]
    AfterArray {
        /// The file.
        path: PathBuf,
        /// The line.
        line: u64,
    },
    /// More samples than can be counted.
    #[error(
        "{samples} samples are too many, the limit is {}; train on fewer files",
        u32::MAX
    )]
    TooManySamples {
        /// Number of samples.
        samples: u64,
    },
    /// Too many samples cannot be used.
    #[error("{summary}; more than `data.max_bad` ({limit}) allows{listed}")]
    TooManyFaults {
        /// How many of which kind.
        summary: String,
        /// The limit.
        limit: String,
        /// Where all of them are listed.
        listed: String,
    },
    /// The template cannot be trained with.
    #[error("cannot train with the template `{template}`")]
    Template {
        /// Its name.
        template: String,
        /// Why not.
        source: TemplateError,
    },
}

impl DataError {
    /// For `map_err` on file operations.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}
