//! Works answers out from a question's words and the truth, without the generators.

use opabinia_world::question::{Question, Task};
use opabinia_world::truth::{Chart, ChartKind, Document, Object, Scene, Truth};

/// Whether the answer is right, else what is wrong.
pub fn check(truth: &Truth, question: &Question) -> Result<(), String> {
    let expected = match truth {
        Truth::Scene(scene) => scene_answer(scene, question),
        Truth::Document(document) => document_answer(document, question),
        Truth::Chart(chart) => chart_answer(chart, question),
    }?;
    if expected != question.answer {
        return Err(format!("the answer is `{expected}`"));
    }
    let said = question.sentence.to_lowercase();
    if ["yes", "no"].contains(&question.answer.as_str()) {
        let opening = format!("{},", question.answer);
        return said
            .starts_with(&opening)
            .then_some(())
            .ok_or("sentence says otherwise".into());
    }
    let number = question
        .answer
        .parse()
        .ok()
        .and_then(|n: usize| NUMBERS.get(n));
    let answer = question.answer.to_lowercase();
    let is_said = said.contains(&answer) || number.is_some_and(|word| said.contains(word));
    is_said
        .then_some(())
        .ok_or_else(|| "the sentence does not say the answer".into())
}

const NUMBERS: [&str; 13] = [
    "no ", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
];

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.into()
}

/// Lower-case words without punctuation.
fn words(text: &str) -> Vec<String> {
    let plain = |c: char| c.is_alphanumeric() || c == '-';
    text.split(|c| !plain(c))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

fn has(text: &str, word: &str) -> bool {
    words(text).iter().any(|known| known == word)
}

/// What an object is called: size, colour, material, shape.
fn attributes(object: &Object) -> [&'static str; 4] {
    [
        object.size.name(),
        object.colour.name(),
        object.material.name(),
        object.shape.name(),
    ]
}

const ADJECTIVES: [&str; 12] = [
    "small", "large", "red", "green", "blue", "yellow", "orange", "purple", "cyan", "gray",
    "rubber", "metal",
];
const NOUNS: [&str; 7] = [
    "object", "ball", "cube", "cylinder", "cone", "pyramid", "ring",
];

/// Every noun phrase of a question about a scene, as the words that an object must have.
fn phrases(text: &str) -> Vec<Vec<String>> {
    let text = text.to_lowercase().replace("which object", "which");
    let mut found = Vec::new();
    let mut open: Vec<String> = Vec::new();
    for word in words(&text) {
        let noun = word.strip_suffix('s').unwrap_or(&word).to_owned();
        if ADJECTIVES.contains(&word.as_str()) {
            open.push(word);
        } else if NOUNS.contains(&noun.as_str()) {
            if noun != "object" {
                open.push(noun);
            }
            found.push(std::mem::take(&mut open));
        } else {
            open.clear();
        }
    }
    found
}

fn matching<'a>(scene: &'a Scene, phrase: &[String]) -> Vec<&'a Object> {
    let fits = |object: &&Object| {
        phrase
            .iter()
            .all(|word| attributes(object).contains(&word.as_str()))
    };
    scene.objects.iter().filter(fits).collect()
}

fn the_one<'a>(scene: &'a Scene, phrase: &[String]) -> Result<&'a Object, String> {
    match matching(scene, phrase).as_slice() {
        [only] => Ok(only),
        several => Err(format!("{phrase:?} fits {} objects", several.len())),
    }
}

/// The option among the choices that names this object.
fn option_for(scene: &Scene, question: &Question, object: &Object) -> Result<String, String> {
    let choices = question.choices.as_ref().ok_or("no choices")?;
    for choice in choices {
        let phrase = phrases(choice).pop().ok_or("a choice names nothing")?;
        if std::ptr::eq(the_one(scene, &phrase)?, object) {
            return Ok(choice.clone());
        }
    }
    Err("no choice names the answer".into())
}

