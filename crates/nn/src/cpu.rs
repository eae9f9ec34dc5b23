//! What plain CPU tensors run instead of Burn's generic operators.
//!
//! Burn's `flex` backend multiplies large f32 matrices well, but runs every elementwise function
//! on one thread through scalar `libm`, a product with one row on one thread, and widens bf16
//! matrices as a whole before each product. The functions here do those things in parallel and in
//! one pass. They take and return ordinary tensors, and apply only where [`is_plain_f32`] says so:
//! not on an autodiff device and not on a GPU.
//!
//! Inner loops are written plainly and compiled three times (AVX-512, AVX2 with FMA, baseline);
//! the processor decides at run time.

#![allow(
    unsafe_code,
    reason = "calling functions compiled for a processor feature, and gemm"
)]

use std::sync::OnceLock;

use burn::backend::Flex;
use burn::prelude::*;
use burn::tensor::DType;
use gemm::Parallelism;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::Activation;

/// Rows up to which a product is bound by reading the weight, so that dot products win.
const FEW_ROWS: usize = 8;
/// Multiply-adds below which a product is not worth more than one thread.
const SMALL_PRODUCT: usize = 1 << 16;
/// Weight rows that are widened to f32 at a time for a product with many rows.
const PANEL: usize = 256;
/// Elements one task of an elementwise function takes.
const CHUNK: usize = 1 << 14;

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

/// The best level this processor runs, detected once.
#[must_use]
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    match (avx512 && avx2, avx2) {
        (true, _) => Level::Avx512,
        (_, true) => Level::Avx2,
        _ => Level::Baseline,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Baseline
}

/// Compiles `$body::<FMA>` for every level and defines `$name`, which runs the right one.
macro_rules! per_level {
    ($(#[$doc:meta])* fn $name:ident = $body:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {
        $(#[$doc])*
        fn $name($($arg: $ty),*) $(-> $ret)? {
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

/// `a · b + c`, fused where the processor can: elsewhere `mul_add` would be a slow library call.
#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `eˣ`, relative error about 1e-7; clamped so that neither infinity nor a subnormal comes out.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    // x = n·ln 2 + r with |r| ≤ ln 2 / 2, then eʳ by its Taylor series and 2ⁿ through the exponent.
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves the rounded integer in the mantissa
    let x = x.clamp(-87.0, 88.0);
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -0.693_359_4, x);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.0 / 5040.0;
    for c in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = fma::<FMA>(p, r, c);
    }
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127)
        << 23;
    p * f32::from_bits(exponent)
}

#[inline(always)]
fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// Φ(x) = ½ erfc(−x/√2), Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
#[inline(always)]
fn normal_cdf<const FMA: bool>(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / fma::<FMA>(0.327_591_1, z, 1.0);
    let mut p = 1.061_405_4;
    for c in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6, 0.0] {
        p = fma::<FMA>(p, t, c);
    }
    let half_tail = 0.5 * p * exp::<FMA>(-z * z);
    if x < 0.0 { half_tail } else { 1.0 - half_tail }
}

#[inline(always)]
fn apply<const FMA: bool>(act: Activation, x: f32) -> f32 {
    match act {
        Activation::Gelu => x * normal_cdf::<FMA>(x),
        // ½(1 + tanh u) = σ(2u).
        Activation::GeluTanh => {
            let u = 0.797_884_6 * fma::<FMA>(0.044_715 * x * x, x, x);
            x * sigmoid::<FMA>(2.0 * u)
        }
        Activation::QuickGelu => x * sigmoid::<FMA>(1.702 * x),
        Activation::Silu => x * sigmoid::<FMA>(x),
        Activation::Relu => x.max(0.0),
    }
}

/// Keeps a tail that should vanish from being a huge value times the clamped exponential.
#[inline(always)]
fn activate_body<const FMA: bool>(x: &mut [f32], act: Activation) {
    // One loop per function, so that each is vectorised without a branch inside.
    macro_rules! each {
        ($($variant:ident),*) => {
            match act {
                $(Activation::$variant => {
                    for v in x {
                        let bounded = v.max(-80.0);
                        let y = apply::<FMA>(Activation::$variant, bounded);
                        *v = if *v < -80.0 { 0.0 } else if *v > 80.0 { *v } else { y };
                    }
                })*
            }
        };
    }
    each!(Gelu, GeluTanh, QuickGelu, Silu, Relu);
}

per_level! { fn activate_slice = activate_body(x: &mut [f32], act: Activation) }

#[inline(always)]
fn multiply_body<const FMA: bool>(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x *= *y;
    }
}

per_level! { fn multiply_slice = multiply_body(x: &mut [f32], y: &[f32]) }

