//! Packed weights in checkpoints.
//!
//! A weight that was packed stands in a file as plain bytes under its key with format and shape behind
//! it, `model.layers.0.mlp.up_proj.weight.int4.14336x4096`, and the rows, where it is a part of a larger
//! tensor (`….qkv_proj.weight.rows0-96.int4.96x64`). So a configuration of another shape finds nothing.
//! The header says which version of the order of bytes the file has; another one is refused. Bytes begin
//! at a multiple of 64, so they are used where they are mapped.

use std::borrow::Cow;

use opabinia_nn::packed::{Format, Packed, Rows};

use crate::checkpoint::Checkpoint;
use crate::error::WeightsError;
use crate::key_map::FileKey;

/// Entry of the header.
pub(crate) const METADATA_KEY: &str = "opabinia.packing";
/// The order of bytes that this program writes and reads.
pub(crate) const VERSION: &str = "1";
/// What packed bytes begin at a multiple of.
pub(crate) const ALIGNMENT: usize = 64;

/// The key of a packed weight.
pub(crate) fn packed_key(at: &FileKey, format: Format, [n, k]: [usize; 2]) -> String {
    let (key, name) = (&at.key, format.name());
    match &at.rows {
        Some(rows) => format!("{key}.rows{}-{}.{name}.{n}x{k}", rows.start, rows.end),
        None => format!("{key}.{name}.{n}x{k}"),
    }
}

impl Checkpoint {
    /// Whether weights in it are packed.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        self.metadata().contains_key(METADATA_KEY)
    }

    /// Bytes that the file has for a parameter of that shape, packed or not; none if it has none. What
    /// a GGUF file has quantised counts as expanded, which it is when it is loaded.
    #[must_use]
    pub fn parameter_bytes(&self, at: &FileKey, shape: &[usize]) -> Option<u64> {
        if let [n, k] = *shape
            && let Some((key, _)) = self.find_packed(at, [n, k])
        {
            return self.info(&key).map(|info| info.bytes as u64);
        }
        let entry = self.entries().get(&at.key)?;
        entry.bytes_of(shape.iter().map(|n| *n as u64).product())
    }

    /// Where the packed form of a weight is, if the checkpoint has one.
    pub(crate) fn find_packed(&self, at: &FileKey, shape: [usize; 2]) -> Option<(String, Format)> {
        if !self.is_packed() {
            return None;
        }
        Format::ALL.into_iter().find_map(|format| {
            let key = packed_key(at, format, shape);
            self.contains(&key).then_some((key, format))
        })
    }

    /// Takes packed bytes as they lie in the file.
    pub(crate) fn read_packed(
        &self,
        key: &str,
        shape: [usize; 2],
        format: Format,
    ) -> Result<Packed, WeightsError> {
        let broken = |problem: String| WeightsError::Packed {
            key: key.to_owned(),
            file: self.location().to_path_buf(),
            problem,
        };
        let version = self.metadata().get(METADATA_KEY).map(String::as_str);
        if version != Some(VERSION) {
            return Err(broken(format!(
                "it is packed in order `{}`, this program reads order `{VERSION}`; \
                 write the folder anew with `opabinia model quantize`",
                version.unwrap_or("not named")
            )));
        }
        let bytes = self.raw_bytes(key)?;
        Packed::from_bytes(bytes, shape, format).map_err(|error| broken(error.to_string()))
    }

    /// Packs a weight, or some rows of it, and gives the pages of the file back.
    pub(crate) fn pack(
        &self,
        at: &FileKey,
        shape: [usize; 2],
        format: Format,
    ) -> Result<Packed, WeightsError> {
        let data = self.rows(&at.key, at.rows.clone(), None)?;
        let broken = |problem: String| WeightsError::Packed {
            key: at.key.clone(),
            file: self.location().to_path_buf(),
            problem,
        };
        let bytes = data.as_bytes();
        let packed = match data.dtype() {
            burn::tensor::DType::F32 => Packed::pack(Rows::F32(&cast(bytes)), shape, format),
            burn::tensor::DType::BF16 => Packed::pack(Rows::Bf16(&cast(bytes)), shape, format),
            burn::tensor::DType::F16 => Packed::pack(Rows::F16(&cast(bytes)), shape, format),
            _ => {
                let wide = self.rows(&at.key, at.rows.clone(), Some(crate::FloatDtype::F32))?;
                Packed::pack(Rows::F32(&cast(wide.as_bytes())), shape, format)
            }
        };
        self.give_back(&at.key, at.rows.as_ref());
        packed.map_err(|error| broken(error.to_string()))
    }
}

/// Bytes of tensor data as its values; copied where a file does not have them at a multiple of their
/// size.
fn cast<T: bytemuck::Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(values) => Cow::Borrowed(values),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    }
}
