//! `windlass demo`: a deck of cards as a PDF, a stock chart as a PNG and a report with its
//! indicators, made by a worker from the embedded queue, twice: the second time from the result cache.

mod analysis;
mod deck;
pub(super) mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use windlass_jobs::{JobRecord, NewJob, Queue, State, Timestamp};
use windlass_producer::Producer;
use windlass_store::Services;
use windlass_worker::StoredResult;

use super::{api, enqueue, report};
use crate::cli::Demo;
use crate::duties::Scheduling;
use crate::runtime::{self, Signals, Stores};
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, args: &Demo, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::embedded(settings).await?;
    let registry = crate::kinds::for_worker(settings, &stores)?;
    let mut signals = Signals::listen()?;
    let say = |text: String| {
        if !as_json {
            report::line(text);
        }
    };
    say(format!("Windlass demo: queue, worker and API in this one process, kept in {}\n", settings.data_dir.display()));
    let cards = draw_deck(&args.out.join("cards")).await?;
    say(format!("  drew 52 cards and their back      {}", cards.display()));
    let jobs = jobs(&cards, &stores.services).await?;

    let queues = runtime::queues(&[], settings, &registry)?;
    let mut worker = stores.worker(settings, registry, queues, None)?;
    let listener = api::bind_near(settings.listen).await;
    let listener = listener.with_context(|| format!("the API cannot listen on {}", settings.listen))?;
    let scheduling = Scheduling::start(settings, &stores).await?;
    let beside = api::Beside { worker: Some(worker.health()), scheduler: Some(scheduling.counters()), more: None };
    let server = api::Server::on(listener, settings, &stores, beside)?;

    let first = round(&stores, &jobs, as_json).await?;
    let mut files = Vec::new();
    for (record, _) in &first {
        files.push(report::save_files(record, &stores.services, &args.out).await?);
    }
    say(String::new());
    for ((record, took), files) in first.iter().zip(&files) {
        // The first is what was asked for; a chart's thumbnail lies beside it.
        let file = files.first().context("each job of the demo makes a file")?;
        say(format!("  {:<33} {}, {}", file.display(), facts(record), report::span(*took)));
    }
    say("\nThe same three jobs again:\n".to_owned());
    let second = round(&stores, &jobs, as_json).await?;
    say(String::new());
    for (record, took) in &second {
        let from = if is_cached(record) { "from the result cache" } else { "made again" };
        say(format!("  {:<33} {from}, {}", record.kind, report::span(*took)));
    }
    if as_json {
        report::json_line(&json!({
            "first": round_json(&first), "second": round_json(&second),
            "files": files.iter().flatten().map(|f| f.display().to_string()).collect::<Vec<_>>(),
            "api": (!args.once).then(|| server.address()),
        }));
    }
    if args.once {
        worker.drain(settings.grace);
        worker.wait().await?;
    } else {
        say(next_steps(&server, &second));
        runtime::work_until_signal(&mut worker, &mut signals, settings).await?;
    }
    scheduling.stop().await;
    server.stop().await?;
    if !second.iter().all(|(record, _)| is_cached(record)) {
        bail!("the second round did not come from the result cache");
    }
    Ok(ExitCode::SUCCESS)
}

fn next_steps(server: &api::Server, second: &[(JobRecord, Duration)]) -> String {
    let id = second.first().map(|(record, _)| record.id.to_string()).unwrap_or_default();
    format!(
        "\nThe API stays up at http://{0}; Ctrl-C ends it. In another terminal:\n\
         \n  curl http://{0}/api/tasks/{id}\
         \n  windlass queues\
         \n  windlass enqueue pdf.card_sheet --cards FOLDER --wait --out .",
        server.address()
    )
}

