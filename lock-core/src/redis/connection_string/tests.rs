use super::*;

fn parse(text: &str) -> ConnectionInfo {
    Target::parse(text).unwrap().seeds.remove(0)
}

fn error(text: &str) -> String {
    let error = Target::parse(text).unwrap_err();
    assert!(error.is_misconfigured());
    format!("{error} {error:?}")
}

#[test]
fn the_rest_of_a_password_is_not_told_as_an_option() {
    let said = error("redis://app:9?hunter2@cache.example");
    assert!(said.contains("%3F") && !said.contains("hunter2"), "{said}");
}

#[test]
fn both_forms_say_the_same() {
    let pairs = [
        ("redis://cache.example", "cache.example"),
        ("redis://cache.example:7000", "cache.example:7000"),
        (
            "redis://app:s=ecret@cache.example:7000/2",
            "cache.example:7000,user=app,password=s=ecret,defaultDatabase=2",
        ),
        ("valkey://[::1]:7000", "[::1]:7000,abortConnect=False"),
    ];
    for (url, options) in pairs {
        let (url, options) = (parse(url), parse(options));
        assert_eq!(url.addr(), options.addr());
        let settings = |info: &ConnectionInfo| {
            let info = info.redis_settings();
            let text = |text: Option<&str>| text.map(str::to_owned);
            (info.db(), text(info.username()), text(info.password()))
        };
        assert_eq!(settings(&url), settings(&options));
        assert_eq!(options.redis_settings().protocol(), ProtocolVersion::RESP3);
        assert_eq!(url.redis_settings().protocol(), ProtocolVersion::RESP3);
    }
}

#[test]
fn a_socket_is_a_path_with_options() {
    let info = parse("unix:///run/redis.sock?db=3&user=app&pass=secret");
    assert_eq!(info.addr(), &ConnectionAddr::Unix("/run/redis.sock".into()));
    assert_eq!(info.redis_settings().db(), 3);
    assert_eq!(info.redis_settings().password(), Some("secret"));
    let info = parse("unix://app:s%3Aec+ret@/run/redis.sock?db=3");
    assert_eq!(info.addr(), &ConnectionAddr::Unix("/run/redis.sock".into()));
    assert_eq!(info.redis_settings().username(), Some("app"));
    assert_eq!(info.redis_settings().password(), Some("s:ec+ret"));
    assert_eq!(info.redis_settings().db(), 3);
}

#[test]
fn several_hosts_are_the_nodes_of_a_cluster() {
    let target = Target::parse("a:7000, b:7001 ,c:6379,connectTimeout=1500,password=x").unwrap();
    let hosts: Vec<_> = target
        .seeds
        .iter()
        .map(|seed| seed.addr().to_string())
        .collect();
    assert_eq!(hosts, ["a:7000", "b:7001", "c:6379"]);
    assert_eq!(target.connect_timeout, Some(Duration::from_millis(1500)));
}

#[test]
fn options_of_other_clients_that_change_nothing_are_taken() {
    for text in [
        "redis://app:secret@host:7000/2?family=0&ssl_cert_reqs=required&socket_timeout=5&max_connections=10",
        "redis://host:7000?db=2&username=app&password=secret&protocol=3&decode_responses=True&ssl=false",
        "host:7000,user=app,password=secret,defaultDatabase=2,syncTimeout=5000,connectRetry=3,\
         sslProtocols=Tls12,abortConnect=False,ssl=False,sslHost=,name=shop,tieBreaker=,\
         checkCertificateRevocation=false,allowAdmin=true,channelPrefix=x,protocol=resp3",
    ] {
        let info = parse(text);
        assert_eq!(info.addr(), &ConnectionAddr::Tcp("host".to_owned(), 7000));
        let redis = info.redis_settings();
        assert_eq!(redis.db(), 2);
        assert_eq!(redis.username(), Some("app"));
        assert_eq!(redis.password(), Some("secret"));
    }
    let text = "host,password=a://b";
    assert_eq!(parse(text).redis_settings().password(), Some("a://b"));
    // As templates write it where there is none.
    assert_eq!(parse("host,password=").redis_settings().password(), None);
}

