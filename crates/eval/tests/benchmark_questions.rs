//! From files to questions: every layout that is read, and everything that can be wrong with one.
#![allow(missing_docs, clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use opabinia_eval::benchmark::{
    BenchmarkDefinition, BenchmarkError, BenchmarkQuestion, Catalogue, Fault, FaultKind, Fetch,
    Library, Listing, PictureStore, Questions, submission,
};
use opabinia_eval::scorer::Protocol;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A picture of one pixel.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=";
/// The same with another ending.
const OTHER: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYIIx";

fn built_in(name: &str) -> BenchmarkDefinition {
    let catalogue = Catalogue::built_in().unwrap();
    catalogue.find(name).unwrap().definition.clone()
}

fn library(folder: &Path) -> Library<'_> {
    Library {
        folders: vec![folder.into()],
        ..Library::default()
    }
}

fn read(definition: &BenchmarkDefinition, folder: &Path) -> Result<Questions, BenchmarkError> {
    let mut store = PictureStore::in_memory();
    let read = Questions::read(definition, Protocol::Standard, &library(folder), &mut store)?;
    assert!(read.counts.add_up(), "{:?}", read.counts);
    assert_eq!(read.counts.faulty, read.faults.len());
    assert_eq!(read.counts.questions(), read.questions.len());
    Ok(read)
}

fn put(path: PathBuf, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Yes-or-no questions, in pairs.
fn pairs() -> BenchmarkDefinition {
    let text = r#"
        name = "pairs"
        title = "Pairs"
        group = "other"
        [[source]]
        split = "test"
        [row]
        keep = "use|default(true)"
        id = "id"
        picture = "image"
        answer = "answer"
        unit = "unit"
        [prompt]
        body = "{{ question }}"
        max_new_tokens = 4
        [scoring]
        scorer = "mme"
        aggregate = "mean"
        chance = "yes-no"
        chance_of = "questions-and-units"
    "#;
    BenchmarkDefinition::parse(text, Path::new("pairs.toml")).unwrap()
}

fn row(id: &str, unit: u32) -> Value {
    let image = format!("data:image/png;base64,{PIXEL}");
    json!({"id": id, "image": image, "question": "Is it?", "answer": "yes", "unit": unit, "use": true})
}

fn read_rows(
    definition: &BenchmarkDefinition,
    rows: &[Value],
) -> Result<Questions, BenchmarkError> {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path().join("pairs/test.jsonl"), lines(rows));
    read(definition, folder.path())
}

#[test]
fn every_row_is_accounted_for() {
    let with = |id: &str, key: &str, value: Value| {
        let mut row = row(id, 1);
        row[key] = value;
        row
    };
    let mut short = row("10", 1);
    short.as_object_mut().unwrap().remove("question");
    let rows = [
        row("1", 1),
        with("2", "use", json!(false)),
        row("1", 1),
        with("4", "answer", json!("")),
        with("5", "answer", json!({"text": "yes"})),
        with("6", "image", Value::Null),
        with("7", "image", json!("no/such.png")),
        with(
            "8",
            "image",
            json!(format!("data:image/png;base64,{}", "AAAA".repeat(20))),
        ),
        with("9", "question", json!(" ")),
        short,
        with("11", "image", json!(7)),
        with("", "unit", json!(1)),
        row("12", 1),
    ];
    let read = read_rows(&pairs(), &rows).unwrap();
    assert_eq!(
        (read.counts.rows, read.counts.left_out, read.counts.scored),
        (13, 1, 2)
    );
    let found: Vec<(u64, FaultKind)> = read.faults.iter().map(|f| (f.row, f.kind)).collect();
    let expected = [
        (3, FaultKind::DuplicateId),
        (4, FaultKind::MissingAnswer),
        (5, FaultKind::WrongType),
        (6, FaultKind::MissingPicture),
        (7, FaultKind::MissingPicture),
        (8, FaultKind::NotAPicture),
        (9, FaultKind::EmptyPrompt),
        (10, FaultKind::MissingColumn),
        (11, FaultKind::WrongType),
        (12, FaultKind::WrongType),
    ];
    assert_eq!(found, expected);
    let shown: Vec<String> = read.faults.iter().map(Fault::to_string).collect();
    assert_eq!(
        shown[0],
        "test.jsonl:3: duplicate id: `1`, which test.jsonl:1 has already"
    );
    assert_eq!(
        shown[7],
        "test.jsonl:10: missing column: no `question`, which `prompt.body` uses"
    );
    assert_eq!(read.faults[3].id.as_deref(), Some("6"));
}

