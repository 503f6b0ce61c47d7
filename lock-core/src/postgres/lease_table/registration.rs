//! The lease table, as configuration chooses it.

use super::backend::LeaseTable;
use crate::LockError;
use crate::backend::erase;
use crate::postgres::mark::Mark;
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
    let builder = LeaseTable::builder(settings.get_database_url().unwrap_or_default())
        .namespace(namespace)
        .instance(settings.get_instance())
        .mark(Mark::new(namespace, kind, settings.may_switch()));
    let connected = builder.connect().await;
    connected.map_err(|error| error.in_setting(settings.place("DATABASE_URL")))
}
