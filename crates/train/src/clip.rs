//! The global norm of gradients: measured, limited, and checked for values that are none.
//!
//! The norm is that of all gradients together, as in PyTorch's `clip_grad_norm_`; Burn's own
//! clipping looks at one parameter at a time. On a CPU squares are summed in `f64` in chunks of a
//! fixed size, so the norm is the same for any number of threads.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::DType;
use rayon::prelude::*;

use crate::optimizer::plain::{self, CHUNK, Writable};

/// Added to the norm before dividing by it, as PyTorch does.
const GUARD: f64 = 1e-6;

/// A gradient that is no number.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "the gradient of `{parameter}` holds {count} of {total} values that are not finite ({kind})"
)]
pub struct NonFinite {
    /// Module path of the first such parameter.
    pub parameter: String,
    /// How many of its values are not finite.
    pub count: u64,
    /// How many values it has.
    pub total: u64,
    /// What they are.
    pub kind: NonFiniteKind,
}

/// What values that are not finite are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonFiniteKind {
    /// At least one is not a number.
    Nan,
    /// They overflowed.
    Infinite,
}

impl std::fmt::Display for NonFiniteKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nan => "not a number",
            Self::Infinite => "infinite",
        })
    }
}

/// The root of the summed squares of all gradients that belong to `module`.
#[must_use]
pub fn global_norm<M: Module>(module: &M, gradients: &GradientsParams) -> f64 {
    let mut squares = Squares {
        gradients,
        host: 0.0,
        remote: Vec::new(),
    };
    module.visit(&mut squares);
    squares.total().sqrt()
}

/// Scales gradients down so that their global norm is at most `max_norm`; gives the norm before.
///
/// # Errors
/// If the norm is not finite; gradients are unchanged then. The error names the first parameter
/// whose gradient holds such a value; if none does, the sum itself overflowed, and it names the
/// first parameter with a gradient.
pub fn clip_global_norm<M: Module>(
    module: &M,
    gradients: &mut GradientsParams,
    max_norm: f64,
) -> Result<f64, NonFinite> {
    let norm = checked_norm(module, gradients)?;
    let factor = max_norm / (norm + GUARD);
    if factor < 1.0 {
        scale(module, gradients, factor);
    }
    Ok(norm)
}

/// The global norm, if it is a number.
///
/// # Errors
/// As [`clip_global_norm`].
pub fn checked_norm<M: Module>(module: &M, gradients: &GradientsParams) -> Result<f64, NonFinite> {
    let norm = global_norm(module, gradients);
    if norm.is_finite() {
        return Ok(norm);
    }
    let mut search = Search {
        path: Vec::new(),
        gradients,
        fallback: None,
        found: None,
    };
    module.visit(&mut search);
    match search.found.or(search.fallback) {
        Some(error) => Err(error),
        // No gradient has a norm of 0, so there is one.
        None => Ok(0.0),
    }
}

/// Multiplies all gradients that belong to `module`.
pub fn scale<M: Module>(module: &M, gradients: &mut GradientsParams, factor: f64) {
    module.visit(&mut Scale { gradients, factor });
}

/// Sums squares: of CPU tensors at once, of others on their device until the end.
struct Squares<'a> {
    gradients: &'a GradientsParams,
    host: f64,
    remote: Vec<Tensor<1>>,
}

impl Squares<'_> {
    fn total(self) -> f64 {
        if self.remote.is_empty() {
            return self.host;
        }
        // One reading for all parameters.
        let sums = Tensor::cat(self.remote, 0).into_data().convert::<f64>();
        let sums: f64 = sums.iter::<f64>().sum();
        self.host + sums
    }
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.get::<D>(param.id) else {
            return;
        };
        if plain::is_plain(&gradient) {
            self.host += plain::read(gradient, sum_of_squares);
        } else {
            self.remote.push(gradient.cast(DType::F32).square().sum());
        }
    }
}

fn sum_of_squares(values: &[f32]) -> f64 {
    let chunks: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| chunk.iter().map(|&x| f64::from(x) * f64::from(x)).sum())
        .collect();
    chunks.iter().sum()
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.remove::<D>(param.id) else {
            return;
        };
        let scaled = if plain::is_plain(&gradient) {
            let shape = gradient.dims();
            let mut values = Writable::new(gradient.reshape([shape.iter().product::<usize>()]));
            let factor = self.factor as f32;
            values
                .values()
                .par_chunks_mut(CHUNK)
                .for_each(|chunk| chunk.iter_mut().for_each(|x| *x *= factor));
            values.into_tensor().reshape(shape)
        } else {
            gradient * self.factor
        };
        self.gradients.register(param.id, scaled);
    }
}

