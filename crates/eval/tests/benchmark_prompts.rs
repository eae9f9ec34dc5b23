//! The prompt of every built-in benchmark, byte for byte as the reference implementation of Cambrian-1
//! builds it: from a row made by hand to the whole turn, worked out by hand from its scripts.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use opabinia_eval::benchmark::{
    BenchmarkDefinition, BenchmarkQuestion, Catalogue, Format, Library, PictureStore, Questions,
    with_placeholder,
};
use opabinia_eval::scorer::Protocol;
use serde_json::{Value, json};

/// A picture of one pixel, as a data URL.
const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=";

/// What a row is expected to become.
struct Case {
    name: &'static str,
    row: Value,
    /// The user's turn.
    turn: &'static str,
    /// The right option.
    right: Option<usize>,
    /// Accepted texts.
    answers: &'static [&'static str],
}

fn definition(name: &str) -> BenchmarkDefinition {
    let catalogue = Catalogue::built_in().unwrap();
    catalogue.find(name).unwrap().definition.clone()
}

/// Reads one row by a definition, as a line of JSON in place of the published files.
fn question(name: &str, row: &Value, protocol: Protocol) -> BenchmarkQuestion {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join(name);
    fs::create_dir_all(set.join("direct_attributes")).unwrap();
    for file in ["rows.jsonl", "7.jpg", "8.jpg", "direct_attributes/sa_1.jpg"] {
        fs::write(set.join(file), b"\xff\xd8\xff").unwrap();
    }
    fs::write(set.join("rows.jsonl"), row.to_string()).unwrap();
    let mut definition = definition(name);
    definition.source.truncate(1);
    for source in &mut definition.source {
        source.files = Some(vec!["rows.jsonl".to_owned()]);
        source.format = Some(Format::Jsonl);
        source.columns = None;
        source.join = None;
        source.pictures = None;
    }
    // One row of a pair is enough here.
    definition.row.unit_size = None;
    let library = Library {
        folders: vec![folder.path().into()],
        ..Library::default()
    };
    let mut store = PictureStore::in_memory();
    let mut read = Questions::read(&definition, protocol, &library, &mut store).unwrap();
    assert!(read.faults.is_empty(), "{name}: {:?}", read.faults);
    assert!(read.counts.add_up());
    read.questions.remove(0)
}

