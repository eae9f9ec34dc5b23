//! Shorter weights: golden cases in each type, and guessed tokens that change no answer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use opabinia_image::{ImageLimits, ImageSource, load};
use opabinia_llm::{Conversation, SamplingOptions};
use opabinia_model::measure::deviation;
use opabinia_model::parity::{CaseError, find_cases, run_case_as};
use opabinia_model::{Answer, Generation, LoadModel, MAX_GUESSES, Model};
use opabinia_nn::Trace;
use opabinia_vision::VisionError;
use opabinia_weights::WeightDtype;

const SHORT: [WeightDtype; 5] = [
    WeightDtype::F16,
    WeightDtype::Bf16,
    WeightDtype::PackedBf16,
    WeightDtype::Int8,
    WeightDtype::Int4,
];

fn root() -> PathBuf {
    match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    }
}

fn golden(name: &str, dtype: WeightDtype) -> Model {
    let options = LoadModel {
        dtype,
        ..LoadModel::default()
    };
    Model::load(&root().join(name), &options).unwrap().0
}

/// Every case with weights, in every type, at the tolerance that `reduced_tolerance` states.
#[test]
fn golden_cases_hold_in_every_type() {
    for dtype in SHORT {
        let mut ran = 0;
        for folder in find_cases(&root()).unwrap() {
            let report = match run_case_as(&folder, dtype, &Device::flex()) {
                Ok(report) => report,
                Err(CaseError::Vision(VisionError::UnsupportedFamily { .. })) => continue,
                Err(error) => panic!("{}: {error}", folder.display()),
            };
            let failed: Vec<_> = report.checks.iter().filter(|check| !check.holds).collect();
            assert!(report.holds(), "{dtype} {}: {failed:#?}", report.case);
            ran += 1;
        }
        assert!(ran > 5, "{ran} cases in {}", root().display());
    }
}

/// Fewer bits are further off, and a model is not off from itself.
#[test]
fn the_deviation_grows_with_what_is_left_out() {
    let exact = golden("cambrian_llama_sva", WeightDtype::F32);
    let square = root().join("cambrian_llama_sva/images/square.png");
    let picture = load(&ImageSource::File(square), &ImageLimits::default()).unwrap();
    let prompts = [
        (Conversation::question("What is this?"), Vec::new()),
        (
            Conversation::question("What is this?").with_images(1),
            vec![picture],
        ),
    ];
    let of = |dtype| deviation(&exact, &golden("cambrian_llama_sva", dtype), &prompts).unwrap();
    let same = of(WeightDtype::F32);
    assert_eq!((same.scores, same.same_choice), (0.0, 1.0));
    assert!(same.positions > 20 && same.divergence.abs() < 1e-9);
    let off =
        [WeightDtype::Bf16, WeightDtype::Int8, WeightDtype::Int4].map(|dtype| of(dtype).scores);
    assert!(off[0] < off[1] && off[1] < off[2], "{off:?}");
}

fn answer(model: &Model, question: &str, seed: u64, guesses: usize, temperature: f32) -> Answer {
    let conversation = Conversation::question(question).with_images(1);
    let square = root().join("cambrian_llama_sva/images/square.png");
    let picture = load(&ImageSource::File(square), &ImageLimits::default()).unwrap();
    let seen = [model.see(&picture, &mut Trace::off()).unwrap()];
    let prompt = model.prompt(&conversation).unwrap();
    let packed = model.pack(&[(&prompt, &seen)]).unwrap();
    let generation = Generation {
        sampling: SamplingOptions {
            max_new_tokens: 60,
            temperature,
            seed,
            ..SamplingOptions::default()
        },
        guesses,
        ..Generation::default()
    };
    let mut answers = model
        .generate(&packed, &generation, &mut |_, _| true)
        .unwrap();
    answers.pop().unwrap()
}

/// Token for token what one at a time gives: greedy, and with the same draws of chance.
#[test]
fn guesses_change_no_answer() {
    let mut saved = 0;
    for dtype in [
        WeightDtype::AsStored,
        WeightDtype::PackedBf16,
        WeightDtype::Int8,
        WeightDtype::Int4,
    ] {
        let model = golden("cambrian_llama_sva", dtype);
        for (seed, temperature) in [(0, 0.0), (1, 0.3), (2, 1.0)] {
            for question in [
                "What is this?",
                "red red red red, blue blue blue blue",
                "1 2 3 1 2 3 1",
            ] {
                let plain = answer(&model, question, seed, 0, temperature);
                assert_eq!(
                    plain.steps,
                    plain.ids.len() - usize::from(plain.ids.len() == 60)
                );
                for guesses in [1, 3, MAX_GUESSES, 100] {
                    let guessed = answer(&model, question, seed, guesses, temperature);
                    assert_eq!(guessed.ids, plain.ids, "{dtype} {question} {guesses}");
                    assert_eq!((&guessed.text, &guessed.stop), (&plain.text, &plain.stop));
                    assert!(guessed.steps <= plain.steps);
                    saved += plain.steps - guessed.steps;
                }
            }
        }
    }
    assert!(saved > 0, "no guess was ever right");
}
