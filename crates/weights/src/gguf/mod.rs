//! One GGUF file of a Llama-type decoder as entries of a checkpoint.
//!
//! Keys, and the order of rows, become those of the published checkpoints that such a file was made
//! from: `blk.3.ffn_up.weight` is `model.layers.3.mlp.up_proj.weight`, and the rows of queries and
//! keys, which `llama.cpp` puts in the order of another rotary embedding, are put back. Plain tensors
//! are used where they are mapped. Quantised ones count as f16 and are expanded when they are asked
//! for; whoever wants them short packs them as this program packs ([`crate::WeightDtype::Int8`],
//! [`Int4`](crate::WeightDtype::Int4)). The vocabulary inside is not read.
//!
//! Not supported, and refused by name: other architectures than `llama`, mixtures of experts, files in
//! several parts, and the element types with less than four bits.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{TensorData, bf16, f16};
use rayon::prelude::*;

use crate::checkpoint::{Contents, Entry, Storage};
use crate::dtype::{FloatDtype, Half, checked_count};
use crate::error::WeightsError;
use crate::mapped::MappedFile;

mod blocks;
mod header;

use blocks::Kind;
use header::{Description, Header};

/// Entry of the metadata that only GGUF files have.
pub(crate) const ARCHITECTURE: &str = "general.architecture";
/// Values that one task expands.
const TASK: usize = 1 << 16;

