//! A segment: a file of records, one beside it that copies their headers, and one to be locked by
//! whoever appends.
//!
//! The headers alone say where every record begins, so the copy is the index: opening a segment reads
//! 64 bytes per record. It is believed as far as it is whole and its last header is that of the
//! segment; what lies behind is read from the segment itself.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::record::{HEADER_BYTES, Header};
use crate::error::DataError;
use crate::positioned::read_exact_at;

/// Headers of whole records, and where the records begin.
type Records = Vec<(Header, u64)>;

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    number: u32,
    path: PathBuf,
    data: File,
    /// What this process holds if it may append.
    writer: Option<Writer>,
    /// Where the last whole record ends.
    end: u64,
    map: Option<Arc<Mmap>>,
}

/// The right to append.
#[derive(Debug)]
struct Writer {
    index: File,
    /// Locked for as long as it is open. A file of its own, because some systems keep others from
    /// reading a locked one.
    _lock: File,
}

/// Numbers and paths of the segments in a folder, in order.
pub(super) fn list(folder: &Path) -> Result<Vec<(u32, PathBuf)>, DataError> {
    let io = DataError::io("read the folder", folder);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return Err(io(error)),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(DataError::io("read the folder", folder))?
            .path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("segment-")?.strip_suffix(".bin"))
            .and_then(|number| number.parse().ok());
        segments.extend(number.map(|number| (number, path)));
    }
    segments.sort();
    Ok(segments)
}