fn scene_answer(scene: &Scene, question: &Question) -> Result<String, String> {
    let text = question.text.as_str();
    let phrases = phrases(text);
    let phrase = |index: usize| phrases.get(index).ok_or(format!("{phrases:?} are too few"));
    let one = |index: usize| the_one(scene, phrase(index)?);
    let asks_yes_no = question.choices.is_none();
    Ok(match question.task {
        Task::Presence => yes_no(!matching(scene, phrase(0)?).is_empty()),
        Task::Count => matching(scene, phrase(0)?).len().to_string(),
        Task::Colour => one(0)?.colour.name().into(),
        Task::Shape => one(0)?.shape.name().into(),
        Task::Size => one(0)?.size.name().into(),
        Task::Material => one(0)?.material.name().into(),
        Task::Check => {
            let object = one(0)?;
            let claimed: Vec<String> = match phrases.get(1) {
                Some(shape) => shape.clone(),
                // The last colour of the text is the claim: `Is the small ball red?`
                None => words(text)
                    .into_iter()
                    .rfind(|word| ADJECTIVES.contains(&word.as_str()))
                    .into_iter()
                    .collect(),
            };
            let [claim] = claimed.as_slice() else {
                return Err(format!("claims {claimed:?}"));
            };
            yes_no(attributes(object).contains(&claim.as_str()))
        }
        Task::Spatial => {
            let (a, b) = if text.starts_with("On which side") {
                (one(1)?, one(0)?)
            } else {
                (one(0)?, one(1)?)
            };
            let relations =
                ["left", "right", "above", "below"].map(|word| (word, lies(scene, a, b, word)));
            let asked = relations.iter().filter(|(word, _)| has(text, word));
            let true_ones: Vec<&str> = asked
                .filter(|(_, lies)| *lies)
                .map(|(word, _)| *word)
                .collect();
            if asks_yes_no {
                yes_no(!true_ones.is_empty())
            } else {
                true_ones
                    .first()
                    .ok_or("neither is clearly so")?
                    .to_string()
            }
        }
        Task::Depth => {
            let (a, b) = (one(0)?, one(1)?);
            let (near, far) = if a.depth < b.depth { (a, b) } else { (b, a) };
            if far.depth / near.depth < 1.149 {
                return Err("too close to tell".into());
            }
            let wanted = if asks_far(text) { far } else { near };
            if asks_yes_no {
                yes_no(std::ptr::eq(wanted, a))
            } else {
                option_for(scene, question, wanted)?
            }
        }
        Task::Distance => {
            let (x, a, b) = if text.starts_with("Which") {
                (one(0)?, one(1)?, one(2)?)
            } else {
                (one(2)?, one(0)?, one(1)?)
            };
            let (to_a, to_b) = (metres(x, a), metres(x, b));
            let (near, far) = if to_a < to_b { (a, b) } else { (b, a) };
            if to_a.max(to_b) / to_a.min(to_b) < 1.299 {
                return Err("too close to tell".into());
            }
            option_for(scene, question, if asks_far(text) { far } else { near })?
        }
        Task::Place => {
            let a = one(0)?;
            let tenth = |low: f64, high: f64, side: u32| (low + high) * 5.0 / f64::from(side);
            let across = tenth(a.box2d.left, a.box2d.right, scene.width) as u32;
            let down = tenth(a.box2d.top, a.box2d.bottom, scene.height) as u32;
            let behind = scene.objects.iter().filter(|other| other.depth > a.depth);
            let order = scene.objects.len() - behind.count();
            format!("({}, {}, {order})", across.min(9), down.min(9))
        }
        other => return Err(format!("{other:?} about a scene")),
    })
}

fn asks_far(text: &str) -> bool {
    ["farther", "further", "behind"]
        .iter()
        .any(|word| has(text, word))
}

/// Whether `a` lies there, seen from `b`, by at least 8 % of the picture.
fn lies(scene: &Scene, a: &Object, b: &Object, word: &str) -> bool {
    let x = (a.box2d.left + a.box2d.right - b.box2d.left - b.box2d.right) / 2.0;
    let y = (a.box2d.top + a.box2d.bottom - b.box2d.top - b.box2d.bottom) / 2.0;
    let (x, y) = (x / f64::from(scene.width), y / f64::from(scene.height));
    match word {
        "left" => x <= -0.08,
        "right" => x >= 0.08,
        "above" => y <= -0.08,
        _ => y >= 0.08,
    }
}

fn metres(a: &Object, b: &Object) -> f64 {
    let [x, y, z] = [0, 1, 2].map(|i| a.centre[i] - b.centre[i]);
    (x * x + y * y + z * z).sqrt()
}

/// The text between double quotes.
fn quoted(text: &str) -> Result<&str, String> {
    text.split('"')
        .nth(1)
        .ok_or_else(|| "nothing is quoted".into())
}

