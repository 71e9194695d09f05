//! `windlass pdf …`: card sheets from folders and jobs on PDF files, through the queue.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use windlass_jobs::{JobId, JobRecord, NewJob, Queue, State};
use windlass_producer::Producer;
use windlass_store::{Digest, Services};

use super::demo::show::Show;
use super::{enqueue, report};
use crate::cli_pdf::{CardSheetCli, OffsetCli, PdfCommand, PdfVerb};
use crate::runtime::Stores;
use crate::settings::Settings;
use crate::telemetry::EXIT_JOB_FAILED;

pub(crate) async fn run(settings: &Settings, args: PdfCommand, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    let services = &stores.services;
    let (kind, args, output) = match args.verb {
        PdfVerb::CardSheet(args) => {
            let output = args.output_path.clone();
            ("pdf.card_sheet", card_sheet(&args, services).await?, output)
        }
        PdfVerb::Offset(args) => {
            let output = args.output_pdf_path.clone().unwrap_or_else(|| beside(&args.pdf_path));
            ("pdf.offset", offset(&args, services).await?, output)
        }
        PdfVerb::Calibration(args) => ("pdf.calibration", json!({ "paper": args.paper_size }), args.output_path),
        PdfVerb::Merge(args) => {
            let mut pdfs = Vec::with_capacity(args.pdfs.len());
            for path in &args.pdfs {
                pdfs.push(enqueue::upload(path, services).await?);
            }
            let value = json!({ "pdfs": pdfs, "title": args.title, "start_on_front": args.start_on_front });
            ("pdf.merge", value, args.output_path)
        }
        PdfVerb::Report(args) => {
            let text =
                std::fs::read_to_string(&args.blocks).with_context(|| format!("file {}", args.blocks.display()))?;
            let mut value = serde_json::from_str(&text).context("the report is not JSON")?;
            let base = args.blocks.parent().unwrap_or(Path::new(""));
            enqueue::upload_named(&mut value, base, services).await?;
            ("pdf.report", value, args.output_path)
        }
    };
    let registry = crate::kinds::registry();
    enqueue::refuse_wrong(&registry, kind, &args)?;
    let record = done(settings, &stores, kind, &args, as_json).await?;
    finish(&record, services, &output, as_json).await
}

/// Queues the job and follows it to its end; on the embedded queue it is run here when nobody else
/// does.
async fn done(
    settings: &Settings,
    stores: &Stores,
    kind: &'static str,
    args: &Value,
    as_json: bool,
) -> anyhow::Result<JobRecord> {
    let registry = crate::kinds::for_worker(settings, stores)?;
    let spec = registry.spec(kind).context("the kind is registered")?;
    let mut queue = Queue::new(spec.queue)?;
    let mut job = NewJob::new(kind, args)?;
    enqueue::place(&stores.producer(), &mut queue, &mut job)?;
    let id = JobId::new(job.ulid, queue.clone());
    enqueue::hold_inputs(&registry, &stores.services, kind, args, &id).await?;
    Producer::new(stores.broker.clone()).enqueue(&queue, job).await?;
    let mut own = enqueue::own_worker(settings, stores, registry, &queue).await?;
    let show = Show::new(as_json || !std::io::stdout().is_terminal());
    let bar = show.job(kind);
    let record = report::follow(stores.broker.as_ref(), &id, |record| bar.update(record)).await?;
    bar.end(&record);
    if let Some(worker) = &mut own {
        worker.drain(settings.grace);
        worker.wait().await?;
    }
    Ok(record)
}

