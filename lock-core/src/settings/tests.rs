use super::*;

fn from_vars(vars: &[(&str, &str)]) -> Result<LockSettings, LockError> {
    LockSettings::from_vars(|name| {
        let var = vars.iter().find(|(other, _)| *other == name);
        var.map(|(_, value)| value.into())
    })
}

fn chosen(vars: &[(&str, &str)]) -> Result<ProviderKind, String> {
    let settings = from_vars(vars).map_err(|error| error.to_string())?;
    settings.choose().map_err(|error| error.to_string())
}

const DATABASE: (&str, &str) = ("DATABASE_URL", "postgres://app:hunter2@db/shop");
const REDIS: (&str, &str) = ("REDIS_URL", "cache:6379,password=hunter2");

#[cfg(all(feature = "redis", feature = "postgres", feature = "file"))]
#[test]
fn redis_comes_before_postgres_and_postgres_before_files() {
    assert_eq!(chosen(&[REDIS, DATABASE]), Ok(ProviderKind::Redis));
    assert_eq!(chosen(&[REDIS]), Ok(ProviderKind::Redis));
    assert_eq!(chosen(&[DATABASE]), Ok(ProviderKind::Postgres));
    assert_eq!(chosen(&[]), Ok(ProviderKind::File));
    // Never by itself: a fleet that locks by sessions and rows at a time excludes no one.
    let table = ("LOCK_PROVIDER", "postgres-table");
    assert_eq!(
        chosen(&[REDIS, DATABASE, table]),
        Ok(ProviderKind::PostgresTable)
    );
}

#[cfg(all(feature = "postgres", feature = "file"))]
#[test]
fn an_empty_variable_counts_as_absent() {
    let empty = [
        ("REDIS_URL", ""),
        ("LOCK_PROVIDER", ""),
        ("LOCK_DIR", ""),
        ("LOCK_LEASE", ""),
        ("LOCK_TABLE", ""),
        ("LOCK_SWITCH", ""),
        ("LOCK_NAME_SECRET", ""),
    ];
    let settings = from_vars(&empty).unwrap();
    assert_eq!(settings.choose().unwrap(), ProviderKind::File);
    assert!(settings.get_dir().is_none() && settings.get_name_secret().is_none());
    assert!(settings.check_for(ProviderKind::File).is_ok());
    assert!(!settings.may_switch());
    assert_eq!(
        chosen(&[DATABASE, ("REDIS_URL", " ")]),
        Ok(ProviderKind::Postgres)
    );
}

#[cfg(all(feature = "redis", feature = "postgres", feature = "file"))]
#[test]
fn a_provider_that_is_named_is_taken_and_never_replaced_by_another() {
    let named = |name| ("LOCK_PROVIDER", name);
    assert_eq!(
        chosen(&[REDIS, DATABASE, named("postgres")]),
        Ok(ProviderKind::Postgres)
    );
    assert_eq!(
        chosen(&[REDIS, DATABASE, named("file")]),
        Ok(ProviderKind::File)
    );
    for (provider, variable, other) in [
        ("redis", "REDIS_URL", DATABASE),
        ("postgres", "DATABASE_URL", REDIS),
        ("postgres-table", "DATABASE_URL", REDIS),
    ] {
        let error = chosen(&[other, named(provider)]).unwrap_err();
        assert!(
            error.contains(variable) && error.contains("LOCK_PROVIDER"),
            "{error}"
        );
    }
}

#[cfg(not(feature = "redis"))]
#[test]
fn a_server_whose_feature_is_missing_is_told_by_the_name_of_the_feature() {
    let error = chosen(&[REDIS, DATABASE]).unwrap_err();
    assert!(
        error.contains("feature `redis`") && error.contains("REDIS_URL"),
        "{error}"
    );
}

#[cfg(not(feature = "file"))]
#[test]
fn files_whose_feature_is_missing_are_told_by_the_name_of_the_feature() {
    let error = chosen(&[]).unwrap_err();
    assert!(error.contains("feature `file`"), "{error}");
}

#[test]
fn a_wrong_value_is_told_by_the_name_of_its_variable() {
    for variable in ["LOCK_PROVIDER", "LOCK_LEASE", "LOCK_SWITCH", "LOCK_MARKER"] {
        let error = from_vars(&[(variable, "hunter2")]).unwrap_err();
        assert!(error.is_misconfigured());
        let said = format!("{error} {error:?}");
        assert!(
            said.contains(variable) && !said.contains("hunter2"),
            "{said}"
        );
    }
}

/// It would be another directory for each process that was started elsewhere.
#[test]
fn a_directory_begins_at_the_root() {
    let of_code = LockSettings::new().dir("run/locks").check();
    let of_environment = from_vars(&[("LOCK_DIR", "run/locks")]).map(drop);
    for refused in [of_code, of_environment] {
        let error = refused.unwrap_err();
        assert!(error.is_misconfigured());
        assert!(error.to_string().contains("LOCK_DIR: "), "{error}");
    }
    let settings = from_vars(&[("LOCK_DIR", "/run/locks")]).unwrap();
    settings.check().unwrap();
}

