//! `world`: pictures with exact ground truth, and questions about them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::{Args, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use opabinia_world::conversation::Forms;
use opabinia_world::make::{self, MakeError, MakeOptions, MakeReport, Mix, Progress, Split};
use opabinia_world::question::{Question, Task, several};
use opabinia_world::stream::stream;
use opabinia_world::truth::Picture;
use opabinia_world::{PictureOptions, SIDES, Subject, caption, draw};
use serde_json::json;

use crate::failure::Failure;
use crate::progress::bar;
use crate::{Outcome, output};

/// The verbs of `world`.
#[derive(Subcommand)]
pub enum World {
    /// Make pictures, captions, conversations and benchmark questions.
    Make(Make),
    /// Show one picture of a world: what is true about it and what can be asked.
    Show(Show),
}

impl World {
    /// Makes or shows.
    pub fn run(self) -> Outcome {
        match self {
            Self::Make(verb) => verb.run(),
            Self::Show(verb) => verb.run(),
        }
    }
}

/// Make pictures, captions, conversations and benchmark questions.
#[derive(Args)]
pub struct Make {
    /// Folder to write; it must be new, empty, or the same world.
    folder: PathBuf,
    /// Pictures to learn from.
    #[arg(long, default_value_t = MakeOptions::default().pictures_train)]
    pictures: usize,
    /// Pictures to be examined with.
    #[arg(long, default_value_t = MakeOptions::default().pictures_test)]
    test: usize,
    /// Samples without a picture; half as many as pictures if not given.
    #[arg(long)]
    texts: Option<usize>,
    /// Same seed, same world.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Side of the pictures in pixels.
    #[arg(long, default_value_t = MakeOptions::default().side)]
    side: u32,
    /// Most objects in a scene; worlds of few things are easier and good to begin with.
    #[arg(long, default_value_t = MakeOptions::default().objects)]
    objects: usize,
    /// Subjects and their weights: scene, close_up, word, lines, labels, table, bar, line, pie.
    #[arg(long, default_value_t = Mix::default())]
    mix: Mix,
    /// Questions per picture in a conversation.
    #[arg(long, default_value_t = MakeOptions::default().turns)]
    turns: usize,
    /// Share of conversations whose questions are answered in sentences.
    #[arg(long, default_value_t = Forms::default().sentences)]
    sentences: f64,
    /// Share of the other conversations whose questions are answered by the letter of an option.
    #[arg(long, default_value_t = Forms::default().letters)]
    letters: f64,
    /// Leave out the truth of the scenes in the formats of COCO, ADE20K and Omni3D.
    #[arg(long)]
    no_annotations: bool,
    /// Write what is in each cell of each picture, too, for dense supervision of encoders.
    #[arg(long)]
    labels: bool,
    /// Threads; all cores if not given. The files are the same for any number.
    #[arg(long)]
    threads: Option<usize>,
    /// Replace another world that is in the folder.
    #[arg(long)]
    force: bool,
    /// Print the content of world.json instead of tables.
    #[arg(long)]
    json: bool,
}

