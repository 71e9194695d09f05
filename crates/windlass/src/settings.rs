//! Settings: one TOML file, environment variables over it, flags over both.
//!
//! `.env`, then `.env.local`, are read from the working directory and never override what is
//! set. A bad value stops the start and names variable, value and what is allowed; secrets
//! print as `***`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use windlass_jobs::Queue;

use crate::redis_settings::of_store;
use crate::settings_file::{self, Tables};

/// A text that never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Everything a process can be told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where the embedded stores lie. `WINDLASS_DATA_DIR`, default `windlass-data`.
    pub(crate) data_dir: PathBuf,
    /// Where records lie – API keys, schedules, the audit log – `postgres://…`.
    /// `WINDLASS_RECORDS_DATABASE_URL`; none: a file in the data directory, or Redis with a copy in a file.
    pub(crate) records_database_url: Option<Secret>,
    /// Where positions lie, `postgres://…`. `WINDLASS_MARKET_DATABASE_URL`; none: a file in the data directory.
    pub(crate) market_database_url: Option<Secret>,
    /// The market's price cache.
    pub(crate) market: crate::market_settings::MarketSettings,
    /// What is taken from apalis-redis storages and Celery clients, and handed to apalis workers.
    pub(crate) bridge: crate::bridge::BridgeSettings,
    /// How Redis is reached; none: embedded. `REDIS_URL`, or `REDIS_SENTINELS`, or `REDIS_HOST`,
    /// each with what belongs to it: see [`crate::redis_settings`].
    pub(crate) redis: Option<windlass_redis::Options>,
    /// What whoever wrote the settings should know; said once there is a log.
    pub(crate) notes: Vec<String>,
    /// Start on a Redis that throws keys away when it is full. `WINDLASS_ALLOW_EVICTION`, default
    /// false.
    pub(crate) allow_eviction: bool,
    /// What may wait on this machine's disk while the queue's Redis is away; 0: nothing.
    /// `WINDLASS_SPOOL_MAX_MB`, 0–1,048,576, default 256.
    pub(crate) spool_bytes: u64,
    /// Which environment this is; a Redis that another one has marked is refused. `ENVIRONMENT`,
    /// default none.
    pub(crate) environment: Option<String>,
    /// Start on another environment's Redis all the same. `WINDLASS_ANY_ENVIRONMENT`, default false.
    pub(crate) any_environment: bool,
    /// What jobs wait for that ask for more than `fast`: `WINDLASS_DURABLE_REPLICAS` (1–100, default 1) and
    /// `WINDLASS_DURABLE_WITHIN_MS` (1–60,000, default 1,000).
    pub(crate) waits: windlass_broker::redis::Waits,
    /// First word of the queue's keys, `[a-z0-9_-]{1,32}`. `WINDLASS_QUEUE_PREFIX`, default `wl`.
    pub(crate) queue_prefix: String,
    /// Where the API listens. `WINDLASS_LISTEN`, else `0.0.0.0:$PORT`, else `127.0.0.1:8001`.
    pub(crate) listen: SocketAddr,
    /// Who is let in over HTTP.
    pub(crate) api: crate::api_settings::ApiSettings,
    /// What commands that ask an API show it. `WINDLASS_API_KEY`, default none.
    pub(crate) api_key: Option<Secret>,
    /// Whatever is set, by name, with secrets hidden.
    pub(crate) in_force: Vec<(String, String)>,
    /// Queues a worker serves. `WINDLASS_QUEUES`; empty: those of all kinds.
    pub(crate) queues: Vec<Queue>,
    /// Jobs a worker runs at once. `WINDLASS_SLOTS`.
    pub(crate) slots: Option<usize>,
    /// Over how many shards queues are spread, the same in every process. `WINDLASS_QUEUE_SHARDS`
    /// (`bulk=3`, 2–256); default none.
    pub(crate) shards: BTreeMap<Queue, u16>,
    /// How much of a worker queues may have. `WINDLASS_QUEUE_WEIGHTS` (`pdf=3,chart=1`, 1–1,000) and
    /// `WINDLASS_QUEUE_SLOTS` (`pdf=2`, 1–10,000).
    pub(crate) shares: BTreeMap<Queue, windlass_worker::Share>,
    /// The parts that high, normal and low jobs get while all three wait. `WINDLASS_PRIORITY_WEIGHTS`
    /// (`6,3,1`, each 1–1,000); default: none, all high ones first.
    pub(crate) priorities: Option<windlass_jobs::PriorityWeights>,
    /// Jobs of a kind a worker runs at once. `WINDLASS_KIND_SLOTS` (`pdf.card_sheet=1`, 1–10,000).
    pub(crate) kind_slots: BTreeMap<String, usize>,
    /// What a worker's running jobs may declare together. `WINDLASS_MEMORY_MIB`, 1–16,777,216.
    pub(crate) memory_bytes: Option<u64>,
    /// A job's lease. `WINDLASS_LEASE_MS`, 100–3,600,000, default 30,000.
    pub(crate) lease: Duration,
    /// How long a job of a kind that no worker knows is offered before it is parked.
    /// `WINDLASS_PARK_SECONDS`, 0–86,400, default 900.
    pub(crate) park_after: Duration,
    /// Where a worker answers probes. `WINDLASS_WORKER_LISTEN`: an address and a port, or `off`;
    /// default `127.0.0.1:8002`, or a free port when another worker has that one.
    pub(crate) worker_listen: WorkerListen,
    /// How old a worker's canary may be. `WINDLASS_READY_WITHIN_MS` (500–3,600,000, default
    /// 15,000) and `WINDLASS_LIVE_WITHIN_MS` (from that to 86,400,000, default 60,000).
    pub(crate) health: windlass_worker::HealthLimits,
    /// How long a drain waits for running jobs. `WINDLASS_GRACE_SECONDS`, 0–3,600, default 25.
    pub(crate) grace: Duration,
    /// The program that children run. `WINDLASS_CHILD_PROGRAM`, default this one.
    pub(crate) child_program: PathBuf,
    /// When a child is used again. `WINDLASS_CHILD_JOBS` (1–1,000,000, default 100) and
    /// `WINDLASS_CHILD_MEMORY_MIB` (1–1,048,576, default 256).
    pub(crate) recycle: windlass_worker::Recycle,
    /// How much is kept beside the queue, and for how long: `WINDLASS_CACHE_MAX_MB` (1–16,777,216,
    /// default 1024), `WINDLASS_BLOBS_MAX_MB` (the same, default 2048),
    /// `WINDLASS_ARTIFACT_TTL_HOURS` and `WINDLASS_BLOB_TTL_HOURS` (1–8,760, default 24).
    pub(crate) limits: windlass_store::Limits,
    /// `[[schedule]]` of the settings file, as they stand there.
    pub(crate) schedules: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Where a scheduler says how it is. `WINDLASS_SCHEDULER_LISTEN`; default nowhere.
    pub(crate) scheduler_listen: Option<SocketAddr>,
    /// What a job in a child may write in all. `WINDLASS_CHILD_DISK_MIB`, 1–1,048,576, default 2,048.
    pub(crate) child_disk_bytes: u64,
    /// What its inputs may be in all. `WINDLASS_CHILD_INPUT_MIB`, 1–1,048,576, default 1,024.
    pub(crate) child_input_bytes: u64,
    /// Names, times and memory of the cache service: `REDIS_KEY_PREFIX` (default `windlass`),
    /// `WINDLASS_OLD_NAMES` (true or false, default false), `REDIS_TTL_DEFAULT` (1–2,592,000 s, default
    /// 3600), `WINDLASS_CACHE_MEMORY_MB` (1–1,048,576, default 64).
    pub(crate) caching: windlass_store::CachingOptions,
    /// The Redis of the cache service. `WINDLASS_CACHE_REDIS_URL`, default that of the queue.
    pub(crate) cache_redis: Option<windlass_redis::Options>,
    /// The image store.
    pub(crate) images: crate::images::ImageSettings,
    /// What is logged, as a filter of the tracing crate. `WINDLASS_LOG`, default `info`.
    pub(crate) log: String,
    /// How it is logged: `text` or `json`. `WINDLASS_LOG_FORMAT`, default `text`.
    pub(crate) log_format: LogFormat,
    /// Where traces go.
    pub(crate) otlp: crate::otlp_settings::OtlpSettings,
}

