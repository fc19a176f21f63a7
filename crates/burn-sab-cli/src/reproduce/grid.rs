//! What a table consists of: a TOML file that declares a grid of runs.
//!
//! A cell of the grid is one run of `sab train`, and `settings` are its flags. `[quick]` and `[full]`
//! replace what they name when that size is asked for. A file with `[[parts]]` declares a grid for each, which
//! differs from the rest of the file in what the part names.

use std::collections::{BTreeMap, BTreeSet};
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
    /// The name that a page has which sums the grids of a file up; `None` for a file of one grid.
    #[serde(skip)]
    pub family: Option<String>,
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
    /// Short runs before the others, which choose their learning rates.
    #[serde(default)]
    pub pilots: Option<Pilots>,
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
    /// What the table calls it; nothing if its models are enough of a name.
    #[serde(default)]
    pub name: Option<String>,
    /// Flags of `sab train` beside those of the grid.
    #[serde(default)]
    pub settings: Table,
    /// The models that it concerns, if not all.
    #[serde(default)]
    pub models: Option<Vec<String>>,
    /// Its seeds, if not those of the grid.
    #[serde(default)]
    pub seeds: Option<Vec<u64>>,
}

/// How learning rates are chosen: for every model, variant and span by a run with each rate and the first seed. The
/// best metric on held-out sequences decides; those of the tests play no part.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pilots {
    /// The rates to choose from.
    pub lr: Vec<f64>,
    /// Updates of a run.
    pub updates: usize,
}

/// The learning rates that were chosen, by [`Cell::group`].
pub type Chosen = BTreeMap<String, f64>;

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
    /// The part of the name that runs share which differ in seed or learning rate only.
    pub group: String,
    /// What the run is for.
    pub role: Role,
    pub variant: Option<String>,
    pub model: String,
    pub span: usize,
    pub seed: u64,
    /// Tests that are declared but too long for the model.
    pub too_long: Vec<usize>,
    /// What follows `sab train` on the command line that is this run.
    pub line: Vec<String>,
}

/// What a run of a grid is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Role {
    /// The table.
    Result,
    /// The table, once pilots have chosen its learning rate.
    Waiting,
    /// The choice of this learning rate.
    Pilot(f64),
}

