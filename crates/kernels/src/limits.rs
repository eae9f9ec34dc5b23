//! What this processor can do at most, measured: the figures that products are compared with.
//!
//! Loops of nothing but the instruction that a kernel spends its time in, with all factors in registers,
//! and a sum over memory that no cache holds. All threads of the current rayon pool work; of several
//! short rounds the fastest counts, so that a busy machine disturbs the figures less.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

use crate::multiply::Activations;
use crate::path::Path;
use crate::{Format, micro::Kernel};

/// Rounds, of which the fastest counts.
const ROUNDS: usize = 7;
/// Iterations of a loop in a round: some milliseconds.
const ITERATIONS: usize = 1 << 20;

/// What a loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    /// A product of f32 is added to a sum.
    Fused,
    /// Products of two bf16 are.
    Pairs,
    /// Products of four bytes are.
    Bytes,
}

impl Instruction {
    /// Multiplications and additions for each 32 bits of a register.
    fn operations(self) -> usize {
        match self {
            Self::Fused => 2,
            Self::Pairs => 4,
            Self::Bytes => 8,
        }
    }
}

/// Multiplications and additions in a second that a path can do with weights of a format; `None` for a
/// path without instructions of its own.
///
/// With [`Activations::Rounded`] it is that of many rows, whose activations are as short as the path
/// can have them.
///
/// # Panics
/// If the processor does not have the path.
#[must_use]
pub fn arithmetic(path: Path, format: Format, activations: Activations) -> Option<f64> {
    let kernel = Kernel::new(path, format, activations == Activations::Rounded);
    let instruction = kernel.kind().instruction();
    let count = run(path, instruction, 1)?;
    let of_all_threads = || {
        let start = Instant::now();
        (0..rayon::current_num_threads())
            .into_par_iter()
            .for_each(|_| {
                black_box(run(path, instruction, ITERATIONS));
            });
        start.elapsed().as_secs_f64()
    };
    let seconds = (0..ROUNDS)
        .map(|_| of_all_threads())
        .fold(f64::INFINITY, f64::min);
    Some((count * ITERATIONS * rayon::current_num_threads()) as f64 / seconds)
}

/// Bytes in a second that all threads together read, once through `bytes` of memory each round; of some
/// hundred megabytes no cache holds much.
#[must_use]
pub fn reading(bytes: usize) -> f64 {
    let memory = vec![1u64; bytes.div_ceil(8).max(1)];
    let part = memory.len().div_ceil(rayon::current_num_threads());
    let all = || {
        let start = Instant::now();
        memory.par_chunks(part).for_each(|part| {
            let mut sums = [0u64; 32];
            for values in part.as_chunks::<32>().0 {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum ^= value;
                }
            }
            black_box(sums);
        });
        start.elapsed().as_secs_f64()
    };
    let seconds = (0..ROUNDS).map(|_| all()).fold(f64::INFINITY, f64::min);
    (memory.len() * 8) as f64 / seconds
}

impl crate::activations::Kind {
    /// What its kernels spend their time in.
    fn instruction(self) -> Instruction {
        match self {
            Self::Float => Instruction::Fused,
            Self::Pairs => Instruction::Pairs,
            Self::Bytes | Self::Groups => Instruction::Bytes,
        }
    }
}

/// Runs a loop; says how many operations an iteration has.
fn run(path: Path, instruction: Instruction, iterations: usize) -> Option<usize> {
    let lanes = match (path, instruction) {
        // SAFETY (all arms): `Kernel::new` has found the features on this processor.
        #[cfg(target_arch = "x86_64")]
        (Path::Avx2, Instruction::Fused) => unsafe { x86::fused_256(iterations) },
        #[cfg(target_arch = "x86_64")]
        (Path::Avx2 | Path::Avx512, Instruction::Bytes) => unsafe { x86::bytes_256(iterations) },
        #[cfg(target_arch = "x86_64")]
        (Path::Avx512 | Path::Avx512Vnni | Path::Avx512Bf16, Instruction::Fused) => unsafe {
            x86::fused_512(iterations)
        },
        #[cfg(target_arch = "x86_64")]
        (Path::Avx512Vnni | Path::Avx512Bf16, Instruction::Bytes) => unsafe {
            x86::bytes_512(iterations)
        },
        #[cfg(target_arch = "x86_64")]
        (Path::Avx512Bf16, Instruction::Pairs) => unsafe { x86::pairs_512(iterations) },
        #[cfg(target_arch = "aarch64")]
        (Path::Neon | Path::NeonDot, Instruction::Fused) => unsafe { arm::fused(iterations) },
        _ => return None,
    };
    Some(lanes * instruction.operations())
}

