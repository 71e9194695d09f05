//! The command line of `windlass schedule`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use windlass_jobs::{Queue, Timestamp};
use windlass_scheduler::{ClockChange, Overlap};

use super::{PriorityArg, parse_label, parse_span};

/// `windlass schedule`.
#[derive(Debug, Args)]
pub(crate) struct Schedule {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: ScheduleVerb,
}

/// What can be done with schedules.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleVerb {
    /// Show all: plan, next firing, totals, what is overdue.
    List,
    /// Show one.
    Show {
        /// The schedule.
        name: String,
    },
    /// Show the next firings of a schedule, or of a plan that is not kept.
    Next {
        /// The schedule.
        name: Option<String>,
        /// Of this plan instead.
        #[arg(long, conflicts_with = "name")]
        plan: Option<String>,
        /// In this zone.
        #[arg(long, default_value = "UTC", requires = "plan")]
        zone: String,
        /// How many.
        #[arg(long, default_value_t = 10, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100))]
        count: usize,
    },
    /// Keep a new schedule, or change one.
    Add(Box<ScheduleAdd>),
    /// Put one to rest.
    Pause {
        /// The schedule.
        name: String,
    },
    /// Let it go on, from now.
    Resume {
        /// The schedule.
        name: String,
    },
    /// Enqueue its job now, whatever its plan says.
    Run {
        /// The schedule.
        name: String,
    },
    /// Forget one, with its history.
    Remove {
        /// The schedule.
        name: String,
    },
    /// Show what was done about its last ticks, newest first.
    History {
        /// The schedule.
        name: String,
        /// At most this many.
        #[arg(long, default_value_t = 20, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100))]
        limit: usize,
    },
}

/// `windlass schedule add`.
#[derive(Debug, Args)]
pub(crate) struct ScheduleAdd {
    /// Its name: 1 to 64 of a-z 0-9 _ - and dots.
    pub(crate) name: String,
    /// When: cron with 5 or 6 fields, @daily, "@every 5s", "@at 2026-12-24T18:00".
    #[arg(long)]
    pub(crate) plan: String,
    /// What is to be done; see `windlass kinds`.
    #[arg(long)]
    pub(crate) kind: String,
    /// Its args: a JSON file, or - for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) args: Option<PathBuf>,
    /// The plan's time zone, such as Europe/Berlin.
    #[arg(long, default_value = "UTC")]
    pub(crate) zone: String,
    /// When clocks are changed: each local time once (end of a gap, first of two), once but the
    /// last of two, or as clocks show it.
    #[arg(long, value_enum, default_value_t = ClockChangeArg::Once)]
    pub(crate) clock_change: ClockChangeArg,
    /// The queue [default: the kind's].
    #[arg(long)]
    pub(crate) queue: Option<Queue>,
    /// Which of the waiting jobs go first.
    #[arg(long, value_enum, default_value_t = PriorityArg::Normal)]
    pub(crate) priority: PriorityArg,
    /// Runs at most, the first included [default: the kind's].
    #[arg(long, value_name = "N")]
    pub(crate) max_attempts: Option<u32>,
    /// The longest one run may take [default: the kind's].
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) timeout: Option<Duration>,
    /// Not started this long after it was enqueued: it ends in failure, reason expired.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) expires: Option<Duration>,
    /// A label, key=value; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Spread firings over this span behind their time.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) jitter: Option<Duration>,
    /// No tick before this instant (RFC 3339).
    #[arg(long, value_name = "INSTANT", value_parser = Timestamp::parse_rfc3339)]
    pub(crate) starts_at: Option<Timestamp>,
    /// No tick after this instant (RFC 3339).
    #[arg(long, value_name = "INSTANT", value_parser = Timestamp::parse_rfc3339)]
    pub(crate) ends_at: Option<Timestamp>,
    /// Ticks that came due while no scheduler was up.
    #[arg(long, value_enum, default_value_t = MissedArg::Latest)]
    pub(crate) missed: MissedArg,
    /// With --missed all: at most this many, the newest.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) missed_max: u32,
    /// With --missed all: at most this late.
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = parse_span)]
    pub(crate) missed_window: Duration,
    /// How late is missed [default: 10s].
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) grace: Option<Duration>,
    /// When the run before has not ended.
    #[arg(long, value_enum, default_value_t = OverlapArg::Skip)]
    pub(crate) overlap: OverlapArg,
    /// Change the schedule of this name if there is one.
    #[arg(long)]
    pub(crate) replace: bool,
}

/// What to do about missed ticks.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum MissedArg {
    /// Nothing.
    Skip,
    /// Make up for the last one.
    Latest,
    /// Make up for them within --missed-max and --missed-window.
    All,
}

/// What to do when the run before has not ended.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OverlapArg {
    /// Skip the tick.
    Skip,
    /// Let it wait.
    Queue,
    /// Run both.
    Allow,
    /// Cancel the run before.
    Replace,
}

impl From<OverlapArg> for Overlap {
    fn from(arg: OverlapArg) -> Self {
        match arg {
            OverlapArg::Skip => Self::Skip,
            OverlapArg::Queue => Self::Queue,
            OverlapArg::Allow => Self::Allow,
            OverlapArg::Replace => Self::Replace,
        }
    }
}

/// What happens to local times when clocks are changed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ClockChangeArg {
    /// Each once: at the end of a gap, the first of two.
    Once,
    /// Each once: at the end of a gap, the second of two.
    Last,
    /// As clocks show it: not in a gap, both of two.
    Wall,
}

impl From<ClockChangeArg> for ClockChange {
    fn from(arg: ClockChangeArg) -> Self {
        match arg {
            ClockChangeArg::Once => Self::Once,
            ClockChangeArg::Last => Self::Last,
            ClockChangeArg::Wall => Self::Wall,
        }
    }
}
