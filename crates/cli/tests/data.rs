//! `data`: the golden pool through the real binary.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;

use common::{golden, model, opabinia, text};
use serde_json::Value;

/// A sources file for the golden pool, in `folder`.
fn sources(folder: &Path) -> String {
    let known: Value = common::read_json(&golden().join("recipe/pool/sources.json"));
    let mut toml = format!("categories = {}\n", known["categories_in_order"]);
    for (name, about) in known["sources"].as_object().unwrap() {
        toml += &format!(
            "[[source]]\nname = {name:?}\ncategory = {}\n",
            about["category"]
        );
    }
    let path = folder.join("sources.toml");
    std::fs::write(&path, toml).unwrap();
    text(&path)
}

fn pool() -> String {
    text(&golden().join("recipe/pool/pool.jsonl"))
}

fn images() -> String {
    text(&golden().join("recipe/pool/images"))
}

#[test]
fn a_recipe_becomes_a_pool_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    sources(folder.path());
    let recipe = folder.path().join("mix.toml");
    let toml = format!(
        "sources = 'sources.toml'\n[input]\nfiles = [{:?}]\nimages = {:?}\ndecode = true\n\
         [dedup]\nexact = true\n[cap]\nall = 300\n\
         [prompts.sources]\n\"dvqa_like.json\" = ['word']\n\
         [[prompts.prompt]]\nname = 'word'\ntext = 'One word.'\n\
         [output]\nshard_samples = 1000\n",
        pool(),
        images()
    );
    std::fs::write(&recipe, toml).unwrap();
    let out = text(&folder.path().join("pool"));
    let dry = opabinia(&["data", "curate", &text(&recipe), "--dry-run"]).quiet();
    assert!(dry.stdout.contains("dvqa_like.json"));
    let run = opabinia(&["data", "curate", &text(&recipe), "--out", &out, "--json"]).ok();
    let manifest = run.json();
    assert_eq!(manifest["total"]["outcomes"]["kept"], 2760);
    assert_eq!(manifest["total"]["outcomes"]["duplicate"], 300);
    let shards = manifest["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 3);
    // Every kept sample of the source has the prompt, and training reads the shards.
    let source = |name: &str| {
        let all = manifest["sources"].as_array().unwrap();
        all.iter()
            .find(|source| source["source"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(source("dvqa_like.json")["prompted"], 300);
    assert_eq!(source("clevr_like.json")["prompted"], 0);
    let shard = format!("{out}/samples-00000.jsonl");
    opabinia(&["data", "check", &shard, "--images", &images(), "--quiet"]).ok();
    // Once more: it is there.
    let again = opabinia(&["data", "curate", &text(&recipe), "--out", &out, "--json"]).ok();
    assert_eq!(again.json(), manifest);
    // Line 8 is broken JSON; the place is enough to ask for it.
    let why = opabinia(&["data", "why", "pool.jsonl:8", "--pool", &out]).quiet();
    assert!(
        why.stdout.contains("dropped (broken_json)"),
        "{}",
        why.stdout
    );
    let why = opabinia(&["data", "why", "3842", "--pool", &out, "--json"]).quiet();
    let entry = &why.json_lines()[0];
    assert_eq!(entry["line"], 1);
    if entry["outcome"] == "kept" {
        let shard =
            std::fs::read_to_string(format!("{out}/{}", entry["shard"].as_str().unwrap())).unwrap();
        let line = entry["shard_line"].as_u64().unwrap() as usize;
        let sample: Value = serde_json::from_str(shard.lines().nth(line - 1).unwrap()).unwrap();
        assert_eq!(sample["id"], 3842);
    }
    opabinia(&["data", "why", "no such sample", "--pool", &out])
        .fails_with(1, &["no sample `no such sample`", "hint: "]);
}

#[test]
fn steps_are_verbs_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path());
    let path = |name: &str| text(&folder.path().join(name));
    let pool = pool();
    let run = |verb: &str, out: &str, more: &[&str]| {
        let out = path(out);
        let fixed = [
            "data",
            verb,
            &pool,
            "--sources",
            &sources,
            "--json",
            "--quiet",
            "--out",
            &out,
        ];
        let run = opabinia(&[&fixed[..], more].concat()).ok();
        run.json()["total"]["outcomes"]["kept"].as_u64().unwrap()
    };
    // Without the folder of pictures, those that are missing or broken are not noticed.
    let all = run("dedup", "dedup", &[]);
    assert!(all >= 4432, "{all}");
    let capped = run(
        "balance",
        "balance",
        &["--cap", "100", "--cap-source", "dolly_like.json=7"],
    );
    assert!(capped < 12 * 100, "{capped}");
    let ratios = path("ratios.toml");
    std::fs::write(&ratios, "[ratios]\nOCR = 1\nMath = 1\n").unwrap();
    assert_eq!(
        run("mix", "mix", &["--total", "100", "--ratios", &ratios]),
        100
    );
    let prompts = path("prompts.toml");
    let toml = "[[prompt]]\nname = 'w'\ntext = 'One word.'\n[sources]\n'vqa_like.json' = ['w']\n";
    std::fs::write(&prompts, toml).unwrap();
    let kept = run("prompt", "prompt", &["--prompts", &prompts]);
    assert!(kept > all, "{kept}");
    opabinia(&["data", "balance", &pool, "--out", &path("none")])
        .fails_with(1, &["no cap is given"]);
    opabinia(&["data", "dedup", &pool, "--out", &path("dedup")]).fails_with(1, &["another recipe"]);
}

#[test]
fn check_names_every_fault() {
    let arguments = [
        "data",
        "check",
        &pool(),
        "--images",
        &images(),
        "--decode",
        "--quiet",
    ];
    let run = opabinia(&arguments);
    assert_eq!(run.code, Some(1), "{}", run.everything());
    let count = |kind: &str| {
        run.stdout
            .lines()
            .filter(|l| l.starts_with(&format!("{kind}: ")))
            .count()
    };
    assert_eq!(count("broken_json"), 60);
    assert_eq!(count("schema"), 70);
    assert_eq!(count("bad_unicode"), 3);
    assert_eq!(count("missing_image"), 60);
    assert_eq!(count("bad_image"), 20);
    assert!(run.stdout.contains("pool.jsonl:8`: "), "{}", run.stdout);
    // Each says where it is, and what to do.
    for fault in run.stdout.lines() {
        let advice = [
            "remove",
            "mend",
            "put `<image>`",
            "put it into",
            "leave one",
        ];
        assert!(
            fault.contains("pool.jsonl:") && advice.iter().any(|advice| fault.contains(advice)),
            "{fault}"
        );
    }
    run.mentions(&["samples cannot be used; `--max-bad` allows 0", "hint: "]);
    opabinia(&[&arguments[..], &["--max-bad", "50%"]].concat()).ok();
    opabinia(&["data", "check", &pool(), "--decode"]).fails_with(1, &["without `--images`"]);
    opabinia(&["data", "check", "no such file"]).fails_with(1, &["cannot read the samples"]);
}

/// A question without an answer, and an answer behind what fits.
#[test]
fn a_template_says_whether_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let file = text(&folder.path().join("s.jsonl"));
    let line = |question: &str, answer: &str| {
        format!(
            r#"{{"conversations": [{{"from": "human", "value": "{question}"}}, {{"from": "gpt", "value": "{answer}"}}]}}"#
        )
    };
    let long = "many words ".repeat(2000);
    let lines = [line("Who?", "Me."), line("Who?", " "), line(&long, "Me.")];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let check = |more: &[&str]| {
        let run = opabinia(&[&["data", "check", &file, "--quiet"][..], more].concat());
        assert_eq!(run.code, Some(1), "{}", run.everything());
        run.stdout
    };
    let empty = "no_trainable_token: ";
    let by_template = check(&["--template", "llama_3"]);
    assert!(
        by_template.starts_with(empty) && by_template.contains("s.jsonl:2`: no trainable token")
    );
    assert_eq!(by_template.lines().count(), 1, "{by_template}");
    let model = text(&model());
    let by_tokens = check(&[
        "--template",
        "llama_3",
        "--tokenizer",
        &model,
        "--max-length",
        "1500",
    ]);
    let faults: Vec<&str> = by_tokens.lines().collect();
    assert_eq!(faults.len(), 2, "{by_tokens}");
    assert!(
        faults.iter().all(|fault| fault.starts_with(empty))
            && faults[1].contains("s.jsonl:3`")
            && faults[1].contains("raise `max_length` or shorten the sample"),
        "{by_tokens}"
    );
}

