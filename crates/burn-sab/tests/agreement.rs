//! Every implementation against the readable reference: values and all gradients, over ugly shapes and every
//! option, in f32 and f64.

mod common;

use burn::tensor::{DType, Device};
use burn_sab::{Recompute, SabLstmConfig, ScoreConfig, Sparsifier, Strategy};
use common::{Named, agree, cpu_devices, run};
use proptest::prelude::*;
use proptest::strategy::Strategy as Generate;

fn recomputes() -> impl Generate<Value = Recompute> {
    prop_oneof![Just(Recompute::Auto), Just(Recompute::Never), Just(Recompute::Always)]
}

fn configs() -> impl Generate<Value = SabLstmConfig> {
    let hops = prop::option::of(0..4usize);
    let rest = (1..5usize, 1..7usize, any::<bool>(), hops, recomputes());
    (common::generate::configs(), rest).prop_map(
        |(mut config, (d_input, d_hidden, bias, max_hops, recompute))| {
            (config.d_input, config.d_hidden, config.bias) = (d_input, d_hidden, bias);
            config.with_max_hops(max_hops).with_recompute(recompute)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_strategies_agree_in_f64(
        config in configs(), batch in 1..5usize, time in 1..24usize, carried in 0..4usize, seed in any::<u64>()
    ) {
        for device in cpu_devices() {
            agree(&config, [batch, time, carried], None, seed, DType::F64, &device);
        }
    }

    /// With the outputs of some steps only, the sequence as it is or from its end.
    #[test]
    fn all_strategies_agree_at_given_steps(
        config in configs(), batch in 1..5usize, given in prop::collection::vec(any::<bool>(), 1..24),
        carried in 0..4usize, reverse in any::<bool>(), seed in any::<u64>()
    ) {
        let time = given.len();
        let steps: Vec<usize> = (0..time).filter(|t| given[*t]).collect();
        prop_assume!(!steps.is_empty());
        let config = config.with_reverse(reverse);
        for device in cpu_devices() {
            agree(&config, [batch, time, carried], Some(&steps), seed, DType::F64, &device);
        }
    }
}

/// Shapes that break tiles, lanes of SIMD registers and window bookkeeping, in f32 too.
#[rstest::rstest]
#[case::one_of_everything(1, 1, 1, 1)]
#[case::two_steps(2, 2, 3, 5)]
#[case::odd_widths(3, 17, 3, 33)]
#[case::wide_input(2, 9, 100, 7)]
#[case::wide_hidden(2, 13, 1, 100)]
#[case::many_rows(19, 7, 2, 16)]
#[case::long(2, 63, 3, 8)]
fn ugly_shapes_agree(
    #[case] batch: usize,
    #[case] time: usize,
    #[case] input: usize,
    #[case] hidden: usize,
    #[values(ScoreConfig::Additive, ScoreConfig::Mlp { d_attention: 7 }, ScoreConfig::Dot { d_attention: 9 })]
    score: ScoreConfig,
    #[values(Sparsifier::Threshold, Sparsifier::Released, Sparsifier::Softmax)]
    sparsifier: Sparsifier,
) {
    let config = SabLstmConfig::new(input, hidden, true)
        .with_k_top(3)
        .with_k_att(2)
        .with_k_trunc(4)
        .with_score(score)
        .with_sparsifier(sparsifier);
    for device in cpu_devices() {
        for dtype in [DType::F64, DType::F32] {
            agree(&config, [batch, time, 0], None, 5, dtype, &device);
            agree(&config, [batch, time, 0], Some(&[time - 1]), 5, dtype, &device);
        }
    }
}

/// Half types, on backend primitives: as far from f32 as the reference in the same type is, ten times over. Batches
/// of rows beyond 256 and lengths beyond 2048 are where slot numbers in 8 or 11 bits would go wrong.
#[cfg(feature = "flex")]
#[rstest::rstest]
#[case::rows_beyond_eight_bits(64, 100, 8)]
#[case::small(8, 64, 8)]
#[case::one_row(1, 30, 3)]
fn half_types_agree(
    #[case] batch: usize,
    #[case] time: usize,
    #[case] hidden: usize,
    #[values(DType::F16, DType::BF16)] dtype: DType,
    #[values(Sparsifier::Threshold, Sparsifier::Softmax)] sparsifier: Sparsifier,
) {
    let device = Device::flex().autodiff();
    let config = SabLstmConfig::new(2, hidden, true)
        .with_k_top(3)
        .with_k_trunc(4)
        .with_score(ScoreConfig::Dot { d_attention: 4 })
        .with_sparsifier(sparsifier)
        // Below 1 a state does not grow, and with it what rounding does.
        .with_summary_scale(0.3);
    let with = |strategy, dtype| {
        let config = config.clone().with_strategy(strategy);
        run(&config, [batch, time, 0], None, 5, dtype, &device)
    };
    let hidden_of = |(values, _): &(Named, Named)| values[..1].to_vec();
    let single = hidden_of(&with(Strategy::Reference, DType::F32));
    let reference = common::largest_error(&hidden_of(&with(Strategy::Reference, dtype)), &single);
    let run = with(Strategy::Auto, dtype);
    let error = common::largest_error(&hidden_of(&run), &single);
    // Half a unit in the last place of 11 and of 8 bits, over some steps, is the least.
    let rounding = if dtype == DType::F16 { 2e-2 } else { 1e-1 };
    assert!(error < rounding + 2.0 * reference, "{dtype:?}: {error}, the reference {reference}");
    assert!(error < 0.5, "{dtype:?}: {error} proves nothing");
    // Gradients are there and finite: `run` would have failed otherwise.
    assert_eq!(run.1.len(), 9);
}
