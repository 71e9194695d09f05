//! The command line of `windlass pdf`: Silhouette Card Maker's options by their names, and ours.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `windlass pdf`.
#[derive(Debug, Args)]
pub(crate) struct PdfCommand {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: PdfVerb,
}

/// What can be done with PDFs.
#[derive(Debug, Subcommand)]
pub(crate) enum PdfVerb {
    /// Lay card pictures on sheets, ready to print and cut.
    CardSheet(Box<CardSheetCli>),
    /// Move the back pages of a PDF, to make up for a printer that is off.
    Offset(OffsetCli),
    /// Make a sheet that shows how far a printer's backs are off.
    Calibration(CalibrationCli),
    /// Join PDFs, page after page.
    Merge(MergeCli),
    /// Set a report of texts, tables, pictures and charts.
    Report(ReportCli),
}

/// `windlass pdf card-sheet`.
#[derive(Debug, Args)]
pub(crate) struct CardSheetCli {
    /// Folder of the fronts, with its subfolders.
    #[arg(long, alias = "front_dir_path", value_name = "DIR")]
    pub(crate) fronts: PathBuf,
    /// Folder of the common back, at most one picture.
    #[arg(long, alias = "back_dir_path", value_name = "DIR")]
    pub(crate) backs: Option<PathBuf>,
    /// Folder of own backs, each under the name of its front.
    #[arg(long = "double-sided", alias = "double_sided_dir_path", value_name = "DIR")]
    pub(crate) double_sided: Option<PathBuf>,
    /// The file to write; with --output_images its folder.
    #[arg(long = "output_path", short = 'o', alias = "output-path", value_name = "FILE", default_value = "cards.pdf")]
    pub(crate) output_path: PathBuf,
    /// Write page1.png, page2.png … instead of a PDF.
    #[arg(long = "output_images", alias = "output-images")]
    pub(crate) output_images: bool,
    /// Format of page pictures: png, jpg or webp.
    #[arg(long, default_value = "png", requires = "output_images")]
    pub(crate) image_format: String,
    /// The card: standard, japanese, poker, poker_half, bridge, bridge_square, domino, domino_square …
    #[arg(long = "card_size", alias = "card-size", default_value = "standard", value_name = "NAME")]
    pub(crate) card_size: String,
    /// The paper: letter, tabloid, a4, a3, archb.
    #[arg(long = "paper_size", alias = "paper-size", default_value = "letter", value_name = "NAME")]
    pub(crate) paper_size: String,
    /// The layouts: v1 (Silhouette Card Maker 1.0), api (its API), spec (its 2.x), exact (true
    /// measures, crop marks).
    #[arg(long, default_value = "v1", value_name = "NAME")]
    pub(crate) set: String,
    /// default or borderless (set spec).
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(crate) variant: String,
    /// Corners with a registration mark: 3, or 4 in set spec.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) registration: i64,
    /// No back pages.
    #[arg(long = "only_fronts", alias = "only-fronts")]
    pub(crate) only_fronts: bool,
    /// Cut off each side of fronts and own backs: 3mm, 0.125in, or percent of the whole such as 6.5.
    #[arg(long, value_name = "LENGTH")]
    pub(crate) crop: Option<String>,
    /// The same for the common back.
    #[arg(long = "crop_backs", alias = "crop-backs", value_name = "LENGTH")]
    pub(crate) crop_backs: Option<String>,
    /// Replace so many 1/300 in of each side by what lies inside of it; hides round corners.
    #[arg(long = "extend_corners", alias = "extend-corners", default_value_t = 0, value_name = "N")]
    pub(crate) extend_corners: i64,
    /// Resolution of pages that are pictures [default: 300].
    #[arg(long, value_name = "N")]
    pub(crate) ppi: Option<i64>,
    /// JPEG quality of pages that are pictures [default: 75].
    #[arg(long, value_name = "N")]
    pub(crate) quality: Option<i64>,
    /// embed places the pictures as they are; raster makes each page one picture [default: embed,
    /// raster with --ppi, --quality or --output_images].
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<String>,
    /// A picture of another shape: stretch or crop.
    #[arg(long, default_value = "stretch", value_name = "HOW")]
    pub(crate) fit: String,
    /// What lies around each card: edge, scale or none.
    #[arg(long, default_value = "edge", value_name = "HOW")]
    pub(crate) bleed: String,
    /// Leave this place empty on every sheet, row by row from 0; may be repeated.
    #[arg(long, value_name = "N")]
    pub(crate) skip: Vec<i64>,
    /// First part of the line at the bottom of each sheet.
    #[arg(long, alias = "label", value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Draw the line each card is cut along.
    #[arg(long = "show_outline", alias = "show-outline")]
    pub(crate) show_outline: bool,
    /// Move back pages to the right, in 1/300 in.
    #[arg(long = "offset_x", alias = "offset-x", default_value_t = 0.0, allow_hyphen_values = true, value_name = "N")]
    pub(crate) offset_x: f64,
    /// Move back pages down, in 1/300 in.
    #[arg(long = "offset_y", alias = "offset-y", default_value_t = 0.0, allow_hyphen_values = true, value_name = "N")]
    pub(crate) offset_y: f64,
}

