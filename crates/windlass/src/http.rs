//! One question to an HTTP server of this installation: plain HTTP/1.0, which ends with its answer.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long the whole exchange may take.
const WITHIN: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// The status and the body of `GET url`, where `url` is `http://host:port/path`, with a key if there is one.
///
/// # Errors
/// When nothing answers there in time, or something else than HTTP.
pub(crate) async fn get(url: &str, key: Option<&str>) -> anyhow::Result<(u16, String)> {
    let Some(rest) = url.strip_prefix("http://") else { bail!("{url}: http://host:port/path is allowed") };
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let exchange = async {
        let mut stream = TcpStream::connect(&address).await?;
        let key = key.map_or(String::new(), |key| format!("Authorization: Bearer {key}\r\n"));
        let head = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nAccept: */*\r\n{key}\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(WITHIN, exchange)
        .await
        .with_context(|| format!("{url}: no answer in {} s", WITHIN.as_secs()))?
        .with_context(|| url.to_owned())?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{url}: that is not HTTP"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.with_context(|| format!("{url}: that is not HTTP"))?, body.to_owned()))
}
