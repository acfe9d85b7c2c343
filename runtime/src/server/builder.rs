//! What a program says about its server before it starts.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use hioload_protocol::http::Response;

use super::error::StartError;
use super::launch::{self, Plan, RawListeners, Running};
use super::report::Report;
use crate::config::{Compression, Config, ConfigError, ListenAddress, ReactorChoice};
use crate::shard::{Handler, IprotoHandler, PlainHandler, RawHandler, Request, Route, Shard};
use crate::shard::{iproto_route, raw_route, websocket_route};
use crate::sys::signals::Signals;

/// Makes the route of one shard, on its thread.
pub(super) type RouteFactory = Arc<dyn Fn(&mut Shard, usize) -> Box<dyn Route> + Send + Sync>;

/// A server for WebSocket, iproto, plain HTTP answers and raw TCP on every CPU it may use.
///
/// # Examples
/// ```no_run
/// use std::process::ExitCode;
/// use hioload::{Handler, Message, Request, Server, Session, Shard, Upgrade};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     type Session = ();
///     fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
///         Upgrade::accept(())
///     }
///     fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
///         session.send(message);
///     }
/// }
///
/// fn main() -> ExitCode {
///     Server::builder().websocket("/ws", |_shard| Echo).run()
/// }
/// ```
#[derive(Debug)]
pub struct Server(());

impl Server {
    /// Starts to describe a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }
}

/// A server that is being described. Errors of the configuration are kept until it is started or
/// checked.
#[must_use = "a builder does nothing until `run`, `start` or `check`"]
#[derive(Default)]
pub struct ServerBuilder {
    config: Config,
    error: Option<ConfigError>,
    websockets: Vec<(String, RouteFactory)>,
    /// Of each WebSocket route; `None`: as the configuration says.
    compressions: Vec<Option<Compression>>,
    plain: Vec<(String, PlainHandler)>,
    /// Listeners that speak no HTTP: raw streams and iproto.
    raw: Vec<(ListenAddress, RouteFactory)>,
    /// Whether one of them speaks iproto.
    has_iproto: bool,
}

impl ServerBuilder {
    /// Takes the configuration from a TOML file. See [`Config`] for the keys.
    pub fn config_file(mut self, path: impl AsRef<Path>) -> Self {
        match Config::from_file(path.as_ref()) {
            Ok(config) => self.config = config,
            Err(error) => self.fail(error),
        }
        self
    }

    /// Takes this configuration.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Changes the configuration, for instance by what the command line says.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Serves WebSocket and HTTP on this address alone: `127.0.0.1:9001`, `[::]:9001`, `:9001` (every interface) or
    /// `unix:/run/echo.sock`. It stands for `server.listen` of the configuration.
    pub fn listen(mut self, address: &str) -> Self {
        match address.parse() {
            Ok(address) => self.config.server.listen = vec![address],
            Err(error) => self.fail(error),
        }
        self
    }

    /// Asks for this reactor, as `server.reactor` of the configuration does.
    pub fn reactor(mut self, choice: ReactorChoice) -> Self {
        self.config.server.reactor = choice;
        self
    }

    /// Serves WebSocket at a path. `factory` is called once per shard, on its thread, so that
    /// what it makes need not be `Send`.
    ///
    /// The path may have parameters, which [`Request::param`] tells: `/chat/{room}` serves each
    /// path with one more segment, which is not empty, and `/files/{*rest}` all that begin so. An
    /// exact path goes before one with parameters. Paths are compared as they come: upper and
    /// lower case differ, and so do `/a%2Fb` and `/a/b`. Two routes that cannot be told apart are
    /// an error at the start. Write `{{` and `}}` for braces.
    pub fn websocket<H, F>(self, path: impl Into<String>, factory: F) -> Self
    where
        H: Handler,
        F: Fn(&mut Shard) -> H + Send + Sync + 'static,
    {
        self.add_websocket(path.into(), None, factory)
    }

    /// As [`websocket`](Self::websocket), with a compression of its own instead of that of the
    /// configuration.
    pub fn websocket_compressed<H, F>(
        self,
        path: impl Into<String>,
        compression: Compression,
        factory: F,
    ) -> Self
    where
        H: Handler,
        F: Fn(&mut Shard) -> H + Send + Sync + 'static,
    {
        self.add_websocket(path.into(), Some(compression), factory)
    }

