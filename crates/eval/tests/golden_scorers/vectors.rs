//! Single answers: every case of every file of vectors.

use std::fs;

use opabinia_eval::scorer::{Aggregate, Gold, Judged, Judgement, Protocol, Scorer};
use serde::Deserialize;
use serde_json::{Map, Value};

use Protocol::{Reference, Standard};

use crate::{Line, assert_close, assert_metric, golden, index, metrics, strings};

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    prediction: Value,
    references: Value,
    expected: Value,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl Case {
    fn prediction(&self) -> &str {
        self.prediction.as_str().unwrap()
    }

    /// What a robust scorer should say where the original stops.
    fn score(&self) -> f64 {
        let recommended = || self.more["recommended"].as_f64().unwrap();
        self.expected.as_f64().unwrap_or_else(recommended)
    }

    fn letter(&self) -> &str {
        self.expected.as_str().unwrap_or_default()
    }

    fn gold(&self) -> Gold {
        let mut gold = gold(&self.references);
        gold.category = self
            .more
            .get("category")
            .and_then(Value::as_str)
            .map(str::to_owned);
        gold
    }
}

/// From an answer, a list of answers, or options with the letter of one.
fn gold(references: &Value) -> Gold {
    let Value::Object(table) = references else {
        return Gold {
            answers: strings(references),
            ..Gold::default()
        };
    };
    let letter = table.get("answer").or_else(|| table.get("letter")).unwrap();
    let options = table.get("options").or_else(|| table.get("choices"));
    Gold {
        answers: table.get("text").map(strings).unwrap_or_default(),
        options: options.map(strings).unwrap_or_default(),
        right: Gold::text(letter.as_str().unwrap()).letter().map(index),
        ..Gold::default()
    }
}

/// With the letter that the references hold as the right option.
fn lettered(case: &Case) -> Gold {
    let gold = case.gold();
    Gold {
        right: gold.right.or_else(|| gold.letter().map(index)),
        ..gold
    }
}

fn of_kind(kind: &str, gold: Gold) -> Gold {
    Gold {
        kind: Some(kind.to_owned()),
        ..gold
    }
}

/// The case's score comes out.
fn check_score(case: &Case, protocol: Protocol, scorer: Scorer, gold: &Gold) -> Judgement {
    let judgement = scorer.judge(protocol, case.prediction(), gold);
    assert_close(judgement.score, case.score(), &case.id);
    if case.expected.is_null() {
        assert!(!judgement.parsed, "{}", case.id);
    }
    judgement
}

/// The case's expected text is extracted; where there is none, nothing is.
fn check_extracted(case: &Case, scorer: Scorer, gold: &Gold) -> Judgement {
    let judgement = scorer.judge(Standard, case.prediction(), gold);
    assert_eq!(judgement.extracted, case.letter(), "{}", case.id);
    judgement
}

