//! A worker with a kind of one's own. Run it in a folder where `windlass up` runs, then:
//! `echo '{"name": "you"}' | windlass enqueue example.greet --args - --wait`
use std::sync::Arc;
use windlass_broker::sqlite::{SqliteBroker, SqliteOptions};
use windlass_jobs::{Done, Outcome, Queue, Violation};
use windlass_store::{Limits, file_services};
use windlass_worker::schemars::JsonSchema;
use windlass_worker::{InlineKind, Isolation, KindSpec, Registry, RunContext, Worker, WorkerOptions, schema_of};

struct Greet;

#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
struct GreetArgs {
    name: String,
}

#[async_trait::async_trait]
impl InlineKind for Greet {
    type Args = GreetArgs;
    fn spec(&self) -> KindSpec {
        KindSpec { queue: "example", ..KindSpec::new("example.greet", "greets somebody") }
    }
    fn schema(&self) -> Option<serde_json::Value> {
        schema_of::<GreetArgs>()
    }
    fn check(&self, args: &GreetArgs) -> Vec<Violation> {
        let empty = || Violation::new("/name", "empty", "a name is needed");
        if args.name.is_empty() { vec![empty()] } else { vec![] }
    }
    async fn run(&self, args: GreetArgs, ctx: &dyn RunContext) -> Outcome {
        ctx.progress(50.0, "thinking of a greeting");
        Outcome::Done(Done { value: format!("Hello, {}!", args.name).into(), ..Done::default() })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::path::Path::new("windlass-data");
    let broker = Arc::new(SqliteBroker::open(&dir.join("queue.db"), SqliteOptions::default()).await?);
    let services = file_services(dir, Limits::default());
    let mut registry = Registry::new();
    registry.inline(Greet);
    let options = WorkerOptions::new(vec![Queue::new("example")?], Isolation::new("/proc/self/exe".into(), &[]));
    let mut worker = Worker::start(registry, broker, services, options)?;
    Ok(worker.wait().await?)
}
