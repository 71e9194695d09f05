//! Price charts as PNG images: candles, moving averages, volume, axes, in pure Rust.
//!
//! Never opens a socket, starts a browser or reads a font of the machine; equal args give
//! byte-identical images. Data flows one way: [`args`] → [`render`] → [`scene`] →
//! [`raster`] → [`encode`]; [`handler`] makes the job kind `chart.render` of it.
//!
//! ```
//! use windlass_chart::{GOOG_DAILY_CSV, args::ChartArgs, csv, render_png};
//!
//! let candles = csv::candles_from_csv(GOOG_DAILY_CSV)?;
//! let mut args = ChartArgs::new("GOOG", "1d".parse()?, candles);
//! args.visible_bars = Some(200);
//! let drawn = render_png(&args)?;
//! assert!(drawn.png.starts_with(b"\x89PNG"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::{Duration, Instant};

use windlass_jobs::Violation;

pub mod args;
pub mod csv;
pub mod encode;
pub mod font;
pub mod handler;
pub mod raster;
pub mod render;
pub mod scene;
pub mod svg;

pub use args::ChartArgs;
pub use handler::ChartRender;

/// GOOG, daily, 2004-08-19 to 2013-03-01, 2,148 bars, for demos and tests: public domain,
/// "Quandl WIKI Prices. Archived copy supplied by marketneutral on Kaggle."
pub const GOOG_DAILY_CSV: &str = include_str!("../assets/data/GOOG_1d.csv");

/// Raised whenever equal args may give another image.
pub const RENDERER_VERSION: u32 = 1;

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
    /// The PNG encoder failed.
    #[error("the image could not be encoded")]
    Encode(#[source] png::EncodingError),
}

fn summary(violations: &[Violation]) -> String {
    let lines = violations.iter().map(|v| format!("{} ({}): {}", v.path, v.code, v.message));
    lines.collect::<Vec<_>>().join("; ")
}

/// A finished chart.
#[derive(Debug)]
pub struct Drawn {
    /// The PNG file.
    pub png: Vec<u8>,
    /// Columns of the image: `width_px` × `scale`.
    pub width_px: u32,
    /// Rows of the image: `height_px` × `scale`.
    pub height_px: u32,
    /// Bars drawn; the rest was warm-up.
    pub visible_bars: usize,
    /// What was drawn otherwise than asked, each for a person.
    pub notes: Vec<String>,
    /// Time taken to lay out and draw.
    pub draw_time: Duration,
    /// Time taken to encode.
    pub encode_time: Duration,
}

/// Draws `args` and encodes the image.
///
/// # Errors
/// [`Error::Refused`] when `args` are wrong; the others should not happen.
pub fn render_png(args: &ChartArgs) -> Result<Drawn, Error> {
    let started = Instant::now();
    let chart = render::chart(args).map_err(Error::Refused)?;
    let pixels = raster::draw(&chart.scene)?;
    let draw_time = started.elapsed();
    let png = encode::png(&pixels, args.effort)?;
    Ok(Drawn {
        png,
        width_px: pixels.width_px(),
        height_px: pixels.height_px(),
        visible_bars: chart.visible_bars,
        notes: chart.notes,
        draw_time,
        encode_time: started.elapsed().saturating_sub(draw_time),
    })
}

/// Adds every kind of this crate.
pub fn register(registry: &mut windlass_worker::Registry) {
    registry.isolated(ChartRender);
}
