//! Training: single steps beside PyTorch, and runs of the real first stage.
//!
//! | workload | a pass |
//! |---|---|
//! | `decoder` | one step of a decoder of 20 million parameters, 8 rows of 256 tokens |
//! | `checkpointing` | the same with gradient checkpointing |
//! | `sva` | one step of a small model with two encoders and the SVA, all of it training, 16 pictures |
//! | `stage-1` | an epoch of the small first stage over pictures of the small world, encoders included |
//! | `feature-cache` | the same with features from the cache |
//! | `long` | steps 101 to 2,000 of a first stage of a tiny model; the first 100 warm up |

mod networks;
mod stage;
mod step;

use std::num::NonZero;
use std::path::Path;
use std::thread::available_parallelism;

use crate::{Fallible, Workload};

/// `weights` is where those of the first step go, for a peer to start from the same ones.
pub(crate) fn workload(name: &str, smoke: bool, weights: Option<&Path>) -> Fallible<Workload> {
    check_threads()?;
    match name {
        "decoder" => step::workload(networks::decoder(smoke)?, false, weights),
        "checkpointing" => step::workload(networks::decoder(smoke)?, true, None),
        "sva" => step::workload(networks::sva(smoke)?, false, weights),
        "stage-1" => stage::epoch(smoke, false),
        "feature-cache" => stage::epoch(smoke, true),
        "long" => stage::long(smoke),
        _ => Err(format!("there is no training workload `{name}`").into()),
    }
}

/// Workers share all processors, so training on fewer of them cannot be asked for.
fn check_threads() -> Fallible<()> {
    let processors = available_parallelism().map_or(1, NonZero::get);
    let threads = rayon::current_num_threads();
    if threads == processors {
        return Ok(());
    }
    Err(format!(
        "training uses all {processors} processors and cannot be measured with {threads} threads; \
         leave out `--threads`"
    )
    .into())
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// Weights are drawn from the device's one stream, so tests that draw take turns.
    fn alone() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The losses of the first two steps.
    fn losses(name: &str) -> [f64; 2] {
        let mut workload = workload(name, true, None).unwrap();
        let losses: [f64; 2] = workload.losses.as_slice().try_into().unwrap();
        assert!((workload.pass)().unwrap() > 0.0, "{name}");
        losses
    }

    #[test]
    fn steps_learn_with_and_without_checkpointing() {
        let _turn = alone();
        let [first, second] = losses("decoder");
        assert!(second < first, "{first} {second}");
        for (plain, checkpointed) in [first, second].into_iter().zip(losses("checkpointing")) {
            assert!(
                (plain - checkpointed).abs() < 1e-4,
                "{plain} {checkpointed}"
            );
        }
        // One step from random weights, encoders among them, may well go up; it must do something.
        let [first, second] = losses("sva");
        assert!(second.is_finite() && second != first, "{first} {second}");
    }

    #[test]
    fn the_weights_of_the_first_step_are_written_under_the_peers_names() {
        let _turn = alone();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sva.safetensors");
        workload("sva", true, Some(&path)).unwrap();
        let file = opabinia_weights::Checkpoint::open(&path).unwrap();
        let shape = |name: &str| file.info(name).map(|found| found.shape);
        let [d, sva] = [128, 128];
        let fused = "encoders.0.blocks.5.attn.qkv.weight";
        assert_eq!(shape(fused), Some(vec![3 * d, d]));
        let key = "connector.in_llm.1.layers.0.aggregation.encoders.1.key.linear.weight";
        assert_eq!(shape(key), Some(vec![sva, sva]));
    }

    #[test]
    fn the_first_stage_runs_with_and_without_the_cache() {
        let _turn = alone();
        for name in ["stage-1", "feature-cache"] {
            let mut workload = workload(name, true, None).unwrap();
            for _ in 0..2 {
                assert!((workload.pass)().unwrap() > 0.0, "{name}");
            }
        }
    }

    #[test]
    fn a_long_run_halts_twice() {
        let _turn = alone();
        let mut workload = workload("long", true, None).unwrap();
        for _ in 0..2 {
            assert!((workload.pass)().unwrap() > 0.0);
        }
        let over = (workload.pass)().unwrap_err().to_string();
        assert!(over.contains("over"), "{over}");
    }
}
