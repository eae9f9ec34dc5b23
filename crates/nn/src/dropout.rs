//! Dropout that is the same for the same seed, whatever else runs.
//!
//! It acts only within [`with_seed`], that is, while somebody trains: a model that answers never
//! enters it. Masks come from a stream of their own (ChaCha8) instead of the device's, which workers
//! would share.

use std::cell::RefCell;

use burn::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

thread_local! {
    static STREAM: RefCell<Option<ChaCha8Rng>> = const { RefCell::new(None) };
}

/// Runs `f` with dropout on, its masks drawn from `seed`, on this thread.
pub fn with_seed<R>(seed: u64, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<ChaCha8Rng>);
    impl Drop for Restore {
        fn drop(&mut self) {
            STREAM.set(self.0.take());
        }
    }
    let _restore = Restore(STREAM.replace(Some(ChaCha8Rng::seed_from_u64(seed))));
    f()
}

/// Zeroes each value with a probability of `share` and divides the others by `1 − share`; outside
/// [`with_seed`] the values as they are.
pub fn dropout<const D: usize>(x: Tensor<D>, share: f64) -> Tensor<D> {
    if share <= 0.0 {
        return x;
    }
    let count = x.dims().iter().product::<usize>();
    let kept = (1.0 / (1.0 - share)) as f32;
    let mask: Option<Vec<f32>> = STREAM.with_borrow_mut(|stream| {
        let stream = stream.as_mut()?;
        let value = |_| {
            if stream.random_bool(share.min(1.0)) {
                0.0
            } else {
                kept
            }
        };
        Some((0..count).map(value).collect())
    });
    match mask {
        Some(mask) => {
            let device = x.device();
            let mask = Tensor::from_data(TensorData::new(mask, x.dims()), &device);
            x * mask
        }
        None => x,
    }
}

/// A seed from the stream in force, `None` outside [`with_seed`]: whoever runs something twice gives
/// both runs the same masks with it.
#[must_use]
pub fn seed() -> Option<u64> {
    STREAM.with_borrow_mut(|stream| stream.as_mut().map(Rng::random))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64) -> Vec<f32> {
        let x = Tensor::<1>::ones([1000], &Device::flex());
        with_seed(seed, || dropout(x, 0.2))
            .into_data()
            .try_to_vec()
            .unwrap()
    }

    #[test]
    fn a_share_is_dropped_and_the_mean_is_kept() {
        let y = run(7);
        assert!(y.iter().all(|v| *v == 0.0 || *v == 1.25));
        let dropped = y.iter().filter(|v| **v == 0.0).count();
        assert!((150..250).contains(&dropped), "{dropped}");
        assert_eq!(y, run(7));
        assert_ne!(y, run(8));
    }

    #[test]
    fn a_seed_repeats_masks() {
        let x = Tensor::<1>::ones([100], &Device::flex());
        let run = |seed| with_seed(seed, || dropout(x.clone(), 0.5)).into_data();
        let (first, second) = with_seed(7, || (seed(), seed()));
        assert_eq!(run(first.unwrap()), run(first.unwrap()));
        assert_ne!(run(first.unwrap()), run(second.unwrap()));
        assert_eq!(seed(), None);
    }

    #[test]
    fn nothing_is_dropped_outside() {
        let x = Tensor::<1>::ones([4], &Device::flex());
        assert_eq!(dropout(x.clone(), 0.9).into_data(), x.into_data());
    }
}
