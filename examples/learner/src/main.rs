//! Trains a network that names spoken digits.
//!
//! ```sh
//! cd examples/learner
//! cargo run --release -- FOLDER                    # with the recordings of the Free Spoken Digit Dataset
//! cargo run --release --features tui -- FOLDER     # with Burn's dashboard
//! cargo run --release -- FOLDER --quick            # 200 recordings, two epochs
//! cargo run --release --features cuda -- FOLDER --ddp    # on all CUDA devices of the machine
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use burn::module::Module;
use burn::tensor::Device;
use burn::train::ExecutionStrategy;
#[cfg(feature = "cuda")]
use burn_sab_learner::ddp;
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
    if let Some(flag) = flags.iter().find(|flag| !["--quick", "--ddp"].contains(&flag.as_str())) {
        return Err(format!("unknown flag {flag}: there are --quick and --ddp"));
    }
    let has = |flag| flags.iter().any(|given| given == flag);
    let [folder] = folders.as_slice() else {
        return Err(format!("name one folder with recordings, not {folders:?}"));
    };
    let (most, settings) = if has("--quick") {
        (200, Settings { epochs: 2, ..Settings::default() })
    } else {
        (usize::MAX, Settings::default())
    };
    let device = Device::default();
    let strategy = match has("--ddp") {
        true => ddp()?,
        false => ExecutionStrategy::single(device.clone().autodiff()),
    };
    let recordings = Recordings::load(&PathBuf::from(folder), most)?;
    println!("{} recordings, {} for the test", recordings.train.len(), recordings.test.len());
    let test = recordings.test.clone();
    let out = std::env::temp_dir().join("burn-sab-learner");
    let result = train(recordings, settings, &out, strategy);
    if let Some(error) = result.error {
        return Err(format!("training ended early: {error}"));
    }
    let share = accuracy(&result.model.valid(), test, &device);
    println!("digits named: {:.1} % (chance: 10 %)", 100.0 * share);
    println!("checkpoints and logs: {}", out.display());
    Ok(())
}

#[cfg(not(feature = "cuda"))]
fn ddp() -> Result<ExecutionStrategy, String> {
    Err("--ddp needs CUDA: build with `--features cuda`".to_owned())
}
