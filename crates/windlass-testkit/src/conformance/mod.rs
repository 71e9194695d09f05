//! What every engine of the broker must do, as one test per promise.
//!
//! [`conformance!`](crate::conformance!) turns the list into tests of one engine. A case gets
//! a broker and uses queues and worker names of its own, so that cases may share a server.
//! Time is the engine's: a case waits for an instant, never for a race.

#![allow(clippy::unwrap_used, reason = "a case is a test: its panic is the failure")]

mod bulk;
mod cancel;
mod catalogue;
mod control;
mod flows;
mod kinds;
mod lanes;
mod order;
mod outages;
mod play;
mod random;
mod records;
mod runs;
mod steps;
mod told;
mod unique;
mod wakes;

use std::time::Duration;

use windlass_broker::SharedBroker;
use windlass_jobs::command::{Ack, Cancel, Claim, Claimed, Counts, Exchange, Exchanged, Finish, Settle};
use windlass_jobs::{JobId, JobRecord, Lease, NewJob, Queue, Reason, State, Ulid};

pub use bulk::{
    concurrent_workers_take_each_job_once, many_waiting_before_the_first_claim, retention_keeps_the_newest,
};
pub use cancel::{
    a_cancel_is_heard_by_the_worker, a_cancelled_run_ends_cancelled, a_cancelled_run_may_still_end,
    a_cancelled_waiting_job_is_never_claimed, a_lost_cancelled_run_ends_cancelled, cancel_in_every_state,
};
pub use catalogue::kinds_are_published;
pub use control::{
    a_deleted_id_may_come_again, a_full_queue_takes_nothing, a_paused_queue_goes_on_otherwise,
    a_replayed_job_starts_anew, a_replayed_poisoned_job_may_be_lost_again, a_resume_wakes, a_tidied_id_may_come_again,
    a_trimmed_id_may_come_again, deleted_jobs_are_gone, old_jobs_are_tidied_away, only_dead_jobs_are_replayed,
    tidy_is_bounded,
};
pub use flows::{
    a_chain_runs_step_by_step, a_failure_cancels_what_depends_on_it, a_group_calls_back_once,
    a_whole_tree_is_cancelled, an_unused_queue_answers, dependencies_go_with_other_options, every_end_is_told,
    parents_may_have_ended_or_be_unknown, wide_flows_are_carried_over_in_slices,
};
pub use kinds::{
    a_started_job_does_not_expire, an_expired_job_is_not_started, many_expired_jobs_are_passed,
    unknown_kinds_are_left_to_others, unknown_kinds_are_parked, unparked_jobs_wake,
};
pub use lanes::{
    a_cancelled_retry_frees_its_ordering_key, a_queue_runs_no_more_than_its_limit, an_ordering_key_holds_its_order,
    combined_lanes_all_come_to_their_end, concurrency_is_limited_by_key_and_queue,
    jobs_in_lanes_are_seen_and_controlled, starts_keep_to_their_rate, tenants_take_turns,
};
pub use order::{
    a_batch_of_a_thousand_keeps_its_order, a_claim_takes_no_more_than_asked, a_known_id_changes_nothing,
    a_release_goes_to_the_front, delayed_jobs_wait_their_time, finish_and_claim_in_one, first_in_first_out,
    priorities_are_strict, queues_do_not_mix, quotas_are_served_first,
};
pub use outages::{
    a_late_claim_is_not_heard, a_live_worker_is_no_killer, a_stale_word_counts_once, grace_spares_leases,
    the_first_job_says_since_when,
};
pub use random::{random_against_model, random_soak};
pub use records::{
    a_search_ends_at_its_window, an_unknown_id_is_none, counts_are_exact_through_a_life, large_values_are_byte_equal,
    options_round_trip, pages_cover_each_list_once, parked_jobs_are_found, progress_is_readable_and_cleared,
    results_and_errors_are_readable, text_is_kept_as_it_is, workers_are_listed_until_they_retire,
};
pub use runs::{
    a_failure_lies_in_the_dead_set, a_renewal_keeps_the_lease, a_retry_waits_and_counts, a_snooze_is_no_failure,
    a_stale_epoch_is_refused_alone, a_worker_killer_is_poisoned, an_expired_lease_is_claimed_again, attempts_are_kept,
    cancelled_jobs_end, the_next_instants_are_answered,
};
pub use told::{a_canary_comes_back, a_watched_job_is_told_of};
pub use unique::{
    a_debounced_job_moves_up_to_its_maximum, a_replayed_job_leaves_its_unique_key,
    a_unique_job_is_replaced_in_its_place, a_unique_job_is_the_only_one, a_unique_key_is_free_at_the_start,
    a_unique_key_is_held_for_its_time, unique_jobs_of_one_batch_clash,
};
pub use wakes::{
    a_due_time_is_passed_on, a_release_wakes, a_scheduled_job_wakes, a_wake_up_without_slots_is_passed_on,
    an_enqueue_wakes_an_idle_worker, jobs_left_over_wake_another,
};

