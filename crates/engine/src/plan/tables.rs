//! The tables of a plan, with their defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;

use opabinia_endpoint::TokenLimit;
use serde::{Deserialize, Serialize};

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
        /// Failed requests in a row after which a host of pages or pictures is left alone for the rest of the
        /// run; a service that the plan names stops the run.
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
