//! Tables of scores as CSV, in two layouts.
//!
//! *Wide*, as papers print them: one row for each model, one column for each benchmark. Which columns
//! name the model is known ([`NAME`], [`FAMILY`]); averages that the file states (`average`,
//! `paper_average`, `avg_GROUP`) are kept to be checked; every other column is a benchmark.
//!
//! *Long*, one row for each score: it has the columns `model`, `benchmark` and `score`, and may have
//! those of [`LONG`].
//!
//! An empty cell, `-` or `–` is a missing score. Everything else in a column of scores must be a
//! number.

use std::path::Path;

use super::{Benchmark, Builder, ScoreTable};
use crate::Vision;
use crate::analysis::catalog::{PUBLISHED_GROUPS, letters};
use crate::analysis::error::AnalysisError;

/// Columns that together name a model.
const NAME: [&str; 5] = ["model", "encoder", "method", "variant", "arch"];

/// Columns that say what a model is one of; the first that is there counts.
const FAMILY: [&str; 5] = ["family", SETTINGS[0], SETTINGS[1], "panel", "base_llm"];

/// Those of them that may say instead with what it was made.
const SETTINGS: [&str; 2] = ["group_or_setting", "setting"];

/// Columns that are neither names nor scores.
const NO_SCORE: [&str; 3] = ["vis_tokens", "tokens", "notes"];

/// Averages that somebody computed later, not those of the paper.
const RECOMPUTED: &str = "recomputed_";

/// The columns of a long table.
const LONG: [&str; 11] = [
    "model",
    "benchmark",
    "score",
    "family",
    "group",
    "questions",
    "full_marks",
    "chance",
    "without_picture",
    "wrong_picture",
    "blank_picture",
];

/// A line of the file.
struct Row {
    line: u64,
    cells: Vec<String>,
}

/// What a column of a wide table holds.
enum Column {
    Name,
    Family,
    Printed(Option<String>),
    Benchmark(usize),
    Ignored,
}

/// Reads a table; `path` is only named in errors.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<ScoreTable, AnalysisError> {
    let (header, rows) = split(bytes, path)?;
    if let Some(twice) = (1..header.len()).find(|&i| header[..i].contains(&header[i])) {
        return Err(at(path, 1)(format!(
            "the column `{}` stands there twice",
            header[twice]
        )));
    }
    if rows.is_empty() {
        return Err(AnalysisError::Table {
            path: path.to_owned(),
            problem: "it has no rows".into(),
        });
    }
    let has = |name: &str| header.iter().any(|column| column == name);
    if has("benchmark") && has("score") {
        long(&header, &rows, path)
    } else {
        wide(&header, &rows, path)
    }
}

/// Header and rows, all as long as the header.
fn split(bytes: &[u8], path: &Path) -> Result<(Vec<String>, Vec<Row>), AnalysisError> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(1, csv::Position::line);
            at(path, line)(error.to_string())
        })?;
        let line = record.position().map_or(1, csv::Position::line);
        let cells: Vec<String> = record.iter().map(str::to_owned).collect();
        rows.push(Row { line, cells });
    }
    let mut rows = rows.into_iter();
    let header = rows.next().ok_or_else(|| AnalysisError::Table {
        path: path.to_owned(),
        problem: "it is empty".into(),
    })?;
    let rows: Vec<Row> = rows.collect();
    let width = header.cells.len();
    if let Some(row) = rows.iter().find(|row| row.cells.len() != width) {
        let found = row.cells.len();
        return Err(at(path, row.line)(format!(
            "{found} cells, but the header has {width}"
        )));
    }
    Ok((header.cells, rows))
}