/// Writes the deck the way a person would lay out a folder of cards.
async fn draw_deck(dir: &Path) -> anyhow::Result<PathBuf> {
    let drawn = tokio::task::spawn_blocking(|| (deck::fronts(), deck::back())).await?;
    let (fronts, back) = drawn;
    for (folder, cards) in [("front", fronts), ("back", vec![back])] {
        let folder = dir.join(folder);
        tokio::fs::create_dir_all(&folder).await.with_context(|| format!("folder {}", folder.display()))?;
        for card in cards {
            let path = folder.join(&card.name);
            tokio::fs::write(&path, &card.png).await.with_context(|| format!("file {}", path.display()))?;
        }
    }
    Ok(dir.to_owned())
}

/// The jobs, named after this moment so that the first round is never an old one's echo.
async fn jobs(cards: &Path, services: &Services) -> anyhow::Result<Vec<(&'static str, Value)>> {
    let stamp = format!("Windlass demo, {}", Timestamp::now());
    let mut sheet = json!({ "output": { "title": stamp } });
    let members = sheet.as_object_mut().context("an object")?;
    enqueue::add_cards(members, cards, services).await?;
    let candles = windlass_chart::csv::candles_from_csv(windlass_chart::GOOG_DAILY_CSV)?;
    let chart = json!({
        "symbol": "GOOG",
        "interval": "1d",
        "candles": &candles,
        "visible_bars": 200,
        "overlays": [{ "kind": "sma", "period": 20 }, { "kind": "sma", "period": 50 }],
        "panels": [{ "kind": "volume" }],
        "subtitle": stamp,
    });
    let report = analysis::report(&candles, &stamp);
    Ok(vec![("pdf.card_sheet", sheet), ("chart.render", chart), ("pdf.report", report)])
}

/// Enqueues the jobs, follows all of them to their end, and says how long each took from the
/// enqueue on.
async fn round(
    stores: &Stores,
    jobs: &[(&'static str, Value)],
    as_json: bool,
) -> anyhow::Result<Vec<(JobRecord, Duration)>> {
    let registry = crate::kinds::registry();
    let producer = Producer::new(stores.broker.clone());
    let show = show::Show::new(as_json);
    let mut following = Vec::new();
    for (kind, args) in jobs {
        enqueue::refuse_wrong(&registry, kind, args)?;
        let spec = registry.spec(kind).context("the demo's kinds are registered")?;
        let queue = Queue::new(spec.queue)?;
        let job = NewJob::new(*kind, args)?;
        let start = Instant::now();
        let id = producer.enqueue(&queue, job).await?.id;
        let bar = show.job(kind);
        following.push(async move {
            let record = report::follow(stores.broker.as_ref(), &id, |record| bar.update(record)).await?;
            bar.end(&record);
            Ok::<_, anyhow::Error>((record, start.elapsed()))
        });
    }
    let mut ended = Vec::new();
    for result in futures_util::future::join_all(following).await {
        let (record, took) = result?;
        if record.state != State::Success {
            let error = record.error.map(|e| e.to_string()).unwrap_or_default();
            bail!("{} ended {}: {error}", record.kind, record.state);
        }
        ended.push((record, took));
    }
    Ok(ended)
}

fn is_cached(record: &JobRecord) -> bool {
    report::stored_result(record).is_some_and(|result| result.cached)
}

/// What came out, for people.
fn facts(record: &JobRecord) -> String {
    let result = report::stored_result(record).unwrap_or_default();
    let StoredResult { value, artifacts, .. } = &result;
    let size = artifacts.first().map(|a| report::size(a.bytes)).unwrap_or_default();
    match record.kind.as_str() {
        "pdf.card_sheet" => {
            format!("{} cards on {} sheets, {} pages, {size}", value["cards"], value["sheets"], value["pages"])
        }
        "pdf.report" => format!("stock analysis, {} pages, {size}", value["pages"]),
        _ => format!("{} × {} pixels, {} bars, {size}", value["width_px"], value["height_px"], value["visible_bars"]),
    }
}

fn round_json(round: &[(JobRecord, Duration)]) -> Vec<Value> {
    let one = |(record, took): &(JobRecord, Duration)| {
        let mut json = report::record_json(record);
        json["cached"] = is_cached(record).into();
        json["took_ms"] = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).into();
        json
    };
    round.iter().map(one).collect()
}
