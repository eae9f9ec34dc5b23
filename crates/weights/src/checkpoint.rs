//! Checkpoints: named tensors in one file, or in the shards that an index lists.
//!
//! Opening reads headers only. Where a folder holds several files, the Hugging Face names decide,
//! in the order of [`CANDIDATES`]; a folder that leaves more than one choice is an error that lists
//! them, because guessing could silently load other weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{AllocationProperty, Bytes, TensorData};
use serde::Deserialize;

use crate::dtype::{Dtype, FloatDtype, checked_count, convert};
use crate::error::WeightsError;
use crate::gguf::{self, Blocks};
use crate::mapped::MappedFile;
use crate::pytorch_file::{self, Pickled};
use crate::safetensors_file;

/// File names that are looked for in a folder, in this order.
const CANDIDATES: [&str; 6] = [
    "model.safetensors.index.json",
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
];

/// What the name of an index ends in.
const INDEX_SUFFIX: &str = ".index.json";

/// Largest index read; that of a model with a million tensors would be a tenth of it.
const MAX_INDEX_BYTES: u64 = 1 << 30;

/// Named tensors in one or several files; see the module documentation.
#[derive(Clone)]
pub struct Checkpoint {
    location: PathBuf,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

/// What is known of a tensor without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type in the file.
    pub dtype: Dtype,
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The file that holds it.
    pub file: PathBuf,
    /// Size in the file.
    pub bytes: usize,
}

/// One tensor: where it is and what it is.
#[derive(Clone)]
pub(crate) struct Entry {
    pub file: Arc<Path>,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub storage: Storage,
}

/// Where the bytes of a tensor come from.
#[derive(Clone)]
pub(crate) enum Storage {
    /// A range of a mapped file, validated when the file was opened.
    Mapped {
        file: MappedFile,
        range: Range<usize>,
    },
    /// A storage of a PyTorch file, read when asked for.
    Pickled(Pickled),
    /// A tensor of a GGUF file that is not stored as it is used.
    Blocks(Blocks),
}

