//! Ids and labels of every template against the golden pairs: files written by the functions of the
//! reference implementation of Cambrian-1 (arXiv 2406.16860), each with one template and one tokenizer.
//!
//! In the pairs that work there, both must be equal in every case that works there. Everything else
//! is a trap of the reference that is mended here, and has its own test.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use opabinia_data::mask::Turns;
use opabinia_data::{Masker, Place, Sample, SampleError, Tokenized};
use opabinia_llm::{ChatTemplate, PromptToken, SpecialTokens, Tokenizer};
use serde_json::{Value, json};

/// Where ids and labels must equal the reference's.
const WORKING: [&str; 8] = [
    "llama_3",
    "vicuna_v1",
    "vicuna_v1__legacy_tokenizer",
    "chatml__nobos_legacy",
    "chatml__nolegacy",
    "phi3__rstrip",
    "plain",
    "llama_2",
];

/// Where the reference's counts go wrong.
const TRAPS: [&str; 7] = [
    "llama_3__bos_adding_tokenizer",
    "vicuna_v1__other_vocab",
    "released_8b_script_state",
    "chatml",
    "chatml__nobos_nolegacy",
    "phi3",
    "phi3__legacy",
];

/// Conversations that are left as they are nowhere: see the tests named for them.
const MENDED: [&str; 5] = [
    "empty_answer_only",
    "empty_answer_middle",
    "empty_question",
    "ends_with_human",
    "special_strings_inside",
];

const NO_LIMIT: usize = 1 << 20;

fn golden() -> PathBuf {
    let root = std::env::var_os("OPABINIA_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        PathBuf::from,
    );
    root.join("recipe/templates")
}

/// A template with a tokenizer, and what the reference made of them.
struct Pair {
    name: &'static str,
    description: Value,
    template: &'static ChatTemplate,
    tokenizer: Arc<Tokenizer>,
}

