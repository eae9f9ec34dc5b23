//! `cvbench`: questions out of annotations, their review by people, and their score.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use opabinia_cvbench::review::{Decisions, Review, serve};
use opabinia_cvbench::score::{ScoreOptions, Scores, read_answers, read_run, score};
use opabinia_cvbench::source::{Family, Part, SourceSpec};
use opabinia_cvbench::{
    CvBenchError, DECISIONS, Published, Report, Rules, Spread, build, revise, summarise,
};
use opabinia_eval::EvalError;
use opabinia_eval::benchmark::PictureStore;

use crate::args::ProtocolArg;
use crate::failure::Failure;
use crate::progress::Stages;
use crate::{Outcome, output};

/// Faults that are shown; the report lists all.
const FAULTS_SHOWN: usize = 5;

/// The verbs of `cvbench`.
#[derive(Subcommand)]
pub enum Cvbench {
    /// Make questions out of annotations: COCO instances, ADE20K, Omni3D, or a small world.
    Build(Build),
    /// Show how the questions of a CV-Bench are spread; the published one or one that was built.
    Show(Show),
    /// Review questions on a page on this machine, with the keyboard: accept, reject, mend, undo.
    Review(ReviewVerb),
    /// Write a CV-Bench without what was rejected and in the words it was mended to.
    Revise(Revise),
    /// Score answers by the formula of the paper.
    Score(Score),
}

impl Cvbench {
    /// Builds, shows or scores.
    pub fn run(self) -> Outcome {
        match self {
            Self::Build(verb) => verb.run(),
            Self::Show(verb) => verb.run(),
            Self::Review(verb) => verb.run(),
            Self::Revise(verb) => verb.run(),
            Self::Score(verb) => verb.run(),
        }
    }
}

/// Make questions out of annotations.
#[derive(Args)]
pub struct Build {
    /// Folder to write: Parquet and JSONL in the layout of the published CV-Bench, pictures with boxes,
    /// the rules, and a report of what became of every candidate.
    out: PathBuf,
    /// A small world (`opabinia world make`): its annotations in all three formats. COCO and ADE20K
    /// then take turns, so that no picture is in both.
    #[arg(long, value_name = "DIR")]
    world: Option<PathBuf>,
    /// Which pictures of the world.
    #[arg(long, default_value = "test", requires = "world", value_name = "SPLIT")]
    split: String,
    /// COCO instances, such as instances_val2017.json.
    #[arg(long, value_name = "FILE", requires = "coco_pictures")]
    coco: Option<PathBuf>,
    /// The folder of their pictures, such as val2017.
    #[arg(long, value_name = "DIR")]
    coco_pictures: Option<PathBuf>,
    /// ADE20K, the full release: a folder that is searched for JSON files with pictures beside them.
    #[arg(long, value_name = "DIR")]
    ade20k: Option<PathBuf>,
    /// Omni3D annotations, one file for each data set, such as SUNRGBD_test.json.
    #[arg(long, value_name = "FILE", requires = "omni3d_pictures")]
    omni3d: Vec<PathBuf>,
    /// The folder that Omni3D's names of pictures are relative to.
    #[arg(long, value_name = "DIR")]
    omni3d_pictures: Option<PathBuf>,
    /// Rules (TOML): targets, filters, offsets, balance; what they do not name has its default.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Same files, rules and seed, same questions; overrides the rules.
    #[arg(long)]
    seed: Option<u64>,
    /// Replace a CV-Bench that is in the folder.
    #[arg(long)]
    force: bool,
    /// Print the report as JSON instead of tables.
    #[arg(long)]
    json: bool,
}