#[test]
fn stats_are_a_table_and_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let page = text(&folder.path().join("stats.html"));
    let run = opabinia(&[
        "data",
        "stats",
        &pool(),
        "--images",
        &images(),
        "--pictures",
        "--page",
        &page,
        "--quiet",
    ])
    .quiet();
    assert!(run.stdout.contains("running total"), "{}", run.stdout);
    assert!(
        run.stdout.contains("pictures, the longer side"),
        "{}",
        run.stdout
    );
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("Cumulative view") && html.contains("<polyline"),
        "{html}"
    );
}

#[test]
fn a_sample_is_shown_with_its_mask() {
    let folder = tempfile::tempdir().unwrap();
    let file = text(&folder.path().join("s.jsonl"));
    let page = text(&folder.path().join("page.html"));
    let line = r#"{"id": 5, "conversations": [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "Three"}]}"#;
    std::fs::write(&file, format!("\n{line}\n")).unwrap();
    let plain = opabinia(&["data", "show", &file, "--line", "2"]).quiet();
    assert!(
        plain.stdout.contains("id: 5") && plain.stdout.contains("human: How many?"),
        "{}",
        plain.stdout
    );
    let model = text(&model());
    let masked = opabinia(&[
        "data",
        "show",
        &file,
        "--line",
        "2",
        "--mask",
        "--template",
        "llama_3",
        "--tokenizer",
        &model,
        "--page",
        &page,
    ])
    .ok();
    assert!(
        masked.stdout.contains("⟦") && masked.stdout.contains("Three"),
        "{}",
        masked.stdout
    );
    assert!(std::fs::read_to_string(&page).unwrap().contains("<mark>"));
    // Exchanges that do not see each other, behind what they share.
    let two = r#"{"conversations": [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "Three"},
        {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So"}]}"#;
    std::fs::write(folder.path().join("two.jsonl"), two.replace('\n', " ")).unwrap();
    let two = text(&folder.path().join("two.jsonl"));
    let prompt = [
        "data",
        "show",
        &two,
        "--mask",
        "--template",
        "llama_3",
        "--apart",
    ];
    let apart = opabinia(&[&prompt[..], &["--tokenizer", &model]].concat()).ok();
    assert_eq!(apart.stdout.matches("└─ ").count(), 2, "{}", apart.stdout);
    assert_eq!(opabinia(&prompt).code, Some(2));
    // Without a tokenizer, by characters.
    let written = opabinia(&[
        "data",
        "show",
        &file,
        "--line",
        "2",
        "--mask",
        "--template",
        "vicuna_v1",
    ])
    .ok()
    .mentions(&["by characters"]);
    assert!(
        written.stdout.contains("USER: How many? ASSISTANT:")
            && written.stdout.contains("Three</s>⟧"),
        "{}",
        written.stdout
    );
    opabinia(&["data", "show", &file, "--line", "1"])
        .fails_with(1, &["no sample begins on line 1"]);
    assert_eq!(opabinia(&["data", "show", &file, "--mask"]).code, Some(2));
}

#[test]
fn other_formats_come_in_and_go_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&folder.path().join(name));
    let array = r#"[{"id": 1, "messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]}]"#;
    std::fs::write(path("chat.json"), array).unwrap();
    let run = opabinia(&[
        "data",
        "convert",
        &path("chat.json"),
        "--out",
        &path("lines"),
        "--json",
    ])
    .ok();
    assert_eq!(run.json()["samples"], 1);
    opabinia(&[
        "data",
        "check",
        &path("lines/samples-00000.jsonl"),
        "--quiet",
    ])
    .ok();
    let lines = path("lines/samples-00000.jsonl");
    for format in ["parquet", "webdataset"] {
        let out = path(format);
        opabinia(&[
            "data", "convert", &lines, "--to", format, "--out", &out, "--quiet",
        ])
        .quiet();
    }
    opabinia(&["data", "convert", &lines, "--out", &path("lines")])
        .fails_with(1, &["there already"]);
}

