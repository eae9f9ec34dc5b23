//! The verbs that look at things: `encoders`, `model inspect`, `parity`, `doctor`.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Copy, Run, golden, model, opabinia, text};
use serde_json::{Value, json};

/// The encoders of the released models.
const RELEASED: [&str; 4] = [
    "siglip/CLIP-ViT-SO400M-14-384",
    "openai/clip-vit-large-patch14-336",
    "facebook/dinov2-giant-res378",
    "clip-convnext-XXL-multi-stage",
];

#[test]
fn encoders_are_a_table() {
    let run = opabinia(&["encoders"]).quiet();
    let mut lines = run.stdout.lines();
    let header = lines.next().unwrap();
    for column in ["name", "input", "grid", "width", "parameters", "license"] {
        assert!(header.contains(column), "{header}");
    }
    for name in RELEASED {
        assert!(run.stdout.contains(name), "{name}");
    }
}

#[test]
fn encoders_have_the_published_numbers() {
    let rows = opabinia(&["encoders", "--json"]).quiet().json_lines();
    // Side, rows and columns of the native grid, width: as the released models run them.
    let published = [
        (384, 27, 1152),
        (336, 24, 1024),
        (378, 27, 1536),
        (1024, 256, 5760),
    ];
    for (name, (side, rows_and_cols, width)) in RELEASED.into_iter().zip(published) {
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        assert_eq!(row["side"], side, "{name}");
        assert_eq!([&row["rows"], &row["cols"]], [rows_and_cols; 2], "{name}");
        assert_eq!(row["width"], width, "{name}");
        assert!(row["parameters"].as_u64().unwrap() > 100_000_000, "{name}");
        assert!(
            row["license"]
                .as_str()
                .is_some_and(|licence| !licence.is_empty()),
            "{name}"
        );
    }
}

#[test]
fn a_model_is_shown_part_by_part() {
    let run = opabinia(&["model", "inspect", &text(&model())]).quiet();
    for text in [
        "cambrian_llama",
        "encoder 0",
        "siglip/CLIP-ViT-SO400M-14-384",
        "clip-convnext-XXL-multi-stage-res96",
        "connector",
        "Spatial Vision Aggregator",
        "decoder",
        "5 layers of width 64",
        "42 tokens in all",
        "2048 tokens",
        "llama_3",
        "tokens/s",
    ] {
        assert!(
            run.stdout.contains(text),
            "`{text}` is missing\n{}",
            run.everything()
        );
    }
}

