//! Jobs tied together: chains, groups, and what follows a group.

use std::collections::{BTreeMap, BTreeSet};

use windlass_jobs::flow::MAX_PARENTS;
use windlass_jobs::{DependsOn, JobId, NewJob, Queue, Violation};

use crate::trace::Sending;
use crate::{Accepted, Error, Producer, Refusal, check_all};

/// The most jobs of one flow.
pub const MAX_FLOW: usize = 1_000;
/// The most dependencies between the jobs of one flow: a group that follows a group has one for
/// each pair.
pub const MAX_TIES: usize = 10_000;

/// Jobs that start when others have ended, on any queues.
///
/// A job whose `options.depends_on` is set waits for those jobs too, and keeps its `on_failure`;
/// for the others that is to be cancelled.
///
/// ```
/// # use windlass_jobs::{NewJob, Queue};
/// use windlass_producer::Flow;
/// # fn job(kind: &str) -> NewJob { NewJob::new(kind, &()).unwrap() }
/// let mail = Queue::new("mail").unwrap();
/// let each = ["a", "b", "c"].map(|_| Flow::job(&mail, job("mail.render")));
/// let flow = Flow::job(&mail, job("mail.plan")).then(Flow::group(each)).then(Flow::job(&mail, job("mail.send")));
/// assert_eq!(flow.jobs().unwrap().len(), 5);
/// ```
#[derive(Debug, Clone)]
pub enum Flow {
    /// One job.
    Job(Queue, Box<NewJob>),
    /// Each starts when the one before it has ended.
    Chain(Vec<Flow>),
    /// They run beside each other; it has ended when all have.
    Group(Vec<Flow>),
}

impl Flow {
    /// One job on a queue.
    #[must_use]
    pub fn job(queue: &Queue, job: NewJob) -> Self {
        Self::Job(queue.clone(), Box::new(job))
    }

    /// One after the other.
    pub fn chain(steps: impl IntoIterator<Item = Self>) -> Self {
        Self::Chain(steps.into_iter().collect())
    }

    /// Beside each other.
    pub fn group(members: impl IntoIterator<Item = Self>) -> Self {
        Self::Group(members.into_iter().collect())
    }

    /// This, and then that: after a group, its callback.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        match self {
            Self::Chain(mut steps) => {
                steps.push(next);
                Self::Chain(steps)
            }
            first => Self::Chain(vec![first, next]),
        }
    }

    /// Its jobs in the order in which they are written, each with what it depends on.
    ///
    /// # Errors
    /// Everything wrong with any of them, and with the flow itself.
    pub fn jobs(&self) -> Result<Vec<(Queue, NewJob)>, Vec<Refusal>> {
        let mut jobs = Vec::new();
        let mut ties = 0;
        if !self.lay(&[], &mut jobs, &mut ties) {
            let message = format!("at most {MAX_FLOW} jobs with {MAX_TIES} dependencies are allowed");
            return Err(vec![refusal(0, "", "flow_too_large", message)]);
        }
        let wrong = check(&jobs);
        if wrong.is_empty() { Ok(jobs) } else { Err(wrong) }
    }

    /// Adds its jobs, the first of which wait for `parents`; false when it gets too large.
    fn lay(&self, parents: &[JobId], jobs: &mut Vec<(Queue, NewJob)>, ties: &mut usize) -> bool {
        self.lay_after(parents.to_vec(), jobs, ties).is_some()
    }

    /// The same; answers the jobs after whose end it has ended.
    fn lay_after(&self, parents: Vec<JobId>, jobs: &mut Vec<(Queue, NewJob)>, ties: &mut usize) -> Option<Vec<JobId>> {
        match self {
            Self::Job(queue, job) => {
                *ties += parents.len();
                let mut job = NewJob::clone(job);
                if !parents.is_empty() {
                    let after = job.options.depends_on.get_or_insert_with(|| DependsOn::on(Vec::new()));
                    after.parents.extend(parents);
                }
                let id = JobId::new(job.ulid, queue.clone());
                jobs.push((queue.clone(), job));
                (jobs.len() <= MAX_FLOW && *ties <= MAX_TIES).then(|| vec![id])
            }
            Self::Chain(steps) => steps.iter().try_fold(parents, |parents, step| step.lay_after(parents, jobs, ties)),
            Self::Group(members) if members.is_empty() => Some(parents),
            Self::Group(members) => {
                let mut ends = Vec::new();
                for member in members {
                    ends.extend(member.lay_after(parents.clone(), jobs, ties)?);
                }
                Some(ends)
            }
        }
    }
}

/// Everything wrong with a flow's jobs.
fn check(jobs: &[(Queue, NewJob)]) -> Vec<Refusal> {
    let mut wrong: Vec<Refusal> = Vec::new();
    let mut seen = BTreeSet::new();
    let awaited: BTreeSet<&JobId> =
        jobs.iter().flat_map(|(_, job)| &job.options.depends_on).flat_map(|after| &after.parents).collect();
    for (index, (queue, job)) in jobs.iter().enumerate() {
        wrong.extend(job.check().into_iter().map(|violation| Refusal { index, violation }));
        if !seen.insert(job.ulid) {
            wrong.push(refusal(index, "", "duplicate", "it is in the flow twice".into()));
        }
        if job.options.unique.is_some() && awaited.contains(&JobId::new(job.ulid, queue.clone())) {
            let message = "another job may stand for it: nothing can wait for a unique job".into();
            wrong.push(refusal(index, "/unique", "conflict", message));
        }
    }
    wrong
}

fn refusal(index: usize, path: &str, code: &str, message: String) -> Refusal {
    Refusal { index, violation: Violation::new(path, code, message) }
}

