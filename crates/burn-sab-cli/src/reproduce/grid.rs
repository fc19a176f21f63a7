//! What a table consists of: a TOML file that declares a grid of runs.
//!
//! A cell of the grid is one run of `sab train`, and `settings` are its flags. `[quick]` and `[full]`
//! replace what they name when that size is asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn_sab_tasks::Task;
use clap::ValueEnum;
use serde::Deserialize;
use toml::{Table, Value};

use super::args::{ReproduceArgs, Size, TableName};
use crate::error::usage;
use crate::values::TaskName;

/// A declared grid.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Grid {
    /// The file's name without its ending, and the size if it is not the standard one.
    #[serde(skip)]
    pub name: String,
    /// Heading of the table.
    pub title: String,
    /// What stands under the heading.
    pub about: String,
    /// The task, as `sab train` calls it.
    pub task: String,
    /// The models, as `sab train` calls them.
    pub models: Vec<String>,
    /// Delays (copying) or lengths (adding) to be learnt.
    pub spans: Vec<usize>,
    /// Seeds of weights and data.
    pub seeds: Vec<u64>,
    /// Where the task's files are in the folder that `--data` names.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// Spans at which trained networks are tested, beside the one they were to learn.
    #[serde(default)]
    pub test_spans: Vec<usize>,
    /// The longest of these for a model that would need too much memory or time beyond.
    #[serde(default)]
    pub longest_test: BTreeMap<String, usize>,
    /// Flags of `sab train` for every run.
    #[serde(default)]
    pub settings: Table,
    /// The grid once more for each of these; without any, once.
    #[serde(default)]
    pub variants: Vec<Variant>,
    /// A level of the metric: when runs first reach it, and how steadily they hold it, is in the table then.
    #[serde(default)]
    pub level: Option<f64>,
    /// What others have published.
    #[serde(default)]
    pub published: Vec<Published>,
}

/// Something that is changed against the rest of the grid.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// What the table calls it.
    pub name: String,
    /// Flags of `sab train` beside those of the grid.
    pub settings: Table,
    /// The models that it concerns, if not all.
    #[serde(default)]
    pub models: Option<Vec<String>>,
}

/// A published number.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Published {
    pub model: String,
    pub train_span: usize,
    pub test_span: usize,
    /// As the publication gives it, with its unit.
    pub value: String,
    pub source: String,
}

/// One run of the grid.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The name of its folder, unique in the grid.
    pub name: String,
    pub variant: Option<String>,
    pub model: String,
    pub span: usize,
    pub seed: u64,
    /// Tests that are declared but too long for the model.
    pub too_long: Vec<usize>,
    /// What follows `sab train` on the command line that is this run.
    pub line: Vec<String>,
}

const OWN: [(TableName, &str, &str); 9] = [
    (TableName::Copying, "copying", include_str!("../../grids/copying.toml")),
    (TableName::Adding, "adding", include_str!("../../grids/adding.toml")),
    (TableName::Transfer, "transfer", include_str!("../../grids/transfer.toml")),
    (TableName::Ablation, "ablation", include_str!("../../grids/ablation.toml")),
    (TableName::Sweep, "sweep", include_str!("../../grids/sweep.toml")),
    (TableName::Budget, "budget", include_str!("../../grids/budget.toml")),
    (TableName::Mnist, "mnist", include_str!("../../grids/mnist.toml")),
    (TableName::Cifar, "cifar", include_str!("../../grids/cifar.toml")),
    (TableName::Text, "text", include_str!("../../grids/text.toml")),
];

/// The grids that `args` asks for.
///
/// # Errors
///
/// If a file of the user's cannot be read or says something that means nothing.
pub fn asked_for(args: &ReproduceArgs) -> anyhow::Result<Vec<Grid>> {
    if let Some(path) = &args.grid {
        let text = fs::read_to_string(path)
            .map_err(|error| usage!("{}: {error}; name a TOML file with --grid", path.display()))?;
        let name = path.file_stem().map_or_else(|| "grid".into(), |stem| stem.to_string_lossy());
        return Ok(vec![Grid::read(&name, &text, args.size())?]);
    }
    OWN.iter()
        .filter(|(table, ..)| [*table, TableName::All].contains(&args.table))
        .map(|(_, name, text)| Grid::read(name, text, args.size()))
        .collect()
}

impl Cell {
    /// Whether the run is of the variant with this name; "windows-of-1" will do for "windows of 1".
    pub fn is_variant(&self, name: &str) -> bool {
        self.variant.as_ref().is_some_and(|variant| slug(variant) == slug(name))
    }

