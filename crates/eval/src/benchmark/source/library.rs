//! Where the files of a benchmark are.
//!
//! Looked for in this order: each folder that the user named, as `<folder>/<benchmark>`,
//! `<folder>/<owner>/<name>` or `<folder>/<name>` of the hub's data set; the hub's cache, in the layout
//! that the Python libraries share; the network, if it is allowed. The folder itself is never taken
//! for the data set: files of another benchmark may lie in it under the same name.
//!
//! Without a list of files the layouts are tried that the hub uses for a configuration and a split,
//! such as `data/test-00000-of-00002.parquet` or `<config>/val-*.parquet`.

use std::fs;
use std::path::{Path, PathBuf};

use opabinia_data::stays_inside;

use crate::benchmark::definition::{JoinTable, SourceTable};
use crate::benchmark::error::BenchmarkError;

/// The branch that is meant if none is named.
const DEFAULT_REVISION: &str = "main";

/// Endings of files of rows, the best first.
const EXTENSIONS: [&str; 5] = ["parquet", "jsonl", "json", "tsv", "csv"];

/// How deep folders are looked through.
const MAX_DEPTH: usize = 4;

/// Where benchmarks are looked for.
#[derive(Default)]
pub struct Library<'a> {
    /// Folders of the user's, the first first.
    pub folders: Vec<PathBuf>,
    /// The hub's cache, such as `~/.cache/huggingface/hub`.
    pub cache: Option<PathBuf>,
    /// The network, if it is allowed.
    pub fetch: Option<&'a dyn Fetch>,
}

/// Brings files of data sets into a cache.
pub trait Fetch {
    /// The commit of a revision, and the names of its files.
    ///
    /// # Errors
    /// If the hub does not answer.
    fn list(&self, repo: &str, revision: &str) -> Result<Listing, BenchmarkError>;

    /// Fetches files, and says in which folder the data set's files are.
    ///
    /// # Errors
    /// If one of them cannot be fetched.
    fn fetch(
        &self,
        repo: &str,
        listing: &Listing,
        files: &[String],
    ) -> Result<PathBuf, BenchmarkError>;
}

/// What a hub says about a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// What was asked for.
    pub revision: String,
    /// The commit.
    pub commit: String,
    /// Its files.
    pub files: Vec<String>,
}

/// Which files are meant.
#[derive(Clone, Debug)]
pub(super) struct FileSpec<'a> {
    pub hub: Option<&'a str>,
    pub config: Option<&'a str>,
    pub split: Option<&'a str>,
    pub revision: Option<&'a str>,
    pub files: Option<&'a [String]>,
    pub pictures: Option<&'a str>,
}

impl<'a> FileSpec<'a> {
    pub(super) fn of(table: &'a SourceTable) -> Self {
        Self {
            hub: table.hub.as_deref(),
            config: table.config.as_deref(),
            split: table.split.as_deref(),
            revision: table.revision.as_deref(),
            files: table.files.as_deref(),
            pictures: table.pictures.as_deref(),
        }
    }

    pub(super) fn of_join(table: &'a SourceTable, join: &'a JoinTable) -> Self {
        Self {
            hub: join.hub.as_deref().or(table.hub.as_deref()),
            config: join.config.as_deref(),
            split: join.split.as_deref(),
            revision: join.revision.as_deref().or(table.revision.as_deref()),
            files: join.files.as_deref(),
            pictures: None,
        }
    }

