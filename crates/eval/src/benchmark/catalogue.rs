//! All benchmarks that have a name: those built in, and the user's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::definition::BenchmarkDefinition;
use super::error::{BenchmarkError, nearest};

/// Name and text of each built-in definition.
macro_rules! built_in {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../benchmarks/", $name, ".toml")))),+]
    };
}

/// The built-in definitions, in the order of the paper's table.
const BUILT_IN: [(&str, &str); 35] = built_in![
    "gqa",
    "vizwiz",
    "scienceqa",
    "textvqa",
    "pope",
    "mme",
    "mmbench-en",
    "mmbench-cn",
    "seed",
    "mmmu",
    "mathvista",
    "ai2d",
    "chartqa",
    "docvqa",
    "docvqa-val",
    "infovqa",
    "infovqa-val",
    "stvqa",
    "ocrbench",
    "mmstar",
    "realworldqa",
    "synthdog",
    "qbench",
    "blink",
    "mmvp",
    "mmvp-corrected",
    "vstar",
    "cv-bench",
    "cv-bench-2d",
    "cv-bench-3d",
    "cv-bench-ade",
    "cv-bench-coco",
    "cv-bench-omni",
    "mmvet",
    "world-cvbench",
];

/// A benchmark that can be named.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it is.
    pub definition: BenchmarkDefinition,
    /// The text of its file.
    pub text: String,
    /// The user's file; `None` if it is built in.
    pub path: Option<PathBuf>,
}

/// Benchmarks by name.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    entries: Vec<Entry>,
    places: BTreeMap<String, usize>,
}

impl Catalogue {
    /// The built-in benchmarks.
    ///
    /// # Errors
    /// Never, as a test makes sure.
    pub fn built_in() -> Result<Self, BenchmarkError> {
        let mut catalogue = Self::default();
        for (name, text) in BUILT_IN {
            let path = format!("benchmarks/{name}.toml");
            catalogue.add(Entry {
                definition: BenchmarkDefinition::parse(text, Path::new(&path))?,
                text: text.to_owned(),
                path: None,
            });
        }
        Ok(catalogue)
    }

    /// Adds every `.toml` of a folder, in the order of their names; one with a name that is known
    /// takes that one's place.
    ///
    /// # Errors
    /// If the folder or a definition cannot be read.
    pub fn add_folder(&mut self, folder: &Path) -> Result<(), BenchmarkError> {
        let read = BenchmarkError::read;
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(read("folder", folder))? {
            let path = entry.map_err(read("folder", folder))?.path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().try_for_each(|path| self.add_file(path))
    }

    /// Adds one definition, or replaces the one of its name.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn add_file(&mut self, path: &Path) -> Result<(), BenchmarkError> {
        let text = fs::read_to_string(path).map_err(BenchmarkError::read("definition", path))?;
        self.add(Entry {
            definition: BenchmarkDefinition::parse(&text, path)?,
            text,
            path: Some(path.to_owned()),
        });
        Ok(())
    }

    fn add(&mut self, entry: Entry) {
        let name = entry.definition.name.clone();
        match self
            .places
            .get(&name)
            .and_then(|&place| self.entries.get_mut(place))
        {
            Some(known) => *known = entry,
            None => {
                self.places.insert(name, self.entries.len());
                self.entries.push(entry);
            }
        }
    }

    /// The benchmark of this name.
    ///
    /// # Errors
    /// [`BenchmarkError::UnknownBenchmark`] with the nearest name.
    pub fn find(&self, name: &str) -> Result<&Entry, BenchmarkError> {
        let place = self.places.get(name);
        let entry = place.and_then(|&place| self.entries.get(place));
        entry.ok_or_else(|| BenchmarkError::UnknownBenchmark {
            name: name.to_owned(),
            nearest: nearest(name, self.places.keys().map(String::as_str)),
        })
    }

    /// All of them: the built-in ones in the order of the paper's table, then the user's.
    #[must_use]
    pub fn all(&self) -> &[Entry] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_definitions_are_good() {
        let catalogue = Catalogue::built_in().unwrap();
        assert_eq!(catalogue.all().len(), BUILT_IN.len());
        for (entry, (name, _)) in catalogue.all().iter().zip(BUILT_IN) {
            assert_eq!(entry.definition.name, name, "file and name agree");
            match entry.definition.home.as_deref() {
                Some(home) => assert!(home.starts_with("https://"), "{name}"),
                None => assert_eq!(name, "world-cvbench", "made at home"),
            }
        }
    }

    #[test]
    fn the_users_definitions_add_and_replace() {
        let folder = tempfile::tempdir().unwrap();
        let gqa = BUILT_IN[0].1;
        let mine = gqa.replace("name = \"gqa\"", "name = \"mine\"");
        fs::write(folder.path().join("mine.toml"), mine).unwrap();
        let other = gqa.replace("title = \"GQA\"", "title = \"My GQA\"");
        fs::write(folder.path().join("gqa.toml"), other).unwrap();
        fs::write(folder.path().join("notes.md"), "no definition").unwrap();
        let mut catalogue = Catalogue::built_in().unwrap();
        catalogue.add_folder(folder.path()).unwrap();
        assert_eq!(catalogue.all().len(), BUILT_IN.len() + 1);
        assert_eq!(catalogue.find("gqa").unwrap().definition.title, "My GQA");
        assert!(catalogue.find("mine").unwrap().path.is_some());
        let error = catalogue.find("mmvb").unwrap_err().to_string();
        assert_eq!(error, "there is no benchmark `mmvb`, did you mean `mmvp`?");
    }
}
