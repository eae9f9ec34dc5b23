//! Decisions about questions: kept, undone, exported, applied.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use opabinia_cvbench::review::{Decisions, Mended, Verdict};
use opabinia_cvbench::{CvBenchError, Published, Question, Task, revise};
use opabinia_image::RgbImage;
use tempfile::TempDir;

/// A CV-Bench of a few questions, each with a picture of its own.
fn bench(folder: &Path, count: usize) -> Published {
    let mut lines = String::new();
    for idx in 0..count as i64 {
        let filename = format!("img/2D/count/coco_{idx}.png");
        let question = Question {
            idx,
            dimension: "2D".into(),
            task: Task::Count,
            question: format!("How many things of {idx} are in the image?"),
            choices: ["0", "1", "2", "3"].map(str::to_owned).to_vec(),
            answer: "(B)".into(),
            prompt: "worded elsewhere".into(),
            filename: filename.clone(),
            source: "COCO".into(),
            source_dataset: "COCO".into(),
            source_filename: format!("{idx}.jpg"),
            target_class: None,
            target_size: None,
            bbox: None,
        };
        lines += &format!("{}\n", serde_json::to_string(&question).unwrap());
        let path = folder.join(filename);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let picture = RgbImage::filled(8, 8, [idx as u8, 0, 0]).unwrap();
        picture.save_png(path).unwrap();
    }
    fs::write(folder.join("test_2d.jsonl"), lines).unwrap();
    Published::read(folder).unwrap()
}

fn add(decisions: &mut Decisions, question: &Question, by: &str, verdict: Verdict) {
    let digest = question.digest();
    decisions
        .add(question, &digest, by, verdict, None, "")
        .unwrap();
}

fn mended() -> Mended {
    Mended {
        question: "How many dogs are in the image?".into(),
        choices: ["2", "5"].map(str::to_owned).to_vec(),
        answer: "(B)".into(),
    }
}

#[test]
fn decisions_are_kept_undone_and_attributed() {
    let folder = TempDir::new().unwrap();
    let published = bench(folder.path(), 4);
    let path = folder.path().join("review.sqlite");
    let [zero, one, two, _] = &published.questions[..] else {
        panic!()
    };
    {
        let mut decisions = Decisions::open(&path, &published).unwrap();
        add(&mut decisions, zero, "ada", Verdict::Accept);
        add(&mut decisions, one, "ben", Verdict::Reject);
        let digest = two.digest();
        let words = mended();
        decisions
            .add(
                two,
                &digest,
                "ada",
                Verdict::Mend,
                Some(&words),
                "miscounted",
            )
            .unwrap();
        assert_eq!(decisions.undo("ben").unwrap(), Some(1));
        assert_eq!(decisions.undo("ben").unwrap(), None, "ada's are not ben's");
        add(&mut decisions, one, "ada", Verdict::Accept);
        add(&mut decisions, one, "ben", Verdict::Reject);
    }
    let decisions = Decisions::open(&path, &published).unwrap();
    let current = decisions.current().unwrap();
    assert_eq!(current.len(), 3);
    assert_eq!(current[&0].verdict, Verdict::Accept);
    assert_eq!(
        (current[&1].verdict, current[&1].reviewer.as_str()),
        (Verdict::Reject, "ben")
    );
    assert_eq!(current[&2].mended, Some(mended()));
    assert_eq!(current[&2].note, "miscounted");
    let mut out = Vec::new();
    decisions.export(&mut out).unwrap();
    let lines: Vec<serde_json::Value> = String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 5, "the undone one too");
    assert_eq!(lines[1]["undone"][0], "ben");
    assert_eq!(lines[0]["undone"], serde_json::Value::Null);
    assert_eq!(decisions.reviewers().unwrap()["ada"], 3);
}

