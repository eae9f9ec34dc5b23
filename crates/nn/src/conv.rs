//! Convolutions: the general one, and the patch embedding that is really a linear layer.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use burn::tensor::{module, ops::ConvOptions};

use crate::linear;

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
    use super::*;

    /// The matrix-product form is the convolution, with an unused rest on the right and below.
    #[test]
    fn patch_embedding_is_a_strided_convolution() {
        let device = Device::flex();
        let embed = PatchEmbed::new(3, 5, 4, true, &device);
        let x = Tensor::<4>::random([2, 3, 10, 13], burn::tensor::Distribution::Default, &device);
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
}
