//! `data scheduler` and `data executor`: a cluster that curates.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use opabinia_curate::cluster::{Executor, Scheduler};

use super::parse_bytes;
use crate::{Outcome, output};

/// Hand the plans of curations to executors.
///
/// Whoever reaches it can run plans on the cluster: keep it inside of a trusted network.
#[derive(Args)]
pub struct SchedulerVerb {
    /// Address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:50050")]
    bind: SocketAddr,
}

impl SchedulerVerb {
    /// Does it.
    pub fn run(self) -> Outcome {
        output::note(&format!("scheduler on df://{}", self.bind));
        Scheduler { address: self.bind }.run()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Work for the curations of a cluster.
///
/// It must see the inputs, the pictures and the folders of outputs under the same paths as whoever
/// curates.
#[derive(Args)]
pub struct ExecutorVerb {
    /// Its scheduler, `df://HOST:PORT`.
    #[arg(long)]
    scheduler: String,
    /// Address and port from which others fetch its results.
    #[arg(long, default_value = "127.0.0.1:50051")]
    bind: SocketAddr,
    /// Name or address by which others reach it, if that is another one.
    #[arg(long)]
    external_host: Option<String>,
    /// Folder for results on their way.
    #[arg(long)]
    work: PathBuf,
    /// Tasks at a time; all processors if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Memory of all tasks together; what does not fit is spilled to disk.
    #[arg(long, default_value = "1GiB", value_parser = parse_bytes)]
    memory: u64,
}

impl ExecutorVerb {
    /// Does it.
    pub fn run(self) -> Outcome {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        output::note(&format!(
            "executor for {}, results on {}",
            self.scheduler, self.bind
        ));
        let executor = Executor {
            scheduler: self.scheduler,
            address: self.bind,
            external_host: self.external_host,
            work: self.work,
            threads: self.threads.unwrap_or_else(all),
            memory_bytes: self.memory,
        };
        executor.run()?;
        Ok(ExitCode::SUCCESS)
    }
}
