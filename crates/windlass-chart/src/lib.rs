//! Price charts as images and vectors: bars of eight types, studies, levels, markers, axes.
//!
//! Never opens a socket, starts a browser or reads a font of the machine; equal args give
//! byte-identical images. Data flows one way: [`args`] → [`render`] → [`scene`] →
//! [`raster`] → [`encode`], or → [`svg`] or [`pdf`]; [`handler`] makes the job kind `chart.render` of it.
//!
//! ```
//! use windlass_chart::{GOOG_DAILY_CSV, args::ChartArgs, csv, render_file};
//!
//! let candles = csv::candles_from_csv(GOOG_DAILY_CSV)?;
//! let mut args = ChartArgs::new("GOOG", "1d".parse()?, candles);
//! args.visible_bars = Some(200);
//! let drawn = render_file(&args)?;
//! assert!(drawn.file.starts_with(b"\x89PNG"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_jobs::Violation;
use windlass_store::images::Images;

pub mod args;
mod book;
mod cleanup;
pub mod csv;
pub mod encode;
pub mod font;
pub mod handler;
pub mod indicator;
mod kept;
pub mod pattern;
pub mod pdf;
mod publish;
pub mod raster;
pub mod render;
pub mod renko;
pub mod scene;
pub mod svg;

pub use args::{ChartArgs, Format};
pub use book::{BookArgs, ChartBook, Output};
pub use cleanup::{CleanupArgs, ImagesCleanup};
pub use handler::{ChartRender, Defaults};
pub use kept::{CandleError, CandleStore, Kept};
pub use render::{Chart, Values};

/// GOOG, daily, 2004-08-19 to 2013-03-01, 2,148 bars, for demos and tests: public domain,
/// "Quandl WIKI Prices. Archived copy supplied by marketneutral on Kaggle."
pub const GOOG_DAILY_CSV: &str = include_str!("../assets/data/GOOG_1d.csv");

/// Raised whenever equal args may give another image.
pub const RENDERER_VERSION: u32 = 3;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The args are wrong; everything that is wrong with them.
    #[error("the chart's args were refused: {}", summary(.0))]
    Refused(Vec<Violation>),
    /// An image without pixels, or too large for memory.
    #[error("an image of {width_px} × {height_px} pixels cannot be drawn")]
    Canvas {
        /// Columns asked for.
        width_px: u32,
        /// Rows asked for.
        height_px: u32,
    },
    /// The encoder failed.
    #[error("the image could not be encoded")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    fn encode(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Encode(source.into())
    }
}

fn summary(violations: &[Violation]) -> String {
    let lines = violations.iter().map(|v| format!("{} ({}): {}", v.path, v.code, v.message));
    lines.collect::<Vec<_>>().join("; ")
}

/// A finished chart.
#[derive(Debug)]
pub struct Drawn {
    /// The file, in the format asked for.
    pub file: Vec<u8>,
    /// Columns of the image: `width_px` × `scale`.
    pub width_px: u32,
    /// Rows of the image: `height_px` × `scale`.
    pub height_px: u32,
    /// Bars drawn; the rest was warm-up.
    pub visible_bars: usize,
    /// What was drawn otherwise than asked, each for a person.
    pub notes: Vec<String>,
    /// The drawn bars and the computed series.
    pub values: Values,
    /// Time taken to lay out and draw.
    pub draw_time: Duration,
    /// Time taken to encode.
    pub encode_time: Duration,
}

/// Draws `args` and writes the file.
///
/// # Errors
/// [`Error::Refused`] when `args` are wrong; the others should not happen.
pub fn render_file(args: &ChartArgs) -> Result<Drawn, Error> {
    let started = Instant::now();
    let chart = render::chart(args).map_err(Error::Refused)?;
    let Chart { scene, visible_bars, notes, values } = chart;
    let (width_px, height_px) = (scene.width_px, scene.height_px);
    let (file, draw_time) = if args.format == Format::Svg {
        let draw_time = started.elapsed();
        (svg::document(&scene).into_bytes(), draw_time)
    } else {
        let pixels = raster::draw(&scene)?;
        let draw_time = started.elapsed();
        (encode::file(&pixels, args)?, draw_time)
    };
    let encode_time = started.elapsed().saturating_sub(draw_time);
    Ok(Drawn { file, width_px, height_px, visible_bars, notes, values, draw_time, encode_time })
}

/// A small picture of `args` as a PNG file, `width_px` wide: bars and lines without words.
///
/// # Errors
/// As [`render_file`].
pub fn thumbnail_png(args: &ChartArgs, width_px: u32) -> Result<Vec<u8>, Error> {
    let scene = render::thumbnail(args, width_px).map_err(Error::Refused)?;
    encode::png(&raster::draw(&scene)?, encode::Effort::Balanced)
}

/// Adds every kind of this crate. `defaults` are for jobs that do not say; `images` is the store
/// that `images.cleanup` sweeps, and `kept` has the bars that jobs name by their key; none where kinds are
/// only named or checked.
pub fn register(
    registry: &mut windlass_worker::Registry,
    defaults: Defaults,
    images: Option<Arc<Images>>,
    kept: &Kept,
) {
    registry.isolated(ChartRender { defaults, kept: kept.clone() });
    registry.isolated(ChartBook { kept: kept.clone() });
    registry.inline(ImagesCleanup { images });
}
