//! Depthwise convolution of channels-last features, forwards and backwards.
//!
//! Burn convolves planes. On a CPU, going there and back costs two transposed copies, and a
//! convolution with as many groups as channels cannot use a matrix product. With channels last,
//! neighbouring channels are neighbouring lanes: the kernel here takes sixteen at a time and keeps a row of taps in
//! registers. The gradient of the input is a convolution with the turned kernel, that of the kernel a
//! walk with a row of the taps' sums in registers.

use burn::prelude::*;
use rayon::prelude::*;

use super::math::fma;
use super::norm::added;
use super::values::{Shared, contiguous, from_values, plain, tensor, values};
use super::{Level, level};

/// Channels that are summed at a time.
const LANES: usize = 16;

/// Parts of a batch whose kernel gradients are summed apart.
const PARTS: usize = 4;

/// The sides of kernels that are known here.
pub(crate) const KERNELS: [usize; 3] = [3, 5, 7];

fn unknown(side: usize) -> ! {
    panic!("no kernel for depthwise convolutions of side {side}")
}

/// The operands of one convolution: stride 1, size kept by zero padding.
pub(crate) struct Depthwise<'a> {
    /// `[b, rows, cols, d]`.
    pub(crate) input: &'a [f32],
    /// `[kernel², d]`, so that the weights of neighbouring channels are neighbours too.
    pub(crate) taps: &'a [f32],
    /// `[d]`.
    pub(crate) bias: &'a [f32],
    /// Side of the kernel, one of [`KERNELS`].
    pub(crate) kernel: usize,
    /// `[b, rows, cols, d]`.
    pub(crate) shape: [usize; 4],
}

/// `[d, k·k]` to `[k·k, d]`; turned by half a circle if `turn`.
pub(crate) fn taps_of(weight: &[f32], d: usize, turn: bool) -> Vec<f32> {
    let window = weight.len() / d.max(1);
    let tap = |i: usize| if turn { window - 1 - i } else { i };
    (0..window)
        .flat_map(|i| (0..d).map(move |channel| weight[channel * window + tap(i)]))
        .collect()
}

/// The convolution of plain tensors: `[b, r, c, d]`, `[d, 1, k, k]`, `[d]` → `[b, r, c, d]`.
///
/// # Panics
/// If a tensor is not [plain](super::is_plain_f32).
pub(crate) fn convolve(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let (shape, [_, _, kernel, _]) = (x.dims(), weight.dims());
    let (x, weight, bias) = (
        contiguous(plain(x)),
        contiguous(plain(weight)),
        contiguous(plain(bias)),
    );
    let layer = Depthwise {
        input: values(&x),
        taps: &taps_of(values(&weight), shape[3], false),
        bias: values(&bias),
        kernel,
        shape,
    };
    tensor(from_values(layer.forward(), shape))
}

/// Sixteen channels of a cell.
type Cell = [f32; LANES];

impl Depthwise<'_> {
    /// The output, `[b, rows, cols, d]`.
    pub(crate) fn forward(&self) -> Vec<f32> {
        let [b, rows, cols, d] = self.shape;
        let mut out = vec![0f32; b * rows * cols * d];
        if out.is_empty() {
            return out;
        }
        let (bands, blocks) = (rows.div_ceil(BAND), d.div_ceil(LANES));
        let shared = Shared(out.as_mut_ptr());
        (0..b * bands * blocks).into_par_iter().for_each(|task| {
            let (picture, rest) = (task / (bands * blocks), task % (bands * blocks));
            let band = Band {
                picture,
                first_row: rest / blocks * BAND,
                channels: Channels::block(rest % blocks, d),
            };
            self.band(&band, &shared);
        });
        out
    }

    fn band(&self, band: &Band, out: &Shared) {
        match self.kernel {
            3 => band_3(self, band, out),
            5 => band_5(self, band, out),
            7 => band_7(self, band, out),
            side => unknown(side),
        }
    }

    /// Rows of the input are copied once, with padding, into a ring as high as the kernel, so that the
    /// inner loop has neither strides nor edges.
    #[inline(always)]
    fn band_body<const FMA: bool, const K: usize>(&self, band: &Band, out: &Shared) {
        let ([_, rows, cols, d], radius) = (self.shape, K / 2);
        let (channels, picture) = (band.channels, band.picture * rows);
        let taps: [[Cell; K]; K] = std::array::from_fn(|ky| {
            std::array::from_fn(|kx| channels.of(&self.taps[(ky * K + kx) * d..][..d]))
        });
        let bias = channels.of(self.bias);
        let row_of = |y: usize| &self.input[(picture + y) * cols * d..][..cols * d];
        let mut ring = Ring::new(K, cols);
        let mut sums = vec![bias; cols];
        for y in band.first_row.saturating_sub(radius)..(band.first_row + radius).min(rows) {
            ring.fill(y, row_of(y), d, channels);
        }
        for y in band.first_row..(band.first_row + BAND).min(rows) {
            if y + radius < rows {
                ring.fill(y + radius, row_of(y + radius), d, channels);
            }
            sums.fill(bias);
            for (ky, taps) in taps.iter().enumerate() {
                let from = y + ky;
                if from >= radius && from - radius < rows {
                    add_windows::<FMA, K>(&mut sums, ring.row(from - radius), taps);
                }
            }
            let first = (picture + y) * cols * d + channels.first;
            for (x, sum) in sums.iter().enumerate() {
                // SAFETY: this band's channels of a cell of its rows, which no other task has.
                unsafe {
                    let to =
                        std::slice::from_raw_parts_mut(out.0.add(first + x * d), channels.width);
                    to.copy_from_slice(&sum[..channels.width]);
                }
            }
        }
    }
}

