//! A server on this machine that imitates the hub, for the tests of every crate that fetches from it.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use sha2::{Digest, Sha256};

/// The only commit that it has.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the imitated hub has and does.
#[derive(Default)]
pub struct Behaviour {
    /// Name of the model or data set: `owner/name`.
    pub repository: String,
    /// Files by their names in it.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Kept outside git: served through a redirect, with a SHA-256.
    pub large: Vec<String>,
    /// Closes the connection after so many bytes, once.
    pub drop_after: Option<usize>,
    /// Announces the hash of other contents.
    pub wrong_hash: bool,
    /// Answers everything with this status.
    pub status: Option<u16>,
    /// Wants this token.
    pub token: Option<String>,
    /// Paths and ranges of the requests.
    pub log: Vec<(String, String)>,
}

/// The server; it ends with the program.
pub struct Server {
    /// Its address.
    pub endpoint: String,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Server {
    /// Serves a repository; files of `large` are kept outside git.
    pub fn start(repository: &str, files: &[(&str, &[u8])], large: &[&str]) -> Self {
        let behaviour = Arc::new(Mutex::new(Behaviour {
            repository: repository.to_owned(),
            files: files
                .iter()
                .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()))
                .collect(),
            large: large.iter().map(|&name| name.to_owned()).collect(),
            ..Behaviour::default()
        }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (shared, own) = (behaviour.clone(), endpoint.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, own) = (shared.clone(), own.clone());
                thread::spawn(move || {
                    // A client that goes away early is none of the server's business.
                    let _ = serve(&stream.unwrap(), &shared, &own);
                });
            }
        });
        Self {
            endpoint,
            behaviour,
        }
    }

    /// What it has and does, and the requests so far.
    pub fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour.lock().unwrap()
    }

    /// Changes what it does.
    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour());
    }

    /// Number of requests so far.
    pub fn requests(&self) -> usize {
        self.behaviour().log.len()
    }

    /// Ranges of the requests for the contents of a file.
    pub fn ranges(&self, name: &str) -> Vec<String> {
        let behaviour = self.behaviour();
        let of_file = behaviour.log.iter().filter(|(path, range)| {
            path.ends_with(name) && path.starts_with("/cdn/") && range != "bytes=0-0"
        });
        of_file.map(|(_, range)| range.clone()).collect()
    }
}

fn serve(stream: &TcpStream, shared: &Mutex<Behaviour>, endpoint: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap()?;
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let path = path.split('?').next().unwrap().to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((key, value)) => headers.insert(key.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let range = headers.get("range").cloned().unwrap_or_default();
    let mut behaviour = shared.lock().unwrap();
    behaviour.log.push((path.clone(), range.clone()));
    let mut out = stream;
    let expected = behaviour
        .token
        .as_ref()
        .map(|token| format!("Bearer {token}"));
    let status = match behaviour.status {
        None if expected.is_some() && headers.get("authorization") != expected.as_ref() => {
            Some(401)
        }
        status => status,
    };
    if let Some(status) = status {
        return write!(
            out,
            "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let own = behaviour.repository.clone();
    let revisions = ["models", "datasets"].map(|kind| format!("/api/{kind}/{own}/revision/"));
    if let Some(revision) = revisions.iter().find_map(|start| path.strip_prefix(start))
        && ["main", COMMIT].contains(&revision)
    {
        let body = listing(&behaviour).to_string();
        let length = body.len();
        return write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
    }
    let repositories = ["", "/datasets"].map(|kind| format!("{kind}/{own}/resolve/"));
    let in_it = repositories
        .iter()
        .find_map(|start| path.strip_prefix(start));
    // Behind the revision, which may be any.
    let in_it = in_it.and_then(|rest| Some(rest.split_once('/')?.1));
    let name = in_it.or_else(|| path.strip_prefix("/cdn/"));
    let name = name.unwrap_or_default().to_owned();
    let Some(bytes) = behaviour.files.get(&name).cloned() else {
        return write!(
            out,
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    };
    let etag = identity(&behaviour, &name);
    if behaviour.large.contains(&name) && in_it.is_some() {
        return write!(
            out,
            "HTTP/1.1 302 Found\r\nLocation: {endpoint}/cdn/{name}\r\nX-Linked-Etag: \"{etag}\"\r\n\
             X-Repo-Commit: {COMMIT}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let (from, to) = range_of(&range, bytes.len());
    let (length, total) = (to - from, bytes.len());
    write!(
        out,
        "HTTP/1.1 206 Partial\r\nContent-Length: {length}\r\nETag: \"{etag}\"\r\n\
         X-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {from}-{}/{total}\r\n\
         Connection: close\r\n\r\n",
        to - 1
    )?;
    let mut part = &bytes[from..to];
    // A file that is shorter comes whole.
    if range != "bytes=0-0"
        && let Some(limit) = behaviour.drop_after.take_if(|limit| *limit < part.len())
    {
        part = &part[..limit];
    }
    out.write_all(part)
}

fn range_of(range: &str, total: usize) -> (usize, usize) {
    match range.strip_prefix("bytes=").and_then(|r| r.split_once('-')) {
        Some((from, "")) => (from.parse().unwrap(), total),
        Some((from, to)) => (from.parse().unwrap(), to.parse::<usize>().unwrap() + 1),
        None => (0, total),
    }
}

/// The SHA-256 of a large file, and 40 digits of it in place of git's SHA-1 for others.
fn identity(behaviour: &Behaviour, name: &str) -> String {
    let wrong = behaviour.wrong_hash && behaviour.large.iter().any(|large| large == name);
    let hash = if wrong {
        Sha256::digest(b"something else")
    } else {
        Sha256::digest(&behaviour.files[name])
    };
    let text = format!("{hash:x}");
    if behaviour.large.iter().any(|large| large == name) {
        text
    } else {
        text[..40].to_owned()
    }
}

fn listing(behaviour: &Behaviour) -> serde_json::Value {
    let siblings: Vec<_> = behaviour
        .files
        .iter()
        .map(|(name, bytes)| {
            let id = identity(behaviour, name);
            if behaviour.large.contains(name) {
                serde_json::json!({ "rfilename": name, "size": bytes.len(),
                    "blobId": COMMIT, "lfs": { "sha256": id, "size": bytes.len() } })
            } else {
                serde_json::json!({ "rfilename": name, "size": bytes.len(), "blobId": id })
            }
        })
        .collect();
    serde_json::json!({ "sha": COMMIT, "siblings": siblings })
}