#[test]
fn samples_of_a_benchmark_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&folder.path().join(name));
    let line = |question: &str| {
        format!(
            r#"{{"conversations": [{{"from": "human", "value": "{question}"}}, {{"from": "gpt", "value": "Yes"}}]}}"#
        )
    };
    let asked = "Is the ball in front of the cube or behind it?";
    std::fs::write(
        path("pool.jsonl"),
        format!("{}\n{}\n", line(asked), line("Why?")),
    )
    .unwrap();
    std::fs::write(
        path("bench.jsonl"),
        format!("{{\"question\": \"{asked}\"}}\n"),
    )
    .unwrap();
    let (pool, out, bench) = (path("pool.jsonl"), path("out"), path("bench.jsonl"));
    let run = opabinia(&[
        "data",
        "decontaminate",
        &pool,
        "--out",
        &out,
        "--questions",
        &bench,
        "--json",
    ])
    .ok();
    assert_eq!(run.json()["total"]["outcomes"]["contaminated"], 1);
    let why = opabinia(&["data", "why", "pool.jsonl:1", "--pool", &out]).quiet();
    assert!(why.stdout.contains("a benchmark asks"), "{}", why.stdout);
    opabinia(&["data", "decontaminate", &pool, "--out", &out]).fails_with(1, &["no benchmark"]);
}

