//! Answers from a memory of a million slots, by an index over them.
//!
//! ```sh
//! cargo run --release --example million_slots              # or: -- 20000
//! ```
//!
//! A layer whose weights are set by hand keeps [name | number] as a slot and finds it again by the name. Sixteen names
//! and their numbers of 16 bits lie among a million slots of chatter: half of them are in the memory from the start, half
//! are stored step by step at its end. Then each name is asked for once.
//!
//! Expect: with `n_probe` 8 every number is right, as it is where every slot is scored (the control), and a step takes a
//! small part of the time. It needs 2.5 GiB.

use std::time::{Duration, Instant};

use burn::module::Param;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use burn_sab::{DotScorer, SabLstm, SabLstmConfig, SabLstmState, Scorer};
use burn_sab_examples::resident::resident_kib;
use burn_sab_examples::{device, first_argument_or};

const SLOTS: usize = 1_000_000;
/// Lists that a step searches.
const N_PROBE: usize = 8;
/// Names that are remembered.
const FACTS: usize = 16;
/// Words of the chatter.
const WORDS: usize = 24;
/// Units of a name or a word, and of a number: 16 bits, each in four units.
const HALF: usize = 64;
const HIDDEN: usize = 2 * HALF;
const BITS: usize = 16;
/// Steps of chatter that are timed.
const STEPS: usize = 100;

fn main() {
    let slots = first_argument_or(SLOTS).max(100 * FACTS);
    let device = device();
    println!("{slots} slots");
    let (indexed, right) = ask(Some(N_PROBE), slots, &device);
    assert_eq!(right, FACTS, "not what this example promises");
    let (exact, right) = ask(None, slots, &device);
    assert_eq!(right, FACTS, "the layer does not do what its weights were set for");
    if slots >= SLOTS {
        assert!(indexed < exact / 4, "not what this example promises");
    }
}

/// Fills a memory and asks for every name. Returns the median time of a step and how many numbers were right.
fn ask(n_probe: Option<usize>, slots: usize, device: &Device) -> (Duration, usize) {
    let layer = by_hand(n_probe, device);
    let before = resident_kib();
    let mut state = remember(slots, device);

    // The first step computes the keys and builds the index.
    let start = Instant::now();
    state = layer.step(input(&word(0), device), Some(state)).1;
    let first = start.elapsed();
    let grown = resident_kib().zip(before).map(|(after, before)| after.saturating_sub(before));

    for fact in FACTS / 2..FACTS {
        state = layer.step(input(&name_and_number(fact), device), Some(state)).1;
    }
    let mut times = Vec::with_capacity(STEPS);
    for step in 0..STEPS {
        let x = input(&word(step % WORDS), device);
        let start = Instant::now();
        state = layer.step(x, Some(state)).1;
        times.push(start.elapsed());
    }
    times.sort_unstable();

    let mut right = 0;
    for fact in 0..FACTS {
        let mut question = name_and_number(fact);
        question[HALF..].fill(0.0);
        let (hidden, after) = layer.step(input(&question, device), Some(state));
        state = after;
        let hidden: Vec<f32> = hidden.into_data().iter().collect();
        right += usize::from(number_in(&hidden[HALF..]) == number(fact));
    }
    let how = n_probe.map_or("every slot".to_owned(), |n_probe| format!("n_probe {n_probe}"));
    let bytes =
        grown.map_or_else(String::new, |kib| format!(", {} bytes a slot", kib * 1024 / slots));
    println!(
        "{how:>10}  {right} of {FACTS} numbers right, {:.1?} a step (the first {first:.1?}){bytes}",
        times[STEPS / 2]
    );
    (times[STEPS / 2], right)
}

/// A layer whose state is its input, squashed, with a tenth of what it retrieves. Scores compare names.
fn by_hand(n_probe: Option<usize>, device: &Device) -> SabLstm {
    let mut layer = SabLstmConfig::new(HIDDEN, HIDDEN, true).with_n_probe(n_probe).init(device);
    let zeros = Tensor::<2>::zeros([HIDDEN, HIDDEN], device);
    let identity = Tensor::<2>::eye(HIDDEN, device);
    let blocks = vec![zeros.clone(), zeros.clone(), identity.clone() * 2.0, zeros];
    // Input and output gates are open, and the forget gate is shut.
    let gates = [20.0, -20.0, 0.0, 20.0].map(|bias| Tensor::<1>::full([HIDDEN], bias, device));
    let names = identity.narrow(1, 0, HALF);
    layer.weight_ih = Param::from_tensor(Tensor::cat(blocks, 1));
    layer.weight_hh = layer.weight_hh.map(|weights| weights.zeros_like());
    layer.bias_ih = Some(Param::from_tensor(Tensor::cat(gates.to_vec(), 0)));
    layer.bias_hh = layer.bias_hh.map(|bias| bias.map(|bias| bias.zeros_like()));
    layer.scorer = Scorer::Dot(DotScorer {
        query: Param::from_tensor(names.clone() * 8.0),
        key: Param::from_tensor(names),
    });
    layer
}

/// A memory of chatter, with the first half of the names at even distances.
fn remember(slots: usize, device: &Device) -> SabLstmState {
    device.seed(1);
    let facts = FACTS / 2;
    let codes: Vec<f32> =
        (0..WORDS).flat_map(word).chain((0..facts).flat_map(name_and_number)).collect();
    let codes = Tensor::<2>::from_data(TensorData::new(codes, [WORDS + facts, HIDDEN]), device);
    let every = slots / facts;
    let kinds: Vec<i64> = (0..slots)
        .map(|slot| match slot % every {
            3 if slot / every < facts => WORDS + slot / every,
            _ => mixed(slot as u64) as usize % WORDS,
        } as i64)
        .collect();
    let kinds = Tensor::<1, Int>::from_data(TensorData::new(kinds, [slots]), device);
    // As large as the states of this layer.
    let codes = (codes * 2.0).tanh().tanh();
    let noise = Tensor::random([slots, HIDDEN], Distribution::Normal(0.0, 0.15), device);
    let memory = codes.select(0, kinds) + noise;
    SabLstmState::initial([1, HIDDEN], device).with_slots(memory.unsqueeze_dim(0))
}

/// The input of a step.
fn input(values: &[f32], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [1, HIDDEN]), device)
}

/// A word of the chatter: a code, and no number.
fn word(word: usize) -> Vec<f32> {
    let mut values = code(word as u64);
    values.resize(HIDDEN, 0.0);
    values
}

/// A name's code, and its number.
fn name_and_number(fact: usize) -> Vec<f32> {
    let bits = (0..HALF).map(|unit| sign(u64::from(number(fact)), unit % BITS));
    code((1000 + fact) as u64).into_iter().chain(bits).collect()
}

/// The number of a name.
fn number(fact: usize) -> u16 {
    mixed((2000 + fact) as u64) as u16
}

/// The number whose bits have these units, four each.
fn number_in(units: &[f32]) -> u16 {
    let set = |bit: &usize| units.iter().skip(*bit).step_by(BITS).sum::<f32>() > 0.0;
    (0..BITS).filter(set).map(|bit| 1 << bit).sum()
}

/// A code of -1 and 1, another one for each seed.
fn code(seed: u64) -> Vec<f32> {
    let bits = mixed(seed);
    (0..HALF).map(|unit| sign(bits, unit)).collect()
}

fn sign(bits: u64, at: usize) -> f32 {
    if bits >> at & 1 == 1 { 1.0 } else { -1.0 }
}

/// 64 bits that look random: the finaliser of SplitMix64.
fn mixed(seed: u64) -> u64 {
    let mut z = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}
