//! What a file is: its bytes say so, not its name.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use opabinia_data::parse_json;
use opabinia_data::start::Start;
use serde::{Deserialize, Serialize};

use super::normalise::is_foreign;
use crate::error::CurateError;
use crate::lines::Lines;

/// How much of a file is looked at.
pub(super) const HEAD_BYTES: u64 = 1 << 20;

/// How many records of a file of lines are looked at.
const RECORDS: usize = 16;

/// Arrow files are what a library keeps for itself; data sets are published as Parquet.
pub(super) fn arrow_is_refused(path: &Path) -> CurateError {
    CurateError::Format {
        path: path.to_owned(),
        problem: "it is Arrow, as `save_to_disk` of Hugging Face's `datasets` writes it, which is not read; write it \
                  as Parquet by `datasets.load_from_disk(FOLDER).to_parquet(FILE)`"
            .to_owned(),
    }
}

/// What a file of samples is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A sample per line, as this program writes and curates them.
    Lines,
    /// Lines in which somebody else's form of a conversation is.
    Chat,
    /// An array of JSON.
    Array,
    /// Parquet.
    Parquet,
    /// A tar file.
    Tar,
    /// Something inside of gzip.
    Gzip,
    /// Something inside of Zstandard.
    Zstd,
}

impl Kind {
    /// What a file is.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(path: &Path) -> Result<Self, CurateError> {
        let io = || CurateError::io("read", path);
        let mut file = BufReader::new(File::open(path).map_err(io())?);
        let mut head = Vec::new();
        let first = (&mut file).take(HEAD_BYTES).read_to_end(&mut head);
        first.map_err(io())?;
        Ok(match Start::of(&head) {
            Start::Parquet => Self::Parquet,
            Start::Gzip => Self::Gzip,
            Start::Zstd => Self::Zstd,
            Start::Tar => Self::Tar,
            Start::Arrow => return Err(arrow_is_refused(path)),
            Start::Array => Self::Array,
            Start::Lines => Self::of_lines(head.as_slice().chain(file)).map_err(io())?,
        })
    }

    /// One of the first records is enough: in a file of somebody else's, those without picture or system
    /// message look like ours, and ours come through the reading of the others as they are.
    fn of_lines(file: impl BufRead) -> io::Result<Self> {
        let mut lines = Lines::new(file);
        let (mut bytes, mut records) = (0, 0);
        // A line that has begun is read to its end: a picture in it makes it long.
        while bytes < HEAD_BYTES && records < RECORDS {
            let line = match lines.next_line() {
                Ok(Some(line)) => line.text,
                Ok(None) => break,
                // It is longer than any sample may be, which is found out where samples are read.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => break,
                Err(error) => return Err(error),
            };
            bytes += line.len() as u64 + 1;
            if let Ok(record) = parse_json(line) {
                if is_foreign(&record) {
                    return Ok(Self::Chat);
                }
                records += 1;
            }
        }
        Ok(Self::Lines)
    }

    /// Whether ranges of bytes can be copied from it.
    pub fn is_lines(self) -> bool {
        self == Self::Lines
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lines => "lines of samples",
            Self::Chat => "lines of chat messages",
            Self::Array => "an array of JSON",
            Self::Parquet => "Parquet",
            Self::Tar => "a tar file",
            Self::Gzip => "compressed with gzip",
            Self::Zstd => "compressed with Zstandard",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_say_what_a_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let kind = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Kind::of(&path).unwrap()
        };
        let ours = r#"{"conversations": [{"from": "human", "value": "a"}]}"#;
        let theirs = r#"{"messages": [{"role": "user", "content": "a"}]}"#;
        let odd = r#"{"conversations": [{"from": "user", "value": "a"}]}"#;
        assert_eq!(kind(b""), Kind::Lines);
        assert_eq!(kind(b"nonsense"), Kind::Lines);
        assert_eq!(kind(ours.as_bytes()), Kind::Lines);
        assert_eq!(kind(format!("{odd}\n{ours}").as_bytes()), Kind::Chat);
        assert_eq!(kind(format!("\n{odd}\nx\n{theirs}").as_bytes()), Kind::Chat);
        // Records of theirs that look like ours come first.
        let late = |before: usize| format!("{}{theirs}", format!("{ours}\n").repeat(before));
        assert_eq!(kind(late(15).as_bytes()), Kind::Chat);
        assert_eq!(kind(late(16).as_bytes()), Kind::Lines);
        assert_eq!(kind(format!("\u{feff}{theirs}").as_bytes()), Kind::Chat);
        assert_eq!(
            kind(theirs.replace('}', ", \"x\": NaN}").as_bytes()),
            Kind::Chat
        );
        assert_eq!(kind(b" [{}]"), Kind::Array);
        assert_eq!(kind(b"PAR1..."), Kind::Parquet);
        assert_eq!(kind(&[0x1F, 0x8B, 8]), Kind::Gzip);
        assert_eq!(kind(&[0x28, 0xB5, 0x2F, 0xFD]), Kind::Zstd);
        // A picture makes the first line longer than what is looked at otherwise.
        let padding = "A".repeat(HEAD_BYTES as usize);
        let long = theirs.replace("\"a\"", &format!("\"{padding}\""));
        assert_eq!(kind(format!("{long}\n{ours}").as_bytes()), Kind::Chat);
        for arrow in [&b"ARROW1\0\0"[..], b"\xFF\xFF\xFF\xFF\x10\0\0\0"] {
            std::fs::write(&path, arrow).unwrap();
            let refused = Kind::of(&path).unwrap_err().to_string();
            assert!(refused.contains("to_parquet"), "{refused}");
        }
    }
}
