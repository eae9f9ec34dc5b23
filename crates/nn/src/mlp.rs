//! The two feed-forward layers that networks of this family are made of.
//!
//! On a CPU without gradients rows are taken some at a time through the whole layer, so that what is
//! inside stays in the caches: ConvNeXt-XXL has 65,536 rows of 1,536 hidden values at 1024 px, 400 MB
//! that would be written to memory and read again. A row's result is the same to the last bit however
//! many rows are taken at a time. With gradients all of it is kept anyway, and nothing is divided.

use burn::module::Module;
use burn::prelude::*;

use crate::cpu::rows::in_parts;
use crate::{Activation, Linear};

/// Hidden values that are worked on at a time where products are fast with so few: 8 MB.
const HIDDEN_AT_A_TIME: usize = 1 << 21;

/// `fc2(act(fc1(x)))`, the feed-forward layer of vision transformers.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `d → hidden`.
    pub fc1: Linear,
    /// `hidden → d_out`.
    pub fc2: Linear,
    #[module(skip)]
    act: Activation,
}

impl Mlp {
    /// Both layers with bias.
    #[must_use]
    pub fn new(d: usize, hidden: usize, d_out: usize, act: Activation, device: &Device) -> Self {
        Self::with_bias(d, hidden, d_out, act, true, device)
    }

    /// With or without biases.
    #[must_use]
    pub fn with_bias(
        d: usize,
        hidden: usize,
        d_out: usize,
        act: Activation,
        bias: bool,
        device: &Device,
    ) -> Self {
        Self {
            fc1: Linear::new(d, hidden, bias, device),
            fc2: Linear::new(hidden, d_out, bias, device),
            act,
        }
    }

    /// `[.., d]` → `[.., d_out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let parts = parts(&x, [&self.fc1, &self.fc2], self.fc1.d_out());
        in_parts(x, parts, self.fc2.d_out(), |x| {
            self.fc2.forward(self.fc1.forward_then(x, self.act))
        })
    }
}

/// `down(act(gate(x)) · up(x))`, the feed-forward layer of Llama-type decoders.
#[derive(Module, Debug)]
pub struct GatedMlp {
    /// `d → hidden`, through the activation.
    pub gate_proj: Linear,
    /// `d → hidden`.
    pub up_proj: Linear,
    /// `hidden → d`.
    pub down_proj: Linear,
    #[module(skip)]
    act: Activation,
}

impl GatedMlp {
    /// No biases, as in every decoder of this family.
    #[must_use]
    pub fn new(d: usize, hidden: usize, act: Activation, device: &Device) -> Self {
        Self {
            gate_proj: Linear::new(d, hidden, false, device),
            up_proj: Linear::new(d, hidden, false, device),
            down_proj: Linear::new(hidden, d, false, device),
            act,
        }
    }

    /// `[.., d]` → `[.., d]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let layers = [&self.gate_proj, &self.up_proj, &self.down_proj];
        let hidden = self.gate_proj.d_out() + self.up_proj.d_out();
        let parts = parts(&x, layers, hidden);
        in_parts(x, parts, self.down_proj.d_out(), |x| {
            let gate = self.gate_proj.forward(x.clone());
            let up = self.up_proj.forward(x);
            self.down_proj.forward(self.act.gated(gate, up))
        })
    }
}

/// In how many parts the rows of `x` go through layers that make `hidden` values of each.
fn parts<const D: usize, const N: usize>(
    x: &Tensor<D>,
    layers: [&Linear; N],
    hidden: usize,
) -> usize {
    let rows = x.dims()[..D - 1].iter().product::<usize>();
    if rows * hidden <= HIDDEN_AT_A_TIME {
        return 1; // What is small needs no questions.
    }
    let enough = layers.into_iter().map(|layer| layer.enough_rows(x));
    let enough = enough.reduce(|a, b| Some(a?.max(b?)));
    enough
        .flatten()
        .map_or(1, |enough| parts_of(rows, hidden, enough))
}

