//! Pages and pictures of a MediaWiki, by its action API.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use url::Url;

use crate::error::{Failure, Fault};
use crate::html::{plain, sections};
use crate::outside::{Asker, Outside};
use crate::plan::Plan;
use crate::search::{Pages, Search};
use crate::web::{Purpose, Request};

/// The encyclopedia.
pub(crate) struct Wiki<'a> {
    plan: &'a Plan,
}

/// The most times that a list is continued.
const MAX_PARTS: usize = 20;

pub(crate) fn address(base: &str, pairs: &[(&str, &str)]) -> Result<String, Fault> {
    let mut url = Url::parse(base)
        .map_err(|error| Failure::lasting("address", format!("`{base}`: {error}")))?;
    url.query_pairs_mut().extend_pairs(pairs);
    Ok(url.into())
}

/// What MediaWiki says instead of an answer when it has too much to do, and what is no answer of its.
fn unusable(body: &[u8]) -> Option<String> {
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return Some(format!("it is no JSON: {error}")),
    };
    let code = value["error"]["code"].as_str()?;
    ["maxlag", "ratelimited", "readonly"]
        .contains(&code)
        .then(|| code.to_owned())
}

impl<'a> Wiki<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self { plan }
    }

    fn call(
        &self,
        pairs: &[(&str, &str)],
        outside: &Outside<'_>,
        asker: Asker<'_>,
    ) -> Result<Value, Fault> {
        let mut all = pairs.to_vec();
        all.extend([("format", "json"), ("formatversion", "2"), ("maxlag", "5")]);
        let mut request = Request::get(Purpose::Service, address(&self.plan.wiki.api, &all)?);
        request.unusable = unusable;
        let answer = outside.fetch(&request, asker)?;
        let value: Value = serde_json::from_slice(&answer.body).map_err(|error| {
            Failure::lasting(
                "page",
                format!("`{}` answered with no JSON: {error}", request.url),
            )
        })?;
        match value["error"]["info"]
            .as_str()
            .or_else(|| value["error"]["code"].as_str())
        {
            Some(problem) => {
                Err(Failure::lasting("page", format!("the encyclopedia says: {problem}")).into())
            }
            None => Ok(value),
        }
    }

    fn address_of(&self, title: &str) -> Result<Url, Fault> {
        let error = |error: url::ParseError| Failure::lasting("address", error.to_string());
        let mut url = Url::parse(&self.plan.wiki.api).map_err(error)?;
        url.set_query(None);
        // A name may hold a percent sign of its own.
        let name = title.replace('%', "%25").replace(' ', "_");
        url.set_path(&format!("/wiki/{name}"));
        Ok(url)
    }

    /// Licence, author, source and address of pictures.
    fn describe(
        &self,
        files: &[String],
        known: &mut Map<String, Value>,
        outside: &Outside<'_>,
        asker: Asker<'_>,
    ) -> Result<(), Fault> {
        let titles: Vec<String> = files.iter().map(|file| format!("File:{file}")).collect();
        let (titles, width) = (titles.join("|"), self.plan.pictures.max_width.to_string());
        let asked = [
            ("action", "query"),
            ("prop", "imageinfo"),
            ("iiprop", "url|size|mime|extmetadata"),
            ("iiurlwidth", width.as_str()),
            ("titles", titles.as_str()),
        ];
        let mut more: Vec<(String, String)> = Vec::new();
        let mut names = HashMap::new();
        for _ in 0..MAX_PARTS {
            let mut pairs = asked.to_vec();
            pairs.extend(
                more.iter()
                    .map(|(key, value)| (key.as_str(), value.as_str())),
            );
            let value = self.call(&pairs, outside, asker)?;
            note_files(&value["query"], &mut names, known);
            let Some(rest) = value["continue"].as_object() else {
                break;
            };
            let text = |value: &Value| {
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            };
            more = rest
                .iter()
                .map(|(key, value)| (key.clone(), text(value)))
                .collect();
        }
        Ok(())
    }
}

/// A title without its namespace, which every language calls otherwise.
fn bare(title: &str) -> &str {
    title.split_once(':').map_or(title, |(_, name)| name)
}

