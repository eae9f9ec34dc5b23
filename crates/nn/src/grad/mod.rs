//! Layers with gradients of their own on the CPU.
//!
//! Burn differentiates its operators one by one: on a CPU that keeps every intermediate value (whole
//! score matrices among them), copies much, and runs on one thread with scalar transcendental
//! functions. Here a layer is recorded as one operation, whose forward pass is the kernel that plain
//! tensors run too, and whose backward pass is a kernel as well. It applies to f32 tensors of the CPU
//! backend where gradients are recorded ([`takes`]); everywhere else Burn's operators run, and tests
//! hold the two to the same gradients.
//!
//! Kernels run on the rayon pool they are called from. On a pool of one thread they run serially, so
//! a trainer may have several workers with one thread each. Such workers need parameters of their
//! own (not clones of one recorded leaf): Burn holds a lock on a graph while it goes backwards, and a
//! leaf joins the graphs that use it.

mod attention;
mod cross_entropy;
mod depthwise;
mod elementwise;
mod embedding;
#[cfg(test)]
mod finite_differences;
mod linear;
mod norm;
mod resample;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{BalancedCheckpointing, NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::DType;

use crate::cpu::values::{Plain, plain};

pub(crate) use attention::attention;
pub use cross_entropy::cross_entropy;
pub(crate) use depthwise::depthwise;
pub(crate) use elementwise::{activate, gated, rotate};
pub(crate) use embedding::lookup;
pub(crate) use linear::linear;
pub(crate) use norm::{layer_norm, rms_norm};
pub(crate) use resample::resample;

thread_local! {
    static OFF: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with Burn's operators in place of the kernels of this module, on this thread: the
/// standard that tests and benchmarks compare with.
pub fn without_kernels<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            OFF.set(self.0);
        }
    }
    let _restore = Restore(OFF.replace(true));
    f()
}

/// Whether the operations of this module take a tensor: f32 on the CPU, recorded or constant.
///
/// Callers run the kernels of [`crate::cpu`] if none of their tensors is recorded.
pub(crate) fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device() == Device::flex() && !OFF.get()
}

/// A tensor of the graph.
type Recorded = FloatTensor<Autodiff<Flex>>;

/// An operand of a recorded operation, whatever its rank.
pub(crate) struct Input {
    tensor: Recorded,
    balanced: bool,
}

/// Takes an operand that [`takes`] allows; a plain tensor is a constant.
///
/// # Panics
/// If the tensor is not on the CPU.
pub(crate) fn input<const D: usize>(x: Tensor<D>) -> Input {
    if !x.device().is_autodiff() {
        return Input {
            tensor: Recorded::new(plain(x)),
            balanced: false,
        };
    }
    if let Ok(tensor) = x.clone().try_into_primitive::<Autodiff<Flex>>() {
        return Input {
            tensor,
            balanced: false,
        };
    }
    match x.try_into_primitive::<Autodiff<Flex, BalancedCheckpointing>>() {
        Ok(tensor) => Input {
            tensor,
            balanced: true,
        },
        Err(error) => panic!("a CPU operation was given another backend's tensor: {error:?}"),
    }
}

/// How gradients go back through a recorded operation with `N` inputs; holds what it needs of the
/// forward pass.
pub(crate) trait Pullback<const N: usize>: Clone + Debug + Send + 'static {
    /// From the gradient of the output to those of the inputs that are `wanted`.
    fn pull(self, gradient: Plain, wanted: [bool; N]) -> [Option<Plain>; N];
}

/// Records an operation: `forward` gets the inputs and which of them want a gradient, and gives the
/// output and the way back.
///
/// # Panics
/// If the output has another rank than `D`: a wiring mistake.
pub(crate) fn record<const N: usize, const D: usize, P: Pullback<N>>(
    inputs: [Input; N],
    forward: impl FnOnce([Plain; N], [bool; N]) -> (Plain, P),
) -> Tensor<D> {
    let balanced = inputs.iter().any(|input| input.balanced);
    let wanted = inputs.each_ref().map(|input| input.tensor.is_tracked());
    let guards = inputs.each_ref().map(|input| input.tensor.node());
    let values = inputs.map(|input| input.tensor.into_primitive());
    let step = Step(PhantomData::<P>)
        .prepare::<NoCheckpointing>(guards)
        .compute_bound()
        .stateful();
    let (output, pullback) = forward(values, wanted);
    let output = match step {
        OpsKind::Tracked(step) => step.finish(pullback, output),
        OpsKind::UnTracked(step) => step.finish(output),
    };
    if balanced {
        Tensor::from_primitive::<Autodiff<Flex, BalancedCheckpointing>>(output)
    } else {
        Tensor::from_primitive::<Autodiff<Flex>>(output)
    }
}

/// A pullback as Burn sees it.
#[derive(Debug)]
struct Step<P>(PhantomData<P>);

impl<const N: usize, P: Pullback<N>> Backward<Flex, N> for Step<P> {
    type State = P;

    fn backward(self, ops: Ops<P, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let pulled = ops.state.pull(gradient, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(pulled) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
