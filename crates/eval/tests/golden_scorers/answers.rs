//! Whole files of answers, each with the rules of its benchmark.

use std::collections::BTreeSet;
use std::fs;

use opabinia_eval::scorer::{Aggregate, Gold, Judged, Metric, Protocol, Scorer};
use serde_json::Value;

use Protocol::{Reference, Standard};

use crate::{Line, assert_close, assert_metric, golden, index, metric, metrics, strings};

#[test]
fn every_file_of_answers() {
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(golden().join("aggregates")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let answers = fs::read_to_string(folder.join("answers.jsonl")).unwrap();
        let answers: Vec<Value> = answers
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(!answers.is_empty(), "`{name}` has no answers");
        let expected = fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        check_answers(&name, &answers, &expected["expected"]);
        seen.insert(name);
    }
    assert_eq!(seen.len(), 26, "{seen:?}");
}

fn check_answers(name: &str, answers: &[Value], expected: &Value) {
    let reference = |scorer| judge_all(answers, scorer, Reference);
    let mean = |scorer, aggregate| metrics(aggregate, Reference, &reference(scorer));
    match name {
        "ade" | "coco" | "omni" => {
            let metrics = mean(Scorer::CvBench, Aggregate::Mean);
            assert_metric(&metrics, "accuracy", &expected["accuracy"], 100.0);
            assert_categories(&metrics, "category", expected, "accuracy");
        }
        "ai2d" => assert_accuracy(&mean(Scorer::Ai2d, Aggregate::Mean), expected),
        "blink" => {
            let metrics = mean(Scorer::Blink, Aggregate::Mean);
            assert_metric(&metrics, "accuracy", &expected["accuracy"], 100.0);
            assert_categories(&metrics, "category", expected, "accuracy");
        }
        "chartqa" => assert_accuracy(&mean(Scorer::ChartQa, Aggregate::Mean), expected),
        "cvbench" => cvbench(answers, expected),
        "gqa" => assert_accuracy(&mean(Scorer::Gqa, Aggregate::Mean), expected),
        "mathvista" => {
            let metrics = mean(Scorer::MathVista, Aggregate::Mean);
            assert_metric(&metrics, "accuracy", &expected["accuracy"], 100.0);
            assert_categories(&metrics, "category", expected, "accurcay");
        }
        "mmbench_en" => circular(&reference(Scorer::Letter), expected),
        "mmbench_cn" => circular(&reference(Scorer::FirstWord), expected),
        "mme" | "mme_misaligned" => mme(&reference(Scorer::Mme), expected),
        "mmmu" => {
            let metrics = mean(Scorer::Mmmu, Aggregate::Mmmu);
            assert_metric(&metrics, "accuracy", &expected["accuracy"], 100.0);
            assert_categories(&metrics, "category", expected, "accuracy");
        }
        "mmstar" => assert_accuracy(&mean(Scorer::FirstWord, Aggregate::Mean), expected),
        "mmvp" => mmvp(&reference(Scorer::Mmvp), expected),
        "ocrbench" => {
            for (key, scorer) in [
                ("contains", Scorer::OcrBench),
                ("strict", Scorer::OcrBenchStrict),
            ] {
                let metrics = mean(scorer, Aggregate::OcrBench);
                let mut expected = expected[key].clone();
                let total = expected
                    .as_object_mut()
                    .unwrap()
                    .remove("total_accuracy")
                    .unwrap();
                assert_metric(&metrics, "accuracy", &total["accuracy"], 1.0);
                assert_percentages(&metrics, &expected);
            }
        }
        "pope" => pope(answers, expected),
        "qbench" => {
            let metrics = mean(Scorer::QBench, Aggregate::QBench);
            assert_metric(&metrics, "accuracy", &expected["accuracy"], 100.0);
            assert_categories(&metrics, "category", expected, "accuracy");
        }
        "realworldqa" => assert_accuracy(&mean(Scorer::RealWorldQa, Aggregate::Mean), expected),
        "scienceqa" => scienceqa(&reference(Scorer::ScienceQa), expected),
        "seed" => {
            let metrics = mean(Scorer::Letter, Aggregate::Seed);
            assert_metric(&metrics, "accuracy", &expected["accuracy"], 100.0);
            assert_categories(&metrics, "category", expected, "accurcay");
        }
        "synthdog" => {
            let metrics = mean(Scorer::EditDistance, Aggregate::EditDistance);
            for edits in [0, 5, 10, 25, 50] {
                let wanted = &expected[format!("accuracy_edit_distance_{edits}")]["accuracy"];
                assert_metric(&metrics, &format!("within-{edits}-edits"), wanted, 1.0);
            }
        }
        "textvqa" | "vizwiz" => {
            let metrics = mean(Scorer::Vqa, Aggregate::Mean);
            assert_metric(&metrics, "accuracy", &expected["accuracy"], 1.0);
        }
        "vstar" => assert_accuracy(&mean(Scorer::Letter, Aggregate::Mean), expected),
        _ => panic!("nothing checks `{name}`"),
    }
}

