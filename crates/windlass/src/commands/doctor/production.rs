//! `windlass doctor --production`: what an installation that others rely on needs beyond working.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use windlass_api::Anonymous;

use super::servers::QueueServer;
use super::{Finding, Health};
use crate::cli::Doctor;
use crate::http;
use crate::runtime::Stores;
use crate::settings::{Settings, WorkerListen};

/// Every row of the checklist.
pub(super) async fn look(
    settings: &Settings,
    args: &Doctor,
    stores: Option<&Stores>,
    server: &QueueServer,
    findings: &mut Vec<Finding>,
) {
    // What is advice elsewhere is a fault here.
    for Finding(name, health, _) in &mut *findings {
        if *health == Health::Warn && ["persistence", "maxmemory_policy", "workers", "kinds"].contains(name) {
            *health = Health::Fail;
        }
    }
    if let Some(options) = &settings.redis {
        findings.push(encrypted("tls", options));
        findings.push(password(options));
        findings.push(user(options));
        if server.each("role").contains(&"slave") {
            findings.push(Finding::fail("role", "the queue's server is a replica: nothing can be written to it"));
        }
    }
    findings.push(environment(settings));
    findings.push(keys(settings, stores.is_none_or(|stores| stores.embedded)));
    findings.push(metrics(settings, args).await);
    findings.push(match settings.worker_listen {
        WorkerListen::Off => Finding::fail(
            "probes",
            "WINDLASS_WORKER_LISTEN is off: whatever starts processes again cannot see whether a worker is alive",
        ),
        WorkerListen::At(at) | WorkerListen::Near(at) => Finding::ok("probes", format!("workers answer on {at}")),
    });
    findings.push(alerts(args).await);
}

fn encrypted(name: &'static str, options: &windlass_redis::Options) -> Finding {
    let local = options.single().is_some_and(|(host, _)| {
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    });
    match (options.is_tls(), local) {
        (true, _) => Finding::ok(name, "connections to Redis are encrypted"),
        (false, true) => Finding::ok(name, "Redis is on this machine; elsewhere use rediss://"),
        (false, false) => {
            Finding::fail(name, "jobs and passwords cross the network in the clear: rediss:// or REDIS_SSL=true")
        }
    }
}

fn password(options: &windlass_redis::Options) -> Finding {
    if options.has_login() {
        Finding::ok("password", "Redis is asked with a password")
    } else {
        Finding::fail("password", "whoever reaches Redis owns every job: requirepass or an aclfile, and REDIS_PASSWORD")
    }
}

fn user(options: &windlass_redis::Options) -> Finding {
    match options.user() {
        "" | "default" => Finding::fail(
            "acl_user",
            "the default user may do anything, FLUSHALL too: REDIS_USERNAME with the rights of deploy/redis/worker.acl",
        ),
        user => Finding::ok("acl_user", user),
    }
}

fn environment(settings: &Settings) -> Finding {
    match (&settings.environment, settings.any_environment) {
        (Some(_), true) => {
            Finding::fail("environment", "WINDLASS_ANY_ENVIRONMENT=true: another environment's Redis would be taken")
        }
        (Some(environment), false) => Finding::ok("environment", environment.clone()),
        (None, _) => Finding::fail(
            "environment",
            "none is set: ENVIRONMENT=production marks the Redis, so that staging never takes its jobs",
        ),
    }
}

/// Who may ask the API without a key: behind a proxy on this machine everybody comes from loopback.
fn keys(settings: &Settings, embedded: bool) -> Finding {
    let open = settings.api.options(settings.listen, embedded).auth.anonymous;
    let close = "set WINDLASS_LOOPBACK_ACCESS=none, and make keys with `windlass keys create`";
    match open {
        Anonymous::Nothing => Finding::ok("keys", format!("{} answers nothing without a key", settings.listen)),
        Anonymous::Reading => {
            Finding::fail("keys", format!("{} shows everything without a key: {close}", settings.listen))
        }
        Anonymous::Everything => {
            Finding::fail("keys", format!("{} does anything for anybody: {close}", settings.listen))
        }
    }
}

/// Whether the API's figures can be read, and say that the queue is there.
async fn metrics(settings: &Settings, args: &Doctor) -> Finding {
    let listen = match settings.listen.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), settings.listen.port()),
        _ => settings.listen,
    };
    let url = args.api.clone().unwrap_or_else(|| format!("http://{listen}"));
    let url = format!("{}/metrics", url.trim_end_matches('/'));
    match http::get(&url, None).await {
        Ok((200, text)) if text.lines().any(|line| line == "windlass_queue_up 1") => Finding::ok("metrics", url),
        Ok((200, text)) if text.contains("windlass_queue_up") => {
            Finding::fail("metrics", format!("{url}: that API does not reach its queue"))
        }
        Ok((status, _)) => Finding::fail("metrics", format!("{url} answers {status}, and no figures of Windlass")),
        Err(e) => Finding::fail("metrics", format!("{e:#}; name the API with --api http://host:port")),
    }
}

/// Whether Prometheus watches.
async fn alerts(args: &Doctor) -> Finding {
    let rules = "deploy/prometheus/windlass.rules.yml";
    let Some(prometheus) = &args.prometheus else {
        let found = format!("not looked at: --prometheus http://host:9090 asks whether it has the rules of {rules}");
        return Finding::warn("alerts", found);
    };
    let url = format!("{}/api/v1/rules", prometheus.trim_end_matches('/'));
    match http::get(&url, None).await {
        Ok((200, text)) if text.contains("WindlassQueueDown") => Finding::ok("alerts", prometheus.clone()),
        Ok((200, _)) => Finding::fail("alerts", format!("{prometheus} has no rules of Windlass: give it {rules}")),
        Ok((status, _)) => Finding::fail("alerts", format!("{url} answers {status}")),
        Err(e) => Finding::fail("alerts", format!("{e:#}")),
    }
}
