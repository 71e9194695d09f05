//! `GET /api/tasks`: the jobs of a queue in a state, by kind and labels.

use std::str::FromStr;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use windlass_jobs::command::{Filter, Found, MAX_PAGE, SEARCH_WINDOW};
use windlass_jobs::{Queue, State as JobState};

use crate::Shared;
use crate::auth::Caller;
use crate::paging::Listing;
use crate::problem::{Code, Problem};
use crate::task::{self, Task};

/// How many jobs an answer holds unless the caller says.
const LIMIT: usize = 50;

/// What is asked for.
#[derive(Debug)]
struct Wish {
    queue: Queue,
    filter: Filter,
    cursor: Option<String>,
    limit: usize,
}

impl Wish {
    /// Reads `queue`, `state`, `parked`, `kind`, `label.<name>`, `cursor` and `limit`.
    fn read(pairs: &[(String, String)]) -> Result<Self, String> {
        let queue = pairs.iter().find(|(name, _)| name == "queue");
        let (name, value) = queue.ok_or("queue is needed, as in ?queue=pdf&state=failure")?;
        let queue = word(name, value, "1 to 64 of a-z 0-9 _ -")?;
        let mut wish = Self { queue, filter: Filter::of(JobState::Pending), cursor: None, limit: LIMIT };
        for (name, value) in pairs {
            match name.as_str() {
                "queue" => {}
                "state" => wish.filter.state = word(name, value, "a state, as in failure")?,
                "parked" => wish.filter.parked = word(name, value, "true or false")?,
                "kind" => wish.filter.kind = Some(value.clone()),
                "cursor" => wish.cursor = Some(value.clone()),
                "limit" => wish.limit = word(name, value, "a number from 1 to 500")?,
                other => {
                    let Some(label) = other.strip_prefix("label.") else {
                        return Err(format!(
                            "{other:?} is not known; queue, state, parked, kind, label.<name>, cursor and limit are"
                        ));
                    };
                    wish.filter.labels.insert(label.to_owned(), value.clone());
                }
            }
        }
        if !(1..=MAX_PAGE).contains(&wish.limit) {
            return Err(format!("limit is {}; 1 to {MAX_PAGE} is allowed", wish.limit));
        }
        Ok(wish)
    }
}

fn word<T: FromStr>(name: &str, value: &str, allowed: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name} is {value:?}; {allowed} is allowed"))
}

/// `GET /api/tasks`: at most `limit` jobs, in the order of their list (waiting ones next to run
/// first, ended ones newest first). `window.beyond` says that the list goes on behind the newest
/// 10,000, which are all that is searched. Jobs of other tenants are left out, so that a page may be
/// short.
pub(crate) async fn search(
    State(shared): State<Shared>,
    caller: Caller,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let wrong = |detail: String| Problem::new(Code::QueryInvalid, detail);
    let Query(pairs) = query.map_err(|_| wrong("the query cannot be read".to_owned()))?;
    let Wish { queue, filter, cursor, limit } = Wish::read(&pairs).map_err(wrong)?;
    let narrowed = format!("{queue} {} {} {:?} {:?}", filter.state, filter.parked, filter.kind, filter.labels);
    let listing = Listing { path: "/api/tasks", filter: &narrowed, caller: &caller };
    let signer = shared.ring.signer();
    let cursor = cursor.map(|cursor| listing.open(signer, &cursor)).transpose()?;
    let cursor = cursor.and_then(|at| at.parse().ok()).unwrap_or(0);
    let Found { ids, next, beyond } = shared.broker.search(&queue, &filter, cursor, limit).await?;
    let records = task::records(&shared, &queue, &ids).await?;
    let seen = records.iter().filter(|record| caller.sees(record.options.tenant.as_deref()));
    let tasks: Vec<Task<'_>> = seen.map(|record| Task::of(record, shared.door.registry())).collect();
    let window = json!({ "entries": SEARCH_WINDOW, "beyond": beyond });
    let next = next.map(|next| listing.seal(signer, &next.to_string()));
    Ok(axum::Json(json!({ "tasks": tasks, "next": next, "window": window })).into_response())
}
