//! How a Redis is reached, and how long anything may take.

use std::fmt;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};

use crate::tls::Tls;

/// Settings that name no Redis.
#[derive(Debug, Clone, thiserror::Error)]
#[error("redis url {shown:?} cannot be used: {why}")]
pub struct BadUrl {
    /// The URL without its secrets.
    pub shown: String,
    /// What is wrong, and what is allowed.
    pub why: String,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    /// A name or an address, IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Who says it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: Option<String>,
}

/// What stands behind an address.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One server.
    Single(Node),
    /// The server that sentinels call the primary of `service`.
    Sentinel { sentinels: Vec<Node>, service: String, login: Login },
    /// A cluster, some nodes of which are these.
    Cluster(Vec<Node>),
}

/// How a Redis is reached, and how long anything may take.
#[derive(Clone)]
pub struct Options {
    pub(crate) topology: Topology,
    pub(crate) login: Login,
    pub(crate) db: u16,
    pub(crate) tls: Option<Tls>,
    /// The longest a connection may take to come up. Default 10 s.
    pub connect_timeout: Duration,
    /// The longest a reply may take. Default 5 s.
    pub response_timeout: Duration,
    /// How long a connection may be silent before TCP asks whether the other side is there; `None`:
    /// it never does. Default 10 s.
    pub keepalive: Option<Duration>,
    /// Most connections a [`Link`](crate::Link) shares among its callers, 1 or more. Another one is
    /// opened only when all have many calls under way. Default 50. On a cluster there is one to
    /// each node.
    pub max_connections: usize,
}

impl Options {
    /// Default of [`Options::connect_timeout`].
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Default of [`Options::response_timeout`].
    pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
    /// Default of [`Options::keepalive`].
    pub const KEEPALIVE: Duration = Duration::from_secs(10);
    /// Default of [`Options::max_connections`].
    pub const MAX_CONNECTIONS: usize = 50;
    /// The port of a server.
    pub const PORT: u16 = 6379;
    /// The port of a sentinel.
    pub const SENTINEL_PORT: u16 = 26379;
    /// How many times a silent connection is asked, a fifth of [`Options::keepalive`] apart.
    const KEEPALIVE_PROBES: u32 = 5;

    /// Reads a URL:
    ///
    /// - `redis://[user][:password@]host[:port][/db]`
    /// - `redis+sentinel://[user][:password@]host[:port],host[:port]/service[/db]`, with
    ///   `?sentinel_username=…&sentinel_password=…` where sentinels want their own
    /// - `redis+cluster://[user][:password@]host[:port],host[:port]`
    ///
    /// and each with `rediss` for TLS. A password may be written raw or percent-escaped; what
    /// follows the last `@` is the address. An IPv6 address stands in brackets.
    ///
    /// # Errors
    /// [`BadUrl`], never with a password in it.
    pub fn from_url(url: &str) -> Result<Self, BadUrl> {
        crate::url::parse(url)
    }

    /// One server by its parts. Without a password nobody logs in.
    #[must_use]
    pub fn from_parts(host: &str, port: u16, user: &str, password: Option<&str>, db: u16) -> Self {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let node = Node { host: host.to_owned(), port };
        Self::of(Topology::Single(node), login(user, password), db)
    }

    /// The primary of a service by its sentinels, `host[:port]` each. The sentinels' own user and
    /// password are often none.
    ///
    /// # Errors
    /// [`BadUrl`] when there is no sentinel or one of them is no address.
    pub fn from_sentinels(
        sentinels: &str,
        service: &str,
        sentinel_login: (&str, Option<&str>),
        login_at_server: (&str, Option<&str>),
        db: u16,
    ) -> Result<Self, BadUrl> {
        let sentinels = crate::url::nodes(sentinels, Self::SENTINEL_PORT)
            .map_err(|why| BadUrl { shown: sentinels.to_owned(), why })?;
        let login_at_sentinel = login(sentinel_login.0, sentinel_login.1);
        let topology = Topology::Sentinel { sentinels, service: service.to_owned(), login: login_at_sentinel };
        Ok(Self::of(topology, login(login_at_server.0, login_at_server.1), db))
    }

