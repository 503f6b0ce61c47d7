//! Files, as configuration chooses them.

use super::FileBackend;
use crate::LockError;
use crate::backend::erase;
use crate::name::secret_fingerprint;
use crate::registration::Registration;
use crate::settings::{LockSettings, ProviderKind};

pub(crate) const REGISTRATION: Registration = Registration {
    kind: ProviderKind::File,
    connect: |settings| Box::pin(async move { Ok(erase(open(settings)?)) }),
    companion: None,
};

fn open(settings: &LockSettings) -> Result<FileBackend, LockError> {
    let dir = settings.get_dir();
    let builder = match dir {
        Some(dir) => FileBackend::builder(dir),
        None => FileBackend::builder(FileBackend::default_dir()),
    };
    let opened = (builder.namespace(settings.get_namespace()))
        .instance(settings.get_instance())
        .open();
    let backend = opened.map_err(|error| {
        error.in_setting(match dir {
            Some(_) => settings.place("LOCK_DIR"),
            None => "LOCK_DIR is not set",
        })
    })?;
    // A warning: instances on other machines, or with another directory, are not excluded.
    tracing::warn!(
        namespace = settings.get_namespace(),
        name_secret = secret_fingerprint(),
        "Distributed locks: file locks in {} (embedded, this machine only)",
        backend.directory().display()
    );
    Ok(backend)
}
