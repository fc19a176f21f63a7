//! A server in another process: values and gradients, bytes and messages, a server without the operations, and one
//! that is killed.

mod common;
#[path = "common/remote.rs"]
mod remote;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Gradients, Tensor};
use burn_sab::{InitialSlot, SabLstm, SabLstmConfig, ScoreConfig, Segments, Sparsifier, Strategy};
use common::{Named, assert_close, gradient, numbers, parameter_gradients, setup};
use remote::{Proxy, Server, Traffic, Work, connect};

/// Far more than a step takes that does not hang.
const HANG: Duration = Duration::from_secs(60);

/// Runs `body`, and fails if it hangs.
fn in_time<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> thread::Result<T> {
    let (sender, receiver) = mpsc::channel();
    let runs = thread::spawn(move || {
        let result = body();
        let _ = sender.send(());
        result
    });
    match receiver.recv_timeout(HANG) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => runs.join(),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("still running after {HANG:?}"),
    }
}

/// Layers of every score and sparsifier, with different settings, sizes and data types.
fn cases() -> Vec<(SabLstmConfig, [usize; 2], DType)> {
    let scores = [
        ScoreConfig::Additive,
        ScoreConfig::Mlp { d_attention: 4 },
        ScoreConfig::Dot { d_attention: 3 },
    ];
    let sparsifiers = [Sparsifier::Threshold, Sparsifier::Released, Sparsifier::Softmax];
    let sizes = [[1, 1], [2, 2], [3, 63]];
    let mut cases = Vec::new();
    for (i, score) in scores.into_iter().enumerate() {
        for (j, sparsifier) in sparsifiers.into_iter().enumerate() {
            let config = SabLstmConfig::new([1, 3, 10][j], [1, 5, 33][i], true)
                .with_score(score)
                .with_sparsifier(sparsifier)
                .with_k_top([1, 3, 10][j])
                .with_k_att([2, 1, 5][i])
                .with_k_trunc([4, 10, 7][j])
                .with_initial_slot([InitialSlot::None, InitialSlot::Hidden][(i + j) % 2])
                .with_learned_gain(i == j)
                .with_detach_scores(j == 2)
                .with_n_probe((i == 2 && j == 0).then_some(1))
                .with_max_hops([None, Some(2), None][(2 * i + j) % 3]);
            let dtype = [DType::F32, DType::F64][usize::from(i == 1 && j == 0)];
            cases.push((config, sizes[(i + 2 * j) % 3], dtype));
        }
    }
    cases
}

/// Values and gradients of a run over all steps, of one over some with carried slots, and of one over rows that differ;
/// and the values of a stream.
fn run(
    (config, [batch, time], dtype): &(SabLstmConfig, [usize; 2], DType),
    device: &Device,
) -> [Named; 3] {
    let mut whole = setup(config, *batch, *time, 7, *dtype, device);
    let (mut values, mut gradients) = whole.run();
    let mut add = |run: &str, (more, also): (Named, Named)| {
        let named = |(name, list)| (format!("{name}, {run}"), list);
        values.extend(more.into_iter().map(named));
        gradients.extend(also.into_iter().map(named));
    };

    let slots = setup(config, *batch, 3, 8, *dtype, device).up.0 * 0.3;
    whole.state = whole.state.with_slots(slots);
    whole.steps = Some((0..*time).filter(|t| t % 3 == time % 3 || t + 1 == *time).collect());
    add("at some steps", whole.run());

    let segments = Segments::new(*batch, *time)
        .with_lengths(&(0..*batch).map(|row| time - row % 2 * (time / 2)).collect::<Vec<_>>())
        .and_then(|segments| segments.with_resets(&vec![vec![time / 3]; *batch]))
        .expect("they fit");
    let apart = setup(config, *batch, *time, 9, *dtype, device);
    let x = apart.x.clone().require_grad();
    let output = apart.layer.forward_segments(x.clone(), &segments, Some(apart.state.clone()));
    let grads = apart.loss(&output).backward();
    let mut of_rows = parameter_gradients(&apart.layer, &grads);
    of_rows.push(("x".to_owned(), gradient("x", &x, &grads)));
    let hidden = ("hidden".to_owned(), numbers("hidden", &output.hidden));
    add("of rows", (vec![hidden], of_rows));

    let served = apart.layer.valid();
    let mut state = apart.state.valid();
    let mut stream = Vec::new();
    for t in 0..(*time).min(9) {
        let x = apart.x.clone().narrow(1, t, 1).squeeze_dim(1);
        let (hidden, next) = served.step(x, Some(state));
        stream.push((format!("hidden, step {t}"), numbers("stream", &hidden)));
        state = next;
    }
    [values, gradients, stream]
}

