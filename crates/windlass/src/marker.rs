//! Whose Redis it is: a key holds the environment, so that staging never takes production's jobs.

use windlass_redis::{FromRedisValue as _, Link, cmd};

use crate::settings::Settings;

/// What a process says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Marker {
    key: String,
    /// None when the settings name no environment, or do not care.
    environment: Option<String>,
}

impl Marker {
    pub(crate) fn new(settings: &Settings) -> Self {
        let environment = settings.environment.clone().filter(|_| !settings.any_environment);
        Self { key: format!("{}:{{reg}}:environment", settings.queue_prefix), environment }
    }

    /// Marks a Redis that nobody has marked yet; what is wrong with one that is another's.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub(crate) async fn foreign(&self, link: &Link) -> Result<Option<String>, windlass_redis::Error> {
        let Some(own) = &self.environment else { return Ok(None) };
        let mut mark = cmd("SET");
        mark.arg(&self.key).arg(own).arg("NX");
        link.call(&mark).await?;
        let mut read = cmd("GET");
        read.arg(&self.key);
        let found = String::from_redis_value(link.call(&read).await?).unwrap_or_default();
        Ok((found != *own).then(|| {
            format!(
                "it belongs to the environment {found:?} (key {}), and ENVIRONMENT is {own:?}; give this one a Redis, \
                 a database or a WINDLASS_QUEUE_PREFIX of its own, or allow it with WINDLASS_ANY_ENVIRONMENT=true",
                self.key
            )
        }))
    }
}
