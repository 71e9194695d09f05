//! What goes where, as it is written in settings: lists separated by commas.

use std::collections::BTreeMap;
use std::str::FromStr;

use windlass_jobs::{Queue, check_kind};

/// Where the jobs of an apalis-redis namespace go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApalisRoute {
    /// The storage's queue name, such as `"my_app::Email"`.
    pub namespace: String,
    /// The kind its jobs become.
    pub kind: String,
    /// Their queue; `None`: the kind's own.
    pub queue: Option<Queue>,
}

/// `namespace=kind` or `namespace=kind@queue`, each namespace once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApalisRoutes(pub Vec<ApalisRoute>);

/// A Celery queue that is taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CeleryQueue {
    /// Its name at the Celery clients.
    pub name: String,
    /// Where its jobs go; `None`: to the queue of their kind.
    pub queue: Option<Queue>,
}

/// `name` or `name=queue`, each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CeleryQueues(pub Vec<CeleryQueue>);

/// What a Celery task becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRoute {
    /// The kind.
    pub kind: String,
    /// Names of its positional arguments, in order.
    pub names: Vec<String>,
}

/// `task=kind` or `task=kind:first:second` with the names of positional arguments, by task, each task once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskRoutes(pub BTreeMap<String, TaskRoute>);

/// `kind=namespace`: jobs of a kind that are pushed into a stock apalis-redis storage, by kind,
/// each kind once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardRoutes(pub BTreeMap<String, String>);

/// The pairs of a list; a part without `=` has nothing on its right side.
fn pairs(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| match part.rsplit_once('=') {
        Some((left, right)) => (left.trim(), Some(right.trim())),
        None => (part, None),
    })
}

fn kind(text: &str) -> Option<String> {
    check_kind(text).is_ok().then(|| text.to_owned())
}

/// A name that goes into a key: printable, at most 256 bytes.
fn name(text: &str) -> Option<String> {
    let fits = (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// All of them by name, if each name is there once.
fn each_once<V>(all: impl Iterator<Item = Option<(String, V)>>) -> Result<BTreeMap<String, V>, ()> {
    let mut map = BTreeMap::new();
    for pair in all {
        let (name, value) = pair.ok_or(())?;
        if map.insert(name, value).is_some() {
            return Err(());
        }
    }
    Ok(map)
}

impl FromStr for ApalisRoutes {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let route = |(namespace, target): (&str, Option<&str>)| {
            let target = target?;
            let (own, queue) = target.split_once('@').map_or((target, None), |(kind, queue)| (kind, Some(queue)));
            let queue = queue.map(Queue::new).transpose().ok()?;
            Some(ApalisRoute { namespace: name(namespace)?, kind: kind(own)?, queue })
        };
        let all: Vec<ApalisRoute> = pairs(text).map(route).collect::<Option<_>>().ok_or(())?;
        let once = all.iter().map(|route| &route.namespace).collect::<std::collections::BTreeSet<_>>().len();
        if once == all.len() { Ok(Self(all)) } else { Err(()) }
    }
}

impl FromStr for CeleryQueues {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let read = |(own, queue): (&str, Option<&str>)| {
            Some(CeleryQueue { name: name(own)?, queue: queue.map(Queue::new).transpose().ok()? })
        };
        let all: Vec<CeleryQueue> = pairs(text).map(read).collect::<Option<_>>().ok_or(())?;
        let once = all.iter().map(|queue| &queue.name).collect::<std::collections::BTreeSet<_>>().len();
        if once == all.len() { Ok(Self(all)) } else { Err(()) }
    }
}

impl FromStr for TaskRoutes {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let read = |(task, target): (&str, Option<&str>)| {
            let mut words = target?.split(':');
            let kind = kind(words.next()?)?;
            let names: Vec<String> = words.map(name).collect::<Option<_>>()?;
            Some((name(task)?, TaskRoute { kind, names }))
        };
        each_once(pairs(text).map(read)).map(Self)
    }
}

impl FromStr for ForwardRoutes {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        // A namespace may hold anything but a comma, a kind no `=`.
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let read = |part: &str| {
            let (left, right) = part.split_once('=')?;
            Some((kind(left.trim())?, name(right.trim())?))
        };
        each_once(parts.map(read)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_and_wrong_ones_are_not() {
        let apalis: ApalisRoutes = "app::Email=mail.welcome@mail, {q}=a".parse().unwrap();
        assert_eq!(apalis.0[0].queue, Some(Queue::new("mail").unwrap()));
        assert_eq!((apalis.0[1].namespace.as_str(), apalis.0[1].kind.as_str()), ("{q}", "a"));
        let celery: CeleryQueues = "celery,fast=pdf".parse().unwrap();
        assert_eq!((celery.0[0].queue.clone(), celery.0[1].queue.clone()), (None, Some(Queue::new("pdf").unwrap())));
        let tasks: TaskRoutes = "app.Render=pdf.report:title:rows,x=y".parse().unwrap();
        assert_eq!(tasks.0["app.Render"].names, ["title", "rows"]);
        let forward: ForwardRoutes = "a.b=my_app::Email".parse().unwrap();
        assert_eq!(forward.0["a.b"], "my_app::Email");
        for wrong in ["a", "a=B C", "a=b@Q", "a=b,a=c", "=b"] {
            assert!(wrong.parse::<ApalisRoutes>().is_err(), "{wrong}");
        }
        assert!("a=Q".parse::<CeleryQueues>().is_err() && "a,a=b".parse::<CeleryQueues>().is_err());
        assert!("a=b,a=c".parse::<TaskRoutes>().is_err() && "a=b,a=c".parse::<ForwardRoutes>().is_err());
        assert!("a=b:".parse::<TaskRoutes>().is_err() && "A=b".parse::<ForwardRoutes>().is_err());
    }
}