/// `windlass pdf offset`.
#[derive(Debug, Args)]
pub(crate) struct OffsetCli {
    /// The PDF.
    #[arg(long = "pdf_path", alias = "pdf-path", value_name = "FILE")]
    pub(crate) pdf_path: PathBuf,
    /// The file to write [default: NAME_offset.pdf beside it].
    #[arg(long = "output_pdf_path", short = 'o', alias = "output-pdf-path", value_name = "FILE")]
    pub(crate) output_pdf_path: Option<PathBuf>,
    /// To the right.
    #[arg(
        long = "x_offset",
        short = 'x',
        alias = "x-offset",
        default_value_t = 0.0,
        allow_hyphen_values = true,
        value_name = "N"
    )]
    pub(crate) x_offset: f64,
    /// Downwards.
    #[arg(
        long = "y_offset",
        short = 'y',
        alias = "y-offset",
        default_value_t = 0.0,
        allow_hyphen_values = true,
        value_name = "N"
    )]
    pub(crate) y_offset: f64,
    /// Clockwise around the middle of the page, in degrees.
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true, value_name = "DEGREES")]
    pub(crate) angle: f64,
    /// Pixels an inch of --x_offset and --y_offset.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=2400), value_name = "N")]
    pub(crate) ppi: u16,
}

/// `windlass pdf calibration`.
#[derive(Debug, Args)]
pub(crate) struct CalibrationCli {
    /// The paper: letter, tabloid, a4, a3, archb.
    #[arg(long = "paper_size", alias = "paper-size", default_value = "letter", value_name = "NAME")]
    pub(crate) paper_size: String,
    /// The file to write.
    #[arg(
        long = "output_path",
        short = 'o',
        alias = "output-path",
        default_value = "calibration.pdf",
        value_name = "FILE"
    )]
    pub(crate) output_path: PathBuf,
}

/// `windlass pdf merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeCli {
    /// The PDFs, in order.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) pdfs: Vec<PathBuf>,
    /// The file to write.
    #[arg(long = "output_path", short = 'o', alias = "output-path", default_value = "merged.pdf", value_name = "FILE")]
    pub(crate) output_path: PathBuf,
    /// Title of the result.
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// Let each part begin on the front of a sheet.
    #[arg(long)]
    pub(crate) start_on_front: bool,
}

/// `windlass pdf report`.
#[derive(Debug, Args)]
pub(crate) struct ReportCli {
    /// The report as JSON; a string "@path" in it names a picture, relative to this file.
    #[arg(value_name = "FILE")]
    pub(crate) blocks: PathBuf,
    /// The file to write.
    #[arg(long = "output_path", short = 'o', alias = "output-path", default_value = "report.pdf", value_name = "FILE")]
    pub(crate) output_path: PathBuf,
}
