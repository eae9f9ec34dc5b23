//! Element types of stored and of loaded tensors, and the conversions between them.
//!
//! Conversions run on all cores in chunks of [`CHUNK_BYTES`], and tell the caller after each block
//! of [`BLOCK_BYTES`] which part of the source is no longer needed, so that a mapped file does not
//! pile up in memory beside its converted copy.

use std::fmt;
use std::ops::Range;

use burn::tensor::{DType, TensorData, bf16, f16};
use half::slice::HalfFloatSliceExt;
use opabinia_nn::packed::Format;
use rayon::prelude::*;

/// Source bytes that one task converts: large enough to hide the cost of a task, small enough to
/// stay in a core's cache.
const CHUNK_BYTES: usize = 1 << 20;

/// Source bytes after which the converted part of a file is given back to the system.
const BLOCK_BYTES: usize = 32 << 20;

/// The element type of a tensor in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16: the upper half of an `f32`.
    Bf16,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 64-bit integer.
    U64,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 8-bit integer.
    U8,
    /// One byte per element, 0 or 1.
    Bool,
    /// A type that safetensors can hold and that is listed but not loaded: 8-bit and smaller
    /// floats, complex numbers.
    Other(safetensors::Dtype),
}

impl Dtype {
    /// Bytes per element; `None` for the types that are not loaded.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::F64 | Self::I64 | Self::U64 => Some(8),
            Self::F32 | Self::I32 | Self::U32 => Some(4),
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => Some(2),
            Self::I8 | Self::U8 | Self::Bool => Some(1),
            Self::Other(_) => None,
        }
    }

    /// Whether a float parameter can be loaded from it.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Burn's name of the type; `None` for the types that are not loaded.
    pub(crate) fn to_burn(self) -> Option<DType> {
        Some(match self {
            Self::F64 => DType::F64,
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
            Self::I64 => DType::I64,
            Self::I32 => DType::I32,
            Self::I16 => DType::I16,
            Self::I8 => DType::I8,
            Self::U64 => DType::U64,
            Self::U32 => DType::U32,
            Self::U16 => DType::U16,
            Self::U8 => DType::U8,
            Self::Bool => DType::Bool(burn::tensor::BoolStore::Native),
            Self::Other(_) => return None,
        })
    }
}

impl From<safetensors::Dtype> for Dtype {
    fn from(dtype: safetensors::Dtype) -> Self {
        match dtype {
            safetensors::Dtype::F64 => Self::F64,
            safetensors::Dtype::F32 => Self::F32,
            safetensors::Dtype::F16 => Self::F16,
            safetensors::Dtype::BF16 => Self::Bf16,
            safetensors::Dtype::I64 => Self::I64,
            safetensors::Dtype::I32 => Self::I32,
            safetensors::Dtype::I16 => Self::I16,
            safetensors::Dtype::I8 => Self::I8,
            safetensors::Dtype::U64 => Self::U64,
            safetensors::Dtype::U32 => Self::U32,
            safetensors::Dtype::U16 => Self::U16,
            safetensors::Dtype::U8 => Self::U8,
            safetensors::Dtype::BOOL => Self::Bool,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Dtype {
    /// The spelling of safetensors headers in lower case: `f32`, `bf16`, `i64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F64 => f.write_str("f64"),
            Self::F32 => f.write_str("f32"),
            Self::F16 => f.write_str("f16"),
            Self::Bf16 => f.write_str("bf16"),
            Self::I64 => f.write_str("i64"),
            Self::I32 => f.write_str("i32"),
            Self::I16 => f.write_str("i16"),
            Self::I8 => f.write_str("i8"),
            Self::U64 => f.write_str("u64"),
            Self::U32 => f.write_str("u32"),
            Self::U16 => f.write_str("u16"),
            Self::U8 => f.write_str("u8"),
            Self::Bool => f.write_str("bool"),
            Self::Other(dtype) => f.write_str(&dtype.to_string().to_lowercase()),
        }
    }
}

/// The element type of a loaded or of a written float tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatDtype {
    /// 32-bit float.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl FloatDtype {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

impl From<FloatDtype> for Dtype {
    fn from(dtype: FloatDtype) -> Self {
        match dtype {
            FloatDtype::F32 => Self::F32,
            FloatDtype::Bf16 => Self::Bf16,
            FloatDtype::F16 => Self::F16,
        }
    }
}

impl From<FloatDtype> for DType {
    fn from(dtype: FloatDtype) -> Self {
        match dtype {
            FloatDtype::F32 => Self::F32,
            FloatDtype::Bf16 => Self::BF16,
            FloatDtype::F16 => Self::F16,
        }
    }
}

/// The type that the large weights of a module take (see [`crate::LoadOptions`]), or that tensors
/// are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightDtype {
    /// 32-bit float.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// The type that the tensor has already; `f64` becomes `f32`.
    AsStored,
    /// bfloat16 like [`Bf16`](Self::Bf16), and the weights of linear layers packed for the CPU. With
    /// them goes that activations may be rounded to bfloat16 where the processor multiplies that
    /// faster: everything but this and the integers computes in f32.
    PackedBf16,
    /// 8-bit integers for the weights of linear layers, which are packed for the CPU; 16 bits for
    /// embeddings.
    Int8,
    /// 4-bit integers likewise, 8 bits for the output head.
    Int4,
}

