//! A scheduler and two executors on loopback, all of them this program, curate with the bytes of one
//! machine.
#![cfg(feature = "cluster")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{golden, opabinia, program, text};

/// A program that runs until the test is over.
struct Running(Child);

impl Running {
    /// Starts it, and waits until somebody listens on its port.
    fn new(arguments: &[&str], address: SocketAddr) -> Self {
        let mut command = program(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut running = Self(command.stderr(Stdio::null()).spawn().unwrap());
        // As long as it takes: only its end is a failure.
        while TcpStream::connect(address).is_err() {
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none(), "{arguments:?} ended: {ended:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// All files of a folder, by path.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_owned();
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

/// The golden pool in four files, so that there are four parts to deal out.
fn recipe(folder: &Path) -> String {
    // As bytes: some of its lines are no text, on purpose.
    let whole = std::fs::read(golden().join("recipe/pool/pool.jsonl")).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let mut names = Vec::new();
    for (i, lines) in lines.chunks(lines.len().div_ceil(4)).enumerate() {
        let path = folder.join(format!("pool-{i}.jsonl"));
        std::fs::write(&path, lines.concat()).unwrap();
        names.push(path);
    }
    let images = golden().join("recipe/pool/images");
    let recipe = folder.join("mix.toml");
    let toml = format!(
        "[input]\nfiles = {names:?}\nimages = {images:?}\ndecode = true\nplaceholders = 'anywhere'\n\
         [dedup]\nexact = true\nnear = 0.9\n[cap]\nall = 300\n[output]\nshard_samples = 300\n"
    );
    std::fs::write(&recipe, toml).unwrap();
    text(&recipe)
}

#[test]
fn a_cluster_of_processes_gives_the_bytes_of_one_machine() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&folder.path().join(name));
    let recipe = recipe(folder.path());
    let address = free();
    let url = format!("df://{address}");
    let bound = address.to_string();
    let _scheduler = Running::new(&["data", "scheduler", "--bind", &bound], address);
    let _executors = ["one", "two"].map(|name| {
        let (own, work) = (free(), at(name));
        let bound = own.to_string();
        let mut arguments = vec!["data", "executor", "--scheduler", &url, "--bind", &bound];
        arguments.extend(["--work", &work, "--threads", "1", "--memory", "64MiB"]);
        Running::new(&arguments, own)
    });
    let base = [
        "data",
        "curate",
        &recipe,
        "--quiet",
        "--threads",
        "4",
        "--out",
    ];
    let curate = |more: &[&str]| {
        let arguments: Vec<&str> = base.iter().chain(more).copied().collect();
        opabinia(&arguments)
    };
    curate(&[&at("local")]).ok();
    curate(&[&at("far"), "--cluster", &url]).ok();
    let (local, far) = (files(Path::new(&at("local"))), files(Path::new(&at("far"))));
    assert!(local.len() > 10);
    assert!(local.keys().eq(far.keys()));
    for (name, bytes) in &local {
        assert!(far[name] == *bytes, "{}", name.display());
    }
    // Executors kept results on their way: they did it.
    let kept = ["one", "two"].map(|name| files(Path::new(&at(name))).len());
    assert!(kept.iter().sum::<usize>() > 0);

    curate(&[&at("none"), "--cluster", "df://"]).fails_with(1, &["no address of a scheduler"]);
}
