//! What plain CPU tensors run instead of Burn's generic operators.
//!
//! Burn's `flex` backend multiplies large f32 matrices well, but runs every elementwise function
//! on one thread through scalar `libm`, a product with one row on one thread, and widens bf16
//! matrices as a whole before each product; its attention reaches less than half the speed of its
//! products. The functions here do those things in parallel and in one pass. They take and return ordinary tensors, and apply only where [`is_plain_f32`] says so:
//! not on an autodiff device and not on a GPU.
//!
//! Inner loops are written plainly and compiled three times (AVX-512, AVX2 with FMA, baseline);
//! the processor decides at run time.

#![allow(
    unsafe_code,
    reason = "calling functions compiled for a processor feature, and gemm into shared output"
)]

pub(crate) mod attention;
pub(crate) mod cross_entropy;
pub(crate) mod depthwise;
pub(crate) mod elementwise;
mod math;
pub(crate) mod matrix;
pub(crate) mod norm;
mod product;
pub(crate) mod resample;
pub(crate) mod rows;
pub(crate) mod values;

use burn::prelude::*;
use burn::tensor::DType;

pub use attention::attention;
pub use elementwise::{activate, activate_gated, rotate};
pub use norm::rms_norm;
pub use opabinia_kernels::{FEW_ROWS, Path, PathError};
pub(crate) use product::{ENOUGH_PACKED, ENOUGH_STORED};
pub use product::{linear, linear_applies, linear_packed};

/// Whether a device is the CPU without gradients; comparing devices alone ignores gradients.
#[must_use]
pub fn is_plain_cpu(device: &Device) -> bool {
    *device == Device::flex() && !device.is_autodiff()
}

/// Whether a tensor lives on the CPU, holds f32 and records no gradients.
pub fn is_plain_f32<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_plain_cpu(&x.device())
}

/// What the inner loops were compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Any processor of the target.
    Baseline,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL).
    Avx512,
}

/// The best level this processor runs, or what [`Path::best`] was told to take instead.
#[must_use]
pub fn level() -> Level {
    match Path::best() {
        Path::Avx512 | Path::Avx512Vnni | Path::Avx512Bf16 => Level::Avx512,
        Path::Avx2 => Level::Avx2,
        Path::Portable | Path::Neon | Path::NeonDot => Level::Baseline,
    }
}

/// Compiles `$body::<FMA>` for every level and defines `$name`, which runs the right one.
macro_rules! per_level {
    ($(#[$doc:meta])* $vis:vis fn $name:ident = $body:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { $body::<true>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { $body::<true>($($arg),*) }
                match level() {
                    // SAFETY: `level` found these features on this processor.
                    Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    Level::Baseline => {}
                }
            }
            $body::<false>($($arg),*)
        }
    };
}

use per_level;