/// Judges the lines that have a right answer: VizWiz's test part has none.
fn judge_all(answers: &[Value], scorer: Scorer, protocol: Protocol) -> Vec<Line> {
    let judged = answers.iter().filter(|answer| answer["category"] != "test");
    judged
        .enumerate()
        .map(|(number, answer)| judge(number, answer, scorer, protocol))
        .collect()
}

fn judge(number: usize, answer: &Value, scorer: Scorer, protocol: Protocol) -> Line {
    let text = |key: &str| strings(&answer[key]).into_iter().next();
    let gold = gold_of_line(answer, scorer);
    let prediction = text("answer").or_else(|| text("prediction")).unwrap();
    let unit = text("source_id").unwrap_or_else(|| unit(answer, number));
    let has_picture = answer["type"] != false;
    Line {
        unit,
        picture: has_picture.then(|| number.to_string()),
        category: text("category").or_else(|| text("type")),
        source: text("source"),
        ..Line::new(number, scorer.judge(protocol, &prediction, &gold))
    }
}

/// Questions of a pair have consecutive numbers, the first one even.
fn unit(answer: &Value, number: usize) -> String {
    let id = answer["question_id"].as_u64().unwrap_or(number as u64);
    (id / 2).to_string()
}

fn gold_of_line(answer: &Value, scorer: Scorer) -> Gold {
    let answers = strings(&answer["gt_answer"]);
    let options = ["options", "text_options"]
        .iter()
        .find_map(|key| answer.get(key));
    let first = answers.first().cloned().unwrap_or_default();
    let kind = strings(&answer["type"]).into_iter().next();
    let open = matches!(kind.as_deref(), Some("open" | "free_form"));
    let right = match scorer {
        Scorer::Ai2d => first.parse().ok(),
        _ if open || answers.len() > 1 => None,
        _ => Gold::text(&first).letter().map(index),
    };
    Gold {
        answers: answer.get("text_answer").map_or(answers, strings),
        options: options.map(strings).unwrap_or_default(),
        right,
        category: strings(&answer["category"]).into_iter().next(),
        kind,
    }
}

fn assert_accuracy(metrics: &[Metric], expected: &Value) {
    assert_metric(metrics, "accuracy", &expected["accuracy"], 1.0);
    let total = metric(metrics, "accuracy").questions as f64;
    assert_close(total, expected["total"].as_f64().unwrap(), "total");
}

/// Every entry of the expected table that is one of a category.
fn assert_categories(metrics: &[Metric], kind: &str, expected: &Value, key: &str) {
    let table = expected.as_object().unwrap().iter();
    let categories: Vec<_> = table.filter(|(_, entry)| entry.is_object()).collect();
    assert!(!categories.is_empty());
    for (name, entry) in categories {
        let name = format!("{kind}/{name}");
        assert_metric(metrics, &name, &entry[key], 100.0);
        if kind == "category" {
            assert_eq!(
                metric(metrics, &name).questions as u64,
                entry["total"],
                "{name}"
            );
        }
    }
}

fn assert_percentages(metrics: &[Metric], expected: &Value) {
    for (name, entry) in expected.as_object().unwrap() {
        assert_metric(
            metrics,
            &format!("category/{name}"),
            &entry["accuracy"],
            1.0,
        );
    }
}

fn circular(lines: &[Line], expected: &Value) {
    let metrics = metrics(Aggregate::Circular, Reference, lines);
    assert_eq!(metrics[0].name, "circular-accuracy");
    assert_metric(
        &metrics,
        "circular-accuracy",
        &expected["circular_accuracy"],
        100.0,
    );
    assert_metric(&metrics, "accuracy", &expected["accuracy"], 100.0);
    assert_categories(&metrics, "circular", expected, "circular_accuracy");
    assert_categories(&metrics, "category", expected, "accurcay");
}

