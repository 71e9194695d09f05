//! The tools that judge a PDF from outside, and what they say about a page.

use std::path::Path;
use std::process::{Command, Output};

use windlass_pdf::layout::{Layout, PX_PER_MM, Rect};

/// Runs a tool; where it is not installed the test fails and says what to install.
pub(crate) fn tool(name: &str, package: &str, args: &[&str]) -> Output {
    match Command::new(name).args(args).output() {
        Ok(output) => output,
        Err(e) => panic!("{name} does not run ({e}); install the Debian package {package}"),
    }
}

/// The same, for a tool that must succeed; answers what it printed.
#[track_caller]
pub(crate) fn tool_text(name: &str, package: &str, args: &[&str]) -> String {
    let output = tool(name, package, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A path as an argument.
pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Fails unless qpdf finds nothing to say and MuPDF draws every page without a warning.
#[track_caller]
pub(crate) fn assert_sound(pdf: &Path) {
    let checked = tool("qpdf", "qpdf", &["--check", arg(pdf)]);
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{said}");
    let args = ["draw", "-q", "-r", "20", "-F", "ppm", "-o", "/dev/null", arg(pdf)];
    let drawn = tool("mutool", "mupdf-tools", &args);
    // Debian builds MuPDF without colour management, and it says so on every start.
    let said = String::from_utf8_lossy(&drawn.stderr).replace("warning: ICC support is not available\n", "");
    assert!(drawn.status.success() && said.is_empty(), "{said}");
}

/// One row of `pdfimages -list`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListedImage {
    pub(crate) page: usize,
    pub(crate) color: String,
    pub(crate) encoding: String,
    /// The PDF object that holds it.
    pub(crate) object: String,
}

/// Every use of a picture, page by page.
pub(crate) fn images(pdf: &Path) -> Vec<ListedImage> {
    let list = tool_text("pdfimages", "poppler-utils", &["-list", arg(pdf)]);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        ListedImage {
            page: cells[0].parse().unwrap(),
            color: cells[5].into(),
            encoding: cells[8].into(),
            object: cells[10].into(),
        }
    };
    list.lines().skip(2).map(row).collect()
}

/// Where a slot lies, in millimetres.
pub(crate) fn slot_mm(layout: &Layout, slot: usize) -> Rect {
    let Rect { x, y, width, height } = layout.slot(slot);
    Rect::new(x / PX_PER_MM, y / PX_PER_MM, width / PX_PER_MM, height / PX_PER_MM)
}

/// A rendered page.
pub(crate) struct Rendered {
    width: usize,
    height: usize,
    ppi: f64,
    rgb: Vec<u8>,
}

/// Renders page `page` (from 1) with poppler.
pub(crate) fn render(pdf: &Path, page: usize, ppi: u32) -> Rendered {
    let (page, resolution) = (page.to_string(), ppi.to_string());
    let args = ["-r", &resolution, "-f", &page, "-l", &page, arg(pdf)];
    let output = tool("pdftoppm", "poppler-utils", &args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    Rendered::from_ppm(&output.stdout, f64::from(ppi))
}

/// Renders page `page` (from 1) with MuPDF.
pub(crate) fn render_mupdf(pdf: &Path, page: usize, ppi: u32) -> Rendered {
    let (page, resolution) = (page.to_string(), ppi.to_string());
    let args = ["draw", "-q", "-r", &resolution, "-F", "ppm", "-o", "-", arg(pdf), &page];
    let output = tool("mutool", "mupdf-tools", &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Rendered::from_ppm(&output.stdout, f64::from(ppi))
}

impl Rendered {
    /// Width and height in pixels.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// The part of pixels that differ from another page's by more than `by` in any channel, when
    /// the other is moved by (dx, dy).
    pub(crate) fn differing(&self, other: &Self, by: u8, shift: (isize, isize)) -> f64 {
        self.differing_every(1, other, by, shift)
    }

    /// The same, of every `step`th row.
    pub(crate) fn differing_every(&self, step: usize, other: &Self, by: u8, (dx, dy): (isize, isize)) -> f64 {
        let (mut off, mut seen) = (0_usize, 0_usize);
        for y in (0..self.height).step_by(step) {
            for x in 0..self.width {
                let moved = (x.saturating_add_signed(-dx), y.saturating_add_signed(-dy));
                if !is_near(self.at(x, y), other.at(moved.0, moved.1), by) {
                    off += 1;
                }
            }
            seen += self.width;
        }
        off as f64 / seen as f64
    }

    /// From RGB pixels.
    pub(crate) fn from_rgb(image: &image::RgbImage, ppi: f64) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        Self { width, height, ppi, rgb: image.as_raw().clone() }
    }

    fn from_ppm(ppm: &[u8], ppi: f64) -> Self {
        let mut fields = ppm.splitn(4, |b| b.is_ascii_whitespace());
        assert_eq!(fields.next(), Some(b"P6".as_slice()));
        let mut number = || std::str::from_utf8(fields.next().unwrap()).unwrap().parse::<usize>().unwrap();
        let (width, height) = (number(), number());
        let rgb = fields.next().unwrap().strip_prefix(b"255\n").unwrap().to_vec();
        assert_eq!(rgb.len(), width * height * 3);
        Self { width, height, ppi, rgb }
    }

    /// The colour at a place in millimetres from the top left.
    pub(crate) fn at_mm(&self, (x, y): (f64, f64)) -> [u8; 3] {
        self.at(self.px(x), self.px(y))
    }

    pub(crate) fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let (x, y) = (x.min(self.width - 1), y.min(self.height - 1));
        let start = (y * self.width + x) * 3;
        [self.rgb[start], self.rgb[start + 1], self.rgb[start + 2]]
    }

    /// The pixel that holds this distance.
    pub(crate) fn px(&self, mm: f64) -> usize {
        (mm / 25.4 * self.ppi) as usize
    }

    /// The near edge of this pixel.
    pub(crate) fn mm(&self, px: usize) -> f64 {
        px as f64 * 25.4 / self.ppi
    }

    /// True if every pixel of the rectangle (left, top, right, bottom in millimetres) is white.
    pub(crate) fn is_white(&self, (left, top, right, bottom): (f64, f64, f64, f64)) -> bool {
        let (left, right) = (self.px(left), self.px(right).min(self.width));
        (self.px(top)..self.px(bottom).min(self.height)).all(|y| {
            let row = &self.rgb[(y * self.width + left) * 3..(y * self.width + right) * 3];
            row.iter().all(|b| *b == 255)
        })
    }
}

/// True when no channel differs by more than `by`.
pub(crate) fn is_near(a: [u8; 3], b: [u8; 3], by: u8) -> bool {
    a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= by)
}
