//! Which sections and pictures are asked about.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::ledger::Ledger;
use crate::error::EngineError;
use crate::html::Section;
use crate::known::{Known, Looks};
use crate::picture::choose;
use crate::plan::{Plan, hex};
use crate::stages::STAGES;
use crate::store::{Finished, Job, Store};

/// Why a section with pictures is not asked about.
const NO_PICTURE_LEFT: &str = "no usable picture";
const NONE_USABLE: &str = "none of its pictures can be used; each has a line of its own";

/// A picture in a section that may be asked about.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) section: usize,
    pub(super) url: String,
    pub(super) figure: Value,
    /// What the picture's job found.
    pub(super) picture: Option<Value>,
}

/// A page with what is used of it.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) about: Value,
    pub(super) title: String,
    pub(super) url: String,
    pub(super) revision: Value,
    pub(super) sections: Vec<Section>,
    pub(super) candidates: Vec<Candidate>,
}

/// What is asked about, and what is not.
pub(crate) struct Choice {
    pub(super) pages: Vec<Page>,
    pub(super) ledger: Ledger,
    pub(super) max_words: usize,
    pub(super) max_pictures: usize,
    pub(super) known: Arc<Known>,
}

impl Choice {
    pub(crate) fn of(plan: &Plan, store: &Store, known: &Arc<Known>) -> Result<Self, EngineError> {
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
        store.each_finished("pages", |job| {
            let Some(page) = job.result else {
                ledger.drop("page", &job.key, &job.kind, job.error);
                return Ok(());
            };
            // Several names lead to one page.
            if seen.insert(page["id"].to_string()) {
                pages.push(read_page(plan, job.input, page, &mut ledger)?);
            } else {
                ledger.drop("page", &job.key, "same page", "another name leads to it");
            }
            Ok(())
        })?;
        let mut choice = Self {
            pages,
            ledger,
            max_words: plan.sections.max_words,
            max_pictures: plan.questions.max_pictures,
            known: Arc::clone(known),
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
        let mut used = Used {
            pixels: HashSet::new(),
            looks: Looks::new(plan.pictures.near_bits),
            known: &self.known,
        };
        for page in &mut self.pages {
            let mut counts = vec![0; page.sections.len()];
            for candidate in &mut page.candidates {
                let count = &mut counts[candidate.section];
                let judged = match finished.get(&candidate.url) {
                    None => Err(("to do", "it was not fetched yet")),
                    // Before it is judged, because the next place may use it.
                    Some(_) if *count >= self.max_pictures => Err((
                        "too many",
                        "the section has `questions.max_pictures` already",
                    )),
                    Some(job) => used.judge(job),
                };
                match judged {
                    Ok(picture) => {
                        *count += 1;
                        candidate.picture = Some(picture.clone());
                    }
                    Err((reason, why)) => {
                        self.ledger.drop("picture", &candidate.url, reason, why);
                    }
                }
            }
            for (i, section) in page.sections.iter().enumerate() {
                let mut mine = page.candidates.iter().filter(|c| c.section == i).peekable();
                if mine.peek().is_some() && mine.all(|candidate| candidate.picture.is_none()) {
                    let name = format!("{}#{}", page.url, section.heading);
                    self.ledger
                        .drop("section", &name, NO_PICTURE_LEFT, NONE_USABLE);
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

    /// Pictures of a section that are asked about.
    fn asked<'a>(&self, page: &'a Page, section: usize) -> Vec<&'a Candidate> {
        let candidates = page.candidates.iter();
        let usable = candidates.filter(|c| c.section == section && c.picture.is_some());
        usable.collect()
    }

    pub(crate) fn question_jobs(&self) -> Vec<Job> {
        self.sections().map(|(_, _, job, _)| job).collect()
    }

    /// Page, section, job and pictures of each section that is asked about.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&Page, &Section, Job, Vec<&Candidate>)> {
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

/// Pictures that are used already.
struct Used<'a> {
    pixels: HashSet<String>,
    looks: Looks,
    known: &'a Known,
}

impl Used<'_> {
    /// Takes a picture, or says why not.
    fn judge<'j>(&mut self, job: &'j Finished) -> Result<&'j Value, (&'j str, &'j str)> {
        let Some(picture) = &job.result else {
            return Err((&job.kind, &job.error));
        };
        let hash = picture["dhash"].as_str().unwrap_or_default();
        let hash = u64::from_str_radix(hash, 16).unwrap_or_default();
        if !self.pixels.insert(picture["pixels"].to_string()) {
            return Err(("duplicate", "another place has the same picture"));
        }
        if self.looks.has_near(hash) {
            return Err(("near duplicate", "it looks like an earlier one"));
        }
        if self.known.has_look(hash) {
            return Err(("in another pool", "it looks like one of `filters.pools`"));
        }
        self.looks.add(hash);
        Ok(picture)
    }
}

fn read_page(
    plan: &Plan,
    about: Value,
    mut page: Value,
    ledger: &mut Ledger,
) -> Result<Page, EngineError> {
    let damaged = |error: serde_json::Error| EngineError::Damaged(error.to_string());
    let mut sections: Vec<Section> =
        serde_json::from_value(page["sections"].take()).map_err(damaged)?;
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
        let is_mine = |candidate: &Candidate| candidate.section == i;
        if !section.pictures.is_empty() && !candidates.iter().any(is_mine) {
            ledger.drop("section", &name, NO_PICTURE_LEFT, NONE_USABLE);
        }
    }
    // Most of a page is not asked about, and there are many pages.
    for (i, section) in sections.iter_mut().enumerate() {
        section.pictures.clear();
        if !candidates.iter().any(|candidate| candidate.section == i) {
            section.text.clear();
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