#[inline(always)]
fn rms_norm_body<const FMA: bool>(row: &mut [f32], weight: &[f32], eps: f32) {
    let mean = dot_body::<FMA>(row, row) / row.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    for (x, w) in row.iter_mut().zip(weight) {
        *x = *x * scale * *w;
    }
}

per_level! { fn rms_norm_row = rms_norm_body(row: &mut [f32], weight: &[f32], eps: f32) }

#[inline(always)]
fn rotate_body<const FMA: bool>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (left, right) = head.split_at_mut(cos.len());
    for i in 0..cos.len() {
        let (a, b) = (left[i], right[i]);
        left[i] = a * cos[i] - b * sin[i];
        right[i] = b * cos[i] + a * sin[i];
    }
}

per_level! { fn rotate_head = rotate_body(head: &mut [f32], cos: &[f32], sin: &[f32]) }

/// Lanes of partial sums: enough registers in flight to hide the latency of an addition.
const LANES: usize = 64;

#[inline(always)]
fn dot_body<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            sums[i] = fma::<FMA>(a[i], b[i], sums[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

per_level! { fn dot_f32 = dot_body(a: &[f32], b: &[f32]) -> f32 }

#[inline(always)]
fn dot_bf16_body<const FMA: bool>(a: &[f32], b: &[bf16]) -> f32 {
    let widen = |v: bf16| f32::from_bits(u32::from(v.to_bits()) << 16);
    let mut sums = [0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            sums[i] = fma::<FMA>(a[i], widen(b[i]), sums[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * widen(*b)).sum();
    sums.iter().sum::<f32>() + rest
}

per_level! { fn dot_bf16 = dot_bf16_body(a: &[f32], b: &[bf16]) -> f32 }

/// Applies `act` to every element.
///
/// # Panics
/// If the tensor is not [plain](is_plain_f32).
pub fn activate<const D: usize>(x: Tensor<D>, act: Activation) -> Tensor<D> {
    edit(x, |values| {
        values
            .par_chunks_mut(CHUNK)
            .for_each(|chunk| activate_slice(chunk, act));
    })
}

/// `act(gate) · up`.
///
/// # Panics
/// If a tensor is not [plain](is_plain_f32), or the shapes differ.
pub fn activate_gated<const D: usize>(
    gate: Tensor<D>,
    up: Tensor<D>,
    act: Activation,
) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "gate and up differ in shape");
    read(up, |up| {
        edit(gate, |gate| {
            gate.par_chunks_mut(CHUNK)
                .zip(up.par_chunks(CHUNK))
                .for_each(|(gate, up)| {
                    activate_slice(gate, act);
                    multiply_slice(gate, up);
                });
        })
    })
}

/// Root-mean-square norm over the last dimension; `weight` is `[d]`.
///
/// # Panics
/// If a tensor is not [plain](is_plain_f32).
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f32) -> Tensor<D> {
    let d = x.dims()[D - 1];
    if d == 0 {
        return x;
    }
    read(weight, |weight| {
        edit(x, |values| {
            for_rows(values, d, |_, row| rms_norm_row(row, weight, eps));
        })
    })
}

/// Rotary embedding: `x` is `[b, t, h, d]`, `cos` and `sin` are `[b or 1, t, d/2]`.
///
/// # Panics
/// If a tensor is not [plain](is_plain_f32).
pub fn rotate(x: Tensor<4>, cos: Tensor<3>, sin: Tensor<3>) -> Tensor<4> {
    let [_, _, heads, d] = x.dims();
    let [rows, steps, half] = cos.dims();
    if rows * steps * half * heads == 0 {
        return x;
    }
    read(cos, |cos| {
        read(sin, |sin| {
            edit(x, |values| {
                for_rows(values, heads * d, |position, row| {
                    let at = position % (rows * steps) * half;
                    for head in row.chunks_exact_mut(d) {
                        rotate_head(head, &cos[at..at + half], &sin[at..at + half]);
                    }
                });
            })
        })
    })
}

/// Whether [`linear`] takes this product: weights in a reduced format always, f32 weights where
/// there are few rows and much to read.
#[must_use]
pub fn linear_applies(x: &Tensor<2>, weight: &Tensor<2>) -> bool {
    if !is_plain_f32(x) || !is_plain_cpu(&weight.device()) {
        return false;
    }
    let [rows, d_in] = x.dims();
    match weight.dtype() {
        DType::BF16 | DType::F16 => true,
        DType::F32 => rows <= FEW_ROWS && weight.dims()[0] * d_in >= SMALL_PRODUCT,
        _ => false,
    }
}

/// `x · weightᵀ + bias` with the weight in f32, bf16 or f16 and everything else in f32.
///
/// # Shapes
/// - `x`: `[m, k]`, `weight`: `[n, k]`, `bias`: `[n]`
/// - output: `[m, n]`
///
/// # Panics
/// Where [`linear_applies`] is false, or the shapes do not fit: a wiring mistake.
#[must_use]
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let device = x.device();
    let ([m, k], [n, k_weight]) = (x.dims(), weight.dims());
    assert_eq!(
        k, k_weight,
        "a linear layer of width {k_weight} was given width {k}"
    );
    let weight = plain(weight).to_contiguous();
    let values = read(x, |x| match weight.dtype() {
        DType::F32 => product(x, slice_of::<f32>(&weight), [m, k, n]),
        DType::BF16 => product(x, slice_of::<bf16>(&weight), [m, k, n]),
        DType::F16 => product(x, slice_of::<f16>(&weight), [m, k, n]),
        other => panic!("no CPU product with {other:?} weights"),
    });
    let y = Tensor::from_data(TensorData::new(values, [m, n]), &device);
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

/// A stored weight format: how a row is dotted and how it is widened.
trait Stored: Copy + Send + Sync {
    fn dot(x: &[f32], row: &[Self]) -> f32;
    fn widen(row: &[Self], into: &mut [f32]);
}

impl Stored for f32 {
    fn dot(x: &[f32], row: &[Self]) -> f32 {
        dot_f32(x, row)
    }
    fn widen(row: &[Self], into: &mut [f32]) {
        into.copy_from_slice(row);
    }
}

impl Stored for bf16 {
    fn dot(x: &[f32], row: &[Self]) -> f32 {
        dot_bf16(x, row)
    }
    fn widen(row: &[Self], into: &mut [f32]) {
        row.convert_to_f32_slice(into);
    }
}

impl Stored for f16 {
    fn dot(x: &[f32], row: &[Self]) -> f32 {
        const PART: usize = 512;
        let mut wide = [0f32; PART];
        let mut sum = 0.0;
        for (x, row) in x.chunks(PART).zip(row.chunks(PART)) {
            row.convert_to_f32_slice(&mut wide[..row.len()]);
            sum += dot_f32(x, &wide[..row.len()]);
        }
        sum
    }
    fn widen(row: &[Self], into: &mut [f32]) {
        row.convert_to_f32_slice(into);
    }
}

fn product<W: Stored>(x: &[f32], weight: &[W], [m, k, n]: [usize; 3]) -> Vec<f32> {
    let mut y = vec![0f32; m * n];
    if y.is_empty() || k == 0 {
        return y;
    }
    if m <= FEW_ROWS {
        few_rows(x, weight, &mut y, [m, k, n]);
    } else {
        many_rows(x, weight, &mut y, [m, k, n]);
    }
    y
}

/// Reads the weight once, whole, in as many parts as there are threads.
fn few_rows<W: Stored>(x: &[f32], weight: &[W], y: &mut [f32], [m, k, n]: [usize; 3]) {
    let per_task = n
        .div_ceil(4 * rayon::current_num_threads())
        .max(SMALL_PRODUCT / k / 4)
        .max(1);
    // `[n, m]` first, so that each task owns a contiguous part.
    let mut transposed = vec![0f32; n * m];
    transposed
        .par_chunks_mut(per_task * m)
        .zip(weight.par_chunks(per_task * k))
        .for_each(|(y, weight)| {
            for (y, row) in y.chunks_exact_mut(m).zip(weight.chunks_exact(k)) {
                for (y, x) in y.iter_mut().zip(x.chunks_exact(k)) {
                    *y = W::dot(x, row);
                }
            }
        });
    for (i, row) in y.chunks_exact_mut(n).enumerate() {
        for (j, y) in row.iter_mut().enumerate() {
            *y = transposed[j * m + i];
        }
    }
}

/// A pointer into the output that tasks share; each writes its own columns.
struct Columns(*mut f32);
// SAFETY: tasks write disjoint columns of one allocation that outlives them.
unsafe impl Send for Columns {}
// SAFETY: as above.
unsafe impl Sync for Columns {}

/// Widens a panel of weight rows at a time into cache and multiplies it in f32.
fn many_rows<W: Stored>(x: &[f32], weight: &[W], y: &mut [f32], [m, k, n]: [usize; 3]) {
    assert!(x.len() == m * k && weight.len() == n * k && y.len() == m * n);
    let y = Columns(y.as_mut_ptr());
    let panels = n.div_ceil(PANEL);
    (0..panels).into_par_iter().for_each_init(
        || vec![0f32; PANEL * k],
        |wide, panel| {
            let y = &y;
            let first = panel * PANEL;
            let width = PANEL.min(n - first);
            let rows = &weight[first * k..(first + width) * k];
            W::widen(rows, &mut wide[..width * k]);
            // SAFETY: reads `m·k` of `x` and `width·k` of `wide`, whose lengths were checked;
            // writes columns `first..first + width` of the `[m, n]` output, which no other task
            // touches.
            unsafe {
                gemm::gemm(
                    m,
                    width,
                    k,
                    y.0.add(first),
                    1,
                    n as isize,
                    false,
                    x.as_ptr(),
                    1,
                    k as isize,
                    wide.as_ptr(),
                    k as isize,
                    1,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    Parallelism::None,
                );
            }
        },
    );
}

type Plain = burn::backend::flex::FlexTensor;

/// The backend's own tensor.
fn plain<const D: usize>(x: Tensor<D>) -> Plain {
    match x.try_into_primitive::<Flex>() {
        Ok(tensor) => tensor,
        Err(error) => panic!("a CPU kernel was given another backend's tensor: {error:?}"),
    }
}

fn slice_of<E: burn::tensor::Element + bytemuck::Pod>(tensor: &Plain) -> &[E] {
    tensor
        .as_slice::<E>()
        .expect("made contiguous, dtype checked")
}

/// Runs `f` over the values in row-major order.
fn read<const D: usize, R>(x: Tensor<D>, f: impl FnOnce(&[f32]) -> R) -> R {
    let tensor = plain(x);
    if let Some(values) = tensor.as_slice::<f32>() {
        return f(values);
    }
    f(slice_of(&tensor.to_contiguous()))
}

/// Changes the values in place where the tensor owns them alone, in a copy where it does not.
fn edit<const D: usize>(x: Tensor<D>, f: impl FnOnce(&mut [f32])) -> Tensor<D> {
    let (shape, device) = (x.dims(), x.device());
    let mut tensor = plain(x);
    let whole = tensor.layout().contiguous_offsets() == Some((0, shape.iter().product()));
    if whole
        && let Some(values) = tensor.try_storage_mut::<f32>()
        && values.len() == shape.iter().product::<usize>()
    {
        f(values);
        return Tensor::from_primitive::<Flex>(tensor);
    }
    let mut values = slice_of::<f32>(&tensor.to_contiguous()).to_vec();
    f(&mut values);
    Tensor::from_data(TensorData::new(values, shape), &device)
}

/// Calls `f(index, row)` for every row, several rows a task.
fn for_rows(values: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = CHUNK.div_ceil(width);
    values
        .par_chunks_mut(rows * width)
        .enumerate()
        .for_each(|(task, chunk)| {
            for (i, row) in chunk.chunks_exact_mut(width).enumerate() {
                f(task * rows + i, row);
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_exact_to_a_few_units() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            for y in [exp::<true>(x), exp::<false>(x)] {
                let error = (f64::from(y) - exact).abs() / exact;
                assert!(error < 5e-7, "exp({x}) = {y}, error {error}");
            }
        }
    }

    /// Every level that this processor has, against f64, on sizes around every chunk boundary.
    #[test]
    fn products_match_f64() {
        for (m, k, n) in [
            (1, 1, 1),
            (1, 63, 5),
            (8, 130, 70),
            (9, 64, 257),
            (33, 200, 300),
        ] {
            let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
            let x: Vec<f32> = (0..m * k).map(value).collect();
            let w: Vec<f32> = (0..n * k).map(|i| value(i + 77)).collect();
            let w16: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
            let h16: Vec<f16> = w.iter().map(|v| f16::from_f32(*v)).collect();
            let widened: Vec<f32> = w16.iter().map(|v| v.to_f32()).collect();
            let widened_half: Vec<f32> = h16.iter().map(|v| v.to_f32()).collect();
            let cases = [
                (product(&x, &w, [m, k, n]), &w),
                (product(&x, &w16, [m, k, n]), &widened),
                (product(&x, &h16, [m, k, n]), &widened_half),
            ];
            for (y, w) in cases {
                for i in 0..m {
                    for j in 0..n {
                        let exact: f64 = (0..k)
                            .map(|l| f64::from(x[i * k + l]) * f64::from(w[j * k + l]))
                            .sum();
                        let error = (f64::from(y[i * n + j]) - exact).abs();
                        assert!(error < 1e-4, "[{m}, {k}, {n}] at {i}, {j}: {error}");
                    }
                }
            }
        }
    }

    /// A sliced (not contiguous) input is read in its logical order, and a shared one not changed.
    #[test]
    fn views_and_shared_tensors_are_respected() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[-1.0, 2.0], [3.0, -4.0]], &device);
        let column = x.clone().slice([0..2, 1..2]);
        let y = activate(column, Activation::Relu)
            .into_data()
            .try_to_vec::<f32>()
            .unwrap();
        assert_eq!(y, [2.0, 0.0]);
        let _ = activate(x.clone(), Activation::Relu);
        assert_eq!(
            x.into_data().try_to_vec::<f32>().unwrap(),
            [-1.0, 2.0, 3.0, -4.0]
        );
    }
}
