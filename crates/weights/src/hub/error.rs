//! What can go wrong between a name and a folder, in words for whoever has to mend it.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::listed;

/// Errors of [`crate::hub`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither an existing path nor a name of the hub.
    #[error(
        "{} does not exist, and it is not a model name such as `owner/model` either",
        path.display()
    )]
    NoSuchPath {
        /// What was given.
        path: PathBuf,
    },
    /// A revision that is no branch, tag or commit.
    #[error("`{revision}` is not a revision: expected a branch, a tag or a commit")]
    BadRevision {
        /// What was given.
        revision: String,
    },
    /// No place for the cache.
    #[error("there is no home folder for the model cache: set HF_HOME or HF_HUB_CACHE")]
    NoCache,
    /// Not cached, and the network must not be used.
    #[error(
        "`{name}` (revision `{revision}`) is not complete in {}, and HF_HUB_OFFLINE forbids \
         fetching it: unset HF_HUB_OFFLINE, or give the path of a local folder",
        cache.display()
    )]
    Offline {
        /// The model.
        name: String,
        /// Its revision.
        revision: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The hub knows no such model, revision or file.
    #[error("the hub has no {what}: check the name and the revision")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The hub wants a token, or a better one.
    #[error(
        "the hub refuses {what} (HTTP {status}): {}",
        if *has_token {
            "the token in use does not give access; accept the model's terms on its page"
        } else {
            "the name may be wrong, or the model needs a token: set HF_TOKEN"
        }
    )]
    Denied {
        /// What was asked for.
        what: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The hub answered with another error.
    #[error("the hub answered HTTP {status} for {what}: try again later")]
    Status {
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
    },
    /// The hub could not be reached, or the connection broke more often than was allowed.
    #[error("cannot fetch {what} from {endpoint}: {reason}; what was received is kept, try again")]
    Connection {
        /// What was asked for.
        what: String,
        /// The hub's address.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// There is no way to the hub.
    #[error(
        "cannot reach {endpoint} to fetch {what}: {reason}; check the network, give the path of a local folder, \
         or set HF_HUB_OFFLINE=1 to use only what is in the cache"
    )]
    Unreachable {
        /// What was asked for.
        what: String,
        /// The hub's address.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// An answer that makes no sense.
    #[error("the answer of {endpoint} for {what} cannot be understood: {reason}")]
    Protocol {
        /// What was asked for.
        what: String,
        /// The hub's address.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No file of the model is wanted.
    #[error(
        "no file of `{name}` is among those wanted; it has {}",
        listed(available.iter())
    )]
    NothingToFetch {
        /// The model.
        name: String,
        /// Its files.
        available: Vec<String>,
    },
    /// A fetched file is not what the hub announced. It was removed.
    #[error(
        "{file} arrived damaged: its {property} is {found}, the hub announced {expected}; it was \
         removed, fetch it again"
    )]
    Damaged {
        /// The file in the model.
        file: String,
        /// `size` or `SHA-256`.
        property: &'static str,
        /// What the hub announced.
        expected: String,
        /// What arrived.
        found: String,
    },
    /// Another process is fetching the same file.
    #[error("{file} is being fetched by another process (it holds {}): wait for it", lock.display())]
    Busy {
        /// The file in the model.
        file: String,
        /// The lock file.
        lock: PathBuf,
    },
    /// The system refused a file.
    #[error("cannot access {}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Says which file was meant when the system refused.
pub(super) fn accessing(path: &Path) -> impl Fn(io::Error) -> HubError {
    let path = path.to_path_buf();
    move |source| HubError::File {
        path: path.clone(),
        source,
    }
}
