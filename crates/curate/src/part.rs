//! Parts of files, and how they are indexed.
//!
//! A file is cut into parts of equal size, at the next line break; a part is indexed by itself, on any
//! core or machine, into one Parquet file ([`crate::index`]). Position, a number of 64 bits, is the
//! part in the upper and the row in the lower half, so that the order of positions is the order of
//! lines.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::UInt64Builder;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use opabinia_data::Place;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::classify::{Class, Classifier};
use crate::error::CurateError;
use crate::index::{Keys, Rows, Summary};
use crate::lines::PartText;
use crate::sources::Origin;
use crate::table::{hex, write_table};

/// Bytes of a part, about.
pub const PART_BYTES: u64 = 16 << 20;

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Number among all parts of all files, from 0.
    pub number: u32,
    /// Number of its file.
    pub file: u32,
    /// First byte; the part begins with the first line that begins there or later.
    pub start: u64,
    /// End; a line that begins before it belongs to the part.
    pub end: u64,
}

/// Cuts files into parts. `sizes` are bytes; a file without any has no part.
pub fn cut(sizes: &[u64], part_bytes: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    for (file, &size) in sizes.iter().enumerate() {
        let mut start = 0;
        while start < size {
            let end = (start + part_bytes.max(1)).min(size);
            parts.push(Part {
                number: parts.len() as u32,
                file: file as u32,
                start,
                end,
            });
            start = end;
        }
    }
    parts
}

/// Key of a source and category in an index.
pub fn source_key(origin: &Origin) -> u64 {
    let mut hash = Sha256::new();
    hash.update((origin.source.len() as u64).to_le_bytes());
    hash.update(&origin.source);
    hash.update(&origin.category);
    key_of(hash)
}

/// Key of a source's name in an index: all of its categories have it.
pub fn name_key(source: &str) -> u64 {
    key_of(Sha256::new().chain_update(source))
}

fn key_of(hash: Sha256) -> u64 {
    let hash: [u8; 32] = hash.finalize().into();
    // 0 is kept for lines without a source.
    u64::from_le_bytes([
        hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7],
    ])
    .max(1)
}

/// Columns of a table of bands: a sample, and the key of one of its bands.
fn bands_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("pos", DataType::UInt64, false),
        Field::new("band", DataType::UInt64, false),
    ]))
}

/// Indexes a part into `out`, which appears when it is whole, and the bands of its samples into
/// `bands_out`. `name` is the file's name as rules know it. Messages do not say the line, which only
/// who knows all parts before can tell.
///
/// # Errors
/// If the file cannot be read or the index cannot be written.
pub fn index(
    path: &Path,
    name: &str,
    part: &Part,
    classifier: &Classifier<'_>,
    out: &Path,
    bands_out: Option<&Path>,
) -> Result<Summary, CurateError> {
    let text = PartText::read(path, part)?;
    let mut summary = Summary {
        bytes: text.len(),
        sha256: hex(&text.sha256(path)?),
        ..Summary::default()
    };
    let file: Arc<Path> = path.into();
    let mut rows = Rows::default();
    let mut bands = [UInt64Builder::new(), UInt64Builder::new()];
    // Sources are few and lines are many.
    let mut known: HashMap<Origin, Keys> = HashMap::new();
    let mut classes: HashMap<Class, u64> = HashMap::new();
    for line in text.lines() {
        let place = Place::new(Arc::clone(&file), summary.lines + 1);
        let mut classified = classifier.classify_line(&line, place.clone(), name);
        // The line is not known yet, only its number in the part.
        if let Some(what) = &mut classified.what
            && let Some(rest) = what.strip_prefix(&format!("{place}: "))
        {
            *what = rest.to_owned();
        }
        let keys = match &classified.origin {
            None => Keys::default(),
            Some(origin) => match known.get(origin) {
                Some(keys) => *keys,
                None => {
                    let keys = Keys {
                        source: source_key(origin),
                        name: name_key(&origin.source),
                    };
                    known.insert(origin.clone(), keys);
                    keys
                }
            },
        };
        *classes.entry(classified.class).or_default() += 1;
        let pos = position(part.number, summary.lines);
        // Only of lines that are too long to be samples is the length not told exactly.
        let length = u32::try_from(line.bytes).unwrap_or(u32::MAX);
        rows.push(pos, line.offset, length, keys, &classified);
        for key in classified.bands.into_iter().flatten() {
            bands[0].append_value(pos);
            bands[1].append_value(key);
        }
        summary.lines += 1;
    }
    let names = |(origin, keys): (Origin, Keys)| (keys.source, (origin.source, origin.category));
    summary.sources = known.into_iter().map(names).collect();
    let named = |(class, count): (Class, u64)| (class.name().to_owned(), count);
    summary.classes = classes.into_iter().map(named).collect();
    // The index comes last: where it is, the bands are too.
    if let Some(path) = bands_out {
        let columns = bands.map(|mut column| Arc::new(column.finish()) as ArrayRef);
        let doing = "write the bands";
        write_table(doing, path, bands_schema(), columns.to_vec(), None)?;
    }
    rows.write(out, &summary)?;
    Ok(summary)
}

/// Position of a row of a part.
pub fn position(part: u32, row: u64) -> u64 {
    u64::from(part) << 32 | row
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::index::{Index, read_summary};
    use crate::recipe::Placeholders;
    use crate::sources::Rules;

    fn all_lines(text: &[u8], part_bytes: u64) -> Vec<(u64, Vec<u8>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.jsonl");
        std::fs::write(&path, text).unwrap();
        let rules = Rules::new(&[]);
        let classifier = Classifier {
            rules: &rules,
            pictures: None,
            decode: false,
            placeholders: Placeholders::Once,
            compare: None,
        };
        let mut lines = Vec::new();
        for part in cut(&[text.len() as u64], part_bytes) {
            let out = folder.path().join(format!("{}.parquet", part.number));
            let summary = index(&path, "s.jsonl", &part, &classifier, &out, None).unwrap();
            assert_eq!(read_summary(&out).unwrap(), summary);
            let read = Index::read(&out).unwrap();
            for row in read.rows().unwrap() {
                let at = row.offset as usize;
                lines.push((row.offset, text[at..at + row.length as usize].to_vec()));
            }
        }
        lines
    }

    #[test]
    fn a_line_belongs_to_the_part_it_begins_in() {
        let text = b"{}\n\n[1, 2]\nlast";
        let expected: Vec<(u64, Vec<u8>)> = vec![
            (0, b"{}".to_vec()),
            (3, b"".to_vec()),
            (4, b"[1, 2]".to_vec()),
            (11, b"last".to_vec()),
        ];
        for part_bytes in 1..20 {
            assert_eq!(all_lines(text, part_bytes), expected, "{part_bytes}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn parts_hold_every_byte_once(text in "[a\n]{1,40}", part_bytes in 1_u64..12) {
            let lines: Vec<Vec<u8>> = all_lines(text.as_bytes(), part_bytes).into_iter().map(|l| l.1).collect();
            let expected: Vec<Vec<u8>> = text.lines().map(|l| l.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines, expected);
        }
    }
}
