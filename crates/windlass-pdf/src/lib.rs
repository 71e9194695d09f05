//! Card sheets as PDF: lays the pictures of a deck on printable pages, ready to be cut.
//!
//! It never fetches anything, never draws a picture it has not decoded itself, and never
//! scales or re-compresses a picture that a PDF can hold as it is.
//!
//! The job kind is [`CardSheet`] (`"pdf.card_sheet"`), its args are [`CardSheetArgs`].
//! A run goes through these modules, top to bottom:
//!
//! - [`args`] says what is wrong with a job before it is queued;
//! - [`layout`] holds the geometry of each sheet as versioned data;
//! - `plan` deals the cards to sheets and slots, without touching a file;
//! - `picture` checks and decodes a picture and decides which bytes are stored;
//! - `place` computes where and how a picture lies on the page;
//! - [`writer`] turns pages into a file; it is the only module that knows printpdf.
//!
//! [`read_folder`] reads a folder of pictures the way a person lays one out, for the CLI.

pub mod args;
mod folder;
mod handler;
pub mod layout;
mod picture;
mod place;
mod plan;
pub mod writer;

pub use args::{CardArgs, CardSheetArgs, Fit, LayoutArgs, OutputArgs, Sides};
pub use folder::{FolderCard, FolderDeck, FolderError, read_folder};
pub use handler::CardSheet;

/// Adds every kind of this crate.
pub fn register(registry: &mut windlass_worker::Registry) {
    registry.isolated(CardSheet);
}
