//! A look at the directory of a zip archive before its pickle is parsed.
//!
//! Parsed pickles take up to ninety times their size in memory (one byte can make an object), and
//! an archive may claim that a few kilobytes unpack to the 100 MiB that the reader accepts: a file
//! of 100 KB took 9 GB. `torch.save` never compresses, and the pickle of a model with ten thousand
//! tensors has two megabytes, so a compressed or a larger pickle is refused here.

use std::path::Path;

use crate::mapped::MappedFile;

/// Largest pickle accepted in an archive.
const MAX_PICKLE_BYTES: u32 = 16 << 20;

/// What an archive begins with, or an empty one.
const ARCHIVE_MAGIC: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

/// Fixed sizes of the records that are read, and the longest comment at the end of an archive.
const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;
const END64_BYTES: usize = 56;
const ENTRY_BYTES: usize = 46;
const MAX_COMMENT_BYTES: usize = u16::MAX as usize;

/// Checks the pickles of the file at `path` if it is an archive.
///
/// # Errors
/// The system's; `InvalidData` if the directory cannot be read, or a pickle in it is compressed or
/// too large.
pub(crate) fn check(path: &Path) -> std::io::Result<()> {
    let file = MappedFile::open(path)?;
    let bytes = file.as_slice();
    if !ARCHIVE_MAGIC.iter().any(|magic| bytes.starts_with(magic)) {
        return Ok(());
    }
    let refuse = |why| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
    let directory = directory(bytes).ok_or_else(|| refuse("the archive has no directory"))?;
    check_entries(directory).map_err(refuse)
}

/// The central directory of an archive.
fn directory(bytes: &[u8]) -> Option<&[u8]> {
    let end = end_record(bytes)?;
    let size = u32_at(bytes, end + 12)?;
    let locator = end.checked_sub(LOCATOR_BYTES);
    let has_locator = locator.is_some_and(|at| has(bytes, at, b"PK\x06\x07"));
    // The directory ends where the records about it begin.
    let (end, size) = if has_locator {
        let end64 = end.checked_sub(LOCATOR_BYTES + END64_BYTES)?;
        has(bytes, end64, b"PK\x06\x06").then_some(())?;
        (end64, usize::try_from(u64_at(bytes, end64 + 40)?).ok()?)
    } else {
        (end, usize::try_from(size).ok()?)
    };
    bytes.get(end.checked_sub(size)?..end)
}

/// Where the last record begins: the one whose comment reaches exactly to the end of the file.
fn end_record(bytes: &[u8]) -> Option<usize> {
    let last = bytes.len().checked_sub(END_BYTES)?;
    let first = last.saturating_sub(MAX_COMMENT_BYTES);
    (first..=last).rev().find(|&at| {
        let comment = u16_at(bytes, at + 20).map(usize::from);
        has(bytes, at, b"PK\x05\x06") && comment == Some(last - at)
    })
}

/// Walks the entries of a directory and checks every pickle.
fn check_entries(directory: &[u8]) -> Result<(), &'static str> {
    const BROKEN: &str = "the archive's directory is broken";
    let mut rest = directory;
    while !rest.is_empty() {
        if !has(rest, 0, b"PK\x01\x02") {
            return Err(BROKEN);
        }
        let field = |at| u16_at(rest, at).map(usize::from).ok_or(BROKEN);
        let (name, extra, comment) = (field(28)?, field(30)?, field(32)?);
        let compressed = field(10)? != 0;
        let size = u32_at(rest, 24).ok_or(BROKEN)?;
        let end = ENTRY_BYTES + name;
        let is_pickle = rest
            .get(ENTRY_BYTES..end)
            .ok_or(BROKEN)?
            .ends_with(b"data.pkl");
        if is_pickle && compressed {
            return Err("its pickle is compressed, which `torch.save` never does");
        }
        if is_pickle && size > MAX_PICKLE_BYTES {
            return Err("its pickle has more than 16 MiB");
        }
        rest = rest.get(end + extra + comment..).ok_or(BROKEN)?;
    }
    Ok(())
}

fn has(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One directory entry with the fields that matter.
    fn entry(name: &str, method: u16, size: u32) -> Vec<u8> {
        let mut bytes = b"PK\x01\x02".to_vec();
        bytes.resize(ENTRY_BYTES, 0);
        bytes[10..12].copy_from_slice(&method.to_le_bytes());
        bytes[24..28].copy_from_slice(&size.to_le_bytes());
        bytes[28..30].copy_from_slice(&(name.len() as u16).to_le_bytes());
        bytes.extend(name.bytes());
        bytes
    }

    /// An archive that consists of a directory only.
    fn archive(entries: &[Vec<u8>], comment: &[u8]) -> Vec<u8> {
        let directory = entries.concat();
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.extend(&directory);
        let mut end = b"PK\x05\x06".to_vec();
        end.resize(END_BYTES, 0);
        end[12..16].copy_from_slice(&(directory.len() as u32).to_le_bytes());
        end[20..22].copy_from_slice(&(comment.len() as u16).to_le_bytes());
        bytes.extend(end);
        bytes.extend(comment);
        bytes
    }

    fn checked(bytes: &[u8]) -> std::io::Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bin");
        std::fs::write(&path, bytes).unwrap();
        check(&path)
    }

    #[test]
    fn stored_pickles_of_a_sane_size_pass() {
        let entries = [entry("a/data/0", 8, u32::MAX), entry("a/data.pkl", 0, 700)];
        checked(&archive(&entries, b"")).unwrap();
        checked(&archive(&entries, b"a comment")).unwrap();
        checked(b"not an archive").unwrap();
    }

    #[test]
    fn compressed_and_huge_pickles_are_refused() {
        for entry in [
            entry("a/data.pkl", 8, 700),
            entry("data.pkl", 0, MAX_PICKLE_BYTES + 1),
            entry("data.pkl", 0, u32::MAX),
        ] {
            let error = checked(&archive(&[entry], b"")).unwrap_err();
            assert!(error.to_string().starts_with("its pickle"), "{error}");
        }
    }

    #[test]
    fn broken_directories_are_refused() {
        let good = archive(&[entry("a/data.pkl", 0, 700)], b"");
        for cut in 4..good.len() {
            assert!(checked(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut long_name = entry("data.pkl", 0, 1);
        long_name[28] = 200;
        assert!(checked(&archive(&[long_name], b"")).is_err());
    }
}
