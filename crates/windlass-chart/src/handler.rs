//! The job kind `chart.render`.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use windlass_jobs::{ArtifactFile, Done, Outcome, Violation};
use windlass_worker::{Inputs, IsolatedKind, KindSpec, RunContext};

use crate::{ChartArgs, Drawn, Error, RENDERER_VERSION, render_file};

/// Bytes a pixel costs at the peak: four drawn, three as RGB, three for the file at worst.
const PEAK_BYTES_PER_PIXEL: u64 = 10;

/// Program, fonts, glyphs, bars and the allocator's slack; a chart of 1200 × 800 was measured
/// at 12 MiB in all (2026-11-20).
const BASE_BYTES: u64 = 64 << 20;

/// Draws a price chart as `out/chart.<format>`.
///
/// The value of the result: `{format, width_px, height_px, bytes, bars, visible_bars,
/// draw_ms, encode_ms, notes, renderer_version}`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChartRender;

impl IsolatedKind for ChartRender {
    type Args = ChartArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            version: RENDERER_VERSION,
            queue: "chart",
            timeout: Duration::from_secs(60),
            cache_ttl: Some(KindSpec::CACHE_TTL),
            ..KindSpec::new("chart.render", "draws a price chart as PNG, JPEG, WebP or SVG")
        }
    }

    fn check(&self, args: &ChartArgs) -> Vec<Violation> {
        args.check()
    }

    fn inputs(&self, args: &ChartArgs) -> Inputs {
        let pixels = args.pixels().min(ChartArgs::MAX_PIXELS);
        let peak_memory_bytes = BASE_BYTES + pixels * PEAK_BYTES_PER_PIXEL;
        Inputs { blobs: Vec::new(), peak_memory_bytes }
    }

    fn run(&self, args: ChartArgs, dir: &Path, ctx: &dyn RunContext) -> Outcome {
        if ctx.cancelled() {
            return Outcome::Cancel { reason: "cancelled before drawing".to_owned() };
        }
        ctx.progress(5.0, "drawing");
        let drawn = match render_file(&args) {
            Ok(drawn) => drawn,
            Err(Error::Refused(violations)) => return refused(&violations),
            Err(error) => return Outcome::fatal("chart_failed", with_sources(&error)),
        };
        if ctx.cancelled() {
            return Outcome::Cancel { reason: "cancelled before writing".to_owned() };
        }
        ctx.progress(90.0, "writing");
        let output = format!("out/{}", file_name(&args));
        let path = dir.join(&output);
        let written =
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, &drawn.file));
        if let Err(error) = written {
            return Outcome::retry("write_failed", format!("{output}: {error}"));
        }
        ctx.progress(100.0, "done");
        Outcome::Done(done(&args, &drawn))
    }
}

fn refused(violations: &[Violation]) -> Outcome {
    let code = violations.first().map_or("args_invalid", |violation| &violation.code);
    let lines: Vec<_> = violations.iter().map(|v| format!("{}: {}", v.path, v.message)).collect();
    Outcome::fatal(code, lines.join("; "))
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

fn done(args: &ChartArgs, drawn: &Drawn) -> Done {
    let ms = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
    Done {
        value: json!({
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
        }),
        artifacts: vec![ArtifactFile {
            name: file_name(args),
            media_type: args.format.media_type().to_owned(),
            path: format!("out/{}", file_name(args)).into(),
        }],
        skipped: false,
    }
}

fn file_name(args: &ChartArgs) -> String {
    format!("chart.{}", args.format.name())
}
