//! Everything that can be wrong with the args of a card sheet job.

use windlass_jobs::Violation;

use super::{Bleed, CardSheetArgs, CropText, Format, LayoutArgs, Mode, OffsetArgs, Order, Sides, blob_digest};
use crate::font;
use crate::layout::{self, LAYOUTS, Layout};

/// Most cards of one job, copies counted.
pub const MAX_CARDS: usize = 2_000;
/// Most pages of one result, backs counted.
pub const MAX_PAGES: usize = 500;
/// Longest title, author or name, in characters.
pub const MAX_TEXT_CHARS: usize = 100;
/// Coarsest page.
pub const MIN_PPI: i64 = 72;
/// Finest page.
pub const MAX_PPI: i64 = 600;
/// Largest `max_source_ppi`.
pub(crate) const MAX_SOURCE_PPI: i64 = 2_400;
/// Largest `extend_corners`, in px300.
pub const MAX_EXTEND: i64 = 50;
/// Largest offset, in px300.
pub const MAX_OFFSET_PX: f64 = 1_000.0;
/// Largest turn of the back pages, in degrees.
pub const MAX_ANGLE: f64 = 5.0;

/// Collects what is wrong.
type Found = Vec<Violation>;

impl CardSheetArgs {
    /// Everything that is wrong, in document order; empty when the job can run.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let layout = check_layout(&self.layout, &mut found);
        self.check_cards(&mut found);
        self.check_back(&mut found);
        self.check_crop(layout, &mut found);
        self.check_numbers(&mut found);
        self.check_together(&mut found);
        if let Some(layout) = layout {
            self.check_skip(layout, &mut found);
            self.check_pages(layout, &mut found);
        }
        check_text("/label/name", self.label.name.as_deref(), &mut found);
        check_glyphs("/label/name", self.label.name.as_deref(), &mut found);
        check_text("/output/title", self.output.title.as_deref(), &mut found);
        check_text("/output/author", self.output.author.as_deref(), &mut found);
        found
    }

    fn check_cards(&self, found: &mut Found) {
        if self.cards.is_empty() {
            found.push(Violation::new("/cards", "no_cards", "there is no card; at least 1 is needed"));
        }
        let count = self.card_count().max(self.cards.len());
        if count > MAX_CARDS {
            let message = format!("{count} cards with copies; at most {MAX_CARDS} are allowed");
            found.push(Violation::new("/cards", "too_many_cards", message));
        }
        for (i, card) in self.cards.iter().take(MAX_CARDS).enumerate() {
            check_blob(&format!("/cards/{i}/front"), &card.front, found);
            if let Some(back) = &card.back {
                let path = format!("/cards/{i}/back");
                check_blob(&path, back, found);
                if self.sides == Sides::Fronts {
                    found.push(back_unused(&path));
                }
            }
            in_range(&format!("/cards/{i}/copies"), "copies", card.copies, (1, MAX_CARDS as i64), found);
            let path = format!("/cards/{i}/name");
            check_text(&path, card.name.as_deref(), found);
            if self.order == Order::Peer && card.name.is_none() {
                found.push(Violation::new(path, "required", "order is \"peer\", so each card needs a name to sort by"));
            }
        }
    }

    fn check_back(&self, found: &mut Found) {
        if let Some(back) = &self.back {
            check_blob("/back", back, found);
            if self.sides == Sides::Fronts {
                found.push(back_unused("/back"));
            }
        }
    }

    fn check_crop(&self, layout: Option<&Layout>, found: &mut Found) {
        for (path, crop) in [("/crop/fronts", &self.crop.fronts), ("/crop/backs", &self.crop.backs)] {
            let Some(text) = crop else { continue };
            match text.parse() {
                Err(message) => found.push(Violation::new(path, "bad_crop", message)),
                Ok(crop) if layout.is_some_and(|l| !crop.fits(l.card_size)) => {
                    let shown = match text {
                        CropText::Text(text) => text.clone(),
                        CropText::Percent(percent) => format!("{percent} %"),
                    };
                    let message = format!("{shown} leaves too little of the card; allowed: less than 45 % a side");
                    found.push(Violation::new(path, "out_of_range", message));
                }
                Ok(_) => {}
            }
        }
    }

    fn check_numbers(&self, found: &mut Found) {
        in_range("/extend_corners/fronts", "extend_corners", self.extend_corners.fronts, (0, MAX_EXTEND), found);
        in_range("/extend_corners/backs", "extend_corners", self.extend_corners.backs, (0, MAX_EXTEND), found);
        in_range("/ppi", "ppi", self.ppi, (MIN_PPI, MAX_PPI), found);
        in_range("/quality", "quality", self.quality, (1, 100), found);
        in_range("/max_source_ppi", "max_source_ppi", self.max_source_ppi, (MIN_PPI, MAX_SOURCE_PPI), found);
        check_offset("/offset", &self.offset, found);
    }

    /// Options that exclude each other: an option is never read and ignored.
    fn check_together(&self, found: &mut Found) {
        if self.output.format != Format::Pdf && self.mode != Mode::Raster {
            let message = "page images are made in mode \"raster\" only: set it, or format \"pdf\"";
            found.push(Violation::new("/output/format", "conflict", message));
        }
        if self.output.format != Format::Pdf && (self.output.title.is_some() || self.output.author.is_some()) {
            let message = "page images carry no title and no author; leave them out";
            found.push(Violation::new("/output", "conflict", message));
        }
        if self.mode == Mode::Raster && self.bleed == Bleed::Scale {
            let message = "bleed \"scale\" is made in mode \"embed\" only; allowed: edge, none";
            found.push(Violation::new("/bleed", "conflict", message));
        }
        if self.sides == Sides::Fronts && !self.offset.is_nothing() {
            let message = "an offset moves back pages, and sides is \"fronts\": leave it out or use \"duplex\"";
            found.push(Violation::new("/offset", "conflict", message));
        }
    }

    fn check_skip(&self, layout: &Layout, found: &mut Found) {
        let last = layout.slots() - 1;
        for (i, slot) in self.skip.iter().enumerate() {
            if !usize::try_from(*slot).is_ok_and(|s| s <= last) {
                let message = format!("there is no place {slot} on {}; allowed: 0 to {last}", layout.template);
                found.push(Violation::new(format!("/skip/{i}"), "out_of_range", message));
            }
        }
        if self.usable_slots(layout).is_empty() {
            let message = format!("every place is skipped; at most {last} of {} may be", layout.slots());
            found.push(Violation::new("/skip", "nothing_left", message));
        }
    }

    fn check_pages(&self, layout: &Layout, found: &mut Found) {
        let usable = self.usable_slots(layout).len();
        if usable == 0 || self.card_count() > MAX_CARDS {
            return; // already reported
        }
        let per_sheet = match self.sides {
            Sides::Duplex => 2,
            Sides::Fronts => 1,
        };
        // Order "peer" may need one more sheet, where the two sorts of cards meet.
        let more = usize::from(self.order == Order::Peer);
        let pages = (self.card_count().div_ceil(usable) + more) * per_sheet;
        if pages > MAX_PAGES {
            let message = format!("{pages} pages; at most {MAX_PAGES} are allowed, make it several jobs");
            found.push(Violation::new("/cards", "too_many_pages", message));
        }
    }
}

