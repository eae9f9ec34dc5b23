//! Recipes through the public API: the shipped ones against the published figures, and what a person
//! is told about a mistake.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use opabinia_connector::InLlmConfig;
use opabinia_model::config::ConnectorKeys;
use opabinia_nn::Grid;
use opabinia_train::groups::{Part, ReferenceArguments, ReferenceGroups};
use opabinia_train::recipe::{ModelStart, Precision, Recipe, Stage, Work};
use opabinia_train::schedule::ScheduleKind;
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes")
}

fn shipped(name: &str) -> Recipe {
    Recipe::read(&folder().join(name)).unwrap_or_else(|error| panic!("{error}"))
}

/// What is published of a size.
struct Published {
    name: &'static str,
    template: &'static str,
    image_position: Option<usize>,
    in_llm: InLlmConfig,
    instruct_lr: f64,
    batch: usize,
    /// Steps and warm-up of stage 1 on 2.5 million samples, then of stage 2 on 7.0555 million.
    steps: [(u64, u64); 2],
}

const fn in_llm(count: usize, stride: usize) -> InLlmConfig {
    InLlmConfig {
        count,
        start: 0,
        stride,
    }
}

const PUBLISHED: [Published; 4] = [
    Published {
        name: "cambrian-phi3-3b",
        template: "phi3",
        image_position: None,
        in_llm: in_llm(10, 3),
        instruct_lr: 4e-5,
        batch: 512,
        steps: [(4883, 293), (13781, 414)],
    },
    Published {
        name: "cambrian-8b",
        template: "llama_3",
        image_position: Some(91),
        in_llm: in_llm(10, 3),
        instruct_lr: 4e-5,
        batch: 512,
        steps: [(4883, 293), (13781, 414)],
    },
    Published {
        name: "cambrian-13b",
        template: "vicuna_v1",
        image_position: Some(35),
        in_llm: in_llm(10, 4),
        instruct_lr: 4e-5,
        batch: 512,
        steps: [(4883, 293), (13781, 414)],
    },
    Published {
        name: "cambrian-34b",
        template: "chatml_direct",
        image_position: Some(87),
        in_llm: in_llm(9, 7),
        instruct_lr: 2e-5,
        batch: 1024,
        steps: [(2442, 147), (6891, 207)],
    },
];

const SAMPLES: [u64; 2] = [2_500_000, 7_055_500];

impl Published {
    fn recipes(&self) -> [Recipe; 2] {
        ["align", "instruct"].map(|stage| shipped(&format!("{}/{stage}.toml", self.name)))
    }
}

#[test]
fn published_runs_have_the_published_length() {
    for published in &PUBLISHED {
        for ((recipe, samples), (steps, warmup)) in
            published.recipes().iter().zip(SAMPLES).zip(published.steps)
        {
            assert_eq!(recipe.batch.global, published.batch, "{}", recipe.name);
            let per_epoch = samples.div_ceil(recipe.batch.global as u64);
            let total = recipe.schedule.total(per_epoch);
            let schedule = recipe.schedule.schedule(total);
            assert_eq!(
                (total, schedule.warmup, schedule.kind),
                (steps, warmup, ScheduleKind::Cosine),
                "{}",
                recipe.name
            );
            assert_eq!((recipe.seed, recipe.clip()), (42, Some(1.0)));
            assert_eq!(recipe.memory.precision, Precision::Bf16);
            let adamw = recipe.adamw();
            assert_eq!((adamw.beta1, adamw.beta2, adamw.eps), (0.9, 0.999, 1e-8));
        }
    }
}

