//! Who has a job open hears when it changes: one subscription per queue and process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use windlass_jobs::{JobId, Queue, Ulid};
use windlass_redis::{Link, Message, cmd};

use super::keys::Keys;

type Listeners = HashMap<Ulid, Vec<mpsc::UnboundedSender<()>>>;

/// The open watches of this process.
#[derive(Debug, Clone, Default)]
pub(super) struct Watches(Arc<Mutex<HashMap<Queue, Listeners>>>);

impl Watches {
    /// Starts watching a job until the receiver is dropped. The first word may come at once.
    pub(super) fn watch(&self, link: &Link, keys: &Keys, id: &JobId) -> mpsc::UnboundedReceiver<()> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !queues.contains_key(&id.queue);
        queues.entry(id.queue.clone()).or_default().entry(id.ulid).or_default().push(sender.clone());
        let (watches, link, keys, id) = (self.clone(), link.clone(), keys.clone(), id.clone());
        tokio::spawn(async move {
            if is_first {
                watches.listen(&link, &keys, &id.queue).await;
            } else {
                register(&link, &keys, &id.queue, &[id.ulid]).await;
                // What changed before the job was on the list is asked for now.
                let _ = sender.send(());
            }
        });
        receiver
    }

    /// Passes on what the queue's channel says, for as long as anyone watches.
    async fn listen(&self, link: &Link, keys: &Keys, queue: &Queue) {
        let mut messages = windlass_redis::subscribe(link, keys.watched(queue));
        let mut sweep = tokio::time::interval(std::time::Duration::from_secs(5));
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(Message::Subscribed) => {
                        register(link, keys, queue, &self.open(queue)).await;
                        self.tell(queue, None);
                    }
                    Some(Message::Text(text)) => {
                        let ulid = Ulid::from_string(&text).ok();
                        self.tell(queue, ulid);
                        // An ended job is taken off the list; who still listens wants to go on.
                        let open: Vec<Ulid> = self.open(queue).into_iter().filter(|open| Some(*open) == ulid).collect();
                        register(link, keys, queue, &open).await;
                    }
                    None => return,
                },
                _ = sweep.tick() => {}
            }
            let (closed, is_over) = self.drop_closed(queue);
            change(link, "SREM", keys, queue, &closed).await;
            if is_over {
                return;
            }
        }
    }

    fn open(&self, queue: &Queue) -> Vec<Ulid> {
        let queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.get(queue).map(|listeners| listeners.keys().copied().collect()).unwrap_or_default()
    }

    /// Tells who watches this job; `None`: everyone.
    fn tell(&self, queue: &Queue, ulid: Option<Ulid>) {
        let queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(listeners) = queues.get(queue) else { return };
        for (watched, senders) in listeners {
            if ulid.is_none_or(|ulid| ulid == *watched) {
                senders.iter().for_each(|sender| {
                    let _ = sender.send(());
                });
            }
        }
    }

    /// The jobs nobody watches any more, and whether that was the queue's last.
    fn drop_closed(&self, queue: &Queue) -> (Vec<Ulid>, bool) {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(listeners) = queues.get_mut(queue) else { return (Vec::new(), true) };
        let mut closed = Vec::new();
        listeners.retain(|ulid, senders| {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                closed.push(*ulid);
            }
            !senders.is_empty()
        });
        let is_over = listeners.is_empty();
        if is_over {
            queues.remove(queue);
        }
        (closed, is_over)
    }
}

/// Puts ids on the queue's list of watched jobs.
async fn register(link: &Link, keys: &Keys, queue: &Queue, ulids: &[Ulid]) {
    change(link, "SADD", keys, queue, ulids).await;
}

/// Changes the queue's list of watched jobs. A Redis that is away is asked again after the next
/// reconnect; the watcher looks for itself now and then.
async fn change(link: &Link, command: &str, keys: &Keys, queue: &Queue, ulids: &[Ulid]) {
    if ulids.is_empty() {
        return;
    }
    let mut call = cmd(command);
    call.arg(keys.watch(queue));
    for ulid in ulids {
        call.arg(ulid.to_string());
    }
    if let Err(error) = link.call(&call).await {
        tracing::debug!(%error, "the list of watched jobs is not changed");
    }
}
