//! A model on the network: an HTTP API in OpenAI's form, and a page to ask it on.
//!
//! ```text
//! GET  /                      the page
//! GET  /health                whether it lives, and how many questions wait
//! GET  /v1/models             the one model; also /v1/models/NAME
//! POST /v1/chat/completions   an answer, whole or as it is written
//! ```
//!
//! What this crate decides:
//! - **One worker.** One answer takes the whole processor, so questions are answered one after the other by a
//!   thread that owns the model, its pictures and what it has read ([`Session`](opabinia_model::Session)). A
//!   conversation that goes on is read from where it stood. Questions wait in a queue of a fixed length; when
//!   it is full, a client is told so and not kept.
//! - **Whoever leaves is not answered.** When a client closes its connection the answer ends with the next token.
//! - **Pictures come with the request**, as `data:` URLs. The server fetches nothing and opens no file for
//!   anybody.
//! - **What is known and cannot be done is refused, not passed over**: tools, several choices, penalties,
//!   probabilities. Keys that nobody here knows are passed over, for clients send many that change no answer.
//! - **On this machine, for this machine.** A server that listens on a loopback address answers only requests
//!   that name it so, because a page of somebody else in a browser here could otherwise ask it. Elsewhere a
//!   key is wanted of whoever asks.

#![forbid(unsafe_code)]

mod api;
mod chat;
mod guard;
mod messages;
mod page;
mod refusal;
mod worker;

use std::future::IntoFuture;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use opabinia_image::ImageLimits;
use opabinia_model::{Generation, Model};

pub use guard::Key;

/// How often the server looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// How long the server waits at its end for those who are still sending or reading, and for the model.
const GRACE: Duration = Duration::from_secs(3);
/// Threads that read requests and write answers.
const THREADS: usize = 2;

/// What a server is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the model is called in answers.
    pub name: String,
    /// How answers are generated where a request does not say it.
    pub generation: Generation,
    /// System text where a request has none; the template's own if there is none here either.
    pub system: Option<String>,
    /// Limits of a picture; all pictures of a request together may have the pixels of one.
    pub limits: ImageLimits,
    /// What whoever asks must bring as `Authorization: Bearer KEY`; none wants none.
    pub key: Option<Key>,
    /// Questions that wait while another one is answered.
    pub queue: usize,
    /// Bytes of a request, pictures included.
    pub max_request_bytes: usize,
}

/// Why there is no server, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Everybody who can reach the address could ask.
    #[error("{address} can be reached from other machines, and no key is wanted of those who ask")]
    Open {
        /// Where it would have listened.
        address: SocketAddr,
    },
    /// It would never match.
    #[error("the key must have visible characters of ASCII and no others")]
    Key,
    /// The system did not give what a server needs.
    #[error("cannot serve on {address}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
}

/// Serves a model until `stop` says so; an answer under way then ends with its next token, and whoever waits is told.
/// `ready` is told where it listens. Who is still sending, or reading nothing, is waited for three seconds and no
/// longer.
///
/// # Errors
/// [`ServeError::Open`] without a key on an address that is not this machine's own;
/// [`ServeError::Io`] if the listener cannot be used.
pub fn serve(
    model: Model,
    listener: TcpListener,
    options: Options,
    ready: &mut dyn FnMut(SocketAddr),
    stop: impl Fn() -> bool,
) -> Result<(), ServeError> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    let address = listener.local_addr().map_err(|source| ServeError::Io {
        address: unknown,
        source,
    })?;
    if options.key.is_none() && !address.ip().is_loopback() {
        return Err(ServeError::Open { address });
    }
    let failed = |source| ServeError::Io { address, source };
    listener.set_nonblocking(true).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(failed)?;
    let (desk, worker) = worker::start(model, options.queue, options.limits);
    let app = api::router(desk.clone(), options, address);
    let told = Arc::new(tokio::sync::Notify::new());
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        ready(address);
        let end = told.clone();
        let serving = axum::serve(listener, app)
            .with_graceful_shutdown(async move { end.notified().await })
            .into_future();
        let ending = async {
            while !stop() {
                tokio::time::sleep(LOOK).await;
            }
            desk.close();
            told.notify_one();
            tokio::time::sleep(GRACE).await;
        };
        match select(serving, Box::pin(ending)).await {
            Either::Left((served, _)) => served,
            Either::Right(((), _)) => Ok(()),
        }
    });
    desk.close();
    runtime.shutdown_timeout(LOOK);
    // Reading a long prompt cannot be broken off; the thread ends with the program then.
    let patience = Instant::now() + GRACE;
    while !worker.is_finished() && Instant::now() < patience {
        std::thread::sleep(LOOK);
    }
    served.map_err(failed)
}
