//! A report as one page of HTML that needs no other file and no network. The template is `page.html`.

use anyhow::Context;
use burn_sab_tasks::{Moment, Reminded};
use minijinja::value::Serde;
use minijinja::{Environment, HtmlEscape, UndefinedBehavior, Value};
use serde::Serialize;

use crate::plot::{self, Cell};

/// The name ends in `.html`, so that values are escaped.
const TEMPLATE: (&str, &str) = ("page.html", include_str!("page.html"));

/// A page, from top to bottom.
#[derive(Debug, Serialize)]
pub struct Page {
    pub title: String,
    pub sections: Vec<Section>,
}

/// A part of a page under a heading.
#[derive(Debug, Serialize)]
pub struct Section {
    pub heading: String,
    /// Paragraphs, in which `*` and backticks mean what they mean in Markdown.
    pub about: Vec<String>,
    #[serde(flatten)]
    pub body: Option<Body>,
}

/// What stands under the paragraphs of a section.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Rows of cells, the first of which is the header.
    Table(Vec<Vec<String>>),
    /// Terms and what they mean, or settings and their values.
    Terms(Vec<(String, String)>),
    /// SVG of the module [`plot`].
    Picture(String),
    Reminders(Map),
}

/// The heat map of reminders, in pixels and, inside the frame, in steps.
#[derive(Debug, Serialize)]
pub struct Map {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// Pixels of a step.
    unit: f64,
    steps: usize,
    ticks: Vec<Tick>,
    marks: Vec<Mark>,
    cells: Vec<MapCell>,
    /// The opacities of the legend, from weight 0 to `largest`.
    scale: Vec<String>,
    shades: usize,
    largest: String,
}

/// A step that the axes name, and the pixels of its middle.
#[derive(Debug, Serialize)]
struct Tick {
    step: usize,
    x: f64,
    y: f64,
}

/// A step with which something begins.
#[derive(Debug, Serialize)]
struct Mark {
    step: usize,
    begins: String,
    y: f64,
}

/// A reminder. `input` and `remembered` are the inputs of the two steps.
#[derive(Debug, Serialize)]
struct MapCell {
    step: usize,
    input: String,
    moment: String,
    remembered: String,
    weight: String,
    first: isize,
    width: usize,
    opacity: String,
    sentence: String,
}

/// Pixels of the frame's side, and of what stands around it.
const SIDE: f64 = 640.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 80.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 54.0;
/// Steps that an axis names, at most.
const TICKS: usize = 11;
/// Parts of the legend.
const SHADES: usize = 24;

impl Page {
    /// The page as HTML.
    ///
    /// # Errors
    ///
    /// If the template has a mistake.
    pub fn html(&self) -> anyhow::Result<String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.add_filter("prose", |text: &str| Value::from_safe_string(prose(text)));
        let (name, template) = TEMPLATE;
        environment.render_named_str(name, template, Serde(self)).context("the page of the report")
    }
}

impl Section {
    /// A picture by [`plot`], which becomes a part of the page.
    pub fn picture(heading: &str, svg: &str) -> Self {
        let body = Some(Body::picture(svg));
        Self { heading: heading.to_owned(), about: Vec::new(), body }
    }
}

impl Body {
    /// A picture by [`plot`].
    pub fn picture(svg: &str) -> Self {
        // Its namespace is known inside HTML.
        Self::Picture(svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1))
    }
}