#[test]
fn columns_that_no_row_has_are_an_error() {
    let mut wrong = row("1", 1);
    let question = wrong.as_object_mut().unwrap().remove("question").unwrap();
    wrong["questions"] = question;
    let message = read_rows(&pairs(), &[wrong]).unwrap_err().to_string();
    assert!(
        message.contains("no column `question`, which `prompt.body`"),
        "{message}"
    );
    assert!(message.contains("did you mean `questions`?"), "{message}");
    let folder = tempfile::tempdir().unwrap();
    put(
        folder.path().join("pairs/test.csv"),
        "id,image,answer,unit,use\n",
    );
    let message = read(&pairs(), folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("test.csv` has no column `question`"),
        "{message}"
    );
}

#[test]
fn damaged_files_and_empty_benchmarks_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pairs/test.jsonl");
    put(file.clone(), format!("{}\n{{\"id\": 2", row("1", 1)));
    let message = read(&pairs(), folder.path()).unwrap_err().to_string();
    assert!(message.contains("test.jsonl:2: EOF"), "{message}");
    put(file.clone(), "");
    let message = read(&pairs(), folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("`pairs` has no questions: 0 rows"),
        "{message}"
    );
    let mut faulty = row("1", 1);
    faulty["answer"] = Value::Null;
    put(file, lines(&[faulty]));
    let message = read(&pairs(), folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("1 faulty; the first: test.jsonl:1: missing answer"),
        "{message}"
    );
}

#[test]
fn incomplete_units_are_faulty() {
    let mut definition = pairs();
    definition.row.unit_size = Some(2);
    definition.questions = Some(6);
    let mut broken = row("4", 2);
    broken["answer"] = Value::Null;
    let rows = [row("1", 1), row("2", 1), row("3", 2), broken, row("5", 3)];
    let read = read_rows(&definition, &rows).unwrap();
    assert_eq!(read.questions.len(), 2);
    let found: Vec<_> = read.faults.iter().map(|f| (f.row, f.kind)).collect();
    let incomplete = FaultKind::IncompleteUnit;
    assert_eq!(
        found,
        [
            (4, FaultKind::MissingAnswer),
            (3, incomplete),
            (5, incomplete)
        ]
    );
    assert_eq!(read.expected, Some(6), "five rows, six expected");
    // Half of the questions, a quarter of the pairs.
    assert!((read.chance() - 0.375).abs() < 1e-12);
}

#[test]
fn digests_tell_sets_of_questions_apart() {
    let digest = |rows: &[Value]| read_rows(&pairs(), rows).unwrap().sha256();
    let same = digest(&[row("1", 1), row("2", 1)]);
    assert_eq!(same, digest(&[row("1", 1), row("2", 1)]));
    assert_ne!(same, digest(&[row("1", 1), row("3", 1)]));
    let mut other = row("2", 1);
    other["image"] = json!(OTHER);
    assert_ne!(same, digest(&[row("1", 1), other]));
}