impl Segment {
    /// A new segment with this number, or the next that nobody else has just made.
    pub fn create(folder: &Path, mut number: u32) -> Result<Self, DataError> {
        loop {
            let path = folder.join(format!("segment-{number:05}.bin"));
            // Locked before it exists, so that nobody who finds it takes it for left behind.
            let lock = take_lock(&path).map_err(DataError::io("lock", &path))?;
            let Some(lock) = lock else {
                number += 1;
                continue;
            };
            let created = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path);
            match created {
                Ok(data) => {
                    let index = open_index(&path)?;
                    return Ok(Self {
                        number,
                        path,
                        data,
                        writer: Some(Writer { index, _lock: lock }),
                        end: 0,
                        map: None,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(DataError::io("write", &path)(error)),
            }
        }
    }

    /// Opens a segment and finds its records. If nobody else has it locked, and it can be written,
    /// it is locked, and whatever follows its last whole record is cut off.
    pub fn open(number: u32, path: &Path) -> Result<(Self, Records), DataError> {
        let read = DataError::io("read", path);
        let data = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(data) => Ok(data),
            // Somebody else's store, perhaps; reading it needs no more than this.
            Err(_) => File::open(path),
        };
        let data = data.map_err(read)?;
        let lock = take_lock(path).unwrap_or_default();
        let scanned = scan(&data, &index_path(path)).map_err(DataError::io("read", path))?;
        let end = scanned.last().map_or(0, end_of);
        let writer = lock.and_then(|lock| {
            let index = repair(path, &data, end, &scanned).ok()?;
            Some(Writer { index, _lock: lock })
        });
        let segment = Self {
            number,
            path: path.to_owned(),
            data,
            writer,
            end,
            map: None,
        };
        Ok((segment, scanned))
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn is_writable(&self) -> bool {
        self.writer.is_some()
    }

    /// Writes a record behind the others and returns where it begins.
    ///
    /// # Panics
    /// If the segment is not writable.
    pub fn append(&mut self, record: &[u8]) -> Result<u64, DataError> {
        let writer = self.writer.as_mut();
        let index = &mut writer.expect("a segment that may be written").index;
        let mut write = |mut data: &File| {
            data.seek(SeekFrom::Start(self.end))?;
            data.write_all(record)?;
            index.write_all(&record[..HEADER_BYTES])
        };
        if let Err(error) = write(&self.data) {
            // The disk is full, most likely. Appending goes on elsewhere, and whoever opens this
            // segment next repairs it, should cutting it now fail as well.
            let _ = self.data.set_len(self.end);
            self.writer = None;
            return Err(DataError::io("write", &self.path)(error));
        }
        let offset = self.end;
        self.end += record.len() as u64;
        Ok(offset)
    }

    /// The segment's bytes, at least up to `end`.
    pub fn map(&mut self, end: u64) -> Result<Arc<Mmap>, DataError> {
        match &self.map {
            Some(map) if map.len() as u64 >= end => Ok(Arc::clone(map)),
            _ => {
                let map = map_read_only(&self.data).map_err(DataError::io("read", &self.path))?;
                let map = Arc::new(map);
                self.map = Some(Arc::clone(&map));
                Ok(map)
            }
        }
    }
}

fn index_path(path: &Path) -> PathBuf {
    path.with_extension("idx")
}

/// The lock on a segment, unless somebody else has it.
fn take_lock(path: &Path) -> io::Result<Option<File>> {
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path.with_extension("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn open_index(path: &Path) -> Result<File, DataError> {
    let path = index_path(path);
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(DataError::io("write", &path))
}

fn end_of((header, offset): &(Header, u64)) -> u64 {
    offset + header.record_bytes()
}

/// Records of a segment: those of the index as far as it holds, then those behind them.
fn scan(data: &File, index: &Path) -> io::Result<Records> {
    let length = data.metadata()?.len();
    let mut records = indexed(index, length);
    if let Some((header, offset)) = records.last()
        && header_at(data, *offset, length)? != Some(*header)
    {
        records.clear();
    }
    loop {
        let offset = records.last().map_or(0, end_of);
        match whole_record_at(data, offset, length)? {
            Some(header) => records.push((header, offset)),
            None => return Ok(records),
        }
    }
}

/// Records that the index names and that end within the segment. An index that cannot be read is
/// as good as none.
fn indexed(index: &Path, length: u64) -> Records {
    let mut bytes = Vec::new();
    if File::open(index)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .is_err()
    {
        return Vec::new();
    }
    let mut end = 0;
    let (headers, _) = bytes.as_chunks::<HEADER_BYTES>();
    headers
        .iter()
        .map_while(|bytes| {
            let record = (Header::from_bytes(bytes)?, end);
            end = end_of(&record);
            (end <= length).then_some(record)
        })
        .collect()
}

fn header_at(data: &File, offset: u64, length: u64) -> io::Result<Option<Header>> {
    if length.saturating_sub(offset) < HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = [0; HEADER_BYTES];
    read_exact_at(data, &mut bytes, offset)?;
    Ok(Header::from_bytes(&bytes))
}

/// The header of a record that was written to its end.
fn whole_record_at(data: &File, offset: u64, length: u64) -> io::Result<Option<Header>> {
    let Some(header) = header_at(data, offset, length)? else {
        return Ok(None);
    };
    if length - offset < header.record_bytes() {
        return Ok(None);
    }
    let mut payload = vec![0; header.payload_bytes()];
    read_exact_at(data, &mut payload, offset + HEADER_BYTES as u64)?;
    Ok(header.describes(&payload).then_some(header))
}

/// Cuts off what is no whole record and writes the index anew if it is not that of the records.
fn repair(path: &Path, data: &File, end: u64, records: &Records) -> Result<File, DataError> {
    let length = data.metadata().map_err(DataError::io("read", path))?.len();
    if length > end {
        data.set_len(end).map_err(DataError::io("write", path))?;
    }
    let wanted: Vec<u8> = records
        .iter()
        .flat_map(|(header, _)| header.to_bytes())
        .collect();
    let index = index_path(path);
    if std::fs::read(&index).ok().as_ref() != Some(&wanted) {
        std::fs::write(&index, &wanted).map_err(DataError::io("write", &index))?;
    }
    open_index(path)
}

#[allow(unsafe_code, reason = "mapping a file is unsafe by nature")]
fn map_read_only(data: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is read-only, and only whole records are read from it. Those are never
    // changed or cut off by this program: it appends behind them, and cuts only what no index names
    // and no header describes. That no other program does so cannot be enforced; a checksum tells
    // changed records.
    unsafe { Mmap::map(data) }
}
