//! Tells the program which commit it is built from, for the reports of its runs. `SAB_COMMIT` says it where
//! there is no repository.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=SAB_COMMIT");
    // A new commit, or a change to the sources that makes them "-dirty".
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    for path in [log.as_deref(), Some(".."), Some("../../Cargo.lock")].into_iter().flatten() {
        // What is missing would have the script run at every build.
        if Path::new(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let described = || git(&["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]);
    let commit = std::env::var("SAB_COMMIT").ok().or_else(described);
    println!("cargo::rustc-env=SAB_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// What git says in this folder; `None` without git or a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim().to_owned())
}
