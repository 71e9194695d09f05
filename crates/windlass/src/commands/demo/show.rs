//! Progress for people: bars on a terminal, plain lines otherwise.

use std::cell::RefCell;
use std::io::IsTerminal as _;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use windlass_jobs::{JobRecord, State};

use crate::commands::report;

/// How the jobs of one round are shown.
pub(crate) struct Show {
    bars: Option<MultiProgress>,
    silent: bool,
}

impl Show {
    pub(crate) fn new(silent: bool) -> Self {
        let bars = (!silent && std::io::stdout().is_terminal())
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout()));
        Self { bars, silent }
    }

    pub(crate) fn job(&self, kind: &'static str) -> Job {
        let bar = self.bars.as_ref().map(|bars| {
            let style = ProgressStyle::with_template("  {prefix:<16} {bar:32.green} {pos:>3} %  {msg}");
            bars.add(
                ProgressBar::new(100)
                    .with_prefix(kind)
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
            )
        });
        Job { kind, bar, silent: self.silent, last: RefCell::new((None, 0)) }
    }
}

/// How one job is shown.
pub(crate) struct Job {
    kind: &'static str,
    bar: Option<ProgressBar>,
    silent: bool,
    /// The state and tenth of the way that were last printed as a line.
    last: RefCell<(Option<State>, u64)>,
}

impl Job {
    pub(crate) fn update(&self, record: &JobRecord) {
        let progress = record.progress.clone().unwrap_or_default();
        let percent = if record.state == State::Success { 100 } else { whole(progress.percent) };
        if let Some(bar) = &self.bar {
            bar.set_position(percent);
            bar.set_message(if record.state == State::Running { progress.message } else { record.state.to_string() });
            return;
        }
        let step = (Some(record.state), percent / 10);
        if self.silent || self.last.replace(step) == step {
            return;
        }
        let detail = if record.state == State::Running {
            format!("{percent:>3} %  {}", progress.message)
        } else {
            String::new()
        };
        report::line(format!("  {:<16} {:<9} {detail}", self.kind, record.state.as_str()).trim_end());
    }

    pub(crate) fn end(&self, record: &JobRecord) {
        if let Some(bar) = &self.bar {
            bar.finish_with_message(record.state.to_string());
        }
    }
}

fn whole(percent: f32) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "progress is 0 to 100")]
    let whole = percent.round() as u64;
    whole
}
