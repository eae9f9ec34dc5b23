//! `train`: every stage through the binary, from a small world to a model that answers.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::json;
use training::{Ground, sizes};

/// The values of a tensor in a file.
fn tensor(file: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let numbers = view.data().chunks_exact(4);
    let values = numbers
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    (view.shape().to_vec(), values)
}

#[test]
fn the_last_stage_gives_a_model_that_answers() {
    let ground = Ground::shared();
    let out = ["--out", "runs/chain", "--json"];
    let first = ground.train("instruct", &out).ok();
    let report = first.json();
    assert_eq!(report["done"], true);
    assert_eq!(report["step"], 4);
    assert_eq!(report["model"], "runs/chain/model");
    for file in [
        "recipe.toml",
        "log.jsonl",
        "model/config.json",
        "model/generation_config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
        "model/towers/opabinia--small-siglip-128/config.json",
        "model/towers/opabinia--small-siglip-128/model.safetensors",
        "model/towers/opabinia--small-dinov2-mae-128/model.safetensors",
    ] {
        let path = ground.path("runs/chain").join(file);
        assert!(path.is_file(), "{file} is missing");
    }
    let config = common::read_json(&ground.path("runs/chain/model/config.json"));
    assert_eq!(config["architectures"], json!(["CambrianLlamaForCausalLM"]));
    assert_eq!(config["mm_projector_type"], "sva");
    assert_eq!(config["num_of_vision_sampler_layers"], 2);

    let model = ["--model", "runs/chain/model"];
    let question = [
        "ask",
        "world/test/images/00/000000.png",
        "What is it?",
        "--max-new-tokens",
        "3",
    ];
    ground.run(&[&question[..], &model[..]].concat()).ok();
    let inspected = ground.run(&["model", "inspect", "runs/chain/model"]).ok();
    for words in [
        "small-siglip-128",
        "small-dinov2-mae-128",
        "2 in-LLM layers",
        "phi3",
    ] {
        assert!(
            inspected.stdout.contains(words),
            "{}",
            inspected.everything()
        );
    }

    // A run that is done has nothing left to do, and says the same.
    let before = ground.bytes("runs/chain/model/model.safetensors");
    let log = ground.read("runs/chain/log.jsonl");
    let again = ground.train("instruct", &out).ok();
    assert_eq!(again.json()["step"], 4);
    assert_eq!(ground.bytes("runs/chain/model/model.safetensors"), before);
    assert_eq!(ground.read("runs/chain/log.jsonl"), log);
}

#[test]
fn stage_1_trains_the_connector_alone() {
    let ground = Ground::shared();
    let model = |run: &str| ground.path(run).join("model/model.safetensors");
    let name = "model.layers.0.self_attn.q_proj.weight";
    assert_eq!(
        tensor(&model("runs/align"), name),
        tensor(&model("runs/decoder"), name)
    );
    let tower = "towers/opabinia--small-siglip-128/model.safetensors";
    let encoder = ground.path("runs/align/model").join(tower);
    let name = "vision_model.embeddings.patch_embedding.weight";
    assert_eq!(
        tensor(&encoder, name),
        tensor(&model("runs/language-encoder"), name)
    );
}

