//! `sab conformance` as its users meet it: the shipped cases, and files that are not as they should be.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use rstest::rstest;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/cases")
}

fn conformance(arguments: &[&str]) -> Output {
    common::sab(Path::new("."), "conformance").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A case whose parts can be changed.
struct File {
    settings: HashMap<String, String>,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl File {
    fn shipped(name: &str) -> Self {
        let bytes = fs::read(shipped().join(name).with_extension("safetensors")).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        Self {
            settings: header.metadata().clone().unwrap(),
            tensors: tensors
                .iter()
                .map(|(name, view)| {
                    let parts = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
                    (name.to_owned(), parts)
                })
                .collect(),
        }
    }

    fn set(mut self, setting: &str, value: &str) -> Self {
        self.settings.insert(setting.to_owned(), value.to_owned());
        self
    }

    /// A tensor of zeros in this shape, in the place of what was there.
    fn zeros(mut self, name: &str, shape: &[usize]) -> Self {
        let bytes = vec![0; 8 * shape.iter().product::<usize>()];
        self.tensors.insert(name.to_owned(), (Dtype::F64, shape.to_vec(), bytes));
        self
    }

    fn first_value(mut self, name: &str, value: f64) -> Self {
        let (_, _, bytes) = self.tensors.get_mut(name).unwrap();
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        self
    }

    fn without_tensor(mut self, name: &str) -> Self {
        self.tensors.remove(name).unwrap();
        self
    }

    fn without_setting(mut self, name: &str) -> Self {
        self.settings.remove(name).unwrap();
        self
    }

    fn in_single_precision(mut self, name: &str) -> Self {
        let (dtype, _, bytes) = self.tensors.get_mut(name).unwrap();
        *dtype = Dtype::F32;
        bytes.truncate(bytes.len() / 2);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let settings = (!self.settings.is_empty()).then(|| self.settings.clone());
        serialize(views, settings).unwrap()
    }
}

/// What is said about each of the files, beside a good one. Whatever is wrong with them, the run goes on, and
/// the mistake is not sab's.
fn verdicts(files: &[Vec<u8>]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).with_extension("safetensors");
    for (at, file) in files.iter().enumerate() {
        fs::write(path(&format!("bad-{at:04}")), file).unwrap();
    }
    fs::write(path("good"), File::shipped("dot-softmax").bytes()).unwrap();
    let output = conformance(&[folder.path().to_str().unwrap(), "--dtype", "f64"]);
    let (told, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), errors.as_str()), (Some(1), ""), "{told}");
    assert!(!told.contains("mistake of sab"), "{told}");
    let mut lines: Vec<String> = told.lines().map(str::to_owned).collect();
    assert_eq!(lines.pop(), Some(format!("1 passed, {} failed", files.len())), "{told}");
    let good = lines.pop().unwrap();
    assert!(good.starts_with("good ") && good.ends_with("ok"), "{told}");
    assert_eq!(lines.len(), files.len(), "{told}");
    for (at, line) in lines.iter().enumerate() {
        let name = format!("bad-{at:04}  ");
        assert!(line.starts_with(&name) && line.ends_with("  FAILED"), "{line}");
    }
    lines
}

/// Each file is malformed, and the line about it names it and says why.
fn assert_are_malformed(files: &[(Vec<u8>, String)]) {
    let bytes: Vec<Vec<u8>> = files.iter().map(|(bytes, _)| bytes.clone()).collect();
    for (at, (told, (_, why))) in verdicts(&bytes).iter().zip(files).enumerate() {
        let named = format!("bad-{at:04}.safetensors is not a valid case: ");
        assert!(told.contains(&named) && told.contains(why), "{why:?} is missing in: {told}");
    }
}

fn assert_is_malformed(bytes: &[u8], why: &str) {
    assert_are_malformed(&[(bytes.to_vec(), why.to_owned())]);
}

#[rstest]
fn the_shipped_cases_pass(
    #[values("flex", "ndarray")] backend: &str,
    #[values("f64", "f32")] dtype: &str,
    #[values("auto", "fused", "primitives", "reference")] strategy: &str,
) {
    if (backend == "flex" && cfg!(not(feature = "flex")))
        || (backend == "ndarray" && cfg!(not(feature = "ndarray")))
    {
        return;
    }
    let output = conformance(&["--backend", backend, "--dtype", dtype, "--strategy", strategy]);
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}{}", text(&output.stderr));
    let count = fs::read_dir(shipped()).unwrap().count();
    assert_eq!(told.lines().filter(|line| line.ends_with("  ok")).count(), count, "{told}");
    assert_eq!(told.lines().last(), Some(format!("{count} passed, 0 failed").as_str()));
}

