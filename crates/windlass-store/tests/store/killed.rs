//! A process that is killed between the two steps of a put.

use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use windlass_redis::{Link, Options, Value, cmd};
use windlass_store::Digest;
use windlass_store::images::{Facts, ImageId, ImageOptions, NewImage, RedisImages};
use windlass_testkit::{Fault, Proxy, RedisServer, wait_until};

const CHILD: &str = "WINDLASS_STORE_TEST_CHILD";
/// Each way of every call takes this long for the process that is killed.
const LATENCY: Duration = Duration::from_millis(400);

fn image() -> NewImage {
    NewImage {
        id: ImageId::new(),
        bytes: Bytes::from_static(b"half kept"),
        thumb: None,
        facts: Facts { symbol: "A".to_owned(), interval: "1d".to_owned(), ..Facts::default() },
        created_at: None,
        max_age: None,
    }
}

fn images(url: &str) -> (RedisImages, Link) {
    let link = Link::new(Options::from_url(url).unwrap()).unwrap();
    (RedisImages::new(link.clone(), "wl", ImageOptions::default()), link)
}

/// §9.15: kill -9 when the bytes are on the server and the script that makes an image of them has not
/// been sent. Nothing is counted, the bytes go by themselves within ten minutes, and whoever puts the
/// same image later has it whole.
#[tokio::test]
async fn a_put_that_is_killed_half_way_counts_nothing() {
    if let Ok(url) = std::env::var(CHILD) {
        images(&url).0.put(&image()).await.unwrap();
        return;
    }
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    proxy.set(Fault::Latency(LATENCY));
    let name = "killed::a_put_that_is_killed_half_way_counts_nothing";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact"])
        .env(CHILD, proxy.redis_url())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (redis, link) = images(&server.url());
    let ask = async |words: &[&str]| {
        let mut call = cmd(words[0]);
        call.arg(&words[1..]);
        link.call(&call).await.unwrap()
    };
    let blob = format!("wl:{{img}}:b:{}", Digest::of(b"half kept").hex());
    // The reply to SET is on its way to the child for 400 ms yet, and so would be its next call.
    wait_until(Duration::from_secs(20), "the bytes are set", async || ask(&["EXISTS", &blob]).await == Value::Int(1))
        .await;
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "it was ended by the signal");

    let left = ask(&["KEYS", "*"]).await;
    assert_eq!(left, Value::Array(vec![Value::BulkString(blob.clone().into())]), "the bytes alone are there");
    let stats = redis.stats().await.unwrap();
    assert_eq!((stats.count, stats.bytes, stats.puts), (0, 0, 0));
    let Value::Int(ttl_ms) = ask(&["PTTL", &blob]).await else { panic!("a number") };
    assert!((1..=600_000).contains(&ttl_ms), "{ttl_ms} ms");

    let new = image();
    redis.put(&new).await.unwrap();
    let kept = redis.get(&new.id).await.unwrap().unwrap();
    assert_eq!(redis.bytes(&kept.sha).await.unwrap().unwrap(), "half kept");
    let Value::Int(ttl_ms) = ask(&["PTTL", &blob]).await else { panic!("a number") };
    assert!(ttl_ms > 600_000, "an image's bytes live as long as it does: {ttl_ms} ms");
    assert!(redis.verify(false).await.unwrap().is_right());
    assert!(redis.delete(&new.id).await.unwrap());
    assert_eq!(ask(&["EXISTS", &blob]).await, Value::Int(0));
}
