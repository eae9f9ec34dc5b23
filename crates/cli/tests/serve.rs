//! `serve`: the program as a server, until Ctrl-C.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{model, opabinia, program, text};
use serde_json::{Value, json};

#[test]
fn a_program_asks_and_ctrl_c_ends_it() {
    let folder = text(&model());
    let mut command = program(&[
        "serve",
        "--port",
        "0",
        "--model",
        &folder,
        "--max-new-tokens",
        "4",
    ]);
    let mut server = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let listening = lines.next().unwrap().unwrap();
    let url = listening.strip_prefix("listening on ").unwrap();
    let url = url.split(';').next().unwrap();

    let body = json!({"messages": [{"role": "user", "content": "Hello"}]}).to_string();
    let response = ureq::post(&format!("{url}/v1/chat/completions"))
        .set("Content-Type", "application/json")
        .send_string(&body)
        .unwrap();
    let answer: Value = serde_json::from_str(&response.into_string().unwrap()).unwrap();
    assert_eq!(answer["model"], "cambrian_llama_sva");
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    let page = ureq::get(url).call().unwrap().into_string().unwrap();
    assert!(page.contains("<title>opabinia</title>"));

    let pid = server.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert!(server.wait().unwrap().success());
}

#[test]
fn what_would_be_open_to_everybody_is_refused_at_once() {
    let run = opabinia(&["serve", "--host", "0.0.0.0", "--model", "no-such-model"]);
    run.fails_with(1, &["no key is wanted", "hint: set a key with `--key`"]);
    opabinia(&["serve", "--key", " ", "--model", "no-such-model"])
        .fails_with(1, &["the key must have", "hint: give `--key`"]);
}