#[test]
fn what_cannot_be_kept_is_named_with_what_to_do() {
    for (text, says) in [
        ("redis://app:hunter2@host?ssl=true", "write rediss://"),
        (
            "redis://app:hunter2@host?ssl_cert_reqs=none",
            "`ssl_ca_certs`",
        ),
        (
            "redis://app:hunter2@host?ssl_check_hostname=false",
            "`sslHost`",
        ),
        ("redis://app:hunter2@host#insecure", "`ssl_ca_certs`"),
        (
            "redis://app:hunter2@host/1?db=2",
            "`db` says is there twice",
        ),
        (
            "redis://app:hunter2@host?password=x",
            "`password` says is there twice",
        ),
        ("redis://app:hunter2@host?keyPrefix=x", "`LOCK_NAMESPACE`"),
        ("redis://app:hunter2@host?protocol=2", "resp3"),
        ("redis://app:hunter2@a:1,b:2/0", "HOST:PORT,HOST:PORT"),
        ("redis://app:hunter2@a,b", "HOST:PORT,HOST:PORT"),
        (
            "host,password=hunter2,sslProtocols=Tls13",
            "TLS 1.2 and 1.3",
        ),
        ("host,password=hunter2,proxy=Twemproxy", "the server itself"),
        ("host,password=hunter2,$SET=hunter2", "rename a command"),
        ("host,password=hunter2,ssl_ca_certs=/x", "asks for no TLS"),
        (
            "redis://:hunter2@host?ssl_ca_certs=/hunter2",
            "asks for no TLS",
        ),
        (
            "redis://:hunter2@host?ssl_keyfile=/hunter2",
            "`ssl_certfile`",
        ),
        ("redis://:hunter2/b@host", "`/` as %2F"),
        ("redis://:hunter2#b@host", "`#` as %23"),
        ("redis://:hunter2?b@host", "`?` as %3F"),
        ("redis://:12/hunter2@host", "%2F"),
        ("redis://app:12#hunter2@host", "%23"),
        ("redis+socket:///hunter2", "`redis+socket`"),
    ] {
        let said = error(text);
        assert!(said.contains(says), "{text}: {said}");
        assert!(!said.contains("hunter2"), "{text}: {said}");
    }
}

/// The hosts, the master, and what it is spoken to with.
fn sentinels(text: &str) -> (String, String, i64, Option<String>) {
    let target = Target::parse(text).unwrap();
    let hosts = target.seeds.iter().map(|seed| seed.addr().to_string());
    let redis = target.seeds[0].redis_settings();
    let password = redis.password().map(str::to_owned);
    let master = target.service.unwrap().master;
    (
        hosts.collect::<Vec<_>>().join(" "),
        master,
        redis.db(),
        password,
    )
}

#[test]
fn every_form_that_names_sentinels_says_the_same() {
    let hosts = "a:26379 b:7000";
    for text in [
        "redis+sentinel://:s3cret@a,b:7000/shop/2",
        "redis-sentinel://:s3cret@a,b:7000/2?sentinelMasterId=shop",
        "valkey+sentinel://:s3cret@a:26379,b:7000/shop?db=2",
        "redis+sentinel://a,b:7000/2?service_name=shop&password=s3cret",
        "a,b:7000,serviceName=shop,password=s3cret,defaultDatabase=2,abortConnect=false",
    ] {
        let expected = (
            hosts.to_owned(),
            "shop".to_owned(),
            2,
            Some("s3cret".to_owned()),
        );
        assert_eq!(sentinels(text), expected, "{text}");
    }
    let (hosts, master, ..) = sentinels("redis+sentinel://[::1]:7000,10.0.0.1/shop");
    assert_eq!((&*hosts, &*master), ("::1:7000 10.0.0.1:26379", "shop"));
    let of_one = "redis://:s3cret@a?master_name=shop&db=2";
    assert_eq!(sentinels(of_one).0, "a:26379");
    assert!(
        Target::parse("a:7000,serviceName=")
            .unwrap()
            .service
            .is_none()
    );
}