/// A lease that no test outlives.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);
/// A lease or delay that is over after [`moment`].
pub(crate) const SHORT: Duration = Duration::from_millis(1);

/// Waits until a [`SHORT`] lease or delay is over by any engine's clock.
pub(crate) async fn moment() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// A broker with a queue and a worker name that no other case uses.
pub(crate) struct Bench {
    pub(crate) broker: SharedBroker,
    pub(crate) queue: Queue,
    pub(crate) worker: String,
}

impl Bench {
    pub(crate) fn new(broker: SharedBroker) -> Self {
        let worker = windlass_jobs::new_ulid().to_string();
        Self { broker, queue: crate::unique_queue("conf"), worker }
    }

    /// Enqueues jobs, all of which must be new.
    pub(crate) async fn enqueue(&self, jobs: &[NewJob]) {
        let replies = self.broker.enqueue(&self.queue, jobs).await.unwrap();
        assert!(replies.iter().zip(jobs).all(|(reply, job)| reply.fresh && reply.ulid == job.ulid));
        assert_eq!(replies.len(), jobs.len());
    }

    /// Enqueues `n` plain jobs.
    pub(crate) async fn enqueue_some(&self, n: usize) -> Vec<NewJob> {
        let jobs = some_jobs(n);
        self.enqueue(&jobs).await;
        jobs
    }

    pub(crate) async fn exchange(&self, finishes: Vec<Finish>, claim: Option<Claim>) -> Exchanged {
        self.broker.exchange(&self.queue, &Exchange { finishes, claim }).await.unwrap()
    }

    pub(crate) fn claim_of(&self, max: usize, lease: Duration) -> Option<Claim> {
        Some(Claim { worker: self.worker.clone(), max, lease, grace: false, sent_at: None, quotas: None })
    }

    /// Claims under a long lease.
    pub(crate) async fn claim(&self, max: usize) -> Vec<Claimed> {
        self.exchange(vec![], self.claim_of(max, LONG)).await.claimed
    }

    /// Claims one job, which must be there, under a long lease.
    pub(crate) async fn claim_one(&self) -> Claimed {
        self.claim(1).await.pop().expect("a job waits")
    }

    /// Claims under a lease that is over when this returns.
    pub(crate) async fn claim_and_lose(&self, max: usize) -> Vec<Claimed> {
        let claimed = self.exchange(vec![], self.claim_of(max, SHORT)).await.claimed;
        moment().await;
        claimed
    }

    /// Enqueues jobs and fails them for good.
    pub(crate) async fn enqueue_dead(&self, n: usize) -> Vec<Ulid> {
        self.enqueue_some(n).await;
        let claimed = self.claim(n).await;
        let finish = |claimed: &Claimed| Finish { lease: claimed.lease, settle: failure() };
        self.exchange(claimed.iter().map(finish).collect(), None).await;
        claimed_ulids(&claimed)
    }

    pub(crate) fn id(&self, ulid: Ulid) -> JobId {
        JobId::new(ulid, self.queue.clone())
    }