    fn revision(&self) -> &'a str {
        self.revision.unwrap_or(DEFAULT_REVISION)
    }

    /// Lists of patterns; the first of which every pattern has a file counts.
    fn patterns(&self, benchmark: &str) -> Vec<Vec<String>> {
        if let Some(files) = self.files {
            return vec![files.to_vec()];
        }
        let split = self.split.unwrap_or("test");
        let config = self.config.filter(|config| *config != "default");
        let stems = match config {
            Some(config) => vec![
                format!("{config}/{split}-*"),
                format!("{config}/{split}"),
                format!("data/{config}/{split}-*"),
                format!("{config}_{split}"),
                format!("{config}-{split}"),
            ],
            None => vec![
                format!("data/{split}-*"),
                format!("data/{split}"),
                format!("default/{split}-*"),
                format!("{split}-*"),
                format!("{split}"),
                benchmark.to_owned(),
                "questions".to_owned(),
            ],
        };
        let each = |stem: &String| EXTENSIONS.map(|ending| vec![format!("{stem}.{ending}")]);
        stems.iter().flat_map(each).collect()
    }

    /// Whether the pictures that rows name are there too.
    fn has_pictures(&self, root: &Path) -> bool {
        self.pictures.is_none_or(|place| root.join(place).exists())
    }

    /// For messages.
    fn describe(&self, benchmark: &str) -> String {
        let patterns = self.patterns(benchmark);
        let first = patterns.first().map(|all| all.join("` and `"));
        let set = self
            .hub
            .map(|hub| format!(" of `{hub}`"))
            .unwrap_or_default();
        let pictures = self.pictures.filter(|place| *place != ".");
        let pictures = pictures.map(|place| format!(" with the pictures `{place}`"));
        format!(
            "`{}`{set}{}",
            first.unwrap_or_default(),
            pictures.unwrap_or_default()
        )
    }
}

/// Files that were found.
#[derive(Debug)]
pub(super) struct Found {
    /// The folder of the data set.
    pub root: PathBuf,
    /// The files, in the order that they are read.
    pub files: Vec<PathBuf>,
}

impl Library<'_> {
    /// Finds the files of a source.
    pub(super) fn find(
        &self,
        benchmark: &str,
        spec: &FileSpec<'_>,
    ) -> Result<Found, BenchmarkError> {
        let mut looked = Vec::new();
        for root in self.roots(benchmark, spec) {
            let names = files_below(&root)?;
            let chosen = match choose(&names, benchmark, spec) {
                // The network may have the other parts.
                Err(BenchmarkError::MissingParts { .. }) if self.may_fetch(spec) => None,
                chosen => chosen?,
            };
            if let Some(chosen) = chosen.filter(|_| spec.has_pictures(&root)) {
                let files = chosen.iter().map(|name| root.join(name)).collect();
                return Ok(Found { root, files });
            }
            looked.push(format!("`{}`", root.display()));
        }
        if let (Some(fetch), Some(hub)) = (self.fetch, spec.hub) {
            if let Some(found) = fetch_files(fetch, hub, benchmark, spec)? {
                return Ok(found);
            }
            looked.push("the hub".to_owned());
        }
        Err(BenchmarkError::NotFound {
            benchmark: benchmark.to_owned(),
            wanted: spec.describe(benchmark),
            looked,
        })
    }

    fn may_fetch(&self, spec: &FileSpec<'_>) -> bool {
        self.fetch.is_some() && spec.hub.is_some()
    }

    /// Folders that may be the data set's.
    fn roots(&self, benchmark: &str, spec: &FileSpec<'_>) -> Vec<PathBuf> {
        let mut names = vec![benchmark];
        names.extend(spec.hub);
        names.extend(spec.hub.and_then(|hub| Some(hub.split_once('/')?.1)));
        let local = self.folders.iter();
        let local = local.flat_map(|folder| names.iter().map(move |name| folder.join(name)));
        let cached = self.cache.iter().filter_map(|cache| {
            let folder = format!("datasets--{}", spec.hub?.replace('/', "--"));
            snapshot(&cache.join(folder), spec.revision())
        });
        local.chain(cached).collect()
    }
}

/// The folder of a revision in the hub's cache.
fn snapshot(folder: &Path, revision: &str) -> Option<PathBuf> {
    let safe = stays_inside(revision);
    let named = safe.then(|| fs::read_to_string(folder.join("refs").join(revision)).ok());
    let commit = named.flatten().unwrap_or_else(|| revision.to_owned());
    let commit = commit.trim();
    let is_commit = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_hexdigit());
    is_commit.then(|| folder.join("snapshots").join(commit))
}

/// The data set and commit that a folder of the hub's cache holds, `owner/name@commit`.
pub(super) fn origin(root: &Path) -> Option<String> {
    let commit = root.file_name()?.to_str()?;
    let snapshots = root.parent()?;
    let folder = snapshots.parent()?.file_name()?.to_str()?;
    let name = folder.strip_prefix("datasets--")?.replacen("--", "/", 1);
    (snapshots.file_name()? == "snapshots").then(|| format!("{name}@{commit}"))
}