#[test]
fn the_login_of_sentinels_is_not_that_of_the_server() {
    for text in [
        "redis+sentinel://app:one@a/shop?sentinel_username=watch&sentinel_password=two",
        "a,serviceName=shop,user=app,password=one,sentinelUser=watch,sentinelPassword=two",
    ] {
        let target = Target::parse(text).unwrap();
        let redis = target.seeds[0].redis_settings();
        assert_eq!(
            (redis.username(), redis.password()),
            (Some("app"), Some("one"))
        );
        let service = target.service.clone().unwrap();
        let login = (service.user.as_deref(), service.password.as_deref());
        assert_eq!(login, (Some("watch"), Some("two")));
        assert!(!format!("{target:?} {target}").contains("two"));
    }
}

#[test]
fn what_is_wrong_about_sentinels_is_named_with_what_to_do() {
    for (text, says) in [
        (
            "redis+sentinel://:hunter2@host:26379",
            "no master to ask them for",
        ),
        (
            "redis+sentinel://:hunter2@host:26379/0",
            "no master to ask them for",
        ),
        (
            "redis+sentinel://:hunter2@host,,b/shop",
            "no name or address",
        ),
        ("redis+sentinel://host:hunter2/shop", "port of a host"),
        (
            "redis+sentinel://:hunter2@host/shop/x",
            "database is no number",
        ),
        (
            "redis+sentinel://:hunter2@host/shop/0/1",
            "more than a master",
        ),
        ("redis+sentinel://:hunter2@host/sh%20op", "other characters"),
        (
            "redis+sentinel://:hunter2@host/shop?serviceName=other",
            "there twice",
        ),
        ("redis+sentinel://:hunter2/b@host/shop", "%2F"),
        ("redis+sentinel://:hunter2#b@host/shop", "%23"),
        (
            "redis-sentinel://:hunter2@host:26379#hunter2",
            "after their hosts",
        ),
        ("sentinel://:hunter2@host:26379", "redis+sentinel://"),
        (
            "sentinel://:hunter2@a:26379;sentinel://b:26379",
            "redis+sentinel://",
        ),
        (
            "host:26379,password=hunter2,sentinels=hunter2",
            "serviceName=MASTER",
        ),
        ("host:26379,sentinelPassword=hunter2", "`serviceName`"),
        ("host:26379,serviceName=hunter2!", "other characters"),
        ("unix:///hunter2?serviceName=shop", "no Sentinel to ask"),
        (
            "redis://:hunter2@host:26379?role=hunter2",
            "redis+sentinel://",
        ),
    ] {
        let said = error(text);
        assert!(said.contains(says), "{text}: {said}");
        assert!(!said.contains("hunter2"), "{text}: {said}");
    }
}

#[test]
fn an_unknown_option_is_an_error_that_names_its_position() {
    assert!(error("redis://host?x=1&proto=3").contains("number 1"));
    assert!(error("host,x=1").contains("number 1"));
    assert!(error("host,passwort=1").contains("meant as `password`"));
    assert!(error("http://host").contains("`http`"));
}

#[cfg(any(
    feature = "rustls-ring",
    feature = "tls-rustls-aws-lc-rs",
    feature = "tls-native-tls"
))]
#[test]
fn certificates_and_the_name_in_one_are_options_of_either_form() {
    for text in [
        "rediss://10.0.0.1:7000?ssl_ca_certs=/ca&ssl_certfile=/cert&ssl_keyfile=/key&sslHost=cache",
        "10.0.0.1:7000,ssl=true,ssl_ca_certs=/ca,ssl_certfile=/cert,ssl_keyfile=/key,sslHost=cache",
    ] {
        let target = Target::parse(text).unwrap();
        let Certificates {
            ca_file,
            client,
            name,
        } = target.certificates;
        assert_eq!(ca_file, Some("/ca".into()));
        assert_eq!(client, Some(("/cert".into(), "/key".into())));
        assert_eq!(name.as_deref(), Some("cache"));
    }
    let both = Target::parse("rediss://host?ssl_certfile=/both").unwrap();
    let client = both.certificates.client;
    assert_eq!(client, Some(("/both".into(), "/both".into())));
}

