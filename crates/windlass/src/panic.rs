//! What is said when a handler panics: one line with where and what, through the log.

use std::panic::PanicHookInfo;

/// Sends panics to the log; the backtrace follows at level debug.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let text = info.payload_as_str().unwrap_or("");
        tracing::error!(place, "panic: {text}");
        tracing::debug!("{}", std::backtrace::Backtrace::force_capture());
    }));
}
