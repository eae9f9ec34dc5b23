//! Questions with one right answer, made from what is true about a picture.
//!
//! They cover the four groups by which Cambrian-1 (arXiv 2406.16860, section 3.1) sorts benchmarks.
//! A question is asked only where the truth leaves no doubt: things that are named are the only ones
//! that the name fits, and what is compared differs visibly. Answers are balanced where they are
//! drawn: a generator first decides what the answer shall be and then looks for a question that has
//! it, so that a model that does not look gets the chance rate.
//!
//! Every question has a short answer and a full sentence. Which of them a sample shows, and the
//! format prompt that goes with it, is decided in [`crate::conversation`].

mod chart;
mod counting;
mod document;
pub mod refer;
mod scene;
pub(crate) mod spatial;
pub mod wording;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::truth::{ChartKind, Document, Truth};

/// Groups of benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// What is there, and what it looks like.
    General,
    /// What can be answered without looking.
    Knowledge,
    /// Reading text and charts.
    ChartOcr,
    /// Counting, and where things are in the picture and in space.
    VisionCentric,
}

impl Group {
    /// All groups, in the order of tables.
    pub const ALL: [Self; 4] = [
        Self::General,
        Self::Knowledge,
        Self::ChartOcr,
        Self::VisionCentric,
    ];

    /// As it is written in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::Knowledge => "knowledge",
            Self::ChartOcr => "chart_ocr",
            Self::VisionCentric => "vision_centric",
        }
    }
}

/// Kinds of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Is there such a thing? Yes or no.
    Presence,
    /// What colour is it?
    Colour,
    /// What shape is it?
    Shape,
    /// Small or large?
    Size,
    /// Rubber or metal?
    Material,
    /// Is it this colour, is it this shape? Yes or no.
    Check,
    /// How many are there?
    Count,
    /// Left or right, above or below, in the picture.
    Spatial,
    /// Which is closer to the camera?
    Depth,
    /// Which is closer to a third object?
    Distance,
    /// Where is it, in numbers? It teaches what the three before it compare, and is asked in training
    /// alone: nobody should be marked down for a tenth of a picture.
    Place,
    /// What word is it?
    Word,
    /// Is it this word? Yes or no.
    WordCheck,
    /// With which letter does it begin or end?
    Letter,
    /// What does one of the lines say?
    Line,
    /// How many lines are there?
    LineCount,
    /// Which word is on the label of a colour?
    Label,
    /// Which colour has the label with a word?
    LabelColour,
    /// What number is in a cell of a table?
    Cell,
    /// Which row has the largest or smallest number of a column?
    TableExtreme,
    /// What kind of chart is it?
    ChartKind,
    /// What is the title?
    Title,
    /// Which value has a bar?
    BarValue,
    /// Which bar is the highest or lowest?
    BarExtreme,
    /// Is a bar higher than another? Yes or no.
    BarCompare,
    /// What colour is a bar?
    BarColour,
    /// How many bars are there?
    BarCount,
    /// Which value has a point of a line?
    LineValue,
    /// Where is the line highest or lowest?
    LineExtreme,
    /// Does the line go up or down between two neighbours?
    LineTrend,
    /// How large is a slice that has its value written on it?
    PieValue,
    /// Which slice is the largest or smallest?
    PieExtreme,
    /// Is a slice larger than another? Yes or no.
    PieCompare,
    /// What colour is a slice?
    PieColour,
    /// A fact about the things of the world, asked without needing the picture.
    Knowledge,
}

impl Task {
    /// All tasks, in the order of tables.
    pub const ALL: [Self; 35] = [
        Self::Presence,
        Self::Colour,
        Self::Shape,
        Self::Size,
        Self::Material,
        Self::Check,
        Self::Knowledge,
        Self::Word,
        Self::WordCheck,
        Self::Letter,
        Self::Line,
        Self::LineCount,
        Self::Label,
        Self::LabelColour,
        Self::Cell,
        Self::TableExtreme,
        Self::ChartKind,
        Self::Title,
        Self::BarValue,
        Self::BarExtreme,
        Self::BarCompare,
        Self::BarColour,
        Self::BarCount,
        Self::LineValue,
        Self::LineExtreme,
        Self::LineTrend,
        Self::PieValue,
        Self::PieExtreme,
        Self::PieCompare,
        Self::PieColour,
        Self::Count,
        Self::Spatial,
        Self::Depth,
        Self::Distance,
        Self::Place,
    ];

