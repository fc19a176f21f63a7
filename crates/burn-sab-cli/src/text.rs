//! Words and numbers as people read them.

use std::io::Write;
use std::time::SystemTime;

/// Prints a line of results. A reader that has gone away (`sab … | head`) is no reason to stop training.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// 10000 as "10,000".
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// 95.3 seconds as "1 min 35 s".
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

/// Today as year-month-day, in UTC.
pub fn today() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    date(since.as_secs() / 86_400)
}

/// The date that is this many days after 1 January 1970 (Howard Hinnant's `civil_from_days`, which
/// counts years from March, so that the leap day is a year's last).
fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A table whose first column is flush left and whose others are flush right.
pub fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
        })
        .collect()
}

/// The rows of [`table`] as a table in Markdown.
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
    fn days_are_dates() {
        let dates = [0, 59, 11_016, 11_017, 20_780].map(date);
        assert_eq!(dates, ["1970-01-01", "1970-03-01", "2000-02-29", "2000-03-01", "2026-11-23"]);
    }

    #[test]
    fn tables_line_up() {
        let rows = [["model", "100"], ["sab", "99.8 %"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), ["model      100", "sab     99.8 %"]);
        assert_eq!(markdown_table(&rows), "| model | 100 |\n| --- | ---: |\n| sab | 99.8 % |\n");
    }
}