/// GQA's two tables, joined by the id of the picture.
#[test]
fn pictures_may_come_from_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("lmms-lab/GQA");
    let question = |image: &str| json!({"imageId": image, "question": "Red?", "answer": "no", "types": {"structural": "verify"}});
    let rows = [
        question("n1"),
        question("n2"),
        question("n1"),
        question("n9"),
    ];
    put(
        set.join("testdev_balanced_instructions/testdev-00000-of-00001.jsonl"),
        lines(&rows),
    );
    let picture = |id: &str, data: &str| json!({"id": id, "image": data});
    let pictures = [picture("n1", PIXEL), picture("n2", OTHER)];
    put(
        set.join("testdev_balanced_images/testdev-00000-of-00001.jsonl"),
        lines(&pictures),
    );
    let read = read(&built_in("gqa"), folder.path()).unwrap();
    let sha256 = |question: &BenchmarkQuestion| question.picture.clone().unwrap().sha256;
    assert_eq!(sha256(&read.questions[0]), sha256(&read.questions[2]));
    assert_ne!(sha256(&read.questions[0]), sha256(&read.questions[1]));
    assert_eq!(read.faults[0].kind, FaultKind::MissingPicture);
    let files: Vec<&str> = read.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(
        read.files
            .iter()
            .all(|file| file.sha256.len() == 64 && file.bytes > 0)
    );
    assert_eq!(read.expected, Some(12578));
}

/// VLMEvalKit's sheets: base64, and rotations that refer to the picture of the first row.
#[test]
fn sheets_with_pictures_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let head = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tsource\n";
    let first = format!("241\tWhich?\t\tcat\tdog\t\t\tB\taction\t{PIXEL}\tcoco\n");
    let rotated = "1000241\tWhich?\t\tdog\tcat\t\t\tA\taction\t241\tcoco\n";
    put(
        folder.path().join("mmbench-en/dev.tsv"),
        format!("{head}{first}{rotated}"),
    );
    let read = read(&built_in("mmbench-en"), folder.path()).unwrap();
    assert_eq!(read.counts.scored, 2);
    let [one, two] = &read.questions[..] else {
        panic!()
    };
    assert_eq!(one.unit, two.unit);
    assert_eq!(one.picture, two.picture);
    assert!(
        two.prompt
            .starts_with("Which? Options:\nA. dog\nB. cat\nAnswer")
    );
    assert!(
        (read.chance() - 0.25).abs() < 1e-12,
        "both rotations by guessing"
    );
    let mut store = PictureStore::in_memory();
    let definition = built_in("mmbench-en");
    let library = library(folder.path());
    let read = Questions::read(&definition, Protocol::Reference, &library, &mut store).unwrap();
    let unit = read.questions[0].unit.clone().unwrap();
    assert!(
        unit.starts_with("Which? ") && unit.ends_with(" coco"),
        "{unit}"
    );
    assert_eq!(Some(unit), read.questions[1].unit);
}

#[test]
fn pictures_in_archives_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let qbench = json!([{
        "img_path": "1.png", "question": "How is it?", "candidates": ["Dim", "Bright"],
        "correct_ans": "Dim", "type": 2,
    }]);
    let set = folder.path().join("qbench");
    put(set.join("llvisionqa_dev.json"), qbench.to_string());
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let picture = b"\x89PNG\r\n\x1a\nx";
    header.set_size(picture.len() as u64);
    archive
        .append_data(&mut header, "images/1.png", &picture[..])
        .unwrap();
    put(
        set.join("images_llvisionqa.tar"),
        archive.into_inner().unwrap(),
    );
    let read_qbench = read(&built_in("qbench"), folder.path()).unwrap();
    let found = read_qbench.questions[0].picture.clone().unwrap();
    assert_eq!(&*found.read().unwrap(), picture);
    assert_eq!(read_qbench.files.len(), 2, "the archive is listed too");

    let set = folder.path().join("MMVP");
    let sheet = "lndex,Question,Options,Correct Answer\n1,Open?,(a) Open (b) Closed,(a)\n2,Open?,(a) Open (b) Closed,(b)\n";
    put(set.join("Questions.csv"), sheet);
    put(set.join("MMVP Images/1.jpg"), b"\xff\xd8\xff1");
    put(set.join("MMVP Images/2.jpg"), b"\xff\xd8\xff2");
    let mmvp = read(&built_in("mmvp"), folder.path()).unwrap();
    assert_eq!(mmvp.counts.scored, 2);
    assert_eq!(mmvp.questions[0].unit, mmvp.questions[1].unit);
    assert!((mmvp.chance() - 0.25).abs() < 1e-12);
}

