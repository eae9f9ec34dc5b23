//! The four addresses, and the form of what they give.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::sse::{Event as Line, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::{Stream, StreamExt};
use opabinia_llm::StopReason;
use opabinia_model::Answer;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use crate::Options;
use crate::chat;
use crate::guard::{Guard, guard};
use crate::page;
use crate::refusal::Refusal;
use crate::worker::{Desk, Event};

/// How long a client may take to send a request.
const SENDING: Duration = Duration::from_secs(120);
/// A request of up to so many times the allowed length is read to its end.
const HEARD_OUT: usize = 8;
/// A line without content, so that nobody takes a long prefill for a dead connection. Until the first is due a
/// stream has not begun, and what fails has a status of its own.
const ALIVE: Duration = Duration::from_secs(15);

/// What all requests share.
struct Shared {
    desk: Desk,
    options: Options,
    /// Seconds since 1970 when the server began.
    began: u64,
    /// Answers so far, for their names.
    answers: AtomicU64,
}

pub(crate) fn router(desk: Desk, options: Options, address: SocketAddr) -> Router {
    let door = Arc::new(Guard::new(options.key.as_ref(), address));
    let shared = Arc::new(Shared {
        desk,
        options,
        began: now(),
        answers: AtomicU64::new(0),
    });
    let nothing = || async { Refusal::client(StatusCode::NOT_FOUND, "there is nothing here") };
    let other = || async {
        let message = "this address takes another method";
        Refusal::client(StatusCode::METHOD_NOT_ALLOWED, message)
    };
    Router::new()
        .route("/", get(page::page))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/health", get(health))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(completions))
        .fallback(nothing)
        .method_not_allowed_fallback(other)
        .layer(from_fn_with_state(door, guard))
        .with_state(shared)
}

async fn health(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let (name, open) = (&shared.options.name, shared.desk.open());
    Json(json!({"status": "ok", "model": name, "open": open}))
}

async fn models(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [shared.described()]}))
}

async fn model(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    if name == shared.options.name {
        return Ok(Json(shared.described()));
    }
    let message = format!("there is one model here, `{}`", shared.options.name);
    Err(Refusal::client(StatusCode::NOT_FOUND, message))
}

impl Shared {
    fn described(&self) -> Value {
        json!({
            "id": self.options.name,
            "object": "model",
            "created": self.began,
            "owned_by": "opabinia",
        })
    }
}

async fn completions(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, Refusal> {
    let most = shared.options.max_request_bytes;
    let body = received(body, most, most.saturating_mul(HEARD_OUT)).await?;
    let understanding = tokio::task::spawn_blocking({
        let shared = shared.clone();
        move || {
            let options = &shared.options;
            chat::read(&body, &options.generation, options.system.as_deref())
        }
    });
    let asked = understanding.await;
    let asked = asked.map_err(|_| Refusal::server("a bug: see the server's log"))??;
    let mut events = shared.desk.ask(asked.question)?;
    let form = Form {
        id: format!(
            "chatcmpl-{}-{}",
            shared.began,
            shared.answers.fetch_add(1, Ordering::Relaxed)
        ),
        created: now(),
        model: shared.options.name.clone(),
    };
    if asked.stream {
        let first = match timeout(ALIVE, events.recv()).await {
            Ok(Some(Event::Failed(refusal))) => return Err(refusal),
            Ok(None) => return Err(Refusal::ending()),
            Ok(first) => first,
            Err(_) => None,
        };
        let lines = Sse::new(lines(first, events, form, asked.usage));
        return Ok(lines
            .keep_alive(KeepAlive::new().interval(ALIVE))
            .into_response());
    }
    let answer = whole(events).await?;
    Ok(Json(form.whole(&answer)?).into_response())
}

/// A body of at most so many bytes, sent in limited time. What is longer is heard out, within reason, and not kept: a
/// client that is still sending would not hear the refusal.
pub(crate) async fn received(
    body: Body,
    most: usize,
    heard_out: usize,
) -> Result<Vec<u8>, Refusal> {
    let read = timeout(SENDING, collected(body, most, heard_out)).await;
    read.unwrap_or_else(|_| {
        let message = "the request took too long to arrive";
        Err(Refusal::client(StatusCode::REQUEST_TIMEOUT, message))
    })
}

async fn collected(body: Body, most: usize, heard_out: usize) -> Result<Vec<u8>, Refusal> {
    let mut parts = body.into_data_stream();
    let (mut kept, mut length) = (Vec::new(), 0usize);
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| Refusal::body("the request broke off"))?;
        length = length.saturating_add(part.len());
        if length <= most {
            kept.extend_from_slice(&part);
        } else {
            kept = Vec::new();
        }
        if length > heard_out {
            break;
        }
    }
    match length <= most {
        true => Ok(kept),
        false => Err(Refusal::client(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request is longer than {most} bytes"),
        )),
    }
}

