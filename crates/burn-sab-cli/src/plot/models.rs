//! The name and the colour of a model: the same in all pictures.

use burn_sab_tasks::ModelKind;
use plotters::style::RGBColor;

use super::COLORS;

const MODELS: [ModelKind; 7] = [
    ModelKind::Sab,
    ModelKind::Lstm,
    ModelKind::Tbptt,
    ModelKind::Attention,
    ModelKind::Gru,
    ModelKind::MinGru,
    ModelKind::Transformer,
];

/// Shares of white in the colours of a model's variants, in the order in which a picture has them.
const SHADES: [f64; 3] = [0.0, 0.4, 0.65];

/// The name that readers know.
fn known_name(model: ModelKind) -> &'static str {
    match model {
        ModelKind::Sab => "SAB",
        ModelKind::Lstm => "LSTM",
        ModelKind::Tbptt => "LSTM, truncated",
        ModelKind::Attention => "LSTM, self-attention",
        ModelKind::Gru => "GRU",
        ModelKind::MinGru => "minGRU",
        ModelKind::Transformer => "Transformer",
    }
}

/// The place in [`MODELS`] of the model with whose word a name begins, and the rest of the name.
fn model(name: &str) -> Option<(usize, &str)> {
    MODELS.iter().enumerate().find_map(|(place, model)| {
        let rest = name.strip_prefix(model.name())?;
        (rest.is_empty() || rest.starts_with(',')).then_some((place, rest))
    })
}

/// What a picture writes for each of these names, and the colour that it draws it in. A model has one colour;
/// variants of a model are lighter. Where names are of no model, or a model has too many variants, colours go by
/// the place of the name.
pub fn looks(names: &[&str]) -> Vec<(String, RGBColor)> {
    let models: Vec<_> = names.iter().map(|name| model(name)).collect();
    let shade = |place: usize| {
        let (model, _) = models[place]?;
        let earlier = models[..place].iter().flatten().filter(|(other, _)| *other == model).count();
        Some(lighter(COLORS[model], *SHADES.get(earlier)?))
    };
    let shades: Option<Vec<RGBColor>> = (0..names.len()).map(shade).collect();
    let colors =
        shades.unwrap_or_else(|| COLORS.iter().copied().cycle().take(names.len()).collect());
    let written = models.iter().zip(names).map(|(model, name)| match model {
        Some((place, rest)) => format!("{}{rest}", known_name(MODELS[*place])),
        None => (*name).to_owned(),
    });
    written.zip(colors).collect()
}

fn lighter(RGBColor(red, green, blue): RGBColor, white: f64) -> RGBColor {
    let mix = |value: u8| (f64::from(value) + white * f64::from(255 - value)).round() as u8;
    RGBColor(mix(red), mix(green), mix(blue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_its_colour_whatever_stands_beside_it() {
        let alone = looks(&["tbptt"]);
        let among = looks(&["transformer", "sab", "tbptt"]);
        assert_eq!(alone[0], ("LSTM, truncated".to_owned(), COLORS[2]));
        assert_eq!(among[2], alone[0]);
        let colors: std::collections::BTreeSet<_> = MODELS
            .iter()
            .map(|model| looks(&[model.name()])[0].1)
            .map(|c| (c.0, c.1, c.2))
            .collect();
        assert_eq!(colors.len(), MODELS.len());
    }

    #[test]
    fn variants_of_a_model_are_lighter_and_keep_their_words() {
        let looks = looks(&["sab, delay 100", "sab, delay 200", "lstm, delay 100"]);
        let names: Vec<_> = looks.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["SAB, delay 100", "SAB, delay 200", "LSTM, delay 100"]);
        assert_eq!([looks[0].1, looks[2].1], [COLORS[0], COLORS[1]]);
        assert_eq!(looks[1].1, lighter(COLORS[0], SHADES[1]));
    }

    #[test]
    fn names_of_no_model_have_colours_by_their_place() {
        let looks = looks(&["sable", "max_hops 1"]);
        assert_eq!(looks, [("sable".to_owned(), COLORS[0]), ("max_hops 1".to_owned(), COLORS[1])]);
    }
}
