//! The report as a whole: which files there are, that the page needs nothing else, that names from
//! outside cannot break it, that the same input gives the same bytes.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use opabinia_eval::Vision;
use opabinia_eval::analysis::findings::Support;
use opabinia_eval::analysis::{
    AnalysisError, AnalysisOptions, AnalysisOutcome, Asked, Inputs, QuestionScore, RunScores,
    analyze,
};

const FIGURES: [&str; 8] = [
    "vision_gaps",
    "ranking",
    "group_averages",
    "radar",
    "correlations",
    "components",
    "tree",
    "resolution",
];

fn options() -> AnalysisOptions {
    AnalysisOptions {
        title: "A <report> & more".into(),
        resamples: 200,
        ..AnalysisOptions::default()
    }
}

/// Four models on six benchmarks with and without pictures; `model` has names that would break HTML,
/// XML, CSV and a path.
fn table() -> String {
    let mut text = String::from("model,family,benchmark,score,without_picture,questions\n");
    let names = ["a", "<b onload=x>", "c&d/..\"\"e", "ﬂ τ–"];
    for (m, name) in names.iter().enumerate() {
        for (b, benchmark) in ["MMB", "GQA", "MMMU", "AI2D", "ChartQA", "MMVP"]
            .iter()
            .enumerate()
        {
            let on = 40 + 3 * m + 2 * b + (m * b) % 5;
            let off = 30 + (7 * b + m) % 9;
            text += &format!("\"{name}\",f{},{benchmark},{on},{off},\n", m % 2);
        }
    }
    text
}

fn report(folder: &Path, text: &str) -> Result<AnalysisOutcome, AnalysisError> {
    let path = folder.join("scores.csv");
    std::fs::write(&path, text).unwrap();
    analyze(Inputs::read(&[path])?, &options(), &folder.join("out"))
}

#[test]
fn every_plot_is_there_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = report(folder.path(), &table()).unwrap();
    let plots = folder.path().join("out/plots");
    for figure in FIGURES {
        for extension in ["svg", "png", "csv", "json"] {
            let path = plots.join(format!("{figure}.{extension}"));
            assert!(outcome.files.contains(&path), "{}", path.display());
            assert!(
                std::fs::metadata(&path).unwrap().len() > 50,
                "{}",
                path.display()
            );
        }
        let png = std::fs::read(plots.join(format!("{figure}.png"))).unwrap();
        assert_eq!(&png[1..4], b"PNG");
        let json = std::fs::read(plots.join(format!("{figure}.json"))).unwrap();
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
        let csv = std::fs::read_to_string(plots.join(format!("{figure}.csv"))).unwrap();
        assert_eq!(rows.len(), csv.lines().count() - 1, "{figure}");
        let svg = std::fs::read_to_string(plots.join(format!("{figure}.svg"))).unwrap();
        assert!(
            svg.starts_with("<svg xmlns=") && !svg.contains("<b onload"),
            "{figure}"
        );
        balanced(&svg, figure);
    }
    for file in &outcome.files {
        assert!(file.exists());
    }
    assert!(outcome.report.exists());
}

/// Every element that opens also closes.
#[track_caller]
fn balanced(svg: &str, name: &str) {
    let mut open: Vec<&str> = Vec::new();
    for part in svg.split('<').skip(1) {
        let tag = part.split('>').next().unwrap();
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "{name}"),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().unwrap()),
        }
    }
    assert!(open.is_empty(), "{name}: {open:?}");
}

#[test]
fn the_page_stands_alone() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = report(folder.path(), &table()).unwrap();
    let page = std::fs::read_to_string(outcome.report).unwrap();
    assert!(page.starts_with("<!doctype html>"));
    for outside in [
        "http://", "https://", "<link", "<img", "src=\"", "@import", "<iframe",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src 'none'"));
    assert!(page.contains("A &lt;report&gt; &amp; more"));
    assert!(!page.contains("<b onload") && page.contains("&lt;b onload=x&gt;"));
    for figure in FIGURES {
        assert!(
            page.contains(&format!("<section id=\"{figure}\">")),
            "{figure}"
        );
    }
    assert!(page.contains("What the numbers support and what they do not"));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (
        report(one.path(), &table()).unwrap(),
        report(other.path(), &table()).unwrap(),
    );
    assert_eq!(first.files.len(), second.files.len());
    for (a, b) in first.files.iter().zip(&second.files) {
        assert!(
            std::fs::read(a).unwrap() == std::fs::read(b).unwrap(),
            "{}",
            a.display()
        );
    }
}

