//! The args of a report, and everything that can be wrong with them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use windlass_chart::ChartArgs;
use windlass_jobs::Violation;

use super::template;
use crate::args::{BLOB_PATTERN, blob_digest, check_blob};
use crate::font;

/// Most blocks of a report.
pub const MAX_BLOCKS: usize = 5_000;
/// Most cells of all tables together.
pub const MAX_CELLS: usize = 200_000;
/// Most columns of a table.
pub const MAX_COLUMNS: usize = 40;
/// Most pictures of a report.
pub const MAX_IMAGES: usize = 200;
/// Most charts of a report.
pub const MAX_CHARTS: usize = 50;
/// Longest title, author, header or footer part, in characters.
const MAX_LINE_CHARS: usize = 200;
/// Most violations that are told at once.
const MAX_TOLD: usize = 1_000;
/// Sides of a page, in millimetres.
const PAGE_MM: (f64, f64) = (50.0, 1_200.0);
/// The least that margins leave of a page, in millimetres.
const MIN_BODY_MM: f64 = 30.0;

/// A report as blocks, set from top to bottom.
///
/// *Shape*: a JSON object; only `blocks` is required, and an unknown field is refused. A text may
/// hold `{{name}}` or `{{a.b.0}}`, which is replaced by that value of `data`.
///
/// ```
/// let args: windlass_pdf::ReportArgs = serde_json::from_value(serde_json::json!({
///     "title": "Orders",
///     "footer": {"right": "{page}/{pages}"},
///     "blocks": [
///         {"type": "heading", "text": "Orders of {{month}}"},
///         {"type": "table", "columns": [{"header": "Item"}, {"header": "Sum", "align": "right"}],
///          "rows": [["Cards", 12.5]]},
///     ],
///     "data": {"month": "May"},
/// })).unwrap();
/// assert!(args.violations().is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReportArgs {
    /// Paper and margins.
    pub page: PageArgs,
    /// Title of the document; `{title}` in header and footer. Default none.
    pub title: Option<String>,
    /// Author of the document. Default none.
    pub author: Option<String>,
    /// Language of the document, such as `en` or `de-CH`. Default none.
    pub lang: Option<String>,
    /// What stands above every page. Default nothing.
    pub header: Line,
    /// What stands below every page. Default nothing.
    pub footer: Line,
    /// The report, 1–[`MAX_BLOCKS`] blocks.
    #[schemars(length(min = 1, max = MAX_BLOCKS))]
    pub blocks: Vec<Block>,
    /// What `{{…}}` in texts is replaced by. Default nothing.
    pub data: Value,
}

/// Paper and margins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PageArgs {
    /// `"a4"`, `"letter"`, `"legal"`, `"a3"`, `"a5"`, or width and height in millimetres.
    /// Default `"a4"`.
    pub size: PageSize,
    /// Default `"portrait"`.
    pub orientation: Orientation,
    /// Default 20 mm, 18 mm at the sides.
    pub margins_mm: Margins,
}

/// A paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PageSize {
    /// By name.
    Named(PaperName),
    /// Width and height in millimetres.
    Millimetres([f64; 2]),
}

impl Default for PageSize {
    fn default() -> Self {
        Self::Named(PaperName::A4)
    }
}

/// Papers that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "they are papers")]
pub enum PaperName {
    A3,
    A4,
    A5,
    Letter,
    Legal,
}

/// Which way a named paper lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Orientation {
    /// Higher than wide.
    #[default]
    Portrait,
    /// Wider than high.
    Landscape,
}

/// Space around what is set, in millimetres.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "they are sides")]
pub struct Margins {
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
    pub left: f64,
}

impl Default for Margins {
    fn default() -> Self {
        Self { top: 20.0, right: 18.0, bottom: 20.0, left: 18.0 }
    }
}

/// A line above or below every page. `{page}`, `{pages}` and `{title}` are filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Line {
    /// At the left margin. Default nothing.
    pub left: Option<String>,
    /// In the middle. Default nothing.
    pub center: Option<String>,
    /// At the right margin. Default nothing.
    pub right: Option<String>,
}

