//! The job kind `images.cleanup`, for the scheduler and for hands.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use windlass_jobs::{Done, Outcome, Violation};
use windlass_store::images::Images;
use windlass_worker::{InlineKind, KindSpec, RunContext, schema_of};

/// Takes away images that are too old, or too many bytes together, on Redis and on files.
///
/// The value of the result: `{images_removed, bytes_freed, errors}`; `errors` is 0, or the job
/// is retried.
#[derive(Debug, Clone)]
pub struct ImagesCleanup {
    /// The store; none where the kind is only named or checked.
    pub images: Option<Arc<Images>>,
}

/// No args.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CleanupArgs {}

#[async_trait]
impl InlineKind for ImagesCleanup {
    type Args = CleanupArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: "chart",
            timeout: Duration::from_secs(600),
            ..KindSpec::new("images.cleanup", "takes away images that are too old or too many")
        }
    }

    fn schema(&self) -> Option<Value> {
        schema_of::<CleanupArgs>()
    }

    fn check(&self, _: &CleanupArgs) -> Vec<Violation> {
        Vec::new()
    }

    async fn run(&self, _: CleanupArgs, _: &dyn RunContext) -> Outcome {
        let Some(images) = &self.images else {
            return Outcome::fatal("no_images", "this worker has no image store");
        };
        match images.sweep().await {
            Ok(removed) => {
                let value = json!({ "images_removed": removed.images, "bytes_freed": removed.bytes, "errors": 0 });
                Outcome::Done(Done { value, artifacts: Vec::new(), skipped: removed.images == 0 })
            }
            Err(error) => Outcome::retry("images", windlass_jobs::chain(&error)),
        }
    }
}