/// Pictures are put into a folder by their hash, and read from there.
#[test]
fn pictures_can_be_kept_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    put(
        folder.path().join("pairs/test.jsonl"),
        lines(&[row("1", 1), row("2", 1)]),
    );
    let kept = folder.path().join("pictures");
    let mut store = PictureStore::Folder(kept.clone());
    let library = library(folder.path());
    let read = Questions::read(&pairs(), Protocol::Standard, &library, &mut store).unwrap();
    let picture = read.questions[0].picture.clone().unwrap();
    let path = kept.join(&picture.sha256[..2]).join(&picture.sha256);
    assert_eq!(fs::read(path).unwrap(), &*picture.read().unwrap());
}

#[test]
fn corrected_answers_of_mmvp() {
    let folder = tempfile::tempdir().unwrap();
    let row = |index: u32| format!("{index},Open?,(a) Open (b) Closed,(a)\n");
    let rows: String = [97, 98, 99, 100].map(row).concat();
    for name in ["mmvp", "mmvp-corrected"] {
        let set = folder.path().join(name);
        put(set.join("Questions.csv"), format!("Index,Q,O,A\n{rows}"));
        for index in 97..=100 {
            put(
                set.join(format!("MMVP Images/{index}.jpg")),
                b"\xff\xd8\xff",
            );
        }
    }
    let right = |name| {
        let read = read(&built_in(name), folder.path()).unwrap();
        let right = read
            .questions
            .iter()
            .map(|q| q.gold.clone().unwrap().right.unwrap());
        right.collect::<Vec<_>>()
    };
    assert_eq!(right("mmvp"), [0, 0, 0, 0]);
    assert_eq!(right("mmvp-corrected"), [0, 0, 1, 1]);
}

/// Test parts are asked, but not scored; their answers go into the server's file.
#[test]
fn submissions() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("vizwiz");
    let row = |id: &str, answers: Value| json!({"question_id": id, "question": "What?", "answers": answers, "image": PIXEL});
    put(
        set.join("data/val-00000-of-00001.jsonl"),
        lines(&[row("VizWiz_val_1", json!(["a"]))]),
    );
    let test = [
        row("VizWiz_test_1", Value::Null),
        row("VizWiz_test_2", json!([])),
    ];
    put(set.join("data/test-00000-of-00001.jsonl"), lines(&test));
    let definition = built_in("vizwiz");
    let read = read(&definition, folder.path()).unwrap();
    assert_eq!((read.counts.scored, read.counts.submission_only), (1, 2));
    assert_eq!(read.questions[1].category.as_deref(), Some("test"));
    let mut answers = HashMap::from([
        ("VizWiz_val_1".to_owned(), "A".to_owned()),
        ("VizWiz_test_1".to_owned(), "Soup CAN".to_owned()),
    ]);
    let error = submission::text(&definition, &read.questions, &answers).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("1 of 2 questions have no answer, `VizWiz_test_2`")
    );
    answers.insert("VizWiz_test_2".to_owned(), String::new());
    let text = submission::text(&definition, &read.questions, &answers).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let expected = json!([
        {"image": "VizWiz_test_1.jpg", "answer": "soup can"},
        {"image": "VizWiz_test_2.jpg", "answer": ""},
    ]);
    assert_eq!(value, expected);
}