impl Line {
    pub(super) fn parts(&self) -> [(&'static str, Option<&String>); 3] {
        [("left", self.left.as_ref()), ("center", self.center.as_ref()), ("right", self.right.as_ref())]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts().iter().all(|(_, text)| text.is_none())
    }
}

/// How a line lies between its margins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "they are sides")]
pub enum Align {
    #[default]
    Left,
    Center,
    Right,
    /// Both; paragraphs only.
    Justify,
}

/// A part of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Block {
    /// A heading; it never stands alone at the foot of a page.
    Heading {
        /// 1 (largest) to 3. Default 1.
        #[serde(default = "first_level")]
        #[schemars(range(min = 1, max = 3))]
        level: i64,
        /// What it says.
        text: String,
    },
    /// Lines of text; `\n` begins a new one.
    Paragraph {
        /// What it says, in one style. One of `text` and `runs`.
        #[serde(default)]
        text: Option<String>,
        /// What it says, in several.
        #[serde(default)]
        runs: Vec<Run>,
        /// Default left.
        #[serde(default)]
        align: Align,
        /// 6 to 36 points. Default 10.
        #[serde(default)]
        size_pt: Option<f64>,
    },
    /// Rows of cells. The header stands again on every page; no row is split.
    Table {
        /// 1–[`MAX_COLUMNS`].
        #[schemars(length(min = 1, max = MAX_COLUMNS))]
        columns: Vec<Column>,
        /// Each with a cell for every column.
        rows: Vec<Vec<Cell>>,
        /// 5 to 20 points. Default 9.
        #[serde(default)]
        size_pt: Option<f64>,
        /// Whether every second row is tinted. Default true.
        #[serde(default = "yes")]
        stripes: bool,
    },
    /// A picture: JPEG, PNG, WebP, GIF, BMP or TIFF.
    Image {
        /// `"sha256:"` and 64 lower-case hex digits.
        #[schemars(regex(pattern = BLOB_PATTERN))]
        blob: String,
        /// Default: as wide as the text, or as 150 ppi makes it where that is less.
        #[serde(default)]
        width_mm: Option<f64>,
        /// Default left.
        #[serde(default)]
        align: Align,
        /// A line below it. Default none.
        #[serde(default)]
        caption: Option<String>,
    },
    /// A chart, drawn as vectors.
    Chart {
        /// As of the kind `chart.render`; its size in pixels gives the shape.
        chart: Box<ChartArgs>,
        /// Default: as wide as the text.
        #[serde(default)]
        width_mm: Option<f64>,
        /// A line below it. Default none.
        #[serde(default)]
        caption: Option<String>,
    },
    /// Empty space.
    Spacer {
        /// 0 to 500.
        height_mm: f64,
    },
    /// A thin line across the text.
    Rule {},
    /// What follows begins on a new page.
    PageBreak {},
}

fn first_level() -> i64 {
    1
}

fn yes() -> bool {
    true
}

/// Text in one style.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// What it says.
    pub text: String,
    /// Default false.
    #[serde(default)]
    pub bold: bool,
    /// Slanted. Default false.
    #[serde(default)]
    pub italic: bool,
    /// `#rrggbb`. Default black, blue for links.
    #[serde(default)]
    pub color: Option<String>,
    /// What it opens: an `http:`, `https:` or `mailto:` address. Default none.
    #[serde(default)]
    pub link: Option<String>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its first line.
    pub header: String,
    /// Default: by what it holds.
    #[serde(default)]
    pub width_mm: Option<f64>,
    /// Default left.
    #[serde(default)]
    pub align: Align,
}

/// A cell: a text, a number, a truth, nothing, or a text with a style.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(missing_docs, reason = "they are JSON's")]
pub enum Cell {
    Nothing(()),
    Truth(bool),
    Number(serde_json::Number),
    Text(String),
    Styled(Run),
}

impl Cell {
    pub(super) fn run(&self) -> Run {
        let plain = |text: String| Run { text, ..Run::default() };
        match self {
            Self::Nothing(()) => Run::default(),
            Self::Truth(truth) => plain(truth.to_string()),
            Self::Number(number) => plain(number.to_string()),
            Self::Text(text) => plain(text.clone()),
            Self::Styled(run) => run.clone(),
        }
    }
}

