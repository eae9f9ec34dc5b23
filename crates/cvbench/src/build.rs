//! From annotations to a folder of questions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use opabinia_eval::in_full;
use opabinia_image::{ImageLimits, ImageSource, RgbImage, load};
use rayon::prelude::*;

use crate::candidate::pool;
use crate::compose::{Composed, Composer};
use crate::draw::mark;
use crate::error::CvBenchError;
use crate::progress::Progress;
use crate::question::{Question, Task};
use crate::report::{Candidates, Report, summarise};
use crate::rules::Rules;
use crate::select::{Choice, Fate, choose};
use crate::source::{Annotated, Corpus, Fault, SourceSpec};
use crate::write::{PARTS, REPORT, Target, write_file, write_part};

/// What was built.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// The questions, in the order of their numbers.
    pub questions: Vec<Question>,
    /// What became of everything.
    pub report: Report,
}

/// Builds a CV-Bench into a folder. One that is there is replaced only if `replace`, and only if it is
/// a CV-Bench.
///
/// # Errors
/// If the rules cannot be worked with, annotations or pictures cannot be read, nothing can be asked, or
/// the folder cannot be written.
pub fn build(
    sources: &[SourceSpec],
    rules: &Rules,
    out: &Path,
    replace: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Built, CvBenchError> {
    rules.check()?;
    if sources.is_empty() {
        return Err(CvBenchError::NoSources);
    }
    let target = Target::begin(out, replace)?;
    let total = sources.len();
    let corpus = Corpus::read(sources, &rules.omni3d, &mut |done| {
        progress(Progress {
            what: "sources",
            done,
            total,
        });
    })?;
    let drawn = draw_questions(corpus, rules, progress)?;
    write(&target, &drawn, rules, progress)?;
    target.finish()?;
    let questions = drawn.composed.into_iter();
    Ok(Built {
        questions: questions.map(|composed| composed.question).collect(),
        report: drawn.report,
    })
}

/// The questions before their pictures are drawn.
struct Drawn {
    pictures: Vec<Annotated>,
    composed: Vec<Composed>,
    report: Report,
}

/// Chooses until every picture of the choice is good.
fn draw_questions(
    corpus: Corpus,
    rules: &Rules,
    progress: &mut dyn FnMut(Progress),
) -> Result<Drawn, CvBenchError> {
    let Corpus {
        pictures,
        mut faults,
        read,
        files,
    } = corpus;
    let (mut good, mut bad) = (BTreeSet::new(), BTreeSet::new());
    let choices = loop {
        let choices = choices(&pictures, &bad, rules);
        let wanted = choices.iter().flat_map(|(_, choice)| &choice.chosen);
        let wanted: BTreeSet<usize> = wanted.map(|chosen| chosen.picture).collect();
        let new: Vec<usize> = wanted.difference(&good).copied().collect();
        let found = check(&pictures, &new, progress);
        if found.is_empty() {
            break choices;
        }
        good.extend(new);
        for (index, fault) in found {
            good.remove(&index);
            bad.insert(index);
            faults.push(fault);
        }
    };
    let composed = compose(&choices, &pictures, rules);
    let rows = candidates(&choices);
    if composed.is_empty() {
        return Err(CvBenchError::NoQuestions {
            candidates: rows.iter().map(|row| row.candidates).sum(),
        });
    }
    let questions: Vec<Question> = composed.iter().map(|one| one.question.clone()).collect();
    let report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        seed: rules.seed,
        files,
        read,
        candidates: rows,
        questions: summarise(&questions),
        unusable_pictures: bad.len(),
        faults,
    };
    Ok(Drawn {
        pictures,
        composed,
        report,
    })
}

fn choices(
    pictures: &[Annotated],
    excluded: &BTreeSet<usize>,
    rules: &Rules,
) -> Vec<(Task, Choice)> {
    let choice = |task| {
        let pool = pool(task, pictures, excluded, rules);
        (task, choose(task, pool, pictures, rules))
    };
    Task::ALL.into_iter().map(choice).collect()
}

/// Pictures that are decoded between two reports of progress.
const CHECKED: usize = 64;