fn cases() -> Vec<Case> {
    let mmbench = json!({
        "index": 1_000_241, "question": "Which is it?", "hint": "Look closely.", "A": "cat",
        "B": "dog", "C": "nan", "D": "nan", "answer": "B", "category": "action_recognition",
        "source": "reasoning", "image": PIXEL,
    });
    let mut mmbench_plain = mmbench.clone();
    mmbench_plain["hint"] = json!("nan");
    let cv_bench = |task: &str, source: &str| {
        json!({
            "idx": 0, "image": PIXEL, "choices": ["4", "3"], "answer": "(B)", "task": task,
            "source": source,
            "prompt": "How many cats are in the image? Select from the following choices.\n(A) 4\n(B) 3",
        })
    };
    const CV_BENCH: &str = "<image>\nHow many cats are in the image? Select from the following choices.\n(A) 4\n(B) 3\nAnswer with the option's letter from the given choices directly.";
    let doc = |id: &str| json!({"questionId": id, "image": PIXEL, "question": "What is the date?", "answers": ["1 May", "May 1"]});
    const DOC: &str = "<image>\nWhat is the date?\nGive the short answer directly.";
    const INFO: &str =
        "<image>\nWhat is the date?\nAnswer the question using a single word or phrase.";
    let mmvp = json!({
        "index": "7", "question": "Is it open?", "options": "(a) Open (b) Closed", "answer": "(b)",
    });
    const MMVP: &str = "<image>\nIs it open? Options:\nA. Open\nB. Closed\nAnswer with the option's letter from the given choices directly.";
    vec![
        Case {
            name: "gqa",
            row: json!({
                "imageId": "n1", "image": PIXEL, "question": "Is it red?", "answer": "no",
                "types": {"structural": "verify"},
            }),
            turn: "<image>\nIs it red?\nAnswer the question using a single word or phrase.",
            right: None,
            answers: &["no"],
        },
        Case {
            name: "vizwiz",
            row: json!({
                "question_id": "VizWiz_val_00000001", "image": PIXEL, "question": "What is this?",
                "answers": ["soup", "soup", "can", "a", "b", "c", "d", "e", "f", "g"],
            }),
            turn: "<image>\nWhat is this?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\nAnswer the question using a single word or phrase.",
            right: None,
            answers: &["soup", "soup", "can", "a", "b", "c", "d", "e", "f", "g"],
        },
        Case {
            name: "scienceqa",
            row: json!({
                "image": PIXEL, "hint": "Ice is solid water.", "question": "What is ice?",
                "choices": ["a gas", "a solid"], "answer": 1, "grade": "grade3",
            }),
            turn: "<image>\nIce is solid water. What is ice?\nA. a gas\nB. a solid\nPlease answer directly with only the letter of the correct option and nothing else.",
            right: Some(1),
            answers: &["a solid"],
        },
        Case {
            name: "scienceqa",
            row: json!({
                "image": PIXEL, "hint": "", "question": "What is ice?", "grade": "grade3",
                "choices": ["a gas", "a liquid", "a solid"], "answer": 2,
            }),
            turn: "<image>\nWhat is ice?\nA. a gas\nB. a liquid\nC. a solid\nPlease answer directly with only the letter of the correct option and nothing else.",
            right: Some(2),
            answers: &["a solid"],
        },
        Case {
            name: "textvqa",
            row: json!({
                "question_id": 34602, "image": PIXEL, "question": "what brand?",
                "ocr_tokens": ["DAKOTA", "DIGITAL"], "answers": ["dakota"],
            }),
            turn: "<image>\nwhat brand?\nReference OCR tokens: DAKOTA, DIGITAL\nAnswer the question using a single word or phrase.",
            right: None,
            answers: &["dakota"],
        },
        Case {
            name: "textvqa",
            row: json!({
                "question_id": 1, "image": PIXEL, "question": "what brand?", "ocr_tokens": [],
                "answers": ["x"],
            }),
            turn: "<image>\nwhat brand?\nReference OCR tokens:\nAnswer the question using a single word or phrase.",
            right: None,
            answers: &["x"],
        },
        Case {
            name: "pope",
            row: json!({
                "question_id": "1", "image": PIXEL, "question": "Is there a snowboard?",
                "answer": "yes", "category": "popular",
            }),
            turn: "<image>\nIs there a snowboard?\nAnswer the question using a single word or phrase.",
            right: None,
            answers: &["yes"],
        },
        Case {
            name: "mme",
            row: json!({
                "question_id": "code_reasoning/0020.png", "image": PIXEL, "answer": "Yes",
                "question": "Is the output 1? Please answer yes or no.", "category": "code_reasoning",
            }),
            turn: "<image>\nIs the output 1? Please answer yes or no.\nAnswer the question using a single word or phrase.",
            right: None,
            answers: &["Yes"],
        },
        Case {
            name: "mmbench-en",
            row: mmbench.clone(),
            turn: "<image>\nLook closely.\nWhich is it? Options:\nA. cat\nB. dog\nAnswer with the option's letter from the given choices directly.",
            right: Some(1),
            answers: &["dog"],
        },
        Case {
            name: "mmbench-en",
            row: mmbench_plain,
            turn: "<image>\nWhich is it? Options:\nA. cat\nB. dog\nAnswer with the option's letter from the given choices directly.",
            right: Some(1),
            answers: &["dog"],
        },
        Case {
            name: "mmbench-cn",
            row: mmbench,
            turn: "<image>\nLook closely.\nWhich is it? Options:\nA. cat\nB. dog\n请直接回答选项字母。",
            right: Some(1),
            answers: &["dog"],
        },
        Case {
            name: "seed",
            row: json!({
                "question_id": "101669", "image": [PIXEL], "question": "How many towels?",
                "choice_a": "One", "choice_b": "Two", "choice_c": "Three", "choice_d": "Four",
                "answer": "A", "question_type_id": 5,
            }),
            turn: "<image>\nHow many towels? Options:\nA. One\nB. Two\nC. Three\nD. Four\nAnswer with the option's letter from the given choices directly.",
            right: Some(0),
            answers: &["One"],
        },
        // The reference strips only the ends of the whole turn, so a space stays where a tag stood.
        Case {
            name: "mmmu",
            row: json!({
                "id": "validation_Computer_Science_1", "image_1": PIXEL,
                "question": "<image 1> Which sum is in <image 2>?", "options": "['$6', '<image 3>']",
                "answer": "B", "question_type": "multiple-choice",
            }),
            turn: "<image>\n Which sum is in ? Options:\nA. $6\nB. \nAnswer with the option's letter from the given choices directly.",
            right: Some(1),
            answers: &["<image 3>"],
        },
        Case {
            name: "mmmu",
            row: json!({
                "id": "validation_Math_2", "image_1": PIXEL, "question": "Find x. <image 1>",
                "options": "[]", "answer": "24", "question_type": "open",
            }),
            turn: "<image>\nFind x. \nAnswer the question using a single word or phrase.",
            right: None,
            answers: &["24"],
        },
        Case {
            name: "mathvista",
            row: json!({
                "pid": "1", "decoded_image": PIXEL, "choices": ["1", "2"], "answer": "2",
                "question_type": "multi_choice", "metadata": {"category": "general-vqa"},
                "query": "Hint: give the letter.\nQuestion: How many?\nChoices:\n(A) 1\n(B) 2",
            }),
            turn: "<image>\nHint: give the letter.\nQuestion: How many?\nChoices:\n(A) 1\n(B) 2\nFirst show your reasoning process and then give the final answer.",
            right: Some(1),
            answers: &["2"],
        },
        Case {
            name: "mathvista",
            row: json!({
                "pid": "2", "decoded_image": PIXEL, "choices": null, "answer": "1.2",
                "question_type": "free_form", "metadata": {"category": "math-targeted-vqa"},
                "query": "Hint: give a number.\nQuestion: How long?",
            }),
            turn: "<image>\nHint: give a number.\nQuestion: How long?\nAnswer the question using a single word or phrase.",
            right: None,
            answers: &["1.2"],
        },
        Case {
            name: "ai2d",
            row: json!({
                "image": PIXEL, "question": "Which is an insect?", "options": ["bee", "bat"],
                "answer": "0",
            }),
            turn: "<image>\nWhich is an insect?\nA. bee\nB. bat\nAnswer with the option's letter from the given choices directly.",
            right: Some(0),
            answers: &["bee"],
        },
        Case {
            name: "chartqa",
            row: json!({
                "image": PIXEL, "question": "How many bars?", "answer": "14", "type": "human_test",
            }),
            turn: "<image>\nHow many bars?\nAnswer the question using a single number or phrase.",
            right: None,
            answers: &["14"],
        },
        Case {
            name: "docvqa",
            row: doc("57344"),
            turn: DOC,
            right: None,
            answers: &["1 May", "May 1"],
        },
        Case {
            name: "docvqa-val",
            row: doc("49153"),
            turn: DOC,
            right: None,
            answers: &["1 May", "May 1"],
        },
        Case {
            name: "infovqa",
            row: doc("88889"),
            turn: INFO,
            right: None,
            answers: &["1 May", "May 1"],
        },
        Case {
            name: "infovqa-val",
            row: doc("88890"),
            turn: INFO,
            right: None,
            answers: &["1 May", "May 1"],
        },
        Case {
            name: "stvqa",
            row: json!({"question_id": 1, "image": PIXEL, "question": "What does the sign say?"}),
            turn: "<image>\nWhat does the sign say?\nAnswer the question using a single word or phrase.",
            right: None,
            answers: &[],
        },
        Case {
            name: "ocrbench",
            row: json!({
                "image": PIXEL, "question": "what is written in the image?", "answer": ["CENTRE"],
                "question_type": "Regular Text Recognition",
            }),
            turn: "<image>\nwhat is written in the image?\nGive the short answer directly.",
            right: None,
            answers: &["CENTRE"],
        },
        Case {
            name: "mmstar",
            row: json!({
                "index": 0, "image": PIXEL, "answer": "B", "category": "coarse perception",
                "question": "Which is true?\nOptions: A: It is on the book., B: It is beneath the cat., C: Both",
            }),
            turn: "<image>\nWhich is true?\nOptions: A: It is on the book., B: It is beneath the cat., C: Both\nPlease answer directly with only the letter of the correct option and nothing else.",
            right: Some(1),
            answers: &["It is beneath the cat."],
        },
        // No suffix is added: the data says how to answer.
        Case {
            name: "realworldqa",
            row: json!({
                "image": PIXEL, "answer": "C",
                "question": "Which way?\nA. left\nB. right\nC. ahead\nPlease answer directly with only the letter of the correct option and nothing else.",
            }),
            turn: "<image>\nWhich way?\nA. left\nB. right\nC. ahead\nPlease answer directly with only the letter of the correct option and nothing else.",
            right: Some(2),
            answers: &["ahead"],
        },
        Case {
            name: "realworldqa",
            row: json!({
                "image": PIXEL, "answer": "Yes",
                "question": "Is it night? Please answer directly with a single word or number.",
            }),
            turn: "<image>\nIs it night? Please answer directly with a single word or number.",
            right: None,
            answers: &["Yes"],
        },
        Case {
            name: "synthdog",
            row: json!({
                "image": PIXEL,
                "ground_truth": "{\"gt_parse\": {\"text_sequence\": \"the words\"}, \"meta\": 1}",
            }),
            turn: "<image>\nPlease transcribe the text from the image word by word. Only include the words found in the image, and avoid adding any additional context or information.",
            right: None,
            answers: &["the words"],
        },
        Case {
            name: "qbench",
            row: json!({
                "img_path": "7.jpg", "question": "How is the light?", "type": 2,
                "candidates": ["Dim", "Bright", "Harsh"], "correct_ans": "Bright",
            }),
            turn: "<image>\nHow is the light? Options:\nA. Dim\nB. Bright\nC. Harsh\nPlease answer directly with only the letter of the correct option and nothing else.",
            right: Some(1),
            answers: &["Bright"],
        },
        Case {
            name: "blink",
            row: json!({
                "idx": "val_Counting_1", "image_1": PIXEL, "choices": ["0", "3"], "answer": "(B)",
                "prompt": "How many?\nSelect from the following choices.\n(A) 0\n(B) 3",
            }),
            turn: "<image>\nHow many?\nSelect from the following choices.\n(A) 0\n(B) 3\nPlease answer directly with only the letter of the correct option and nothing else.",
            right: Some(1),
            answers: &["3"],
        },
        Case {
            name: "mmvp",
            row: mmvp.clone(),
            turn: MMVP,
            right: Some(1),
            answers: &["Closed"],
        },
        Case {
            name: "mmvp-corrected",
            row: mmvp,
            turn: MMVP,
            right: Some(1),
            answers: &["Closed"],
        },
        Case {
            name: "vstar",
            row: json!({
                "text": "What is the glove made of?\n(A) rubber\n(B) cotton\nAnswer with the option's letter from the given choices directly.",
                "image": "direct_attributes/sa_1.jpg", "label": "A", "category": "direct_attributes",
            }),
            turn: "<image>\nWhat is the glove made of?\n(A) rubber\n(B) cotton\nAnswer with the option's letter from the given choices directly.",
            right: Some(0),
            answers: &["rubber"],
        },
        Case {
            name: "cv-bench",
            row: cv_bench("Count", "COCO"),
            turn: CV_BENCH,
            right: Some(1),
            answers: &["3"],
        },
        Case {
            name: "cv-bench-2d",
            row: cv_bench("Count", "COCO"),
            turn: CV_BENCH,
            right: Some(1),
            answers: &["3"],
        },
        Case {
            name: "cv-bench-3d",
            row: cv_bench("Depth", "Omni3D"),
            turn: CV_BENCH,
            right: Some(1),
            answers: &["3"],
        },
        Case {
            name: "cv-bench-ade",
            row: cv_bench("Count", "ADE20K"),
            turn: CV_BENCH,
            right: Some(1),
            answers: &["3"],
        },
        Case {
            name: "cv-bench-coco",
            row: cv_bench("Count", "COCO"),
            turn: CV_BENCH,
            right: Some(1),
            answers: &["3"],
        },
        Case {
            name: "cv-bench-omni",
            row: cv_bench("Depth", "Omni3D"),
            turn: CV_BENCH,
            right: Some(1),
            answers: &["3"],
        },
        Case {
            name: "world-cvbench",
            row: cv_bench("Count", "COCO"),
            turn: CV_BENCH,
            right: Some(1),
            answers: &["3"],
        },
        Case {
            name: "mmvet",
            row: json!({
                "question_id": "v1_0", "image": PIXEL, "question": "What is x?", "answer": "-1 <AND> -5",
                "capability": ["ocr", "math"],
            }),
            turn: "<image>\nWhat is x?",
            right: None,
            answers: &["-1 <AND> -5"],
        },
    ]
}

