//! A server in another process, and a proxy that counts what crosses between it and a client.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use burn::backend::Flex;
use burn::backend::ir::GraphId;
use burn::remote::RemoteHost;
use burn::server::telemetry::{DrainStatus, OpClass, TelemetryEvent, TelemetryProbe};
use burn::server::{CustomOpRegistry, RemoteServer, WebSocketTransport};
use burn::tensor::Device;

/// What a server process is to have: `with` or `without` the operations, and the port.
const ROLE: &str = "BURN_SAB_TEST_SERVER";

/// A server of one flex device, in another process, which ends with this value.
pub struct Server {
    process: Child,
    orders: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server. The process is this test program once more, told to run the test of this name alone: it comes
    /// to this very call, which there serves until its input ends.
    pub fn start(test: &str, with_operations: bool, port: u16) -> Self {
        if let Ok(role) = std::env::var(ROLE) {
            serve(&role);
        }
        let role = format!("{} {port}", if with_operations { "with" } else { "without" });
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Without the operations it is to panic: that would stand in the middle of this program's own lines.
            .stderr(if with_operations { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .expect("this program once more");
        let orders = process.stdin.take();
        let mut said = BufReader::new(process.stdout.take().expect("piped"));
        let address = line_after(&mut said, "serves on ").parse().expect("an address");
        Self { process, orders, said, address }
    }

    /// What the server has done so far.
    pub fn work(&mut self) -> Work {
        let orders = self.orders.as_mut().expect("until it is killed");
        orders.write_all(b"count\n").expect("a server that runs");
        let counts = line_after(&mut self.said, "counted ");
        let mut numbers = counts.split(' ').map(|number| number.parse().expect("a number"));
        let mut next = || numbers.next().expect("three numbers");
        Work { messages: next(), operations: next(), own: next() }
    }

    /// Ends the process at once. Returns the rest of what it wrote.
    pub fn kill(mut self) -> String {
        self.process.kill().expect("a server that runs");
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).expect("its output");
        rest
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.process.wait();
    }
}

/// What a server did, apart from answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Messages: operations one by one, releases of tensors, and runs of graphs that Burn's fusion made of them.
    pub messages: u64,
    /// Operations and releases, those of graphs too.
    pub operations: u64,
    /// Operations of this crate.
    pub own: u64,
}

impl std::ops::Sub for Work {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            messages: self.messages - other.messages,
            operations: self.operations - other.operations,
            own: self.own - other.own,
        }
    }
}

impl Work {
    fn add(&mut self, event: &TelemetryEvent, graphs: &mut HashMap<GraphId, [u64; 2]>) {
        let is_own = |kind: OpClass| u64::from(kind == OpClass::Custom);
        let [operations, own] = match event {
            TelemetryEvent::Op { kind, .. } => [1, is_own(*kind)],
            TelemetryEvent::TensorDropped { .. } => [1, 0],
            TelemetryEvent::GraphExecuted { graph, .. } => graphs[graph],
            TelemetryEvent::GraphRegistered { graph, ops, .. } => {
                let own = ops.iter().map(|op| is_own(op.kind)).sum();
                graphs.insert(*graph, [ops.len() as u64, own]);
                return;
            }
            _ => return,
        };
        self.messages += 1;
        self.operations += operations;
        self.own += own;
    }
}

/// The rest of the next line that has `prefix` in it: the test harness writes to the same output.
fn line_after(said: &mut impl BufRead, prefix: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).expect("text") > 0, "the server said no {prefix:?}");
        if let Some((_, rest)) = line.split_once(prefix) {
            return rest.trim().to_owned();
        }
    }
}

fn serve(role: &str) -> ! {
    let (operations, port) = role.split_once(' ').expect("two words");
    let port: u16 = port.parse().expect("a port");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    println!("\nserves on {}", listener.local_addr().expect("a bound listener"));
    let (probe, mut events) = TelemetryProbe::channel(1 << 16);
    let mut server = RemoteServer::new([Device::flex()]).with_telemetry(probe);
    if operations == "with" {
        let mut operations = CustomOpRegistry::<Flex>::new();
        burn_sab::op::register_ops(&mut operations);
        server = server.with_custom_ops(operations);
    }
    thread::spawn(move || {
        let served = server.serve(WebSocketTransport::from_listener(listener));
        panic!("the server ended: {served:?}");
    });
    let (mut work, mut graphs) = (Work::default(), HashMap::new());
    for order in std::io::stdin().lines() {
        order.expect("text");
        let mut news = Vec::new();
        let drained = events.drain_into(&mut news);
        assert!(matches!(drained, DrainStatus::Open { lagged: 0 }), "events were not counted");
        news.iter().for_each(|event| work.add(event, &mut graphs));
        println!("\ncounted {} {} {}", work.messages, work.operations, work.own);
    }
    exit(0)
}