/// What is to be checked in every case of a file.
fn check(file: &str) -> Option<fn(&Case)> {
    Some(match file {
        "anls_lmms_docvqa_infovqa" => |case| {
            check_score(case, Standard, Scorer::Anls, &case.gold());
        },
        "anls_m4c_stvqa" => |case| {
            check_score(case, Reference, Scorer::Anls, &case.gold());
        },
        "chartqa_reference" => |case| {
            check_score(case, Reference, Scorer::ChartQa, &case.gold());
        },
        "chartqa_relaxed_standard" => |case| {
            check_score(case, Standard, Scorer::ChartQa, &case.gold());
        },
        "cvbench_aggregate" => cvbench_aggregate,
        "cvbench_single_standard" => |case| {
            let judgement = check_score(case, Standard, Scorer::CvBench, &lettered(case));
            assert_eq!(judgement.extracted, case.more["extracted"], "{}", case.id);
        },
        "gqa_exact_match" => |case| {
            check_score(case, Reference, Scorer::Gqa, &case.gold());
        },
        "mathvista_reference_mcq" => |case| {
            let gold = of_kind("multi_choice", lettered(case));
            check_score(case, Reference, Scorer::MathVista, &gold);
        },
        "mathvista_reference_open" => |case| {
            let gold = of_kind("free_form", case.gold());
            check_score(case, Reference, Scorer::MathVista, &gold);
        },
        "mcq_ai2d" => |case| {
            let right = case.references.as_str().unwrap().parse().unwrap();
            check_score(case, Reference, Scorer::Ai2d, &Gold::option(right, &[]));
        },
        "mcq_blink" => |case| {
            check_score(case, Reference, Scorer::Blink, &lettered(case));
        },
        "mcq_coco_ade" => |case| {
            check_score(case, Reference, Scorer::CvBench, &lettered(case));
        },
        "mcq_mmbench_cn" | "mcq_mmstar" => |case| {
            check_score(case, Reference, Scorer::FirstWord, &lettered(case));
        },
        "mcq_mmbench_en" | "mcq_seed" | "mcq_vstar" => |case| {
            check_score(case, Reference, Scorer::Letter, &lettered(case));
        },
        "mcq_mmvp_single" => |case| {
            check_score(case, Reference, Scorer::Mmvp, &case.gold());
        },
        "mcq_omni" => |case| {
            let mut gold = case.gold();
            gold.category = Some("Depth".to_owned());
            check_score(case, Reference, Scorer::CvBench, &gold);
        },
        "mcq_option_inference_vlmevalkit" => |case| {
            let judgement = check_extracted(case, Scorer::Letter, &case.gold());
            assert_eq!(
                judgement.parsed,
                !matches!(case.letter(), "" | "Z"),
                "{}",
                case.id
            );
        },
        "mcq_qbench" => |case| {
            check_score(case, Reference, Scorer::QBench, &lettered(case));
        },
        "mcq_realworldqa" | "realworldqa_freeform" => |case| {
            check_score(case, Reference, Scorer::RealWorldQa, &case.gold());
        },
        "mcq_scienceqa" => |case| {
            check_score(case, Reference, Scorer::ScienceQa, &case.gold());
        },
        "mme_category_score" => mme_category_score,
        "mme_single" => |case| {
            check_score(case, Reference, Scorer::Mme, &case.gold());
        },
        "mme_yes_no_parse_standard" => |case| {
            let judgement = check_extracted(case, Scorer::Mme, &Gold::text("yes"));
            assert_eq!(judgement.parsed, case.letter() != "other", "{}", case.id);
        },
        "mmmu_official_mcq_parse" => |case| {
            let judgement = check_extracted(case, Scorer::Mmmu, &case.gold());
            let fallback = case.more.get("random_fallback").is_some();
            assert_eq!(judgement.parsed, !fallback, "{}", case.id);
        },
        "mmmu_official_open" => |case| {
            let gold = of_kind("open", case.gold());
            let judgement = check_score(case, Standard, Scorer::Mmmu, &gold);
            assert_eq!(
                judgement.extracted,
                parsed_list(&case.more["parsed"]),
                "{}",
                case.id
            );
        },
        "mmmu_reference_mcq" => |case| {
            let gold = of_kind("multiple-choice", lettered(case));
            check_score(case, Reference, Scorer::Mmmu, &gold);
        },
        "mmmu_reference_open" => |case| {
            let gold = of_kind("open", case.gold());
            check_score(case, Reference, Scorer::Mmmu, &gold);
        },
        "mmvp_letter_extract_standard" => |case| {
            let judgement = check_extracted(case, Scorer::Mmvp, &Gold::text("A"));
            assert_eq!(judgement.parsed, !case.letter().is_empty(), "{}", case.id);
        },
        "mmvp_pair_accuracy" => mmvp_pair_accuracy,
        "ocrbench_contains" => |case| {
            check_score(case, Reference, Scorer::OcrBench, &case.gold());
        },
        "ocrbench_standard_fold" => |case| {
            check_score(case, Standard, Scorer::OcrBench, &case.gold());
        },
        "ocrbench_strict" => |case| {
            check_score(case, Reference, Scorer::OcrBenchStrict, &case.gold());
        },
        "pope_prf" => pope_prf,
        "pope_single" => |case| {
            check_score(case, Reference, Scorer::FirstWord, &case.gold());
        },
        "random_guess_mcq" => random_guess,
        "stvqa_accuracy_m4c" => |case| {
            check_score(case, Reference, Scorer::VqaAny, &case.gold());
        },
        "synthdog_edit_distance" => synthdog,
        "vqa_answer_processor" => |case| {
            check_extracted(case, Scorer::Vqa, &Gold::default());
        },
        "vqa_soft_accuracy_textvqa_vizwiz" => |case| {
            let judgement = check_score(case, Reference, Scorer::Vqa, &case.gold());
            let normalised = &case.more["normalized_prediction"];
            assert_eq!(judgement.extracted, *normalised, "{}", case.id);
        },
        _ => return None,
    })
}

