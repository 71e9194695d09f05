//! The private redis-server: comes up, dies, comes back, freezes, ends with its owner.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use windlass_testkit::{RedisServer, shared_redis};

fn ask(server: &RedisServer, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port()))?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut buffer = [0; 256];
    let n = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

#[test]
fn a_killed_server_comes_back_with_its_data() {
    let server = RedisServer::builder().append_only("always").start();
    assert_eq!(ask(&server, "SET a 1").unwrap(), "+OK\r\n");
    let first = server.pid();
    server.kill();
    assert!(ask(&server, "PING").is_err());
    server.restart();
    assert_ne!(server.pid(), first);
    assert_eq!(ask(&server, "GET a").unwrap(), "$1\r\n1\r\n");
}

#[test]
fn a_frozen_server_answers_after_the_thaw() {
    let server = RedisServer::builder().max_memory("10mb", "noeviction").start();
    server.freeze();
    assert!(ask(&server, "PING").is_err());
    server.thaw();
    assert_eq!(ask(&server, "PING").unwrap(), "+PONG\r\n");
}

#[test]
fn a_dropped_server_is_gone() {
    let server = RedisServer::start();
    let (pid, dir) = (server.pid(), server.dir().to_owned());
    drop(server);
    assert!(!dir.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

/// The kernel ends a child with the thread that forked it: that must not be the test's.
#[test]
fn the_shared_server_outlives_the_thread_that_asked_first() {
    let first = std::thread::spawn(|| shared_redis().pid()).join().unwrap();
    assert_eq!(shared_redis().pid(), first);
    assert_eq!(ask(shared_redis(), "PING").unwrap(), "+PONG\r\n");
}