#[cfg(any(
    feature = "rustls-ring",
    feature = "tls-rustls-aws-lc-rs",
    feature = "tls-native-tls"
))]
#[test]
fn a_node_that_is_named_by_its_address_can_have_the_name_of_a_seed() {
    let names = |text: &str, node: &str| {
        let target = Target::parse(text).unwrap();
        target.other_names(&parse(node))
    };
    let seeds = "b.example:1,a.example:1,10.0.0.9:1,b.example:2,ssl=true";
    assert_eq!(
        names(seeds, "rediss://10.0.0.1"),
        ["a.example", "b.example"]
    );
    assert!(names(seeds, "rediss://c.example").is_empty());
    assert!(names(seeds, "redis://10.0.0.1").is_empty());
    let chosen = "b.example:1,ssl=true,sslHost=cache";
    assert!(names(chosen, "rediss://10.0.0.1").is_empty());
}

#[test]
fn the_rest_of_a_password_with_a_comma_is_told_as_such() {
    for text in [
        "host,password=hun,ter=2",
        "host,password=hun,7er=2,ssl=true",
        "host,password=hun,t r=2",
        "unix:///run/redis.sock?pass=hun&7er=2",
    ] {
        let said = error(text);
        assert!(
            said.contains("rest of a password") && said.contains("%2C"),
            "{said}"
        );
        for part in ["hun", "7er", "t r", "=2"] {
            assert!(!said.contains(part), "{said}");
        }
    }
    let written = parse("redis://:hun%2Cter%3D2@host");
    assert_eq!(written.redis_settings().password(), Some("hun,ter=2"));
}

#[test]
fn what_is_wrong_is_said() {
    for (text, says) in [
        ("", "empty"),
        ("   ", "empty"),
        ("password=x", "no host"),
        ("host:port", "port"),
        ("host:70000", "port"),
        ("host,password=s,ecret", "needs the form of a URL"),
        ("host:7000,s3cret", "`password=..`"),
        ("[::1", "not closed"),
        ("ho st", "no name or address"),
        ("host,ssl=yes", "`ssl`"),
        ("host,defaultDatabase=one", "`defaultDatabase`"),
        ("host,connectTimeout=-1", "`connectTimeout`"),
        ("redis://host?protocol=2", "resp3"),
        ("redis://host/one", "is no number"),
        ("/run/redis.sock", "write a socket as unix:///PATH"),
        ("redis://", "driver does not take it"),
        ("redis://host:port", "not a URL"),
        ("redis://host#insecure", "`#insecure`"),
    ] {
        assert!(error(text).contains(says), "{text}: {}", error(text));
    }
}

#[test]
fn no_error_and_no_debug_shows_a_password() {
    for text in [
        "redis://:hunter2@host:port",
        "redis://app:hunter2@host?ssl=true",
        "redis://app:hunter2@host/one",
        "http://app:hunter2@host",
        "host,password=x,hunter2",
        "host,password=hunter2,nonsense=1",
        "hunter2@host:6379",
        "unix:///run/redis.sock?pass=hunter2&x=1",
        "unix://app:hunter2@/run/redis.sock?x=1",
        "unix://app:hunter2@/run/redis.sock?user=a",
        "unix://app:hunter2@redis.sock",
    ] {
        assert!(!error(text).contains("hunter2"), "{text}");
    }
    let target = Target::parse("redis://app:hunter2@host").unwrap();
    assert!(!format!("{target:?}").contains("hunter2"));
}

#[cfg(not(any(
    feature = "rustls-ring",
    feature = "tls-rustls-aws-lc-rs",
    feature = "tls-native-tls"
)))]
#[test]
fn without_a_feature_for_tls_the_refusal_says_so() {
    for text in ["rediss://host", "valkeys://host", "host,ssl=true"] {
        assert!(error(text).contains("built without"), "{text}");
    }
}
