//! URLs with a user and no host. Clients that connect to a socket take them, as libpq does
//! (`postgres://app:secret@/shop?host=/run/postgresql`) and redis-py (`unix://app@/run/redis.sock`); a URL
//! has to have a host after a user.

/// The same with the user, the password and the port as options, where there is no host; else `None`.
pub(crate) fn without_host(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, port) = authority.rsplit_once('@')?;
    let port = match port {
        "" => None,
        port => Some(port.strip_prefix(':')?),
    };
    let (user, password) = match user.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (user, None),
    };
    // Encoded for a place in which these mean something else.
    let given = [("user", Some(user)), ("password", password), ("port", port)];
    let given = given.into_iter().filter_map(|(key, value)| {
        let value = value?.replace('+', "%2B").replace('&', "%26");
        let value = value.replace('@', "%40");
        (!value.is_empty()).then(|| format!("{key}={value}"))
    });
    let given: Vec<_> = given.collect();
    let separator = if path.contains('?') { '&' } else { '?' };
    Some(format!("{scheme}://{path}{separator}{}", given.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_before_no_host_is_an_option() {
        for (text, same) in [
            (
                "postgres://app:a%40b+c&d@e@/shop?host=/run/pg",
                "postgres:///shop?host=/run/pg&user=app&password=a%40b%2Bc%26d%40e",
            ),
            (
                "postgresql://app@:6432/shop",
                "postgresql:///shop?user=app&port=6432",
            ),
            ("postgres://app:@", "postgres://?user=app"),
        ] {
            assert_eq!(without_host(text).as_deref(), Some(same));
        }
        for text in [
            "postgres://app@db/shop",
            "postgres:///shop?host=/run/pg",
            "postgres://db/a@",
        ] {
            assert_eq!(without_host(text), None, "{text}");
        }
    }
}
