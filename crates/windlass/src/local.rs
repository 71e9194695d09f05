//! What this process makes by itself while the queue's Redis is away: files that a caller waits for.

use std::sync::Arc;

use anyhow::Context as _;
use windlass_api::MakeLocal;
use windlass_jobs::Queue;

use crate::runtime::Stores;
use crate::settings::Settings;

/// The queues whose kinds need nobody else.
const QUEUES: &[&str] = &["pdf", "chart"];
/// Files that are made at once.
const SLOTS: usize = 2;

/// Makes an embedded queue and stores below the data directory, emptied before, with a worker.
pub(crate) fn maker(settings: &Settings) -> MakeLocal {
    let settings = settings.clone();
    Arc::new(move || {
        let settings = settings.clone();
        Box::pin(async move {
            let stores = make(settings).await.map_err(|e| format!("{e:#}"))?;
            Ok((stores.broker, stores.services))
        })
    })
}

async fn make(mut settings: Settings) -> anyhow::Result<Stores> {
    // One for each process: several may share a data directory.
    settings.data_dir = settings.data_dir.join(format!("local-{}", std::process::id()));
    settings.redis = None;
    match std::fs::remove_dir_all(&settings.data_dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("folder {}", settings.data_dir.display()));
        }
        _ => {}
    }
    let stores = Stores::embedded(&settings).await?;
    let queues: Vec<Queue> = QUEUES.iter().map(|name| Queue::new(name)).collect::<Result<_, _>>()?;
    let registry = crate::kinds::registry();
    let mut worker = stores.worker(&settings, registry, queues, Some(SLOTS))?;
    tokio::spawn(async move {
        if let Err(error) = worker.wait().await {
            tracing::error!(error = format!("{error:#}"), "files are no longer made in this process");
        }
    });
    Ok(stores)
}