    pub(crate) fn of(topology: Topology, login: Login, db: u16) -> Self {
        Self {
            topology,
            login,
            db,
            tls: None,
            connect_timeout: Self::CONNECT_TIMEOUT,
            response_timeout: Self::RESPONSE_TIMEOUT,
            keepalive: Some(Self::KEEPALIVE),
            max_connections: Self::MAX_CONNECTIONS,
        }
    }

    /// Encrypts every connection, as a `rediss` URL does, with certificates from these files
    /// beside or instead of the system's. They are read at each connection anew.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// True when connections are encrypted.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// True for a cluster: keys with different hash tags lie on different servers.
    #[must_use]
    pub const fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster(_))
    }

    /// True where another server may become the one to write to.
    pub(crate) const fn is_sentinel(&self) -> bool {
        matches!(self.topology, Topology::Sentinel { .. })
    }

    /// True when both name the same data: servers and database.
    #[must_use]
    pub fn same_place(&self, other: &Self) -> bool {
        self.topology == other.topology && self.db == other.db
    }

    /// Host and port of the one server, if it is one.
    #[must_use]
    pub fn single(&self) -> Option<(&str, u16)> {
        match &self.topology {
            Topology::Single(node) => Some((&node.host, node.port)),
            _ => None,
        }
    }

    /// The number of the database.
    #[must_use]
    pub const fn db(&self) -> u16 {
        self.db
    }

    /// Who logs in; empty for the default user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.login.user
    }

    /// True when somebody logs in.
    #[must_use]
    pub const fn has_login(&self) -> bool {
        self.login.password.is_some()
    }

    /// True when this is the password.
    #[must_use]
    pub fn has_password(&self, password: &str) -> bool {
        self.login.password.as_deref() == Some(password)
    }

    /// True when both log in as the same user with the same password.
    #[must_use]
    pub fn same_login(&self, other: &Self) -> bool {
        self.login == other.login
    }

    /// Everything as a URL, with `***` for the password: for people and logs.
    #[must_use]
    pub fn shown(&self) -> String {
        let scheme = if self.is_tls() { "rediss" } else { "redis" };
        let login = match &self.login {
            Login { password: Some(_), user } => format!("{user}:***@"),
            Login { .. } => String::new(),
        };
        let list = |nodes: &[Node]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match &self.topology {
            Topology::Single(node) => format!("{scheme}://{login}{node}/{}", self.db),
            Topology::Sentinel { sentinels, service, .. } => {
                format!("{scheme}+sentinel://{login}{}/{service}/{}", list(sentinels), self.db)
            }
            Topology::Cluster(nodes) => format!("{scheme}+cluster://{login}{}", list(nodes)),
        }
    }

    /// How one of the servers is reached, with the login of the servers.
    pub(crate) fn info(&self, node: &Node) -> Result<ConnectionInfo, redis::RedisError> {
        self.info_as(node, &self.login, self.db)
    }

    pub(crate) fn info_as(&self, node: &Node, login: &Login, db: u16) -> Result<ConnectionInfo, redis::RedisError> {
        let (host, port) = (node.host.clone(), node.port);
        let address = match &self.tls {
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            None => ConnectionAddr::Tcp(host, port),
        };
        let mut settings = RedisConnectionInfo::default().set_db(i64::from(db)).set_skip_set_lib_name();
        if let Some(password) = &login.password {
            settings = settings.set_password(password);
            if !login.user.is_empty() {
                settings = settings.set_username(&login.user);
            }
        }
        let info = address.into_connection_info()?.set_redis_settings(settings);
        Ok(info.set_tcp_settings(self.tcp()))
    }

    pub(crate) fn tcp(&self) -> TcpSettings {
        let tcp = TcpSettings::default().set_nodelay(true);
        let Some(idle) = self.keepalive else { return tcp };
        let every = (idle / Self::KEEPALIVE_PROBES).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new()
            .with_time(idle.max(Duration::from_secs(1)))
            .with_interval(every)
            .with_retries(Self::KEEPALIVE_PROBES);
        tcp.set_keepalive(keepalive)
    }
}

fn login(user: &str, password: Option<&str>) -> Login {
    Login { user: user.to_owned(), password: password.map(str::to_owned) }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({})", self.shown())
    }
}
