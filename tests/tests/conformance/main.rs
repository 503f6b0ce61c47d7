//! One suite for every backend; see `lock_tests::cases`.

mod inventory;

lock_tests::conformance! {
    memory: lock_tests::MemoryStore,
    file: lock_tests::FileStore,
    file_polling: lock_tests::PollingFileStore,
    postgres: lock_tests::PostgresStore,
    postgres_granted: lock_tests::GrantedStore,
    lease_table: lock_tests::LeaseTableStore,
    lease_table_direct: lock_tests::DirectLeaseTableStore,
    redis: lock_tests::RedisStore,
    redis_cluster: lock_tests::RedisClusterStore,
    redis_sentinel: lock_tests::RedisSentinelStore,
}
