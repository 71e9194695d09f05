//! The model itself, as the broker for tests: what the suite asks is what the model does.

use std::sync::Arc;

use windlass_broker::SharedBroker;
use windlass_jobs::SystemClock;
use windlass_testkit::ModelBroker;

async fn model(keep: usize) -> (SharedBroker, ()) {
    (Arc::new(ModelBroker::keeping(Arc::new(SystemClock), keep)), ())
}

windlass_testkit::conformance!(model);