impl Map {
    /// The map of `reminded`, a slot as wide as the `k_att` steps that it stands for. `marks` are as those of
    /// [`plot::heat_map`].
    pub fn new(reminded: &Reminded, k_att: usize, marks: &[(usize, &str)]) -> Self {
        let steps = reminded.inputs.len();
        // A column more, of the initial state.
        let unit = SIDE / (steps + 1) as f64;
        let bottom = TOP + unit * steps as f64;
        let y = |step: f64| rounded(bottom - unit * step);
        let every = distance_of_ticks(steps);
        let tick = |step| {
            let x = rounded(LEFT + unit * (step as f64 + 1.5));
            Tick { step, x, y: y(step as f64 + 0.5) }
        };
        let mark = |(step, begins): &(usize, &str)| Mark {
            step: *step,
            begins: (*begins).to_owned(),
            y: y(*step as f64),
        };
        let largest = plot::largest(&reminded.reminders);
        let cells = plot::cells(&reminded.reminders, k_att);
        Self {
            width: LEFT + SIDE + RIGHT,
            height: rounded(bottom + BOTTOM),
            left: LEFT,
            right: LEFT + SIDE,
            top: TOP,
            bottom: rounded(bottom),
            unit,
            steps,
            ticks: (0..steps).step_by(every).map(tick).collect(),
            marks: marks.iter().map(mark).collect(),
            cells: cells.iter().map(|cell| MapCell::new(cell, &reminded.inputs)).collect(),
            scale: (0..SHADES).map(|n| opacity(n as f32 / (SHADES - 1) as f32)).collect(),
            shades: SHADES,
            largest: format!("{largest:.2}"),
        }
    }
}

impl MapCell {
    fn new(cell: &Cell, inputs: &[String]) -> Self {
        let step = cell.reminder.step;
        let weight = format!("{:.4}", cell.reminder.weight);
        let input = inputs[step].clone();
        let (moment, remembered, what) = match cell.reminder.moment {
            Moment::Initial => {
                ("initial".to_owned(), String::new(), "the initial state".to_owned())
            }
            Moment::Step(last) => {
                let slot = match cell.columns.len() {
                    1 => String::new(),
                    _ => format!(
                        ", whose slot stands for the steps {} to {last}",
                        cell.columns.start
                    ),
                };
                let what = format!("step {last} ({}){slot}", inputs[last]);
                (last.to_string(), inputs[last].clone(), what)
            }
        };
        Self {
            sentence: format!(
                "Step {step} ({input}) was reminded of {what}, with weight {weight}."
            ),
            step,
            input,
            moment,
            remembered,
            weight,
            first: cell.columns.start,
            width: cell.columns.len(),
            opacity: opacity(cell.share),
        }
    }
}

/// The smallest weight that is drawn can still be seen.
fn opacity(share: f32) -> String {
    format!("{:.3}", 0.12 + 0.88 * share)
}

fn rounded(pixels: f64) -> f64 {
    (10.0 * pixels).round() / 10.0
}

/// The smallest of 1, 2, 5, 10, 20, … that leaves few enough ticks.
fn distance_of_ticks(steps: usize) -> usize {
    let powers = (0..).map(|power| 10usize.pow(power));
    let mut distances = powers.flat_map(|power| [1, 2, 5].map(|factor| factor * power));
    distances.find(|distance| steps.div_ceil(*distance) <= TICKS).unwrap_or(steps)
}

