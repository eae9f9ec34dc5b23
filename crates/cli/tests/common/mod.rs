//! Running the real binary: what a user types, and what comes out.
//!
//! Nothing here reaches the network or the user's own caches: the hub is offline and its folder is
//! one that does not exist. The models are the small golden ones; a broken model is a copy of one
//! with a single thing changed.

#![allow(
    dead_code,
    reason = "every test file takes what it needs of this module"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value};
use tempfile::TempDir;

/// The golden cases: `$OPABINIA_GOLDEN`, or the repository's.
pub fn golden() -> PathBuf {
    match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    }
}

/// The golden model that most tests ask.
pub fn model() -> PathBuf {
    golden().join("cambrian_llama_sva")
}

/// One of its pictures: `square`, `wide` or `tall`.
pub fn picture(name: &str) -> String {
    text(&model().join("images").join(format!("{name}.png")))
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// `case.json` of the golden model.
pub fn case() -> Value {
    read_json(&model().join("case.json"))
}

/// A JSON file.
pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// What a run of the program left.
pub struct Run {
    command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the program with nothing on standard input.
pub fn opabinia<S: AsRef<str>>(arguments: &[S]) -> Run {
    opabinia_reading(arguments, b"")
}

/// Runs the program with these bytes on standard input.
pub fn opabinia_reading<S: AsRef<str>>(arguments: &[S], input: &[u8]) -> Run {
    run(program(arguments), input)
}

/// The program, cut off from the surroundings of whoever runs the tests.
pub fn program<S: AsRef<str>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_opabinia"));
    for variable in [
        "OPABINIA_MODEL",
        "OPABINIA_SERVE_KEY",
        "OPABINIA_LOG",
        "OPABINIA_CPU",
        "OPABINIA_MAX_IMAGE_PIXELS",
        "OPABINIA_MAX_IMAGE_SIDE",
        "OPABINIA_MAX_IMAGE_BYTES",
        "HF_ENDPOINT",
        "HF_TOKEN",
        "RUST_BACKTRACE",
    ] {
        command.env_remove(variable);
    }
    command
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", "no-such-hub")
        .args(arguments.iter().map(AsRef::as_ref));
    command
}

/// Runs a prepared program.
pub fn run(mut command: Command, input: &[u8]) -> Run {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that fails early may leave its input unread.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Run {
        command: shown,
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Run {
    /// Everything, for the message of a failed test.
    pub fn everything(&self) -> String {
        format!(
            "{}\nexit code: {:?}\nstdout: {}\nstderr: {}",
            self.command, self.code, self.stdout, self.stderr
        )
    }

    /// Demands success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.everything());
        self
    }

    /// Demands silence for people: success, and nothing on standard error.
    #[track_caller]
    pub fn quiet(self) -> Self {
        assert_eq!(self.stderr, "", "{}", self.everything());
        self.ok()
    }

    /// Demands a proper failure: this exit code, an error in plain words on standard error that
    /// contains these texts, no panic, and nothing on standard output.
    #[track_caller]
    pub fn fails_with(self, code: i32, texts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.everything());
        assert_eq!(self.stdout, "", "{}", self.everything());
        assert!(self.stderr.contains("error: "), "{}", self.everything());
        for panic in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!self.stderr.contains(panic), "{}", self.everything());
        }
        self.mentions(texts)
    }

    /// Demands these texts on standard error.
    #[track_caller]
    pub fn mentions(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "`{text}` is not on standard error\n{}",
                self.everything()
            );
        }
        self
    }

    /// The lines of standard output as JSON.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| {
                panic!("{error} in `{line}`\n{}", self.everything());
            })
        };
        self.stdout.lines().map(parse).collect()
    }

    /// The only line of standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let mut lines = self.json_lines();
        assert_eq!(lines.len(), 1, "{}", self.everything());
        lines.remove(0)
    }
}

/// A copy of a golden folder that may be broken.
pub struct Copy {
    folder: TempDir,
}

