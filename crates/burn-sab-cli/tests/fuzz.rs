//! Every format that is read, and the settings, against files that are damaged at random: no panic, no hang, and no
//! allocation beyond a bound.
//!
//! ```sh
//! SAB_EXECUTIONS=1000000 cargo test --workspace --test fuzz -- --nocapture --test-threads 1
//! ```
//!
//! Without the variable, [`SHORT`] executions for each format. `SAB_FUZZ_SEED` is another seed than 0. An execution
//! depends on the seed and its number alone. An input that fails is left in the system's folder for temporary
//! files. The entries take the bytes of a file, and serve a coverage-guided fuzzer as they are.

use std::fmt::Display;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::abort;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use burn_sab::{SabLstmConfig, SabSettings, ScoreConfig};
use burn_sab_cli::fuzz;
use burn_sab_cli::memory::heap_peak;
use burn_sab_tasks::fuzz as data;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Executions for each format where the environment asks for no number.
const SHORT: u64 = 4_000;

/// Longest time of one execution.
const LONGEST: Duration = Duration::from_secs(1);

/// Most bytes of an input.
const MOST_BYTES: usize = 1 << 16;

/// The bound on the heap: so many bytes for each byte of the input, and so many beside.
#[derive(Clone, Copy)]
struct Bound {
    factor: usize,
    constant: usize,
}

/// A number of eight bytes, or an object of a few, may be one or two bytes of text; vectors grow by doubling.
const BOUND: Bound = Bound { factor: 64, constant: 256 << 10 };
/// DEFLATE writes 258 bytes for two bits, 1,032 for each byte; the vector they go to grows by doubling.
const PACKED: Bound = Bound { factor: 2_200, constant: 256 << 10 };
/// The parser of TOML keeps a token, and an error where there is one, for each byte at most.
const TOML: Bound = Bound { factor: 256, constant: 256 << 10 };

/// A format: its name, valid files, words that mean something in it, and the bound.
struct Target<'a> {
    name: &'a str,
    valid: Vec<Vec<u8>>,
    words: &'a [&'a str],
    bound: Bound,
}

/// Words of JSON, TOML and numbers at the ends of their types.
const WORDS: &[&str] = &[
    "null",
    "true",
    "NaN",
    "inf",
    "-1",
    "0",
    "1e999",
    "-0.0",
    "1e-320",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "\"",
    "\\ud800",
    "{",
    "}",
    "[",
    "]",
    "[[",
    ",",
    ":",
    "=",
    "\n",
    "\u{0}",
    "none",
    "\"max_hops\":",
    "\"test_spans\":[0]",
];

fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    (rng.next_u64() % bound.max(1) as u64) as usize
}

/// Execution `number`: one of the valid files with a few damages, or now and then random bytes.
fn input(seed: u64, number: u64, target: &Target) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    let rng = &mut rng;
    if below(rng, 32) == 0 {
        let mut bytes = vec![0; below(rng, 512)];
        rng.fill_bytes(&mut bytes);
        return bytes;
    }
    let mut bytes = target.valid[below(rng, target.valid.len())].clone();
    // One damage in half of the executions, two in a quarter, and so on.
    for _ in 0..=rng.next_u64().trailing_zeros() {
        damage(rng, &mut bytes, target);
        bytes.truncate(MOST_BYTES);
    }
    bytes
}

fn damage(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>, target: &Target) {
    let at = below(rng, bytes.len());
    // Heads and lengths are at the beginning.
    let at = if below(rng, 3) == 0 { at.min(below(rng, 64)) } else { at };
    let to = (at + 1 + below(rng, 64)).min(bytes.len());
    match below(rng, 10) {
        0 => bytes.truncate(at),
        1 if at < bytes.len() => bytes[at] ^= 1 << below(rng, 8),
        2 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'9'][below(rng, 6)],
        3 => {
            let mut inserted = vec![0; 1 + below(rng, 16)];
            rng.fill_bytes(&mut inserted);
            bytes.splice(at..at, inserted);
        }
        4 if at < to => {
            let copied = bytes[at..to].to_vec();
            let place = below(rng, bytes.len());
            bytes.splice(place..place, copied);
        }
        5 if at < to => drop(bytes.drain(at..to)),
        6 => {
            let length =
                [0, 1, u64::MAX, u64::MAX >> 1, 1 << 62, 1 << 32, 0x7fff_ffff][below(rng, 7)];
            let (little, big) = (length.to_le_bytes(), length.to_be_bytes());
            let written = match below(rng, 4) {
                0 => &little[..8],
                1 => &little[..4],
                2 => &little[..2],
                _ => &big[4..],
            };
            for (byte, written) in bytes.iter_mut().skip(at).zip(written) {
                *byte = *written;
            }
        }
        7 if at < bytes.len() => {
            let repeated = vec![bytes[at]; 1 << below(rng, 13)];
            bytes.splice(at..at, repeated);
        }
        8 => {
            let other = &target.valid[below(rng, target.valid.len())];
            bytes.truncate(at);
            bytes.extend(&other[below(rng, other.len())..]);
        }
        _ => {
            let word = target.words[below(rng, target.words.len())];
            bytes.splice(at..at, word.bytes());
        }
    }
}

