//! What goes to the error output: log lines, and the one error a command ends with.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};
use windlass_api::LogFilter;

use crate::log;
use crate::settings::{LogFormat, Settings};

/// The process ended because of an error.
pub(crate) const EXIT_ERROR: u8 = 1;
/// The job that was waited for ended in failure or was cancelled.
pub(crate) const EXIT_JOB_FAILED: u8 = 3;

/// The filter of this process, once there is a log.
static FILTER: OnceLock<Arc<Filter>> = OnceLock::new();

/// What is logged, changeable while the process runs.
struct Filter {
    handle: reload::Handle<EnvFilter, Registry>,
    text: Mutex<String>,
}

impl LogFilter for Filter {
    fn get(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, filter: &str) -> Result<(), String> {
        let parsed = parse(filter).map_err(|e| e.to_string())?;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.reload(parsed).map_err(|e| e.to_string())?;
        let before = std::mem::replace(&mut *text, filter.to_owned());
        drop(text);
        tracing::info!(event = "log_filter_changed", before, filter, "the log has another filter");
        Ok(())
    }
}

/// A filter; an empty one, or one that names no level, would silence the log unasked.
fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let bad = || anyhow::anyhow!("{filter:?}; a level or a filter such as info,windlass_worker=debug is allowed");
    if filter.trim().is_empty() {
        return Err(bad());
    }
    EnvFilter::try_new(filter).map_err(|_| bad())
}

/// Starts logging.
pub(crate) fn start(settings: &Settings) -> anyhow::Result<()> {
    let (filter, handle) = reload::Layer::new(parse(&settings.log).context("WINDLASS_LOG")?);
    let lines = tracing_subscriber::fmt::layer().with_writer(log::lines()).with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    match settings.log_format {
        LogFormat::Text => registry.with(lines.with_target(false)).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
    let _ = FILTER.set(Arc::new(Filter { handle, text: Mutex::new(settings.log.clone()) }));
    Ok(())
}

/// What this process logs.
pub(crate) fn filter() -> Option<Arc<dyn LogFilter>> {
    FILTER.get().map(|filter| Arc::clone(filter) as Arc<dyn LogFilter>)
}

/// Reads what is to be logged from the settings again whenever SIGHUP comes, for as long as the process
/// lives.
pub(crate) fn reread_on_hangup(config: Option<PathBuf>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangups = signal(SignalKind::hangup()).context("SIGHUP")?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let settings = Settings::read(config.as_deref()).map_err(|e| format!("{e:#}"));
            let set = |settings: Settings| filter().map_or(Ok(()), |filter| filter.set(&settings.log));
            if let Err(error) = settings.and_then(set) {
                tracing::warn!(error, "the settings are not read again: the log stays as it is");
            }
        }
    });
    Ok(())
}

/// Says an error with all its causes; in JSON on standard output when the command was asked to.
#[expect(clippy::print_stdout, reason = "the last line of --json is the command's answer")]
pub(crate) fn fail(error: &anyhow::Error, json: bool) -> ExitCode {
    let text = format!("{error:#}");
    log::flush();
    if json {
        println!("{}", serde_json::json!({ "error": text }));
    } else {
        let _ = writeln!(std::io::stderr(), "error: {text}");
    }
    ExitCode::from(EXIT_ERROR)
}