/// What is written is a table again.
#[test]
fn the_scores_of_a_report_can_be_analysed_again() {
    let folder = tempfile::tempdir().unwrap();
    let first = report(folder.path(), &table()).unwrap();
    let again = Inputs::read(&[folder.path().join("out/scores.json")]).unwrap();
    let again = analyze(again, &options(), &folder.path().join("again")).unwrap();
    assert_eq!(first.analysis.table, again.analysis.table);
    assert_eq!(first.analysis.findings, again.analysis.findings);
}

/// One model on one benchmark: nothing to rank, correlate or cluster, and still a page.
#[test]
fn the_smallest_table_gives_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = report(folder.path(), "model,GQA\na,50\n").unwrap();
    let analysis = &outcome.analysis;
    assert!(analysis.ranking.is_none() && analysis.structure.is_none());
    assert!(
        analysis
            .findings
            .iter()
            .any(|f| f.support == Support::Unsupported)
    );
    assert!(outcome.report.exists());
}

#[test]
fn holes_are_listed_and_never_filled() {
    let folder = tempfile::tempdir().unwrap();
    let text = "model,GQA,MMB,MMMU,odd\na,50,51,52,\nb,60,61,63,\nc,70,,71,1\nd,80,83,85,\n";
    let outcome = report(folder.path(), text).unwrap();
    let left_out = outcome.analysis.left_out();
    assert!(
        left_out
            .iter()
            .any(|note| note.contains("model c: no score on 1 of 3"))
    );
    assert!(
        left_out
            .iter()
            .any(|note| note.contains("benchmark odd: only 1 of 4"))
    );
    assert_eq!(outcome.analysis.ranking.unwrap().models.len(), 3);
    let page = std::fs::read_to_string(outcome.report).unwrap();
    assert!(page.contains("model c: no score on 1 of 3 benchmarks"));
}

fn run(model: &str, benchmark: &str, right: usize) -> RunScores {
    let asked = |right: usize| Asked {
        questions: (0..60)
            .map(|i| QuestionScore {
                id: format!("{i}"),
                cluster: Some(format!("{}", i / 3)),
                score: f64::from(u8::from((i * 7) % 60 < right)),
            })
            .collect(),
        ..Asked::default()
    };
    RunScores {
        run: model.into(),
        model: model.into(),
        benchmark: benchmark.into(),
        group: Some("world".into()),
        chance: Some(25.0),
        asked: BTreeMap::from([
            (Vision::On, asked(right)),
            (Vision::Off, asked(15)),
            (Vision::Shuffled, asked(18)),
        ]),
        ..RunScores::default()
    }
}

#[test]
fn runs_are_analysed_question_by_question() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = Inputs {
        tables: Vec::new(),
        runs: vec![
            run("a", "count", 30),
            run("a", "depth", 33),
            run("b", "count", 48),
            run("b", "depth", 45),
        ],
    };
    let outcome = analyze(inputs, &options(), folder.path()).unwrap();
    let analysis = &outcome.analysis;
    let first = &analysis.ranking.as_ref().unwrap().models[0];
    assert_eq!(first.name, "b");
    let interval = first.average_interval.unwrap();
    assert!(interval.low < first.average && first.average < interval.high);
    let gap = &analysis.gaps[0];
    assert!(
        (gap.with - 65.0).abs() < 1e-9 && (gap.gain - 40.0).abs() < 1e-9,
        "{gap:?}"
    );
    assert!(gap.interval.unwrap().low > 0.0);
    assert_eq!(gap.wrong, Some(30.0));
}

#[test]
fn faults_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = analyze(Inputs::default(), &options(), folder.path());
    assert!(matches!(nothing, Err(AnalysisError::NoScores)));
    let missing = Inputs::read(&[PathBuf::from("no/such/file.csv")]);
    assert!(matches!(missing, Err(AnalysisError::Read { .. })));
    let wrong = AnalysisOptions {
        clusters: 1,
        ..options()
    };
    let inputs = Inputs {
        tables: Vec::new(),
        runs: vec![run("a", "count", 1)],
    };
    let error = analyze(inputs.clone(), &wrong, folder.path())
        .unwrap_err()
        .to_string();
    assert_eq!(error, "cannot analyse: `clusters` is 1, wanted 2 to 64");
    // A folder cannot be made where a file is.
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let blocked = analyze(inputs, &options(), &file);
    assert!(matches!(blocked, Err(AnalysisError::Write { .. })));
}