pub(crate) fn check_blob(path: &str, name: &str, found: &mut Found) {
    if blob_digest(name).is_none() {
        let message = "a blob is named \"sha256:\" and 64 lower-case hex digits";
        found.push(Violation::new(path, "bad_digest", message));
    }
}

fn back_unused(path: &str) -> Violation {
    let message = "sides is \"fronts\", so no back is printed: leave the back out or use \"duplex\"";
    Violation::new(path, "back_unused", message)
}

pub(crate) fn in_range(path: &str, name: &str, value: i64, (low, high): (i64, i64), found: &mut Found) {
    if !(low..=high).contains(&value) {
        found.push(Violation::new(path, "out_of_range", format!("{name} is {value}; allowed: {low} to {high}")));
    }
}

fn check_layout(args: &LayoutArgs, found: &mut Found) -> Option<&'static Layout> {
    let before = found.len();
    let layout = layout::find(&args.set, &args.paper, &args.card, &args.variant);
    if layout.is_none() {
        narrow(args, found);
    }
    if found.len() == before && args.registration != 3 && (args.registration != 4 || args.set != "spec") {
        let message = format!("registration is {}; allowed: 3, and 4 in set spec", args.registration);
        found.push(Violation::new("/layout/registration", "out_of_range", message));
    }
    layout
}

