//! The stages of a run, one after the other; within a stage, several jobs at a time.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::agreement::{Agreement, EncoderPair};
use crate::ask::{Model, Wanted, texts};
use crate::error::{EngineError, Failure, Fault, Stop};
use crate::filter::words;
use crate::outside::{Asker, Outside, Source};
use crate::picture;
use crate::plan::Plan;
use crate::pool::{self, Summary};
use crate::store::{Job, StageStatus, Store, write_whole};
use crate::web::Client;
use crate::wiki::{Wiki, other_page, search};

/// The stages, in order.
pub(crate) const STAGES: [&str; 7] = [
    "subfields",
    "topics",
    "search",
    "pages",
    "pictures",
    "questions",
    "agreement",
];

/// How a run is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Whether failures that may pass are tried again.
    pub retry: bool,
    /// Whether pages and pictures are asked for again where their hosts say that they changed.
    pub refresh: bool,
}

/// How far a stage is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The stage.
    pub stage: &'static str,
    /// Jobs that are over.
    pub done: usize,
    /// All that were to be done.
    pub total: usize,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Why it stopped, if it did not come to its end.
    pub stopped: Option<Stop>,
    /// The pool.
    pub summary: Summary,
    /// Stages.
    pub stages: Vec<StageStatus>,
}