#[test]
fn published_models_have_the_published_connector() {
    for published in &PUBLISHED {
        let [align, instruct] = published.recipes();
        let Work::Align(model) = &align.work else {
            panic!("{} is no stage 1", align.name);
        };
        assert_eq!(model.template.as_deref(), Some(published.template));
        assert_eq!(model.max_length, Some(2048));
        let ModelStart::Parts {
            encoders,
            connector,
            select_layer,
            image_position,
            ..
        } = &model.start
        else {
            panic!("{} starts from no parts", align.name);
        };
        assert_eq!(*select_layer, -2);
        assert_eq!(*image_position, published.image_position);
        let tokens: Vec<_> = encoders.iter().map(|encoder| encoder.grid.len()).collect();
        assert_eq!(tokens, [576, 576, 576, 9216]);
        let ConnectorKeys::Sva {
            width,
            query_grids,
            token_grid,
            depth,
            in_llm,
            ..
        } = connector
        else {
            panic!("{} has no SVA", align.name);
        };
        assert_eq!((*width, *depth), (1024, 3));
        assert_eq!(*token_grid, Grid::square(24));
        assert_eq!(query_grids, &[Grid::square(24)]);
        assert_eq!(in_llm.as_ref(), Some(&published.in_llm));

        let Work::Instruct(model) = &instruct.work else {
            panic!("{} is no stage 2", instruct.name);
        };
        // Stage 2 begins where stage 1 leaves its model.
        let ModelStart::Folder { from, .. } = &model.start else {
            panic!("{} starts from no folder", instruct.name);
        };
        assert_eq!(*from, align.folder().join("model"));
        assert!(instruct.groups_by_modality_length());
        assert!(!align.groups_by_modality_length());
    }
}

/// The recipes and the trainer of the reference agree about every parameter of a model.
#[test]
fn published_rates_are_those_of_the_reference() {
    let names = [
        ("model.mm_projector.0.weight", vec![8, 8]),
        ("model.mm_projector_aux_2.3.weight", vec![8]),
        ("model.vision_sampler_0.layers.2.pos_embed_3", vec![16, 8]),
        ("model.vision_sampler_layers.9.layers.0.norm.bias", vec![8]),
        ("model.vision_query", vec![1, 8]),
        ("model.image_newline", vec![8]),
        ("model.embed_tokens.weight", vec![9, 8]),
        ("model.layers.4.mlp.down_proj.weight", vec![8, 9]),
        ("model.norm.weight", vec![8]),
        ("lm_head.weight", vec![9, 8]),
    ];
    for published in &PUBLISHED {
        let arguments = [
            ReferenceArguments {
                learning_rate: 1e-3,
                mm_vision_sampler_lr: Some(1e-4),
                adapter_only: true,
                ..ReferenceArguments::default()
            },
            ReferenceArguments {
                learning_rate: published.instruct_lr,
                ..ReferenceArguments::default()
            },
        ];
        for (recipe, arguments) in published.recipes().iter().zip(arguments) {
            let reference = ReferenceGroups::new(arguments).unwrap();
            for (name, shape) in &names {
                let expected = reference.group(name, shape).map(|group| group.rate);
                assert_eq!(
                    recipe.rates().rate(name, shape),
                    expected,
                    "{}: {name}",
                    recipe.name
                );
            }
        }
    }
}

#[test]
fn every_shipped_recipe_is_one_and_says_so_again_when_resolved() {
    let mut found = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let entry = entry.unwrap().path();
        // Beside them are recipes of other verbs.
        if !entry.join("align.toml").is_file() {
            continue;
        }
        for file in std::fs::read_dir(entry).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|end| end != "toml") {
                continue;
            }
            let recipe = Recipe::read(&path).unwrap_or_else(|error| panic!("{error}"));
            let text = recipe.resolved_toml();
            let again = Recipe::parse(Path::new("resolved.toml"), &text)
                .unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(again.resolved_toml(), text);
            assert_eq!(again.fingerprint(), recipe.fingerprint());
            assert_eq!(again.rates(), recipe.rates());
            found += 1;
        }
    }
    assert_eq!(found, 18);
}

