//! Where measured numbers come from: the sources of the program, and the machine.

/// The commit of the sources that this program was built from (see `build.rs`): 40 hex digits, followed by
/// "-dirty" if the sources were changed; "unknown" without a repository.
pub const COMMIT: &str = env!("SAB_COMMIT");

/// Returns the name of this machine's processor, or "unknown processor" where the system does not say.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| "unknown processor".to_owned())
}