    /// As it is written in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Colour => "colour",
            Self::Shape => "shape",
            Self::Size => "size",
            Self::Material => "material",
            Self::Check => "check",
            Self::Count => "count",
            Self::Spatial => "spatial",
            Self::Depth => "depth",
            Self::Distance => "distance",
            Self::Place => "place",
            Self::Word => "word",
            Self::WordCheck => "word_check",
            Self::Letter => "letter",
            Self::Line => "line",
            Self::LineCount => "line_count",
            Self::Label => "label",
            Self::LabelColour => "label_colour",
            Self::Cell => "cell",
            Self::TableExtreme => "table_extreme",
            Self::ChartKind => "chart_kind",
            Self::Title => "title",
            Self::BarValue => "bar_value",
            Self::BarExtreme => "bar_extreme",
            Self::BarCompare => "bar_compare",
            Self::BarColour => "bar_colour",
            Self::BarCount => "bar_count",
            Self::LineValue => "line_value",
            Self::LineExtreme => "line_extreme",
            Self::LineTrend => "line_trend",
            Self::PieValue => "pie_value",
            Self::PieExtreme => "pie_extreme",
            Self::PieCompare => "pie_compare",
            Self::PieColour => "pie_colour",
            Self::Knowledge => "knowledge",
        }
    }

    /// The group it belongs to.
    pub fn group(self) -> Group {
        match self {
            Self::Presence
            | Self::Colour
            | Self::Shape
            | Self::Size
            | Self::Material
            | Self::Check => Group::General,
            Self::Count | Self::Spatial | Self::Depth | Self::Distance | Self::Place => {
                Group::VisionCentric
            }
            Self::Knowledge => Group::Knowledge,
            _ => Group::ChartOcr,
        }
    }

    /// How many questions of the task make sense about one picture.
    fn most_per_picture(self) -> usize {
        match self {
            Self::Word | Self::LineCount | Self::Title | Self::ChartKind | Self::BarCount => 1,
            Self::WordCheck => 2,
            _ => usize::MAX,
        }
    }

    /// Tasks that a picture of this truth may be asked, and how often each, relative to the others.
    pub fn of(truth: &Truth) -> &'static [(Self, u32)] {
        match truth {
            Truth::Scene(scene) if scene.close_up => &[
                (Self::Presence, 3),
                (Self::Colour, 4),
                (Self::Shape, 3),
                (Self::Material, 2),
                (Self::Check, 2),
            ],
            // Few scenes allow questions about places, hence the larger weights.
            Truth::Scene(_) => &[
                (Self::Presence, 3),
                (Self::Colour, 4),
                (Self::Shape, 4),
                (Self::Size, 3),
                (Self::Material, 4),
                (Self::Check, 3),
                (Self::Count, 4),
                (Self::Spatial, 6),
                (Self::Depth, 6),
                (Self::Distance, 6),
                (Self::Place, 6),
            ],
            Truth::Document(Document::Word { .. }) => {
                &[(Self::Word, 4), (Self::WordCheck, 1), (Self::Letter, 1)]
            }
            Truth::Document(Document::Lines { .. }) => {
                &[(Self::Line, 6), (Self::LineCount, 1), (Self::WordCheck, 1)]
            }
            Truth::Document(Document::Labels { .. }) => &[
                (Self::Label, 3),
                (Self::LabelColour, 2),
                (Self::WordCheck, 1),
            ],
            Truth::Document(Document::Table { .. }) => &[(Self::Cell, 4), (Self::TableExtreme, 1)],
            Truth::Chart(chart) => match chart.kind {
                ChartKind::Bar => &[
                    (Self::BarValue, 6),
                    (Self::BarExtreme, 2),
                    (Self::BarCompare, 1),
                    (Self::BarColour, 1),
                    (Self::BarCount, 1),
                    (Self::Title, 1),
                    (Self::ChartKind, 1),
                ],
                ChartKind::Line => &[
                    (Self::LineValue, 5),
                    (Self::LineExtreme, 2),
                    (Self::LineTrend, 2),
                    (Self::Title, 1),
                    (Self::ChartKind, 1),
                ],
                ChartKind::Pie => &[
                    (Self::PieValue, 3),
                    (Self::PieExtreme, 2),
                    (Self::PieCompare, 1),
                    (Self::PieColour, 2),
                    (Self::Title, 1),
                    (Self::ChartKind, 1),
                ],
            },
        }
    }
}

