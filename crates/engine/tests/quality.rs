//! What is kept: agreement, duplicates, leaks, licences, drawings.
#![allow(missing_docs, clippy::unwrap_used)]

mod loopback;
#[path = "loopback/runs.rs"]
mod runs;

use std::path::Path;

use loopback::{Reply, World, chat, json_reply, png, reply};
use opabinia_engine::{Plan, RunOptions, Stop, replay, run};
use opabinia_image::{ImageLimits, ImageSource, RgbImage, load};
use runs::{ALL, engine, faulty, ledger, run_text, samples};
use serde_json::{Value, json};

/// A pair of encoders: pictures lie on one axis; YeastA's caption on the other, and questions about one page on
/// the wrong end. Its first answers are none.
fn pair(key: &str, before: usize, usual: Reply) -> Reply {
    let Some(body) = key.strip_prefix("/v1/embeddings ") else {
        return usual;
    };
    if before == 0 {
        return reply(200, "", "<html>starting");
    }
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["model"], "pair");
    let input = body["input"].as_array().unwrap();
    let vector = |text: &Value| match (body["modality"].as_str(), text.as_str().unwrap()) {
        (Some("image"), url) => {
            assert!(url.starts_with("data:image/png;base64,"));
            json!([1.0, 0.0])
        }
        (Some("text"), "A drawing of YeastA") => json!([0.0, 1.0]),
        (Some("text"), text) if text.contains("Lens form") => json!([-1.0, 0.0]),
        _ => json!([1.0, 1.0]),
    };
    // In another order than asked.
    let rows = input.iter().enumerate().rev();
    let rows = rows.map(|(i, text)| json!({"index": i, "embedding": vector(text)}));
    json_reply(&json!({"data": rows.collect::<Vec<_>>()}))
}

#[test]
fn pictures_that_do_not_fit_their_words_are_dropped() {
    let world = World::twisted(Box::new(|key, before, _, usual| {
        Some(pair(key, before, usual))
    }));
    let folder = tempfile::tempdir().unwrap();
    let table = |more: &str| {
        format!(
            "agreement = {{url = \"{}/v1\", model = \"pair\"{more}}}",
            world.url
        )
    };
    // A check may come after the first pool.
    let report = engine(&world, folder.path(), "");
    assert_eq!(
        report.summary.agreement,
        "skipped: the plan has no `[agreement]`"
    );
    let report = engine(&world, folder.path(), &table(""));
    assert_eq!(report.summary.samples, ALL - 3, "{}", ledger(folder.path()));
    assert_eq!(report.summary.agreement, "checked by pair");
    assert_eq!(report.summary.ledger["question: agreement"], 3);
    let shown = ledger(folder.path());
    assert!(
        shown.contains("cosine 0.000 with the caption, 0.707 with the question"),
        "{shown}"
    );
    assert!(
        shown.contains("cosine 0.707 with the caption, -1.000 with the question"),
        "{shown}"
    );
    for sample in samples(folder.path()) {
        let scores = sample["agreement"].as_array().unwrap();
        assert!(
            scores
                .iter()
                .all(|score| (score.as_f64().unwrap() - 0.5f64.sqrt()).abs() < 1e-9)
        );
    }
    let again = tempfile::tempdir().unwrap();
    replay(folder.path(), &again.path().join("r"), &|_| ()).unwrap();
    // Other thresholds need no other answers.
    let asked = world.count("").0;
    let report = engine(
        &world,
        folder.path(),
        &table(", min_caption = -1.0, min_question = -1.0"),
    );
    assert_eq!(report.summary.samples, ALL);
    assert_eq!(world.count("").0, asked);
}