fn wide(header: &[String], rows: &[Row], path: &Path) -> Result<ScoreTable, AnalysisError> {
    let mut builder = Builder::default();
    let mut no_scores: Vec<String> = Vec::new();
    let family = FAMILY.iter().find(|name| header.iter().any(|h| h == *name));
    let mut columns = Vec::new();
    for name in header {
        let column = wide_column(name, family.copied(), &mut builder).map_err(at(path, 1))?;
        if matches!(column, Column::Ignored) {
            no_scores.push(format!("`{name}`"));
        }
        columns.push(column);
    }
    if !columns.iter().any(|column| matches!(column, Column::Name)) {
        return Err(at(path, 1)(format!(
            "no column names the model; wanted one of {}",
            NAME.join(", ")
        )));
    }
    if !columns
        .iter()
        .any(|column| matches!(column, Column::Benchmark(_)))
    {
        return Err(at(path, 1)("no column is a benchmark".into()));
    }
    let settings = family.is_some_and(|family| SETTINGS.contains(family));
    let (names, families) = names_and_families(&columns, rows, settings);
    for ((row, name), family) in rows.iter().zip(&names).zip(families) {
        let fail = at(path, row.line);
        let model = builder.new_model(name, family).map_err(&fail)?;
        for ((column, cell), title) in columns.iter().zip(&row.cells).zip(header) {
            let wanted = matches!(column, Column::Benchmark(_) | Column::Printed(_));
            let value = if wanted {
                number(cell, title).map_err(&fail)?
            } else {
                None
            };
            match (column, value) {
                (Column::Benchmark(benchmark), Some(marks)) => builder
                    .marks(Vision::On, model, *benchmark, marks)
                    .map_err(&fail)?,
                (Column::Printed(group), Some(average)) => {
                    builder.printed(model, group.clone(), average);
                }
                _ => {}
            }
        }
    }
    let mut table = builder.finish();
    if !no_scores.is_empty() {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        table.notes = vec![format!(
            "{file}: these columns are no scores: {}",
            no_scores.join(", ")
        )];
    }
    Ok(table)
}

fn wide_column(name: &str, family: Option<&str>, builder: &mut Builder) -> Result<Column, String> {
    if NAME.contains(&name) {
        return Ok(Column::Name);
    }
    if family == Some(name) {
        return Ok(Column::Family);
    }
    if FAMILY.contains(&name) || NO_SCORE.contains(&name) || name.starts_with(RECOMPUTED) {
        return Ok(Column::Ignored);
    }
    if matches!(letters(name).as_str(), "average" | "avg" | "paperaverage") {
        return Ok(Column::Printed(None));
    }
    if let Some(group) = name.strip_prefix("avg_") {
        let published = PUBLISHED_GROUPS
            .iter()
            .find(|g| letters(g) == letters(group));
        let group = published.map_or(group, |group| *group);
        return Ok(Column::Printed(Some(group.into())));
    }
    if name.is_empty() {
        return Err("a column without a name".into());
    }
    Ok(Column::Benchmark(
        builder.benchmark(Benchmark::named(name))?,
    ))
}