/// `sums[x] += Σ row[x + kx] · taps[kx]`.
#[inline(always)]
fn add_windows<const FMA: bool, const K: usize>(sums: &mut [Cell], row: &[Cell], taps: &[Cell; K]) {
    let taps = *taps;
    for (sum, window) in sums.iter_mut().zip(row.windows(K)) {
        let mut held = *sum;
        for (x, tap) in window.iter().zip(&taps) {
            accumulate::<FMA>(&mut held, x, tap);
        }
        *sum = held;
    }
}

/// Rows of one task.
const BAND: usize = 32;

/// What one task computes.
struct Band {
    picture: usize,
    first_row: usize,
    channels: Channels,
}

/// Up to sixteen neighbouring channels.
#[derive(Clone, Copy)]
struct Channels {
    first: usize,
    width: usize,
}

impl Channels {
    fn block(index: usize, d: usize) -> Self {
        let first = index * LANES;
        Self {
            first,
            width: LANES.min(d - first),
        }
    }

    /// These channels of one cell, zeros behind.
    #[inline(always)]
    fn of(self, cell: &[f32]) -> Cell {
        let channels = &cell[self.first..self.first + self.width];
        if let Ok(whole) = channels.try_into() {
            return whole;
        }
        let mut part = [0.0; LANES];
        part[..self.width].copy_from_slice(channels);
        part
    }
}

/// The last rows of a picture that were read, as many as the kernel is high, each with zeros on both
/// sides.
struct Ring {
    cells: Vec<Cell>,
    kernel: usize,
    padded: usize,
}

impl Ring {
    fn new(kernel: usize, cols: usize) -> Self {
        let padded = cols + kernel - 1;
        Self {
            cells: vec![[0.0; LANES]; kernel * padded],
            kernel,
            padded,
        }
    }

    /// Puts row `y` in the place of row `y − kernel`.
    #[inline(always)]
    fn fill(&mut self, y: usize, row: &[f32], d: usize, channels: Channels) {
        let first = y % self.kernel * self.padded + self.kernel / 2;
        for (cell, from) in self.cells[first..].iter_mut().zip(row.chunks_exact(d)) {
            *cell = channels.of(from);
        }
    }

    #[inline(always)]
    fn row(&self, y: usize) -> &[Cell] {
        &self.cells[y % self.kernel * self.padded..][..self.padded]
    }
}

#[inline(always)]
fn accumulate<const FMA: bool>(sum: &mut Cell, x: &Cell, w: &Cell) {
    for i in 0..LANES {
        sum[i] = fma::<FMA>(x[i], w[i], sum[i]);
    }
}

/// The gradient of the taps, `[kernel², d]`, from the input and the gradient of the output, both
/// `[b, rows, cols, d]`.
///
/// # Panics
/// If the kernel is not one of [`KERNELS`].
pub(crate) fn taps_gradient(
    input: &[f32],
    gradient: &[f32],
    kernel: usize,
    [b, rows, cols, d]: [usize; 4],
) -> Vec<f32> {
    if b * rows * cols * d == 0 {
        return vec![0.0; kernel * kernel * d];
    }
    let blocks = d.div_ceil(LANES);
    let pictures = b.div_ceil(PARTS);
    let parts = b.div_ceil(pictures);
    // `[parts, blocks, kernel², lanes]`: every task writes its own.
    let mut sums = vec![0f32; parts * blocks * kernel * kernel * LANES];
    sums.par_chunks_mut(kernel * kernel * LANES)
        .enumerate()
        .for_each(|(task, sums)| {
            let (part, block) = (task / blocks, task % blocks);
            let walk = Walk {
                input,
                gradient,
                channels: Channels::block(block, d),
                shape: [b, rows, cols, d],
            };
            for picture in part * pictures..((part + 1) * pictures).min(b) {
                match kernel {
                    3 => picture_sums_3(&walk, picture, sums),
                    5 => picture_sums_5(&walk, picture, sums),
                    7 => picture_sums_7(&walk, picture, sums),
                    side => unknown(side),
                }
            }
        });
    let sums = added(&sums, blocks * kernel * kernel * LANES);
    let mut taps = vec![0f32; kernel * kernel * d];
    for (block, sums) in sums.chunks_exact(kernel * kernel * LANES).enumerate() {
        let (first, width) = (block * LANES, LANES.min(d - block * LANES));
        for (tap, sums) in taps.chunks_exact_mut(d).zip(sums.chunks_exact(LANES)) {
            tap[first..first + width].copy_from_slice(&sums[..width]);
        }
    }
    taps
}

