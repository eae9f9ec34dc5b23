//! Reading: what a file is, and its samples one by one.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use opabinia_data::parse_json;
use opabinia_data::start::{MARK, Start};
use serde_json::Value;

use super::array::array;
use super::kind::{HEAD_BYTES, arrow_is_refused};
use super::normalise::normalise;
use super::parquet::parquet;
use super::webdataset::tar;
use super::{Form, Incoming};
use crate::error::CurateError;
use crate::lines::Lines;

/// Who takes what was read.
pub type Sink<'a> = &'a mut dyn FnMut(Incoming) -> Result<(), CurateError>;

/// Most bytes of one member of a tar file.
pub(super) const MAX_BYTES: u64 = 256 << 20;

/// Reads a file to its end, and says in `position` how many of its bytes are read.
///
/// # Errors
/// If it cannot be read, breaks off, or `sink` fails.
pub fn read(path: &Path, position: &AtomicU64, sink: Sink<'_>) -> Result<(), CurateError> {
    let io = || CurateError::io("read", path);
    let file = Counted {
        reader: File::open(path).map_err(io())?,
        position,
    };
    let file = BufReader::with_capacity(1 << 20, file);
    let (mut start, mut reader) = look(Box::new(file)).map_err(io())?;
    let is_compressed = match start {
        Start::Parquet => return parquet(path, position, sink),
        Start::Gzip => {
            let inside = flate2::bufread::MultiGzDecoder::new(reader);
            (start, reader) = look(Box::new(BufReader::new(inside))).map_err(io())?;
            true
        }
        Start::Zstd => {
            let inside = zstd::stream::read::Decoder::with_buffer(reader).map_err(io())?;
            (start, reader) = look(Box::new(BufReader::new(inside))).map_err(io())?;
            true
        }
        Start::Arrow => return Err(arrow_is_refused(path)),
        Start::Tar | Start::Array | Start::Lines => false,
    };
    let refused = |what: &str| CurateError::Format {
        path: path.to_owned(),
        problem: format!("it is {what} inside of gzip or Zstandard; unpack it first"),
    };
    match start {
        Start::Parquet => Err(refused("Parquet")),
        Start::Gzip | Start::Zstd if is_compressed => Err(refused("something compressed")),
        Start::Arrow => Err(arrow_is_refused(path)),
        Start::Tar => tar(path, reader, sink),
        Start::Array => array(path, reader, sink),
        Start::Gzip | Start::Zstd | Start::Lines => lines(path, reader, sink),
    }
}

/// What bytes are, and all of them, without what editors put in front of text.
fn look<'a>(mut reader: Box<dyn BufRead + 'a>) -> std::io::Result<(Start, Box<dyn BufRead + 'a>)> {
    let mut head = Vec::new();
    (&mut reader).take(HEAD_BYTES).read_to_end(&mut head)?;
    let start = Start::of(&head);
    let skip = match head.starts_with(MARK) {
        true => MARK.len() as u64,
        false => 0,
    };
    let mut head = std::io::Cursor::new(head);
    head.set_position(skip);
    Ok((start, Box::new(head.chain(reader))))
}

/// A reader that says how far it is.
struct Counted<'a> {
    reader: File,
    position: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(bytes)?;
        self.position.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// A record of somebody else's, in the form of samples.
pub(super) fn record(value: Value, mut pictures: Vec<Vec<u8>>) -> Incoming {
    Incoming::Record {
        record: normalise(value, &mut pictures),
        pictures,
        form: Form::Foreign,
    }
}

/// What is no JSON, as one line.
pub(super) fn one_line(bytes: &[u8]) -> Vec<u8> {
    let flat = |byte: &u8| match byte {
        b'\n' | b'\r' => b' ',
        other => *other,
    };
    bytes.iter().map(flat).collect()
}