#[test]
fn the_small_recipes_lead_to_one_another() {
    let model = |name: &str| shipped(name).folder().join("model");
    let words = shipped("small/words.toml");
    let Work::Lexical { model: start, .. } = &words.work else {
        panic!("no connector to begin with");
    };
    let parts = start.parts(words.seed).unwrap();
    assert_eq!(parts.decoder, model("small/decoder.toml"));
    assert_eq!(
        parts.encoders[0].weights,
        Some(model("small/language-encoder.toml"))
    );
    assert_eq!(
        parts.encoders[1].weights,
        Some(model("small/conv-encoder.toml"))
    );
    assert_eq!(
        parts.encoders[2].weights,
        Some(model("small/text-encoder.toml"))
    );
    let parts = [
        "words",
        "align",
        "instruct-few",
        "instruct",
        "instruct-more",
    ];
    for pair in parts.windows(2) {
        let [before, after] = [pair[0], pair[1]];
        let recipe = shipped(&format!("small/{after}.toml"));
        let (Work::Align(start) | Work::Instruct(start)) = &recipe.work else {
            panic!("none of the two stages");
        };
        assert!(start.parts(0).is_none());
        assert!(matches!(&start.start,
            ModelStart::Folder { from, .. } if *from == model(&format!("small/{before}.toml"))));
    }
}

const INSTRUCT: &str = r#"name = "x"
stage = "instruct"

[model]
from = "m"

[data]
files = ["a.jsonl"]

[batch]
global = 16
micro = 4

[optimizer]
lr = 1e-3
"#;

fn parse(text: &str) -> Result<Recipe, String> {
    Recipe::parse(Path::new("r.toml"), text).map_err(|error| error.to_string())
}

fn refused(from: &str, to: &str) -> String {
    assert!(INSTRUCT.contains(from));
    parse(&INSTRUCT.replace(from, to)).unwrap_err()
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    let error = refused("lr = 1e-3", "lr = 1e-3\nwieght_decay = 0.1");
    assert!(
        error.starts_with("r.toml:16: recipes know no `wieght_decay`"),
        "{error}"
    );
    assert!(error.contains("did you mean `weight_decay`?"), "{error}");
    assert!(
        error.contains("allowed: lr, matrices, betas, eps"),
        "{error}"
    );
    let error = refused("\"instruct\"", "\"instruction\"");
    assert!(error.starts_with("r.toml:2:"), "{error}");
    assert!(error.contains("did you mean `instruct`?"), "{error}");
    let error = refused("lr = 1e-3", "lr = 1e-3\n[optimizer.parts.samplr]\nlr = 1.0");
    assert!(error.contains("did you mean `sampler`?"), "{error}");
    let error = refused("from = \"m\"", "from = \"m\"\ntemplate = \"lama_3\"");
    assert!(error.starts_with("r.toml:6:"), "{error}");
    assert!(error.contains("did you mean `llama_3`?"), "{error}");
}

#[test]
fn pretraining_takes_one_folder_of_pictures() {
    let recipe = std::fs::read_to_string(folder().join("small/language-encoder.toml")).unwrap();
    let one = "images = \"data/close/train\"";
    assert!(recipe.contains(one));
    let error = parse(&recipe.replace(one, "images = [\"data/close/train\"]")).unwrap_err();
    assert!(
        error.ends_with("`data.images` is a list, but pretraining takes one folder for all files"),
        "{error}"
    );
}

