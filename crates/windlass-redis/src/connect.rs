//! Making connections, whatever stands behind the address.

use futures_util::StreamExt as _;
use redis::aio::{ConnectionLike as _, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue as _, RedisError, TlsMode, Value};
use tokio::sync::watch;

use crate::cause::Cause;
use crate::error::Error;
use crate::options::{Node, Options, Topology};
use crate::sentinel::{Sentinels, is_primary};
use crate::tls::{certificates, client};

/// What commands travel over.
#[derive(Clone)]
pub(crate) enum Wire {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// How often a cluster's client follows a moved key, or tries another node, in one call.
const CLUSTER_TRIES: u32 = 3;

impl Wire {
    pub(crate) async fn send(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::One(connection) => connection.send_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        }
    }

    /// One right after the other on one connection to the server that holds this key; errors of
    /// single commands stand among the replies.
    pub(crate) async fn send_row(&mut self, key: &[u8], commands: &[Cmd]) -> Result<Vec<Value>, RedisError> {
        let mut row = redis::Pipeline::with_capacity(commands.len());
        for command in commands {
            row.add_command(command.clone());
        }
        match self {
            Self::One(connection) => connection.send_packed_commands(&row, 0, commands.len()).await,
            Self::Cluster(connection) => {
                let holder = SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master));
                connection.route_pipeline(row, 0, commands.len(), holder).await
            }
        }
    }

    /// To the server that holds this key.
    pub(crate) async fn send_to(&mut self, key: &[u8], command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::One(connection) => connection.send_packed_command(command).await,
            Self::Cluster(connection) => {
                let holder = SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master));
                connection.route_command(command.clone(), RoutingInfo::SingleNode(holder)).await
            }
        }
    }
}

/// Connects, in the time the options give.
pub(crate) async fn connect(options: &Options, mut moves: watch::Receiver<u64>) -> Result<Wire, Error> {
    let connecting = async {
        match &options.topology {
            Topology::Single(node) => spoken_to(options, one(options, node).await?).await.map(Wire::One),
            Topology::Sentinel { .. } => primary(options).await.map(Wire::One),
            Topology::Cluster(nodes) => cluster(options, nodes).await.map(Wire::Cluster).map_err(at_connect(options)),
        }
    };
    let late = || Error::timeout(&options.shown(), "no connection in time");
    tokio::select! {
        // A frozen primary is not waited for once there is another.
        _ = moves.changed() => Err(Error::away(&options.shown(), "another server has become the primary", Cause::Other)),
        made = tokio::time::timeout(options.connect_timeout, connecting) => made.unwrap_or_else(|_| Err(late())),
    }
}

fn at_connect(options: &Options) -> impl Fn(RedisError) -> Error + '_ {
    |e| Error::at_connect(&options.shown(), options.is_tls(), e)
}

async fn one(options: &Options, node: &Node) -> Result<MultiplexedConnection, Error> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(options.connect_timeout))
        .set_response_timeout(Some(options.response_timeout));
    let making = async {
        let client = client(options.info(node)?, options.tls.as_ref())?;
        client.get_multiplexed_async_connection_with_config(&config).await
    };
    making.await.map_err(at_connect(options))
}

/// One that has answered. Without a login nothing was said yet, and a port that speaks something
/// else would be taken for a server until the first call.
async fn spoken_to(options: &Options, mut connection: MultiplexedConnection) -> Result<MultiplexedConnection, Error> {
    match connection.send_packed_command(&redis::cmd("PING")).await {
        // A user without the right to that was answered, too.
        Ok(Value::ServerError(error)) if error.code() != "NOPERM" => Err(at_connect(options)(error.into())),
        Err(error) if error.code() != Some("NOPERM") => Err(at_connect(options)(error)),
        _ => Ok(connection),
    }
}

async fn primary(options: &Options) -> Result<MultiplexedConnection, Error> {
    let sentinels = sentinels(options)?;
    let mut last = sentinels.nobody();
    let mut primaries = std::pin::pin!(sentinels.primaries());
    while let Some(node) = primaries.next().await {
        let checked = async {
            let mut connection = one(options, &node).await?;
            let is_primary = is_primary(&mut connection).await.map_err(at_connect(options))?;
            is_primary.then_some(connection).ok_or_else(|| sentinels.nobody())
        };
        match checked.await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn sentinels(options: &Options) -> Result<Sentinels<'_>, Error> {
    match &options.topology {
        Topology::Sentinel { sentinels, service, login } => Ok(Sentinels { options, nodes: sentinels, service, login }),
        _ => Err(Error::away(&options.shown(), "no sentinels are named", Cause::NoPrimary)),
    }
}

async fn cluster(options: &Options, nodes: &[Node]) -> Result<ClusterConnection, RedisError> {
    let infos = nodes.iter().map(|node| options.info(node)).collect::<Result<Vec<_>, _>>()?;
    let mut builder = ClusterClient::builder(infos)
        .connection_timeout(options.connect_timeout)
        .response_timeout(options.response_timeout)
        .overall_response_timeout(Some(options.response_timeout))
        .retries(CLUSTER_TRIES)
        .tcp_settings(options.tcp());
    if let Some(tls) = &options.tls {
        builder = builder.tls(TlsMode::Secure).certs(certificates(tls)?);
    }
    builder.build()?.get_async_connection().await
}

/// A connection for messages. They reach every node of a cluster, so any one does.
pub(crate) async fn messages(options: &Options, known: &[Node]) -> Result<PubSub, Error> {
    let open = async |node: &Node| {
        let opening = async { client(options.info(node)?, options.tls.as_ref())?.get_async_pubsub().await };
        let late = || Error::timeout(&options.shown(), "no connection in time");
        match tokio::time::timeout(options.connect_timeout, opening).await {
            Ok(made) => made.map_err(at_connect(options)),
            Err(_) => Err(late()),
        }
    };
    match &options.topology {
        Topology::Single(node) => open(node).await,
        Topology::Sentinel { .. } => {
            let sentinels = sentinels(options)?;
            let mut last = sentinels.nobody();
            let mut primaries = std::pin::pin!(sentinels.primaries());
            while let Some(node) = primaries.next().await {
                match open(&node).await {
                    Ok(messages) => return Ok(messages),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        Topology::Cluster(nodes) => {
            let mut last = Error::timeout(&options.shown(), "no node answers");
            for node in nodes.iter().chain(known.iter().filter(|node| !nodes.contains(node))) {
                match open(node).await {
                    Ok(messages) => return Ok(messages),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

/// The addresses in an answer to `CLUSTER SLOTS`: start, end, then address, port and more of each
/// node that holds the range.
pub(crate) fn cluster_nodes(slots: Value) -> Vec<Node> {
    let Value::Array(ranges) = slots else { return Vec::new() };
    let mut nodes = Vec::new();
    for range in ranges {
        let Value::Array(fields) = range else { continue };
        for holder in fields.into_iter().skip(2) {
            let Value::Array(about) = holder else { continue };
            let mut about = about.into_iter();
            let host = about.next().and_then(|host| String::from_redis_value(host).ok());
            let port = about.next().and_then(|port| u16::from_redis_value(port).ok());
            if let (Some(host), Some(port)) = (host, port)
                && !host.is_empty()
                && !nodes.contains(&Node { host: host.clone(), port })
            {
                nodes.push(Node { host, port });
            }
        }
    }
    nodes
}