#[test]
fn a_model_is_shown_as_json() {
    let shown = opabinia(&["model", "inspect", &text(&model()), "--json"])
        .quiet()
        .json();
    assert_eq!(shown["model_type"], "cambrian_llama");
    assert_eq!(shown["template"][0], "llama_3");
    assert_eq!(shown["max_length"], 2048);
    assert_eq!(
        shown["picture"],
        json!({"rows": 6, "cols": 6, "tokens": 42})
    );
    let names: Vec<&Value> = shown["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["name"])
        .collect();
    let expected = [
        "encoder 0",
        "encoder 1",
        "encoder 2",
        "encoder 3",
        "connector",
        "decoder",
    ];
    assert_eq!(names, expected);
    // Parameters and bytes as the file has them: 288 tensors of f32.
    let total = |key: &str, part: usize| shown["parts"][part][key].as_u64().unwrap();
    let file = std::fs::read(model().join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&file).unwrap();
    let bytes: usize = file.iter().map(|(_, tensor)| tensor.data().len()).sum();
    assert_eq!(total("bytes", 4) + total("bytes", 5), bytes as u64);
    assert_eq!(
        total("parameters", 4) + total("parameters", 5),
        bytes as u64 / 4
    );
}

#[test]
fn encoders_beside_the_model_are_counted_in_bytes() {
    let shown = opabinia(&["model", "inspect", &text(&model()), "--json"])
        .quiet()
        .json();
    for part in 0..4 {
        let (bytes, parameters) = (
            &shown["parts"][part]["bytes"],
            &shown["parts"][part]["parameters"],
        );
        assert_eq!(
            bytes.as_u64(),
            Some(4 * parameters.as_u64().unwrap()),
            "encoder {part}"
        );
    }
}

#[test]
fn a_model_is_shown_without_its_encoders() {
    let copy = Copy::of_model();
    copy.remove("towers");
    let shown = opabinia(&["model", "inspect", &copy.text(), "--json"])
        .quiet()
        .json();
    assert_eq!(shown["parts"][2]["bytes"], Value::Null);
    assert_eq!(shown["parts"][2]["what"], "facebook/dinov2-giant-res98");
}

#[test]
fn what_is_no_model_is_not_shown() {
    let inspect = |path: &str| opabinia(&["model", "inspect", path]);
    inspect("./no-such-model").fails_with(1, &["no-such-model"]);
    let empty = tempfile::tempdir().unwrap();
    inspect(&text(empty.path())).fails_with(1, &["config.json"]);
    let copy = Copy::of_model();
    copy.truncate("model.safetensors", 1000);
    inspect(&copy.text()).fails_with(1, &["model.safetensors"]);
}

#[test]
fn the_doctor_finds_the_processor_and_what_was_built() {
    let run = opabinia(&["doctor"]).quiet();
    for text in [
        "opabinia",
        "devices",
        "cpu",
        "processor",
        "kernels",
        "memory",
        "hub cache",
    ] {
        assert!(
            run.stdout.contains(text),
            "`{text}` is missing\n{}",
            run.everything()
        );
    }
    assert!(
        run.stdout.contains("HF_HUB_OFFLINE"),
        "{}",
        run.everything()
    );

    let found = opabinia(&["doctor", "--json"]).quiet().json();
    let devices = found["devices"].as_array().unwrap();
    assert!(devices.contains(&json!("cpu")), "{found}");
    assert!(found["memory_bytes"].as_u64().unwrap() > 0);
    assert!(found["threads"].as_u64().unwrap() > 0);
    assert!(found["problems"].is_array());
}

#[test]
fn the_program_says_what_it_is() {
    let version = opabinia(&["--version"]).quiet();
    assert!(
        version.stdout.starts_with("opabinia "),
        "{}",
        version.stdout
    );
    let help = opabinia(&["--help"]).quiet();
    for verb in [
        "ask",
        "chat",
        "encode",
        "encoders",
        "model",
        "train",
        "eval",
        "world",
        "parity",
        "doctor",
        "Exit codes",
    ] {
        assert!(help.stdout.contains(verb), "{verb}");
    }
    opabinia(&["nonsense"]).fails_with(2, &["nonsense"]);
    opabinia(&["ask"]).fails_with(2, &["QUESTION"]);
}

fn parity<S: AsRef<str>>(arguments: &[S]) -> Run {
    let mut all = vec!["parity"];
    all.extend(arguments.iter().map(AsRef::as_ref));
    opabinia(&all)
}

#[test]
fn every_golden_case_that_can_be_built_holds() {
    let run = parity(&[&text(&golden()), "--json"]);
    let reports = run.json_lines();
    let mut kinds = std::collections::BTreeSet::new();
    for report in &reports {
        // A family that is not built yet must say so; everything else must hold.
        match report["error"].as_str() {
            Some(error) => assert!(error.contains("there is no encoder"), "{error}"),
            None => {
                assert_eq!(report["holds"], true, "{report}");
                kinds.insert(report["kind"].as_str().unwrap().to_owned());
            }
        }
    }
    let all = [
        "conversations",
        "model",
        "preprocess",
        "projector",
        "sva",
        "vision_encoder",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), all);
    let unsupported = reports
        .iter()
        .filter(|report| !report["error"].is_null())
        .count();
    assert_eq!(
        run.code,
        Some(if unsupported == 0 { 0 } else { 3 }),
        "{}",
        run.everything()
    );
}

#[test]
fn a_case_that_holds_prints_every_tensor() {
    let case = text(&golden().join("sva_joint_d3"));
    let run = parity(&[&case]).ok();
    for text in [
        "✓ sva_joint_d3 (sva)",
        "layer0",
        "layer2",
        "out",
        "out_nomask",
        "max abs",
    ] {
        assert!(
            run.stdout.contains(text),
            "`{text}` is missing\n{}",
            run.everything()
        );
    }
    let quiet = parity(&[&case, "--quiet"]).ok();
    assert_eq!(quiet.stdout.lines().count(), 1, "{}", quiet.everything());
}

#[test]
fn one_changed_number_is_found_and_named() {
    let copy = Copy::of("sva_joint_d1");
    copy.edit_tensors("io.safetensors", |tensors| {
        tensors.get("out").change(17, |old| old + 0.01);
    });
    let run = parity(&[&copy.text()]);
    assert_eq!(run.code, Some(3), "{}", run.everything());
    let line = run
        .stdout
        .lines()
        .find(|line| line.starts_with("✗  out "))
        .unwrap_or_default();
    assert!(line.contains("element 17"), "{}", run.everything());

    let run = parity(&[&copy.text(), "--json"]);
    assert_eq!(run.code, Some(3), "{}", run.everything());
    let report = run.json();
    assert_eq!(report["holds"], false);
    let broken: Vec<&Value> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["holds"] == false)
        .map(|check| &check["name"])
        .collect();
    assert_eq!(broken, ["out"]);
}

