//! The hub's side: what a model has, and fetching one file of it.

use std::fs;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use ureq::ErrorKind;

use super::Hub;
use super::cache::{Kind, ModelCache, is_commit};
use super::error::{HubError, accessing};
use super::progress::Shown;

/// The longest wait between two attempts.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// One model on the hub.
pub(super) struct Remote<'a> {
    hub: &'a Hub,
    name: &'a str,
    cache: &'a ModelCache,
    api: Api,
}

/// What the hub says about a revision.
#[derive(Debug)]
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<RemoteFile>,
}

/// One file of a model.
#[derive(Clone, Debug)]
pub(super) struct RemoteFile {
    /// Its path in the model.
    pub name: String,
    size: Option<u64>,
    /// Of files that are not kept in git.
    sha256: Option<String>,
    /// The name of its contents in the cache: the SHA-256 or the identity in git.
    id: Option<String>,
}

impl RemoteFile {
    #[cfg(test)]
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            size: None,
            sha256: None,
            id: None,
        }
    }
}

/// The answer of the hub, as far as we read it.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

impl From<Sibling> for RemoteFile {
    fn from(sibling: Sibling) -> Self {
        let sha256 = sibling.lfs.map(|lfs| lfs.sha256.to_ascii_lowercase());
        Self {
            name: sibling.rfilename,
            size: sibling.size,
            id: sha256.clone().or(sibling.blob_id),
            sha256,
        }
    }
}

