use super::*;
use crate::recipe::Folders;

/// A map of 4 × 4 cells: a red ball in the upper left quarter, a cube without a colour in one cell
/// of the lower right one, and how far it is to the right.
fn lexicon() -> (Lexicon, Vec<u16>) {
    let text = r#"{"rows": 4, "cols": 4, "ignore": 255, "planes": [
        {"name": "kind", "classes": ["nothing", "ball", "cube"], "background": 0},
        {"name": "colour", "classes": ["red", "blue"], "background": null},
        {"name": "column", "classes": ["0", "1", "2", "3"], "background": null}]}"#;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("labels.json"), text).unwrap();
    let table = LexicalTable {
        labels: Folders::One(folder.path().into()),
        validation_labels: None,
        words: vec!["kind".into(), "colour".into()],
        scales: [("column".to_owned(), ["left".to_owned(), "right".to_owned()])].into(),
        marks: [].into(),
    };
    let description = LabelDescription::read(folder.path()).unwrap();
    let kind = [1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let mut colour = [IGNORE; 16];
    for cell in [0, 1, 4] {
        colour[cell] = 0;
    }
    let column = std::array::from_fn::<u16, 16, _>(|cell| cell as u16 % 4);
    let map = [kind, colour, column].concat();
    (Lexicon::new(description, &table).unwrap(), map)
}

#[test]
fn tokens_are_to_say_what_their_cells_show() {
    let (lexicon, map) = lexicon();
    let words: Vec<&str> = lexicon.entries.iter().map(|e| e.word.as_str()).collect();
    assert_eq!(words, ["ball", "cube", "red", "blue", "left", "right"]);
    let grid = Grid { rows: 2, cols: 2 };
    let wanted = lexicon.wanted(&map, grid, &Region::whole(grid));
    // Columns 0 and 1 of 0 to 3 are at a sixth of the scale.
    let (near, far) = (0.0, 2.0 * (1.0 - 2.0 / 6.0));
    #[rustfmt::skip]
    let by_hand = [
        1.0, 0.0, 1.0, 0.0, far, near,
        0.0, 0.0, 0.0, 0.0, near, far,
        0.0, 0.0, 0.0, 0.0, far, near,
        0.0, 1.0, 0.0, 0.0, near, far,
    ];
    for (found, by_hand) in wanted.iter().zip(by_hand) {
        assert!((found - by_hand).abs() < 1e-6, "{wanted:?}");
    }
    // Of a picture that fills the right half alone, the tokens of that half.
    let region = Region {
        rows: 0..2,
        cols: 1..2,
    };
    assert_eq!(lexicon.wanted(&map, grid, &region).len(), 12);
}

/// One token of four cells, a red and a blue ball; the middle of the blue one is marked.
#[test]
fn a_token_with_a_mark_says_what_the_mark_shows() {
    let text = r#"{"rows": 2, "cols": 2, "ignore": 9, "planes": [
        {"name": "colour", "classes": ["red", "blue"], "background": null},
        {"name": "middle", "classes": ["no", "yes"], "background": 0},
        {"name": "column", "classes": ["0", "1"], "background": null}]}"#;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("labels.json"), text).unwrap();
    let mut table = LexicalTable {
        labels: Folders::One(folder.path().into()),
        validation_labels: None,
        words: vec!["colour".into()],
        scales: [("column".to_owned(), ["left".to_owned(), "right".to_owned()])].into(),
        marks: [("middle".to_owned(), "object".to_owned())].into(),
    };
    let description = LabelDescription::read(folder.path()).unwrap();
    let lexicon = Lexicon::new(description.clone(), &table).unwrap();
    let words: Vec<&str> = lexicon.entries.iter().map(|e| e.word.as_str()).collect();
    assert_eq!(words, ["red", "blue", "left", "right", "object"]);
    let grid = Grid { rows: 1, cols: 1 };
    let says = |middle: [u16; 4]| {
        let map = [[0, 0, 0, 1], middle, [0, 1, 0, 1]].concat();
        lexicon.wanted(&map, grid, &Region::whole(grid))
    };
    assert_eq!(says([0, 0, 0, 1]), [0.0, 1.0, 0.0, 2.0, 1.0]);
    // No mark: all cells count, and their middle is neither left nor right.
    assert_eq!(says([0, 0, 0, 0]), [1.0, 1.0, 0.0, 0.0, 0.0]);
    // A plane that does not say what no mark is.
    table.marks = [("colour".to_owned(), "object".to_owned())].into();
    let error = Lexicon::new(description, &table).unwrap_err().to_string();
    assert!(
        error.contains("`colour`") && error.contains("background"),
        "{error}"
    );
}

