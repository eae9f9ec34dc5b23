//! Arrays of JSON, element by element.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::Value;

use super::read::{Sink, record};
use crate::error::CurateError;
use crate::lines::MAX_LINE_BYTES;

/// A reader that fails when more is read than is left of a budget.
struct Budgeted<'a, R> {
    reader: R,
    left: &'a Cell<usize>,
}

impl<R: Read> Read for Budgeted<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            let what = format!("an element is longer than {MAX_LINE_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let most = bytes.len().min(left);
        let read = self.reader.read(&mut bytes[..most])?;
        self.left.set(left - read);
        Ok(read)
    }
}

/// Hands elements of a sequence on as they come.
struct Elements<'a, 'b> {
    sink: Sink<'a>,
    failed: &'b mut Option<CurateError>,
    left: &'b Cell<usize>,
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of samples")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(value) = elements.next_element::<Value>()? {
            self.left.set(MAX_LINE_BYTES);
            if let Err(error) = (self.sink)(record(value, Vec::new())) {
                *self.failed = Some(error);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// Reads an array to its end.
pub fn array(path: &Path, reader: impl Read, sink: Sink<'_>) -> Result<(), CurateError> {
    let mut failed = None;
    let left = Cell::new(MAX_LINE_BYTES);
    let budgeted = Budgeted {
        reader,
        left: &left,
    };
    // The budget is counted in what is read, so it is read in small pieces.
    let buffered = io::BufReader::with_capacity(1 << 13, budgeted);
    let mut json = serde_json::Deserializer::from_reader(buffered);
    let read = json.deserialize_seq(Elements {
        sink,
        failed: &mut failed,
        left: &left,
    });
    if let Some(error) = failed {
        return Err(error);
    }
    read.and_then(|()| json.end())
        .map_err(|error| CurateError::Format {
            path: path.to_owned(),
            problem: format!(
                "the array of samples breaks off: {error}; mend the file, or write one object per line"
            ),
        })
}
