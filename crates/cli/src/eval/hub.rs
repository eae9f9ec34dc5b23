//! Data sets of benchmarks from the hub, through the door that models come by.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use opabinia_eval::benchmark::{BenchmarkError, Fetch, Listing};
use opabinia_eval::in_full;
use opabinia_weights::hub::{Dataset, Hub, HubError};

/// Fetches files of data sets into the hub's cache.
pub struct HubFetch {
    hub: Hub,
    /// What was listed, so that files come from the commit that was looked at.
    listed: Mutex<HashMap<(String, String), Dataset>>,
}

impl HubFetch {
    /// Out of this hub.
    pub fn new(hub: Hub) -> Self {
        Self {
            hub,
            listed: Mutex::default(),
        }
    }

    fn known(&self, repo: &str, revision: &str) -> Option<Dataset> {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.get(&(repo.to_owned(), revision.to_owned())).cloned()
    }
}

impl Fetch for HubFetch {
    fn list(&self, repo: &str, revision: &str) -> Result<Listing, BenchmarkError> {
        let found = self.hub.list_dataset(repo, Some(revision));
        let found = found.map_err(explained(repo, revision, "the list of its files"))?;
        let listing = Listing {
            revision: revision.to_owned(),
            commit: found.commit().to_owned(),
            files: found.files().map(str::to_owned).collect(),
        };
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.insert((repo.to_owned(), revision.to_owned()), found);
        Ok(listing)
    }

    fn fetch(
        &self,
        repo: &str,
        listing: &Listing,
        files: &[String],
    ) -> Result<PathBuf, BenchmarkError> {
        let revision = listing.revision.as_str();
        let what = match files {
            [file] => file.clone(),
            files => format!("{} files", files.len()),
        };
        let dataset = match self.known(repo, revision) {
            Some(dataset) => Ok(dataset),
            None => self.hub.list_dataset(repo, Some(revision)),
        };
        let folder = dataset.and_then(|dataset| self.hub.fetch_dataset(&dataset, files));
        folder.map_err(explained(repo, revision, &what))
    }
}

fn explained(repo: &str, revision: &str, file: &str) -> impl FnOnce(HubError) -> BenchmarkError {
    let [repo, revision, file] = [repo, revision, file].map(str::to_owned);
    move |error| BenchmarkError::Hub {
        repo,
        revision,
        file,
        problem: in_full(&error),
    }
}
