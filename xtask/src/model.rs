//! `cargo xtask model`: the model that ships with the program, from nothing.
//!
//! Every step is a command of the program itself, so what is shown here is what a user can do. Each of
//! them goes on where it was interrupted, and so does this task. At the end the model, the recipes'
//! resolved forms, thinned logs of the runs and the table of scores are put into `models/small`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::Args;

use crate::failure::{Failure, Outcome};

/// Where the shipped model lies.
const SHIPPED: &str = "models/small";
/// A world that has to be made before the recipes run.
struct World {
    folder: &'static str,
    seed: &'static str,
    /// Pictures for one of those that were asked for.
    share: f64,
    /// Samples of text for one picture.
    texts: f64,
    options: &'static [&'static str],
}

/// The world that the model lives in; one of few things, to begin with; documents with charts, to learn to read from;
/// and close-ups, from which encoders learn.
const WORLDS: [World; 4] = [
    World {
        folder: "data/world",
        seed: "22",
        share: 1.0,
        texts: 0.4,
        options: &[
            "--mix",
            "scene=10,word=3,lines=1,labels=1,table=1,bar=3,line=1,pie=1",
            "--turns",
            "4",
            "--sentences",
            "0.3",
            "--letters",
            "0.15",
            "--labels",
        ],
    },
    World {
        folder: "data/few",
        seed: "21",
        share: 0.8,
        texts: 1.0 / 6.0,
        options: &[
            "--mix",
            "scene=6,close_up=1",
            "--objects",
            "3",
            "--turns",
            "3",
            "--sentences",
            "0.2",
            "--letters",
            "0",
            "--labels",
        ],
    },
    World {
        folder: "data/text",
        seed: "24",
        share: 1.0,
        texts: 0.0,
        options: &[
            "--mix",
            "word=4,lines=5,labels=3,table=3,bar=2,line=1,pie=1",
            "--labels",
        ],
    },
    World {
        folder: "data/close",
        seed: "2",
        share: 0.8,
        texts: 0.2,
        options: &["--mix", "close_up=3,word=1"],
    },
];
/// Its recipes in the order in which they build on each other.
const STAGES: [&str; 9] = [
    "decoder",
    "language-encoder",
    "conv-encoder",
    "text-encoder",
    "words",
    "align",
    "instruct-few",
    "instruct",
    "instruct-more",
];
/// Of so many lines of a run's log one is kept beside the model.
const LOG_EVERY: usize = 10;
/// Lines of the model card between which the table of scores stands.
const BEGIN: &str = "<!-- scores: begin -->";
const END: &str = "<!-- scores: end -->";
/// Largest size of the folder in the repository.
const MOST_BYTES: u64 = 24 << 20;

/// Makes the world, trains everything in it, judges the result, and installs it.
#[derive(Args)]
pub(crate) struct Model {
    /// Pictures to learn from.
    #[arg(long, default_value_t = 15_000)]
    pictures: usize,
    /// Pictures to be examined with.
    #[arg(long, default_value_t = 1500)]
    test: usize,
    /// Another value for a key of every recipe, such as `schedule.steps=10`; for trying this task.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Device to train on.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Leave the result in `runs/small`, and `models/small` as it is.
    #[arg(long)]
    no_install: bool,
}

impl Model {
    pub(crate) fn run(self) -> Outcome {
        let start = Instant::now();
        command("cargo", &["build", "--release"])?;
        let program = Path::new("target/release/opabinia");
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let program = target.map_or_else(|| program.to_path_buf(), |t| t.join("release/opabinia"));
        let program = program.display().to_string();
        for world in &WORLDS {
            make_world(&program, world, self.pictures, self.test)?;
        }
        for stage in STAGES {
            let recipe = format!("recipes/small/{stage}.toml");
            let mut arguments = vec!["train", &recipe, "--device", &self.device];
            for pair in &self.set {
                arguments.extend(["--set", pair]);
            }
            command(&program, &arguments)?;
        }
        let questions = format!("{}/test/questions.jsonl", WORLDS[0].folder);
        let model = "runs/small/instruct-more/model";
        let scores = "runs/small/scores.md";
        command(
            &program,
            &["eval", &questions, "--model", model, "--markdown", scores],
        )?;
        if !self.no_install {
            install(Path::new(model), Path::new(scores))?;
            let curves = format!("{SHIPPED}/curves.svg");
            let runs = ["align", "instruct-few", "instruct", "instruct-more"]
                .map(|run| format!("runs/small/{run}"));
            let mut compare = vec!["train", "compare"];
            compare.extend(runs.iter().map(String::as_str));
            compare.extend(["--axis", "samples", "--out", &curves]);
            command(&program, &compare)?;
        }
        let minutes = start.elapsed().as_secs() / 60;
        println!("done in {} h {:02} min", minutes / 60, minutes % 60);
        Ok(())
    }
}