impl<'a> Remote<'a> {
    pub(super) fn connect(
        hub: &'a Hub,
        name: &'a str,
        cache: &'a ModelCache,
    ) -> Result<Self, HubError> {
        let api = ApiBuilder::from_cache(hf_hub::Cache::new(cache.staging()))
            .with_endpoint(hub.endpoint.clone())
            .with_token(hub.token.clone())
            .with_progress(false)
            .build()
            .map_err(|error| HubError::Connection {
                what: format!("`{name}`"),
                endpoint: hub.endpoint.clone(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            hub,
            name,
            cache,
            api,
        })
    }

    /// The commit of a revision, and its files.
    pub(super) fn listing(&self, revision: &str) -> Result<Listing, HubError> {
        let what = format!("`{}` (revision `{revision}`)", self.name);
        let answer: Answer = self.patiently(First::Contact, || {
            let request = self.repo(revision).info_request().query("blobs", "true");
            let response = request
                .call()
                .map_err(|error| self.explained(&what, ApiError::RequestError(Box::new(error))))?;
            response
                .into_json()
                .map_err(|error| self.misunderstood(&what, error.to_string()))
        })?;
        self.checked(&what, answer)
    }

    /// Refuses an answer whose names would lead out of the cache.
    fn checked(&self, what: &str, answer: Answer) -> Result<Listing, HubError> {
        if !is_commit(&answer.sha) {
            let reason = format!("`{}` is not a commit", answer.sha);
            return Err(self.misunderstood(what, reason));
        }
        let mut files = Vec::new();
        for sibling in answer.siblings {
            let file = RemoteFile::from(sibling);
            if !stays_inside(&file.name) {
                let reason = format!("`{}` is not a file name", file.name);
                return Err(self.misunderstood(what, reason));
            }
            if let Some(id) = file.id.as_deref().filter(|id| !is_hash(id)) {
                return Err(self.misunderstood(what, format!("`{id}` is not a hash")));
            }
            files.push(file);
        }
        Ok(Listing {
            commit: answer.sha,
            files,
        })
    }

    /// Brings one file of a commit into the cache, unless it is there. Nothing appears in the cache
    /// that was not compared with what the hub announced.
    pub(super) fn fetch(&self, file: &RemoteFile, commit: &str) -> Result<(), HubError> {
        let target = self.cache.folder_of(commit).join(&file.name);
        if has_size(&target, file.size) {
            return Ok(());
        }
        if let Some(id) = &file.id {
            let blob = self.cache.blob(id);
            if has_size(&blob, file.size) {
                return self.link(&blob, commit, file);
            }
            let part = self.cache.staged_part(self.name, id);
            drop_useless_part(&part, file.size).map_err(accessing(&part))?;
        }
        let what = format!("{} of `{}`", file.name, self.name);
        let pointer = self.patiently(First::Passed, || self.transfer(file, commit, &what))?;
        if !pointer.ends_with(Path::new("snapshots").join(commit).join(&file.name)) {
            let reason = format!("it is of another commit than {commit}");
            return Err(self.misunderstood(&what, reason));
        }
        self.accept(file, commit, &pointer)
    }

    /// Checks a fetched file and moves it into the cache, or removes it.
    fn accept(&self, file: &RemoteFile, commit: &str, pointer: &Path) -> Result<(), HubError> {
        let staged = fs::canonicalize(pointer).map_err(accessing(pointer))?;
        remove_if_present(pointer).map_err(accessing(pointer))?;
        if let Some(damage) = damage(file, &staged).map_err(accessing(&staged))? {
            remove_if_present(&staged).map_err(accessing(&staged))?;
            return Err(damage);
        }
        let id = match (&file.id, staged.file_name()) {
            (Some(id), _) => Path::new(id),
            (None, Some(name)) => Path::new(name),
            (None, None) => Path::new(&file.name),
        };
        let blob = self.cache.blob(id);
        if let Some(folder) = blob.parent() {
            fs::create_dir_all(folder).map_err(accessing(folder))?;
        }
        fs::rename(&staged, &blob).map_err(accessing(&blob))?;
        self.link(&blob, commit, file)
    }

    fn link(&self, blob: &Path, commit: &str, file: &RemoteFile) -> Result<(), HubError> {
        self.cache
            .link(blob, commit, &file.name)
            .map_err(accessing(&self.cache.folder_of(commit).join(&file.name)))
    }

    /// One attempt to fetch a file; what arrives of it is kept for the next.
    fn transfer(&self, file: &RemoteFile, commit: &str, what: &str) -> Result<PathBuf, HubError> {
        let repo = self.repo(commit);
        let name = format!("{}/{}", self.name, file.name);
        let shown = Shown::new(&name, file.size.unwrap_or(0), self.hub.show_progress);
        // hf-hub panics on some answers, such as a redirect without a target.
        let attempt = AssertUnwindSafe(|| repo.download_with_progress(&file.name, shown));
        match catch_unwind(attempt) {
            Ok(Ok(path)) => Ok(path),
            Ok(Err(ApiError::LockAcquisition(lock))) => Err(HubError::Busy {
                file: file.name.clone(),
                lock,
            }),
            Ok(Err(error)) => Err(self.explained(what, error)),
            Err(_) => Err(self.misunderstood(what, "the client gave up on it".to_owned())),
        }
    }

    fn repo(&self, revision: &str) -> ApiRepo {
        self.api.repo(Repo::with_revision(
            self.name.to_owned(),
            match self.cache.kind() {
                Kind::Model => RepoType::Model,
                Kind::Dataset => RepoType::Dataset,
            },
            revision.to_owned(),
        ))
    }

    /// Tries again, with growing waits, as long as the error may go away by itself.
    fn patiently<T>(
        &self,
        first: First,
        attempt: impl Fn() -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let mut wait = self.hub.first_wait;
        for _ in 0..self.hub.retries {
            match attempt() {
                Err(error) if may_pass(&error, first) => {
                    let seconds = wait.as_secs_f64();
                    tracing::warn!("{error}; trying again in {seconds:.0} s");
                }
                outcome => return outcome,
            }
            thread::sleep(wait);
            wait = (2 * wait).min(MAX_WAIT);
        }
        attempt()
    }

    /// Puts the client's error into our words.
    fn explained(&self, what: &str, error: ApiError) -> HubError {
        match error {
            ApiError::RequestError(error) => {
                let reason = error.to_string();
                let reached = !matches!(
                    error.kind(),
                    ErrorKind::Dns | ErrorKind::ConnectionFailed | ErrorKind::ProxyConnect
                );
                match error.into_response() {
                    Some(response) => self.refused(what, response.status()),
                    None if reached => self.broken(what, reason),
                    None => HubError::Unreachable {
                        what: what.to_owned(),
                        endpoint: self.hub.endpoint.clone(),
                        reason,
                    },
                }
            }
            ApiError::IoError(error) => self.broken(what, error.to_string()),
            other => self.misunderstood(what, other.to_string()),
        }
    }

    fn refused(&self, what: &str, status: u16) -> HubError {
        let what = what.to_owned();
        match status {
            404 => HubError::NotFound { what },
            401 | 403 => HubError::Denied {
                what,
                status,
                has_token: self.hub.token.is_some(),
            },
            _ => HubError::Status { what, status },
        }
    }

    fn broken(&self, what: &str, reason: String) -> HubError {
        HubError::Connection {
            what: what.to_owned(),
            endpoint: self.hub.endpoint.clone(),
            reason,
        }
    }

    fn misunderstood(&self, what: &str, reason: String) -> HubError {
        HubError::Protocol {
            what: what.to_owned(),
            endpoint: self.hub.endpoint.clone(),
            reason,
        }
    }
}

/// Whether the hub has answered before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    /// No: without a way to it, waiting seldom helps.
    Contact,
    /// Yes: a way that is lost may come back.
    Passed,
}

