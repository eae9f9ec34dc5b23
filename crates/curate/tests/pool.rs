//! The golden pool, from its file to the counts of every step, through the public API.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use opabinia_curate::manifest::Tally;
use opabinia_curate::select::Outcome;
use opabinia_curate::{CurateError, Manifest, Options, Recipe, Watch, curate, ledger};
use serde_json::Value;

fn golden(name: &str) -> PathBuf {
    let root = std::env::var_os("OPABINIA_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        Into::into,
    );
    root.join("recipe/pool").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden(name)).unwrap()).unwrap()
}

fn recipe(more: &str) -> Recipe {
    let sources = json("sources.json");
    let mut text = format!("categories = {}\n", sources["categories_in_order"]);
    let mut rules = String::new();
    for (name, about) in sources["sources"].as_object().unwrap() {
        rules += &format!(
            "[[source]]\nname = {name:?}\ncategory = {}\n",
            about["category"]
        );
    }
    text += &rules;
    text += &format!(
        "[input]\nfiles = [{:?}]\nimages = {:?}\ndecode = true\nplaceholders = 'anywhere'\n{more}",
        golden("pool.jsonl"),
        golden("images"),
    );
    let recipe: Recipe = toml::from_str(&text).unwrap();
    recipe.resolved("test", Path::new("")).unwrap()
}

const EXACT: &str = "[dedup]\nexact = true\n";

fn mix(total: u64, shortfall: &str) -> String {
    let expected = json("expected.json");
    let mut text = format!("[mix]\ntotal = {total}\nshortfall = '{shortfall}'\n[mix.ratios]\n");
    for (name, weight) in expected["ratio_percent_as_published"].as_object().unwrap() {
        text += &format!("{name} = {weight}\n");
    }
    text
}

fn run(recipe: &Recipe, out: &Path, options: &Options) -> Result<Manifest, CurateError> {
    let watch = Watch {
        progress: &|_| {},
        cancelled: &|| false,
    };
    curate(recipe, out, options, &watch)
}

/// Small parts, so that there are many.
fn options(threads: usize) -> Options {
    Options {
        threads,
        part_bytes: 100_000,
        cluster: None,
        memory_bytes: 64 << 20,
    }
}

fn made(more: &str) -> (tempfile::TempDir, Manifest) {
    let folder = tempfile::tempdir().unwrap();
    let manifest = run(&recipe(more), &folder.path().join("pool"), &options(2)).unwrap();
    (folder, manifest)
}

fn counts(value: &Value) -> BTreeMap<String, u64> {
    let entries = value.as_object().unwrap().iter();
    entries
        .map(|(name, count)| (name.clone(), count.as_u64().unwrap()))
        .collect()
}

fn by_source(manifest: &Manifest, count: impl Fn(&Tally) -> u64) -> BTreeMap<String, u64> {
    let sources = manifest.sources.iter();
    sources
        .map(|source| (source.source.clone(), count(&source.tally)))
        .collect()
}

fn by_category(manifest: &Manifest, count: impl Fn(&Tally) -> u64) -> BTreeMap<String, u64> {
    let categories = manifest.categories();
    categories
        .iter()
        .map(|(name, tally)| (name.clone(), count(tally)))
        .collect()
}

#[test]
fn every_line_has_the_golden_class() {
    let expected = json("expected.json");
    let (folder, manifest) = made(EXACT);
    let classes = expected["line_classes_rle"].as_array().unwrap();
    let classes: Vec<&str> = classes
        .iter()
        .flat_map(|run| {
            let class = run[0].as_str().unwrap();
            std::iter::repeat_n(class, run[1].as_u64().unwrap() as usize)
        })
        .collect();
    let entries = ledger::find(&folder.path().join("pool"), usize::MAX, &|_| true).unwrap();
    assert_eq!(entries.len(), classes.len());
    for (i, (entry, class)) in entries.iter().zip(classes).enumerate() {
        assert_eq!(entry.line, i as u64 + 1);
        let outcome = match entry.outcome.as_str() {
            "kept" => "ok",
            other => other,
        };
        assert_eq!(outcome, class, "line {}: {}", i + 1, entry.why);
        assert_eq!(entry.why.is_empty(), outcome == "ok", "line {}", i + 1);
    }
    let per_class = counts(&expected["outcome_per_line_class"]);
    for (class, count) in per_class {
        let name = if class == "ok" { "kept" } else { &class };
        assert_eq!(manifest.total.of(name), count, "{class}");
    }
    assert_eq!(
        by_source(&manifest, Tally::unique),
        counts(&expected["accepted_unique_per_source"])
    );
    assert_eq!(
        by_category(&manifest, Tally::unique),
        counts(&expected["accepted_unique_per_category"])
    );
    let view = expected["cumulative_view_sorted_by_count_then_name"]
        .as_array()
        .unwrap();
    let cumulative = manifest.cumulative();
    assert_eq!(cumulative.len(), view.len());
    for ((name, has, running), row) in cumulative.iter().zip(view) {
        assert_eq!(Some(name.as_str()), row[0].as_str());
        assert_eq!(
            (Some(*has), Some(*running)),
            (row[1].as_u64(), row[2].as_u64())
        );
    }
}