#[test]
fn rows_are_only_ever_added() {
    let folder = TempDir::new().unwrap();
    let published = bench(folder.path(), 1);
    let path = folder.path().join("review.sqlite");
    let mut decisions = Decisions::open(&path, &published).unwrap();
    add(
        &mut decisions,
        &published.questions[0],
        "ada",
        Verdict::Accept,
    );
    let other = rusqlite::Connection::open(&path).unwrap();
    for sql in [
        "DELETE FROM decisions",
        "UPDATE decisions SET reviewer = 'eve'",
    ] {
        let refused = other.execute(sql, []).unwrap_err().to_string();
        assert!(refused.contains("only ever added"), "{refused}");
    }
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let folder = TempDir::new().unwrap();
    let published = bench(folder.path(), 1);
    let path = folder.path().join("review.sqlite");
    let mut decisions = Decisions::open(&path, &published).unwrap();
    let question = &published.questions[0];
    let digest = question.digest();
    let mut refuse = |digest: &str, by: &str, mended: Option<&Mended>| {
        let added = decisions.add(question, digest, by, Verdict::Mend, mended, "");
        added.unwrap_err().to_string()
    };
    assert!(refuse("other", "ada", Some(&mended())).contains("has changed"));
    assert!(refuse(&digest, " ", Some(&mended())).contains("needs a reviewer"));
    assert!(refuse(&digest, "ada", None).contains("needs its words"));
    let bad = |change: fn(&mut Mended)| {
        let mut words = mended();
        change(&mut words);
        words
    };
    let one = bad(|words| words.choices.truncate(1));
    assert!(refuse(&digest, "ada", Some(&one)).contains("2 to 6 options"));
    let twice = bad(|words| words.choices[1] = "2".into());
    assert!(refuse(&digest, "ada", Some(&twice)).contains("there twice"));
    let beyond = bad(|words| words.answer = "(C)".into());
    assert!(refuse(&digest, "ada", Some(&beyond)).contains("no letter"));
    assert!(decisions.all().unwrap().is_empty());
    drop(decisions);

    let others = TempDir::new().unwrap();
    let others = bench(others.path(), 2);
    let opened = Decisions::open(&path, &others);
    assert!(matches!(opened, Err(CvBenchError::OtherQuestions { .. })));
    fs::write(folder.path().join("text"), "x".repeat(2000)).unwrap();
    let opened = Decisions::open(&folder.path().join("text"), &published);
    assert!(matches!(opened, Err(CvBenchError::NotDecisions { .. })));
    let foreign = folder.path().join("foreign.sqlite");
    let other = rusqlite::Connection::open(&foreign).unwrap();
    other.execute("CREATE TABLE mine (x)", []).unwrap();
    let opened = Decisions::open(&foreign, &published);
    assert!(matches!(opened, Err(CvBenchError::NotDecisions { .. })));
}

#[test]
fn a_review_is_applied() {
    let folder = TempDir::new().unwrap();
    let published = bench(folder.path(), 4);
    let path = folder.path().join("review.sqlite");
    let mut decisions = Decisions::open(&path, &published).unwrap();
    let [zero, one, two, _] = &published.questions[..] else {
        panic!()
    };
    add(&mut decisions, zero, "ada", Verdict::Accept);
    add(&mut decisions, one, "ada", Verdict::Reject);
    let words = mended();
    decisions
        .add(two, &two.digest(), "ada", Verdict::Mend, Some(&words), "")
        .unwrap();
    let out = folder.path().join("revised");
    let revised = revise(&published, &decisions, false, &out, false).unwrap();
    assert_eq!((revised.counts.rejected, revised.counts.undecided), (1, 1));
    let left = Published::read(&out).unwrap();
    let numbers: Vec<i64> = left.questions.iter().map(|question| question.idx).collect();
    assert_eq!(numbers, [0, 2, 3]);
    assert_eq!(left.questions[0], *zero, "published prompts stay");
    assert_eq!(left.questions[1].question, words.question);
    assert!(left.questions[1].prompt.ends_with("\n(A) 2\n(B) 5"));
    assert_eq!(
        left.picture(&left.questions[1]).unwrap(),
        published.picture(two).unwrap()
    );
    let decided = revise(&published, &decisions, true, &out, true).unwrap();
    assert_eq!(decided.questions.questions, 2);
    assert!(out.join("decisions.jsonl").is_file());
}

/// All of the published size: opening, deciding and counting stay usable.
#[test]
fn a_whole_cv_bench_can_be_reviewed() {
    let folder = TempDir::new().unwrap();
    let published = bench(folder.path(), 2638);
    let path = folder.path().join("review.sqlite");
    let mut decisions = Decisions::open(&path, &published).unwrap();
    for question in published.questions.iter().step_by(100) {
        add(&mut decisions, question, "ada", Verdict::Accept);
    }
    assert_eq!(decisions.current().unwrap().len(), 27);
    assert_eq!(decisions.about(100).unwrap().len(), 1);
}
