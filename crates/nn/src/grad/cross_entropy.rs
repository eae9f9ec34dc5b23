//! Cross entropy over a vocabulary.

use burn::prelude::*;
use burn::tensor::activation::log_softmax;

use super::{Pullback, input, record, takes};
use crate::cpu::cross_entropy::{losses, losses_and_gradients, scale_rows};
use crate::cpu::values::{Plain, contiguous, from_values, plain, tensor, values};

/// The loss of each row of scores against its target, `−log softmax(row)[target]`.
///
/// Where gradients are recorded on a CPU they are made in the same pass and take the place of the
/// scores, if nobody else holds these: clone the scores only if they are needed after.
///
/// # Shapes
/// - `scores`: `[n, vocab]`, `targets`: `n` ids below `vocab`
/// - output: `[n]`, in nats
///
/// # Panics
/// If there are not `n` targets, or one is not below `vocab`: whoever reads samples checks them.
#[must_use]
pub fn cross_entropy(scores: Tensor<2>, targets: &[u32]) -> Tensor<1> {
    let [n, vocab] = scores.dims();
    assert_eq!(targets.len(), n, "as many targets as rows of scores");
    assert!(
        targets.iter().all(|target| (*target as usize) < vocab),
        "a target outside the vocabulary of {vocab}"
    );
    if n == 0 || !takes(&scores) {
        return of_burn(scores, targets);
    }
    if !scores.device().is_autodiff() {
        return tensor(from_values(losses(plain(scores), targets), [n]));
    }
    record([input(scores)], |[scores], [wanted]| {
        let (losses, gradients) = if wanted {
            losses_and_gradients(scores, targets)
        } else {
            (losses(scores.clone(), targets), scores)
        };
        (from_values(losses, [n]), CrossEntropy { gradients })
    })
}

/// The same of Burn's operators.
fn of_burn(scores: Tensor<2>, targets: &[u32]) -> Tensor<1> {
    let ids: Vec<i32> = targets.iter().map(|id| id.cast_signed()).collect();
    let ids = Tensor::<1, Int>::from_data(ids.as_slice(), &scores.device());
    log_softmax(scores, 1)
        .gather(1, ids.unsqueeze_dim(1))
        .squeeze_dim::<1>(1)
        .neg()
}

#[derive(Clone, Debug)]
struct CrossEntropy {
    gradients: Plain,
}

impl Pullback<1> for CrossEntropy {
    fn pull(self, gradient: Plain, _: [bool; 1]) -> [Option<Plain>; 1] {
        let factors = contiguous(gradient);
        [Some(scale_rows(self.gradients, values(&factors)))]
    }
}
