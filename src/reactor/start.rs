//! The start of the daemon: it makes all parts (identity, marks, sockets, threads, node) and connects them.
//!
//! Not here: the work of these parts.
//!
//! Invariant: either every part is made, or the error says which part cannot be made, and why.

use super::children::Children;
use super::connections::Listeners;
use super::http::Http;
use super::peers::Peers;
use super::socket::{self, SocketFile};
use super::source::Source;
use super::stream::Listener;
use super::timer::Timer;
use super::{Reactor, readable, waker};
use crate::api::access::Door;
use crate::core::io::ports::SpoolLeft;
use crate::core::io::{ExitReason, Signal};
use crate::core::log::output::retention::Outputs;
use crate::core::node::{Node, Setup};
use crate::model::config::{ClusterConfig, Config, Secret};
use crate::model::{Incarnation, Mono, NodeId};
use crate::wire::handshake::Key;
use crate::worker::clock;
use crate::worker::consul::ConsulClient;
use crate::worker::home::{self, Home};
use crate::worker::operator_files::OperatorFiles;
use crate::worker::output_files::OutputFiles;
use crate::worker::own_files;
use crate::worker::pool::{Answers, Pool, Tools};
use crate::worker::process::cgroups::Cgroups;
use crate::worker::process::{DaemonLink, FreeMemory, MarkBook, OpenedMarks, Spawner};
use crate::worker::random;
use crate::worker::spool::SpoolFile;
use crate::worker::store::sqlite::WriteOrder;
use crate::worker::store::{self, Hand, Store};
use mio::net::{TcpListener, UnixListener, UnixStream};
use mio::{Interest, Poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// Runs the daemon to its end. The error says why the event loop could not start or go on.
pub fn run(config: &Config, link: DaemonLink) -> Result<ExitReason, String> {
    reactor(config, link)?.serve().map_err(|error| format!("the event loop: {error}"))
}

fn reactor(config: &Config, mut link: DaemonLink) -> Result<Reactor, String> {
    let (disk, kept) = Disk::open(config, &link)?;
    let (node_id, OpenedMarks { book: marks, found, has_forgotten, .. }) = memory(config)?;
    let poll = Poll::new().map_err(|error| format!("create the event loop: {error}"))?;
    let listener = listen(&poll, "http_bind_address", config.http_bind_address, Source::HttpListener)?;
    let debug_listener =
        config.pprof_listen.map(|address| listen(&poll, "pprof_listen", address, Source::DebugListener)).transpose()?;
    // A node without Consul has no other nodes to listen to.
    let bind_address = config.consul.as_ref().and_then(|_| config.bind_address.0.parse().ok());
    let peer_listener =
        bind_address.map(|address| listen(&poll, "bind_address", address, Source::PeerListener)).transpose()?;
    let socket = socket(&poll, &config.data_dir);
    let (socket_listener, socket_file) = socket.map_or((None, None), |(listener, file)| (Some(listener), Some(file)));
    let listeners = Listeners {
        api: match &config.access.tls {
            Some(tls) => Listener::Tls(listener, Arc::clone(&tls.certificate.server)),
            None => Listener::Tcp(listener),
        },
        debug: debug_listener.map(Listener::Tcp),
        socket: socket_listener.map(Listener::Unix),
    };
    let door = Door::new(config.access.clone(), rustix::process::geteuid().as_raw());
    let (sender, answers) = crossbeam_channel::unbounded();
    let cgroups = link.cgroups.take().map(|folder| Arc::new(Cgroups::passed(folder)));
    let tools = tools(config, &marks, disk, link.guardian, cgroups.clone());
    let pool = Pool::start(tools, Answers { queue: sender, wake: wake(&poll)? }).map_err(starting)?;
    let timer = Timer::new().map_err(starting)?;
    readable(&poll, &timer, Source::Timer).map_err(starting)?;
    readable(&poll, &link.death_pipe, Source::Guardian).map_err(starting)?;
    let signals = [(SIGTERM, Signal::Drain), (SIGINT, Signal::Drain), (SIGHUP, Signal::Reload)];
    let signals = signals.into_iter().enumerate().map(|(at, (number, signal))| Ok((signal, hear(&poll, number, at)?)));
    let setup = Setup {
        server: config.bind_address.clone(),
        node_id,
        incarnation: Incarnation(clock::now().wall.0 as u64),
        lock_key: config.lock_key.clone(),
        is_alone: config.consul.is_none(),
        zones: config.zones.zones.clone(),
        limits: config.limits,
        labels: config.labels.clone(),
        drain_timeout_ms: config.drain_timeout_ms,
        log_retention_days: config.log_retention_days,
        found,
        has_forgotten,
        spool_left: kept,
    };
    Ok(Reactor {
        node: Node::new(setup),
        timer,
        answers,
        pool,
        marks,
        children: Children::new(Outputs::new(config.limits.max_output_bytes, config.spool_output), cgroups),
        http: Http::new(listeners, door),
        peers: Peers::new(peer_listener, &config.cluster, link_key(&config.cluster)?),
        signals: signals.collect::<std::io::Result<_>>().map_err(starting)?,
        link,
        _socket_file: socket_file,
        exit: None,
        unfinished: BTreeSet::new(),
        stuck: BTreeSet::new(),
        ask_again_at: Mono(0),
        poll,
    })
}

/// The node's id, and what it knows of the runs that it was given before.
fn memory(config: &Config) -> Result<(NodeId, OpenedMarks), String> {
    let is_first_start = !config.data_dir.join(NODE_ID).exists();
    let node_id = node_id(&config.data_dir)?;
    let marks = MarkBook::open(&config.data_dir, config.limits.held_max(), is_first_start)
        .map_err(|error| format!("open the marks in {}: {error}", config.data_dir.display()))?;
    marks.notice.iter().for_each(|notice| log::error!("{notice}"));
    Ok((node_id, marks))
}

/// What the worker threads call when there is an answer.
fn wake(poll: &Poll) -> Result<Arc<dyn Fn() + Send + Sync>, String> {
    let waker = waker(poll).map_err(starting)?;
    Ok(Arc::new(move || {
        if let Err(error) = waker.wake() {
            log::error!("wake the event loop: {error}");
        }
    }))
}

/// What was opened under data_dir.
struct Disk {
    spool: SpoolFile,
    home: Home,
}

impl Disk {
    /// Answers also what former incarnations left in the spool.
    fn open(config: &Config, link: &DaemonLink) -> Result<(Disk, SpoolLeft), String> {
        let home = Home::open(&config.data_dir, &link.lock, config.mysql.is_none())?;
        let (spool, kept, damage) = SpoolFile::open(&config.data_dir)
            .map_err(|error| format!("open the spool in {}: {error}", config.data_dir.display()))?;
        if let Some(damage) = damage {
            log::error!("{damage}");
        }
        Ok((Disk { spool, home }, kept))
    }
}

fn tools<'a>(
    config: &'a Config,
    marks: &MarkBook,
    disk: Disk,
    guardian: u32,
    cgroups: Option<Arc<Cgroups>>,
) -> Tools<'a> {
    let consul = config.consul.as_ref();
    let consul =
        consul.map(|consul| ConsulClient::new(consul, &config.service_name, &config.lock_key, &config.bind_address));
    let write_order = Arc::new(WriteOrder::default());
    Tools {
        new_store: Box::new(move |hand| new_store(config, hand, &write_order)),
        consul: consul.map(Arc::new),
        spawner: Arc::new(Spawner::new(config.shell.clone(), marks.marks(), &config.env_pass, cgroups.clone())),
        cgroups,
        spool: disk.spool,
        home: Arc::new(disk.home),
        memory: Arc::new(FreeMemory::new(config.limits.min_free_memory_mb)),
        guardian,
        output_files: OutputFiles(config.data_dir.join("output")),
        operator_files: OperatorFiles {
            tokens: config.access.tokens_file.clone(),
            certificate: config.access.tls.as_ref().map(|tls| tls.files.clone()),
        },
    }
}

