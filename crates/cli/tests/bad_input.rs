//! Everything a user, a disk or a stranger can get wrong: each is a clear error with exit code 1
//! (2 for wrong usage), nothing on standard output, and never a panic.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Copy, Run, data_url, model, opabinia, opabinia_reading, picture, png_header, text};
use opabinia_image::RgbImage;
use serde_json::json;
use tempfile::TempDir;

/// Asks the golden model something small.
fn ask(arguments: &[&str]) -> Run {
    let model = text(&model());
    let mut all = vec!["ask", "--model", &model, "--max-new-tokens", "2"];
    all.extend(arguments);
    opabinia(&all)
}

/// Asks a broken copy about a picture.
fn ask_copy(copy: &Copy) -> Run {
    let (model, wide) = (copy.text(), picture("wide"));
    opabinia(&[
        "ask",
        "--model",
        &model,
        &wide,
        "What is it?",
        "--max-new-tokens",
        "2",
    ])
}

/// A file with these bytes.
struct File {
    folder: TempDir,
}

impl File {
    fn of(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.png"), bytes).unwrap();
        Self { folder }
    }

    fn path(&self) -> String {
        text(&self.folder.path().join("p.png"))
    }

    fn ask(&self, flags: &[&str]) -> Run {
        let path = self.path();
        let mut arguments = vec![path.as_str(), "What is it?"];
        arguments.extend(flags);
        ask(&arguments)
    }
}

fn wide_bytes() -> Vec<u8> {
    std::fs::read(picture("wide")).unwrap()
}

fn plain(width: u32, height: u32) -> File {
    File::of(
        &RgbImage::filled(width, height, [90, 120, 30])
            .unwrap()
            .encode_png()
            .unwrap(),
    )
}

// Pictures.

#[test]
fn a_picture_that_is_not_there() {
    ask(&["no-such-picture.png", "What is it?"])
        .fails_with(1, &["cannot read", "no-such-picture.png"]);
    let folder = tempfile::tempdir().unwrap();
    ask(&[&text(folder.path()), "What is it?"]).fails_with(1, &["folder"]);
    ask(&["https://example.com/a.png", "What is it?"]).fails_with(1, &["example.com", "download"]);
    ask(&["", "What is it?"]).fails_with(1, &["empty name"]);
}

#[test]
fn bytes_that_are_no_picture() {
    File::of(b"").ask(&[]).fails_with(1, &["p.png", "empty"]);
    File::of(b"Dear diary, today I saw")
        .ask(&[])
        .fails_with(1, &["not a picture", "text"]);
    File::of(&[0; 64])
        .ask(&[])
        .fails_with(1, &["not a picture"]);
    File::of(b"%PDF-1.7 \x01\x02")
        .ask(&[])
        .fails_with(1, &["p.png", "PDF"]);
}

#[test]
fn a_picture_that_is_cut_off() {
    let whole = wide_bytes();
    for kept in [9, 33, 60, whole.len() / 2, whole.len() - 20] {
        File::of(&whole[..kept])
            .ask(&[])
            .fails_with(1, &["p.png", "PNG"]);
    }
}

#[test]
fn a_picture_without_area() {
    File::of(&png_header(0, 10))
        .ask(&[])
        .fails_with(1, &["p.png"]);
    File::of(&png_header(10, 0))
        .ask(&[])
        .fails_with(1, &["p.png"]);
}

#[test]
fn a_picture_that_claims_to_be_huge_is_refused_by_its_header() {
    let bomb = File::of(&png_header(60_000, 60_000));
    bomb.ask(&[])
        .fails_with(1, &["60000 × 60000", "--max-image-pixels"]);
    bomb.ask(&["--max-image-side", "1000"])
        .fails_with(1, &["60000 × 60000", "--max-image-"]);
}

#[test]
fn limits_have_flags() {
    let wide = picture("wide");
    let limited = |flag: &str, limit: &str| ask(&[&wide, "What is it?", flag, limit]);
    limited("--max-image-bytes", "10").fails_with(1, &["10 bytes", "--max-image-bytes"]);
    limited("--max-image-side", "100").fails_with(1, &["160 × 90", "--max-image-side"]);
    limited("--max-image-pixels", "14399").fails_with(1, &["14400", "--max-image-pixels"]);
    limited("--max-image-pixels", "14400").ok();
    limited("--max-image-pixels", "many").fails_with(2, &["many"]);
}

