//! Flows as HTTP callers write them: `{"chain": [step, …]}` and `{"group": [step, …], "then": step}`,
//! where a step is a job or such an object again; and jobs that name others in `depends_on`.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::flow::MAX_PARENTS;
use windlass_jobs::{JobId, NewJob, Queue, Violation};
use windlass_producer::{Flow, MAX_FLOW, Refusal};
use windlass_worker::Registry;

use crate::Shared;
use crate::auth::Caller;
use crate::door::Kinds;
use crate::problem::{Code, Problem};
use crate::request::{self, Fault, Jobs, Ready};

/// How many parents are looked for at once.
const LOOKS: usize = 16;

/// How the jobs of a body follow each other; jobs by their number, as they are written.
#[derive(Debug)]
pub(crate) enum Shape {
    Job(usize),
    Chain(Vec<Shape>),
    Group(Vec<Shape>),
}

/// A step's members that are kept byte for byte.
#[derive(Deserialize)]
struct Step<'a> {
    #[serde(borrow, default)]
    chain: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    group: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    then: Option<&'a RawValue>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
}

/// Reads a flow as `POST /api/tasks` does, for other doors: its jobs in the order in which they are
/// written, each with what it depends on.
///
/// # Errors
/// Everything that is wrong with it, for a person.
pub fn read_flow(body: &[u8], registry: &Registry, published: Vec<KindInfo>) -> Result<Vec<(Queue, NewJob)>, String> {
    let kinds = Kinds::new(registry.clone(), published);
    let jobs = request::read(body, &kinds, MAX_FLOW).jobs.map_err(|problem| problem.detail().to_owned())?;
    if !jobs.is_flow {
        return Err("a flow is {\"chain\": [...]} or {\"group\": [...]}".to_owned());
    }
    Ok(jobs.ready.into_iter().map(|ready| (ready.queue, ready.job)).collect())
}

/// True for a body that is a flow rather than a job.
pub(crate) fn is_flow(document: &Value) -> bool {
    document.get("chain").is_some() || document.get("group").is_some()
}

/// Takes a flow apart into its shape and its jobs, each with its args as they were written.
///
/// # Errors
/// A sentence that says what is no flow.
pub(crate) fn take_apart<'a>(
    value: &'a Value,
    raw: &'a str,
    jobs: &mut Vec<(&'a Value, &'a RawValue)>,
) -> Result<Shape, String> {
    let Value::Object(members) = value else { return Err("a step of a flow is an object".to_owned()) };
    let step: Step<'a> = serde_json::from_str(raw).map_err(|e| e.to_string())?;
    let names: Vec<&str> = members.keys().map(String::as_str).collect();
    let mut inside = |name: &str, raws: Vec<&'a RawValue>| {
        let values = value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if values.is_empty() {
            return Err(format!("a {name} has one step or more"));
        }
        let steps = values.iter().zip(raws).map(|(value, raw)| take_apart(value, raw.get(), jobs));
        steps.collect::<Result<Vec<_>, _>>()
    };
    match (names.as_slice(), step.chain, step.group) {
        (["chain"], Some(steps), _) => Ok(Shape::Chain(inside("chain", steps)?)),
        (["group"], _, Some(steps)) => Ok(Shape::Group(inside("group", steps)?)),
        (["group", "then"] | ["then", "group"], _, Some(steps)) => {
            let group = Shape::Group(inside("group", steps)?);
            let then = value.get("then").zip(step.then).ok_or("then is a step")?;
            Ok(Shape::Chain(vec![group, take_apart(then.0, then.1.get(), jobs)?]))
        }
        _ if is_flow(value) => {
            Err("a flow is {\"chain\": [...]}, {\"group\": [...]} or {\"group\": [...], \"then\": ...}".to_owned())
        }
        _ => {
            jobs.push((value, step.args.unwrap_or(RawValue::NULL)));
            Ok(Shape::Job(jobs.len() - 1))
        }
    }
}

/// Lets each job of a flow depend on those it follows.
///
/// # Errors
/// Everything that is wrong with the flow.
pub(crate) fn tie(shape: &Shape, ready: &mut [Ready]) -> Result<(), Vec<Fault>> {
    let fault = |Refusal { index, violation }: Refusal| Fault { index, violation };
    let tied = flow_of(shape, ready).jobs().map_err(|wrong| wrong.into_iter().map(fault).collect::<Vec<_>>())?;
    for (ready, (_, job)) in ready.iter_mut().zip(tied) {
        ready.job = job;
    }
    Ok(())
}

fn flow_of(shape: &Shape, ready: &[Ready]) -> Flow {
    let all = |steps: &[Shape]| steps.iter().map(|step| flow_of(step, ready)).collect::<Vec<_>>();
    match shape {
        Shape::Job(index) => Flow::job(&ready[*index].queue, ready[*index].job.clone()),
        Shape::Chain(steps) => Flow::chain(all(steps)),
        Shape::Group(members) => Flow::group(all(members)),
    }
}

/// Looks for the jobs that these depend on and that do not come with them. One of another tenant is
/// not known.
///
/// # Errors
/// 422 when one is not known; 413 when they name too many.
pub(crate) async fn check_parents(shared: &Shared, caller: &Caller, jobs: &Jobs) -> Result<(), Problem> {
    let parents = |ready: &Ready| ready.job.options.depends_on.clone().map(|after| after.parents).unwrap_or_default();
    let own: BTreeSet<JobId> = jobs.ready.iter().map(|ready| JobId::new(ready.job.ulid, ready.queue.clone())).collect();
    let named: BTreeSet<JobId> = jobs.ready.iter().flat_map(parents).filter(|id| !own.contains(id)).collect();
    if named.len() > MAX_PARENTS {
        let detail = format!("{} jobs are named in depends_on; at most {MAX_PARENTS} are taken at once", named.len());
        return Err(Problem::new(Code::BatchTooLarge, detail));
    }
    let looks = named.into_iter().map(|id| async move {
        let found = shared.broker.get(&id).await?;
        // By its whole id: one without its shard would be looked for in vain later.
        let is_own = found.is_some_and(|record| record.id == id && caller.sees(record.options.tenant.as_deref()));
        Ok::<_, windlass_broker::Error>((id, is_own))
    });
    let mut missing = BTreeSet::new();
    let mut looks = stream::iter(looks).buffer_unordered(LOOKS);
    while let Some(look) = looks.next().await {
        let (id, found) = look?;
        if !found {
            missing.insert(id);
        }
    }
    let lacks = |(index, ready): (usize, &Ready)| {
        let id = parents(ready).into_iter().find(|id| missing.contains(id))?;
        let message = format!("job {id} is not known, or past retention");
        Some(Fault { index, violation: Violation::new("/depends_on", "parent_unknown", message) })
    };
    let faults: Vec<Fault> = jobs.ready.iter().enumerate().filter_map(lacks).collect();
    if faults.is_empty() { Ok(()) } else { Err(request::refuse(faults, jobs.is_batch)) }
}
