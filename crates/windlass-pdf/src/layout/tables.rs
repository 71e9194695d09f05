//! Reads the sets `v1`, `api` and `spec` from their data file, and computes `exact`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Layout, Marks, PX_PER_MM, Rect};

const FILE: &str = include_str!("../../assets/card_layouts.json");

/// The peer's label: its letters stand 104 px above the bottom (140 for the top of the line, less
/// the ascent of 40 px letters).
const LABEL_RISE: f64 = 104.0;
/// Lower on `exact`, whose crop marks reach down to 11 mm.
const EXACT_LABEL_RISE: f64 = 80.0;
/// The shortest and the longest arm that the source of `spec` draws, in millimetres.
const ARM_MM: (f64, f64) = (5.0, 20.0);
/// Corner radius where a set says none, in millimetres.
const RADIUS_MM: f64 = 3.0;

#[derive(Deserialize)]
struct File {
    sets: Sets,
}

#[derive(Deserialize)]
struct Sets {
    v1: Table,
    api: Table,
    spec: Spec,
}

#[derive(Deserialize)]
struct Table {
    card_px: BTreeMap<String, (f64, f64)>,
    papers: BTreeMap<String, Paper>,
}

#[derive(Deserialize)]
struct Paper {
    page_px: (f64, f64),
    marks: Measured,
    layouts: BTreeMap<String, Grid>,
}

#[derive(Deserialize)]
struct Measured {
    square: [f64; 4],
    #[serde(rename = "L")]
    bars: Vec<[f64; 4]>,
}

#[derive(Deserialize)]
struct Grid {
    template: String,
    x_pos: Vec<f64>,
    y_pos: Vec<f64>,
}

#[derive(Deserialize)]
struct Spec {
    mark_thickness_mm: f64,
    inset_mm: BTreeMap<String, f64>,
    default_corner_radius_mm: f64,
    card_radius_mm: BTreeMap<String, f64>,
    card_aliases: BTreeMap<String, String>,
    layouts: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    paper: String,
    card: String,
    variant: String,
    template: String,
    page_px: (f64, f64),
    card_px: (f64, f64),
    x_pos: Vec<f64>,
    y_pos: Vec<f64>,
    mark_length_mm: f64,
}

static DATA: LazyLock<File> =
    LazyLock::new(|| serde_json::from_str(FILE).expect("the layouts are part of the build and are valid"));

pub(super) fn data_hash() -> &'static str {
    static HASH: LazyLock<String> = LazyLock::new(|| hex::encode(&Sha256::digest(FILE)[..8]));
    &HASH
}

pub(super) fn aliases() -> impl Iterator<Item = (&'static str, &'static str)> {
    DATA.sets.spec.card_aliases.iter().map(|(alias, name)| (alias.as_str(), name.as_str()))
}

/// The card behind a second name.
pub(super) fn canonical_card<'a>(set: &str, card: &'a str) -> &'a str {
    if set != "spec" {
        return card;
    }
    aliases().find(|(alias, _)| *alias == card).map_or(card, |(_, name)| name)
}

pub(super) fn all() -> Vec<Layout> {
    let sets = &DATA.sets;
    let mut layouts = exact();
    layouts.extend(tabulated("v1", &sets.v1));
    layouts.extend(tabulated("api", &sets.api));
    layouts.extend(sets.spec.layouts.iter().map(|row| computed(&sets.spec, row)));
    layouts
}

fn rect([x, y, width, height]: [f64; 4]) -> Rect {
    Rect::new(x, y, width, height)
}

fn tabulated(set: &'static str, table: &'static Table) -> impl Iterator<Item = Layout> {
    table.papers.iter().flat_map(move |(paper, sheet)| {
        sheet.layouts.iter().filter_map(move |(card, grid)| {
            let bars = std::iter::once(sheet.marks.square).chain(sheet.marks.bars.iter().copied()).map(rect);
            Some(Layout {
                set,
                paper: paper.clone(),
                card: card.clone(),
                variant: "default".to_owned(),
                template: grid.template.clone(),
                page: sheet.page_px,
                card_size: *table.card_px.get(card)?,
                xs: grid.x_pos.clone(),
                ys: grid.y_pos.clone(),
                radius: RADIUS_MM * PX_PER_MM,
                marks: Marks::Bars(bars.collect()),
                label_rise: LABEL_RISE,
            })
        })
    })
}

fn computed(spec: &Spec, row: &Row) -> Layout {
    let inset = spec.inset_mm.get(&row.variant).copied().unwrap_or(10.0);
    let radius = spec.card_radius_mm.get(&row.card).copied().unwrap_or(spec.default_corner_radius_mm);
    Layout {
        set: "spec",
        paper: row.paper.clone(),
        card: row.card.clone(),
        variant: row.variant.clone(),
        template: row.template.clone(),
        page: row.page_px,
        card_size: row.card_px,
        xs: row.x_pos.clone(),
        ys: row.y_pos.clone(),
        radius: radius * PX_PER_MM,
        marks: Marks::Computed {
            stroke: spec.mark_thickness_mm * PX_PER_MM,
            inset: inset * PX_PER_MM,
            arm: row.mark_length_mm.clamp(ARM_MM.0, ARM_MM.1) * PX_PER_MM,
        },
        label_rise: LABEL_RISE.min(inset * PX_PER_MM),
    }
}

/// Set `exact`: 63 × 88 mm to the last digit, 2 mm between cards, centred; cut along crop marks.
/// Source: ISO 216 (A4), ANSI Y14.1 (letter), the size printed by the makers of trading cards.
fn exact() -> Vec<Layout> {
    const CARD_MM: (f64, f64) = (63.0, 88.0);
    const GUTTER_MM: f64 = 2.0;
    let grid = |count: usize, size: f64, paper: f64| -> Vec<f64> {
        let whole = count as f64 * size + (count - 1) as f64 * GUTTER_MM;
        (0..count).map(|i| ((paper - whole) / 2.0 + i as f64 * (size + GUTTER_MM)) * PX_PER_MM).collect()
    };
    let sheet = |paper: &str, template: &str, (width, height): (f64, f64)| Layout {
        set: "exact",
        paper: paper.to_owned(),
        card: "standard".to_owned(),
        variant: "default".to_owned(),
        template: template.to_owned(),
        page: (width * PX_PER_MM, height * PX_PER_MM),
        card_size: (CARD_MM.0 * PX_PER_MM, CARD_MM.1 * PX_PER_MM),
        xs: grid(4, CARD_MM.0, width),
        ys: grid(2, CARD_MM.1, height),
        radius: RADIUS_MM * PX_PER_MM,
        marks: Marks::Crop,
        label_rise: EXACT_LABEL_RISE,
    };
    vec![
        sheet("letter", "letter_standard_exact_v1", (279.4, 215.9)),
        sheet("a4", "a4_standard_exact_v1", (297.0, 210.0)),
    ]
}