#[test]
fn a_lease_is_written_with_its_unit() {
    for (text, millis) in [
        ("30s", 30_000),
        ("500ms", 500),
        ("1m 30s", 90_000),
        ("2h", 7_200_000),
    ] {
        let settings = from_vars(&[("LOCK_LEASE", text)]).unwrap();
        let lease = Duration::from_millis(millis);
        assert_eq!(settings.lease, Some(lease), "{text}");
    }
    for wrong in ["30", "-1s", "30 parsecs", "s", "1e300s"] {
        let error = from_vars(&[("LOCK_LEASE", wrong)]).unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(
            said.contains("LOCK_LEASE: ") && !said.contains("parsecs"),
            "{wrong}: {said}"
        );
    }
}

#[test]
fn a_lease_and_a_table_are_refused_where_the_provider_has_none() {
    let lease = LockSettings::new().lease(Duration::from_secs(2));
    let table = LockSettings::new().table("locks.leases");
    for kind in ProviderKind::ALL {
        let (has_lease, has_table) = (
            kind != ProviderKind::File,
            kind == ProviderKind::PostgresTable,
        );
        for (settings, name, is_taken) in [
            (&lease, "LOCK_LEASE: ", has_lease),
            (&table, "LOCK_TABLE: ", has_table),
        ] {
            let checked = settings.check_for(kind);
            assert_eq!(checked.is_ok(), is_taken, "{name}{kind}");
            if let Err(error) = checked {
                assert!(error.is_misconfigured());
                assert!(error.to_string().contains(name), "{error}");
            }
        }
        assert!(LockSettings::new().check_for(kind).is_ok());
    }
}

#[test]
fn what_no_instance_can_be_called_is_told_by_the_name_of_its_variable() {
    for value in [
        "hunter 2",
        "hünter2",
        "hunter2-hunter2-hunter2-hunter2-hunter2-hunter2",
    ] {
        let error = from_vars(&[("LOCK_INSTANCE", value)]).unwrap_err();
        assert!(error.is_misconfigured());
        let said = format!("{error} {error:?}");
        assert!(
            said.contains("LOCK_INSTANCE: it ") && !said.contains(value),
            "{said}"
        );
    }
}

#[cfg(all(feature = "redis", feature = "postgres", feature = "file"))]
#[test]
fn blanks_at_the_ends_of_a_value_do_not_count_whichever_way_it_came() {
    let plain = [
        ("LOCK_NAMESPACE", "shop"),
        ("LOCK_INSTANCE", "web-1:8080"),
        ("LOCK_NAME_SECRET", "of the fleet"),
        ("LOCK_DIR", "/run/locks"),
        ("LOCK_LEASE", "10s"),
        ("LOCK_TABLE", "locks.leases"),
        ("LOCK_PROVIDER", "redis"),
        ("LOCK_SWITCH", "allow"),
        ("LOCK_MARKER", "optional"),
        DATABASE,
        REDIS,
    ];
    let read = |settings: &LockSettings| {
        (
            settings.choose().unwrap(),
            settings.get_namespace().to_owned() + settings.get_instance(),
            settings.get_dir().map(std::path::Path::to_owned),
            (settings.lease, settings.table.clone()),
            settings.get_name_secret().map(<[u8]>::to_owned),
            settings.get_database_url().map(str::to_owned),
            settings.get_redis_url().map(str::to_owned),
            (settings.may_switch(), settings.goes_unmarked()),
        )
    };
    let expected = read(&from_vars(&plain).unwrap());
    assert_eq!(expected.1, "shopweb-1:8080");
    for (before, after) in [
        ("", "\n"),
        (" ", ""),
        ("\u{feff}", "\r\n"),
        ("\t", "\u{a0}\u{200b}"),
    ] {
        let around = |text: &str| format!("{before}{text}{after}");
        let settings = LockSettings::from_vars(|name| {
            let var = plain.iter().find(|(other, _)| *other == name);
            var.map(|(_, value)| around(value).into())
        });
        assert_eq!(read(&settings.unwrap()), expected);
        let by_hand = LockSettings::new()
            .namespace(around("shop"))
            .instance(around("web-1:8080"))
            .name_secret(around("of the fleet"))
            .dir(around("/run/locks"))
            .lease(Duration::from_secs(10))
            .table(around("locks.leases"))
            .provider(ProviderKind::Redis)
            .allow_switch(true)
            .database_url(around(DATABASE.1))
            .redis_url(around(REDIS.1));
        assert_eq!(read(&by_hand), expected);
        #[cfg(feature = "serde")]
        {
            let table = plain
                .iter()
                .map(|(name, value)| (name.to_lowercase(), serde_json::Value::from(around(value))));
            let table = serde_json::Value::Object(table.collect());
            let settings: LockSettings = serde_json::from_value(table).unwrap();
            assert_eq!(read(&settings), expected);
        }
    }
}

