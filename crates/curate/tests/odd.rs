//! What goes wrong around a curation: odd paths, empty files, kills, changed benchmarks, misspelt names.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use opabinia_curate::look::{Files, check, has_an_answer};
use opabinia_curate::{CurateError, Manifest, Options, Recipe, Watch, curate};

const WATCH: Watch<'static> = Watch {
    progress: &|_| {},
    cancelled: &|| false,
};

fn line(id: u32, more: &str) -> String {
    format!(
        "{{\"id\": {id}, \"source\": \"s\"{more}, \"conversations\": [{{\"from\": \"human\", \"value\": \
         \"which of these numbers is the same as {id}\"}}, {{\"from\": \"gpt\", \"value\": \"{id}\"}}]}}\n"
    )
}

fn recipe(files: &[PathBuf], more: &str) -> Recipe {
    let mut recipe: Recipe = toml::from_str(more).unwrap();
    recipe.input.files = files.to_vec();
    recipe.resolved("test", Path::new("")).unwrap()
}

fn run(recipe: &Recipe, out: &Path) -> Result<Manifest, CurateError> {
    let options = Options {
        threads: 2,
        part_bytes: 100,
        cluster: None,
        memory_bytes: 64 << 20,
    };
    curate(recipe, out, &options, &WATCH)
}

/// All files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(PathBuf::from(path.file_name().unwrap()), bytes);
            }
        }
    }
    found
}

#[test]
fn patterns_in_paths_are_names() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("[a] b*?#%20 é");
    std::fs::create_dir(&odd).unwrap();
    let pool = odd.join("p[1].jsonl");
    std::fs::write(&pool, line(1, "") + &line(2, "") + &line(1, "")).unwrap();
    let recipe = recipe(&[pool], "[dedup]\nexact = true\nnear = 0.9\n");
    let manifest = run(&recipe, &odd.join("out[*]")).unwrap();
    assert_eq!(manifest.total.of("kept"), 2);
    assert!(odd.join("out[*]/manifest.json").exists());
}

#[test]
fn files_without_a_byte_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("empty"), "").unwrap();
    std::fs::write(at("full"), line(1, "")).unwrap();
    let near = "[dedup]\nexact = true\nnear = 0.9\n";
    let none = run(&recipe(&[at("empty"), at("empty")], near), &at("none")).unwrap();
    assert_eq!(
        (none.total.lines(), none.shards.len(), none.inputs.len()),
        (0, 0, 2)
    );
    let some = recipe(&[at("empty"), at("full"), at("empty")], near);
    let some = run(&some, &at("some")).unwrap();
    assert_eq!(some.total.of("kept"), 1);
    let lines: Vec<u64> = some.inputs.iter().map(|input| input.lines).collect();
    assert_eq!(lines, [0, 1, 0]);
}

#[cfg(target_os = "linux")]
#[test]
fn paths_that_are_no_text_are_refused_or_read_but_never_panic() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"p\xff.jsonl");
    let pool = folder.path().join(name);
    std::fs::write(&pool, line(1, "") + "nonsense\n").unwrap();
    let refused = run(
        &recipe(std::slice::from_ref(&pool), ""),
        &folder.path().join("out"),
    );
    assert!(
        matches!(refused, Err(CurateError::NotUtf8 { .. })),
        "{refused:?}"
    );
    // A link with a name that is text will do.
    let link = folder.path().join("link.jsonl");
    std::os::unix::fs::symlink(&pool, &link).unwrap();
    let out = folder.path().join(std::ffi::OsStr::from_bytes(b"out\xfe"));
    let refused = run(&recipe(std::slice::from_ref(&link), ""), &out);
    assert!(
        matches!(refused, Err(CurateError::NotUtf8 { .. })),
        "{refused:?}"
    );
    let made = run(&recipe(&[link], ""), &folder.path().join("out")).unwrap();
    assert_eq!(made.total.of("kept"), 1);
    let files = Files {
        files: vec![pool],
        ..Files::default()
    };
    let mut found = Vec::new();
    let mut take = |bad| {
        found.push(serde_json::json!(bad).to_string());
        Ok(())
    };
    check(&files, &has_an_answer, &mut take, &WATCH).unwrap();
    assert!(found[0].contains("broken_json"), "{found:?}");
}

#[test]
fn a_kill_while_the_pool_is_moved_leaves_what_the_next_try_finishes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("pool"), line(1, "") + &line(2, "")).unwrap();
    let (one, other) = (recipe(&[at("pool")], ""), recipe(&[at("pool")], "seed = 3"));
    run(&one, &at("whole")).unwrap();
    let whole = files(&at("whole"));
    // Everything is made and the work folder is gone, or half of it.
    for left in [None, Some("work/shards"), Some("work")] {
        std::fs::rename(at("whole"), at("out.partial")).unwrap();
        if let Some(left) = left {
            std::fs::create_dir_all(at("out.partial").join(left)).unwrap();
        }
        run(&one, &at("out")).unwrap();
        assert!(files(&at("out")) == whole, "{left:?}");
        assert!(!at("out.partial").exists());
        std::fs::rename(at("out"), at("whole")).unwrap();
    }
    // What another recipe left is thrown away.
    std::fs::rename(at("whole"), at("out.partial")).unwrap();
    let made = run(&other, &at("out")).unwrap();
    assert_eq!(made.recipe.seed, 3);
    // What nobody knows is not.
    std::fs::create_dir(at("new.partial")).unwrap();
    std::fs::write(at("new.partial/notes.txt"), "mine").unwrap();
    let refused = run(&one, &at("new")).unwrap_err().to_string();
    assert!(refused.contains("interrupted curation"), "{refused}");
}

#[test]
fn a_changed_benchmark_is_another_curation() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("pool"), line(1, "") + &line(2, "")).unwrap();
    let question =
        |id| format!("{{\"question\": \"Which of these numbers is the same as {id}?\"}}\n");
    std::fs::write(at("benchmark"), question(1)).unwrap();
    let recipe = recipe(
        &[at("pool")],
        &format!("[decontaminate]\nquestions = [{:?}]\n", at("benchmark")),
    );
    let first = run(&recipe, &at("out")).unwrap();
    assert_eq!(first.total.of("contaminated"), 1);
    assert_eq!(run(&recipe, &at("out")).unwrap(), first);
    std::fs::write(at("benchmark"), question(1) + &question(2)).unwrap();
    let error = run(&recipe, &at("out")).unwrap_err().to_string();
    assert!(error.contains("files that changed"), "{error}");
    assert_eq!(
        run(&recipe, &at("new")).unwrap().total.of("contaminated"),
        2
    );
}

#[test]
fn prompts_are_counted_by_source_and_category() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (a, b) = (", \"category\": \"a\"", ", \"category\": \"b\"");
    std::fs::write(at("pool"), line(1, a) + &line(2, b) + &line(3, b)).unwrap();
    let text = "[prompts.sources]\ns = ['word']\nz = ['word']\n[[prompts.prompt]]\nname = 'word'\ntext = 'One word.'\n[cap.sources]\nss = 4\n";
    let made = run(&recipe(&[at("pool")], text), &at("out")).unwrap();
    let prompted: Vec<(&str, u64)> = made
        .sources
        .iter()
        .map(|s| (s.category.as_str(), s.prompted))
        .collect();
    assert_eq!(prompted, [("a", 1), ("b", 2)]);
    assert_eq!(made.warnings.len(), 2, "{:?}", made.warnings);
    assert!(
        made.warnings[0].ends_with("did you mean `s`?"),
        "{:?}",
        made.warnings
    );
}
