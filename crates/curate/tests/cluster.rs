//! A curation on a cluster on loopback gives the bytes of a local one.
#![cfg(feature = "cluster")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use opabinia_curate::cluster::{Executor, Scheduler};
use opabinia_curate::{Options, Recipe, Watch, curate};

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Until somebody listens.
fn wait_for(address: SocketAddr) {
    for _ in 0..1200 {
        if TcpStream::connect(address).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("nobody listens on {address}");
}

fn golden(name: &str) -> PathBuf {
    let root = std::env::var_os("OPABINIA_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        Into::into,
    );
    root.join("recipe/pool").join(name)
}

/// All files of a folder, by path.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap().to_owned();
                    found.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
    }
    found
}

#[test]
fn a_cluster_gives_the_bytes_of_one_machine() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let scheduler = free();
    std::thread::spawn(move || Scheduler { address: scheduler }.run().unwrap());
    wait_for(scheduler);
    for name in ["one", "two"] {
        let executor = Executor {
            scheduler: format!("df://{scheduler}"),
            address: free(),
            external_host: None,
            work: at(name),
            threads: 1,
            memory_bytes: 64 << 20,
        };
        let address = executor.address;
        std::thread::spawn(move || executor.run().unwrap());
        wait_for(address);
    }
    let text = format!(
        "[input]\nfiles = [{:?}]\nimages = {:?}\ndecode = true\nplaceholders = 'anywhere'\n[dedup]\nexact = true\n\
         near = 0.9\n[cap]\nall = 300\n[output]\nshard_samples = 300\n",
        golden("pool.jsonl"),
        golden("images"),
    );
    let recipe: Recipe = toml::from_str(&text).unwrap();
    let recipe = recipe.resolved("test", Path::new("")).unwrap();
    let watch = Watch {
        progress: &|_| {},
        cancelled: &|| false,
    };
    for (name, cluster) in [("local", None), ("far", Some(format!("df://{scheduler}")))] {
        let options = Options {
            threads: 4,
            part_bytes: 100_000,
            memory_bytes: 64 << 20,
            cluster,
        };
        curate(&recipe, &at(name), &options, &watch).unwrap();
    }
    let (local, far) = (files(&at("local")), files(&at("far")));
    assert!(local.len() > 10);
    assert_eq!(
        local.keys().collect::<Vec<_>>(),
        far.keys().collect::<Vec<_>>()
    );
    assert!(local == far);
    // Results on their way were with the executors, and so were the parts.
    let on_their_way = ["one", "two"].map(|name| files(&at(name)).len());
    assert!(on_their_way.iter().sum::<usize>() > 0);
}
