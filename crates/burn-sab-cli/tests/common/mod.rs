//! The program, for the tests that start it.

use std::path::Path;
use std::process::Command;

/// `sab` with the words of `line`, in `folder`. Its messages have no backtrace and no log, whatever the environment.
pub fn sab(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sab"));
    command
        .args(line.split_whitespace())
        .current_dir(folder)
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LOG");
    command
}
