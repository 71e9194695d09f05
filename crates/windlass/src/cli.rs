//! The command line: what can be asked for.

mod keys;
mod market;
mod schedule;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use market::{
    Market, MarketCandles, MarketChange, MarketDemo, MarketOpen, MarketReplay, MarketVerb, ReplayMode,
};
use windlass_jobs::{Durability, JobId, OnFailure, Priority, Queue, Reason, State, Until};

pub(crate) use self::keys::{Audit, Keys, KeysCreate, KeysVerb, RecordsArgs, RecordsVerb};
pub(crate) use self::schedule::{MissedArg, Schedule, ScheduleAdd, ScheduleVerb};

/// Windlass: background jobs done reliably – PDFs, charts, checks – with one binary.
///
/// Without REDIS_URL everything lives in one SQLite file below --data-dir; with it, the same
/// commands work across machines.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print one JSON object as the last line of output, for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where the embedded queue, artifacts and keys are kept [default: ./windlass-data].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A settings file [default: ./windlass.toml if there is one].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a real PDF and a real chart through the embedded queue, twice, and show how.
    Demo(Demo),
    /// Run everything in one process: the HTTP API, a worker for all queues and a scheduler.
    Up(Up),
    /// Run a worker.
    Worker(WorkerArgs),
    /// Run the HTTP API alone.
    Api(ApiArgs),
    /// Run a scheduler: one of any number, of which one leads.
    Scheduler,
    /// Run a bridge: take jobs from stock apalis-redis storages and Celery clients, and answer them.
    Bridge(BridgeArgs),
    /// Schedules: list them, set, change, pause, run, remove.
    Schedule(Schedule),
    /// Put a job on its queue.
    Enqueue(Box<Enqueue>),
    /// Show one job.
    Task(Task),
    /// Cancel a job, waiting or running.
    Cancel {
        /// The job's id.
        id: JobId,
        /// With every job it is tied to: what it waits for, what waits for it, and so on.
        #[arg(long)]
        tree: bool,
    },
    /// Let workers claim nothing more of a queue.
    Pause {
        /// The queue.
        queue: Queue,
    },
    /// Let workers claim a paused queue's jobs again.
    Resume {
        /// The queue.
        queue: Queue,
    },
    /// Bound how many jobs of a queue may wait.
    Limit {
        /// The queue.
        queue: Queue,
        /// At most this many; without it, any number.
        #[arg(long, value_name = "N")]
        max_waiting: Option<u64>,
        /// Instead: how many may run and start at once, all anew, as JSON such as '{"concurrency": 10,
        /// "key_concurrency": 2, "key_rate": {"count": 5, "per_ms": 1000}}'; see docs/options.md.
        #[arg(long, value_name = "JSON", conflicts_with = "max_waiting")]
        limits: Option<String>,
    },
    /// Find jobs of a queue by state, kind and label, among the newest 10,000 in that state.
    Tasks(Tasks),
    /// Failed jobs: list them, let them start anew, forget them.
    Dead(Dead),
    /// Results and files that are kept so that equal jobs need not run.
    Cache(Cache),
    /// API keys: make them, list, rotate, revoke.
    Keys(Keys),
    /// Who administered what, and who was refused for want of a scope.
    Audit(Audit),
    /// API keys, schedules and the audit log as a file: backup and restore.
    Records(RecordsArgs),
    /// Card sheets from folders, reports, and jobs on PDF files.
    Pdf(Box<crate::cli_pdf::PdfCommand>),
    /// The image store: how much it holds, which images, and whether its counters are right.
    Images(ImagesArgs),
    /// Queues, workers and running jobs, live in the terminal.
    Top(Top),
    /// Show every queue: what waits, runs, is done, has failed.
    Queues,
    /// Show every worker: whether it can fetch, how many slots it has, what it runs.
    Workers,
    /// Show the kinds of job this binary can do.
    Kinds {
        /// Show those that workers have published instead, also when they are gone.
        #[arg(long)]
        published: bool,
    },
    /// Look whether everything a worker needs is there and works, and what to do where not; code 1 then.
    Doctor(Doctor),
    /// Prices and positions: hold the rules against files of quotes.
    Market(Market),
    /// Measure.
    Bench(Bench),
}

/// `windlass demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// End when the work is shown, instead of staying up with the API.
    #[arg(long)]
    pub(crate) once: bool,
    /// Where the PDF and the chart are written.
    #[arg(long, value_name = "DIR", default_value = "windlass-demo")]
    pub(crate) out: PathBuf,
}

