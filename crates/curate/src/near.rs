//! Near duplicates: from pairs that meet in a band to samples that are dropped.
//!
//! A sample is a near duplicate if an earlier one, about the same picture, is at least as alike as the
//! recipe says. The first of those that say almost the same is never dropped.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use opabinia_data::{Place, Sample};
use rayon::prelude::*;

use crate::error::CurateError;
use crate::index::{Index, Row};
use crate::job::{Job, index_path};
use crate::minhash::{likeness, plain_text, shingles};
use crate::part::Part;
use crate::table;

/// Pairs that are compared at once.
const GROUP: usize = 4096;

/// Compares the pairs `(later, earlier)`, which are in the order of the later ones, and gives the first
/// earlier one that is alike enough for each. Pairs with equal content are left to the exact step if
/// `exact` says that there is one.
///
/// # Errors
/// If a text cannot be read, or `cancelled` says so.
pub fn judge(
    pairs: &[(u64, u64)],
    threshold: f64,
    exact: bool,
    job: &Job,
    job_path: &Path,
    parts: &[Part],
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<(u64, u64)>, CurateError> {
    let wanted: HashSet<u32> = pairs
        .iter()
        .flat_map(|&(later, earlier)| [later, earlier])
        .map(|position| (position >> 32) as u32)
        .collect();
    // Where the texts are: thirty-two bytes for each line of the parts that any pair is in.
    let places = wanted
        .into_par_iter()
        .map(|part| Ok((part, places(&index_path(job_path, part))?)))
        .collect::<Result<HashMap<u32, Places>, CurateError>>()?;
    let texts = Texts {
        job,
        parts,
        places: &places,
    };
    let mut found: Vec<(u64, u64)> = Vec::new();
    for group in pairs.chunks(GROUP) {
        if cancelled() {
            return Err(CurateError::Interrupted);
        }
        let alike = group
            .par_iter()
            .map(|&(later, earlier)| {
                if exact && texts.place(later)?.hash == texts.place(earlier)?.hash {
                    return Ok(false);
                }
                let (one, other) = (texts.sample(later)?, texts.sample(earlier)?);
                let [one, other] = [one, other].map(|sample| shingles(&plain_text(&sample)));
                Ok(likeness(&one, &other) >= threshold)
            })
            .collect::<Result<Vec<bool>, CurateError>>()?;
        for (&pair, alike) in group.iter().zip(alike) {
            if alike && found.last().is_none_or(|last| last.0 != pair.0) {
                found.push(pair);
            }
        }
    }
    Ok(found)
}

/// Where every line of a part is, and what it says.
type Places = Vec<LinePlace>;

#[derive(Clone, Copy)]
struct LinePlace {
    offset: u64,
    length: u32,
    hash: [u64; 2],
}

fn places(index: &Path) -> Result<Places, CurateError> {
    let index = Index::read(index)?;
    let rows = index.rows()?;
    let place = |row: &Row<'_>| LinePlace {
        offset: row.offset,
        length: row.length,
        hash: row.hash,
    };
    Ok(rows.iter().map(place).collect())
}

struct Texts<'a> {
    job: &'a Job,
    parts: &'a [Part],
    places: &'a HashMap<u32, Places>,
}

fn no_line(position: u64) -> CurateError {
    CurateError::DoesNotAddUp {
        what: format!("position {position} is of no line"),
    }
}

impl Texts<'_> {
    fn place(&self, position: u64) -> Result<LinePlace, CurateError> {
        let (part, row) = ((position >> 32) as u32, (position & 0xFFFF_FFFF) as usize);
        let place = self.places.get(&part).and_then(|places| places.get(row));
        place.copied().ok_or_else(|| no_line(position))
    }

    fn sample(&self, position: u64) -> Result<Sample, CurateError> {
        let LinePlace { offset, length, .. } = self.place(position)?;
        let part = self.parts.get((position >> 32) as usize);
        let lines = part.and_then(|part| self.job.lines_of(part.file as usize));
        let (path, _) = lines.ok_or_else(|| no_line(position))?;
        let io = || CurateError::io("read", path);
        let mut text = vec![0; length as usize];
        let mut opened = File::open(path).map_err(io())?;
        opened.seek(SeekFrom::Start(offset)).map_err(io())?;
        opened.read_exact(&mut text).map_err(io())?;
        Sample::parse(&text, Place::new(path, 0)).map_err(|_| CurateError::Format {
            path: path.to_owned(),
            problem: "the file changed while it was read; run the command again".to_owned(),
        })
    }
}

/// Writes the table of near duplicates, for the selection to leave out.
///
/// # Errors
/// If it cannot be written.
pub fn write_table(path: &Path, found: &[(u64, u64)]) -> Result<(), CurateError> {
    let schema = Arc::new(Schema::new(vec![Field::new(
        "near_pos",
        DataType::UInt64,
        false,
    )]));
    let column: ArrayRef = Arc::new(UInt64Array::from_iter_values(
        found.iter().map(|pair| pair.0),
    ));
    let doing = "write the table of near duplicates";
    table::write_table(doing, path, schema, vec![column], None)
}