impl Pair {
    fn read(name: &'static str) -> Self {
        let path = golden().join(format!("{name}.json"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let description: Value = serde_json::from_slice(&bytes).unwrap();
        Self {
            name,
            template: ChatTemplate::by_name(description["template"].as_str().unwrap()).unwrap(),
            tokenizer: Arc::new(tokenizer(&description)),
            description,
        }
    }

    fn cases(&self) -> impl Iterator<Item = &Value> {
        let cases = self.description["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 21, "{}", self.name);
        cases.iter()
    }

    fn case(&self, name: &str) -> &Value {
        self.cases().find(|case| case["name"] == name).unwrap()
    }

    fn tokenize(&self, sample: &Sample, max_length: usize) -> Result<Tokenized, SampleError> {
        let masker = Masker::new(self.template, Arc::clone(&self.tokenizer), max_length).unwrap();
        masker.tokenize(sample, 1)
    }

    /// Tokens of a case, at the length that the reference cuts it to: samples with a picture not
    /// at all at this point.
    fn run(&self, case: &Value) -> Result<Tokenized, SampleError> {
        let max_length = match case["has_image"].as_bool().unwrap() {
            true => NO_LIMIT,
            false => self.description["model_max_length"].as_u64().unwrap() as usize,
        };
        self.tokenize(&sample(case), max_length)
    }

    fn trained_text(&self, tokenized: &Tokenized) -> String {
        let trained = tokenized.labels();
        let ids: Vec<u32> = trained
            .iter()
            .filter_map(|&id| id.try_into().ok())
            .collect();
        self.tokenizer.decode(&ids, SpecialTokens::Include).unwrap()
    }
}

/// The tokenizer that a golden file describes, as a model folder.
fn tokenizer(description: &Value) -> Tokenizer {
    let label = description["tokenizer"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let put = |from: &str, to: &str| {
        std::fs::copy(golden().join(from), folder.path().join(to)).unwrap();
    };
    match label.split(' ').next().unwrap() {
        "llama3_style_nobos" => put("llama3_style_nobos.tokenizer.json", "tokenizer.json"),
        "llama3_style_bos" => put("llama3_style_bos.tokenizer.json", "tokenizer.json"),
        "llama2_style" => put("llama2_style.sentencepiece.model", "tokenizer.model"),
        "llama2_style_user_piece" => {
            put(
                "llama2_style_user_piece.sentencepiece.model",
                "tokenizer.model",
            );
        }
        other => panic!("an unknown tokenizer: {other}"),
    }
    let added = description["added_tokens"].as_object().unwrap();
    let text_of = |key: &str| {
        let id = &description[key];
        added
            .iter()
            .find(|(_, found)| *found == id)
            .map(|(text, _)| text.clone())
    };
    let rstrip = label.contains("rstrip=True");
    let decoder: serde_json::Map<String, Value> = added
        .iter()
        .map(|(text, id)| {
            let strip = rstrip && text.starts_with("<|");
            let token = json!({
                "content": text, "lstrip": false, "rstrip": strip, "normalized": false,
                "single_word": false, "special": true,
            });
            (id.to_string(), token)
        })
        .collect();
    let config = json!({
        "tokenizer_class": description["tokenizer_class"],
        "legacy": description["legacy"],
        "add_bos_token": !label.contains("no bos"),
        "bos_token": text_of("bos_id"),
        "eos_token": text_of("eos_id"),
        "pad_token": text_of("pad_id"),
        "unk_token": added.contains_key("<unk>").then_some("<unk>"),
        "added_tokens_decoder": decoder,
    });
    std::fs::write(
        folder.path().join("tokenizer_config.json"),
        config.to_string(),
    )
    .unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

fn sample(case: &Value) -> Sample {
    let image = case["has_image"]
        .as_bool()
        .unwrap()
        .then_some("picture.png");
    let line = json!({"image": image, "conversations": case["conversations"]}).to_string();
    let place = Place::new(Path::new("cases.jsonl"), 7);
    Sample::parse(line.as_bytes(), place).unwrap()
}

fn name(case: &Value) -> &str {
    case["name"].as_str().unwrap()
}

fn numbers(value: &Value) -> Vec<i64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_i64().unwrap())
        .collect()
}

/// Whether the reference gives up on a case.
fn mismatch(case: &Value) -> bool {
    case["error"].is_string()
        || case["warning"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
}

#[test]
fn working_pairs_give_the_ids_and_labels_of_the_reference() {
    let mut compared = 0;
    for pair in WORKING.map(Pair::read) {
        let kept = pair
            .cases()
            .filter(|case| !MENDED.contains(&name(case)) && !mismatch(case));
        for case in kept {
            let what = format!("{} {}", pair.name, name(case));
            let found = match name(case) {
                // A picture that no question shows is a fault here; the tokens are those of the text.
                "img_no_placeholder" => {
                    let mut sample = sample(case);
                    let error = pair.tokenize(&sample, NO_LIMIT).unwrap_err();
                    assert!(matches!(error, SampleError::Placeholder { .. }), "{what}");
                    sample.image = None;
                    pair.tokenize(&sample, NO_LIMIT)
                }
                _ => pair.run(case),
            };
            if case["n_trained"] == 0 {
                let error = found.unwrap_err();
                assert!(
                    matches!(error, SampleError::NoTrainableToken { .. }),
                    "{what}"
                );
                continue;
            }
            let found = found.unwrap_or_else(|error| panic!("{what}: {}", error.in_full()));
            assert_eq!(found.ids(), numbers(&case["input_ids"]), "{what}");
            assert_eq!(found.labels(), numbers(&case["labels"]), "{what}");
            compared += 1;
        }
    }
    assert!(compared >= 110, "{compared} cases");
}

#[test]
fn the_placeholder_moves_as_in_the_reference() {
    for case in Pair::read("llama_3").cases() {
        let sample = sample(case).with_leading_image();
        let texts: Vec<&str> = sample.turns.iter().map(|turn| turn.text.as_str()).collect();
        let mut expected: Vec<&str> = case["values_after_image_move"]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap())
            .collect();
        if name(case) == "leading_gpt_turn" {
            expected.remove(0);
        }
        assert_eq!(texts, expected, "{}", name(case));
    }
}

/// The reference's second count fails in most of these pairs; the ids are right all the same, and
/// here so are the labels.
#[test]
fn other_tokenizers_are_trained_as_well() {
    for pair in TRAPS.map(Pair::read) {
        let cases = pair.cases().filter(|case| {
            !MENDED.contains(&name(case))
                && !name(case).starts_with("long_")
                && case["input_ids"].is_array()
        });
        for case in cases {
            if name(case) == "img_no_placeholder" {
                continue;
            }
            let what = format!("{} {}", pair.name, name(case));
            let found = pair
                .run(case)
                .unwrap_or_else(|e| panic!("{what}: {}", e.in_full()));
            assert_eq!(found.ids(), without_repeated_bos(&pair, case), "{what}");
            assert_answers(&pair, &found, case);
        }
    }
}

/// When it trains, the reference repeats the beginning-of-text token behind a picture if Llama 3's
/// tokenizer adds one; when it answers, it does not. Here neither does.
fn without_repeated_bos(pair: &Pair, case: &Value) -> Vec<i64> {
    let mut ids = numbers(&case["input_ids"]);
    let picture = ids.iter().position(|&id| id == -200);
    if let Some(behind) = picture.map(|at| at + 1)
        && Some(ids[behind]) == pair.tokenizer.bos_id().map(i64::from)
    {
        ids.remove(behind);
    }
    ids
}

/// What is trained is every answer with its end, and nothing else.
fn assert_answers(pair: &Pair, found: &Tokenized, case: &Value) {
    let end = pair.template.answer_end().unwrap();
    let answers: String = sample(case)
        .turns
        .chunks_exact(2)
        .map(|exchange| format!("{}{end}", exchange[1].text))
        .collect();
    let bare = |text: &str| -> String { text.chars().filter(|c| !c.is_whitespace()).collect() };
    let what = format!("{} {}", pair.name, name(case));
    assert_eq!(bare(&pair.trained_text(found)), bare(&answers), "{what}");
}

/// The reference masks a picture in a later turn under `llama_3`, and role names inside a text under
/// `vicuna_v1`, as a whole.
#[test]
fn where_the_reference_gives_up_answers_are_trained() {
    let mut mended = 0;
    for pair in WORKING
        .map(Pair::read)
        .into_iter()
        .filter(|pair| pair.name != "plain")
    {
        let given_up = pair
            .cases()
            .filter(|case| mismatch(case) && !MENDED.contains(&name(case)));
        for case in given_up {
            let found = pair.run(case).unwrap();
            assert_eq!(
                found.ids(),
                numbers(&case["input_ids"]),
                "{} {}",
                pair.name,
                name(case)
            );
            assert_answers(&pair, &found, case);
            mended += 1;
        }
    }
    assert_eq!(mended, 3);
}

fn chat_pairs() -> impl Iterator<Item = Pair> {
    WORKING
        .map(Pair::read)
        .into_iter()
        .filter(|pair| pair.name != "plain")
}

/// The tokens of some turns alone.
fn tokens_of(pair: &Pair, texts: &[&str]) -> Tokenized {
    let turns: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(i, text)| json!({"from": (["human", "gpt"][i % 2]), "value": text}))
        .collect();
    let case = json!({"has_image": texts[0].contains("<image>"), "conversations": turns});
    pair.tokenize(&sample(&case), NO_LIMIT).unwrap()
}

#[test]
fn an_empty_answer_trains_nothing_and_shifts_nothing() {
    for pair in chat_pairs() {
        let error = pair.run(pair.case("empty_answer_only")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`cases.jsonl:7`: no trainable token: no question has an answer; remove the sample"
        );
        let found = pair.run(pair.case("empty_answer_middle")).unwrap();
        let alone = tokens_of(&pair, &["Second question?", "Second answer."]);
        assert_eq!(
            (found.ids(), found.labels()),
            (alone.ids(), alone.labels()),
            "{}",
            pair.name
        );
        assert_eq!(found.left_out, 1);
    }
}

#[test]
fn a_picture_outlives_the_question_that_is_left_out() {
    for pair in chat_pairs() {
        let found = tokens_of(&pair, &["<image>\nA?", "", "What is it?", "A leaf."]);
        let alone = tokens_of(&pair, &["<image>\nWhat is it?", "A leaf."]);
        assert_eq!(
            (found.ids(), found.labels()),
            (alone.ids(), alone.labels()),
            "{}",
            pair.name
        );
    }
}

#[test]
fn an_empty_question_takes_its_answer_with_it() {
    for pair in chat_pairs() {
        let found = pair.run(pair.case("empty_question")).unwrap();
        let alone = tokens_of(&pair, &["First question?", "First answer."]);
        assert_eq!(
            (found.ids(), found.labels()),
            (alone.ids(), alone.labels()),
            "{}",
            pair.name
        );
        assert_eq!(found.left_out, 1);
    }
}

#[test]
fn a_question_that_nobody_answers_is_left_out() {
    for pair in chat_pairs() {
        let found = pair.run(pair.case("ends_with_human")).unwrap();
        let alone = tokens_of(&pair, &["What is the mass?", "3 kg"]);
        assert_eq!(
            (found.ids(), found.labels()),
            (alone.ids(), alone.labels()),
            "{}",
            pair.name
        );
        assert_eq!(found.left_out, 1);
    }
}

#[test]
fn special_tokens_inside_a_text_are_text() {
    for pair in chat_pairs() {
        let case = pair.case("special_strings_inside");
        let found = pair.run(case).unwrap();
        assert_answers(&pair, &found, case);
        let end = pair.template.answer_end().unwrap();
        let end = i64::from(pair.tokenizer.token_to_id(&end).unwrap());
        let ends = found.labels().iter().filter(|&&label| label == end).count();
        assert_eq!(ends, 1, "{}: an answer ends once", pair.name);
        // Everywhere else, too, a special token is the template's or the tokenizer's own.
        let markup = tokens_of(&pair, &["What?", "That."]);
        let special = |tokenized: &Tokenized| {
            let ids = tokenized.ids();
            let special = |id: &i64| pair.tokenizer.is_special(u32::try_from(*id).unwrap());
            ids.into_iter().filter(special).collect::<Vec<_>>()
        };
        assert_eq!(special(&found), special(&markup), "{}", pair.name);
    }
}

#[test]
fn a_caption_is_one_picture_and_one_answer() {
    let pair = Pair::read("plain");
    for case in pair.cases().filter(|case| mismatch(case)) {
        let error = pair.run(case).unwrap_err();
        let expected = match name(case) {
            "img_no_placeholder" => "no question shows it",
            _ => "is for captions: one question that shows a picture, and one answer",
        };
        assert!(
            error.to_string().contains(expected),
            "{}: {error}",
            name(case)
        );
    }
    let case = json!({"has_image": true, "conversations": [
        {"from": "human", "value": "<image>"}, {"from": "gpt", "value": " "}]});
    let error = pair.run(&case).unwrap_err();
    assert!(
        error.to_string().contains("the caption is empty"),
        "{error}"
    );
}

#[test]
fn an_answer_that_does_not_fit_is_an_error_with_numbers() {
    let pair = Pair::read("vicuna_v1");
    let case = pair.case("long_question_truncates_answer");
    let error = pair.run(case).unwrap_err().to_string();
    assert!(
        error.starts_with("`cases.jsonl:7`: no trainable token: all ")
            && error.ends_with(
                "lie behind the first 256 positions; raise `max_length` or shorten the sample"
            ),
        "{error}"
    );
}

/// 55 tokens, one of them the picture's: with 100 visual tokens the sample takes 154 positions.
#[test]
fn a_picture_counts_with_its_visual_tokens() {
    let pair = Pair::read("vicuna_v1");
    let sample = sample(pair.case("img_1turn"));
    let with_limit = |max_length| {
        let masker = Masker::new(pair.template, Arc::clone(&pair.tokenizer), max_length).unwrap();
        masker.tokenize(&sample, 100)
    };
    let whole = with_limit(154).unwrap();
    assert_eq!(
        (whole.tokens.len(), whole.positions(100), whole.cut),
        (55, 154, 0)
    );
    let cut = with_limit(152).unwrap();
    assert_eq!(
        (cut.tokens.len(), cut.trained_tokens(), cut.cut),
        (53, 4, 2)
    );
    let error = with_limit(99).unwrap_err().to_string();
    assert!(error.contains("(the picture takes 100)"), "{error}");
}

/// Under every template: each branch behind the trunk is what its exchange is alone, the picture is there
/// once, and nothing of the trunk is trained.
#[test]
fn exchanges_apart_are_exchanges_alone() {
    for pair in chat_pairs() {
        let texts = [
            "How many?",
            "Two.",
            "Which colour?",
            "Red.",
            "How large?",
            "Small.",
        ];
        let alone: Vec<Tokenized> = texts
            .chunks(2)
            .map(|turns| tokens_of(&pair, &[&format!("<image>\n{}", turns[0]), turns[1]]))
            .collect();
        let turns: Vec<Value> = ["How many?\n<image>"]
            .iter()
            .chain(&texts[1..])
            .enumerate()
            .map(|(i, text)| json!({"from": (["human", "gpt"][i % 2]), "value": text}))
            .collect();
        let together = sample(&json!({"has_image": true, "conversations": turns}));
        let apart = |max_length| {
            Masker::new(pair.template, Arc::clone(&pair.tokenizer), max_length)
                .unwrap()
                .with_turns(Turns::Apart)
                .tokenize(&together, 10)
        };
        let found = apart(NO_LIMIT).unwrap();
        let trunk = found.branches[0];
        assert_eq!(found.branches.len(), 3, "{}", pair.name);
        assert!(found.tokens[..trunk].contains(&PromptToken::Image));
        assert!(found.trained[..=trunk].iter().all(|trained| !trained));
        let ends = found.branches[1..]
            .iter()
            .copied()
            .chain([found.tokens.len()]);
        for ((&start, end), alone) in found.branches.iter().zip(ends).zip(&alone) {
            let tokens = [&found.tokens[..trunk], &found.tokens[start..end]].concat();
            let trained = [&found.trained[..trunk], &found.trained[start..end]].concat();
            assert_eq!(
                (&tokens, &trained),
                (&alone.tokens, &alone.trained),
                "{}",
                pair.name
            );
        }
        let masker = Masker::new(pair.template, Arc::clone(&pair.tokenizer), NO_LIMIT).unwrap();
        let runs = masker.explain(&found).unwrap();
        assert_eq!(runs.iter().filter(|run| run.branch).count(), 3);
        // The limit is for each of them, as it would be alone; the row of all may be longer.
        let longest = alone.iter().map(|row| row.positions(10)).max().unwrap();
        assert!(found.positions(10) > longest);
        assert_eq!(apart(longest).unwrap(), found);
        assert_eq!(apart(longest - 1).unwrap().cut, found.cut + 1);
    }
}

#[test]
fn an_exchange_without_an_answer_is_no_branch() {
    for pair in chat_pairs() {
        let masker = Masker::new(pair.template, Arc::clone(&pair.tokenizer), NO_LIMIT).unwrap();
        let masker = masker.with_turns(Turns::Apart);
        let only = masker.tokenize(&sample(pair.case("empty_answer_only")), 1);
        assert_eq!(only.unwrap_err().to_string(), {
            let error = pair.run(pair.case("empty_answer_only"));
            error.unwrap_err().to_string()
        });
        let found = masker.tokenize(&sample(pair.case("empty_answer_middle")), 1);
        assert!(found.unwrap().left_out > 0);
    }
}

#[test]
fn a_mask_can_be_read() {
    let pair = Pair::read("llama_3");
    let masker = Masker::new(pair.template, Arc::clone(&pair.tokenizer), NO_LIMIT).unwrap();
    let found = tokens_of(&pair, &["<image>\nHow many?", "Two.", "Red?", "No."]);
    let runs = masker.explain(&found).unwrap();
    let trained: Vec<&str> = runs
        .iter()
        .filter(|r| r.trained)
        .map(|r| r.text.as_str())
        .collect();
    assert_eq!(trained, ["Two.<|eot_id|>", "No.<|eot_id|>"]);
    assert!(runs[0].text.contains("<image>\nHow many?<|eot_id|>"));
}
