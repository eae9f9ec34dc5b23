//! Prompts, token ids and decoded answers against the golden cases: files written by the reference
//! implementation of Cambrian-1 (arXiv 2406.16860).

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use opabinia_llm::{
    ChatTemplate, Conversation, PromptToken, SpecialTokens, TemplateError, TextStream, Tokenizer,
    Turn,
};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::Value;

fn golden() -> PathBuf {
    std::env::var_os("OPABINIA_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        PathBuf::from,
    )
}

fn json(path: impl AsRef<Path>) -> Value {
    let path = golden().join(path);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}

fn golden_tokenizer() -> Tokenizer {
    Tokenizer::from_folder(golden().join("cambrian_llama_sva")).unwrap()
}

const QUESTION: &str = "What is shown here?";
const ANSWER: &str = "A red square on a blue background.";
const NEXT: &str = "And what is left of it?";

fn one_turn() -> Conversation {
    Conversation::question(QUESTION)
}

fn two_turns() -> Conversation {
    let turns = [
        Turn::user(QUESTION),
        Turn::assistant(ANSWER),
        Turn::user(NEXT),
        Turn::open(),
    ];
    Conversation::new(turns.into())
}

fn complete() -> Conversation {
    Conversation::new(vec![Turn::user(QUESTION), Turn::assistant(ANSWER)])
}

/// The web demo hands the picture over behind the text.
fn demo(template: &ChatTemplate) -> Conversation {
    template.with_leading_images(Conversation::question(format!("{QUESTION}\n<image>")))
}

#[test]
fn every_template_renders_as_the_reference() {
    let prompts = json("conversations/prompts.json");
    let prompts = prompts.as_object().unwrap();
    assert_eq!(prompts.len(), 24);
    for (name, expected) in prompts {
        let template = ChatTemplate::by_name(name).unwrap();
        let variants = [
            ("1turn_text", one_turn()),
            ("2turn_text", two_turns()),
            ("1turn_image", one_turn().with_images(1)),
            ("2turn_image", two_turns().with_images(1)),
            ("1turn_tuple_image", demo(template)),
            ("1turn_complete", complete()),
        ];
        for (variant, conversation) in variants {
            let found = template.render(&conversation);
            match expected[variant].as_str() {
                Some(text) => assert_eq!(found.unwrap().text, text, "{name} {variant}"),
                // The reference raises here, for want of the second separator.
                None => assert!(
                    matches!(found, Err(TemplateError::NoAnswerEnd { .. })),
                    "{name} {variant}: {found:?}"
                ),
            }
        }
    }
}

#[test]
fn every_template_holds_the_data_of_the_reference() {
    for (name, expected) in json("conversations/prompts.json").as_object().unwrap() {
        let template = ChatTemplate::by_name(name).unwrap();
        let text = |key: &str| expected[key].as_str();
        assert_eq!(Some(template.version.as_str()), text("version"), "{name}");
        assert_eq!(
            Some(format!("{}{}", template.system_markup, template.system).as_str()),
            text("system"),
            "{name}"
        );
        assert_eq!(Some(template.sep.as_str()), text("sep"), "{name}");
        assert_eq!(template.sep2.as_deref(), text("sep2"), "{name}");
        assert_eq!(
            template.preset.len(),
            expected["offset"].as_u64().unwrap() as usize,
            "{name}"
        );
        let roles: Vec<&str> = expected["roles"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r.as_str().unwrap())
            .collect();
        assert_eq!(template.roles, *roles, "{name}");
    }
}

const MODELS: [&str; 5] = [
    "cambrian_llama_g2",
    "cambrian_llama_mlp2x_gelu",
    "cambrian_llama_sva",
    "cambrian_mistral",
    "cambrian_phi3",
];

/// The single-prompt runs of all whole-model cases: case, name of the run, its description.
fn runs() -> Vec<(&'static str, String, Value)> {
    let mut runs = Vec::new();
    for case in MODELS {
        let description = json(format!("{case}/case.json"));
        for (name, run) in description["runs"].as_object().unwrap() {
            if run["kind"] == "single" {
                runs.push((case, name.clone(), run.clone()));
            }
        }
    }
    assert!(runs.len() >= 15, "{} runs", runs.len());
    runs
}

