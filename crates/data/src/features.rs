//! What frozen encoders saw, computed once.
//!
//! Where encoders do not train (both stages of Cambrian-1, arXiv 2406.16860, section 3.3), a picture's
//! features are the same in every epoch and every run. The store keeps them by content: a [`Key`] is
//! the hash of everything that they depend on, so that nothing stale can be found, and pictures that
//! many samples share are stored once.
//!
//! A folder holds segments (`segment-00000.bin`) that are only ever appended to, each with an index
//! (`.idx`) that is nothing but a copy of the records' headers and can be lost, and a lock (`.lock`). A record carries its own
//! checksum. Killing the program leaves at most one torn record at the end of a segment; the next one who
//! opens the store cuts it off. A record that was damaged later is as good as none: it is counted,
//! reported, and may be put again. Any number of processes may use a folder at once: each appends to
//! segments that it alone has locked, and sees what the others had written when it opened the store.

mod record;
mod segment;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use half::slice::HalfFloatSliceExt;
use sha2::{Digest, Sha256};

use crate::error::DataError;
use record::{HEADER_BYTES, Header};
use segment::Segment;

pub use record::Precision;

/// Size at which a new segment is begun.
const SEGMENT_BYTES: u64 = 4 << 30;

/// The name of some features: a hash of all that they depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// What features depend on.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a> {
    /// Hash of the picture's file, see [`crate::pictures::picture_hash`].
    pub picture: &'a [u8; 32],
    /// Name of the vision encoder.
    pub encoder: &'a str,
    /// Hash of its weights, or whatever else tells them from others.
    pub weights: &'a str,
    /// How the picture was prepared, in words that differ where preparation does.
    pub preprocessing: &'a str,
    /// Rows and columns of the features.
    pub grid: (usize, usize),
}

impl Key {
    /// The key of these parts.
    pub fn of(parts: &KeyParts<'_>) -> Self {
        let mut hash = Sha256::new();
        hash.update(parts.picture);
        for text in [parts.encoder, parts.weights, parts.preprocessing] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        let (rows, cols) = parts.grid;
        for side in [rows, cols] {
            hash.update((side as u64).to_le_bytes());
        }
        Self(hash.finalize().into())
    }
}

/// What the features of an encoder depend on besides the picture: kept by whoever looks at many pictures
/// with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderKey {
    /// See [`KeyParts::encoder`].
    pub encoder: String,
    /// See [`KeyParts::weights`].
    pub weights: String,
    /// See [`KeyParts::preprocessing`].
    pub preprocessing: String,
    /// See [`KeyParts::grid`].
    pub grid: (usize, usize),
}

impl EncoderKey {
    /// The key of the features of a picture.
    #[must_use]
    pub fn of(&self, picture: &[u8; 32]) -> Key {
        Key::of(&KeyParts {
            picture,
            encoder: &self.encoder,
            weights: &self.weights,
            preprocessing: &self.preprocessing,
            grid: self.grid,
        })
    }
}

/// Features of one picture and one encoder, `[n, d]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Number of features, `n`.
    pub rows: usize,
    /// Width of each, `d`.
    pub width: usize,
    /// `n · d` values.
    pub values: Vec<f32>,
}

/// A folder of features.
#[derive(Debug)]
pub struct FeatureStore {
    folder: PathBuf,
    precision: Precision,
    segment_bytes: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    segments: Vec<Segment>,
    places: HashMap<Key, RecordPlace>,
    bytes: u64,
    damaged: u64,
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
struct RecordPlace {
    /// Index into [`Inner::segments`].
    segment: usize,
    offset: u64,
    header: Header,
}

impl FeatureStore {
    /// Opens the store in a folder, which is made if it is not there; what is put from now on is
    /// stored in `precision`.
    ///
    /// # Errors
    /// If the folder cannot be made or read.
    pub fn open(folder: impl AsRef<Path>, precision: Precision) -> Result<Self, DataError> {
        Self::with_segments_of(folder.as_ref(), precision, SEGMENT_BYTES)
    }

    fn with_segments_of(
        folder: &Path,
        precision: Precision,
        segment_bytes: u64,
    ) -> Result<Self, DataError> {
        std::fs::create_dir_all(folder).map_err(DataError::io("make the folder", folder))?;
        let mut inner = Inner::default();
        for (number, path) in segment::list(folder)? {
            let (segment, records) = Segment::open(number, &path)?;
            for (header, offset) in records {
                inner.remember(inner.segments.len(), offset, header);
            }
            inner.segments.push(segment);
        }
        Ok(Self {
            folder: folder.to_owned(),
            precision,
            segment_bytes,
            inner: Mutex::new(inner),
        })
    }