fn new_store(config: &Config, hand: Hand, write_order: &Arc<WriteOrder>) -> Box<dyn Store> {
    match &config.mysql {
        Some(mysql) => Box::new(store::mysql::MysqlStore::new(mysql, hand)),
        None => {
            Box::new(store::sqlite::SqliteStore::new(&config.data_dir.join(home::STORE), hand, Arc::clone(write_order)))
        }
    }
}

fn listen(poll: &Poll, key: &str, address: SocketAddr, source: Source) -> Result<TcpListener, String> {
    let mut listener = TcpListener::bind(address).map_err(|error| {
        format!(
            "listen on {address} ({key}): {error}; is another program using it, or is it not an address of this host?"
        )
    })?;
    // Again, with all the room for connections that wait which the system gives (net.core.somaxconn): mio asks for 128.
    rustix::net::listen(&listener, i32::MAX).map_err(starting)?;
    poll.registry().register(&mut listener, source.token(), Interest::READABLE).map_err(starting)?;
    Ok(listener)
}

/// The key of the links. A node without a secret has one that nobody else knows, until its store gives it the secret of
/// the nodes that share the store; an insecure one has the key that everybody can have.
fn link_key(config: &ClusterConfig) -> Result<Key, String> {
    let unknown = || random::hex::<32>().map(Secret).map_err(starting);
    Ok(Key::of(&match (&config.secret, config.insecure) {
        (Some(secret), _) => secret.clone(),
        (None, true) => Secret::default(),
        (None, false) => unknown()?,
    }))
}