#[test]
fn what_other_pools_have_is_not_made_again() {
    let world = World::new();
    let [first, second, third] = [0; 3].map(|_| tempfile::tempdir().unwrap());
    engine(&world, first.path(), "");
    let pool = first.path().join("pool");
    let filters = |pool: &Path, pictures: &str| {
        format!(
            "filters = {{pools = [{:?}]{pictures}}}",
            pool.join("samples.jsonl")
        )
    };
    // The same words.
    let report = engine(&world, second.path(), &filters(&pool, ""));
    assert_eq!(report.summary.samples, 0);
    assert_eq!(report.summary.ledger["question: in another pool"], ALL);
    assert_eq!(report.summary.pools[0].samples, ALL);
    // Other words about a picture that looks the same, and a line that is none.
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("a.png"), nearly("YeastA.png")).unwrap();
    let line = json!({"id": "1", "image": "a.png", "conversations": [
        {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]});
    let gone = json!({"id": "2", "image": "gone.png", "conversations": line["conversations"]});
    std::fs::write(
        other.path().join("samples.jsonl"),
        format!("{line}\n{gone}\nbroken\n"),
    )
    .unwrap();
    let pictures = format!(", pool_pictures = {:?}", other.path());
    let report = engine(&world, third.path(), &filters(other.path(), &pictures));
    assert_eq!(report.summary.samples, ALL - 1, "{}", ledger(third.path()));
    assert_eq!(report.summary.ledger["picture: in another pool"], 1);
    assert_eq!(report.summary.pools_unread, 2);
    // A replay needs nothing but the run: neither pool is there any more.
    std::fs::remove_dir_all(&pool).unwrap();
    std::fs::remove_dir_all(other.path()).unwrap();
    for run in [second.path(), third.path()] {
        let again = tempfile::tempdir().unwrap();
        replay(run, &again.path().join("r"), &|_| ()).unwrap();
    }
}

#[test]
fn a_run_that_is_interrupted_before_it_knows_other_pools_leaves_its_pool() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let made = engine(&world, folder.path(), "").summary;
    let pool = folder.path().join("pool");
    let manifest = std::fs::read(pool.join("manifest.json")).unwrap();
    let asked = world.count("").0;
    let filters = format!("filters = {{pools = [{:?}]}}", pool.join("samples.jsonl"));
    let plan = Plan::parse(Path::new("plan.toml"), &world.plan(&filters)).unwrap();
    let stop =
        |folder: &Path| run(&plan, folder, RunOptions::default(), &|| true, &|_| ()).unwrap();
    let report = stop(folder.path());
    assert_eq!(report.stopped, Some(Stop::Interrupted));
    assert_eq!(report.summary, made);
    assert_eq!(std::fs::read(pool.join("manifest.json")).unwrap(), manifest);
    // A new run has nothing, and nobody was asked.
    let new = tempfile::tempdir().unwrap();
    let report = stop(new.path());
    assert_eq!(
        (report.stopped, report.summary.samples),
        (Some(Stop::Interrupted), 0)
    );
    assert_eq!(world.count("").0, asked);
}

/// A picture with one pixel changed.
fn nearly(name: &str) -> Vec<u8> {
    let source = ImageSource::Bytes {
        bytes: png(name),
        name: name.to_owned(),
    };
    let picture = load(&source, &ImageLimits::default()).unwrap();
    let (width, height) = picture.size();
    let mut data = picture.data().to_vec();
    data[0] ^= 1;
    RgbImage::from_raw(width, height, data)
        .unwrap()
        .encode_png()
        .unwrap()
}

#[test]
fn pictures_that_look_alike_are_used_once() {
    let (_, folder, report) = faulty("/pic/YeastB", |_, mut usual| {
        usual.body = nearly("YeastA.png");
        usual
    });
    assert_eq!(report.summary.samples, ALL - 1);
    assert_eq!(
        report.summary.ledger["picture: near duplicate"],
        1,
        "{}",
        ledger(folder.path())
    );
    let (_, _, report) = faulty("/pic/YeastB", |_, mut usual| {
        usual.body = png("YeastA.png");
        usual
    });
    assert_eq!(report.summary.ledger["picture: duplicate"], 1);
}

#[test]
fn pictures_that_are_not_asked_about_are_in_the_ledger() {
    // The lead of one page has three pictures; two are asked about, and the model writes about the second.
    let world = World::twisted(Box::new(|key, _, _, usual| {
        if key.contains("page=Yeast&") {
            let mut value: Value = serde_json::from_slice(&usual.body).unwrap();
            let html = value["parse"]["text"].as_str().unwrap();
            let start = html.find("<figure>").unwrap();
            let end = html.find("</figure>").unwrap() + "</figure>".len();
            let figure = &html[start..end];
            let more = ["YeastD", "YeastE"]
                .map(|name| figure.replace("YeastA", name))
                .concat();
            value["parse"]["text"] = json!(html.replacen(figure, &format!("{figure}{more}"), 1));
            return Some(json_reply(&value));
        }
        let asks = key.contains("\\n2. A drawing of YeastD");
        let items = "{\"items\": [{\"picture\": 2, \"question\": \"What is drawn here?\", \"answer\": \"A bud.\"}]}";
        Some(if asks { chat(items) } else { usual })
    }));
    let folder = tempfile::tempdir().unwrap();
    let report = engine(&world, folder.path(), "questions = {max_pictures = 2}");
    let shown = ledger(folder.path());
    assert_eq!(report.summary.samples, ALL, "{shown}");
    assert_eq!(report.summary.ledger["picture: too many"], 1);
    assert_eq!(report.summary.ledger["picture: no question"], 1);
    assert!(
        shown.contains("/pic/YeastE.png\",\"kept\":false,\"reason\":\"too many\""),
        "{shown}"
    );
}

