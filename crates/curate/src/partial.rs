//! The folder in which something is made: `OUT.partial`, until it is `OUT`.
//!
//! Of a curation, indexes and finished shards stay there when it is interrupted. The manifest is written
//! last, so a folder that has one is whole, and only has to be moved. Conversions and rewritings are
//! simpler: a file says whose the folder is, and goes away when it is whole.

use std::path::{Path, PathBuf};

use crate::copy::Shard;
use crate::error::CurateError;
use crate::job::Job;
use crate::manifest::Manifest;
use crate::plan::Folders;
use crate::table::{write_json, write_text};

/// A folder's name without what says nothing, such as a slash at its end: `OUT.partial` stands beside `OUT`,
/// never inside of it.
pub(crate) fn plain_name(out: &Path) -> PathBuf {
    let plain: PathBuf = out.components().collect();
    match plain.file_name() {
        Some(_) => plain,
        // `.` and `..` are called something else from outside.
        None => plain.canonicalize().unwrap_or(plain),
    }
}

/// The name that `out` has until it is whole.
fn partial_of(out: &Path) -> PathBuf {
    let mut name = plain_name(out).into_os_string();
    name.push(".partial");
    PathBuf::from(name)
}

/// What becomes of what an interrupted run left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// It starts over.
    Remove,
    /// It goes on from there.
    Keep,
}

/// A folder that a mark tells whose it is while it is not whole.
#[derive(Debug)]
pub(crate) struct Marked {
    out: PathBuf,
    folder: PathBuf,
    mark: &'static str,
}

impl Marked {
    /// Makes the folder that becomes `out`. `mark` is the name of a file in it, and `leftover` what
    /// becomes of one that is there.
    ///
    /// # Errors
    /// If `out` is there, or its folder cannot be made or is somebody else's.
    pub fn open(out: &Path, mark: &'static str, leftover: Leftover) -> Result<Self, CurateError> {
        let out = plain_name(out);
        if out.exists() {
            return Err(CurateError::Occupied {
                path: out,
                what: "only a new folder is written",
            });
        }
        let folder = partial_of(&out);
        let there = folder.exists();
        if there && !folder.join(mark).exists() {
            return Err(CurateError::Occupied {
                path: folder,
                what: "is not what an interrupted run of this command leaves",
            });
        }
        if there && leftover == Leftover::Remove {
            std::fs::remove_dir_all(&folder).map_err(CurateError::io("remove", &folder))?;
        }
        std::fs::create_dir_all(&folder).map_err(CurateError::io("make the folder", &folder))?;
        write_text(&folder.join(mark), "")?;
        Ok(Self { out, folder, mark })
    }

    /// Where things are made.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// It becomes what it was opened for. The name comes first: what a kill leaves between the two is whole.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub fn publish(self) -> Result<(), CurateError> {
        let out = &self.out;
        std::fs::rename(&self.folder, out).map_err(CurateError::io("write", out))?;
        std::fs::remove_file(out.join(self.mark)).map_err(CurateError::io("finish", out))
    }
}

/// The folder in which a pool is made.
pub(crate) struct Partial {
    /// The folder.
    pub root: PathBuf,
    /// Folders of what is needed until the pool is whole.
    pub folders: Folders,
}

impl Partial {
    /// Opens the folder, with what an interrupted curation of the same job left there.
    ///
    /// # Errors
    /// If it cannot be made, its path is not UTF-8, or it belongs to somebody else.
    pub fn open(out: &Path, job: &Job) -> Result<Self, CurateError> {
        let root = partial_of(out);
        std::fs::create_dir_all(&root).map_err(CurateError::io("make the folder", &root))?;
        // Tables of the query engine are named by absolute paths.
        let root = root
            .canonicalize()
            .map_err(CurateError::io("find", &root))?;
        if root.to_str().is_none() {
            return Err(CurateError::NotUtf8 { path: root });
        }
        let folders = Folders {
            work: root.join("work"),
        };
        let partial = Self { root, folders };
        let whole = Manifest::read(&partial.root).ok();
        let fingerprint = job.fingerprint()?;
        let same = match &whole {
            Some(whole) => whole.fingerprint == fingerprint,
            None => Job::read(&partial.folders.job())
                .and_then(|there| there.fingerprint())
                .is_ok_and(|there| there == fingerprint),
        };
        if !same {
            partial.clear(whole.is_some())?;
        }
        for folder in [
            partial.folders.index(),
            partial.folders.bands(),
            partial.folders.shards(),
        ] {
            let io = CurateError::io("make the folder", &folder);
            std::fs::create_dir_all(&folder).map_err(io)?;
        }
        if !same {
            job.write(&partial.folders.job())?;
        }
        Ok(partial)
    }

