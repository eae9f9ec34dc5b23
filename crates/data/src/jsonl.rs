//! Files of samples, read by place: one pass finds where every sample begins, after which any of
//! them is one read.
//!
//! The reference implementation of Cambrian-1 scans from the first line to the wanted one for every
//! item, half a file per sample; here a sample of a seven-gigabyte file costs its own bytes. The index
//! is eight bytes per sample, and the same pass hashes the file, so that a run can say what it was
//! trained on.
//!
//! A file is LLaVA JSON in either form: one object per line (blank lines and CR LF are fine), or one
//! array of objects. The first byte decides, not the name.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::{DataError, Place, SampleError};
use crate::nesting::{Event, Nesting};
use crate::offsets::Offsets;
use crate::positioned::read_exact_at;
use crate::sample::Sample;
use crate::start::MARK;

/// Far above the longest published sample, some hundred kilobytes of code.
const MAX_SAMPLE_BYTES: u64 = 64 << 20;

/// How much of a file is scanned at once.
const CHUNK_BYTES: usize = 1 << 20;

/// A file of samples with its index.
#[derive(Debug)]
pub struct SampleFile {
    path: Arc<Path>,
    file: File,
    index: Index,
    sha256: [u8; 32],
}

/// Where samples begin.
#[derive(Debug, Default)]
struct Index {
    starts: Vec<u64>,
    /// Where the last sample ends at the latest.
    end: u64,
    /// Where lines stop following samples one by one: (first sample, its line), ascending.
    lines: Vec<(u64, u64)>,
    is_array: bool,
}

impl SampleFile {
    /// Indexes a file in one pass, or takes the [offset index](crate::offsets) beside it.
    ///
    /// # Errors
    /// If the file cannot be read, has no sample, or is an array that never ends or is followed by
    /// something. What is wrong with a single sample shows when it is read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        let mut file = File::open(path).map_err(DataError::io("open", path))?;
        if let Some(offsets) = Offsets::read(path) {
            return Ok(Self {
                path: path.into(),
                file,
                sha256: offsets.sha256,
                index: Index {
                    starts: offsets.starts,
                    end: offsets.bytes,
                    ..Index::default()
                },
            });
        }
        let mut scan = Scan::default();
        let mut hash = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = file.read(&mut chunk).map_err(DataError::io("read", path))?;
            if read == 0 {
                break;
            }
            hash.update(&chunk[..read]);
            scan.take(&chunk[..read]);
        }
        Ok(Self {
            index: scan.finish(path)?,
            path: path.into(),
            file,
            sha256: hash.finalize().into(),
        })
    }

    /// Number of samples, good or bad; blank lines are none.
    pub fn len(&self) -> usize {
        self.index.starts.len()
    }

    /// Whether there is no sample; never true of an opened file.
    pub fn is_empty(&self) -> bool {
        self.index.starts.is_empty()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hash of the file's bytes.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Where sample `i` is written.
    pub fn place(&self, i: usize) -> Place {
        Place::new(Arc::clone(&self.path), self.index.line(i))
    }

    /// Reads sample `i`, from 0.
    ///
    /// # Errors
    /// If it cannot be read or is not a sample.
    ///
    /// # Panics
    /// If there are not that many samples.
    pub fn sample(&self, i: usize) -> Result<Sample, SampleError> {
        let place = self.place(i);
        match self.bytes(i, &place) {
            Ok(bytes) => Sample::parse(self.index.trim(&bytes), place),
            Err(error) => Err(error),
        }
    }

    fn bytes(&self, i: usize, place: &Place) -> Result<Vec<u8>, SampleError> {
        let start = self.index.starts[i];
        let end = self.index.starts.get(i + 1).copied();
        let bytes = end.unwrap_or(self.index.end) - start;
        if bytes > MAX_SAMPLE_BYTES {
            return Err(SampleError::TooLong {
                place: place.clone(),
                bytes,
                limit: MAX_SAMPLE_BYTES,
            });
        }
        // Below the limit, so it fits any `usize`.
        let mut buffer = vec![0; bytes as usize];
        read_exact_at(&self.file, &mut buffer, start).map_err(|source| SampleError::Io {
            place: place.clone(),
            source,
        })?;
        Ok(buffer)
    }
}