/// What one file or a set of shards holds.
pub(crate) struct Contents {
    pub entries: BTreeMap<String, Entry>,
    pub metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a checkpoint: a weights file (`.safetensors`, `.bin`, `.pt`, `.pth`, `.gguf`), an index
    /// (`*.index.json`), or a folder that holds one of these.
    ///
    /// # Errors
    /// If nothing or more than one thing is found, if a file is broken, if an index names a shard
    /// that is missing or a key that its shard does not hold.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let path = path.as_ref();
        let file = if path.is_dir() {
            find_in_folder(path)?
        } else if path.exists() {
            path.to_path_buf()
        } else {
            return Err(WeightsError::NotFound {
                path: path.to_path_buf(),
            });
        };
        let contents = if is_index(&file) {
            open_shards(&file)?
        } else {
            open_file(&file)?
        };
        Ok(Self {
            location: path.to_path_buf(),
            entries: contents.entries,
            metadata: contents.metadata,
        })
    }

    /// The path that was opened.
    pub fn location(&self) -> &Path {
        &self.location
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// What is known of a tensor without reading it.
    pub fn info(&self, key: &str) -> Option<TensorInfo> {
        self.entries.get(key).map(Entry::info)
    }

    /// The `__metadata__` of safetensors files, the numbers and texts of a GGUF file; empty for PyTorch files.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Size of all tensors as stored.
    pub fn total_bytes(&self) -> u64 {
        self.entries.values().map(|e| e.bytes() as u64).sum()
    }

    /// The tensors whose keys begin with `prefix`, under their names without it.
    ///
    /// PyTorch files often keep their weights one level down: a tensor `w` of the dictionary under
    /// `"state_dict"` has the key `state_dict.w`, and `with_prefix("state_dict.")` makes it `w`.
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> Self {
        let entries = self
            .entries
            .iter()
            .filter_map(|(key, entry)| {
                let key = key.strip_prefix(prefix)?;
                Some((key.to_owned(), entry.clone()))
            })
            .collect();
        Self {
            location: self.location.clone(),
            entries,
            metadata: self.metadata.clone(),
        }
    }

    /// Reads a tensor: as it is stored, or converted to `target`.
    ///
    /// A tensor in a mapped file that is wanted as stored shares the mapping: nothing is copied.
    ///
    /// # Errors
    /// If there is no such tensor, if its type cannot be loaded or is not a float although
    /// `target` is given, or if the file cannot be read.
    pub fn tensor(
        &self,
        key: &str,
        target: Option<FloatDtype>,
    ) -> Result<TensorData, WeightsError> {
        self.rows(key, None, target)
    }

    /// Like [`tensor`](Self::tensor), for a range of the first axis (all of it if `None`).
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor), and if the tensor has fewer rows.
    pub fn rows(
        &self,
        key: &str,
        rows: Option<Range<usize>>,
        target: Option<FloatDtype>,
    ) -> Result<TensorData, WeightsError> {
        let entry = self
            .entries
            .get(key)
            .ok_or_else(|| WeightsError::NoSuchTensor {
                key: key.to_owned(),
                location: self.location.clone(),
                nearest: self.nearest(key, None),
            })?;
        entry.read(key, rows, target)
    }

    /// The bytes of a tensor, shared with the mapped file.
    pub(crate) fn raw_bytes(&self, key: &str) -> Result<bytes::Bytes, WeightsError> {
        let missing = || WeightsError::NoSuchTensor {
            key: key.to_owned(),
            location: self.location.clone(),
            nearest: None,
        };
        let entry = self.entries.get(key).ok_or_else(missing)?;
        match &entry.storage {
            Storage::Mapped { file, range } => file.share(range.clone()).ok_or_else(missing),
            Storage::Pickled(pickled) => {
                let bytes = pickled.read().map_err(|source| WeightsError::Open {
                    path: entry.file.to_path_buf(),
                    source,
                })?;
                Ok(bytes.into())
            }
            Storage::Blocks(_) => Err(missing()),
        }
    }

    /// Whether it is a GGUF file.
    #[must_use]
    pub fn is_gguf(&self) -> bool {
        self.metadata.contains_key(gguf::ARCHITECTURE)
    }

    /// Takes the pages of a tensor, or of some rows of it, out of this process.
    pub(crate) fn give_back(&self, key: &str, rows: Option<&Range<usize>>) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        if let (Storage::Mapped { file, range }, Some((part, _))) =
            (&entry.storage, entry.locate(rows.cloned()))
        {
            file.give_back(range.start + part.start..range.start + part.end);
        }
    }

    /// Key and description of each tensor, sorted by key.
    pub(crate) fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// The key most like `key`, if any is similar at all. Among equals one of the given shape.
    pub(crate) fn nearest(&self, key: &str, shape: Option<&[usize]>) -> Option<String> {
        /// Below this, names have nothing to do with each other.
        const SIMILAR: f64 = 0.6;
        self.entries
            .iter()
            .map(|(candidate, entry)| {
                let same_shape = shape.is_some_and(|shape| shape == entry.shape.as_slice());
                let score = strsim::normalized_levenshtein(key, candidate);
                (score + if same_shape { 0.01 } else { 0.0 }, candidate)
            })
            .filter(|(score, _)| *score >= SIMILAR)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, candidate)| candidate.clone())
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("location", &self.location)
            .field("tensors", &self.entries.len())
            .field("total_bytes", &self.total_bytes())
            .finish_non_exhaustive()
    }
}

impl Entry {
    pub(crate) fn info(&self) -> TensorInfo {
        TensorInfo {
            dtype: self.dtype,
            shape: self.shape.clone(),
            file: self.file.to_path_buf(),
            bytes: self.bytes(),
        }
    }

    /// Size in the file.
    fn bytes(&self) -> usize {
        match &self.storage {
            Storage::Mapped { range, .. } => range.len(),
            Storage::Pickled(pickled) => pickled.bytes(),
            Storage::Blocks(blocks) => blocks.bytes(),
        }
    }

    /// Size of some values of that tensor as they are loaded without being asked for another type.
    pub(crate) fn bytes_of(&self, values: u64) -> Option<u64> {
        if let (Storage::Blocks(_), Some(size)) = (&self.storage, self.dtype.size()) {
            return values.checked_mul(size as u64);
        }
        let all = self.shape.iter().map(|n| *n as u64).product::<u64>();
        (self.bytes() as u64).checked_div(all)?.checked_mul(values)
    }

