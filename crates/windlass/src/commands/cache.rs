//! `windlass cache stats` and `windlass cache clear`.

use std::process::ExitCode;

use serde_json::json;
use windlass_jobs::Timestamp;
use windlass_store::{Room, Stats};

use super::report;
use crate::cli::CacheVerb;
use crate::runtime::Stores;
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, verb: CacheVerb, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    match verb {
        CacheVerb::Stats => {
            let stats = stores.services.artifacts.stats().await?;
            if as_json {
                report::json_line(&windlass_api::cache_stats_view(&stats));
            } else {
                show(&stats, &stores.place);
            }
        }
        CacheVerb::Clear => {
            let cleared = stores.services.results.clear().await?;
            if as_json {
                report::json_line(&json!({ "cleared": cleared }));
            } else {
                report::line(format_args!("{cleared} results forgotten; files of finished jobs stay"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(stats: &Stats, place: &str) {
    let room = |room: &Room| format!("{:>7}  {:>10}", room.entries, report::size(room.bytes));
    report::line(format_args!("kept beside the queue at {place}\n"));
    report::line(format_args!("  results    {}", room(&stats.results)));
    report::line(format_args!(
        "  artifacts  {}  of {} with the results",
        room(&stats.artifacts),
        report::size(stats.cache_bytes)
    ));
    let holders = match stats.pinned_jobs {
        0 => String::new(),
        jobs => format!("; {jobs} unfinished jobs hold some"),
    };
    report::line(format_args!(
        "  uploads    {}  of {}{holders}\n",
        room(&stats.uploads),
        report::size(stats.upload_bytes)
    ));
    report::line(format_args!(
        "  {} hits, {} misses: {:.1} % of cacheable jobs needed no run",
        stats.hits,
        stats.misses,
        100.0 * stats.hit_rate()
    ));
    let oldest = stats.oldest.map_or("nothing is kept".to_owned(), |at| {
        format!("the next to go was last used {} ago", report::span(Timestamp::now().since(at)))
    });
    report::line(format_args!("  {} evicted for room; {oldest}", stats.evictions));
}