/// Writes the result where it was asked for.
async fn finish(record: &JobRecord, services: &Services, output: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    if record.state != State::Success {
        if as_json {
            report::json_line(&report::record_json(record));
        } else {
            let error = record.error.as_ref().map_or_else(|| record.state.to_string(), ToString::to_string);
            report::notice(format_args!("{} ended {}: {error}", record.kind, record.state));
        }
        return Ok(ExitCode::from(EXIT_JOB_FAILED));
    }
    let stored = report::stored_result(record).unwrap_or_default();
    let mut written: Vec<PathBuf> = Vec::new();
    for artifact in &stored.artifacts {
        let digest: Digest = artifact.blob.parse()?;
        let Some(bytes) = services.artifacts.get(&digest).await? else {
            bail!("{} is no longer kept: run the command again", artifact.name);
        };
        // Page pictures go into the folder of the output path under their own names, as the peer's do.
        let is_page = artifact.media_type.starts_with("image/");
        let path = if is_page { folder_of(output).join(&artifact.name) } else { output.to_owned() };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            tokio::fs::create_dir_all(folder).await.with_context(|| format!("folder {}", folder.display()))?;
        }
        let mut part = path.clone().into_os_string();
        part.push(".part");
        tokio::fs::write(&part, &bytes).await.with_context(|| format!("file {}", path.display()))?;
        tokio::fs::rename(&part, &path).await.with_context(|| format!("file {}", path.display()))?;
        written.push(path);
    }
    if as_json {
        let mut json = report::record_json(record);
        json["files"] = written.iter().map(|f| f.display().to_string()).collect();
        report::json_line(&json);
        return Ok(ExitCode::SUCCESS);
    }
    report::line(summary(&stored.value, stored.cached));
    for warning in stored.value["warnings"].as_array().into_iter().flatten() {
        report::line(format_args!("  note: {}", warning["message"].as_str().unwrap_or_default()));
    }
    for path in written {
        report::line(path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(value: &Value, cached: bool) -> String {
    let mut parts = Vec::new();
    for (name, words) in [("cards", "cards"), ("sheets", "sheets"), ("pages", "pages"), ("moved", "pages moved")] {
        if let Some(count) = value[name].as_u64() {
            parts.push(format!("{count} {words}"));
        }
    }
    if let Some(template) = value["template"].as_str() {
        parts.push(format!("cut with template {template}"));
    }
    if let Some(bytes) = value["bytes"].as_u64() {
        parts.push(report::size(bytes));
    }
    if cached {
        parts.push("from the result cache".to_owned());
    }
    parts.join(", ")
}

fn folder_of(output: &Path) -> PathBuf {
    if output.extension().is_none() { output.to_owned() } else { output.parent().unwrap_or(Path::new("")).to_owned() }
}

/// `deck.pdf` → `deck_offset.pdf`, as the peer names it.
fn beside(pdf: &Path) -> PathBuf {
    let stem = pdf.file_stem().unwrap_or_default().to_string_lossy();
    pdf.with_file_name(format!("{stem}_offset.pdf"))
}

async fn offset(args: &OffsetCli, services: &Services) -> anyhow::Result<Value> {
    let pdf = enqueue::upload(&args.pdf_path, services).await?;
    let px300 = |value: f64| value * 300.0 / f64::from(args.ppi);
    Ok(json!({ "pdf": pdf, "x": px300(args.x_offset), "y": px300(args.y_offset), "angle": args.angle }))
}

/// Uploads the pictures and writes the args.
async fn card_sheet(args: &CardSheetCli, services: &Services) -> anyhow::Result<Value> {
    let is_pdf = args.output_path.extension().is_some_and(|e| e.eq_ignore_ascii_case("pdf"));
    if !args.output_images && !is_pdf {
        bail!(
            "--output_path {} does not end in .pdf; for page pictures add --output_images",
            args.output_path.display()
        );
    }
    let deck = windlass_pdf::read_deck(&args.fronts, args.backs.as_deref(), args.double_sided.as_deref())?;
    let mut cards = Vec::with_capacity(deck.cards.len());
    for card in &deck.cards {
        let name: String = card.name.chars().filter(|c| !c.is_control()).take(100).collect();
        let mut one = json!({ "front": enqueue::upload(&card.front, services).await?, "name": name });
        if let Some(back) = &card.back {
            one["back"] = enqueue::upload(back, services).await?.into();
        }
        cards.push(one);
    }
    let mut value = json!({
        "layout": {
            "set": args.set, "paper": args.paper_size, "card": args.card_size, "variant": args.variant,
            "registration": args.registration,
        },
        "cards": cards,
        "order": "peer",
        "fit": args.fit,
        "bleed": args.bleed,
        "crop": { "fronts": args.crop, "backs": args.crop_backs },
        "extend_corners": { "fronts": args.extend_corners, "backs": args.extend_corners },
        "skip": args.skip,
        "label": { "name": args.name },
        "outline": args.show_outline,
    });
    let members = value.as_object_mut().context("an object")?;
    if args.only_fronts {
        if deck.cards.iter().any(|card| card.back.is_some()) {
            bail!("--only_fronts excludes own backs: leave --double_sided_dir_path out");
        }
        members.insert("sides".into(), "fronts".into());
    } else if let Some(back) = &deck.back {
        members.insert("back".into(), enqueue::upload(back, services).await?.into());
    }
    if args.offset_x != 0.0 || args.offset_y != 0.0 {
        members.insert("offset".into(), json!({ "x": args.offset_x, "y": args.offset_y }));
    }
    output(args, members);
    Ok(value)
}

/// Mode and format: a resolution or a quality asks for pages that are pictures.
fn output(args: &CardSheetCli, members: &mut Map<String, Value>) {
    let raster = args.mode.as_deref() == Some("raster")
        || (args.mode.is_none() && (args.output_images || args.ppi.is_some() || args.quality.is_some()));
    members.insert("mode".into(), if raster { "raster" } else { args.mode.as_deref().unwrap_or("embed") }.into());
    if let Some(ppi) = args.ppi {
        members.insert("ppi".into(), ppi.into());
    }
    if let Some(quality) = args.quality {
        members.insert("quality".into(), quality.into());
    }
    if args.output_images {
        members.insert("output".into(), json!({ "format": args.image_format }));
    }
}
