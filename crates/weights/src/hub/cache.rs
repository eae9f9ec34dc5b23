//! The cache layout of the Hugging Face libraries, for one revision of one model (of a data set
//! `datasets--owner--name`):
//!
//! ```text
//! models--owner--name/refs/main                    the commit of a branch
//!                     snapshots/<commit>/<file>    links to
//!                     blobs/<sha-256 or git id>    the contents
//!                     .fetching/                   files that are not complete and checked yet
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{HubError, accessing};

const STAGING: &str = ".fetching";

/// What a repository of the hub holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Dataset,
}

impl Kind {
    /// What its folders in the cache begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Model => "models--",
            Self::Dataset => "datasets--",
        }
    }
}

/// The folder of a model or data set in the cache, seen from one revision.
#[derive(Debug)]
pub(super) struct ModelCache {
    folder: PathBuf,
    revision: String,
    kind: Kind,
}

impl ModelCache {
    pub(super) fn new(cache: &Path, kind: Kind, name: &str, revision: &str) -> Self {
        let folder = format!("{}{}", kind.prefix(), name.replace('/', "--"));
        Self {
            folder: cache.join(folder),
            revision: revision.to_owned(),
            kind,
        }
    }

    /// What the repository holds.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The commit that the cache knows the revision by, if it knows it.
    pub(super) fn commit(&self) -> Option<String> {
        let reference = self.folder.join("refs").join(&self.revision);
        let commit = match fs::read_to_string(reference) {
            Ok(text) => text.trim().to_owned(),
            // A commit needs no reference.
            Err(_) => self.revision.clone(),
        };
        is_commit(&commit).then_some(commit)
    }

    /// The snapshot of the revision, if there is one.
    pub(super) fn snapshot(&self) -> Option<PathBuf> {
        let folder = self.folder_of(&self.commit()?);
        folder.is_dir().then_some(folder)
    }

    /// The snapshot folder of a commit.
    pub(super) fn folder_of(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The contents with the given identity.
    pub(super) fn blob(&self, id: impl AsRef<Path>) -> PathBuf {
        self.folder.join("blobs").join(id)
    }

    /// A cache of its own, where files are until they are complete and checked.
    pub(super) fn staging(&self) -> PathBuf {
        self.folder.join(STAGING)
    }

    /// Where the client collects the contents with the given identity.
    pub(super) fn staged_part(&self, name: &str, id: &str) -> PathBuf {
        Self::new(&self.staging(), self.kind, name, &self.revision)
            .blob(id)
            .with_extension("part")
    }

    /// Removes the staging cache unless something in it is not finished.
    pub(super) fn tidy(&self, name: &str) {
        let blobs = Self::new(&self.staging(), self.kind, name, &self.revision).blob("");
        let is_lock = |name: &Path| name.extension().is_some_and(|e| e == "lock");
        let finished = fs::read_dir(blobs).is_ok_and(|entries| {
            entries
                .filter_map(Result::ok)
                .all(|entry| is_lock(&entry.path()))
        });
        if finished && let Err(error) = fs::remove_dir_all(self.staging()) {
            tracing::debug!(%error, "the staging folder stays");
        }
    }

    /// Records that the revision is this commit.
    pub(super) fn point_to(&self, commit: &str) -> Result<(), HubError> {
        if self.revision == commit {
            return Ok(());
        }
        let reference = self.folder.join("refs").join(&self.revision);
        if let Some(folder) = reference.parent() {
            fs::create_dir_all(folder).map_err(accessing(folder))?;
        }
        fs::write(&reference, commit).map_err(accessing(&reference))
    }

    /// Makes `file` of a snapshot out of contents that an earlier commit brought.
    pub(super) fn link(&self, blob: &Path, commit: &str, file: &str) -> io::Result<()> {
        let target = self.folder_of(commit).join(file);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        // A link that led nowhere would be in the way.
        if fs::symlink_metadata(&target).is_ok() {
            fs::remove_file(&target)?;
        }
        link_or_copy(blob, &target, Path::new(file).components().count())
    }
}

/// Links relatively, as the Python libraries do, so that the cache can be moved; copies where the
/// system has no such links. `depth` is the number of parts of the file's name in the model.
fn link_or_copy(blob: &Path, target: &Path, depth: usize) -> io::Result<()> {
    #[cfg(unix)]
    {
        let id = blob
            .file_name()
            .ok_or_else(|| io::Error::other("contents without a name"))?;
        // snapshots/<commit>/<file> is two folders below the model for a plain file name.
        let up: PathBuf = std::iter::repeat_n("..", depth + 1).collect();
        std::os::unix::fs::symlink(up.join("blobs").join(id), target)
    }
    #[cfg(not(unix))]
    {
        let _ = depth;
        fs::copy(blob, target).map(|_| ())
    }
}

/// Whether this is the full identity of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_reference_leads_to_its_snapshot() {
        let root = tempfile::tempdir().unwrap();
        let cache = ModelCache::new(root.path(), Kind::Model, "o/m", "main");
        assert_eq!(cache.snapshot(), None);
        let folder = root.path().join("models--o--m/snapshots").join(COMMIT);
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(cache.snapshot(), None);
        cache.point_to(COMMIT).unwrap();
        assert_eq!(cache.snapshot(), Some(folder.clone()));
        let by_commit = ModelCache::new(root.path(), Kind::Model, "o/m", COMMIT);
        assert_eq!(by_commit.snapshot(), Some(folder));
    }

    #[test]
    fn a_reference_must_not_lead_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let cache = ModelCache::new(root.path(), Kind::Model, "m", "main");
        fs::create_dir_all(root.path().join("models--m/snapshots")).unwrap();
        cache.point_to("../../..").unwrap();
        assert_eq!(cache.snapshot(), None);
    }

    #[test]
    fn links_work_at_any_depth() {
        let root = tempfile::tempdir().unwrap();
        let cache = ModelCache::new(root.path(), Kind::Model, "m", "main");
        fs::create_dir_all(root.path().join("models--m/blobs")).unwrap();
        let blob = cache.blob("abc");
        fs::write(&blob, "contents").unwrap();
        for file in ["a.bin", "sub/b.bin"] {
            cache.link(&blob, COMMIT, file).unwrap();
            cache.link(&blob, COMMIT, file).unwrap();
            let read = fs::read_to_string(cache.folder_of(COMMIT).join(file)).unwrap();
            assert_eq!(read, "contents");
        }
    }
}