    pub(crate) async fn ids(&self, state: State) -> Vec<Ulid> {
        self.broker.list(&self.queue, state, 0, 500).await.unwrap().ids
    }

    pub(crate) async fn cancel(&self, ulid: Ulid) -> Cancel {
        self.broker.cancel(&self.id(ulid)).await.unwrap()
    }

    /// Finishes without a claim.
    pub(crate) async fn finish(&self, lease: Lease, settle: Settle) -> Ack {
        self.exchange(vec![Finish { lease, settle }], None).await.acks[0]
    }

    pub(crate) async fn record(&self, ulid: Ulid) -> JobRecord {
        let id = JobId::new(ulid, self.queue.clone());
        self.broker.get(&id).await.unwrap().unwrap_or_else(|| panic!("{id} is known"))
    }

    pub(crate) async fn counts(&self) -> Counts {
        self.broker.counts(&self.queue).await.unwrap()
    }
}

/// Jobs whose args are their numbers.
pub(crate) fn some_jobs(n: usize) -> Vec<NewJob> {
    (0..n).map(|i| NewJob::new("noop", &i).expect("a number is JSON")).collect()
}

pub(crate) fn ulids(jobs: &[NewJob]) -> Vec<Ulid> {
    jobs.iter().map(|job| job.ulid).collect()
}

pub(crate) fn claimed_ulids(claimed: &[Claimed]) -> Vec<Ulid> {
    claimed.iter().map(|job| job.lease.ulid).collect()
}

/// A plain success.
pub(crate) const fn done() -> Settle {
    Settle::Success { result: None, skipped: false }
}

/// Failed for good.
pub(crate) fn failure() -> Settle {
    Settle::Failure { reason: Reason::Error, failures: 1, error: error_text("no") }
}

/// Parked at once.
pub(crate) const fn parked() -> Settle {
    Settle::Unknown { delay: SHORT, park_after: Duration::ZERO }
}

/// An error as JSON text.
pub(crate) fn error_text(message: &str) -> String {
    serde_json::json!({ "code": "test", "message": message }).to_string()
}

