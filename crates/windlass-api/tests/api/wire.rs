//! What only a real socket shows: closed connections, slow heads, the end of the server.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use windlass_api::{Api, ApiOptions, Error, serve};

use crate::support::Bench;

/// Far above anything that should happen, for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    at: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), Error>>,
}

async fn start(api: &Api) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
    };
    let served = tokio::spawn(serve(listener, api.clone(), shutdown));
    Server { at, stop, served }
}

/// Sends text and reads until the server closes.
async fn talk(at: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is the server closing on a body it did not want.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8(answer).unwrap()
}

/// Reads until the text holds `wanted`.
async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(wanted) {
        let n = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("an answer").unwrap();
        assert!(n > 0, "closed before {wanted:?}: {text}");
        text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    text
}

async fn open_events(at: SocketAddr, id: &windlass_jobs::JobId) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream
        .write_all(format!("GET /api/tasks/{id}/events HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
        .await
        .unwrap();
    stream
}

#[tokio::test]
async fn requests_are_answered_and_the_end_is_in_order() {
    let bench = Bench::new();
    let id = bench.echo().await;
    let server = start(&bench.api).await;
    let answer = talk(server.at, "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("server:"), "{answer}");
    // An open stream and an idle connection hold no shutdown up.
    let mut events = open_events(server.at, &id).await;
    read_until(&mut events, "event: state").await;
    let mut idle = TcpStream::connect(server.at).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut idle, "OK\"}").await;
    server.stop.send(()).unwrap();
    timeout(PATIENCE / 4, server.served).await.expect("well before the drain timeout").unwrap().unwrap();
    let mut rest = String::new();
    events.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "the stream ended in order: {rest:?}");
}

/// B05: the connection is closed without reading the rest.
#[tokio::test]
async fn an_endless_body_is_cut() {
    let bench = Bench::new();
    let server = start(&bench.api).await;
    let mut stream = TcpStream::connect(server.at).await.unwrap();
    let head = "POST /api/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 65_536, " ".repeat(65_536));
    let mut sent = 0_usize;
    while timeout(PATIENCE, stream.write_all(chunk.as_bytes())).await.expect("taken or refused").is_ok() {
        sent += 65_536;
        assert!(sent < 256 * 1024 * 1024, "the server reads for ever");
    }
    let announced = "POST /api/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99999999\r\n\r\n";
    let answer = talk(server.at, announced).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close"), "{answer}");
}

/// B06: neither a slow head nor an idle connection is kept for ever.
#[tokio::test]
async fn slow_heads_are_closed_at_the_deadline() {
    let options = ApiOptions { head_timeout: Duration::from_millis(200), ..ApiOptions::default() };
    let bench = Bench::with(options);
    let server = start(&bench.api).await;
    talk(server.at, "").await;
    talk(server.at, "GET /livez HTTP/1.1\r\nhost: loc").await;
    let answer = talk(server.at, "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "and an idle one after its answer: {answer}");
}

/// B09: what no router ever sees is refused below it.
#[tokio::test]
async fn malformed_heads_are_refused() {
    let bench = Bench::new();
    let server = start(&bench.api).await;
    for head in [
        "GET /a\0b HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        assert!(talk(server.at, head).await.starts_with("HTTP/1.1 400 "), "{head:?}");
    }
    let long = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(200_000));
    assert!(talk(server.at, &long).await.starts_with("HTTP/1.1 431 "));
}

/// B35: a client that vanishes without a word frees its place.
#[tokio::test]
async fn a_vanished_reader_of_events_frees_its_place() {
    let bench = Bench::with(ApiOptions { event_streams: 1, ..ApiOptions::default() });
    let id = bench.echo().await;
    let server = start(&bench.api).await;
    let mut first = open_events(server.at, &id).await;
    read_until(&mut first, "event: state").await;
    let mut second = open_events(server.at, &id).await;
    read_until(&mut second, "too_many_streams").await;
    drop(first);
    let freed = async {
        loop {
            let mut again = open_events(server.at, &id).await;
            if read_until(&mut again, "\r\n").await.starts_with("HTTP/1.1 200") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, freed).await.expect("its place is free again");
}

#[tokio::test]
async fn without_keys_only_loopback_is_served() {
    let listen = async || TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = serve(listen().await, Bench::new().api, std::future::ready(())).await;
    assert!(matches!(refused, Err(Error::OpenToTheWorld(_))), "{refused:?}");
    serve(listen().await, Bench::for_keys(ApiOptions::default()).api, std::future::ready(())).await.unwrap();
    let small = ApiOptions { bodies_bytes: 1, ..ApiOptions::default() };
    let refused = serve(listen().await, Bench::with(small).api, std::future::ready(())).await.unwrap_err();
    assert_eq!(refused.to_string(), "bodies_bytes: 1; at least the largest body, 67108864, is allowed");
    let none = ApiOptions { event_streams: 0, ..ApiOptions::default() };
    assert!(matches!(none.check(), Err(Error::Option { setting: "event_streams", .. })));
}
