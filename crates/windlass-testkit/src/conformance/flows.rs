//! Jobs that wait for others: what goes on when, what is cancelled, and that it happens once.

use windlass_broker::SharedBroker;
use windlass_broker::flow::{Forwarded, cancel_tree, forward};
use windlass_jobs::command::{Ack, Cancel, Claimed, Counts, Finish, Settle, decode_options};
use windlass_jobs::flow::{Ended, Heard, News};
use windlass_jobs::{DependsOn, JobId, JobRecord, NewJob, OnClash, OnFailure, Queue, State, Ulid, Unique, When};

use super::{Bench, LONG, SHORT, claimed_ulids, done, failure, moment, some_jobs, ulids};

impl Bench {
    /// A job that waits for these.
    fn after(&self, parents: &[&NewJob]) -> NewJob {
        let mut job = some_jobs(1).remove(0);
        job.options.depends_on = Some(DependsOn::on(parents.iter().map(|parent| self.id(parent.ulid)).collect()));
        job
    }

    /// Says what the queue has to say until that is nothing more.
    async fn forward_all(&self) {
        while self.forward().await.messages > 0 {}
    }

    async fn forward(&self) -> Forwarded {
        forward(self.broker.as_ref(), &self.queue).await.unwrap()
    }

    /// Finishes one job and carries the news over.
    async fn end(&self, job: &Claimed, settle: Settle) {
        assert_eq!(self.finish(job.lease, settle).await, Ack::Taken);
        self.forward_all().await;
    }

    async fn errors_code(&self, ulid: Ulid) -> Option<String> {
        self.record(ulid).await.error.map(|error| error.code)
    }
}

/// A chain runs step by step, and each step can tell from what it follows.
pub async fn a_chain_runs_step_by_step(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let first = some_jobs(1).remove(0);
    let second = bench.after(&[&first]);
    let third = bench.after(&[&second]);
    // The end first: nothing starts before all is there.
    bench.enqueue(std::slice::from_ref(&third)).await;
    bench.enqueue(std::slice::from_ref(&second)).await;
    let forwarded = bench.forward().await;
    assert_eq!((forwarded.messages, forwarded.more), (2, false));
    assert!(forwarded.again.is_some());
    assert!(bench.claim(5).await.is_empty());
    assert_eq!(bench.counts().await, Counts { blocked: 2, enqueued_total: 2, ..Counts::default() });
    bench.enqueue(std::slice::from_ref(&first)).await;
    let waits = bench.record(third.ulid).await;
    assert_eq!((waits.state, waits.waits_for, waits.run_at), (State::Scheduled, 1, None));
    assert_eq!(waits.options.depends_on, third.options.depends_on);
    assert_eq!(bench.record(second.ulid).await.children, [bench.id(third.ulid)]);
    assert_eq!(bench.ids(State::Scheduled).await.len(), 2);
    // What is not known yet is asked again soon.
    crate::wait_until(std::time::Duration::from_secs(10), "the parent is told", async || {
        bench.forward().await;
        !bench.record(first.ulid).await.children.is_empty()
    })
    .await;
    for (job, next) in [(&first, Some(&second)), (&second, Some(&third)), (&third, None)] {
        let claimed = bench.claim(5).await;
        assert_eq!(claimed_ulids(&claimed), [job.ulid]);
        let after = decode_options(&claimed[0]).unwrap().depends_on;
        assert_eq!(after.is_some(), job.options.depends_on.is_some());
        let reply = bench.exchange(vec![Finish { lease: claimed[0].lease, settle: done() }], None).await;
        assert_eq!(reply.next_message, next.map(|_| reply.now));
        bench.forward_all().await;
        assert_eq!(
            bench.record(job.ulid).await.children,
            next.map(|next| bench.id(next.ulid)).into_iter().collect::<Vec<_>>()
        );
    }
    assert_eq!(bench.counts().await, Counts { enqueued_total: 3, success_total: 3, ..Counts::default() });
    assert_eq!(bench.record(third.ulid).await.waits_for, 0);
}