/// Notes what an answer says about pictures; `names` are those that it knows by other names than asked.
fn note_files(query: &Value, names: &mut HashMap<String, String>, known: &mut Map<String, Value>) {
    for list in ["normalized", "redirects"] {
        for change in query[list].as_array().into_iter().flatten() {
            if let (Some(from), Some(to)) = (change["from"].as_str(), change["to"].as_str()) {
                let asked = names.get(bare(from)).cloned();
                let asked = asked.unwrap_or_else(|| bare(from).to_owned());
                names.insert(bare(to).to_owned(), asked);
            }
        }
    }
    for page in query["pages"].as_array().into_iter().flatten() {
        let (Some(title), info) = (page["title"].as_str(), &page["imageinfo"][0]) else {
            continue;
        };
        if !info["url"].is_string() {
            continue;
        }
        let meta = |name: &str| {
            let value = info["extmetadata"][name]["value"].as_str();
            value.map(plain).filter(|text| !text.is_empty())
        };
        let described = json!({
            "url": info["url"], "drawn": info["thumburl"], "width": info["width"], "height": info["height"],
            "mime": info["mime"], "page": info["descriptionurl"], "licence": meta("LicenseShortName"),
            "licence_url": meta("LicenseUrl"), "author": meta("Artist"), "credit": meta("Credit"),
        });
        if let Some(asked) = names.get(bare(title)) {
            known.insert(asked.clone(), described.clone());
        }
        known.insert(bare(title).to_owned(), described);
    }
}

impl Pages for Wiki<'_> {
    fn page(&self, hit: &Value, outside: &Outside<'_>, asker: Asker<'_>) -> Result<Value, Fault> {
        let title = hit["title"].as_str().unwrap_or_default();
        let asked = [
            ("action", "parse"),
            ("page", title),
            ("prop", "text|revid"),
            ("redirects", "1"),
            ("disableeditsection", "1"),
        ];
        let value = self.call(&asked, outside, asker)?;
        let page = &value["parse"];
        let (Some(found), Some(html)) = (page["title"].as_str(), page["text"].as_str()) else {
            return Err(Failure::lasting(
                "page",
                format!("the encyclopedia has no text for `{title}`"),
            )
            .into());
        };
        let base = self.address_of(found)?;
        let sections = sections(html, &base)
            .map_err(|why| Failure::lasting("page", format!("`{found}`: {why}")))?;
        let files: Vec<String> = {
            let mut files: Vec<String> = sections
                .iter()
                .flat_map(|s| &s.pictures)
                .filter_map(|p| p.file.clone())
                .collect();
            files.sort();
            files.dedup();
            files
        };
        let mut known = Map::new();
        // The API takes 50 names at most.
        for some in files.chunks(50) {
            self.describe(some, &mut known, outside, asker)?;
        }
        Ok(
            json!({"title": found, "url": base.as_str(), "revision": page["revid"], "id": page["pageid"], "sections": sections, "files": known}),
        )
    }
}

impl Search for Wiki<'_> {
    fn find(
        &self,
        topic: &str,
        outside: &Outside<'_>,
        asker: Asker<'_>,
    ) -> Result<Vec<Value>, Fault> {
        let results = self.plan.search.results.to_string();
        let asked = [
            ("action", "query"),
            ("list", "search"),
            ("srsearch", topic),
            ("srlimit", results.as_str()),
            ("srnamespace", "0"),
        ];
        let value = self.call(&asked, outside, asker)?;
        let hits = value["query"]["search"].as_array().into_iter().flatten();
        Ok(hits
            .filter_map(|hit| hit["title"].as_str())
            .map(|title| json!({"title": title}))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pictures_are_known_by_the_names_they_were_asked_for() {
        let query = json!({
            "normalized": [{"from": "File:a_b.png", "to": "File:A b.png"}],
            "redirects": [{"from": "File:A b.png", "to": "File:New.png"}],
            "pages": [
                {"title": "Datei:New.png", "imageinfo": [{"url": "http://h/New.png", "extmetadata": {
                    "LicenseShortName": {"value": "CC0"}, "Artist": {"value": "<b>A</b> person"}}}]},
                {"title": "File:Gone.png", "missing": true},
            ],
        });
        let mut known = Map::new();
        note_files(&query, &mut HashMap::new(), &mut known);
        assert_eq!(known["a_b.png"]["licence"], "CC0");
        assert_eq!(known["New.png"]["author"], "A person");
        assert!(!known.contains_key("Gone.png"));
        assert_eq!(
            unusable(br#"{"error": {"code": "maxlag"}}"#).as_deref(),
            Some("maxlag")
        );
        assert_eq!(unusable(br#"{"error": {"code": "missingtitle"}}"#), None);
        assert!(unusable(b"<html>").is_some());
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<u8>().prop_map(Value::from),
            "[a-z:<&]{0,6}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            Just("pages"),
            Just("title"),
            Just("imageinfo"),
            Just("url"),
            Just("extmetadata"),
            Just("Artist"),
            Just("value"),
            Just("normalized"),
            Just("from"),
            Just("to"),
        ];
        leaf.prop_recursive(6, 60, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((key.clone(), inner), 0..5).prop_map(|pairs| {
                    Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(value in tree(), text in ".{0,40}") {
            note_files(&value, &mut HashMap::new(), &mut Map::new());
            let _ = unusable(value.to_string().as_bytes());
            let _ = unusable(text.as_bytes());
        }
    }
}
