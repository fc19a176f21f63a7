//! Training on a device of another machine. The server has the operations of burn-sab, so that a pass over a sequence
//! is one message, and its own kernel runs it.
//!
//! ```sh
//! cargo run --release --features remote --example remote -- serve 3000                  # in one terminal
//! cargo run --release --features remote --example remote -- train ws://127.0.0.1:3000   # in another
//! ```
//!
//! Expect: the loss falls as on a local device. Every 50 updates the client saves the network. End the server with
//! Ctrl+C: the client ends too, with the name of the file. Start both once more, and training goes on from there.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::time::Instant;

use burn::backend::Flex;
use burn::module::Module;
use burn::remote::RemoteHost;
use burn::server::{CustomOpRegistry, RemoteServer, WebSocketTransport};
use burn::store::ModuleRecord;
use burn::tensor::Device;
use burn_sab_examples::end;
use burn_sab_examples::forecast::Training;

const UPDATES: usize = 400;
/// Updates between two files.
const SAVED: usize = 50;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", port] => {
            serve(port.parse().unwrap_or_else(|_| end("the port has to be a number")))
        }
        ["train", url] => train(url),
        _ => end("expected `serve PORT` or `train URL`"),
    }
}

/// Serves a CPU device until Ctrl+C. For a GPU: `burn::backend::Cube` and `Device::wgpu(..)` or `Device::cuda(..)`.
fn serve(port: u16) {
    let mut operations = CustomOpRegistry::<Flex>::new();
    burn_sab::op::register_ops(&mut operations);
    let server = RemoteServer::new([Device::flex()]).with_custom_ops(operations);
    if let Err(error) = server.serve(WebSocketTransport::new(port)) {
        end(&format!("the server cannot start: {error}"));
    }
}

fn train(url: &str) {
    let device = Device::remote_options(&RemoteHost::websocket(url)).init();
    let device = device.unwrap_or_else(|error| end(&format!("{url}: {error}")));
    let file = std::env::temp_dir().join("burn-sab-remote.bpk");
    let mut training = Training::new(&device);
    if file.exists() {
        let record = ModuleRecord::load(&file).unwrap_or_else(|error| end(&error.to_string()));
        training.network = training.network.load_record(record);
        println!("goes on from {}", file.display());
    }
    let began = Instant::now();
    for update in 1..=UPDATES {
        let loss = or_end(|| training.update(), &file);
        if update.is_multiple_of(SAVED) {
            let each = 1e3 * began.elapsed().as_secs_f64() / update as f64;
            println!("update {update:4}   loss {loss:.4}   {each:.0} ms per update");
            let record = or_end(|| training.network.clone().into_record(), &file);
            record.save(&file).unwrap_or_else(|error| end(&error.to_string()));
        }
    }
}

/// What `run` gives. Burn panics where it reads from a server that is gone, in several lines: this ends with one.
fn or_end<T>(run: impl FnOnce() -> T, file: &Path) -> T {
    let hook = take_hook();
    set_hook(Box::new(|_| ()));
    let outcome = catch_unwind(AssertUnwindSafe(run));
    set_hook(hook);
    outcome.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map_or("no message", String::as_str);
        let reason = message.lines().last().unwrap_or_default().trim();
        end(&format!("{reason}; the last network that was saved is in {}", file.display()))
    })
}
