//! The program `sab`.

use std::process::ExitCode;

fn main() -> ExitCode {
    burn_sab_cli::main()
}