impl PageArgs {
    /// Width and height in millimetres.
    pub(super) fn size_mm(&self) -> (f64, f64) {
        let (width, height) = match self.size {
            PageSize::Millimetres([width, height]) => return (width, height),
            PageSize::Named(PaperName::A3) => (297.0, 420.0),
            PageSize::Named(PaperName::A4) => (210.0, 297.0),
            PageSize::Named(PaperName::A5) => (148.0, 210.0),
            PageSize::Named(PaperName::Letter) => (215.9, 279.4),
            PageSize::Named(PaperName::Legal) => (215.9, 355.6),
        };
        match self.orientation {
            Orientation::Portrait => (width, height),
            Orientation::Landscape => (height, width),
        }
    }
}

/// `#rrggbb`.
pub(super) fn color(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('#').filter(|d| d.len() == 6 && d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}

impl ReportArgs {
    /// Everything that is wrong, in document order; empty when the job can run.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut checker = Checker { data: &self.data, found: Vec::new() };
        checker.page(&self.page);
        for (path, text) in [("/title", &self.title), ("/author", &self.author), ("/lang", &self.lang)] {
            checker.line(path, text.as_deref());
        }
        if let Some(lang) = &self.lang
            && !lang.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            checker.refuse("/lang", "bad_language", "a language is written like en or de-CH");
        }
        for (name, line) in [("header", &self.header), ("footer", &self.footer)] {
            for (part, text) in line.parts() {
                let path = format!("/{name}/{part}");
                checker.line(&path, text.map(String::as_str));
                checker.text(&path, text.map_or("", String::as_str));
            }
        }
        if self.blocks.is_empty() || self.blocks.len() > MAX_BLOCKS {
            let message = format!("{} blocks; allowed: 1 to {MAX_BLOCKS}", self.blocks.len());
            checker.refuse("/blocks", "out_of_range", message);
        }
        self.check_counts(&mut checker);
        for (i, block) in self.blocks.iter().take(MAX_BLOCKS).enumerate() {
            checker.block(&format!("/blocks/{i}"), block);
            if checker.found.len() >= MAX_TOLD {
                break;
            }
        }
        checker.found
    }

    /// The digests of all pictures, each once, in order of first mention.
    #[must_use]
    pub fn digests(&self) -> Vec<&str> {
        let mut digests: Vec<&str> = Vec::new();
        for block in &self.blocks {
            if let Block::Image { blob, .. } = block
                && let Some(digest) = blob_digest(blob)
                && !digests.contains(&digest)
            {
                digests.push(digest);
            }
        }
        digests
    }

    fn check_counts(&self, checker: &mut Checker<'_>) {
        let cells = |block: &Block| match block {
            Block::Table { columns, rows, .. } => (rows.len() + 1).saturating_mul(columns.len().max(1)),
            _ => 0,
        };
        let of = |wanted: fn(&Block) -> bool| self.blocks.iter().filter(|block| wanted(block)).count();
        let counts = [
            ("cells", self.blocks.iter().map(cells).fold(0, usize::saturating_add), MAX_CELLS),
            ("pictures", of(|b| matches!(b, Block::Image { .. })), MAX_IMAGES),
            ("charts", of(|b| matches!(b, Block::Chart { .. })), MAX_CHARTS),
        ];
        for (name, count, max) in counts.into_iter().filter(|(_, count, max)| count > max) {
            checker.refuse("/blocks", "out_of_range", format!("{count} {name}; at most {max} are allowed"));
        }
    }
}

struct Checker<'a> {
    data: &'a Value,
    found: Vec<Violation>,
}

