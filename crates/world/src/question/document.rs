//! Questions that are answered by reading: words, lines, labels, tables.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::wording::{capital, list, number, ordinal, phrase, yes_no};
use super::{Question, Task, options};
use crate::truth::{Colour, Document};
use crate::words::WORDS;

pub(super) fn ask(task: Task, document: &Document, random: &mut ChaCha8Rng) -> Option<Question> {
    match (task, document) {
        (Task::Word, Document::Word { text }) => Some(word(text, random)),
        (Task::Letter, Document::Word { text }) => letter(text, random),
        (Task::WordCheck, _) => word_check(document, random),
        (Task::Line, Document::Lines { lines }) => line(lines, random),
        (Task::LineCount, Document::Lines { lines }) => Some(line_count(lines.len(), random)),
        (Task::Label, Document::Labels { labels }) => label(labels, random),
        (Task::LabelColour, Document::Labels { labels }) => label_colour(labels, random),
        (Task::Cell, Document::Table { header, rows }) => cell(header, rows, random),
        (Task::TableExtreme, Document::Table { header, rows }) => {
            table_extreme(header, rows, random)
        }
        _ => None,
    }
}

fn word(text: &str, random: &mut ChaCha8Rng) -> Question {
    let templates = [
        "What word is written in the picture?",
        "Which word do you see?",
        "What does the picture say?",
        "Read the word in the image.",
        "What is written here?",
        "Which word is shown?",
    ];
    let sentences = [
        "The word is \"{x}\".",
        "The picture says \"{x}\".",
        "The word \"{x}\" is written in the picture.",
    ];
    let asked = phrase::<&str>(&templates, &[], random);
    let sentence = phrase(&sentences, &[("x", text)], random);
    Question::new(Task::Word, asked, text, sentence)
}

fn letter(text: &str, random: &mut ChaCha8Rng) -> Option<Question> {
    let first = random.random_bool(0.5);
    let mut letters = text.chars();
    let letter = if first {
        letters.next()
    } else {
        letters.next_back()
    }?
    .to_string();
    let (verb, end) = if first {
        ("begin", "first")
    } else {
        ("end", "last")
    };
    let templates = [
        "What is the {end} letter of the word?",
        "With which letter does the word {verb}?",
        "Which letter comes {end} in the word?",
        "The {end} letter of the word in the picture is what?",
    ];
    let asked = phrase(&templates, &[("end", end), ("verb", verb)], random);
    let sentence = format!("The {end} letter of \"{text}\" is \"{letter}\".");
    Some(Question::new(Task::Letter, asked, letter, sentence).one_of(26))
}

/// All words of a document that are not numbers.
fn words(document: &Document) -> Vec<String> {
    let split = |text: &String| {
        let words = text.split_whitespace().map(str::to_owned);
        words.collect::<Vec<_>>()
    };
    match document {
        Document::Word { text } => split(text),
        Document::Lines { lines } => lines.iter().flat_map(split).collect(),
        Document::Labels { labels } => labels.iter().flat_map(|(_, text)| split(text)).collect(),
        Document::Table { header, rows } => {
            let names = rows.iter().map(|(name, _)| name);
            header.iter().chain(names).flat_map(split).collect()
        }
    }
}

fn word_check(document: &Document, random: &mut ChaCha8Rng) -> Option<Question> {
    let written = words(document);
    let is_written = |word: &str| written.iter().any(|known| known.eq_ignore_ascii_case(word));
    let yes = random.random_bool(0.5);
    let said = if yes {
        written.choose(random)?.clone()
    } else {
        let others: Vec<&str> = WORDS
            .iter()
            .copied()
            .filter(|word| !is_written(word))
            .collect();
        (*others.choose(random)?).to_owned()
    };
    let templates = [
        "Does the picture contain the word \"{x}\"?",
        "Is the word \"{x}\" written in the picture?",
        "Can you read the word \"{x}\" in this image?",
        "Is \"{x}\" written here?",
    ];
    let asked = phrase(&templates, &[("x", said.as_str())], random);
    let sentence = if yes {
        format!("Yes, the word \"{said}\" is in the picture.")
    } else {
        let quoted: Vec<String> = written.iter().map(|word| format!("\"{word}\"")).collect();
        format!("No, the picture says {}.", list(&quoted))
    };
    Some(Question::new(Task::WordCheck, asked, yes_no(yes), sentence).one_of(2))
}

fn line(lines: &[String], random: &mut ChaCha8Rng) -> Option<Question> {
    let index = random.random_range(0..lines.len().max(1));
    let text = lines.get(index)?;
    let is_last = index > 0 && index + 1 == lines.len();
    let which = if is_last && random.random_bool(0.5) {
        "last".to_owned()
    } else {
        ordinal(index)
    };
    let templates = [
        "What does the {n} line say?",
        "Read the {n} line.",
        "What is written in the {n} line?",
        "What is the text of the {n} line?",
        "Which words are in the {n} line of the picture?",
    ];
    let asked = phrase(&templates, &[("n", which.as_str())], random);
    let sentence = format!("The {which} line says \"{text}\".");
    Some(Question::new(Task::Line, asked, text.as_str(), sentence))
}

