//! Plans: everything that fixes a run, in one TOML file.
//!
//! A plan is read strictly: a key that nobody knows is refused with the nearest one that is known, and a
//! value out of range with its key. The plan with all defaults filled in ([`Plan::resolved`]) is written
//! beside the outputs, and is itself a plan. Keys of services are never in a plan: it names environment
//! variables.

mod check;
mod tables;

use std::path::Path;

use opabinia_endpoint::key_of;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::EngineError;

pub use tables::*;

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What the run is called; the `source` of its samples.
    pub name: String,
    /// Category of the samples.
    #[serde(default = "knowledge")]
    pub category: String,
    /// The model that writes topics, questions and answers.
    pub llm: LlmTable,
    /// The encyclopedia.
    #[serde(default)]
    pub wiki: WikiTable,
    /// How pages are found.
    #[serde(default)]
    pub search: SearchTable,
    /// Subfields and topics.
    #[serde(default)]
    pub topics: TopicsTable,
    /// Which sections are used.
    #[serde(default)]
    pub sections: SectionsTable,
    /// Which pictures are used.
    #[serde(default)]
    pub pictures: PicturesTable,
    /// What is asked about them.
    #[serde(default)]
    pub questions: QuestionsTable,
    /// What is kept.
    #[serde(default)]
    pub filters: FiltersTable,
    /// The check that picture, caption and question belong together.
    #[serde(default)]
    pub agreement: Option<AgreementTable>,
    /// Manners on the web.
    pub web: WebTable,
    /// What the run may cost.
    #[serde(default)]
    pub budget: BudgetTable,
    /// What the samples are to be about.
    pub fields: Vec<Field>,
}

fn knowledge() -> String {
    "science".to_owned()
}

/// A field of knowledge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its parts; the model is asked for them if there are none.
    #[serde(default)]
    pub subfields: Vec<String>,
}

impl Plan {
    /// Reads and checks a plan.
    ///
    /// # Errors
    /// If the file cannot be read or is no plan; the error names line or key.
    pub fn read(path: &Path) -> Result<Self, EngineError> {
        let text = std::fs::read_to_string(path).map_err(EngineError::io("read the plan", path))?;
        Self::parse(path, &text)
    }

    /// Checks the text of a plan; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(path: &Path, text: &str) -> Result<Self, EngineError> {
        let name = path.display();
        let mut plan: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map(|text| 1 + text.matches('\n').count());
            EngineError::Plan {
                place: line.map_or_else(|| name.to_string(), |line| format!("{name}:{line}")),
                problem: explain(error.message()),
            }
        })?;
        match plan.complaint() {
            None => {
                // The folder of a run may be looked at from elsewhere.
                let filters = &mut plan.filters;
                for path in filters.pools.iter_mut().chain(&mut filters.pool_pictures) {
                    if let Ok(whole) = std::path::absolute(&*path) {
                        *path = whole;
                    }
                }
                Ok(plan)
            }
            Some(problem) => Err(EngineError::Plan {
                place: name.to_string(),
                problem,
            }),
        }
    }

    /// Whether every key is set that the plan names, before anything is asked: the check of agreement comes
    /// last, and a run should not find out after hours.
    ///
    /// # Errors
    /// The first that is not.
    pub(crate) fn check_keys(&self) -> Result<(), EngineError> {
        let agreement = self.agreement.iter();
        let agreement = agreement.filter_map(|table| table.key_variable.as_deref());
        let google = (self.search.provider == Finder::Google)
            .then_some(self.search.google_key_variable.as_str());
        let all = self.llm.key_variable.as_deref().into_iter();
        for variable in all.chain(agreement).chain(google) {
            key_of(variable)?;
        }
        Ok(())
    }

    /// The plan with all defaults, as TOML.
    ///
    /// # Errors
    /// Never for a plan that was read.
    pub fn resolved(&self) -> Result<String, EngineError> {
        toml::to_string_pretty(self).map_err(|error| EngineError::Plan {
            place: self.name.clone(),
            problem: error.to_string(),
        })
    }

    /// The same for plans that ask the same things in the same way. Budgets, manners, prices and filters make no
    /// difference, and neither do more fields or another check of agreement: their jobs have other names.
    pub(crate) fn fingerprint(&self) -> Result<String, EngineError> {
        let mut same = self.clone();
        same.web = WebTable::default();
        same.budget = BudgetTable::default();
        same.llm.price_in = 0.0;
        same.llm.price_out = 0.0;
        same.llm.timeout_seconds = LlmTable::default().timeout_seconds;
        same.llm.key_variable = None;
        same.search.google_key_variable = SearchTable::default().google_key_variable;
        same.filters = FiltersTable::default();
        // Jobs are known by their field, and by the pair that checks them: more of them may come.
        same.agreement = None;
        same.fields = Vec::new();
        Ok(hex(&Sha256::digest(same.resolved()?)))
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds the nearest name to serde's "unknown field `x`, expected one of `a`, `b`".
fn explain(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    let (true, Some(name)) = (message.starts_with("unknown"), names.next()) else {
        return message.to_owned();
    };
    let nearest = names
        .map(|known| (strsim::jaro_winkler(known, name), known))
        .filter(|(similarity, _)| *similarity > 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((_, nearest)) => format!("{message}; did you mean `{nearest}`?"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: &str = "name = \"a\"\n[llm]\nurl = \"http://h\"\nmodel = \"m\"\n[web]\n\
                         contact = \"me@example.org\"\n[[fields]]\nname = \"Biology\"\n";

    fn error(text: &str) -> String {
        Plan::parse(Path::new("p.toml"), text)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_is_resolved_is_the_same_plan() {
        let plan = Plan::parse(Path::new("p.toml"), SMALL).unwrap();
        assert_eq!(plan.sections.min_words, 50);
        let again = Plan::parse(Path::new("p.toml"), &plan.resolved().unwrap()).unwrap();
        assert_eq!(again, plan);
        let mut richer = plan.clone();
        richer.budget.tokens = Some(7);
        assert_eq!(richer.fingerprint().unwrap(), plan.fingerprint().unwrap());
        richer.topics.topics = 7;
        assert_ne!(richer.fingerprint().unwrap(), plan.fingerprint().unwrap());
    }

    #[test]
    fn the_shipped_plan_is_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/engine/fields.toml");
        assert_eq!(Plan::read(&path).unwrap().fields.len(), 30);
    }

    #[test]
    fn mistakes_are_named_with_the_nearest_key() {
        let wrong = error(&SMALL.replace("contact", "kontact"));
        assert!(
            wrong.starts_with("p.toml:6: unknown field `kontact`"),
            "{wrong}"
        );
        assert!(wrong.ends_with("did you mean `contact`?"), "{wrong}");
        assert!(error(&SMALL.replace("me@example.org", "")).contains("web.contact"));
        assert!(error(&SMALL.replace("http://h", "h")).contains("llm.url"));
        assert!(error(&SMALL.replace("\"a\"", "\"../a\"")).contains("`name`"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,80}", at in 0usize..150) {
            let _ = Plan::parse(Path::new("p"), &text);
            let mut plan = SMALL.to_owned();
            plan.insert_str(at % SMALL.len(), &text);
            let _ = Plan::parse(Path::new("p"), &plan);
        }
    }
}