/// Aborts the process where one execution lasts longer than [`LONGEST`] by far.
fn watch(name: &str, number: &AtomicU64, ended: &mpsc::Receiver<()>) {
    let mut last = u64::MAX;
    while ended.recv_timeout(10 * LONGEST) == Err(mpsc::RecvTimeoutError::Timeout) {
        let now = number.load(Ordering::Relaxed);
        if now == last {
            eprintln!("{name}: execution {now} hangs");
            abort();
        }
        last = now;
    }
}

/// Runs `entry` on damaged files. Returns nothing: it panics with what failed.
fn run<T, E: Display>(target: Target, entry: impl Fn(&[u8]) -> Result<T, E>) {
    // The heap is that of the process.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let of = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect(name));
    let (executions, seed) =
        (of("SAB_EXECUTIONS").unwrap_or(SHORT), of("SAB_FUZZ_SEED").unwrap_or(0));
    let name = target.name;
    for valid in &target.valid {
        // What is damaged is valid to begin with; the first call also makes what is made once.
        if let Err(error) = entry(valid) {
            panic!("{name}: a valid file is refused: {error}");
        }
    }
    let number = AtomicU64::new(0);
    let (end, ended) = mpsc::channel();
    let (mut accepted, mut largest, mut failures) = (0, 0, Vec::new());
    let start = Instant::now();
    thread::scope(|scope| {
        let number = &number;
        scope.spawn(move || watch(name, number, &ended));
        for execution in 0..executions {
            number.store(execution, Ordering::Relaxed);
            let bytes = input(seed, execution, &target);
            let time = || {
                let start = Instant::now();
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    entry(&bytes).map(drop).map_err(|error| error.to_string())
                }));
                (outcome, start.elapsed())
            };
            let ((outcome, mut elapsed), peak) = heap_peak(time);
            if elapsed > LONGEST {
                // It may have been the machine.
                elapsed = time().1;
            }
            accepted += u64::from(matches!(outcome, Ok(Ok(()))));
            let most = target.bound.factor * bytes.len() + target.bound.constant;
            largest = largest.max(peak);
            let failure = match outcome {
                Err(_) => "panics".to_owned(),
                Ok(_) if elapsed > LONGEST => format!("takes {elapsed:?}"),
                Ok(_) if peak > most => {
                    format!("allocates {peak} bytes for {}, and not {most}", bytes.len())
                }
                Ok(_) => continue,
            };
            let file = std::env::temp_dir().join(format!("sab-fuzz-{name}-{seed}-{execution}"));
            fs::write(&file, &bytes).expect("a file for the input");
            failures.push(format!("execution {execution} {failure}: {}", file.display()));
            if failures.len() == 10 {
                break;
            }
        }
        drop(end);
    });
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{name}: {executions} executions, {accepted} accepted, {seconds:.1} s, {} failures, heap at most {} KiB",
        failures.len(),
        largest >> 10,
    );
    assert!(failures.is_empty(), "{name}: {}", failures.join("\n"));
}

fn head(shape: &[u32]) -> Vec<u8> {
    let sizes = shape.iter().flat_map(|size| size.to_be_bytes());
    [0, 0, 8, shape.len() as u8].into_iter().chain(sizes).collect()
}

#[test]
fn idx() {
    let mut images = head(&[2, 28, 28]);
    images.extend((0..2 * 784).map(|n| n as u8));
    let mut labels = head(&[20]);
    labels.extend((0..20).map(|n| n % 10));
    let valid = vec![images, labels, head(&[0, 28, 28])];
    run(Target { name: "idx", valid, words: &["\0\0\u{8}\u{3}"], bound: BOUND }, data::idx);
}

#[test]
fn cifar() {
    let record = |label: u8| (0..3073).map(move |n| if n == 0 { label } else { n as u8 });
    let valid = vec![record(3).chain(record(9)).collect(), record(0).collect()];
    run(Target { name: "cifar", valid, words: &["\u{9}", "\n"], bound: BOUND }, data::cifar);
}

const GZIP: [&[u8]; 5] = [
    include_bytes!("fuzz/stored.gz"),
    include_bytes!("fuzz/fixed.gz"),
    include_bytes!("fuzz/dyn.gz"),
    // With a name, a comment and an extra field.
    include_bytes!("fuzz/flags.gz"),
    // 300,000 zeros.
    include_bytes!("fuzz/zeros.gz"),
];