/// Before stage 1, from a world with maps of what is where.
#[test]
fn a_connector_learns_the_words_of_its_decoder() {
    let ground = Ground::shared();
    let world =
        "world make mapped --pictures 16 --test 4 --texts 1 --side 64 --mix scene=1 --labels";
    let world: Vec<&str> = world.split(' ').chain(["--no-annotations"]).collect();
    ground.run(&world).ok();
    let recipe = r#"
name = "words"
stage = "lexical"
[model]
from = "runs/align/model"
[lexical]
labels = "mapped/train/labels"
validation_labels = "mapped/test/labels"
words = ["kind", "colour"]
scales = { column = ["left", "right"] }
[data]
files = ["mapped/train/align.jsonl"]
images = "mapped/train"
validation = "mapped/test/align.jsonl"
validation_images = "mapped/test"
[batch]
global = 8
micro = 4
[optimizer]
lr = 1e-2
[schedule]
steps = 30
[log]
every = 1
"#;
    ground.write("words.toml", recipe);
    let run = |more: &[&str]| ground.run(&[&["train", "words.toml"][..], more].concat());
    let shown = run(&["--dry-run"]).ok();
    for part in ["projector", "sampler"] {
        assert!(shown.stdout.contains(part), "{}", shown.everything());
    }
    run(&[]).ok();
    let losses = ground.losses("runs/words");
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..3]), mean(&losses[27..]));
    assert!(last < 0.8 * first, "{losses:?}");
    let record = ground.log("runs/words").pop().unwrap();
    for metric in ["said", "right"] {
        let share = record["metrics"][metric].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share), "{record}");
    }
    let model = |run: &str| ground.path(run).join("model/model.safetensors");
    let same = |name| tensor(&model("runs/align"), name) == tensor(&model("runs/words"), name);
    assert!(same("model.layers.0.self_attn.q_proj.weight"));
    assert!(same("model.embed_tokens.weight"));
    assert!(!same("model.mm_projector.0.weight"));

    let set = |pair| run(&["--set", pair, "--out", "runs/refused-words"]);
    set("lexical.words=[\"taste\"]").fails_with(1, &["`taste`", "`kind`, `colour`"]);
    set("lexical.labels=no/such/maps").fails_with(1, &["no/such/maps/labels.json"]);
    set("data.images=[\"mapped/train\", \"mapped/train\"]")
        .fails_with(1, &["data.images", "one folder"]);
    set("lexical.labels=[\"mapped/train\", \"mapped/train\"]")
        .fails_with(1, &["lexical.labels", "one folder"]);
    let listed =
        |key: &str, folders: &str| format!("{key}=[\"mapped/{folders}\", \"again/{folders}\"]");
    let samples = listed("data.files", "train/align.jsonl");
    let pictures = listed("data.images", "train");
    let labels = listed("lexical.labels", "train/labels");
    let two = |more: &[&str]| {
        let sets = [&["schedule.steps=3", &samples, &pictures], more].concat();
        let sets = sets.iter().flat_map(|pair| ["--set", pair]);
        run(&[&["--out", "runs/two-worlds"][..], &sets.collect::<Vec<_>>()].concat())
    };
    // Pictures of two worlds have the same names.
    two(&[]).fails_with(1, &["lexical.labels", "one folder", "`data.images` is one"]);
    let again = world
        .iter()
        .map(|word| if *word == "mapped" { "again" } else { *word });
    ground
        .run(&again.chain(["--seed", "5"]).collect::<Vec<_>>())
        .ok();
    two(&[&labels]).ok();
    // 3 steps of 8 are less than the 32 pictures of both, and more than the 16 of one.
    assert_eq!(ground.log("runs/two-worlds").pop().unwrap()["epoch"], 0);
    set("lexical.words=[]").ok();
    let (before, table) = recipe.split_once("[lexical]").unwrap();
    let (_, after) = table.split_once("[data]").unwrap();
    ground.write("none.toml", &format!("{before}[data]{after}"));
    ground
        .run(&["train", "none.toml"])
        .fails_with(1, &["none.toml", "lexical", "labels"]);
}

#[test]
fn what_is_not_there_is_said_with_where_it_comes_from() {
    let ground = Ground::shared();
    let train = |pair| ground.train("instruct", &["--set", pair, "--out", "runs/never"]);
    train("model.from=runs/other/part/model").fails_with(
        1,
        &[
            "`model.from`",
            "does not exist",
            "the recipe named `other/part` leaves it there",
        ],
    );
    train("data.files=[\"none.jsonl\"]").fails_with(1, &["`data.files`", "`opabinia world make`"]);
    assert!(!ground.path("runs/never").exists());
}

#[test]
fn a_killed_run_goes_on_as_if_nothing_had_happened() {
    let ground = Ground::shared();
    // Each run has a feature cache of its own, which the killed one leaves half full.
    let settings = |run: &str| -> Vec<String> {
        let cache = format!("data.feature_cache=features/{run}");
        let out = format!("runs/{run}");
        let values = [
            "schedule.steps=18",
            "save.every=4",
            "seed=3",
            cache.as_str(),
        ];
        let sets = values.into_iter().flat_map(|value| ["--set", value]);
        sets.chain(["--out", out.as_str()])
            .map(str::to_owned)
            .collect()
    };
    let whole = settings("whole");
    let killed = settings("killed");
    let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
    let killed: Vec<&str> = killed.iter().map(String::as_str).collect();

    ground.train("instruct", &whole).ok();
    // Any steps will do; the process's number chooses.
    let any = std::process::id() as usize % 25;
    let (first, second) = (1 + any % 5, 6 + any / 5);
    for lines in [first, second] {
        let at = ("runs/killed", lines);
        let kill = |child: &mut std::process::Child| child.kill().unwrap();
        let output = ground.train_until("instruct", &killed, at, kill);
        assert!(
            !output.status.success(),
            "killed after {lines} steps, and yet done"
        );
        assert!(!ground.path("runs/killed/model").exists());
    }
    ground
        .train("instruct", &killed)
        .ok()
        .mentions(&["going on after step"]);

    let why = format!("killed after {first} and {second} steps");
    assert_eq!(ground.log("runs/killed"), ground.log("runs/whole"), "{why}");
    let model = ground.path("runs/whole/model");
    let files = sizes(&model);
    assert_eq!(files.len(), 11, "{files:?}");
    for (file, _) in files {
        let name = file.strip_prefix(&model).unwrap();
        let other = ground.path("runs/killed/model").join(name);
        assert!(
            fs::read(&file).unwrap() == fs::read(other).unwrap(),
            "{name:?}: {why}"
        );
    }
}