fn conversation_of(run: &Value) -> Conversation {
    let mut turns = Vec::new();
    for turn in run["turns"].as_array().unwrap() {
        turns.push(Turn::user(turn[0].as_str().unwrap()));
        turns.push(turn[1].as_str().map_or_else(Turn::open, Turn::assistant));
    }
    Conversation::new(turns).with_images(usize::from(run["image"].is_string()))
}

/// The reference's ids: −200 where an image goes.
fn reference_ids(tokens: &[PromptToken]) -> Vec<i64> {
    tokens
        .iter()
        .map(|token| match token {
            PromptToken::Text(id) => i64::from(*id),
            PromptToken::Image => -200,
        })
        .collect()
}

/// One row of an integer tensor of a case.
fn stored_ids(case: &str, tensor: &str, row: usize) -> Vec<i64> {
    let bytes = std::fs::read(golden().join(case).join("io.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(tensor).unwrap();
    let width = tensor.shape()[1];
    let ids = tensor
        .data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
    ids.skip(row * width).take(width).collect()
}

#[test]
fn prompts_of_whole_models_match() {
    for (case, name, run) in runs() {
        let template = ChatTemplate::by_name(run["conv_mode"].as_str().unwrap()).unwrap();
        let prompt = template.render(&conversation_of(&run)).unwrap();
        assert_eq!(
            prompt.text,
            run["prompt"].as_str().unwrap(),
            "{case} {name}"
        );
    }
}

#[test]
fn input_ids_of_whole_models_match() {
    for (case, name, run) in runs() {
        let tokenizer = Tokenizer::from_folder(golden().join(case)).unwrap();
        let tokens = tokenizer
            .encode_with_images(run["prompt"].as_str().unwrap())
            .unwrap();
        let expected = stored_ids(case, &format!("{name}.input_ids"), 0);
        assert_eq!(reference_ids(&tokens), expected, "{case} {name}");
    }
}

/// Rows of a batch are padded on the right.
#[test]
fn input_ids_of_a_batch_match() {
    let case = "cambrian_llama_sva";
    let prompts = json(format!("{case}/case.json"))["runs"]["batch2"]["prompts"].clone();
    for (row, prompt) in prompts.as_array().unwrap().iter().enumerate() {
        let tokens = golden_tokenizer()
            .encode_with_images(prompt.as_str().unwrap())
            .unwrap();
        let ids = reference_ids(&tokens);
        let expected = stored_ids(case, "batch2.input_ids", row);
        assert_eq!(ids, expected[..ids.len()], "row {row}");
        let padding = &expected[ids.len()..];
        assert!(
            padding.iter().all(|id| Some(id) == padding.first()),
            "row {row}: {padding:?}"
        );
    }
}

#[test]
fn answers_of_whole_models_match() {
    for (case, name, run) in runs() {
        let Some(expected) = run["greedy_text"].as_str() else {
            continue;
        };
        let ids: Vec<u32> = serde_json::from_value(run["greedy_ids"].clone()).unwrap();
        let tokenizer = Tokenizer::from_folder(golden().join(case)).unwrap();
        assert_eq!(
            tokenizer.decode_answer(&ids).unwrap(),
            expected.trim(),
            "{case} {name}"
        );

        let mut stream = TextStream::new(&tokenizer, SpecialTokens::Omit, []);
        let mut text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        text += &stream.finish().unwrap();
        assert_eq!(
            text,
            tokenizer.decode(&ids, SpecialTokens::Omit).unwrap(),
            "{case} {name}"
        );
    }
}

#[test]
fn special_tokens_come_from_the_settings() {
    let tokenizer = golden_tokenizer();
    assert_eq!(tokenizer.bos_id(), Some(372));
    assert_eq!(tokenizer.eos_id(), Some(373));
    assert_eq!(tokenizer.pad_id(), Some(374));
    assert_eq!(tokenizer.model_max_length(), Some(2048));
    assert_eq!(tokenizer.vocab_size(), 384);
    assert_eq!(tokenizer.token_to_id("<|eot_id|>"), Some(377));
    assert!(tokenizer.is_special(377) && !tokenizer.is_special(40));
}

/// What a training mask needs: the tokens that end inside an answer are the answer.
#[test]
fn tokens_of_an_answer_are_found_by_their_place() {
    let tokenizer = golden_tokenizer();
    for name in ["llama_3", "vicuna_v1", "chatml_direct", "phi3"] {
        let template = ChatTemplate::by_name(name).unwrap();
        let prompt = template.render(&complete().with_images(1)).unwrap();
        let answer = prompt.answers[0].clone();
        let ids: Vec<u32> = tokenizer
            .encode_with_places(&prompt.text)
            .unwrap()
            .into_iter()
            .filter(|placed| placed.bytes.end > answer.start && placed.bytes.end <= answer.end)
            .filter_map(|placed| match placed.token {
                PromptToken::Text(id) => Some(id),
                PromptToken::Image => None,
            })
            .collect();
        let text = tokenizer.decode(&ids, SpecialTokens::Include).unwrap();
        assert_eq!(text, prompt.text[answer], "{name}");
    }
}

/// Where the earliest-ending stop string begins in a whole text; the end if there is none.
fn cut_at_stop<'a>(text: &'a str, stops: &[String]) -> &'a str {
    let found = stops
        .iter()
        .filter_map(|stop| text.find(stop).map(|at| (at + stop.len(), at)));
    found.min().map_or(text, |(_, start)| &text[..start])
}

