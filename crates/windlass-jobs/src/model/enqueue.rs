//! Taking jobs in, and what unique keys do to it.

use std::collections::BTreeSet;

use super::{Full, Hold, Job, Model, len};
use crate::command::{Clash, Enqueued};
use crate::durability::Durability;
use crate::id::{JobId, Ulid};
use crate::job::{DEFAULT_MAX_ATTEMPTS, JobRecord, NewJob, Options, State, When};
use crate::time::Timestamp;
use crate::unique::{OnClash, Until};

impl Model {
    /// Accepts jobs, all or none. A known id changes nothing.
    ///
    /// A job whose unique key is held is not accepted: see [`Unique`](crate::Unique). Answers what
    /// became of each, in order, and the idle worker to wake, if any.
    ///
    /// # Errors
    /// [`Full`] when more would wait than [`Model::set_max_waiting`] allows; known ids count
    /// for nothing, jobs that would clash count.
    pub fn enqueue(&mut self, jobs: &[NewJob], now: Timestamp) -> Result<(Vec<Enqueued>, Option<String>), Full> {
        if let Some(max_waiting) = self.totals.max_waiting {
            let fresh: BTreeSet<Ulid> =
                jobs.iter().map(|job| job.ulid).filter(|id| !self.jobs.contains_key(id)).collect();
            if !fresh.is_empty() && self.waiting_count() + len(fresh.len()) > max_waiting {
                return Err(Full { max_waiting });
            }
        }
        let mut replies = Vec::with_capacity(jobs.len());
        let mut any = false;
        for job in jobs {
            let reply = if self.jobs.contains_key(&job.ulid) {
                Enqueued::known(job.ulid)
            } else if let Some(clash) = self.clash(job, now, &mut any) {
                Enqueued { clash: Some(clash), ..Enqueued::known(job.ulid) }
            } else {
                self.accept(job, now);
                any = true;
                Enqueued::fresh(job.ulid)
            };
            replies.push(reply);
        }
        let wake = if any { self.idle.pop_first() } else { None };
        Ok((replies, wake))
    }

    fn accept(&mut self, job: &NewJob, now: Timestamp) {
        let run_at = job.when.instant(now).filter(|at| *at > now);
        let after = job.options.depends_on.as_ref();
        let open: BTreeSet<JobId> = after.map(|after| after.parents.iter().cloned().collect()).unwrap_or_default();
        let record = JobRecord {
            id: JobId::new(job.ulid, self.queue.clone()),
            kind: job.kind.clone(),
            args: job.args.get().to_owned(),
            state: if run_at.is_some() || after.is_some() { State::Scheduled } else { State::Pending },
            reason: None,
            failures: 0,
            max_attempts: job.options.max_attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS),
            epoch: 0,
            deliveries: 0,
            options: Options { expires: When::Now, durability: Durability::Fast, ..job.options.clone() },
            created_at: now,
            run_at,
            expires_at: job.options.expires.instant(now),
            cancel_requested: false,
            started_at: None,
            finished_at: None,
            worker: None,
            progress: None,
            result: None,
            skipped: false,
            error: None,
            earlier: Vec::new(),
            waits_for: u32::try_from(open.len()).unwrap_or(u32::MAX),
            children: Vec::new(),
        };
        self.since.get_or_insert(now);
        self.totals.enqueued_total += 1;
        if let (Some(at), None) = (run_at, after) {
            self.due.insert((at, job.ulid));
        }
        if let Some(unique) = &job.options.unique {
            self.uniques.insert(unique.key.clone(), Hold { ulid: job.ulid, until: now.plus(unique.ttl) });
        }
        let max_attempts = job.options.max_attempts;
        self.jobs.insert(job.ulid, Job { record, max_attempts, lost: BTreeSet::new(), unknown_since: None, open });
        match after {
            Some(after) => self.hold(job.ulid, after, run_at, now),
            None if run_at.is_none() => self.wait_last(job.ulid),
            None => {}
        }
    }

    /// What a job whose unique key is held does to the holder. `any`: a due time has changed.
    fn clash(&mut self, new: &NewJob, now: Timestamp, any: &mut bool) -> Option<Clash> {
        let unique = new.options.unique.as_ref()?;
        let holder = self.uniques.get(&unique.key).map(|hold| hold.ulid);
        let is_blocked = holder.is_some_and(|ulid| self.is_blocked(ulid));
        let hold = self.uniques.get_mut(&unique.key).filter(|hold| hold.until > now)?;
        let mut clash = Clash { with: hold.ulid, replaced: false };
        // Forgotten, where nothing but time ends the hold.
        let Some(job) = self.jobs.get_mut(&hold.ulid) else { return Some(clash) };
        let waits = matches!(job.record.state, State::Pending | State::Scheduled | State::Retrying);
        let is_tied = new.options.depends_on.is_some() || job.record.options.depends_on.is_some();
        if waits && !is_tied && unique.on_clash == OnClash::Replace {
            job.replace(new, now);
            clash.replaced = true;
        }
        let mut moved = false;
        if let (Some(most), State::Scheduled, Some(at)) = (unique.debounce, job.record.state, job.record.run_at)
            && !is_blocked
        {
            let wish = new.when.instant(now).unwrap_or(now).max(now);
            let later = wish.min(job.record.created_at.plus(most));
            self.due.remove(&(at, hold.ulid));
            self.due.insert((later, hold.ulid));
            job.record.run_at = Some(later);
            (moved, *any) = (true, true);
        }
        if clash.replaced || moved {
            hold.until = now.plus(unique.ttl);
        }
        Some(clash)
    }

    /// A job's unique key is free, unless nothing but time ends the hold.
    pub(super) fn let_go(&mut self, ulid: Ulid) {
        let Some(unique) = self.jobs.get(&ulid).and_then(|job| job.record.options.unique.as_ref()) else { return };
        if unique.until != Until::Ttl && self.uniques.get(&unique.key).is_some_and(|hold| hold.ulid == ulid) {
            self.uniques.remove(&unique.key);
        }
    }
}

impl Job {
    /// Takes over what another asks for; where it waits and what it has been through stay.
    fn replace(&mut self, new: &NewJob, now: Timestamp) {
        let record = &mut self.record;
        record.kind.clone_from(&new.kind);
        new.args.get().clone_into(&mut record.args);
        let Options { priority, tenant, ordering_key, concurrency_key, rate_key, .. } =
            std::mem::take(&mut record.options);
        let place = Options { priority, tenant, ordering_key, concurrency_key, rate_key, ..Options::default() };
        let Options { max_attempts, backoff, timeout, labels, unique, trace, .. } = new.options.clone();
        record.options = Options { max_attempts, backoff, timeout, labels, unique, trace, ..place };
        record.max_attempts = new.options.max_attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS);
        record.expires_at = new.options.expires.instant(now);
        self.max_attempts = new.options.max_attempts;
    }

    pub(super) fn holds_until_started(&self) -> bool {
        self.record.options.unique.as_ref().is_some_and(|unique| unique.until == Until::Started)
    }
}