/// What each row is called, and what it is one of.
///
/// A name is what the naming columns say. The family stands before it where names would otherwise be
/// the same, as for frozen and unfrozen runs of one encoder. `settings` that differ in each of three or
/// more rows, as the thresholds of an ablation do, are no families: with what else differs they are the
/// names.
fn names_and_families(
    columns: &[Column],
    rows: &[Row],
    settings: bool,
) -> (Vec<String>, Vec<Option<String>>) {
    let of_kind = |wanted: fn(&Column) -> bool| -> Vec<usize> {
        (0..columns.len())
            .filter(|&i| wanted(&columns[i]))
            .collect()
    };
    let parts = of_kind(|column| matches!(column, Column::Name));
    let family = of_kind(|column| matches!(column, Column::Family))
        .first()
        .copied();
    let differs = |i: &usize| rows.iter().any(|row| row.cells[*i] != rows[0].cells[*i]);
    let distinct = |i: &usize| {
        (1..rows.len()).all(|r| {
            rows[..r]
                .iter()
                .all(|row| row.cells[*i] != rows[r].cells[*i])
        })
    };
    let own_setting = family.filter(|i| settings && rows.len() > 2 && distinct(i));
    let parts = parts
        .into_iter()
        .filter(|i| own_setting.is_none() || differs(i));
    let telling: Vec<usize> = own_setting.into_iter().chain(parts).collect();
    let name = |row: &Row| {
        let parts = telling.iter().map(|&i| row.cells[i].as_str());
        parts
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let names: Vec<String> = rows.iter().map(name).collect();
    let same = |i: usize| names.iter().filter(|name| **name == names[i]).count() > 1;
    let full = rows.iter().enumerate().map(|(i, row)| {
        match family.map(|column| row.cells[column].as_str()) {
            Some(family) if same(i) && !family.is_empty() => format!("{family}: {}", names[i]),
            _ => names[i].clone(),
        }
    });
    let families = family.filter(differs).filter(|i| own_setting != Some(*i));
    let families = rows.iter().map(|row| {
        let family = families.map(|i| row.cells[i].clone());
        family.filter(|family| !family.is_empty())
    });
    (full.collect(), families.collect())
}

fn long(header: &[String], rows: &[Row], path: &Path) -> Result<ScoreTable, AnalysisError> {
    if let Some(unknown) = header.iter().find(|name| !LONG.contains(&name.as_str())) {
        return Err(at(path, 1)(format!(
            "unknown column `{unknown}`; a table with one row for each score has {}",
            LONG.join(", ")
        )));
    }
    if !header.iter().any(|name| name == "model") {
        return Err(at(path, 1)("the column `model` is missing".into()));
    }
    let mut builder = Builder::default();
    for row in rows {
        long_row(header, &row.cells, &mut builder).map_err(at(path, row.line))?;
    }
    Ok(builder.finish())
}

fn long_row(header: &[String], cells: &[String], builder: &mut Builder) -> Result<(), String> {
    let text = |name: &str| {
        let place = header.iter().position(|column| column == name)?;
        cells
            .get(place)
            .map(String::as_str)
            .filter(|cell| !cell.is_empty())
    };
    let value = |name: &str| text(name).map_or(Ok(None), |cell| number(cell, name));
    let mut benchmark = Benchmark::named(text("benchmark").unwrap_or(""));
    if let Some(group) = text("group") {
        benchmark.group = Some(group.into());
    }
    if let Some(count) = text("questions") {
        let count = count
            .parse()
            .map_err(|_| format!("`questions` is `{count}`, wanted a whole number"))?;
        benchmark.questions = Some(count);
    }
    if let Some(full_marks) = value("full_marks")? {
        benchmark.full_marks = full_marks;
    }
    if let Some(chance) = value("chance")? {
        benchmark.chance = Some(chance);
    }
    let name = text("model").unwrap_or("");
    let benchmark = builder.benchmark(benchmark)?;
    let model = match builder.model(name) {
        Some(model) => model,
        None => builder.new_model(name, text("family").map(str::to_owned))?,
    };
    for (vision, column) in [
        (Vision::On, "score"),
        (Vision::Off, "without_picture"),
        (Vision::Shuffled, "wrong_picture"),
        (Vision::Blank, "blank_picture"),
    ] {
        if let Some(marks) = value(column)? {
            builder.marks(vision, model, benchmark, marks)?;
        }
    }
    Ok(())
}

/// A score or nothing.
fn number(cell: &str, column: &str) -> Result<Option<f64>, String> {
    if matches!(cell, "" | "-" | "–") {
        return Ok(None);
    }
    match cell.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Some(value)),
        _ => Err(format!(
            "`{column}` is `{cell}`, wanted a number or nothing"
        )),
    }
}