/// Where a worker answers probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerListen {
    /// There or on a free port.
    Near(SocketAddr),
    /// There and nowhere else.
    At(SocketAddr),
    Off,
}

impl FromStr for WorkerListen {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        if s == "off" { Ok(Self::Off) } else { s.parse().map(Self::At).map_err(|_| ()) }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        match s {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

/// Every environment variable that is read, with its name in the TOML file. `.env.example`
/// lists them all (a test).
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("WINDLASS_DATA_DIR", "data_dir"),
    ("WINDLASS_MARKET_DATABASE_URL", "market_database_url"),
    ("WINDLASS_MARKET_REDIS_URL", "market_redis_url"),
    ("WINDLASS_MARKET_FORMAT", "market_format"),
    ("WINDLASS_MARKET_KEY_PREFIX", "market_key_prefix"),
    ("WINDLASS_SYNTHETIC_PRICES", "synthetic_prices"),
    ("WINDLASS_CALLBACK_KEY", "callback_key"),
    ("WINDLASS_QUOTES_STREAM", "quotes_stream"),
    ("WINDLASS_QUOTES_CHANNEL", "quotes_channel"),
    ("WINDLASS_PRICE_TTL_SECONDS", "price_ttl_seconds"),
    ("WINDLASS_TICK_TTL_SECONDS", "tick_ttl_seconds"),
    ("WINDLASS_TICK_MAX_KB", "tick_max_kb"),
    ("WINDLASS_CANDLE_TTL_SECONDS", "candle_ttl_seconds"),
    ("WINDLASS_CALM_TTL_SECONDS", "calm_ttl_seconds"),
    ("WINDLASS_BAND_TTL_SECONDS", "band_ttl_seconds"),
    ("WINDLASS_QUEUE_PREFIX", "queue_prefix"),
    ("WINDLASS_DURABLE_REPLICAS", "durable_replicas"),
    ("WINDLASS_DURABLE_WITHIN_MS", "durable_within_ms"),
    ("WINDLASS_LISTEN", "listen"),
    ("PORT", "port"),
    ("WINDLASS_BASE_PATH", "base_path"),
    ("WINDLASS_API_KEYS", "api_keys"),
    ("WINDLASS_API_KEY", "api_key"),
    ("WINDLASS_LOOPBACK_ACCESS", "loopback_access"),
    ("WINDLASS_RATE_LIMIT", "rate_limit"),
    ("WINDLASS_CORS_ORIGINS", "cors_origins"),
    ("WINDLASS_MAX_JSON_KB", "max_json_kb"),
    ("WINDLASS_MAX_QUOTES_KB", "max_quotes_kb"),
    ("WINDLASS_MAX_BLOB_MB", "max_blob_mb"),
    ("WINDLASS_MAX_MULTIPART_MB", "max_multipart_mb"),
    ("WINDLASS_MAX_BODIES_MB", "max_bodies_mb"),
    ("WINDLASS_MAX_URL_BYTES", "max_url_bytes"),
    ("WINDLASS_MAX_BATCH_JOBS", "max_batch_jobs"),
    ("WINDLASS_MAX_EVENT_STREAMS", "max_event_streams"),
    ("WINDLASS_MAX_CONNECTIONS", "max_connections"),
    ("WINDLASS_BODY_TIMEOUT_MS", "body_timeout_ms"),
    ("WINDLASS_HEAD_TIMEOUT_MS", "head_timeout_ms"),
    ("WINDLASS_DRAIN_TIMEOUT_MS", "drain_timeout_ms"),
    ("WINDLASS_RECORDS_DATABASE_URL", "records_database_url"),
    ("WINDLASS_QUEUES", "queues"),
    ("WINDLASS_SLOTS", "slots"),
    ("WINDLASS_QUEUE_SHARDS", "queue_shards"),
    ("WINDLASS_QUEUE_WEIGHTS", "queue_weights"),
    ("WINDLASS_QUEUE_SLOTS", "queue_slots"),
    ("WINDLASS_PRIORITY_WEIGHTS", "priority_weights"),
    ("WINDLASS_KIND_SLOTS", "kind_slots"),
    ("WINDLASS_MEMORY_MIB", "memory_mib"),
    ("WINDLASS_LEASE_MS", "lease_ms"),
    ("WINDLASS_ALLOW_EVICTION", "allow_eviction"),
    ("WINDLASS_ANY_ENVIRONMENT", "any_environment"),
    ("WINDLASS_SPOOL_MAX_MB", "spool_max_mb"),
    ("WINDLASS_PARK_SECONDS", "park_seconds"),
    ("WINDLASS_WORKER_LISTEN", "worker_listen"),
    ("WINDLASS_READY_WITHIN_MS", "ready_within_ms"),
    ("WINDLASS_LIVE_WITHIN_MS", "live_within_ms"),
    ("WINDLASS_SCHEDULER_LISTEN", "scheduler_listen"),
    ("WINDLASS_BRIDGE_LISTEN", "bridge_listen"),
    ("WINDLASS_APALIS_SOURCES", "apalis_sources"),
    ("WINDLASS_APALIS_TARGETS", "apalis_targets"),
    ("WINDLASS_APALIS_REDIS_URL", "apalis_redis_url"),
    ("WINDLASS_CELERY_QUEUES", "celery_queues"),
    ("WINDLASS_CELERY_TASKS", "celery_tasks"),
    ("WINDLASS_CELERY_VISIBILITY_SECONDS", "celery_visibility_seconds"),
    ("CELERY_BROKER_URL", "celery_broker_url"),
    ("CELERY_RESULT_BACKEND", "celery_result_backend"),
    ("CELERY_RESULT_EXPIRES", "celery_result_expires"),
    ("WINDLASS_GRACE_SECONDS", "grace_seconds"),
    ("WINDLASS_CHILD_PROGRAM", "child_program"),
    ("WINDLASS_CHILD_JOBS", "child_jobs"),
    ("WINDLASS_CHILD_MEMORY_MIB", "child_memory_mib"),
    ("WINDLASS_CACHE_MAX_MB", "cache_max_mb"),
    ("WINDLASS_BLOBS_MAX_MB", "blobs_max_mb"),
    ("WINDLASS_ARTIFACT_TTL_HOURS", "artifact_ttl_hours"),
    ("WINDLASS_BLOB_TTL_HOURS", "blob_ttl_hours"),
    ("WINDLASS_CHILD_DISK_MIB", "child_disk_mib"),
    ("WINDLASS_CHILD_INPUT_MIB", "child_input_mib"),
    ("WINDLASS_OLD_NAMES", "old_names"),
    ("WINDLASS_CACHE_MEMORY_MB", "cache_memory_mb"),
    ("WINDLASS_CACHE_REDIS_URL", "cache_redis_url"),
    ("REDIS_KEY_PREFIX", "redis_key_prefix"),
    ("REDIS_TTL_DEFAULT", "redis_ttl_default"),
    ("WINDLASS_LOG", "log"),
    ("WINDLASS_LOG_FORMAT", "log_format"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp_endpoint"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "otlp_traces_endpoint"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "otlp_headers"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "otlp_timeout_ms"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "otlp_certificate"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "otlp_protocol"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "otlp_traces_headers"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "otlp_traces_timeout_ms"),
    ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "otlp_traces_certificate"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "otlp_traces_protocol"),
    ("OTEL_TRACES_EXPORTER", "otlp_traces_exporter"),
    ("OTEL_SERVICE_NAME", "otlp_service_name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "otlp_resource_attributes"),
    ("OTEL_TRACES_SAMPLER", "otlp_sampler"),
    ("OTEL_TRACES_SAMPLER_ARG", "otlp_sampler_arg"),
    ("OTEL_SDK_DISABLED", "otlp_disabled"),
    ("ENVIRONMENT", "environment"),
    ("REDIS_IMAGE_MAX_AGE_HOURS", "redis_image_max_age_hours"),
    ("REDIS_IMAGE_MAX_SIZE_MB", "redis_image_max_size_mb"),
    ("REDIS_IMAGE_CLEANUP_INTERVAL_MINUTES", "redis_image_cleanup_interval_minutes"),
    ("REDIS_IMAGE_ENABLE_CLEANUP", "redis_image_enable_cleanup"),
    ("REDIS_IMAGE_QUALITY", "redis_image_quality"),
    ("REDIS_IMAGE_FORMAT", "redis_image_format"),
    ("WINDLASS_IMAGE_REDIS_URL", "image_redis_url"),
    ("WINDLASS_IMAGE_DIR", "image_dir"),
    ("WINDLASS_IMAGE_OLD_DIR", "image_old_dir"),
    ("WINDLASS_CHART_FONT", "chart_font"),
    ("WINDLASS_IMAGE_MAX_KB", "image_max_kb"),
    ("WINDLASS_IMAGE_EVICT", "image_evict"),
    ("WINDLASS_IMAGE_FILES_MAX_MB", "image_files_max_mb"),
    ("REDIS_URL", "redis_url"),
    ("REDIS_HOST", "redis_host"),
    ("REDIS_PORT", "redis_port"),
    ("REDIS_USERNAME", "redis_username"),
    ("REDIS_PASSWORD", "redis_password"),
    ("REDIS_DB", "redis_db"),
    ("REDIS_SOCKET_TIMEOUT", "redis_socket_timeout"),
    ("REDIS_SOCKET_CONNECT_TIMEOUT", "redis_socket_connect_timeout"),
    ("REDIS_CONNECTION_POOL_MAX_SIZE", "redis_connection_pool_max_size"),
    ("WINDLASS_REDIS_KEEPALIVE_SECONDS", "redis_keepalive_seconds"),
    ("REDIS_SENTINELS", "redis_sentinels"),
    ("REDIS_SENTINEL_SERVICE", "redis_sentinel_service"),
    ("REDIS_SENTINEL_USERNAME", "redis_sentinel_username"),
    ("REDIS_SENTINEL_PASSWORD", "redis_sentinel_password"),
    ("REDIS_SSL", "redis_ssl"),
    ("REDIS_SSL_CERT_REQS", "redis_ssl_cert_reqs"),
    ("REDIS_SSL_CA_CERTS", "redis_ssl_ca_certs"),
    ("REDIS_SSL_CERTFILE", "redis_ssl_certfile"),
    ("REDIS_SSL_KEYFILE", "redis_ssl_keyfile"),
];

/// Names whose values are never shown.
const SECRET: &[&str] = &[
    "WINDLASS_API_KEYS",
    "WINDLASS_API_KEY",
    "REDIS_URL",
    "REDIS_PASSWORD",
    "REDIS_SENTINEL_PASSWORD",
    "WINDLASS_MARKET_DATABASE_URL",
    "WINDLASS_MARKET_REDIS_URL",
    "WINDLASS_CALLBACK_KEY",
    "WINDLASS_RECORDS_DATABASE_URL",
    "WINDLASS_CACHE_REDIS_URL",
    "WINDLASS_IMAGE_REDIS_URL",
    "WINDLASS_APALIS_REDIS_URL",
    "CELERY_BROKER_URL",
    "CELERY_RESULT_BACKEND",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
];

/// What was found, by environment name.
pub(crate) struct Found {
    all: HashMap<&'static str, String>,
    /// `[[schedule]]` and `[trading]` of the settings file.
    tables: Tables,
}

impl Found {
    /// Reads the environment, `.env`, `.env.local` and the TOML file, first found first taken.
    pub(crate) fn read(
        dir: &Path,
        config: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let mut all: HashMap<&'static str, String> =
            NAMES.iter().filter_map(|(name, _)| Some((*name, env(name)?))).collect();
        for file in [".env", ".env.local"] {
            for (name, value) in read_env_file(&dir.join(file))? {
                if let Some((name, _)) = NAMES.iter().find(|(known, _)| *known == name) {
                    all.entry(name).or_insert(value);
                }
            }
        }
        let (toml, tables) = settings_file::read(dir, config)?;
        for (name, value) in toml {
            all.entry(name).or_insert(value);
        }
        // Set to nothing means not set, as deployment tools do it.
        all.retain(|_, value| !value.trim().is_empty());
        Ok(Self { all, tables })
    }

