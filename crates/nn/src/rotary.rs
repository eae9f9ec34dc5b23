//! Rotary position embedding (RoFormer, arXiv 2104.09864) in the half-rotation layout of Llama.
//!
//! Feature `i` of a head is paired with feature `i + d/2`; Burn's own `RotaryEncoding` pairs
//! neighbours, which is another model.

use burn::prelude::*;

use crate::{cpu, grad};

/// How frequencies are stretched beyond the trained context (`rope_scaling` of `config.json`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RotaryScaling {
    /// Positions divided by `factor`.
    Linear {
        /// Stretch of the context.
        factor: f64,
    },
    /// NTK-aware: beyond the trained context the base grows with the length of the sequence, taken
    /// at each step from the furthest position of the batch, as in the reference. There, and only
    /// there, chunks and batches are not exactly their whole and their singles.
    Dynamic {
        /// Stretch of the context.
        factor: f64,
        /// Trained context in tokens.
        max_position: usize,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, in between blended.
    Llama3 {
        /// Stretch of the context.
        factor: f64,
        /// Wavelengths above `original_max_position / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Trained context in tokens.
        original_max_position: usize,
    },
}

/// The frequencies of one decoder's rotary embedding.
#[derive(Clone, Debug)]
pub struct Rotary {
    head_dim: usize,
    theta: f64,
    scaling: Option<RotaryScaling>,
}

/// Cosines and sines for the positions of one step; `[b or 1, t, d/2]` each.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    cos: Tensor<3>,
    sin: Tensor<3>,
}

impl Rotary {
    /// `head_dim` must be even, which configurations check.
    #[must_use]
    pub fn new(head_dim: usize, theta: f64, scaling: Option<RotaryScaling>) -> Self {
        Self {
            head_dim,
            theta,
            scaling,
        }
    }

    /// Angle per position of each pair, `d/2` values.
    ///
    /// `length` is the number of tokens seen so far, which only dynamic scaling looks at.
    fn frequencies(&self, length: usize) -> Vec<f32> {
        let d = self.head_dim as f64;
        let theta = match self.scaling {
            Some(RotaryScaling::Dynamic {
                factor,
                max_position,
            }) if length > max_position => {
                let stretch = factor * length as f64 / max_position as f64 - (factor - 1.0);
                self.theta * stretch.powf(d / (d - 2.0))
            }
            _ => self.theta,
        };
        (0..self.head_dim / 2)
            .map(|i| self.scaled(1.0 / theta.powf(2.0 * i as f64 / d)) as f32)
            .collect()
    }

    fn scaled(&self, frequency: f64) -> f64 {
        match self.scaling {
            None | Some(RotaryScaling::Dynamic { .. }) => frequency,
            Some(RotaryScaling::Linear { factor }) => frequency / factor,
            Some(RotaryScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position,
            }) => {
                let wavelength = 2.0 * std::f64::consts::PI / frequency;
                let original = original_max_position as f64;
                if wavelength < original / high_freq_factor {
                    frequency
                } else if wavelength > original / low_freq_factor {
                    frequency / factor
                } else {
                    let smooth = (original / wavelength - low_freq_factor)
                        / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }

    /// The table for `positions`, one row per sequence of the batch (or one row for all).
    ///
    /// # Panics
    /// If the rows differ in length: packing pads them.
    #[must_use]
    pub fn table(&self, positions: &[Vec<usize>], device: &Device) -> RotaryTable {
        let steps = positions.first().map_or(0, Vec::len);
        assert!(
            positions.iter().all(|row| row.len() == steps),
            "rows of unequal length"
        );
        let length = positions.iter().flatten().max().map_or(0, |last| last + 1);
        let frequencies = self.frequencies(length);
        // Angles in f32, as in the reference; their cosine in f64, so that it is exact there.
        let angles = positions.iter().flatten().flat_map(|&position| {
            frequencies
                .iter()
                .map(move |&f| f64::from(position as f32 * f))
        });
        let (sin, cos): (Vec<f32>, Vec<f32>) =
            angles.map(|a| (a.sin() as f32, a.cos() as f32)).unzip();
        let shape = [positions.len(), steps, self.head_dim / 2];
        RotaryTable {
            cos: Tensor::from_data(TensorData::new(cos, shape), device),
            sin: Tensor::from_data(TensorData::new(sin, shape), device),
        }
    }
}

impl RotaryTable {
    /// Rotates every head of every position.
    ///
    /// # Shapes
    /// - input and output: `[b, t, h, d]`, heads not yet moved in front of positions
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        if cpu::is_plain_f32(&x) && cpu::is_plain_f32(&self.cos) {
            return cpu::rotate(x, self.cos.clone(), self.sin.clone());
        }
        if grad::takes(&x) && grad::takes(&self.cos) {
            return grad::rotate(x, self.cos.clone(), self.sin.clone());
        }
        let [b, t, h, d] = x.dims();
        let left = x.clone().slice([0..b, 0..t, 0..h, 0..d / 2]);
        let right = x.slice([0..b, 0..t, 0..h, d / 2..d]);
        let cos = self.cos.clone().unsqueeze_dim::<4>(2); // [b, t, 1, d/2]
        let sin = self.sin.clone().unsqueeze_dim::<4>(2);
        let rotated_left = left.clone() * cos.clone() - right.clone() * sin.clone();
        let rotated_right = right * cos + left * sin;
        Tensor::cat(vec![rotated_left, rotated_right], 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_zero_is_the_identity_and_pairs_are_halves_apart() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let rotary = Rotary::new(4, 10000.0, None);
            let table = rotary.table(&[vec![0, 1]], &device);
            let x = Tensor::<4>::from_floats(
                [[[[1.0, 0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]]]],
                &device,
            );
            let y = table.rotate(x).into_data().try_to_vec::<f32>().unwrap();
            assert_eq!(y[..4], [1.0, 0.0, 0.0, 0.0]);
            let (sin, cos) = 1f32.sin_cos();
            for (a, b) in y[4..].iter().zip([cos, 0.0, sin, 0.0]) {
                assert!((a - b).abs() < 1e-6, "{y:?}");
            }
        }
    }

    #[test]
    fn rows_of_a_batch_may_stand_at_different_positions() {
        let device = Device::flex();
        let rotary = Rotary::new(2, 10.0, None);
        let table = rotary.table(&[vec![3], vec![0]], &device);
        let y = table.rotate(Tensor::ones([2, 1, 1, 2], &device));
        let y = y.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(y[2..], [1.0, 1.0]);
        assert!((y[0] - (3f32.cos() - 3f32.sin())).abs() < 1e-6);
    }

    #[test]
    fn llama3_scaling_keeps_short_waves_and_stretches_long_ones() {
        let scaling = RotaryScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 8192,
        };
        let plain = Rotary::new(128, 500_000.0, None).frequencies(0);
        let scaled = Rotary::new(128, 500_000.0, Some(scaling)).frequencies(0);
        assert_eq!(plain[0], scaled[0]);
        assert!((plain[63] / 8.0 - scaled[63]).abs() < 1e-12);
    }

    #[test]
    fn dynamic_scaling_acts_beyond_the_trained_context_only() {
        let scaling = Some(RotaryScaling::Dynamic {
            factor: 2.0,
            max_position: 100,
        });
        let rotary = Rotary::new(64, 10000.0, scaling);
        assert_eq!(
            rotary.frequencies(100),
            Rotary::new(64, 10000.0, None).frequencies(0)
        );
        assert!(rotary.frequencies(200)[31] < rotary.frequencies(100)[31]);
    }
}
