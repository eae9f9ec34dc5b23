//! Where benchmarks and their questions are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use opabinia_eval::benchmark::{
    BenchmarkDefinition, BenchmarkQuestion, Catalogue, Entry, Library, PictureStore, Questions,
    submission,
};
use opabinia_eval::scorer::Protocol;
use opabinia_eval::{Items, Record, Vision};
use opabinia_weights::hub::Hub;

use crate::failure::Failure;
use crate::output;

/// Which definitions there are.
#[derive(Args)]
pub struct DefinitionArgs {
    /// Folder with more definitions of benchmarks (.toml); one of a known name takes its place.
    #[arg(long, value_name = "FOLDER")]
    definitions: Vec<PathBuf>,
}

/// Where questions are, and how they are read.
#[derive(Args)]
pub struct SourceArgs {
    /// Folder that holds benchmarks, each in a folder of its name; looked through before the hub's
    /// cache.
    #[arg(long, value_name = "FOLDER")]
    data: Vec<PathBuf>,
    /// Whose rules judge: those of the field, or those of the reference's scripts.
    #[arg(long, value_enum, default_value_t = ProtocolArg::Standard)]
    protocol: ProtocolArg,
    /// Where pictures are kept that lie inside other files; `opabinia/pictures` in the user's cache if
    /// not given.
    #[arg(long, value_name = "FOLDER")]
    picture_cache: Option<PathBuf>,
}

/// See [`Protocol`].
#[derive(Clone, Copy, ValueEnum)]
pub enum ProtocolArg {
    /// Those of common harnesses.
    Standard,
    /// Those of the reference's scripts, for parity with published numbers.
    Reference,
}

impl From<ProtocolArg> for Protocol {
    fn from(protocol: ProtocolArg) -> Self {
        match protocol {
            ProtocolArg::Standard => Self::Standard,
            ProtocolArg::Reference => Self::Reference,
        }
    }
}

/// A benchmark that takes submissions, and its questions.
pub struct Submitted {
    definition: BenchmarkDefinition,
    questions: Vec<BenchmarkQuestion>,
}

impl DefinitionArgs {
    /// The built-in benchmarks and the user's.
    pub fn catalogue(&self) -> Result<Catalogue, Failure> {
        let mut catalogue = Catalogue::built_in()?;
        for folder in &self.definitions {
            catalogue.add_folder(folder)?;
        }
        Ok(catalogue)
    }

    /// The benchmark of a name, or of a file of its definition.
    pub fn find(&self, name: &str) -> Result<Entry, Failure> {
        let mut catalogue = self.catalogue()?;
        if !is_file(name) {
            let found = catalogue.find(name).cloned();
            return found.map_err(|error| {
                Failure::from(error).hint(
                    "`opabinia eval list` lists the benchmarks; a definition of your own is named by \
                     its file, `./mine.toml`",
                )
            });
        }
        let path = Path::new(name);
        catalogue.add_file(path)?;
        let entries = catalogue.all().iter();
        let entry = entries
            .rev()
            .find(|entry| entry.path.as_deref() == Some(path));
        entry
            .cloned()
            .ok_or_else(|| Failure::new(format!("`{name}` defines no benchmark")))
    }
}

impl SourceArgs {
    /// Reads the questions of a benchmark.
    pub fn read(&self, definition: &BenchmarkDefinition) -> Result<Questions, Failure> {
        let library = Library {
            folders: self.data.clone(),
            cache: Some(Hub::from_env()?.cache().to_owned()),
            fetch: None,
        };
        let mut store = PictureStore::Folder(self.pictures()?);
        Questions::read(definition, self.protocol.into(), &library, &mut store).map_err(|error| {
            Failure::from(error).hint(format!(
                "`--data FOLDER` names the folder that holds `{0}/`; `opabinia eval show {0}` says what \
                 is looked for",
                definition.name
            ))
        })
    }

    fn pictures(&self) -> Result<PathBuf, Failure> {
        if let Some(folder) = &self.picture_cache {
            return Ok(folder.clone());
        }
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
        let folder = cache.map(|cache| cache.join("opabinia/pictures"));
        folder.ok_or_else(|| {
            Failure::new("there is no folder for caches").hint("pass `--picture-cache FOLDER`")
        })
    }

    /// Reads benchmarks, says what is wrong with their rows, and keeps those that take submissions.
    pub fn items(
        &self,
        names: &[String],
        definitions: &DefinitionArgs,
    ) -> Result<(Items, Vec<Submitted>), Failure> {
        let mut items = Items::default();
        let mut submitted = Vec::new();
        for name in names {
            let definition = definitions.find(name)?.definition;
            let questions = self.read(&definition)?;
            tell(&definition, &questions);
            if definition.submission.is_some() {
                submitted.push(Submitted {
                    definition: definition.clone(),
                    questions: questions.questions.clone(),
                });
            }
            items.add(&definition, questions)?;
        }
        Ok((items, submitted))
    }
}

impl Submitted {
    /// Writes the file for the benchmark's server, if every question of it has an answer.
    pub fn write(&self, folder: &Path, records: &[Record]) -> Result<Option<PathBuf>, Failure> {
        let name = &self.definition.name;
        let mine = records.iter().filter(|record| {
            record.vision == Vision::On && record.benchmark.as_ref() == Some(name)
        });
        let answers: HashMap<String, String> = mine
            .filter_map(|record| Some((record.id.clone(), record.answered()?.answer.clone())))
            .collect();
        let asked = |question: &&BenchmarkQuestion| answers.contains_key(&question.id);
        let Some(table) = &self.definition.submission else {
            return Ok(None);
        };
        if self.questions.iter().filter(asked).count() < self.questions.len() {
            return Ok(None);
        }
        let text = submission::text(&self.definition, &self.questions, &answers)?;
        let ending = table.format.extension();
        let path = folder.join(format!("submission-{name}.{ending}"));
        let part = folder.join(format!("submission-{name}.{ending}.part"));
        std::fs::write(&part, text)
            .and_then(|()| std::fs::rename(&part, &path))
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        Ok(Some(path))
    }
}

/// Whether a benchmark is named by its file.
fn is_file(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|ending| ending == "toml")
}

/// Says what is wrong with the rows.
fn tell(definition: &BenchmarkDefinition, questions: &Questions) {
    let name = &definition.name;
    let counts = questions.counts;
    if let Some(first) = questions.faults.first() {
        output::note(&format!(
            "warning: {name}: {} of {} rows are faulty and are not asked, such as {first}; run.json \
             lists them all",
            counts.faulty, counts.rows
        ));
    }
    if let Some(expected) = questions.expected {
        output::note(&format!(
            "warning: {name} has {} questions here, and should have {expected}",
            counts.rows - counts.left_out
        ));
    }
}
