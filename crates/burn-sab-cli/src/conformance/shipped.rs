//! The cases that are compiled into the program, made by `conformance/reference.py`.

macro_rules! shipped {
    ($($name:literal),+ $(,)?) => {
        &[$((
            $name,
            include_bytes!(concat!("../../conformance/cases/", $name, ".safetensors")) as &[u8],
        )),+]
    };
}

/// Name and file of every case.
pub const CASES: &[(&str, &[u8])] = shipped![
    "additive-released",
    "additive-softmax",
    "additive-threshold",
    "detached-released",
    "detached-scores",
    "dot-released",
    "dot-softmax",
    "dot-threshold",
    "equal-scores",
    "full-attention",
    "last-step",
    "learned-gain",
    "learned-hops",
    "lstm",
    "max-hops-0",
    "max-hops-1",
    "max-hops-2",
    "mlp-released",
    "mlp-softmax",
    "mlp-threshold",
    "one-step",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use burn_sab::{InitialSlot, ScoreConfig};

    use super::super::case::Case;
    use super::*;

    #[test]
    fn every_file_is_compiled_in() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/cases");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let compiled = CASES.iter().map(|(name, _)| format!("{name}.safetensors"));
        assert_eq!(files, compiled.collect());
    }

    #[test]
    fn the_cases_cover_the_options() {
        let cases: Vec<Case> = CASES.iter().map(|(_, file)| Case::parse(file).unwrap()).collect();
        let pairs: BTreeSet<String> = cases
            .iter()
            .map(|case| {
                let score = match case.config.score {
                    ScoreConfig::Additive => "additive",
                    ScoreConfig::Mlp { .. } => "mlp",
                    ScoreConfig::Dot { .. } => "dot",
                };
                format!("{score} {:?}", case.config.settings.sparsifier)
            })
            .collect();
        assert_eq!(pairs.len(), 9, "{pairs:?}");
        let count = |option: fn(&Case) -> bool| cases.iter().filter(|case| option(case)).count();
        for hops in [None, Some(0), Some(1), Some(2)] {
            assert!(
                cases.iter().any(|case| case.config.settings.max_hops == hops),
                "max_hops {hops:?}"
            );
        }
        assert!(count(|case| case.config.settings.k_att > 1) >= 3);
        assert!(count(|case| case.config.settings.truncation_offset() > 0) >= 3);
        assert!(count(|case| case.config.settings.initial_slot == InitialSlot::Hidden) >= 3);
        assert!(count(|case| case.config.settings.summary_scale < 1.0) >= 3);
        assert!(count(|case| case.config.settings.learned_gain) >= 2);
        assert!(count(|case| case.config.settings.detach_scores) >= 3);
        let time = |case: &Case| case.values("in.x").shape[1];
        assert!(cases.iter().any(|case| time(case) < case.config.settings.k_trunc));
        assert!(cases.iter().any(|case| time(case) < case.config.settings.k_top));
    }
}