impl Index {
    fn line(&self, i: usize) -> u64 {
        let i = i as u64;
        let known = self.lines.partition_point(|&(first, _)| first <= i);
        match known.checked_sub(1).and_then(|last| self.lines.get(last)) {
            Some((first, line)) => line + (i - first),
            None => i + 1,
        }
    }

    fn push(&mut self, start: u64, line: u64) {
        let i = self.starts.len();
        if self.line(i) != line {
            self.lines.push((i as u64, line));
        }
        self.starts.push(start);
    }

    /// Takes off what stands between a sample and the next.
    fn trim<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let bytes = bytes.trim_ascii_end();
        match bytes {
            [sample @ .., b','] if self.is_array => sample,
            _ => bytes,
        }
    }
}

/// What the pass over a file remembers from byte to byte.
#[derive(Default)]
struct Scan {
    index: Index,
    offset: u64,
    /// Line breaks seen.
    breaks: u64,
    state: State,
}

#[derive(Default)]
enum State {
    /// Nothing but white space so far.
    #[default]
    Start,
    /// Between lines with samples.
    Blank,
    /// On a line with a sample.
    Line,
    /// Inside the array.
    Array(Nesting),
    /// Behind the array; the line of whatever follows it.
    Behind(Option<u64>),
}

impl Scan {
    fn take(&mut self, chunk: &[u8]) {
        for &byte in chunk {
            self.step(byte);
            self.offset += 1;
            self.breaks += u64::from(byte == b'\n');
        }
    }

    fn step(&mut self, byte: u8) {
        let (offset, line) = (self.offset, self.breaks + 1);
        match &mut self.state {
            State::Line if byte == b'\n' => self.state = State::Blank,
            State::Line => {}
            State::Start if is_mark(offset, byte) || byte.is_ascii_whitespace() => {}
            State::Start if byte == b'[' => {
                self.index.is_array = true;
                self.state = State::Array(Nesting::default());
            }
            State::Blank if byte.is_ascii_whitespace() => {}
            State::Start | State::Blank => {
                self.index.push(offset, line);
                self.state = State::Line;
            }
            State::Array(nesting) => match nesting.step(byte) {
                Event::Begins => self.index.push(offset, line),
                Event::ArrayEnds => {
                    self.index.end = offset;
                    self.state = State::Behind(None);
                }
                Event::Nothing | Event::Ends => {}
            },
            State::Behind(follows) => {
                if !byte.is_ascii_whitespace() {
                    follows.get_or_insert(line);
                }
            }
        }
    }

    fn finish(mut self, path: &Path) -> Result<Index, DataError> {
        let path = || path.to_owned();
        match self.state {
            State::Array(_) => return Err(DataError::OpenArray { path: path() }),
            State::Behind(Some(line)) => return Err(DataError::AfterArray { path: path(), line }),
            State::Behind(None) => {}
            State::Start | State::Blank | State::Line => self.index.end = self.offset,
        }
        if self.index.starts.is_empty() {
            return Err(DataError::NoSamples { path: path() });
        }
        self.index.starts.shrink_to_fit();
        Ok(self.index)
    }
}