#[test]
fn every_vector_of_every_scorer() {
    let mut seen = 0;
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let elsewhere = name.starts_with("stats_") || name == "vqa_processing_tables";
        if path.extension().is_none_or(|extension| extension != "json") || elsewhere {
            continue;
        }
        let check = check(&name).unwrap_or_else(|| panic!("nothing checks `{name}`"));
        let file: File = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert!(!file.cases.is_empty(), "`{name}` has no cases");
        file.cases.iter().for_each(check);
        seen += 1;
    }
    assert_eq!(seen, 43, "a file of vectors is missing");
}

/// As JSON lists it; numbers first, both sorted.
fn parsed_list(parsed: &Value) -> String {
    let parts = parsed.as_array().unwrap();
    let mut numbers: Vec<f64> = parts.iter().filter_map(Value::as_f64).collect();
    let mut texts: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
    numbers.sort_by(f64::total_cmp);
    texts.sort_unstable();
    let numbers = numbers.iter().map(ToString::to_string);
    let texts = texts.iter().map(|text| Value::from(*text).to_string());
    format!("[{}]", numbers.chain(texts).collect::<Vec<_>>().join(", "))
}

/// Lines of zeros and ones in pairs.
fn lines_of_scores(case: &Case, category: &str) -> Vec<Line> {
    let scores = case.prediction.as_array().unwrap().iter().enumerate();
    scores
        .map(|(number, score)| Line {
            category: Some(category.to_owned()),
            ..Line::new(number, Judgement::new(score.as_f64().unwrap(), "", ""))
        })
        .collect()
}

fn mmvp_pair_accuracy(case: &Case) {
    let lines = lines_of_scores(case, "");
    let standard = metrics(Aggregate::MmvpPairs, Standard, &lines);
    assert_metric(&standard, "pair-accuracy", &case.expected, 100.0);
    let reference = metrics(Aggregate::MmvpPairs, Reference, &lines);
    let printed = &case.more["reference_repo_accuracy_percent"];
    assert_metric(&reference, "pair-accuracy", printed, 1.0);
}

fn mme_category_score(case: &Case) {
    let lines = lines_of_scores(case, "count");
    for (protocol, wanted) in [
        (
            Standard,
            ["acc", "acc_plus", "score"].map(|key| &case.expected[key]),
        ),
        (
            Reference,
            ["acc_score", "acc_plus_score", "score"].map(|key| &case.more["reference_repo"][key]),
        ),
    ] {
        let metrics = metrics(Aggregate::Mme, protocol, &lines);
        for (name, wanted) in ["acc/count", "acc+/count", "category/count"]
            .iter()
            .zip(wanted)
        {
            assert_metric(&metrics, name, wanted, 1.0);
        }
    }
}

fn cvbench_aggregate(case: &Case) {
    let mut lines = Vec::new();
    for (source, counts) in case.prediction.as_object().unwrap() {
        let counts: [u64; 2] = serde_json::from_value(counts.clone()).unwrap();
        let task = if source == "Omni3D" { "Depth" } else { "Count" };
        for number in 0..counts[1] {
            let score = f64::from(u8::from(number < counts[0]));
            lines.push(Line {
                category: Some(task.to_owned()),
                source: Some(source.clone()),
                ..Line::new(lines.len(), Judgement::new(score, "", ""))
            });
        }
    }
    let metrics = metrics(Aggregate::CvBench, Standard, &lines);
    assert_eq!(metrics[0].name, "overall");
    assert_metric(&metrics, "overall", &case.expected, 100.0);
    assert_metric(&metrics, "micro", &case.more["micro_accuracy"], 100.0);
}

