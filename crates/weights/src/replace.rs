//! Files that appear complete or not at all.
//!
//! The bytes go to a temporary file in the same folder, which is flushed to the disk and then
//! renamed over the wanted name. Whoever has the old file open or mapped keeps the old contents.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes collected before each write to the system.
const BUFFER_BYTES: usize = 1 << 20;

/// A temporary file that is removed unless it is put in its place.
pub(crate) struct Replacement {
    temporary: PathBuf,
    wanted: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Replacement {
    /// Starts a file that will become `wanted`, in the same folder.
    pub(crate) fn create(wanted: &Path) -> io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = wanted
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
        let mut temporary_name = std::ffi::OsString::from(".");
        temporary_name.push(name);
        temporary_name.push(format!(
            ".{}-{}.tmp",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        ));
        let temporary = wanted.with_file_name(temporary_name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)?;
        Ok(Self {
            temporary,
            wanted: wanted.to_path_buf(),
            file: Some(BufWriter::with_capacity(BUFFER_BYTES, file)),
        })
    }

    /// The name that the file will get.
    pub(crate) fn wanted(&self) -> &Path {
        &self.wanted
    }

    /// Flushes everything to the disk; nothing can be written any more.
    pub(crate) fn seal(&mut self) -> io::Result<()> {
        if let Some(writer) = self.file.take() {
            let file = writer
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
        }
        Ok(())
    }

    /// Gives the file its name. Replaces what had the name before.
    pub(crate) fn put_in_place(mut self) -> io::Result<()> {
        self.seal()?;
        fs::rename(&self.temporary, &self.wanted)?;
        sync_folder(&self.wanted);
        Ok(())
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Err(io::Error::other("the file is sealed")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        if self.temporary.exists()
            && let Err(error) = fs::remove_file(&self.temporary)
        {
            tracing::warn!(file = %self.temporary.display(), %error, "a temporary file is left over");
        }
    }
}

/// Makes a rename survive a power cut, where the system allows it.
fn sync_folder(file: &Path) {
    #[cfg(unix)]
    {
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        if let Err(error) = synced {
            tracing::debug!(folder = %folder.display(), %error, "the folder could not be flushed");
        }
    }
    #[cfg(not(unix))]
    let _ = file;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_file_stays_until_the_new_one_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "old").unwrap();
        let mut new = Replacement::create(&path).unwrap();
        new.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        new.put_in_place().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_abandoned_file_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut new = Replacement::create(&folder.path().join("x")).unwrap();
        new.write_all(b"half").unwrap();
        drop(new);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