#[test]
fn values_and_gradients_are_those_of_the_local_device() {
    let server = Server::start("values_and_gradients_are_those_of_the_local_device", true, 0);
    let (local, remote) = (Device::flex().autodiff(), connect(server.address, "equal"));
    for case in cases() {
        let what = format!("{case:?}");
        for strategy in [Strategy::Auto, Strategy::Fused] {
            let case = (case.0.clone().with_strategy(strategy), case.1, case.2);
            let [values, gradients, stream] = run(&case, &local);
            let [got_values, got_gradients, got_stream] = run(&case, &remote);
            assert_close(&what, &got_values, &values, 0.0);
            assert_close(&what, &got_gradients, &gradients, 0.0);
            // A local stream keeps the keys of its slots; a remote one computes them again, in another order.
            assert_close(&what, &got_stream, &stream, 1e-6);
        }
    }
}

#[test]
fn a_call_that_the_server_s_kernel_does_not_cover_runs_there_too() {
    let server =
        Server::start("a_call_that_the_server_s_kernel_does_not_cover_runs_there_too", true, 0);
    let remote = connect(server.address, "half");
    let config = SabLstmConfig::new(3, 5, true);
    let setup = |device| setup(&config, 2, 6, 3, DType::F16, device);
    let (local, remote) = (setup(&Device::flex().autodiff()), setup(&remote));
    assert_eq!(remote.layer.coverage(remote.x.clone(), None), Ok(()));
    let ((values, gradients), (got_values, got_gradients)) = (local.run(), remote.run());
    assert_close("f16", &got_values, &values, 0.0);
    assert_close("f16", &got_gradients, &gradients, 0.0);

    let fused = config.clone().with_strategy(Strategy::Fused);
    let asked = common::setup(&fused, 2, 6, 3, DType::F16, &connect(server.address, "half"));
    let why = asked.layer.coverage(asked.x.clone(), None).unwrap_err().to_string();
    assert!(why.contains("the server's log says why"), "{why}");
}

/// One step of gradient descent.
struct Descend<'a>(&'a Gradients);

impl ModuleMapper for Descend<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let value = param.val();
        let Some(gradient) = value.grad(self.0) else { return param };
        Param::from_tensor((value.inner() - gradient * 0.05).autodiff().require_grad())
    }
}

/// Training: sequences whose last output has to be the first input.
struct Training {
    layer: SabLstm,
    x: Tensor<3>,
}

impl Training {
    fn new(config: &SabLstmConfig, time: usize, device: &Device) -> Self {
        let common::Setup { layer, x, .. } = setup(config, 4, time, 5, DType::F32, device);
        Self { layer, x }
    }

    /// An update. Returns the loss before it.
    fn update(&mut self) -> f32 {
        let [_, time, input] = self.x.dims();
        let output = self.layer.forward_at(self.x.clone(), &[time - 1], None);
        let goal = self.x.clone().narrow(1, 0, 1);
        let error = output.hidden.narrow(2, 0, input) - goal;
        let loss = (error.clone() * error).mean();
        let grads = loss.backward();
        self.layer = self.layer.clone().map(&mut Descend(&grads));
        loss.into_scalar()
    }
}

fn config() -> SabLstmConfig {
    SabLstmConfig::new(8, 32, true).with_score(ScoreConfig::Dot { d_attention: 16 })
}

