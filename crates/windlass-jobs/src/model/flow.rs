//! Jobs that wait for others: see [`crate::flow`].

use super::Model;
use crate::command::SLICE;
use crate::flow::{DependsOn, Ended, Heard, Message, News, OnFailure, dependency_error};
use crate::id::{JobId, Ulid};
use crate::job::State;
use crate::time::Timestamp;

impl Model {
    /// Holds a job until its parents have ended, and asks each to be told.
    pub(super) fn hold(&mut self, ulid: Ulid, after: &DependsOn, run_at: Option<Timestamp>, now: Timestamp) {
        self.blocked.insert((run_at.unwrap_or_default(), ulid));
        let from = JobId::new(ulid, self.queue.clone());
        for parent in &after.parents {
            let message = Message { to: parent.clone(), from: from.clone(), news: News::Waits(now) };
            self.outbox.insert(message.to_string(), now);
        }
    }

    /// A job has ended: its unique key is free, and whoever waits for it is told.
    pub(super) fn ended(&mut self, ulid: Ulid, now: Timestamp) {
        self.let_go(ulid);
        let Some(job) = self.jobs.get_mut(&ulid) else { return };
        job.record.waits_for = 0;
        job.open.clear();
        let Some(ended) = Ended::of(job.record.state) else { return };
        for child in &job.record.children {
            let message = Message { to: child.clone(), from: job.record.id.clone(), news: News::Ended(ended) };
            self.outbox.insert(message.to_string(), now);
        }
    }

    /// What is to be said to other queues by now, [`SLICE`] messages at most.
    #[must_use]
    pub fn outbox(&self, now: Timestamp) -> Vec<Message> {
        let mut due: Vec<_> = self.outbox.iter().filter(|(_, at)| **at <= now).collect();
        due.sort_by_key(|(text, at)| (**at, *text));
        due.into_iter().take(SLICE).filter_map(|(text, _)| Message::parse(&self.queue, text)).collect()
    }

    /// Takes what was carried over off the outbox, and puts off until `later` what is to be said
    /// again.
    pub fn sent(&mut self, done: &[Message], again: &[Message], later: Timestamp) {
        for message in done {
            self.outbox.remove(&message.to_string());
        }
        for message in again {
            if let Some(at) = self.outbox.get_mut(&message.to_string()) {
                *at = later;
            }
        }
    }

    /// Hears what other queues have to say. Answers each, and the idle worker to wake.
    pub fn receive(&mut self, messages: &[Message], now: Timestamp) -> (Vec<Heard>, Option<String>) {
        let mut any = false;
        let hear = |message: &Message| match message.news {
            News::Waits(_) => self.note_child(message.to.ulid, &message.from),
            News::Ended(ended) => {
                any |= self.parent_ended(message.to.ulid, &message.from, ended, now);
                Heard::Noted
            }
        };
        let heard = messages.iter().map(hear).collect();
        self.trim();
        let wake = if any { self.idle.pop_first() } else { None };
        (heard, wake)
    }

    fn note_child(&mut self, ulid: Ulid, child: &JobId) -> Heard {
        let Some(job) = self.jobs.get_mut(&ulid) else { return Heard::Ended(Ended::Unknown) };
        if let Err(at) = job.record.children.binary_search(child) {
            job.record.children.insert(at, child.clone());
        }
        Ended::of(job.record.state).map_or(Heard::Noted, Heard::Ended)
    }

    /// Answers whether the job waits no longer.
    fn parent_ended(&mut self, ulid: Ulid, parent: &JobId, ended: Ended, now: Timestamp) -> bool {
        let Some(job) = self.jobs.get_mut(&ulid) else { return false };
        if !job.open.remove(parent) {
            return false;
        }
        job.record.waits_for -= 1;
        let on_failure = job.record.options.depends_on.as_ref().map_or(OnFailure::Cancel, |after| after.on_failure);
        let cancels = ended != Ended::Success && on_failure == OnFailure::Cancel;
        if !cancels && !job.open.is_empty() {
            return false;
        }
        let run_at = job.record.run_at;
        self.blocked.remove(&(run_at.unwrap_or_default(), ulid));
        match run_at.filter(|at| *at > now) {
            _ if cancels => self.end_cancelled(ulid, &dependency_error(parent, ended), now),
            Some(at) => {
                self.due.insert((at, ulid));
            }
            None => self.join_queue(ulid),
        }
        true
    }

    /// True while a job waits for others.
    pub(super) fn is_blocked(&self, ulid: Ulid) -> bool {
        self.jobs.get(&ulid).is_some_and(|job| job.record.state == State::Scheduled && !job.open.is_empty())
    }
}
