//! The authorities that the environment names, for builds whose driver has its own built in and does not look.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use crate::LockError;

const FILE: &str = "SSL_CERT_FILE";
const DIRECTORIES: &str = "SSL_CERT_DIR";

/// What a certificate in PEM begins with.
pub(crate) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// Certificates in PEM: of the file that `SSL_CERT_FILE` names, and of all files in the directories of
/// `SSL_CERT_DIR`, which are separated as in `PATH`. `None` where neither is set.
///
/// # Errors
///
/// [`Misconfigured`](crate::LockErrorKind::Misconfigured) by the name of the variable, where a file or a
/// directory cannot be read, or has no certificate.
pub(crate) fn of_environment() -> Result<Option<Vec<u8>>, LockError> {
    of(env::var_os(FILE), env::var_os(DIRECTORIES))
}

/// Whether `SSL_CERT_DIR` is set.
#[cfg(feature = "postgres")]
pub(crate) fn has_directories() -> bool {
    env::var_os(DIRECTORIES).is_some_and(|directories| !directories.is_empty())
}

fn of(file: Option<OsString>, directories: Option<OsString>) -> Result<Option<Vec<u8>>, LockError> {
    let set = |value: Option<OsString>| value.filter(|value| !value.is_empty());
    let (file, directories) = (set(file), set(directories));
    if file.is_none() && directories.is_none() {
        return Ok(None);
    }
    let mut found = Vec::new();
    if let Some(file) = file {
        let text = fs::read(file).map_err(|error| unreadable(FILE, error))?;
        add(&mut found, text, FILE)?;
    }
    if let Some(directories) = directories {
        let mut texts = Vec::new();
        let directories = env::split_paths(&directories);
        for directory in directories.filter(|directory| !directory.as_os_str().is_empty()) {
            let all = certificates(&directory).map_err(|error| unreadable(DIRECTORIES, error))?;
            texts.extend(all);
        }
        add(&mut found, texts, DIRECTORIES)?;
    }
    Ok(Some(found))
}

/// What the files of a directory have. Files that cannot be read are passed over, as OpenSSL does.
fn certificates(directory: &Path) -> io::Result<Vec<u8>> {
    let mut paths: Vec<PathBuf> = (fs::read_dir(directory)?)
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort_unstable();
    let mut found = Vec::new();
    for path in paths.into_iter().filter(|path| path.is_file()) {
        if let Ok(text) = fs::read(path)
            && has_certificate(&text)
            // Most directories have each under two names.
            && !has(&found, &text)
        {
            found.extend(text);
            found.push(b'\n');
        }
    }
    Ok(found)
}

fn add(found: &mut Vec<u8>, text: Vec<u8>, variable: &str) -> Result<(), LockError> {
    if !has_certificate(&text) {
        return Err(LockError::misconfigured(format!(
            "what the variable {variable} names has no certificate in PEM"
        )));
    }
    found.extend(text);
    found.push(b'\n');
    Ok(())
}

fn unreadable(variable: &str, error: io::Error) -> LockError {
    LockError::misconfigured(format!(
        "what the variable {variable} names, with the authorities that TLS trusts, cannot be read"
    ))
    .with_source(error)
}

fn has_certificate(text: &[u8]) -> bool {
    has(text, CERTIFICATE.as_bytes())
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|bytes| bytes == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str) -> String {
        format!("{CERTIFICATE}\n{name}\n-----END CERTIFICATE-----")
    }

    #[test]
    fn what_both_variables_name_is_trusted_each_once() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = one.path().join("file.pem");
        fs::write(&file, certificate("file")).unwrap();
        fs::write(two.path().join("a.pem"), certificate("a")).unwrap();
        fs::write(two.path().join("0a1b2c3d.0"), certificate("a")).unwrap();
        fs::write(two.path().join("b.crt"), certificate("b")).unwrap();
        fs::write(two.path().join("README"), "none").unwrap();
        fs::create_dir(two.path().join("private")).unwrap();
        let directories = env::join_paths([two.path(), Path::new("")]).unwrap();
        let found = of(Some(file.into()), Some(directories)).unwrap().unwrap();
        let found = String::from_utf8(found).unwrap();
        for name in ["file", "a", "b"] {
            assert_eq!(found.matches(&certificate(name)).count(), 1, "{found}");
        }
        assert!(!found.contains("none"));
        for unset in [None, Some(OsString::new())] {
            assert_eq!(of(unset.clone(), unset).unwrap(), None);
        }
    }

    #[test]
    fn what_has_no_certificate_is_told_by_its_variable() {
        let empty = tempfile::tempdir().unwrap();
        let gone = empty.path().join("gone").into_os_string();
        let path = || Some(empty.path().as_os_str().to_owned());
        for (file, directories, says) in [
            (Some(gone.clone()), None, "SSL_CERT_FILE names, with"),
            (path(), None, "SSL_CERT_FILE names, with"),
            (None, Some(gone), "SSL_CERT_DIR names, with"),
            (None, path(), "SSL_CERT_DIR names has no certificate"),
        ] {
            let error = of(file, directories).unwrap_err();
            assert!(error.is_misconfigured(), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