#[test]
fn a_changed_weight_of_a_whole_model_is_found() {
    let copy = Copy::of("cambrian_llama_mlp2x_gelu");
    copy.edit_tensors("model.safetensors", |tensors| {
        tensors
            .get("model.image_newline")
            .change(0, |old| old + 1.0);
    });
    let run = parity(&[&copy.text(), "--quiet"]);
    assert_eq!(run.code, Some(3), "{}", run.everything());
    assert!(run.stdout.contains('✗'), "{}", run.everything());
}

#[test]
fn a_changed_rule_of_a_template_is_found() {
    let copy = Copy::of("cambrian_llama_mlp2x_gelu");
    copy.edit_json("case.json", |case| {
        let run = case["runs"]
            .as_object_mut()
            .unwrap()
            .values_mut()
            .next()
            .unwrap();
        let prompt = run["prompt"].as_str().unwrap().replacen("user", "User", 1);
        run["prompt"] = prompt.into();
    });
    let run = parity(&[&copy.text()]);
    assert_eq!(run.code, Some(3), "{}", run.everything());
    assert!(run.stdout.contains(".prompt"), "{}", run.everything());
}

#[test]
fn an_encoder_that_is_not_built_is_an_error_and_no_pass() {
    let copy = Copy::of("clip_vit");
    copy.write(
        "config.json",
        r#"{"model_type": "sam", "vision_config": {"hidden_size": 32}}"#,
    );
    let run = parity(&[&copy.text()]);
    assert_eq!(run.code, Some(3), "{}", run.everything());
    assert!(
        run.stdout.contains("sam") && run.stdout.contains("supported"),
        "{}",
        run.everything()
    );

    // The cases after it are run all the same.
    let good = text(&golden().join("projector_linear"));
    let run = parity(&[&copy.text(), &good, "--json"]);
    assert_eq!(run.code, Some(3), "{}", run.everything());
    let reports = run.json_lines();
    assert!(reports[0]["error"].is_string(), "{}", reports[0]);
    assert_eq!(reports[1]["holds"], true, "{}", reports[1]);
}

#[test]
fn a_case_that_cannot_be_run_says_why() {
    let broken = |edit: &dyn Fn(&Copy), text: &str| {
        let copy = Copy::of("sva_joint_d1");
        edit(&copy);
        let run = parity(&[&copy.text()]);
        assert_eq!(run.code, Some(3), "{}", run.everything());
        assert!(
            run.stdout.contains(text),
            "`{text}` is missing\n{}",
            run.everything()
        );
        assert!(!run.stderr.contains("panicked"), "{}", run.everything());
    };
    broken(
        &|copy| copy.edit_json("case.json", |case| case["kind"] = "poem".into()),
        "`poem`",
    );
    broken(&|copy| copy.write("case.json", "{"), "case.json");
    broken(
        &|copy| copy.truncate("io.safetensors", 5000),
        "io.safetensors",
    );
    broken(
        &|copy| copy.edit_tensors("io.safetensors", |io| io.remove("out")),
        "`out`",
    );
    broken(
        &|copy| copy.edit_tensors("io.safetensors", |io| io.remove("ctx")),
        "`ctx`",
    );
    broken(
        &|copy| copy.remove("model.safetensors"),
        "model.safetensors",
    );
    let no_tolerance = |copy: &Copy| {
        copy.edit_json("case.json", |case| {
            case.as_object_mut().unwrap().remove("tolerance");
        });
    };
    broken(&no_tolerance, "case.json");
}

#[test]
fn inputs_of_another_shape_are_no_panic() {
    let copy = Copy::of("sva_joint_d1");
    copy.edit_tensors("io.safetensors", |io| {
        let context = io.get("ctx");
        let rows = context.shape[0];
        context
            .bytes
            .truncate(context.bytes.len() / rows * (rows - 1));
        context.shape[0] -= 1;
    });
    let run = parity(&[&copy.text()]);
    assert_eq!(run.code, Some(3), "{}", run.everything());
    assert!(!run.stderr.contains("panicked"), "{}", run.everything());
}

#[test]
fn a_folder_without_cases_is_an_error() {
    let empty = tempfile::tempdir().unwrap();
    parity(&[&text(empty.path())]).fails_with(1, &["case.json"]);
    parity(&["./no-such-case"]).fails_with(1, &["no-such-case"]);
}
