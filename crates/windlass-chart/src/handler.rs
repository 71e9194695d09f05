//! The job kind `chart.render`.

use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use windlass_jobs::{ArtifactFile, Done, Outcome, RunError, Violation, chain};
use windlass_store::Services;
use windlass_worker::{Inputs, IsolatedKind, KindSpec, RunContext, StoredResult, schema_of};

use crate::args::{Candles, Format, Return, Source};
use crate::kept::Kept;
use crate::publish::{self, About};
use crate::{ChartArgs, Drawn, Error, RENDERER_VERSION, csv, font, render_file, thumbnail_png};

/// Bytes a pixel costs at the peak: four drawn, three as RGB, three for the file at worst.
const PEAK_BYTES_PER_PIXEL: u64 = 10;

/// Program, fonts, glyphs, bars and the allocator's slack; a chart of 1200 × 800 was measured
/// at 12 MiB in all (2026-11-20).
const BASE_BYTES: u64 = 64 << 20;

/// The longest a chart should take; one that takes longer is said in the log.
const SOFT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the thumbnail and the numbers lie in the private directory.
const THUMB: &str = "thumb.png";
const VALUES: &str = "values.json";

/// Values up to this size travel in the result; a frame between processes has 4 MiB.
const MAX_INLINE_VALUES: usize = 1 << 20;

/// What jobs get that do not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Defaults {
    /// The file format. Default `png`.
    pub format: Format,
    /// The quality of lossy files, 1–100. Default 85.
    pub quality: Option<u8>,
}

/// Draws a price chart and keeps it in the image store.
///
/// The value of the result: `{image_id, etag, format, width_px, height_px, bytes, created_at,
/// expires_at, stored_in, reused, draw_ms, encode_ms, thumb_id, notes, bars, visible_bars,
/// renderer_version, about}`; with `return` `inline` also `data` (base64), with `values` also
/// `values`. `stored_in` is `redis`, `files`, or `artifact` where there is no image store.
#[derive(Debug, Clone, Default)]
pub struct ChartRender {
    /// What jobs get that do not say.
    pub defaults: Defaults,
    /// Where bars are that a job names by their key.
    pub kept: Kept,
}

impl IsolatedKind for ChartRender {
    type Args = ChartArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            version: RENDERER_VERSION,
            queue: "chart",
            timeout: Duration::from_secs(60),
            soft_timeout: Some(SOFT_TIMEOUT),
            cache_ttl: Some(KindSpec::CACHE_TTL),
            ..KindSpec::new("chart.render", "draws a price chart as PNG, JPEG, WebP or SVG")
        }
    }

    fn schema(&self) -> Option<Value> {
        schema_of::<ChartArgs>()
    }

    fn check(&self, args: &ChartArgs) -> Vec<Violation> {
        args.check()
    }

    fn inputs(&self, args: &ChartArgs) -> Inputs {
        let pixels = args.pixels().min(ChartArgs::MAX_PIXELS);
        let source = args.source.as_ref().and_then(Source::blob);
        Inputs {
            blobs: source.map(|digest| digest.hex()).into_iter().collect(),
            peak_memory_bytes: BASE_BYTES + pixels * PEAK_BYTES_PER_PIXEL,
        }
    }

    fn cache_args(&self, args: &ChartArgs) -> Option<Value> {
        font::second().map(|font| json!({"args": args, "font": font}))
    }

    fn fill(&self, args: &mut Value) {
        let Some(fields) = args.as_object_mut() else { return };
        let says = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
        // Effort is PNG's and lossy WebP's: a job that names them has chosen its format.
        if !says("format") && !says("effort") && !says("lossy") && self.defaults.format != Format::Png {
            fields.insert("format".to_owned(), json!(self.defaults.format));
        }
        let lossy = fields.get("lossy") == Some(&Value::Bool(true));
        let has_quality = fields.get("format") == Some(&json!("jpeg")) || lossy;
        if let Some(quality) = self.defaults.quality
            && has_quality
            && fields.get("quality").is_none_or(Value::is_null)
        {
            fields.insert("quality".to_owned(), json!(quality));
        }
    }

    fn resolve<'a>(&'a self, args: &'a mut Value) -> BoxFuture<'a, Result<(), Outcome>> {
        Box::pin(self.kept.resolve(args))
    }

    fn run(&self, mut args: ChartArgs, dir: &Path, ctx: &dyn RunContext) -> Outcome {
        if ctx.cancelled() {
            return Outcome::Cancel { reason: "cancelled before drawing".to_owned() };
        }
        ctx.progress(5.0, "drawing");
        ctx.stage("draw");
        if let Err(outcome) = load_bars(&mut args, dir) {
            return outcome;
        }
        let drawn = match render_file(&args) {
            Ok(drawn) => drawn,
            Err(error) => return failed(&error),
        };
        if ctx.cancelled() {
            return Outcome::Cancel { reason: "cancelled before writing".to_owned() };
        }
        ctx.progress(90.0, "writing");
        ctx.stage("write");
        match write(&args, &drawn, dir) {
            Ok(done) => {
                ctx.progress(100.0, "done");
                Outcome::Done(done)
            }
            Err(outcome) => outcome,
        }
    }

    fn revive<'a>(&'a self, result: &'a mut StoredResult, services: &'a Services) -> BoxFuture<'a, bool> {
        Box::pin(publish::revive(result, services))
    }

    fn publish<'a>(
        &'a self,
        result: &'a mut StoredResult,
        services: &'a Services,
    ) -> BoxFuture<'a, Result<(), RunError>> {
        Box::pin(publish::publish(result, services))
    }
}

