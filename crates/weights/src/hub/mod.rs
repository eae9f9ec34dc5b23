//! Model folders by name: local, from the Hugging Face cache, or fetched into it.
//!
//! [`Hub::resolve`] turns a name into a folder: an existing local path wins; then the cache, which
//! is shared with the Python libraries (`HF_HUB_CACHE`, `HF_HOME`); only then the network. A cached
//! model is used as it is, so that the same command gives the same result tomorrow; [`Hub::pull`]
//! asks the hub for newer files.
//!
//! Who does what: the `hf-hub` crate speaks to the hub, follows its redirects, writes partial files
//! and resumes them. It does not compare what it got with what the hub announced, and it gives up
//! on the first dropped connection. So here the hub is first asked for the commit, the sizes and
//! the SHA-256 of the large files; all files are fetched from that one commit; a dropped connection
//! is tried again from where it broke; and `hf-hub` works in a staging folder, from which a file
//! comes into the cache when it was found to be what the hub announced. (Small files are kept in
//! git by the hub and have no SHA-256; their size is checked.)
//!
//! Data sets come through the same door ([`Hub::list_dataset`], [`Hub::fetch_dataset`]), file by file.
//!
//! Environment: `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` (else the token that `hf auth login` stored),
//! `HF_ENDPOINT`, `HF_HUB_OFFLINE=1`.

mod cache;
mod error;
mod progress;
mod remote;
mod select;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::HubError;

use self::cache::{Kind, ModelCache};
use self::error::accessing;
use self::remote::{Remote, RemoteFile};
use self::select::Selection;
use crate::replace::Replacement;

/// The branch that is meant if none is given.
const DEFAULT_REVISION: &str = "main";

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where models come from; usually [`Hub::from_env`].
#[derive(Clone)]
pub struct Hub {
    cache: PathBuf,
    endpoint: String,
    token: Option<String>,
    offline: bool,
    show_progress: bool,
    retries: u32,
    first_wait: Duration,
}

/// What the hub has of a data set at one commit.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: String,
    revision: String,
    commit: String,
    files: Vec<RemoteFile>,
}

impl Dataset {
    /// The commit.
    #[must_use]
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Names of its files, with `/` between the parts.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.name.as_str())
    }
}

