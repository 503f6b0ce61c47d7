//! The lease table, as configuration chooses it.

use super::backend::LeaseTable;
use super::setup::Setup;
use crate::LockError;
use crate::backend::erase;
use crate::postgres::mark::Mark;
use crate::postgres::terms::Terms;
use crate::registration::Registration;
use crate::settings::{LockSettings, ProviderKind};

pub(crate) const REGISTRATION: Registration = Registration {
    kind: ProviderKind::PostgresTable,
    connect: |settings| Box::pin(async move { Ok(erase(connect(settings).await?)) }),
    // The database is that of the provider `postgres`, which watches it.
    companion: None,
};

async fn connect(settings: &LockSettings) -> Result<LeaseTable, LockError> {
    let (namespace, kind) = (settings.get_namespace(), ProviderKind::PostgresTable);
    let mut builder = LeaseTable::builder(settings.get_database_url().unwrap_or_default())
        .namespace(namespace)
        .instance(settings.get_instance())
        .mark(Mark::new(namespace, kind, settings.may_switch()));
    if let Some(lease) = settings.get_lease(Terms::new)? {
        builder = builder.lease(lease);
    }
    if let Some(table) = settings.get_table(|table| Setup::new(table, true))? {
        builder = builder.table(table);
    }
    let connected = builder.connect().await;
    connected.map_err(|error| error.in_setting(settings.place("DATABASE_URL")))
}
