//! Where benchmarks and their questions are.

use std::path::{Path, PathBuf};

use clap::Args;
use opabinia_eval::Items;
use opabinia_eval::benchmark::{
    BenchmarkDefinition, BenchmarkError, Catalogue, Entry, Library, PictureStore, Questions,
    SourceTable,
};
use opabinia_weights::hub::Hub;

use super::hub::HubFetch;
use crate::args::ProtocolArg;
use crate::failure::Failure;
use crate::output;

/// What the name of a data set of the hub begins with.
const HUB: &str = "hub:";

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
    /// cache and the hub.
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

impl DefinitionArgs {
    /// The built-in benchmarks and the user's.
    pub fn catalogue(&self) -> Result<Catalogue, Failure> {
        let mut catalogue = Catalogue::built_in()?;
        for folder in &self.definitions {
            catalogue.add_folder(folder)?;
        }
        Ok(catalogue)
    }

    /// The benchmark of a name, of a file of its definition, or of a data set of the hub.
    pub fn find(&self, name: &str) -> Result<Entry, Failure> {
        let mut catalogue = self.catalogue()?;
        if let Some(dataset) = name.strip_prefix(HUB) {
            return of_dataset(&catalogue, dataset);
        }
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
        let hub = Hub::from_env()?;
        let offline = hub.is_offline();
        let cache = hub.cache().to_owned();
        let fetch = HubFetch::new(hub);
        let library = Library {
            folders: self.data.clone(),
            cache: Some(cache),
            // What is not here is then an error that says so, not one of the network.
            fetch: (!offline).then_some(&fetch),
        };
        let mut store = PictureStore::Folder(self.pictures()?);
        let read = Questions::read(definition, self.protocol.into(), &library, &mut store);
        read.map_err(|error| {
            let name = &definition.name;
            let has_hub = definition.source.iter().any(|source| source.hub.is_some());
            let hint = match &error {
                BenchmarkError::Hub { .. } => {
                    "the same command goes on where it broke off; `--data FOLDER` names a folder that \
                     has the files"
                        .to_owned()
                }
                BenchmarkError::NotFound { .. } if offline && has_hub => format!(
                    "HF_HUB_OFFLINE forbids fetching them; `--data FOLDER` names the folder that holds \
                     `{name}/`, and `opabinia eval show {name}` says what is looked for"
                ),
                _ => format!(
                    "`--data FOLDER` names the folder that holds `{name}/`; `opabinia eval show {name}` \
                     says what is looked for"
                ),
            };
            Failure::from(error).hint(hint)
        })
    }

    fn pictures(&self) -> Result<PathBuf, Failure> {
        if let Some(folder) = &self.picture_cache {
            return Ok(folder.clone());
        }
        let folder = crate::args::user_cache("pictures");
        folder.ok_or_else(|| {
            Failure::new("there is no folder for caches").hint("pass `--picture-cache FOLDER`")
        })
    }

    /// Reads benchmarks, and says what is wrong with their rows.
    pub fn items(&self, names: &[String], definitions: &DefinitionArgs) -> Result<Items, Failure> {
        let mut items = Items::default();
        for name in names {
            let definition = definitions.find(name)?.definition;
            let questions = self.read(&definition)?;
            tell(&definition, &questions);
            items.add(&definition, questions)?;
        }
        Ok(items)
    }
}

/// The benchmark whose questions are in a data set, `owner/name` or `owner/name@revision`.
fn of_dataset(catalogue: &Catalogue, dataset: &str) -> Result<Entry, Failure> {
    let (dataset, revision) = match dataset.split_once('@') {
        Some((dataset, revision)) => (dataset, Some(revision)),
        None => (dataset, None),
    };
    let is_it = |hub: &Option<String>| hub.as_deref() == Some(dataset);
    let entries = catalogue.all().iter();
    let found = entries.filter(|entry| {
        let mut sources = entry.definition.source.iter();
        sources.any(|source| is_it(&source.hub))
    });
    let found: Vec<&Entry> = found.collect();
    match found.as_slice() {
        [entry] => {
            let mut entry = (*entry).clone();
            if let Some(revision) = revision {
                for source in entry.definition.source.iter_mut().filter(|s| is_it(&s.hub)) {
                    source.revision = Some(revision.to_owned());
                }
            }
            Ok(entry)
        }
        [] => Err(Failure::new(format!("no benchmark has its questions in `{dataset}`")).hint(
            "`opabinia eval list` lists the benchmarks and their data sets; a definition of your own \
             says how its rows are read",
        )),
        several => Err(ambiguous(dataset, revision, several)),
    }
}

/// A data set that holds several benchmarks names none of them.
fn ambiguous(dataset: &str, revision: Option<&str>, several: &[&Entry]) -> Failure {
    let part = |entry: &&Entry| {
        let of_it = |source: &&SourceTable| source.hub.as_deref() == Some(dataset);
        let mut sources = entry.definition.source.iter().filter(of_it);
        let parts = sources.next().map_or_else(Vec::new, |source| {
            let named = [("config", &source.config), ("split", &source.split)];
            let named = named.into_iter().filter_map(|(what, value)| {
                let value = value.as_deref()?;
                Some(format!("{what} {value}"))
            });
            named.collect::<Vec<_>>()
        });
        let BenchmarkDefinition { name, title, .. } = &entry.definition;
        match parts.as_slice() {
            [] => format!("{name} ({title})"),
            parts => format!("{name} ({})", parts.join(", ")),
        }
    };
    let parts: Vec<String> = several.iter().map(part).collect();
    let first = several
        .first()
        .map_or("", |entry| entry.definition.name.as_str());
    let mut hint = format!(
        "name the one that is meant, or several: `--benchmarks {first}`; `opabinia eval show {first}` says \
         what it reads and asks"
    );
    if revision.is_some() {
        hint.push_str(
            "; for another revision copy its definition, which `eval show` prints, and give its `[[source]]` \
             a `revision`",
        );
    }
    Failure::new(format!(
        "`hub:{dataset}` could be any of {} benchmarks: {}",
        several.len(),
        parts.join(", ")
    ))
    .hint(hint)
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