#[test]
fn a_line_shows_nothing_on_the_visual_grid() {
    plain(1, 20_000)
        .ask(&[])
        .fails_with(1, &["1 × 20000", "crop"]);
    plain(20_000, 1)
        .ask(&[])
        .fails_with(1, &["20000 × 1", "crop"]);
    plain(1, 7).ask(&[]).fails_with(1, &["1 × 7"]);
    plain(1, 6).ask(&[]).ok();
    plain(1, 1).ask(&[]).ok();
}

#[test]
fn standard_input_and_data_urls_are_checked_too() {
    let model = text(&model());
    let from_pipe =
        |bytes: &[u8]| opabinia_reading(&["ask", "-m", &model, "-", "What is it?"], bytes);
    from_pipe(b"").fails_with(1, &["standard input", "empty"]);
    from_pipe(b"no picture").fails_with(1, &["standard input", "not a picture"]);
    from_pipe(&wide_bytes()[..500]).fails_with(1, &["standard input"]);
    let huge = data_url(&png_header(60_000, 60_000));
    ask(&[&huge, "What is it?"]).fails_with(1, &["--max-image-pixels"]);
    ask(&["data:image/png;base64,@@@", "What is it?"]).fails_with(1, &["data URL", "base64"]);
    ask(&["data:,hello", "What is it?"]).fails_with(1, &["data URL"]);
}

#[test]
fn a_broken_picture_fails_before_the_model_is_looked_for() {
    opabinia(&[
        "ask",
        "-m",
        "./no-such-model",
        "no-such-picture.png",
        "What is it?",
    ])
    .fails_with(1, &["no-such-picture.png"]);
}

// Questions and flags.

#[test]
fn a_question_without_words() {
    ask(&[""]).fails_with(1, &["question is empty"]);
    ask(&[&picture("wide"), " \t\n"]).fails_with(1, &["question is empty"]);
    ask(&["What?", "--also", " "]).fails_with(1, &["question is empty"]);
}

#[test]
fn a_placeholder_without_a_picture() {
    let typed = "What is in <image> here?";
    let run = ask(&[typed]).fails_with(1, &["placeholder", "<image>"]);
    assert!(
        !run.stderr.contains("warning"),
        "a warning about a picture that is not there\n{}",
        run.everything()
    );
    let twice = "What is in <image>, and what in <image>?";
    ask(&[&picture("wide"), twice]).fails_with(1, &["2 image placeholder", "1 picture"]);
}

#[test]
fn impossible_sampling() {
    for (flag, value, texts) in [
        ("--temperature=-1", None, ["temperature", "-1"]),
        ("--temperature", Some("NaN"), ["temperature", "NaN"]),
        ("--temperature", Some("inf"), ["temperature", "inf"]),
        ("--top-p", Some("0"), ["top-p", "0"]),
        ("--top-p", Some("1.01"), ["top-p", "1.01"]),
        ("--top-p", Some("NaN"), ["top-p", "NaN"]),
        ("--top-k", Some("0"), ["top-k", "0"]),
        ("--min-p", Some("2"), ["min-p", "2"]),
        (
            "--repetition-penalty",
            Some("0"),
            ["repetition-penalty", "0"],
        ),
        ("--max-new-tokens", Some("0"), ["max-new-tokens", "0"]),
        ("--stop", Some(""), ["stop", "empty"]),
    ] {
        let model = text(&model());
        let mut arguments = vec!["ask", "-m", &model, "What?", flag];
        arguments.extend(value);
        opabinia(&arguments).fails_with(1, &texts);
    }
}

#[test]
fn a_negative_number_is_the_value_of_its_flag() {
    ask(&["What?", "--temperature", "-1"]).fails_with(1, &["temperature", "-1"]);
}

#[test]
fn wrong_usage() {
    ask(&["What?", "--prefill-chunk", "0"]).fails_with(2, &["--prefill-chunk"]);
    ask(&["What?", "--seed", "-3"]).fails_with(2, &["-3"]);
    ask(&["What?", "--dtype", "int3"]).fails_with(2, &["int3", "bf16"]);
    ask(&["What?", "--image-position", "left"]).fails_with(2, &["left", "actual"]);
    ask(&["What?", "--top-p", "many"]).fails_with(2, &["many", "--top-p"]);
    opabinia(&["ask"]).fails_with(2, &["QUESTION"]);
}

#[test]
fn unknown_names_get_the_nearest() {
    ask(&["What?", "--template", "lama_3"]).fails_with(1, &["`lama_3`", "did you mean", "llama_3"]);
    ask(&["What?", "--template", "zzzzzzzzz"]).fails_with(1, &["`zzzzzzzzz`", "vicuna_v1"]);
    opabinia(&[
        "encode",
        &picture("wide"),
        "--encoder",
        "siglip/CLIP-ViT-SO400M-14-38",
    ])
    .fails_with(
        1,
        &[
            "did you mean",
            "`siglip/CLIP-ViT-SO400M-14-384`",
            "opabinia encoders",
        ],
    );
}

