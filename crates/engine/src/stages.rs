//! The stages of a run, one after the other; within a stage, several jobs at a time.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::agreement::{Agreement, EncoderPair};
use crate::ask::{Chat, OpenAi, ask, texts};
use crate::error::{EngineError, Failure, Fault, Stop};
use crate::filter::words;
use crate::known::Known;
use crate::outside::{Asker, Outside, Source};
use crate::picture;
use crate::plan::Plan;
use crate::pool::{self, Summary};
use crate::prompts;
use crate::run::Progress;
use crate::search::{OtherSites, Pages, finder};
use crate::store::{Job, Store};
use crate::wiki::Wiki;

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

/// A run under way.
pub(crate) struct Engine<'a> {
    plan: &'a Plan,
    store: &'a Store,
    outside: &'a Outside<'a>,
    progress: &'a (dyn Fn(Progress) + Sync),
    known: Arc<Known>,
}

impl<'a> Engine<'a> {
    /// Gets ready; `known` is what the other pools have that the plan names.
    pub(crate) fn new(
        plan: &'a Plan,
        store: &'a Store,
        outside: &'a Outside<'a>,
        known: Known,
        progress: &'a (dyn Fn(Progress) + Sync),
    ) -> Self {
        Self {
            plan,
            store,
            outside,
            progress,
            known: Arc::new(known),
        }
    }

    /// Does all stages and writes the pool; tells why it stopped, if it did.
    pub(crate) fn all(&self) -> Result<(Option<Stop>, Summary), EngineError> {
        let stopped = match self.stages() {
            Ok(()) => None,
            Err(Fault::Stop(stop)) => Some(stop),
            Err(Fault::Engine(error)) => return Err(error),
            // Stages keep the failures of their jobs.
            Err(Fault::Failed(failure)) => return Err(EngineError::Damaged(failure.message)),
            Err(Fault::Unrecorded) => None,
        };
        let summary = pool::write(self.plan, self.store, &self.known)?;
        Ok((stopped, summary))
    }

    /// Whether nobody is asked.
    fn is_replay(&self) -> bool {
        matches!(self.outside.source, Source::Recording(_))
    }

    fn stages(&self) -> Result<(), Fault> {
        let model = OpenAi::new(&self.plan.llm, self.is_replay())?;
        self.subfields(&model)?;
        self.topics(&model)?;
        self.search()?;
        self.pages()?;
        let urls = pool::Choice::of(self.plan, self.store, &self.known)?.urls();
        let jobs = urls.into_iter().map(|url| Job {
            input: json!({"url": url}),
            key: url,
        });
        self.stage("pictures", jobs.collect(), &|job, asker| {
            picture::fetch(self.plan, &job.key, self.outside, asker)
        })?;
        let choice = pool::Choice::of(self.plan, self.store, &self.known)?;
        let each = self.plan.questions.per_picture;
        self.stage("questions", choice.question_jobs(), &|job, asker| {
            let pictures = job.input["captions"].as_array().map_or(0, Vec::len);
            let wanted = prompts::questions(&job.input, each);
            ask(&model, self.outside, asker, &wanted, |value| {
                prompts::read_questions(value, pictures, each)
            })
        })?;
        self.agreement()
    }

    fn subfields(&self, model: &dyn Chat) -> Result<(), Fault> {
        let fields = self.plan.fields.iter();
        let jobs = fields
            .filter(|field| field.subfields.is_empty())
            .map(|field| Job {
                key: field.name.clone(),
                input: json!({"field": field.name}),
            });
        let count = self.plan.topics.subfields;
        self.stage("subfields", jobs.collect(), &|job, asker| {
            let wanted = prompts::subfields(&job.key, count);
            let names = ask(model, self.outside, asker, &wanted, |value| {
                prompts::read_names(value, count)
            })?;
            Ok(json!(names))
        })
    }

    fn topics(&self, model: &dyn Chat) -> Result<(), Fault> {
        let asked: HashMap<String, Vec<String>> = self
            .store
            .finished("subfields")?
            .into_iter()
            .filter_map(|job| Some((job.key, texts(&job.result?))))
            .collect();
        let mut jobs = Vec::new();
        for field in &self.plan.fields {
            let parts = match field.subfields.is_empty() {
                true => asked.get(&field.name).cloned().unwrap_or_default(),
                false => field.subfields.clone(),
            };
            jobs.extend(parts.into_iter().map(|part| Job {
                key: format!("{} / {part}", field.name),
                input: json!({"field": field.name, "subfield": part}),
            }));
        }
        let count = self.plan.topics.topics;
        self.stage("topics", jobs, &|job, asker| {
            let wanted = prompts::topics(&job.input["field"], &job.input["subfield"], count);
            let names = ask(model, self.outside, asker, &wanted, |value| {
                prompts::read_names(value, count)
            })?;
            Ok(json!(names))
        })
    }

    fn search(&self) -> Result<(), Fault> {
        let finder = finder(self.plan);
        self.stage("search", self.topic_jobs()?, &|job, asker| {
            let topic = job.input["topic"].as_str().unwrap_or_default();
            Ok(Value::Array(finder.find(topic, self.outside, asker)?))
        })
    }

    fn pages(&self) -> Result<(), Fault> {
        let wiki = Wiki::new(self.plan);
        self.stage("pages", self.page_jobs()?, &|job, asker| {
            let pages: &dyn Pages = match job.input["url"].is_string() {
                true => &OtherSites,
                false => &wiki,
            };
            pages.page(&job.input, self.outside, asker)
        })
    }

    fn agreement(&self) -> Result<(), Fault> {
        let jobs = pool::agreement_jobs(self.plan, self.store, &self.known)?;
        let Some(table) = &self.plan.agreement else {
            return self.stage("agreement", jobs, &|_, _| Ok(Value::Null));
        };
        let pair = EncoderPair::new(table, &self.plan.pictures, self.is_replay())?;
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
