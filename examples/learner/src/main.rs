//! Trains a network that names spoken digits.
//!
//! ```sh
//! cd examples/learner
//! cargo run --release -- FOLDER                    # with the recordings of the Free Spoken Digit Dataset
//! cargo run --release --features tui -- FOLDER     # with Burn's dashboard
//! cargo run --release -- FOLDER --quick            # 200 recordings, two epochs
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use burn::module::Module;
use burn::tensor::Device;
use burn_sab_learner::digits::Recordings;
use burn_sab_learner::{Settings, accuracy, train};

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Result<(), String> {
    let (flags, folders): (Vec<_>, Vec<_>) =
        arguments.into_iter().partition(|argument| argument.starts_with("--"));
    let quick = match flags.as_slice() {
        [] => false,
        [flag] if flag == "--quick" => true,
        flags => return Err(format!("unknown flags {flags:?}: there is --quick alone")),
    };
    let [folder] = folders.as_slice() else {
        return Err(format!("name one folder with recordings, not {folders:?}"));
    };
    let (most, settings) = if quick {
        (200, Settings { epochs: 2, ..Settings::default() })
    } else {
        (usize::MAX, Settings::default())
    };
    let recordings = Recordings::load(&PathBuf::from(folder), most)?;
    println!("{} recordings, {} for the test", recordings.train.len(), recordings.test.len());
    let test = recordings.test.clone();
    let device = Device::default();
    let out = std::env::temp_dir().join("burn-sab-learner");
    let result = train(recordings, settings, &out, vec![device.clone().autodiff()]);
    if let Some(error) = result.error {
        return Err(format!("training ended early: {error}"));
    }
    let share = accuracy(&result.model.valid(), test, &device);
    println!("digits named: {:.1} % (chance: 10 %)", 100.0 * share);
    println!("checkpoints and logs: {}", out.display());
    Ok(())
}