#[test]
fn submissions_of_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let read_one = |name: &str, row: Value| {
        put(
            folder.path().join(name).join("questions.jsonl"),
            row.to_string(),
        );
        read(&built_in(name), folder.path()).unwrap().questions
    };
    let text = |name: &str, questions: &[BenchmarkQuestion], answer: &str| {
        let answers = HashMap::from([(questions[0].id.clone(), answer.to_owned())]);
        submission::text(&built_in(name), questions, &answers).unwrap()
    };
    let mmvet = json!({"question_id": "v1_0", "image": PIXEL, "question": "x?", "answer": "1", "capability": "ocr"});
    let questions = read_one("mmvet", mmvet);
    assert_eq!(
        text("mmvet", &questions, "It is 1."),
        r#"{"v1_0":"It is 1."}"#
    );
    let stvqa = json!({"question_id": "17", "image": PIXEL, "question": "x?"});
    let questions = read_one("stvqa", stvqa);
    assert_eq!(
        text("stvqa", &questions, "Stop"),
        r#"[{"question_id":17,"answer":"Stop"}]"#
    );
    let mmbench = json!({
        "index": 3, "question": "Which, then?", "hint": "nan", "A": "x", "B": "y", "C": "nan",
        "D": "nan", "answer": "A", "category": "c", "source": "s", "image": PIXEL,
    });
    let questions = read_one("mmbench-en", mmbench);
    let expected =
        "index,question,A,B,C,D,category,prediction\n3,\"Which, then?\",x,y,nan,nan,c,A\n";
    assert_eq!(text("mmbench-en", &questions, "A"), expected);
    let error = submission::text(&built_in("gqa"), &questions, &HashMap::new()).unwrap_err();
    assert!(error.to_string().contains("no `[submission]`"), "{error}");
}

/// A hub that has one file, and notes what is asked of it.
struct Hub {
    root: PathBuf,
    asked: RefCell<Vec<String>>,
}

impl Fetch for Hub {
    fn list(&self, repo: &str, revision: &str) -> Result<Listing, BenchmarkError> {
        self.asked
            .borrow_mut()
            .push(format!("list {repo} {revision}"));
        Ok(Listing {
            revision: revision.to_owned(),
            commit: "c0ffee".to_owned(),
            files: ["README.md", "test_questions.jsonl", "a/1.png", "b.zip"]
                .map(String::from)
                .into(),
        })
    }

    fn fetch(&self, _: &str, _: &Listing, files: &[String]) -> Result<PathBuf, BenchmarkError> {
        self.asked
            .borrow_mut()
            .push(format!("fetch {}", files.join(" ")));
        let row =
            json!({"text": "x\n(A) p\n(B) q\n", "image": "a/1.png", "label": "B", "category": "c"});
        put(self.root.join("test_questions.jsonl"), row.to_string());
        put(self.root.join("a/1.png"), b"\x89PNG\r\n\x1a\n");
        Ok(self.root.clone())
    }
}

#[test]
fn the_network_is_used_only_if_it_is_handed_in() {
    let folder = tempfile::tempdir().unwrap();
    let definition = built_in("vstar");
    let error = read(&definition, folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("the questions of `vstar` are not here"),
        "{error}"
    );
    let hub = Hub {
        root: folder.path().join("hub"),
        asked: RefCell::default(),
    };
    let library = Library {
        fetch: Some(&hub),
        ..library(folder.path())
    };
    let mut store = PictureStore::in_memory();
    let read = Questions::read(&definition, Protocol::Standard, &library, &mut store).unwrap();
    assert_eq!(read.questions[0].gold.clone().unwrap().answers, ["q"]);
    let asked = hub.asked.into_inner();
    assert_eq!(asked[0], "list craigwu/vstar_bench main");
    assert!(asked[1].ends_with(" test_questions.jsonl"), "{asked:?}");
}