fn document_answer(document: &Document, question: &Question) -> Result<String, String> {
    let text = question.text.as_str();
    if question.task == Task::WordCheck {
        let word = quoted(text)?.to_lowercase();
        return Ok(yes_no(
            words(&serde_json::to_string(strings(document).as_slice()).unwrap()).contains(&word),
        ));
    }
    Ok(match (question.task, document) {
        (Task::Word, Document::Word { text }) => text.clone(),
        (Task::Letter, Document::Word { text: word }) => {
            let first = has(text, "first") || has(text, "begin");
            let letters: Vec<char> = word.chars().collect();
            let letter = if first {
                letters.first()
            } else {
                letters.last()
            };
            letter.ok_or("empty")?.to_string()
        }
        (Task::Line, Document::Lines { lines }) => {
            let index = ["first", "second", "third", "fourth"]
                .iter()
                .position(|word| has(text, word));
            lines[index.unwrap_or(lines.len() - 1)].clone()
        }
        (Task::LineCount, Document::Lines { lines }) => lines.len().to_string(),
        (Task::Label, Document::Labels { labels }) => {
            let asked = labels.iter().filter(|(colour, _)| has(text, colour.name()));
            only(asked)?.1.clone()
        }
        (Task::LabelColour, Document::Labels { labels }) => {
            let word = quoted(text)?;
            only(labels.iter().filter(|(_, label)| label == word))?
                .0
                .name()
                .into()
        }
        (Task::Cell, Document::Table { header, rows }) => {
            let column = column(text, header)?;
            let row = only(rows.iter().filter(|(name, _)| named(text, name)))?;
            row.1[column].to_string()
        }
        (Task::TableExtreme, Document::Table { header, rows }) => {
            let column = column(text, header)?;
            let numbers = rows.iter().map(|(_, numbers)| numbers[column]);
            let best = if has(text, "largest") {
                numbers.max()
            } else {
                numbers.min()
            };
            only(
                rows.iter()
                    .filter(|(_, numbers)| Some(numbers[column]) == best),
            )?
            .0
            .clone()
        }
        (task, _) => return Err(format!("{task:?} about {document:?}")),
    })
}

/// Everything that is written in a document.
fn strings(document: &Document) -> Vec<String> {
    match document {
        Document::Word { text } => vec![text.clone()],
        Document::Lines { lines } => lines.clone(),
        Document::Labels { labels } => labels.iter().map(|(_, text)| text.clone()).collect(),
        Document::Table { header, rows } => header
            .iter()
            .chain(rows.iter().map(|(name, _)| name))
            .cloned()
            .collect(),
    }
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Result<T, String> {
    let first = items.next().ok_or("nothing is meant")?;
    match items.next() {
        None => Ok(first),
        Some(_) => Err("several could be meant".into()),
    }
}

/// Whether all words of a name occur in the text.
fn named(text: &str, name: &str) -> bool {
    words(name).iter().all(|word| has(text, word))
}

fn column(text: &str, header: &[String]) -> Result<usize, String> {
    only(
        header
            .iter()
            .skip(1)
            .enumerate()
            .filter(|(_, title)| named(text, title)),
    )
    .map(|(i, _)| i)
}

fn chart_answer(chart: &Chart, question: &Question) -> Result<String, String> {
    let text = question.text.as_str();
    let mut meant: Vec<_> = chart
        .entries
        .iter()
        .filter(|(name, _, _)| named(text, name))
        .collect();
    let place = |name: &str| {
        words(text)
            .iter()
            .position(|word| *word == name.to_lowercase())
    };
    meant.sort_by_key(|(name, _, _)| place(name));
    let value_of = |index: usize| {
        meant
            .get(index)
            .map(|entry| entry.2)
            .ok_or("nothing is meant")
    };
    Ok(match question.task {
        Task::ChartKind => match chart.kind {
            ChartKind::Bar => "bar chart".into(),
            ChartKind::Line => "line chart".into(),
            ChartKind::Pie => "pie chart".into(),
        },
        Task::Title => chart.title.clone(),
        Task::BarCount => chart.entries.len().to_string(),
        Task::PieValue if !chart.written => return Err("nobody can see that".into()),
        Task::BarValue | Task::LineValue | Task::PieValue => only(meant.iter())?.2.to_string(),
        Task::BarColour | Task::PieColour => only(meant.iter())?.1.name().into(),
        Task::BarExtreme | Task::LineExtreme | Task::PieExtreme => {
            let high = ["highest", "largest"].iter().any(|word| has(text, word));
            let values = chart.entries.iter().map(|entry| entry.2);
            let best = if high { values.max() } else { values.min() };
            only(chart.entries.iter().filter(|entry| Some(entry.2) == best))?
                .0
                .clone()
        }
        Task::BarCompare | Task::PieCompare => {
            let (a, b) = (value_of(0)?, value_of(1)?);
            if a == b {
                return Err("both are equal".into());
            }
            yes_no(if has(text, "larger") { a > b } else { a < b })
        }
        Task::LineTrend => {
            let (a, b) = (value_of(0)?, value_of(1)?);
            if a == b {
                return Err("it stays".into());
            }
            if b > a { "up" } else { "down" }.into()
        }
        other => return Err(format!("{other:?} about a chart")),
    })
}
