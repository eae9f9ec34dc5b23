//! A small web on this machine: an encyclopedia, a host of pictures and a scripted model.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use opabinia_image::RgbImage;
use serde_json::{Value, json};

/// What is answered.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
    /// Says more bytes than it sends, and hangs up.
    pub cut: bool,
    pub delay: Duration,
}

pub fn reply(status: u16, headers: &str, body: impl Into<Vec<u8>>) -> Reply {
    Reply {
        status,
        headers: headers.to_owned(),
        body: body.into(),
        cut: false,
        delay: Duration::ZERO,
    }
}

/// Replaces the world's answer: the path, how often it was asked before, and the usual answer.
pub type Twist = Box<dyn Fn(&str, usize, &str, Reply) -> Option<Reply> + Send + Sync>;

pub struct World {
    pub url: String,
    /// How often each request was made, and how often it was answered with 200.
    pub counts: Arc<Mutex<HashMap<String, (usize, usize)>>>,
}

impl World {
    pub fn new() -> Self {
        Self::twisted(Box::new(|_, _, _, reply| Some(reply)))
    }

    pub fn twisted(twist: Twist) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counts: Arc<Mutex<HashMap<String, (usize, usize)>>> = Arc::default();
        let (shared, twist, base) = (Arc::clone(&counts), Arc::new(twist), url.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (counts, twist, base) = (Arc::clone(&shared), Arc::clone(&twist), base.clone());
                thread::spawn(move || serve(&stream, &base, &counts, &twist));
            }
        });
        Self { url, counts }
    }

    /// Requests whose path holds a text: made, and answered.
    pub fn count(&self, path: &str) -> (usize, usize) {
        let counts = self.counts.lock().unwrap();
        let fitting = counts.iter().filter(|(key, _)| key.contains(path));
        fitting.fold((0, 0), |sum, (_, n)| (sum.0 + n.0, sum.1 + n.1))
    }

    pub fn most_answered(&self) -> usize {
        self.counts
            .lock()
            .unwrap()
            .values()
            .map(|n| n.1)
            .max()
            .unwrap_or(0)
    }

    pub fn plan(&self, more: &str) -> String {
        format!(
            "name = \"tiny\"\n{more}\n[llm]\nurl = \"{0}/v1\"\nmodel = \"scripted\"\nprice_in = 1.0\nprice_out = 2.0\n\
             [wiki]\napi = \"{0}/w/api.php\"\n[sections]\nmin_words = 5\n[pictures]\nmin_side = 16\n[web]\n\
             contact = \"test@example.org\"\nworkers = 1\nper_second = 100000.0\nconcurrent = 4\nretries = 2\n\
             first_wait_seconds = 0.002\nlongest_wait_seconds = 0.01\ntimeout_seconds = 0.5\nmax_page_bytes = 200000\n\
             private_addresses = true\n[[fields]]\nname = \"Biology\"\n[[fields]]\nname = \"Physics\"\nsubfields = [\"Optics\"]\n",
            self.url
        )
    }

    pub fn write_plan(&self, folder: &Path, more: &str) -> String {
        let path = folder.join("plan.toml");
        std::fs::write(&path, self.plan(more)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn serve(
    stream: &TcpStream,
    base: &str,
    counts: &Mutex<HashMap<String, (usize, usize)>>,
    twist: &Twist,
) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if !matches!(reader.read_line(&mut head), Ok(n) if n > 0) {
            return;
        }
    }
    let lower = head.to_lowercase();
    let length = lower
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.lines().next()?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
    let body = String::from_utf8_lossy(&body).into_owned();
    let key = format!("{path} {body}");
    let before = {
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(key.clone()).or_default();
        count.0 += 1;
        count.0 - 1
    };
    let Some(reply) = twist(&key, before, &head, usual(base, &path, &body)) else {
        return;
    };
    thread::sleep(reply.delay);
    let mut stream = stream;
    let declared = reply.body.len() + if reply.cut { 1000 } else { 0 };
    if reply.status == 200 && !reply.cut {
        counts.lock().unwrap().get_mut(&key).unwrap().1 += 1;
    }
    let _ = write!(
        stream,
        "HTTP/1.1 {} X\r\nContent-Length: {declared}\r\nConnection: close\r\n{}\r\n",
        reply.status, reply.headers
    );
    let _ = stream.write_all(&reply.body);
}

pub fn json_reply(value: &Value) -> Reply {
    reply(200, "Content-Type: application/json\r\n", value.to_string())
}

