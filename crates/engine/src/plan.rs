//! Plans: everything that fixes a run, in one TOML file.
//!
//! A plan is read strictly: a key that nobody knows is refused with the nearest one that is known, and a
//! value out of range with its key. The plan with all defaults filled in ([`Plan::resolved`]) is written
//! beside the outputs, and is itself a plan. Keys of services are never in a plan: it names environment
//! variables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use opabinia_endpoint::TokenLimit;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::EngineError;

macro_rules! table {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty = $default:expr,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_meta])* pub $field: $kind,)* }
        impl Default for $name {
            fn default() -> Self { Self { $($field: $default,)* } }
        }
    };
}

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

/// How the model's answers are held to their form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Structured {
    /// By a JSON schema that the server enforces.
    Schema,
    /// By the server's JSON mode.
    Object,
    /// By words alone.
    Words,
}

table! {
    /// `[llm]`.
    LlmTable {
        /// Address, such as `http://localhost:8000/v1`.
        url: String = String::new(),
        /// Name of the model.
        model: String = String::new(),
        /// Environment variable with the key.
        key_variable: Option<String> = None,
        /// What the server calls the limit of an answer.
        token_limit: TokenLimit = TokenLimit::default(),
        /// How answers are held to their form.
        structured: Structured = Structured::Schema,
        /// Longest answer in tokens.
        max_tokens: usize = 2048,
        /// How often an answer that is not as wanted is asked for.
        tries: u32 = 3,
        /// Price of a million tokens that are read.
        price_in: f64 = 0.0,
        /// Price of a million tokens that are written.
        price_out: f64 = 0.0,
        /// Seconds that an answer may take.
        timeout_seconds: f64 = 120.0,
    }
}
table! {
    /// `[wiki]`.
    WikiTable {
        /// The action API of a MediaWiki.
        api: String = "https://en.wikipedia.org/w/api.php".to_owned(),
    }
}
/// Who finds pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finder {
    /// The encyclopedia's own search.
    Mediawiki,
    /// Google Programmable Search.
    Google,
}
table! {
    /// `[search]`.
    SearchTable {
        /// Who is asked.
        provider: Finder = Finder::Mediawiki,
        /// Pages per topic, 1 to 10.
        results: usize = 10,
        /// Whether pages outside of the encyclopedia are read too.
        other_sites: bool = false,
        /// Address of Google's API.
        google_url: String = "https://www.googleapis.com/customsearch/v1".to_owned(),
        /// Environment variable with the key for Google.
        google_key_variable: String = "GOOGLE_API_KEY".to_owned(),
        /// Identifier of the search engine (`cx`).
        google_engine: String = String::new(),
    }
}
table! {
    /// `[topics]`.
    TopicsTable {
        /// Subfields that are asked for where a field names none.
        subfields: usize = 6,
        /// Topics per subfield.
        topics: usize = 20,
    }
}
table! {
    /// `[sections]`.
    SectionsTable {
        /// Sections with fewer words are dropped.
        min_words: usize = 50,
        /// Words of a section that the model reads.
        max_words: usize = 1500,
        /// Headings whose sections are skipped, with what is below them.
        skip: Vec<String> = ["See also", "References", "External links", "Further reading", "Notes",
            "Bibliography", "Sources", "Gallery"].map(str::to_owned).into(),
    }
}
/// What is done with drawings in SVG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Svg {
    /// The encyclopedia draws them.
    Rendered,
    /// They are dropped.
    Refused,
}
table! {
    /// `[pictures]`.
    PicturesTable {
        /// Width in pixels above which a smaller version is asked for, where the host makes one.
        max_width: u32 = 2048,
        /// Shortest side in pixels.
        min_side: u32 = 64,
        /// Longest side divided by the shortest.
        max_aspect: f64 = 8.0,
        /// Largest file in bytes.
        max_bytes: u64 = 32 << 20,
        /// Most pixels.
        max_pixels: u64 = 64_000_000,
        /// What is done with SVG.
        svg: Svg = Svg::Rendered,
        /// Licences that are taken, by how their names begin; all that are named, if empty.
        licences: Vec<String> = Vec::new(),
        /// Whether pictures without a known licence are dropped.
        need_licence: bool = true,
        /// Bits of the difference hash in which two pictures may differ and still count as one.
        near_bits: u32 = 2,
    }
}
table! {
    /// `[questions]`.
    QuestionsTable {
        /// Questions about each picture.
        per_picture: usize = 1,
        /// Pictures of one section that are asked about.
        max_pictures: usize = 4,
    }
}
table! {
    /// `[filters]`.
    FiltersTable {
        /// Words of a question, at least.
        min_question_words: usize = 3,
        /// Words of an answer, at most.
        max_answer_words: usize = 150,
        /// Share of the answer's words that the question may hold.
        max_leak: f64 = 0.75,
        /// Questions that contain one of these speak of what the sample does not show.
        forbidden: Vec<String> = ["the caption", "the text", "the article", "the passage"].map(str::to_owned).into(),
        /// Files of samples that the new ones must not repeat.
        pools: Vec<PathBuf> = Vec::new(),
        /// Folder of the pictures of `pools`; without it only texts are compared.
        pool_pictures: Option<PathBuf> = None,
    }
}
table! {
    /// `[agreement]`: an encoder pair behind an endpoint for embeddings of texts and pictures.
    AgreementTable {
        /// Address, such as `http://localhost:7997/v1`.
        url: String = String::new(),
        /// Name of the pair.
        model: String = String::new(),
        /// Environment variable with the key.
        key_variable: Option<String> = None,
        /// Smallest cosine between picture and caption.
        min_caption: f64 = 0.15,
        /// Smallest cosine between picture and question.
        min_question: f64 = 0.10,
    }
}
table! {
    /// `[web]`.
    WebTable {
        /// Address or page where the hosts reach whoever runs this; part of the user agent.
        contact: String = String::new(),
        /// Jobs at the same time.
        workers: usize = 4,
        /// Requests per second to one host.
        per_second: f64 = 2.0,
        /// Requests to one host at the same time.
        concurrent: usize = 2,
        /// Seconds for one attempt.
        timeout_seconds: f64 = 60.0,
        /// How often a failed attempt is made again.
        retries: u32 = 5,
        /// Seconds before the second attempt; each further wait is twice as long, with jitter.
        first_wait_seconds: f64 = 1.0,
        /// Longest wait in seconds, also where a host asks for more.
        longest_wait_seconds: f64 = 300.0,
        /// Redirects that are followed.
        redirects: u32 = 5,
        /// Largest page or answer in bytes.
        max_page_bytes: u64 = 8 << 20,
        /// Failed requests to one host in a row that stop the run.
        give_up_after: u32 = 20,
        /// Whether pictures and pages may lie on private addresses.
        private_addresses: bool = false,
        /// Other rates for some hosts.
        hosts: BTreeMap<String, Rate> = BTreeMap::new(),
    }
}
/// Rate of one host.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests per second.
    pub per_second: f64,
    /// Requests at the same time.
    pub concurrent: usize,
}
table! {
    /// `[budget]`; what is absent is not limited.
    BudgetTable {
        /// Tokens, read and written.
        tokens: Option<u64> = None,
        /// Money, in the unit of the prices.
        money: Option<f64> = None,
        /// Requests to the model.
        requests: Option<u64> = None,
    }
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
        let plan: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map(|text| 1 + text.matches('\n').count());
            EngineError::Plan {
                place: line.map_or_else(|| name.to_string(), |line| format!("{name}:{line}")),
                problem: explain(error.message()),
            }
        })?;
        match plan.complaint() {
            None => Ok(plan),
            Some(problem) => Err(EngineError::Plan {
                place: name.to_string(),
                problem,
            }),
        }
    }

    fn complaint(&self) -> Option<String> {
        let say = |key: &str, wanted: &str| Some(format!("`{key}` must be {wanted}"));
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let positive = |value: f64| value.is_finite() && value > 0.0;
        // A name is part of paths and of identifiers.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(plain) {
            return say("name", "letters, digits, `-`, `_` and `.`");
        }
        if opabinia_endpoint::chat_url(&self.llm.url).is_none() {
            return say("llm.url", "an address such as `http://localhost:8000/v1`");
        }
        if self.llm.model.is_empty() {
            return say("llm.model", "the name of a model");
        }
        if self.llm.tries == 0 || self.llm.max_tokens == 0 || !positive(self.llm.timeout_seconds) {
            return say(
                "llm.tries`, `llm.max_tokens` and `llm.timeout_seconds",
                "above 0",
            );
        }
        let price = |price: f64| price.is_finite() && price >= 0.0;
        if !price(self.llm.price_in) || !price(self.llm.price_out) {
            return say("llm.price_in` and `llm.price_out", "0 or more");
        }
        if self.budget.money.is_some_and(|money| !price(money)) {
            return say("budget.money", "0 or more");
        }
        if self.budget.money.is_some() && self.llm.price_in + self.llm.price_out == 0.0 {
            return say(
                "llm.price_in` and `llm.price_out",
                "given where `budget.money` is",
            );
        }
        if url::Url::parse(&self.wiki.api).is_err() {
            return say(
                "wiki.api",
                "an address such as `https://en.wikipedia.org/w/api.php`",
            );
        }
        if !(1..=10).contains(&self.search.results) {
            return say("search.results", "1 to 10");
        }
        if self.search.provider == Finder::Google && self.search.google_engine.is_empty() {
            return say("search.google_engine", "the identifier of a search engine");
        }
        if self.topics.subfields == 0 || self.topics.topics == 0 {
            return say("topics.subfields` and `topics.topics", "1 or more");
        }
        if self.questions.per_picture == 0 || self.questions.max_pictures == 0 {
            return say(
                "questions.per_picture` and `questions.max_pictures",
                "1 or more",
            );
        }
        if !share(self.filters.max_leak) {
            return say("filters.max_leak", "0 to 1");
        }
        if !(self.pictures.max_aspect.is_finite() && self.pictures.max_aspect >= 1.0) {
            return say("pictures.max_aspect", "1 or more");
        }
        let line = |c: char| !c.is_control() && c.is_ascii();
        if self.web.contact.trim().is_empty() || !self.web.contact.chars().all(line) {
            return say(
                "web.contact",
                "a mail address or a page: hosts want to know whom to reach",
            );
        }
        let web = &self.web;
        let rates = web
            .hosts
            .values()
            .map(|rate| (rate.per_second, rate.concurrent));
        for (per_second, concurrent) in rates.chain([(web.per_second, web.concurrent)]) {
            if !positive(per_second) || concurrent == 0 {
                return say("per_second` and `concurrent", "above 0");
            }
        }
        let waits = [
            web.timeout_seconds,
            web.first_wait_seconds,
            web.longest_wait_seconds,
        ];
        if !waits.into_iter().all(|wait| positive(wait) && wait < 1e6) {
            return say("web`'s seconds `", "above 0");
        }
        if !(1..=64).contains(&web.workers) || web.give_up_after == 0 {
            return say(
                "web.workers` and `web.give_up_after",
                "1 or more (64 workers at most)",
            );
        }
        if self.fields.is_empty() || self.fields.iter().any(|field| field.name.trim().is_empty()) {
            return say("fields", "at least one, each with a name");
        }
        None
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

    /// The same for plans that ask the same things: budgets, manners and prices make no difference.
    pub(crate) fn fingerprint(&self) -> Result<String, EngineError> {
        let mut same = self.clone();
        same.web = WebTable::default();
        same.budget = BudgetTable::default();
        same.llm.price_in = 0.0;
        same.llm.price_out = 0.0;
        same.llm.timeout_seconds = LlmTable::default().timeout_seconds;
        same.llm.key_variable = None;
        same.filters = FiltersTable::default();
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