#[test]
fn a_folder_of_cases_is_checked_instead() {
    let output = conformance(&[shipped().to_str().unwrap()]);
    assert_eq!(output.stdout, conformance(&[]).stdout);
    assert!(output.status.success());
}

#[rstest]
#[case("missing", "missing")]
#[case(".", "there is no case")]
fn a_folder_without_cases_is_one_line(#[case] path: &str, #[case] named: &str) {
    let folder = tempfile::tempdir().unwrap();
    let output = conformance(&[folder.path().join(path).to_str().unwrap()]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(named) && told.trim_end().lines().count() == 1, "{told}");
}

/// The control: the file is as it should be, and its values are not the layer's.
#[rstest]
#[case("out.h")]
#[case("out.slots")]
#[case("out.weights")]
#[case("grad.w.hh")]
#[case("grad.score.key")]
fn a_wrong_value_fails_by_its_error(#[case] name: &str) {
    let told = verdicts(&[File::shipped("dot-softmax").first_value(name, 30.0).bytes()]).remove(0);
    assert!(told.contains("outputs ") && !told.contains("not a valid case"), "{told}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("bad.safetensors")).unwrap();
    let output = conformance(&[folder.path().to_str().unwrap()]);
    let told = text(&output.stdout);
    assert!(told.contains("cannot read") && told.contains("bad.safetensors"), "{told}");
    assert_eq!(told.lines().last(), Some("0 passed, 1 failed"));
}

#[test]
fn a_cut_off_file_is_malformed() {
    let bytes = File::shipped("dot-softmax").bytes();
    let lengths = [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1];
    let why = "not a whole SafeTensors file".to_owned();
    assert_are_malformed(&lengths.map(|length| (bytes[..length].to_vec(), why.clone())));
}

#[rstest]
#[case::text(b"k_top: 3, and no SafeTensors".to_vec())]
#[case::endless_header(vec![0xff; 64])]
#[case::no_json([&8u64.to_le_bytes()[..], b"{\"in.x\" "].concat())]
#[case::something_behind([File::shipped("dot-softmax").bytes(), vec![0; 8]].concat())]
fn another_kind_of_file_is_malformed(#[case] bytes: Vec<u8>) {
    assert_is_malformed(&bytes, "not a whole SafeTensors file");
}

#[test]
fn a_header_that_promises_too_much_is_malformed() {
    let header = br#"{"__metadata__":{"k_top":"1"},"in.x":{"dtype":"F64","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    assert_is_malformed(&[&length[..], header].concat(), "overflow");
}

#[rstest]
#[case("k_top", "0")]
#[case("k_top", "-1")]
#[case("k_top", "2.0")]
#[case("k_top", "")]
#[case("k_top", "1000000001")]
#[case("k_top", "18446744073709551615")]
#[case("k_top", "18446744073709551616")]
#[case("k_att", "0")]
#[case("k_att", "none")]
#[case("k_trunc", "0")]
#[case("k_trunc", "18446744073709551615")]
#[case("truncation_offset", "-1")]
#[case("truncation_offset", "18446744073709551615")]
#[case("max_hops", "many")]
#[case("max_hops", "18446744073709551615")]
#[case("score", "cosine")]
#[case("score", "Dot")]
#[case("sparsifier", "entmax")]
#[case("initial_slot", "zeros")]
#[case("summary_scale", "-0.5")]
#[case("summary_scale", "NaN")]
#[case("summary_scale", "1e999")]
#[case("summary_scale", "all")]
#[case("learned_gain", "True")]
#[case("detach_scores", "1")]
fn a_setting_out_of_range_is_malformed(#[case] name: &str, #[case] value: &str) {
    let bytes = File::shipped("dot-softmax").set(name, value).bytes();
    assert_is_malformed(&bytes, &format!("setting {name} is {value:?}"));
}

#[test]
fn settings_are_known_and_complete() {
    let file = || File::shipped("additive-released");
    let names = [
        "k_top",
        "k_att",
        "k_trunc",
        "truncation_offset",
        "score",
        "sparsifier",
        "initial_slot",
        "max_hops",
    ];
    let without = |name| (file().without_setting(name).bytes(), format!("no setting {name}"));
    assert_are_malformed(&names.map(without));
    assert_is_malformed(&file().set("k_topp", "3").bytes(), "unknown setting \"k_topp\"");
    let mut bare = file();
    bare.settings.clear();
    assert_is_malformed(&bare.bytes(), "it has no metadata");
    // A score that the tensors were not made for.
    assert_is_malformed(&file().set("score", "dot").bytes(), "no tensor score.query");
    assert_is_malformed(&File::shipped("dot-softmax").set("score", "mlp").bytes(), "tensor");
    let learned = File::shipped("dot-softmax").set("learned_gain", "true");
    // Whichever of the parameter and its gradient is looked for first.
    assert_is_malformed(&learned.bytes(), "summary_gain");
    let fixed = File::shipped("learned-gain").set("learned_gain", "false");
    assert_is_malformed(&fixed.bytes(), "unknown tensor");
}

#[test]
fn what_says_nothing_about_the_case_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.safetensors");
    // Without a summary_scale it is 1.
    let file = File::shipped("dot-threshold").without_setting("summary_scale").set("format", "pt");
    fs::write(&path, file.bytes()).unwrap();
    let output = conformance(&[folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stdout));
    let file = File::shipped("dot-softmax").without_setting("summary_scale");
    fs::write(&path, file.bytes()).unwrap();
    let output = conformance(&[folder.path().to_str().unwrap()]);
    assert!(!output.status.success(), "the scale of this case is not 1");
}

