//! Finding and fetching models, against a server on this machine that imitates the hub.
#![allow(missing_docs, clippy::unwrap_used)]

mod imitated_hub;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use imitated_hub::{COMMIT, Server};
use opabinia_weights::hub::{Hub, HubError};
use sha2::{Digest, Sha256};

const NAME: &str = "owner/model";

/// A hub with quick retries.
fn hub(server: &Server, cache: &Path) -> Hub {
    Hub::new(cache)
        .with_endpoint(&server.endpoint)
        .with_retries(2, Duration::from_millis(1))
        .quiet()
}

fn weights() -> Vec<u8> {
    (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn model() -> Server {
    Server::start(
        NAME,
        &[
            ("config.json", b"{}"),
            ("model.safetensors", &weights()),
            ("tf_model.h5", b"not wanted"),
        ],
        &["model.safetensors"],
    )
}

/// All files below a folder, relative, sorted.
fn tree(folder: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                walk(root, &path, found);
            } else {
                let path = path.strip_prefix(root).unwrap();
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

#[test]
fn an_existing_folder_wins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let hub = Hub::new("/nonexistent").offline(true);
    assert_eq!(hub.resolve(path, None, &[]).unwrap(), folder.path());
    assert!(matches!(
        hub.resolve("./nowhere", None, &[]),
        Err(HubError::NoSuchPath { .. })
    ));
}

#[test]
fn a_model_is_fetched_once() {
    let server = model();
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let folder = hub.resolve(NAME, None, &[]).unwrap();
    assert_eq!(
        fs::read(folder.join("model.safetensors")).unwrap(),
        weights()
    );
    assert_eq!(fs::read(folder.join("config.json")).unwrap(), b"{}");
    // The layout of the Python libraries, and nothing else.
    let hash = format!("{:x}", Sha256::digest(weights()));
    let small = format!("{:x}", Sha256::digest(b"{}"));
    let mut expected = vec![
        format!("models--owner--model/blobs/{hash}"),
        format!("models--owner--model/blobs/{}", &small[..40]),
        "models--owner--model/refs/main".to_owned(),
        format!("models--owner--model/snapshots/{COMMIT}/config.json"),
        format!("models--owner--model/snapshots/{COMMIT}/model.safetensors"),
    ];
    expected.sort();
    assert_eq!(tree(cache.path()), expected);

    let requests = server.requests();
    assert_eq!(hub.resolve(NAME, None, &[]).unwrap(), folder);
    assert_eq!(
        hub.resolve(NAME, Some(COMMIT), &["*.json"]).unwrap(),
        folder
    );
    assert_eq!(
        server.requests(),
        requests,
        "a complete model needs no network"
    );
    // A lost link is made again from the contents that are there.
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    hub.resolve(NAME, None, &[]).unwrap();
    assert_eq!(server.ranges("model.safetensors"), ["bytes=0-"]);
}

#[test]
fn patterns_choose_files() {
    let server = model();
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let folder = hub.resolve(NAME, None, &["*.json"]).unwrap();
    assert!(!folder.join("model.safetensors").exists());
    let error = hub.resolve(NAME, None, &["*.gguf"]).unwrap_err();
    assert!(matches!(&error, HubError::NothingToFetch { available, .. } if available.len() == 3));
}

#[test]
fn a_dropped_connection_is_resumed() {
    let server = model();
    server.set(|b| b.drop_after = Some(300_000));
    let cache = tempfile::tempdir().unwrap();
    let folder = hub(&server, cache.path())
        .resolve(NAME, None, &["*.safetensors"])
        .unwrap();
    assert_eq!(
        fs::read(folder.join("model.safetensors")).unwrap(),
        weights()
    );
    assert_eq!(
        server.ranges("model.safetensors"),
        ["bytes=0-", "bytes=300000-"]
    );
}

#[test]
fn what_arrived_is_kept_for_the_next_run() {
    let server = model();
    server.set(|b| b.drop_after = Some(300_000));
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path()).with_retries(0, Duration::ZERO);
    let error = hub.resolve(NAME, None, &["*.safetensors"]).unwrap_err();
    assert!(matches!(error, HubError::Connection { .. }), "{error}");
    let folder = hub.resolve(NAME, None, &["*.safetensors"]).unwrap();
    assert_eq!(
        fs::read(folder.join("model.safetensors")).unwrap(),
        weights()
    );
    assert_eq!(
        server.ranges("model.safetensors"),
        ["bytes=0-", "bytes=300000-"]
    );
}

#[test]
fn a_damaged_file_is_refused_and_removed() {
    let server = model();
    server.set(|b| b.wrong_hash = true);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let error = hub.resolve(NAME, None, &["*.safetensors"]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("model.safetensors arrived damaged"), "{text}");
    assert!(
        !tree(cache.path())
            .iter()
            .any(|file| file.contains("/blobs/") && !file.ends_with(".lock")),
        "{:?}",
        tree(cache.path())
    );
    server.set(|b| b.wrong_hash = false);
    assert!(hub.resolve(NAME, None, &["*.safetensors"]).is_ok());
}

#[test]
fn refusals_say_what_to_do() {
    let server = model();
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let error = hub.resolve("owner/other", None, &[]).unwrap_err();
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("`owner/other` (revision `main`)")
    );

    server.set(|b| b.token = Some("secret".to_owned()));
    let error = hub.resolve(NAME, None, &[]).unwrap_err();
    assert!(error.to_string().contains("set HF_TOKEN"), "{error}");
    let wrong = hub.clone().with_token(Some("wrong"));
    let error = wrong.resolve(NAME, None, &[]).unwrap_err();
    assert!(
        error.to_string().contains("does not give access"),
        "{error}"
    );
    assert!(
        !error.to_string().contains("wrong"),
        "tokens are not printed"
    );
    let right = hub.clone().with_token(Some("secret"));
    assert!(right.resolve(NAME, None, &["*.json"]).is_ok());

    server.set(|b| b.status = Some(503));
    let before = server.requests();
    let error = right.pull(NAME, None, None).unwrap_err();
    assert!(
        matches!(error, HubError::Status { status: 503, .. }),
        "{error}"
    );
    assert_eq!(server.requests() - before, 3, "a busy hub is asked again");
}

