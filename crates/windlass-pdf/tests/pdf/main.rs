//! Whole jobs of every kind, judged from outside by poppler, MuPDF and qpdf.
//!
//! Needs the Debian packages poppler-utils, mupdf-tools and qpdf. A missing tool fails the
//! tests, with the name of its package.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

mod documents;
mod fixtures;
mod flat_jpeg;
mod formats;
mod geometry;
mod job;
mod options;
mod peer;
mod raster;
mod refusals;
mod report;
mod schemas;
mod sheets;
mod tools;