/// Runs a plan in a folder, or goes on with it.
///
/// # Errors
/// If the folder cannot be used. What fails outside is in the report and in the ledger.
pub fn run(
    plan: &Plan,
    folder: &Path,
    options: RunOptions,
    stop: &(dyn Fn() -> bool + Sync),
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report, EngineError> {
    let store = Store::open(folder, &plan.fingerprint()?)?;
    write_whole(&folder.join("plan.toml"), plan.resolved()?.as_bytes())?;
    if options.retry {
        store.retry()?;
    }
    if options.refresh {
        for stage in ["search", "pages", "pictures"] {
            store.reopen(stage)?;
        }
    }
    let outside = Outside::new(
        plan,
        &store,
        Source::Web(Client::new(plan, stop)),
        options.refresh,
    );
    Engine {
        plan,
        store: &store,
        outside: &outside,
        progress,
        replay: false,
    }
    .all()
}

/// Makes a run again from its archive, without a network, and compares the pools.
///
/// # Errors
/// If a folder cannot be used, or [`EngineError::Differs`].
pub fn replay(
    from: &Path,
    to: &Path,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report, EngineError> {
    let recording = Store::look(from)?;
    let plan = Plan::read(&from.join("plan.toml"))?;
    let store = Store::open(to, &plan.fingerprint()?)?;
    write_whole(&to.join("plan.toml"), plan.resolved()?.as_bytes())?;
    let outside = Outside::new(&plan, &store, Source::Recording(&recording), false);
    let report = Engine {
        plan: &plan,
        store: &store,
        outside: &outside,
        progress,
        replay: true,
    }
    .all()?;
    let differs = |name: &str| {
        std::fs::read(from.join("pool").join(name)).ok()
            != std::fs::read(to.join("pool").join(name)).ok()
    };
    let differing: Vec<String> = pool::FILES
        .into_iter()
        .filter(|name| differs(name))
        .map(str::to_owned)
        .collect();
    match differing.is_empty() {
        true => Ok(report),
        false => Err(EngineError::Differs { differing }),
    }
}

/// Progress and costs of a run.
///
/// # Errors
/// If there is no run.
pub fn status(folder: &Path) -> Result<Vec<StageStatus>, EngineError> {
    let store = Store::look(folder)?;
    all_status(&store)
}

fn all_status(store: &Store) -> Result<Vec<StageStatus>, EngineError> {
    STAGES
        .iter()
        .map(|stage| {
            let mut status = store.status(stage)?;
            for job in store.finished(stage)? {
                let Some(result) = job.result else { continue };
                let list = result
                    .as_array()
                    .map(Vec::len)
                    .or_else(|| result["items"].as_array().map(Vec::len));
                let sections = result["sections"].as_array().map(Vec::len);
                status.yielded += list.or(sections).unwrap_or(1) as u64;
            }
            Ok(status)
        })
        .collect()
}

struct Engine<'a> {
    plan: &'a Plan,
    store: &'a Store,
    outside: &'a Outside<'a>,
    progress: &'a (dyn Fn(Progress) + Sync),
    replay: bool,
}

impl Engine<'_> {
    fn all(&self) -> Result<Report, EngineError> {
        let stopped = match self.stages() {
            Ok(()) => None,
            Err(Fault::Stop(stop)) => Some(stop),
            Err(Fault::Engine(error)) => return Err(error),
            // Stages keep the failures of their jobs.
            Err(Fault::Failed(failure)) => return Err(EngineError::Damaged(failure.message)),
            Err(Fault::Unrecorded) => None,
        };
        let summary = pool::write(self.plan, self.store)?;
        Ok(Report {
            stopped,
            summary,
            stages: all_status(self.store)?,
        })
    }

    fn stages(&self) -> Result<(), Fault> {
        let model = Model::new(&self.plan.llm, self.replay)?;
        self.subfields(&model)?;
        self.topics(&model)?;
        let finder = search(self.plan);
        self.stage("search", self.topic_jobs()?, &|job, asker| {
            Ok(Value::Array(finder.find(
                job.input["topic"].as_str().unwrap_or_default(),
                self.outside,
                asker,
            )?))
        })?;
        let wiki = Wiki::new(self.plan);
        self.stage(
            "pages",
            self.page_jobs()?,
            &|job, asker| match job.input["url"].as_str() {
                Some(url) => other_page(url, self.outside, asker),
                None => wiki.page(
                    job.input["title"].as_str().unwrap_or_default(),
                    self.outside,
                    asker,
                ),
            },
        )?;
        let choice = pool::Choice::of(self.plan, self.store)?;
        let urls = choice.urls();
        let jobs = urls.into_iter().map(|url| Job {
            key: url.clone(),
            input: json!({"url": url}),
        });
        self.stage("pictures", jobs.collect(), &|job, asker| {
            picture::fetch(self.plan, &job.key, self.outside, asker)
        })?;
        let choice = pool::Choice::of(self.plan, self.store)?;
        self.stage("questions", choice.question_jobs(), &|job, asker| {
            self.questions(&model, job, asker)
        })?;
        let jobs = match self.plan.agreement {
            Some(_) => pool::agreement_jobs(self.plan, self.store)?,
            None => Vec::new(),
        };
        let Some(table) = &self.plan.agreement else {
            return self.stage("agreement", jobs, &|_, _| Ok(Value::Null));
        };
        let pair = EncoderPair::new(table, self.replay)?;
        self.stage("agreement", jobs, &|job, asker| {
            let bytes = self
                .store
                .blob(job.input["sha256"].as_str().unwrap_or_default())?;
            let bytes = bytes
                .ok_or_else(|| Failure::lasting("picture", "its file is gone from the archive"))?;
            let texts = [&job.input["caption"], &job.input["question"]]
                .map(|text| text.as_str().unwrap_or_default());
            Ok(json!(pair.scores(&bytes, &texts, self.outside, asker)?))
        })
    }

    fn subfields(&self, model: &Model<'_>) -> Result<(), Fault> {
        let open = self
            .plan
            .fields
            .iter()
            .filter(|field| field.subfields.is_empty());
        let jobs = open.map(|field| Job {
            key: field.name.clone(),
            input: json!({"field": field.name}),
        });
        let count = self.plan.topics.subfields;
        self.stage("subfields", jobs.collect(), &|job, asker| {
            let text = format!("Name the {count} parts of the field \"{}\" in which pictures, diagrams or photographs explain most. Give short names, as an encyclopedia's categories have them. Answer as {{\"names\": [\"…\"]}}.", job.key);
            Ok(json!(names(model, self.outside, asker, text, count)?))
        })
    }

    fn topics(&self, model: &Model<'_>) -> Result<(), Fault> {
        let mut parts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let finished = self.store.finished("subfields")?;
        for field in &self.plan.fields {
            let asked = finished
                .iter()
                .find(|job| job.key == field.name)
                .and_then(|job| job.result.as_ref());
            let found = if field.subfields.is_empty() {
                asked.map(texts).unwrap_or_default()
            } else {
                field.subfields.clone()
            };
            parts.insert(&field.name, found);
        }
        let jobs = self.plan.fields.iter().flat_map(|field| {
            parts[field.name.as_str()].iter().map(|part| Job {
                key: format!("{} / {part}", field.name),
                input: json!({"field": field.name, "subfield": part}),
            })
        });
        let count = self.plan.topics.topics;
        self.stage("topics", jobs.collect(), &|job, asker| {
            let (field, part) = (&job.input["field"], &job.input["subfield"]);
            let text = format!("Name {count} different topics of {part} (a part of {field}) that have an encyclopedia article with explanatory pictures. Each name must be a likely title of an article. Answer as {{\"names\": [\"…\"]}}.");
            Ok(json!(names(model, self.outside, asker, text, count)?))
        })
    }

    /// A topic that several subfields name is searched for once.
    fn topic_jobs(&self) -> Result<Vec<Job>, Fault> {
        let mut seen = HashSet::new();
        let mut jobs = Vec::new();
        for job in self.store.finished("topics")? {
            for topic in job.result.as_ref().map(texts).unwrap_or_default() {
                if seen.insert(words(&topic)) {
                    let input = json!({"field": job.input["field"], "subfield": job.input["subfield"], "topic": topic});
                    jobs.push(Job { key: topic, input });
                }
            }
        }
        Ok(jobs)
    }

    /// A page that several topics find is fetched once, for the first.
    fn page_jobs(&self) -> Result<Vec<Job>, Fault> {
        let mut seen = HashSet::new();
        let mut jobs = Vec::new();
        for job in self.store.finished("search")? {
            for hit in job
                .result
                .as_ref()
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let other = hit["url"].as_str();
                let Some(key) = other.or(hit["title"].as_str()) else {
                    continue;
                };
                // Other sites are in the ledger, if they are not read.
                if (other.is_none() || self.plan.search.other_sites) && seen.insert(key.to_owned())
                {
                    let mut input = job.input.clone();
                    input[if other.is_some() { "url" } else { "title" }] = json!(key);
                    jobs.push(Job {
                        key: key.to_owned(),
                        input,
                    });
                }
            }
        }
        Ok(jobs)
    }

    fn questions(&self, model: &Model<'_>, job: &Job, asker: Asker<'_>) -> Result<Value, Fault> {
        let pictures = job.input["captions"].as_array().map_or(0, Vec::len);
        let listed: Vec<String> = job.input["captions"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(i, caption)| format!("{}. {}", i + 1, caption.as_str().unwrap_or_default()))
            .collect();
        let each = self.plan.questions.per_picture;
        let text = format!(
            "An article about \"{}\" has a section \"{}\":\n\n{}\n\nIts pictures, by number, with their captions:\n{}\n\n\
             For each picture write {each} question(s) that somebody who sees only the picture and knows the subject well could \
             answer, and that cannot be answered without the picture. Do not mention caption, text or article. The answer is \
             concise and follows from the section. Answer as {{\"items\": [{{\"picture\": 1, \"question\": \"…\", \"answer\": \"…\"}}]}}.",
            job.input["title"].as_str().unwrap_or_default(),
            job.input["heading"].as_str().unwrap_or_default(),
            job.input["text"].as_str().unwrap_or_default(),
            listed.join("\n"),
        );
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["items"],
            "properties": {"items": {"type": "array", "items": {
                "type": "object", "additionalProperties": false, "required": ["picture", "question", "answer"],
                "properties": {"picture": {"type": "integer"}, "question": {"type": "string"}, "answer": {"type": "string"}},
            }}},
        });
        let wanted = Wanted {
            name: "questions",
            schema,
            text,
        };
        model.ask(self.outside, asker, &wanted, |value| {
            let list = value
                .as_array()
                .or_else(|| value["items"].as_array())
                .ok_or("there is no list `items`")?;
            let (mut items, mut refused) = (Vec::new(), Vec::new());
            let mut counts = vec![0; pictures];
            for item in list {
                let number = item["picture"]
                    .as_u64()
                    .and_then(|n| usize::try_from(n).ok())
                    .filter(|n| (1..=pictures).contains(n));
                let text = |key: &str| {
                    item[key]
                        .as_str()
                        .map(str::trim)
                        .filter(|text| !text.is_empty())
                };
                let why = match (number, text("question"), text("answer")) {
                    (None, _, _) => format!(
                        "it is about picture {}, and there are {pictures}",
                        item["picture"]
                    ),
                    (Some(n), Some(question), Some(answer)) if counts[n - 1] < each => {
                        counts[n - 1] += 1;
                        items.push(json!({"picture": n, "question": question, "answer": answer}));
                        continue;
                    }
                    (Some(n), Some(_), Some(_)) => format!("picture {n} has its {each} already"),
                    _ => "question or answer is missing".to_owned(),
                };
                refused.push(json!({"what": item, "why": why}));
            }
            match items.is_empty() {
                true => Err(refused.first().map_or_else(
                    || "`items` is empty".to_owned(),
                    |r| r["why"].as_str().unwrap_or_default().to_owned(),
                )),
                false => Ok(json!({"items": items, "refused": refused})),
            }
        })
    }

    /// Does the jobs of a stage that are to be done.
    fn stage(
        &self,
        stage: &'static str,
        jobs: Vec<Job>,
        work: &(dyn Fn(&Job, Asker<'_>) -> Result<Value, Fault> + Sync),
    ) -> Result<(), Fault> {
        self.store.plan(stage, &jobs)?;
        let jobs = self.store.pending(stage)?;
        let (next, done, halt) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicBool::new(false),
        );
        let ended: Mutex<Option<Fault>> = Mutex::new(None);
        let end = |fault: Fault| {
            halt.store(true, Ordering::SeqCst);
            ended
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(fault);
        };
        let worker = || {
            while !halt.load(Ordering::SeqCst) {
                let Some(job) = jobs.get(next.fetch_add(1, Ordering::SeqCst)) else {
                    return;
                };
                let outcome = match work(
                    job,
                    Asker {
                        stage,
                        job: &job.key,
                    },
                ) {
                    Ok(value) => self.store.finish(stage, &job.key, Ok(&value)),
                    Err(Fault::Failed(failure)) => {
                        self.store.finish(stage, &job.key, Err(&failure))
                    }
                    Err(Fault::Unrecorded) => Ok(()),
                    Err(fault) => return end(fault),
                };
                if let Err(error) = outcome {
                    return end(Fault::Engine(error));
                }
                let done = done.fetch_add(1, Ordering::SeqCst) + 1;
                (self.progress)(Progress {
                    stage,
                    done,
                    total: jobs.len(),
                });
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.plan.web.workers.min(jobs.len()) {
                scope.spawn(worker);
            }
        });
        match ended.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }
}

fn names(
    model: &Model<'_>,
    outside: &Outside<'_>,
    asker: Asker<'_>,
    text: String,
    count: usize,
) -> Result<Vec<String>, Fault> {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["names"],
        "properties": {"names": {"type": "array", "items": {"type": "string"}}},
    });
    model.ask(
        outside,
        asker,
        &Wanted {
            name: "names",
            schema,
            text,
        },
        |value| {
            let mut seen = HashSet::new();
            let mut found = texts(value);
            found.retain(|name| seen.insert(words(name)));
            found.truncate(count);
            if found.is_empty() {
                Err("there is no name in it".to_owned())
            } else {
                Ok(found)
            }
        },
    )
}