#[test]
fn prompts_and_answers_are_those_of_the_reference() {
    let mut tried = BTreeSet::new();
    for case in cases() {
        for protocol in [Protocol::Standard, Protocol::Reference] {
            let question = question(case.name, &case.row, protocol);
            let turn = with_placeholder(&question.prompt, question.picture.is_some());
            assert_eq!(turn, case.turn, "{}", case.name);
            let gold = question.gold.unwrap_or_default();
            assert_eq!(gold.right, case.right, "{}", case.name);
            assert_eq!(gold.answers, case.answers, "{}", case.name);
        }
        tried.insert(case.name);
    }
    let catalogue = Catalogue::built_in().unwrap();
    let all = catalogue.all().iter();
    for entry in all {
        assert!(
            tried.contains(entry.definition.name.as_str()),
            "{}",
            entry.definition.name
        );
    }
}

/// The option in double quotes is lost, and so is the letter of the last.
#[test]
fn the_reference_misreads_options_of_mmmu() {
    let row = json!({
        "id": "validation_Art_1", "image_1": PIXEL, "question": "Whose?",
        "options": "['Ann', \"Bob's\", 'Cy']", "answer": "C", "question_type": "multiple-choice",
    });
    let standard = question("mmmu", &row, Protocol::Standard);
    assert!(standard.prompt.contains("\nA. Ann\nB. Bob's\nC. Cy\n"));
    assert_eq!(standard.gold.unwrap().answers, ["Cy"]);
    assert!((standard.chance - 1.0 / 3.0).abs() < 1e-12);
    let reference = question("mmmu", &row, Protocol::Reference);
    assert!(
        reference.prompt.contains("\nA. Ann\nB. s\", \nAnswer"),
        "{}",
        reference.prompt
    );
    assert_eq!(reference.gold.unwrap().right, Some(2));
}

