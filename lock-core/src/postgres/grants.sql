-- Database. NOTIFY and LISTEN need no right.
GRANT CONNECT ON DATABASE shop TO app;

-- Locks, tokens, health.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_try_advisory_lock(bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_advisory_unlock(bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_try_advisory_lock_shared(bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_try_advisory_lock_shared(integer, integer) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_advisory_unlock_shared(bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.current_setting(text) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.current_setting(text, boolean) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO app;
GRANT SELECT ON pg_catalog.pg_settings TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_show_all_settings() TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_is_in_recovery() TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_postmaster_start_time() TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.current_database() TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_logical_emit_message(boolean, text, text) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_walfile_name(pg_lsn) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_current_wal_lsn() TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_current_xact_id() TO app;
-- of types and operators, only where every function was taken from PUBLIC:
GRANT EXECUTE ON FUNCTION pg_catalog.unnest(anyarray) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.string_agg(text, text) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.to_hex(bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.substr(text, integer, integer) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.textcat(text, text) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.texteq(text, text) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.hashtext(text) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int2(integer) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int8(integer) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int8(bit) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int24eq(smallint, integer) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog."bit"(bit, integer, boolean) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog."extract"(text, timestamptz) TO app;

-- Recovery, as the role that logs in: without these a lost or frozen session keeps its locks for a lease.
GRANT SELECT ON pg_catalog.pg_locks TO app;
GRANT SELECT ON pg_catalog.pg_stat_activity TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_lock_status() TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_get_activity(integer) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_backend_pid() TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_terminate_backend(integer, bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.clock_timestamp() TO app;
-- of types and operators, only where every function was taken from PUBLIC:
GRANT EXECUTE ON FUNCTION pg_catalog.count("any") TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int4eq(integer, integer) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int4ne(integer, integer) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int8or(bigint, bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int8shl(bigint, integer) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int8(oid) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int84eq(bigint, integer) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int8eq(bigint, bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.nameeq(name, name) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.oideq(oid, oid) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.textne(text, text) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.timestamptz_lt(timestamptz, timestamptz) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.timestamptz_mi_interval(timestamptz, interval) TO app;

-- Fleet marker, of a provider that knows a database and Redis, or files: beside those of locks.
GRANT SELECT ON pg_catalog.pg_locks TO app;
GRANT SELECT ON pg_catalog.pg_class TO app;
GRANT SELECT ON pg_catalog.pg_namespace TO app;
GRANT SELECT ON pg_catalog.pg_description TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.starts_with(text, text) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.clock_timestamp() TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_lock_status() TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_backend_pid() TO app;
-- of types and operators, only where every function was taken from PUBLIC:
GRANT EXECUTE ON FUNCTION pg_catalog.int4(bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int4eq(integer, integer) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int8or(bigint, bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int8shl(bigint, integer) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int8(oid) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.int8eq(bigint, bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.nameeq(name, name) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.oideq(oid, oid) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.timestamptz_gt(timestamptz, timestamptz) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.uuid_ge(uuid, uuid) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.uuid_le(uuid, uuid) TO app;

-- lock_in_transaction, for the role of the transaction.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_try_advisory_xact_lock(bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_advisory_xact_lock(bigint) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_postmaster_start_time() TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.current_database() TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.current_setting(text) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_is_in_recovery() TO app;
-- of types and operators, only where every function was taken from PUBLIC:
GRANT EXECUTE ON FUNCTION pg_catalog."extract"(text, timestamptz) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.textne(text, text) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.namene(name, name) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.numeric_ne(numeric, numeric) TO app;

-- Fence, for the role of the transaction.
GRANT USAGE ON SCHEMA billing TO app;
GRANT SELECT, INSERT, UPDATE ON billing.distributed_lock_fences TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.now() TO app;
-- of types and operators, only where every function was taken from PUBLIC:
GRANT EXECUTE ON FUNCTION pg_catalog.int8le(bigint, bigint) TO app;

-- Lease table, for a role that does not own it.
GRANT USAGE ON SCHEMA locks TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON locks.distributed_lock_leases TO app;
-- only where these were taken from PUBLIC:
GRANT EXECUTE ON FUNCTION pg_catalog.pg_walfile_name(pg_lsn) TO app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_current_wal_lsn() TO app;