impl Copy {
    /// Copies a golden case.
    pub fn of(case: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&golden().join(case), folder.path());
        Self { folder }
    }

    /// Copies the golden model.
    pub fn of_model() -> Self {
        Self::of("cambrian_llama_sva")
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The folder as an argument.
    pub fn text(&self) -> String {
        text(self.folder.path())
    }

    pub fn remove(&self, file: &str) {
        let path = self.path(file);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(file), bytes).unwrap();
    }

    /// Changes a JSON file.
    pub fn edit_json(&self, file: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.path(file);
        let mut json = read_json(&path);
        edit(&mut json);
        fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
    }

    /// Sets keys of `config.json`.
    pub fn configure(&self, keys: Value) {
        self.edit_json("config.json", |config| {
            let config = config.as_object_mut().unwrap();
            for (key, value) in keys.as_object().unwrap() {
                config.insert(key.clone(), value.clone());
            }
        });
    }

    /// Keeps the first bytes of a file.
    pub fn truncate(&self, file: &str, bytes: usize) {
        let content = fs::read(self.path(file)).unwrap();
        fs::write(self.path(file), &content[..bytes]).unwrap();
    }

    /// Changes the tensors of a safetensors file.
    pub fn edit_tensors(&self, file: &str, edit: impl FnOnce(&mut Tensors)) {
        let path = self.path(file);
        let mut tensors = Tensors::read(&path);
        edit(&mut tensors);
        tensors.write(&path);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A safetensors file taken apart: names, types and shapes as its header has them, and bytes.
pub struct Tensors {
    metadata: Option<Value>,
    pub tensors: Vec<(String, Tensor)>,
}

/// One tensor of a file.
pub struct Tensor {
    dtype: Value,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensors {
    fn read(path: &Path) -> Self {
        let file = fs::read(path).unwrap();
        let header_bytes = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let (header, data) = file[8..].split_at(header_bytes);
        let mut header: Map<String, Value> = serde_json::from_slice(header).unwrap();
        let metadata = header.remove("__metadata__");
        let tensor = |(name, info): (String, Value)| {
            let offset = |i: usize| info["data_offsets"][i].as_u64().unwrap() as usize;
            let shape = info["shape"].as_array().unwrap().iter();
            let tensor = Tensor {
                dtype: info["dtype"].clone(),
                shape: shape.map(|n| n.as_u64().unwrap() as usize).collect(),
                bytes: data[offset(0)..offset(1)].to_vec(),
            };
            (name, tensor)
        };
        Self {
            metadata,
            tensors: header.into_iter().map(tensor).collect(),
        }
    }

    fn write(&self, path: &Path) {
        let mut header = Map::new();
        if let Some(metadata) = &self.metadata {
            header.insert("__metadata__".into(), metadata.clone());
        }
        let mut data: Vec<u8> = Vec::new();
        for (name, tensor) in &self.tensors {
            let start = data.len();
            data.extend(&tensor.bytes);
            let info = serde_json::json!({
                "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()],
            });
            header.insert(name.clone(), info);
        }
        let mut header: Vec<u8> = serde_json::to_vec(&header).unwrap();
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend(data);
        fs::write(path, file).unwrap();
    }

    /// The tensor of this name.
    #[track_caller]
    pub fn get(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|(known, _)| known == name);
        &mut found.unwrap_or_else(|| panic!("no tensor `{name}`")).1
    }

    /// Takes a tensor out.
    #[track_caller]
    pub fn remove(&mut self, name: &str) {
        let before = self.tensors.len();
        self.tensors.retain(|(known, _)| known != name);
        assert_eq!(self.tensors.len() + 1, before, "no tensor `{name}`");
    }
}

impl Tensor {
    /// Changes one 32-bit number.
    pub fn change(&mut self, element: usize, change: impl FnOnce(f32) -> f32) {
        let bytes = &mut self.bytes[4 * element..4 * element + 4];
        let old = f32::from_le_bytes(bytes.try_into().unwrap());
        bytes.copy_from_slice(&change(old).to_le_bytes());
    }
}

/// A `data:` URL of a picture.
pub fn data_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut url = "data:image/png;base64,".to_owned();
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            let padding = digit > three.len();
            url.push(if padding {
                '='
            } else {
                DIGITS[value as usize] as char
            });
        }
    }
    url
}

/// The beginning of a PNG whose header claims a size.
pub fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]); // 8 bits, RGB, no interlacing
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(&chunk);
    png.extend(crc32(&chunk).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT");
    png.extend(crc32(b"IDAT").to_be_bytes());
    png
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}