/// A part of a layout's name: which, as the job writes it, as a layout has it.
type Part<'a> = (&'a str, &'a str, fn(&Layout) -> &str);

/// Names the first part of a layout's name that leads nowhere, and what is there instead.
fn narrow(args: &LayoutArgs, found: &mut Found) {
    let parts: [Part<'_>; 4] = [
        ("set", &args.set, |l| l.set),
        ("paper", &args.paper, |l| &l.paper),
        ("card", &args.card, |l| &l.card),
        ("variant", &args.variant, |l| &l.variant),
    ];
    let mut left: Vec<&Layout> = LAYOUTS.iter().collect();
    for (field, value, of) in parts {
        let mut allowed: Vec<&str> = Vec::new();
        for layout in &left {
            if !allowed.contains(&of(layout)) {
                allowed.push(of(layout));
            }
        }
        let aliased =
            layout::card_aliases().find(|(alias, _)| field == "card" && args.set == "spec" && *alias == value);
        let value = aliased.map_or(value, |(_, name)| name);
        left.retain(|l| of(l) == value);
        if left.is_empty() {
            let shown: String = value.chars().take(MAX_TEXT_CHARS).collect();
            let message = format!("{field} is {shown:?}; allowed here: {}", allowed.join(", "));
            found.push(Violation::new(format!("/layout/{field}"), "unknown_layout", message));
            return;
        }
    }
}

/// Adds what is wrong with an offset whose members stand below `prefix`.
pub(crate) fn check_offset(prefix: &str, offset: &OffsetArgs, found: &mut Vec<Violation>) {
    let (x, y) = offset.px();
    for (name, value) in [("x", x), ("y", y)] {
        // A comparison that is false for what is no number.
        if !(-MAX_OFFSET_PX..=MAX_OFFSET_PX).contains(&value) {
            let message = format!("{name} is {value} px300; allowed: -{MAX_OFFSET_PX} to {MAX_OFFSET_PX}");
            found.push(Violation::new(format!("{prefix}/{name}"), "out_of_range", message));
        }
    }
    if !(-MAX_ANGLE..=MAX_ANGLE).contains(&offset.angle) {
        let message = format!("angle is {}; allowed: -{MAX_ANGLE} to {MAX_ANGLE} degrees", offset.angle);
        found.push(Violation::new(format!("{prefix}/angle"), "out_of_range", message));
    }
}

pub(crate) fn check_text(path: &str, text: Option<&str>, found: &mut Found) {
    let Some(text) = text else { return };
    let chars = text.chars().count();
    if chars > MAX_TEXT_CHARS {
        let message = format!("{chars} characters; at most {MAX_TEXT_CHARS} are allowed");
        found.push(Violation::new(path, "too_long", message));
    }
    if text.chars().any(char::is_control) {
        found.push(Violation::new(path, "control_character", "control characters are not allowed"));
    }
}

