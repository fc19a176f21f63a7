//! JSON files that end with a checksum of themselves, so that damage is noticed when they are read again.
//!
//! The last key of such a file is `"checksum"`: the CRC-32 of the file without that key. The file and its checksum are
//! written in one piece. Files of earlier versions have none, and are read as they are.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::usage;

const KEY: &str = "checksum";

/// Whether a file is as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// The checksum is right.
    Intact,
    /// There is no checksum.
    Absent,
    /// The checksum is that of another file.
    Broken,
}

/// Writes `value`, an object, as JSON with a checksum.
pub fn to_text(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(seal(&serde_json::to_string_pretty(value)?))
}

/// The end of a sealed file, after the last value.
fn end(body: &str) -> String {
    format!(",\n  \"{KEY}\": \"crc32:{:08x}\"\n}}", crc32fast::hash(body.as_bytes()))
}

fn seal(body: &str) -> String {
    format!("{}{}", body.strip_suffix("\n}").unwrap_or(body), end(body))
}

/// Parses JSON with or without a checksum. The value has the keys of the file, the checksum excepted.
pub fn parse(text: &str) -> serde_json::Result<(Value, Seal)> {
    let mut value: Value = serde_json::from_str(text)?;
    let found = value.as_object_mut().and_then(|object| object.remove(KEY));
    let seal = match found {
        None => Seal::Absent,
        Some(_) => {
            let without = text.len().checked_sub(end("").len()).and_then(|end| text.get(..end));
            match without.is_some_and(|body| seal(&format!("{body}\n}}")) == text) {
                true => Seal::Intact,
                false => Seal::Broken,
            }
        }
    };
    Ok((value, seal))
}

/// Reads a file that [`to_text`] wrote.
///
/// # Errors
///
/// If the file is not as it was written; the error ends with `remedy`.
pub fn read<T: Serialize + DeserializeOwned>(path: &Path, remedy: &str) -> anyhow::Result<T> {
    let wrong = |what: &dyn std::fmt::Display| usage!("{}: {what}; {remedy}", path.display());
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let (given, seal) = parse(&text).map_err(|error| wrong(&error))?;
    if seal == Seal::Broken {
        return Err(wrong(&"damaged or changed since it was written, its checksum is wrong"));
    }
    let value: T = serde_json::from_value(given.clone()).map_err(|error| wrong(&error))?;
    // A checksum whose key is damaged.
    if let (Seal::Absent, Value::Object(given), Ok(Value::Object(known))) =
        (seal, &given, serde_json::to_value(&value))
        && let Some(key) = given.keys().find(|key| !known.contains_key(*key))
    {
        return Err(wrong(&format!("damaged, no file of a run has the key \"{key}\"")));
    }
    Ok(value)
}

/// The first key of `given` that is not in `known`, with those around it that are: ("train.layer.k_topp", "k_top, …").
pub fn unknown_key(given: &Value, known: &Value) -> Option<(String, String)> {
    let (Value::Object(given), Value::Object(known)) = (given, known) else { return None };
    given.iter().find_map(|(key, value)| match known.get(key) {
        None => {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            Some((key.clone(), names.join(", ")))
        }
        Some(there) => {
            unknown_key(value, there).map(|(path, names)| (format!("{key}.{path}"), names))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Example {
        name: String,
        sizes: Vec<usize>,
        #[serde(default)]
        later: Option<usize>,
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("example.json");
        let example = Example { name: "näme".to_owned(), sizes: vec![1, 20], later: None };
        let text = to_text(&example).unwrap();
        fs::write(&path, &text).unwrap();
        assert_eq!(read::<Example>(&path, "").unwrap(), example);
        for bit in 0..8 * text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, damaged).unwrap();
            let told = read::<Example>(&path, "remedy").unwrap_err().to_string();
            assert!(told.contains("example.json") && told.ends_with("; remedy"), "{bit}: {told}");
        }
        fs::write(&path, r#"{"name": "old", "sizes": []}"#).unwrap();
        assert_eq!(read::<Example>(&path, "").unwrap().name, "old");
    }

    #[test]
    fn an_unknown_key_is_found_at_any_depth() {
        let known = json!({"a": {"b": {"c": 1, "d": null}}, "e": [1]});
        assert_eq!(unknown_key(&json!({"a": {"b": {"d": 3}}, "e": [2]}), &known), None);
        let (path, names) = unknown_key(&json!({"a": {"b": {"x": 3}}}), &known).unwrap();
        assert_eq!((path.as_str(), names.as_str()), ("a.b.x", "c, d"));
    }
}