/// Runs a curation until a file is there, and kills it. It may be done by then; that is fine.
fn kill_when(there: &Path, arguments: &[&str]) {
    let mut command = common::program(arguments);
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    while !there.exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn a_killed_curation_goes_on_and_ends_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&folder.path().join(name));
    let recipe = path("mix.toml");
    let toml = format!(
        "[input]\nfiles = [{:?}]\n[dedup]\nexact = true\n[cap]\nall = 400\n[output]\nshard_samples = 50\n",
        pool()
    );
    std::fs::write(&recipe, toml).unwrap();
    let whole = path("whole");
    let print = |out: &str| {
        let run = opabinia(&["data", "curate", &recipe, "--out", out, "--json", "--quiet"]).ok();
        run.json()
    };
    let expected = print(&whole);
    for (name, moment) in [
        ("a", "work/job.json"),
        ("b", "work/index/part-00000.parquet"),
        ("c", "work/shards/00001.json"),
        ("d", "ledger/part-00000.parquet"),
    ] {
        let out = path(name);
        let there = folder.path().join(format!("{name}.partial")).join(moment);
        kill_when(&there, &["data", "curate", &recipe, "--out", &out]);
        // Nothing half-written is taken for whole: the folder is there with all of it, or not.
        let finished = Path::new(&out).exists();
        assert_eq!(
            Path::new(&out).join("manifest.json").exists(),
            finished,
            "{moment}"
        );
        assert_eq!(print(&out), expected, "{moment}");
        for shard in expected["shards"].as_array().unwrap() {
            let file = shard["file"].as_str().unwrap();
            let read = |pool: &str| std::fs::read(Path::new(pool).join(file)).unwrap();
            assert!(read(&out) == read(&whole), "{moment}: {file}");
        }
        assert!(!folder.path().join(format!("{name}.partial")).exists());
    }
}