pub(crate) fn failed(error: &Error) -> Outcome {
    match error {
        Error::Refused(violations) => refused(violations),
        other => Outcome::fatal("chart_failed", chain(other)),
    }
}

fn refused(violations: &[Violation]) -> Outcome {
    let code = violations.first().map_or("args_invalid", |violation| &violation.code);
    let lines: Vec<_> = violations.iter().map(|v| format!("{}: {}", v.path, v.message)).collect();
    Outcome::fatal(code, lines.join("; "))
}

/// Puts the bars of a blob where those of the args would be.
pub(crate) fn load_bars(args: &mut ChartArgs, dir: &Path) -> Result<(), Outcome> {
    let Some(source) = args.source.take() else { return Ok(()) };
    let fail = |message: String| Outcome::fatal("candles_unreadable", format!("/source/candles_blob: {message}"));
    let digest = source.blob().ok_or_else(|| fail("not a blob's name".to_owned()))?;
    let bytes = std::fs::read(dir.join("in").join(digest.hex()));
    let bytes = bytes.map_err(|error| Outcome::retry("input_missing", error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| fail("it is not UTF-8".to_owned()))?;
    args.candles = if text.trim_start().starts_with('{') {
        serde_json::from_str::<Candles>(&text).map_err(|error| fail(error.to_string()))?
    } else {
        csv::candles_from_csv(&text).map_err(|error| fail(error.to_string()))?
    };
    Ok(())
}

/// Writes a file below `out/` and names it as an artifact.
pub(crate) fn keep(dir: &Path, name: &str, media_type: &str, bytes: &[u8]) -> Result<ArtifactFile, Outcome> {
    let path = Path::new("out").join(name);
    let written = std::fs::create_dir_all(dir.join("out")).and_then(|()| std::fs::write(dir.join(&path), bytes));
    written.map_err(|error| Outcome::retry("write_failed", format!("{}: {error}", path.display())))?;
    Ok(ArtifactFile { name: name.to_owned(), media_type: media_type.to_owned(), path })
}

fn write(args: &ChartArgs, drawn: &Drawn, dir: &Path) -> Result<Done, Outcome> {
    let name = format!("chart.{}", args.format.name());
    let mut artifacts = vec![keep(dir, &name, args.format.media_type(), &drawn.file)?];
    if let Some(width_px) = args.store.thumbnail_width_px {
        let thumb = thumbnail_png(args, width_px).map_err(|error| failed(&error))?;
        artifacts.push(keep(dir, THUMB, "image/png", &thumb)?);
    }
    let mut value = value(args, drawn);
    if args.returns == Return::Values {
        let numbers = serde_json::to_vec(&drawn.values).unwrap_or_default();
        artifacts.push(keep(dir, VALUES, "application/json", &numbers)?);
        if numbers.len() <= MAX_INLINE_VALUES {
            value["values"] = json!(drawn.values);
        } else if let Some(notes) = value["notes"].as_array_mut() {
            notes.push(json!("the values are an artifact, they are too many for the result"));
        }
    }
    Ok(Done { value, artifacts, skipped: false })
}

fn value(args: &ChartArgs, drawn: &Drawn) -> Value {
    let ms = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
    json!({
        "format": args.format,
        "width_px": drawn.width_px,
        "height_px": drawn.height_px,
        "bytes": drawn.file.len(),
        "bars": args.candles.t.len(),
        "visible_bars": drawn.visible_bars,
        "draw_ms": ms(drawn.draw_time),
        "encode_ms": ms(drawn.encode_time),
        "notes": drawn.notes,
        "renderer_version": RENDERER_VERSION,
        "stored_in": "artifact",
        "reused": false,
        "about": About::of(args),
    })
}