/// `windlass bridge`.
#[derive(Debug, Args)]
pub(crate) struct BridgeArgs {
    /// Do not run: show the jobs that were refused, newest first.
    #[arg(long)]
    pub(crate) refused: bool,
    /// Show at most so many of each source.
    #[arg(long, value_name = "N", default_value_t = 100, requires = "refused")]
    pub(crate) limit: usize,
}

/// `windlass up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `windlass worker`.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Queues to serve, separated by commas [default: those of all kinds].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) queues: Vec<Queue>,
    /// Jobs run at once [default: twice the processors].
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<usize>,
}

/// `windlass api`.
#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// Address to listen on [default: 127.0.0.1:8001, or 0.0.0.0:$PORT].
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<std::net::SocketAddr>,
}

/// `windlass enqueue`.
#[derive(Debug, Args)]
pub(crate) struct Enqueue {
    /// What is to be done, such as pdf.card_sheet or chart.render; see `windlass kinds`.
    #[arg(required_unless_present = "flow")]
    pub(crate) kind: Option<String>,
    /// Instead of one job those of this JSON file (- for standard input), each of which starts when those
    /// before it have ended: {"chain": [step, ...]} or {"group": [step, ...], "then": step}; a step is such an
    /// object again, or a job as for POST /api/tasks. See docs/options.md.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "args", "queue", "wait", "after"])]
    pub(crate) flow: Option<PathBuf>,
    /// Start when this job has ended; may be repeated.
    #[arg(long, value_name = "ID")]
    pub(crate) after: Vec<JobId>,
    /// What becomes of it when one of those ends without success.
    #[arg(long, value_enum, default_value_t = OnFailureArg::Cancel, requires = "after")]
    pub(crate) on_failure: OnFailureArg,
    /// Its args: a JSON file, or - for standard input. A string "@path" in it names a file to
    /// upload, relative to the args file.
    #[arg(long, value_name = "FILE")]
    pub(crate) args: Option<PathBuf>,
    /// pdf.card_sheet: take the cards from this folder (front/, back/, double_sided/).
    #[arg(long, value_name = "DIR")]
    pub(crate) cards: Option<PathBuf>,
    /// chart.render: take the candles from this CSV (time,open,high,low,close,volume).
    #[arg(long, value_name = "FILE")]
    pub(crate) candles: Option<PathBuf>,
    /// The queue [default: the kind's].
    #[arg(long)]
    pub(crate) queue: Option<Queue>,
    /// Which of the waiting jobs go first.
    #[arg(long, value_enum, default_value_t = PriorityArg::Normal)]
    pub(crate) priority: PriorityArg,
    /// Not before this long from now: 500ms, 10s, 5m, 2h.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) delay: Option<Duration>,
    /// Not started this long from now: it ends in failure, reason expired.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) expires: Option<Duration>,
    /// Runs at most, the first included [default: the kind's].
    #[arg(long, value_name = "N")]
    pub(crate) max_attempts: Option<u32>,
    /// The longest one run may take [default: the kind's].
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) timeout: Option<Duration>,
    /// Whose it is: tenants take turns.
    #[arg(long, value_name = "KEY")]
    pub(crate) tenant: Option<String>,
    /// Jobs of one key run one at a time, in order.
    #[arg(long, value_name = "KEY")]
    pub(crate) ordering_key: Option<String>,
    /// So many of a key run at once as `windlass limit --limits` says.
    #[arg(long, value_name = "KEY")]
    pub(crate) concurrency_key: Option<String>,
    /// Jobs of a key start as often as `windlass limit --limits` says.
    #[arg(long, value_name = "KEY")]
    pub(crate) rate_key: Option<String>,
    /// What its acceptance waits for; what was reached is said.
    #[arg(long, value_enum, default_value_t = DurabilityArg::Fast)]
    pub(crate) durability: DurabilityArg,
    /// The only one with this key: while the first is there, a second changes nothing.
    #[arg(long, value_name = "KEY")]
    pub(crate) unique: Option<String>,
    /// How long the unique key is held at most [default: 24h].
    #[arg(long, value_name = "SPAN", value_parser = parse_span, requires = "unique")]
    pub(crate) unique_for: Option<Duration>,
    /// What ends the hold on the unique key before that.
    #[arg(long, value_enum, default_value_t = UntilArg::Finished, requires = "unique")]
    pub(crate) unique_until: UntilArg,
    /// The second takes the place of the first, if that waits.
    #[arg(long, requires = "unique")]
    pub(crate) replace: bool,
    /// The second moves the first, if that is scheduled, to its own time: at most this long after
    /// the first came.
    #[arg(long, value_name = "SPAN", value_parser = parse_span, requires = "unique")]
    pub(crate) debounce: Option<Duration>,
    /// A label, key=value; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Wait for the end and show it; on the embedded queue the job is run here when no worker is up.
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait: write the job's files into this folder.
    #[arg(long, value_name = "DIR", requires = "wait")]
    pub(crate) out: Option<PathBuf>,
}

