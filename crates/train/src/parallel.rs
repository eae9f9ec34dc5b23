//! Training on several devices: each step's micro-batches are divided among them.
//!
//! Every device gets a copy of the parameters for the step, computes the gradients of its
//! micro-batches, and sends them back; the first device adds them up in the order of the
//! micro-batches and updates. It is the same loop as on one device ([`crate::engine::workers`]),
//! through Burn's transfers between devices.

use burn::prelude::*;

use crate::TrainError;

/// The devices of a run: the first `wanted` of those that were found.
///
/// # Errors
/// If there are not that many.
pub fn choose(wanted: usize, found: &[Device]) -> Result<Vec<Device>, TrainError> {
    if let Some(devices) = found.get(..wanted.max(1)) {
        return Ok(devices.to_vec());
    }
    let cpu = found.first().is_none_or(|device| *device == Device::flex());
    Err(TrainError::Refused(format!(
        "the recipe asks for {wanted} devices (`batch.devices`), and {}; {}",
        if cpu {
            "the CPU is one device".to_owned()
        } else {
            format!("{} of that kind answer", found.len())
        },
        if cpu {
            "set `batch.devices = 1` (its cores are used by `batch.parallel`), or build with \
             `--features cuda` and run with `--device cuda` on a machine with that many GPUs"
        } else {
            "set `batch.devices` to what there is; accumulation keeps the global batch the same"
        }
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_is_enough_for_one() {
        assert_eq!(choose(1, &[Device::flex()]).unwrap().len(), 1);
    }

    #[test]
    fn the_cpu_is_one_device() {
        let error = choose(4, &[Device::flex()]).unwrap_err().to_string();
        assert!(error.contains("4 devices"), "{error}");
        assert!(error.contains("--features cuda"), "{error}");
    }
}
