//! Questions and answers that passed the filters of texts.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::choice::{Candidate, Choice, Page};
use crate::error::EngineError;
use crate::filter::complaint;
use crate::html::Section;
use crate::known::{Known, text_key};
use crate::plan::{AgreementTable, Plan, hex};
use crate::store::{Job, Store};

/// A question that passed the filters of texts.
pub(super) struct Draft {
    pub(super) id: String,
    pub(super) question: String,
    pub(super) answer: String,
    pub(super) picture: Value,
    pub(super) line: Map<String, Value>,
}

/// Questions in order, filtered; fills the ledger.
pub(super) fn drafts(
    plan: &Plan,
    store: &Store,
    choice: &mut Choice,
) -> Result<Vec<Draft>, EngineError> {
    let finished: BTreeMap<String, _> = store
        .finished("questions")?
        .into_iter()
        .map(|job| (job.key.clone(), job))
        .collect();
    let mut ledger = std::mem::take(&mut choice.ledger);
    let mut texts = HashSet::new();
    let mut drafts = Vec::new();
    for (page, section, job, pictures) in choice.sections() {
        let Some(done) = finished.get(&job.key) else {
            ledger.drop("section", &job.key, "to do", "it was not asked about yet");
            continue;
        };
        let Some(result) = &done.result else {
            ledger.drop("section", &job.key, &done.kind, done.error.as_str());
            continue;
        };
        for refused in result["refused"].as_array().into_iter().flatten() {
            let why = refused["why"].as_str().unwrap_or_default();
            let why = format!("{why}: {}", refused["what"]);
            ledger.drop("question", &job.key, "answer", why);
        }
        let mut has_question = vec![false; pictures.len()];
        for item in result["items"].as_array().into_iter().flatten() {
            let number = item["picture"].as_u64().unwrap_or_default();
            let at = usize::try_from(number).unwrap_or_default().wrapping_sub(1);
            let Some(candidate) = pictures.get(at) else {
                continue;
            };
            has_question[at] = true;
            let draft = draft(plan, page, section, candidate, item);
            match judge(plan, &choice.known, &mut texts, &draft) {
                None => drafts.push(draft),
                Some((reason, why)) => ledger.drop("question", &draft.id, reason, why),
            }
        }
        for (candidate, _) in pictures.iter().zip(has_question).filter(|(_, has)| !has) {
            let why = "the model asked nothing about it";
            ledger.drop("picture", &candidate.url, "no question", why);
        }
    }
    choice.ledger = ledger;
    Ok(drafts)
}

/// A question with all that is known about it.
fn draft(
    plan: &Plan,
    page: &Page,
    section: &Section,
    candidate: &Candidate,
    item: &Value,
) -> Draft {
    let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
    let (question, answer) = (text("question"), text("answer"));
    let picture = candidate.picture.clone().unwrap_or_default();
    let identity = format!("{}\n{}\n{question}", page.url, picture["pixels"]);
    let id = format!("{}-{}", plan.name, &hex(&Sha256::digest(identity))[..16]);
    let info = &candidate.figure["info"];
    let line = json!({
        "caption": candidate.figure["caption"], "title": page.title, "section": section.heading,
        "field": page.about["field"], "subfield": page.about["subfield"], "topic": page.about["topic"],
        "page": page.url, "revision": page.revision, "image_url": candidate.url,
        "image_page": info["page"], "licence": info["licence"], "licence_url": info["licence_url"],
        "author": info["author"], "credit": info["credit"],
    });
    Draft {
        id,
        question,
        answer,
        picture,
        line: line.as_object().cloned().unwrap_or_default(),
    }
}

/// Why a question is dropped; `texts` are those before it.
fn judge(
    plan: &Plan,
    known: &Known,
    texts: &mut HashSet<u128>,
    draft: &Draft,
) -> Option<(&'static str, String)> {
    if let Some((reason, why)) = complaint(&plan.filters, &draft.question, &draft.answer) {
        return Some((reason, format!("{why}: {}", draft.question)));
    }
    let key = text_key(&draft.question, &draft.answer);
    if known.has_text(key) {
        return Some(("in another pool", draft.question.clone()));
    }
    match texts.insert(key) {
        true => None,
        false => Some(("duplicate", draft.question.clone())),
    }
}

/// What is to be checked for agreement, by the pair that is asked.
pub(crate) fn agreement_jobs(
    plan: &Plan,
    store: &Store,
    known: &Arc<Known>,
) -> Result<Vec<Job>, EngineError> {
    let Some(table) = &plan.agreement else {
        return Ok(Vec::new());
    };
    let mut choice = Choice::of(plan, store, known)?;
    let drafts = drafts(plan, store, &mut choice)?;
    let job = |draft: Draft| Job {
        key: agreement_key(table, &draft.id),
        input: json!({
            "sha256": draft.picture["sha256"], "caption": draft.line["caption"], "question": draft.question,
        }),
    };
    Ok(drafts.into_iter().map(job).collect())
}

/// Another pair gives other numbers.
pub(super) fn agreement_key(table: &AgreementTable, id: &str) -> String {
    format!("{id} {} {}", table.model, table.url)
}