/// The Unix socket. A daemon without one does all else, so this is no reason not to start.
fn socket(poll: &Poll, data_dir: &Path) -> Option<(UnixListener, SocketFile)> {
    let made = socket::listen(data_dir).and_then(|(mut listener, file)| {
        poll.registry().register(&mut listener, Source::SocketListener.token(), Interest::READABLE)?;
        Ok((listener, file))
    });
    let path = data_dir.join(socket::NAME);
    made.map_err(|error| log::error!("make {}: {error}; the API is not there for local tools", path.display())).ok()
}

fn hear(poll: &Poll, signal: i32, at: usize) -> std::io::Result<UnixStream> {
    let (read_end, write_end) = std::os::unix::net::UnixStream::pair()?;
    read_end.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, write_end)?;
    let mut stream = UnixStream::from_std(read_end);
    poll.registry().register(&mut stream, Source::Signal(at).token(), Interest::READABLE)?;
    Ok(stream)
}

/// The longest node_id file that is read: an id, and blanks around it.
const NODE_ID_BYTES_MAX: usize = 64;

/// The file with the node's id, in data_dir.
const NODE_ID: &str = "node_id";

/// The node's id, made at its first start.
fn node_id(data_dir: &Path) -> Result<NodeId, String> {
    let path = data_dir.join(NODE_ID);
    let fail = |error: std::io::Error| format!("read or make {}: {error}", path.display());
    let bad = || format!("{} does not hold 32 hex digits: remove it if this node is stopped for good", path.display());
    match own_files::read(&path, NODE_ID_BYTES_MAX) {
        Ok(Some(bytes)) => {
            let text = String::from_utf8(bytes).map_err(|_| bad())?;
            let is_id = text.trim().len() == 32 && text.trim().bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_id { Ok(NodeId(text.trim().into())) } else { Err(bad()) }
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(bad()),
        Ok(None) => {
            let text = random::hex::<16>().map_err(fail)?;
            // Half an id would stop the next start.
            own_files::write_whole(&path, text.as_bytes()).map_err(fail)?;
            Ok(NodeId(text.into()))
        }
        Err(error) => Err(fail(error)),
    }
}

fn starting(error: impl Display) -> String {
    format!("start the daemon: {error}")
}