#[test]
fn categories_units_and_chances() {
    let of = |name: &str| {
        let cases = cases();
        let case = cases.iter().find(|case| case.name == name).unwrap();
        question(name, &case.row, Protocol::Standard)
    };
    let category = |name: &str| of(name).category.unwrap_or_default();
    assert_eq!(category("gqa"), "verify");
    assert_eq!(category("seed"), "5");
    assert_eq!(category("mmmu"), "Computer_Science");
    assert_eq!(category("qbench"), "2");
    assert_eq!(category("blink"), "Counting");
    assert_eq!(category("mmvet"), "math,ocr");
    assert_eq!(category("cv-bench"), "Count");
    assert_eq!(of("cv-bench").source.unwrap(), "COCO");
    assert_eq!(of("mmbench-en").unit.unwrap(), "241");
    assert_eq!(of("mmvp").unit.unwrap(), "3");
    assert_eq!(of("mme").unit.unwrap(), "code_reasoning/0020.png");
    assert_eq!(of("pope").id, "popular/1");
    assert_eq!(of("gqa").id, "0");
    assert_eq!(of("vizwiz").id, "VizWiz_val_00000001");
    assert_eq!((of("pope").chance, of("gqa").chance), (0.5, 0.0));
    assert_eq!((of("seed").chance, of("vstar").chance), (0.25, 0.5));
}