/// Names of all files below a folder, with `/` between the parts, sorted. None if there is no folder.
fn files_below(root: &Path) -> Result<Vec<String>, BenchmarkError> {
    let mut names = Vec::new();
    let mut folders = vec![(root.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let entry = entry.map_err(BenchmarkError::read("folder", &folder))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = entry.path();
            if !path.is_dir() {
                names.push(prefix.clone() + &name);
            } else if depth < MAX_DEPTH && !name.starts_with('.') {
                folders.push((path, format!("{prefix}{name}/"), depth + 1));
            }
        }
    }
    names.sort();
    Ok(names)
}

/// The files that are meant among those that are there.
fn choose(
    names: &[String],
    benchmark: &str,
    spec: &FileSpec<'_>,
) -> Result<Option<Vec<String>>, BenchmarkError> {
    for patterns in spec.patterns(benchmark) {
        let found: Vec<Vec<String>> = patterns
            .iter()
            .map(|pattern| {
                names
                    .iter()
                    .filter(|name| matches(pattern, name))
                    .cloned()
                    .collect()
            })
            .collect();
        if found.is_empty() || found.iter().any(Vec::is_empty) {
            continue;
        }
        found.iter().try_for_each(|parts| check_parts(parts))?;
        return Ok(Some(found.into_iter().flatten().collect()));
    }
    Ok(None)
}

/// Whether a name fits a pattern, of which `*` is any part of a name between slashes.
fn matches(pattern: &str, name: &str) -> bool {
    let mut patterns = pattern.split('/');
    let mut parts = name.split('/');
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if part_matches(pattern, part) => {}
            _ => return false,
        }
    }
}

fn part_matches(pattern: &str, part: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == part;
    };
    let Some(mut part) = part.strip_prefix(start) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match part.split_once(piece) {
            Some((_, behind)) => part = behind,
            None => return false,
        }
    }
    part.ends_with(end)
}

/// Whether all of `name-00000-of-00003.parquet` are there.
fn check_parts(files: &[String]) -> Result<(), BenchmarkError> {
    for file in files {
        let Some((start, expected)) = parts_of(file) else {
            continue;
        };
        let same = |other: &&String| parts_of(other) == Some((start, expected));
        let found = files.iter().filter(same).count();
        if found != expected {
            return Err(BenchmarkError::MissingParts {
                path: file.into(),
                expected,
                found,
            });
        }
    }
    Ok(())
}

/// What comes before the number of a part, and how many parts there are.
fn parts_of(file: &str) -> Option<(&str, usize)> {
    let (before, behind) = file.rsplit_once("-of-")?;
    let digits = behind.len()
        - behind
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .len();
    let count = behind.get(..digits)?.parse().ok()?;
    let (start, number) = before.rsplit_once('-')?;
    let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    is_number.then_some((start, count))
}

/// Fetches the files that are meant, and the pictures beside them.
fn fetch_files(
    fetch: &dyn Fetch,
    hub: &str,
    benchmark: &str,
    spec: &FileSpec<'_>,
) -> Result<Option<Found>, BenchmarkError> {
    let listing = fetch.list(hub, spec.revision())?;
    let Some(chosen) = choose(&listing.files, benchmark, spec)? else {
        return Ok(None);
    };
    let is_picture = |name: &&String| match spec.pictures {
        Some(".") => has_picture_ending(name),
        Some(place) => *name == place || name.starts_with(&format!("{place}/")),
        None => false,
    };
    let pictures = listing.files.iter().filter(is_picture);
    // Rows last: where they are, the pictures are too, although somebody killed the program.
    let wanted: Vec<String> = pictures.chain(&chosen).cloned().collect();
    let root = fetch.fetch(hub, &listing, &wanted)?;
    let files = chosen.iter().map(|name| root.join(name)).collect();
    Ok(Some(Found { root, files }))
}

