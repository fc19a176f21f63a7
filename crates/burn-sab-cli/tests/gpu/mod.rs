//! What tests on a GPU need: the adapters that are there, and what a program says without one.

#[cfg(target_os = "linux")]
use std::fs;
#[cfg(target_os = "linux")]
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use burn::tensor::Device;

/// Whether there is a GPU to test on; says so if not, or fails where `SAB_REQUIRE_GPU` is set.
pub fn has_gpu() -> bool {
    // wgpu is set up once per process.
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    let found = FOUND
        .get_or_init(|| Device::wgpu_options().init().map(drop).map_err(|error| error.to_string()));
    if let Err(error) = found {
        assert!(std::env::var_os("SAB_REQUIRE_GPU").is_none(), "no adapter for wgpu: {error}");
        eprintln!("SKIPPED: no adapter for wgpu ({error}); install a Vulkan driver to run this");
    }
    found.is_ok()
}

/// The driver of Mesa's software adapter; as [`has_gpu`] if it is not there.
#[cfg(target_os = "linux")]
pub fn llvmpipe() -> Option<PathBuf> {
    let drivers = fs::read_dir("/usr/share/vulkan/icd.d").into_iter().flatten();
    let found = drivers
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("lvp_icd"));
    if found.is_none() {
        assert!(std::env::var_os("SAB_REQUIRE_GPU").is_none(), "llvmpipe is not installed");
        eprintln!("SKIPPED: llvmpipe is not installed; install mesa-vulkan-drivers to run this");
    }
    found
}

/// What the program says when it fails, in the lines that are its own.
pub fn told(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    // Mesa's EGL has a line of its own where there is no desktop.
    let own = told.lines().filter(|line| !line.contains("XDG_RUNTIME_DIR"));
    own.map(str::to_owned).collect()
}

/// Runs a program where no GPU has a driver; it has to say so in one line.
#[cfg(target_os = "linux")]
pub fn fails_without_a_driver(mut command: Command) {
    // Vulkan's drivers under both names, and OpenGL's, which wgpu takes where there is no Vulkan.
    for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "__EGL_VENDOR_LIBRARY_FILENAMES"] {
        command.env(name, "/there/is/no/driver");
    }
    let told = told(&mut command);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].starts_with("error: there is no GPU that wgpu can use"), "{told:#?}");
    assert!(told[0].contains("--backend flex"), "{told:#?}");
}