impl fmt::Debug for Hub {
    /// Everything but the token, which must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("has_token", &self.token.is_some())
            .field("offline", &self.offline)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

/// [`Hub::resolve`] with the settings of the environment.
///
/// # Errors
/// As [`Hub::resolve`].
pub fn resolve(
    name_or_path: &str,
    revision: Option<&str>,
    patterns: &[&str],
) -> Result<PathBuf, HubError> {
    Hub::from_env()?.resolve(name_or_path, revision, patterns)
}

/// [`Hub::pull`] with the settings of the environment.
///
/// # Errors
/// As [`Hub::pull`].
pub fn pull(
    name: &str,
    revision: Option<&str>,
    destination: Option<&Path>,
) -> Result<PathBuf, HubError> {
    Hub::from_env()?.pull(name, revision, destination)
}

impl Hub {
    /// The public hub with a cache folder, no token, online.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            cache: cache.into(),
            endpoint: DEFAULT_ENDPOINT.to_owned(),
            token: None,
            offline: false,
            show_progress: true,
            retries: 5,
            first_wait: Duration::from_secs(1),
        }
    }

    /// The settings of the environment; see the module documentation.
    ///
    /// # Errors
    /// [`HubError::NoCache`] if no variable names a cache and there is no home folder.
    pub fn from_env() -> Result<Self, HubError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = match variable("HF_HOME") {
            Some(home) => Some(PathBuf::from(home)),
            None => variable("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
                .map(|cache| cache.join("huggingface")),
        };
        let cache = match variable("HF_HUB_CACHE") {
            Some(cache) => PathBuf::from(cache),
            None => home.as_ref().ok_or(HubError::NoCache)?.join("hub"),
        };
        let stored_token = || {
            let text = fs::read_to_string(home?.join("token")).ok()?;
            Some(text.trim().to_owned()).filter(|token| !token.is_empty())
        };
        let mut hub = Self::new(cache);
        hub.token = variable("HF_TOKEN").or_else(stored_token);
        hub.offline = variable("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value));
        if let Some(endpoint) = variable("HF_ENDPOINT") {
            hub = hub.with_endpoint(&endpoint);
        }
        Ok(hub)
    }

    /// The folder that holds the models.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Whether the network must not be used.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// Another hub, such as a mirror: `http://host:port`.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: &str) -> Self {
        endpoint
            .trim_end_matches('/')
            .clone_into(&mut self.endpoint);
        self
    }

    /// The access token for models that need one.
    #[must_use]
    pub fn with_token(mut self, token: Option<&str>) -> Self {
        self.token = token.map(str::to_owned);
        self
    }

    /// Never touches the network.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Shows no progress.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.show_progress = false;
        self
    }

    /// How often a broken transfer is tried again, and how long to wait before the first time;
    /// each further wait is twice as long.
    #[must_use]
    pub fn with_retries(mut self, retries: u32, first_wait: Duration) -> Self {
        self.retries = retries;
        self.first_wait = first_wait;
        self
    }

    /// The folder of a model: `name_or_path` itself if it exists, else its snapshot in the cache,
    /// which is fetched if it is not complete.
    ///
    /// `patterns` are the files that are wanted, with `*` and `?`; none means a whole model: its
    /// JSON and tokenizer files and one set of weights. A revision is a branch, a tag or a commit;
    /// none means `main`.
    ///
    /// # Errors
    /// If the path does not exist, if the model is not cached and cannot be fetched, or if what was
    /// fetched is not what the hub announced.
    pub fn resolve(
        &self,
        name_or_path: &str,
        revision: Option<&str>,
        patterns: &[&str],
    ) -> Result<PathBuf, HubError> {
        let path = Path::new(name_or_path);
        if path.exists() {
            return Ok(path.to_path_buf());
        }
        check_model_name(name_or_path)?;
        let revision = checked_revision(revision)?;
        let selection = Selection::new(patterns);
        let cache = ModelCache::new(&self.cache, Kind::Model, name_or_path, revision);
        if let Some(snapshot) = cache.snapshot()
            && selection.is_complete(&snapshot)
        {
            return Ok(snapshot);
        }
        self.fetch(name_or_path, revision, &selection, &cache)
    }

    /// Fetches the current files of a whole model, and copies them to `destination` if one is
    /// given. Returns the folder that holds them.
    ///
    /// Large files are hard links to the cache where the file system allows it.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), and if the copy cannot be written. Without a network a
    /// complete cached model is good enough if [`offline`](Self::offline) is set.
    pub fn pull(
        &self,
        name: &str,
        revision: Option<&str>,
        destination: Option<&Path>,
    ) -> Result<PathBuf, HubError> {
        check_model_name(name)?;
        let revision = checked_revision(revision)?;
        let selection = Selection::new(&[]);
        let cache = ModelCache::new(&self.cache, Kind::Model, name, revision);
        let complete = cache.snapshot().filter(|s| selection.is_complete(s));
        let snapshot = match complete {
            Some(snapshot) if self.offline => snapshot,
            _ => self.fetch(name, revision, &selection, &cache)?,
        };
        match destination {
            None => Ok(snapshot),
            Some(destination) => {
                copy_snapshot(&snapshot, destination)?;
                Ok(destination.to_path_buf())
            }
        }
    }

    /// Asks what a data set has. Of a branch that is in the cache the commit of then is asked for, so
    /// that the same command reads the same data tomorrow; a revision is a branch, a tag or a commit,
    /// none means `main`.
    ///
    /// # Errors
    /// If the network must not be used, or the hub does not have the data set or does not give it.
    pub fn list_dataset(&self, name: &str, revision: Option<&str>) -> Result<Dataset, HubError> {
        check_name(name)?;
        let revision = checked_revision(revision)?;
        let cache = ModelCache::new(&self.cache, Kind::Dataset, name, revision);
        if self.offline {
            return Err(self.forbidden(name, revision));
        }
        let remote = Remote::connect(self, name, &cache)?;
        let known = cache.commit();
        let listing = remote.listing(known.as_deref().unwrap_or(revision))?;
        Ok(Dataset {
            name: name.to_owned(),
            revision: revision.to_owned(),
            commit: listing.commit,
            files: listing.files,
        })
    }

    /// Fetches files of a data set into the cache, those that are not there, in this order. Returns
    /// the folder that holds them.
    ///
    /// # Errors
    /// As [`list_dataset`](Self::list_dataset), and if what was fetched is not what the hub announced;
    /// what arrived before is kept.
    pub fn fetch_dataset(&self, dataset: &Dataset, files: &[String]) -> Result<PathBuf, HubError> {
        let name = &dataset.name;
        let cache = ModelCache::new(&self.cache, Kind::Dataset, name, &dataset.revision);
        if self.offline {
            return Err(self.forbidden(name, &dataset.revision));
        }
        let remote = Remote::connect(self, name, &cache)?;
        let named = dataset.files.iter().map(|file| (file.name.as_str(), file));
        let named: HashMap<&str, _> = named.collect();
        for wanted in files {
            let file = *named
                .get(wanted.as_str())
                .ok_or_else(|| HubError::NotFound {
                    what: format!("`{wanted}` in the data set `{name}`"),
                })?;
            remote.fetch(file, &dataset.commit)?;
        }
        cache.point_to(&dataset.commit)?;
        cache.tidy(name);
        Ok(cache.folder_of(&dataset.commit))
    }

    fn forbidden(&self, name: &str, revision: &str) -> HubError {
        HubError::Offline {
            name: name.to_owned(),
            revision: revision.to_owned(),
            cache: self.cache.clone(),
        }
    }

    /// Fetches the selected files of a revision into the cache.
    fn fetch(
        &self,
        name: &str,
        revision: &str,
        selection: &Selection,
        cache: &ModelCache,
    ) -> Result<PathBuf, HubError> {
        if self.offline {
            return Err(self.forbidden(name, revision));
        }
        let remote = Remote::connect(self, name, cache)?;
        let listing = remote.listing(revision)?;
        let files = selection.choose(&listing.files);
        if files.is_empty() {
            return Err(HubError::NothingToFetch {
                name: name.to_owned(),
                available: listing.files.into_iter().map(|file| file.name).collect(),
            });
        }
        for file in files {
            remote.fetch(file, &listing.commit)?;
        }
        cache.point_to(&listing.commit)?;
        cache.tidy(name);
        Ok(cache.folder_of(&listing.commit))
    }
}

