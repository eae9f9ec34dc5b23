//! Memory-mapped files whose parts can be shared with tensors.
//!
//! The mapping lives as long as any tensor that was made from it. It is private and read-only: Burn
//! copies a shared buffer before it writes to it, so an in-place operation never reaches the file.
//!
//! A mapped file must not be changed in place while it is in use; whoever truncates it makes the
//! next read fail with a bus error. This crate's own writer never does that: it writes a new file
//! and renames it over the old one, whose mapping then stays valid.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

/// A whole file, mapped.
#[derive(Debug, Clone)]
pub(crate) struct MappedFile {
    map: Arc<Mmap>,
    /// The same memory as reference-counted bytes, from which tensors take their slices.
    bytes: bytes::Bytes,
}

/// Lets [`bytes::Bytes`] own the mapping.
struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// The system's, and `InvalidInput` for something that is not a plain file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a plain file",
            ));
        }
        let map = Arc::new(map_read_only(&file)?);
        let bytes = bytes::Bytes::from_owner(Owner(Arc::clone(&map)));
        Ok(Self { map, bytes })
    }

    /// The whole file.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// A part of the file that keeps the mapping alive; `None` if the file is shorter.
    pub(crate) fn share(&self, range: Range<usize>) -> Option<bytes::Bytes> {
        (range.start <= range.end && range.end <= self.bytes.len()).then(|| self.bytes.slice(range))
    }

    /// Asks the system to read a part of the file ahead of its use.
    pub(crate) fn prefetch(&self, range: Range<usize>) {
        #[cfg(unix)]
        {
            // Advice only: without it the pages come in one fault at a time.
            let advised =
                self.map
                    .advise_range(memmap2::Advice::WillNeed, range.start, range.len());
            if let Err(error) = advised {
                tracing::debug!(%error, "read-ahead was refused");
            }
        }
        #[cfg(not(unix))]
        let _ = (range, &self.map);
    }

    /// Takes the pages of a part of the file out of this process; they are read again if needed.
    #[allow(
        unsafe_code,
        reason = "giving pages back is what keeps the peak near the size of the loaded weights"
    )]
    pub(crate) fn give_back(&self, range: Range<usize>) {
        #[cfg(unix)]
        if !range.is_empty() && range.end <= self.map.len() {
            // SAFETY: the mapping is read-only and backed by a file, so dropped pages are read
            // from the file again on the next access with the same contents; nothing is lost.
            let advised = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.len(),
                )
            };
            if let Err(error) = advised {
                tracing::debug!(%error, "giving pages back was refused");
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

#[allow(unsafe_code, reason = "mapping a file is unsafe by nature")]
fn map_read_only(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is read-only. That nobody shortens or rewrites the file meanwhile cannot
    // be enforced by a program; the module documentation says so, and our own writer replaces
    // files by renaming, which leaves existing mappings intact.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_parts_that_outlive_the_file_object() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, b"abcdefgh").unwrap();
        let file = MappedFile::open(&path).unwrap();
        let part = file.share(2..5).unwrap();
        file.prefetch(0..8);
        file.give_back(0..8);
        assert!(file.share(5..9).is_none());
        drop(file);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&part[..], b"cde");
    }

    #[test]
    fn refuses_what_is_not_a_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(MappedFile::open(folder.path()).is_err());
        assert!(MappedFile::open(&folder.path().join("absent")).is_err());
    }
}