/// The harness compares whole answers, which is what the scorer `exact` does.
fn pope_prf(case: &Case) {
    let right = case.references.as_array().unwrap();
    let said = case.prediction.as_array().unwrap().iter().zip(right);
    let lines: Vec<Line> = said
        .map(|(said, right)| {
            let gold = gold(right);
            Scorer::Exact.judge(Standard, said.as_str().unwrap(), &gold)
        })
        .enumerate()
        .map(|(number, judgement)| Line::new(number, judgement))
        .collect();
    let metrics = metrics(Aggregate::Pope, Standard, &lines);
    for (name, key) in [
        ("accuracy", "accuracy"),
        ("precision", "precision"),
        ("recall-answered", "recall"),
        ("f1-answered", "f1"),
        ("yes-right", "gt_yes_ratio"),
    ] {
        assert_metric(&metrics, name, &case.expected[key], 100.0);
    }
}

fn random_guess(case: &Case) {
    let counts: Vec<usize> = serde_json::from_value(case.prediction.clone()).unwrap();
    let lines: Vec<Line> = counts
        .iter()
        .map(|count| Judgement::guessing(&Gold::option(0, &vec!["option"; *count])))
        .enumerate()
        .map(|(number, judgement)| Line::new(number, judgement))
        .collect();
    let guessed: Vec<Judged<'_>> = lines.iter().map(Line::judged).collect();
    let chance = Aggregate::Mean.chance(&guessed).unwrap();
    assert_close(chance, 100.0 * case.expected.as_f64().unwrap(), &case.id);
}

fn synthdog(case: &Case) {
    let judgement = Scorer::EditDistance.judge(Reference, case.prediction(), &case.gold());
    let metrics = metrics(
        Aggregate::EditDistance,
        Reference,
        &[Line::new(0, judgement)],
    );
    for edits in [0, 5, 10, 25, 50] {
        let wanted = &case.expected[format!("le_{edits}")];
        assert_metric(&metrics, &format!("within-{edits}-edits"), wanted, 100.0);
    }
}

#[derive(Deserialize)]
struct Tables {
    articles: Vec<String>,
    number_words: Map<String, Value>,
    punctuation: Vec<String>,
    contractions: Map<String, Value>,
}

#[test]
fn tables_of_the_vqa_normaliser() {
    let text = fs::read_to_string(golden().join("vqa_processing_tables.json")).unwrap();
    let tables: Tables = serde_json::from_str(&text).unwrap();
    let normalised = |text: &str| {
        Scorer::Vqa
            .judge(Standard, text, &Gold::default())
            .extracted
    };
    for article in &tables.articles {
        assert_eq!(normalised(&format!("{article} x {article}")), "x");
    }
    for (word, digits) in &tables.number_words {
        assert_eq!(normalised(word), *digits, "`{word}`");
    }
    for mark in &tables.punctuation {
        let joined = if matches!(mark.as_str(), "," | "?") {
            "xy"
        } else {
            "x y"
        };
        assert_eq!(normalised(&format!("x{mark}y")), joined, "`{mark}`");
        assert_eq!(normalised(&format!("x {mark}y")), "x y", "`{mark}`");
    }
    // Capitals never match, and `'s` is cut off before words are looked up.
    let can_match = |typed: &str| typed.to_lowercase() == typed && !typed.contains("'s");
    let mut matched = 0;
    for (typed, spelled) in &tables.contractions {
        if can_match(typed) {
            assert_eq!(normalised(typed), *spelled, "`{typed}`");
            matched += 1;
        } else {
            assert_ne!(normalised(typed), *spelled, "`{typed}`");
        }
    }
    assert!(matched > 100);
}
