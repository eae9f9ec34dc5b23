//! From finished jobs to the pool: what is chosen, what is dropped and why, and the files.
//!
//! Everything here is a function of the finished jobs in their order, so that the pool depends neither on
//! threads nor on how often a run was interrupted. Pictures are named by their content: a file never changes
//! its meaning, and a second run never overwrites one that a sample points to.

mod choice;
mod draft;
mod ledger;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use opabinia_image::{ImageSource, load};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) use choice::Choice;
pub(crate) use draft::agreement_jobs;

use crate::error::EngineError;
use crate::files::write_whole;
use crate::known::{Known, KnownPool};
use crate::picture::limits;
use crate::plan::{AgreementTable, Plan, hex};
use crate::store::{Finished, Store};
use draft::{Draft, agreement_key, drafts};

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
    /// Other pools that the samples were compared with.
    pub pools: Vec<KnownPool>,
    /// Samples or pictures of other pools that could not be compared with.
    pub pools_unread: u64,
}

/// What the pool of a run holds, as its manifest says; nothing, if there is none yet.
pub(crate) fn summary(run: &Path) -> Summary {
    let read = || {
        let text = fs::read(run.join("pool/manifest.json")).ok()?;
        let mut manifest: Value = serde_json::from_slice(&text).ok()?;
        serde_json::from_value(manifest.get_mut("summary")?.take()).ok()
    };
    read().unwrap_or_else(|| Summary {
        agreement: "not checked yet".to_owned(),
        ..Summary::default()
    })
}

/// Writes the pool of what is finished.
pub(crate) fn write(
    plan: &Plan,
    store: &Store,
    known: &Arc<Known>,
) -> Result<Summary, EngineError> {
    let mut choice = Choice::of(plan, store, known)?;
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
            match agreement(table, scores.get(&agreement_key(table, &draft.id))) {
                Ok(found) => {
                    draft.line.insert("agreement".to_owned(), json!(found));
                }
                Err((reason, why)) => {
                    ledger.drop("question", &draft.id, reason, why);
                    continue;
                }
            }
        }
        let Some(image) = keep_picture(plan, store, &draft.picture)? else {
            let why = "its file is gone from the archive";
            ledger.drop("question", &draft.id, "picture", why);
            continue;
        };
        ledger.keep(&draft.id);
        lines += &sample(plan, draft, &image).to_string();
        lines.push('\n');
        named.insert(image);
        samples += 1;
    }
    let summary = Summary {
        samples,
        pictures: named.len() as u64,
        agreement: match &plan.agreement {
            Some(table) => format!("checked by {}", table.model),
            None => "skipped: the plan has no `[agreement]`".to_owned(),
        },
        pools: known.pools.clone(),
        pools_unread: known.unread,
        ledger: ledger.counts(),
    };
    let damaged = |error: serde_json::Error| EngineError::Damaged(error.to_string());
    let text = ledger.lines().map_err(damaged)?;
    write_whole(&folder.join("samples.jsonl"), lines.as_bytes())?;
    write_whole(&folder.join("ledger.jsonl"), text.as_bytes())?;
    let manifest = serde_json::to_string_pretty(
        &json!({"plan": plan.fingerprint()?, "samples_sha256": hex(&Sha256::digest(&lines)), "summary": summary}),
    );
    let manifest = manifest.map_err(damaged)?;
    write_whole(&folder.join("manifest.json"), manifest.as_bytes())?;
    store.keep_known(&known.kept()?)?;
    remove_others(&folder, &named)?;
    Ok(summary)
}

/// Cosines with caption and question, or why the question is dropped.
fn agreement(
    table: &AgreementTable,
    job: Option<&Finished>,
) -> Result<[f64; 2], (&'static str, String)> {
    let job = job.ok_or_else(|| ("not checked", "there is no score yet".to_owned()))?;
    let score = |i: usize| job.result.as_ref().and_then(|scores| scores[i].as_f64());
    let (Some(caption), Some(question)) = (score(0), score(1)) else {
        return Err(("not checked", job.error.clone()));
    };
    if caption < table.min_caption || question < table.min_question {
        let why = format!("cosine {caption:.3} with the caption, {question:.3} with the question");
        return Err(("agreement", why));
    }
    Ok([caption, question])
}

/// A line of the pool.
fn sample(plan: &Plan, draft: Draft, image: &str) -> Value {
    let question = format!("<image>\n{}", draft.question);
    let mut sample = json!({
        "id": draft.id, "image": image, "source": plan.name, "category": plan.category,
        "conversations": [
            {"from": "human", "value": question},
            {"from": "gpt", "value": draft.answer},
        ],
    });
    if let Some(sample) = sample.as_object_mut() {
        sample.extend(draft.line);
    }
    sample
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
fn remove_others(folder: &Path, named: &BTreeSet<String>) -> Result<(), EngineError> {
    let images = folder.join("images");
    let read = |path: &Path| fs::read_dir(path).map_err(EngineError::io("read", path));
    for shard in read(&images)?
        .flatten()
        .filter(|shard| shard.path().is_dir())
    {
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