#[test]
fn caps_leave_the_golden_counts() {
    let expected = json("expected.json");
    let cap = expected["threshold"].as_u64().unwrap();
    let (_folder, manifest) = made(&format!("{EXACT}[cap]\nall = {cap}\n"));
    let kept = |tally: &Tally| tally.of("kept");
    assert_eq!(
        by_source(&manifest, kept),
        counts(&expected["after_threshold_per_source"])
    );
    assert_eq!(
        by_category(&manifest, kept),
        counts(&expected["after_threshold_per_category"])
    );
    assert_eq!(
        manifest.total.of("kept"),
        expected["after_threshold_total"].as_u64().unwrap()
    );
    assert_eq!(
        manifest.total.after(Outcome::CapAll),
        manifest.total.of("kept")
    );
    let thresholds = expected["thresholds_total"].as_object().unwrap();
    assert!(!thresholds.is_empty());
    for (threshold, total) in thresholds {
        let (_folder, manifest) = made(&format!("{EXACT}[cap]\nall = {threshold}\n"));
        let kept = manifest.total.of("kept");
        assert_eq!(Some(kept), total.as_u64(), "cap {threshold}");
    }
}

#[test]
fn mixtures_have_the_golden_counts() {
    let expected = json("expected.json");
    let kept = |tally: &Tally| tally.of("kept");
    let cap = format!("{EXACT}[cap]\nall = {}\n", expected["threshold"]);
    for case in expected["mixes_for_other_totals_after_threshold"]
        .as_array()
        .unwrap()
    {
        let total = case["total"].as_u64().unwrap();
        for policy in ["report_shortfall", "redistribute"] {
            let name = policy.trim_end_matches("_shortfall");
            let (_folder, manifest) = made(&(cap.clone() + &mix(total, name)));
            assert_eq!(
                by_category(&manifest, kept),
                counts(&case[policy]),
                "{total} {policy}"
            );
        }
    }
    let total = expected["mix_total_wanted"].as_u64().unwrap();
    let (_folder, manifest) = made(&(cap + &mix(total, "redistribute")));
    assert_eq!(
        by_source(&manifest, kept),
        counts(&expected["mix_after_threshold_redistribute_per_source"])
    );
}

/// All files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    collect(folder, Path::new(""), &mut found);
    found
}

fn collect(root: &Path, below: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let name = below.join(entry.unwrap().file_name());
        match root.join(&name).is_dir() {
            true => collect(root, &name, found),
            false => {
                let bytes = std::fs::read(root.join(&name)).unwrap();
                found.insert(name, bytes);
            }
        }
    }
}

fn small_shards(more: &str) -> Recipe {
    let mut recipe = recipe(more);
    recipe.output.shard_samples = 300;
    recipe
}

#[test]
fn threads_and_memory_change_no_byte() {
    let recipe = small_shards(&format!("{EXACT}[cap]\nall = 300\n{}", mix(1350, "report")));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    run(&recipe, &at("one"), &options(1)).unwrap();
    run(&recipe, &at("four"), &options(4)).unwrap();
    let one = files(&at("one"));
    assert_eq!(
        one.keys()
            .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
            .count(),
        5
    );
    assert!(one == files(&at("four")));
    assert!(!at("one.partial").exists());
    // The offset index is what training would have found by itself.
    let shard = at("one").join("samples-00000.jsonl");
    let indexed = opabinia_data::SampleFile::open(&shard).unwrap();
    std::fs::remove_file(opabinia_data::offsets::index_path(&shard)).unwrap();
    let scanned = opabinia_data::SampleFile::open(&shard).unwrap();
    assert_eq!((indexed.len(), indexed.sha256()), (300, scanned.sha256()));
    for i in [0, 7, 299] {
        assert_eq!(indexed.sample(i).unwrap(), scanned.sample(i).unwrap());
    }
}