/// Whether a file is a picture by its name.
fn has_picture_ending(name: &str) -> bool {
    let ending = name
        .rsplit_once('.')
        .map(|(_, ending)| ending.to_lowercase());
    let known = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];
    ending.is_some_and(|ending| known.contains(&ending.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec<'a>(config: Option<&'a str>, split: Option<&'a str>) -> FileSpec<'a> {
        FileSpec {
            hub: Some("owner/Set"),
            config,
            split,
            revision: None,
            files: None,
            pictures: None,
        }
    }

    fn put(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn patterns_match_parts_of_names() {
        assert!(matches(
            "data/test-*.parquet",
            "data/test-00000-of-00001-ab.parquet"
        ));
        assert!(!matches("data/test-*.parquet", "data/sub/test-0.parquet"));
        assert!(!matches("data/test-*.parquet", "data/latest-0.parquet"));
        assert!(matches("*a*b", "xaxb") && !matches("*a*b", "xbxa"));
        assert!(matches("a/b", "a/b") && !matches("a", "a/b"));
    }

    #[test]
    fn all_parts_must_be_there() {
        let parts = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
            check_parts(&names)
        };
        assert!(parts(&["data/test-00000-of-00001-4af.parquet"]).is_ok());
        assert!(parts(&["t-00000-of-00002.parquet", "t-00001-of-00002.parquet"]).is_ok());
        assert!(parts(&["out-of-place.parquet"]).is_ok());
        let error = parts(&["t-00001-of-00002.parquet"]).unwrap_err();
        assert!(
            error.to_string().contains("one of 2 parts, but only 1"),
            "{error}"
        );
    }

    #[test]
    fn the_users_folder_comes_first_then_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, cache) = (folder.path().join("mine"), folder.path().join("cache"));
        let library = Library {
            folders: vec![mine.clone()],
            cache: Some(cache.clone()),
            fetch: None,
        };
        let find = || library.find("set", &spec(None, Some("val")));
        let message = find().unwrap_err().to_string();
        assert!(
            message.contains("`data/val-*.parquet` of `owner/Set`"),
            "{message}"
        );
        assert!(message.contains("mine/owner/Set"), "{message}");

        let set = cache.join("datasets--owner--Set");
        put(set.join("snapshots/abc123/data/val-00000-of-00001.parquet"));
        assert!(find().is_err(), "no revision points to it");
        fs::create_dir_all(set.join("refs")).unwrap();
        fs::write(set.join("refs/main"), "abc123\n").unwrap();
        assert!(find().unwrap().root.ends_with("snapshots/abc123"));

        put(mine.join("data/val-00000-of-00001.parquet"));
        assert!(!find().unwrap().root.ends_with("mine"), "some other set's");
        put(mine.join("Set/val.jsonl"));
        assert!(find().unwrap().root.ends_with("mine/Set"));
        let with_pictures = FileSpec {
            pictures: Some("signs.tar"),
            ..spec(None, Some("val"))
        };
        let message = library.find("set", &with_pictures).unwrap_err().to_string();
        assert!(
            message.contains("with the pictures `signs.tar`"),
            "{message}"
        );
        put(mine.join("Set/signs.tar"));
        assert!(library.find("set", &with_pictures).is_ok());
        put(mine.join("set/questions.csv"));
        let found = find().unwrap();
        assert!(found.files[0].ends_with("mine/set/questions.csv"));
    }

    #[test]
    fn configurations_have_folders() {
        let names: Vec<String> = [
            "a/val-00000-of-00001.parquet",
            "b/val.parquet",
            "data/val.csv",
        ]
        .map(String::from)
        .into();
        let chosen = |config| choose(&names, "x", &spec(config, Some("val"))).unwrap();
        assert_eq!(chosen(Some("a")).unwrap(), ["a/val-00000-of-00001.parquet"]);
        assert_eq!(chosen(Some("b")).unwrap(), ["b/val.parquet"]);
        assert_eq!(chosen(None).unwrap(), ["data/val.csv"]);
        assert_eq!(chosen(Some("default")).unwrap(), ["data/val.csv"]);
        assert_eq!(chosen(Some("c")), None);
    }

    #[test]
    fn the_cache_says_which_commit_it_holds() {
        let root = Path::new("/hub/datasets--lmms-lab--GQA/snapshots/c0ffee");
        assert_eq!(origin(root).as_deref(), Some("lmms-lab/GQA@c0ffee"));
        assert_eq!(origin(Path::new("/data/lmms-lab/GQA")), None);
        assert_eq!(origin(Path::new("/")), None);
    }

    #[test]
    fn revisions_stay_in_the_cache() {
        let folder = Path::new("/nowhere");
        assert_eq!(snapshot(folder, "../../x"), None);
        assert_eq!(snapshot(folder, "main"), None);
        assert!(snapshot(folder, "0123abcd").is_some());
    }
}