#[test]
fn devices_that_are_not_there() {
    ask(&["What?", "--device", "tpu"]).fails_with(1, &["`tpu`", "cuda", "cpu"]);
    ask(&["What?", "--device", "cpu:9"]).fails_with(1, &["cpu:9", "doctor"]);
    ask(&["What?", "--device", "cuda:first"]).fails_with(1, &["cuda:first", "cuda:0"]);
    if !cfg!(feature = "cuda") {
        ask(&["What?", "--device", "cuda"]).fails_with(1, &["without cuda", "--features cuda"]);
    }
}

#[test]
fn encoder_weights_for_nobody() {
    ask(&["What?", "--encoder-weights", "siglip"]).fails_with(1, &["`=`", "NAME=PATH"]);
    ask(&["What?", "--encoder-weights", "0=./nowhere"]).fails_with(1, &["nowhere"]);
    ask(&["What?", "--encoder-weights", "siglib=./nowhere"]).fails_with(1, &["siglib"]);
    ask(&["What?", "--encoder-weights", "4=./nowhere"]).fails_with(1, &["4"]);
}

// Model folders.

#[test]
fn a_model_that_is_not_there() {
    let missing = |name: &str| opabinia(&["ask", "-m", name, "What?"]);
    missing("./no-such-model").fails_with(1, &["no-such-model", "hint: "]);
    missing("nobody/no-such-model").fails_with(1, &["nobody/no-such-model", "hint: "]);
    missing("").fails_with(1, &["hint: "]);
    missing(&text(&model().join("config.json"))).fails_with(1, &["config.json"]);
}

#[test]
fn a_folder_that_lacks_a_file() {
    for (file, texts) in [
        ("config.json", ["cannot read", "config.json"]),
        ("tokenizer.json", ["no tokenizer", "tokenizer.json"]),
        ("towers/clip/model.safetensors", ["no weights", "clip"]),
        ("towers/clip/config.json", ["config.json", "clip"]),
        ("towers/dinov2/model.safetensors", ["no weights", "dinov2"]),
    ] {
        let copy = Copy::of_model();
        copy.remove(file);
        ask_copy(&copy).fails_with(1, &texts);
    }
}

#[test]
fn a_folder_without_weights() {
    let copy = Copy::of_model();
    copy.remove("model.safetensors");
    copy.remove("io.safetensors");
    ask_copy(&copy).fails_with(1, &["no weights", "model.safetensors"]);
}

#[test]
fn a_stray_file_of_tensors_is_not_taken_for_the_weights() {
    let copy = Copy::of_model();
    copy.remove("model.safetensors");
    assert!(copy.path("io.safetensors").exists());
    ask_copy(&copy).fails_with(1, &[]);
}

#[test]
fn a_model_whose_encoders_are_nowhere() {
    let copy = Copy::of_model();
    copy.remove("towers");
    ask_copy(&copy).fails_with(1, &["timm/ViT-SO400M-14-SigLIP-384", "--encoder-weights"]);
}

#[test]
fn a_configuration_that_is_no_json_object() {
    for content in [
        "",
        "{\"model_type\": ",
        "[1, 2]",
        "\"llama\"",
        "null",
        "\u{feff}{}",
        "{}",
    ] {
        let copy = Copy::of_model();
        copy.write("config.json", content);
        ask_copy(&copy).fails_with(1, &["config.json"]);
    }
    let copy = Copy::of_model();
    copy.write("config.json", [0xff, 0xfe, 0x00]);
    ask_copy(&copy).fails_with(1, &["config.json"]);
}