const OWN: [(TableName, &str, &str); 11] = [
    (TableName::Copying, "copying", include_str!("../../grids/copying.toml")),
    (TableName::Adding, "adding", include_str!("../../grids/adding.toml")),
    (TableName::Transfer, "transfer", include_str!("../../grids/transfer.toml")),
    (TableName::Ablation, "ablation", include_str!("../../grids/ablation.toml")),
    (TableName::Sweep, "sweep", include_str!("../../grids/sweep.toml")),
    (TableName::Budget, "budget", include_str!("../../grids/budget.toml")),
    (TableName::Suite, "suite", include_str!("../../grids/suite.toml")),
    (TableName::Mnist, "mnist", include_str!("../../grids/mnist.toml")),
    (TableName::Cifar, "cifar", include_str!("../../grids/cifar.toml")),
    (TableName::Text, "text", include_str!("../../grids/text.toml")),
    (TableName::Real, "real", include_str!("../../grids/real.toml")),
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
        return Grid::read(&name, &text, args.size());
    }
    let mut grids = Vec::new();
    for (table, name, text) in OWN {
        if [table, TableName::All].contains(&args.table) {
            grids.extend(Grid::read(name, text, args.size())?);
        }
    }
    Ok(grids)
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
    /// Reads the grids of a file in this size; one, unless the file has parts.
    pub fn read(name: &str, text: &str, size: Size) -> anyhow::Result<Vec<Self>> {
        let mut table: Table = toml::from_str(text).map_err(|error| wrong(name, &error))?;
        let Some(parts) = table.remove("parts") else {
            return Ok(vec![Self::of_table(name, table, size)?]);
        };
        let parts: Vec<Table> = parts.try_into().map_err(|error| wrong(name, &error))?;
        let family = sized(name, size);
        let grid = |mut part: Table| {
            let Some(Value::String(of_part)) = part.remove("name") else {
                return Err(usage!("the grid {name}: a part has no name; give it one"));
            };
            let mut whole = table.clone();
            merge(&mut whole, Value::Table(part));
            let grid = Self::of_table(&format!("{name}-{of_part}"), whole, size)?;
            Ok(Self { family: Some(family.clone()), ..grid })
        };
        parts.into_iter().map(grid).collect()
    }

    fn of_table(name: &str, mut table: Table, size: Size) -> anyhow::Result<Self> {
        for this in [Size::Quick, Size::Full] {
            let changes = table.remove(this.key());
            if this == size {
                merge(&mut table, changes.unwrap_or_else(|| Value::Table(Table::new())));
            }
        }
        let grid: Self = table.try_into().map_err(|error| wrong(name, &error))?;
        let grid = Self { name: sized(name, size), ..grid };
        let of_variants = || grid.variants.iter();
        let is_empty = |list: &Option<Vec<u64>>| list.as_ref().is_some_and(Vec::is_empty);
        let lists = [
            ("models", grid.models.is_empty()),
            ("spans", grid.spans.is_empty()),
            ("seeds", grid.seeds.is_empty() || of_variants().any(|of| is_empty(&of.seeds))),
            ("lr", grid.pilots.as_ref().is_some_and(|pilots| pilots.lr.is_empty())),
        ];
        if let Some((list, _)) = lists.iter().find(|(_, empty)| *empty) {
            return Err(usage!("the grid {name}: {list} is empty; give at least one"));
        }
        let mut names = BTreeSet::new();
        for variant in grid.variants_or_none() {
            let name = variant.and_then(|variant| variant.name.as_ref());
            let mut models = grid.models_of(variant).iter();
            if let Some(model) = models.find(|model| !names.insert((name, *model))) {
                return Err(usage!(
                    "the grid {}: two lines of the table would be {model}; give each variant a name of its own",
                    grid.name
                ));
            }
        }
        grid.settings_are_flags(&grid.settings)?;
        of_variants().try_for_each(|variant| grid.settings_are_flags(&variant.settings))?;
        let sets_lr = |settings: &Table| settings.contains_key("lr");
        let is_set = sets_lr(&grid.settings) || of_variants().any(|of| sets_lr(&of.settings));
        if grid.pilots.is_some() && is_set {
            return Err(usage!("the grid {name}: pilots choose lr; remove lr from the settings"));
        }
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

    /// The runs of the table, the first seed of everything first. Of a grid with pilots they have the learning rates in
    /// `chosen`, or wait.
    pub fn cells(&self, data: Option<&Path>, chosen: &Chosen) -> Vec<Cell> {
        let of_variant = |variant: Option<&Variant>| {
            variant.and_then(|variant| variant.seeds.clone()).unwrap_or_else(|| self.seeds.clone())
        };
        let seeds = self.variants_or_none().into_iter().map(of_variant);
        let most = seeds.map(|seeds| seeds.len()).max().unwrap_or(0);
        let mut cells = Vec::new();
        for place in 0..most {
            for (variant, span, model) in self.groups() {
                if let Some(seed) = of_variant(variant).get(place) {
                    let lr = chosen.get(&group(variant, model, span)).copied();
                    let role = match (&self.pilots, lr) {
                        (Some(_), None) => Role::Waiting,
                        _ => Role::Result,
                    };
                    cells.push(self.cell((variant, span, model), *seed, (role, lr), data));
                }
            }
        }
        cells
    }

    /// The runs that choose learning rates.
    pub fn pilots(&self, data: Option<&Path>) -> Vec<Cell> {
        let Some(pilots) = &self.pilots else { return Vec::new() };
        let mut cells = Vec::new();
        for of in self.groups() {
            let seeds = of.0.and_then(|variant| variant.seeds.as_ref()).unwrap_or(&self.seeds);
            for lr in &pilots.lr {
                cells.push(self.cell(of, seeds[0], (Role::Pilot(*lr), Some(*lr)), data));
            }
        }
        cells
    }

    /// Whether there are runs whose model is enough of a name, beside those of variants.
    pub fn has_nameless_variants(&self) -> bool {
        self.variants.iter().any(|variant| variant.name.is_none())
    }

    /// The models of a variant.
    fn models_of<'a>(&'a self, variant: Option<&'a Variant>) -> &'a [String] {
        variant.and_then(|variant| variant.models.as_ref()).unwrap_or(&self.models)
    }

    /// Variants, spans and models.
    fn groups(&self) -> Vec<(Option<&Variant>, usize, &str)> {
        let mut groups = Vec::new();
        for variant in self.variants_or_none() {
            for &span in &self.spans {
                for model in self.models_of(variant) {
                    groups.push((variant, span, model.as_str()));
                }
            }
        }
        groups
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
        (variant, span, model): (Option<&Variant>, usize, &str),
        seed: u64,
        (role, lr): (Role, Option<f64>),
        data: Option<&Path>,
    ) -> Cell {
        let longest = self.longest_test.get(model).copied().unwrap_or(usize::MAX);
        let mut tests = vec![span];
        // Pilots are not results.
        if !matches!(role, Role::Pilot(_)) {
            tests.extend(self.test_spans.iter().filter(|test| **test != span));
        }
        let (tests, too_long): (Vec<usize>, Vec<usize>) =
            tests.into_iter().partition(|test| *test == span || *test <= longest);
        let mut settings = self.settings.clone();
        settings.extend(variant.map(|variant| variant.settings.clone()).unwrap_or_default());
        settings.extend(lr.map(|lr| ("lr".to_owned(), Value::Float(lr))));
        if let (Role::Pilot(_), Some(pilots)) = (role, &self.pilots) {
            settings.insert("updates".to_owned(), Value::Integer(pilots.updates as i64));
        }
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
        let group = group(variant, model, span);
        Cell {
            name: match role {
                Role::Pilot(lr) => format!("{group}-lr-{lr}"),
                _ => format!("{group}-{seed}"),
            },
            group,
            role,
            variant: variant.and_then(|variant| variant.name.clone()),
            model: model.to_owned(),
            span,
            seed,
            too_long,
            line,
        }
    }
}