#[test]
fn answers_that_the_question_holds_are_leaks() {
    let (_, folder, report) = faulty("about \\\"Yeast\\\"", |_, _| {
        chat(
            "{\"items\": [{\"picture\": 1, \"question\": \"Is this budding yeast?\", \"answer\": \"Budding yeast.\"}]}",
        )
    });
    assert_eq!(report.summary.samples, ALL - 2);
    assert_eq!(
        report.summary.ledger["question: leak"],
        2,
        "{}",
        ledger(folder.path())
    );
}

/// Changes what the encyclopedia says about the pictures of a page.
fn described(change: impl Fn(&mut Value) + Send + Sync + 'static) -> World {
    World::twisted(Box::new(move |key, _, _, usual| {
        if !key.contains("titles=File%3AYeastA") {
            return Some(usual);
        }
        let mut value: Value = serde_json::from_slice(&usual.body).unwrap();
        for page in value["query"]["pages"].as_array_mut().unwrap() {
            change(&mut page["imageinfo"][0]);
        }
        Some(json_reply(&value))
    }))
}

#[test]
fn drawings_are_drawn_by_their_host_or_refused() {
    let svg = |info: &mut Value| {
        let url = info["url"].as_str().unwrap().to_owned();
        info["thumburl"] = json!(format!("{url}?drawn"));
        info["url"] = json!(url.replace(".png", ".svg"));
        info["mime"] = json!("image/svg+xml");
    };
    let (world, folder) = (described(svg), tempfile::tempdir().unwrap());
    let report = engine(&world, folder.path(), "");
    assert_eq!(report.summary.samples, ALL, "{}", ledger(folder.path()));
    assert_eq!(world.count(".svg").0, 0, "nobody reads the drawing itself");
    assert_eq!(world.count("?drawn").1, 2);

    let (world, folder) = (described(svg), tempfile::tempdir().unwrap());
    let plan = world
        .plan("")
        .replace("[pictures]\n", "[pictures]\nsvg = \"refused\"\n");
    let report = run_text(&plan, folder.path());
    assert_eq!(report.summary.samples, ALL - 2);
    assert!(ledger(folder.path()).contains("SVG"));
    assert_eq!(world.count("drawn").0, 0);
}

#[test]
fn licences_and_shapes_are_judged_before_anything_is_fetched() {
    for (key, value, reason) in [
        ("extmetadata", json!({}), "its licence is not known"),
        ("width", json!(1000), "too long for their width"),
        ("width", json!(3), "too small"),
        ("mime", json!("application/pdf"), "not a picture"),
    ] {
        let change = move |info: &mut Value| {
            info[key] = value.clone();
            info["thumburl"] = json!("");
        };
        let (world, folder) = (described(change), tempfile::tempdir().unwrap());
        let report = engine(&world, folder.path(), "");
        assert_eq!(report.summary.samples, ALL - 2, "{reason}");
        let shown = ledger(folder.path());
        assert!(shown.contains(reason), "{reason}: {shown}");
        assert_eq!(world.count("/pic/YeastA").0, 0);
    }
}

#[test]
fn many_workers_make_the_same_pool() {
    let world = World::new();
    let [one, many] = [0; 2].map(|_| tempfile::tempdir().unwrap());
    run_text(&world.plan(""), one.path());
    let plan = world.plan("").replace("workers = 1", "workers = 16");
    let plan = Plan::parse(Path::new("p"), &plan).unwrap();
    run(
        &plan,
        many.path(),
        RunOptions::default(),
        &|| false,
        &|_| (),
    )
    .unwrap();
    for file in ["samples.jsonl", "ledger.jsonl", "manifest.json"] {
        let read = |folder: &Path| std::fs::read(folder.join("pool").join(file)).unwrap();
        assert!(read(one.path()) == read(many.path()), "{file}");
    }
}
