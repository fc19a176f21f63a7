//! `sab download` as its users meet it; there is no network in these tests.

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

/// Runs `sab download mnist` in `folder` with the cache of burn-dataset there, and without a network: what
/// is sent goes to a port of this machine at which nobody listens.
fn download(folder: &Path) -> Output {
    common::sab(folder, "download mnist")
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .envs(["HTTPS_PROXY", "https_proxy", "ALL_PROXY"].map(|name| (name, "http://127.0.0.1:9")))
        .output()
        .unwrap()
}

fn error_of(folder: &Path, status: i32) -> String {
    let output = download(folder);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{told}");
    assert!(told.starts_with("error: ") && told.trim_end().lines().count() == 1, "{told}");
    told
}

#[test]
#[cfg(not(feature = "download"))]
fn download_says_how_to_get_a_build_that_can() {
    let folder = tempfile::tempdir().unwrap();
    let told = error_of(folder.path(), 2);
    for words in ["--features download", "sab train mnist --data data/mnist"] {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
#[cfg(feature = "download")]
fn download_without_a_network_says_where_the_files_are() {
    let folder = tempfile::tempdir().unwrap();
    let told = error_of(folder.path(), 1);
    for words in ["data/mnist: MNIST could not be downloaded", "get its four files from https://"] {
        assert!(told.contains(words), "{told}");
    }
    assert!(!folder.path().join("data").exists(), "something was left behind");
}

#[test]
#[cfg(all(feature = "download", target_os = "linux"))] // where the cache is found by XDG_CACHE_HOME
fn download_puts_the_files_where_training_finds_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut made = Vec::new();
    for (split, part, count) in [("train", "train", 20u8), ("test", "t10k", 10)] {
        let cache = folder.join("cache/burn-dataset/mnist").join(split);
        fs::create_dir_all(&cache).unwrap();
        let pixels = (0..count).flat_map(|n| (0..784).map(move |p: usize| n.wrapping_add(p as u8)));
        let images: Vec<u8> = [0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28]
            .into_iter()
            .chain(pixels)
            .collect();
        let labels: Vec<u8> =
            [0, 0, 8, 1, 0, 0, 0, count].into_iter().chain((0..count).map(|n| n % 10)).collect();
        for (kind, bytes) in [("images-idx3", images), ("labels-idx1", labels)] {
            let name = format!("{part}-{kind}-ubyte");
            fs::write(cache.join(&name), &bytes).unwrap();
            made.push((name, bytes));
        }
    }
    let output = download(folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("data/mnist: images in MNIST's format, 18 / 2 / 10"), "{told}");
    for (name, bytes) in made {
        assert!(
            fs::read(folder.join("data/mnist").join(&name)).unwrap() == bytes,
            "{name} differs"
        );
    }
    assert_eq!(fs::read_dir(folder.join("data/mnist")).unwrap().count(), 4);
}