#[test]
fn gzip() {
    let valid = GZIP.iter().map(|file| file.to_vec()).collect();
    run(Target { name: "gzip", valid, words: &["\u{1f}"], bound: PACKED }, data::gzip);
}

#[test]
fn text() {
    let valid = vec![b"the quick brown fox; ".repeat(9), b"ab".to_vec(), GZIP[0].to_vec()];
    run(Target { name: "text", valid, words: WORDS, bound: BOUND }, data::text);
}

#[test]
fn case() {
    let valid = vec![
        include_bytes!("../conformance/cases/one-step.safetensors").to_vec(),
        include_bytes!("../conformance/cases/mlp-softmax.safetensors").to_vec(),
        include_bytes!("../conformance/cases/lstm.safetensors").to_vec(),
    ];
    run(Target { name: "case", valid, words: WORDS, bound: BOUND }, fuzz::case);
}

#[test]
fn config() {
    let valid = vec![fuzz::valid_config().expect("a config.json").into_bytes()];
    run(Target { name: "config", valid, words: WORDS, bound: BOUND }, fuzz::config);
}

#[test]
fn grid() {
    let valid = vec![
        include_bytes!("../grids/budget.toml").to_vec(),
        include_bytes!("../grids/text.toml").to_vec(),
        include_bytes!("../grids/ablation.toml").to_vec(),
        include_bytes!("../grids/suite.toml").to_vec(),
        include_bytes!("../grids/real.toml").to_vec(),
    ];
    let words =
        [WORDS, &["[quick]\n", "a.b.c = 1\n", "[a.b]\n", "[[variants]]\n", "'''", "seeds = []\n"]]
            .concat();
    run(Target { name: "grid", valid, words: &words, bound: TOML }, fuzz::grid);
}

#[test]
fn wav() {
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    file.extend([8_000u32, 16_000].iter().flat_map(|n| n.to_le_bytes()));
    file.extend(b"\x02\0\x10\0data\x20\0\0\0");
    file.extend((0..16i16).flat_map(|n| (n * 100).to_le_bytes()));
    let words = ["fmt ", "data", "LIST", "fact", "WAVE"];
    run(Target { name: "wav", valid: vec![file], words: &words, bound: BOUND }, data::wav);
}

#[test]
fn ts() {
    let mut text = "# Made.\n@classLabel true 0 1 2 3 4 5 6 7 8 9\n@data\n".to_owned();
    for class in 0..5 {
        text.push_str(&format!("{}{class}:{class}\n", "1,".repeat(1_459)));
    }
    let words = [WORDS, &["@data", "@classLabel", "?", ",,"]].concat();
    run(
        Target { name: "ts", valid: vec![text.into_bytes()], words: &words, bound: BOUND },
        data::ts,
    );
}

#[test]
fn events() {
    let update =
        r#"{"kind":"update","update":1,"span":5,"loss":0.5,"gradient_norm":1.5,"lr":0.001}"#;
    let skipped = r#"{"kind":"skipped","update":2,"span":5,"what":"loss"}"#;
    let valid = vec![format!("{update}\n{skipped}\n").into_bytes(), Vec::new()];
    run(Target { name: "events", valid, words: WORDS, bound: BOUND }, fuzz::events);
}

#[test]
fn layer() {
    let config = |score| SabLstmConfig::new(3, 5, true).with_score(score).with_clip(Some(1.0));
    let scores = [ScoreConfig::Additive, ScoreConfig::Dot { d_attention: 4 }];
    let valid = scores.map(|score| serde_json::to_vec(&config(score)).expect("JSON")).to_vec();
    run(Target { name: "layer", valid, words: WORDS, bound: BOUND }, fuzz::layer);
}

#[cfg(feature = "flex")]
#[test]
fn session() {
    let valid = fuzz::valid_sessions().expect("sessions");
    let words =
        [WORDS, &["cell", "hidden", "slots", "keys", "origins", "parameters", "stored"]].concat();
    run(Target { name: "session", valid, words: &words, bound: BOUND }, fuzz::session);
}

#[test]
fn settings() {
    let lines = SabSettings::all();
    let lines = lines.iter().map(|setting| format!("{} {}\n", setting.name, setting.default));
    let valid = vec![lines.collect::<String>().into_bytes()];
    let words: Vec<&str> = SabSettings::all().iter().map(|setting| setting.name).collect();
    let words = [&words[..], WORDS].concat();
    run(Target { name: "settings", valid, words: &words, bound: BOUND }, fuzz::settings);
}

/// The harness finds what it is for: an entry that panics at some inputs.
#[test]
#[should_panic(expected = "self: execution")]
fn a_panic_is_found() {
    let entry = |bytes: &[u8]| {
        assert!(bytes.len() <= 64, "an entry that panics on purpose");
        Ok::<_, String>(())
    };
    run(Target { name: "self", valid: vec![b"0".repeat(64)], words: WORDS, bound: BOUND }, entry);
}
