//! One look at everything: on the store itself, or by an API's answers.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use windlass_jobs::Timestamp;
use windlass_jobs::command::{Counts, WorkerInfo};

use crate::http;
use crate::runtime::Stores;
use crate::settings::{Secret, Settings};

/// Queues and workers of an API that are asked for at once.
const PAGE: usize = 500;

/// Where is looked.
pub(super) enum Source {
    Store(Box<Stores>),
    Api { url: String, key: Option<Secret> },
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) at: Timestamp,
    pub(super) queues: Vec<QueueLook>,
    pub(super) workers: Vec<WorkerInfo>,
}

/// One queue.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct QueueLook {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

impl Source {
    pub(super) async fn open(settings: &Settings, api: Option<&str>) -> anyhow::Result<Self> {
        Ok(match api {
            Some(url) => Self::Api { url: url.trim_end_matches('/').to_owned(), key: settings.api_key.clone() },
            None => Self::Store(Box::new(Stores::open(settings).await?)),
        })
    }

    pub(super) fn place(&self) -> String {
        match self {
            Self::Store(stores) => stores.place.clone(),
            Self::Api { url, .. } => url.clone(),
        }
    }

    pub(super) async fn look(&self) -> anyhow::Result<Look> {
        let (queues, workers) = match self {
            Self::Store(stores) => {
                let mut queues = Vec::new();
                for name in stores.broker.queues().await? {
                    let counts = stores.broker.counts(&name).await?;
                    queues.push(QueueLook { name: name.to_string(), counts });
                }
                (queues, stores.broker.workers().await?)
            }
            Self::Api { url, key } => {
                let key = key.as_ref();
                (asked(url, "queues", key).await?, asked(url, "workers", key).await?)
            }
        };
        Ok(Look { at: Timestamp::now(), queues, workers })
    }
}

/// A list of the API.
async fn asked<T: serde::de::DeserializeOwned>(url: &str, what: &str, key: Option<&Secret>) -> anyhow::Result<Vec<T>> {
    let url = format!("{url}/api/{what}?limit={PAGE}");
    let (status, body) = http::get(&url, key.map(|key| key.0.as_str())).await?;
    let mut answer: Value = serde_json::from_str(&body).unwrap_or_default();
    if status != 200 {
        let said = answer["detail"].as_str().or_else(|| answer["title"].as_str()).unwrap_or_default();
        let hint = if status == 401 { "; a key is taken from WINDLASS_API_KEY" } else { "" };
        anyhow::bail!("{url} answers {status}: {said}{hint}");
    }
    Ok(serde_json::from_value(answer[what].take())?)
}

impl Look {
    pub(super) fn to_json(&self) -> Value {
        json!({ "at": self.at, "queues": self.queues, "workers": self.workers })
    }
}
