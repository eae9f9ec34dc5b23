//! One safetensors file as entries of a checkpoint.
//!
//! The `safetensors` crate parses and validates the header (its size, the offsets, that they cover
//! the file exactly); the data stay where they are, in the mapped file.

use std::path::Path;
use std::sync::Arc;

use safetensors::SafeTensors;

use crate::checkpoint::{Contents, Entry, Storage};
use crate::error::WeightsError;
use crate::mapped::MappedFile;

/// Opens one safetensors file.
pub(crate) fn open(path: &Path) -> Result<Contents, WeightsError> {
    let file = MappedFile::open(path).map_err(|source| WeightsError::Open {
        path: path.to_path_buf(),
        source,
    })?;
    let (header_bytes, header) = SafeTensors::read_metadata(file.as_slice()).map_err(|source| {
        WeightsError::Safetensors {
            path: path.to_path_buf(),
            source,
        }
    })?;
    // The length of the header stands in the first eight bytes; offsets count from its end.
    let data_start = header_bytes + size_of::<u64>();
    let path: Arc<Path> = Arc::from(path);
    let entries = header
        .tensors()
        .into_iter()
        .map(|(key, info)| {
            let (start, end) = info.data_offsets;
            let entry = Entry {
                file: Arc::clone(&path),
                dtype: info.dtype.into(),
                shape: info.shape.clone(),
                storage: Storage::Mapped {
                    file: file.clone(),
                    range: data_start + start..data_start + end,
                },
            };
            (key, entry)
        })
        .collect();
    let metadata = header
        .metadata()
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Ok(Contents { entries, metadata })
}
