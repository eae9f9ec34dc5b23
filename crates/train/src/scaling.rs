//! How learning rates follow the batch.
//!
//! A published rate belongs to a published batch. Whoever trains with another one may ask for the
//! square-root rule of the Cambrian-1 recipe (`lr · √(batch / base)`, its noise argument is that of
//! adaptive optimizers); nothing is scaled unless a recipe says so.

use serde::{Deserialize, Serialize};

/// The rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// Rates are used as they are written.
    #[default]
    None,
    /// Rates grow with the root of the batch.
    Sqrt,
}

impl Scaling {
    /// What rates chosen for batches of `base` samples are multiplied by when a batch has `batch`.
    #[must_use]
    pub fn factor(self, batch: usize, base: usize) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Sqrt => (batch as f64 / base.max(1) as f64).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_batch_is_half_the_rate() {
        assert_eq!(Scaling::Sqrt.factor(128, 512), 0.5);
        assert_eq!(Scaling::None.factor(128, 512), 1.0);
    }
}