#[test]
fn offline_uses_the_cache_or_says_what_is_missing() {
    let server = model();
    let cache = tempfile::tempdir().unwrap();
    let offline = hub(&server, cache.path()).offline(true);
    let error = offline.resolve(NAME, None, &[]).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    assert_eq!(server.requests(), 0);
    let folder = hub(&server, cache.path()).resolve(NAME, None, &[]).unwrap();
    let requests = server.requests();
    assert_eq!(offline.resolve(NAME, None, &[]).unwrap(), folder);
    assert_eq!(offline.pull(NAME, None, None).unwrap(), folder);
    assert_eq!(server.requests(), requests);
}

#[test]
fn an_unreachable_hub_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let hub = Hub::new(cache.path())
        .with_endpoint(&format!("http://{address}/"))
        .with_retries(5, Duration::from_secs(60))
        .quiet();
    // Nobody waits for a hub that has never answered.
    let error = hub.resolve(NAME, None, &[]).unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("http://{address} ")), "{text}");
    // A name without an owner is not even asked for.
    let error = hub.resolve("mdoel", None, &[]).unwrap_err();
    assert!(matches!(error, HubError::NoSuchPath { .. }), "{error}");
}

#[test]
fn answers_that_lead_out_of_the_cache_are_refused() {
    let server = Server::start(NAME, &[("..", b"x")], &[]);
    let cache = tempfile::tempdir().unwrap();
    let error = hub(&server, cache.path())
        .resolve(NAME, None, &["*"])
        .unwrap_err();
    assert!(matches!(error, HubError::Protocol { .. }), "{error}");
}

