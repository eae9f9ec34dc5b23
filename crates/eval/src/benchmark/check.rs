//! Whether the values of a definition can be used, before a row is read.

use opabinia_data::stays_inside;

use super::definition::{
    BenchmarkDefinition, ReferenceTable, SourceTable, SubmissionFormat, SubmissionTable,
};
use super::error::BenchmarkError;
use super::expression;
use super::places::Places;

/// Checks a whole definition.
pub(super) fn definition(
    definition: &BenchmarkDefinition,
    places: &Places<'_>,
) -> Result<(), BenchmarkError> {
    name(&definition.name, places)?;
    if definition.source.is_empty() {
        let problem = "a benchmark needs one `[[source]]` at least";
        return Err(places.refuse("source", problem));
    }
    for (number, table) in definition.source.iter().enumerate() {
        source(table, number, places)?;
    }
    required(definition, places)?;
    if let Some(table) = &definition.submission {
        submission(table, places)?;
    }
    expressions(definition, places)
}

fn name(name: &str, places: &Places<'_>) -> Result<(), BenchmarkError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || !name.chars().all(fits) {
        let problem = "wanted lower-case letters, digits and `-`";
        return Err(places.refuse("name", problem));
    }
    Ok(())
}

fn required(definition: &BenchmarkDefinition, places: &Places<'_>) -> Result<(), BenchmarkError> {
    let (prompt, scoring) = (&definition.prompt, &definition.scoring);
    let keys = [
        ("prompt.body", prompt.body.is_none()),
        ("prompt.max_new_tokens", prompt.max_new_tokens.is_none()),
        ("scoring.scorer", scoring.scorer.is_none()),
        ("scoring.aggregate", scoring.aggregate.is_none()),
        ("scoring.chance", scoring.chance.is_none()),
    ];
    if let Some((key, _)) = keys.iter().find(|(_, missing)| *missing) {
        return Err(places.refuse(key, "it is missing"));
    }
    if prompt.max_new_tokens == Some(0) {
        return Err(places.refuse("prompt.max_new_tokens", "an answer needs 1 token at least"));
    }
    if definition.row.answer.is_none() && definition.submission.is_none() {
        let problem = "it is missing, and there is no `[submission]`";
        return Err(places.refuse("row.answer", problem));
    }
    Ok(())
}

/// Tries every expression and template.
fn expressions(
    definition: &BenchmarkDefinition,
    places: &Places<'_>,
) -> Result<(), BenchmarkError> {
    let environment = expression::environment();
    let none = ReferenceTable::default();
    let reference = definition.reference.as_ref().unwrap_or(&none);
    let rows = [("row", &definition.row), ("reference.row", &reference.row)];
    for (table, row) in rows {
        for (key, text) in row.expressions() {
            expression::check(&environment, text)
                .map_err(|problem| places.refuse(&format!("{table}.{key}"), &problem))?;
        }
    }
    let prompts = [
        ("prompt", &definition.prompt),
        ("reference.prompt", &reference.prompt),
    ];
    for (table, prompt) in prompts {
        for (key, text) in prompt.templates() {
            expression::check_template(&environment, text)
                .map_err(|problem| places.refuse(&format!("{table}.{key}"), &problem))?;
        }
    }
    let fields = definition.submission.iter().flat_map(|table| &table.fields);
    for (number, field) in fields.enumerate() {
        let key = format!("submission.fields.{number}.value");
        expression::check(&environment, &field.value)
            .map_err(|problem| places.refuse(&key, &problem))?;
    }
    Ok(())
}

fn source(table: &SourceTable, number: usize, places: &Places<'_>) -> Result<(), BenchmarkError> {
    let refuse = |key: &str, problem: &str| {
        let key = format!("source.{number}.{key}");
        Err(places.refuse(key.trim_end_matches('.'), problem))
    };
    if table.hub.is_none() && table.files.is_none() && table.split.is_none() {
        let problem = "wanted `hub`, `files` or `split`, to know which files are meant";
        return refuse("", problem);
    }
    let join = table.join.as_ref();
    let hubs = [
        ("hub", table.hub.as_deref()),
        ("join.hub", join.and_then(|join| join.hub.as_deref())),
    ];
    for (key, hub) in hubs {
        if let Some(hub) = hub.filter(|hub| !is_repository(hub)) {
            let problem = format!("`{hub}` is no name of a data set; wanted `owner/name`");
            return refuse(key, &problem);
        }
    }
    let joined = join.and_then(|join| join.files.as_ref());
    let paths = [("files", table.files.as_ref()), ("join.files", joined)];
    for (key, patterns) in paths {
        if let Some(pattern) = patterns
            .into_iter()
            .flatten()
            .find(|path| !stays_inside(path))
        {
            let problem = format!("`{pattern}` leads out of the data set's folder");
            return refuse(key, &problem);
        }
    }
    match table.pictures.as_ref().filter(|path| !stays_inside(path)) {
        Some(_) => refuse("pictures", "it leads out of the data set's folder"),
        None => Ok(()),
    }
}

fn submission(table: &SubmissionTable, places: &Places<'_>) -> Result<(), BenchmarkError> {
    let is_map = table.format == SubmissionFormat::JsonMap;
    if is_map && table.fields.len() != 1 {
        let problem = "a JSON map needs one field, the question's name";
        return Err(places.refuse("submission.fields", problem));
    }
    if !is_map && table.answer.is_none() {
        let problem = "it is missing: the name of the field for the model's answer";
        return Err(places.refuse("submission.answer", problem));
    }
    Ok(())
}

/// Whether a name is `owner/name`.
pub(super) fn is_repository(name: &str) -> bool {
    let is_part = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
    };
    name.split_once('/')
        .is_some_and(|(owner, name)| is_part(owner) && is_part(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_data_sets() {
        assert!(is_repository("lmms-lab/GQA") && is_repository("MMVP/MMVP"));
        for wrong in ["GQA", "a/b/c", "../x", "a/", "/a", "a b/c", "a/.git"] {
            assert!(!is_repository(wrong), "{wrong}");
        }
    }
}
