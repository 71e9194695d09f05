//! How the Redis servers of a process are reached: the queue's by URL, by sentinels or by its
//! parts, those of other stores by URLs of their own. All share time-outs, certificates and bounds.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use windlass_redis::{Cause, Options, Tls};

use crate::settings::Found;

/// The queue's server; none: embedded. Also what somebody should know about the settings.
pub(crate) fn queue(found: &Found) -> anyhow::Result<(Option<Options>, Vec<String>)> {
    let mut notes = Vec::new();
    let (url, sentinels) = (found.text("REDIS_URL"), found.text("REDIS_SENTINELS"));
    let options = match (url, sentinels, found.text("REDIS_HOST")) {
        (Some(_), Some(_), _) => {
            bail!(
                "REDIS_URL and REDIS_SENTINELS are both set; one of them is allowed \
                 (REDIS_URL=redis+sentinel://host:26379/service says both)"
            )
        }
        (Some(url), None, _) => {
            let options = Options::from_url(url).map_err(|e| anyhow!("REDIS_URL: {e}"))?;
            notes.extend(disagreement(&options, found)?);
            options
        }
        (None, Some(sentinels), host) => {
            if host.is_some() {
                notes.push("REDIS_HOST is not used: the sentinels of REDIS_SENTINELS name the server".to_owned());
            }
            by_sentinels(sentinels, found)?
        }
        (None, None, Some(host)) => by_parts(host, found)?,
        (None, None, None) => return Ok((None, notes)),
    };
    let options = complete(options, found, &mut notes)?;
    Ok((Some(options), notes))
}

/// The server of another store, if it has one of its own.
pub(crate) fn of_store(name: &'static str, found: &Found) -> anyhow::Result<Option<Options>> {
    let Some(url) = found.text(name) else { return Ok(None) };
    of_url(name, url, found).map(Some)
}

/// A server by its URL, under the name of its setting.
pub(crate) fn of_url(name: &str, url: &str, found: &Found) -> anyhow::Result<Options> {
    let options = Options::from_url(url).map_err(|e| anyhow!("{name}: {e}"))?;
    complete(options, found, &mut Vec::new())
}

/// What somebody can do about it.
pub(crate) fn advice(cause: Cause, is_tls: bool) -> Option<&'static str> {
    Some(match cause {
        Cause::Refused => "is the server started, and is the port right (REDIS_URL, REDIS_PORT)?",
        Cause::UnknownHost => "is the host written right (REDIS_URL, REDIS_HOST)?",
        Cause::Timeout if is_tls => {
            "a firewall, a frozen server, or a port that does not speak TLS and waits for more: try redis:// in place of \
             rediss://, or the server's TLS port"
        }
        Cause::Timeout => {
            "a firewall, a frozen or a very busy server; REDIS_SOCKET_TIMEOUT and REDIS_SOCKET_CONNECT_TIMEOUT say how \
             long is waited"
        }
        Cause::NoAuth => "set REDIS_PASSWORD, or write it into the URL: redis://:password@host",
        Cause::WrongPassword => {
            "look at REDIS_USERNAME and REDIS_PASSWORD or at the URL, and at ACL LIST of the server"
        }
        Cause::NoPermission => "give the user the rights of deploy/redis/*.acl",
        Cause::TlsToPlain => "write redis:// in place of rediss://, leave REDIS_SSL out, or use the server's TLS port",
        Cause::PlainToTls => "a TLS port closes plain connections: write rediss:// or set REDIS_SSL=true",
        Cause::UnknownIssuer => "name the authority that signed it in REDIS_SSL_CA_CERTS",
        Cause::WrongName => "connect to a name that stands in the certificate, or have it signed for this one",
        Cause::Expired => "have the server's certificate renewed",
        Cause::NotYetValid => "are the clocks of server and client right?",
        Cause::ClientCertificate => "name one that the server trusts in REDIS_SSL_CERTFILE and REDIS_SSL_KEYFILE",
        Cause::NoPrimary => "do the sentinels run, and do they know this service (REDIS_SENTINEL_SERVICE)?",
        Cause::Full => {
            "nothing is taken until it has room: raise maxmemory, let workers drain, or take other data off it"
        }
        Cause::ReadOnly => "that is a replica: name the primary, or the sentinels (REDIS_SENTINELS)",
        Cause::NotPersisting => "it takes no writes because it cannot save them: look at its disk and its log",
        Cause::Loading => "it reads its file and will answer: wait",
        Cause::Tls | Cause::Other => return None,
    })
}

fn port(found: &Found) -> anyhow::Result<Option<u16>> {
    found.parse("REDIS_PORT", "1 to 65535", |p| *p > 0)
}

fn db(found: &Found) -> anyhow::Result<Option<u16>> {
    found.parse("REDIS_DB", "0 to 65535", |_| true)
}

fn user(found: &Found) -> &str {
    found.text("REDIS_USERNAME").unwrap_or("default")
}