/// One test per case for an engine.
///
/// `$make` is an async function from the number of terminal jobs to keep to a pair: the
/// [`SharedBroker`] and whatever must outlive it, such as its directory. Called where `tokio`
/// and `windlass_jobs` can be named: `conformance!(make);`. `random` says how many random verbs
/// are played, by the engine's own clock; 4,000 if left out.
#[macro_export]
macro_rules! conformance {
    ($make:path) => {
        $crate::conformance!($make, random = 4_000);
    };
    ($make:path, random = $steps:literal) => {
        $crate::conformance!($make;
            first_in_first_out
            priorities_are_strict
            quotas_are_served_first
            delayed_jobs_wait_their_time
            a_batch_of_a_thousand_keeps_its_order
            a_known_id_changes_nothing
            a_claim_takes_no_more_than_asked
            finish_and_claim_in_one
            a_release_goes_to_the_front
            queues_do_not_mix
            a_stale_epoch_is_refused_alone
            an_expired_lease_is_claimed_again
            a_renewal_keeps_the_lease
            a_worker_killer_is_poisoned
            attempts_are_kept
            a_retry_waits_and_counts
            a_snooze_is_no_failure
            cancelled_jobs_end
            a_failure_lies_in_the_dead_set
            the_next_instants_are_answered
            progress_is_readable_and_cleared
            results_and_errors_are_readable
            large_values_are_byte_equal
            options_round_trip
            text_is_kept_as_it_is
            an_unknown_id_is_none
            pages_cover_each_list_once
            a_search_ends_at_its_window
            parked_jobs_are_found
            counts_are_exact_through_a_life
            workers_are_listed_until_they_retire
            kinds_are_published
            an_enqueue_wakes_an_idle_worker
            a_scheduled_job_wakes
            jobs_left_over_wake_another
            a_release_wakes
            a_wake_up_without_slots_is_passed_on
            a_due_time_is_passed_on
            cancel_in_every_state
            a_cancelled_waiting_job_is_never_claimed
            a_cancel_is_heard_by_the_worker
            a_cancelled_run_ends_cancelled
            a_cancelled_run_may_still_end
            a_lost_cancelled_run_ends_cancelled
            a_paused_queue_goes_on_otherwise
            a_resume_wakes
            a_full_queue_takes_nothing
            only_dead_jobs_are_replayed
            a_replayed_job_starts_anew
            a_replayed_poisoned_job_may_be_lost_again
            deleted_jobs_are_gone
            a_deleted_id_may_come_again
            a_tidied_id_may_come_again
            old_jobs_are_tidied_away
            tidy_is_bounded
            an_expired_job_is_not_started
            a_started_job_does_not_expire
            many_expired_jobs_are_passed
            unknown_kinds_are_left_to_others
            unknown_kinds_are_parked
            unparked_jobs_wake
            grace_spares_leases
            a_late_claim_is_not_heard
            a_live_worker_is_no_killer
            a_stale_word_counts_once
            the_first_job_says_since_when
            a_canary_comes_back
            a_watched_job_is_told_of
            a_unique_job_is_the_only_one
            a_unique_key_is_free_at_the_start
            a_unique_key_is_held_for_its_time
            a_unique_job_is_replaced_in_its_place
            a_debounced_job_moves_up_to_its_maximum
            unique_jobs_of_one_batch_clash
            a_replayed_job_leaves_its_unique_key
            tenants_take_turns
            an_ordering_key_holds_its_order
            a_cancelled_retry_frees_its_ordering_key
            concurrency_is_limited_by_key_and_queue
            a_queue_runs_no_more_than_its_limit
            starts_keep_to_their_rate
            combined_lanes_all_come_to_their_end
            jobs_in_lanes_are_seen_and_controlled
            a_chain_runs_step_by_step
            a_group_calls_back_once
            a_failure_cancels_what_depends_on_it
            every_end_is_told
            parents_may_have_ended_or_be_unknown
            dependencies_go_with_other_options
            a_whole_tree_is_cancelled
            wide_flows_are_carried_over_in_slices
            an_unused_queue_answers
            many_waiting_before_the_first_claim
            concurrent_workers_take_each_job_once
        );

        #[tokio::test]
        async fn retention_keeps_the_newest() {
            let (broker, _guard) = $make(5).await;
            $crate::conformance::retention_keeps_the_newest(broker, 5).await;
        }

        #[tokio::test]
        async fn a_trimmed_id_may_come_again() {
            let (broker, _guard) = $make(5).await;
            $crate::conformance::a_trimmed_id_may_come_again(broker, 5).await;
        }

        #[tokio::test]
        async fn random_verbs_match_the_model() {
            $crate::conformance::random_against_model(|keep, _| $make(keep), 1, $steps).await;
        }

        /// As many steps as `WINDLASS_SOAK_STEPS` says.
        #[tokio::test]
        async fn random_soak() {
            $crate::conformance::random_soak(|keep, _| $make(keep)).await;
        }
    };
    ($make:path; $($case:ident)+) => {
        $(
            #[tokio::test]
            async fn $case() {
                let (broker, _guard) = $make(windlass_jobs::command::KEEP_TERMINAL).await;
                $crate::conformance::$case(broker).await;
            }
        )+
    };
}

/// The random tests of an engine whose clock can be in the test's hand, which wait for nothing.
///
/// `$make` is as for [`conformance!`](crate::conformance!), with the clock as its second
/// argument; `$steps` are played each time.
#[macro_export]
macro_rules! random_with_clock {
    ($make:path, $steps:literal) => {
        #[tokio::test]
        async fn random_verbs_match_the_model_to_the_millisecond() {
            $crate::conformance::random_against_model($make, 1_000, $steps).await;
        }

        /// As many steps as `WINDLASS_SOAK_STEPS` says.
        #[tokio::test]
        async fn random_soak_to_the_millisecond() {
            $crate::conformance::random_soak($make).await;
        }
    };
}
