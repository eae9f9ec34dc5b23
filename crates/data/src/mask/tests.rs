use super::*;
use crate::error::Place;

fn turns(texts: &[&str]) -> Vec<Turn> {
    let turn = |(i, text): (usize, &&str)| Turn {
        role: if i % 2 == 0 {
            Role::User
        } else {
            Role::Assistant
        },
        text: (*text).to_owned(),
    };
    texts.iter().enumerate().map(turn).collect()
}

fn kept(texts: &[&str]) -> (Vec<String>, usize) {
    let (turns, left_out) = answered(&turns(texts));
    let text = |turn: opabinia_llm::Turn| turn.text.unwrap();
    (turns.into_iter().map(text).collect(), left_out)
}

fn own(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn exchanges_without_question_or_answer_are_left_out() {
    assert_eq!(kept(&["a", "b", "c", "d"]), (own(&["a", "b", "c", "d"]), 0));
    assert_eq!(kept(&["a", " ", "c", "d"]), (own(&["c", "d"]), 1));
    assert_eq!(kept(&["a", "b", "", "d"]), (own(&["a", "b"]), 1));
    assert_eq!(kept(&["a", "b", "c"]), (own(&["a", "b"]), 1));
    assert_eq!(kept(&["a", ""]), (vec![], 1));
}

#[test]
fn a_picture_moves_on_with_the_conversation() {
    let texts = ["<image>\na", "", "c", "d", "e", "f"];
    assert_eq!(kept(&texts), (own(&["<image>\nc", "d", "e", "f"]), 1));
}

/// The same spans as by tokens: answers with their end markers, and nothing else.
#[test]
fn without_a_tokenizer_the_mask_is_by_characters() {
    let line = br#"{"image": "a.png", "conversations": [{"from": "human", "value": "How many?\n<image>"},
        {"from": "gpt", "value": "Three"}, {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So"}]}"#;
    let sample =
        |line: &[u8]| Sample::parse(line, Place::new(std::path::Path::new("s.jsonl"), 1)).unwrap();
    let template = ChatTemplate::by_name("vicuna_v1").unwrap();
    let runs = written(template, &sample(line)).unwrap();
    let trained: Vec<&str> = runs
        .iter()
        .filter(|run| run.trained)
        .map(|run| run.text.trim_start())
        .collect();
    assert_eq!(trained, ["Three</s>", "So</s>"]);
    let whole: String = runs.iter().map(|run| run.text.as_str()).collect();
    assert!(
        whole.contains("USER: <image>\nHow many? ASSISTANT:"),
        "{whole}"
    );
    let open =
        br#"{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": " "}]}"#;
    let nothing = written(template, &sample(open));
    assert!(matches!(nothing, Err(SampleError::NoTrainableToken { .. })));
}

fn tokenized() -> Tokenized {
    use PromptToken::{Image, Text};
    Tokenized {
        tokens: vec![Text(1), Image, Text(5), Text(6), Text(7)],
        trained: vec![false, false, false, true, true],
        ..Tokenized::default()
    }
}

#[test]
fn swallowed_white_space_does_not_count() {
    assert_eq!(end_without_space("a<|end|>\n<", &(1..9)), 8);
    assert_eq!(end_without_space("a \n", &(1..3)), 3);
    assert_eq!(end_without_space("ab", &(1..1)), 1);
}

#[test]
fn ids_and_labels_are_written_as_the_reference_does() {
    assert_eq!(tokenized().ids(), [1, -200, 5, 6, 7]);
    assert_eq!(tokenized().labels(), [-100, -100, -100, 6, 7]);
    assert_eq!(tokenized().trained_tokens(), 2);
    assert_eq!(tokenized().runs(), [(false, 0..3), (true, 3..5)]);
}

/// Four tokens and a picture of ten: 14 positions.
#[test]
fn only_what_does_not_fit_is_cut() {
    assert_eq!(tokenized().positions(10), 14);
    for (max_length, kept) in [(14, 5), (13, 4), (11, 2), (10, 1), (1, 1), (0, 0)] {
        let mut cut = tokenized();
        cut.truncate(max_length, 10);
        assert_eq!(
            (cut.tokens.len(), cut.cut),
            (kept, 5 - kept),
            "{max_length}"
        );
    }
}
