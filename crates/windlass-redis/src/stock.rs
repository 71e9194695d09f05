//! A [`Link`] as the connection of libraries that speak through the redis crate themselves.

use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, Value};

use crate::link::Link;

/// Such a library's calls reconnect, follow sentinels and use TLS as all others do. Pipelines are
/// refused: a link's callers share connections.
impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move { self.call(command).await.map_err(crate::Error::into_client) })
    }

    fn req_packed_commands<'a>(&'a mut self, _: &'a Pipeline, _: usize, _: usize) -> RedisFuture<'a, Vec<Value>> {
        let refused = RedisError::from((ErrorKind::InvalidClientConfig, "a shared link takes no pipeline"));
        Box::pin(std::future::ready(Err(refused)))
    }

    fn get_db(&self) -> i64 {
        i64::from(self.options().db())
    }
}
