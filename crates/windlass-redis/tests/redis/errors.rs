//! What each error a server can answer means (F22): a table over canned answers.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use windlass_redis::{Class, Link, Options, cmd};

/// A server that answers every command with these bytes.
async fn answering(answer: &'static [u8]) -> Link {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    // Each command of a pipeline is an array: one answer for each.
                    let commands = buffer[..n].iter().filter(|byte| **byte == b'*').count();
                    for _ in 0..commands {
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    let mut options = Options::from_url(&format!("redis://127.0.0.1:{port}")).unwrap();
    options.connect_timeout = Duration::from_secs(2);
    options.response_timeout = Duration::from_millis(300);
    Link::new(options).unwrap()
}

#[tokio::test]
async fn f22_every_error_says_what_to_do() {
    let table: [(&'static [u8], Class); 19] = [
        (b"-LOADING Redis is loading the dataset in memory\r\n", Class::Retryable),
        (b"-BUSY Redis is busy running a script\r\n", Class::Retryable),
        (b"-MISCONF Errors writing to the AOF file\r\n", Class::Retryable),
        (b"-READONLY You can't write against a read only replica.\r\n", Class::Retryable),
        (b"-NOREPLICAS Not enough good replicas to write.\r\n", Class::Retryable),
        (b"-MASTERDOWN Link with MASTER is down\r\n", Class::Retryable),
        (b"-CLUSTERDOWN The cluster is down\r\n", Class::Retryable),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", Class::Retryable),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", Class::Retryable),
        (b"-ASK 3999 127.0.0.1:6381\r\n", Class::Retryable),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", Class::Full),
        (b"-ERR Error running script: -OOM command not allowed when used memory > 'maxmemory'.\r\n", Class::Full),
        (b"-NOAUTH Authentication required.\r\n", Class::Denied),
        (b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", Class::Denied),
        (b"-NOPERM this user has no permissions to run the 'evalsha' command\r\n", Class::Denied),
        (b"-ERR The user executing the script can't run this command\r\n", Class::Denied),
        (b"-ERR unknown command 'X'\r\n", Class::Bug),
        (b"this is no redis\r\n", Class::Retryable),
        (b"", Class::Retryable),
    ];
    let mut rows = tokio::task::JoinSet::new();
    for (answer, class) in table {
        rows.spawn(async move {
            let shown = String::from_utf8_lossy(answer);
            let link = answering(answer).await;
            // The same again on whatever is left of the connection.
            for attempt in 0..2 {
                let error = link.call(&cmd("PING")).await.expect_err(&shown);
                assert_eq!(error.class(), class, "{shown:?}, attempt {attempt}: {error:?}");
            }
        });
    }
    while let Some(row) = rows.join_next().await {
        row.unwrap();
    }
}
