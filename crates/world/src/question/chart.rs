//! Questions that are answered by reading a chart.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::wording::{capital, number, phrase, yes_no};
use super::{Question, Task, options};
use crate::truth::{Chart, ChartKind, Colour};

/// Least difference of two slices in per cent that can be seen where no value is written.
const SLICE_MARGIN: u32 = 4;
/// Values that an axis can show: both scales have twenty.
const VALUES: usize = 20;

pub(super) fn ask(task: Task, chart: &Chart, random: &mut ChaCha8Rng) -> Option<Question> {
    match (task, chart.kind) {
        (Task::ChartKind, _) => Some(kind(chart, random)),
        (Task::Title, _) => title(chart, random),
        (Task::BarValue, ChartKind::Bar)
        | (Task::LineValue, ChartKind::Line)
        | (Task::PieValue, ChartKind::Pie) => value(task, chart, random),
        (Task::BarExtreme, ChartKind::Bar)
        | (Task::LineExtreme, ChartKind::Line)
        | (Task::PieExtreme, ChartKind::Pie) => extreme(task, chart, random),
        (Task::BarCompare, ChartKind::Bar) | (Task::PieCompare, ChartKind::Pie) => {
            compare(task, chart, random)
        }
        (Task::BarColour, ChartKind::Bar) | (Task::PieColour, ChartKind::Pie) => {
            colour(task, chart, random)
        }
        (Task::BarCount, ChartKind::Bar) => Some(count(chart, random)),
        (Task::LineTrend, ChartKind::Line) => trend(chart, random),
        _ => None,
    }
}

type Entry = (String, Colour, u32);

/// What an entry of the chart is drawn as.
fn mark(chart: &Chart) -> &'static str {
    match chart.kind {
        ChartKind::Bar => "bar",
        ChartKind::Line => "point",
        ChartKind::Pie => "slice",
    }
}

/// Entries whose name no other entry has.
fn named(chart: &Chart) -> Vec<&Entry> {
    let alone = |name: &str| {
        chart
            .entries
            .iter()
            .filter(|(other, _, _)| other == name)
            .count()
            == 1
    };
    chart
        .entries
        .iter()
        .filter(|(name, _, _)| alone(name))
        .collect()
}

/// Whether two values can be told apart by looking.
fn differ(chart: &Chart, a: u32, b: u32) -> bool {
    let margin = match chart.kind {
        ChartKind::Pie if !chart.written => SLICE_MARGIN,
        _ => 1,
    };
    a.abs_diff(b) >= margin
}

fn kind(chart: &Chart, random: &mut ChaCha8Rng) -> Question {
    let templates = [
        "What kind of chart is this?",
        "Which type of chart does the picture show?",
        "What type of chart is it?",
        "Is this a bar chart, a line chart or a pie chart?",
    ];
    let asked = phrase::<&str>(&templates, &[], random);
    let answer = format!("{} chart", chart.kind.name());
    let sentence = format!("This is a {answer}.");
    let all = ChartKind::ALL.map(|kind| format!("{} chart", kind.name()));
    let choices = options(&answer, all, 3, random);
    let question = Question::new(Task::ChartKind, asked, answer, sentence);
    question.one_of(3).offering(choices)
}

fn title(chart: &Chart, random: &mut ChaCha8Rng) -> Option<Question> {
    if chart.title.is_empty() {
        return None;
    }
    let templates = [
        "What is the title of the chart?",
        "What does the title say?",
        "Read the title of the chart.",
        "What is written above the chart?",
    ];
    let asked = phrase::<&str>(&templates, &[], random);
    let sentence = format!("The title of the chart is \"{}\".", chart.title);
    Some(Question::new(
        Task::Title,
        asked,
        chart.title.as_str(),
        sentence,
    ))
}

/// The value of a bar or a point; of a slice only where it is written, since nobody sees 17 %.
fn value(task: Task, chart: &Chart, random: &mut ChaCha8Rng) -> Option<Question> {
    if chart.kind == ChartKind::Pie && !chart.written {
        return None;
    }
    let (name, _, value) = named(chart).choose(random).copied()?;
    let templates: &[&str] = match chart.kind {
        ChartKind::Bar => &[
            "What is the value of {x}?",
            "How high is the bar of {x}?",
            "What value does the bar {x} have?",
            "Read the value of {x} from the chart.",
            "Which number does {x} reach?",
        ],
        ChartKind::Line => &[
            "What is the value at {x}?",
            "Which value does the line have at {x}?",
            "How high is the line at {x}?",
            "Read the value at {x} from the chart.",
        ],
        ChartKind::Pie => &[
            "How many percent does {x} have?",
            "What is the share of {x} in percent?",
            "How large is the slice of {x} in percent?",
            "Which percentage belongs to {x}?",
        ],
    };
    let asked = phrase(templates, &[("x", name.as_str())], random);
    let sentence = match chart.kind {
        ChartKind::Bar => format!("The value of {name} is {value}."),
        ChartKind::Line => format!("The value at {name} is {value}."),
        ChartKind::Pie => format!("The share of {name} is {value} percent."),
    };
    let question = Question::new(task, asked, value.to_string(), sentence).one_of(VALUES);
    let all = chart.entries.iter().map(|(_, _, value)| value.to_string());
    let choices = options(&value.to_string(), all, 4, random);
    Some(if choices.len() > 1 {
        question.offering(choices)
    } else {
        question
    })
}