#[test]
fn mistakes_in_definitions_have_a_line_and_a_near_name() {
    let good = include_str!("benchmarks/street-signs.toml");
    let refused = |from: &str, to: &str, expected: &[&str]| {
        assert!(good.contains(from), "{from}");
        let text = good.replacen(from, to, 1);
        let error = BenchmarkDefinition::parse(&text, Path::new("my.toml")).unwrap_err();
        let message = error.to_string();
        for part in expected {
            assert!(message.contains(part), "`{part}` is not in `{message}`");
        }
    };
    refused(
        "title =",
        "titel =",
        &["my.toml:2", "no `titel`", "did you mean `title`?"],
    );
    refused(
        "answer_is = \"letter\"",
        "answer_is = \"leter\"",
        &["my.toml:15", "`letter`?"],
    );
    refused(
        "group = \"other\"",
        "group = \"vision\"",
        &["my.toml:3", "`vision_centric`?"],
    );
    refused(
        "chance = \"options\"",
        "chance = 2",
        &["my.toml:26", "a number from 0 to 1"],
    );
    refused(
        "scorer = \"letter\"",
        "scorer = \"leter\"",
        &["my.toml:24", "`letter`"],
    );
    refused(
        "picture = \"photo\"",
        "picture = \"photo[\"",
        &["my.toml:12", "`row.picture`"],
    );
    refused(
        "body = \"{{ question }}",
        "body = \"{{ question }",
        &["my.toml:19", "`prompt.body`"],
    );
    refused(
        "name = \"street-signs\"",
        "name = \"Street Signs\"",
        &["my.toml:1", "lower-case"],
    );
    refused(
        "\"test.csv\"",
        "\"../test.csv\"",
        &["my.toml:7", "leads out"],
    );
    refused(
        "pictures = \"signs\"",
        "pictures = \"/signs\"",
        &["my.toml:8", "leads out"],
    );
    refused(
        "max_new_tokens = 16",
        "",
        &["`prompt.max_new_tokens`", "missing"],
    );
    refused("answer = \"right\"", "", &["`row.answer`", "missing"]);
    refused(
        "files = [\"test.csv\"]",
        "hub = \"signs\"",
        &["`signs` is no name of a data set"],
    );
    refused(
        "files = [\"test.csv\"]",
        "",
        &["wanted `hub`, `files` or `split`"],
    );
    refused("questions = 3", "questions = -3", &["my.toml:4"]);
}

/// The worked example of docs/evaluation.md.
#[test]
fn the_example_of_the_documentation_works() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/benchmarks");
    let docs = fs::read_to_string(tests.join("../../../../docs/evaluation.md")).unwrap();
    for file in ["street-signs.toml", "street-signs/test.csv"] {
        let text = fs::read_to_string(tests.join(file)).unwrap();
        assert!(
            docs.contains(&text),
            "{file} is not in the documentation as it is"
        );
    }
    let mut catalogue = Catalogue::built_in().unwrap();
    catalogue.add_folder(&tests).unwrap();
    let definition = &catalogue.find("street-signs").unwrap().definition;
    let read = read(definition, &tests).unwrap();
    assert_eq!(
        (read.counts.scored, read.faults.len(), read.expected),
        (3, 0, None)
    );
    assert_eq!(
        read.questions[0].prompt,
        "What must the driver do?\nA. stop\nB. turn left\nAnswer with the option's letter from \
         the given choices directly."
    );
    // One in two, and twice one in three.
    assert!((read.chance() - (0.5 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
    assert!(docs.contains("score by guessing is 38.9%"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Damaged definitions are refused, damaged rows are errors or faults, and totals add up.
    #[test]
    fn damage_never_panics(at in 0usize..1000, byte: u8, cut in 0usize..100) {
        let damage = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut % length);
            bytes
        };
        let text = damage(include_str!("benchmarks/street-signs.toml"));
        let _ = BenchmarkDefinition::parse(&String::from_utf8_lossy(&text), Path::new("x.toml"));
        let folder = tempfile::tempdir().unwrap();
        let rows = lines(&[row("1", 1), row("2", 1)]);
        put(folder.path().join("pairs/test.jsonl"), damage(&rows));
        let _ = read(&pairs(), folder.path());
    }
}
