//! From args to a scene: what is drawn where, in which colour.
//!
//! Pure: no file, no clock, no randomness. Market knowledge ends here; the scene knows
//! rectangles and texts only.

mod format;
mod header;
mod layout;
mod paint;
mod sma;
mod steps;
mod style;
mod time_axis;
mod view;

pub use sma::sma;
pub use style::Style;

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
    let mut view = view::View::of(args);
    let header = header::lay_out(&view, layout::Layout::header_room(&view));
    let layout = layout::Layout::of(&view, header.bottom);
    let mut notes = std::mem::take(&mut view.notes);
    notes.extend(notes_of(&view, &header, &layout));
    let scene = paint::scene(&view, &layout, header.texts);
    Ok(Chart { scene, visible_bars: view.bars(), notes })
}

fn notes_of(view: &view::View<'_>, header: &header::Header, layout: &layout::Layout) -> Vec<String> {
    let merged = format!(
        "{} bars in {} px: drawn as high-low columns, one for each column of pixels",
        view.bars(),
        layout.plot.width / layout.scale
    );
    let legend_wanted = view.args.legend && view.volume.is_some();
    let notes = [
        (layout.bars.merged, merged.as_str()),
        (header.shortened, "the header was shortened, the image is too small for it"),
        (layout.axis.width == 0, "the price axis has no labels, the image is too narrow"),
        (legend_wanted && !layout.volume_legend, "the volume panel is too low for its legend"),
    ];
    notes.into_iter().filter(|(holds, _)| *holds).map(|(_, note)| note.to_owned()).collect()
}
