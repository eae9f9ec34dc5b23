//! Parameter groups against those that the reference's trainer forms.

#![allow(missing_docs, clippy::unwrap_used)]

mod golden;

use opabinia_train::groups::{
    Part, PartRate, PartRates, ProjectorAndSampler, ReferenceArguments, ReferenceGroups,
};
use opabinia_train::optimizer::Rule;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    case: String,
    args: Arguments,
    #[serde(default)]
    adapter_only: bool,
    #[serde(default)]
    group_sizes: Vec<usize>,
    #[serde(default)]
    params: Vec<Parameter>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Arguments {
    learning_rate: f64,
    #[serde(default)]
    weight_decay: f64,
    mm_projector_lr: Option<f64>,
    mm_vision_sampler_lr: Option<f64>,
    mm_vision_tower_lr: Option<f64>,
    #[serde(default)]
    unfreeze_mm_vision_tower: bool,
}

#[derive(Deserialize)]
struct Parameter(
    String,
    Vec<usize>,
    bool,
    Option<usize>,
    Option<f64>,
    Option<f64>,
);

fn cases() -> Vec<Case> {
    golden::json("groups/param_groups.json")
}

impl Case {
    fn arguments(&self) -> ReferenceArguments {
        ReferenceArguments {
            learning_rate: self.args.learning_rate,
            weight_decay: self.args.weight_decay,
            mm_projector_lr: self.args.mm_projector_lr,
            mm_vision_sampler_lr: self.args.mm_vision_sampler_lr,
            mm_vision_tower_lr: self.args.mm_vision_tower_lr,
            unfreeze_mm_vision_tower: self.args.unfreeze_mm_vision_tower,
            adapter_only: self.adapter_only,
        }
    }

    /// The same wishes, said part by part.
    fn rates(&self) -> PartRates {
        PartRates::new(|part| PartRate {
            train: match part {
                Part::Encoders => self.args.unfreeze_mm_vision_tower,
                Part::Projector | Part::Sampler | Part::Newline => true,
                _ => !self.adapter_only,
            },
            lr: match part {
                Part::Encoders => self.args.mm_vision_tower_lr,
                Part::Projector => self.args.mm_projector_lr,
                Part::Sampler => self.args.mm_vision_sampler_lr,
                _ => None,
            }
            .unwrap_or(self.args.learning_rate),
            weight_decay: self.args.weight_decay,
            matrices: Rule::Adamw,
        })
    }
}

#[test]
fn the_reference_rule_gives_the_reference_groups() {
    let cases = cases();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let groups = ReferenceGroups::new(case.arguments());
        if case.error.is_some() {
            assert_eq!(groups, Err(ProjectorAndSampler), "{}", case.case);
            continue;
        }
        let groups = groups.unwrap();
        let mut sizes = vec![0; case.group_sizes.len()];
        for Parameter(name, shape, trains, index, lr, decay) in &case.params {
            let got = groups.group(name, shape);
            let said = format!("{}: {name}", case.case);
            assert_eq!(got.is_some(), *trains, "{said}");
            assert_eq!(got.map(|g| g.index), *index, "{said}");
            assert_eq!(got.map(|g| g.rate.lr), *lr, "{said}");
            assert_eq!(got.map(|g| g.rate.weight_decay), *decay, "{said}");
            if let Some(group) = got {
                sizes[group.index] += 1;
            }
        }
        assert_eq!(sizes, case.group_sizes, "{}", case.case);
    }
}

/// Rates by part agree with the reference wherever it does what it was asked.
#[test]
fn rates_by_part_agree_except_in_the_trap() {
    for case in cases() {
        let rates = case.rates();
        for Parameter(name, shape, trains, _, lr, decay) in &case.params {
            let got = rates.rate(name, shape);
            let said = format!("{}: {name}", case.case);
            assert_eq!(got.is_some(), *trains, "{said}");
            assert_eq!(got.map(|r| r.weight_decay), *decay, "{said}");
            // A rate for the sampler disables the one for the encoders there, and not here.
            let trapped =
                case.case == "unfreeze_towers_and_sampler_lr" && Part::of(name) == Part::Encoders;
            if trapped {
                assert_eq!(*lr, Some(2e-5), "{said}");
                assert_eq!(got.map(|r| r.lr), Some(1e-5), "{said}");
            } else {
                assert_eq!(got.map(|r| r.lr), *lr, "{said}");
            }
        }
    }
}