/// Those of some pictures that cannot be used.
fn check(
    pictures: &[Annotated],
    indices: &[usize],
    progress: &mut dyn FnMut(Progress),
) -> Vec<(usize, Fault)> {
    let mut found = Vec::new();
    let fault = |&index: &usize| {
        let picture = pictures.get(index)?;
        let problem = decoded(picture).err()?;
        let fault = Fault {
            file: picture.path.display().to_string(),
            entry: picture.name.clone(),
            problem,
        };
        Some((index, fault))
    };
    let mut done = 0;
    for part in indices.chunks(CHECKED) {
        found.par_extend(part.par_iter().filter_map(fault));
        done += part.len();
        progress(Progress {
            what: "pictures checked",
            done,
            total: indices.len(),
        });
    }
    found
}

/// A picture, if it is the one that the annotations are about.
fn decoded(picture: &Annotated) -> Result<RgbImage, String> {
    let source = ImageSource::File(picture.path.clone());
    let pixels = load(&source, &ImageLimits::default());
    let pixels = pixels.map_err(|error| in_full(&error))?;
    let size = (picture.width, picture.height);
    if pixels.size() == size {
        return Ok(pixels);
    }
    let (width, height) = pixels.size();
    Err(format!(
        "it has {width} × {height} pixels, its annotations are about {} × {}",
        size.0, size.1
    ))
}

fn compose(choices: &[(Task, Choice)], pictures: &[Annotated], rules: &Rules) -> Vec<Composed> {
    let mut composed = Vec::new();
    for (task, choice) in choices {
        let mut composer = Composer::new(*task, rules);
        for chosen in &choice.chosen {
            let picture = pictures.get(chosen.picture);
            let number = composed.len() as i64;
            composed.extend(picture.and_then(|it| composer.compose(number, chosen, it)));
        }
    }
    composed
}

fn candidates(choices: &[(Task, Choice)]) -> Vec<Candidates> {
    let mut rows = Vec::new();
    for (task, choice) in choices {
        let mut collections: BTreeMap<&String, BTreeMap<Fate, usize>> = BTreeMap::new();
        for ((collection, fate), count) in &choice.fates {
            let fates = collections.entry(collection).or_default();
            *fates.entry(*fate).or_default() += count;
        }
        rows.extend(
            collections
                .into_iter()
                .map(|(collection, fates)| Candidates {
                    task: *task,
                    source_dataset: collection.clone(),
                    candidates: fates.values().sum(),
                    fates,
                }),
        );
    }
    rows
}

fn write(
    target: &Target,
    drawn: &Drawn,
    rules: &Rules,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), CvBenchError> {
    let folder = target.folder();
    let total = drawn.composed.len();
    let mut done = 0;
    let place = |question: &Question| usize::try_from(question.idx).ok();
    for (dimension, stem) in PARTS {
        let questions = drawn.composed.iter().map(|composed| &composed.question);
        let questions = questions.filter(|question| question.dimension == dimension);
        let questions: Vec<&Question> = questions.collect();
        if questions.is_empty() {
            continue;
        }
        write_part(folder, stem, &questions, &mut |group| {
            let composed = group.iter().filter_map(|question| {
                // Questions are numbered by their places.
                drawn.composed.get(place(question)?)
            });
            let composed: Vec<&Composed> = composed.collect();
            let encoded = composed.par_iter();
            let encoded = encoded.map(|composed| picture(composed, &drawn.pictures, rules));
            let encoded: Vec<Vec<u8>> = encoded.collect::<Result<_, _>>()?;
            done += encoded.len();
            progress(Progress {
                what: "questions written",
                done,
                total,
            });
            Ok(encoded)
        })?;
    }
    let json = serde_json::to_string_pretty(&drawn.report);
    let json = json.map_err(CvBenchError::json(&folder.join(REPORT)))?;
    write_file(folder, REPORT, json.as_bytes())?;
    write_file(folder, "rules.toml", rules.to_toml()?.as_bytes())
}

/// The picture of a question as PNG.
fn picture(
    composed: &Composed,
    pictures: &[Annotated],
    rules: &Rules,
) -> Result<Vec<u8>, CvBenchError> {
    let name = &composed.question.filename;
    let gone = || CvBenchError::PictureMissing {
        idx: composed.question.idx,
        path: name.into(),
    };
    let annotated = pictures.get(composed.picture).ok_or_else(gone)?;
    let mut pixels = decoded(annotated).map_err(|_| CvBenchError::PictureMissing {
        idx: composed.question.idx,
        path: annotated.path.clone(),
    })?;
    mark(&mut pixels, &composed.marks, &rules.line);
    pixels.encode_png().map_err(|source| CvBenchError::Picture {
        name: name.clone(),
        source,
    })
}