/// What a task walks over: sixteen channels of the input and of the gradient of the output.
struct Walk<'a> {
    input: &'a [f32],
    gradient: &'a [f32],
    channels: Channels,
    shape: [usize; 4],
}

impl Walk<'_> {
    /// Adds one picture's part of the taps' gradient.
    #[inline(always)]
    fn picture<const FMA: bool, const K: usize>(&self, b: usize, sums: &mut [f32]) {
        let ([_, rows, cols, d], radius) = (self.shape, K / 2);
        let row_of = |y: usize| (b * rows + y) * cols * d..(b * rows + y + 1) * cols * d;
        let mut ring = Ring::new(K, cols);
        let mut gradients = vec![[0f32; LANES]; cols];
        for y in 0..rows.min(radius) {
            ring.fill(y, &self.input[row_of(y)], d, self.channels);
        }
        let (sums, _) = sums.as_chunks_mut::<LANES>();
        for y in 0..rows {
            if y + radius < rows {
                ring.fill(
                    y + radius,
                    &self.input[row_of(y + radius)],
                    d,
                    self.channels,
                );
            }
            let row = self.gradient[row_of(y)].chunks_exact(d);
            for (gradient, cell) in gradients.iter_mut().zip(row) {
                *gradient = self.channels.of(cell);
            }
            for ky in 0..K {
                let from = y + ky;
                if from >= radius && from - radius < rows {
                    let row = ring.row(from - radius);
                    add_row::<FMA, K>(&gradients, row, &mut sums[ky * K..(ky + 1) * K]);
                }
            }
        }
    }
}

/// `sums[kx] += Σ gradients[x] · row[x + kx]`.
#[inline(always)]
fn add_row<const FMA: bool, const K: usize>(gradients: &[Cell], row: &[Cell], sums: &mut [Cell]) {
    let mut held: [Cell; K] = std::array::from_fn(|kx| sums[kx]);
    for (gradient, window) in gradients.iter().zip(row.windows(K)) {
        for (held, x) in held.iter_mut().zip(window) {
            accumulate::<FMA>(held, x, gradient);
        }
    }
    sums.copy_from_slice(&held);
}

/// Compiles a method `$body::<FMA, K>` of `$on` for every level and for `K = $k`.
macro_rules! per_level_and_kernel {
    ($name:ident = $on:ident::$body:ident, $k:literal, ($($arg:ident: $ty:ty),*)) => {
        fn $name(on: &$on<'_>, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512(on: &$on<'_>, $($arg: $ty),*) {
                    on.$body::<true, $k>($($arg),*);
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2(on: &$on<'_>, $($arg: $ty),*) {
                    on.$body::<true, $k>($($arg),*);
                }
                match level() {
                    // SAFETY: `level` found these features on this processor.
                    Level::Avx512 => return unsafe { avx512(on, $($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { avx2(on, $($arg),*) },
                    Level::Baseline => {}
                }
            }
            on.$body::<false, $k>($($arg),*);
        }
    };
}

per_level_and_kernel!(band_3 = Depthwise::band_body, 3, (band: &Band, out: &Shared));
per_level_and_kernel!(band_5 = Depthwise::band_body, 5, (band: &Band, out: &Shared));
per_level_and_kernel!(band_7 = Depthwise::band_body, 7, (band: &Band, out: &Shared));
per_level_and_kernel!(picture_sums_3 = Walk::picture, 3, (b: usize, sums: &mut [f32]));
per_level_and_kernel!(picture_sums_5 = Walk::picture, 5, (b: usize, sums: &mut [f32]));
per_level_and_kernel!(picture_sums_7 = Walk::picture, 7, (b: usize, sums: &mut [f32]));

#[cfg(test)]
mod tests {
    use super::*;

    /// One cell in the middle of a 3 × 3 picture of ones: every tap met exactly one input.
    #[test]
    fn taps_meet_what_they_saw() {
        let input: Vec<f32> = (1..=9).map(|v| v as f32).collect();
        let mut gradient = [0f32; 9];
        gradient[4] = 2.0;
        let taps = taps_gradient(&input, &gradient, 3, [1, 3, 3, 1]);
        assert_eq!(taps, [2., 4., 6., 8., 10., 12., 14., 16., 18.]);
    }

    #[test]
    fn turning_reverses_the_taps_of_each_channel() {
        let weight = [1., 2., 3., 10., 20., 30.];
        assert_eq!(taps_of(&weight, 2, false), [1., 10., 2., 20., 3., 30.]);
        assert_eq!(taps_of(&weight, 2, true), [3., 30., 2., 20., 1., 10.]);
    }
}
