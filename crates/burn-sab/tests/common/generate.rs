//! Configurations for property tests.

use burn_sab::{InitialSlot, SabLstmConfig, ScoreConfig, Sparsifier};
use proptest::prelude::*;
use proptest::strategy::Strategy as Generate;

/// Every score.
pub fn scores() -> impl Generate<Value = ScoreConfig> {
    prop_oneof![
        Just(ScoreConfig::Additive),
        (1..6usize).prop_map(|d_attention| ScoreConfig::Mlp { d_attention }),
        (1..6usize).prop_map(|d_attention| ScoreConfig::Dot { d_attention }),
    ]
}

/// Every sparsifier.
pub fn sparsifiers() -> impl Generate<Value = Sparsifier> {
    prop_oneof![Just(Sparsifier::Threshold), Just(Sparsifier::Released), Just(Sparsifier::Softmax)]
}

/// Two input features, five hidden units, and any memory.
pub fn configs() -> impl Generate<Value = SabLstmConfig> {
    let scale = prop_oneof![Just(1.0), Just(0.7), Just(0.0)];
    let form = (scale, any::<bool>(), any::<bool>());
    (
        1..6usize,
        1..5usize,
        1..7usize,
        prop::option::of(0..3usize),
        scores(),
        sparsifiers(),
        any::<bool>(),
        form,
    )
        .prop_map(|(k_top, k_att, k_trunc, offset, score, sparsifier, initial, form)| {
            let (scale, learned_gain, detach_scores) = form;
            SabLstmConfig::new(2, 5, true)
                .with_k_top(k_top)
                .with_k_att(k_att)
                .with_k_trunc(k_trunc)
                .with_truncation_offset(offset)
                .with_score(score)
                .with_summary_scale(scale)
                .with_learned_gain(learned_gain)
                .with_detach_scores(detach_scores)
                .with_sparsifier(sparsifier)
                .with_initial_slot(if initial { InitialSlot::Hidden } else { InitialSlot::None })
        })
}
