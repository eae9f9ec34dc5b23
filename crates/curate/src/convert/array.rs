//! Arrays of JSON, element by element.
//!
//! Elements are found by their brackets and commas alone, as training finds them, and each is read by
//! itself: one that is no JSON stays a line, and the others are samples as before.

use std::io::Read;
use std::path::Path;

use opabinia_data::nesting::{Event, Nesting};
use opabinia_data::parse_json;

use super::Incoming;
use super::read::{Sink, one_line, record};
use crate::error::CurateError;
use crate::lines::MAX_LINE_BYTES;

/// How much is looked at at once.
const CHUNK_BYTES: u64 = 1 << 16;

/// Reads an array to its end.
pub fn array(path: &Path, mut reader: impl Read, sink: Sink<'_>) -> Result<(), CurateError> {
    let mut slicer = Slicer::new(path);
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        (&mut reader)
            .take(CHUNK_BYTES)
            .read_to_end(&mut chunk)
            .map_err(CurateError::io("read", path))?;
        if chunk.is_empty() {
            return slicer.finish();
        }
        slicer.take(&chunk, sink)?;
    }
}

/// Cuts an array into its elements.
struct Slicer<'a> {
    path: &'a Path,
    state: State,
    /// What is read of the element that has begun.
    element: Vec<u8>,
    /// The line on which it began, if one has.
    begun: Option<u64>,
    /// The line that is being read, from 1.
    line: u64,
}

enum State {
    /// In front of the array, where nothing but white space is.
    Front,
    Array(Nesting),
    Behind,
}

impl<'a> Slicer<'a> {
    fn new(path: &'a Path) -> Self {
        Self {
            path,
            state: State::Front,
            element: Vec::new(),
            begun: None,
            line: 1,
        }
    }

    fn take(&mut self, chunk: &[u8], sink: Sink<'_>) -> Result<(), CurateError> {
        // Where in the chunk the element begins or goes on.
        let mut from = self.begun.map(|_| 0);
        for (at, &byte) in chunk.iter().enumerate() {
            let event = match &mut self.state {
                State::Array(nesting) => nesting.step(byte),
                State::Front if byte == b'[' => {
                    self.state = State::Array(Nesting::default());
                    Event::Nothing
                }
                State::Behind if !byte.is_ascii_whitespace() => {
                    return Err(self.broken("something follows it"));
                }
                State::Front | State::Behind => Event::Nothing,
            };
            match event {
                Event::Nothing => {}
                Event::Begins => (from, self.begun) = (Some(at), Some(self.line)),
                Event::Ends | Event::ArrayEnds => {
                    if let Some(from) = from.take() {
                        self.keep(chunk.get(from..at))?;
                        self.hand_on(sink)?;
                    }
                    if event == Event::ArrayEnds {
                        self.state = State::Behind;
                    }
                }
            }
            self.line += u64::from(byte == b'\n');
        }
        match from {
            Some(from) => self.keep(chunk.get(from..)),
            None => Ok(()),
        }
    }

    fn keep(&mut self, bytes: Option<&[u8]>) -> Result<(), CurateError> {
        self.element.extend_from_slice(bytes.unwrap_or_default());
        match self.element.len() > MAX_LINE_BYTES {
            true => Err(self.broken(&format!(
                "an element is longer than {MAX_LINE_BYTES} bytes, or never ends"
            ))),
            false => Ok(()),
        }
    }

    fn hand_on(&mut self, sink: Sink<'_>) -> Result<(), CurateError> {
        let text = self.element.trim_ascii_end();
        let incoming = match parse_json(text) {
            Ok(value) => record(value, Vec::new()),
            Err(_) => Incoming::Line(one_line(text)),
        };
        self.element.clear();
        self.begun = None;
        sink(incoming)
    }

    fn finish(&self) -> Result<(), CurateError> {
        match self.state {
            State::Behind => Ok(()),
            State::Front | State::Array(_) => Err(self.broken("it never ends")),
        }
    }

    /// What is wrong with the array as a whole: on the line of the element that has begun, or else on
    /// the one that is being read.
    fn broken(&self, what: &str) -> CurateError {
        let line = self.begun.unwrap_or(self.line);
        CurateError::Format {
            path: self.path.to_owned(),
            problem: format!(
                "the array of samples breaks off on line {line}: {what}; mend the file, or write one object per line"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Elements: records as they are, and lines as texts.
    fn elements(text: &[u8], chunk: usize) -> Result<Vec<Value>, String> {
        let mut found = Vec::new();
        let mut sink = |incoming| {
            found.push(match incoming {
                Incoming::Record { record, .. } => record,
                Incoming::Line(line) => json!(String::from_utf8_lossy(&line)),
                Incoming::LeftOut | Incoming::Blank => Value::Null,
            });
            Ok(())
        };
        let mut slicer = Slicer::new(Path::new("a.json"));
        let taken = text
            .chunks(chunk)
            .try_for_each(|piece| slicer.take(piece, &mut sink));
        match taken.and_then(|()| slicer.finish()) {
            Ok(()) => Ok(found),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn an_element_that_is_no_json_stays_a_line() {
        let text = b" [{\"id\": 1, \"image\": NaN} ,\n{\"id\": \"\\ud83d\",\r\n \"x\": [2]}\n,{\"id\": \"],\"},]\n";
        let expected = [
            json!({"id": 1, "image": null}),
            json!("{\"id\": \"\\ud83d\",   \"x\": [2]}"),
            json!({"id": "],"}),
        ];
        for chunk in [1, 2, 7, 1000] {
            assert_eq!(elements(text, chunk).unwrap(), expected, "{chunk}");
        }
        assert_eq!(elements(b"[]", 1), Ok(Vec::new()));
    }

    #[test]
    fn an_array_that_breaks_off_says_where() {
        let open = elements(b"[{}\n,{\"a\":\n1", 3).unwrap_err();
        assert!(open.contains("line 2: it never ends"), "{open}");
        let more = elements(b"[{}]\n\n{}", 3).unwrap_err();
        assert!(more.contains("line 3: something follows it"), "{more}");
    }
}