#[test]
fn a_word_of_two_planes_is_one_word() {
    let text = r#"{"rows": 1, "cols": 2, "ignore": 9, "planes": [
        {"name": "left half", "classes": ["a", "b"], "background": null},
        {"name": "right half", "classes": ["b", "c"], "background": null}]}"#;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("labels.json"), text).unwrap();
    let table = LexicalTable {
        labels: Folders::One(folder.path().into()),
        validation_labels: None,
        words: vec!["left half".into(), "right half".into()],
        scales: [].into(),
        marks: [].into(),
    };
    let description = LabelDescription::read(folder.path()).unwrap();
    let lexicon = Lexicon::new(description, &table).unwrap();
    let words: Vec<&str> = lexicon.entries.iter().map(|e| e.word.as_str()).collect();
    assert_eq!(words, ["a", "b", "c"]);
    let grid = Grid { rows: 1, cols: 2 };
    let map = [0, 1, 0, IGNORE];
    let wanted = lexicon.wanted(&map, grid, &Region::whole(grid));
    assert_eq!(wanted, [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
}

/// Maps that are not a multiple of the tokens still give every token a cell.
#[test]
fn every_token_has_cells() {
    for (coarse, fine) in [(3, 4), (4, 4), (3, 7), (5, 32)] {
        let spans: Vec<_> = (0..coarse).map(|i| span(i, coarse, fine)).collect();
        assert_eq!(spans.last().map(|last| last.end), Some(fine));
        assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(spans.iter().all(|cells| !cells.is_empty()));
    }
}

fn tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let options = crate::pretrain::tokenizer::TokenizerOptions {
        vocabulary: 400,
        template: "phi3".into(),
        max_length: 64,
    };
    let texts = std::iter::repeat_n("is the ball red or blue\n\"red\" \"ball\" 12", 50);
    crate::pretrain::tokenizer::train_tokenizer(texts, &options, folder.path()).unwrap()
}

/// After a space most tokenizers have another token for a word than at the beginning.
#[test]
fn a_word_has_the_tokens_of_both_places() {
    let tokenizer = tokenizer();
    let texts = |word: &str| {
        let spellings = spellings(&tokenizer, word).unwrap();
        let text = |ids: &Vec<u32>| tokenizer.decode(ids, SpecialTokens::Omit).unwrap();
        spellings.iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(texts("red"), [" red", "red"]);
    assert_eq!(texts("ball"), [" ball", "ball"]);
    // Digits are tokens of their own, and the space before them is another, which is not the number.
    assert_eq!(texts("12"), ["12"]);
    assert!(spellings(&tokenizer, "").is_err());
    assert!(spellings(&tokenizer, " ").is_err());
}

/// The mean of embeddings knows no order.
#[test]
fn numbers_of_the_same_digits_are_one_word() {
    assert_eq!(shares(&[1, 2]), shares(&[2, 1]));
    assert_eq!(shares(&[5]), shares(&[5, 5]));
    assert_eq!(shares(&[7, 7, 4, 4]), shares(&[4, 7]));
    assert_ne!(shares(&[7, 7, 4]), shares(&[4, 7]));

    let tokenizer = tokenizer();
    let description: LabelDescription = serde_json::from_value(serde_json::json!({
        "rows": 1, "cols": 4, "ignore": 255, "planes": [
            {"name": "word", "classes": ["12", "red", "21", "1"], "background": null},
            {"name": "column", "classes": ["0", "1", "2", "3"], "background": null}]
    }))
    .unwrap();
    let table = LexicalTable {
        labels: Folders::One("labels".into()),
        validation_labels: None,
        words: vec!["word".into()],
        // What a scale says more or less is never one with a word that is there or not.
        scales: [("column".to_owned(), ["red".to_owned(), "blue".to_owned()])].into(),
        marks: [].into(),
    };
    let lexicon = Lexicon::new(description, &table).unwrap();
    let (merged, spelled) = lexicon.spelled(&tokenizer).unwrap();
    assert_eq!(spelled.len(), merged.len());
    let words: Vec<&str> = merged.entries.iter().map(|e| e.word.as_str()).collect();
    assert_eq!(words, ["12", "red", "1", "blue"]);
    let grid = Grid { rows: 1, cols: 4 };
    let wanted = merged.wanted(
        &[0, 2, 3, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE],
        grid,
        &Region::whole(grid),
    );
    let twelve: Vec<f32> = wanted.iter().step_by(4).copied().collect();
    assert_eq!(twelve, [1.0, 1.0, 0.0, 0.0]);
}