    /// Whatever is set, by name, with secrets hidden.
    fn in_force(&self) -> Vec<(String, String)> {
        let shown = |name: &str, value: &str| if SECRET.contains(&name) { "***".to_owned() } else { value.to_owned() };
        let mut all: Vec<_> = self.all.iter().map(|(name, value)| ((*name).to_owned(), shown(name, value))).collect();
        all.sort();
        all
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.all.get(name).map(String::as_str)
    }

    pub(crate) const fn trading(&self) -> Option<&serde_json::Value> {
        self.tables.trading.as_ref()
    }

    pub(crate) fn parse<T: FromStr>(
        &self,
        name: &str,
        allowed: &str,
        fits: impl Fn(&T) -> bool,
    ) -> anyhow::Result<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.trim().parse::<T>().ok().filter(fits) {
            Some(value) => Ok(Some(value)),
            None => Err(bad(name, text, allowed)),
        }
    }
}

pub(crate) fn bad(name: &str, value: &str, allowed: &str) -> anyhow::Error {
    let shown = if SECRET.contains(&name) { "***" } else { value };
    anyhow!("{name} is {shown:?}; {allowed} is allowed")
}

fn read_env_file(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    match dotenvy::from_path_iter(path) {
        Ok(lines) => {
            // The parser's message quotes the line, which may hold a secret.
            let read: Result<Vec<_>, _> = lines.collect();
            read.map_err(|_| anyhow!("{}: a line is not NAME=value", path.display()))
        }
        Err(e) if e.not_found() => Ok(Vec::new()),
        Err(_) => bail!("{} cannot be read", path.display()),
    }
}

impl Settings {
    /// Reads everything for a process started in the current directory.
    pub(crate) fn read(config: Option<&Path>) -> anyhow::Result<Self> {
        let dir = std::env::current_dir().context("the working directory")?;
        Self::read_from(&dir, config, &|name| std::env::var(name).ok())
    }

