//! The one binary: settings, telemetry, subcommands. Thin: what it does lies in the crates.
//!
//! It never keeps a secret in its arguments, and prints to standard output only what a command
//! was asked for; everything else goes to the error output.

mod api_settings;
mod bridge;
mod candles;
mod cli;
mod cli_pdf;
mod close_queue;
mod commands;
mod descriptors;
mod duties;
mod eviction;
mod http;
mod images;
mod kinds;
mod local;
mod log;
mod marker;
mod market_settings;
mod otlp;
mod otlp_settings;
mod panic;
mod probe;
mod redis_settings;
mod runtime;
mod settings;
mod settings_file;
mod system;
mod systemd;
mod telemetry;

use std::process::ExitCode;

/// The argument that makes this binary run one isolated job and end.
const CHILD_ARG: &str = "__child";

fn main() -> ExitCode {
    // Before any thread or runtime exists: the child limits its one thread, and itself.
    if std::env::args_os().nth(1).is_some_and(|arg| arg == CHILD_ARG) {
        if let Some(font) = std::env::args_os().nth(2)
            && let Err(error) = images::use_font(font.as_ref())
        {
            return telemetry::fail(&error.context("the font of charts"), false);
        }
        return windlass_worker::child_main(&kinds::registry());
    }
    let cli = cli::parse();
    descriptors::raise();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return telemetry::fail(&anyhow::Error::new(e).context("the async runtime"), cli.json),
    };
    let json = cli.json;
    let code = match runtime.block_on(commands::run(cli)) {
        Ok(code) => code,
        Err(error) => telemetry::fail(&error, json),
    };
    // Whatever still runs has been drained or given back by now.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    otlp::finish();
    log::flush();
    code
}
