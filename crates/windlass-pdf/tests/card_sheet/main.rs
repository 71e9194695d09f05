//! Whole jobs of `pdf.card_sheet`, judged from outside by poppler, MuPDF and qpdf.
//!
//! Needs the Debian packages poppler-utils, mupdf-tools and qpdf. A missing tool fails the
//! tests, with the name of its package.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

mod fixtures;
mod flat_jpeg;
mod formats;
mod job;
mod refusals;
mod sheets;
mod tools;
