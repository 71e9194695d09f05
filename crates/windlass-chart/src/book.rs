//! The job kind `chart.book`: many charts as one picture, or as the pages of a PDF.
//!
//! One job draws them all in its child, one after the other: a chart takes some milliseconds,
//! less than a queue would to hand it out and gather it again.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use windlass_jobs::{Done, Outcome, Violation};
use windlass_worker::{Inputs, IsolatedKind, KindSpec, RunContext, schema_of};

use crate::args::{ChartArgs, Effort, Theme};
use crate::handler::{failed, keep, load_bars};
use crate::kept::Kept;
use crate::render::{self, Style};
use crate::scene::{Anchor, Item, Scene, Text, Weight};
use crate::{Error, RENDERER_VERSION, encode, font, pdf, raster};

/// Charts of one book at most.
const MAX_CHARTS: usize = 64;
const MAX_TITLE_CHARS: usize = 128;
/// Blank between charts and around them, and the height of the title.
const GAP_PX: u32 = 12;
const TITLE_PX: u32 = 44;

/// What to draw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BookArgs {
    /// The charts, each as the args of `chart.render`: 1–64. What they say about their file and
    /// its store is not for a book and refused.
    #[schemars(length(min = 1, max = MAX_CHARTS))]
    pub charts: Vec<ChartArgs>,
    /// One picture of all, or a PDF with a page each. Default `sheet`.
    #[serde(default)]
    pub output: Output,
    /// Above the charts of a sheet, at most 128 characters. Default none.
    #[serde(default)]
    #[schemars(length(max = MAX_TITLE_CHARS))]
    pub title: Option<String>,
    /// Charts side by side on a sheet, 1–8. Default: about as many as below each other.
    #[serde(default)]
    #[schemars(range(min = 1, max = 8))]
    pub columns: Option<u32>,
    /// The width of a chart on a sheet, 160–1200. Default 480.
    #[serde(default = "cell_width_px")]
    #[schemars(range(min = 160, max = 1_200))]
    pub cell_width_px: u32,
    /// The height of a chart on a sheet, 120–1000. Default 320.
    #[serde(default = "cell_height_px")]
    #[schemars(range(min = 120, max = 1_000))]
    pub cell_height_px: u32,
    /// The ground of a sheet. Default `light`.
    #[serde(default)]
    pub theme: Theme,
}

const fn cell_width_px() -> u32 {
    480
}

const fn cell_height_px() -> u32 {
    320
}

/// What comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// One PNG with all charts.
    #[default]
    Sheet,
    /// A PDF of vectors, each chart a page of its own size.
    Pdf,
}

impl BookArgs {
    fn columns(&self) -> u32 {
        let count = self.charts.len().max(1) as f64;
        self.columns.unwrap_or(count.sqrt().ceil() as u32).clamp(1, 8).min(count as u32)
    }

    /// Columns and rows of the sheet in pixels.
    fn sheet_px(&self) -> (u32, u32) {
        let columns = self.columns();
        let rows = (self.charts.len() as u32).div_ceil(columns);
        let title = if self.title.is_some() { TITLE_PX } else { 0 };
        let side = |count: u32, cell: u32| count.saturating_mul(cell.saturating_add(GAP_PX)).saturating_add(GAP_PX);
        (side(columns, self.cell_width_px), side(rows, self.cell_height_px).saturating_add(title))
    }

    /// A chart as it is drawn: on a sheet as large as its cell.
    fn chart(&self, index: usize) -> ChartArgs {
        let args = self.charts[index].clone();
        match self.output {
            Output::Sheet => {
                ChartArgs { width_px: self.cell_width_px, height_px: self.cell_height_px, scale: 1, ..args }
            }
            Output::Pdf => args,
        }
    }