/// Every key with a value that no model can have; the error names the key.
#[test]
fn a_configuration_with_an_impossible_value() {
    let mut wrong = Vec::new();
    for (key, value) in [
        ("model_type", json!("bert")),
        ("hidden_size", json!(0)),
        ("hidden_size", json!("64")),
        ("hidden_size", json!(-64)),
        ("num_attention_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(10_000)),
        ("hidden_act", json!("nope")),
        ("rms_norm_eps", json!(-1.0)),
        ("rope_theta", json!(0)),
        ("rope_scaling", json!({"type": "nope", "factor": 2.0})),
        ("eos_token_id", json!("</s>")),
        ("conversation_template", json!("lama_3")),
        ("mm_projector_type", json!("nope")),
        ("mm_vision_tower_aux_token_len_list", json!([36, 36, 36])),
        (
            "mm_vision_tower_aux_token_len_list",
            json!([35, 36, 36, 576]),
        ),
        (
            "mm_vision_tower_aux_token_len_list",
            json!([0, 36, 36, 576]),
        ),
        (
            "mm_vision_tower_aux_token_len_list",
            json!([49, 36, 36, 576]),
        ),
        ("mm_vision_tower_aux_token_len_list", json!(null)),
        ("mm_vision_select_layer", json!(-20)),
        ("mm_use_im_patch_token", json!(true)),
        ("image_token_len", json!(35)),
        ("query_num_list", json!([])),
        ("query_num_list", json!([35])),
        ("vision_hidden_size", json!(0)),
        ("vision_hidden_size", json!(33)),
        ("connector_depth", json!(0)),
        ("connector_depth", json!(10_000)),
        ("sva_layer_type", json!("nope")),
        ("num_of_vision_sampler_layers", json!(null)),
        ("num_of_vision_sampler_layers", json!(10_000)),
        ("stride_of_vision_sampler_layers", json!(0)),
    ] {
        let copy = Copy::of_model();
        copy.configure(json!({ key: value.clone() }));
        let run = ask_copy(&copy);
        let shown = match key {
            "conversation_template" => "lama_3",
            _ => key,
        };
        if run.code != Some(1) || !run.stdout.is_empty() || !run.stderr.contains(shown) {
            wrong.push(format!("{key} = {value}\n{}", run.everything()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_configuration_that_contradicts_itself() {
    // In-LLM layers behind the last layer of the decoder would never run.
    let copy = Copy::of_model();
    copy.configure(json!({"start_of_vision_sampler_layers": 4}));
    ask_copy(&copy).fails_with(1, &["start_of_vision_sampler_layers"]);

    let copy = Copy::of_model();
    copy.configure(json!({"num_query_group": 2}));
    ask_copy(&copy).fails_with(1, &["num_query_group"]);
}

#[test]
fn a_configuration_that_contradicts_the_weights() {
    let copy = Copy::of_model();
    copy.configure(json!({"hidden_size": 128}));
    ask_copy(&copy).fails_with(1, &["model.embed_tokens.weight", "[384, 64]", "[384, 128]"]);

    let copy = Copy::of_model();
    copy.configure(json!({"num_hidden_layers": 6}));
    ask_copy(&copy).fails_with(1, &["model.layers.5.", "nearest", "model.layers.4."]);

    let copy = Copy::of_model();
    copy.configure(json!({"vocab_size": 100_000}));
    ask_copy(&copy).fails_with(1, &["model.embed_tokens.weight", "[384, 64]"]);

    let copy = Copy::of_model();
    copy.configure(json!({"vocab_size": 1_000_000_000_000u64}));
    ask_copy(&copy).fails_with(1, &["vocab_size"]);
}

/// As ordinary text the marks would make another prompt.
#[test]
fn marks_that_the_tokenizer_does_not_know() {
    let copy = Copy::of_model();
    copy.configure(json!({"mm_use_im_start_end": true}));
    ask_copy(&copy).fails_with(1, &["mm_use_im_start_end", "<im_start>"]);
}

#[test]
fn an_unknown_encoder_in_the_configuration() {
    let copy = Copy::of_model();
    copy.edit_json("config.json", |config| {
        config["mm_vision_tower_aux_list"][1] = "openai/clip-vit-large-patch14-335".into();
    });
    ask_copy(&copy).fails_with(1, &["did you mean", "`openai/clip-vit-large-patch14-336`"]);
}

#[test]
fn an_encoder_of_another_width() {
    let copy = Copy::of_model();
    let weights = format!("0={}", text(&model().join("towers/dinov2")));
    let model = copy.text();
    opabinia(&["ask", "-m", &model, "What?", "--encoder-weights", &weights])
        .fails_with(1, &["DINOv2"]);

    // The same family, but four features narrower than the connector takes.
    copy.edit_json("config.json", |config| {
        config["mm_vision_tower_aux_list"][1] = "facebook/dinov2-giant-res98".into();
    });
    ask_copy(&copy).fails_with(1, &["encoder 1", "36", "32"]);
}

#[test]
fn a_missing_tensor_is_named_with_the_nearest() {
    let copy = Copy::of_model();
    copy.edit_tensors("model.safetensors", |tensors| {
        tensors.remove("model.layers.2.mlp.up_proj.weight");
    });
    ask_copy(&copy).fails_with(
        1,
        &["1 of", "`model.layers.2.mlp.up_proj.weight`", "nearest"],
    );
    copy.edit_tensors("towers/clip/model.safetensors", |tensors| {
        tensors.remove("vision_model.encoder.layers.0.mlp.fc1.bias");
    });
    ask_copy(&copy).fails_with(1, &["vision_model.encoder.layers.0.mlp.fc1.bias", "clip"]);
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let copy = Copy::of_model();
    copy.edit_tensors("model.safetensors", |tensors| {
        tensors.get("model.mm_projector.0.weight").shape.reverse();
    });
    ask_copy(&copy).fails_with(
        1,
        &["`model.mm_projector.0.weight`", "[64, 32]", "[32, 64]"],
    );
}

#[test]
fn a_weight_that_is_no_number_is_told_at_the_answer() {
    let copy = Copy::of_model();
    copy.edit_tensors("model.safetensors", |tensors| {
        tensors.get("model.norm.weight").change(3, |_| f32::NAN);
    });
    ask_copy(&copy).fails_with(1, &["NaN", "weights"]);
}

#[test]
fn weights_that_are_cut_off_or_damaged() {
    for bytes in [0, 4, 100, 20_000, 400_000] {
        let copy = Copy::of_model();
        copy.truncate("model.safetensors", bytes);
        ask_copy(&copy).fails_with(1, &["model.safetensors", "incomplete"]);
    }
    let copy = Copy::of_model();
    copy.write("model.safetensors", [0xff; 64]);
    ask_copy(&copy).fails_with(1, &["model.safetensors"]);
}

#[test]
fn shards_that_do_not_fit_their_index() {
    let copy = Copy::of_model();
    std::fs::rename(
        copy.path("model.safetensors"),
        copy.path("model-00001-of-00002.safetensors"),
    )
    .unwrap();
    let index = json!({"metadata": {}, "weight_map": {
        "model.norm.weight": "model-00001-of-00002.safetensors",
        "lm_head.weight": "model-00002-of-00002.safetensors",
    }});
    copy.write("model.safetensors.index.json", index.to_string());
    ask_copy(&copy).fails_with(1, &["model-00002-of-00002.safetensors"]);

    for outside in ["../model.safetensors", "/etc/hostname"] {
        let index = json!({"weight_map": {"model.norm.weight": outside}});
        copy.write("model.safetensors.index.json", index.to_string());
        ask_copy(&copy).fails_with(1, &[outside]);
    }
    copy.write("model.safetensors.index.json", "{\"weight_map\": 7}");
    ask_copy(&copy).fails_with(1, &["model.safetensors.index.json"]);
}

#[test]
fn a_prompt_that_is_longer_than_the_context() {
    let copy = Copy::of_model();
    copy.configure(json!({"tokenizer_model_max_length": 50}));
    ask_copy(&copy).fails_with(1, &["245 tokens", "28", "50", "shorten"]);
}

#[test]
fn a_tokenizer_that_cannot_be_read() {
    for content in ["", "{}", "[]", "{\"model\": {}}"] {
        let copy = Copy::of_model();
        copy.write("tokenizer.json", content);
        ask_copy(&copy).fails_with(1, &["tokenizer.json"]);
    }
}

#[test]
fn a_tokenizer_of_another_model() {
    let copy = Copy::of_model();
    copy.edit_json("tokenizer.json", |tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        let mut token = added.last().unwrap().clone();
        token["content"] = "Zanzibar".into();
        token["id"] = 384.into();
        added.push(token);
    });
    let model = copy.text();
    opabinia(&["ask", "-m", &model, "Where is Zanzibar?"])
        .fails_with(1, &["token 384", "384 rows", "different models"]);
}

#[test]
fn a_generation_configuration_that_is_wrong() {
    for content in ["{", "{\"eos_token_id\": \"x\"}", "[]"] {
        let copy = Copy::of_model();
        copy.write("generation_config.json", content);
        ask_copy(&copy).fails_with(1, &["generation_config.json"]);
    }
}

#[test]
fn an_image_position_outside_the_prompt() {
    let copy = Copy::of_model();
    copy.configure(json!({"image_position": 4000}));
    ask_copy(&copy).fails_with(1, &["`image_position`", "4000", "--image-position actual"]);
}

#[test]
fn a_picture_for_a_model_without_eyes() {
    let copy = Copy::of_model();
    copy.configure(json!({"mm_vision_tower_aux_list": []}));
    ask_copy(&copy).fails_with(1, &["no vision encoders"]);
}