/// What becomes of a job when one it depends on ends without success.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OnFailureArg {
    /// It is cancelled.
    Cancel,
    /// It runs all the same.
    Run,
}

impl From<OnFailureArg> for OnFailure {
    fn from(arg: OnFailureArg) -> Self {
        match arg {
            OnFailureArg::Cancel => Self::Cancel,
            OnFailureArg::Run => Self::Run,
        }
    }
}

/// What the acceptance of a job waits for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// The store has it.
    Fast,
    /// Its replicas have it.
    Replicated,
    /// It is on the store's disk.
    Fsynced,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Fast => Self::Fast,
            DurabilityArg::Replicated => Self::Replicated,
            DurabilityArg::Fsynced => Self::Fsynced,
        }
    }
}

/// What ends the hold on a unique key before its time is over.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum UntilArg {
    /// The job's first start.
    Started,
    /// The job's end.
    Finished,
    /// Nothing.
    Ttl,
}

impl From<UntilArg> for Until {
    fn from(until: UntilArg) -> Self {
        match until {
            UntilArg::Started => Self::Started,
            UntilArg::Finished => Self::Finished,
            UntilArg::Ttl => Self::Ttl,
        }
    }
}

/// `windlass task`.
#[derive(Debug, Args)]
pub(crate) struct Task {
    /// The job's id, as enqueue printed it.
    pub(crate) id: JobId,
    /// Follow it to its end.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Write the job's files into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// `windlass top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Print one frame as text and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// How often to look: 500ms, 2s.
    #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "1s")]
    pub(crate) every: Duration,
    /// Look by an API, http://host:port, instead of at the store; with a key from WINDLASS_API_KEY.
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<String>,
}

/// `windlass doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also go through what an installation that others rely on needs: TLS, password, user, persistence,
    /// environment, keys, metrics, alerts.
    #[arg(long)]
    pub(crate) production: bool,
    /// Where the API answers /metrics [default: where the settings let it listen].
    #[arg(long, value_name = "URL", requires = "production")]
    pub(crate) api: Option<String>,
    /// A Prometheus that should have the alert rules.
    #[arg(long, value_name = "URL", requires = "production")]
    pub(crate) prometheus: Option<String>,
}

/// `windlass dead`.
#[derive(Debug, Args)]
pub(crate) struct Dead {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: DeadVerb,
}

/// What can be done with failed jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadVerb {
    /// Show a queue's failed jobs, newest first.
    List {
        /// The queue.
        queue: Queue,
        /// At most this many.
        #[arg(long, default_value_t = 20, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=500))]
        limit: usize,
    },
    /// Let failed jobs start anew, with all their attempts.
    Replay(Which),
    /// Forget failed jobs.
    Delete(Which),
}

/// `windlass tasks`.
#[derive(Debug, Args)]
pub(crate) struct Tasks {
    /// The queue.
    pub(crate) queue: Queue,
    /// scheduled, pending, running, retrying, success, failure or cancelled.
    #[arg(long, default_value = "pending")]
    pub(crate) state: State,
    /// The pending ones that are held because no worker knows their kind.
    #[arg(long, conflicts_with = "state")]
    pub(crate) parked: bool,
    /// Only this kind.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Only with this label, key=value; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// At most so many, 1 to 500.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(crate) limit: u16,
    /// Where to go on: what the call before said.
    #[arg(long, default_value_t = 0)]
    pub(crate) cursor: u64,
}

/// Which failed jobs are meant: ids, or a queue and a filter.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// These jobs.
    #[arg(conflicts_with_all = ["queue", "kind", "reason", "labels", "all"])]
    pub(crate) ids: Vec<JobId>,
    /// Those of this queue that fit the filter; done by a job, in slices.
    #[arg(long)]
    pub(crate) queue: Option<Queue>,
    /// Only this kind.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Only this reason: error, timeout, crashed, oom, poisoned, expired, decode, result_too_large.
    #[arg(long)]
    pub(crate) reason: Option<Reason>,
    /// Only with this label, key=value; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Every failed job of the queue.
    #[arg(long)]
    pub(crate) all: bool,
}