#[test]
fn a_larger_cap_keeps_what_a_smaller_one_kept() {
    let lines = |cap: u64, seed: u64| {
        let mut recipe = recipe(&format!("{EXACT}[cap]\nall = {cap}\n"));
        recipe.seed = seed;
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("pool");
        run(&recipe, &out, &options(2)).unwrap();
        let text = std::fs::read(out.join("samples-00000.jsonl")).unwrap();
        text.split(|b| *b == b'\n')
            .map(<[u8]>::to_vec)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let (small, large) = (lines(100, 0), lines(200, 0));
    assert!(small.is_subset(&large));
    assert!(!lines(100, 1).is_subset(&large));
}

/// What a sample says, without its place.
fn said(line: &[u8]) -> String {
    let place = opabinia_data::Place::new(Path::new("s"), 1);
    let sample = opabinia_data::Sample::parse(line, place).unwrap();
    format!("{:?} {:?} {:?}", sample.source, sample.image, sample.turns)
}

#[test]
fn the_order_of_lines_and_files_changes_no_choice() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read(golden("pool.jsonl")).unwrap();
    let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    lines.reverse();
    let half = lines.len() / 2;
    let files = [("b", &lines[..half]), ("a", &lines[half..])].map(|(name, lines)| {
        let path = folder.path().join(name);
        std::fs::write(&path, lines.concat()).unwrap();
        path
    });
    let kept = |name: &str, files: &[PathBuf]| {
        let mut recipe = recipe(&format!("[cap]\nall = 150\n{}", mix(900, "report")));
        recipe.input.files = files.to_vec();
        let out = folder.path().join(name);
        run(&recipe, &out, &options(2)).unwrap();
        let text = std::fs::read(out.join("samples-00000.jsonl")).unwrap();
        let lines = text.split(|byte| *byte == b'\n').filter(|l| !l.is_empty());
        let mut said: Vec<String> = lines.map(said).collect();
        said.sort_unstable();
        said
    };
    let forward = kept("forward", &[golden("pool.jsonl")]);
    assert!(forward.len() > 500, "{}", forward.len());
    assert!(forward == kept("backward", &files));
    let [b, a] = files;
    assert!(forward == kept("halves", &[a, b]));
}

/// So many small samples, every tenth one a repetition.
fn many(path: &Path, count: u64) {
    let line = |i: u64| {
        let said = if i % 10 == 9 { i - 5 } else { i };
        format!(
            "{{\"id\": {i}, \"source\": \"s{}\", \"conversations\": [{{\"from\": \"human\", \"value\": \
             \"number {said}?\"}}, {{\"from\": \"gpt\", \"value\": \"{said}\"}}]}}\n",
            said % 7
        )
    };
    std::fs::write(path, (0..count).map(line).collect::<String>()).unwrap();
}

/// Whether there is a file below a folder.
fn has_file(folder: &Path) -> bool {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let mut paths = entries.map(|entry| entry.path());
    paths.any(|path| path.is_file() || has_file(&path))
}

#[test]
fn a_selection_that_does_not_fit_into_memory_is_spilled_and_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    many(&at("pool.jsonl"), 200_000);
    let text = format!(
        "[input]\nfiles = [{:?}]\n{EXACT}[cap]\nall = 20000\n",
        at("pool.jsonl")
    );
    let recipe: Recipe = toml::from_str(&text).unwrap();
    let recipe = recipe.resolved("test", Path::new("")).unwrap();
    let made = |name: &str, memory_bytes: usize| {
        let spilled = std::sync::atomic::AtomicBool::new(false);
        let spill = at(&format!("{name}.partial")).join("work/spill");
        let watch = Watch {
            progress: &|progress| {
                if progress.stage == "select" && has_file(&spill) {
                    spilled.store(true, std::sync::atomic::Ordering::Relaxed);
                }
            },
            cancelled: &|| false,
        };
        let options = Options {
            part_bytes: 4 << 20,
            memory_bytes,
            ..options(2)
        };
        let made = curate(&recipe, &at(name), &options, &watch).unwrap();
        assert_eq!(made.total.of("duplicate"), 20_000);
        assert_eq!(made.total.of("kept"), 140_000);
        spilled.into_inner()
    };
    assert!(!made("large", 1 << 30));
    assert!(made("small", 8 << 20), "nothing was spilled");
    assert!(files(&at("large")) == files(&at("small")));
}

