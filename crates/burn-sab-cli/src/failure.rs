//! What goes wrong without a mistake of the user's: a device that fails, or this program.
//!
//! Of either the program learns by a panic: Burn's tensors have no other way to say that a GPU cannot go on.
//! An array that could not be had carries its failure to whoever reads it; a device that was lost fails
//! every read from then on; wgpu's own errors panic where they happen. The words looked for here are
//! those of cubecl-runtime 0.11 (`IoError`, `ServerError`), wgpu 30 and cudarc 0.19.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::ExecutionError;

/// What panics said that nobody has told yet, the first one first.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn said() -> MutexGuard<'static, Vec<String>> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device that cannot do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceFailure {
    /// There is none.
    #[error(
        "there is no GPU that this backend can use ({0}); install its driver, or take another --backend"
    )]
    Missing(String),
    /// The driver took it away.
    #[error(
        "the device was lost ({0}): its driver gave up or restarted, as it may when one call takes seconds; \
         shorter sequences (--delay, --length, --time) or a smaller --batch or --hidden make it shorter, \
         another --backend avoids it"
    )]
    Lost(String),
    /// No memory at this moment.
    #[error(
        "the device has no memory left{}; a smaller --batch, shorter sequences (--delay, --length, --time), \
         less --hidden or another --backend may do",
        .0.map_or_else(String::new, |bytes| format!(" for {bytes} bytes"))
    )]
    OutOfMemory(Option<u64>),
    /// More than the device takes at once, whatever is free.
    #[error(
        "the device does not take {0}; a smaller --batch, shorter sequences (--delay, --length, --time), \
         less --hidden or another --backend may do"
    )]
    TooLarge(String),
    /// The kernels that were insisted on do not do this.
    #[error(
        "the kernels do not cover this: {0}; backend primitives do, slowly (`--strategy primitives` of conformance, \
         `--model primitives` of sab-bench)"
    )]
    NotCovered(String),
}

impl DeviceFailure {
    /// The failure that a panic or an error speaks of, if it does.
    pub fn of(text: &str) -> Option<Self> {
        let after = |words: &str| text.split_once(words).map(|(_, rest)| rest);
        let number = |rest: &str| {
            let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit()).next();
            digits.and_then(|digits| digits.parse::<u64>().ok())
        };
        // Up to the end of the line or of the sentence that holds it.
        let line = |rest: &str| {
            let lines = rest.lines().map(str::trim);
            let first = lines
                .map(|line| line.trim_start_matches(": "))
                .find(|line| !line.is_empty() && *line != "Caused by:");
            first.unwrap_or("no reason was given").trim_end_matches(['.', ')']).to_owned()
        };
        if let Some(rest) = after("The device is poisoned") {
            return Some(Self::Lost(line(rest)));
        }
        if text.contains("Parent device is lost") || text.contains("Device lost") {
            return Some(Self::Lost("by the driver".to_owned()));
        }
        if let Some(rest) = after("can't allocate buffer of size: ") {
            let bytes = number(rest)?;
            return Some(Self::TooLarge(format!("an array of {bytes} bytes")));
        }
        if let Some(rest) = after("out of device memory allocating ") {
            return Some(Self::OutOfMemory(number(rest)));
        }
        let out_of_memory =
            ["wgpu error: Out of Memory", "Not enough memory left", "CUDA_ERROR_OUT_OF_MEMORY"];
        if out_of_memory.iter().any(|words| text.contains(words)) {
            return Some(Self::OutOfMemory(None));
        }
        for words in [
            "is greater than the maximum buffer size",
            "buffer_binding_size` limit",
            "Each current dispatch group size dimension",
        ] {
            if let Some(whole) = text.lines().find(|line| line.contains(words)) {
                return Some(Self::TooLarge(format!("this ({})", whole.trim())));
            }
        }
        for words in ["No adapter available", "Unable to dynamically load", "CUDA_ERROR_NO_DEVICE"]
        {
            if let Some(at) = text.find(words) {
                let told = line(&text[at..]);
                let end = told.find(" - ").or(told.find(". ")).unwrap_or(told.len());
                return Some(Self::Missing(told[..end].to_owned()));
            }
        }
        // What the layer proposes comes last, and is not a flag.
        let (why, _) = after("Strategy::Fused: ")?.rsplit_once("; ")?;
        Some(Self::NotCovered(why.to_owned()))
    }
}

/// A mistake of this program.
#[derive(Debug, thiserror::Error)]
#[error(
    "this is a mistake of the program itself, not yours: {0} (please report this line to burn-sab's maintainers, with \
     the command and what RUST_BACKTRACE=1 adds)"
)]
pub struct Bug(String);

/// Keeps what panics say for [`caught`] to tell, instead of having it printed where they happen; a
/// backtrace that was asked for is still printed.
pub fn listen() {
    let print = panic::take_hook();
    let traced = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    panic::set_hook(Box::new(move |info| {
        if traced {
            print(info);
        }
        said().push(info.to_string());
    }));
}