/// A device on the server at an address. Burn has one session per address and credential, for the life of a process.
pub fn connect(address: SocketAddr, credential: &str) -> Device {
    let host = RemoteHost::websocket(&format!("ws://{address}")).with_credential(credential);
    Device::remote_options(&host).init().expect("a server that runs").autodiff()
}

/// What crossed a proxy in one direction.
#[derive(Default)]
struct Counts {
    bytes: AtomicU64,
    frames: AtomicU64,
}

/// Bytes and WebSocket frames to a server, and from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: [u64; 2],
    pub frames: [u64; 2],
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let less = |a: [u64; 2], b: [u64; 2]| [a[0] - b[0], a[1] - b[1]];
        Self { bytes: less(self.bytes, other.bytes), frames: less(self.frames, other.frames) }
    }
}

/// A proxy before a server.
pub struct Proxy {
    pub address: SocketAddr,
    counts: [Arc<Counts>; 2],
}

impl Proxy {
    /// Listens until the process ends.
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let counts = [Arc::new(Counts::default()), Arc::new(Counts::default())];
        let of_thread = counts.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                let server = TcpStream::connect(server).expect("a server that runs");
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("a TCP stream");
                }
                let both = || (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (up, down) = (both(), both());
                let [to, from] = of_thread.clone();
                thread::spawn(move || pass_on(up.0, up.1, &to));
                thread::spawn(move || pass_on(down.1, down.0, &from));
            }
        });
        Self { address, counts }
    }

    pub fn traffic(&self) -> Traffic {
        let read = |count: fn(&Counts) -> &AtomicU64| {
            self.counts.each_ref().map(|counts| count(counts).load(Ordering::SeqCst))
        };
        Traffic { bytes: read(|counts| &counts.bytes), frames: read(|counts| &counts.frames) }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, counts: &Counts) {
    let (mut frames, mut buffer) = (Frames::default(), vec![0; 1 << 16]);
    while let Ok(size @ 1..) = from.read(&mut buffer) {
        counts.bytes.fetch_add(size as u64, Ordering::SeqCst);
        counts.frames.fetch_add(frames.read(&buffer[..size]), Ordering::SeqCst);
        if to.write_all(&buffer[..size]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Counts the frames of a WebSocket stream (RFC 6455, 5.2), behind the request or response of HTTP.
#[derive(Default)]
struct Frames {
    in_frames: bool,
    /// The end of HTTP so far, or the header of a frame so far.
    head: Vec<u8>,
    /// Bytes of the payload that are still to come.
    payload: u64,
}

impl Frames {
    /// Data frames that begin in `bytes`.
    fn read(&mut self, mut bytes: &[u8]) -> u64 {
        let mut begun = 0;
        while !bytes.is_empty() {
            if self.payload > 0 {
                let size = self.payload.min(bytes.len() as u64);
                self.payload -= size;
                bytes = &bytes[size as usize..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            if !self.in_frames {
                self.in_frames = self.head.ends_with(b"\r\n\r\n");
                if self.in_frames {
                    self.head.clear();
                }
            } else if let Some(payload) = payload(&self.head) {
                let is_data = self.head[0] & 0x0f <= 2;
                begun += u64::from(is_data);
                self.payload = payload;
                self.head.clear();
            }
        }
        begun
    }
}

/// The size of a frame's payload, once its header is complete.
fn payload(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (short, extended) = (
        second & 0x7f,
        match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        },
    );
    if head.len() < 2 + extended + mask {
        return None;
    }
    let long = head[2..2 + extended].iter().fold(0, |size, byte| size << 8 | u64::from(*byte));
    Some(if extended == 0 { u64::from(short) } else { long })
}

#[test]
fn frames_are_counted_in_any_pieces() {
    let mut stream = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n".to_vec();
    for (size, masked) in [(0usize, true), (5, false), (125, true), (126, false), (70_000, true)] {
        stream.push(0x82);
        let mask = if masked { 0x80 } else { 0 };
        match size {
            ..126 => stream.push(mask | size as u8),
            126..65_536 => {
                stream.push(mask | 126);
                stream.extend((size as u16).to_be_bytes());
            }
            _ => {
                stream.push(mask | 127);
                stream.extend((size as u64).to_be_bytes());
            }
        }
        stream.extend(vec![7; if masked { 4 } else { 0 } + size]);
    }
    stream.extend([0x8a, 0]); // a pong, which is no data
    for piece in [1, 3, 1 << 20] {
        let mut frames = Frames::default();
        let counted: u64 = stream.chunks(piece).map(|piece| frames.read(piece)).sum();
        assert_eq!(counted, 5, "in pieces of {piece}");
    }
}