/// A character that the embedded font cannot draw is refused, never printed as `?`.
pub(crate) fn check_glyphs(path: &str, text: Option<&str>, found: &mut Found) {
    let missing = font::missing_glyphs(text.unwrap_or_default());
    if !missing.is_empty() {
        let shown: String = missing.iter().take(20).collect();
        let message = format!("the embedded font has no {shown}; it has Latin, Greek and Cyrillic letters");
        found.push(Violation::new(path, "glyph_missing", message));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn blob(byte: u8) -> String {
        format!("sha256:{}", format!("{byte:02x}").repeat(32))
    }

    #[track_caller]
    fn check(args: Value, expected: &[(&str, &str)]) {
        let args: CardSheetArgs = serde_json::from_value(args).unwrap();
        let found = args.violations();
        let found: Vec<(&str, &str)> = found.iter().map(|v| (v.path.as_str(), v.code.as_str())).collect();
        assert_eq!(found, expected);
    }

    fn one(mut more: Value) -> Value {
        more["cards"] = json!([{"front": blob(1)}]);
        more
    }

    #[test]
    fn one_card_is_enough() {
        check(one(json!({})), &[]);
        check(json!({"cards": [{"front": blob(1), "back": null}], "back": null, "output": {"title": null}}), &[]);
    }

    #[test]
    fn everything_wrong_is_reported_together() {
        check(
            json!({
                "layout": {"paper": "a5"},
                "cards": [{"front": "x", "copies": 0}, {"front": blob(1), "back": format!("sha256:{}", "AB".repeat(32))}],
                "back": "sha256:12",
                "crop": {"fronts": "abc"},
                "ppi": 0,
                "quality": 101,
                "output": {"title": "a\u{7}", "author": "x".repeat(101)},
                "label": {"name": "Łódź 日本"},
            }),
            &[
                ("/layout/paper", "unknown_layout"),
                ("/cards/0/front", "bad_digest"),
                ("/cards/0/copies", "out_of_range"),
                ("/cards/1/back", "bad_digest"),
                ("/back", "bad_digest"),
                ("/crop/fronts", "bad_crop"),
                ("/ppi", "out_of_range"),
                ("/quality", "out_of_range"),
                ("/label/name", "glyph_missing"),
                ("/output/title", "control_character"),
                ("/output/author", "too_long"),
            ],
        );
    }

    /// §8.12.
    #[test]
    fn crops_that_leave_nothing_are_refused() {
        for bad in [json!("60mm"), json!("100"), json!(100), json!("90")] {
            check(one(json!({"crop": {"fronts": bad}})), &[("/crop/fronts", "out_of_range")]);
        }
        check(one(json!({"crop": {"backs": "x"}})), &[("/crop/backs", "bad_crop")]);
    }

    #[test]
    fn skip_names_places_of_the_sheet_and_leaves_one() {
        let with = |skip: Value| one(json!({"skip": skip}));
        check(with(json!([0, 1, 2, 3, 4, 5, 6])), &[]);
        check(with(json!([3, -1, 8, 3])), &[("/skip/1", "out_of_range"), ("/skip/2", "out_of_range")]);
        check(with(json!([0, 1, 2, 3, 4, 5, 6, 7])), &[("/skip", "nothing_left")]);
    }

    #[test]
    fn a_back_that_would_not_be_printed_is_refused() {
        check(
            json!({"cards": [{"front": blob(1), "back": blob(2)}], "back": blob(3), "sides": "fronts"}),
            &[("/cards/0/back", "back_unused"), ("/back", "back_unused")],
        );
    }

    #[test]
    fn options_without_effect_are_refused() {
        check(one(json!({"output": {"format": "png"}})), &[("/output/format", "conflict")]);
        check(one(json!({"mode": "raster", "bleed": "scale"})), &[("/bleed", "conflict")]);
        check(one(json!({"sides": "fronts", "offset": {"x": 1}})), &[("/offset", "conflict")]);
        check(one(json!({"order": "peer"})), &[("/cards/0/name", "required")]);
        check(one(json!({"layout": {"registration": 4}})), &[("/layout/registration", "out_of_range")]);
        check(one(json!({"layout": {"registration": 4, "set": "spec"}})), &[]);
        check(one(json!({"layout": {"variant": "borderless"}})), &[("/layout/variant", "unknown_layout")]);
        check(
            one(json!({"offset": {"x": 1e300, "y": -85, "unit": "mm", "angle": 5.1}})),
            &[("/offset/x", "out_of_range"), ("/offset/y", "out_of_range"), ("/offset/angle", "out_of_range")],
        );
    }

    #[test]
    fn counts_are_bounded() {
        check(json!({"cards": [{"front": blob(1), "copies": 2000}]}), &[]);
        check(json!({"cards": []}), &[("/cards", "no_cards")]);
        let many = json!({"cards": [{"front": blob(1), "copies": 2000}, {"front": blob(2)}]});
        check(many, &[("/cards", "too_many_cards")]);
        let pages = json!({"cards": [{"front": blob(1), "copies": 2000}], "skip": [0, 1, 2, 3, 4, 5, 6]});
        check(pages, &[("/cards", "too_many_pages")]);
    }

    #[test]
    fn a_wrong_layout_says_what_there_is() {
        let args: CardSheetArgs =
            serde_json::from_value(one(json!({"layout": {"paper": "a3", "card": "poker"}}))).unwrap();
        assert_eq!(args.violations()[0].message, "card is \"poker\"; allowed here: standard");
    }
}
