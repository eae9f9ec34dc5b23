//! Convolutions: the general one, and the patch embedding that is really a linear layer.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use burn::tensor::{module, ops::ConvOptions};

use crate::{cpu, grad, linear};

/// A 2-D convolution over `[b, c, h, w]`.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in / groups, kh, kw]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    stride: usize,
    padding: usize,
    groups: usize,
}

/// What a [`Conv2d`] looks like.
#[derive(Clone, Copy, Debug)]
pub struct ConvShape {
    /// Input channels.
    pub d_in: usize,
    /// Output channels.
    pub d_out: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Step between windows, both ways.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
    /// Channel groups; `d_in` for a depthwise convolution.
    pub groups: usize,
}

impl Conv2d {
    /// PyTorch's default initialisation: uniform in `±1/√fan_in`.
    #[must_use]
    pub fn new(shape: ConvShape, bias: bool, device: &Device) -> Self {
        let ConvShape {
            d_in,
            d_out,
            kernel,
            stride,
            padding,
            groups,
        } = shape;
        let fan_in = d_in / groups * kernel * kernel;
        let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
        let uniform = Initializer::Uniform {
            min: -bound,
            max: bound,
        };
        Self {
            weight: uniform.init([d_out, d_in / groups, kernel, kernel], device),
            bias: bias.then(|| uniform.init([d_out], device)),
            stride,
            padding,
            groups,
        }
    }

    /// `[b, c, h, w]` → `[b, d, h', w']` with `h' = (h + 2·padding − kernel) / stride + 1`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions::new(
            [self.stride, self.stride],
            [self.padding, self.padding],
            [1, 1],
            self.groups,
        );
        module::conv2d(
            x,
            self.weight.val(),
            self.bias.as_ref().map(Param::val),
            options,
        )
    }

    /// Convolves every channel of channels-last features with its own odd square kernel; stride 1,
    /// size kept by zero padding: the layer must have been made so.
    ///
    /// On a CPU a kernel of its own runs: Burn convolves planes, which would cost two transposed
    /// copies, and cannot use a matrix product with as many groups as channels.
    ///
    /// # Shapes
    /// - input and output: `[b, r, c, d]`
    #[must_use]
    pub fn depthwise(&self, x: Tensor<4>) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        let kernel = weight.dims()[2];
        let Some(bias) = bias.filter(|_| cpu::depthwise::KERNELS.contains(&kernel)) else {
            return self.depthwise_planes(x);
        };
        if cpu::is_plain_f32(&x) && cpu::is_plain_f32(&weight) && cpu::is_plain_f32(&bias) {
            return cpu::depthwise::convolve(x, weight, bias);
        }
        if grad::takes(&x) && grad::takes(&weight) && grad::takes(&bias) {
            return grad::depthwise(x, weight, bias);
        }
        self.depthwise_planes(x)
    }

    fn depthwise_planes(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward(x.permute([0, 3, 1, 2])).permute([0, 2, 3, 1])
    }
}

/// A convolution whose windows do not overlap, as one matrix product over flattened windows.
///
/// This is the patch embedding of vision transformers and the stem and downsampling of ConvNeXt.
/// Output is channels-last, the order everything after it wants. Pixels right and below of the last
/// whole window are unused, as in an unpadded convolution.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// `[d, c, p, p]`, as checkpoints store it.
    pub weight: Param<Tensor<4>>,
    /// `[d]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl PatchEmbed {
    /// Windows of `patch × patch` over `channels`.
    #[must_use]
    pub fn new(channels: usize, d: usize, patch: usize, bias: bool, device: &Device) -> Self {
        let shape = ConvShape {
            d_in: channels,
            d_out: d,
            kernel: patch,
            stride: patch,
            padding: 0,
            groups: 1,
        };
        let conv = Conv2d::new(shape, bias, device);
        Self {
            weight: conv.weight,
            bias: conv.bias,
        }
    }

    /// From planes, as pictures come: `[b, c, h, w]` → `[b, h/p · w/p, d]`, row-major.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<3> {
        let [d, c, p, _] = self.weight.lazy_shape().dims::<4>();
        let [b, _, h, w] = x.dims();
        let (rows, cols) = (h / p, w / p);
        let windows = x
            .slice([0..b, 0..c, 0..rows * p, 0..cols * p])
            .reshape([b, c, rows, p, cols, p])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([b * rows * cols, c * p * p]);
        let weight = self.weight.val().reshape([d, c * p * p]);
        self.project(windows, weight).reshape([b, rows * cols, d])
    }

    /// From channels-last features: `[b, h, w, c]` → `[b, h/p, w/p, d]`.
    pub fn forward_channels_last(&self, x: Tensor<4>) -> Tensor<4> {
        let [d, c, p, _] = self.weight.lazy_shape().dims::<4>();
        let [b, h, w, _] = x.dims();
        let (rows, cols) = (h / p, w / p);
        let windows = x
            .slice([0..b, 0..rows * p, 0..cols * p, 0..c])
            .reshape([b, rows, p, cols, p, c])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([b * rows * cols, p * p * c]);
        let weight = self
            .weight
            .val()
            .permute([0, 2, 3, 1])
            .reshape([d, p * p * c]);
        self.project(windows, weight).reshape([b, rows, cols, d])
    }

    fn project(&self, windows: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        linear::apply(windows, weight, self.bias.as_ref().map(Param::val))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    /// The matrix-product form is the convolution, with an unused rest on the right and below.
    #[test]
    fn patch_embedding_is_a_strided_convolution() {
        let device = Device::flex();
        let embed = PatchEmbed::new(3, 5, 4, true, &device);
        let x = Tensor::<4>::random([2, 3, 10, 13], Distribution::Default, &device);
        let options = ConvOptions::new([4, 4], [0, 0], [1, 1], 1);
        let bias = embed.bias.as_ref().map(Param::val);
        let conv = module::conv2d(x.clone(), embed.weight.val(), bias, options); // [2, 5, 2, 3]
        let conv = conv.permute([0, 2, 3, 1]);
        let ours = embed.forward(x.clone()).reshape([2, 2, 3, 5]);
        let last = embed.forward_channels_last(x.permute([0, 2, 3, 1]));
        for y in [ours, last] {
            let worst = (y - conv.clone()).abs().max().into_scalar::<f32>();
            assert!(worst < 1e-5, "{worst}");
        }
    }

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
            let worst = (conv.depthwise(x) - planes)
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
        let y = conv.depthwise(Tensor::ones([1, 3, 3, 1], &Device::flex()));
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
            conv.depthwise(view).into_data(),
            conv.depthwise(copy).into_data()
        );
    }
}
