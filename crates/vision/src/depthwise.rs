//! Depthwise convolution of channels-last features.
//!
//! Burn convolves planes. On a CPU, going there and back costs two transposed copies, and a
//! convolution with as many groups as channels cannot use a matrix product. With channels last,
//! neighbouring channels are neighbouring lanes: the kernel here keeps the sums of a few cells ×
//! sixteen channels in registers while it walks over the window. It applies to plain CPU tensors;
//! elsewhere Burn's convolution runs, and both compute the same function.

use burn::backend::Flex;
use burn::module::Param;
use burn::prelude::*;
use opabinia_nn::{Conv2d, cpu};
use rayon::prelude::*;

/// Channels that are summed at a time.
const LANES: usize = 16;

/// Convolves every channel with its own odd square kernel; stride 1, size kept by zero padding.
///
/// # Shapes
/// - `x`: `[b, r, c, d]`
/// - `conv.weight`: `[d, 1, k, k]`
/// - output: `[b, r, c, d]`
pub(crate) fn convolve(conv: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    let weight = conv.weight.val();
    let plain = cpu::is_plain_f32(&x) && cpu::is_plain_f32(&weight);
    match conv.bias.as_ref().map(Param::val) {
        Some(bias) if plain && cpu::is_plain_f32(&bias) => convolve_cpu(x, weight, bias),
        _ => conv.forward(x.permute([0, 3, 1, 2])).permute([0, 2, 3, 1]),
    }
}

fn convolve_cpu(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let ([b, rows, cols, d], device) = (x.dims(), x.device());
    let [_, _, kernel, _] = weight.dims();
    // `[k·k, d]`, so that the weights of neighbouring channels are neighbours too.
    let taps = weight.reshape([d, kernel * kernel]).transpose();
    let mut out = vec![0f32; b * rows * cols * d];
    with_values(x, |input| {
        with_values(taps, |taps| {
            with_values(bias, |bias| {
                let layer = Layer {
                    input,
                    taps,
                    bias,
                    kernel,
                    rows,
                    cols,
                    d,
                };
                let row_values = (cols * d).max(1);
                out.par_chunks_mut(row_values)
                    .enumerate()
                    .for_each(|(i, out)| {
                        layer.row(i / rows, i % rows, out);
                    });
            });
        });
    });
    Tensor::from_data(TensorData::new(out, [b, rows, cols, d]), &device)
}

/// Runs `f` over the values of a plain tensor in row-major order, without a copy where they lie so.
fn with_values<const D: usize>(x: Tensor<D>, f: impl FnOnce(&[f32])) {
    match x.try_into_primitive::<Flex>() {
        Ok(tensor) => match tensor.as_slice::<f32>() {
            Some(values) => f(values),
            None => f(tensor
                .to_contiguous()
                .as_slice::<f32>()
                .expect("contiguous f32")),
        },
        Err(error) => panic!("a CPU kernel was given another backend's tensor: {error:?}"),
    }
}

/// The operands of one convolution.
struct Layer<'a> {
    /// `[b, rows, cols, d]`.
    input: &'a [f32],
    /// `[kernel², d]`.
    taps: &'a [f32],
    /// `[d]`.
    bias: &'a [f32],
    kernel: usize,
    rows: usize,
    cols: usize,
    d: usize,
}

