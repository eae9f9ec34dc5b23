//! One PyTorch file (`.bin`, `.pt`, `.pth`) as entries of a checkpoint.
//!
//! The `pytorch-reader` crate reads every layout that `torch.save` has written: zip archives, the
//! legacy pickle stream and the early tar files. It interprets the pickle as data: the opcodes that
//! build containers, and a fixed list of constructors for tensors and storages. No code named by a
//! pickle is ever run, a pickle in an archive is limited to 100 MiB, and lengths are checked
//! against the file before memory is taken for them. Dictionaries within dictionaries become keys
//! with dots, so a checkpoint that keeps its weights under `"state_dict"` is opened through
//! [`crate::Checkpoint::with_prefix`].
//!
//! Added here: archives whose pickle is compressed or very large are refused before it is parsed
//! (see [`crate::zip_guard`]). And a view can declare more elements than the file holds (`expand`
//! repeats a row without storing it), up to 10 GiB by the reader's own limit; weights are never
//! stored so, and a tensor that is larger than its file is refused when it is asked for.
//!
//! Tensors are read one by one when they are asked for; the file stays open but is not mapped.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use pytorch_reader::{DType, PytorchReader};

use crate::checkpoint::{Contents, Entry, Storage};
use crate::dtype::Dtype;
use crate::error::WeightsError;
use crate::zip_guard;

/// A tensor whose bytes are still in the file.
#[derive(Clone)]
pub(crate) struct Pickled {
    tensor: pytorch_reader::Tensor,
    file_bytes: u64,
}

impl Pickled {
    /// Size of the tensor when it is read.
    pub(crate) fn bytes(&self) -> usize {
        self.tensor.byte_len()
    }

    /// The elements in row-major order, little-endian.
    pub(crate) fn read(&self) -> std::io::Result<Vec<u8>> {
        let size = self.bytes() as u64;
        if size > self.file_bytes {
            let message = format!(
                "the tensor would take {size} bytes, more than the whole file ({})",
                self.file_bytes
            );
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                message,
            ));
        }
        self.tensor.read()
    }
}

/// Opens one PyTorch file.
pub(crate) fn open(path: &Path) -> Result<Contents, WeightsError> {
    let opening = |source| WeightsError::Open {
        path: path.to_path_buf(),
        source,
    };
    let file_bytes = fs::metadata(path).map_err(opening)?.len();
    zip_guard::check(path).map_err(opening)?;
    let reader = PytorchReader::new(path).map_err(|source| WeightsError::Pytorch {
        path: path.to_path_buf(),
        source: Box::new(source),
    })?;
    let path: Arc<Path> = Arc::from(path);
    let entries = reader
        .into_tensors()
        .into_iter()
        .map(|(key, tensor)| {
            let entry = Entry {
                file: Arc::clone(&path),
                dtype: dtype(tensor.dtype()),
                shape: tensor.shape().to_vec(),
                storage: Storage::Pickled(Pickled { tensor, file_bytes }),
            };
            (key, entry)
        })
        .collect();
    Ok(Contents {
        entries,
        metadata: BTreeMap::new(),
    })
}

fn dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::Bf16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::Bool,
    }
}
