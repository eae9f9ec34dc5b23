//! The learning rate over a run: a warm-up, then a cosine, a line or nothing.
//!
//! A schedule is a factor between 0 and 1 that every part's own base rate is multiplied by. `n`
//! counts completed steps, `W` is the warm-up and `T` the run:
//!
//! ```text
//! n < W      n / W
//! cosine     ½ (1 + cos(π (n − W) / (T − W)))
//! linear     (T − n) / (T − W)
//! constant   1
//! ```
//!
//! As in the trainer of the reference implementation, the first update of a run with a warm-up has
//! rate 0: it fills the optimizer's moments and moves nothing.

use serde::{Deserialize, Serialize};

/// What follows the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Half a cosine down to 0.
    #[default]
    Cosine,
    /// A line down to 0.
    Linear,
    /// The base rate to the end.
    Constant,
}

/// The factor on the learning rates at each step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What follows the warm-up.
    pub kind: ScheduleKind,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the run.
    pub steps: u64,
}

impl Schedule {
    /// The factor for the update that follows `completed` steps.
    #[must_use]
    pub fn factor(&self, completed: u64) -> f64 {
        if completed < self.warmup {
            return completed as f64 / self.warmup.max(1) as f64;
        }
        let rest = self.steps.saturating_sub(self.warmup).max(1) as f64;
        match self.kind {
            ScheduleKind::Cosine => {
                let progress = (completed - self.warmup) as f64 / rest;
                (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0)
            }
            ScheduleKind::Linear => self.steps.saturating_sub(completed) as f64 / rest,
            ScheduleKind::Constant => 1.0,
        }
    }
}

/// Warm-up steps for a share of the run, rounded up.
#[must_use]
pub fn warmup_steps(ratio: f64, steps: u64) -> u64 {
    (ratio * steps as f64).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(kind: ScheduleKind) -> Vec<f64> {
        let schedule = Schedule {
            kind,
            warmup: 2,
            steps: 6,
        };
        (0..=6).map(|n| schedule.factor(n)).collect()
    }

    #[test]
    fn a_warm_up_starts_at_nothing() {
        assert_eq!(factors(ScheduleKind::Constant)[..3], [0.0, 0.5, 1.0]);
    }

    #[test]
    fn a_line_reaches_zero_with_the_last_step() {
        assert_eq!(
            factors(ScheduleKind::Linear)[2..],
            [1.0, 0.75, 0.5, 0.25, 0.0]
        );
    }

    #[test]
    fn a_cosine_is_half_way_in_the_middle() {
        let factors = factors(ScheduleKind::Cosine);
        assert!((factors[4] - 0.5).abs() < 1e-15);
        assert_eq!(factors[6], 0.0);
    }

    #[test]
    fn degenerate_runs_have_a_rate() {
        let schedule = |warmup, steps| Schedule {
            kind: ScheduleKind::Cosine,
            warmup,
            steps,
        };
        assert_eq!(schedule(0, 1).factor(0), 1.0);
        assert_eq!(schedule(5, 3).factor(2), 0.4);
    }

    #[test]
    fn warm_up_is_rounded_up() {
        assert_eq!(warmup_steps(0.06, 4883), 293);
        assert_eq!(warmup_steps(0.03, 13781), 414);
        assert_eq!(warmup_steps(0.0, 10), 0);
    }
}