#[test]
fn values_are_refused_with_their_line() {
    for (from, to, expected) in [
        (
            "lr = 1e-3",
            "lr = -1.0",
            "r.toml:15: `optimizer.lr` is -1, but it must be above 0",
        ),
        ("lr = 1e-3", "lr = nan", "r.toml:15: `optimizer.lr` is NaN"),
        ("micro = 4", "micro = 17", "r.toml:12: `batch.micro` is 17"),
        (
            "files = [\"a.jsonl\"]",
            "files = [\"a.jsonl\"]\nimages = [\"a\", \"b\"]",
            "r.toml:9: `data.images` is a list of 2, but it must be one folder, or a list with one",
        ),
        (
            "files = [\"a.jsonl\"]",
            "files = [\"a.jsonl\"]\nturns = \"alone\"",
            "r.toml:9: recipes know no `alone` here; allowed: together, apart",
        ),
        (
            "files = [\"a.jsonl\"]",
            "files = [\"a.jsonl\"]\nturns = [\"apart\", \"together\"]",
            "r.toml:9: `data.turns` is a list of 2, but it must be one rule, or a list with one",
        ),
        (
            "files = [\"a.jsonl\"]",
            "files = [\"a.jsonl\"]\nturns = [\"alone\"]",
            "r.toml:9: recipes know no `alone` here; allowed: together, apart",
        ),
        ("micro = 4", "micro = 0", "r.toml:12: `batch.micro` is 0"),
        (
            "micro = 4",
            "micro = -1",
            "r.toml:12: invalid value: integer `-1`",
        ),
        (
            "micro = 4",
            "micro = 4\nscaling = \"sqrt\"",
            "needs `batch.base`",
        ),
        (
            "[\"a.jsonl\"]",
            "[]",
            "r.toml:8: stage `instruct` needs `data.files`",
        ),
        ("\"x\"", "\"../x\"", "r.toml:1: `name` is `../x`"),
        (
            "from = \"m\"",
            "",
            "r.toml:4: stage `instruct` needs `model.decoder`",
        ),
        (
            "lr = 1e-3",
            "lr = 1e-3\n[mae]",
            "`mae` means nothing to stage `instruct`: it belongs to mae",
        ),
        (
            "lr = 1e-3",
            "lr = 1e-3\n[schedule]\nepochs = 1\nsteps = 2",
            "r.toml:18: `schedule.steps` is there beside `schedule.epochs`",
        ),
        (
            "lr = 1e-3",
            "lr = 1e-3\n[optimizer.parts.auxiliary]",
            "r.toml:16: `optimizer.parts.auxiliary` means nothing",
        ),
        (
            "files = [\"a.jsonl\"]",
            "files = [\"a.jsonl\"]\nfeature_cache = \"c\"\n[optimizer.parts.encoders]\ntrain = true",
            "features of encoders that train cannot be kept",
        ),
        ("[data]", "[data", "r.toml:7: "),
        (
            "from = \"m\"",
            "from = \"m\"\n[[model.encoders]]\nname = \"siglip\"\n",
            "r.toml:7: `model.encoders.0.name` is `siglip`",
        ),
    ] {
        // A second table of a name that is there already would be a mistake of this test.
        let text = match to.contains("[optimizer.parts.encoders]") {
            true => INSTRUCT
                .replace("[optimizer]\nlr = 1e-3\n", "")
                .replace(from, &format!("{to}\n[optimizer]\nlr = 1.0")),
            false => INSTRUCT.replace(from, to),
        };
        let error = parse(&text).unwrap_err();
        assert!(error.contains(expected), "{error}\ninstead of\n{expected}");
    }
}

#[test]
fn overrides_replace_values_and_what_follows_from_them() {
    let recipe = parse(INSTRUCT).unwrap();
    let changed = recipe
        .with_overrides(&[
            ("optimizer.lr", "2e-3"),
            ("optimizer.parts.sampler.lr", "1e-4"),
            ("schedule.steps", "7"),
            ("schedule.kind", "linear"),
            ("data.files", "[\"b.jsonl\", \"c.jsonl\"]"),
        ])
        .unwrap();
    let rates = changed.rates();
    assert_eq!(rates.part(Part::Decoder).lr, 2e-3);
    assert_eq!(rates.part(Part::Sampler).lr, 1e-4);
    assert_eq!(changed.schedule.total(1000), 7);
    assert_eq!(changed.schedule.kind, ScheduleKind::Linear);
    assert_eq!(changed.data.files.len(), 2);
    // Length by epochs again.
    let again = changed.with_overrides(&[("schedule.epochs", "2")]).unwrap();
    assert_eq!(again.schedule.total(1000), 2000);
    assert_eq!(again.rates().part(Part::Decoder).lr, 2e-3);
}