#[test]
fn what_is_interrupted_goes_on_and_ends_the_same() {
    let recipe = small_shards(&format!("{EXACT}[cap]\nall = 300\n"));
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    run(&recipe, &whole, &options(2)).unwrap();
    for stage in ["index", "select", "copy", "ledger"] {
        let out = folder.path().join(stage);
        let now = std::sync::atomic::AtomicBool::new(false);
        let watch = Watch {
            progress: &|progress| {
                if progress.stage == stage {
                    now.store(true, std::sync::atomic::Ordering::SeqCst);
                }
            },
            cancelled: &|| now.load(std::sync::atomic::Ordering::SeqCst),
        };
        let stopped = curate(&recipe, &out, &options(2), &watch);
        assert!(
            matches!(stopped, Err(CurateError::Interrupted)),
            "{stage}: {stopped:?}"
        );
        assert!(!out.exists(), "{stage}");
        run(&recipe, &out, &options(2)).unwrap();
        assert!(files(&out) == files(&whole), "{stage}");
    }
}

#[test]
fn another_recipe_does_not_overwrite() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("pool");
    let first = run(&recipe(EXACT), &out, &options(2)).unwrap();
    // Done already.
    assert_eq!(run(&recipe(EXACT), &out, &options(2)).unwrap(), first);
    let error = run(&recipe(""), &out, &options(2)).unwrap_err().to_string();
    assert!(error.contains("another recipe"), "{error}");
    std::fs::create_dir(folder.path().join("other")).unwrap();
    std::fs::write(folder.path().join("other/notes.txt"), "mine").unwrap();
    let error = run(&recipe(""), &folder.path().join("other"), &options(2)).unwrap_err();
    assert!(error.to_string().contains("no pool"), "{error}");
}

#[test]
fn too_many_bad_ones_end_it() {
    let mut recipe = recipe("");
    recipe.input.max_bad = "10".parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = run(&recipe, &folder.path().join("pool"), &options(2))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("253 of 4985 samples cannot be used (60 broken_json, 70 schema"),
        "{error}"
    );
}

fn line(id: u32, image: &str, question: &str, answer: &str) -> String {
    let line = serde_json::json!({"id": id, "image": image, "source": "s", "conversations": [
        {"from": "human", "value": if image.is_empty() { question.to_owned() } else { format!("<image>\n{question}") }},
        {"from": "gpt", "value": answer}]});
    format!("{line}\n")
}

/// What was missing is looked for again, though the file that names it is the same.
#[test]
fn pictures_may_come_later() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("pool.jsonl"), line(1, "a.png", "What is it?", "A ramp.")).unwrap();
    std::fs::create_dir(at("images")).unwrap();
    let text = format!(
        "[input]\nfiles = [{:?}]\nimages = {:?}\nmax_bad = 0\n",
        at("pool.jsonl"),
        at("images")
    );
    let recipe: Recipe = toml::from_str(&text).unwrap();
    let recipe = recipe.resolved("test", Path::new("")).unwrap();
    let error = run(&recipe, &at("out"), &options(2))
        .unwrap_err()
        .to_string();
    assert!(error.contains("1 missing_image"), "{error}");
    let picture = opabinia_image::RgbImage::from_raw(8, 8, vec![9; 3 * 64]).unwrap();
    picture.save_png(at("images/a.png")).unwrap();
    let manifest = run(&recipe, &at("out"), &options(2)).unwrap();
    assert_eq!(manifest.total.samples, 1);
}

const LONG: &str = "There are three balls on the table, and the largest of them is red, while the other two are blue \
                    and lie behind a yellow cube that stands near the window of the room.";

