//! A page to look through by eye: some samples with picture, caption, question, answer and provenance.

use std::fmt::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opabinia_image::{Filter, ImageLimits, ImageSource, load, resize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::EngineError;

/// Longest side of a picture on the page in pixels.
const SIDE: f64 = 420.0;

/// Draws `count` samples of a run's pool, the same for the same seed, as one HTML file without references
/// to anything outside.
///
/// # Errors
/// If there is no pool.
pub fn sample_page(folder: &Path, count: usize, seed: u64) -> Result<String, EngineError> {
    let pool = folder.join("pool");
    let path = pool.join("samples.jsonl");
    let text = std::fs::read_to_string(&path).map_err(EngineError::io("read the pool", &path))?;
    let mut samples: Vec<Value> = text
        .lines()
        .map(|line| {
            serde_json::from_str(line)
                .map_err(|error| EngineError::Damaged(format!("{}: {error}", path.display())))
        })
        .collect::<Result<_, _>>()?;
    let all = samples.len();
    samples.sort_by_cached_key(|sample| {
        <[u8; 32]>::from(Sha256::digest(format!("{seed} {}", sample["id"])))
    });
    samples.truncate(count);
    let mut page = String::from(HEAD);
    let name = samples.first().and_then(|sample| sample["source"].as_str());
    let _ = write!(
        page,
        "<h1>{}</h1><p class=sum>{} of {all} samples, drawn with seed {seed}</p>{}<main>",
        escape(name.unwrap_or("Samples")),
        samples.len(),
        ledger(&pool)
    );
    for sample in &samples {
        page += &card(&pool, sample);
    }
    page += "</main>";
    Ok(page)
}

/// What was dropped and why, folded away.
fn ledger(pool: &Path) -> String {
    let manifest = std::fs::read(pool.join("manifest.json")).unwrap_or_default();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
    let counts = manifest["summary"]["ledger"].as_object();
    let rows: String = counts
        .into_iter()
        .flatten()
        .filter(|(what, _)| *what != "question: kept")
        .map(|(what, count)| format!("<tr><td>{}<td>{count}", escape(what)))
        .collect();
    match rows.is_empty() {
        true => String::new(),
        false => {
            format!("<details><summary>What was dropped</summary><table>{rows}</table></details>")
        }
    }
}

fn card(pool: &Path, sample: &Value) -> String {
    let text = |key: &str| escape(sample[key].as_str().unwrap_or_default());
    let turn = |i: usize| {
        let text = sample["conversations"][i]["value"].as_str();
        escape(text.unwrap_or_default().trim_start_matches("<image>\n"))
    };
    let picture = picture(&pool.join(sample["image"].as_str().unwrap_or_default()));
    let section = match text("section").as_str() {
        "" => "lead".to_owned(),
        section => section.to_owned(),
    };
    let path = ["field", "subfield", "topic"].map(text).join(" › ");
    let mut facts = vec![
        (
            "page",
            format!("{} › {section}", link(sample, "page", "title")),
        ),
        ("licence", link(sample, "licence_url", "licence")),
        ("author", text("author")),
        ("source", link(sample, "image_page", "image_page")),
    ];
    if let Some([caption, question]) = sample["agreement"].as_array().map(Vec::as_slice) {
        let number = |value: &Value| value.as_f64().unwrap_or_default();
        let scores = format!(
            "{:.2} caption, {:.2} question",
            number(caption),
            number(question)
        );
        facts.push(("agreement", scores));
    }
    facts.push(("id", format!("<code>{}</code>", text("id"))));
    let facts: String = facts
        .into_iter()
        .filter(|(_, what)| !what.is_empty())
        .map(|(name, what)| format!("<dt>{name}<dd>{what}"))
        .collect();
    format!(
        "<article><figure>{picture}<figcaption>{}</figcaption></figure><div><p class=path>{path}</p>\
         <p class=q>{}</p><p class=a>{}</p><dl>{facts}</dl></div></article>",
        text("caption"),
        turn(0),
        turn(1),
    )
}

/// A text that leads to an address, if there is one of the web.
fn link(sample: &Value, address: &str, shown: &str) -> String {
    let text = |key: &str| sample[key].as_str().unwrap_or_default();
    let (address, shown) = (text(address), escape(text(shown)));
    match address.starts_with("https://") || address.starts_with("http://") {
        true => format!("<a rel=noreferrer href='{}'>{shown}</a>", escape(address)),
        false => shown,
    }
}

/// A small copy of a picture inside of the page, or why there is none.
fn picture(path: &Path) -> String {
    let small =
        load(&ImageSource::File(path.to_owned()), &ImageLimits::default()).and_then(|picture| {
            let (width, height) = picture.size();
            let scale = (SIDE / f64::from(width.max(height))).min(1.0);
            let side = |length: u32| ((f64::from(length) * scale) as u32).max(1);
            resize(&picture, side(width), side(height), Filter::Bilinear).encode_png()
        });
    match small {
        Ok(png) => format!(
            "<img alt='' src='data:image/png;base64,{}'>",
            STANDARD.encode(png)
        ),
        Err(error) => format!("<p class=bad>{}</p>", escape(&error.to_string())),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
<title>Samples</title><style>\
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222;background:#fafafa}\
h1{margin:0}a{color:#15609a}.sum{color:#666;margin:.2rem 0 .6rem}summary{cursor:pointer;color:#15609a}\
table{border-collapse:collapse;font-size:.85rem;margin:.4rem 0}td{padding:.1rem 1.2rem .1rem 0;border-bottom:1px solid #e4e4e4}\
td+td{text-align:right;font-variant-numeric:tabular-nums}\
article{display:grid;grid-template-columns:minmax(12rem,1fr) 2fr;gap:1.5rem;background:#fff;\
border:1px solid #ddd;border-radius:8px;padding:1.2rem;margin:1.2rem 0}figure{margin:0}\
img{width:100%;max-height:22rem;object-fit:contain;object-position:top left;display:block}\
figcaption{color:#666;font-size:.85rem;margin-top:.4rem}.path{color:#777;font-size:.85rem;margin:0}\
.q{font-weight:600;margin:.5rem 0}.a{margin:.5rem 0 1rem}dl{display:grid;grid-template-columns:6rem 1fr;gap:.1rem 0;font-size:.85rem;\
color:#444;margin:0}dt{color:#777}dd{margin:0;overflow-wrap:anywhere}.bad{color:#a00}\
@media(max-width:40rem){article{grid-template-columns:1fr}}\
</style>";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_wrote_stays_text() {
        let sample = json!({
            "caption": "<script>alert(1)</script>", "title": "A & B", "page": "javascript:alert(1)",
            "author": "' onload='x", "licence": "CC0", "licence_url": "https://h/?a='b",
            "conversations": [{"value": "<image>\n<b>?"}, {"value": "\"yes\""}],
        });
        let card = card(Path::new("nowhere"), &sample);
        for part in [
            "&lt;script&gt;alert(1)&lt;/script&gt;",
            "A &amp; B › lead",
            "&#39; onload=&#39;x",
            "href='https://h/?a=&#39;b'>CC0</a>",
            "<p class=q>&lt;b&gt;?</p>",
            "&quot;yes&quot;",
        ] {
            assert!(card.contains(part), "{part}: {card}");
        }
        assert!(!card.contains("javascript"), "{card}");
    }
}