/// Two to four lines are drawn.
fn line_count(lines: usize, random: &mut ChaCha8Rng) -> Question {
    let templates = [
        "How many lines of text are there?",
        "How many lines does the text have?",
        "Count the lines of text.",
        "How many lines of writing do you see?",
    ];
    let asked = phrase::<&str>(&templates, &[], random);
    let sentence = format!("There are {} lines of text.", number(lines));
    let choices = options(
        &lines.to_string(),
        (2..=4).map(|n| n.to_string()),
        3,
        random,
    );
    let question = Question::new(Task::LineCount, asked, lines.to_string(), sentence);
    question.one_of(3).offering(choices)
}

fn label(labels: &[(Colour, String)], random: &mut ChaCha8Rng) -> Option<Question> {
    let alone = |colour: Colour| labels.iter().filter(|(other, _)| *other == colour).count() == 1;
    let askable: Vec<_> = labels.iter().filter(|(colour, _)| alone(*colour)).collect();
    let (colour, text) = askable.choose(random)?;
    let colour = colour.name();
    let templates = [
        "What word is on the {c} label?",
        "What does the {c} label say?",
        "Read the {c} label.",
        "Which word is written on the {c} label?",
    ];
    let asked = phrase(&templates, &[("c", colour)], random);
    let sentence = format!("The {colour} label says \"{text}\".");
    let choices = options(text, labels.iter().map(|(_, other)| other), 4, random);
    let question = Question::new(Task::Label, asked, text.as_str(), sentence);
    Some(question.offering(choices))
}

fn label_colour(labels: &[(Colour, String)], random: &mut ChaCha8Rng) -> Option<Question> {
    let alone = |text: &String| labels.iter().filter(|(_, other)| other == text).count() == 1;
    let askable: Vec<_> = labels.iter().filter(|(_, text)| alone(text)).collect();
    let (colour, text) = askable.choose(random)?;
    let colour = colour.name();
    let templates = [
        "What color is the label that says \"{x}\"?",
        "What colour is the \"{x}\" label?",
        "Which color does the label \"{x}\" have?",
        "The word \"{x}\" is on a label of which color?",
    ];
    let asked = phrase(&templates, &[("x", text.as_str())], random);
    let sentence = format!("The label that says \"{text}\" is {colour}.");
    let choices = options(colour, Colour::ALL.map(Colour::name), 4, random);
    let question = Question::new(Task::LabelColour, asked, colour, sentence);
    Some(question.one_of(Colour::ALL.len()).offering(choices))
}

/// Names that occur once, with their index.
fn unique<'a>(names: impl Iterator<Item = &'a String> + Clone) -> Vec<(usize, &'a String)> {
    let alone = |name: &String| names.clone().filter(|other| *other == name).count() == 1;
    names
        .clone()
        .enumerate()
        .filter(|(_, name)| alone(name))
        .collect()
}

/// A number of a table stands in the row of a name and under a column's name; numbers are below 100.
fn cell(
    header: &[String],
    rows: &[(String, Vec<u32>)],
    random: &mut ChaCha8Rng,
) -> Option<Question> {
    let &(row, name) = unique(rows.iter().map(|(name, _)| name)).choose(random)?;
    let columns = unique(header.iter().skip(1));
    let &(column, title) = columns.choose(random)?;
    let value = rows.get(row)?.1.get(column)?.to_string();
    let templates = [
        "What is the value of {c} for {r}?",
        "Which number is in row {r} and column {c}?",
        "What does the table say for {r} under {c}?",
        "Read the {c} of {r} from the table.",
        "In the table, what is the {c} of {r}?",
    ];
    let values = [("c", title.as_str()), ("r", name.as_str())];
    let asked = phrase(&templates, &values, random);
    let sentence = format!("The {title} of {name} is {value}.");
    let all = rows
        .iter()
        .flat_map(|(_, numbers)| numbers)
        .map(u32::to_string);
    let choices = options(&value, all, 4, random);
    let question = Question::new(Task::Cell, asked, value, sentence).one_of(100);
    Some(if choices.len() > 1 {
        question.offering(choices)
    } else {
        question
    })
}

fn table_extreme(
    header: &[String],
    rows: &[(String, Vec<u32>)],
    random: &mut ChaCha8Rng,
) -> Option<Question> {
    let largest = random.random_bool(0.5);
    let columns = unique(header.iter().skip(1));
    let &(column, title) = columns.choose(random)?;
    let mut ranked: Vec<(u32, &String)> = Vec::with_capacity(rows.len());
    for (name, numbers) in rows {
        ranked.push((*numbers.get(column)?, name));
    }
    ranked.sort_unstable();
    if largest {
        ranked.reverse();
    }
    let [(best, name), (second, _), ..] = ranked.as_slice() else {
        return None;
    };
    let said_twice = rows.iter().filter(|(other, _)| other == *name).count() > 1;
    if best == second || said_twice {
        return None;
    }
    let most = if largest { "largest" } else { "smallest" };
    let templates = [
        "Which row has the {most} {c}?",
        "Who or what has the {most} {c} in the table?",
        "For which row is {c} the {most}?",
        "In the table, where is {c} {most}?",
    ];
    let asked = phrase(&templates, &[("most", most), ("c", title)], random);
    let sentence = format!("{} has the {most} {title}.", capital(name));
    let choices = options(name, rows.iter().map(|(name, _)| name), 4, random);
    let question = Question::new(Task::TableExtreme, asked, name.as_str(), sentence);
    Some(question.one_of(rows.len()).offering(choices))
}