/// What the names of runs share that differ in seed or learning rate only.
fn group(variant: Option<&Variant>, model: &str, span: usize) -> String {
    let name = variant.and_then(|variant| variant.name.as_ref());
    let prefix = name.map_or_else(String::new, |name| slug(name) + "-");
    format!("{prefix}{model}-{span}")
}

/// The name of a grid in this size.
fn sized(name: &str, size: Size) -> String {
    match size {
        Size::Standard => name.to_owned(),
        _ => format!("{name}-{}", size.key()),
    }
}

fn wrong(name: &str, error: &toml::de::Error) -> anyhow::Error {
    usage!("the grid {name}: {}", error.to_string().trim())
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
    use crate::settings::Settings;
    use crate::train::args::TrainArgs;
    use burn::tensor::Device;
    use burn_sab_tasks::TaskModel;
    use clap::Parser;
    use rstest::rstest;

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

    fn one(text: &str, size: Size) -> Grid {
        let mut grids = Grid::read("small", text, size).unwrap();
        assert_eq!(grids.len(), 1);
        grids.remove(0)
    }

    #[test]
    fn the_matched_lstm_of_the_suite_has_as_many_parameters_as_sab() {
        let text = include_str!("../../grids/suite.toml");
        for grid in Grid::read("suite", text, Size::Standard).unwrap() {
            let of = parameters(&grid, None);
            let of =
                |name: &str| of.iter().find(|(group, _)| group.starts_with(name)).unwrap().1 as f64;
            let ratio = of("matched-parameters-lstm") / of("sab");
            assert!((ratio - 1.0).abs() < 0.01, "{}: {ratio}", grid.name);
        }
    }

    /// The parameters of every group of a grid, with the hidden size that its runs have.
    fn parameters(grid: &Grid, data: Option<&Path>) -> Vec<(String, usize)> {
        let of = |cell: &Cell| {
            let line = ["sab train"].into_iter().chain(cell.line.iter().map(String::as_str));
            let settings = Settings::from_args(&TrainArgs::parse_from(line)).unwrap();
            let model = TaskModel::new(&settings.train, &Device::flex().autodiff()).unwrap();
            (cell.group.clone(), model.live_parameters())
        };
        let cells = grid.cells(data, &Chosen::new());
        cells.iter().filter(|cell| cell.seed == grid.seeds[0]).map(of).collect()
    }

    #[test]
    fn the_models_of_real_data_have_as_many_parameters_as_sab() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("ptb")).unwrap();
        // The fifty symbols of the Penn Treebank, whichever they are.
        let symbols: Vec<u8> = (b'A'..b'A' + 50).collect();
        for part in ["train", "valid", "test"] {
            fs::write(folder.path().join(format!("ptb/ptb.char.{part}.txt")), &symbols).unwrap();
        }
        let text = include_str!("../../grids/real.toml");
        for grid in Grid::read("real", text, Size::Standard).unwrap() {
            let of = parameters(&grid, Some(folder.path()));
            let sab = of.iter().find(|(group, _)| group.starts_with("sab")).unwrap().1;
            for (group, parameters) in &of {
                let ratio = *parameters as f64 / sab as f64;
                assert!((ratio - 1.0).abs() < 0.015, "{} {group}: {ratio} {of:?}", grid.name);
            }
        }
    }

    #[test]
    fn parts_change_what_they_name() {
        let parts = format!(
            "{SMALL}\n[[parts]]\nname = \"a\"\nspans = [9]\n[parts.quick]\nspans = [3]\n[[parts]]\nname = \"b\"\n\
             task = \"adding\"\nsettings = {{ updates = 8 }}\n"
        );
        let grids = Grid::read("small", &parts, Size::Standard).unwrap();
        let names: Vec<&str> = grids.iter().map(|grid| grid.name.as_str()).collect();
        assert_eq!(names, ["small-a", "small-b"]);
        assert!(grids.iter().all(|grid| grid.family.as_deref() == Some("small")));
        assert_eq!(
            (grids[0].task.as_str(), grids[0].spans.as_slice()),
            ("copying", [9].as_slice())
        );
        assert_eq!((grids[1].task.as_str(), grids[1].spans.len()), ("adding", 2));
        let updates = |grid: &Grid| grid.settings["updates"].as_integer();
        assert_eq!((updates(&grids[0]), updates(&grids[1])), (Some(7), Some(8)));
        let quick = Grid::read("small", &parts, Size::Quick).unwrap();
        assert_eq!(
            (quick[0].name.as_str(), quick[0].spans.as_slice()),
            ("small-a-quick", [3].as_slice())
        );
        assert_eq!((quick[1].seeds.as_slice(), updates(&quick[1])), ([9].as_slice(), Some(3)));
        let nameless = parts.replace("name = \"b\"", "");
        let error = Grid::read("small", &nameless, Size::Standard).unwrap_err().to_string();
        assert!(error.contains("no name"), "{error}");
    }

    #[test]
    fn pilots_choose_the_rate_of_every_seed() {
        let text = SMALL
            .replace("lr = 0.01, ", "")
            .replace("variants = [", "pilots = { lr = [0.1, 0.2], updates = 3 }\nvariants = [")
            .replace("{ name = \"all\", settings = {} }", "{ models = [\"lstm\"], seeds = [7] }");
        let grid = one(&text, Size::Standard);
        let pilots = grid.pilots(None);
        // A rate each for two models and one, at two spans.
        assert_eq!(pilots.len(), 2 * 2 * (2 + 1));
        assert_eq!(pilots[0].name, "k_top-1-sab-5-lr-0.1");
        assert_eq!(pilots[0].role, Role::Pilot(0.1));
        assert_eq!(
            pilots[0].line.join(" "),
            "copying --model sab --compare none --delay 5 --seed 1 --k-top 1 --lr 0.1 --max-hops none \
             --updates 3 --test-delays 5"
        );
        let nameless = pilots.iter().find(|pilot| pilot.name == "lstm-5-lr-0.1").unwrap();
        assert_eq!((nameless.seed, &nameless.variant), (7, &None));
        let waiting = grid.cells(None, &Chosen::new());
        assert_eq!(waiting.len(), 2 * (2 * 2 + 1));
        assert!(waiting.iter().all(|cell| cell.role == Role::Waiting));
        let chosen = Chosen::from([("lstm-5".to_owned(), 0.2)]);
        for cell in grid.cells(None, &chosen) {
            let is_chosen = cell.group == "lstm-5";
            assert_eq!(cell.role == Role::Result, is_chosen, "{}", cell.name);
            assert_eq!(cell.line.join(" ").contains("--lr 0.2"), is_chosen, "{}", cell.name);
        }
        for (from, to, named) in [
            ("lr = [0.1, 0.2]", "lr = []", "lr is empty"),
            ("updates = 7", "lr = 0.1, updates = 7", "remove lr"),
            ("seeds = [7]", "seeds = []", "seeds is empty"),
            ("name = \"k_top 1\", ", "", "two lines of the table would be lstm"),
        ] {
            let error = Grid::read("mine", &text.replace(from, to), Size::Standard).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn every_cell_is_a_line_of_sab_train() {
        let grid = one(SMALL, Size::Standard);
        let cells = grid.cells(None, &Chosen::new());
        assert_eq!(cells.len(), 2 * 2 * 2 * 2);
        let names: BTreeSet<_> = cells.iter().map(|cell| cell.name.clone()).collect();
        assert_eq!(names.len(), cells.len());
        assert_eq!(cells[1].name, "k_top-1-lstm-5-1");
        assert_eq!(
            cells[1].line.join(" "),
            "copying --model lstm --compare none --delay 5 --seed 1 --k-top 1 --lr 0.01 --max-hops none \
             --updates 7 --test-delays 5,6,50"
        );
        let with_data = grid.cells(Some(Path::new("files")), &Chosen::new());
        let flag = with_data[0].line.iter().position(|word| word == "--data").unwrap();
        assert_eq!(Path::new(&with_data[0].line[flag + 1]), Path::new("files").join("here"));
        assert_eq!(cells[1].too_long, [500]);
        assert!(cells[0].too_long.is_empty());
    }

    #[test]
    fn a_variant_may_concern_some_models() {
        let some = SMALL.replace("name = \"all\"", "name = \"all\", models = [\"lstm\"]");
        let cells = one(&some, Size::Standard).cells(None, &Chosen::new());
        assert_eq!(cells.len(), 2 * (2 * 2 + 2));
        assert!(cells.iter().all(|cell| cell.model == "lstm" || !cell.name.starts_with("all-")));
    }

    #[test]
    fn a_size_replaces_what_it_names() {
        let grid = one(SMALL, Size::Quick);
        assert_eq!((grid.name.as_str(), grid.seeds.as_slice()), ("small-quick", [9].as_slice()));
        assert_eq!(grid.settings["updates"].as_integer(), Some(3));
        assert_eq!(grid.settings["lr"].as_float(), Some(0.01));
        let full = one(SMALL, Size::Full);
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
