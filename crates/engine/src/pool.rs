//! From finished jobs to the pool: what is chosen, what is dropped and why, and the files.
//!
//! Everything here is a function of the finished jobs in their order, so that the pool depends neither on
//! threads nor on how often a run was interrupted. Pictures are named by their content: a file never changes
//! its meaning, and a second run never overwrites one that a sample points to.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;

use opabinia_image::{ImageSource, load};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::error::EngineError;
use crate::filter::{Known, complaint, near, text_key};
use crate::html::Section;
use crate::picture::{choose, limits};
use crate::plan::{Plan, hex};
use crate::run::STAGES;
use crate::store::{Job, Store, write_whole};

/// The files of a pool beside its pictures.
pub(crate) const FILES: [&str; 3] = ["samples.jsonl", "ledger.jsonl", "manifest.json"];

/// What a pool holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Samples.
    pub samples: u64,
    /// Pictures that they show.
    pub pictures: u64,
    /// What the ledger says, by unit and reason.
    pub ledger: BTreeMap<String, u64>,
    /// Whether the agreement of picture, caption and question was checked, or why not.
    pub agreement: String,
    /// Samples or pictures of other pools that could not be compared with.
    pub pools_unread: u64,
}

/// A picture in a section that may be asked about.
#[derive(Clone, Debug)]
struct Candidate {
    section: usize,
    url: String,
    figure: Value,
    /// What the picture's job found.
    picture: Option<Value>,
}

/// A page with what is used of it.
#[derive(Clone, Debug)]
struct Page {
    about: Value,
    title: String,
    url: String,
    revision: Value,
    sections: Vec<Section>,
    candidates: Vec<Candidate>,
}

/// What is asked about, and what is not.
pub(crate) struct Choice {
    pages: Vec<Page>,
    ledger: Ledger,
    max_words: usize,
    max_pictures: usize,
    known: Known,
}

#[derive(Default)]
struct Ledger(Vec<Value>);

impl Ledger {
    fn drop(&mut self, unit: &str, what: &str, reason: &str, why: impl Into<String>) {
        self.0.push(
            json!({"unit": unit, "what": what, "kept": false, "reason": reason, "why": why.into()}),
        );
    }
}

impl Choice {
    pub(crate) fn of(plan: &Plan, store: &Store) -> Result<Self, EngineError> {
        let mut ledger = Ledger::default();
        for stage in STAGES.iter().take_while(|stage| **stage != "pages") {
            for job in store
                .finished(stage)?
                .into_iter()
                .filter(|job| job.result.is_none())
            {
                ledger.drop(stage, &job.key, &job.kind, job.error);
            }
        }
        let mut other = BTreeSet::new();
        for job in store.finished("search")? {
            let hits = job
                .result
                .as_ref()
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            if hits.is_empty() && job.result.is_some() {
                ledger.drop(
                    "search",
                    &job.key,
                    "nothing found",
                    "the search found no page",
                );
            }
            other.extend(
                hits.iter()
                    .filter_map(|hit| hit["url"].as_str())
                    .map(str::to_owned),
            );
        }
        if !plan.search.other_sites {
            for url in other {
                ledger.drop("page", &url, "other site", "`search.other_sites` is off");
            }
        }
        let mut seen = HashSet::new();
        let mut pages = Vec::new();
        for job in store.finished("pages")? {
            let Some(page) = job.result else {
                ledger.drop("page", &job.key, &job.kind, job.error);
                continue;
            };
            // Several names lead to one page.
            if !seen.insert(page["id"].to_string()) {
                ledger.drop("page", &job.key, "same page", "another name leads to it");
                continue;
            }
            pages.push(read_page(plan, job.input, &page, &mut ledger)?);
        }
        let mut choice = Self {
            pages,
            ledger,
            max_words: plan.sections.max_words,
            max_pictures: plan.questions.max_pictures,
            known: Known::read(plan)?,
        };
        choice.judge_pictures(plan, store)?;
        Ok(choice)
    }