/// A paragraph of Markdown as HTML: code between backticks, and emphasis between asterisks.
fn prose(text: &str) -> String {
    let escaped = HtmlEscape(text).to_string();
    let wrap = |text: &str, delimiter: char, element: &str| {
        let parts: Vec<&str> = text.split(delimiter).collect();
        // One without a partner is itself.
        if parts.len().is_multiple_of(2) {
            return text.to_owned();
        }
        let part = |(place, part): (usize, &&str)| match place % 2 {
            0 => (*part).to_owned(),
            _ => format!("<{element}>{part}</{element}>"),
        };
        parts.iter().enumerate().map(part).collect()
    };
    wrap(&wrap(&escaped, '`', "code"), '*', "em")
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_sab_tasks::Reminder;

    const ODD: &str = "</title><script>alert('x & y')</script>";

    fn reminded() -> Reminded {
        let reminder = |step, moment, weight| Reminder { step, moment, weight };
        let mut inputs = vec!["symbol 3".to_owned(), ODD.to_owned()];
        inputs.extend(vec!["blank".to_owned(); 28]);
        Reminded {
            reminders: vec![
                reminder(3, Moment::Initial, 0.25),
                reminder(21, Moment::Step(1), 0.5),
                reminder(21, Moment::Step(0), -0.125),
                reminder(21, Moment::Step(2), 0.0001),
            ],
            inputs,
        }
    }

    fn page() -> Page {
        let section = |heading: &str, body| Section {
            heading: heading.to_owned(),
            about: vec![ODD.to_owned(), "the `k_top` of *sab*, 3 * 4 and 5 ` 6".to_owned()],
            body: Some(body),
        };
        let rows =
            vec![vec![ODD.to_owned(), "100".to_owned()], vec!["sab".to_owned(), ODD.to_owned()]];
        let svg = plot::learning_curves(
            &[(ODD.to_owned(), Vec::new())],
            &burn_sab_tasks::Task::Adding,
            ODD,
        );
        Page {
            title: ODD.to_owned(),
            sections: vec![
                section(ODD, Body::Table(rows)),
                section("settings", Body::Terms(vec![(ODD.to_owned(), ODD.to_owned())])),
                Section::picture(ODD, &svg.unwrap()),
                section("map", Body::Reminders(Map::new(&reminded(), 1, &[(4, ODD)]))),
            ],
        }
    }

    #[test]
    fn odd_text_stays_text() {
        let html = page().html().unwrap();
        assert!(
            !html.contains("alert('x") && html.contains("alert(&#x27;x &amp; y&#x27;)"),
            "{html}"
        );
        assert_eq!(html.matches("<script>").count(), 1);
        assert_eq!(html.matches("</title>").count(), 1 + 3, "the page's own, and one a cell");
    }

    #[test]
    fn every_visible_reminder_has_a_cell_that_says_which_and_of_what() {
        let html = page().html().unwrap();
        assert_eq!(html.matches("<rect class=\"cell\"").count(), 3);
        for text in [
            "Step 3 (blank) was reminded of the initial state, with weight 0.2500.",
            "Step 21 (blank) was reminded of step 0 (symbol 3), with weight -0.1250.",
            "x=\"0\" y=\"21\" width=\"1\" height=\"1\" fill-opacity=\"0.340\" data-step=\"21\" \
             data-input=\"blank\" data-moment=\"0\" data-remembered=\"symbol 3\" data-weight=\"-0.1250\"",
            "data-moment=\"1\"",
            "data-moment=\"initial\"",
        ] {
            assert!(html.contains(text), "{text} is missing in {html}");
        }
    }

    #[test]
    fn a_slot_of_several_steps_names_them() {
        let mut reminded = reminded();
        reminded.reminders = vec![Reminder { step: 9, moment: Moment::Step(5), weight: 1.0 }];
        let cell = &Map::new(&reminded, 3, &[]).cells[0];
        assert_eq!((cell.first, cell.width), (3, 3));
        let slot = "of step 5 (blank), whose slot stands for the steps 3 to 5, with";
        assert!(cell.sentence.contains(slot), "{}", cell.sentence);
    }

    #[test]
    fn the_page_needs_no_other_file() {
        let html = page().html().unwrap();
        for other in ["http:", "https:", "src=", "href=", "url(", "@import", "xmlns"] {
            assert!(!html.contains(other), "{other}");
        }
        assert!(html.contains("default-src 'none'"));
    }

    #[test]
    fn axes_name_few_steps() {
        assert_eq!([1, 11, 12, 23, 220].map(distance_of_ticks), [1, 1, 2, 5, 20]);
        let map = Map::new(&reminded(), 1, &[]);
        let steps: Vec<usize> = map.ticks.iter().map(|tick| tick.step).collect();
        assert_eq!(steps, [0, 5, 10, 15, 20, 25]);
    }

    #[test]
    fn a_sequence_without_reminders_is_an_empty_map() {
        let reminded = Reminded { reminders: Vec::new(), ..reminded() };
        let map = Map::new(&reminded, 1, &[]);
        let section = Section {
            heading: "map".to_owned(),
            about: Vec::new(),
            body: Some(Body::Reminders(map)),
        };
        let html = Page { title: "none".to_owned(), sections: vec![section] }.html().unwrap();
        assert!(!html.contains("class=\"cell\"") && html.contains("id=\"map\""));
    }

    #[test]
    fn prose_has_code_and_emphasis() {
        assert_eq!(prose("`a<b` and *c*"), "<code>a&lt;b</code> and <em>c</em>");
        assert_eq!(prose("3 * 4 ` 5"), "3 * 4 ` 5");
    }
}