#[test]
fn other_formats_are_read_directly() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&folder.path().join(name));
    let turns = |q: &str| serde_json::json!([{"role": "user", "content": q}, {"role": "assistant", "content": "Yes."}]);
    let records: Vec<Value> = ["Is it?", "Was it?"]
        .map(|q| serde_json::json!({"source": "s", "messages": turns(q)}))
        .into();
    std::fs::write(at("chat.json"), serde_json::json!(records).to_string()).unwrap();
    opabinia(&["data", "check", &at("chat.json"), "--quiet"]).ok();
    let shown = opabinia(&["data", "stats", &at("chat.json"), "--json", "--quiet"]).ok();
    assert_eq!(shown.json()["total"]["samples"], 2);
    std::fs::write(
        at("chat.jsonl"),
        format!("{}\n{}\n", records[0], records[1]),
    )
    .unwrap();
    for name in ["chat.jsonl", "chat.json"] {
        let shown = opabinia(&["data", "show", &at(name), "--line", "2"]).quiet();
        assert!(
            shown.stdout.contains("human: Was it?"),
            "{}",
            shown.everything()
        );
    }
    let run = opabinia(&[
        "data",
        "balance",
        &at("chat.json"),
        "--cap-source",
        "z=1",
        "--out",
        &at("pool"),
        "--json",
    ])
    .ok();
    assert_eq!(run.json()["total"]["outcomes"]["kept"], 2);
    assert!(
        run.stderr.contains("warning: `cap.sources` names `z`"),
        "{}",
        run.everything()
    );
    // Pictures inside have to be unpacked first, and the complaint says how.
    let golden_pool = [
        pool(),
        "--out".to_owned(),
        at("tar"),
        "--images".to_owned(),
        images(),
    ];
    let mut arguments = vec!["data", "convert", "--to", "webdataset", "--quiet"];
    arguments.extend(golden_pool.iter().map(String::as_str));
    opabinia(&arguments).ok();
    let tar = at("tar/samples-00000.tar");
    opabinia(&["data", "show", &tar, "--line", "3"]).ok();
    let refused = opabinia(&["data", "dedup", &tar, "--out", &at("no"), "--quiet"]);
    refused.fails_with(1, &["opabinia data convert"]);
}

#[test]
fn rewriting_needs_a_server_and_changes_nothing_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&folder.path().join(name));
    let line = serde_json::json!({"conversations": [
        {"from": "human", "value": "Which?"}, {"from": "gpt", "value": "This"}]});
    std::fs::write(at("pool.jsonl"), format!("{line}\n")).unwrap();
    let (pool, out) = (at("pool.jsonl"), at("out"));
    // Port 9 of this machine discards, if anything.
    let base = [
        "data",
        "rewrite",
        &pool,
        "--out",
        &out,
        "--url",
        "http://127.0.0.1:9/v1",
        "--model",
        "m",
        "--quiet",
        "--retries",
        "0",
    ];
    opabinia(&base).fails_with(1, &["cannot be asked"]);
    assert!(!Path::new(&out).exists());
    let arguments: Vec<&str> = base
        .into_iter()
        .chain(["--budget-requests", "0", "--finish"])
        .collect();
    opabinia(&arguments).ok();
    let after = std::fs::read_to_string(format!("{out}/samples.jsonl")).unwrap();
    assert_eq!(after, format!("{line}\n"));
}

#[cfg(not(feature = "cluster"))]
#[test]
fn a_program_without_clusters_says_how_to_build_one() {
    let folder = tempfile::tempdir().unwrap();
    let out = text(&folder.path().join("out"));
    let recipe = text(&folder.path().join("mix.toml"));
    std::fs::write(&recipe, format!("[input]\nfiles = [{:?}]\n", pool())).unwrap();
    let base = ["data", "curate", &recipe, "--out", &out, "--quiet"];
    let arguments: Vec<&str> = base.into_iter().chain(["--cluster", "df://h:1"]).collect();
    opabinia(&arguments).fails_with(1, &["built without clusters", "--features cluster"]);
}