#[test]
#[cfg(unix)]
fn ctrl_c_saves_and_the_same_command_goes_on() {
    let ground = Ground::shared();
    let long = |run| {
        [
            "--set",
            "schedule.steps=500",
            "--set",
            "save.every=0",
            "--out",
            run,
        ]
    };
    let interrupted = ground.train_until(
        "instruct",
        &long("runs/stopped"),
        ("runs/stopped", 2),
        |child| {
            let process = child.id().to_string();
            let sent = std::process::Command::new("kill")
                .args(["-INT", &process])
                .status();
            assert!(sent.unwrap().success());
        },
    );
    let said = String::from_utf8(interrupted.stderr).unwrap();
    assert_eq!(interrupted.status.code(), Some(130), "{said}");
    for words in ["saving", "the same command goes on"] {
        assert!(said.contains(words), "{said}");
    }
    let done = ground.log("runs/stopped").len();
    assert!(done >= 2, "nothing that was done is lost");

    let more = [&long("runs/stopped")[..], &["--at-most", "2"]].concat();
    let note = format!("going on after step {done} of 500");
    ground
        .train("instruct", &more)
        .ok()
        .mentions(&[&note, "stopped and saved"]);
    let all = (done + 2).to_string();
    let at_once = [&long("runs/at-once")[..], &["--at-most", &all]].concat();
    ground.train("instruct", &at_once).ok();
    assert_eq!(ground.log("runs/stopped"), ground.log("runs/at-once"));
}

#[test]
fn a_dry_run_shows_what_would_be_and_writes_nothing() {
    let ground = Ground::shared();
    let before = sizes(&ground.path("runs/align"));
    let cache = ["--set", "data.feature_cache=dry-features"];
    let run = ground
        .train("align", &[&["--dry-run"], &cache[..]].concat())
        .quiet();
    for words in [
        "part        trains  frozen  rate",
        "sampler     ",
        "encoders    –",
        "4 (3 per epoch, 1 of warm-up)",
        "8 samples in 2 micro-batches",
        "20 per picture",
        "more in the feature cache",
        "whole run",
        "train.jsonl",
        "<image>",
    ] {
        let words = words.replace(
            "train.jsonl",
            "world/train/align.jsonl:1`, images/00/000000.png as 20 visual tokens",
        );
        assert!(
            run.stdout.contains(&words),
            "`{words}` is missing\n{}",
            run.everything()
        );
    }
    let answer = run.stdout.split(['⟦', '⟧']).nth(1).unwrap();
    let sample: serde_json::Value = {
        let lines = ground.read("world/train/align.jsonl");
        serde_json::from_str(lines.lines().next().unwrap()).unwrap()
    };
    let wanted = sample["conversations"][1]["value"].as_str().unwrap();
    assert_eq!(
        answer,
        format!("{wanted}<|end|>"),
        "the answer and its end are trained"
    );
    assert_eq!(sizes(&ground.path("runs/align")), before);
    assert!(!ground.path("dry-features").exists());

    for (recipe, out) in [
        ("decoder", "runs/dry-decoder"),
        ("instruct", "runs/dry-instruct"),
    ] {
        ground.train(recipe, &["--dry-run", "--out", out]).quiet();
        assert!(!ground.path(out).exists(), "{out}");
    }
}

#[test]
fn samples_without_a_picture_are_counted() {
    let ground = Ground::shared();
    let seen = |name: &str| sample(Some(name), "a ball");
    let samples = [
        seen("images/00/000000.png"),
        sample(None, "a ball"),
        sample(None, "a cube"),
        seen("images/00/000001.png"),
    ];
    ground.write("half.jsonl", &samples.map(|s| format!("{s}\n")).concat());
    let run = |more: &[&str]| {
        let half = ["--set", "data.files=[\"half.jsonl\"]", "--out", "runs/half"];
        ground.train(
            "instruct",
            &[&half[..], &["--set", "schedule.steps=2"], more].concat(),
        )
    };
    let shown = run(&["--dry-run"]).quiet().stdout;
    assert!(shown.contains("4, 2 of them without a picture"), "{shown}");
    let done = run(&["--json"]).ok();
    let done = done.mentions(&["4 of 8 samples had no picture"]);
    assert_eq!(done.json()["text_only"], 4);
    assert_eq!(done.json()["samples"], 8);
}