#[test]
fn limits_of_settings_are_no_mistake() {
    let folder = tempfile::tempdir().unwrap();
    // More than there are slots, steps and reminders, whatever the number.
    let file = File::shipped("full-attention")
        .set("k_top", "1000000000")
        .set("k_trunc", "1000000000")
        .set("max_hops", "1000000000");
    fs::write(folder.path().join("case.safetensors"), file.bytes()).unwrap();
    for strategy in ["fused", "primitives", "reference"] {
        let output = conformance(&[folder.path().to_str().unwrap(), "--strategy", strategy]);
        assert!(output.status.success(), "{strategy}: {}", text(&output.stdout));
    }
}

/// A case of every score, and one with learned factors on the summary.
const SCORES: [&str; 4] = ["additive-threshold", "mlp-softmax", "dot-softmax", "learned-gain"];

#[test]
fn every_tensor_is_there_in_double_precision_and_finite() {
    let mut files = Vec::new();
    for case in SCORES {
        for name in File::shipped(case).tensors.into_keys() {
            let file = || File::shipped(case);
            files.push((file().without_tensor(&name).bytes(), format!("no tensor {name}")));
            let single = file().in_single_precision(&name).bytes();
            files.push((single, format!("tensor {name:?} is F32")));
            for value in [f64::NAN, f64::INFINITY] {
                let told = format!("tensor {name:?} has a value that is not finite");
                files.push((file().first_value(&name, value).bytes(), told));
            }
        }
    }
    assert_are_malformed(&files);
    let more = File::shipped("dot-softmax").zeros("in.slots", &[1]).bytes();
    assert_is_malformed(&more, "unknown tensor \"in.slots\"");
}

/// Any tensor in any other shape: one side more or less, longer, empty, transposed.
#[test]
fn a_shape_that_does_not_fit_is_malformed() {
    let mut files = Vec::new();
    for case in SCORES {
        for (name, (_, shape, _)) in File::shipped(case).tensors {
            let mut others = vec![vec![], [&shape[..], &[1]].concat(), shape[1..].to_vec()];
            for side in 0..shape.len() {
                for other in [0, shape[side] + 1, shape[side] * 2] {
                    let mut changed = shape.clone();
                    changed[side] = other;
                    others.push(changed);
                }
            }
            others.push(shape.iter().rev().copied().collect());
            others.retain(|other| *other != shape);
            let file = |other: &Vec<usize>| File::shipped(case).zeros(&name, other).bytes();
            files.extend(others.iter().map(|other| (file(other), "has shape".to_owned())));
        }
    }
    assert!(files.len() > 500);
    assert_are_malformed(&files);
    // No value, and a side that overflows.
    let endless = File::shipped("dot-softmax").zeros("w.hh", &[0, 1 << 62]).bytes();
    assert_is_malformed(&endless, "tensor w.hh has shape");
}
