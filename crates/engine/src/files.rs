//! Files that are whole or not there.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::EngineError;

/// Removes what a kill left half-written.
pub(crate) fn remove_partial(folder: &Path) -> Result<(), EngineError> {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(&folder).map_err(EngineError::io("read", &folder))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == PARTIAL) {
                fs::remove_file(&path).map_err(EngineError::io("remove", &path))?;
            }
        }
    }
    Ok(())
}

/// The ending of files that are being written.
const PARTIAL: &str = "partial";

/// Writes a file under another name first, so that nobody ever sees half of it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    let error = |source| EngineError::io("write", path)(source);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(error)?;
    }
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{number}.{PARTIAL}", std::process::id()));
    let partial = path.with_file_name(name);
    fs::write(&partial, bytes).map_err(error)?;
    fs::rename(&partial, path).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_left_is_removed_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("a/b.png");
        write_whole(&whole, b"x").unwrap();
        let half = folder.path().join("a/c.png.1-2.partial");
        fs::write(&half, b"x").unwrap();
        remove_partial(folder.path()).unwrap();
        assert!(whole.is_file() && !half.exists());
    }
}
