//! What goes to the error output: log lines, and the one error a command ends with.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::log;
use crate::settings::{LogFormat, Settings};

/// The process ended because of an error.
pub(crate) const EXIT_ERROR: u8 = 1;
/// The job that was waited for ended in failure or was cancelled.
pub(crate) const EXIT_JOB_FAILED: u8 = 3;

/// Starts logging.
pub(crate) fn start(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|_| {
        anyhow::anyhow!(
            "WINDLASS_LOG is {:?}; a level or a filter such as info,windlass_worker=debug is allowed",
            settings.log
        )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log::lines())
        .with_ansi(std::io::stderr().is_terminal());
    match settings.log_format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
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