/// One question about one picture, and its answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Unique within a file; within a picture the task's name.
    pub id: String,
    /// Group of the task.
    pub group: Group,
    /// Kind of question.
    pub task: Task,
    /// The question alone, without a format prompt.
    pub text: String,
    /// Two to four options, one of them the answer, where options make sense.
    pub choices: Option<Vec<String>>,
    /// The answer in a word or a phrase.
    pub answer: String,
    /// The answer as one would say it.
    pub sentence: String,
    /// Share of right answers of somebody who cannot see the picture but knows what answers there
    /// are, all equally likely; 0 where they are too many to count.
    pub chance: f64,
}

impl Question {
    pub(crate) fn new(
        task: Task,
        text: impl Into<String>,
        answer: impl Into<String>,
        sentence: impl Into<String>,
    ) -> Self {
        Self {
            id: task.name().to_owned(),
            group: task.group(),
            task,
            text: text.into(),
            choices: None,
            answer: answer.into(),
            sentence: sentence.into(),
            chance: 0.0,
        }
    }

    /// Sets the chance rate: one of so many answers.
    pub(crate) fn one_of(mut self, answers: usize) -> Self {
        self.chance = 1.0 / answers.max(1) as f64;
        self
    }

    /// Offers options, which must contain the answer.
    pub(crate) fn offering<S: Into<String>>(
        mut self,
        choices: impl IntoIterator<Item = S>,
    ) -> Self {
        self.choices = Some(choices.into_iter().map(Into::into).collect());
        self
    }
}

/// Asks one question of a task, or `None` where this picture has none that is fair.
pub fn ask(task: Task, truth: &Truth, random: &mut ChaCha8Rng) -> Option<Question> {
    match truth {
        Truth::Scene(scene) => match task {
            Task::Count => counting::ask(scene, random),
            Task::Spatial | Task::Depth | Task::Distance | Task::Place => {
                spatial::ask(task, scene, random)
            }
            _ => scene::ask(task, scene, random),
        },
        Truth::Document(document) => document::ask(task, document, random),
        Truth::Chart(chart) => chart::ask(task, chart, random),
    }
}

/// One question of each task that the picture allows and that is fair to score.
pub fn one_of_each(truth: &Truth, random: &mut ChaCha8Rng) -> Vec<Question> {
    Task::of(truth)
        .iter()
        .filter(|(task, _)| *task != Task::Place)
        .filter_map(|&(task, _)| ask(task, truth, random))
        .collect()
}

/// Up to `most` questions, tasks drawn by their weights and no question twice.
pub fn several(truth: &Truth, most: usize, random: &mut ChaCha8Rng) -> Vec<Question> {
    let mut questions: Vec<Question> = Vec::new();
    // Pictures with little to ask would never fill up; a few tries per question are enough for the
    // others.
    for _ in 0..most.saturating_mul(4) {
        if questions.len() == most {
            break;
        }
        let asked = wording::weighted(Task::of(truth), random)
            .and_then(|task| ask(task, truth, random))
            .filter(|new| questions.iter().all(|old| !same_question(old, new)))
            .filter(|new| {
                let of_task = questions.iter().filter(|old| old.task == new.task);
                of_task.count() < new.task.most_per_picture()
            });
        questions.extend(asked);
    }
    questions
}

/// Up to `most` more questions of one task, none of them asked before.
pub(crate) fn more_of(
    task: Task,
    truth: &Truth,
    most: usize,
    asked: &mut Vec<Question>,
    random: &mut ChaCha8Rng,
) {
    let room = asked.len() + most;
    for _ in 0..most.saturating_mul(4) {
        if asked.len() == room {
            break;
        }
        let new = ask(task, truth, random);
        let new = new.filter(|new| asked.iter().all(|old| !same_question(old, new)));
        asked.extend(new);
    }
}

/// Whether two questions are the same, perhaps in other words.
fn same_question(a: &Question, b: &Question) -> bool {
    a.text == b.text || (a.task == b.task && a.sentence == b.sentence)
}

/// The answer among at most `most` of all answers, in random order and each once.
pub(crate) fn options<S: AsRef<str>>(
    answer: &str,
    all: impl IntoIterator<Item = S>,
    most: usize,
    random: &mut ChaCha8Rng,
) -> Vec<String> {
    let mut wrong: Vec<String> = Vec::new();
    for one in all {
        let one = one.as_ref();
        if one != answer && !wrong.iter().any(|known| known == one) {
            wrong.push(one.to_owned());
        }
    }
    wrong.shuffle(random);
    wrong.truncate(most.saturating_sub(1));
    wrong.push(answer.to_owned());
    wrong.shuffle(random);
    wrong
}

#[cfg(test)]
pub(crate) mod tests;