    /// Notes what became of each picture; the first of those that look alike is used.
    fn judge_pictures(&mut self, plan: &Plan, store: &Store) -> Result<(), EngineError> {
        let finished: BTreeMap<String, _> = store
            .finished("pictures")?
            .into_iter()
            .map(|job| (job.key.clone(), job))
            .collect();
        let mut seen = HashSet::new();
        let mut hashes = Vec::new();
        for page in &mut self.pages {
            for candidate in &mut page.candidates {
                let Some(job) = finished.get(&candidate.url) else {
                    continue;
                };
                let Some(picture) = &job.result else {
                    self.ledger
                        .drop("picture", &job.key, &job.kind, job.error.as_str());
                    continue;
                };
                let hash = u64::from_str_radix(picture["dhash"].as_str().unwrap_or_default(), 16)
                    .unwrap_or_default();
                if !seen.insert(picture["pixels"].to_string()) {
                    self.ledger.drop(
                        "picture",
                        &job.key,
                        "duplicate",
                        "another place has the same picture",
                    );
                } else if near(&hashes, hash, plan.pictures.near_bits) {
                    self.ledger.drop(
                        "picture",
                        &job.key,
                        "near duplicate",
                        "it looks like an earlier one",
                    );
                } else if near(&self.known.hashes, hash, plan.pictures.near_bits) {
                    self.ledger.drop(
                        "picture",
                        &job.key,
                        "in another pool",
                        "it looks like one of `filters.pools`",
                    );
                } else {
                    hashes.push(hash);
                    candidate.picture = Some(picture.clone());
                }
            }
        }
        Ok(())
    }

    /// Addresses of all pictures that may be used, each once.
    pub(crate) fn urls(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let candidates = self.pages.iter().flat_map(|page| &page.candidates);
        candidates
            .filter(|candidate| seen.insert(&candidate.url))
            .map(|candidate| candidate.url.clone())
            .collect()
    }

    /// Usable pictures of a section, as many as are asked about.
    fn asked<'a>(&self, page: &'a Page, section: usize) -> Vec<&'a Candidate> {
        let usable = page
            .candidates
            .iter()
            .filter(|c| c.section == section && c.picture.is_some());
        usable.take(self.max_pictures).collect()
    }

    pub(crate) fn question_jobs(&self) -> Vec<Job> {
        self.sections().map(|(_, _, job, _)| job).collect()
    }

    /// Page, section, job and pictures of each section that is asked about.
    fn sections(&self) -> impl Iterator<Item = (&Page, &Section, Job, Vec<&Candidate>)> {
        let numbered = self.pages.iter().flat_map(|page| {
            page.sections
                .iter()
                .enumerate()
                .map(move |(i, section)| (page, i, section))
        });
        numbered.filter_map(|(page, i, section)| {
            let pictures = self.asked(page, i);
            if pictures.is_empty() {
                return None;
            }
            let text: Vec<&str> = section.text.split_whitespace().take(self.max_words).collect();
            let captions: Vec<&Value> = pictures.iter().map(|candidate| &candidate.figure["caption"]).collect();
            let urls: Vec<&String> = pictures.iter().map(|candidate| &candidate.url).collect();
            let input = json!({"title": page.title, "heading": section.heading, "text": text.join(" "), "captions": captions, "urls": urls});
            // Another text or other pictures are another question.
            let digest = hex(&Sha256::digest(input.to_string()));
            Some((page, section, Job { key: format!("{}#{i}-{}", page.url, &digest[..16]), input }, pictures))
        })
    }
}

fn read_page(
    plan: &Plan,
    about: Value,
    page: &Value,
    ledger: &mut Ledger,
) -> Result<Page, EngineError> {
    let damaged = |error: serde_json::Error| EngineError::Damaged(error.to_string());
    let sections: Vec<Section> =
        serde_json::from_value(page["sections"].clone()).map_err(damaged)?;
    let url = page["url"].as_str().unwrap_or_default().to_owned();
    let mut candidates = Vec::new();
    let mut skipped_level = None;
    for (i, section) in sections.iter().enumerate() {
        let name = format!("{url}#{}", section.heading);
        if skipped_level.is_some_and(|level| section.level <= level) {
            skipped_level = None;
        }
        let is_named = |skip: &String| skip.to_lowercase() == section.heading.to_lowercase();
        if skipped_level.is_none() && plan.sections.skip.iter().any(is_named) {
            skipped_level = Some(section.level);
        }
        if skipped_level.is_some() {
            ledger.drop(
                "section",
                &name,
                "skipped",
                "`sections.skip` names it or one above it",
            );
            continue;
        }
        if section.words() < plan.sections.min_words {
            ledger.drop(
                "section",
                &name,
                "short",
                format!("{} words", section.words()),
            );
            continue;
        }
        if section.pictures.is_empty() {
            ledger.drop("section", &name, "no picture", "no picture with a caption");
        }
        for figure in &section.pictures {
            let info = figure
                .file
                .as_ref()
                .map_or(&Value::Null, |file| &page["files"][file]);
            let figure = json!({"url": figure.url, "caption": figure.caption, "info": info});
            match choose(&plan.pictures, &figure) {
                Ok(url) => candidates.push(Candidate {
                    section: i,
                    url,
                    figure,
                    picture: None,
                }),
                Err(why) => ledger.drop(
                    "picture",
                    figure["url"].as_str().unwrap_or_default(),
                    "refused",
                    why,
                ),
            }
        }
    }
    Ok(Page {
        about,
        title: page["title"].as_str().unwrap_or_default().to_owned(),
        url,
        revision: page["revision"].clone(),
        sections,
        candidates,
    })
}

