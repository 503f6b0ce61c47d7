//! Redis, as configuration chooses it.

use super::RedisBackend;
use super::companion::RedisCompanion;
use super::settings::check_lease;
use crate::LockError;
use crate::backend::erase;
use crate::health::Companion;
use crate::registration::{Registration, not_understood};
use crate::settings::{LockSettings, ProviderKind};

const VARIABLE: &str = "REDIS_URL";

pub(crate) const REGISTRATION: Registration = Registration {
    kind: ProviderKind::Redis,
    connect: |settings| Box::pin(async move { Ok(erase(connect(settings).await?)) }),
    companion: Some(|settings, _| Box::pin(async move { Ok(companion(settings)) })),
};

async fn connect(settings: &LockSettings) -> Result<RedisBackend, LockError> {
    let mut builder = RedisBackend::builder(settings.get_redis_url().unwrap_or_default())
        .namespace(settings.get_namespace())
        .instance(settings.get_instance());
    if let Some(lease) = settings.get_lease(check_lease)? {
        builder = builder.lease(lease);
    }
    let connected = builder.connect().await;
    connected.map_err(|error| error.in_setting(settings.place(VARIABLE)))
}

fn companion(settings: &LockSettings) -> Option<Box<dyn Companion>> {
    match RedisCompanion::new(settings.get_redis_url()?) {
        Ok(redis) => Some(Box::new(redis)),
        Err(error) => {
            not_understood(&error, VARIABLE);
            None
        }
    }
}
