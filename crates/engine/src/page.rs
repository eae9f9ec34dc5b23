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
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let all = samples.len();
    samples.sort_by_cached_key(|sample| {
        <[u8; 32]>::from(Sha256::digest(format!("{seed} {}", sample["id"])))
    });
    samples.truncate(count);
    let mut page = String::from(HEAD);
    let _ = write!(
        page,
        "<h1>Samples</h1><p class=sum>{} of {all} samples, drawn with seed {seed}</p><main>",
        samples.len()
    );
    for sample in &samples {
        page += &card(&pool, sample);
    }
    page += "</main>";
    Ok(page)
}

fn card(pool: &Path, sample: &Value) -> String {
    let text = |key: &str| escape(sample[key].as_str().unwrap_or_default());
    let turn = |i: usize| {
        escape(
            sample["conversations"][i]["value"]
                .as_str()
                .unwrap_or_default()
                .trim_start_matches("<image>\n"),
        )
    };
    let picture = picture(&pool.join(sample["image"].as_str().unwrap_or_default()));
    let scores = match sample["agreement"].as_array() {
        Some(scores) => format!(
            "<dt>agreement<dd>{:.2} caption, {:.2} question",
            scores.first().and_then(Value::as_f64).unwrap_or_default(),
            scores.get(1).and_then(Value::as_f64).unwrap_or_default()
        ),
        None => String::new(),
    };
    format!(
        "<article><figure>{picture}<figcaption>{}</figcaption></figure><div><p class=path>{} › {} › {}</p>\
         <p class=q>{}</p><p class=a>{}</p><dl><dt>page<dd>{} › {}<dt>licence<dd>{}<dt>author<dd>{}{scores}<dt>id<dd><code>{}</code></dl></div></article>",
        text("caption"),
        text("field"),
        text("subfield"),
        text("topic"),
        turn(0),
        turn(1),
        text("title"),
        if text("section").is_empty() {
            "(lead)".to_owned()
        } else {
            text("section")
        },
        text("licence"),
        text("author"),
        text("id"),
    )
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
h1{margin:0}.sum{color:#666}article{display:grid;grid-template-columns:minmax(12rem,1fr) 2fr;gap:1.5rem;background:#fff;\
border:1px solid #ddd;border-radius:8px;padding:1.2rem;margin:1.2rem 0}figure{margin:0}img{max-width:100%;display:block;\
border:1px solid #eee}figcaption{color:#666;font-size:.85rem;margin-top:.4rem}.path{color:#888;font-size:.85rem;margin:0}\
.q{font-weight:600;margin:.5rem 0}.a{margin:.5rem 0 1rem}dl{display:grid;grid-template-columns:6rem 1fr;font-size:.85rem;\
color:#555;margin:0}dd{margin:0;overflow-wrap:anywhere}.bad{color:#a00}@media(max-width:40rem){article{grid-template-columns:1fr}}\
</style>";