impl Producer {
    /// Puts the jobs of a flow on their queues. Answers one entry per job, in the order of
    /// [`Flow::jobs`].
    ///
    /// What waits is sent before what starts, so that nothing starts before all of it is accepted
    /// (but for jobs that start on different queues). A flow of up to 250 jobs on one queue is
    /// accepted whole or not at all.
    ///
    /// # Errors
    /// [`Error::Refused`] with everything wrong with any of the jobs: none was queued.
    /// [`Error::Broker`]: some may have been accepted. The same flow may be enqueued again: ids
    /// that are known change nothing. What was accepted of one that is not is cancelled after a
    /// minute, reason `dependency`.
    pub async fn enqueue_flow(&self, flow: &Flow) -> Result<Vec<Accepted>, Error> {
        let jobs = flow.jobs().map_err(Error::Refused)?;
        self.enqueue_tied(jobs).await
    }

    /// The same for jobs that name each other in `depends_on`. Answers one entry per job, in order.
    ///
    /// # Errors
    /// As [`Producer::enqueue_flow`].
    pub async fn enqueue_tied(&self, mut jobs: Vec<(Queue, NewJob)>) -> Result<Vec<Accepted>, Error> {
        let plain: Vec<NewJob> = jobs.iter().map(|(_, job)| job.clone()).collect();
        let mut refusals = check_all(&plain);
        refusals.extend(self.refused_by_kind(&plain));
        if !refusals.is_empty() {
            return Err(Error::Refused(refusals));
        }
        let sending = Sending::begin();
        if let Some(sending) = &sending {
            jobs.iter_mut().for_each(|(_, job)| sending.mark(job));
        }
        self.place(&mut jobs.iter_mut().map(|(queue, job)| (queue, job)).collect::<Vec<_>>())
            .map_err(Error::Refused)?;
        let plain: Vec<NewJob> = jobs.iter().map(|(_, job)| job.clone()).collect();
        let ids: BTreeSet<JobId> = jobs.iter().map(|(queue, job)| JobId::new(job.ulid, queue.clone())).collect();
        let waits = |job: &NewJob| {
            job.options.depends_on.iter().flat_map(|after| &after.parents).any(|parent| ids.contains(parent))
        };
        // By queue: what waits for others of the flow, then what starts.
        let is_one_queue = ids.iter().all(|id| ids.first().is_none_or(|first| first.queue == id.queue));
        let mut rounds: [BTreeMap<Queue, Vec<usize>>; 2] = Default::default();
        for start in [false, true] {
            for (index, (queue, job)) in jobs.iter().enumerate().filter(|(_, (_, job))| waits(job) != start) {
                debug_assert!(job.options.depends_on.as_ref().is_none_or(|after| after.parents.len() <= MAX_PARENTS));
                rounds[usize::from(start && !is_one_queue)].entry(queue.clone()).or_default().push(index);
            }
        }
        let sent = self.send_rounds(rounds, &plain).await;
        if let Some(sending) = sending {
            sending.end(jobs.first().map(|(queue, _)| queue).filter(|_| is_one_queue), &plain, sent.as_deref());
        }
        sent
    }

    async fn send_rounds(
        &self,
        rounds: [BTreeMap<Queue, Vec<usize>>; 2],
        plain: &[NewJob],
    ) -> Result<Vec<Accepted>, Error> {
        let mut accepted: Vec<Option<Accepted>> = vec![None; plain.len()];
        for (queue, indexes) in rounds.into_iter().flatten() {
            let batch: Vec<NewJob> = indexes.iter().map(|index| plain[*index].clone()).collect();
            let replies = self.send(&queue, &batch).await?;
            for (index, reply) in indexes.into_iter().zip(replies) {
                accepted[index] = Some(reply);
            }
        }
        Ok(accepted.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue::new("q").unwrap()
    }

    fn job() -> Flow {
        Flow::job(&queue(), NewJob::new("noop", &()).unwrap())
    }

    /// How many parents each job has, in order.
    fn check_parents(flow: &Flow, expected: &[usize]) {
        let jobs = flow.jobs().unwrap();
        let parents = |(_, job): &(Queue, NewJob)| job.options.depends_on.as_ref().map_or(0, |a| a.parents.len());
        assert_eq!(jobs.iter().map(parents).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn flows_become_jobs_that_depend_on_others() {
        check_parents(&job(), &[0]);
        check_parents(&Flow::chain([job(), job(), job()]), &[0, 1, 1]);
        check_parents(&Flow::group([job(), job(), job()]).then(job()), &[0, 0, 0, 3]);
        check_parents(&job().then(Flow::group([job(), job().then(job())])).then(job()), &[0, 1, 1, 1, 2]);
        check_parents(&Flow::group([job(), job()]).then(Flow::group([job(), job()])), &[0, 0, 2, 2]);
        check_parents(&Flow::chain([job(), Flow::group([]), job()]), &[0, 1]);
    }

    #[test]
    fn wrong_flows_are_refused() {
        let refused = |flow: &Flow, code: &str| {
            assert_eq!(flow.jobs().err().map(|wrong| wrong[0].violation.code.clone()).as_deref(), Some(code));
        };
        let same = job();
        refused(&same.clone().then(same), "circular");
        let same = job();
        refused(&Flow::group([same.clone(), same]), "duplicate");
        refused(&Flow::group((0..=MAX_FLOW).map(|_| job())), "flow_too_large");
        let wide = || Flow::group((0..101).map(|_| job()));
        refused(&wide().then(wide()), "flow_too_large");
        let mut unique = NewJob::new("noop", &()).unwrap();
        unique.options.unique = Some(windlass_jobs::Unique::new("k"));
        refused(&Flow::job(&queue(), unique.clone()).then(job()), "conflict");
        assert!(job().then(Flow::job(&queue(), unique)).jobs().is_ok());
    }
}