/// `windlass images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: ImagesVerb,
}

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagesVerb {
    /// Count what is kept, read and gone, on Redis and on files.
    Stats,
    /// Show images, newest first.
    List {
        /// Only of this symbol.
        #[arg(long)]
        symbol: Option<String>,
        /// Go on where the list before ended.
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 20, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=500))]
        limit: usize,
    },
    /// Take away what is too old, or too many bytes, now.
    Cleanup,
    /// Count everything on Redis anew (it scans) and compare; code 1 when counters are wrong.
    Verify {
        /// Put wrong counters right.
        #[arg(long)]
        repair: bool,
    },
}

/// `windlass cache`.
#[derive(Debug, Args)]
pub(crate) struct Cache {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: CacheVerb,
}

/// What can be done with the result cache.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum CacheVerb {
    /// How much is kept, and how well it serves.
    Stats,
    /// Forget every result, so that equal jobs run anew; files of finished jobs stay.
    Clear,
}

/// `windlass bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What is measured.
    #[command(subcommand)]
    pub(crate) what: BenchWhat,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchWhat {
    /// Enqueue, drain, latency and memory of the queue, with jobs that do nothing.
    Queue(BenchQueue),
    /// Jobs accepted over HTTP, one each, on connections that stay open.
    Api(BenchApi),
    /// Values read from the cache service.
    Cache(BenchCache),
    /// Positions watched, closed and marked, and how long a quote takes to a commit.
    Market(BenchMarket),
}

/// `windlass bench market`.
#[derive(Debug, Args)]
pub(crate) struct BenchMarket {
    /// Open positions.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(200_000..=10_000_000))]
    pub(crate) positions: i64,
    /// How long live quotes are measured.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) seconds: u64,
    /// An empty PostgreSQL database; without one a file of its own.
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
}

/// `windlass bench api`.
#[derive(Debug, Args)]
pub(crate) struct BenchApi {
    /// How long it is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 64, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=800))]
    pub(crate) connections: usize,
}

/// `windlass bench cache`.
#[derive(Debug, Args)]
pub(crate) struct BenchCache {
    /// How long each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Clients at once.
    #[arg(long, default_value_t = 64, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub(crate) clients: usize,
}

/// `windlass bench queue`.
#[derive(Debug, Args)]
pub(crate) struct BenchQueue {
    /// Jobs to drain.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=5_000_000))]
    pub(crate) jobs: u64,
    /// Jobs run at once.
    #[arg(long, default_value_t = 512)]
    pub(crate) slots: usize,
    /// Samples of the latency from enqueue to start.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=100_000))]
    pub(crate) samples: u64,
    /// Let the jobs take turns in 1,000 lanes of this sort; and flood one tenant, to see how long the
    /// others wait.
    #[arg(long, value_enum)]
    pub(crate) lanes: Option<LanesArg>,
    /// Spread the queue over so many shards.
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=256))]
    pub(crate) shards: Option<u16>,
}

/// What the jobs of a bench carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LanesArg {
    /// A tenant.
    Tenants,
    /// A concurrency key, of which four run at once.
    Concurrency,
    /// An ordering key.
    Ordering,
}

/// Which of the waiting jobs go first.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PriorityArg {
    /// Before all others.
    High,
    /// After high ones.
    Normal,
    /// After all others.
    Low,
}

impl From<PriorityArg> for Priority {
    fn from(priority: PriorityArg) -> Self {
        match priority {
            PriorityArg::High => Self::High,
            PriorityArg::Normal => Self::Normal,
            PriorityArg::Low => Self::Low,
        }
    }
}

/// Reads the command line; ends the process on a wrong one (code 2) or after help.
pub(crate) fn parse() -> Cli {
    Cli::parse()
}

/// `500ms`, `10s`, `5m`, `2h`, `1d`.
fn parse_span(text: &str) -> Result<Duration, String> {
    let fail = || format!("{text:?} is not a number followed by ms, s, m, h or d");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().map_err(|_| fail())?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(fail()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(fail)
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn spans_are_read() {
        let check =
            |text: &str, ms: Option<u64>| assert_eq!(parse_span(text).ok(), ms.map(Duration::from_millis), "{text}");
        check("500ms", Some(500));
        check("10s", Some(10_000));
        check("2h", Some(7_200_000));
        check("10", None);
        check("-1s", None);
        check("1.5s", None);
        check("99999999999999999999d", None);
    }
}