fn extreme(task: Task, chart: &Chart, random: &mut ChaCha8Rng) -> Option<Question> {
    let largest = random.random_bool(0.5);
    let mut ranked: Vec<&Entry> = chart.entries.iter().collect();
    ranked.sort_by_key(|(_, _, value)| *value);
    if largest {
        ranked.reverse();
    }
    let [best, second, ..] = ranked.as_slice() else {
        return None;
    };
    let name = best.0.as_str();
    let is_named = named(chart).iter().any(|(other, _, _)| other == name);
    if !differ(chart, best.2, second.2) || !is_named {
        return None;
    }
    let (most, templates): (&str, &[&str]) = match chart.kind {
        ChartKind::Bar => (
            if largest { "highest" } else { "lowest" },
            &[
                "Which bar is the {most}?",
                "Which has the {most} value?",
                "What is the name of the {most} bar?",
                "Whose value is the {most}?",
            ],
        ),
        ChartKind::Line => (
            if largest { "highest" } else { "lowest" },
            &[
                "Where is the line {most}?",
                "At which point does the line have its {most} value?",
                "Which point of the line is the {most}?",
                "Where does the line reach its {most} value?",
            ],
        ),
        ChartKind::Pie => (
            if largest { "largest" } else { "smallest" },
            &[
                "Which slice is the {most}?",
                "Which has the {most} share?",
                "What is the name of the {most} slice?",
                "Whose share is the {most}?",
            ],
        ),
    };
    let asked = phrase(templates, &[("most", most)], random);
    let sentence = match chart.kind {
        ChartKind::Line => format!("The line is {most} at {name}."),
        _ => format!("{} has the {most} {}.", capital(name), mark(chart)),
    };
    let names = chart.entries.iter().map(|(name, _, _)| name);
    let choices = options(name, names, 4, random);
    let question = Question::new(task, asked, name, sentence);
    Some(question.one_of(chart.entries.len()).offering(choices))
}

fn compare(task: Task, chart: &Chart, random: &mut ChaCha8Rng) -> Option<Question> {
    let mut entries = named(chart);
    entries.shuffle(random);
    let (a, b) = entries
        .iter()
        .enumerate()
        .flat_map(|(i, a)| entries.iter().skip(i + 1).map(move |b| (*a, *b)))
        .find(|(a, b)| differ(chart, a.2, b.2))?;
    let asked_larger = random.random_bool(0.5);
    let yes = asked_larger == (a.2 > b.2);
    let (more, templates): (&str, &[&str]) = (
        if asked_larger { "larger" } else { "smaller" },
        &[
            "Is {a} {more} than {b}?",
            "Does {a} have a {more} value than {b}?",
            "Is the value of {a} {more} than that of {b}?",
            "In the chart, is {a} {more} than {b}?",
        ],
    );
    let values = [("a", a.0.as_str()), ("b", b.0.as_str()), ("more", more)];
    let asked = phrase(templates, &values, random);
    let truly = if a.2 > b.2 { "larger" } else { "smaller" };
    let sentence = format!("{}, {} is {truly} than {}.", capital(yes_no(yes)), a.0, b.0);
    Some(Question::new(task, asked, yes_no(yes), sentence).one_of(2))
}

fn colour(task: Task, chart: &Chart, random: &mut ChaCha8Rng) -> Option<Question> {
    let (name, colour, _) = named(chart).choose(random).copied()?;
    let colour = colour.name();
    let templates = [
        "What color is the {mark} of {x}?",
        "What colour does {x} have in the chart?",
        "Which color is {x} drawn in?",
        "The {mark} of {x} has which color?",
    ];
    let values = [("x", name.as_str()), ("mark", mark(chart))];
    let asked = phrase(&templates, &values, random);
    let sentence = format!("The {} of {name} is {colour}.", mark(chart));
    let choices = options(colour, Colour::ALL.map(Colour::name), 4, random);
    let question = Question::new(task, asked, colour, sentence);
    Some(question.one_of(Colour::ALL.len()).offering(choices))
}

/// Three to six bars are drawn.
fn count(chart: &Chart, random: &mut ChaCha8Rng) -> Question {
    let templates = [
        "How many bars are there?",
        "How many bars does the chart have?",
        "Count the bars.",
        "What is the number of bars in the chart?",
    ];
    let bars = chart.entries.len();
    let asked = phrase::<&str>(&templates, &[], random);
    let sentence = format!("The chart has {} bars.", number(bars));
    let choices = options(&bars.to_string(), (3..=6).map(|n| n.to_string()), 4, random);
    let question = Question::new(Task::BarCount, asked, bars.to_string(), sentence);
    question.one_of(4).offering(choices)
}

/// Up or down from one point to the next.
fn trend(chart: &Chart, random: &mut ChaCha8Rng) -> Option<Question> {
    let up = random.random_bool(0.5);
    let named = named(chart);
    let is_named = |entry: &Entry| named.iter().any(|(name, _, _)| *name == entry.0);
    let steps: Vec<(&Entry, &Entry)> = chart
        .entries
        .iter()
        .zip(chart.entries.iter().skip(1))
        .filter(|(a, b)| if up { b.2 > a.2 } else { b.2 < a.2 })
        .filter(|(a, b)| is_named(a) && is_named(b))
        .collect();
    let (a, b) = steps.choose(random)?;
    let answer = if up { "up" } else { "down" };
    let mut words = ["up", "down"];
    words.shuffle(random);
    let templates = [
        "Does the line go {p} or {q} from {a} to {b}?",
        "From {a} to {b}, does the line go {p} or {q}?",
        "Between {a} and {b}, does the value go {p} or {q}?",
        "Which way does the line go from {a} to {b}, {p} or {q}?",
    ];
    let values = [
        ("a", a.0.as_str()),
        ("b", b.0.as_str()),
        ("p", words[0]),
        ("q", words[1]),
    ];
    let asked = phrase(&templates, &values, random);
    let sentence = format!("From {} to {} the line goes {answer}.", a.0, b.0);
    let question = Question::new(Task::LineTrend, asked, answer, sentence);
    Some(question.one_of(2).offering(words))
}
