//! PostgreSQL, as configuration chooses it.

use super::PostgresBackend;
use super::companion::DatabaseCompanion;
use super::mark::{Mark, unmarked};
use super::terms::Terms;
use super::url::parse;
use super::url_forms::other_engine;
use crate::LockError;
use crate::backend::erase;
use crate::health::Companion;
use crate::registration::{Registration, not_understood};
use crate::settings::{LockSettings, ProviderKind};

const VARIABLE: &str = "DATABASE_URL";

pub(crate) const REGISTRATION: Registration = Registration {
    kind: ProviderKind::Postgres,
    connect: |settings| Box::pin(async move { Ok(erase(connect(settings).await?)) }),
    companion: Some(|settings, kind| Box::pin(companion(settings, kind))),
};

async fn connect(settings: &LockSettings) -> Result<PostgresBackend, LockError> {
    let url = settings.get_database_url().unwrap_or_default();
    let mut builder = PostgresBackend::builder(url)
        .namespace(settings.get_namespace())
        .instance(settings.get_instance())
        .mark(mark(settings, ProviderKind::Postgres));
    if let Some(lease) = settings.get_lease(Terms::new)? {
        builder = builder.lease(lease);
    }
    let connected = builder.connect().await;
    connected.map_err(|error| error.in_setting(settings.place(VARIABLE)))
}

/// Also where fleets are told apart: `kind` holds the locks.
async fn companion(
    settings: &LockSettings,
    kind: ProviderKind,
) -> Result<Option<Box<dyn Companion>>, LockError> {
    let Some(url) = settings.get_database_url() else {
        return Ok(None);
    };
    let options = match parse(url) {
        Ok(options) => options,
        // No instance has its locks there.
        Err(error) if settings.goes_unmarked() || other_engine(url).is_some() => {
            not_understood(&error, VARIABLE);
            return Ok(None);
        }
        Err(error) => return Err(unmarked(error).in_setting(VARIABLE)),
    };
    let mark = mark(settings, kind);
    let opened = DatabaseCompanion::open(options, mark, !settings.goes_unmarked()).await;
    let opened = opened.map_err(|error| error.in_setting(VARIABLE))?;
    Ok(Some(Box::new(opened)))
}

fn mark(settings: &LockSettings, kind: ProviderKind) -> Mark {
    Mark::new(settings.get_namespace(), kind, settings.may_switch())
}