#[test]
fn unknown_keys_and_values_name_what_is_known() {
    let ground = Ground::shared();
    let recipe = ground
        .read("instruct.toml")
        .replace("micro = 2", "mirco = 2");
    ground.write("typo.toml", &recipe);
    ground
        .run(&["train", "typo.toml"])
        .fails_with(1, &["typo.toml:12", "`mirco`", "did you mean `micro`?"]);
    let set = |pair| ground.train("instruct", &["--set", pair, "--out", "runs/refused"]);
    set("optimiser.lr=1").fails_with(1, &["--set optimiser.lr=1", "did you mean `optimizer`?"]);
    set("optimizer.lr=fast").fails_with(1, &["--set optimizer.lr=fast"]);
    set("batch.micro=0").fails_with(1, &["batch.micro"]);
    set("batch.micro").fails_with(1, &["has no `=`"]);
    set("save.result=best").fails_with(1, &["save.result", "data.validation"]);
    for (pair, words) in [
        ("data.max_bad=3", "`data.max_bad`"),
        ("data.turns=apart", "`data.turns`"),
        (
            "memory.gradient_checkpointing=true",
            "`memory.gradient_checkpointing`",
        ),
    ] {
        let out = ["--set", pair, "--out", "runs/refused"];
        ground
            .train("decoder", &out)
            .fails_with(1, &[words, "align", "instruct"]);
    }
    set("model.from=no/such/folder").fails_with(1, &["no/such/folder"]);
    set("data.files=[\"missing.jsonl\"]").fails_with(1, &["missing.jsonl"]);
    ground
        .run(&["train", "missing.toml"])
        .fails_with(1, &["missing.toml"]);
    ground.run(&["train"]).fails_with(2, &["RECIPE"]);
    assert!(
        !ground.path("runs/refused").exists(),
        "what is refused leaves nothing behind"
    );
}

#[test]
fn a_folder_belongs_to_one_run() {
    let ground = Ground::shared();
    let out = ["--out", "runs/mine"];
    let shorter = ["--at-most", "1"];
    ground
        .train("instruct", &[&out[..], &shorter].concat())
        .ok();
    let recipe = ground.read("runs/mine/recipe.toml");
    let other = ["--set", "optimizer.lr=0.5"];
    ground
        .train("instruct", &[&out[..], &other].concat())
        .fails_with(1, &["another recipe, other data", "a folder of its own"]);
    assert_eq!(ground.read("runs/mine/recipe.toml"), recipe);
    // How the work is divided makes no other run of it.
    let divided = [
        "--set",
        "batch.parallel=1",
        "--set",
        "data.workers=1",
        "--set",
        "log.every=1",
    ];
    let run = ground
        .train("instruct", &[&out[..], &divided].concat())
        .ok();
    run.mentions(&["step 2/4", "step 3/4", "step 4/4"]);
    ground.train("instruct", &["--out", "runs/undivided"]).ok();
    assert_eq!(ground.log("runs/mine"), ground.log("runs/undivided"));
}

#[test]
fn what_is_left_out_of_samples_is_said() {
    let ground = Ground::shared();
    let answer = "a ball, and another ball".repeat(40);
    let half_empty = json!({"conversations": [
        {"from": "human", "value": "What?"}, {"from": "gpt", "value": ""},
        {"from": "human", "value": "And this?"}, {"from": "gpt", "value": "a cone"},
    ]});
    ground.write(
        "long.jsonl",
        &format!("{}\n{half_empty}\n", sample(None, &answer)),
    );
    let data = [
        "--set",
        "data.files=[\"long.jsonl\"]",
        "--set",
        "model.max_length=100",
    ];
    let run = [
        "--set",
        "batch.micro=1",
        "--set",
        "schedule.steps=1",
        "--out",
        "runs/long",
    ];
    ground
        .train("instruct", &[&data[..], &run].concat())
        .ok()
        .mentions(&[
            "1 times a sample was longer than `model.max_length`",
            "1 times a question or its answer was empty",
        ]);
}

/// Two files whose pictures are in two folders; of the questions about a picture none sees the others.
#[test]
fn files_have_their_own_pictures_and_exchanges_are_read_apart() {
    let ground = Ground::shared();
    let picture = ground.path("world/train/images/00/000000.png");
    fs::create_dir_all(ground.path("else")).unwrap();
    fs::copy(picture, ground.path("else/x.png")).unwrap();
    let mut several = json!({"image": "x.png", "conversations": []});
    for (i, answer) in ["a ball", "two", "red", "a cube and a cone"]
        .iter()
        .enumerate()
    {
        let picture = if i == 2 { "<image>\n" } else { "" };
        let question = format!("{picture}Question {i}?");
        let turns = several["conversations"].as_array_mut().unwrap();
        turns.push(json!({"from": "human", "value": question}));
        turns.push(json!({"from": "gpt", "value": answer}));
    }
    ground.write("else.jsonl", &format!("{several}\n"));
    let run = |out: &str, images: &str, turns: &str| {
        let (images, turns) = (
            format!("data.images={images}"),
            format!("data.turns={turns}"),
        );
        let files = "data.files=[\"world/train/apart.jsonl\", \"else.jsonl\"]";
        let values = [
            files,
            &images,
            &turns,
            "data.max_bad=0",
            "schedule.epochs=1",
        ];
        let sets = values.into_iter().flat_map(|value| ["--set", value]);
        let out = ["--out", out];
        ground.train("instruct", &sets.chain(out).collect::<Vec<_>>())
    };
    let own = "[\"world/train\", \"else\"]";
    run("runs/apart", own, "apart").ok();
    run("runs/together", own, "together").ok();
    let sum = |run: &str, key: &str| -> u64 {
        let log = ground.log(run);
        log.iter().map(|line| line[key].as_u64().unwrap()).sum()
    };
    for key in ["samples", "pictures"] {
        assert_eq!(sum("runs/apart", key), sum("runs/together", key), "{key}");
    }
    // A dozen exchanges are longer than the model reads, if they are not read one by one.
    assert!(sum("runs/apart", "terms") > sum("runs/together", "terms"));
    // The other file's one conversation is short either way.
    for (turns, like) in [
        ("[\"apart\", \"together\"]", "runs/apart"),
        ("[\"together\", \"apart\"]", "runs/together"),
    ] {
        run("runs/each", own, turns).ok();
        assert_eq!(sum("runs/each", "terms"), sum(like, "terms"), "{turns}");
        fs::remove_dir_all(ground.path("runs/each")).unwrap();
    }
    run("runs/nowhere", "world/train", "apart").fails_with(1, &["else.jsonl:1", "x.png"]);
    let one = "[\"world/train\"]";
    run("runs/nowhere", one, "apart").fails_with(1, &["one for each of `data.files`"]);
}