/// A question that passed the filters of texts.
struct Draft {
    id: String,
    question: String,
    answer: String,
    picture: Value,
    line: Map<String, Value>,
}

/// Questions in order, filtered; fills the ledger.
fn drafts(plan: &Plan, store: &Store, choice: &mut Choice) -> Result<Vec<Draft>, EngineError> {
    let finished: BTreeMap<String, _> = store
        .finished("questions")?
        .into_iter()
        .map(|job| (job.key.clone(), job))
        .collect();
    let mut ledger = std::mem::take(&mut choice.ledger);
    let mut texts = choice.known.texts.clone();
    let mut drafts = Vec::new();
    for (page, section, job, pictures) in choice.sections() {
        let Some(done) = finished.get(&job.key) else {
            continue;
        };
        let Some(result) = &done.result else {
            ledger.drop("section", &job.key, &done.kind, done.error.as_str());
            continue;
        };
        for refused in result["refused"].as_array().into_iter().flatten() {
            ledger.drop(
                "question",
                &job.key,
                "answer",
                format!(
                    "{}: {}",
                    refused["why"].as_str().unwrap_or_default(),
                    refused["what"]
                ),
            );
        }
        for item in result["items"].as_array().into_iter().flatten() {
            let number = item["picture"]
                .as_u64()
                .and_then(|n| usize::try_from(n).ok());
            let Some(candidate) = number
                .and_then(|n| n.checked_sub(1))
                .and_then(|n| pictures.get(n))
            else {
                continue;
            };
            let Some(picture) = &candidate.picture else {
                continue;
            };
            let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
            let (question, answer) = (text("question"), text("answer"));
            let identity = format!("{}\n{}\n{question}", page.url, picture["pixels"]);
            let id = format!("{}-{}", plan.name, &hex(&Sha256::digest(identity))[..16]);
            if let Some((reason, why)) = complaint(&plan.filters, &question, &answer) {
                ledger.drop("question", &id, reason, format!("{why}: {question}"));
                continue;
            }
            if !texts.insert(text_key(&question, &answer)) {
                ledger.drop("question", &id, "duplicate", question);
                continue;
            }
            let info = &candidate.figure["info"];
            let line = json!({
                "caption": candidate.figure["caption"], "title": page.title, "section": section.heading,
                "field": page.about["field"], "subfield": page.about["subfield"], "topic": page.about["topic"],
                "page": page.url, "revision": page.revision, "image_url": candidate.url,
                "image_page": info["page"], "licence": info["licence"], "licence_url": info["licence_url"],
                "author": info["author"], "credit": info["credit"],
            });
            let line = line.as_object().cloned().unwrap_or_default();
            drafts.push(Draft {
                id,
                question,
                answer,
                picture: picture.clone(),
                line,
            });
        }
    }
    choice.ledger = ledger;
    Ok(drafts)
}

pub(crate) fn agreement_jobs(plan: &Plan, store: &Store) -> Result<Vec<Job>, EngineError> {
    let mut choice = Choice::of(plan, store)?;
    let drafts = drafts(plan, store, &mut choice)?;
    Ok(drafts.into_iter().map(|draft| Job {
        key: draft.id,
        input: json!({"sha256": draft.picture["sha256"], "caption": draft.line["caption"], "question": draft.question}),
    }).collect())
}