#[test]
fn pull_copies_to_a_folder_that_can_be_edited() {
    let server = model();
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let copy = tempfile::tempdir().unwrap();
    let destination = copy.path().join("model");
    assert_eq!(
        hub.pull(NAME, None, Some(&destination)).unwrap(),
        destination
    );
    assert_eq!(tree(&destination), ["config.json", "model.safetensors"]);
    fs::write(destination.join("config.json"), "edited").unwrap();
    let cached = hub.resolve(NAME, None, &[]).unwrap();
    assert_eq!(fs::read(cached.join("config.json")).unwrap(), b"{}");
    // Pulling again restores the files.
    hub.pull(NAME, None, Some(&destination)).unwrap();
    assert_eq!(fs::read(destination.join("config.json")).unwrap(), b"{}");
}

fn dataset() -> Server {
    Server::start(
        NAME,
        &[
            ("test.parquet", &weights()),
            ("train.parquet", b"not wanted"),
            ("README.md", b"# A data set"),
        ],
        &["test.parquet"],
    )
}

const WANTED: [&str; 2] = ["README.md", "test.parquet"];

#[test]
fn files_of_a_data_set_are_fetched_and_pinned() {
    let server = dataset();
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let found = hub.list_dataset(NAME, None).unwrap();
    assert_eq!((found.commit(), found.files().count()), (COMMIT, 3));
    // Cut off once, and gone on with.
    server.set(|b| b.drop_after = Some(300_000));
    let folder = hub
        .fetch_dataset(&found, &WANTED.map(str::to_owned))
        .unwrap();
    assert_eq!(fs::read(folder.join("test.parquet")).unwrap(), weights());
    assert!(!folder.join("train.parquet").exists());
    let root = "datasets--owner--model";
    assert!(folder.ends_with(format!("{root}/snapshots/{COMMIT}")));
    assert_eq!(
        fs::read_to_string(cache.path().join(root).join("refs/main")).unwrap(),
        COMMIT
    );
    assert_eq!(server.ranges("test.parquet").len(), 2);
    // A branch that is in the cache means the commit of then.
    hub.list_dataset(NAME, None).unwrap();
    let behaviour = server.behaviour();
    assert!(
        behaviour
            .log
            .last()
            .unwrap()
            .0
            .ends_with(&format!("/revision/{COMMIT}"))
    );
}

#[test]
fn a_data_set_that_cannot_be_had_says_why() {
    let server = dataset();
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path()).with_retries(0, Duration::ZERO);
    let error = hub.list_dataset("owner/other", None).unwrap_err();
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
    let found = hub.list_dataset(NAME, None).unwrap();
    let error = hub
        .fetch_dataset(&found, &["x.csv".to_owned()])
        .unwrap_err();
    assert!(
        error.to_string().contains("`x.csv` in the data set"),
        "{error}"
    );
    // Nothing points to a commit that is not complete.
    server.set(|b| b.drop_after = Some(300_000));
    let wanted = WANTED.map(str::to_owned);
    let error = hub.fetch_dataset(&found, &wanted).unwrap_err();
    assert!(matches!(error, HubError::Connection { .. }), "{error}");
    assert!(
        !cache
            .path()
            .join("datasets--owner--model/refs/main")
            .exists()
    );
    server.set(|b| b.token = Some("secret".to_owned()));
    let error = hub.fetch_dataset(&found, &wanted).unwrap_err();
    assert!(error.to_string().contains("set HF_TOKEN"), "{error}");
    let right = hub.clone().with_token(Some("secret"));
    assert!(right.fetch_dataset(&found, &wanted).is_ok());
    assert_eq!(server.ranges("test.parquet"), ["bytes=0-", "bytes=300000-"]);
    let error = hub
        .clone()
        .offline(true)
        .list_dataset(NAME, None)
        .unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
}