impl WeightDtype {
    /// The type for a tensor that is `stored` now. Anything that is not a 16-bit float is `f32`.
    pub(crate) fn for_stored(self, stored: Dtype) -> FloatDtype {
        match (self, stored) {
            (Self::F16, _) | (Self::AsStored | Self::Int8 | Self::Int4, Dtype::F16) => {
                FloatDtype::F16
            }
            (Self::Bf16 | Self::PackedBf16 | Self::Int8 | Self::Int4, _)
            | (Self::AsStored, Dtype::Bf16) => FloatDtype::Bf16,
            (Self::F32 | Self::AsStored, _) => FloatDtype::F32,
        }
    }

    /// PyTorch's name of the type that large weights are written in, the packed ones aside; none if that is
    /// a matter of each tensor.
    #[must_use]
    pub fn torch_name(self) -> Option<&'static str> {
        match self {
            Self::F32 => Some("float32"),
            Self::F16 => Some("float16"),
            Self::Bf16 | Self::PackedBf16 | Self::Int8 | Self::Int4 => Some("bfloat16"),
            Self::AsStored => None,
        }
    }

    /// The format that the weight of the linear layer at `path` is packed in, if any.
    ///
    /// The head's rounding goes into every score directly, and it is read once per token like any
    /// other layer, so it keeps 8 bits.
    #[must_use]
    pub fn packing(self, path: &str) -> Option<Format> {
        match self {
            Self::Int4 if path.ends_with("lm_head.weight") => Some(Format::Int8),
            Self::Int4 => Some(Format::Int4),
            Self::Int8 => Some(Format::Int8),
            Self::PackedBf16 => Some(Format::Bf16),
            Self::F32 | Self::Bf16 | Self::F16 | Self::AsStored => None,
        }
    }

    /// The type for networks that read everything at once, such as vision encoders: there 4 bits
    /// save little and are slower than 8.
    #[must_use]
    pub fn for_encoders(self) -> Self {
        match self {
            Self::Int4 => Self::Int8,
            other => other,
        }
    }
}

impl fmt::Display for WeightDtype {
    /// As `--dtype` spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 | Self::PackedBf16 => "bf16",
            Self::F16 => "f16",
            Self::AsStored => "stored",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        })
    }
}

/// Converts little-endian `source` elements of type `from` to a tensor of `shape` and type `to`.
///
/// Halves are rounded to nearest even; `f64` goes to a half through `f32`. `done` is called with
/// byte ranges of `source` that will not be read again.
///
/// Returns `None` if `from` is not a float, or if `source` does not hold exactly `shape`.
pub(crate) fn convert(
    source: &[u8],
    from: Dtype,
    to: FloatDtype,
    shape: &[usize],
    done: &dyn Fn(Range<usize>),
) -> Option<TensorData> {
    let size = from.size().filter(|_| from.is_float())?;
    let count = checked_count(shape)?;
    if count.checked_mul(size)? != source.len() {
        return None;
    }
    let widen = widening(from)?;
    let shape = shape.to_vec();
    Some(match to {
        FloatDtype::F32 => {
            let mut out = vec![0_f32; count];
            in_blocks(source, size, &mut out, widen, done);
            TensorData::new(out, shape)
        }
        FloatDtype::Bf16 => {
            let mut out = vec![bf16::ZERO; count];
            let kernel = |bytes: &[u8], out: &mut [bf16]| through_f32(bytes, size, out, widen);
            in_blocks(source, size, &mut out, kernel, done);
            TensorData::new(out, shape)
        }
        FloatDtype::F16 => {
            let mut out = vec![f16::ZERO; count];
            let kernel = |bytes: &[u8], out: &mut [f16]| through_f32(bytes, size, out, widen);
            in_blocks(source, size, &mut out, kernel, done);
            TensorData::new(out, shape)
        }
    })
}