/// Whether this is a byte of the mark that some editors put in front of UTF-8.
fn is_mark(offset: u64, byte: u8) -> bool {
    usize::try_from(offset).is_ok_and(|i| MARK.get(i) == Some(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str =
        r#"{"id": "a ], \" [", "conversations": [{"from": "human", "value": "How many balls?"}]}"#;
    const B: &str = r#"{"id": "b", "image": "b.png", "conversations": [{"from": "human", "value": "<image>"}]}"#;

    fn file(text: &str) -> (tempfile::TempDir, Result<SampleFile, DataError>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples");
        std::fs::write(&path, text).unwrap();
        let file = SampleFile::open(&path);
        (folder, file)
    }

    fn ids_and_lines(text: &str) -> Vec<(String, u64)> {
        let (_folder, file) = file(text);
        let file = file.unwrap();
        (0..file.len())
            .map(|i| {
                let sample = file.sample(i).unwrap();
                (sample.id.unwrap(), sample.place.line)
            })
            .collect()
    }

    fn expected(lines: [u64; 3]) -> Vec<(String, u64)> {
        let ids = [r#"a ], " ["#, "b", "b"];
        ids.iter().map(|id| (*id).to_owned()).zip(lines).collect()
    }

    #[test]
    fn lines_blank_or_not_end_in_any_way() {
        let ends = format!("\u{feff}\n{A}\r\n\r\n  \n{B}\n{B}");
        assert_eq!(ids_and_lines(&ends), expected([2, 5, 6]));
        assert_eq!(
            ids_and_lines(&format!("{A}\n{B}\n{B}\n")),
            expected([1, 2, 3])
        );
    }

    #[test]
    fn an_array_is_the_same_samples() {
        assert_eq!(
            ids_and_lines(&format!("[{A},{B},{B}]")),
            expected([1, 1, 1])
        );
        let tall = format!(" [\n{A}\n,\n\n{B} ,\n{B}\n]\n\n");
        assert_eq!(ids_and_lines(&tall), expected([2, 5, 6]));
    }

    /// With an index beside it, nothing of the file is read but the line that is asked for.
    #[test]
    fn with_an_index_a_sample_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples");
        let junk = "?".repeat(B.len());
        std::fs::write(&path, format!("{junk}\n{A}\n{junk}")).unwrap();
        let starts = [0, junk.len() + 1, junk.len() + A.len() + 2];
        let offsets = Offsets {
            bytes: path.metadata().unwrap().len(),
            sha256: [7; 32],
            starts: starts.map(|start| start as u64).to_vec(),
        };
        offsets.write(&path).unwrap();
        let file = SampleFile::open(&path).unwrap();
        assert_eq!((file.len(), file.sha256()), (3, &[7; 32]));
        assert_eq!(file.sample(1).unwrap().id.unwrap(), r#"a ], " ["#);
        for i in [0, 2] {
            let error = file.sample(i).unwrap_err().to_string();
            assert!(error.contains(&format!(":{}`", i + 1)), "{error}");
        }
    }

    #[test]
    fn files_that_are_no_samples_are_refused() {
        let error = |text: &str| file(text).1.unwrap_err().to_string();
        assert!(error("\n \n").contains("has no samples"));
        assert!(error("[]").contains("has no samples"));
        assert!(error(&format!("[{A},")).contains("never ends"));
        assert!(error(&format!("[{A}]\n{B}")).contains(":2`: something follows"));
    }

    #[test]
    fn a_bad_line_is_an_error_of_its_own() {
        let (_folder, file) = file(&format!("{A}\nnonsense\n{B}"));
        let file = file.unwrap();
        assert_eq!(file.len(), 3);
        let error = file.sample(1).unwrap_err();
        assert_eq!(error.place().line, 2);
        assert!(file.sample(2).is_ok());
    }

    #[test]
    fn the_hash_is_that_of_the_bytes() {
        let (_folder, file) = file(A);
        assert_eq!(*file.unwrap().sha256(), *Sha256::digest(A));
    }

    proptest! {
        /// Any bytes become an index whose samples can be asked for.
        #[test]
        fn any_file_is_samples_or_errors(
            text in r#"[\[\]{}",\\ a\n\r]{0,60}"#,
        ) {
            if let (_folder, Ok(file)) = file(&text) {
                for i in 0..file.len() {
                    let _ = file.sample(i);
                    prop_assert!(file.place(i).line <= text.lines().count() as u64);
                }
            }
        }
    }
}
