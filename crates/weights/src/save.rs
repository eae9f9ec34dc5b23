//! Writing modules as safetensors checkpoints in the Hugging Face layout.
//!
//! A folder gets one `model.safetensors`, or shards `model-00001-of-00003.safetensors` and
//! `model.safetensors.index.json`. Parameters that a [`KeyMap`] places in the same tensor are put
//! together in the order of their rows. Every file appears complete or not at all; several files
//! cannot appear at once, so a run that must survive a power cut writes to a fresh folder and
//! renames that.

mod collector;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, TensorData};
use serde::Serialize;

use crate::dtype::{Dtype, FloatDtype, WeightDtype, checked_count, convert};
use crate::error::WeightsError;
use crate::key_map::{KeyMap, compiled};
use crate::packed;
use crate::replace::Replacement;

use collector::Collector;

/// Size of a shard unless another is asked for; the default of Hugging Face's own writers.
const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveReport {
    /// The weights files, in order; an index is not among them.
    pub files: Vec<PathBuf>,
    /// Tensors in them.
    pub tensors: usize,
    /// Numbers in the tensors.
    pub parameters: u64,
    /// Bytes of tensor data.
    pub bytes: u64,
}

/// Writes one module to one file, every parameter in the type that it has.
///
/// `metadata` goes to the header; `format = pt` is always there, because readers ask for it.
///
/// # Errors
/// As [`CheckpointWriter::add`] and [`CheckpointWriter::write_file`].
pub fn save_module<M: Module>(
    module: &M,
    map: &KeyMap,
    path: impl AsRef<Path>,
    metadata: &[(&str, &str)],
) -> Result<SaveReport, WeightsError> {
    let mut writer = CheckpointWriter::new(WeightDtype::AsStored);
    for (key, value) in metadata {
        writer = writer.metadata(key, value);
    }
    writer.add(module, map)?;
    writer.write_file(path)
}

/// Collects the parameters of one or several modules and writes them as one checkpoint.
///
/// Only handles are collected: values are read from their device one tensor at a time while the
/// files are written.
pub struct CheckpointWriter {
    dtype: WeightDtype,
    max_shard_bytes: u64,
    metadata: BTreeMap<String, String>,
    tensors: Vec<Collected>,
    by_key: HashMap<String, usize>,
}

/// One tensor of the file: a whole parameter or several parts.
struct Collected {
    key: String,
    parts: Vec<Part>,
}

/// A parameter, or the values that it contributes to a fused tensor.
struct Part {
    path: String,
    rows: Option<Range<usize>>,
    shape: Vec<usize>,
    stored: Dtype,
    /// Numbers in it, where they are not as many as its shape says.
    packed: Option<u64>,
    read: Box<dyn Fn() -> Result<TensorData, DeviceFault> + Send>,
}

/// Why a device did not give its values.
type DeviceFault = Box<dyn std::error::Error + Send + Sync>;

/// A tensor of the file with its parts in order, checked.
struct Outgoing<'a> {
    key: &'a str,
    parts: Vec<&'a Part>,
    shape: Vec<usize>,
    dtype: Written,
    parameters: u64,
    bytes: u64,
}

/// How the values of a tensor stand in a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Float(FloatDtype),
    /// Bytes that were packed for kernels; see [`crate::packed`].
    Packed,
}

impl Written {
    /// What the data begin at a multiple of.
    fn alignment(self) -> usize {
        match self {
            Self::Float(dtype) => dtype.size(),
            Self::Packed => packed::ALIGNMENT,
        }
    }
}

impl CheckpointWriter {
    /// An empty checkpoint whose float tensors are all written as `dtype`.
    pub fn new(dtype: WeightDtype) -> Self {
        Self {
            dtype,
            max_shard_bytes: DEFAULT_SHARD_BYTES,
            metadata: BTreeMap::from([("format".to_owned(), "pt".to_owned())]),
            tensors: Vec::new(),
            by_key: HashMap::new(),
        }
    }

    /// Starts a new shard before one would exceed `bytes`; a single larger tensor gets its own.
    #[must_use]
    pub fn max_shard_bytes(mut self, bytes: u64) -> Self {
        self.max_shard_bytes = bytes;
        self
    }