/// Number of elements of `shape`, or `None` if it does not fit in a `usize`.
pub(crate) fn checked_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim))
}

/// Runs `kernel` over matching chunks of `source` (elements of `size` bytes) and `out`.
fn in_blocks<T: Send>(
    source: &[u8],
    size: usize,
    out: &mut [T],
    kernel: impl Fn(&[u8], &mut [T]) + Sync,
    done: &dyn Fn(Range<usize>),
) {
    let mut start = 0;
    for out_block in out.chunks_mut(BLOCK_BYTES / size) {
        let end = start + out_block.len() * size;
        source[start..end]
            .par_chunks(CHUNK_BYTES)
            .zip(out_block.par_chunks_mut(CHUNK_BYTES / size))
            .for_each(|(bytes, out)| kernel(bytes, out));
        done(start..end);
        start = end;
    }
}

/// Reads little-endian elements as `f32`, as many as the second slice holds.
pub(crate) type Widen = fn(&[u8], &mut [f32]);

/// The kernel for elements of type `from`; `None` if they are not floats.
pub(crate) fn widening(from: Dtype) -> Option<Widen> {
    Some(match from {
        Dtype::F64 => f64_to_f32,
        Dtype::F32 => f32_to_f32,
        Dtype::F16 => f16_to_f32,
        Dtype::Bf16 => bf16_to_f32,
        _ => return None,
    })
}

fn f64_to_f32(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<8>().0.iter().zip(out) {
        *out = f64::from_le_bytes(*bytes) as f32;
    }
}

fn f32_to_f32(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *out = f32::from_le_bytes(*bytes);
    }
}

fn f16_to_f32(bytes: &[u8], out: &mut [f32]) {
    match bytemuck::try_cast_slice::<u8, f16>(bytes) {
        Ok(halves) => halves.convert_to_f32_slice(out),
        // Misaligned in the file; rare, so the slow way is good enough.
        Err(_) => {
            for (bytes, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
                *out = f16::from_le_bytes(*bytes).to_f32();
            }
        }
    }
}