/// Parts of at least `enough` rows, and about as many as [`HIDDEN_AT_A_TIME`] allows.
fn parts_of(rows: usize, hidden: usize, enough: usize) -> usize {
    (rows / enough.max(HIDDEN_AT_A_TIME / hidden.max(1))).max(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use burn::module::Param;
    use burn::tensor::{DType, Distribution};

    use super::*;
    use crate::packed::{Format, Packed, Rows, fill};

    fn random(rows: usize, d: usize) -> Tensor<2> {
        Tensor::random([rows, d], Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn bits(x: Tensor<2>) -> Vec<u32> {
        let values: Vec<f32> = x.into_data().try_to_vec().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    }

    fn pack(layer: &Linear, format: Format) {
        let shape = layer.weight.dims();
        let rows: Vec<f32> = layer.weight.val().into_data().try_to_vec().unwrap();
        let packed = Packed::pack(Rows::F32(&rows), shape, format).unwrap();
        assert!(fill(layer.weight.id, packed));
    }

    fn shorten(layer: &mut Linear, dtype: DType) {
        layer.weight = Param::from_tensor(layer.weight.val().cast(dtype));
    }

    /// The stages of ConvNeXt-XXL at 1024 px, packed; the last has too few rows.
    #[test]
    fn hidden_values_are_bounded() {
        let stages = [(65_536, 1536), (16_384, 3072), (4096, 6144), (1024, 12_288)];
        let parts = stages.map(|(rows, hidden)| parts_of(rows, hidden, 1024));
        assert_eq!(parts, [48, 16, 4, 1]);
        assert_eq!(parts_of(10, 0, 1024), 1);
        assert_eq!(parts_of(2047, 1 << 20, 1024), 1);
        assert_eq!(parts_of(2048, 1 << 20, 1024), 2);
    }

    /// In every format, with widths at which the rows make two parts of different sizes.
    #[test]
    fn parts_change_no_bit() {
        let check = |mlp: &Mlp, gated: &GatedMlp, rows: usize, name: &str| {
            let x = random(rows, 20);
            let layers = [&mlp.fc1, &mlp.fc2];
            assert_eq!(parts(&x, layers, mlp.fc1.d_out()), 2, "{name}");
            let whole = mlp.fc2.forward(mlp.fc1.forward_then(x.clone(), mlp.act));
            assert_eq!(bits(mlp.forward(x.clone())), bits(whole), "{name}");

            let layers = [&gated.gate_proj, &gated.up_proj, &gated.down_proj];
            assert_eq!(parts(&x, layers, 2 * gated.up_proj.d_out()), 2, "{name}");
            let gate = gated.gate_proj.forward(x.clone());
            let hidden = gated.act.gated(gate, gated.up_proj.forward(x.clone()));
            let whole = gated.down_proj.forward(hidden);
            assert_eq!(bits(gated.forward(x)), bits(whole), "{name}");
        };
        let device = Device::flex();
        let layers = |hidden: usize| {
            let mlp = Mlp::new(20, hidden, 9, Activation::Gelu, &device);
            let gated = GatedMlp::new(20, hidden / 2, Activation::Silu, &device);
            (mlp, gated)
        };
        for format in Format::ALL {
            let (mlp, gated) = layers(2048);
            for layer in [&mlp.fc1, &mlp.fc2] {
                pack(layer, format);
            }
            for layer in [&gated.gate_proj, &gated.up_proj, &gated.down_proj] {
                pack(layer, format);
            }
            check(&mlp, &gated, 2051, format.name());
        }
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let (mut mlp, mut gated) = layers(512);
            for layer in [&mut mlp.fc1, &mut mlp.fc2] {
                shorten(layer, dtype);
            }
            let GatedMlp {
                gate_proj,
                up_proj,
                down_proj,
                ..
            } = &mut gated;
            for layer in [gate_proj, up_proj, down_proj] {
                shorten(layer, dtype);
            }
            check(&mlp, &gated, 16_387, &format!("{dtype:?}"));
        }
    }

    /// Neither with gradients, nor beside an adapter, nor in a shorter type.
    #[test]
    fn nothing_else_is_divided() {
        let device = Device::flex();
        let mlp = Mlp::new(4, 512, 3, Activation::Relu, &device);
        let of = |mlp: &Mlp, x: &Tensor<2>| parts(x, [&mlp.fc1, &mlp.fc2], 512);
        let x = random(1 << 14, 4);
        assert_eq!(of(&mlp, &x), 2);
        let reduced = crate::compute::with(crate::ComputeType::Bf16, || of(&mlp, &x));
        assert_eq!(reduced, 1);
        assert_eq!(of(&mlp.clone().train(), &Tensor::from_inner(x.clone())), 1);
        let shape = crate::LoraShape {
            rank: 2,
            alpha: 4.0,
            dropout: 0.0,
        };
        let mut adapted = mlp.clone();
        adapted.fc2 = adapted.fc2.with_lora(shape, 1);
        assert_eq!(of(&adapted, &x), 1);

        let recorded = mlp.clone().train();
        let y = recorded.forward(Tensor::from_inner(x));
        let gradients = y.sum().backward();
        assert!(recorded.fc1.weight.val().grad(&gradients).is_some());
    }

    /// Batches come out as they went in.
    #[test]
    fn a_divided_batch_keeps_its_shape() {
        let mlp = Mlp::new(3, 512, 5, Activation::Relu, &Device::flex());
        let x = random(2 * 8194, 3);
        let rows = bits(mlp.forward(x.clone()));
        let y = mlp.forward(x.reshape([2, 1, 8194, 3]));
        assert_eq!(y.dims(), [2, 1, 8194, 5]);
        assert_eq!(bits(y.reshape([2 * 8194, 5])), rows);
    }
}