/// Writes the pool of what is finished.
pub(crate) fn write(plan: &Plan, store: &Store) -> Result<Summary, EngineError> {
    let mut choice = Choice::of(plan, store)?;
    let drafts = drafts(plan, store, &mut choice)?;
    let scores: BTreeMap<String, _> = store
        .finished("agreement")?
        .into_iter()
        .map(|job| (job.key.clone(), job))
        .collect();
    let mut ledger = std::mem::take(&mut choice.ledger);
    let folder = store.folder().join("pool");
    let images = folder.join("images");
    fs::create_dir_all(&images).map_err(EngineError::io("create", &images))?;
    let (mut lines, mut named, mut samples) = (String::new(), BTreeSet::new(), 0);
    for mut draft in drafts {
        if let Some(table) = &plan.agreement {
            let Some(job) = scores.get(&draft.id) else {
                ledger.drop(
                    "question",
                    &draft.id,
                    "not checked",
                    "its agreement was not computed yet",
                );
                continue;
            };
            let score = |i: usize| job.result.as_ref().and_then(|scores| scores[i].as_f64());
            let (Some(caption), Some(question)) = (score(0), score(1)) else {
                ledger.drop("question", &draft.id, "not checked", job.error.as_str());
                continue;
            };
            if caption < table.min_caption || question < table.min_question {
                ledger.drop(
                    "question",
                    &draft.id,
                    "agreement",
                    format!(
                        "cosine {caption:.3} with the caption, {question:.3} with the question"
                    ),
                );
                continue;
            }
            draft
                .line
                .insert("agreement".to_owned(), json!([caption, question]));
        }
        let Some(image) = keep_picture(plan, store, &draft.picture)? else {
            ledger.drop(
                "question",
                &draft.id,
                "picture",
                "its file is gone from the archive",
            );
            continue;
        };
        let mut sample = json!({
            "id": draft.id, "image": image, "source": plan.name, "category": plan.category,
            "conversations": [{"from": "human", "value": format!("<image>\n{}", draft.question)}, {"from": "gpt", "value": draft.answer}],
        });
        if let Some(sample) = sample.as_object_mut() {
            sample.extend(draft.line);
        }
        lines += &sample.to_string();
        lines.push('\n');
        ledger.0.push(json!({"unit": "question", "what": draft.id, "kept": true, "reason": "kept", "why": ""}));
        named.insert(image);
        samples += 1;
    }
    let mut summary = Summary {
        samples,
        pictures: named.len() as u64,
        agreement: match &plan.agreement {
            Some(table) => format!("checked by {}", table.model),
            None => "skipped: the plan has no `[agreement]`".to_owned(),
        },
        pools_unread: choice.known.unread,
        ..Summary::default()
    };
    let mut text = String::new();
    for line in &ledger.0 {
        let word = |key: &str| line[key].as_str().unwrap_or_default();
        *summary
            .ledger
            .entry(format!("{}: {}", word("unit"), word("reason")))
            .or_default() += 1;
        text += &line.to_string();
        text.push('\n');
    }
    write_whole(&folder.join("samples.jsonl"), lines.as_bytes())?;
    write_whole(&folder.join("ledger.jsonl"), text.as_bytes())?;
    let manifest = serde_json::to_string_pretty(
        &json!({"plan": plan.fingerprint()?, "samples_sha256": hex(&Sha256::digest(&lines)), "summary": summary}),
    );
    write_whole(
        &folder.join("manifest.json"),
        manifest.unwrap_or_default().as_bytes(),
    )?;
    remove_others(&folder, &named)?;
    Ok(summary)
}

/// Puts a picture into the pool; gives its path there.
fn keep_picture(
    plan: &Plan,
    store: &Store,
    picture: &Value,
) -> Result<Option<String>, EngineError> {
    let word = |key: &str| picture[key].as_str().unwrap_or_default();
    let (sha256, ending) = (word("sha256"), word("ending"));
    let name = format!(
        "images/{}/{sha256}.{}",
        sha256.get(..2).unwrap_or("00"),
        if ending.is_empty() { "png" } else { ending }
    );
    let path = store.folder().join("pool").join(&name);
    if path.is_file() {
        return Ok(Some(name));
    }
    let Some(bytes) = store.blob(sha256)? else {
        return Ok(None);
    };
    let bytes = match ending {
        "" => load(
            &ImageSource::Bytes {
                bytes,
                name: sha256.to_owned(),
            },
            &limits(&plan.pictures),
        )?
        .encode_png()?,
        _ => bytes,
    };
    write_whole(&path, &bytes)?;
    Ok(Some(name))
}

/// Removes pictures that no sample shows any more, and what a kill left half-written.
fn remove_others(folder: &std::path::Path, named: &BTreeSet<String>) -> Result<(), EngineError> {
    let images = folder.join("images");
    let read = |path: &std::path::Path| fs::read_dir(path).map_err(EngineError::io("read", path));
    for shard in read(&images)?.flatten() {
        for file in read(&shard.path())?.flatten() {
            let name = format!(
                "images/{}/{}",
                shard.file_name().to_string_lossy(),
                file.file_name().to_string_lossy()
            );
            if !named.contains(&name) {
                fs::remove_file(file.path()).map_err(EngineError::io("remove", file.path()))?;
            }
        }
    }
    Ok(())
}