fn lines(path: &Path, reader: impl BufRead, sink: Sink<'_>) -> Result<(), CurateError> {
    let io = || CurateError::io("read", path);
    let mut lines = Lines::new(reader);
    while let Some(line) = lines.next_line().map_err(io())? {
        let text = line.text.trim_ascii();
        if text.is_empty() {
            sink(Incoming::Blank)?;
            continue;
        }
        sink(match parse_json(text) {
            Ok(value) => record(value, Vec::new()),
            Err(_) => Incoming::Line(text.to_vec()),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use serde_json::json;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Incoming>, CurateError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let mut found = Vec::new();
        read(&path, &AtomicU64::new(0), &mut |incoming| {
            if incoming != Incoming::Blank {
                found.push(incoming);
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn ids(bytes: &[u8]) -> Vec<i64> {
        let id = |incoming: &Incoming| match incoming {
            Incoming::Record { record, .. } => record["id"].as_i64().unwrap(),
            Incoming::Line(_) | Incoming::LeftOut | Incoming::Blank => -1,
        };
        all(bytes).unwrap().iter().map(id).collect()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn bytes_say_what_a_file_is() {
        let lines = b"{\"id\": 1}\n\nnonsense\r\n{\"id\": 2}";
        assert_eq!(ids(lines), [1, -1, 2]);
        assert_eq!(ids(b" \n[{\"id\": 3}, {\"id\": 4}]\n"), [3, 4]);
        assert_eq!(ids(&gz(lines)), [1, -1, 2]);
        // Two members, one behind the other, are one file.
        assert_eq!(
            ids(&[gz(b"{\"id\": 5}\n"), gz(b"{\"id\": 6}\n")].concat()),
            [5, 6]
        );
        assert_eq!(
            ids(&zstd::encode_all(&b"[{\"id\": 7}]"[..], 1).unwrap()),
            [7]
        );
        let cut = all(b"[{\"id\": 3}, {\"id\"").unwrap_err().to_string();
        assert!(cut.contains("breaks off"), "{cut}");
        assert!(all(&gz(lines)[..20]).is_err());
        let twice = all(&gz(&gz(lines))).unwrap_err().to_string();
        assert!(twice.contains("something compressed inside"), "{twice}");
        // Python's JSON is JSON in every form.
        for text in [
            &b"{\"id\": 1, \"score\": NaN}"[..],
            b"[{\"id\": 1, \"score\": NaN}]",
        ] {
            assert_eq!(ids(&gz(text)), [1]);
        }
        // What is in front of the array is no line of it.
        let spaces = " ".repeat(1000);
        assert_eq!(
            ids(format!("\u{feff}{spaces}[{{\"id\": 9}}]").as_bytes()),
            [9]
        );
    }

    fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn members_with_one_key_are_one_sample() {
        let bytes = tar_of(&[
            ("a/1.json", b"{\"id\": 8}"),
            ("a/1.jpg", b"JPG"),
            ("a/2.txt", b"a caption\n"),
            ("a/2.png", b"PNG"),
        ]);
        for bytes in [gz(&bytes), bytes] {
            let found = all(&bytes).unwrap();
            let Incoming::Record {
                record, pictures, ..
            } = &found[0]
            else {
                panic!()
            };
            assert_eq!(
                (&record["id"], pictures.as_slice()),
                (&json!(8), &[b"JPG".to_vec()][..])
            );
            let Incoming::Record { record, .. } = &found[1] else {
                panic!()
            };
            assert_eq!(record["conversations"][1]["value"], "a caption");
            assert_eq!(record["id"], "a/2");
        }
    }

    #[test]
    fn what_a_broken_member_takes_with_it_is_counted() {
        let found = all(&tar_of(&[
            ("1.json", b"{\"id\": 1, \"score\": NaN}"),
            ("1.jpg", b"JPG"),
            ("2.json", b"{\"id\":\n"),
            ("2.jpg", b"JPG"),
            ("2.txt", b"a caption"),
            ("3.caption", b"of the json"),
            ("3.json", b"{\"caption\": \"its own\"}"),
            ("3.meta.json", b"{\"caption\": \"another\"}"),
        ]))
        .unwrap();
        let Incoming::Record {
            record, pictures, ..
        } = &found[0]
        else {
            panic!("{found:?}")
        };
        assert_eq!(record["score"], Value::Null);
        assert_eq!(pictures, &[b"JPG"]);
        // The picture and the text of the second, and the first of two members that are JSON.
        assert_eq!(
            found[1..5],
            [
                Incoming::Line(b"{\"id\": ".to_vec()),
                Incoming::LeftOut,
                Incoming::LeftOut,
                Incoming::LeftOut
            ]
        );
        let Incoming::Record { record, .. } = &found[5] else {
            panic!("{found:?}")
        };
        assert_eq!(
            (&record["caption"], &record["caption_"]),
            (&json!("another"), &json!("of the json"))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0..5) {
            let front: &[u8] = [&b""[..], b"PAR1", b"[", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"][kind as usize];
            let _ = all(&[front, &bytes].concat());
        }
    }
}