/// The spellings of "yes" that the Python libraries accept.
fn is_true(value: &str) -> bool {
    matches!(
        value.to_ascii_uppercase().as_str(),
        "1" | "ON" | "YES" | "TRUE"
    )
}

/// A name is `model` or `owner/model`; anything else was meant as a path, which does not exist.
fn check_name(name: &str) -> Result<(), HubError> {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() <= 2 && parts.into_iter().all(is_part) {
        Ok(())
    } else {
        Err(HubError::NoSuchPath {
            path: PathBuf::from(name),
        })
    }
}

/// A name without an owner is a path with a mistake in it, which the hub need not be asked about.
fn check_model_name(name: &str) -> Result<(), HubError> {
    match name.contains('/') {
        true => check_name(name),
        false => Err(HubError::NoSuchPath {
            path: PathBuf::from(name),
        }),
    }
}

/// A revision becomes part of a path in the cache, so it must not lead out of it.
fn checked_revision(revision: Option<&str>) -> Result<&str, HubError> {
    let revision = revision.unwrap_or(DEFAULT_REVISION);
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    if revision.split('/').all(is_part) {
        Ok(revision)
    } else {
        Err(HubError::BadRevision {
            revision: revision.to_owned(),
        })
    }
}

/// Copies the files of a snapshot (which are links into the cache) to an ordinary folder.
fn copy_snapshot(snapshot: &Path, destination: &Path) -> Result<(), HubError> {
    fs::create_dir_all(destination).map_err(accessing(destination))?;
    for entry in fs::read_dir(snapshot).map_err(accessing(snapshot))? {
        let entry = entry.map_err(accessing(snapshot))?;
        let source = fs::canonicalize(entry.path()).map_err(accessing(&entry.path()))?;
        if source.is_file() {
            let target = destination.join(entry.file_name());
            copy_file(&source, &target).map_err(accessing(&target))?;
        }
    }
    Ok(())
}

/// Links weights, which are only ever replaced, and copies what somebody may want to edit.
fn copy_file(source: &Path, target: &Path) -> io::Result<()> {
    if select::is_weights(target) {
        match fs::remove_file(target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if fs::hard_link(source, target).is_ok() {
            return Ok(());
        }
    }
    let mut copy = Replacement::create(target)?;
    io::copy(&mut fs::File::open(source)?, &mut copy)?;
    copy.put_in_place()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        for name in ["gpt2", "openai/clip-vit-large-patch14-336", "a/B_c.1"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for path in [
            "", "/x", "./x", "../x", "a/b/c", "a/", "a/..", "a b", "a/b..c", "~/x",
        ] {
            assert!(check_name(path).is_err(), "{path}");
        }
    }

    #[test]
    fn revisions_stay_in_their_folder() {
        assert_eq!(checked_revision(None).unwrap(), "main");
        assert_eq!(checked_revision(Some("refs/pr/3")).unwrap(), "refs/pr/3");
        for bad in ["", "../x", "a/../b", "/a", "a//b", "a?b"] {
            assert!(checked_revision(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_token_is_not_printed() {
        let hub = Hub::new("cache").with_token(Some("hf_secret"));
        let text = format!("{hub:?}");
        assert!(
            text.contains("has_token: true") && !text.contains("hf_secret"),
            "{text}"
        );
    }

    #[test]
    fn yes_has_several_spellings() {
        assert!(is_true("1") && is_true("true") && is_true("Yes"));
        assert!(!is_true("0") && !is_true("off"));
    }
}
