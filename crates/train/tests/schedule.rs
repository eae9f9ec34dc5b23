//! Learning rates against those of the reference implementation.

#![allow(missing_docs, clippy::unwrap_used)]

mod golden;

use opabinia_train::scaling::Scaling;
use opabinia_train::schedule::{Schedule, ScheduleKind, warmup_steps};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    schedules: Vec<Case>,
    sqrt_batch_rule: Vec<BatchRule>,
}

#[derive(Deserialize)]
struct Case {
    kind: String,
    base_lrs: Vec<f64>,
    total_steps: u64,
    warmup_ratio: f64,
    warmup_steps: u64,
    values_step_then_lr_per_group: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct BatchRule {
    base_lr: f64,
    base_bs: usize,
    bs: usize,
    lr: f64,
}

fn golden() -> Golden {
    golden::json("schedule/lr_schedule.json")
}

/// 1e-12 of the value. Near its end the cosine is the difference of two numbers near 1, of which a
/// few units in the last place may differ between mathematical libraries.
fn close(got: f64, expected: f64, base: f64) -> bool {
    (got - expected).abs() <= 1e-12 * expected.abs() + f64::EPSILON * base
}

#[test]
fn rates_equal_the_reference_at_every_recorded_step() {
    for case in golden().schedules {
        let kind = match case.kind.as_str() {
            "cosine" => ScheduleKind::Cosine,
            "linear" => ScheduleKind::Linear,
            "constant_with_warmup" => ScheduleKind::Constant,
            other => panic!("unknown kind {other}"),
        };
        assert_eq!(
            warmup_steps(case.warmup_ratio, case.total_steps),
            case.warmup_steps
        );
        let schedule = Schedule {
            kind,
            warmup: case.warmup_steps,
            steps: case.total_steps,
        };
        for values in case.values_step_then_lr_per_group {
            let factor = schedule.factor(values[0] as u64);
            for (base, expected) in case.base_lrs.iter().zip(&values[1..]) {
                assert!(
                    close(base * factor, *expected, *base),
                    "{} at step {}: {} instead of {expected}",
                    case.kind,
                    values[0],
                    base * factor
                );
            }
        }
    }
}

#[test]
fn the_batch_rule_equals_the_reference() {
    for rule in golden().sqrt_batch_rule {
        let lr = rule.base_lr * Scaling::Sqrt.factor(rule.bs, rule.base_bs);
        assert!(close(lr, rule.lr, rule.lr), "{lr} instead of {}", rule.lr);
    }
}
