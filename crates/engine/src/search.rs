//! Who finds pages for a topic, and who reads them: the encyclopedia itself, or Google Programmable Search and
//! any site.

use opabinia_endpoint::key_of;
use serde_json::{Value, json};
use url::Url;

use crate::charset::decode;
use crate::error::{Failure, Fault};
use crate::html::page;
use crate::outside::{Asker, Outside, Source};
use crate::plan::{Finder, Plan};
use crate::web::{Purpose, Request, Secret};
use crate::wiki::{Wiki, address};

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

/// Who reads the pages that were found.
pub(crate) trait Pages: Sync {
    /// A page as `{title, url, revision, id, sections, files}`; `files` is what is known of its pictures.
    fn page(&self, hit: &Value, outside: &Outside<'_>, asker: Asker<'_>) -> Result<Value, Fault>;
}

/// Google Programmable Search.
pub(crate) struct Google<'a> {
    plan: &'a Plan,
}

/// Pages of other sites. Nothing is known about the rights to their pictures.
pub(crate) struct OtherSites;

/// The provider that a plan names.
pub(crate) fn finder(plan: &Plan) -> Box<dyn Search + '_> {
    match plan.search.provider {
        Finder::Mediawiki => Box::new(Wiki::new(plan)),
        Finder::Google => Box::new(Google { plan }),
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
        let pairs = [
            ("cx", search.google_engine.as_str()),
            ("q", topic),
            ("num", &results),
        ];
        let url = address(&search.google_url, &pairs)?;
        let mut request = Request::get(Purpose::Service, url);
        if matches!(outside.source, Source::Web(_)) {
            request.secret = Some(Secret::Query(key_of(&search.google_key_variable)?));
        }
        request.unusable = |body| {
            let parsed: Result<Value, _> = serde_json::from_slice(body);
            parsed.err().map(|error| format!("it is no JSON: {error}"))
        };
        let answer = outside.fetch(&request, asker)?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let wiki = Url::parse(&self.plan.wiki.api).ok();
        let items = value["items"].as_array().into_iter().flatten();
        let links = items.filter_map(|item| item["link"].as_str());
        Ok(links.filter_map(|link| hit(link, wiki.as_ref())).collect())
    }
}

/// What a link leads to. The name of a page is in its address, not in the title that a search shows.
fn hit(link: &str, wiki: Option<&Url>) -> Option<Value> {
    let url = Url::parse(link).ok()?;
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    // The encyclopedia's pages for telephones are the same pages.
    let host = |url: &Url| url.host_str().map(|host| host.replace(".m.", "."));
    let is_ours = wiki.is_some_and(|wiki| host(wiki) == host(&url));
    match url.path().strip_prefix("/wiki/").filter(|_| is_ours) {
        Some(name) => {
            let pair = format!("x={}", name.replace('+', "%2B").replace('&', "%26"));
            let (_, name) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
            Some(json!({"title": name.replace('_', " ")}))
        }
        None => {
            let mut url = url;
            url.set_fragment(None);
            Some(json!({"url": url.as_str()}))
        }
    }
}

impl Pages for OtherSites {
    fn page(&self, hit: &Value, outside: &Outside<'_>, asker: Asker<'_>) -> Result<Value, Fault> {
        let url = hit["url"].as_str().unwrap_or_default();
        let answer = outside.fetch(&Request::get(Purpose::Page, url), asker)?;
        if !answer.content_type.to_ascii_lowercase().contains("html") {
            let message = format!("`{url}` is no page, but `{}`", answer.content_type);
            return Err(Failure::lasting("page", message).into());
        }
        let base = Url::parse(&answer.url)
            .map_err(|error| Failure::lasting("address", error.to_string()))?;
        let html = decode(&answer.body, &answer.content_type);
        let (title, found) = page(&html, &base)
            .map_err(|why| Failure::lasting("page", format!("`{url}`: {why}")))?;
        let title = title.unwrap_or_else(|| url.to_owned());
        Ok(json!({
            "title": title, "url": base.as_str(), "revision": null, "id": base.as_str(),
            "sections": found, "files": {},
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn links_are_pages_of_the_encyclopedia_or_of_others() {
        let wiki = Url::parse("https://en.wiki.test/w/api.php").unwrap();
        let found = |link| hit(link, Some(&wiki));
        for link in [
            "https://en.wiki.test/wiki/Caf%C3%A9_%26_bar#Food",
            "https://en.m.wiki.test/wiki/Café_&_bar",
        ] {
            assert_eq!(found(link), Some(json!({"title": "Café & bar"})), "{link}");
        }
        assert_eq!(
            found("https://other.test/wiki/Yeast#x"),
            Some(json!({"url": "https://other.test/wiki/Yeast"}))
        );
        assert_eq!(found("mailto:a@b.test"), None);
        assert_eq!(found("no address"), None);
    }

    proptest! {
        #[test]
        fn no_link_makes_it_panic(path in ".{0,30}") {
            let wiki = Url::parse("https://en.wiki.test/w/api.php").unwrap();
            let _ = hit(&path, Some(&wiki));
            let _ = hit(&format!("https://en.wiki.test/wiki/{path}"), Some(&wiki));
        }
    }
}