/// What can be wrong with a GGUF file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// It begins otherwise.
    #[error("it does not begin with `GGUF`")]
    Magic,
    /// A version that is not read; that of a big-endian file looks like a very large one.
    #[error("it has version {0}, and 2 and 3 are read")]
    Version(u32),
    /// It ends too early.
    #[error("byte {at} begins something that is longer than the file")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// A text that is none.
    #[error("the text at byte {at} is not UTF-8")]
    Text {
        /// Where.
        at: usize,
    },
    /// A kind of value that there is not.
    #[error("the value at byte {at} is of an unknown kind, {kind}")]
    ValueKind {
        /// Its number.
        kind: u32,
        /// Where.
        at: usize,
    },
    /// A value that cannot be used.
    #[error("`{key}` is {found}, but {expected}")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A tensor that cannot be read.
    #[error("the tensor `{name}` {problem}")]
    Tensor {
        /// Its name in the file.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// Opens one GGUF file.
pub(crate) fn open(path: &Path) -> Result<Contents, WeightsError> {
    let file = MappedFile::open(path).map_err(|source| WeightsError::Open {
        path: path.to_path_buf(),
        source,
    })?;
    entries(path, &file).map_err(|source| WeightsError::Gguf {
        path: path.to_path_buf(),
        source,
    })
}

fn entries(path: &Path, file: &MappedFile) -> Result<Contents, GgufError> {
    let header = Header::read(file.as_slice())?;
    refuse_unsupported(&header.metadata)?;
    let path: Arc<Path> = Arc::from(path);
    let mut entries = BTreeMap::new();
    for tensor in &header.tensors {
        let entry = entry(tensor, &header, file, &path)?;
        if entries.insert(key(&tensor.name), entry).is_some() {
            return Err(wrong(tensor, "is there twice"));
        }
    }
    Ok(Contents {
        entries,
        metadata: header.metadata,
    })
}

fn refuse_unsupported(metadata: &BTreeMap<String, String>) -> Result<(), GgufError> {
    let is = |key: &str, wanted: &[&str], expected| match metadata.get(key) {
        Some(found) if !wanted.contains(&found.as_str()) => Err(GgufError::Value {
            key: key.into(),
            found: found.clone(),
            expected,
        }),
        _ => Ok(()),
    };
    if !metadata.contains_key(ARCHITECTURE) {
        return Err(GgufError::Value {
            key: ARCHITECTURE.into(),
            found: "missing".into(),
            expected: "it must be `llama`",
        });
    }
    is(ARCHITECTURE, &["llama"], "only `llama` is read")?;
    is(
        "llama.expert_count",
        &["0"],
        "mixtures of experts are not built",
    )?;
    let parts =
        "files in several parts are not read; `llama-gguf-split --merge` puts them together";
    is("split.count", &["0", "1"], parts)
}

fn wrong(tensor: &Description, problem: impl Into<String>) -> GgufError {
    GgufError::Tensor {
        name: tensor.name.clone(),
        problem: problem.into(),
    }
}

fn entry(
    tensor: &Description,
    header: &Header,
    file: &MappedFile,
    path: &Arc<Path>,
) -> Result<Entry, GgufError> {
    let kind = Kind::by_number(tensor.kind).ok_or_else(|| {
        let known = Kind::names();
        wrong(
            tensor,
            format!("is of type {}, and those read are {known}", tensor.kind),
        )
    })?;
    let (count, width) = match *tensor.shape {
        [] => (1, 1),
        [n] if kind.is_quantised() => (1, n),
        [n] => (n, 1),
        [n, k] => (n, k),
        _ => return Err(wrong(tensor, format!("has the shape {:?}", tensor.shape))),
    };
    let bytes = kind.row_bytes(width).and_then(|row| row.checked_mul(count));
    let bytes = bytes.ok_or_else(|| wrong(tensor, format!("has the shape {:?}", tensor.shape)))?;
    let start = header.data_start.checked_add(tensor.offset);
    let range = start.and_then(|start| Some(start..start.checked_add(bytes)?));
    let range = range
        .filter(|range| range.end <= file.as_slice().len())
        .ok_or_else(|| wrong(tensor, "lies outside the file, which may be incomplete"))?;
    let heads = heads(tensor, &header.metadata)?;
    if let Some(heads) = heads
        && !(count.is_multiple_of(heads) && (count / heads).is_multiple_of(2))
    {
        return Err(wrong(tensor, format!("has {count} rows for {heads} heads")));
    }
    let file = file.clone();
    let storage = if kind.is_quantised() || heads.is_some() {
        Storage::Blocks(Blocks {
            file,
            range,
            kind,
            count,
            width,
            heads,
        })
    } else {
        Storage::Mapped { file, range }
    };
    Ok(Entry {
        file: Arc::clone(path),
        dtype: kind.dtype(),
        shape: tensor.shape.clone(),
        storage,
    })
}

/// How many heads the rows of a tensor are, where they are in the order of interleaved rotation.
fn heads(
    tensor: &Description,
    metadata: &BTreeMap<String, String>,
) -> Result<Option<usize>, GgufError> {
    let (all, of_keys) = (
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
    );
    let key = if tensor.name.contains(".attn_q.") {
        all
    } else if !tensor.name.contains(".attn_k.") {
        return Ok(None);
    } else if metadata.contains_key(of_keys) {
        of_keys
    } else {
        all
    };
    let found = metadata.get(key).map_or("missing", String::as_str);
    match found.parse::<usize>() {
        Ok(heads) if heads > 0 => Ok(Some(heads)),
        _ => Err(GgufError::Value {
            key: key.into(),
            found: found.into(),
            expected: "it must be a number above 0",
        }),
    }
}

/// The key of a tensor in the checkpoints that such files are made from; its own name if it has none.
fn key(name: &str) -> String {
    const WHOLE: [(&str, &str); 3] = [
        ("token_embd.", "model.embed_tokens."),
        ("output_norm.", "model.norm."),
        ("output.", "lm_head."),
    ];
    const LAYER: [(&str, &str); 9] = [
        ("attn_norm.", "input_layernorm."),
        ("attn_q.", "self_attn.q_proj."),
        ("attn_k.", "self_attn.k_proj."),
        ("attn_v.", "self_attn.v_proj."),
        ("attn_output.", "self_attn.o_proj."),
        ("ffn_norm.", "post_attention_layernorm."),
        ("ffn_gate.", "mlp.gate_proj."),
        ("ffn_up.", "mlp.up_proj."),
        ("ffn_down.", "mlp.down_proj."),
    ];
    let renamed = |table: &[(&str, &str)], name: &str| {
        let (new, rest) = table
            .iter()
            .find_map(|(old, new)| Some((new, name.strip_prefix(old)?)))?;
        Some(format!("{new}{rest}"))
    };
    let layer = || {
        let (number, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        Some(format!("model.layers.{number}.{}", renamed(&LAYER, rest)?))
    };
    renamed(&WHOLE, name)
        .or_else(layer)
        .unwrap_or_else(|| name.to_owned())
}

/// A tensor whose values are made when they are asked for.
#[derive(Clone)]
pub(crate) struct Blocks {
    file: MappedFile,
    range: Range<usize>,
    kind: Kind,
    /// Rows.
    count: usize,
    /// Values of a row.
    width: usize,
    /// Whose rows are to be put back into the order of half rotation.
    heads: Option<usize>,
}

impl Blocks {
    /// Size in the file.
    pub fn bytes(&self) -> usize {
        self.range.len()
    }

    /// Some rows of the tensor; `None` if it has fewer.
    pub fn read(
        &self,
        rows: Range<usize>,
        shape: Vec<usize>,
        target: FloatDtype,
    ) -> Option<TensorData> {
        // A vector is one row to whoever decodes it, and as many as it has values to whoever asks.
        let rows = match self.count {
            1 if rows == (0..self.width) => 0..1,
            _ => rows,
        };
        let fits = rows.start <= rows.end && rows.end <= self.count;
        if !fits || checked_count(&shape)? != rows.len().checked_mul(self.width)? {
            return None;
        }
        let bytes = self.file.share(self.range.clone())?;
        self.file.prefetch(self.range.clone());
        let data = match target {
            FloatDtype::F32 => {
                let copy = |wide: &[f32], out: &mut [f32]| out.copy_from_slice(wide);
                TensorData::new(self.values(&bytes, rows, copy)?, shape)
            }
            FloatDtype::Bf16 => {
                TensorData::new(self.values(&bytes, rows, <bf16 as Half>::round)?, shape)
            }
            FloatDtype::F16 => {
                TensorData::new(self.values(&bytes, rows, <f16 as Half>::round)?, shape)
            }
        };
        self.file.give_back(self.range.clone());
        Some(data)
    }

    fn values<T: Copy + Default + Send>(
        &self,
        bytes: &[u8],
        rows: Range<usize>,
        round: impl Fn(&[f32], &mut [T]) + Sync,
    ) -> Option<Vec<T>> {
        let row_bytes = self.kind.row_bytes(self.width)?;
        let mut values = vec![T::default(); rows.len() * self.width];
        if values.is_empty() {
            return Some(values);
        }
        let per_task = TASK.div_ceil(self.width);
        values
            .par_chunks_mut(per_task * self.width)
            .enumerate()
            .for_each_init(
                || vec![0f32; self.width],
                |wide, (task, out)| {
                    for (i, out) in out.chunks_exact_mut(self.width).enumerate() {
                        let row = self.place(rows.start + task * per_task + i);
                        self.kind
                            .decode(&bytes[row * row_bytes..][..row_bytes], wide);
                        round(wide, out);
                    }
                },
            );
        Some(values)
    }

    /// Where a row is in the file. Within a head the file has the two rows that are rotated together
    /// side by side; published checkpoints have them half a head apart.
    fn place(&self, row: usize) -> usize {
        let Some(heads) = self.heads else { return row };
        let half = self.count / heads / 2;
        let (head, within) = (row / (2 * half), row % (2 * half));
        head * 2 * half + within % half * 2 + within / half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_keys() {
        for (name, expected) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            ("output_norm.weight", "model.norm.weight"),
            (
                "blk.12.ffn_down.weight",
                "model.layers.12.mlp.down_proj.weight",
            ),
            (
                "blk.0.attn_output.bias",
                "model.layers.0.self_attn.o_proj.bias",
            ),
            ("rope_freqs.weight", "rope_freqs.weight"),
            ("blk.0.attn_rot_embd", "blk.0.attn_rot_embd"),
        ] {
            assert_eq!(key(name), expected);
        }
    }
}
