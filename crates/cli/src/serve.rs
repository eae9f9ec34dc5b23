//! `serve`: a model on the network, for programs and for people.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::ExitCode;

use clap::Args;
use opabinia_server::{Key, Options, ServeError, serve};

use crate::args::{ImageArgs, ModelArgs, SamplingArgs};
use crate::failure::Failure;
use crate::{Outcome, interrupt, load, output};

/// Answer over HTTP, in the form of OpenAI's API, and on a page.
#[derive(Args)]
pub struct Serve {
    /// Address to listen on; one that other machines can reach needs a key.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port; 0 lets the system choose.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// What requests must bring as `Authorization: Bearer KEY`.
    #[arg(long, env = "OPABINIA_SERVE_KEY", hide_env_values = true)]
    key: Option<String>,
    /// What the model is called in answers; its folder's name if not given.
    #[arg(long)]
    name: Option<String>,
    /// System text where a request has none, instead of the template's own.
    #[arg(long)]
    system: Option<String>,
    /// Questions that may wait while another one is answered.
    #[arg(long, default_value_t = 32)]
    queue: usize,
    /// Largest request in bytes, pictures included.
    #[arg(long, default_value_t = 64 << 20)]
    max_request_bytes: usize,
    /// Say how the model was loaded.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    image: ImageArgs,
}

impl Serve {
    /// Loads and answers until Ctrl-C.
    pub fn run(self) -> Outcome {
        let generation = self.sampling.generation()?;
        let key = self.key.as_deref().map(Key::new).transpose();
        let key = key.map_err(refused)?;
        // Before minutes go into loading a model.
        if key.is_none() && !self.host.is_loopback() {
            let address = (self.host, self.port).into();
            return Err(refused(ServeError::Open { address }));
        }
        let address = (self.host, self.port);
        let listener = TcpListener::bind(address).map_err(|source| {
            refused(ServeError::Io {
                address: address.into(),
                source,
            })
        })?;
        let model = load::model(&self.model, self.verbose)?;
        interrupt::watch()?;
        let options = Options {
            name: self
                .name
                .unwrap_or_else(|| name(self.model.model.as_deref())),
            generation,
            system: self.system,
            limits: self.image.limits(),
            key,
            queue: self.queue,
            max_request_bytes: self.max_request_bytes,
        };
        let mut ready = |address: std::net::SocketAddr| {
            output::note(&format!("listening on http://{address}; Ctrl-C ends it"));
        };
        serve(model, listener, options, &mut ready, interrupt::asked).map_err(refused)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The last part of a folder's or a repository's name.
fn name(model: Option<&str>) -> String {
    let last = model.and_then(|name| {
        name.trim_end_matches(['/', '\\'])
            .rsplit(['/', '\\'])
            .next()
    });
    match last {
        Some(name) if !name.is_empty() && name != "." && name != ".." => name.to_owned(),
        _ => "opabinia-small".to_owned(),
    }
}

fn refused(error: ServeError) -> Failure {
    let hint = match error {
        ServeError::Open { .. } => {
            "set a key with `--key` or OPABINIA_SERVE_KEY, or leave `--host` out"
        }
        ServeError::Key => "give `--key` or OPABINIA_SERVE_KEY another value, or leave them out",
        ServeError::Io { .. } => "another program may use the port; `--port 0` takes a free one",
    };
    Failure::from(error).hint(hint)
}