    /// Adds an entry to the header of every file.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds all parameters of `module`, under the keys that `map` gives them. Parameters that were
    /// never initialised are initialised now.
    ///
    /// # Errors
    /// If a parameter is not a float, or if its key is taken already.
    pub fn add<M: Module>(&mut self, module: &M, map: &KeyMap) -> Result<(), WeightsError> {
        for (key, part) in Collector::collect(module, map)? {
            self.insert(key, part)?;
        }
        Ok(())
    }

    fn insert(&mut self, key: String, part: Part) -> Result<(), WeightsError> {
        let Some(&index) = self.by_key.get(&key) else {
            self.by_key.insert(key.clone(), self.tensors.len());
            self.tensors.push(Collected {
                key,
                parts: vec![part],
            });
            return Ok(());
        };
        let parts = &mut self.tensors[index].parts;
        match parts.iter().find(|old| old.rows.is_none()) {
            Some(old) => Err(clash(key, &old.path, &part.path)),
            None if part.rows.is_none() => {
                let old = parts.first().map_or("", |old| old.path.as_str());
                Err(clash(key, old, &part.path))
            }
            None => {
                parts.push(part);
                Ok(())
            }
        }
    }

    /// Writes everything to one safetensors file.
    ///
    /// # Errors
    /// If parts do not make up their tensor, if values cannot be read back, or the system's.
    pub fn write_file(&self, path: impl AsRef<Path>) -> Result<SaveReport, WeightsError> {
        let path = path.as_ref();
        let tensors = self.outgoing()?;
        let mut file = self.write_tensors(path, &tensors)?;
        seal(&mut file)?;
        put_in_place(file)?;
        Ok(report(vec![path.to_path_buf()], &tensors))
    }

    /// Writes everything to a folder, which is created if need be: one file, or shards and their
    /// index. Weights of an earlier save in the same folder are replaced.
    ///
    /// # Errors
    /// As [`write_file`](Self::write_file).
    pub fn write_folder(&self, folder: impl AsRef<Path>) -> Result<SaveReport, WeightsError> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(writing(folder))?;
        let tensors = self.outgoing()?;
        let shards = self.shards(&tensors);
        let names: Vec<String> = match shards.len() {
            1 => vec![SINGLE_FILE.to_owned()],
            n => (1..=n).map(|i| shard_name(i, n)).collect(),
        };