impl Make {
    fn run(self) -> Outcome {
        let options = MakeOptions {
            seed: self.seed,
            pictures_train: self.pictures,
            pictures_test: self.test,
            texts: self.texts.unwrap_or(self.pictures / 2),
            mix: self.mix,
            turns: self.turns,
            forms: Forms {
                sentences: self.sentences,
                letters: self.letters,
            },
            side: self.side,
            objects: self.objects,
            annotations: !self.no_annotations,
            labels: self.labels,
            threads: self.threads,
            force: self.force,
        };
        let shown = Shown::new();
        let report = make::make(&self.folder, &options, &|progress| shown.update(progress));
        shown.finish();
        let report = report.map_err(explained)?;
        if report.already_there {
            output::note(&format!("{}: already there", self.folder.display()));
        } else {
            let speed = report.pictures_per_second();
            output::note(&format!(
                "made in {:.1} s: {speed:.1} pictures/s, {:.1} per thread",
                report.seconds,
                speed / report.threads.max(1) as f64,
            ));
        }
        if self.json {
            output::data(&serde_json::to_string(&report)?);
        } else {
            output::data(&summary(&report));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Says what to do where the error alone does not.
fn explained(error: MakeError) -> Failure {
    let hint = match &error {
        MakeError::OtherWorld { .. } | MakeError::Damaged { .. } => {
            Some("`--force` replaces the world in the folder")
        }
        _ => None,
    };
    match hint {
        Some(hint) => Failure::from(error).hint(hint),
        None => error.into(),
    }
}

/// Files and tasks of a world as tables.
fn summary(report: &MakeReport) -> String {
    let files: Vec<Vec<String>> = report
        .lines
        .iter()
        .map(|(file, lines)| vec![file.clone(), lines.to_string()])
        .collect();
    let pictures = |split, subject: &str| {
        let subjects = report.pictures.get(&split);
        subjects
            .and_then(|all| all.get(subject))
            .copied()
            .unwrap_or(0)
    };
    let subjects: Vec<Vec<String>> = Subject::ALL
        .iter()
        .map(|subject| subject.name())
        .map(|name| {
            (
                name,
                pictures(Split::Train, name),
                pictures(Split::Test, name),
            )
        })
        .filter(|(_, train, test)| train + test > 0)
        .map(|(name, train, test)| vec![name.to_owned(), train.to_string(), test.to_string()])
        .collect();
    let tasks: Vec<Vec<String>> = Task::ALL
        .iter()
        .filter_map(|task| report.questions.get_key_value(task))
        .map(|(task, count)| {
            vec![
                task.group().name().to_owned(),
                task.name().to_owned(),
                count.train.to_string(),
                count.test.to_string(),
                percent(count.chance),
                percent(count.majority),
            ]
        })
        .collect();
    [
        output::table(&["file", "lines"], &files),
        output::table(&["pictures of", "train", "test"], &subjects),
        output::table(
            &["group", "task", "train", "test", "chance", "majority"],
            &tasks,
        ),
    ]
    .join("\n\n")
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Progress: a bar on a terminal, a line for every tenth of a long run elsewhere.
struct Shown {
    bar: Option<ProgressBar>,
    tenths: AtomicUsize,
}

/// Fewer pictures are over before a line could be read.
const WORTH_A_LINE: usize = 1000;

impl Shown {
    fn new() -> Self {
        let bar = bar("{bar:24} {pos}/{len} pictures  {per_sec}  {eta} left");
        Self {
            bar,
            tenths: AtomicUsize::new(0),
        }
    }

    fn update(&self, progress: Progress) {
        let Progress { done, total } = progress;
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.inc(1);
            return;
        }
        let tenth = 10 * done / total.max(1);
        if total >= WORTH_A_LINE && self.tenths.fetch_max(tenth, Ordering::Relaxed) < tenth {
            output::note(&format!("{done}/{total} pictures"));
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Show one picture of a world: what is true about it and what can be asked.
#[derive(Args)]
pub struct Show {
    /// Folder of a world; without one a picture is drawn from `--seed` and `--subject`.
    folder: Option<PathBuf>,
    /// Number of a picture of the world; without it the world is summarized.
    #[arg(long, requires = "folder")]
    picture: Option<usize>,
    /// Which pictures of the world.
    #[arg(long, value_enum, default_value_t = SplitArg::Train, requires = "picture")]
    split: SplitArg,
    /// Seed of a picture.
    #[arg(long, conflicts_with = "folder", default_value_t = 0)]
    seed: u64,
    /// What it shows: scene, close_up, word, lines, labels, table, bar, line, pie.
    #[arg(long, conflicts_with = "folder", default_value = "scene", value_parser = make::subject)]
    subject: Subject,
    /// Its side in pixels.
    #[arg(
        long, conflicts_with = "folder", default_value_t = PictureOptions::default().side,
        value_parser = clap::value_parser!(u32).range(i64::from(*SIDES.start())..=i64::from(*SIDES.end())),
    )]
    side: u32,
    /// Questions to ask at most.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    turns: u8,
    /// File to write the picture to (PNG).
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// See [`Split`].
#[derive(Clone, Copy, ValueEnum)]
enum SplitArg {
    Train,
    Test,
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Self {
        match split {
            SplitArg::Train => Self::Train,
            SplitArg::Test => Self::Test,
        }
    }
}

impl Show {
    fn run(self) -> Outcome {
        let (subject, picture) = match (&self.folder, self.picture) {
            (None, _) => {
                let options = PictureOptions {
                    side: self.side,
                    ..PictureOptions::default()
                };
                (self.subject, draw(self.seed, self.subject, &options))
            }
            (Some(folder), Some(index)) => {
                let world = make::read(folder)?;
                if !world.is_of_this_version() {
                    return Err(Failure::new(format!(
                        "{} was made by another version of this program, which draws other pictures",
                        folder.display()
                    ))
                    .hint("`world make` with `--force` makes it anew"));
                }
                make::picture(&world, self.split.into(), index).ok_or_else(|| {
                    let count = world.options.pictures(self.split.into());
                    Failure::new(format!("the world has no picture {index}"))
                        .hint(format!("this split has {count}, counted from 0"))
                })?
            }
            (Some(folder), None) => {
                let world = make::read(folder)?;
                output::data(&match self.json {
                    true => serde_json::to_string(&world)?,
                    false => summary(&world),
                });
                return Ok(ExitCode::SUCCESS);
            }
        };
        if let Some(path) = &self.out {
            picture.pixels.save_png(path)?;
        }
        self.print(subject, &picture)?;
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, subject: Subject, picture: &Picture) -> Result<(), serde_json::Error> {
        let random = &mut stream(picture.seed, "show", 0);
        let said = caption::caption(&picture.truth, random);
        let questions = several(&picture.truth, self.turns.into(), random);
        if self.json {
            let shown = json!({
                "subject": subject.name(), "seed": picture.seed, "truth": picture.truth,
                "caption": said, "questions": questions,
            });
            output::data(&shown.to_string());
            return Ok(());
        }
        output::data(&format!("{} of seed {}", subject.name(), picture.seed));
        output::data(&serde_json::to_string_pretty(&picture.truth)?);
        output::data(&format!("\n{said}"));
        for question in &questions {
            output::data(&format!("\n{}", shown_question(question)));
        }
        Ok(())
    }
}

/// A question with both of its answers.
fn shown_question(question: &Question) -> String {
    let Question {
        task,
        text,
        answer,
        sentence,
        ..
    } = question;
    let choices = question
        .choices
        .as_ref()
        .map_or_else(String::new, |choices| {
            format!("\n  choices: {}", choices.join(", "))
        });
    let name = task.name();
    format!("[{name}] {text}{choices}\n  short: {answer}\n  sentence: {sentence}")
}