fn by_parts(host: &str, found: &Found) -> anyhow::Result<Options> {
    let port = port(found)?.unwrap_or(Options::PORT);
    let db = db(found)?.unwrap_or(0);
    Ok(Options::from_parts(host.trim(), port, user(found), found.text("REDIS_PASSWORD"), db))
}

fn by_sentinels(sentinels: &str, found: &Found) -> anyhow::Result<Options> {
    let service = found.text("REDIS_SENTINEL_SERVICE").unwrap_or("mymaster");
    let at_sentinels = (found.text("REDIS_SENTINEL_USERNAME").unwrap_or(""), found.text("REDIS_SENTINEL_PASSWORD"));
    let at_server = (user(found), found.text("REDIS_PASSWORD"));
    Options::from_sentinels(sentinels, service, at_sentinels, at_server, db(found)?.unwrap_or(0))
        .map_err(|e| anyhow!("REDIS_SENTINELS: {}; host:port,host:port is allowed", e.why))
}

/// The URL wins over the parts; who wrote both should know where they differ.
fn disagreement(options: &Options, found: &Found) -> anyhow::Result<Option<String>> {
    let mut differ = Vec::new();
    if let Some((host, at)) = options.single() {
        if found.text("REDIS_HOST").is_some_and(|own| own.trim() != host) {
            differ.push("REDIS_HOST");
        }
        if port(found)?.is_some_and(|own| own != at) {
            differ.push("REDIS_PORT");
        }
    }
    if db(found)?.is_some_and(|own| own != options.db()) {
        differ.push("REDIS_DB");
    }
    if found.text("REDIS_PASSWORD").is_some_and(|own| !options.has_password(own)) {
        differ.push("REDIS_PASSWORD");
    }
    if found.text("REDIS_USERNAME").is_some_and(|own| own != options.user()) {
        differ.push("REDIS_USERNAME");
    }
    Ok((!differ.is_empty()).then(|| format!("REDIS_URL is used; {} says something else", differ.join(", "))))
}

/// Time-outs, bounds and certificates.
fn complete(mut options: Options, found: &Found, notes: &mut Vec<String>) -> anyhow::Result<Options> {
    let seconds = |s: &f64| (0.001..=3600.0).contains(s);
    if let Some(s) = found.parse("REDIS_SOCKET_TIMEOUT", "0.001 to 3600 seconds", seconds)? {
        options.response_timeout = Duration::from_secs_f64(s);
    }
    if let Some(s) = found.parse("REDIS_SOCKET_CONNECT_TIMEOUT", "0.001 to 3600 seconds", seconds)? {
        options.connect_timeout = Duration::from_secs_f64(s);
    }
    if let Some(s) = found.parse::<u64>("WINDLASS_REDIS_KEEPALIVE_SECONDS", "0 (never) to 7200", |s| *s <= 7_200)? {
        options.keepalive = (s > 0).then(|| Duration::from_secs(s));
    }
    let connections = |n: &usize| (1..=10_000).contains(n);
    if let Some(n) = found.parse("REDIS_CONNECTION_POOL_MAX_SIZE", "1 to 10000", connections)? {
        options.max_connections = n;
    }
    if let Some(text) = found.text("REDIS_SSL_CERT_REQS")
        && text.trim() != "required"
    {
        bail!(
            "REDIS_SSL_CERT_REQS is {text:?}; required is allowed: without a check anyone can stand in for the \
             server. Name its authority in REDIS_SSL_CA_CERTS"
        );
    }
    let tls = tls(found)?;
    match found.parse("REDIS_SSL", "true or false", |_: &bool| true)? {
        Some(true) => options = options.with_tls(tls),
        _ if options.is_tls() => options = options.with_tls(tls),
        _ if tls != Tls::default() => {
            notes.push("REDIS_SSL_… files are not used: the connection is not encrypted (REDIS_SSL=true)".to_owned());
        }
        _ => {}
    }
    Ok(options)
}

