//! The stage: a worker, a service, servers that follow a script, and clients.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use model::event::{AccessRecord, Event, Step};
use model::settings::Overrides;
use model::{
    Condition, Direction, Endpoint, KnownBy, Local, ObjectName, OrigDst, Protocol, Remote, Service,
    ServiceKind, ServicePort, SessionAffinity, Settings, TargetPort, Update,
};
use registry::Table;
use runtime::metrics::Metrics;
use runtime::tap::Tap;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

use crate::capture::Origin;
use crate::dial::Dialed;
use crate::http;
use crate::report::Reports;
use crate::route;
use crate::worker::Worker;

pub(super) const VIP: &str = "10.0.0.1:80";

/// Runs a test on a runtime like a worker's.
pub(super) fn on_stage<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, test);
}

/// A worker with one service.
pub(super) struct Stage {
    pub(super) worker: Rc<Worker>,
    table: RefCell<Table>,
    overrides: Overrides,
    events: tokio::sync::Mutex<mpsc::Receiver<Event>>,
    number: Cell<u64>,
    name: Cell<&'static str>,
}

impl Stage {
    pub(super) fn new(endpoints: &[SocketAddr]) -> Self {
        Self::with(endpoints, Overrides::default(), Settings::default())
    }

    pub(super) fn with(endpoints: &[SocketAddr], overrides: Overrides, settings: Settings) -> Self {
        let metrics = Metrics::of_process("test", "test");
        let steps = Tap::default();
        let (events, _) = steps.listen(10_000).unwrap();
        let reports = Reports::new(&metrics, None, steps);
        let mut table = Table::new(None);
        table.apply(Update::Mesh(Box::new(settings)));
        let worker = Worker::alone(table.snapshot(), &reports);
        let stage = Self {
            worker,
            table: RefCell::new(table),
            overrides,
            events: tokio::sync::Mutex::new(events),
            number: Cell::new(0),
            name: Cell::new("web"),
        };
        stage.set_endpoints(endpoints);
        stage
    }

    /// Puts other endpoints behind the service.
    pub(super) fn set_endpoints(&self, endpoints: &[SocketAddr]) {
        let name = ObjectName::new("default", self.name.get());
        let port_name: Arc<str> = "http".into();
        let endpoint = |address: &SocketAddr| Endpoint {
            port_name: Arc::clone(&port_name),
            address: *address,
            condition: Condition::READY,
            workload: None,
            hostname: None,
            generation: "".into(),
        };
        let vip: SocketAddr = VIP.parse().expect("an address");
        let service = Service {
            name: name.clone(),
            host: format!("{}.default.svc.cluster.local", name.name).into(),
            kind: ServiceKind::ClusterIp(vec![vip.ip()]),
            ports: vec![ServicePort {
                number: vip.port(),
                name: Arc::clone(&port_name),
                protocol: Protocol::Http,
                known_by: KnownBy::PortNamePrefix,
                target: TargetPort::Number(8080),
            }],
            affinity: SessionAffinity::None,
            created: model::Created::Unknown,
            publish_not_ready: false,
            settings: self.overrides.clone(),
        };
        let mut table = self.table.borrow_mut();
        table.apply(Update::Service(Box::new(service)));
        table.apply(Update::Endpoints {
            service: name,
            endpoints: endpoints.iter().map(endpoint).collect(),
        });
        self.worker.show(table.snapshot());
    }

    /// Another service takes the place of the present one: its address, its port.
    pub(super) fn replace_service(&self, endpoints: &[SocketAddr]) {
        self.remove_service();
        self.name.set("other");
        self.set_endpoints(endpoints);
    }

    pub(super) fn remove_service(&self) {
        let name = ObjectName::new("default", self.name.get());
        let mut table = self.table.borrow_mut();
        table.apply(Update::ServiceGone(name));
        self.worker.show(table.snapshot());
    }

    /// A client whose connection to the service was captured.
    pub(super) async fn client(&self) -> Client {
        self.client_with(b"", None).await
    }

    /// The same, with what was read and dialled before it was known to speak HTTP.
    pub(super) async fn client_with(&self, first: &[u8], dialed: Option<Dialed>) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (ours, theirs) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let (ours, source) = ours.expect("connected");
        self.number.set(self.number.get() + 1);
        let origin = Origin {
            is_published: false,
            connection: self.number.get(),
            direction: Direction::Outbound,
            source: Remote::new(source),
            original_dst: OrigDst::new(VIP.parse().expect("an address")),
            local: Local::new(address),
            start: Instant::now(),
            start_wall: SystemTime::now(),
        };
        let worker = Rc::clone(&self.worker);
        let route = route::route(&worker, &origin).expect("the service is there");
        let life = worker.lives.begin();
        let client = http::Client::new(&worker, ours, first.into(), origin, route, life, dialed);
        spawn_local(http::serve(client));
        Client(theirs.expect("connected"))
    }

    /// Looks for passed deadlines as a worker does, only more often.
    pub(super) fn sweep_often(&self) {
        let worker = Rc::clone(&self.worker);
        spawn_local(async move {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                worker.lives.sweep();
            }
        });
    }

    /// The record of the next request that ends.
    pub(super) async fn record(&self) -> AccessRecord {
        loop {
            let event = self.events.lock().await.recv().await.expect("the worker lives");
            if let Step::Ended(record) = event.step {
                return *record;
            }
        }
    }

    /// Flags of the next request that ends, as the access log writes them.
    pub(super) async fn flags(&self) -> String {
        self.record().await.flags.to_string()
    }
}