/// What one update costs in the steady state, in which Burn's fusion has met every graph.
fn cost(
    server: &mut Server,
    proxy: &Proxy,
    device: &Device,
    strategy: Strategy,
    time: usize,
) -> (Traffic, Work) {
    let mut training = Training::new(&config().with_strategy(strategy), time, device);
    // A frame each way more: nothing is then on its way.
    let mut count = || {
        device.sync().expect("a server that runs");
        (proxy.traffic(), server.work())
    };
    for _ in 0..4 {
        training.update();
    }
    let before = count();
    training.update();
    let after = count();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn an_update_costs_two_operations_whatever_its_length() {
    let mut server = Server::start("an_update_costs_two_operations_whatever_its_length", true, 0);
    let proxy = Proxy::before(server.address);
    let device = connect(proxy.address, "counted");
    println!("strategy      T  messages  operations  of the op  frames to/from  bytes to/from");
    let mut row = |strategy, time| {
        let (traffic, work) = cost(&mut server, &proxy, &device, strategy, time);
        let Work { messages, operations, own } = work;
        let ([to, from], [bytes_to, bytes_from]) = (traffic.frames, traffic.bytes);
        let strategy = format!("{strategy:?}");
        println!(
            "{strategy:10} {time:4} {messages:9} {operations:11} {own:10} {to:12}/{from} {bytes_to:11}/{bytes_from}"
        );
        (bytes_to, work)
    };
    let (short_bytes, short) = row(Strategy::Auto, 20);
    let (long_bytes, long) = row(Strategy::Auto, 80);
    let (_, short_slow) = row(Strategy::Primitives, 10);
    let (slow_bytes, slow) = row(Strategy::Primitives, 20);
    assert_eq!((short.own, long.own, slow.own), (2, 2, 0));
    assert_eq!(short.operations, long.operations);
    assert!(long.operations < 100, "most are those of loss and optimiser: {long:?}");
    assert!(slow.operations > 5 * short.operations, "{short:?}, {slow:?}");
    assert!(2 * slow.operations > 3 * short_slow.operations, "{short_slow:?}, {slow:?}");
    // With fusion an update sends a graph, or its number if Burn has met the graph before.
    let bytes = short_bytes.max(long_bytes);
    assert!(bytes < 8_000, "{bytes} bytes");
    assert!(slow_bytes > 5 * bytes, "{bytes} and {slow_bytes} bytes");
}

#[test]
fn a_server_without_the_operations_is_named() {
    let server = Server::start("a_server_without_the_operations_is_named", false, 0);
    let address = server.address;
    let message = in_time(move || {
        let device = connect(address, "first");
        let training = &mut Training::new(&config(), 5, &device);
        training.update()
    });
    let message = *message.unwrap_err().downcast::<String>().expect("a message");
    assert!(message.contains("burn_sab::op::register_ops"), "{message}");
    assert!(message.contains("Strategy::Primitives"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");

    // The remedy: another session, and no kernel.
    let loss = in_time(move || {
        let device = connect(address, "second");
        let primitives = config().with_strategy(Strategy::Primitives);
        Training::new(&primitives, 5, &device).update()
    });
    assert!(loss.expect("primitives need no handler").is_finite());
    let log = server.kill();
    assert!(log.contains("No custom-op handler registered for `burn-sab::release`"), "{log}");
}

#[test]
fn training_goes_on_after_the_server_was_killed() {
    const NAME: &str = "training_goes_on_after_the_server_was_killed";
    let server = Server::start(NAME, true, 0);
    let mut local = Training::new(&config(), 12, &Device::flex().autodiff());
    let expected: Vec<f32> = (0..6).map(|_| local.update()).collect();
    assert!(expected[5] < expected[0], "{expected:?}");

    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("layer.bpk");
    let address = server.address;
    let mut training = Training::new(&config(), 12, &connect(address, "before"));
    let before: Vec<f32> = (0..3).map(|_| training.update()).collect();
    training.layer.clone().into_record().save(&record).expect("a file");
    drop(server.kill());

    // As users meet it: a panic where an element is read, and an error of one line from `try_into_data`.
    let x = training.x.clone();
    let panic = in_time(move || training.update()).expect_err("the server is gone");
    let panic = panic.downcast::<String>().expect("a message");
    assert!(panic.contains("Failed to read tensor"), "{panic}");
    let error = in_time(move || x.sum().try_into_data().unwrap_err().reason().to_owned());
    let error = error.expect("an error, and no panic");
    assert!(error.contains("Failed to read tensor"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");

    let server = Server::start(NAME, true, address.port());
    assert_eq!(server.address, address);
    let after = in_time(move || {
        let mut training = Training::new(&config(), 12, &connect(address, "after"));
        let record = burn::store::ModuleRecord::load(&record).expect("the file");
        training.layer = training.layer.load_record(record);
        (0..3).map(|_| training.update()).collect::<Vec<f32>>()
    });
    assert_eq!([before, after.expect("a server that runs")].concat(), expected);
}