    /// Everything wrong with the args, in document order.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut say = |path: String, code: &str, message: String| found.push(Violation::new(path, code, message));
        let count = self.charts.len();
        if !(1..=MAX_CHARTS).contains(&count) {
            say("/charts".to_owned(), "out_of_range", format!("{count} charts; 1 to {MAX_CHARTS} are allowed"));
        }
        for (name, value, least, most) in [
            ("columns", self.columns.unwrap_or(1), 1, 8),
            ("cell_width_px", self.cell_width_px, 160, 1200),
            ("cell_height_px", self.cell_height_px, 120, 1000),
        ] {
            if !(least..=most).contains(&value) {
                say(format!("/{name}"), "out_of_range", format!("{value} is not between {least} and {most}"));
            }
        }
        let (width, height) = self.sheet_px();
        if self.output == Output::Sheet && u64::from(width) * u64::from(height) > ChartArgs::MAX_PIXELS {
            let message = format!("the sheet has {width} × {height} pixels, at most {}", ChartArgs::MAX_PIXELS);
            say("/cell_width_px".to_owned(), "too_many_pixels", message);
        }
        let plain = ChartArgs::new("X", crate::args::Interval::Day, crate::args::Candles::default());
        for (index, chart) in self.charts.iter().enumerate().take(MAX_CHARTS) {
            let own = [
                ("format", chart.format != plain.format),
                ("effort", chart.effort.is_some()),
                ("quality", chart.quality.is_some()),
                ("lossy", chart.lossy),
                ("store", chart.store != plain.store),
                ("return", chart.returns != plain.returns),
            ];
            for (name, _) in own.into_iter().filter(|(_, set)| *set) {
                let message = "this is the book's to say, not a chart's in it".to_owned();
                say(format!("/charts/{index}/{name}"), "not_in_a_book", message);
            }
        }
        crate::args::check_text("/title", self.title.as_deref(), MAX_TITLE_CHARS, &mut found);
        for (index, chart) in self.charts.iter().enumerate().take(MAX_CHARTS) {
            let faults = chart.check().into_iter();
            found.extend(faults.map(|v| Violation { path: format!("/charts/{index}{}", v.path), ..v }));
        }
        found
    }
}

/// Draws many charts into one file: `book.png` or `book.pdf`.
///
/// The value of the result: `{output, charts, width_px, height_px, pages, bytes, draw_ms,
/// encode_ms, notes, renderer_version}`; notes begin with the symbol they are about.
#[derive(Debug, Clone, Default)]
pub struct ChartBook {
    /// Where bars are that a job names by their key.
    pub kept: Kept,
}

impl IsolatedKind for ChartBook {
    type Args = BookArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            version: RENDERER_VERSION,
            queue: "chart",
            timeout: Duration::from_secs(300),
            cache_ttl: Some(KindSpec::CACHE_TTL),
            ..KindSpec::new("chart.book", "draws many charts as one picture or as the pages of a PDF")
        }
    }

    fn schema(&self) -> Option<Value> {
        schema_of::<BookArgs>()
    }

    fn check(&self, args: &BookArgs) -> Vec<Violation> {
        args.check()
    }

    fn cache_args(&self, args: &BookArgs) -> Option<Value> {
        font::second().map(|font| json!({"args": args, "font": font}))
    }

    fn inputs(&self, args: &BookArgs) -> Inputs {
        let mut blobs: Vec<String> = Vec::new();
        for source in args.charts.iter().filter_map(|chart| chart.source.as_ref()) {
            let hex = source.blob().map(|digest| digest.hex());
            blobs.extend(hex.filter(|hex| !blobs.contains(hex)));
        }
        let (width, height) = args.sheet_px();
        let pixels = (u64::from(width) * u64::from(height)).min(ChartArgs::MAX_PIXELS);
        Inputs { blobs, peak_memory_bytes: (128 << 20) + pixels * 10 }
    }

    fn resolve<'a>(&'a self, args: &'a mut Value) -> BoxFuture<'a, Result<(), Outcome>> {
        Box::pin(async move {
            let charts = args.get_mut("charts").and_then(Value::as_array_mut);
            for chart in charts.into_iter().flatten().take(MAX_CHARTS) {
                self.kept.resolve(chart).await?;
            }
            Ok(())
        })
    }

    fn run(&self, args: BookArgs, dir: &Path, ctx: &dyn RunContext) -> Outcome {
        let started = Instant::now();
        let (mut scenes, mut notes) = (Vec::new(), Vec::new());
        ctx.stage("draw");
        for index in 0..args.charts.len() {
            if ctx.cancelled() {
                return Outcome::Cancel { reason: format!("cancelled after {index} charts") };
            }
            let mut chart = args.chart(index);
            let part = index as f32 / args.charts.len() as f32;
            ctx.progress(part * 90.0, &format!("drawing {} ({} of {})", chart.symbol, index + 1, args.charts.len()));
            if let Err(outcome) = load_bars(&mut chart, dir) {
                return outcome;
            }
            match render::chart(&chart) {
                Ok(drawn) => {
                    notes.extend(drawn.notes.iter().map(|note| format!("{}: {note}", chart.symbol)));
                    scenes.push(drawn.scene);
                }
                Err(violations) => return failed(&Error::Refused(violations)),
            }
        }
        ctx.progress(92.0, "writing");
        ctx.stage("write");
        match write(&args, scenes, notes, started, dir) {
            Ok(done) => {
                ctx.progress(100.0, "done");
                Outcome::Done(done)
            }
            Err(outcome) => outcome,
        }
    }
}

