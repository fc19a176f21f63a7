//! Reading data files, as they are or packed with gzip.

use std::fs;
use std::path::{Path, PathBuf};

use zune_inflate::{DeflateDecoder, DeflateOptions};

use super::DataError;

/// A packed file may not have more than this, 1 GiB, unpacked: ten times text8, the largest of the data sets.
const MOST_BYTES: usize = 1 << 30;

/// A file's contents, and where they were found.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// Reads `folder/name`, or else `folder/name.gz`, unpacked; `None` if there is neither.
pub(super) fn read_if_there(folder: &Path, name: &str) -> Result<Option<Contents>, DataError> {
    for name in [name.to_owned(), format!("{name}.gz")] {
        let path = folder.join(name);
        if path.is_file() {
            return read(&path).map(Some);
        }
    }
    Ok(None)
}

/// Reads a file; what begins as gzip does is unpacked, which verifies gzip's own checksum.
pub(super) fn read(path: &Path) -> Result<Contents, DataError> {
    let bytes = fs::read(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    unpacked(path, bytes)
}

/// The contents of a file of these bytes.
pub(super) fn unpacked(path: &Path, mut bytes: Vec<u8>) -> Result<Contents, DataError> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let options = DeflateOptions::default().set_limit(MOST_BYTES).set_confirm_checksum(true);
        let unpacked = DeflateDecoder::new_with_options(&bytes, options).decode_gzip();
        bytes = unpacked.map_err(|error| DataError::Wrong {
            path: path.to_owned(),
            what: format!("it cannot be unpacked ({:?}): it is damaged", error.error),
        })?;
    }
    Ok(Contents { path: path.to_owned(), bytes })
}

impl Contents {
    /// That something about the contents is not as it should be.
    pub(super) fn wrong(&self, what: impl Into<String>) -> DataError {
        DataError::Wrong { path: self.path.clone(), what: what.into() }
    }

    /// Whether the contents have this MD5 checksum, in hexadecimal.
    pub(super) fn has_checksum(&self, md5: &str) -> bool {
        format!("{:x}", md5::compute(&self.bytes)) == md5
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::made;

    #[test]
    fn packed_and_plain_files_read_the_same() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plain"), b"some bytes").unwrap();
        let packed = made::gzip(b"some bytes");
        fs::write(folder.path().join("packed.gz"), &packed).unwrap();
        for name in ["plain", "packed"] {
            let contents = read_if_there(folder.path(), name).unwrap().unwrap();
            assert_eq!(contents.bytes, b"some bytes");
            assert!(contents.has_checksum("9d0568469d206c1aedf1b71f12f474bc"));
            assert!(!contents.has_checksum(""));
        }
        assert!(read_if_there(folder.path(), "absent").unwrap().is_none());
        let mut other = packed.clone();
        other[17] ^= 1;
        for (name, bytes) in [("cut", &packed[..packed.len() - 12]), ("changed", &other[..])] {
            fs::write(folder.path().join(format!("{name}.gz")), bytes).unwrap();
            let error = read_if_there(folder.path(), name).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("damaged"), "{error}");
        }
    }
}