pub fn chat(text: &str) -> Reply {
    json_reply(
        &json!({"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}),
    )
}

fn query(path: &str, name: &str) -> String {
    let url = format!("http://h{path}");
    let url = url::Url::parse(&url).unwrap();
    url.query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

fn usual(base: &str, path: &str, body: &str) -> Reply {
    if path.starts_with("/v1/chat") {
        return model(body);
    }
    if path.starts_with("/w/api.php") {
        return match (query(path, "list").as_str(), query(path, "action").as_str()) {
            ("search", _) => json_reply(
                &json!({"query": {"search": [{"title": query(path, "srsearch")}, {"title": "Common page"}]}}),
            ),
            (_, "parse") => page(base, &query(path, "page")),
            _ => files(base, &query(path, "titles")),
        };
    }
    if path.starts_with("/customsearch") {
        let links = [
            format!("{base}/wiki/{}", query(path, "q").replace(' ', "_")),
            format!("{base}/site/page"),
        ];
        return json_reply(
            &json!({"items": links.map(|link| json!({"title": "A hit", "link": link}))}),
        );
    }
    if path.starts_with("/site/page") {
        return site();
    }
    match path.strip_prefix("/pic/") {
        Some(name) => reply(
            200,
            "Content-Type: image/png\r\nETag: \"v1\"\r\n",
            png(name),
        ),
        None => reply(404, "", "nothing here"),
    }
}

fn model(body: &str) -> Reply {
    let body: Value = serde_json::from_str(body).unwrap();
    let asked = body["messages"][1]["content"].as_str().unwrap();
    if asked.contains("parts of the field") {
        return chat("{\"names\": [\"Cells\"]}");
    }
    if asked.contains("different topics") {
        let part = if asked.contains("Cells") {
            "Yeast"
        } else {
            "Lens"
        };
        return chat(&format!(
            "```json\n{{\"names\": [\"{part}\", \"{part} form\"]}}\n```"
        ));
    }
    let title = format!(
        "{} {}",
        asked.split('"').nth(1).unwrap(),
        asked.split('"').nth(3).unwrap()
    );
    let item = |n: usize| json!({"picture": n, "question": format!("What does number {n} show about {title}?"), "answer": format!("It divides by budding, {title}{n}x")});
    let mut items = vec![item(1)];
    if asked.contains("\n2. ") {
        items.push(item(2));
    }
    items.push(item(7));
    chat(&json!({"items": items}).to_string())
}

fn page(base: &str, title: &str) -> Reply {
    let slug: String = title.chars().filter(char::is_ascii_alphanumeric).collect();
    let figure = |name: &str| {
        format!(
            "<figure><a href='/wiki/File:{name}.png'><img src='{base}/pic/thumb/a/{name}.png/220px-{name}.png'></a><figcaption>A drawing of {name}</figcaption></figure>"
        )
    };
    let html = format!(
        "<div class=mw-parser-output><p>{title} is a thing that people look at.{}</p><h2>Form</h2><p>The form of {title} is round in most cases<p>indeed.{}\
         <h2>References</h2><p>one two three four five six seven</p>{}",
        figure(&format!("{slug}A")),
        figure(&format!("{slug}B")),
        figure(&format!("{slug}C"))
    );
    let id = slug.bytes().map(u64::from).sum::<u64>();
    json_reply(&json!({"parse": {"title": title, "pageid": id, "revid": 7, "text": html}}))
}

/// A page of somebody else's, packed and in an old encoding.
fn site() -> Reply {
    let html = "<title>Caf\u{e9}s</title><p>A caf\u{e9} is a house where people drink. <figure><img src=/pic/Site.png>\
                <figcaption>A caf\u{e9}</figcaption></figure><p>There are many of them.";
    let bytes: Vec<u8> = html.chars().map(|c| c as u8).collect();
    reply(
        200,
        "Content-Type: text/html; charset=iso-8859-1\r\nContent-Encoding: gzip\r\n",
        gzip(&bytes),
    )
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn files(base: &str, titles: &str) -> Reply {
    let pages = titles.split('|').map(|title| {
        let name = title.trim_start_matches("File:");
        json!({"title": title, "imageinfo": [{"url": format!("{base}/pic/{name}"), "thumburl": format!("{base}/pic/{name}"), "width": 64, "height": 48,
            "mime": "image/png", "descriptionurl": format!("{base}/wiki/File:{name}"),
            "extmetadata": {"LicenseShortName": {"value": "CC BY-SA 4.0"}, "Artist": {"value": "<a href=x>The drawer</a>"}}}]})
    });
    json_reply(&json!({"query": {"pages": pages.collect::<Vec<_>>()}}))
}

/// Noise that its name seeds, so that no two look alike.
pub fn png(name: &str) -> Vec<u8> {
    let mut state = name
        .bytes()
        .fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
    let mut cells = [[0u8; 3]; 48];
    for cell in &mut cells {
        for channel in cell {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *channel = (state >> 24) as u8;
        }
    }
    let pixels = (0..48).flat_map(|y| (0..64).map(move |x| (x / 8 + 8 * (y / 8)) as usize));
    let data = pixels.flat_map(|i| cells[i % 48]).collect();
    RgbImage::from_raw(64, 48, data)
        .unwrap()
        .encode_png()
        .unwrap()
}