/// Whether another attempt could succeed.
fn may_pass(error: &HubError, first: First) -> bool {
    match error {
        HubError::Unreachable { .. } => first == First::Passed,
        HubError::Connection { .. } => true,
        HubError::Status { status, .. } => *status == 429 || *status >= 500,
        _ => false,
    }
}

/// Whether a file name of the hub is a relative path without `..`.
fn stays_inside(name: &str) -> bool {
    !name.is_empty()
        && Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// Whether this is a SHA-256, or an identity in git (SHA-1).
fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether there is a file of the announced size (of any, if none was announced).
fn has_size(path: &Path, size: Option<u64>) -> bool {
    fs::metadata(path)
        .is_ok_and(|found| found.is_file() && size.is_none_or(|size| size == found.len()))
}

/// Removes a partial file that is not shorter than the whole: the client would ask for what comes
/// after its end, and be refused for ever.
fn drop_useless_part(part: &Path, size: Option<u64>) -> io::Result<()> {
    match (fs::metadata(part), size) {
        (Ok(found), Some(size)) if found.len() >= size => fs::remove_file(part),
        _ => Ok(()),
    }
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What is wrong with a fetched file, if anything.
fn damage(file: &RemoteFile, fetched: &Path) -> io::Result<Option<HubError>> {
    let damaged = |property, expected: String, found: String| {
        Some(HubError::Damaged {
            file: file.name.clone(),
            property,
            expected,
            found,
        })
    };
    let found = fs::metadata(fetched)?.len();
    if let Some(size) = file.size.filter(|size| *size != found) {
        let bytes = |n: u64| format!("{n} bytes");
        return Ok(damaged("size", bytes(size), bytes(found)));
    }
    if let Some(expected) = &file.sha256 {
        let found = sha256_of(fetched)?;
        if found != *expected {
            return Ok(damaged("SHA-256", expected.clone(), found));
        }
    }
    Ok(None)
}

/// The SHA-256 of a file in hexadecimal.
fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(format!("{:x}", hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "abc").unwrap();
        assert_eq!(
            sha256_of(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn file_names_must_stay_in_the_folder() {
        assert!(stays_inside("a/b.json"));
        for bad in ["", "/a", "../a", "a/../../b", "./a"] {
            assert!(!stays_inside(bad), "{bad}");
        }
    }

    #[test]
    fn parts_that_are_too_long_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("abc.part");
        fs::write(&part, "12345").unwrap();
        drop_useless_part(&part, Some(6)).unwrap();
        assert!(part.exists());
        drop_useless_part(&part, Some(5)).unwrap();
        assert!(!part.exists());
    }
}