fn tls(found: &Found) -> anyhow::Result<Tls> {
    let file = |name: &str| found.text(name).map(PathBuf::from);
    let client = match (file("REDIS_SSL_CERTFILE"), file("REDIS_SSL_KEYFILE")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => bail!("REDIS_SSL_CERTFILE and REDIS_SSL_KEYFILE belong together; one of them is missing"),
    };
    let tls = Tls { ca: file("REDIS_SSL_CA_CERTS"), client };
    tls.check().context("REDIS_SSL_CA_CERTS, REDIS_SSL_CERTFILE, REDIS_SSL_KEYFILE")?;
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use crate::settings::tests::read;

    #[test]
    fn redis_can_be_named_in_parts() {
        let env = [("REDIS_HOST", "::1"), ("REDIS_PASSWORD", "p@ss/w:rd"), ("REDIS_DB", "3")];
        let redis = read(&env, &[]).unwrap().redis.unwrap();
        assert_eq!(redis.shown(), "redis://default:***@[::1]:6379/3");
        assert!(redis.has_password("p@ss/w:rd"));
    }

    #[test]
    fn every_topology_is_named_by_settings() {
        let check = |env: &[(&str, &str)], expected: &str| {
            assert_eq!(read(env, &[]).unwrap().redis.unwrap().shown(), expected, "{env:?}");
        };
        check(&[("REDIS_SENTINELS", "a,b:1")], "redis+sentinel://a:26379,b:1/mymaster/0");
        check(
            &[
                ("REDIS_SENTINELS", "a"),
                ("REDIS_SENTINEL_SERVICE", "s"),
                ("REDIS_PASSWORD", "x"),
                ("REDIS_SSL", "true"),
            ],
            "rediss+sentinel://default:***@a:26379/s/0",
        );
        check(&[("REDIS_URL", "redis://a"), ("REDIS_SSL", "true")], "rediss://a:6379/0");
        check(&[("REDIS_URL", "rediss://a"), ("REDIS_SSL", "false")], "rediss://a:6379/0");
        check(&[("REDIS_URL", "redis+cluster://a,b")], "redis+cluster://a:6379,b:6379");
        let env =
            [("REDIS_URL", "redis://a"), ("REDIS_CONNECTION_POOL_MAX_SIZE", "7"), ("REDIS_SOCKET_TIMEOUT", "0.5")];
        let redis = read(&env, &[]).unwrap().redis.unwrap();
        assert_eq!((redis.max_connections, redis.response_timeout.as_millis()), (7, 500));
        let env = [("REDIS_URL", "redis://a"), ("WINDLASS_REDIS_KEEPALIVE_SECONDS", "0")];
        assert_eq!(read(&env, &[]).unwrap().redis.unwrap().keepalive, None);
    }

    /// The URL wins, and what differs is said.
    #[test]
    fn a_disagreement_is_noted() {
        let check = |env: &[(&str, &str)], named: &[&str]| {
            let notes = read(env, &[]).unwrap().notes.join("; ");
            assert_eq!(notes.is_empty(), named.is_empty(), "{notes}");
            assert!(named.iter().all(|name| notes.contains(name)), "{notes}");
        };
        check(&[("REDIS_URL", "redis://a:7/2"), ("REDIS_HOST", "a"), ("REDIS_PORT", "7"), ("REDIS_DB", "2")], &[]);
        check(&[("REDIS_URL", "redis://a:7/2"), ("REDIS_HOST", "b"), ("REDIS_PORT", "7")], &["REDIS_HOST"]);
        check(
            &[("REDIS_URL", "redis://u:x@a"), ("REDIS_USERNAME", "v"), ("REDIS_PASSWORD", "y"), ("REDIS_DB", "1")],
            &["REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_DB"],
        );
    }

    /// B36.
    #[test]
    fn b36_what_cannot_be_is_refused() {
        let check = |env: &[(&str, &str)], parts: &[&str]| {
            let text = format!("{:#}", read(env, &[]).unwrap_err());
            assert!(parts.iter().all(|part| text.contains(part)) && !text.contains("geheim"), "{text}");
        };
        check(
            &[("REDIS_URL", "redis://:geheim@a"), ("REDIS_SENTINELS", "b")],
            &["REDIS_URL", "REDIS_SENTINELS", "redis+sentinel://"],
        );
        check(&[("REDIS_URL", "rediss://:geheim@a#insecure")], &["REDIS_URL", "***", "always checked"]);
        check(&[("REDIS_SENTINELS", "a:x")], &["REDIS_SENTINELS", "1 to 65535"]);
        for value in ["none", "optional"] {
            check(&[("REDIS_URL", "rediss://a"), ("REDIS_SSL_CERT_REQS", value)], &[value, "required is allowed"]);
        }
        check(&[("REDIS_URL", "redis://a"), ("REDIS_SSL", "maybe")], &["REDIS_SSL", "true or false"]);
        check(&[("REDIS_URL", "rediss://a"), ("REDIS_SSL_KEYFILE", "k")], &["REDIS_SSL_CERTFILE", "missing"]);
        check(&[("REDIS_URL", "rediss://a"), ("REDIS_SSL_CA_CERTS", "/nowhere.pem")], &["/nowhere.pem"]);
        check(&[("REDIS_HOST", "a"), ("REDIS_PORT", "0")], &["REDIS_PORT", "1 to 65535"]);
        check(&[("REDIS_HOST", "a"), ("REDIS_CONNECTION_POOL_MAX_SIZE", "0")], &["1 to 10000"]);
        check(&[("REDIS_HOST", "a"), ("REDIS_SOCKET_TIMEOUT", "0")], &["0.001 to 3600"]);
        check(&[("WINDLASS_CACHE_REDIS_URL", "https://u:geheim@x")], &["WINDLASS_CACHE_REDIS_URL", "***"]);
    }
}