/// The application's end.
pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("sent");
    }

    /// Reads until what was read ends with `end`; answers all of it.
    pub(super) async fn until(&mut self, end: &str) -> String {
        read_until(&mut self.0, |read| read.ends_with(end.as_bytes())).await
    }

    /// Sends a request and reads its answer up to `end`.
    pub(super) async fn ask(&mut self, request: &str, end: &str) -> String {
        self.send(request).await;
        self.until(end).await
    }

    /// Reads to the clean end.
    pub(super) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).await.expect("a clean end");
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Reads to the end, which must be a reset.
    pub(super) async fn rest_then_reset(&mut self) -> String {
        let mut rest = Vec::new();
        let end = self.0.read_to_end(&mut rest).await;
        assert_eq!(
            end.map_err(|error| error.kind()),
            Err(std::io::ErrorKind::ConnectionReset),
            "{}",
            String::from_utf8_lossy(&rest)
        );
        String::from_utf8_lossy(&rest).into_owned()
    }

    pub(super) fn reset(self) {
        reset(&self.0);
    }
}

fn reset(stream: &TcpStream) {
    SockRef::from(stream)
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("a socket");
}

async fn read_until(stream: &mut TcpStream, is_end: impl Fn(&[u8]) -> bool) -> String {
    let mut read = Vec::new();
    while !is_end(&read) {
        let byte = stream.read_u8().await;
        let Ok(byte) = byte else {
            panic!("ended after {:?}: {byte:?}", String::from_utf8_lossy(&read));
        };
        read.push(byte);
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// What a scripted server does on one connection.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Reads until what came since the last read ends so.
    Read(&'static str),
    /// Reads to the end of the stream.
    ReadAll,
    Send(Vec<u8>),
    /// Waits for [`Server::go_on`].
    Wait,
    Reset,
    /// Ends its own direction only.
    Shut,
    /// From here on the kernel drops all that comes, as if the link had been cut.
    Deaf,
}

pub(super) fn send(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}

/// Reads a request without a body and answers so.
pub(super) fn answer(text: &str) -> Vec<Act> {
    vec![Act::Read("\r\n\r\n"), send(text)]
}

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub(super) const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/// A server: the first connection follows the first script, and so on; it then closes. What comes
/// after the last script is closed at once.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    read: Rc<RefCell<Vec<String>>>,
    go: Rc<tokio::sync::Notify>,
    connections: Rc<Cell<usize>>,
}

impl Server {
    pub(super) async fn start(scripts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Self {
            address: listener.local_addr().expect("bound"),
            read: Rc::default(),
            go: Rc::default(),
            connections: Rc::default(),
        };
        let this = server.clone();
        spawn_local(async move {
            let mut scripts = scripts.into_iter();
            while let Ok((stream, _)) = listener.accept().await {
                this.connections.set(this.connections.get() + 1);
                if let Some(script) = scripts.next() {
                    spawn_local(this.clone().play(stream, script));
                }
            }
        });
        server
    }

    /// A port that nobody listens on.
    pub(super) async fn nobody() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("bound")
    }

    /// All that was read, an entry an act.
    pub(super) fn read(&self) -> Vec<String> {
        self.read.borrow().clone()
    }

    /// Connections accepted so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Lets one waiting connection go on.
    pub(super) fn go_on(&self) {
        self.go.notify_one();
    }

    async fn play(self, mut stream: TcpStream, script: Vec<Act>) {
        for act in script {
            match act {
                Act::Read(end) => {
                    let read = read_until(&mut stream, |read| read.ends_with(end.as_bytes())).await;
                    self.read.borrow_mut().push(read);
                }
                Act::ReadAll => {
                    let mut read = Vec::new();
                    let _ = stream.read_to_end(&mut read).await;
                    self.read
                        .borrow_mut()
                        .push(String::from_utf8_lossy(&read).into_owned());
                }
                Act::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Act::Wait => self.go.notified().await,
                Act::Reset => return reset(&stream),
                Act::Deaf => {
                    // BPF_RET | BPF_K of 0 bytes: nothing passes.
                    let drop_all = [socket2::SockFilter::new(0x06, 0, 0, 0)];
                    SockRef::from(&stream).attach_filter(&drop_all).expect("attached");
                }
                Act::Shut => stream.shutdown().await.expect("open"),
            }
        }
    }
}

/// Lets everything that is ready run.
pub(super) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
}
