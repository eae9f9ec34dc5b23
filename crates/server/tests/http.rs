//! The server over real sockets, with the golden model: what a client sends, and what comes back.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opabinia_image::{ImageLimits, ImageSource, load};
use opabinia_llm::{Conversation, Turn};
use opabinia_model::{Generation, ImagePosition, LoadModel, Model, Session};
use opabinia_server::{Key, Options, ServeError, serve};
use serde_json::{Value, json};

/// The golden cases: `$OPABINIA_GOLDEN`, or the repository's.
fn golden() -> PathBuf {
    let root = match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    };
    root.join("cambrian_llama_sva")
}

fn model() -> Model {
    Model::load(&golden(), &LoadModel::default()).unwrap().0
}

fn options() -> Options {
    let mut generation = Generation::default();
    generation.sampling.max_new_tokens = 24;
    Options {
        name: "golden".to_owned(),
        generation,
        system: None,
        limits: ImageLimits::default(),
        key: None,
        queue: 8,
        max_request_bytes: 1 << 20,
    }
}

/// A server that ends with its test.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Server {
    fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let mut ready = |address| tell.send(address).unwrap();
            let stop = move || asked.load(Ordering::SeqCst);
            serve(model(), listener, options, &mut ready, stop)
        });
        Self {
            address: told.recv().unwrap(),
            stop,
            thread: Some(thread),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn post(&self, body: &Value) -> (u16, String) {
        sent(
            ureq::post(&self.url("/v1/chat/completions")),
            &body.to_string(),
        )
    }

    fn answer(&self, body: &Value) -> Value {
        let (status, text) = self.post(body);
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    fn refused(&self, body: &Value) -> (u16, String) {
        let (status, text) = self.post(body);
        let value: Value = serde_json::from_str(&text).unwrap();
        (
            status,
            value["error"]["message"].as_str().unwrap().to_owned(),
        )
    }

    /// The events of a stream.
    fn stream(&self, body: &Value) -> Vec<Value> {
        let mut body = body.clone();
        body["stream"] = true.into();
        let (status, text) = self.post(&body);
        assert_eq!(status, 200, "{text}");
        let mut lines: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .collect();
        assert_eq!(lines.pop(), Some("[DONE]"), "{text}");
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// It ends well.
impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn sent(request: ureq::Request, body: &str) -> (u16, String) {
    match request
        .set("Content-Type", "application/json")
        .send_string(body)
    {
        Ok(response) | Err(ureq::Error::Status(_, response)) => {
            (response.status(), response.into_string().unwrap())
        }
        Err(error) => panic!("{error}"),
    }
}

/// A run of the golden case: what is asked, and what the reference answers.
fn reference(name: &str) -> (Value, String) {
    let case: Value =
        serde_json::from_slice(&std::fs::read(golden().join("case.json")).unwrap()).unwrap();
    let run = &case["runs"][name];
    let mut parts = vec![json!({"type": "text", "text": run["turns"][0][0]})];
    if let Some(picture) = run["image"].as_str() {
        let bytes = std::fs::read(golden().join("images").join(format!("{picture}.png"))).unwrap();
        let url = format!("data:image/png;base64,{}", STANDARD.encode(bytes));
        parts.push(json!({"type": "image_url", "image_url": {"url": url}}));
    }
    let body = json!({"model": "golden", "messages": [{"role": "user", "content": parts}]});
    (body, run["greedy_text"].as_str().unwrap().to_owned())
}

#[test]
fn answers_are_the_references_whole_and_as_they_are_written() {
    let server = Server::start(options());
    for name in ["square", "wide", "tall", "text_only"] {
        let (body, expected) = reference(name);
        let answer = server.answer(&body);
        assert_eq!(answer["object"], "chat.completion");
        assert_eq!(answer["model"], "golden");
        let choice = &answer["choices"][0];
        assert_eq!(choice["message"]["content"], expected, "{name}");
        assert_eq!(choice["message"]["role"], "assistant");
        assert!(["stop", "length"].contains(&choice["finish_reason"].as_str().unwrap()));
        let usage = &answer["usage"];
        let number = |key: &str| usage[key].as_u64().unwrap();
        assert_eq!(
            number("total_tokens"),
            number("prompt_tokens") + number("completion_tokens")
        );

        let mut wanting = body.clone();
        wanting["stream_options"] = json!({"include_usage": true});
        let events = server.stream(&wanting);
        let [first, .., last, took] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(last["choices"][0]["finish_reason"], choice["finish_reason"]);
        assert_eq!(took["choices"], json!([]));
        assert_eq!(
            took["usage"]["completion_tokens"],
            usage["completion_tokens"]
        );
        // The same prompt: all but its last token was read before.
        let details = &took["usage"]["prompt_tokens_details"];
        assert_eq!(
            details["cached_tokens"].as_u64().unwrap(),
            number("prompt_tokens") - 1
        );
        let pieces = events
            .iter()
            .filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
        assert_eq!(pieces.collect::<String>().trim_end(), expected, "{name}");
        assert!(
            events
                .iter()
                .all(|event| event["object"] == "chat.completion.chunk")
        );
        assert!(events.iter().all(|event| event["id"] == first["id"]));
    }
}

#[test]
fn a_conversation_goes_on() {
    let server = Server::start(options());
    let (mut body, _) = reference("square");
    let first = server.answer(&body);
    let said = first["choices"][0]["message"].clone();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(said);
    messages.push(json!({"role": "user", "content": "And now?"}));
    body["max_tokens"] = 3.into();
    let second = server.answer(&body);
    assert_eq!(second["choices"][0]["finish_reason"], "length");
    assert_eq!(second["usage"]["completion_tokens"], 3);
    let known = second["usage"]["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap();
    assert!(
        known >= first["usage"]["prompt_tokens"].as_u64().unwrap(),
        "{second}"
    );
}

#[test]
fn what_cannot_be_answered_is_refused_with_a_reason() {
    let server = Server::start(options());
    let text = json!([{"role": "user", "content": "Hello"}]);
    let shown = |url: &str| {
        let picture = json!({"type": "image_url", "image_url": {"url": url}});
        json!({"messages": [{"role": "user", "content": [picture]}]})
    };
    for (body, words) in [
        (json!({"messages": text, "n": 3}), "`n`"),
        (json!({"messages": []}), "nothing to answer"),
        (shown("http://127.0.0.1/a.png"), "fetches nothing"),
        (shown("/etc/hostname"), "fetches nothing"),
        (shown("data:image/png;base64,AAAA"), "picture 1"),
    ] {
        let (status, message) = server.refused(&body);
        assert_eq!(status, 400, "{body}: {message}");
        assert!(message.contains(words), "{body}: {message}");
    }
    // A prompt that no context holds; that is known before a stream begins.
    let mut long = json!({"messages": [{"role": "user", "content": "word ".repeat(20_000)}]});
    assert_eq!(server.refused(&long).0, 400);
    long["stream"] = true.into();
    assert_eq!(server.refused(&long).0, 400);
    let (status, _) = server.refused(&json!({"messages": "x".repeat(2 << 20)}));
    assert_eq!(status, 413);

    let (status, text) = sent(ureq::post(&server.url("/v1/chat/completions")), "{");
    assert_eq!(status, 400, "{text}");
    let plain = ureq::post(&server.url("/v1/chat/completions")).set("Content-Type", "text/plain");
    assert_eq!(
        plain
            .send_string("{}")
            .unwrap_err()
            .into_response()
            .unwrap()
            .status(),
        415
    );
    for (path, status) in [("/nothing", 404), ("/v1/chat/completions", 405)] {
        let response = ureq::get(&server.url(path))
            .call()
            .unwrap_err()
            .into_response()
            .unwrap();
        assert_eq!(response.status(), status, "{path}");
        let value: Value = serde_json::from_str(&response.into_string().unwrap()).unwrap();
        assert!(value["error"]["message"].is_string());
    }
    // All that was nothing to it.
    let (body, expected) = reference("text_only");
    assert_eq!(
        server.answer(&body)["choices"][0]["message"]["content"],
        expected
    );
}

#[test]
fn a_key_opens_and_others_do_not() {
    let server = Server::start(Options {
        key: Some(Key::new("secret").unwrap()),
        ..options()
    });
    let models = server.url("/v1/models");
    for header in [
        None,
        Some("Bearer secre"),
        Some("Bearer secrets"),
        Some("secret"),
    ] {
        let request = ureq::get(&models);
        let request = match header {
            Some(value) => request.set("Authorization", value),
            None => request,
        };
        let response = request.call().unwrap_err().into_response().unwrap();
        assert_eq!(response.status(), 401, "{header:?}");
        assert_eq!(response.header("WWW-Authenticate"), Some("Bearer"));
    }
    let listed = ureq::get(&models)
        .set("Authorization", "Bearer secret")
        .call()
        .unwrap();
    let listed: Value = serde_json::from_str(&listed.into_string().unwrap()).unwrap();
    assert_eq!(listed["data"][0]["id"], "golden");
    let model = |name: &str| {
        let request = ureq::get(&format!("{models}/{name}"));
        match request.set("Authorization", "Bearer secret").call() {
            Ok(response) | Err(ureq::Error::Status(_, response)) => response.status(),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(model("golden"), 200);
    assert_eq!(model("other/model"), 404);
    // What others see is called by any name, since nobody without the key is heard.
    let called = ureq::get(&models)
        .set("Host", "models.example.org")
        .set("Authorization", "Bearer secret");
    assert_eq!(called.call().unwrap().status(), 200);
    // A refusal is heard by who sends much with the wrong key.
    let (status, _) = sent(
        ureq::post(&server.url("/v1/chat/completions")),
        &"x".repeat(4 << 20),
    );
    assert_eq!(status, 401);
    // The page and its files say nothing that a key guards.
    assert_eq!(ureq::get(&server.url("/")).call().unwrap().status(), 200);
}

#[test]
fn an_open_door_to_everybody_is_refused() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let error = serve(model(), listener, options(), &mut |_| (), || true).unwrap_err();
    assert!(matches!(error, ServeError::Open { .. }), "{error}");
}

/// Sends lines as they are and reads the first of the answer.
fn raw(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

/// A page of somebody else, in a browser on this machine, whose name points here.
#[test]
fn other_names_of_this_machine_are_refused() {
    let server = Server::start(options());
    let get = |host: &str| {
        raw(
            &server,
            &format!("GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
        )
    };
    assert!(get("localhost").contains("200"));
    assert!(get("evil.test").contains("403"));
    let none = raw(&server, "GET /health HTTP/1.0\r\n\r\n");
    assert!(none.contains("403"), "{none}");
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let server = Server::start(options());
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
    ] {
        let response = ureq::get(&server.url(path)).call().unwrap();
        assert!(response.content_type().starts_with(kind), "{path}");
        let policy = response
            .header("Content-Security-Policy")
            .unwrap()
            .to_owned();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        let text = response.into_string().unwrap();
        assert!(
            !text.contains("http://") && !text.contains("https://"),
            "{path}"
        );
    }
}

/// Many at once: whoever stays is answered, or told that there is no room; who leaves is in nobody's way.
#[test]
fn nobody_is_kept_waiting_by_those_who_left() {
    let server = Server::start(Options {
        queue: 1,
        ..options()
    });
    let (mut body, expected) = reference("text_only");
    body["stream"] = true.into();
    let text = body.to_string();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(head(text.len()).as_bytes()).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        // The first bytes of the head, and away.
        stream.read_exact(&mut [0; 8]).unwrap();
    }
    body["stream"] = false.into();
    let answers: Vec<(u16, String)> = std::thread::scope(|threads| {
        let ask = || threads.spawn(|| server.post(&body));
        let asked: Vec<_> = (0..6).map(|_| ask()).collect();
        asked
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (status, text) in &answers {
        let value: Value = serde_json::from_str(text).unwrap();
        match status {
            200 => assert_eq!(value["choices"][0]["message"]["content"], expected),
            503 => assert_eq!(value["error"]["type"], "overloaded_error"),
            _ => panic!("{status}: {text}"),
        }
    }
    assert!(answers.iter().any(|(status, _)| *status == 200));
}

fn head(length: usize) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// A head that never ends, a body that never comes, and an answer that nobody reads: the server ends all the same,
/// which dropping it waits for.
#[test]
fn the_end_waits_for_nobody_for_long() {
    let server = Server::start(options());
    let mut half = TcpStream::connect(server.address).unwrap();
    half.write_all(b"GET / HT").unwrap();
    let mut empty = TcpStream::connect(server.address).unwrap();
    empty.write_all(head(1000).as_bytes()).unwrap();
    let (mut body, _) = reference("text_only");
    body["stream"] = true.into();
    let text = body.to_string();
    let mut unread = TcpStream::connect(server.address).unwrap();
    unread.write_all(head(text.len()).as_bytes()).unwrap();
    unread.write_all(text.as_bytes()).unwrap();
    unread.read_exact(&mut [0; 8]).unwrap();
    drop(server);
}

/// A system text of another length moves the picture, and layers inside the language model go with it.
#[test]
fn a_picture_is_seen_wherever_it_is() {
    let system = "Be brief. Be kind. Be exact.";
    let (mut body, _) = reference("square");
    let question = body["messages"][0]["content"][0]["text"].clone();
    let conversation = Conversation {
        system: Some(system.to_owned()),
        turns: vec![
            Turn::user(format!("<image>\n{}", question.as_str().unwrap())),
            Turn::open(),
        ],
    };
    let picture = ImageSource::File(golden().join("images/square.png"));
    let picture = load(&picture, &ImageLimits::default()).unwrap();
    let model = model();
    let answer = |rule: ImagePosition| {
        let mut generation = options().generation;
        generation.image_position = rule;
        let mut session = Session::new(&model);
        let seen = session.see(&picture).unwrap().0;
        session.answer(&conversation, &[seen], &generation, &mut |_, _| true)
    };
    let there = answer(ImagePosition::Actual).unwrap().text;
    assert!(answer(ImagePosition::Config).is_err(), "far behind the end");

    let server = Server::start(options());
    let messages = body["messages"].as_array_mut().unwrap();
    messages.insert(0, json!({"role": "system", "content": system}));
    let served = server.answer(&body);
    assert_eq!(served["choices"][0]["message"]["content"], there);
}
