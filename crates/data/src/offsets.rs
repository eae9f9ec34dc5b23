//! Offset indexes: where the samples of a file begin, written by whoever wrote the file.
//!
//! A file of samples is read once from end to end to find its lines. What this program writes needs no
//! such pass: beside `samples.jsonl` lies `samples.jsonl.index`, and [`crate::SampleFile`] believes it
//! as long as the file still has the size that it says, and was not changed after it. All numbers are
//! little-endian: the eight bytes `opab.idx`, the file's size, its SHA-256, the number of samples, and the
//! first byte of each.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::DataError;

/// How an index begins.
const MAGIC: &[u8; 8] = b"opab.idx";

/// Where the samples of a file begin; each is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// First byte of each sample, ascending.
    pub starts: Vec<u64>,
}

/// Path of the index of a file.
pub fn index_path(samples: &Path) -> PathBuf {
    let mut name = samples.as_os_str().to_owned();
    name.push(".index");
    name.into()
}

impl Offsets {
    /// Writes the index of a file; it appears when it is whole.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, samples: &Path) -> Result<(), DataError> {
        let path = index_path(samples);
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let io = || DataError::io("write the offset index", &path);
        let mut file = BufWriter::new(File::create(&temporary).map_err(io())?);
        let mut put = |bytes: &[u8]| file.write_all(bytes);
        put(MAGIC).map_err(io())?;
        put(&self.bytes.to_le_bytes()).map_err(io())?;
        put(&self.sha256).map_err(io())?;
        put(&(self.starts.len() as u64).to_le_bytes()).map_err(io())?;
        for start in &self.starts {
            put(&start.to_le_bytes()).map_err(io())?;
        }
        file.into_inner()
            .map_err(|error| io()(error.into_error()))?;
        std::fs::rename(&temporary, &path).map_err(io())
    }

    /// Reads the index of a file; `None` if there is none, or it is not of this file as it is now.
    pub fn read(samples: &Path) -> Option<Self> {
        let of_file = samples.metadata().ok()?;
        let bytes = of_file.len();
        let index = File::open(index_path(samples)).ok()?;
        let of_index = index.metadata().ok()?;
        // Where the system tells no times, the size must do.
        let changed = of_file.modified().ok().zip(of_index.modified().ok());
        if changed.is_some_and(|(file, index)| file > index) {
            return None;
        }
        let offsets = Self::parse(BufReader::new(index), of_index.len())?;
        (offsets.bytes == bytes).then_some(offsets)
    }

    fn parse(mut index: impl Read, size: u64) -> Option<Self> {
        let mut magic = [0; 8];
        index.read_exact(&mut magic).ok()?;
        let bytes = number(&mut index)?;
        let mut sha256 = [0; 32];
        index.read_exact(&mut sha256).ok()?;
        let samples = number(&mut index)?;
        let rest = samples.checked_mul(8)?.checked_add(8 + 8 + 32 + 8)?;
        if magic != *MAGIC || samples == 0 || rest != size {
            return None;
        }
        let mut starts = Vec::with_capacity(usize::try_from(samples).ok()?);
        for _ in 0..samples {
            starts.push(number(&mut index)?);
        }
        let ascending = starts.windows(2).all(|pair| pair[0] < pair[1]);
        (ascending && starts.last() < Some(&bytes)).then_some(Self {
            bytes,
            sha256,
            starts,
        })
    }
}

fn number(from: &mut impl Read) -> Option<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn offsets() -> Offsets {
        Offsets {
            bytes: 12,
            sha256: [7; 32],
            starts: vec![0, 4, 9],
        }
    }

    #[test]
    fn a_file_that_was_changed_since_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.jsonl");
        std::fs::write(&path, "aaa\nbbbb\ncc\n").unwrap();
        offsets().write(&path).unwrap();
        let index = File::open(index_path(&path)).unwrap();
        let later = index.metadata().unwrap().modified().unwrap() + Duration::from_secs(1);
        let file = File::options().append(true).open(&path).unwrap();
        file.set_modified(later).unwrap();
        assert_eq!(Offsets::read(&path), None);
    }

    #[test]
    fn it_is_believed_while_the_size_agrees() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.jsonl");
        std::fs::write(&path, "aaa\nbbbb\ncc\n").unwrap();
        assert_eq!(Offsets::read(&path), None);
        offsets().write(&path).unwrap();
        assert_eq!(Offsets::read(&path), Some(offsets()));
        std::fs::write(&path, "aaa\nbbbb\ncc\nd").unwrap();
        assert_eq!(Offsets::read(&path), None);
    }

    proptest! {
        #[test]
        fn damaged_ones_are_refused_or_in_order(at in 0_usize..80, byte: u8, cut in 0_usize..90) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("s.jsonl");
            offsets().write(&path).unwrap();
            let mut bytes = std::fs::read(index_path(&path)).unwrap();
            if let Some(there) = bytes.get_mut(at) {
                *there = byte;
            }
            bytes.truncate(cut);
            if let Some(read) = Offsets::parse(bytes.as_slice(), bytes.len() as u64) {
                prop_assert!(read.starts.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(read.starts.last() < Some(&read.bytes));
            }
        }
    }
}