/// Does the work; a panic, on whichever thread it began, becomes an error.
///
/// # Errors
///
/// [`DeviceFailure`] if a device failed, [`Bug`] after any other panic, or the error of the work itself.
pub fn caught<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    // What a panic leaves half done goes away with the work.
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    let said = std::mem::take(&mut *said());
    match outcome {
        Ok(Err(error)) => Err(match error.downcast_ref::<ExecutionError>() {
            Some(told) => match DeviceFailure::of(&told.to_string()) {
                Some(failure) => failure.into(),
                None => error,
            },
            None => error,
        }),
        Ok(done) => done,
        // A thread of the backend may have known the reason before the program's own noticed.
        Err(_) => Err(match said.iter().find_map(|said| DeviceFailure::of(said)) {
            Some(failure) => failure.into(),
            None => Bug(said.into_iter().next().unwrap_or_else(|| "no words".to_owned())).into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Texts as the backends of Burn 0.22.1 put them: the first three were provoked on llvmpipe, the others
    /// put together from the sources.
    #[rstest]
    #[case(
        "panicked at train.rs:286:40:\nError while reading data: use `try_into_scalar` instead to catch the error \
         at runtime: Execution(An error happened during execution\nCaused by:\n  Several failures at once\nCaused \
         by:\n  An IO error happened\nCaused by:\n  can't allocate buffer of size: 384000000\nNo backtrace \
         available\nAsked at:\nNo backtrace available)",
        DeviceFailure::TooLarge("an array of 384000000 bytes".to_owned())
    )]
    #[case(
        "panicked at device_poison.rs:42:17:\nwgpu error: Out of Memory",
        DeviceFailure::OutOfMemory(None)
    )]
    #[case(
        "panicked at backend.rs:71:\nStrategy::Fused: H 5000 and A 64 take 9 bytes of shared memory; the device has 3; \
         Strategy::Auto runs on backend primitives instead",
        DeviceFailure::NotCovered(
            "H 5000 and A 64 take 9 bytes of shared memory; the device has 3".to_owned()
        )
    )]
    #[case(
        "Strategy::Fused: this backend has no kernel for the SAB sequence; use Strategy::Auto",
        DeviceFailure::NotCovered("this backend has no kernel for the SAB sequence".to_owned())
    )]
    #[case(
        "An IO error happened\nCaused by:\n  out of device memory allocating 1024 bytes\nNo backtrace available",
        DeviceFailure::OutOfMemory(Some(1024))
    )]
    #[case(
        "Error while reading data: The device is poisoned\nCaused by:\n  Unknown: the driver reset\nBacktrace:\n",
        DeviceFailure::Lost("Unknown: the driver reset".to_owned())
    )]
    #[case(
        "called `Result::unwrap()` on an `Err` value: Io(The device is poisoned: Unknown: reset)",
        DeviceFailure::Lost("Unknown: reset".to_owned())
    )]
    #[case(
        "wgpu error: Validation Error\n\nCaused by:\n  In ComputePass::end\n    Each current dispatch group size \
         dimension ([70000, 1, 1]) must be less or equal to 65535\n",
        DeviceFailure::TooLarge(
            "this (Each current dispatch group size dimension ([70000, 1, 1]) must be less or equal to 65535)"
                .to_owned()
        )
    )]
    #[case(
        "panicked at lib.rs:200:5:\nUnable to dynamically load the \"cuda\" shared library - searched for library \
         names: [\"cuda\"]. Ensure that `LD_LIBRARY_PATH` has the correct path",
        DeviceFailure::Missing("Unable to dynamically load the \"cuda\" shared library".to_owned())
    )]
    #[case(
        "called `Result::unwrap()` on an `Err` value: DriverError(CUDA_ERROR_NO_DEVICE, \"no CUDA-capable device is \
         detected\")",
        DeviceFailure::Missing("CUDA_ERROR_NO_DEVICE, \"no CUDA-capable device is detected\"".to_owned())
    )]
    fn what_devices_say_is_understood(#[case] said: &str, #[case] meant: DeviceFailure) {
        assert_eq!(DeviceFailure::of(said), Some(meant));
    }

    #[rstest]
    #[case("index out of bounds: the len is 3 but the index is 3")]
    #[case("11 answers cannot be read from 3 steps")]
    fn a_mistake_of_the_program_is_no_failure_of_a_device(#[case] said: &str) {
        assert_eq!(DeviceFailure::of(said), None);
    }

    #[test]
    fn panics_become_errors() {
        // The hook of the tests prints what this one keeps to itself.
        listen();
        let of = |text: &'static str| caught::<()>(|| panic!("{text}")).unwrap_err();
        assert!(of("wgpu error: Out of Memory").is::<DeviceFailure>());
        let bug = of("no such slot");
        assert!(bug.is::<Bug>() && bug.to_string().contains("no such slot"), "{bug}");
        let thread = caught::<()>(|| {
            // As in a backend: the reason is known on another thread than the one that ends.
            let device = std::thread::spawn(|| panic!("wgpu error: Out of Memory")).join();
            device.map_err(|_| panic!("the device's thread is gone"))
        });
        assert!(thread.unwrap_err().is::<DeviceFailure>());
        let own = caught::<()>(|| Err(anyhow::anyhow!("an error"))).unwrap_err();
        assert_eq!(own.to_string(), "an error");
        drop(panic::take_hook());
    }
}
