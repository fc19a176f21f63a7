//! SIGINT and SIGTERM: the first one stops the work after the current update or test, the second one at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What a shell adds to a signal's number for the exit status of a program that the signal ended.
const STATUS: i32 = 128;

/// Whether a signal has asked for a stop.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

/// The end of a program that a signal stopped.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Stopped {
    /// The exit status.
    pub status: u8,
    text: String,
}

impl Stop {
    /// Has signals ask for a stop from now on.
    ///
    /// # Errors
    ///
    /// If the system does not allow it.
    pub fn listen() -> io::Result<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // Before the flag is set, so that only a signal that finds it set ends the program.
            flag::register_conditional_shutdown(signal, STATUS + signal, stop.flag.clone())?;
            flag::register_usize(signal, stop.signal.clone(), signal as usize)?;
            flag::register(signal, stop.flag.clone())?;
        }
        Ok(stop)
    }

    /// Becomes true when a stop is asked for.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }

    /// Whether a stop is asked for.
    pub fn is_asked_for(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// The end of the program; `what` says where it stopped and how to go on.
    pub fn error(&self, what: &str) -> anyhow::Error {
        let signal = self.signal.load(Ordering::Relaxed) as i32;
        let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
        let status = u8::try_from(STATUS + signal).unwrap_or(u8::MAX);
        Stopped { status, text: format!("{name}: {what}") }.into()
    }
}
