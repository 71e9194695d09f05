//! F29: a cluster whose slots move and whose nodes die.

use std::time::{Duration, Instant};

use windlass_redis::{Link, Message, Script, Value};
use windlass_testkit::RedisCluster;

use crate::{SOON, get, link, set};

async fn add(script: &Script, link: &Link, key: &str) -> Result<Value, windlass_redis::Error> {
    let mut call = script.on(key);
    call.arg("x");
    script.run(link, &call).await
}

#[tokio::test]
async fn f29_scripts_follow_a_moved_slot_and_a_new_primary() {
    let cluster = RedisCluster::start(3, 1);
    let link = link(&cluster.url());
    let script = Script::new("return redis.call('SADD', KEYS[1], ARGV[1], KEYS[1])");
    let keys: Vec<String> = (0..20).map(|n| format!("{{q{n}}}:s")).collect();
    for key in &keys {
        assert_eq!(add(&script, &link, key).await.unwrap(), Value::Int(2), "{key}");
    }
    assert_eq!(link.info("server").await.unwrap().len(), 3, "one text of each primary");

    // Messages reach every node.
    let mut messages = windlass_redis::subscribe(&link, "news".to_owned());
    assert_eq!(messages.recv().await, Some(Message::Subscribed));
    let publish = Script::new("return redis.call('PUBLISH', 'news', KEYS[1])");
    for key in &keys {
        publish.run(&link, &publish.on(key)).await.unwrap();
    }
    for _ in &keys {
        let message = tokio::time::timeout(SOON, messages.recv()).await.unwrap();
        assert!(matches!(message, Some(Message::Text(_))), "{message:?}");
    }

    cluster.move_slot_of(&keys[0]);
    assert_eq!(add(&script, &link, &keys[0]).await.unwrap(), Value::Int(0), "what was there moved along");

    cluster.holder(&keys[1]).kill();
    let begun = Instant::now();
    while let Err(error) = set(&link, &keys[1], "new").await {
        assert!(begun.elapsed() < Duration::from_secs(15), "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("resumed {:?} after a killed node", begun.elapsed());
    assert_eq!(get(&link, &keys[1]).await, "new");
}