    /// Removes what another curation left; refuses what is none.
    fn clear(&self, was_whole: bool) -> Result<(), CurateError> {
        let io = CurateError::io("read", &self.root);
        let mut entries = self.root.read_dir().map_err(io)?;
        if entries.next().is_none() {
            return Ok(());
        }
        if !was_whole && !self.folders.work.is_dir() {
            return Err(CurateError::Occupied {
                path: self.root.clone(),
                what: "is not what an interrupted curation leaves",
            });
        }
        let io = CurateError::io("remove", &self.root);
        std::fs::remove_dir_all(&self.root).map_err(io)?;
        std::fs::create_dir_all(&self.root).map_err(CurateError::io("make the folder", &self.root))
    }

    /// An empty folder.
    pub fn fresh(&self, folder: &Path) -> Result<(), CurateError> {
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(CurateError::io("remove", folder))?;
        }
        std::fs::create_dir_all(folder).map_err(CurateError::io("make the folder", folder))
    }

    /// The manifest, if everything is made and only the move is missing.
    ///
    /// # Errors
    /// As [`Job::fingerprint`].
    pub fn whole(&self, job: &Job) -> Result<Option<Manifest>, CurateError> {
        let fingerprint = job.fingerprint()?;
        let manifest = Manifest::read(&self.root).ok();
        Ok(manifest.filter(|manifest| manifest.fingerprint == fingerprint))
    }

    /// A shard that is there, or else made.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn shard(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<Shard, CurateError>,
    ) -> Result<Shard, CurateError> {
        let note = self.folders.shards().join(format!("{name}.json"));
        let there = std::fs::read(&note).ok();
        let there = there.and_then(|text| serde_json::from_slice::<Shard>(&text).ok());
        if let Some(shard) = there {
            let size = self
                .root
                .join(&shard.file)
                .metadata()
                .map(|about| about.len());
            if size.is_ok_and(|size| size == shard.bytes) {
                return Ok(shard);
            }
        }
        let shard = make()?;
        write_json(&note, &shard)?;
        Ok(shard)
    }

    /// Makes it the pool `out`. A kill at any moment leaves what the same command finishes.
    ///
    /// # Errors
    /// If something cannot be removed or moved.
    pub fn publish(&self, out: &Path) -> Result<(), CurateError> {
        let entries = self.root.read_dir();
        for entry in entries
            .map_err(CurateError::io("read", &self.root))?
            .flatten()
        {
            // Shards that a killed run began.
            if entry.file_name().to_string_lossy().ends_with(".tmp") {
                let path = entry.path();
                std::fs::remove_file(&path).map_err(CurateError::io("remove", &path))?;
            }
        }
        let work = &self.folders.work;
        if work.exists() {
            std::fs::remove_dir_all(work).map_err(CurateError::io("remove", work))?;
        }
        if out.exists() {
            // It is empty: whoever curates looked.
            std::fs::remove_dir(out).map_err(CurateError::io("replace", out))?;
        }
        std::fs::rename(&self.root, out).map_err(CurateError::io("write", out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_stands_beside_its_place() {
        for out in ["a/b", "a/b/", "a//b//", "a/./b/."] {
            assert_eq!(
                partial_of(Path::new(out)),
                Path::new("a/b.partial"),
                "{out}"
            );
        }
        assert_eq!(partial_of(Path::new("/a/")), Path::new("/a.partial"));
        // Its name is seen from outside.
        let folder = tempfile::tempdir().unwrap();
        let above = folder.path().canonicalize().unwrap();
        std::fs::create_dir(above.join("in")).unwrap();
        assert_eq!(plain_name(&above.join("in/..")), above);
    }

    #[test]
    fn a_slash_at_the_end_names_the_same_folder() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out/");
        let partial = Marked::open(&out, ".mark", Leftover::Remove).unwrap();
        assert!(!out.exists());
        partial.publish().unwrap();
        assert_eq!(out.read_dir().unwrap().count(), 0);
        assert!(!folder.path().join("out.partial").exists());
        // A file of this name is found before anything is made.
        std::fs::write(folder.path().join("file"), "").unwrap();
        let refused = Marked::open(&folder.path().join("file/"), ".mark", Leftover::Remove);
        assert!(matches!(refused, Err(CurateError::Occupied { .. })));
    }
}