/// What a failed validation is about can be mended; the steps before it are kept.
#[test]
fn a_validation_that_fails_costs_no_step() {
    let ground = Ground::shared();
    ground.write(
        "late/test.jsonl",
        &(sample(Some("late.png"), "a ball") + "\n"),
    );
    let train = || {
        let sets = [
            "data.validation=late/test.jsonl",
            "data.validation_images=late",
            "save.every=0",
        ];
        let sets = sets.into_iter().flat_map(|value| ["--set", value]);
        let out = ["--out", "runs/late"];
        ground.train("instruct", &sets.chain(out).collect::<Vec<_>>())
    };
    train().fails_with(1, &["late.png"]);
    let steps = |run: &str| ground.log(run).len();
    assert_eq!(steps("runs/late"), 4);
    assert!(ground.path("runs/late/checkpoints/step-00000004").is_dir());
    assert!(!ground.path("runs/late/model").exists());
    fs::copy(
        ground.path("world/train/images/00/000000.png"),
        ground.path("late/late.png"),
    )
    .unwrap();
    train().ok().mentions(&["validation loss after step 4"]);
    assert_eq!(steps("runs/late"), 4);
    assert!(ground.path("runs/late/model/config.json").is_file());
    let recipe = ground.read("runs/late/recipe.toml");
    assert!(recipe.contains("folder = \"runs/late\""), "{recipe}");
}

#[test]
fn a_model_is_asked_as_it_was_trained() {
    let ground = Ground::shared();
    let template = ["--set", "model.template=vicuna_v1", "--out", "runs/vicuna"];
    ground.train("instruct", &template).ok();
    let config = common::read_json(&ground.path("runs/vicuna/model/config.json"));
    assert_eq!(config["conversation_template"], "vicuna_v1");
    let before = common::read_json(&ground.path("runs/align/model/config.json"));
    assert_eq!(before["conversation_template"], "phi3");
}

/// A conversation as a line of a file of samples.
fn sample(image: Option<&str>, answer: &str) -> String {
    let question = match image {
        Some(_) => "<image>\nWhat is it?",
        None => "What is it?",
    };
    let mut sample = json!({"conversations": [
        {"from": "human", "value": question}, {"from": "gpt", "value": answer},
    ]});
    if let Some(image) = image {
        sample["image"] = image.into();
    }
    sample.to_string()
}