        let mut files = Vec::new();
        for (name, shard) in names.iter().zip(&shards) {
            let mut file = self.write_tensors(&folder.join(name), shard)?;
            seal(&mut file)?;
            files.push(file);
        }
        // An index of an earlier save must not point at a mixture of old and new shards.
        remove_if_present(&folder.join(INDEX_FILE))?;
        for file in files {
            put_in_place(file)?;
        }
        if shards.len() > 1 {
            write_index(&folder.join(INDEX_FILE), &names, &shards)?;
        }
        remove_stale(folder, &names)?;
        let files = names.iter().map(|name| folder.join(name)).collect();
        Ok(report(files, &tensors))
    }

    /// The tensors of the file, in the order in which they were added.
    fn outgoing(&self) -> Result<Vec<Outgoing<'_>>, WeightsError> {
        self.tensors
            .iter()
            .map(|tensor| self.assemble(tensor))
            .collect()
    }

    /// Puts the parts of a tensor in order and checks that they make up the whole of it.
    fn assemble<'a>(&self, tensor: &'a Collected) -> Result<Outgoing<'a>, WeightsError> {
        let layout = |problem: String| WeightsError::Layout {
            key: tensor.key.clone(),
            problem,
        };
        let mut parts: Vec<&Part> = tensor.parts.iter().collect();
        parts.sort_by_key(|part| part.rows.as_ref().map_or(0, |rows| rows.start));
        let first = *parts
            .first()
            .ok_or_else(|| layout("it has no parts".to_owned()))?;
        let mut shape = first.shape.clone();
        if first.rows.is_some() {
            let rows = rows_of_parts(&parts).map_err(layout)?;
            if let Some(count) = shape.first_mut() {
                *count = rows;
            }
        }
        let too_large = || layout(format!("its shape {shape:?} is too large"));
        let count = checked_count(&shape).ok_or_else(too_large)?;
        let (dtype, size) = match first.packed {
            Some(_) => (Written::Packed, 1),
            None => {
                let dtype = self.dtype.for_stored(first.stored);
                (Written::Float(dtype), dtype.size())
            }
        };
        let bytes = count.checked_mul(size).ok_or_else(too_large)?;
        Ok(Outgoing {
            key: &tensor.key,
            parts,
            dtype,
            parameters: first.packed.unwrap_or(count as u64),
            shape,
            bytes: bytes as u64,
        })
    }

    /// Cuts the list of tensors into shards, in order.
    fn shards<'a, 'b>(&self, tensors: &'b [Outgoing<'a>]) -> Vec<&'b [Outgoing<'a>]> {
        let mut shards = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (i, tensor) in tensors.iter().enumerate() {
            if i > start && bytes + tensor.bytes > self.max_shard_bytes {
                shards.push(&tensors[start..i]);
                (start, bytes) = (i, 0);
            }
            bytes += tensor.bytes;
        }
        shards.push(&tensors[start..]);
        shards
    }

    /// Writes a complete file under a temporary name.
    fn write_tensors(
        &self,
        path: &Path,
        tensors: &[Outgoing<'_>],
    ) -> Result<Replacement, WeightsError> {
        // Wide types first, so that every tensor is aligned for its type and can be used in place.
        let mut tensors: Vec<_> = tensors.iter().collect();
        tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.alignment()));
        let header = self
            .header(&tensors)
            .map_err(|source| WeightsError::Encode {
                path: path.to_path_buf(),
                source,
            })?;
        let writing = writing(path);
        let mut file = Replacement::create(path).map_err(&writing)?;
        file.write_all(&header).map_err(&writing)?;
        for tensor in tensors {
            for part in &tensor.parts {
                let data = part.values(tensor.dtype)?;
                file.write_all(data.as_bytes()).map_err(&writing)?;
            }
        }
        Ok(file)
    }

    /// The length of the header and the header, padded so that the data begin at a multiple of 64.
    fn header(&self, tensors: &[&Outgoing<'_>]) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct Info<'a> {
            dtype: &'static str,
            shape: &'a [usize],
            data_offsets: [u64; 2],
        }
        let mut fields = serde_json::Map::new();
        let mut metadata = self.metadata.clone();
        if tensors.iter().any(|tensor| tensor.dtype == Written::Packed) {
            metadata.insert(packed::METADATA_KEY.to_owned(), packed::VERSION.to_owned());
        }
        fields.insert("__metadata__".to_owned(), serde_json::to_value(&metadata)?);
        let mut end = 0;
        for tensor in tensors {
            let start = end;
            end += tensor.bytes;
            let info = Info {
                dtype: header_name(tensor.dtype),
                shape: &tensor.shape,
                data_offsets: [start, end],
            };
            fields.insert(tensor.key.to_owned(), serde_json::to_value(info)?);
        }
        let mut json = serde_json::to_vec(&fields)?;
        let length = size_of::<u64>();
        let whole = (length + json.len()).next_multiple_of(packed::ALIGNMENT);
        json.resize(whole - length, b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.append(&mut json);
        Ok(header)
    }
}

impl Part {
    /// The values of the part as `dtype`, in row-major order.
    fn values(&self, dtype: Written) -> Result<TensorData, WeightsError> {
        let data = (self.read)().map_err(|source| WeightsError::Device {
            path: self.path.clone(),
            source,
        })?;
        let Written::Float(dtype) = dtype else {
            return Ok(data);
        };
        if data.dtype() == DType::from(dtype) {
            return Ok(data);
        }
        convert(data.as_bytes(), self.stored, dtype, &self.shape, &|_| {}).ok_or_else(|| {
            WeightsError::Layout {
                key: self.path.clone(),
                problem: format!("its values are {:?}, not {}", data.dtype(), self.stored),
            }
        })
    }
}

fn clash(key: String, first: &str, second: &str) -> WeightsError {
    WeightsError::Layout {
        key,
        problem: format!("both `{first}` and `{second}` are to be written to it"),
    }
}

/// The number of rows of a tensor made of sorted `parts`; what is wrong if they leave gaps, overlap
/// or differ in width.
fn rows_of_parts(parts: &[&Part]) -> Result<usize, String> {
    let mut next = 0;
    for part in parts {
        let Part {
            path, shape, rows, ..
        } = part;
        let rows = rows.clone().unwrap_or(0..0);
        if shape.first() != Some(&rows.len()) || shape.get(1..) != parts[0].shape.get(1..) {
            return Err(format!(
                "`{path}` has the shape {shape:?} and is to be its rows {}..{}",
                rows.start, rows.end
            ));
        }
        if rows.start != next {
            return Err(format!(
                "`{path}` is its rows {}..{}, but the parts before end at row {next}",
                rows.start, rows.end
            ));
        }
        next = rows.end;
    }
    Ok(next)
}

fn header_name(dtype: Written) -> &'static str {
    match dtype {
        Written::Float(FloatDtype::F32) => "F32",
        Written::Float(FloatDtype::Bf16) => "BF16",
        Written::Float(FloatDtype::F16) => "F16",
        Written::Packed => "U8",
    }
}

