//! Messages of channels, over a connection of their own that comes back.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;

use crate::connect::{cluster_nodes, messages};
use crate::link::Link;
use crate::options::Node;

/// What a subscription says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The subscription stands, now or again: messages before this may have been missed.
    Subscribed,
    /// A message.
    Text(String),
}

/// Subscribes to a channel for as long as the receiver lives. Lost connections are made
/// again, first at once, then at most 1 s apart.
#[must_use]
pub fn subscribe(link: &Link, channel: String) -> mpsc::UnboundedReceiver<Message> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let link = link.clone();
    tokio::spawn(async move {
        let mut wait = Duration::from_millis(50);
        // A cluster may lose every node that the options name.
        let mut known = Vec::new();
        while !sender.is_closed() {
            if listen(&link, &channel, &sender, &mut known).await {
                wait = Duration::from_millis(50);
            }
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(Duration::from_secs(1));
        }
    });
    receiver
}

/// Listens until the connection breaks or nobody is interested; true when it stood at all.
async fn listen(link: &Link, channel: &str, sender: &mpsc::UnboundedSender<Message>, known: &mut Vec<Node>) -> bool {
    let mut moves = link.moves();
    let subscribing = async {
        let mut pubsub = messages(link.options(), known).await.ok()?;
        pubsub.subscribe(channel).await.ok()?;
        Some(pubsub)
    };
    let limit = link.options().connect_timeout * u32::try_from(1 + known.len()).unwrap_or(1);
    let subscribed = tokio::select! {
        _ = moves.changed() => None,
        subscribed = tokio::time::timeout(limit, subscribing) => subscribed.ok().flatten(),
    };
    let Some(pubsub) = subscribed else { return false };
    if sender.send(Message::Subscribed).is_err() {
        return true;
    }
    if link.options().is_cluster()
        && let Ok(slots) = link.call_at(channel.as_bytes(), redis::cmd("CLUSTER").arg("SLOTS")).await
    {
        *known = cluster_nodes(slots);
    }
    let (mut sink, mut messages) = pubsub.split();
    // A half-open connection says nothing for ever: ask it now and then.
    let mut probe = tokio::time::interval(Duration::from_secs(5));
    probe.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = sender.closed() => return true,
            // What the old primary hears reaches nobody once it is cut off.
            _ = moves.changed() => return true,
            message = messages.next() => match message {
                Some(message) => {
                    let text = message.get_payload::<String>().unwrap_or_default();
                    if sender.send(Message::Text(text)).is_err() {
                        return true;
                    }
                }
                None => return true,
            },
            _ = probe.tick() => {
                let answered = tokio::time::timeout(link.options().response_timeout, sink.ping::<redis::Value>()).await;
                if !matches!(answered, Ok(Ok(_))) {
                    return true;
                }
            }
        }
    }
}
