//! Lines of files, none of them longer than memory bears.
//!
//! A file of a single line, or one whose line breaks were lost, must not be read into memory as a
//! whole. Wherever lines are read, one that is longer than [`MAX_LINE_BYTES`] is passed over as a
//! stream: it keeps its place and its length, and loses its text.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::path::Path;

use opabinia_data::start::MARK;
use sha2::{Digest, Sha256};

use crate::error::CurateError;
use crate::part::Part;

/// Far above the longest published sample, some hundred kilobytes of code.
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// Memory that is kept for the next part.
const SPARE_BYTES: usize = 32 << 20;

thread_local! {
    /// The memory of the part before: new memory has to be cleared by the system, page by page.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The lines of a part.
#[derive(Debug)]
pub struct PartText {
    /// Where the first line begins; the part's end if none does.
    pub start: u64,
    /// What was read.
    read: Vec<u8>,
    /// Where the first line begins in it.
    skipped: usize,
    /// Bytes at the end that were passed over, because the last line is too long.
    pub passed_over: u64,
}

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its first byte in the file.
    pub offset: u64,
    /// Its bytes, without line break; nothing if it is too long.
    pub text: &'a [u8],
    /// Its length in bytes.
    pub bytes: u64,
}

impl Line<'_> {
    /// Whether it is longer than the limit.
    pub fn is_too_long(&self) -> bool {
        self.bytes > MAX_LINE_BYTES as u64
    }
}

impl Drop for PartText {
    fn drop(&mut self) {
        let read = std::mem::take(&mut self.read);
        if read.capacity() <= SPARE_BYTES {
            // A thread that ends has no next part.
            let _ = SPARE.try_with(|spare| spare.set(read));
        }
    }
}

impl PartText {
    /// Reads the lines that begin in a part.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(path: &Path, part: &Part) -> Result<Self, CurateError> {
        Self::read_limited(path, part, MAX_LINE_BYTES).map_err(CurateError::io("read", path))
    }

    fn read_limited(path: &Path, part: &Part, limit: usize) -> io::Result<Self> {
        let mut file = File::open(path)?;
        // One byte before, to see whether a line begins exactly here.
        let from = part.start.saturating_sub(1);
        file.seek(SeekFrom::Start(from))?;
        let mut read = SPARE.take();
        read.clear();
        read.reserve((part.end - from) as usize + 4096);
        let mut reader = file.take(part.end - from);
        reader.read_to_end(&mut read)?;
        let skipped = match part.start {
            0 => Some(0),
            _ => read.iter().position(|&byte| byte == b'\n').map(|at| at + 1),
        };
        let mut text = Self {
            start: part.end,
            read,
            skipped: 0,
            passed_over: 0,
        };
        match skipped {
            Some(skipped) if skipped < text.read.len() => {
                (text.start, text.skipped) = (from + skipped as u64, skipped);
            }
            // No line begins in this part.
            _ => {
                text.read.clear();
                return Ok(text);
            }
        }
        let last = text.read.iter().rposition(|&byte| byte == b'\n');
        let last = last.map_or(0, |at| at + 1);
        if last < text.read.len() {
            // A line break is no part of the line.
            text.finish_line(reader.into_inner(), last + limit + b"\r\n".len())?;
        }
        Ok(text)
    }

    /// Reads on to the end of the last line, keeping bytes up to `most` in all.
    fn finish_line(&mut self, mut file: File, most: usize) -> io::Result<()> {
        let mut chunk = vec![0; 1 << 14];
        loop {
            let read = file.read(&mut chunk)?;
            let chunk = chunk.get(..read).unwrap_or_default();
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let own = end.map_or(chunk, |at| &chunk[..=at]);
            match self.passed_over == 0 && self.read.len() <= most {
                true => self.read.extend_from_slice(own),
                false => self.passed_over += own.len() as u64,
            }
            if end.is_some() || read == 0 {
                return Ok(());
            }
        }
    }

    /// All bytes from the first line to the end of the last, but for those that were passed over.
    fn bytes(&self) -> &[u8] {
        self.read.get(self.skipped..).unwrap_or_default()
    }

    /// Bytes of all lines, kept or not.
    pub fn len(&self) -> u64 {
        self.bytes().len() as u64 + self.passed_over
    }

    /// Whether no line begins in the part.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The lines, in order.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.lines_limited(MAX_LINE_BYTES)
    }

    fn lines_limited(&self, limit: usize) -> impl Iterator<Item = Line<'_>> {
        let mut at = 0;
        let bytes = self.bytes();
        let pieces = bytes.split_inclusive(|&byte| byte == b'\n');
        pieces.map(move |piece| {
            let offset = self.start + at as u64;
            at += piece.len();
            let over = match at == bytes.len() {
                true => self.passed_over,
                false => 0,
            };
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            let mark = match offset == 0 && text.starts_with(MARK) {
                true => MARK.len(),
                false => 0,
            };
            let text = text.get(mark..).unwrap_or_default();
            let bytes = text.len() as u64 + over;
            Line {
                offset: offset + mark as u64,
                text: if bytes > limit as u64 { &[] } else { text },
                bytes,
            }
        })
    }

    /// Number of lines.
    pub fn count(&self) -> u64 {
        let bytes = self.bytes();
        let breaks = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let open = bytes.last().is_some_and(|&byte| byte != b'\n');
        breaks + u64::from(open)
    }

    /// SHA-256 of all bytes; what was passed over is read again.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn sha256(&self, path: &Path) -> Result<[u8; 32], CurateError> {
        let mut hash = Sha256::new();
        hash.update(self.bytes());
        if self.passed_over > 0 {
            let io = || CurateError::io("read", path);
            let mut file = File::open(path).map_err(io())?;
            let from = self.start + self.bytes().len() as u64;
            file.seek(SeekFrom::Start(from)).map_err(io())?;
            io::copy(&mut file.take(self.passed_over), &mut hash).map_err(io())?;
        }
        Ok(hash.finalize().into())
    }
}