    fn read_from(dir: &Path, config: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let found = Found::read(dir, config, env)?;
        let prefix_fits = |p: &String| {
            (1..=32).contains(&p.len()) && p.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        };
        let (redis, notes) = crate::redis_settings::queue(&found)?;
        let lease_ms =
            found.parse::<u64>("WINDLASS_LEASE_MS", "100 to 3600000", |ms| (100..=3_600_000).contains(ms))?;
        let grace_s = found.parse::<u64>("WINDLASS_GRACE_SECONDS", "0 to 3600", |s| *s <= 3600)?;
        Ok(Self {
            data_dir: found.text("WINDLASS_DATA_DIR").unwrap_or("windlass-data").into(),
            records_database_url: database_url(&found, "WINDLASS_RECORDS_DATABASE_URL")?,
            market_database_url: database_url(&found, "WINDLASS_MARKET_DATABASE_URL")?,
            market: crate::market_settings::MarketSettings::read(&found, redis.as_ref())?,
            bridge: crate::bridge::BridgeSettings::read(&found, redis.as_ref())?,
            cache_redis: of_store("WINDLASS_CACHE_REDIS_URL", &found)?.or_else(|| redis.clone()),
            redis,
            notes,
            allow_eviction: found.parse("WINDLASS_ALLOW_EVICTION", "true or false", |_| true)?.unwrap_or(false),
            spool_bytes: found
                .parse::<u64>("WINDLASS_SPOOL_MAX_MB", "0 (no spool) to 1048576", |mib| *mib <= 1_048_576)?
                .map_or(windlass_producer::Spool::MAX_BYTES, |mib| mib << 20),
            environment: found.text("ENVIRONMENT").map(|name| name.trim().to_ascii_lowercase()),
            any_environment: found.parse("WINDLASS_ANY_ENVIRONMENT", "true or false", |_| true)?.unwrap_or(false),
            waits: waits(&found)?,
            queue_prefix: found
                .parse("WINDLASS_QUEUE_PREFIX", "1 to 32 of a-z 0-9 _ -", prefix_fits)?
                .unwrap_or_else(|| windlass_broker::redis::DEFAULT_PREFIX.to_owned()),
            listen: listen(&found)?,
            api: crate::api_settings::ApiSettings::read(&found)?,
            in_force: found.in_force(),
            queues: queues(&found)?,
            slots: found.parse("WINDLASS_SLOTS", "1 to 10000", |n| (1..=10_000).contains(n))?,
            shards: shards(&found)?,
            shares: shares(&found)?,
            priorities: priorities(&found)?,
            kind_slots: pairs(&found, "WINDLASS_KIND_SLOTS", "kind=1 to kind=10000", 10_000, |kind| {
                windlass_jobs::check_kind(kind).is_ok().then(|| kind.to_owned())
            })?,
            memory_bytes: found
                .parse::<u64>("WINDLASS_MEMORY_MIB", "1 to 16777216", |mib| (1..=16_777_216).contains(mib))?
                .map(|mib| mib * 1024 * 1024),
            lease: lease_ms.map_or(windlass_worker::WorkerOptions::LEASE, Duration::from_millis),
            park_after: found
                .parse("WINDLASS_PARK_SECONDS", "0 to 86400", |s| *s <= 86_400)?
                .map_or(windlass_worker::WorkerOptions::PARK_AFTER, Duration::from_secs),
            worker_listen: found
                .parse("WINDLASS_WORKER_LISTEN", "off, or an address and a port such as 0.0.0.0:8002", |_| true)?
                .unwrap_or(WorkerListen::Near((Ipv4Addr::LOCALHOST, 8002).into())),
            health: health(&found)?,
            grace: grace_s.map_or(windlass_worker::WorkerOptions::GRACE, Duration::from_secs),
            child_program: found.text("WINDLASS_CHILD_PROGRAM").unwrap_or(THIS_PROGRAM).into(),
            recycle: recycle(&found)?,
            child_disk_bytes: mib(&found, "WINDLASS_CHILD_DISK_MIB")?.unwrap_or(windlass_worker::Isolation::DISK_BYTES),
            child_input_bytes: mib(&found, "WINDLASS_CHILD_INPUT_MIB")?
                .unwrap_or(windlass_worker::Isolation::INPUT_BYTES),
            limits: limits(&found)?,
            schedules: found.tables.schedules.clone(),
            scheduler_listen: found.parse(
                "WINDLASS_SCHEDULER_LISTEN",
                "an address and a port such as 127.0.0.1:8003",
                |_| true,
            )?,
            caching: caching(&found)?,
            images: crate::images::ImageSettings::read(&found)?,
            api_key: found.text("WINDLASS_API_KEY").map(|key| Secret(key.trim().to_owned())),
            log: found.text("WINDLASS_LOG").unwrap_or("info").to_owned(),
            otlp: crate::otlp_settings::OtlpSettings::read(&found)?,
            log_format: found.parse("WINDLASS_LOG_FORMAT", "text or json", |_| true)?.unwrap_or(LogFormat::Text),
        })
    }
}

/// What runs here and now, even when the file was replaced by an upgrade meanwhile: proc(5).
const THIS_PROGRAM: &str = "/proc/self/exe";

fn priorities(found: &Found) -> anyhow::Result<Option<windlass_jobs::PriorityWeights>> {
    found.parse("WINDLASS_PRIORITY_WEIGHTS", "three of 1 to 1000, such as 6,3,1", |_| true)
}

fn waits(found: &Found) -> anyhow::Result<windlass_broker::redis::Waits> {
    let mut waits = windlass_broker::redis::Waits::default();
    if let Some(n) = found.parse("WINDLASS_DURABLE_REPLICAS", "1 to 100", |n| (1..=100).contains(n))? {
        waits.replicas = n;
    }
    if let Some(ms) = found.parse("WINDLASS_DURABLE_WITHIN_MS", "1 to 60000", |ms| (1..=60_000).contains(ms))? {
        waits.within = Duration::from_millis(ms);
    }
    Ok(waits)
}

fn recycle(found: &Found) -> anyhow::Result<windlass_worker::Recycle> {
    let mut recycle = windlass_worker::Recycle::default();
    if let Some(n) = found.parse("WINDLASS_CHILD_JOBS", "1 to 1000000", |n| (1..=1_000_000).contains(n))? {
        recycle.after_jobs = n;
    }
    if let Some(bytes) = mib(found, "WINDLASS_CHILD_MEMORY_MIB")? {
        recycle.above_rss_bytes = bytes;
    }
    Ok(recycle)
}

/// A setting of 1 to 1,048,576 MiB, in bytes.
fn mib(found: &Found, name: &str) -> anyhow::Result<Option<u64>> {
    let mib = found.parse::<u64>(name, "1 to 1048576", |mib| (1..=1_048_576).contains(mib))?;
    Ok(mib.map(|mib| mib * 1024 * 1024))
}

/// Names and numbers, as in `a=1,b=2`.
fn pairs<N: Ord>(
    found: &Found,
    name: &str,
    allowed: &str,
    most: usize,
    read: impl Fn(&str) -> Option<N>,
) -> anyhow::Result<BTreeMap<N, usize>> {
    let Some(text) = found.text(name) else { return Ok(BTreeMap::new()) };
    let pair = |part: &str| {
        let (key, number) = part.split_once('=')?;
        let number = number.trim().parse().ok().filter(|n| (1..=most).contains(n))?;
        Some((read(key.trim())?, number))
    };
    let all: Option<BTreeMap<N, usize>> = text.split(',').map(pair).collect();
    all.ok_or_else(|| bad(name, text, &format!("{allowed}, separated by commas,")))
}

fn shards(found: &Found) -> anyhow::Result<BTreeMap<Queue, u16>> {
    let name = "WINDLASS_QUEUE_SHARDS";
    let allowed = "queue=2 to queue=256";
    let queue = |name: &str| Queue::new(name).ok().filter(|queue| !queue.is_shard());
    let all = pairs(found, name, allowed, usize::from(windlass_jobs::MAX_SHARDS), queue)?;
    if all.values().any(|shards| *shards < 2) {
        return Err(bad(name, found.text(name).unwrap_or_default(), allowed));
    }
    Ok(all.into_iter().map(|(queue, shards)| (queue, u16::try_from(shards).unwrap_or(u16::MAX))).collect())
}

fn shares(found: &Found) -> anyhow::Result<BTreeMap<Queue, windlass_worker::Share>> {
    let queue = |name: &str| Queue::new(name).ok();
    let weights = pairs(found, "WINDLASS_QUEUE_WEIGHTS", "queue=1 to queue=1000", 1_000, queue)?;
    let slots = pairs(found, "WINDLASS_QUEUE_SLOTS", "queue=1 to queue=10000", 10_000, queue)?;
    let mut shares: BTreeMap<Queue, windlass_worker::Share> = BTreeMap::new();
    for (queue, weight) in weights {
        shares.entry(queue).or_default().weight = u32::try_from(weight).unwrap_or(u32::MAX);
    }
    for (queue, slots) in slots {
        shares.entry(queue).or_default().slots = Some(slots);
    }
    Ok(shares)
}

fn health(found: &Found) -> anyhow::Result<windlass_worker::HealthLimits> {
    let mut health = windlass_worker::HealthLimits::default();
    let ready = |ms: &u64| (500..=3_600_000).contains(ms);
    if let Some(ms) = found.parse("WINDLASS_READY_WITHIN_MS", "500 to 3600000", ready)? {
        health.ready_within = Duration::from_millis(ms);
        health.live_within = health.live_within.max(health.ready_within);
    }
    let least = health.ready_within;
    let allowed = format!("{} (ready within) to 86400000", least.as_millis());
    let live = |ms: &u64| *ms <= 86_400_000 && Duration::from_millis(*ms) >= least;
    if let Some(ms) = found.parse("WINDLASS_LIVE_WITHIN_MS", &allowed, live)? {
        health.live_within = Duration::from_millis(ms);
    }
    Ok(health)
}

fn limits(found: &Found) -> anyhow::Result<windlass_store::Limits> {
    let mut limits = windlass_store::Limits::default();
    let sizes =
        [("WINDLASS_CACHE_MAX_MB", &mut limits.cache_bytes), ("WINDLASS_BLOBS_MAX_MB", &mut limits.upload_bytes)];
    for (name, bytes) in sizes {
        if let Some(mib) = found.parse::<u64>(name, "1 to 16777216", |mib| (1..=16_777_216).contains(mib))? {
            *bytes = mib * 1024 * 1024;
        }
    }
    let spans = [
        ("WINDLASS_ARTIFACT_TTL_HOURS", &mut limits.artifact_ttl),
        ("WINDLASS_BLOB_TTL_HOURS", &mut limits.upload_ttl),
    ];
    for (name, ttl) in spans {
        if let Some(hours) = found.parse::<u64>(name, "1 to 8760", |hours| (1..=8_760).contains(hours))? {
            *ttl = Duration::from_secs(hours * 3600);
        }
    }
    Ok(limits)
}

fn caching(found: &Found) -> anyhow::Result<windlass_store::CachingOptions> {
    let mut caching = windlass_store::CachingOptions::default();
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let prefix_fits = |prefix: &String| {
        prefix.split(':').all(|part| (1..=32).contains(&part.len()) && part.bytes().all(word)) && prefix.len() <= 128
    };
    let allowed = "words of 1 to 32 of A-Z a-z 0-9 _ -, joined by :,";
    if let Some(prefix) = found.parse("REDIS_KEY_PREFIX", allowed, prefix_fits)? {
        caching.prefix = prefix;
    }
    if let Some(old) = found.parse("WINDLASS_OLD_NAMES", "true or false", |_| true)? {
        caching.old_names = old;
    }
    let seconds = |s: &u64| (1..=2_592_000).contains(s);
    if let Some(s) = found.parse("REDIS_TTL_DEFAULT", "1 to 2592000 seconds", seconds)? {
        caching.default_ttl = Duration::from_secs(s);
    }
    let mib = |mib: &usize| (1..=1_048_576).contains(mib);
    if let Some(mib) = found.parse("WINDLASS_CACHE_MEMORY_MB", "1 to 1048576", mib)? {
        caching.memory_bytes = mib * 1024 * 1024;
    }
    Ok(caching)
}

fn database_url(found: &Found, name: &str) -> anyhow::Result<Option<Secret>> {
    let Some(url) = found.text(name) else { return Ok(None) };
    // The connection is made when it is first needed.
    if windlass_market::positions::is_postgres_url(url) {
        return Ok(Some(Secret(url.to_owned())));
    }
    Err(bad(name, url, "postgres://user:password@host:port/database"))
}

fn listen(found: &Found) -> anyhow::Result<SocketAddr> {
    if let Some(listen) = found.parse("WINDLASS_LISTEN", "an address and a port such as 127.0.0.1:8001", |_| true)? {
        return Ok(listen);
    }
    // A platform that sets PORT expects the service to be reachable from outside.
    match found.parse::<u16>("PORT", "0 to 65535", |_| true)? {
        Some(port) => Ok((Ipv4Addr::UNSPECIFIED, port).into()),
        None => Ok((Ipv4Addr::LOCALHOST, 8001).into()),
    }
}

fn queues(found: &Found) -> anyhow::Result<Vec<Queue>> {
    let Some(text) = found.text("WINDLASS_QUEUES") else { return Ok(Vec::new()) };
    let names: Result<Vec<Queue>, _> = text.split(',').map(|name| Queue::new(name.trim())).collect();
    names.map_err(|_| bad("WINDLASS_QUEUES", text, "names of 1 to 64 of a-z 0-9 _ -, separated by commas,"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn read(env: &[(&str, &str)], files: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let env: HashMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::read_from(dir.path(), None, &|name| env.get(name).cloned())
    }

    #[test]
    fn the_environment_beats_the_files() {
        let files = [
            (".env", "WINDLASS_SLOTS=2\nWINDLASS_LEASE_MS=500"),
            (".env.local", "WINDLASS_SLOTS=3\nWINDLASS_GRACE_SECONDS=7"),
            ("windlass.toml", "slots = 4\nqueues = [\"a\", \"b\"]"),
        ];
        let settings = read(&[("WINDLASS_SLOTS", "1")], &files).unwrap();
        assert_eq!(settings.slots, Some(1));
        assert_eq!((settings.lease, settings.grace), (Duration::from_millis(500), Duration::from_secs(7)));
        assert_eq!(settings.queues.len(), 2);
        assert_eq!(read(&[], &files).unwrap().slots, Some(2), ".env before .env.local before the TOML file");
    }

    #[test]
    fn the_listening_address_follows_port() {
        let check =
            |env: &[(&str, &str)], expected: &str| assert_eq!(read(env, &[]).unwrap().listen.to_string(), expected);
        check(&[], "127.0.0.1:8001");
        check(&[("PORT", "9000")], "0.0.0.0:9000");
        check(&[("PORT", "9000"), ("WINDLASS_LISTEN", "127.0.0.1:1")], "127.0.0.1:1");
    }

    /// B36: the start is refused with name, value and what is allowed; secrets are not shown.
    #[test]
    fn bad_values_are_named() {
        let check = |name: &str, value: &str, part: &str| {
            let text = format!("{:#}", read(&[(name, value)], &[]).unwrap_err());
            assert!(text.contains(name) && text.contains(part), "{text}");
        };
        check("WINDLASS_SLOTS", "0", "\"0\"; 1 to 10000");
        check("WINDLASS_LEASE_MS", "soon", "\"soon\"; 100");
        check("WINDLASS_LISTEN", "8001", "127.0.0.1:8001");
        check("WINDLASS_QUEUES", "a,B", "a-z");
        check("WINDLASS_LOG_FORMAT", "xml", "text or json");
        check("WINDLASS_QUEUE_WEIGHTS", "a=1,b", "queue=1");
        check("WINDLASS_QUEUE_SLOTS", "a=0", "queue=1");
        check("WINDLASS_KIND_SLOTS", "A B=1", "kind=1");
        check("WINDLASS_PRIORITY_WEIGHTS", "6,3", "6,3,1");
        check("WINDLASS_MEMORY_MIB", "0", "1 to 16777216");
        check("WINDLASS_WORKER_LISTEN", "8002", "off, or an address");
        check("WINDLASS_READY_WITHIN_MS", "499", "500 to 3600000");
        check("WINDLASS_LIVE_WITHIN_MS", "14999", "15000 (ready within)");
        check("REDIS_KEY_PREFIX", "a:*", "joined by :");
        check("REDIS_TTL_DEFAULT", "0", "1 to 2592000");
        check("WINDLASS_MARKET_FORMAT", "xml", "hash or json");
        check("WINDLASS_MARKET_KEY_PREFIX", "a*", "A-Z");
        check("WINDLASS_MARKET_REDIS_URL", "https://u:geheim@x", "***");
        check("WINDLASS_QUOTES_STREAM", "quotes", "WINDLASS_MARKET_REDIS_URL");
        check("WINDLASS_PRICE_TTL_SECONDS", "0", "1 to 86400");
        check("WINDLASS_TICK_TTL_SECONDS", "86401", "1 to 86400");
        check("WINDLASS_TICK_MAX_KB", "0", "1 to 65536");
        check("WINDLASS_CANDLE_TTL_SECONDS", "x", "1 to 2592000");
        check("WINDLASS_OLD_NAMES", "yes", "true or false");
        check("WINDLASS_CACHE_REDIS_URL", "https://u:geheim@x", "***");
        check("WINDLASS_CACHE_MAX_MB", "0", "1 to 16777216");
        check("WINDLASS_BLOB_TTL_HOURS", "-1", "1 to 8760");
        check("REDIS_URL", "https://u:geheim@x", "***");
        check("WINDLASS_API_KEYS", "short", "***");
        check("WINDLASS_CORS_ORIGINS", "https://a/b", "https://host");
        check("WINDLASS_MAX_JSON_KB", "0", "1 to 1048576");
        check("WINDLASS_BODY_TIMEOUT_MS", "5", "100 to 3600000");
        check("WINDLASS_RECORDS_DATABASE_URL", "mysql://u:geheim@x", "***");
        check("WINDLASS_RATE_LIMIT", "100", "as in 100/s");
        check("WINDLASS_LOOPBACK_ACCESS", "some", "none, read or all");
        let text = format!("{:#}", read(&[], &[("windlass.toml", "slotz = 1")]).unwrap_err());
        assert!(text.contains("slotz") && text.contains("slots"), "{text}");
        let text = format!("{:#}", read(&[], &[(".env", "REDIS_PASSWORD='geheim")]).unwrap_err());
        assert!(!text.contains("geheim"), "{text}");
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let env = [("REDIS_URL", "redis://u:geheim@h:1"), ("WINDLASS_API_KEYS", "geheimgeheimgeheim")];
        let text = format!("{:?}", read(&env, &[]).unwrap());
        assert!(!text.contains("geheim"), "{text}");
    }

    #[test]
    fn the_example_lists_every_name() {
        let example = include_str!("../../../.env.example");
        for (name, _) in NAMES {
            assert!(
                example.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{name}="))),
                "{name}"
            );
        }
    }
}