    fn add_websocket<H, F>(
        mut self,
        path: String,
        compression: Option<Compression>,
        factory: F,
    ) -> Self
    where
        H: Handler,
        F: Fn(&mut Shard) -> H + Send + Sync + 'static,
    {
        let factory: RouteFactory = Arc::new(move |shard, sessions_max| {
            websocket_route(factory(shard), sessions_max, compression)
        });
        self.websockets.push((path, factory));
        self.compressions.push(compression);
        self
    }

    /// Answers plain `GET` and `HEAD` requests at a path: a health check, a page. The connection
    /// is closed after the answer. At a path that also serves WebSocket, upgrades go there.
    pub fn http<F>(mut self, path: impl Into<String>, answer: F) -> Self
    where
        F: Fn(&mut Shard, &Request<'_>) -> Response + Send + Sync + 'static,
    {
        self.plain.push((path.into(), Arc::new(answer)));
        self
    }

    /// Serves raw streams at an address of its own (written as for [`listen`](Self::listen)).
    pub fn raw<H, F>(mut self, address: &str, factory: F) -> Self
    where
        H: RawHandler,
        F: Fn(&mut Shard) -> H + Send + Sync + 'static,
    {
        self.add_raw(address, move |shard, sessions_max| raw_route(factory(shard), sessions_max));
        self
    }

    /// Serves iproto at an address of its own (written as for [`listen`](Self::listen)). See
    /// [`iproto`](crate::iproto).
    pub fn iproto<H, F>(mut self, address: &str, factory: F) -> Self
    where
        H: IprotoHandler,
        F: Fn(&mut Shard) -> H + Send + Sync + 'static,
    {
        self.has_iproto = true;
        self.add_raw(address, move |shard, sessions_max| {
            iproto_route(factory(shard), sessions_max)
        });
        self
    }

    fn add_raw<F>(&mut self, address: &str, factory: F)
    where
        F: Fn(&mut Shard, usize) -> Box<dyn Route> + Send + Sync + 'static,
    {
        match address.parse() {
            Ok(address) => self.raw.push((address, Arc::new(factory))),
            Err(error) => self.fail(error),
        }
    }

    /// Checks the configuration and plans the placement, without opening anything.
    ///
    /// # Errors
    /// What [`start`](Self::start) would find wrong with the configuration.
    pub fn check(self) -> Result<Report, StartError> {
        Ok(self.plan()?.report())
    }

    /// What a program does for its `--check` flag: prints the resolved configuration, the
    /// placement and the memory bill on standard output, or what is wrong on standard error.
    #[must_use]
    pub fn print_check(self) -> ExitCode {
        match self.check() {
            Ok(report) => {
                println!("{}\n{report}", report.config.to_toml());
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: {error}");
                error.exit_code()
            }
        }
    }

    /// Starts the server and returns once every shard accepts.
    ///
    /// # Errors
    /// The configuration is wrong, an address is taken, or a shard cannot start.
    pub fn start(self) -> Result<Running, StartError> {
        launch::start(self.plan()?)
    }

    /// Starts the server, prints its report on standard error, and serves until SIGINT or SIGTERM
    /// came and every connection is closed. A second signal ends the process at once.
    ///
    /// The exit code is 0 after a signal, 78 if the configuration is to blame, and 1 otherwise;
    /// the reason is printed in one sentence.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                error.exit_code()
            }
        }
    }

    fn serve(self) -> Result<(), StartError> {
        let plan = self.plan()?;
        let signals = Signals::block()
            .map_err(|source| StartError::System { what: "cannot wait for signals", source })?;
        let running = launch::start(plan)?;
        eprintln!("{}", running.report());
        running.serve_until_signal(&signals)
    }

    fn plan(self) -> Result<Plan, StartError> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        let Self { config, websockets, compressions, plain, raw, has_iproto, .. } = self;
        let usual = Compression::from(&config.websocket);
        let compressions = compressions.into_iter().map(|own| own.unwrap_or(usual)).collect();
        let listeners = RawListeners { all: raw, has_iproto };
        Plan::new(config, websockets, compressions, plain, listeners)
    }

    fn fail(&mut self, error: ConfigError) {
        self.error.get_or_insert(error);
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("config", &self.config)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