fn mme(lines: &[Line], expected: &Value) {
    let by_order = metrics(Aggregate::Mme, Reference, lines);
    let reference = expected["reference"].as_object().unwrap();
    assert_metric(&by_order, "accuracy", &reference["accuracy"], 1.0);
    assert_metric(&by_order, "total", &reference["total_score"], 1.0);
    for (name, entry) in reference.iter().filter(|(_, entry)| entry.is_object()) {
        assert_metric(&by_order, &format!("category/{name}"), &entry["score"], 1.0);
        assert_metric(&by_order, &format!("acc/{name}"), &entry["acc_score"], 1.0);
        assert_metric(
            &by_order,
            &format!("acc+/{name}"),
            &entry["acc_plus_score"],
            1.0,
        );
    }
    let judged: Vec<Judged<'_>> = lines.iter().map(Line::judged).collect();
    let by_unit = Aggregate::Mme.metrics(&judged);
    let sums = |metrics: &[Metric], sums: &Value| {
        for (name, key) in [("perception", "Perception"), ("cognition", "Cognition")] {
            let value = metrics.iter().find(|metric| metric.name == name);
            let value = value.map_or(0.0, |metric| metric.value);
            assert_close(value, sums[key].as_f64().unwrap(), name);
        }
    };
    sums(&by_order, &expected["reference"]);
    match expected.get("standard_pairwise") {
        Some(standard) => {
            let metrics = by_unit.unwrap();
            sums(&metrics, standard);
            for (name, score) in standard["per_category_score"].as_object().unwrap() {
                assert_metric(&metrics, &format!("category/{name}"), score, 1.0);
            }
        }
        // A line is missing.
        None => assert!(by_unit.unwrap_err().to_string().contains("wanted 2")),
    }
}

fn mmvp(lines: &[Line], expected: &Value) {
    let right: Vec<f64> = lines.iter().map(|line| line.judgement.score).collect();
    let wanted: Vec<f64> = serde_json::from_value(expected["single_correct"].clone()).unwrap();
    assert_eq!(right, wanted);
    let standard = metrics(Aggregate::MmvpPairs, Standard, lines);
    assert_metric(
        &standard,
        "pair-accuracy",
        &expected["pair_accuracy"],
        100.0,
    );
    assert_metric(&standard, "accuracy", &expected["single_accuracy"], 100.0);
    let reference = metrics(Aggregate::MmvpPairs, Reference, lines);
    assert_metric(
        &reference,
        "pair-accuracy",
        &expected["reference"]["accuracy"],
        1.0,
    );
}

fn scienceqa(lines: &[Line], expected: &Value) {
    let metrics = metrics(Aggregate::ScienceQa, Reference, lines);
    assert_eq!(metrics[0].name, "accuracy-with-picture");
    assert_metric(
        &metrics,
        "accuracy-with-picture",
        &expected["multimodal_acc"],
        100.0,
    );
    let twice = "accuracy-with-pictures-twice";
    assert_metric(&metrics, twice, &expected["accuracy"], 100.0);
    assert_eq!(
        metric(&metrics, twice).questions as u64,
        expected["total_count"]
    );
    let mut grades = expected.clone();
    grades.as_object_mut().unwrap().remove("is_multimodal");
    assert_categories(&metrics, "category", &grades, "accuracy");
}

fn pope(answers: &[Value], expected: &Value) {
    let first_word = judge_all(answers, Scorer::FirstWord, Reference);
    let by_first_word = metrics(Aggregate::Pope, Reference, &first_word);
    assert_accuracy(&by_first_word, &expected["reference_accuracy"]);
    let wanted = &expected["yes_positive_first_token"];
    for (name, key) in [
        ("accuracy", "accuracy"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("f1", "f1"),
        ("yes-said", "yes_ratio_of_predictions"),
    ] {
        assert_metric(&by_first_word, name, &wanted[key], 100.0);
    }
    let whole = judge_all(answers, Scorer::Exact, Standard);
    let by_whole = metrics(Aggregate::Pope, Standard, &whole);
    let wanted = &expected["lmms_eval_exact_string"];
    for (name, key) in [
        ("accuracy", "accuracy"),
        ("precision", "precision"),
        ("recall-answered", "recall"),
        ("f1-answered", "f1"),
        ("yes-right", "yes_ratio_of_ground_truth"),
    ] {
        assert_metric(&by_whole, name, &wanted[key], 100.0);
    }
}

fn cvbench(answers: &[Value], expected: &Value) {
    let reference = judge_all(answers, Scorer::CvBench, Reference);
    let metrics_by_reference = metrics(Aggregate::CvBench, Reference, &reference);
    let wanted = &expected["reference_rule"];
    for (name, key) in [
        ("overall", "overall"),
        ("2D", "acc_2d"),
        ("3D", "acc_3d"),
        ("source/ADE20K", "acc_ade20k"),
        ("source/COCO", "acc_coco"),
    ] {
        assert_metric(&metrics_by_reference, name, &wanted[key], 100.0);
    }
    let standard = judge_all(answers, Scorer::CvBench, Standard);
    let metrics = metrics(Aggregate::CvBench, Standard, &standard);
    let wanted = &expected["standard_rule"];
    assert_metric(&metrics, "overall", &wanted["overall_formula"], 100.0);
    assert_metric(&metrics, "micro", &wanted["micro_accuracy"], 100.0);
    for (kind, key) in [("source", "per_source"), ("task", "per_task")] {
        for (name, accuracy) in wanted[key].as_object().unwrap() {
            assert_metric(&metrics, &format!("{kind}/{name}"), accuracy, 100.0);
        }
    }
}