/// Lines of a stream, one by one.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    number: u64,
    text: Vec<u8>,
}

/// The next line of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered<'a> {
    /// Its number, from 1.
    pub number: u64,
    /// Its bytes, without line break.
    pub text: &'a [u8],
}

impl<R: BufRead> Lines<R> {
    /// The lines of a stream.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            number: 0,
            text: Vec::new(),
        }
    }

    /// The next line; `None` behind the last.
    ///
    /// # Errors
    /// If the stream cannot be read, or the line is longer than the limit: the stream cannot be read
    /// on with nothing lost.
    pub fn next_line(&mut self) -> io::Result<Option<Numbered<'_>>> {
        self.next_limited(MAX_LINE_BYTES)
    }

    fn next_limited(&mut self, limit: usize) -> io::Result<Option<Numbered<'_>>> {
        self.text.clear();
        let mut limited = (&mut self.reader).take(limit as u64 + 2);
        if limited.read_until(b'\n', &mut self.text)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.len() > limit {
            let what = format!("line {} is longer than {limit} bytes", self.number);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let text = match self.number {
            1 => text.strip_prefix(MARK).unwrap_or(text),
            _ => text,
        };
        Ok(Some(Numbered {
            number: self.number,
            text,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::part::cut;

    /// All lines of a file, cut into parts: offset, text, length.
    fn all(text: &[u8], part_bytes: u64, limit: usize) -> Vec<(u64, Vec<u8>, u64)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.jsonl");
        std::fs::write(&path, text).unwrap();
        let mut found = Vec::new();
        let mut sum = 0;
        for part in cut(&[text.len() as u64], part_bytes) {
            let read = PartText::read_limited(&path, &part, limit).unwrap();
            let lines: Vec<Line<'_>> = read.lines_limited(limit).collect();
            assert_eq!(read.count(), lines.len() as u64);
            let (from, to) = (read.start as usize, (read.start + read.len()) as usize);
            if !read.is_empty() {
                let expected: [u8; 32] = Sha256::digest(&text[from..to]).into();
                assert_eq!(read.sha256(&path).unwrap(), expected);
            }
            sum += read.len();
            found.extend(lines.iter().map(|l| (l.offset, l.text.to_vec(), l.bytes)));
        }
        assert_eq!(sum, text.len() as u64);
        found
    }

    #[test]
    fn long_lines_keep_place_and_length() {
        let text = [&b"ab\n"[..], &[b'x'; 100_000], b"\r\ncd\n"].concat();
        for part_bytes in [1, 2, 5, 50_000, 1_000_000] {
            let lines = all(&text, part_bytes, 10);
            assert_eq!(lines[0], (0, b"ab".to_vec(), 2));
            assert_eq!((lines[1].0, lines[1].1.len()), (3, 0));
            assert!(lines[1].2 >= 100_000);
            assert_eq!(lines[2], (100_005, b"cd".to_vec(), 2));
        }
    }

    /// Also where a part ends in the middle of the line break.
    #[test]
    fn a_line_as_long_as_allowed_is_kept() {
        for part_bytes in 1..8 {
            let lines = all(b"\n\n\n\ra\r\n", part_bytes, 2);
            assert_eq!(lines[3], (3, b"\ra".to_vec(), 2));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn parts_hold_every_byte_once(text in "[a\r\n]{0,40}", part_bytes in 1_u64..12, limit in 1_usize..9) {
            let lines = all(text.as_bytes(), part_bytes, limit);
            let mut expected = Vec::new();
            let mut at = 0;
            for piece in text.split_inclusive('\n') {
                let own = piece.strip_suffix('\n').unwrap_or(piece);
                let own = own.strip_suffix('\r').unwrap_or(own);
                let kept = if own.len() > limit { "" } else { own };
                expected.push((at, kept.as_bytes().to_vec(), own.len() as u64));
                at += piece.len() as u64;
            }
            prop_assert_eq!(lines.len(), expected.len());
            for (line, expected) in lines.iter().zip(&expected) {
                prop_assert_eq!((line.0, &line.1), (expected.0, &expected.1));
            }
        }

        #[test]
        fn a_stream_has_the_same_lines(text in "[a\r\n]{0,40}") {
            let mut lines = Lines::new(text.as_bytes());
            for (i, expected) in text.split_inclusive('\n').enumerate() {
                let expected = expected.strip_suffix('\n').unwrap_or(expected);
                let expected = expected.strip_suffix('\r').unwrap_or(expected);
                let found = lines.next_line().unwrap().unwrap();
                prop_assert_eq!((found.number, found.text), (i as u64 + 1, expected.as_bytes()));
            }
            prop_assert!(lines.next_line().unwrap().is_none());
            let long = "a".repeat(9);
            let mut lines = Lines::new(long.as_bytes());
            prop_assert!(lines.next_limited(8).is_err());
        }
    }
}