impl Build {
    fn run(self) -> Outcome {
        let mut rules = match &self.rules {
            Some(path) => Rules::read(path)?,
            None => Rules::default(),
        };
        rules.seed = self.seed.unwrap_or(rules.seed);
        if let Some(world) = &self.world {
            let annotations = world.join(&self.split).join("annotations");
            if !annotations.is_dir() {
                return Err(
                    Failure::new(format!("there is no folder {}", annotations.display()))
                        .hint("`opabinia world make` writes it unless told `--no-annotations`"),
                );
            }
        }
        let shown = Stages::new();
        let built = build(
            &self.sources(),
            &rules,
            &self.out,
            self.force,
            &mut |progress| {
                shown.update(progress.what, progress.done as u64, progress.total as u64);
            },
        );
        shown.finish();
        let built = built.map_err(explained)?;
        let report = &built.report;
        for fault in report.faults.iter().take(FAULTS_SHOWN) {
            output::note(&format!(
                "{}: {}: {}",
                fault.file, fault.entry, fault.problem
            ));
        }
        if report.faults.len() > FAULTS_SHOWN {
            let more = report.faults.len() - FAULTS_SHOWN;
            output::note(&format!("… and {more} more faults, all in report.json"));
        }
        output::data(&match self.json {
            true => serde_json::to_string(report)?,
            false => [fates(report), spread(&report.questions)].join("\n\n"),
        });
        Ok(ExitCode::SUCCESS)
    }

    fn sources(&self) -> Vec<SourceSpec> {
        let spec = |family, annotations: PathBuf, pictures: &Option<PathBuf>| SourceSpec {
            family,
            annotations,
            pictures: pictures.clone(),
            collection: None,
            part: Part::All,
        };
        let mut sources = Vec::new();
        if let Some(world) = &self.world {
            sources.extend(of_world(&world.join(&self.split)));
        }
        let coco = self.coco.iter();
        sources.extend(coco.map(|path| spec(Family::Coco, path.clone(), &self.coco_pictures)));
        let ade20k = self.ade20k.iter();
        sources.extend(ade20k.map(|path| spec(Family::Ade20k, path.clone(), &None)));
        let omni3d = self.omni3d.iter();
        sources
            .extend(omni3d.map(|path| spec(Family::Omni3D, path.clone(), &self.omni3d_pictures)));
        sources
    }
}

/// The annotations of a split of a small world.
fn of_world(root: &std::path::Path) -> Vec<SourceSpec> {
    let spec = |family: Family, annotations: &str, part| SourceSpec {
        family,
        annotations: root.join("annotations").join(annotations),
        pictures: Some(root.to_owned()),
        collection: Some(format!("{}_World", family.name())),
        part,
    };
    vec![
        spec(Family::Coco, "coco.json", Part::Odd),
        spec(Family::Ade20k, "ade20k", Part::Even),
        spec(Family::Omni3D, "omni3d.json", Part::All),
    ]
}

