//! Which benchmarks there are, and what one of them is.

use std::process::ExitCode;

use clap::Args;
use opabinia_eval::benchmark::{
    BenchmarkDefinition, Chance, ChanceOf, Effective, Entry, Questions, with_placeholder,
};
use opabinia_eval::scorer::Protocol;
use serde_json::json;

use super::sources::{DefinitionArgs, SourceArgs};
use crate::failure::Failure;
use crate::{Outcome, output};

/// See [`Catalogue`](opabinia_eval::benchmark::Catalogue).
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    definitions: DefinitionArgs,
    /// One JSON object per benchmark.
    #[arg(long)]
    json: bool,
}

impl List {
    /// Lists.
    pub fn run(self) -> Outcome {
        let catalogue = self.definitions.catalogue()?;
        if self.json {
            for entry in catalogue.all() {
                output::data(&serde_json::to_string(&entry.definition)?);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<Vec<String>> = catalogue.all().iter().map(row).collect();
        let header = [
            "name",
            "title",
            "group",
            "questions",
            "scorer",
            "score",
            "from",
        ];
        output::data(&output::table(&header, &rows));
        output::note("`opabinia eval show NAME` tells more about one of them");
        Ok(ExitCode::SUCCESS)
    }
}

fn row(entry: &Entry) -> Vec<String> {
    let definition = &entry.definition;
    let scoring = &definition.scoring;
    let count = definition.questions.map(|count| count.to_string());
    let from = match &entry.path {
        Some(path) => path.display().to_string(),
        None => hubs(definition).join(", "),
    };
    vec![
        definition.name.clone(),
        definition.title.clone(),
        definition.group.name().to_owned(),
        count.unwrap_or_else(|| "–".to_owned()),
        scoring
            .scorer
            .map_or_else(String::new, |one| one.to_string()),
        scoring
            .aggregate
            .map_or_else(String::new, |one| one.to_string()),
        from,
    ]
}

/// The data sets of the hub that a benchmark is from.
fn hubs(definition: &BenchmarkDefinition) -> Vec<String> {
    let mut hubs: Vec<String> = definition
        .source
        .iter()
        .filter_map(|source| source.hub.clone())
        .collect();
    hubs.dedup();
    hubs
}

/// See [`BenchmarkDefinition`].
#[derive(Args)]
pub struct Show {
    /// Its name, or the file of its definition.
    benchmark: String,
    #[command(flatten)]
    definitions: DefinitionArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// Read the questions too: how many there are, what is wrong with rows, what guessing gets, and the
    /// first of them as the model is asked it.
    #[arg(long)]
    questions: bool,
    /// Only the file of the definition, as a start for one of your own.
    #[arg(long, conflicts_with_all = ["json", "questions"])]
    toml: bool,
    /// The definition as one JSON object.
    #[arg(long)]
    json: bool,
}

impl Show {
    /// Shows.
    pub fn run(self) -> Outcome {
        let entry = self.definitions.find(&self.benchmark)?;
        let definition = &entry.definition;
        if self.toml {
            output::data(entry.text.trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        let questions = match self.questions {
            true => Some(self.source.read(definition)?),
            false => None,
        };
        if self.json {
            let mut object = serde_json::to_value(definition)?;
            if let (Some(object), Some(questions)) = (object.as_object_mut(), &questions) {
                object.insert("counts".to_owned(), json!(questions.counts));
                object.insert("faults".to_owned(), json!(questions.faults));
                object.insert("files".to_owned(), json!(questions.files));
                object.insert("chance".to_owned(), json!(questions.chance()));
                object.insert("questions_sha256".to_owned(), json!(questions.sha256()));
            }
            output::data(&object.to_string());
            return Ok(ExitCode::SUCCESS);
        }
        let mut facts = facts(&entry);
        if let Some(questions) = &questions {
            facts.extend(of_questions(questions)?);
        }
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, text) in facts {
            // What has several lines stands in a column of its own.
            let text = text.replace('\n', &format!("\n{:width$}  ", ""));
            output::data(&format!("{name:width$}  {text}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A name and what is said of it.
type Fact = (&'static str, String);

fn facts(entry: &Entry) -> Vec<Fact> {
    let definition = &entry.definition;
    let standard = definition.under(Protocol::Standard);
    let about = entry.text.lines();
    let about = about.map_while(|line| line.strip_prefix('#'));
    let about: Vec<&str> = about.map(str::trim).collect();
    let mut facts = vec![
        ("name", definition.name.clone()),
        ("title", definition.title.clone()),
        ("about", about.join("\n")),
        ("group", definition.group.name().to_owned()),
        (
            "questions",
            definition
                .questions
                .map_or_else(String::new, |count| count.to_string()),
        ),
        ("home", definition.home.clone().unwrap_or_default()),
        ("licence", definition.licence.clone().unwrap_or_default()),
        ("notes", definition.notes.clone().unwrap_or_default()),
        ("looked for", looked_for(definition)),
        ("prompt", prompt(&standard)),
        (
            "max tokens",
            standard
                .prompt
                .max_new_tokens
                .map_or_else(String::new, |count| count.to_string()),
        ),
    ];
    if let Some(scorer) = standard.scoring.scorer {
        let judge = match scorer.needs_grader() {
            true => "; needs --judge",
            false => "",
        };
        facts.push(("scorer", format!("{scorer}: {}{judge}", scorer.describe())));
    }
    if let Some(aggregate) = standard.scoring.aggregate {
        facts.push(("score", format!("{aggregate}: {}", aggregate.describe())));
    }
    facts.push(("chance", chance(&standard)));
    facts.push(("reference", reference(definition)));
    let defined = match &entry.path {
        Some(path) => path.display().to_string(),
        None => "built in; --toml prints it".to_owned(),
    };
    facts.push(("definition", defined));
    facts.retain(|(_, text)| !text.is_empty());
    facts
}

/// The folders below `--data` and the hub.
fn looked_for(definition: &BenchmarkDefinition) -> String {
    let mut places = vec![format!("FOLDER/{}/", definition.name)];
    for hub in hubs(definition) {
        places.push(format!("FOLDER/{hub}/"));
        places.push(format!("the hub's cache of {hub}"));
    }
    let sources = definition.source.iter().map(|source| {
        let files = source.files.as_ref().map(|files| files.join(" "));
        let split = source.split.as_deref().unwrap_or("test");
        let config = source.config.iter().map(|config| format!("{config} "));
        let config: String = config.collect();
        files.unwrap_or_else(|| format!("{config}{split}"))
    });
    let sources: Vec<String> = sources.collect();
    format!("{}\nin {}", sources.join(", "), places.join(", "))
}

fn prompt(effective: &Effective) -> String {
    let prompt = &effective.prompt;
    let body = prompt.body.as_deref().unwrap_or_default().trim_end();
    let has_picture = effective.row.picture.is_some();
    let mut text = with_placeholder(body.trim_start(), has_picture);
    if let Some(suffix) = prompt.suffix.as_deref().filter(|suffix| !suffix.is_empty()) {
        text.push('\n');
        text.push_str(suffix);
    }
    text
}

fn chance(effective: &Effective) -> String {
    let each = match effective.scoring.chance {
        None => return String::new(),
        Some(Chance::Fixed(share)) => format!("{:.1} %", 100.0 * share),
        Some(Chance::Options) => "one in the number of options".to_owned(),
        Some(Chance::YesNo) => "one in two".to_owned(),
        Some(Chance::OptionsOrYesNo) => {
            "one in the number of options, one in two for yes and no".to_owned()
        }
    };
    let of = match effective.scoring.chance_of.unwrap_or_default() {
        ChanceOf::Questions => "",
        ChanceOf::Units => "; of a unit all must be right",
        ChanceOf::QuestionsAndUnits => "; mean of questions and of whole units",
    };
    format!("{each}{of}")
}

/// What the reference protocol does otherwise, apart from the scorer.
fn reference(definition: &BenchmarkDefinition) -> String {
    let Some(table) = &definition.reference else {
        return "same questions and prompts; the scorer says how its rules differ".to_owned();
    };
    // Only keys that are set are written.
    let value = json!(table);
    let mut lines = Vec::new();
    for (part, keys) in value.as_object().into_iter().flatten() {
        for (key, value) in keys.as_object().into_iter().flatten() {
            if !value.is_null() {
                lines.push(format!("{part}.{key} = {value}"));
            }
        }
    }
    lines.join("\n")
}

fn of_questions(questions: &Questions) -> Result<Vec<Fact>, Failure> {
    let counts = questions.counts;
    let mut facts = vec![
        (
            "rows",
            format!(
                "{}: {} with an answer, {} for submission only, {} left out, {} faulty",
                counts.rows, counts.scored, counts.submission_only, counts.left_out, counts.faulty
            ),
        ),
        ("guessing", format!("{:.1} %", 100.0 * questions.chance())),
    ];
    let faults: Vec<String> = questions.faults.iter().map(ToString::to_string).collect();
    if !faults.is_empty() {
        facts.push(("faults", faults.join("\n")));
    }
    if let Some(first) = questions.questions.first() {
        let prompt = with_placeholder(&first.prompt, first.picture.is_some());
        facts.push(("first", format!("{}\n{prompt}", first.id)));
    }
    Ok(facts)
}