#[test]
fn what_is_almost_the_same_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let almost = LONG.replace("yellow", "green");
    let other = LONG.split(' ').rev().collect::<Vec<_>>().join(" ");
    let pool = folder.path().join("pool.jsonl");
    let lines = [
        line(1, "", "What is there?", LONG),
        line(2, "", "What is there?", &almost),
        line(3, "a.png", "What is there?", LONG),
        line(4, "", "What is there?", &other),
        line(5, "", "What is there?", LONG),
        line(6, "", "what is there", &almost),
    ];
    std::fs::write(&pool, lines.concat()).unwrap();
    let text = format!("[input]\nfiles = [{pool:?}]\n[dedup]\nexact = true\nnear = 0.8\n");
    let recipe: Recipe = toml::from_str(&text).unwrap();
    let recipe = recipe.resolved("test", Path::new("")).unwrap();
    let out = folder.path().join("out");
    let manifest = run(
        &recipe,
        &out,
        &Options {
            part_bytes: 400,
            ..options(2)
        },
    )
    .unwrap();
    let entries = ledger::find(&out, 99, &|_| true).unwrap();
    let outcomes: Vec<&str> = entries.iter().map(|entry| entry.outcome.as_str()).collect();
    assert_eq!(
        outcomes,
        [
            "kept",
            "near_duplicate",
            "kept",
            "kept",
            "duplicate",
            "near_duplicate"
        ]
    );
    assert!(
        entries[1].why.contains("almost the same words as `")
            && entries[1].why.ends_with("pool.jsonl:1`"),
        "{}",
        entries[1].why
    );
    assert_eq!(manifest.total.of("near_duplicate"), 2);
}

#[test]
fn pictures_are_compared_by_pixels_and_looks_and_with_benchmarks() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("images")).unwrap();
    std::fs::create_dir_all(at("benchmark")).unwrap();
    let ramp = |width: u32, step: u32, falling: bool| {
        let grey = |x: u32| if falling { 250 - step * x } else { step * x } as u8;
        let row: Vec<u8> = (0..width).flat_map(|x| [grey(x); 3]).collect();
        opabinia_image::RgbImage::from_raw(width, 20, row.repeat(20)).unwrap()
    };
    ramp(90, 2, true).save_png(at("images/a.png")).unwrap();
    ramp(90, 2, true).save_png(at("images/same.png")).unwrap();
    ramp(45, 4, true)
        .save_png(at("images/smaller.png"))
        .unwrap();
    ramp(90, 2, false).save_png(at("images/other.png")).unwrap();
    ramp(60, 3, false)
        .save_png(at("benchmark/other.png"))
        .unwrap();
    std::fs::write(
        at("benchmark.jsonl"),
        "{\"question\": \"Which one of these balls is the largest of all?\"}\n",
    )
    .unwrap();
    let names = ["a.png", "same.png", "smaller.png", "other.png"];
    let mut lines: Vec<String> = names
        .iter()
        .map(|name| line(1, name, "What is it?", "A ramp."))
        .collect();
    lines.push(line(
        2,
        "",
        "which one of these balls is the largest of all",
        "The red one.",
    ));
    std::fs::write(at("pool.jsonl"), lines.concat()).unwrap();
    let outcomes = |pictures: &str, more: &str| {
        let text = format!(
            "[input]\nfiles = [{:?}]\nimages = {:?}\n[dedup]\nexact = true\npictures = '{pictures}'\n{more}",
            at("pool.jsonl"),
            at("images"),
        );
        let recipe: Recipe = toml::from_str(&text).unwrap();
        let recipe = recipe.resolved("test", Path::new("")).unwrap();
        let out = tempfile::tempdir().unwrap();
        let out = out.path().join("out");
        run(&recipe, &out, &options(2)).unwrap();
        let entries = ledger::find(&out, 99, &|_| true).unwrap();
        entries
            .iter()
            .map(|entry| entry.outcome.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(outcomes("path", ""), ["kept"; 5]);
    assert_eq!(
        outcomes("pixels", ""),
        ["kept", "duplicate", "kept", "kept", "kept"]
    );
    assert_eq!(
        outcomes("looks", ""),
        ["kept", "duplicate", "duplicate", "kept", "kept"]
    );
    let clean = format!(
        "[decontaminate]\nquestions = [{:?}]\nimages = [{:?}]\n",
        at("benchmark.jsonl"),
        at("benchmark")
    );
    assert_eq!(
        outcomes("path", &clean),
        ["kept", "kept", "kept", "contaminated", "contaminated"]
    );
}