/// Looks for the first gradient that holds a value that is not finite.
struct Search<'a> {
    path: Vec<String>,
    gradients: &'a GradientsParams,
    fallback: Option<NonFinite>,
    found: Option<NonFinite>,
}

impl ModuleVisitor for Search<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.found.is_some() {
            return;
        }
        let Some(gradient) = self.gradients.get::<D>(param.id) else {
            return;
        };
        let data = gradient.into_data().convert::<f32>();
        let (mut nan, mut infinite, mut total) = (0, 0, 0);
        for x in data.iter::<f32>() {
            nan += u64::from(x.is_nan());
            infinite += u64::from(x.is_infinite());
            total += 1;
        }
        let report = NonFinite {
            parameter: self.path.join("."),
            count: nan + infinite,
            total,
            kind: if nan > 0 {
                NonFiniteKind::Nan
            } else {
                NonFiniteKind::Infinite
            },
        };
        if report.count > 0 {
            self.found = Some(report);
        } else if self.fallback.is_none() {
            self.fallback = Some(report);
        }
    }
}

#[cfg(test)]
mod tests {
    use opabinia_nn::Linear;

    use super::*;

    fn layer() -> Linear {
        Linear::new(2, 1, true, &Device::flex().autodiff())
    }

    fn gradients(layer: &Linear, weight: [[f32; 2]; 1], bias: [f32; 1]) -> GradientsParams {
        let device = Device::flex();
        let mut gradients = GradientsParams::new();
        gradients.register(layer.weight.id, Tensor::<2>::from_floats(weight, &device));
        let id = layer.bias.as_ref().unwrap().id;
        gradients.register(id, Tensor::<1>::from_floats(bias, &device));
        gradients
    }

    fn weight(layer: &Linear, gradients: &GradientsParams) -> Vec<f32> {
        let gradient = gradients.get::<2>(layer.weight.id).unwrap();
        gradient.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn the_norm_is_that_of_all_parameters_together() {
        let layer = layer();
        let gradients = gradients(&layer, [[2.0, 4.0]], [4.0]);
        assert_eq!(global_norm(&layer, &gradients), 6.0);
    }

    #[test]
    fn long_gradients_are_shortened_and_short_ones_stay() {
        let layer = layer();
        let mut gradients = gradients(&layer, [[2.0, 4.0]], [4.0]);
        assert_eq!(clip_global_norm(&layer, &mut gradients, 7.0), Ok(6.0));
        assert_eq!(weight(&layer, &gradients), [2.0, 4.0]);
        assert_eq!(clip_global_norm(&layer, &mut gradients, 3.0), Ok(6.0));
        let got = weight(&layer, &gradients);
        assert!((got[0] - 1.0).abs() < 1e-5 && (got[1] - 2.0).abs() < 1e-5);
    }

    #[test]
    fn values_that_are_not_finite_are_named_and_nothing_is_scaled() {
        let layer = layer();
        for (value, kind) in [
            (f32::NAN, NonFiniteKind::Nan),
            (f32::INFINITY, NonFiniteKind::Infinite),
        ] {
            let mut gradients = gradients(&layer, [[2.0, 4.0]], [value]);
            let error = clip_global_norm(&layer, &mut gradients, 1.0).unwrap_err();
            let expected = NonFinite {
                parameter: "bias".into(),
                count: 1,
                total: 1,
                kind,
            };
            assert_eq!(error, expected);
            assert_eq!(weight(&layer, &gradients), [2.0, 4.0]);
        }
    }

    /// In `f32` the square of 1e30 would overflow.
    #[test]
    fn large_gradients_have_a_norm() {
        let layer = layer();
        let gradients = gradients(&layer, [[1e30, 0.0]], [0.0]);
        assert!((global_norm(&layer, &gradients) / 1e30 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn no_gradients_have_no_norm() {
        assert_eq!(checked_norm(&layer(), &GradientsParams::new()), Ok(0.0));
    }
}
