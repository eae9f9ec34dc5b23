//! The plans on a cluster (Apache DataFusion Ballista), for who outgrows one machine.
//!
//! A client hands the same plans to a scheduler; executors index parts and rank samples with the same
//! functions, and the client copies the text as it does alone. All of them see the inputs, the pictures
//! and the output's folder under the same paths, on a file system that they share: a plan names files
//! and holds nothing of what is in them. Executors fetch work, so only the scheduler's port and the
//! executors' data ports must be reachable. Nothing here is encrypted, and whoever reaches the
//! scheduler can run plans: keep the ports inside of a trusted network.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::error::BallistaError;
use ballista_core::extension::{
    SessionConfigExt, SessionStateExt, ballista_aggregate_functions, ballista_scalar_functions,
    ballista_window_functions,
};
use ballista_core::optimizer::ballista_default_optimizer_rules;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;
use datafusion::error::Result as DfResult;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use url::Url;

use crate::error::CurateError;
use crate::plan::functions;

/// The port that schedulers listen on unless told otherwise.
pub const SCHEDULER_PORT: u16 = 50050;

/// Plans nest deeply, and every level takes some stack where they are read.
const STACK_BYTES: usize = 32 << 20;

/// How long an executor tries to reach its scheduler, in seconds.
const CONNECT_SECONDS: u16 = 30;

/// A scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// Where it listens.
    pub address: SocketAddr,
}

/// An executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executor {
    /// Where its scheduler is: `df://HOST:PORT`.
    pub scheduler: String,
    /// Where others fetch its results.
    pub address: SocketAddr,
    /// The name or address by which others reach it; that of `address` if not given.
    pub external_host: Option<String>,
    /// The folder for results on their way.
    pub work: PathBuf,
    /// Tasks at a time.
    pub threads: usize,
    /// Memory of all tasks together, in bytes.
    pub memory_bytes: u64,
}

/// A session whose plans run on the cluster of a scheduler. `partitions` pieces of a plan run at the same
/// time, if there are as many threads.
///
/// # Errors
/// If the URL is none.
pub(crate) fn session(url: &str, partitions: usize) -> Result<SessionContext, CurateError> {
    let (host, port) = host_and_port(url)?;
    let doing = || CurateError::query("talk to the cluster");
    let config = SessionConfig::new_with_ballista().with_target_partitions(partitions.max(1));
    let state = state(config).map_err(doing())?;
    let state = state
        .upgrade_for_ballista(format!("http://{host}:{port}"))
        .map_err(doing())?;
    let context = SessionContext::new_with_state(state);
    for function in functions() {
        context.register_udf(function);
    }
    Ok(context)
}

/// What schedulers and executors know: all that Ballista does, and our functions.
fn state(config: SessionConfig) -> DfResult<SessionState> {
    let mut known = ballista_scalar_functions();
    known.extend(functions().into_iter().map(Arc::new));
    Ok(SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_runtime_env(RuntimeEnvBuilder::new().build_arc()?)
        .with_optimizer_rules(ballista_default_optimizer_rules())
        .with_scalar_functions(known)
        .with_aggregate_functions(ballista_aggregate_functions())
        .with_window_functions(ballista_window_functions())
        .build())
}

/// `df://HOST:PORT`, with or without what is in front and the port.
fn host_and_port(text: &str) -> Result<(String, u16), CurateError> {
    let whole = match text.contains("://") {
        true => text.to_owned(),
        false => format!("df://{text}"),
    };
    let url = Url::parse(&whole).ok();
    let host = url.as_ref().and_then(Url::host_str);
    match host.filter(|host| !host.is_empty()) {
        Some(host) => Ok((
            host.to_owned(),
            url.as_ref().and_then(Url::port).unwrap_or(SCHEDULER_PORT),
        )),
        None => Err(CurateError::ClusterUrl {
            url: text.to_owned(),
        }),
    }
}

fn runtime(doing: &'static str, threads: usize) -> Result<tokio::runtime::Runtime, CurateError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(2))
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .map_err(|error| failed(doing)(error.into()))
}

fn failed(doing: &'static str) -> impl FnOnce(BallistaError) -> CurateError {
    move |source| CurateError::Cluster {
        doing,
        source: Box::new(source),
    }
}

impl Scheduler {
    /// Schedules until the process ends.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn run(self) -> Result<(), CurateError> {
        let doing = "run the scheduler";
        let config = SchedulerConfig::default()
            .with_hostname(self.address.ip().to_string())
            .with_port(self.address.port())
            .with_scheduler_policy(TaskSchedulingPolicy::PullStaged)
            .with_override_config_producer(Arc::new(SessionConfig::new_with_ballista))
            .with_override_session_builder(Arc::new(state));
        runtime(doing, 2)?
            .block_on(async move {
                let cluster = BallistaCluster::new_from_config(&config).await?;
                start_server(cluster, self.address, Arc::new(config)).await
            })
            .map_err(failed(doing))
    }
}

impl Executor {
    /// Works until the process is asked to end.
    ///
    /// # Errors
    /// If the scheduler cannot be reached, or it cannot listen.
    pub fn run(self) -> Result<(), CurateError> {
        let doing = "run the executor";
        let (scheduler_host, scheduler_port) = host_and_port(&self.scheduler)?;
        std::fs::create_dir_all(&self.work)
            .map_err(CurateError::io("make the folder", &self.work))?;
        let work = self.work.to_str().ok_or_else(|| CurateError::NotUtf8 {
            path: self.work.clone(),
        })?;
        let registry = state(SessionConfig::new_with_ballista());
        let registry = registry.map_err(CurateError::query("start the query engine"))?;
        let own = self.address.ip();
        let written = match own {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let reached = (!own.is_unspecified()).then(|| written.clone());
        let config = ExecutorProcessConfig {
            bind_host: written,
            external_host: self.external_host.or(reached),
            port: self.address.port(),
            scheduler_host,
            scheduler_port,
            scheduler_connect_timeout_seconds: CONNECT_SECONDS,
            vcores: self.threads.max(1),
            task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
            work_dir: Some(work.to_owned()),
            // A curation's tables are small, and a day later nobody asks for them.
            job_data_ttl_seconds: 24 * 3600,
            job_data_clean_up_interval_seconds: 3600,
            memory_pool_size: Some(self.memory_bytes),
            override_function_registry: Some(Arc::new((&registry).into())),
            override_config_producer: Some(Arc::new(SessionConfig::new_with_ballista)),
            ..ExecutorProcessConfig::default()
        };
        runtime(doing, self.threads)?
            .block_on(start_executor_process(Arc::new(config)))
            .map_err(failed(doing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_host_and_port() {
        let of = |text: &str| host_and_port(text).ok();
        let named = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(of("df://a.b:7"), named("a.b", 7));
        assert_eq!(of("http://a"), named("a", SCHEDULER_PORT));
        assert_eq!(of("127.0.0.1:9"), named("127.0.0.1", 9));
        assert_eq!(of("df://"), None);
        assert_eq!(of(""), None);
    }
}