fn make_world(program: &str, world: &World, pictures: usize, test: usize) -> Outcome {
    let count = |of: usize, share: f64| ((of as f64 * share).round() as usize).to_string();
    let texts = count(pictures, world.share * world.texts);
    let (pictures, test) = (count(pictures, world.share), count(test, world.share));
    let sizes = ["--pictures", &pictures, "--test", &test, "--texts", &texts];
    let rest = ["--seed", world.seed, "--no-annotations"];
    command(
        program,
        &[
            &["world", "make", world.folder][..],
            &sizes,
            &rest,
            world.options,
        ]
        .concat(),
    )
}

/// Runs a program and shows what it says.
fn command(program: &str, arguments: &[&str]) -> Outcome {
    let line = format!("{program} {}", arguments.join(" "));
    println!("\n$ {line}");
    let status = Command::new(program).args(arguments).status();
    let status = status.map_err(|source| Failure::Run {
        command: line.clone(),
        source,
    })?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Command {
        command: line,
        status,
    })
}

/// Puts the model and what is known about it in its place.
fn install(model: &Path, scores: &Path) -> Outcome {
    let shipped = Path::new(SHIPPED);
    let card = shipped.join("README.md");
    let text = read(&card)?;
    let table = read(scores)?;
    let (Some(begin), Some(end)) = (text.find(BEGIN), text.find(END)) else {
        return Err(Failure::NoMarkers {
            path: card,
            begin: BEGIN,
            end: END,
        });
    };
    let text = format!(
        "{}{BEGIN}\n{}\n{}",
        &text[..begin],
        table.trim(),
        &text[end..]
    );
    // Of another model there may be other stages and other encoders.
    for folder in ["runs", "towers"] {
        remove(&shipped.join(folder))?;
    }
    copy_folder(model, shipped)?;
    for stage in STAGES {
        let (from, to) = (
            Path::new("runs/small").join(stage),
            shipped.join("runs").join(stage),
        );
        create(&to)?;
        copy(&from.join("recipe.toml"), &to.join("recipe.toml"))?;
        let log = read(&from.join("log.jsonl"))?;
        write(&to.join("log.jsonl"), &thinned(&log))?;
    }
    write(&card, &text)?;
    let bytes = size(shipped)?;
    println!("{SHIPPED}: {:.1} MB", bytes as f64 / 1e6);
    if bytes > MOST_BYTES {
        return Err(Failure::Rules {
            what: "the shipped model is too large for the repository",
            complaints: vec![format!("{bytes} bytes, where {MOST_BYTES} are allowed")],
        });
    }
    Ok(())
}

/// Every tenth line of a log, its first and last ones, and those with a validation.
fn thinned(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.len().saturating_sub(1);
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        if i.is_multiple_of(LOG_EVERY) || i == last || line.contains("\"validation") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn copy_folder(from: &Path, to: &Path) -> Outcome {
    create(to)?;
    for path in entries(from)? {
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            copy(&path, &target)?;
        }
    }
    Ok(())
}

fn size(folder: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for path in entries(folder)? {
        bytes += match fs::metadata(&path) {
            Ok(found) if found.is_dir() => size(&path)?,
            Ok(found) => found.len(),
            Err(source) => return Err(Failure::File { path, source }),
        };
    }
    Ok(bytes)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |source| Failure::File {
        path: folder.to_path_buf(),
        source,
    };
    let entries = fs::read_dir(folder).map_err(failed)?;
    entries
        .map(|entry| Ok(entry.map_err(failed)?.path()))
        .collect()
}

fn create(folder: &Path) -> Outcome {
    fs::create_dir_all(folder).map_err(|source| Failure::File {
        path: folder.to_path_buf(),
        source,
    })
}

fn remove(folder: &Path) -> Outcome {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Failure::File {
            path: folder.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}

fn copy(from: &Path, to: &Path) -> Outcome {
    match fs::copy(from, to) {
        Ok(_) => Ok(()),
        Err(source) => Err(Failure::File {
            path: from.to_path_buf(),
            source,
        }),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|source| Failure::File {
        path: path.to_path_buf(),
        source,
    })
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(|source| Failure::File {
        path: path.to_path_buf(),
        source,
    })
}