impl Checker<'_> {
    fn refuse(&mut self, path: impl Into<String>, code: &str, message: impl Into<String>) {
        self.found.push(Violation::new(path, code, message));
    }

    fn number(&mut self, path: &str, value: f64, (low, high): (f64, f64), unit: &str) {
        // A comparison that is false for what is no number.
        if !(low..=high).contains(&value) {
            self.refuse(path, "out_of_range", format!("{value}; allowed: {low} to {high} {unit}"));
        }
    }

    fn page(&mut self, page: &PageArgs) {
        let (width, height) = page.size_mm();
        for (i, side) in [width, height].into_iter().enumerate() {
            self.number(&format!("/page/size/{i}"), side, PAGE_MM, "mm");
        }
        let m = page.margins_mm;
        for (name, value) in [("top", m.top), ("right", m.right), ("bottom", m.bottom), ("left", m.left)] {
            self.number(&format!("/page/margins_mm/{name}"), value, (0.0, 300.0), "mm");
        }
        if width - m.left - m.right < MIN_BODY_MM || height - m.top - m.bottom < MIN_BODY_MM {
            let message = format!("the margins leave less than {MIN_BODY_MM} mm of the page");
            self.refuse("/page/margins_mm", "out_of_range", message);
        }
    }

    fn line(&mut self, path: &str, text: Option<&str>) {
        let chars = text.unwrap_or_default().chars().count();
        if chars > MAX_LINE_CHARS {
            self.refuse(path, "too_long", format!("{chars} characters; at most {MAX_LINE_CHARS} are allowed"));
        }
        if text.is_some_and(|text| text.chars().any(char::is_control)) {
            self.refuse(path, "control_character", "control characters are not allowed");
        }
    }

    /// A text that is printed: its names are in the data, and its characters in the fonts.
    fn text(&mut self, path: &str, text: &str) {
        let filled = match template::fill(text, self.data) {
            Ok(filled) => filled,
            Err(message) => return self.refuse(path, "unknown_name", message),
        };
        if filled.chars().any(|c| c.is_control() && c != '\n') {
            self.refuse(path, "control_character", "control characters are not allowed, but for line breaks");
            return;
        }
        let missing: Vec<char> = font::missing_glyphs(&filled).into_iter().filter(|c| *c != '\n').collect();
        if !missing.is_empty() {
            let shown: String = missing.iter().take(20).collect();
            let message = format!("the embedded font has no {shown}; it has Latin, Greek and Cyrillic letters");
            self.refuse(path, "glyph_missing", message);
        }
    }

    fn run(&mut self, path: &str, run: &Run) {
        self.text(&format!("{path}/text"), &run.text);
        if let Some(text) = &run.color
            && color(text).is_none()
        {
            self.refuse(format!("{path}/color"), "bad_color", "a colour is written #rrggbb");
        }
        if let Some(link) = &run.link {
            let known = ["http://", "https://", "mailto:"].iter().any(|scheme| link.starts_with(scheme));
            if !known || !link.bytes().all(|b| b.is_ascii_graphic()) || link.len() > 2_000 {
                let message = "a link is an http:, https: or mailto: address of ASCII letters, at most 2000";
                self.refuse(format!("{path}/link"), "bad_link", message);
            }
        }
    }

    fn block(&mut self, path: &str, block: &Block) {
        match block {
            Block::Heading { level, text } => {
                crate::args::in_range(&format!("{path}/level"), "level", *level, (1, 3), &mut self.found);
                self.text(&format!("{path}/text"), text);
            }
            Block::Paragraph { text, runs, size_pt, .. } => {
                if text.is_some() != runs.is_empty() {
                    self.refuse(path, "conflict", "a paragraph has either text or runs");
                }
                self.text(&format!("{path}/text"), text.as_deref().unwrap_or_default());
                self.number(&format!("{path}/size_pt"), size_pt.unwrap_or(10.0), (6.0, 36.0), "pt");
                runs.iter().enumerate().for_each(|(i, run)| self.run(&format!("{path}/runs/{i}"), run));
            }
            Block::Table { columns, rows, size_pt, .. } => {
                self.number(&format!("{path}/size_pt"), size_pt.unwrap_or(9.0), (5.0, 20.0), "pt");
                self.table(path, columns, rows);
            }
            Block::Image { blob, width_mm, caption, .. } => {
                check_blob(&format!("{path}/blob"), blob, &mut self.found);
                self.number(&format!("{path}/width_mm"), width_mm.unwrap_or(10.0), (1.0, PAGE_MM.1), "mm");
                self.text(&format!("{path}/caption"), caption.as_deref().unwrap_or_default());
            }
            Block::Chart { chart, width_mm, caption } => {
                let inside = chart.check().into_iter();
                self.found.extend(inside.map(|v| Violation { path: format!("{path}/chart{}", v.path), ..v }));
                self.number(&format!("{path}/width_mm"), width_mm.unwrap_or(10.0), (10.0, PAGE_MM.1), "mm");
                self.text(&format!("{path}/caption"), caption.as_deref().unwrap_or_default());
            }
            Block::Spacer { height_mm } => {
                self.number(&format!("{path}/height_mm"), *height_mm, (0.0, 500.0), "mm");
            }
            Block::Rule {} | Block::PageBreak {} => {}
        }
    }

    fn table(&mut self, path: &str, columns: &[Column], rows: &[Vec<Cell>]) {
        if columns.is_empty() || columns.len() > MAX_COLUMNS {
            let message = format!("{} columns; allowed: 1 to {MAX_COLUMNS}", columns.len());
            self.refuse(format!("{path}/columns"), "out_of_range", message);
        }
        for (i, column) in columns.iter().take(MAX_COLUMNS).enumerate() {
            self.text(&format!("{path}/columns/{i}/header"), &column.header);
            let width = column.width_mm.unwrap_or(10.0);
            self.number(&format!("{path}/columns/{i}/width_mm"), width, (3.0, PAGE_MM.1), "mm");
        }
        for (i, row) in rows.iter().enumerate() {
            if row.len() != columns.len() {
                let message = format!("{} cells for {} columns", row.len(), columns.len());
                self.refuse(format!("{path}/rows/{i}"), "wrong_length", message);
            }
            for (j, cell) in row.iter().enumerate().take(MAX_COLUMNS) {
                match cell {
                    Cell::Text(text) => self.text(&format!("{path}/rows/{i}/{j}"), text),
                    Cell::Styled(run) => self.run(&format!("{path}/rows/{i}/{j}"), run),
                    Cell::Nothing(()) | Cell::Truth(_) | Cell::Number(_) => {}
                }
            }
            if self.found.len() >= MAX_TOLD {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(args: Value, expected: &[(&str, &str)]) {
        let args: ReportArgs = serde_json::from_value(args).unwrap();
        let found = args.violations();
        let found: Vec<(&str, &str)> = found.iter().map(|v| (v.path.as_str(), v.code.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn everything_wrong_is_reported_together() {
        check(
            json!({
                "page": {"margins_mm": {"left": 100, "right": 100}},
                "title": "a\u{7}",
                "footer": {"right": "{{who}}"},
                "blocks": [
                    {"type": "heading", "level": 4, "text": "日"},
                    {"type": "paragraph"},
                    {"type": "paragraph", "runs": [{"text": "x", "color": "red", "link": "javascript:alert(1)"}]},
                    {"type": "table", "columns": [{"header": "a"}], "rows": [[1], [1, 2]]},
                    {"type": "image", "blob": "x"},
                    {"type": "spacer", "height_mm": -1},
                ],
            }),
            &[
                ("/page/margins_mm", "out_of_range"),
                ("/title", "control_character"),
                ("/footer/right", "unknown_name"),
                ("/blocks/0/level", "out_of_range"),
                ("/blocks/0/text", "glyph_missing"),
                ("/blocks/1", "conflict"),
                ("/blocks/2/runs/0/color", "bad_color"),
                ("/blocks/2/runs/0/link", "bad_link"),
                ("/blocks/3/rows/1", "wrong_length"),
                ("/blocks/4/blob", "bad_digest"),
                ("/blocks/5/height_mm", "out_of_range"),
            ],
        );
        check(json!({"blocks": []}), &[("/blocks", "out_of_range")]);
    }

    #[test]
    fn an_unknown_block_or_member_is_refused() {
        for bad in [
            json!({"blocks": [{"type": "html", "text": "x"}]}),
            json!({"blocks": [{"type": "rule", "wide": true}]}),
            json!({"blocks": [{"type": "heading", "text": "x"}], "pages": 1}),
        ] {
            assert!(serde_json::from_value::<ReportArgs>(bad.clone()).is_err(), "{bad}");
        }
    }
}