    /// Reads the tensor or some rows of it; `key` names it in errors.
    fn read(
        &self,
        key: &str,
        rows: Option<Range<usize>>,
        target: Option<FloatDtype>,
    ) -> Result<TensorData, WeightsError> {
        let no_such_rows = || WeightsError::Rows {
            key: key.to_owned(),
            file: self.file.to_path_buf(),
            shape: self.shape.clone(),
        };
        if let Storage::Blocks(blocks) = &self.storage {
            return self.expand(blocks, rows, target).ok_or_else(no_such_rows);
        }
        let (part, shape) = self.locate(rows).ok_or_else(no_such_rows)?;
        let unsupported = || WeightsError::Dtype {
            key: key.to_owned(),
            file: self.file.to_path_buf(),
            dtype: self.dtype,
        };
        match &self.storage {
            Storage::Mapped { file, range } => {
                let range = range.start + part.start..range.start + part.end;
                self.read_mapped(file, range, shape, target)
                    .ok_or_else(unsupported)
            }
            Storage::Pickled(pickled) => {
                let bytes = pickled.read().map_err(|source| WeightsError::Open {
                    path: self.file.to_path_buf(),
                    source,
                })?;
                self.take_read(bytes, part, shape, target)
                    .ok_or_else(unsupported)
            }
            Storage::Blocks(_) => Err(unsupported()),
        }
    }

    /// Makes the values of some rows; `None` if there are fewer.
    fn expand(
        &self,
        blocks: &Blocks,
        rows: Option<Range<usize>>,
        target: Option<FloatDtype>,
    ) -> Option<TensorData> {
        let stored = match self.dtype {
            Dtype::F32 => FloatDtype::F32,
            Dtype::Bf16 => FloatDtype::Bf16,
            _ => FloatDtype::F16,
        };
        let (count, rest) = match self.shape.split_first() {
            Some((count, rest)) => (*count, rest),
            None => (1, self.shape.as_slice()),
        };
        let rows = rows.unwrap_or(0..count);
        let shape = std::iter::once(rows.len()).chain(rest.iter().copied());
        blocks.read(rows, shape.collect(), target.unwrap_or(stored))
    }

    /// The byte range within the tensor, and the shape, of some of its rows. `None` if it has
    /// fewer rows.
    fn locate(&self, rows: Option<Range<usize>>) -> Option<(Range<usize>, Vec<usize>)> {
        let Some(rows) = rows else {
            return Some((0..self.bytes(), self.shape.clone()));
        };
        let (&count, rest) = self.shape.split_first()?;
        if rows.start > rows.end || rows.end > count {
            return None;
        }
        let row_bytes = checked_count(rest)?.checked_mul(self.dtype.size()?)?;
        let bytes = rows.start.checked_mul(row_bytes)?..rows.end.checked_mul(row_bytes)?;
        let shape = std::iter::once(rows.len()).chain(rest.iter().copied());
        Some((bytes, shape.collect()))
    }

    /// Shares or converts a range of a mapped file; `None` if the type does not allow it.
    fn read_mapped(
        &self,
        file: &MappedFile,
        range: Range<usize>,
        shape: Vec<usize>,
        target: Option<FloatDtype>,
    ) -> Option<TensorData> {
        let stored = self.dtype;
        let bytes = file.share(range.clone())?;
        file.prefetch(range.clone());
        match target {
            Some(target) if Dtype::from(target) != stored => {
                convert(&bytes, stored, target, &shape, &|done| {
                    file.give_back(range.start + done.start..range.start + done.end);
                })
            }
            _ => as_stored(bytes, AllocationProperty::File, stored, shape),
        }
    }

    /// Takes over or converts a part of bytes that were read; `None` if the type does not allow it.
    fn take_read(
        &self,
        bytes: Vec<u8>,
        part: Range<usize>,
        shape: Vec<usize>,
        target: Option<FloatDtype>,
    ) -> Option<TensorData> {
        let stored = self.dtype;
        match target {
            Some(target) if Dtype::from(target) != stored => {
                convert(bytes.get(part)?, stored, target, &shape, &|_| {})
            }
            _ => {
                let bytes = bytes::Bytes::from(bytes).slice(part);
                as_stored(bytes, AllocationProperty::Native, stored, shape)
            }
        }
    }
}

/// Tensor data in the type of the file, sharing `bytes` if they are aligned for it.
fn as_stored(
    bytes: bytes::Bytes,
    property: AllocationProperty,
    stored: Dtype,
    shape: Vec<usize>,
) -> Option<TensorData> {
    let (size, dtype) = (stored.size()?, stored.to_burn()?);
    let aligned = bytes.as_ptr().addr().is_multiple_of(size);
    let bytes = if aligned {
        Bytes::from_shared(bytes, property)
    } else {
        aligned_copy(&bytes, size)
    };
    TensorData::try_from_bytes(bytes, shape, dtype).ok()
}

/// A copy whose address is a multiple of the element size.
fn aligned_copy(bytes: &[u8], size: usize) -> Bytes {
    fn copied<T: bytemuck::Pod + bytemuck::CheckedBitPattern + Send + Sync>(bytes: &[u8]) -> Bytes {
        Bytes::from_elems(bytemuck::pod_collect_to_vec::<u8, T>(bytes))
    }
    match size {
        8 => copied::<u64>(bytes),
        4 => copied::<u32>(bytes),
        2 => copied::<u16>(bytes),
        _ => copied::<u8>(bytes),
    }
}