#[test]
fn what_nobody_sees_inside_of_a_value_is_refused_by_the_name_of_the_setting() {
    for name in [
        "DATABASE_URL",
        "REDIS_URL",
        "LOCK_NAMESPACE",
        "LOCK_DIR",
        "LOCK_LEASE",
        "LOCK_TABLE",
        "LOCK_NAME_SECRET",
    ] {
        for inside in ["hun\nter2", "hun\0ter2", "hun\u{200b}ter2", "hun\u{a0}ter2"] {
            let error = from_vars(&[(name, inside)]).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains(name) && !said.contains("ter2"), "{said}");
        }
    }
    let by_hand = LockSettings::new().namespace("sh\nop");
    assert!(by_hand.check().is_err());
    let bytes = LockSettings::new().name_secret([0xff, 0, 10]);
    assert_eq!(bytes.get_name_secret(), Some(&[0xff, 0, 10][..]));
}

#[cfg(feature = "serde")]
#[test]
fn what_stands_in_the_place_of_a_setting_is_in_no_error() {
    for wrong in [
        r#""postgres://app:hunter2@db""#,
        r#"["postgres://app:hunter2@db"]"#,
        r#"{ "database_url": { "hunter2": "hunter2" } }"#,
        r#"{ "redis_url": ["hunter2"] }"#,
        r#"{ "lock_provider": { "url": "hunter2" } }"#,
        r#"{ "lock_provider": "hunter2" }"#,
        r#"{ "lock_namespace": ["hunter2"] }"#,
        r#"{ "lock_dir": ["hunter2"] }"#,
        r#"{ "lock_lease": ["hunter2"] }"#,
        r#"{ "lock_lease": "hunter2" }"#,
        r#"{ "lock_table": ["hunter2"] }"#,
        r#"{ "lock_name_secret": ["hunter2"] }"#,
        r#"{ "lock_switch": "hunter2" }"#,
        r#"{ "lock_marker": "hunter2" }"#,
    ] {
        // Of text and of a value: the latter shows more.
        let value: serde_json::Value = serde_json::from_str(wrong).unwrap();
        let errors = [
            serde_json::from_str::<LockSettings>(wrong).unwrap_err(),
            serde_json::from_value::<LockSettings>(value).unwrap_err(),
        ];
        for error in errors {
            let said = format!("{error} {error:?}");
            assert!(!said.contains("hunter2"), "{wrong}: {said}");
        }
    }
    for wrong in ["5000", "true", "2.5", "null"] {
        let error = serde_json::from_str::<LockSettings>(wrong).unwrap_err();
        assert!(!error.to_string().contains(wrong), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_not_utf_8_is_told_by_the_name_of_its_variable() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    for variable in [
        "DATABASE_URL",
        "REDIS_URL",
        "LOCK_NAMESPACE",
        "LOCK_LEASE",
        "LOCK_TABLE",
    ] {
        let error = LockSettings::from_vars(|name| {
            (name == variable).then(|| OsString::from_vec(vec![b'x', 0xff]))
        })
        .unwrap_err();
        assert!(error.to_string().contains(variable), "{error}");
    }
}

#[test]
fn no_secret_is_in_debug() {
    let settings = from_vars(&[DATABASE, REDIS, ("LOCK_NAME_SECRET", "hunter2")]).unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    // Nor as the bytes that it is kept as.
    assert!(!shown.contains("104, 117"), "{shown}");
}

#[cfg(all(feature = "serde", feature = "postgres"))]
#[test]
fn settings_are_read_from_a_configuration_that_has_more() {
    use ::serde::Deserialize;

    #[derive(Deserialize)]
    struct Config {
        bind: String,
        #[serde(flatten)]
        locks: LockSettings,
    }

    let text = r#"{ "bind": "[::]:80", "database_url": "postgres://db/shop", "redis_url": "",
        "lock_provider": "postgres", "lock_namespace": "billing", "lock_dir": "/x",
        "lock_lease": "10s", "lock_table": "locks.leases",
        "lock_name_secret": "s", "lock_switch": "allow" }"#;
    let Config { bind, locks } = serde_json::from_str(text).unwrap();
    assert_eq!(bind, "[::]:80");
    assert_eq!(locks.choose().unwrap(), ProviderKind::Postgres);
    assert_eq!(locks.get_database_url(), Some("postgres://db/shop"));
    assert_eq!(locks.get_redis_url(), None);
    assert_eq!(locks.get_namespace(), "billing");
    assert_eq!(locks.lease, Some(Duration::from_secs(10)));
    assert_eq!(locks.table, "locks.leases");
    assert_eq!(locks.get_name_secret(), Some(&b"s"[..]));
    assert!(locks.may_switch());

    let nothing: LockSettings = serde_json::from_str("{}").unwrap();
    assert!(nothing.get_database_url().is_none());
    for wrong in [
        r#"{ "lock_lease": "10" }"#,
        r#"{ "lock_provider": "etcd" }"#,
        r#"{ "lock_switch": "yes" }"#,
    ] {
        let error = serde_json::from_str::<LockSettings>(wrong).unwrap_err();
        assert!(error.to_string().contains("LOCK_"), "{error}");
    }
}
