//! From args to a scene: what is drawn where, in which colour.
//!
//! Pure: no file, no clock, no randomness. Market knowledge ends here; the scene knows
//! rectangles and texts only.

mod format;
mod header;
mod layout;
mod paint;
mod scale;
mod steps;
mod study;
mod style;
mod tags;
mod time_axis;
mod values;
mod view;

pub use style::Style;
pub use values::Values;

use windlass_jobs::Violation;

use crate::args::ChartArgs;
use crate::scene::Scene;

/// The size of axis labels, in layout pixels.
const LABEL_SIZE: f32 = 12.0;

/// A chart, ready to be drawn.
#[derive(Debug, Clone)]
pub struct Chart {
    /// The drawing.
    pub scene: Scene,
    /// Bars drawn; the rest was warm-up.
    pub visible_bars: usize,
    /// What was drawn otherwise than asked, each for a person.
    pub notes: Vec<String>,
    /// The drawn bars and the computed series as numbers.
    pub values: Values,
}

/// Lays `args` out as a scene.
///
/// # Errors
/// Everything [`ChartArgs::check`] finds.
pub fn chart(args: &ChartArgs) -> Result<Chart, Vec<Violation>> {
    let violations = args.check();
    if !violations.is_empty() {
        return Err(violations);
    }
    let mut view = view::View::of(args)?;
    let header = header::lay_out(&view, layout::Layout::header_room(&view));
    let layout = layout::Layout::of(&view, header.bottom);
    let mut notes = std::mem::take(&mut view.notes);
    notes.extend(notes_of(&view, &header, &layout));
    let (scene, hidden) = paint::scene(&view, &layout, header);
    notes.extend(hidden);
    let values = values::of(&view);
    Ok(Chart { scene, visible_bars: view.bars(), notes, values })
}

/// The bars and price studies of `args` alone, `width_px` wide, in the shape of the chart: for
/// lists of many charts. No words, no axes.
///
/// # Errors
/// Everything [`ChartArgs::check`] finds.
pub fn thumbnail(args: &ChartArgs, width_px: u32) -> Result<Scene, Vec<Violation>> {
    let height_px = (u64::from(args.height_px) * u64::from(width_px) / u64::from(args.width_px.max(1))) as u32;
    let small = ChartArgs {
        // As many bars as can be told apart, three pixels each.
        visible_bars: Some((args.visible_of(args.candles.t.len()) as u32).min(width_px / 3).max(2)),
        width_px: width_px.max(160),
        height_px: height_px.clamp(120, 4096),
        scale: 1,
        panels: Vec::new(),
        ..args.clone()
    };
    let violations = small.check();
    if !violations.is_empty() {
        return Err(violations);
    }
    let mut view = view::View::of(&small)?;
    // Narrower than a chart may be: only the bars are laid out.
    let narrow = ChartArgs { width_px, height_px: height_px.max(1), ..small.clone() };
    view.args = &narrow;
    Ok(paint::bare(&view, &layout::Layout::bare(&view)))
}

fn notes_of(view: &view::View<'_>, header: &header::Header, layout: &layout::Layout) -> Vec<String> {
    let mut notes = Vec::new();
    let s = layout.scale;
    if layout.bars.merged {
        let how = if view.is_line() { "drawn as the extremes" } else { "drawn as high-low columns, one" };
        let (bars, width) = (view.bars(), layout.plot.width / s);
        notes.push(format!("{bars} bars in {width} px: {how} for each column of pixels"));
    }
    if header.shortened {
        notes.push("the header was shortened, the image is too small for it".to_owned());
    }
    if layout.axis.width == 0 {
        notes.push("the price axis has no labels, the image is too narrow".to_owned());
    }
    for panel in view.panels.iter().skip(layout.panels.len()) {
        notes.push(format!("the image is too low for the panel {}", panel.study.name));
    }
    let unnamed = layout.panels.iter().filter(|panel| view.args.legend && !panel.legend).count();
    if unnamed > 0 {
        notes.push(format!("{unnamed} panels are too low for their legends"));
    }
    for price in &layout.outside {
        notes.push(format!("{price} lies too far from the bars to be drawn"));
    }
    if layout.tags_left_out > 0 {
        notes.push(format!("{} levels have no room on the axis and are not drawn", layout.tags_left_out));
    }
    notes
}