    /// What the run found out, in the grid's folder of the results.
    pub fn results_file(&self) -> String {
        format!("{}.json", self.name)
    }

    /// The picture of which moment reminded which, there.
    pub fn reminders_file(&self) -> String {
        format!("{}-reminders.svg", self.name)
    }
}

impl Grid {
    /// Reads the grid of this size.
    pub fn read(name: &str, text: &str, size: Size) -> anyhow::Result<Self> {
        let wrong =
            |error: toml::de::Error| usage!("the grid {name}: {}", error.to_string().trim());
        let mut table: Table = toml::from_str(text).map_err(wrong)?;
        let sizes = [(Size::Quick, "quick"), (Size::Full, "full")];
        let mut grid_name = name.to_owned();
        for (this, key) in sizes {
            let changes = table.remove(key);
            if this == size {
                grid_name = format!("{name}-{key}");
                merge(&mut table, changes.unwrap_or_else(|| Value::Table(Table::new())));
            }
        }
        let grid: Self = table.try_into().map_err(wrong)?;
        let grid = Self { name: grid_name, ..grid };
        let lists = [
            ("models", grid.models.is_empty()),
            ("spans", grid.spans.is_empty()),
            ("seeds", grid.seeds.is_empty()),
        ];
        if let Some((list, _)) = lists.iter().find(|(_, empty)| *empty) {
            return Err(usage!("the grid {name}: {list} is empty; give at least one"));
        }
        grid.settings_are_flags(&grid.settings)?;
        grid.variants.iter().try_for_each(|variant| grid.settings_are_flags(&variant.settings))?;
        Ok(grid)
    }

    fn settings_are_flags(&self, settings: &Table) -> anyhow::Result<()> {
        match settings.iter().find(|(_, value)| flag_value(value).is_none()) {
            Some((key, _)) => Err(usage!(
                "the grid {}: {key} has to be a number, a word, true, or a list of numbers",
                self.name
            )),
            None => Ok(()),
        }
    }

    /// The runs, the first seed of everything first.
    pub fn cells(&self, data: Option<&Path>) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &seed in &self.seeds {
            for variant in self.variants_or_none() {
                let models = variant.and_then(|variant| variant.models.as_ref());
                for &span in &self.spans {
                    for model in models.unwrap_or(&self.models) {
                        cells.push(self.cell(variant, model, span, seed, data));
                    }
                }
            }
        }
        cells
    }

    /// The variants, or `None` once if there are none.
    pub fn variants_or_none(&self) -> Vec<Option<&Variant>> {
        if self.variants.is_empty() {
            return vec![None];
        }
        self.variants.iter().map(Some).collect()
    }

    fn cell(
        &self,
        variant: Option<&Variant>,
        model: &str,
        span: usize,
        seed: u64,
        data: Option<&Path>,
    ) -> Cell {
        let longest = self.longest_test.get(model).copied().unwrap_or(usize::MAX);
        let mut tests = vec![span];
        tests.extend(self.test_spans.iter().filter(|test| **test != span));
        let (tests, too_long): (Vec<usize>, Vec<usize>) =
            tests.into_iter().partition(|test| *test == span || *test <= longest);
        let mut settings = self.settings.clone();
        settings.extend(variant.map(|variant| variant.settings.clone()).unwrap_or_default());
        let mut line = vec![self.task.clone()];
        let mut flag = |name: &str, value: String| {
            line.push(format!("--{name}"));
            if !value.is_empty() {
                line.push(value);
            }
        };
        flag("model", model.to_owned());
        flag("compare", "none".to_owned());
        // Images are as long as they are. `sab train` refuses what is no task.
        if let Ok(task) = TaskName::from_str(&self.task, false).map(Task::from)
            && !task.has_one_span()
        {
            flag(task.span_name(), span.to_string());
        }
        if let (Some(folder), Some(of_task)) = (data, &self.data) {
            flag("data", folder.join(of_task).display().to_string());
        }
        flag("seed", seed.to_string());
        for (name, value) in &settings {
            flag(name, flag_value(value).unwrap_or_default());
        }
        let list: Vec<String> = tests.iter().map(usize::to_string).collect();
        flag("test-delays", list.join(","));
        let prefix = variant.map_or_else(String::new, |variant| slug(&variant.name) + "-");
        Cell {
            name: format!("{prefix}{model}-{span}-{seed}"),
            variant: variant.map(|variant| variant.name.clone()),
            model: model.to_owned(),
            span,
            seed,
            too_long,
            line,
        }
    }
}