#[test]
fn broken_overrides_are_named() {
    let recipe = parse(INSTRUCT).unwrap();
    for (key, value, expected) in [
        (
            "optimizer.lrr",
            "1",
            "--set optimizer.lrr=1: recipes know no `lrr` here, did you mean `lr`?",
        ),
        (
            "optimizer.lr",
            "fast",
            "--set optimizer.lr=fast: invalid type",
        ),
        (
            "optimizer.lr",
            "-1.0",
            "--set optimizer.lr=-1.0: `optimizer.lr` is -1",
        ),
        (
            "data.files.3",
            "x",
            "--set data.files.3=x: the list has 1 items",
        ),
        ("name.x", "1", "--set name.x=1: `name` has no keys inside"),
        ("", "1", "a key is missing"),
    ] {
        let error = recipe
            .with_overrides(&[(key, value)])
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}\ninstead of\n{expected}");
    }
}

#[test]
fn the_root_rule_scales_every_part() {
    let text = INSTRUCT.replace("micro = 4", "micro = 4\nscaling = \"sqrt\"\nbase = 64");
    let recipe = parse(&text).unwrap();
    assert_eq!(recipe.rates().part(Part::Decoder).lr, 0.5e-3);
    // What is written is what was chosen, not what follows.
    assert_eq!(recipe.optimizer.lr, 1e-3);
}

#[test]
fn adapters_take_the_place_of_the_decoders_weights() {
    let recipe = parse(&format!("{INSTRUCT}\n[lora]\nrank = 8\n")).unwrap();
    let trains = |name: &str| recipe.rates().rate(name, &[4, 4]).is_some();
    assert!(!trains("model.layers.0.mlp.up_proj.weight"));
    assert!(trains("model.layers.0.mlp.up_proj.lora.a"));
    assert!(trains("model.mm_projector.0.weight"));
    let lora = recipe.lora.unwrap();
    assert_eq!((lora.rank, lora.alpha, lora.targets.len()), (8, 16.0, 7));
}

#[test]
fn a_fingerprint_is_of_what_changes_the_result() {
    let recipe = parse(INSTRUCT).unwrap();
    let print = |key: &str, value: &str| {
        let changed = recipe.with_overrides(&[(key, value)]).unwrap();
        changed.fingerprint()
    };
    for (key, value) in [
        ("name", "y"),
        ("save.every", "3"),
        ("log.every", "3"),
        ("data.workers", "7"),
        ("data.max_bad", "3"),
        ("batch.parallel", "2"),
        ("batch.devices", "2"),
        ("data.feature_cache", "c"),
    ] {
        assert_eq!(print(key, value), recipe.fingerprint(), "{key}");
    }
    for (key, value) in [
        ("seed", "7"),
        ("optimizer.lr", "7.0"),
        ("batch.global", "32"),
        ("optimizer.parts.head.train", "false"),
    ] {
        assert_ne!(print(key, value), recipe.fingerprint(), "{key}");
    }
    assert_eq!(recipe.stage(), Stage::Instruct);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Damaged recipes are refused with words, or are recipes still.
    #[test]
    fn damaged_recipes_do_not_panic(
        at in 0..INSTRUCT.len(),
        length in 0usize..12,
        with in "[ -~\n]{0,12}",
    ) {
        let end = (at + length).min(INSTRUCT.len());
        let text = format!("{}{with}{}", &INSTRUCT[..at], &INSTRUCT[end..]);
        if let Ok(recipe) = parse(&text) {
            prop_assert!(parse(&recipe.resolved_toml()).is_ok());
        }
    }

    /// So are overrides.
    #[test]
    fn damaged_overrides_do_not_panic(key in "[a-z_.0-9]{0,24}", value in "\\PC{0,12}") {
        let recipe = parse(INSTRUCT).unwrap();
        if let Err(error) = recipe.with_overrides(&[(key, value)]) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