/// The callback of a group on another queue starts once, when the last member has ended, however
/// often it is told.
pub async fn a_group_calls_back_once(broker: SharedBroker) {
    let bench = Bench::new(broker.clone());
    let there = Bench::new(broker.clone());
    let members = some_jobs(7);
    let callback = bench.after(&members.iter().collect::<Vec<_>>());
    bench.enqueue(&members).await;
    there.enqueue(std::slice::from_ref(&callback)).await;
    there.forward_all().await;
    let claimed = bench.claim(7).await;
    for (n, job) in claimed.iter().enumerate() {
        assert_eq!(there.record(callback.ulid).await.waits_for, u32::try_from(7 - n).unwrap());
        bench.finish(job.lease, done()).await;
        // Whoever carries it over may be gone before it is taken off the outbox.
        let mail = broker.outbox(&bench.queue).await.unwrap();
        assert_eq!(mail.messages.len(), 1);
        assert_eq!(mail.messages[0].news, News::Ended(Ended::Success));
        for _ in 0..3 {
            let heard = broker.receive(&there.queue, &mail.messages).await.unwrap().heard;
            assert_eq!(heard, [Heard::Noted]);
        }
        bench.forward_all().await;
    }
    let again = there.claim(5).await;
    assert_eq!(claimed_ulids(&again), [callback.ulid]);
    assert_eq!(there.counts().await, Counts { running: 1, enqueued_total: 1, ..Counts::default() });
    // The same flow once more changes nothing.
    let replies = broker.enqueue(&there.queue, std::slice::from_ref(&callback)).await.unwrap();
    assert!(!replies[0].fresh);
    bench.forward_all().await;
    there.forward_all().await;
    there.end(&again[0], done()).await;
    assert!(there.claim(5).await.is_empty());
}

/// What fails cancels what depends on it, and so on; what is to run all the same, runs.
pub async fn a_failure_cancels_what_depends_on_it(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let first = some_jobs(2);
    let second = bench.after(&[&first[0], &first[1]]);
    let third = bench.after(&[&second]);
    let mut cleanup = bench.after(&[&first[0], &first[1], &third]);
    cleanup.options.depends_on.as_mut().unwrap().on_failure = OnFailure::Run;
    bench.enqueue(&[first[0].clone(), first[1].clone(), second.clone(), third.clone(), cleanup.clone()]).await;
    bench.forward_all().await;
    let claimed = bench.claim(5).await;
    assert_eq!(claimed_ulids(&claimed), ulids(&first));
    bench.end(&claimed[1], failure()).await;
    for job in [&second, &third] {
        let record = bench.record(job.ulid).await;
        assert_eq!((record.state, record.waits_for), (State::Cancelled, 0));
        assert!(record.finished_at.is_some());
        assert_eq!(bench.errors_code(job.ulid).await.as_deref(), Some("dependency"));
    }
    let message = bench.record(second.ulid).await.error.unwrap().message;
    assert_eq!(message, format!("{} ended in failure", bench.id(first[1].ulid)));
    assert!(bench.claim(5).await.is_empty(), "one has not ended");
    bench.end(&claimed[0], done()).await;
    assert_eq!(claimed_ulids(&bench.claim(5).await), [cleanup.ulid]);
    let counts = bench.counts().await;
    assert_eq!((counts.blocked, counts.cancelled_total, counts.running), (0, 2, 1));
    // A failed job that runs again tells no news: what was cancelled stays so.
    assert_eq!(bench.broker.replay(&bench.queue, &[first[1].ulid]).await.unwrap(), [true]);
    let again = bench.claim_one().await;
    bench.end(&again, done()).await;
    assert_eq!(bench.record(second.ulid).await.state, State::Cancelled);
}

