//! Words, numbers and tables as people read them.

use std::io::Write;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use indicatif::HumanCount;
use jiff::Timestamp;

/// Bytes of a mebibyte, the unit of all memory that is shown.
pub const MIB: f64 = 1_048_576.0;

/// Prints a line to standard output. A reader that has gone away (`sab … | head`) is no reason to stop.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a warning to standard error.
pub fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "warning: {text}");
}

/// Writes 10000 as "10,000".
pub fn thousands(number: usize) -> String {
    HumanCount(number as u64).to_string()
}

/// Writes 95.3 seconds as "1 min 35 s".
pub fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, min, s) => format!("{min} min {s} s"),
        (h, min, _) => format!("{h} h {min} min"),
    }
}

/// Returns today's date as year-month-day, in UTC.
pub fn today() -> String {
    Timestamp::now().strftime("%F").to_string()
}

/// Spaces between two columns of a table.
const GAP: u16 = 3;

/// Lays out rows of cells as lines of equal columns: the first column is flush left, the others flush right.
/// Lines have no trailing spaces.
pub fn table(rows: &[Vec<String>]) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(NOTHING).add_rows(rows);
    for (place, column) in table.column_iter_mut().enumerate() {
        let first = place == 0;
        column.set_padding((if first { 0 } else { GAP }, 0));
        column.set_cell_alignment(if first { CellAlignment::Left } else { CellAlignment::Right });
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Writes the rows of [`table`] as a table in Markdown, the first row as its header.
pub fn markdown_table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
        if i == 0 {
            let rules: Vec<&str> =
                (0..row.len()).map(|column| if column == 0 { "---" } else { "---:" }).collect();
            text.push_str(&format!("| {} |\n", rules.join(" | ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let numbers = [0, 12, 999, 1000, 10_020, 1_234_567];
        assert_eq!(numbers.map(thousands), ["0", "12", "999", "1,000", "10,020", "1,234,567"]);
    }

    #[test]
    fn durations_have_the_right_unit() {
        assert_eq!(
            [1.25, 59.6, 95.3, 7300.0].map(duration),
            ["1.2 s", "1 min 0 s", "1 min 35 s", "2 h 1 min"]
        );
    }

    #[test]
    fn today_is_a_date() {
        let today = today();
        let parts: Vec<usize> = today.split('-').map(|part| part.parse().unwrap()).collect();
        assert!(matches!(parts[..], [2026..=9999, 1..=12, 1..=31]) && today.len() == 10, "{today}");
    }

    #[test]
    fn tables_line_up() {
        let rows = [["model", "100"], ["sab", "99.8 %"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), ["model      100", "sab     99.8 %"]);
        assert_eq!(markdown_table(&rows), "| model | 100 |\n| --- | ---: |\n| sab | 99.8 % |\n");
    }
}