/// What stands after a flag; nothing after one that is only there. `None` for a value no flag can have.
fn flag_value(value: &Value) -> Option<String> {
    match value {
        Value::String(word) => Some(word.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(true) => Some(String::new()),
        Value::Array(list) => {
            list.iter().map(flag_value).collect::<Option<Vec<_>>>().map(|list| list.join(","))
        }
        _ => None,
    }
}

/// Replaces what `changes` names, and inside of tables only what those name.
fn merge(table: &mut Table, changes: Value) {
    let Value::Table(changes) = changes else { return };
    for (key, change) in changes {
        match (table.get_mut(&key), change) {
            (Some(Value::Table(inner)), change @ Value::Table(_)) => merge(inner, change),
            (_, change) => {
                table.insert(key, change);
            }
        }
    }
}

/// A name as part of a folder's name.
fn slug(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::collections::BTreeSet;

    const SMALL: &str = r#"
        title = "A title"
        about = "About it."
        task = "copying"
        models = ["sab", "lstm"]
        spans = [5, 6]
        seeds = [1, 2]
        test-spans = [6, 50, 500]
        longest-test = { lstm = 100 }
        data = "here"
        settings = { updates = 7, lr = 0.01, max-hops = "none" }
        variants = [{ name = "k_top 1", settings = { k-top = 1 } }, { name = "all", settings = {} }]
        [quick]
        seeds = [9]
        settings = { updates = 3 }
    "#;

    #[test]
    fn every_cell_is_a_line_of_sab_train() {
        let grid = Grid::read("small", SMALL, Size::Standard).unwrap();
        let cells = grid.cells(None);
        assert_eq!(cells.len(), 2 * 2 * 2 * 2);
        let names: BTreeSet<_> = cells.iter().map(|cell| cell.name.clone()).collect();
        assert_eq!(names.len(), cells.len());
        assert_eq!(cells[1].name, "k_top-1-lstm-5-1");
        assert_eq!(
            cells[1].line.join(" "),
            "copying --model lstm --compare none --delay 5 --seed 1 --k-top 1 --lr 0.01 --max-hops none \
             --updates 7 --test-delays 5,6,50"
        );
        let with_data = grid.cells(Some(Path::new("files")));
        let flag = with_data[0].line.iter().position(|word| word == "--data").unwrap();
        assert_eq!(Path::new(&with_data[0].line[flag + 1]), Path::new("files").join("here"));
        assert_eq!(cells[1].too_long, [500]);
        assert!(cells[0].too_long.is_empty());
    }

    #[test]
    fn a_variant_may_concern_some_models() {
        let some = SMALL.replace("name = \"all\"", "name = \"all\", models = [\"lstm\"]");
        let cells = Grid::read("small", &some, Size::Standard).unwrap().cells(None);
        assert_eq!(cells.len(), 2 * (2 * 2 + 2));
        assert!(cells.iter().all(|cell| cell.model == "lstm" || !cell.name.starts_with("all-")));
    }

    #[test]
    fn a_size_replaces_what_it_names() {
        let grid = Grid::read("small", SMALL, Size::Quick).unwrap();
        assert_eq!((grid.name.as_str(), grid.seeds.as_slice()), ("small-quick", [9].as_slice()));
        assert_eq!(grid.settings["updates"].as_integer(), Some(3));
        assert_eq!(grid.settings["lr"].as_float(), Some(0.01));
        let full = Grid::read("small", SMALL, Size::Full).unwrap();
        assert_eq!((full.name.as_str(), full.seeds.len()), ("small-full", 2));
    }

    #[rstest]
    #[case("title = 3", "title")]
    #[case("titel = \"x\"", "titel")]
    #[case("nonsense", "nonsense")]
    fn a_mistake_is_named(#[case] text: &str, #[case] named: &str) {
        let error = Grid::read("mine", text, Size::Standard).unwrap_err().to_string();
        assert!(error.contains("mine") && error.contains(named), "{error}");
    }

    #[test]
    fn empty_lists_and_odd_settings_are_mistakes() {
        let empty = SMALL.replace("seeds = [1, 2]", "seeds = []");
        let error = Grid::read("mine", &empty, Size::Standard).unwrap_err().to_string();
        assert!(error.contains("seeds is empty"), "{error}");
        let odd = SMALL.replace("lr = 0.01", "lr = { of = 1 }");
        let error = Grid::read("mine", &odd, Size::Standard).unwrap_err().to_string();
        assert!(error.contains("lr has to be"), "{error}");
    }
}