fn bf16_to_f32(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

/// A 16-bit float that a slice of `f32` can be rounded to.
pub(crate) trait Half: Copy {
    fn round(source: &[f32], out: &mut [Self]);
}

impl Half for bf16 {
    fn round(source: &[f32], out: &mut [Self]) {
        out.convert_from_f32_slice(source);
    }
}

impl Half for f16 {
    fn round(source: &[f32], out: &mut [Self]) {
        out.convert_from_f32_slice(source);
    }
}

/// Widens and rounds piece by piece through a buffer that stays in the first-level cache.
fn through_f32<T: Half>(bytes: &[u8], size: usize, out: &mut [T], widen: Widen) {
    const PIECE: usize = 1024;
    let mut buffer = [0_f32; PIECE];
    for (bytes, out) in bytes.chunks(PIECE * size).zip(out.chunks_mut(PIECE)) {
        let buffer = &mut buffer[..out.len()];
        widen(bytes, buffer);
        T::round(buffer, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn le_bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn converted(source: &[u8], from: Dtype, to: FloatDtype, n: usize) -> Vec<f32> {
        let data = convert(source, from, to, &[n], &|_| {}).unwrap();
        assert_eq!(data.dtype(), DType::from(to));
        data.try_to_vec_as::<f32>().unwrap()
    }

    #[test]
    fn values_that_halves_can_hold_survive_every_route() {
        let values = [0.0, -0.0, 1.0, -2.5, 0.09375, 65280.0, f32::INFINITY];
        let f32s = le_bytes(&values);
        let f64s: Vec<u8> = values
            .iter()
            .flat_map(|&v| f64::from(v).to_le_bytes())
            .collect();
        let bf16s: Vec<u8> = values
            .iter()
            .flat_map(|&v| bf16::from_f32(v).to_le_bytes())
            .collect();
        let f16s: Vec<u8> = values
            .iter()
            .flat_map(|&v| f16::from_f32(v).to_le_bytes())
            .collect();
        for (source, from) in [
            (&f64s, Dtype::F64),
            (&f32s, Dtype::F32),
            (&f16s, Dtype::F16),
            (&bf16s, Dtype::Bf16),
        ] {
            for to in [FloatDtype::F32, FloatDtype::Bf16, FloatDtype::F16] {
                assert_eq!(converted(source, from, to, 7), values, "{from} to {to:?}");
            }
        }
    }

    #[test]
    fn halves_are_rounded_to_nearest_even() {
        // bf16 has 8 significant bits: between 1 and 1 + 2^-7 the middle goes to 1 (even), and
        // the middle between 1 + 2^-7 and 1 + 2^-6 goes up to 1 + 2^-6 (even).
        let step = 1.0 / 128.0;
        let source = le_bytes(&[1.0 + 0.5 * step, 1.0 + 1.5 * step, 1.0 + 0.51 * step]);
        assert_eq!(
            converted(&source, Dtype::F32, FloatDtype::Bf16, 3),
            [1.0, 1.0 + 2.0 * step, 1.0 + step]
        );
        // f16 has 11: 2049 lies between 2048 and 2050, 2051 between 2050 and 2052.
        let source = le_bytes(&[2049.0, 2051.0]);
        assert_eq!(
            converted(&source, Dtype::F32, FloatDtype::F16, 2),
            [2048.0, 2052.0]
        );
    }

    #[test]
    fn nan_stays_nan() {
        let source = le_bytes(&[f32::NAN, f32::from_bits(0x7f80_0001)]);
        for to in [FloatDtype::F32, FloatDtype::Bf16, FloatDtype::F16] {
            let values = converted(&source, Dtype::F32, to, 2);
            assert!(values.iter().all(|v| v.is_nan()), "{to:?}: {values:?}");
        }
    }

    #[test]
    fn misaligned_sources_are_read_right() {
        let mut bytes = vec![0_u8];
        bytes.extend(
            [1.0, 2.0, 3.0]
                .iter()
                .flat_map(|&v| f16::from_f32(v).to_le_bytes()),
        );
        assert_eq!(
            converted(&bytes[1..], Dtype::F16, FloatDtype::F32, 3),
            [1.0, 2.0, 3.0]
        );
    }

    #[test]
    fn several_blocks_are_each_reported_once() {
        let count = BLOCK_BYTES / 2 + 12_345;
        let source: Vec<u8> = (0..count)
            .flat_map(|i| bf16::from_f32((i % 251) as f32).to_le_bytes())
            .collect();
        let seen = std::cell::RefCell::new(Vec::new());
        let data = convert(&source, Dtype::Bf16, FloatDtype::F32, &[count], &|r| {
            seen.borrow_mut().push(r);
        })
        .unwrap();
        let values = data.as_slice::<f32>().unwrap();
        assert!(
            values
                .iter()
                .enumerate()
                .all(|(i, &v)| v == (i % 251) as f32)
        );
        assert_eq!(
            seen.into_inner(),
            [0..BLOCK_BYTES, BLOCK_BYTES..source.len()]
        );
    }

    #[test]
    fn wrong_lengths_and_integers_are_refused() {
        assert!(convert(&[0; 8], Dtype::F32, FloatDtype::F32, &[3], &|_| {}).is_none());
        assert!(convert(&[0; 8], Dtype::I32, FloatDtype::F32, &[2], &|_| {}).is_none());
        assert!(
            convert(
                &[0; 8],
                Dtype::F32,
                FloatDtype::F32,
                &[usize::MAX, 2],
                &|_| {}
            )
            .is_none()
        );
    }

    #[test]
    fn the_weight_type_follows_the_stored_type_only_when_asked() {
        assert_eq!(WeightDtype::F32.for_stored(Dtype::Bf16), FloatDtype::F32);
        assert_eq!(WeightDtype::Bf16.for_stored(Dtype::F32), FloatDtype::Bf16);
        assert_eq!(
            WeightDtype::AsStored.for_stored(Dtype::F16),
            FloatDtype::F16
        );
        assert_eq!(
            WeightDtype::AsStored.for_stored(Dtype::F64),
            FloatDtype::F32
        );
    }
}