impl Layer<'_> {
    /// Row `y` of picture `b`, compiled for what the processor has.
    #[allow(
        unsafe_code,
        reason = "calling functions compiled for a processor feature"
    )]
    fn row(&self, b: usize, y: usize, out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512(layer: &Layer<'_>, b: usize, y: usize, out: &mut [f32]) {
                layer.row_body::<true, 8>(b, y, out);
            }
            #[target_feature(enable = "avx2,fma")]
            fn avx2(layer: &Layer<'_>, b: usize, y: usize, out: &mut [f32]) {
                layer.row_body::<true, 4>(b, y, out);
            }
            match cpu::level() {
                // SAFETY: `level` found these features on this processor.
                cpu::Level::Avx512 => return unsafe { avx512(self, b, y, out) },
                // SAFETY: as above.
                cpu::Level::Avx2 => return unsafe { avx2(self, b, y, out) },
                cpu::Level::Baseline => {}
            }
        }
        self.row_body::<false, 4>(b, y, out);
    }

    /// `CELLS` neighbouring cells at a time, as many as keep all sums in registers.
    #[inline(always)]
    fn row_body<const FMA: bool, const CELLS: usize>(&self, b: usize, y: usize, out: &mut [f32]) {
        let whole = self.d - self.d % LANES;
        for x in (0..self.cols).step_by(CELLS) {
            for channel in (0..whole).step_by(LANES) {
                self.tile::<FMA, CELLS, LANES>([b, y, x], channel, out);
            }
            for channel in whole..self.d {
                self.tile::<FMA, CELLS, 1>([b, y, x], channel, out);
            }
        }
    }

    /// `L` channels of the cells `x..x + CELLS` of a row.
    #[inline(always)]
    fn tile<const FMA: bool, const CELLS: usize, const L: usize>(
        &self,
        [b, y, x]: [usize; 3],
        channel: usize,
        out: &mut [f32],
    ) {
        let Self {
            kernel,
            rows,
            cols,
            d,
            ..
        } = *self;
        let radius = kernel / 2;
        let mut sums = [[0f32; L]; CELLS];
        for sum in &mut sums {
            sum.copy_from_slice(&self.bias[channel..channel + L]);
        }
        for (ky, from_y) in (0..kernel).map(|ky| (ky, y + ky)) {
            if from_y < radius || from_y - radius >= rows {
                continue;
            }
            let row = (b * rows + from_y - radius) * cols * d;
            let row = &self.input[row..row + cols * d];
            for kx in 0..kernel {
                let tap = (ky * kernel + kx) * d + channel;
                let tap: &[f32; L] = lanes(&self.taps[tap..]);
                let inside = x + kx >= radius && x + kx - radius + CELLS <= cols;
                if inside {
                    let first = (x + kx - radius) * d + channel;
                    for (cell, sum) in sums.iter_mut().enumerate() {
                        accumulate::<FMA, L>(sum, lanes(&row[first + cell * d..]), tap);
                    }
                } else {
                    for (cell, sum) in sums.iter_mut().enumerate() {
                        let from_x = x + kx + cell;
                        if from_x >= radius && from_x - radius < cols {
                            let from = (from_x - radius) * d + channel;
                            accumulate::<FMA, L>(sum, lanes(&row[from..]), tap);
                        }
                    }
                }
            }
        }
        for (cell, sum) in sums.iter().enumerate().take(cols - x) {
            let to = (x + cell) * d + channel;
            out[to..to + L].copy_from_slice(sum);
        }
    }
}

/// The first `L` values.
#[inline(always)]
fn lanes<const L: usize>(values: &[f32]) -> &[f32; L] {
    values
        .first_chunk()
        .expect("channels stay inside their cell")
}

#[inline(always)]
fn accumulate<const FMA: bool, const L: usize>(sum: &mut [f32; L], x: &[f32; L], w: &[f32; L]) {
    for i in 0..L {
        // Without the processor's instruction `mul_add` would be a slow library call.
        sum[i] = if FMA {
            x[i].mul_add(w[i], sum[i])
        } else {
            x[i] * w[i] + sum[i]
        };
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use opabinia_nn::conv::ConvShape;

    use super::*;

    fn depthwise(d: usize, kernel: usize) -> Conv2d {
        let shape = ConvShape {
            d_in: d,
            d_out: d,
            kernel,
            stride: 1,
            padding: kernel / 2,
            groups: d,
        };
        Conv2d::new(shape, true, &Device::flex())
    }

    /// Every size of a rest: cells, channels, pictures smaller than the kernel.
    #[test]
    fn agrees_with_the_convolution_of_planes() {
        let sizes = [
            (1, 1, 1, 1),
            (2, 3, 5, 16),
            (1, 9, 8, 17),
            (2, 12, 19, 40),
            (1, 2, 33, 33),
        ];
        for (b, rows, cols, d) in sizes {
            let conv = depthwise(d, 7);
            let x = Tensor::random([b, rows, cols, d], Distribution::Default, &Device::flex());
            let planes = conv
                .forward(x.clone().permute([0, 3, 1, 2]))
                .permute([0, 2, 3, 1]);
            let worst = (convolve(&conv, x) - planes)
                .abs()
                .max()
                .into_scalar::<f32>();
            assert!(worst < 1e-5, "[{b}, {rows}, {cols}, {d}]: {worst}");
        }
    }

    /// A kernel of ones sums the 3 × 3 window: 4 cells in a corner, 6 at an edge, 9 inside.
    #[test]
    fn ones_count_the_window() {
        let mut conv = depthwise(1, 3);
        conv.weight = Param::from_tensor(Tensor::ones([1, 1, 3, 3], &Device::flex()));
        conv.bias = Some(Param::from_tensor(Tensor::zeros([1], &Device::flex())));
        let y = convolve(&conv, Tensor::ones([1, 3, 3, 1], &Device::flex()));
        let counts = [4.0, 6.0, 4.0, 6.0, 9.0, 6.0, 4.0, 6.0, 4.0];
        assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), counts);
    }

    #[test]
    fn a_view_is_read_in_its_logical_order() {
        let conv = depthwise(16, 7);
        let planes = Tensor::<4>::random([1, 16, 6, 10], Distribution::Default, &Device::flex());
        let view = planes.permute([0, 2, 3, 1]);
        let copy = Tensor::from_data(view.clone().into_data(), &Device::flex());
        assert_eq!(
            convolve(&conv, view).into_data(),
            convolve(&conv, copy).into_data()
        );
    }
}