#[test]
fn bad_samples_are_counted_listed_and_bounded() {
    let ground = Ground::shared();
    let good = sample(Some("images/00/000000.png"), "a ball");
    let bad = [
        (2, sample(None, ""), "no_trainable_token"),
        (
            4,
            sample(Some("images/none.png"), "a ball"),
            "missing_picture",
        ),
        (
            5,
            sample(Some("images/broken.png"), "a ball"),
            "broken_picture",
        ),
        (7, "{\"conversations\": [".to_owned(), "broken_json"),
    ];
    let mut lines = vec![good.clone(); 10];
    for (line, text, _) in &bad {
        lines[line - 1].clone_from(text);
    }
    ground.write("bad/samples.jsonl", &(lines.join("\n") + "\n"));
    ground.write("bad/images/broken.png", "no picture");
    fs::create_dir_all(ground.path("bad/images/00")).unwrap();
    let picture = "images/00/000000.png";
    fs::copy(
        ground.path("world/train").join(picture),
        ground.path("bad").join(picture),
    )
    .unwrap();

    let train = |limit: &str, more: &[&str]| {
        let limit = format!("data.max_bad={limit}");
        let data = [
            "--set",
            "data.files=[\"bad/samples.jsonl\"]",
            "--set",
            "data.images=bad",
        ];
        ground.train("instruct", &[&data[..], &["--set", &limit], more].concat())
    };
    let out = ["--out", "runs/faulty"];
    let run = train("4", &out).ok();
    run.mentions(&[
        "bad samples were left out: ",
        "4",
        "missing picture",
        "no trainable token",
    ]);
    let mut found: Vec<(u64, String)> = ground
        .read("runs/faulty/faults.jsonl")
        .lines()
        .map(|line| {
            let fault: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(fault["file"], "bad/samples.jsonl");
            (
                fault["line"].as_u64().unwrap(),
                fault["kind"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    found.sort();
    let wanted = bad
        .each_ref()
        .map(|(line, _, kind)| (*line as u64, (*kind).to_owned()));
    assert_eq!(found, wanted);
    let seen: u64 = ground
        .log("runs/faulty")
        .iter()
        .map(|r| r["samples"].as_u64().unwrap())
        .sum();
    assert_eq!(
        seen, 10,
        "6 of each 10 are good, in one epoch of 3 steps and a third of another"
    );

    train("3", &["--out", "runs/too-faulty"]).fails_with(1, &["bad/samples.jsonl", "max"]);
    let shown = train("\"40%\"", &["--dry-run", "--out", "runs/never"]).ok();
    assert!(
        shown.stdout.contains("bad samples: "),
        "{}",
        shown.everything()
    );

    ground.write(
        "bad/one.jsonl",
        &format!("{good}\n{}\n{good}\n", sample(None, "")),
    );
    let one = [
        "--set",
        "data.files=[\"bad/one.jsonl\"]",
        "--out",
        "runs/one-bad",
    ];
    train("0", &one).fails_with(1, &["bad/one.jsonl:2", "no trainable token"]);
}

/// The list is that of the run as it stands: who mends what was bad begins anew.
#[test]
fn mended_samples_are_not_held_against_a_run() {
    let ground = Ground::shared();
    let good = sample(None, "a ball");
    let train = || {
        let files = "data.files=[\"mended/samples.jsonl\"]";
        let out = ["--set", files, "--out", "runs/mended"];
        ground.train("instruct", &out)
    };
    let lines = |second: &str| format!("{good}\n{second}\n{good}\n");
    ground.write("mended/samples.jsonl", &lines(&sample(None, "")));
    train().fails_with(1, &["mended/samples.jsonl:2"]);
    assert!(!ground.read("runs/mended/faults.jsonl").is_empty());
    ground.write("mended/samples.jsonl", &lines(&good));
    train().ok();
    assert_eq!(ground.read("runs/mended/faults.jsonl"), "");
}

/// The path of a model says nothing about what has become of it.
#[test]
fn a_run_does_not_go_on_from_other_weights() {
    let ground = Ground::shared();
    let model = ground.path("runs/replaced/model");
    let copy = |from: &Path| {
        for file in sizes(from) {
            let to = model.join(file.0.strip_prefix(from).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&file.0, to).unwrap();
        }
    };
    let train = || {
        let from = "model.from=runs/replaced/model";
        let out = ["--set", from, "--out", "runs/on-top", "--at-most", "1"];
        ground.train("instruct", &out)
    };
    copy(&ground.path("runs/align/model"));
    train().ok();
    let other = ["--set", "optimizer.lr=1e-2", "--out", "runs/other-align"];
    ground.train("align", &other).ok();
    copy(&ground.path("runs/other-align/model"));
    train().fails_with(1, &["other weights to begin with"]);
}

/// The first update of a warm-up has rate 0, and the ones after it spoil everything: the best weights
/// are those of the beginning.
#[test]
fn the_result_can_be_the_best_of_the_run() {
    let ground = Ground::shared();
    let set = [
        "data.validation=world/test/instruct.jsonl",
        "data.validation_images=world/test",
        "log.validate_every=1",
        "save.result=best",
        "optimizer.lr=1",
        "schedule.warmup_steps=1",
    ];
    let set = set.iter().flat_map(|pair| ["--set", pair]);
    let all: Vec<&str> = set.chain(["--out", "runs/best"]).collect();
    ground.train("instruct", &all).ok();
    let losses: Vec<f64> = ground
        .log("runs/best")
        .iter()
        .map(|record| record["validation"].as_f64().unwrap())
        .collect();
    assert!(
        losses.len() == 4 && losses[1..].iter().all(|loss| *loss > losses[0]),
        "{losses:?}"
    );
    let name = "model.layers.0.self_attn.q_proj.weight";
    let weight = |run: &str| tensor(&ground.path(run).join("model/model.safetensors"), name);
    assert_eq!(weight("runs/best"), weight("runs/align"));
}

#[test]
fn features_are_computed_once() {
    let ground = Ground::shared();
    let cached = ["--set", "data.feature_cache=features/shared"];
    let run = |out: &str, more: &[&str]| {
        ground
            .train("align", &[more, &["--out", out]].concat())
            .ok()
    };
    run("runs/uncached", &[]);
    run("runs/cold", &cached);
    let store = || {
        let mut files = sizes(&ground.path("features/shared"));
        files.retain(|(file, _)| file.extension().is_some_and(|kind| kind == "bin"));
        files.iter().map(|(_, size)| size).sum::<u64>()
    };
    let stored = store();
    // 24 pictures, 2 encoders, 16 features of width 32, in half precision.
    assert!(stored >= 24 * 2 * 16 * 32 * 2, "{stored} bytes");
    run("runs/warm", &cached);
    assert_eq!(store(), stored, "every picture was known");
    assert_eq!(ground.log("runs/cold"), ground.log("runs/warm"));
    let pairs = ground
        .losses("runs/uncached")
        .into_iter()
        .zip(ground.losses("runs/cold"));
    for (exact, halved) in pairs {
        assert!(
            (exact - halved).abs() < 1e-3 * exact,
            "{exact} and {halved}"
        );
    }
    // Encoders that train see each picture anew.
    let wrong = [
        &cached[..],
        &["--set", "optimizer.parts.encoders.train=true"],
    ]
    .concat();
    ground
        .train("instruct", &[&wrong[..], &["--out", "runs/never"]].concat())
        .fails_with(1, &["data.feature_cache", "`off`"]);
}

#[test]
fn adapters_leave_the_base_alone_and_are_folded_into_the_result() {
    let ground = Ground::shared();
    let rank = ["--set", "lora.rank=4", "--set", "lora.alpha=8"];
    let targets = ["--set", "lora.targets=[\"q_proj\", \"down_proj\"]"];
    let out = ["--out", "runs/lora"];
    ground
        .train("instruct", &[&rank[..], &targets, &out].concat())
        .ok();
    let base = ground.path("runs/align/model/model.safetensors");
    let merged = ground.path("runs/lora/model/model.safetensors");
    let adapter = ground.path("runs/lora/model/adapter/adapter_model.safetensors");

    for untouched in [
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.layers.1.mlp.up_proj.weight",
    ] {
        assert_eq!(
            tensor(&base, untouched),
            tensor(&merged, untouched),
            "{untouched}"
        );
    }
    let bytes = fs::read(&adapter).unwrap();
    let alone = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(
        alone.len(),
        3 * 2 * 2,
        "two factors of two targets in three layers"
    );
    assert!(alone.names().iter().all(|name| name.contains(".lora_")));
    let config = common::read_json(&adapter.with_file_name("adapter_config.json"));
    assert_eq!(
        (&config["r"], &config["lora_alpha"]),
        (&json!(4), &json!(8.0))
    );

    // W' = W + B A · alpha / rank
    let name = "layers.1.mlp.down_proj";
    let factor = |kind: &str| {
        tensor(
            &adapter,
            &format!("base_model.model.model.{name}.{kind}.weight"),
        )
    };
    let ((a_shape, a), (b_shape, b)) = (factor("lora_A"), factor("lora_B"));
    assert_eq!((&a_shape[..], &b_shape[..]), (&[4, 64][..], &[32, 4][..]));
    let weight = format!("model.{name}.weight");
    let ((_, before), (_, after)) = (tensor(&base, &weight), tensor(&merged, &weight));
    let mut moved = 0.0f32;
    for (row, col) in (0..32).flat_map(|row| (0..64).map(move |col| (row, col))) {
        let product: f32 = (0..4).map(|r| b[row * 4 + r] * a[r * 64 + col]).sum();
        let (old, new) = (before[row * 64 + col], after[row * 64 + col]);
        assert!((old + 2.0 * product - new).abs() < 1e-6, "{row}, {col}");
        moved = moved.max((new - old).abs());
    }
    assert!(moved > 1e-6, "the adapters have learnt something: {moved}");
    let question = [
        "ask",
        "world/test/images/00/000001.png",
        "What is it?",
        "--max-new-tokens",
        "2",
    ];
    ground
        .run(&[&question[..], &["--model", "runs/lora/model"]].concat())
        .ok();
    ground
        .train("align", &[&rank[..], &["--out", "runs/never"]].concat())
        .fails_with(1, &["lora", "instruct"]);
}

#[test]
fn encoders_train_if_they_are_told_to() {
    let ground = Ground::shared();
    ground.train("instruct", &["--out", "runs/frozen"]).ok();
    let unfreeze = ["--set", "optimizer.parts.encoders.train=true"];
    ground
        .train(
            "instruct",
            &[&unfreeze[..], &["--out", "runs/unfrozen"]].concat(),
        )
        .ok();
    for encoder in [
        "opabinia--small-siglip-128",
        "opabinia--small-dinov2-mae-128",
    ] {
        let weights = |run| {
            ground.bytes(&format!(
                "runs/{run}/model/towers/{encoder}/model.safetensors"
            ))
        };
        assert!(
            weights("align") == weights("frozen"),
            "{encoder} changed while frozen"
        );
        assert!(
            weights("align") != weights("unfrozen"),
            "{encoder} did not learn"
        );
    }
    let rates = &ground.log("runs/unfrozen")[2]["lr"];
    assert!(rates["encoders"].as_f64().unwrap() > 0.0, "{rates}");
    assert!(ground.log("runs/frozen")[2]["lr"].get("encoders").is_none());
}

#[test]
fn what_this_machine_cannot_do_is_refused() {
    let ground = Ground::shared();
    let set = |pair| ground.train("instruct", &["--set", pair, "--out", "runs/never"]);
    set("batch.devices=2").fails_with(
        1,
        &["2 devices", "the CPU is one device", "--features cuda"],
    );
    set("memory.precision=bf16").fails_with(1, &["bf16", "memory.precision", "f32"]);
    ground
        .train("instruct", &["--device", "abacus"])
        .fails_with(1, &["abacus"]);
    assert!(!ground.path("runs/never").exists());
}

#[test]
fn a_step_that_is_not_finite_can_be_run_again() {
    let ground = Ground::shared();
    let wild = [
        "--set",
        "optimizer.lr=1e38",
        "--set",
        "schedule.warmup_steps=0",
        "--out",
        "runs/wild",
    ];
    ground.train("instruct", &wild).fails_with(
        1,
        &[
            "step 2",
            "not finite",
            "in the gradients of part `",
            "samples [",
            "runs/wild/not-finite-00000002",
        ],
    );
    assert_eq!(ground.log("runs/wild").len(), 1, "the step is not counted");
    let bundle = ["--replay", "runs/wild/not-finite-00000002"];
    let replayed = ground
        .train("instruct", &[&wild[..], &bundle].concat())
        .ok();
    let sums = replayed.stdout.matches("summed loss").count();
    assert_eq!(
        sums,
        2,
        "one of each micro-batch\n{}",
        replayed.everything()
    );
    assert!(
        replayed.stdout.contains("not finite since micro-batch 0"),
        "{}",
        replayed.everything()
    );
    let missing = ["--replay", "runs/wild/no-bundle"];
    ground
        .train("instruct", &[&wild[..], &missing].concat())
        .fails_with(1, &["no-bundle"]);
}

/// Dropout and rounded features included: the losses of the first step, from a bundle written by hand.
#[test]
fn a_replay_computes_what_the_run_did() {
    let ground = Ground::shared();
    let set = [
        "seed=5",
        "lora.rank=4",
        "lora.dropout=0.5",
        "data.group_by_modality_length=false",
        "data.feature_cache=features/replayed",
    ];
    let set = set.iter().flat_map(|pair| ["--set", pair]);
    let all: Vec<&str> = set.chain(["--out", "runs/replayed"]).collect();
    let train = |more: &[&str]| ground.train("instruct", &[&all[..], more].concat()).ok();
    train(&["--at-most", "1"]);
    let step = &ground.log("runs/replayed")[0];

    let samples = ground.read("world/train/instruct.jsonl").lines().count();
    let plan = opabinia_data::order::shuffled(samples, 4, 5, 0).remove(0);
    let bundle = json!({
        "step": 1, "micro": 2, "seed": 5, "plan": plan, "samples": [plan[..2], plan[2..]],
        "loss": null, "grad_norm": null, "part": null, "parameters": [],
    });
    ground.write("runs/replayed/first/bundle.json", &bundle.to_string());
    // Nothing that trains has moved yet.
    let nothing = safetensors::serialize(
        Vec::<(String, safetensors::tensor::TensorView)>::new(),
        None,
    );
    fs::write(
        ground.path("runs/replayed/first/weights.safetensors"),
        nothing.unwrap(),
    )
    .unwrap();
    let replayed = train(&["--replay", "runs/replayed/first"]);
    let sums = replayed.stdout.split("summed loss ").skip(1);
    let sum: f64 = sums
        .map(|rest| rest.split(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    let (loss, terms) = (
        step["loss"].as_f64().unwrap(),
        step["terms"].as_f64().unwrap(),
    );
    assert!(
        (sum / terms - loss).abs() < 1e-6 * loss,
        "{sum} of {terms} terms, and a loss of {loss}\n{}",
        replayed.everything()
    );
}

#[test]
fn curves_are_drawn() {
    let ground = Ground::shared();
    let draw = |more: &[&str]| {
        let runs = ["train", "compare", "runs/decoder", "runs/picture-encoder"];
        ground.run(&[&runs[..], more].concat())
    };
    draw(&["--out", "curves.svg", "--band", "runs/align"]).ok();
    let svg = ground.read("curves.svg");
    for words in ["<svg", "decoder", "picture-encoder", "align", "steps"] {
        assert!(svg.contains(words), "`{words}` is missing");
    }
    draw(&[
        "--out",
        "curves.png",
        "--figure",
        "grad_norm",
        "--axis",
        "samples",
        "--log",
    ])
    .ok();
    assert!(ground.bytes("curves.png").starts_with(b"\x89PNG"));
    draw(&["--out", "curves.txt"]).fails_with(1, &["`.svg`", "`.png`"]);
    draw(&["--figure", "height"]).fails_with(1, &["`height`", "loss, grad_norm, lr"]);
    draw(&["--band", "runs"]).fails_with(1, &["runs/log.jsonl"]);
}
