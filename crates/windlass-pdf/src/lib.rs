//! Card sheets and reports as PDF: lays the pictures of a deck on printable pages, ready to be
//! cut, and sets reports of texts, tables and charts.
//!
//! It never fetches anything, never draws a picture it has not decoded itself, never reads a
//! font of the machine, and never re-compresses a picture that a PDF can hold as it is unless
//! the job asks for it.
//!
//! The kind [`CardSheet`] (`"pdf.card_sheet"`) takes [`CardSheetArgs`]. A run goes through:
//!
//! - [`args`] says what is wrong with a job before it is queued;
//! - [`layout`] holds the geometry of each sheet as versioned data;
//! - `sheet::plan` deals the cards to sheets and slots, without touching a file;
//! - `picture` checks and decodes a picture and decides which bytes are stored;
//! - `sheet::place` computes which part of a picture shows and where;
//! - `sheet::embed` draws pages of placed pictures, `sheet::raster` pages that are pictures;
//! - [`writer`] turns pages into a file; it is the only module that knows printpdf.
//!
//! `report` sets [`Report`]s (`"pdf.report"`), `documents` moves and joins whole PDFs
//! ([`Offset`], [`Merge`]), `calibration` draws the sheet that tells how far a printer is off.
//!
//! [`read_folder`] reads a folder of pictures the way a person lays one out, for the CLI.

pub mod args;
mod calibration;
mod documents;
mod folder;
mod font;
pub mod layout;
mod picture;
pub mod report;
mod sheet;
pub mod writer;

pub use args::{CardArgs, CardSheetArgs, Fit, LayoutArgs, OutputArgs, Sides};
pub use calibration::{Calibration, CalibrationArgs};
pub use documents::{Merge, MergeArgs, Offset, OffsetJobArgs, WhichPages};
pub use folder::{FolderCard, FolderDeck, FolderError, read_deck, read_folder};
pub use font::missing_glyphs;
pub use report::{Report, ReportArgs};
pub use sheet::CardSheet;

/// Adds every kind of this crate.
pub fn register(registry: &mut windlass_worker::Registry) {
    registry.isolated(CardSheet);
    registry.isolated(Offset);
    registry.isolated(Merge);
    registry.isolated(Calibration);
    registry.isolated(Report);
}
