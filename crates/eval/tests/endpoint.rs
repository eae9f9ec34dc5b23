//! The client of served models, against an imitation of one on this machine.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use opabinia_eval::endpoint::{
    ChatRequest, Endpoint, EndpointError, EndpointOptions, Grading, Judge,
};
use opabinia_eval::scorer::{Gold, Grade, Grader};
use serde_json::{Value, json};

/// What the imitation does with one connection.
#[derive(Clone)]
enum Play {
    Answer(&'static str),
    Status(u16, &'static str, &'static str),
    HangUp,
    Silence,
}

/// Plays one connection after the other; gives the address, and what it was sent: head and body.
fn serve(plays: Vec<Play>) -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut silent = Vec::new();
        for play in plays {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = sender.send(receive(&stream));
            match play {
                Play::Answer(text) => {
                    let body = json!({"choices": [{"message": {"content": text}}]}).to_string();
                    respond(&mut stream, 200, "", &body);
                }
                Play::Status(status, header, body) => respond(&mut stream, status, header, body),
                Play::HangUp => {}
                Play::Silence => silent.push(stream),
            }
        }
    });
    (url, receiver)
}

fn receive(stream: &TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
    let lower = head.to_lowercase();
    let length = lower.split("content-length: ").nth(1).unwrap();
    let length: usize = length.lines().next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

fn respond(stream: &mut TcpStream, status: u16, header: &str, body: &str) {
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{header}\r\n{body}"
    );
}

fn options(url: &str) -> EndpointOptions {
    EndpointOptions {
        first_wait: Duration::from_millis(1),
        retries: 3,
        ..EndpointOptions::new(url, "peer")
    }
}

fn request() -> ChatRequest<'static> {
    ChatRequest {
        system: None,
        picture: Some(b"\x89PNG\r\n\x1a\n"),
        text: "What is it?",
        max_tokens: 8,
    }
}

#[test]
fn a_question_is_asked_and_answered() {
    let (url, sent) = serve(vec![Play::Answer("a cat")]);
    let endpoint = Endpoint::new(options(&url)).unwrap();
    let answer = endpoint.ask(&request()).unwrap();
    assert_eq!((answer.text.as_str(), answer.attempts), ("a cat", 1));
    let (head, body) = sent.recv().unwrap();
    assert!(
        head.starts_with("POST /v1/chat/completions HTTP/1.1"),
        "{head}"
    );
    assert!(!head.to_lowercase().contains("authorization"));
    assert_eq!(body["model"], "peer");
    assert_eq!(body["temperature"], 0);
    let picture = &body["messages"][0]["content"][0]["image_url"]["url"];
    assert_eq!(picture, "data:image/png;base64,iVBORw0KGgo=");
}

#[test]
fn what_may_pass_is_tried_again() {
    let busy = Play::Status(429, "Retry-After: 0\r\n", "slow down");
    let (url, _sent) = serve(vec![
        busy,
        Play::Status(503, "", "starting"),
        Play::HangUp,
        Play::Answer("yes"),
    ]);
    let answer = Endpoint::new(options(&url))
        .unwrap()
        .ask(&request())
        .unwrap();
    assert_eq!((answer.text.as_str(), answer.attempts), ("yes", 4));
}

#[test]
fn retries_end() {
    let (url, sent) = serve(vec![Play::Status(500, "", "broken"); 4]);
    let error = Endpoint::new(options(&url)).unwrap().ask(&request());
    let Err(EndpointError::Status {
        status,
        attempts,
        body,
        ..
    }) = error
    else {
        panic!("{error:?}")
    };
    assert_eq!((status, attempts, body.as_str()), (500, 4, "broken"));
    assert_eq!(sent.iter().count(), 4);
}

#[test]
fn what_will_not_pass_is_not_tried_again() {
    for (play, expected) in [
        (
            Play::Status(401, "", "no such key"),
            "status 401 in attempt 1: no such key",
        ),
        (
            Play::Status(302, "Location: http://127.0.0.1:1/\r\n", ""),
            "status 302",
        ),
        (
            Play::Status(200, "", "<html>"),
            "not as a chat: expected value",
        ),
    ] {
        let (url, sent) = serve(vec![play]);
        let error = Endpoint::new(options(&url))
            .unwrap()
            .ask(&request())
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(sent.iter().count(), 1);
    }
}

#[test]
fn silence_ends_after_the_timeout() {
    let (url, _sent) = serve(vec![Play::Silence, Play::Silence]);
    let options = EndpointOptions {
        timeout: Duration::from_millis(100),
        retries: 1,
        ..options(&url)
    };
    let error = Endpoint::new(options).unwrap().ask(&request());
    assert!(
        matches!(error, Err(EndpointError::Connection { attempts: 2, .. })),
        "{error:?}"
    );
}

/// `PATH` stands for a variable with a key: it is set everywhere, and setting one is unsafe.
#[test]
fn the_key_is_sent_and_never_shown() {
    let key = std::env::var("PATH").unwrap();
    if key.contains(' ') {
        return;
    }
    let echo: &'static str = format!("you sent {key}").leak();
    let (url, sent) = serve(vec![Play::Status(403, "", echo)]);
    let options = EndpointOptions {
        key_variable: Some("PATH".to_owned()),
        ..options(&url)
    };
    let endpoint = Endpoint::new(options).unwrap();
    assert!(!format!("{endpoint:?}").contains(&key));
    let error = endpoint.ask(&request()).unwrap_err().to_string();
    assert!(error.ends_with("you sent (key)"), "{error}");
    let (head, _) = sent.recv().unwrap();
    assert!(head.contains(&format!("Bearer {key}")));
}

#[test]
fn a_judge_grades_or_fails() {
    let (url, _sent) = serve(vec![Play::Answer("0.5"), Play::Status(400, "", "no")]);
    let endpoint = Endpoint::new(options(&url)).unwrap();
    let judge = Judge::new(&endpoint, Grader::Score);
    let gold = Gold {
        answers: vec!["a cat <AND> a dog".to_owned()],
        ..Gold::default()
    };
    let graded = judge.grade("What is there?", &gold, "a cat");
    assert!(
        matches!(
            graded,
            Grading::Graded {
                grade: Grade::Score(0.5),
                ..
            }
        ),
        "{graded:?}"
    );
    let failed = judge.grade("What is there?", &gold, "a cat");
    assert!(matches!(failed, Grading::Failed { .. }), "{failed:?}");
}

/// One endpoint serves many threads.
#[test]
fn threads_share_an_endpoint() {
    let (url, _sent) = serve(vec![Play::Answer("x"); 8]);
    let endpoint = Endpoint::new(options(&url)).unwrap();
    thread::scope(|scope| {
        let ask = || endpoint.ask(&request()).unwrap().text;
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), "x");
        }
    });
}
