//! Who the primary is, as sentinels tell it.

use std::collections::HashSet;
use std::sync::Weak;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, FromRedisValue as _, Value};

use crate::cause::Cause;
use crate::error::Error;
use crate::link::Inner;
use crate::options::{Login, Node, Options};
use crate::tls::client;

/// How long a sentinel may take to answer: it has nothing else to do.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The channel on which a sentinel says that another server has become the primary.
const SWITCHED: &str = "+switch-master";

/// Whom to ask, and for what.
pub(crate) struct Sentinels<'a> {
    pub(crate) options: &'a Options,
    pub(crate) nodes: &'a [Node],
    pub(crate) service: &'a str,
    pub(crate) login: &'a Login,
}

impl Sentinels<'_> {
    /// What all sentinels answer, each server once, as it is named. Asked at the same time: one
    /// that is away costs nothing, and one that is cut off and names an old primary is not the only
    /// one heard.
    pub(crate) fn primaries(&self) -> impl Stream<Item = Node> + '_ {
        let answers: FuturesUnordered<_> = self.nodes.iter().map(|node| self.ask(node)).collect();
        let mut seen = HashSet::new();
        answers.filter_map(std::future::ready).filter(move |node| std::future::ready(seen.insert(node.clone())))
    }

    /// What is wrong when none of them named a server that works.
    pub(crate) fn nobody(&self) -> Error {
        Error::away(&self.options.shown(), "no sentinel names a primary that answers", Cause::NoPrimary)
    }

    async fn ask(&self, sentinel: &Node) -> Option<Node> {
        let asking = async {
            let info = self.options.info_as(sentinel, self.login, 0)?;
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(ANSWER_WITHIN))
                .set_response_timeout(Some(ANSWER_WITHIN));
            let client = client(info, self.options.tls.as_ref())?;
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            let mut command = redis::cmd("SENTINEL");
            command.arg("GET-MASTER-ADDR-BY-NAME").arg(self.service);
            let reply: Option<(String, u16)> = command.query_async(&mut connection).await?;
            Ok::<_, redis::RedisError>(reply)
        };
        match tokio::time::timeout(ANSWER_WITHIN, asking).await {
            Ok(Ok(Some((host, port)))) => Some(Node { host, port }),
            Ok(Ok(None)) => {
                tracing::warn!(sentinel = %sentinel, service = self.service, "sentinel does not know the service");
                None
            }
            Ok(Err(error)) => {
                tracing::debug!(sentinel = %sentinel, %error, "sentinel does not answer");
                None
            }
            Err(_) => None,
        }
    }

    async fn listen(&self, sentinel: &Node) -> Result<PubSub, redis::RedisError> {
        let info = self.options.info_as(sentinel, self.login, 0)?;
        let mut messages = client(info, self.options.tls.as_ref())?.get_async_pubsub().await?;
        messages.subscribe(SWITCHED).await?;
        Ok(messages)
    }
}

/// True when the server is a primary. One that was, and does not know better yet, says so too; its
/// first refused write ends that.
pub(crate) async fn is_primary(connection: &mut MultiplexedConnection) -> Result<bool, redis::RedisError> {
    match connection.send_packed_command(&redis::cmd("ROLE")).await? {
        Value::Array(fields) => {
            let role = fields.into_iter().next().and_then(|role| String::from_redis_value(role).ok());
            Ok(role.is_some_and(|role| role == "master"))
        }
        // A user without the right to ask takes the sentinels' word.
        Value::ServerError(error) if error.code() == "NOPERM" => Ok(true),
        Value::ServerError(error) => Err(error.into()),
        _ => Ok(false),
    }
}

/// Tells a link when another server has become the primary, for as long as the link lives.
pub(crate) async fn watch(link: Weak<Inner>) {
    let mut turn = 0;
    while let Some(inner) = link.upgrade() {
        let options = inner.options.clone();
        drop(inner);
        let crate::options::Topology::Sentinel { sentinels, service, login } = &options.topology else { return };
        let all = Sentinels { options: &options, nodes: sentinels, service, login };
        let sentinel = &sentinels[turn % sentinels.len()];
        turn += 1;
        if let Ok(Ok(messages)) = tokio::time::timeout(ANSWER_WITHIN, all.listen(sentinel)).await {
            hear(&link, service, messages).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Passes on what one sentinel says, until it is heard no more.
async fn hear(link: &Weak<Inner>, service: &str, messages: PubSub) {
    let (mut sink, mut messages) = messages.split();
    let mut probe = tokio::time::interval(Duration::from_secs(5));
    probe.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return };
                let text = message.get_payload::<String>().unwrap_or_default();
                // `name old-ip old-port new-ip new-port`
                let mut words = text.split(' ');
                if words.next() == Some(service) {
                    let Some(inner) = link.upgrade() else { return };
                    tracing::info!(service, to = words.skip(2).collect::<Vec<_>>().join(":"), "another Redis is the primary now");
                    inner.moved();
                }
            }
            _ = probe.tick() => {
                if link.strong_count() == 0 {
                    return;
                }
                let answered = tokio::time::timeout(ANSWER_WITHIN, sink.ping::<Value>()).await;
                if !matches!(answered, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}