/// Every way in which a job ends is told: cancelled by hand, lost with its worker, expired.
pub async fn every_end_is_told(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut parents = some_jobs(3);
    parents[2].options.expires = When::After(SHORT);
    let children: Vec<NewJob> = parents.iter().map(|parent| bench.after(&[parent])).collect();
    bench.enqueue(&parents).await;
    bench.enqueue(&children).await;
    bench.forward_all().await;
    assert_eq!(bench.cancel(parents[0].ulid).await, Cancel::Done);
    moment().await;
    for n in 0..windlass_jobs::MAX_DELIVERIES {
        let lost = bench.claim_and_lose(1).await;
        assert_eq!(claimed_ulids(&lost), [parents[1].ulid], "run {n}");
    }
    assert!(bench.claim(5).await.is_empty());
    bench.forward_all().await;
    for child in &children {
        assert_eq!(bench.errors_code(child.ulid).await.as_deref(), Some("dependency"));
    }
    // A job that waits is cancelled like any other, and what follows it with it.
    let parent = some_jobs(1).remove(0);
    let child = bench.after(&[&parent]);
    let grandchild = bench.after(&[&child]);
    bench.enqueue(&[parent.clone(), child.clone(), grandchild.clone()]).await;
    bench.forward_all().await;
    assert_eq!(bench.cancel(child.ulid).await, Cancel::Done);
    bench.forward_all().await;
    assert_eq!(bench.errors_code(grandchild.ulid).await.as_deref(), Some("dependency"));
    assert_eq!(claimed_ulids(&bench.claim(5).await), [parent.ulid]);
}

/// A job may depend on one that has ended; one that nobody knows is waited for only so long.
pub async fn parents_may_have_ended_or_be_unknown(broker: SharedBroker) {
    let bench = Bench::new(broker.clone());
    let parent = some_jobs(1).remove(0);
    bench.enqueue(std::slice::from_ref(&parent)).await;
    let running = bench.claim_one().await;
    bench.end(&running, done()).await;
    let child = bench.after(&[&parent]);
    let orphan = bench.after(&[&some_jobs(1)[0]]);
    bench.enqueue(&[child.clone(), orphan.clone()]).await;
    bench.forward().await;
    assert_eq!(claimed_ulids(&bench.claim(5).await), [child.ulid]);
    // Its queue asks again for a while, and then says that it is not known.
    let parent = orphan.options.depends_on.as_ref().unwrap().parents[0].clone();
    let news = News::Ended(Ended::Unknown);
    let message = windlass_jobs::flow::Message { to: bench.id(orphan.ulid), from: parent, news };
    broker.receive(&bench.queue, &[message]).await.unwrap();
    assert!(bench.record(orphan.ulid).await.error.unwrap().message.ends_with("is not known"));
}

/// Dependencies go with the other options: times, lanes, unique keys.
pub async fn dependencies_go_with_other_options(broker: SharedBroker) {
    let bench = Bench::new(broker.clone());
    let parent = some_jobs(1).remove(0);
    let mut later = bench.after(&[&parent]);
    later.when = When::After(LONG);
    let mut ordered = [bench.after(&[&parent]), bench.after(&[&parent])];
    ordered.iter_mut().for_each(|job| job.options.ordering_key = Some("o".into()));
    let mut unique = bench.after(&[&parent]);
    unique.options.unique = Some(Unique::new("k"));
    bench.enqueue(&[parent.clone(), later.clone(), ordered[0].clone(), ordered[1].clone(), unique.clone()]).await;
    bench.forward_all().await;
    // It holds its key while it waits, and is not replaced.
    let mut second = some_jobs(1).remove(0);
    second.options.unique = Some(Unique { on_clash: OnClash::Replace, ..Unique::new("k") });
    let clash = broker.enqueue(&bench.queue, &[second]).await.unwrap()[0].clash.unwrap();
    assert_eq!((clash.with, clash.replaced), (unique.ulid, false));
    broker.set_max_waiting(&bench.queue, Some(5)).await.unwrap();
    assert!(broker.enqueue(&bench.queue, &some_jobs(1)).await.is_err(), "five wait already");
    broker.set_max_waiting(&bench.queue, None).await.unwrap();
    let running = bench.claim_one().await;
    bench.end(&running, done()).await;
    let claimed = claimed_ulids(&bench.claim(5).await);
    assert_eq!(claimed.len(), 2);
    assert!(claimed.contains(&unique.ulid) && ordered.iter().any(|job| claimed.contains(&job.ulid)));
    let record = bench.record(later.ulid).await;
    assert_eq!(record.state, State::Scheduled);
    assert!(record.run_at.is_some());
    let counts = bench.counts().await;
    assert_eq!((counts.scheduled, counts.blocked, counts.pending), (1, 0, 1));
}

