//! Pictures of questions: known by their content, kept where they need no memory.
//!
//! A benchmark may hold gigabytes of pictures inside its Parquet files. They are read once, hashed,
//! and put into a [`PictureStore`]: a folder that names each file by its hash, or memory for small
//! sets. Two questions about the same picture so share one file, and a run can cache features and
//! pick wrong pictures by hash alone. Nothing is decoded here; only the first bytes are looked at, to
//! tell a picture from something else.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::BenchmarkError;
use crate::digest;

/// The picture of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureData {
    /// SHA-256 of the file.
    pub sha256: String,
    /// Where its bytes are.
    pub place: PicturePlace,
}

/// Where the bytes of a picture are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PicturePlace {
    /// In memory.
    Memory(Arc<[u8]>),
    /// A file of its own.
    File(PathBuf),
    /// A part of an archive that is not compressed.
    Part {
        /// The archive.
        file: PathBuf,
        /// Where the picture begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        length: u64,
    },
}

impl PictureData {
    /// The picture's file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> Result<Arc<[u8]>, BenchmarkError> {
        match &self.place {
            PicturePlace::Memory(bytes) => Ok(Arc::clone(bytes)),
            PicturePlace::File(path) => {
                let bytes = fs::read(path).map_err(BenchmarkError::read("picture", path))?;
                Ok(bytes.into())
            }
            PicturePlace::Part {
                file,
                offset,
                length,
            } => {
                let bytes = read_part(file, *offset, *length);
                Ok(bytes.map_err(BenchmarkError::read("picture", file))?.into())
            }
        }
    }
}

/// Some bytes of a file; fewer if it ends before.
pub(super) fn read_part(path: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where pictures that come out of other files are put.
#[derive(Debug)]
pub enum PictureStore {
    /// In memory, each content once.
    Memory(HashMap<String, Arc<[u8]>>),
    /// In a folder, as files named by their SHA-256.
    Folder(PathBuf),
}

impl PictureStore {
    /// A store in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::Memory(HashMap::new())
    }

    /// Keeps a picture.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn put(&mut self, bytes: &Arc<[u8]>) -> Result<PictureData, BenchmarkError> {
        let sha256 = digest::of(bytes);
        let place = match self {
            Self::Memory(pictures) => {
                let kept = pictures.entry(sha256.clone());
                PicturePlace::Memory(Arc::clone(kept.or_insert_with(|| Arc::clone(bytes))))
            }
            Self::Folder(folder) => PicturePlace::File(keep_in(folder, &sha256, bytes)?),
        };
        Ok(PictureData { sha256, place })
    }
}

/// The file of a content in a folder; written first if it is not there in full.
fn keep_in(folder: &Path, sha256: &str, bytes: &[u8]) -> Result<PathBuf, BenchmarkError> {
    let (first, _) = sha256.split_at_checked(2).unwrap_or((sha256, ""));
    let folder = folder.join(first);
    let path = folder.join(sha256);
    if fs::metadata(&path).is_ok_and(|file| file.len() == bytes.len() as u64) {
        return Ok(path);
    }
    fs::create_dir_all(&folder).map_err(BenchmarkError::write(&folder))?;
    // Several processes may fill the same folder: each writes a file of its own, then renames it.
    let part = folder.join(format!("{sha256}.{}.part", std::process::id()));
    fs::write(&part, bytes).map_err(BenchmarkError::write(&part))?;
    fs::rename(&part, &path).map_err(BenchmarkError::write(&path))?;
    Ok(path)
}

/// Whether bytes begin as a picture of a known format does.
#[must_use]
pub fn looks_like_picture(bytes: &[u8]) -> bool {
    const SIGNATURES: [&[u8]; 7] = [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF87a",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"MM\0*",
    ];
    let webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    webp || SIGNATURES.iter().any(|start| bytes.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";

    #[test]
    fn a_content_is_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        for mut store in [
            PictureStore::in_memory(),
            PictureStore::Folder(folder.path().into()),
        ] {
            let first = store.put(&Arc::from(PNG)).unwrap();
            let again = store.put(&Arc::from(PNG)).unwrap();
            let other = store.put(&Arc::from(*b"BMx")).unwrap();
            assert_eq!(first, again);
            assert_ne!(first.sha256, other.sha256);
            assert_eq!(&*first.read().unwrap(), PNG);
        }
        let kept = |folder: &Path| fs::read_dir(folder).unwrap().count();
        assert_eq!(kept(folder.path()), 2);
    }

    /// A file that a killed process left half written is written again.
    #[test]
    fn half_a_file_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = PictureStore::Folder(folder.path().into());
        let picture = store.put(&Arc::from(PNG)).unwrap();
        let PicturePlace::File(path) = &picture.place else {
            panic!()
        };
        fs::write(path, "half").unwrap();
        store.put(&Arc::from(PNG)).unwrap();
        assert_eq!(fs::read(path).unwrap(), PNG);
    }

    #[test]
    fn parts_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        fs::write(&path, b"0123456789").unwrap();
        assert_eq!(read_part(&path, 3, 4).unwrap(), b"3456");
        assert_eq!(read_part(&path, 8, u64::MAX).unwrap(), b"89");
    }

    #[test]
    fn signatures() {
        assert!(looks_like_picture(PNG));
        assert!(looks_like_picture(b"RIFF....WEBPVP8 "));
        assert!(looks_like_picture(b"\xff\xd8\xff\xe0"));
        assert!(!looks_like_picture(b"<html>"));
        assert!(!looks_like_picture(b"RIFF....WAVE"));
        assert!(!looks_like_picture(b""));
    }
}
