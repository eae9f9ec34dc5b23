//! Ground for training through the binary: a small world, and a model that the stages before
//! stage 2 made of it, in a folder that goes away with the last test that uses it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{self, Run};

const DECODER: &str = r#"
name = "decoder"
stage = "language"
[decoder]
hidden = 32
layers = 3
heads = 4
kv_heads = 2
intermediate = 64
max_position = 256
row_length = 64
[tokenizer]
vocabulary = 320
template = "phi3"
[data]
files = ["world/train/text.jsonl", "world/train/align.jsonl"]
[batch]
global = 8
micro = 4
[optimizer]
lr = 1e-3
[schedule]
warmup_ratio = 0.1
steps = 6
"#;

const LANGUAGE_ENCODER: &str = r#"
name = "language-encoder"
stage = "contrastive"
[encoder]
name = "opabinia/small-siglip-128"
config = "siglip.json"
[text]
tokenizer = "runs/decoder/model"
width = 32
layers = 1
heads = 4
max_tokens = 32
[data]
files = ["world/train/align.jsonl"]
images = "world/train"
[batch]
global = 8
micro = 8
[optimizer]
lr = 1e-3
[schedule]
steps = 3
"#;

const PICTURE_ENCODER: &str = r#"
name = "picture-encoder"
stage = "mae"
[encoder]
name = "opabinia/small-dinov2-mae-128"
config = "dinov2.json"
[mae]
decoder_width = 32
decoder_layers = 1
[data]
files = ["world/train/align.jsonl"]
images = "world/train"
[batch]
global = 8
micro = 4
[optimizer]
lr = 1e-3
[schedule]
steps = 3
"#;

const ALIGN: &str = r#"
name = "align"
stage = "align"
[model]
decoder = "runs/decoder/model"
template = "phi3"
max_length = 400
[[model.encoders]]
name = "opabinia/small-siglip-128"
weights = "runs/language-encoder/model"
tokens = 16
[[model.encoders]]
name = "opabinia/small-dinov2-mae-128"
weights = "runs/picture-encoder/model"
tokens = 16
[model.connector]
mm_projector_type = "sva"
image_token_len = 16
vision_hidden_size = 32
query_num_list = [16]
connector_depth = 1
num_of_vision_sampler_layers = 2
start_of_vision_sampler_layers = 0
stride_of_vision_sampler_layers = 1
[data]
files = ["world/train/align.jsonl"]
images = "world/train"
[batch]
global = 8
micro = 4
[optimizer]
lr = 1e-3
[schedule]
warmup_ratio = 0.06
steps = 4
"#;

const INSTRUCT: &str = r#"
name = "instruct"
stage = "instruct"
[model]
from = "runs/align/model"
[data]
files = ["world/train/instruct.jsonl"]
images = "world/train"
max_bad = 0
[batch]
global = 4
micro = 2
[optimizer]
lr = 1e-3
[schedule]
warmup_ratio = 0.03
steps = 4
"#;

/// The stages that come before `instruct`, in order.
const BEFORE: [&str; 4] = ["decoder", "language-encoder", "picture-encoder", "align"];

/// A folder in which recipes run.
pub struct Ground {
    folder: TempDir,
}

impl Ground {
    /// The ground that all tests of this moment share; runs have names of their own.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Ground>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        if let Some(ground) = shared.upgrade() {
            return ground;
        }
        let ground = Arc::new(Self::make());
        *shared = Arc::downgrade(&ground);
        ground
    }

    fn make() -> Self {
        let ground = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let world =
            "world make world --pictures 24 --test 2 --texts 16 --side 64 --mix scene=2,word=1";
        let world: Vec<&str> = world.split(' ').chain(["--no-annotations"]).collect();
        ground.run(&world).ok();
        let vit = json!({
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 8,
            "image_size": 32, "intermediate_size": 64, "mlp_ratio": 2,
        });
        for (file, family) in [
            ("siglip.json", "siglip_vision_model"),
            ("dinov2.json", "dinov2"),
        ] {
            let mut config = vit.clone();
            config["model_type"] = family.into();
            ground.write(file, &config.to_string());
        }
        for (name, recipe) in [
            ("decoder", DECODER),
            ("language-encoder", LANGUAGE_ENCODER),
            ("picture-encoder", PICTURE_ENCODER),
            ("align", ALIGN),
            ("instruct", INSTRUCT),
        ] {
            ground.write(&format!("{name}.toml"), recipe);
        }
        for stage in BEFORE {
            ground.train(stage, &[]).ok();
        }
        ground
    }

    /// A path in it.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    pub fn bytes(&self, file: &str) -> Vec<u8> {
        fs::read(self.path(file)).unwrap()
    }

    /// The program, started in the folder.
    pub fn program(&self, arguments: &[&str]) -> Command {
        let mut command = common::program(arguments);
        command.current_dir(self.folder.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        common::run(self.program(arguments), b"")
    }

    /// Trains a recipe of the folder with further arguments.
    pub fn train(&self, recipe: &str, more: &[&str]) -> Run {
        self.run(&arguments(recipe, more))
    }

    /// Trains until the log of `run` has that many lines, and then does something to the process.
    pub fn train_until(
        &self,
        recipe: &str,
        more: &[&str],
        (run, lines): (&str, usize),
        strike: impl FnOnce(&mut Child),
    ) -> std::process::Output {
        let mut program = self.program(&arguments(recipe, more));
        program
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let log = self.path(run).join("log.jsonl");
        let long_enough = || fs::read_to_string(&log).is_ok_and(|log| log.lines().count() >= lines);
        while !long_enough() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        strike(&mut child);
        child.wait_with_output().unwrap()
    }

    /// The log of a run without what a clock wrote.
    pub fn log(&self, run: &str) -> Vec<Value> {
        let timeless = |line: &str| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            for key in ["seconds", "waited"] {
                record.as_object_mut().unwrap().remove(key).unwrap();
            }
            record
        };
        self.read(&format!("{run}/log.jsonl"))
            .lines()
            .map(timeless)
            .collect()
    }

    /// The losses of a run.
    pub fn losses(&self, run: &str) -> Vec<f64> {
        let log = self.log(run);
        log.iter()
            .map(|record| record["loss"].as_f64().unwrap())
            .collect()
    }
}

fn arguments<'a>(recipe: &str, more: &[&'a str]) -> Vec<&'a str> {
    let file = match recipe {
        "decoder" => "decoder.toml",
        "language-encoder" => "language-encoder.toml",
        "picture-encoder" => "picture-encoder.toml",
        "align" => "align.toml",
        "instruct" => "instruct.toml",
        other => panic!("no recipe {other}"),
    };
    ["train", file]
        .into_iter()
        .chain(more.iter().copied())
        .collect()
}

/// All files under a folder with their sizes.
pub fn sizes(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sizes(&path)),
            false => found.push((path.clone(), fs::metadata(&path).unwrap().len())),
        }
    }
    found.sort();
    found
}
