//! The one way to the web: polite, limited, and through a trait, so that a replay stands in its place.

mod address;
mod client;
mod gate;
mod robots;
mod send;

pub(crate) use client::{Attempt, Client};

use sha2::{Digest, Sha256};

use crate::plan::hex;

/// What a request is for, which decides limits and manners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A service that the plan names. Its address is trusted, and robots.txt is not for it.
    Service,
    /// The served model.
    Model,
    /// A page of anybody's.
    Page,
    /// A picture of anybody's.
    Picture,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub purpose: Purpose,
    /// Address without secrets.
    pub url: String,
    /// JSON that is posted; a GET without it.
    pub body: Option<String>,
    /// Value of `Authorization`, or of the query parameter `key`; in no key, log or archive.
    pub secret: Option<Secret>,
    /// Says why an answer with status 200 is none: a host that is busy, a page in the way, half a file. It is
    /// asked for again, and not archived.
    pub unusable: fn(&[u8]) -> Option<String>,
    /// What is known already, for a conditional request.
    pub known: Option<Validators>,
}

/// A key of a service.
#[derive(Clone)]
pub(crate) enum Secret {
    Bearer(String),
    Query(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a host said about the version that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Validators {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

impl Request {
    pub(crate) fn get(purpose: Purpose, url: impl Into<String>) -> Self {
        Self {
            purpose,
            url: url.into(),
            body: None,
            secret: None,
            unusable: |_| None,
            known: None,
        }
    }

    /// Identifies what is asked.
    pub(crate) fn key(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(if self.body.is_some() { "POST " } else { "GET " });
        hash.update(&self.url);
        hash.update("\n");
        hash.update(self.body.as_deref().unwrap_or_default());
        hex(&hash.finalize())
    }
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// Where it came from, after redirects.
    pub url: String,
    pub content_type: String,
    pub validators: Validators,
    pub body: Vec<u8>,
    /// The host says that what is known still holds; `body` is empty.
    pub unchanged: bool,
}