proptest! {
    #[test]
    fn any_text_survives(text in "\\PC{0,40}|(<image>|<\\|eot_id\\|>|[ a-z\\n]){0,10}") {
        let tokenizer = golden_tokenizer();
        let ids = tokenizer.encode(&text, SpecialTokens::Omit).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, SpecialTokens::Include).unwrap(), text);
    }

    /// Placeholders and text survive, and the tokens cover the prompt in order.
    #[test]
    fn any_prompt_is_covered_in_order(prompt in "(<image>|[ a-zé\\n<]{0,4}){0,8}") {
        let placed = golden_tokenizer().encode_with_places(&prompt).unwrap();
        let images = placed.iter().filter(|placed| placed.token == PromptToken::Image).count();
        prop_assert_eq!(images, prompt.matches("<image>").count());
        prop_assert!(placed.iter().all(|placed| placed.bytes.end <= prompt.len()));
        prop_assert!(placed.is_sorted_by_key(|placed| placed.bytes.end));
    }

    #[test]
    fn streamed_pieces_add_up_to_the_whole(ids in prop::collection::vec(0u32..400, 0..40)) {
        let tokenizer = golden_tokenizer();
        let stops = ["a", " the", "\u{FFFD}s", "!?"].map(str::to_owned);
        for (special, stops) in [
            (SpecialTokens::Omit, &stops[..0]),
            (SpecialTokens::Include, &stops[..0]),
            (SpecialTokens::Omit, &stops[..]),
        ] {
            let mut stream = TextStream::new(&tokenizer, special, stops.iter().cloned());
            let mut text = String::new();
            for &id in &ids {
                text += &stream.push(id).unwrap();
            }
            text += &stream.finish().unwrap();
            let whole = tokenizer.decode(&ids, special).unwrap();
            prop_assert_eq!(text, cut_at_stop(&whole, stops));
        }
    }

    /// Damaged files are errors, or tokenizers that answer with text or errors; nothing panics.
    #[test]
    fn damaged_files_do_not_panic(
        damage in prop::collection::vec((0usize..100_000, any::<u8>()), 0..4),
        kept in 0usize..40_000,
        cut: bool,
    ) {
        let mut bytes = std::fs::read(golden().join("cambrian_phi3/tokenizer.json")).unwrap();
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(kept);
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_folder(folder.path())
            && let Ok(ids) = tokenizer.encode("What is<|end|> it?", SpecialTokens::Include)
        {
            let _ = tokenizer.decode(&ids, SpecialTokens::Omit);
        }
    }
}
