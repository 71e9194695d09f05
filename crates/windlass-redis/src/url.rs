//! Reading Redis URLs, as people and deployment tools write them.

use crate::options::{BadUrl, Login, Node, Options, Topology};
use crate::tls::Tls;

const FORMS: &str = "redis://[user][:password@]host[:port][/db] is allowed, rediss:// for TLS, \
                     redis+sentinel://…host:port,host:port/service[/db] and redis+cluster://…host:port,host:port";

/// Reads one of the forms of [`Options::from_url`].
pub(crate) fn parse(url: &str) -> Result<Options, BadUrl> {
    parts(url).map_err(|why| BadUrl { shown: redact(url), why })
}

fn parts(url: &str) -> Result<Options, String> {
    let (scheme, rest) = url.trim().split_once("://").ok_or(FORMS)?;
    let (scheme, topology) = scheme.split_once('+').unwrap_or((scheme, ""));
    let is_tls = match scheme {
        "redis" => false,
        "rediss" => true,
        "http" | "https" => {
            return Err("this is a REST address; the Redis protocol is needed, as in redis://host:port/db, or \
                        rediss://host:port/db with TLS"
                .to_owned());
        }
        _ => return Err(FORMS.to_owned()),
    };
    // A raw password may hold anything; an address holds no `@`.
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, rest)) => (read_login(login)?, rest),
        None => (Login::default(), rest),
    };
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    if !fragment.is_empty() {
        return Err(format!("#{fragment}: certificates are always checked; name the server's CA instead"));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (topology, db) = match topology {
        "" => (single(hosts)?, read_db(path)?),
        "sentinel" => {
            let (service, db) = path.split_once('/').unwrap_or((path, ""));
            if service.is_empty() {
                return Err("the service is missing, as in redis+sentinel://host:26379/mymaster".to_owned());
            }
            let sentinels = nodes(hosts, Options::SENTINEL_PORT)?;
            let topology = Topology::Sentinel { sentinels, service: unescape(service), login: sentinel_login(query)? };
            (topology, read_db(db)?)
        }
        "cluster" => {
            if read_db(path)? != 0 {
                return Err("a cluster has database 0 alone".to_owned());
            }
            (Topology::Cluster(nodes(hosts, Options::PORT)?), 0)
        }
        _ => return Err(FORMS.to_owned()),
    };
    if !query.is_empty() && !matches!(topology, Topology::Sentinel { .. }) {
        return Err("nothing is allowed behind a ?; database and password stand in the URL itself".to_owned());
    }
    let options = Options::of(topology, login, db);
    Ok(if is_tls { options.with_tls(Tls::default()) } else { options })
}

fn read_login(text: &str) -> Result<Login, String> {
    let Some((user, password)) = text.split_once(':') else {
        return Err(
            "a user stands without a password; write user:password@, or :password@ for the default user".to_owned()
        );
    };
    Ok(Login { user: unescape(user), password: Some(unescape(password)) })
}

fn single(hosts: &str) -> Result<Topology, String> {
    let mut found = nodes(hosts, Options::PORT)?;
    match (found.pop(), found.is_empty()) {
        (Some(node), true) => Ok(Topology::Single(node)),
        _ => Err("several hosts are allowed with redis+sentinel:// and redis+cluster:// only".to_owned()),
    }
}

/// `host[:port]`, separated by commas.
pub(crate) fn nodes(text: &str, port: u16) -> Result<Vec<Node>, String> {
    text.split(',').map(|part| node(part.trim(), port)).collect()
}

fn node(text: &str, default_port: u16) -> Result<Node, String> {
    let bad_port = || "a port is 1 to 65535".to_owned();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("an IPv6 address ends with ]")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "an IPv6 address stands in the brackets")?;
            let port = match port {
                "" => None,
                _ => Some(port.strip_prefix(':').ok_or("a port follows the ] as in [::1]:6379")?),
            };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("an IPv6 address stands in brackets".to_owned()),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host_fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'%');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(host_fits) {
        return Err("a host is missing, or is no host name".to_owned());
    }
    let port = match port {
        None | Some("") => default_port,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(bad_port)?,
    };
    Ok(Node { host: host.to_owned(), port })
}

fn read_db(text: &str) -> Result<u16, String> {
    match text.strip_suffix('/').unwrap_or(text) {
        "" => Ok(0),
        db => db.parse().map_err(|_| "a database is a number, as in redis://host:port/0".to_owned()),
    }
}

fn sentinel_login(query: &str) -> Result<Login, String> {
    let mut login = Login::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_username", user)) => login.user = unescape(user),
            Some(("sentinel_password", password)) => login.password = Some(unescape(password)),
            _ => return Err("sentinel_username and sentinel_password are allowed behind the ?".to_owned()),
        }
    }
    Ok(login)
}

/// Undoes percent-escapes where every `%` begins one and the bytes are UTF-8; other text is meant
/// as it stands.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else { return text.to_owned() };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// Puts `***` for whatever may be a secret: all before the last `@` but a user, and all behind `?`.
fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".to_owned() };
    let (login, address) = match rest.rsplit_once('@') {
        Some((login, address)) => match login.split_once(':') {
            Some((user, _)) => (format!("{user}:***@"), address),
            None => ("***@".to_owned(), address),
        },
        None => (String::new(), rest),
    };
    match address.split_once('?') {
        Some((address, _)) => format!("{scheme}://{login}{address}?***"),
        None => format!("{scheme}://{login}{address}"),
    }
}