/// Says what to do where the error alone does not.
fn explained(error: CvBenchError) -> Failure {
    let hint = match &error {
        CvBenchError::Exists { .. } => "`--force` replaces it",
        CvBenchError::Reviewed { .. } => {
            "write to another folder, or move `review.sqlite` away and name it with `--decisions`"
        }
        CvBenchError::NoSources => {
            "name some: `--world`, `--coco`, `--ade20k`, `--omni3d`; see `opabinia cvbench build --help`"
        }
        CvBenchError::NoQuestions { .. } => {
            "the filters dropped all; `--rules` names a file with others, see docs/cvbench.md"
        }
        CvBenchError::NotPublished { .. } => {
            "a CV-Bench is made by `opabinia cvbench build`, or fetched from nyu-visionx/CV-Bench"
        }
        CvBenchError::OtherQuestions { .. } => "`--decisions FILE` names another database",
        CvBenchError::Run(EvalError::Unfinished { .. }) => "`--partial` scores what is there",
        CvBenchError::Unanswered { .. } => "`--partial` scores the questions that have one",
        CvBenchError::Answer { problem, .. } if problem.contains("give the questions") => {
            "`--questions FOLDER` says what is right"
        }
        CvBenchError::Scores(_) => {
            "`--questions FOLDER` says which task and source a question is of"
        }
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

/// What became of the candidates.
fn fates(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .candidates
        .iter()
        .flat_map(|row| {
            row.fates.iter().map(|(fate, count)| {
                vec![
                    row.task.name().to_owned(),
                    row.source_dataset.clone(),
                    fate.name().to_owned(),
                    count.to_string(),
                ]
            })
        })
        .collect();
    output::table(&["task", "data set", "candidates", "number"], &rows)
}

/// How questions are spread.
fn spread(spread: &Spread) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut rows: Vec<Vec<String>> = spread
        .cells
        .iter()
        .map(|cell| {
            let letters = cell.letters.iter();
            let letters: Vec<String> = letters
                .map(|(letter, count)| format!("{} {count}", letter.trim_matches(['(', ')'])))
                .collect();
            vec![
                cell.task.name().to_owned(),
                cell.source.clone(),
                cell.source_dataset.clone(),
                cell.questions.to_string(),
                percent(cell.chance),
                percent(cell.majority),
                letters.join(", "),
            ]
        })
        .collect();
    let total = ["all", "", "", &spread.questions.to_string(), "", "", ""];
    rows.push(total.map(str::to_owned).to_vec());
    let header = [
        "task",
        "source",
        "data set",
        "questions",
        "chance",
        "majority",
        "right letters",
    ];
    output::table(&header, &rows)
}

/// Show how the questions of a CV-Bench are spread.
#[derive(Args)]
pub struct Show {
    /// Its folder, or one of its files.
    questions: PathBuf,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

impl Show {
    fn run(self) -> Outcome {
        let published = Published::read(&self.questions).map_err(explained)?;
        let found = summarise(&published.questions);
        output::data(&match self.json {
            true => serde_json::to_string(&found)?,
            false => spread(&found),
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// Where the questions and the decisions about them are.
#[derive(Args)]
struct Reviewed {
    /// The folder of a CV-Bench: one that was built, or the published one.
    questions: PathBuf,
    /// The database of decisions (SQLite); `review.sqlite` in the folder if not given.
    #[arg(long, value_name = "FILE")]
    decisions: Option<PathBuf>,
}

impl Reviewed {
    /// The questions with their pictures, and the decisions. Pictures that are inside Parquet files are
    /// unpacked beside the decisions.
    ///
    /// A review makes its database; what reads decisions must not take a wrong name for an empty one.
    fn open(&self, make: bool) -> Result<(Published, Decisions), Failure> {
        let mut questions = Published::read(&self.questions).map_err(explained)?;
        let path = match &self.decisions {
            Some(path) => path.clone(),
            None => questions.root().join(DECISIONS),
        };
        if !make && !path.is_file() {
            return Err(
                Failure::new(format!("there are no decisions in {}", path.display()))
                    .hint("`opabinia cvbench review` makes them; `--decisions FILE` names others"),
            );
        }
        let mut store = PictureStore::Folder(path.with_extension("pictures"));
        questions.store_pictures(&mut store)?;
        let decisions = Decisions::open(&path, &questions).map_err(explained)?;
        Ok((questions, decisions))
    }
}

/// Review questions on a page on this machine.
#[derive(Args)]
pub struct ReviewVerb {
    #[command(flatten)]
    reviewed: Reviewed,
    /// Who decides; kept with every decision.
    #[arg(long, env = "USER", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reviewer: String,
    /// Port of the page; 0 for any that is free. The page's address is printed.
    #[arg(long, default_value_t = 8750)]
    port: u16,
    /// Write all decisions (JSONL), undone ones too, and serve no page; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
}

impl ReviewVerb {
    fn run(self) -> Outcome {
        let (questions, decisions) = self.reviewed.open(self.export.is_none())?;
        if let Some(path) = &self.export {
            let mut lines = Vec::new();
            decisions.export(&mut lines)?;
            match path.to_str() {
                Some("-") => output::piece(&String::from_utf8_lossy(&lines)),
                _ => std::fs::write(path, lines).map_err(|error| {
                    Failure::new(format!("cannot write {}: {error}", path.display()))
                })?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        let review = Review {
            questions,
            decisions,
            reviewer: self.reviewer,
        };
        serve(review, self.port, &mut |address| {
            output::data(&format!("http://{address}/"));
            output::note("every decision is saved at once; Ctrl-C ends the page");
        })
        .map_err(|error| Failure::from(error).hint("`--port 0` takes any port that is free"))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Write a CV-Bench as the review left it.
#[derive(Args)]
pub struct Revise {
    #[command(flatten)]
    reviewed: Reviewed,
    /// Folder to write.
    out: PathBuf,
    /// Leave out what nobody has decided on, too.
    #[arg(long)]
    decided_only: bool,
    /// Replace a CV-Bench that is in the folder.
    #[arg(long)]
    force: bool,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

impl Revise {
    fn run(self) -> Outcome {
        let (questions, decisions) = self.reviewed.open(false)?;
        let revised = revise(
            &questions,
            &decisions,
            self.decided_only,
            &self.out,
            self.force,
        );
        let revised = revised.map_err(explained)?;
        if self.json {
            output::data(&serde_json::to_string(&revised)?);
            return Ok(ExitCode::SUCCESS);
        }
        let counts = revised.counts;
        output::note(&format!(
            "of {} questions {} were accepted, {} mended, {} rejected, {} are undecided",
            counts.questions, counts.accepted, counts.mended, counts.rejected, counts.undecided
        ));
        output::data(&spread(&revised.questions));
        Ok(ExitCode::SUCCESS)
    }
}

/// Score answers by the formula of the paper.
#[derive(Args)]
pub struct Score {
    /// Answers (JSONL): per line the question (`idx`, `id` or `question_id`) and a `score`, or an
    /// `answer` that is judged here; or the folder of a run of `eval`.
    answers: PathBuf,
    /// The CV-Bench that was asked: says what is right, of which task and source each question is, and
    /// that all have an answer.
    #[arg(long, value_name = "FOLDER")]
    questions: Option<PathBuf>,
    /// How answers are judged: as common harnesses do, or as the reference's script does. Without it
    /// answers are judged by the run's protocol, or the standard one, and scores that cannot be judged
    /// anew are taken as they stand.
    #[arg(long, value_enum)]
    protocol: Option<ProtocolArg>,
    /// Score what is there, although some questions have no answer, or the run is not finished.
    #[arg(long)]
    partial: bool,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

impl Score {
    fn run(self) -> Outcome {
        let options = ScoreOptions {
            protocol: self.protocol.map(Into::into),
            partial: self.partial,
        };
        let questions = self.questions.as_deref().map(Published::read).transpose();
        let questions = questions.map_err(explained)?;
        let questions = questions.as_ref().map(|published| &published.questions[..]);
        let answers = match self.answers.is_dir() {
            true => read_run(&self.answers, questions, options),
            false => read_answers(&self.answers, questions, options),
        };
        let answers = answers.map_err(explained)?;
        let scores = score(&answers, questions, options).map_err(explained)?;
        if self.json {
            output::data(&serde_json::to_string(&scores)?);
            return Ok(ExitCode::SUCCESS);
        }
        let tables: Vec<String> = scores.iter().map(figures).collect();
        output::data(&tables.join("\n\n"));
        Ok(ExitCode::SUCCESS)
    }
}

/// The figures of one way of showing the pictures.
fn figures(scores: &Scores) -> String {
    let rows: Vec<Vec<String>> = scores
        .figures
        .iter()
        .map(|figure| {
            let chance = figure
                .chance
                .map_or("–".to_owned(), |chance| format!("{chance:.1}"));
            vec![
                figure.name.clone(),
                format!("{:.1}", figure.value),
                format!("{:.1}–{:.1}", figure.low, figure.high),
                chance,
                figure.questions.to_string(),
            ]
        })
        .collect();
    let table = output::table(&["figure", "score", "95 %", "chance", "questions"], &rows);
    let Scores {
        vision,
        answers,
        unanswered,
        failed,
        unparsed,
        as_given,
        protocols,
        ..
    } = scores;
    let given = match as_given {
        0 => String::new(),
        count => format!(", {count} scores taken as they stand"),
    };
    format!(
        "vision {vision}, protocol {}: {answers} answers{given}, {unparsed} unparsed, {failed} could not \
         be asked, {unanswered} left out for want of an answer\n{table}",
        protocols.join(" and ")
    )
}