/// The answer when it is whole.
async fn whole(mut events: UnboundedReceiver<Event>) -> Result<Answer, Refusal> {
    while let Some(event) = events.recv().await {
        match event {
            Event::Text(_) => {}
            Event::Done(answer) => return Ok(*answer),
            Event::Failed(refusal) => return Err(refusal),
        }
    }
    Err(Refusal::ending())
}

/// What a stream still has to say.
enum Rest {
    Beginning,
    Text,
    /// These lines, the last first.
    End(Vec<Line>),
}

fn lines(
    first: Option<Event>,
    events: UnboundedReceiver<Event>,
    form: Form,
    usage: bool,
) -> impl Stream<Item = Result<Line, Infallible>> {
    let start = (first, events, form, Rest::Beginning);
    futures::stream::unfold(start, move |state| async move {
        let (mut first, mut events, form, rest) = state;
        let (line, rest) = match rest {
            Rest::Beginning => {
                let delta = json!({"role": "assistant", "content": ""});
                (form.piece(&delta, None), Rest::Text)
            }
            Rest::Text => match next(&mut first, &mut events).await {
                Some(Event::Text(text)) => {
                    (form.piece(&json!({"content": text}), None), Rest::Text)
                }
                Some(Event::Done(answer)) => match form.end(&answer, usage) {
                    Ok((line, rest)) => (line, Rest::End(rest)),
                    Err(refusal) => (data(&refusal.json()), Rest::End(Vec::new())),
                },
                Some(Event::Failed(refusal)) => (data(&refusal.json()), Rest::End(Vec::new())),
                None => (data(&Refusal::ending().json()), Rest::End(Vec::new())),
            },
            Rest::End(mut lines) => (lines.pop()?, Rest::End(lines)),
        };
        Some((Ok(line), (first, events, form, rest)))
    })
}

/// What came before the stream began, then what comes.
async fn next(first: &mut Option<Event>, events: &mut UnboundedReceiver<Event>) -> Option<Event> {
    match first.take() {
        Some(event) => Some(event),
        None => events.recv().await,
    }
}

fn data(value: &Value) -> Line {
    Line::default().data(value.to_string())
}

/// What all parts of an answer have in common.
struct Form {
    id: String,
    created: u64,
    model: String,
}

impl Form {
    fn object(&self, kind: &str, choices: &Value) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn piece(&self, delta: &Value, reason: Option<&str>) -> Line {
        let choices = json!([{"index": 0, "delta": delta, "finish_reason": reason}]);
        data(&self.object("chat.completion.chunk", &choices))
    }

    /// The last piece, and the lines after it, the last first.
    fn end(&self, answer: &Answer, usage: bool) -> Result<(Line, Vec<Line>), Refusal> {
        let mut rest = vec![Line::default().data("[DONE]")];
        if usage {
            let mut object = self.object("chat.completion.chunk", &json!([]));
            object["usage"] = took(answer);
            rest.push(data(&object));
        }
        Ok((self.piece(&json!({}), Some(reason(answer)?)), rest))
    }

    fn whole(&self, answer: &Answer) -> Result<Value, Refusal> {
        let message = json!({"role": "assistant", "content": answer.text});
        let choices = json!([{"index": 0, "message": message, "finish_reason": reason(answer)?}]);
        let mut object = self.object("chat.completion", &choices);
        object["usage"] = took(answer);
        Ok(object)
    }
}

fn reason(answer: &Answer) -> Result<&'static str, Refusal> {
    match answer.stop {
        StopReason::EndToken(_) | StopReason::StopString(_) => Ok("stop"),
        StopReason::MaxTokens | StopReason::ContextFull => Ok("length"),
        StopReason::Cancelled => Err(Refusal::ending()),
    }
}

/// Tokens, and beside OpenAI's keys the visual ones and seconds.
fn took(answer: &Answer) -> Value {
    let written = answer.ids.len();
    json!({
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": answer.prompt_tokens + written,
        "prompt_tokens_details": {
            "cached_tokens": answer.reused_tokens,
            "visual_tokens": answer.visual_tokens,
        },
        "prefill_seconds": answer.prefill_seconds,
        "decode_seconds": answer.decode_seconds,
    })
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}