/// For `map_err` of a problem in a line.
fn at(path: &Path, line: u64) -> impl Fn(String) -> AnalysisError {
    let path = path.to_owned();
    move |problem| AnalysisError::Line {
        path: path.clone(),
        line,
        problem,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<ScoreTable, AnalysisError> {
        parse(text.as_bytes(), Path::new("scores.csv"))
    }

    fn names(text: &str) -> Vec<String> {
        let models = read(text).unwrap().models.into_iter();
        models.map(|model| model.name).collect()
    }

    #[test]
    fn wide_tables_are_scaled_and_averages_kept() {
        let table = read(
            "group_or_setting,method,variant,paper_average,MME_P,MMB,avg_OCR_Chart,recomputed_x\n\
             language,CLIP,L/14,50.5,1000,50,61.5,1\nself,DINO,L/14,,–,40,,\n",
        )
        .unwrap();
        assert_eq!(table.benchmarks[0].name, "MME");
        assert_eq!(table.score(0, 0), Some(50.0));
        assert_eq!(table.score(1, 0), None);
        assert_eq!(table.models[0].name, "CLIP L/14");
        assert_eq!(table.models[1].family.as_deref(), Some("self"));
        let printed: Vec<(Option<&str>, f64)> = table.models[0]
            .printed
            .iter()
            .map(|p| (p.group.as_deref(), p.average))
            .collect();
        assert_eq!(printed, [(None, 50.5), (Some("OCR & Chart"), 61.5)]);
        assert_eq!(
            table.notes,
            ["scores.csv: these columns are no scores: `recomputed_x`"]
        );
    }

    #[test]
    fn marks_of_other_systems_are_read_over() {
        let table = read("\u{feff}model,GQA\r\n\"a, b\",50\r\n\r\n").unwrap();
        assert_eq!(table.models[0].name, "a, b");
        assert_eq!(table.score(0, 0), Some(50.0));
    }

    #[test]
    fn names_say_what_differs() {
        let frozen = "setting,method,GQA\nfrozen,CLIP,1\nfrozen,DINO,1\nfree,CLIP,1\nfree,DINO,1\n";
        assert_eq!(names(frozen)[..2], ["frozen: CLIP", "frozen: DINO"]);
        assert_eq!(
            names("setting,method,GQA\nt=1,CLIP,1\nt=2,CLIP,1\nt=3,CLIP,1\n"),
            ["t=1", "t=2", "t=3"]
        );
        assert_eq!(names("setting,model,GQA\nens,a,1\n"), ["a"]);
    }

    #[test]
    fn long_tables_say_more() {
        let table = read(
            "model,benchmark,score,without_picture,chance,questions,group,full_marks\n\
             a,Quiz,8,4,25,120,Vision,10\nb,Quiz,7,,25,120,Vision,10\na,GQA,60,,,,,\n",
        )
        .unwrap();
        let quiz = &table.benchmarks[0];
        assert_eq!((quiz.questions, quiz.chance), (Some(120), Some(25.0)));
        assert_eq!(table.score(0, 0), Some(80.0));
        assert_eq!(table.score_with(Vision::Off, 0, 0), Some(40.0));
        assert_eq!(table.score_with(Vision::Off, 1, 0), None);
        assert_eq!(table.benchmarks[1].group.as_deref(), Some("General"));
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn faults_are_named_with_their_line() {
        refused("", "it is empty");
        refused("model,GQA\n", "no rows");
        refused("GQA,MMB\n1,2\n", "scores.csv:1: no column names the model");
        refused("model,variant\na,b\n", "no column is a benchmark");
        refused(
            "model,GQA\na,1\na,2\n",
            "scores.csv:3: model `a` stands there twice",
        );
        refused(
            "model,GQA\na,1\nb,UNK\n",
            "scores.csv:3: `GQA` is `UNK`, wanted a number",
        );
        refused("model,GQA\na,NaN\n", "wanted a number");
        refused(
            "model,GQA\na,101\n",
            "scores.csv:2: 101 on GQA: wanted 0 to 100",
        );
        refused("model,GQA\na\n", "1 cells, but the header has 2");
        refused("model,GQA,GQA\na,1,1\n", "column `GQA` stands there twice");
        refused(
            "model,benchmark,score,frm\na,b,1,2\n",
            "unknown column `frm`",
        );
        refused("benchmark,score\na,1\n", "`model` is missing");
        refused(
            "model,benchmark,score\na,b,1\na,b,2\n",
            "scores.csv:3: score of `a` on b",
        );
        refused("model,benchmark,score\n,b,1\n", "a model without a name");
        refused(
            "model,benchmark,score\na,,1\n",
            "a benchmark without a name",
        );
        refused(
            "model,benchmark,score,questions\na,b,1,10\nc,b,1,11\n",
            "questions of b is 11 here and 10 elsewhere",
        );
        refused(
            "model,benchmark,score,questions\na,b,1,1.5\n",
            "wanted a whole number",
        );
        refused(
            "model,benchmark,score,chance\na,b,1,250\n",
            "chance of b is 250",
        );
        refused(
            "model,benchmark,score,full_marks\na,b,1,0\n",
            "full marks of b are 0",
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, Path::new("x.csv"));
        }

        #[test]
        fn no_table_panics(
            cells in proptest::collection::vec(
                prop_oneof!["model", "score", "benchmark", "family", "avg_a", "MME", "[0-9]{1,4}", "", "\"", "-", "\n", ","],
                0..60,
            ),
            width in 1usize..6,
        ) {
            let lines: Vec<String> = cells.chunks(width).map(|row| row.join(",")).collect();
            let _ = read(&lines.join("\n"));
        }
    }
}