    /// The features of this key; `None` if they are not there or were damaged.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn get(&self, key: &Key) -> Result<Option<Features>, DataError> {
        let (place, map) = {
            let mut inner = self.lock();
            let Some(&place) = inner.places.get(key) else {
                return Ok(None);
            };
            let end = place.offset + place.header.record_bytes();
            (place, inner.segments[place.segment].map(end)?)
        };
        let payload = usize::try_from(place.offset)
            .ok()
            .and_then(|offset| map.get(offset + HEADER_BYTES..))
            .and_then(|rest| rest.get(..place.header.payload_bytes()));
        match payload.and_then(|payload| decode(&place.header, payload)) {
            Some(features) => Ok(Some(features)),
            None => {
                self.forget(key);
                Ok(None)
            }
        }
    }

    /// Stores features, unless the key is there already.
    ///
    /// Values too large for 16 bits keep 32, whatever the precision.
    ///
    /// # Errors
    /// If they cannot be written; the store stays as it was.
    ///
    /// # Panics
    /// If the number of values is not `rows · width`, or does not fit a record.
    pub fn put(&self, key: &Key, features: &Features) -> Result<(), DataError> {
        if self.contains(key) {
            return Ok(());
        }
        let (header, record) = encode(key, features, self.precision);
        let mut inner = self.lock();
        if inner.places.contains_key(key) {
            return Ok(());
        }
        let segment = inner.writable(&self.folder, self.segment_bytes)?;
        let offset = inner.segments[segment].append(&record)?;
        inner.remember(segment, offset, header);
        Ok(())
    }

    /// Whether there are features of this key.
    pub fn contains(&self, key: &Key) -> bool {
        self.lock().places.contains_key(key)
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.lock().places.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all records.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Number of records that turned out to be damaged since the store was opened.
    pub fn damaged(&self) -> u64 {
        self.lock().damaged
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Drops a damaged record from the books, so that it can be put again.
    fn forget(&self, key: &Key) {
        let mut inner = self.lock();
        if let Some(place) = inner.places.remove(key) {
            inner.damaged += 1;
            let path = inner.segments[place.segment].path().display().to_string();
            tracing::warn!(
                segment = path,
                offset = place.offset,
                "stored features are damaged and will be computed again"
            );
        }
    }

    /// Books change in single statements, so a poisoned lock is as good as another.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Later records replace earlier ones of the same key, which were damaged.
    fn remember(&mut self, segment: usize, offset: u64, header: Header) {
        self.bytes += header.record_bytes();
        let key = Key(header.key);
        let place = RecordPlace {
            segment,
            offset,
            header,
        };
        self.places.insert(key, place);
    }

    /// A segment that this process may append to.
    fn writable(&mut self, folder: &Path, segment_bytes: u64) -> Result<usize, DataError> {
        let room = |segment: &Segment| segment.is_writable() && segment.end() < segment_bytes;
        if let Some(found) = self.segments.iter().rposition(room) {
            return Ok(found);
        }
        let next = self.segments.iter().map(|s| s.number() + 1).max();
        let segment = Segment::create(folder, next.unwrap_or_default())?;
        self.segments.push(segment);
        Ok(self.segments.len() - 1)
    }
}

fn encode(key: &Key, features: &Features, precision: Precision) -> (Header, Vec<u8>) {
    let Features {
        rows,
        width,
        values,
    } = features;
    assert_eq!(values.len(), rows * width, "{rows} × {width} features");
    let write = |precision, payload: &[u8]| {
        let header = Header::new(key.0, *rows, *width, precision, payload);
        let record = header.record(payload);
        (header, record)
    };
    if precision == Precision::F16 {
        let mut halves = vec![half::f16::ZERO; values.len()];
        halves.convert_from_f32_slice(values);
        let fits = |(half, value): (&half::f16, &f32)| half.is_finite() || !value.is_finite();
        if halves.iter().zip(values).all(fits) {
            return write(Precision::F16, bytemuck::cast_slice(&halves));
        }
    }
    write(Precision::F32, bytemuck::cast_slice(values))
}

fn decode(header: &Header, payload: &[u8]) -> Option<Features> {
    if !header.describes(payload) {
        return None;
    }
    let mut values = vec![0.0; header.values()];
    match header.precision {
        Precision::F32 => bytemuck::cast_slice_mut(&mut values).copy_from_slice(payload),
        // Records begin at multiples of 64 bytes, so the halves are aligned.
        Precision::F16 => bytemuck::try_cast_slice::<u8, half::f16>(payload)
            .ok()?
            .convert_to_f32_slice(&mut values),
    }
    Some(Features {
        rows: header.rows as usize,
        width: header.width as usize,
        values,
    })
}

#[cfg(test)]
mod tests;
