//! Pages and pictures of a MediaWiki, by its action API, and pages found by Google.

use opabinia_endpoint::key_of;
use serde_json::{Value, json};
use url::Url;

use crate::error::{Failure, Fault};
use crate::html::{plain, sections};
use crate::outside::{Asker, Outside, Source};
use crate::plan::{Finder, Plan};
use crate::web::{Purpose, Request, Secret};

/// Who finds pages for a topic.
pub(crate) trait Search: Sync {
    /// Hits as `{"title": …}` for the encyclopedia or `{"url": …}` for other sites.
    fn find(
        &self,
        topic: &str,
        outside: &Outside<'_>,
        asker: Asker<'_>,
    ) -> Result<Vec<Value>, Fault>;
}

/// The encyclopedia.
pub(crate) struct Wiki<'a> {
    plan: &'a Plan,
}

/// Google Programmable Search.
pub(crate) struct Google<'a> {
    plan: &'a Plan,
}

/// The provider that a plan names.
pub(crate) fn search(plan: &Plan) -> Box<dyn Search + '_> {
    match plan.search.provider {
        Finder::Mediawiki => Box::new(Wiki { plan }),
        Finder::Google => Box::new(Google { plan }),
    }
}

fn address(base: &str, pairs: &[(&str, &str)]) -> Result<String, Fault> {
    let mut url = Url::parse(base)
        .map_err(|error| Failure::lasting("address", format!("`{base}`: {error}")))?;
    url.query_pairs_mut().extend_pairs(pairs);
    Ok(url.into())
}

/// What MediaWiki says instead of an answer when it has too much to do.
fn busy(body: &[u8]) -> Option<String> {
    let head = body.get(..body.len().min(4096))?;
    // Answers are large, and those that say no are not.
    let value: Value = serde_json::from_slice(head).ok()?;
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
        request.busy = busy;
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

    /// A page as `{title, url, revision, id, sections}`, with what is known of its pictures.
    pub(crate) fn page(
        &self,
        title: &str,
        outside: &Outside<'_>,
        asker: Asker<'_>,
    ) -> Result<Value, Fault> {
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
        let mut known = serde_json::Map::new();
        // The API takes 50 names at most.
        for some in files.chunks(50) {
            self.describe(some, &mut known, outside, asker)?;
        }
        Ok(
            json!({"title": found, "url": base.as_str(), "revision": page["revid"], "id": page["pageid"], "sections": sections, "files": known}),
        )
    }

    fn address_of(&self, title: &str) -> Result<Url, Fault> {
        let error = |error: url::ParseError| Failure::lasting("address", error.to_string());
        let mut url = Url::parse(&self.plan.wiki.api).map_err(error)?;
        url.set_query(None);
        url.set_path(&format!("/wiki/{}", title.replace(' ', "_")));
        Ok(url)
    }

    /// Licence, author, source and address of pictures.
    fn describe(
        &self,
        files: &[String],
        known: &mut serde_json::Map<String, Value>,
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
        let value = self.call(&asked, outside, asker)?;
        for page in value["query"]["pages"].as_array().into_iter().flatten() {
            let (Some(title), info) = (page["title"].as_str(), &page["imageinfo"][0]) else {
                continue;
            };
            let meta = |name: &str| {
                info["extmetadata"][name]["value"]
                    .as_str()
                    .map(plain)
                    .filter(|text| !text.is_empty())
            };
            let name = title.split_once(':').map_or(title, |(_, name)| name);
            if info["url"].is_string() {
                known.insert(name.to_owned(), json!({
                    "url": info["url"], "drawn": info["thumburl"], "width": info["width"], "height": info["height"],
                    "mime": info["mime"], "page": info["descriptionurl"], "licence": meta("LicenseShortName"),
                    "licence_url": meta("LicenseUrl"), "author": meta("Artist"), "credit": meta("Credit"),
                }));
            }
        }
        Ok(())
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

impl Search for Google<'_> {
    fn find(
        &self,
        topic: &str,
        outside: &Outside<'_>,
        asker: Asker<'_>,
    ) -> Result<Vec<Value>, Fault> {
        let search = &self.plan.search;
        let results = search.results.to_string();
        let mut request = Request::get(
            Purpose::Service,
            address(
                &search.google_url,
                &[
                    ("cx", &search.google_engine),
                    ("q", topic),
                    ("num", &results),
                ],
            )?,
        );
        if matches!(outside.source, Source::Web(_)) {
            request.secret = Some(Secret::Query(key_of(&search.google_key_variable)?));
        }
        let answer = outside.fetch(&request, asker)?;
        let value: Value = serde_json::from_slice(&answer.body).map_err(|error| {
            Failure::lasting("page", format!("the search answered with no JSON: {error}"))
        })?;
        let wiki = Url::parse(&self.plan.wiki.api).ok();
        let links = value["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["link"].as_str());
        Ok(links
            .filter_map(|link| {
                let url = Url::parse(link).ok()?;
                // The name of the page is in its address, not in the title that a search shows.
                let ours = wiki
                    .as_ref()
                    .is_some_and(|wiki| wiki.host_str() == url.host_str());
                match url.path().strip_prefix("/wiki/").filter(|_| ours) {
                    Some(name) => {
                        let pair = format!("x={}", name.replace('+', "%2B"));
                        let title = url::form_urlencoded::parse(pair.as_bytes())
                            .next()?
                            .1
                            .replace('_', " ");
                        Some(json!({"title": title}))
                    }
                    None => Some(json!({"url": url.as_str()})),
                }
            })
            .collect())
    }
}

/// A page of another site. Nothing is known about the rights to its pictures.
pub(crate) fn other_page(
    url: &str,
    outside: &Outside<'_>,
    asker: Asker<'_>,
) -> Result<Value, Fault> {
    let answer = outside.fetch(&Request::get(Purpose::Page, url), asker)?;
    if !answer.content_type.to_ascii_lowercase().contains("html") {
        return Err(Failure::lasting(
            "page",
            format!("`{url}` is no page, but `{}`", answer.content_type),
        )
        .into());
    }
    let base =
        Url::parse(&answer.url).map_err(|error| Failure::lasting("address", error.to_string()))?;
    let html = String::from_utf8_lossy(&answer.body);
    let found = sections(&html, &base)
        .map_err(|why| Failure::lasting("page", format!("`{url}`: {why}")))?;
    let title = html
        .split_once("<title>")
        .and_then(|(_, rest)| rest.split_once("</title>"))
        .map(|(title, _)| plain(title));
    Ok(
        json!({"title": title.unwrap_or_else(|| url.to_owned()), "url": base.as_str(), "revision": null, "id": base.as_str(), "sections": found, "files": {}}),
    )
}