/// The weights file or index of a folder.
pub(crate) fn find_in_folder(folder: &Path) -> Result<PathBuf, WeightsError> {
    if let Some(name) = CANDIDATES.iter().find(|name| folder.join(name).is_file()) {
        return Ok(folder.join(name));
    }
    let mut found = weights_files(folder)?;
    match found.len() {
        0 => Err(WeightsError::NoWeights {
            folder: folder.to_path_buf(),
        }),
        1 => Ok(found.remove(0)),
        _ => Err(WeightsError::Ambiguous {
            folder: folder.to_path_buf(),
            files: found,
        }),
    }
}

/// All files of a folder that could hold weights, sorted.
fn weights_files(folder: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let listing = |source| WeightsError::Open {
        path: folder.to_path_buf(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(listing)? {
        let path = entry.map_err(listing)?.path();
        if path.is_file() && (Format::of(&path).is_some() || is_index(&path)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The file formats, told apart by the extension.
#[derive(Clone, Copy)]
enum Format {
    Safetensors,
    Pytorch,
    Gguf,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "safetensors" => Some(Self::Safetensors),
            "bin" | "pt" | "pth" => Some(Self::Pytorch),
            "gguf" => Some(Self::Gguf),
            _ => None,
        }
    }
}

pub(crate) fn is_index(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.ends_with(INDEX_SUFFIX))
}

fn open_file(path: &Path) -> Result<Contents, WeightsError> {
    match Format::of(path) {
        Some(Format::Safetensors) => safetensors_file::open(path),
        Some(Format::Pytorch) => pytorch_file::open(path),
        Some(Format::Gguf) => gguf::open(path),
        None => Err(WeightsError::UnknownFormat {
            path: path.to_path_buf(),
        }),
    }
}

/// The part of an index that we read.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens every shard that an index lists, and checks that each key is where the index says.
///
/// A tensor of a shard that the index does not mention is kept under its name: it would be
/// reported as unused rather than disappear.
fn open_shards(index_path: &Path) -> Result<Contents, WeightsError> {
    let index = read_index(index_path)?;
    let folder = index_path.parent().unwrap_or(Path::new(""));
    let mut shards = BTreeMap::new();
    for name in index.weight_map.values() {
        if !shards.contains_key(name.as_str()) {
            shards.insert(name.as_str(), open_shard(index_path, folder, name)?);
        }
    }
    let mut entries = BTreeMap::new();
    for (key, name) in &index.weight_map {
        let entry = shards
            .get_mut(name.as_str())
            .and_then(|shard| shard.entries.remove(key))
            .ok_or_else(|| WeightsError::NotInShard {
                index: index_path.to_path_buf(),
                key: key.clone(),
                shard: name.clone(),
            })?;
        entries.insert(key.clone(), entry);
    }
    let mut metadata = BTreeMap::new();
    for shard in shards.into_values() {
        metadata.extend(shard.metadata);
        for (key, entry) in shard.entries {
            entries.entry(key).or_insert(entry);
        }
    }
    Ok(Contents { entries, metadata })
}

fn open_shard(index: &Path, folder: &Path, name: &str) -> Result<Contents, WeightsError> {
    // The name comes from a file: it must not lead out of the folder.
    let plain = Path::new(name).file_name().is_some_and(|file| file == name);
    let path = folder.join(name);
    if !plain || !path.is_file() {
        return Err(WeightsError::MissingShard {
            index: index.to_path_buf(),
            shard: name.to_owned(),
        });
    }
    open_file(&path)
}

/// The file names of the shards that an index lists.
pub(crate) fn shards_of(index: &Path) -> Result<BTreeSet<String>, WeightsError> {
    Ok(read_index(index)?.weight_map.into_values().collect())
}

fn read_index(path: &Path) -> Result<Index, WeightsError> {
    let opening = |source| WeightsError::Open {
        path: path.to_path_buf(),
        source,
    };
    let size = fs::metadata(path).map_err(opening)?.len();
    if size > MAX_INDEX_BYTES {
        return Err(opening(std::io::Error::other(format!(
            "{size} bytes are too many for an index (the limit is {MAX_INDEX_BYTES})"
        ))));
    }
    let text = fs::read(path).map_err(opening)?;
    serde_json::from_slice(&text).map_err(|source| WeightsError::Index {
        path: path.to_path_buf(),
        source,
    })
}