/// A loop over independent sums, which hide how long an instruction takes; it returns their lanes.
macro_rules! looped {
    ($iterations:expr, $sums:literal * $lanes:literal, $zero:expr, |$sum:ident| $next:expr) => {{
        // Nobody may know that they are all the same.
        let mut sums = black_box([$zero; $sums]);
        for _ in 0..$iterations {
            for $sum in &mut sums {
                *$sum = $next;
            }
        }
        black_box(sums);
        $sums * $lanes
    }};
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::black_box;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fused_256(iterations: usize) -> usize {
        let (a, b) = (
            _mm256_set1_ps(black_box(0.5)),
            _mm256_set1_ps(black_box(0.25)),
        );
        looped!(iterations, 12 * 8, _mm256_setzero_ps(), |sum| {
            _mm256_fmadd_ps(a, b, *sum)
        })
    }

    /// Two products of bytes to 16 bits, two of these to 32, and the sum: as the kernel has it.
    #[target_feature(enable = "avx2")]
    pub(super) fn bytes_256(iterations: usize) -> usize {
        let (a, b) = (
            _mm256_set1_epi8(black_box(1)),
            _mm256_set1_epi8(black_box(2)),
        );
        let ones = _mm256_set1_epi16(1);
        looped!(iterations, 10 * 8, _mm256_setzero_si256(), |sum| {
            // The factor depends on the sum, or the product would be made once, before the loop.
            let products = _mm256_maddubs_epi16(a, _mm256_xor_si256(b, *sum));
            _mm256_add_epi32(*sum, _mm256_madd_epi16(products, ones))
        })
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn fused_512(iterations: usize) -> usize {
        let (a, b) = (
            _mm512_set1_ps(black_box(0.5)),
            _mm512_set1_ps(black_box(0.25)),
        );
        looped!(iterations, 16 * 16, _mm512_setzero_ps(), |sum| {
            _mm512_fmadd_ps(a, b, *sum)
        })
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn pairs_512(iterations: usize) -> usize {
        // 0.5 and 0.25 in bf16, twice.
        let [a, b] = [0x3f00_3f00, 0x3e80_3e80].map(|bits| {
            let bits = _mm512_set1_epi32(black_box(bits));
            // SAFETY: both types are 64 plain bytes.
            unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
        });
        looped!(iterations, 16 * 16, _mm512_setzero_ps(), |sum| {
            _mm512_dpbf16_ps(*sum, a, b)
        })
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn bytes_512(iterations: usize) -> usize {
        let (a, b) = (
            _mm512_set1_epi32(black_box(0x0101_0101)),
            _mm512_set1_epi32(black_box(0x0202_0202)),
        );
        looped!(iterations, 16 * 16, _mm512_setzero_si512(), |sum| {
            _mm512_dpbusd_epi32(*sum, a, b)
        })
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::black_box;

    #[target_feature(enable = "neon")]
    pub(super) fn fused(iterations: usize) -> usize {
        let (a, b) = (vdupq_n_f32(black_box(0.5)), vdupq_n_f32(black_box(0.25)));
        looped!(iterations, 16 * 4, vdupq_n_f32(0.0), |sum| vfmaq_f32(
            *sum, a, b
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_with_instructions_of_its_own_has_limits() {
        for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
            for format in Format::ALL {
                let limit = arithmetic(path, format, Activations::Rounded);
                let floats = matches!(format, Format::F32 | Format::Bf16);
                let expected = match path {
                    Path::Portable => false,
                    Path::Neon | Path::NeonDot => floats,
                    _ => true,
                };
                assert_eq!(limit.is_some(), expected, "{path:?} {format:?}");
                assert!(
                    limit.is_none_or(|limit| limit.is_normal() && limit > 0.0),
                    "{path:?}: {limit:?}"
                );
            }
        }
    }

    #[test]
    fn memory_is_read() {
        assert!(reading(1 << 20).is_normal());
        assert!(reading(0) > 0.0);
    }
}