/// A whole tree is cancelled from any of its jobs, and forgotten jobs leave nothing behind.
pub async fn a_whole_tree_is_cancelled(broker: SharedBroker) {
    let bench = Bench::new(broker.clone());
    let other = Bench::new(broker.clone());
    let members = some_jobs(4);
    let callback = bench.after(&members.iter().collect::<Vec<_>>());
    bench.enqueue(&members).await;
    other.enqueue(std::slice::from_ref(&callback)).await;
    other.forward_all().await;
    let running = bench.claim_one().await;
    let replies = cancel_tree(broker.as_ref(), &bench.id(members[2].ulid), |_| true).await.unwrap();
    assert_eq!(replies.len(), 5);
    assert_eq!(replies[0], (bench.id(members[2].ulid), Cancel::Done));
    let by_hand = |id: &JobId| replies.iter().find(|(job, _)| job == id).map(|(_, reply)| *reply);
    assert_eq!(by_hand(&bench.id(running.lease.ulid)), Some(Cancel::Requested));
    assert_eq!(by_hand(&JobId::new(callback.ulid, other.queue.clone())), Some(Cancel::Done));
    bench.end(&running, Settle::Release).await;
    assert!(bench.claim(5).await.is_empty() && other.claim(5).await.is_empty());
    let states = states(&bench, &ulids(&members)).await;
    assert_eq!(states, [State::Cancelled; 4]);
    assert_eq!(broker.delete(&bench.queue, &ulids(&members)).await.unwrap(), [true; 4]);
    bench.enqueue(&members).await;
    assert!(bench.record(members[0].ulid).await.children.is_empty());
}

async fn states(bench: &Bench, ulids: &[Ulid]) -> Vec<State> {
    let mut states = Vec::new();
    for ulid in ulids {
        let JobRecord { state, .. } = bench.record(*ulid).await;
        states.push(state);
    }
    states
}

/// Many jobs wait for one, and one for many: all in slices.
pub async fn wide_flows_are_carried_over_in_slices(broker: SharedBroker) {
    let bench = Bench::new(broker.clone());
    let parent = some_jobs(1).remove(0);
    let members: Vec<NewJob> = (0..330).map(|_| bench.after(&[&parent])).collect();
    let callback = bench.after(&members.iter().collect::<Vec<_>>());
    bench.enqueue(std::slice::from_ref(&parent)).await;
    bench.enqueue(&members).await;
    bench.enqueue(std::slice::from_ref(&callback)).await;
    assert_eq!(bench.forward().await, Forwarded { messages: 100, more: true, ..Forwarded::default() });
    bench.forward_all().await;
    let first = bench.claim(5).await;
    assert_eq!(claimed_ulids(&first), [parent.ulid]);
    bench.end(&first[0], done()).await;
    let mut ended = 0;
    while ended < members.len() {
        let claimed = bench.claim(100).await;
        assert!(!claimed.is_empty() && bench.record(callback.ulid).await.state == State::Scheduled);
        ended += claimed.len();
        let finish = |claimed: &Claimed| Finish { lease: claimed.lease, settle: done() };
        bench.exchange(claimed.iter().map(finish).collect(), None).await;
        bench.forward_all().await;
    }
    assert_eq!(claimed_ulids(&bench.claim(5).await), [callback.ulid]);
}

/// A queue that nobody ever used hears what is said to it.
pub async fn an_unused_queue_answers(broker: SharedBroker) {
    let bench = Bench::new(broker.clone());
    let nowhere = Queue::new(&format!("{}-x", bench.queue)).unwrap();
    assert_eq!(forward(broker.as_ref(), &nowhere).await.unwrap(), Forwarded::default());
    let mut child = some_jobs(1).remove(0);
    child.options.depends_on = Some(DependsOn::on(vec![JobId::new(windlass_jobs::new_ulid(), nowhere)]));
    bench.enqueue(&[child]).await;
    let forwarded = bench.forward().await;
    assert!(forwarded.messages == 1 && forwarded.again.is_some());
}