fn shard_name(number: usize, of: usize) -> String {
    format!("model-{number:05}-of-{of:05}.safetensors")
}

fn report(files: Vec<PathBuf>, tensors: &[Outgoing<'_>]) -> SaveReport {
    SaveReport {
        files,
        tensors: tensors.len(),
        parameters: tensors.iter().map(|tensor| tensor.parameters).sum(),
        bytes: tensors.iter().map(|tensor| tensor.bytes).sum(),
    }
}

fn write_index(
    path: &Path,
    names: &[String],
    shards: &[&[Outgoing<'_>]],
) -> Result<(), WeightsError> {
    #[derive(Serialize)]
    struct Totals {
        total_parameters: u64,
        total_size: u64,
    }
    #[derive(Serialize)]
    struct Index<'a> {
        metadata: Totals,
        weight_map: BTreeMap<&'a str, &'a str>,
    }
    let mut weight_map = BTreeMap::new();
    let (mut total_parameters, mut total_size) = (0, 0);
    for (name, shard) in names.iter().zip(shards) {
        for tensor in *shard {
            weight_map.insert(tensor.key, name.as_str());
            total_size += tensor.bytes;
            total_parameters += tensor.parameters;
        }
    }
    let index = Index {
        metadata: Totals {
            total_parameters,
            total_size,
        },
        weight_map,
    };
    let mut json = serde_json::to_vec_pretty(&index).map_err(|source| WeightsError::Encode {
        path: path.to_path_buf(),
        source,
    })?;
    json.push(b'\n');
    let mut file = Replacement::create(path).map_err(writing(path))?;
    file.write_all(&json).map_err(writing(path))?;
    put_in_place(file)
}

/// Removes the weights of an earlier save that are not among `names`.
fn remove_stale(folder: &Path, names: &[String]) -> Result<(), WeightsError> {
    let ours = compiled(r"^model(-\d{5}-of-\d{5})?\.safetensors$");
    for entry in fs::read_dir(folder).map_err(writing(folder))? {
        let entry = entry.map_err(writing(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ours.is_match(&name) && !names.contains(&name) {
            remove_if_present(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_present(path: &Path) -> Result<(), WeightsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(writing(path)(error)),
        _ => Ok(()),
    }
}

fn seal(file: &mut Replacement) -> Result<(), WeightsError> {
    file.seal().map_err(|source| writing(file.wanted())(source))
}

fn put_in_place(file: Replacement) -> Result<(), WeightsError> {
    let path = file.wanted().to_path_buf();
    file.put_in_place().map_err(writing(&path))
}

/// Says what was being written when the system refused.
fn writing(path: &Path) -> impl Fn(std::io::Error) -> WeightsError {
    let path = path.to_path_buf();
    move |source| WeightsError::Write {
        path: path.clone(),
        source,
    }
}