fn write(
    args: &BookArgs,
    scenes: Vec<Scene>,
    notes: Vec<String>,
    started: Instant,
    dir: &Path,
) -> Result<Done, Outcome> {
    let (charts, drawn) = (scenes.len(), started.elapsed());
    let (width_px, height_px) = args.sheet_px();
    let (name, media_type, file, pages) = match args.output {
        Output::Pdf => ("book.pdf", "application/pdf", pdf::document(&scenes), charts),
        Output::Sheet => {
            let pixels = raster::draw(&sheet(args, scenes)).map_err(|error| failed(&error))?;
            let file = encode::png(&pixels, Effort::Balanced).map_err(|error| failed(&error))?;
            ("book.png", "image/png", file, 1)
        }
    };
    let artifact = keep(dir, name, media_type, &file)?;
    let ms = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
    let value = json!({
        "output": args.output,
        "charts": charts,
        "width_px": (args.output == Output::Sheet).then_some(width_px),
        "height_px": (args.output == Output::Sheet).then_some(height_px),
        "pages": pages,
        "bytes": file.len(),
        "draw_ms": ms(drawn),
        "encode_ms": ms(started.elapsed().saturating_sub(drawn)),
        "notes": notes,
        "renderer_version": RENDERER_VERSION,
    });
    Ok(Done { value, artifacts: vec![artifact], skipped: false })
}

/// All charts on one ground, in rows.
fn sheet(args: &BookArgs, scenes: Vec<Scene>) -> Scene {
    let style = Style::of(args.theme);
    let (width, height) = args.sheet_px();
    let mut sheet = Scene::new(width, height, style.border);
    let mut top = GAP_PX;
    if let Some(title) = &args.title {
        let size_px = 20.0;
        sheet.items.push(Item::Text(Text {
            text: title.clone(),
            x: GAP_PX as f32 + 4.0,
            baseline_y: (GAP_PX + TITLE_PX / 2) as f32 + size_px * (font::CAP_HEIGHT_EM - 0.5) / 2.0,
            size_px,
            weight: Weight::SemiBold,
            anchor: Anchor::Start,
            color: style.text,
        }));
        top += TITLE_PX;
    }
    let columns = args.columns();
    for (index, scene) in scenes.into_iter().enumerate() {
        let (column, row) = (index as u32 % columns, index as u32 / columns);
        let x = GAP_PX + column * (args.cell_width_px + GAP_PX);
        let y = top + row * (args.cell_height_px + GAP_PX);
        sheet.place(scene, x as i32, y as i32);
    }
    sheet
}
