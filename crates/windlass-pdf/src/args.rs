//! The args of a card sheet job, and everything that can be wrong with them.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use windlass_jobs::Violation;

use crate::layout::{self, LAYOUTS, Layout};

/// Most cards of one job, copies counted.
pub const MAX_CARDS: usize = 2_000;
/// Most pages of one PDF, backs counted.
pub const MAX_PAGES: usize = 500;
/// Longest title or author, in characters.
pub const MAX_TEXT_CHARS: usize = 100;

/// What to print, and how.
///
/// *Shape*: a JSON object; only `cards` is required, and an unknown field is refused.
/// A picture is named by its content: `"sha256:"` and 64 lower-case hex digits.
///
/// ```
/// let args: windlass_pdf::CardSheetArgs = serde_json::from_value(serde_json::json!({
///     "cards": [{"front": format!("sha256:{}", "ab".repeat(32)), "copies": 4}],
///     "layout": {"paper": "a4"},
/// })).unwrap();
/// assert!(args.violations().is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CardSheetArgs {
    /// Which sheet the cards are laid on.
    pub layout: LayoutArgs,
    /// The cards in printing order, 1–[`MAX_CARDS`] with copies.
    pub cards: Vec<CardArgs>,
    /// The back of every card that has none of its own. Default: none, which leaves those places empty.
    pub back: Option<String>,
    /// Whether back pages are printed. Default `"duplex"`.
    pub sides: Sides,
    /// How a picture fills its card. Default `"stretch"`.
    pub fit: Fit,
    /// Whether crop marks are printed. Default true.
    pub marks: bool,
    /// Places left empty on every sheet, row by row from 0 at the top left of the front. Default none.
    pub skip: Vec<i64>,
    /// What the document says about itself.
    pub output: OutputArgs,
}

impl Default for CardSheetArgs {
    fn default() -> Self {
        Self {
            layout: LayoutArgs::default(),
            cards: Vec::new(),
            back: None,
            sides: Sides::default(),
            fit: Fit::default(),
            marks: true,
            skip: Vec::new(),
            output: OutputArgs::default(),
        }
    }
}

/// Names a [`Layout`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LayoutArgs {
    /// Default `"exact"`.
    pub set: String,
    /// `"letter"` or `"a4"`. Default `"letter"`.
    pub paper: String,
    /// `"standard"`: 63×88 mm. Default `"standard"`.
    pub card: String,
}

impl Default for LayoutArgs {
    fn default() -> Self {
        Self { set: "exact".into(), paper: "letter".into(), card: "standard".into() }
    }
}

/// One card of a deck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardArgs {
    /// The picture of its front.
    pub front: String,
    /// The picture of its own back. Default: the common back.
    #[serde(default)]
    pub back: Option<String>,
    /// How often it is printed, 1–[`MAX_CARDS`]. Default 1.
    #[serde(default = "one_copy")]
    pub copies: i64,
}

fn one_copy() -> i64 {
    1
}

/// Which sides of a sheet are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sides {
    /// Pages alternate front, back; print with "flip on long edge".
    #[default]
    Duplex,
    /// Fronts only.
    Fronts,
}

/// How a picture fills a card of another shape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Width and height are scaled apart; the whole picture shows.
    #[default]
    Stretch,
    /// Keeps the shape; what sticks out is cut off evenly on both sides.
    Crop,
}

/// What the document says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputArgs {
    /// Its title, at most [`MAX_TEXT_CHARS`] characters, no control ones. Default none.
    pub title: Option<String>,
    /// Its author, likewise. Default none.
    pub author: Option<String>,
}

impl CardSheetArgs {
    /// Everything that is wrong, in document order; empty when the job can run.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let layout = check_layout(&self.layout, &mut found);
        self.check_cards(&mut found);
        if let Some(back) = &self.back {
            check_blob("/back", back, &mut found);
            if self.sides == Sides::Fronts {
                found.push(back_unused("/back"));
            }
        }
        if let Some(layout) = layout {
            self.check_skip(layout, &mut found);
            self.check_pages(layout, &mut found);
        }
        check_text("/output/title", self.output.title.as_deref(), &mut found);
        check_text("/output/author", self.output.author.as_deref(), &mut found);
        found
    }

    /// The layout that is asked for, if there is one.
    #[must_use]
    pub fn find_layout(&self) -> Option<&'static Layout> {
        layout::find(&self.layout.set, &self.layout.paper, &self.layout.card)
    }

    /// The digests of all pictures, each once, in order of first mention: each card's
    /// front and own back, then the common back. Malformed names are left out.
    #[must_use]
    pub fn digests(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let of_cards = self.cards.iter().flat_map(|c| [Some(c.front.as_str()), c.back.as_deref()]);
        of_cards
            .chain([self.back.as_deref()])
            .flatten()
            .filter_map(blob_digest)
            .filter(|digest| seen.insert(*digest))
            .collect()
    }

    /// The slots of `layout` that are filled, in order.
    #[must_use]
    pub(crate) fn usable_slots(&self, layout: &Layout) -> Vec<usize> {
        (0..layout.slots()).filter(|slot| !self.skip.iter().any(|s| usize::try_from(*s) == Ok(*slot))).collect()
    }

    /// How many cards are printed, copies counted. Nonsense copies count as none.
    fn card_count(&self) -> usize {
        let copies = self.cards.iter().map(|c| usize::try_from(c.copies).unwrap_or(0));
        copies.fold(0, usize::saturating_add)
    }

    fn check_cards(&self, found: &mut Vec<Violation>) {
        if self.cards.is_empty() {
            found.push(Violation::new("/cards", "no_cards", "there is no card; at least 1 is needed"));
        }
        if self.card_count().max(self.cards.len()) > MAX_CARDS {
            let count = self.card_count().max(self.cards.len());
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
            if !(1..=MAX_CARDS as i64).contains(&card.copies) {
                let message = format!("copies is {}; allowed: 1 to {MAX_CARDS}", card.copies);
                found.push(Violation::new(format!("/cards/{i}/copies"), "out_of_range", message));
            }
        }
    }

    fn check_skip(&self, layout: &Layout, found: &mut Vec<Violation>) {
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

    fn check_pages(&self, layout: &Layout, found: &mut Vec<Violation>) {
        let usable = self.usable_slots(layout).len();
        let count = self.card_count();
        if usable == 0 || count > MAX_CARDS {
            return; // already reported
        }
        let per_sheet = match self.sides {
            Sides::Duplex => 2,
            Sides::Fronts => 1,
        };
        let pages = count.div_ceil(usable) * per_sheet;
        if pages > MAX_PAGES {
            let message = format!("{pages} pages; at most {MAX_PAGES} are allowed, make it several jobs");
            found.push(Violation::new("/cards", "too_many_pages", message));
        }
    }
}

/// The hex digest in a picture's name, if the name is well formed.
pub(crate) fn blob_digest(name: &str) -> Option<&str> {
    let digest = name.strip_prefix("sha256:")?;
    let is_hex = digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (digest.len() == 64 && is_hex).then_some(digest)
}

fn check_blob(path: &str, name: &str, found: &mut Vec<Violation>) {
    if blob_digest(name).is_none() {
        let message = "a picture is named \"sha256:\" and 64 lower-case hex digits";
        found.push(Violation::new(path, "bad_digest", message));
    }
}

fn back_unused(path: &str) -> Violation {
    let message = "sides is \"fronts\", so no back is printed: leave the back out or use \"duplex\"";
    Violation::new(path, "back_unused", message)
}

fn check_layout(args: &LayoutArgs, found: &mut Vec<Violation>) -> Option<&'static Layout> {
    let before = found.len();
    check_name("set", &args.set, |l| l.set, found);
    check_name("paper", &args.paper, |l| l.paper, found);
    check_name("card", &args.card, |l| l.card, found);
    let layout = layout::find(&args.set, &args.paper, &args.card);
    if layout.is_none() && found.len() == before {
        let all: Vec<String> = LAYOUTS.iter().map(|l| format!("{} {} {}", l.set, l.paper, l.card)).collect();
        let message = format!("this card is not laid on this paper; allowed: {}", all.join(", "));
        found.push(Violation::new("/layout", "unknown_layout", message));
    }
    layout
}

fn check_name(field: &str, value: &str, of: fn(&Layout) -> &'static str, found: &mut Vec<Violation>) {
    let mut allowed: Vec<&str> = LAYOUTS.iter().map(of).collect();
    allowed.dedup();
    if !allowed.contains(&value) {
        let shown: String = value.chars().take(MAX_TEXT_CHARS).collect();
        let message = format!("{field} is {shown:?}; allowed: {}", allowed.join(", "));
        found.push(Violation::new(format!("/layout/{field}"), "unknown_layout", message));
    }
}

fn check_text(path: &str, text: Option<&str>, found: &mut Vec<Violation>) {
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

    #[test]
    fn one_card_is_enough() {
        check(json!({"cards": [{"front": blob(1)}]}), &[]);
        check(json!({"cards": [{"front": blob(1), "back": null}], "back": null, "output": {"title": null}}), &[]);
    }

    #[test]
    fn everything_wrong_is_reported_together() {
        check(
            json!({
                "layout": {"paper": "a5"},
                "cards": [{"front": "x", "copies": 0}, {"front": blob(1), "back": format!("sha256:{}", "AB".repeat(32))}],
                "back": "sha256:12",
                "output": {"title": "a\u{7}", "author": "x".repeat(101)},
            }),
            &[
                ("/layout/paper", "unknown_layout"),
                ("/cards/0/front", "bad_digest"),
                ("/cards/0/copies", "out_of_range"),
                ("/cards/1/back", "bad_digest"),
                ("/back", "bad_digest"),
                ("/output/title", "control_character"),
                ("/output/author", "too_long"),
            ],
        );
    }

    #[test]
    fn skip_names_places_of_the_sheet_and_leaves_one() {
        let with = |skip: Value| json!({"cards": [{"front": blob(1)}], "skip": skip});
        check(with(json!([0, 7, 7])), &[]);
        check(with(json!([0, 1, 2, 3, 4, 5, 6])), &[]);
        check(with(json!([-1, 8])), &[("/skip/0", "out_of_range"), ("/skip/1", "out_of_range")]);
        check(with(json!([0, 1, 2, 3, 4, 5, 6, 7])), &[("/skip", "nothing_left")]);
    }

    #[test]
    fn cards_and_pages_are_bounded() {
        let with = |copies: i64, skip: Value| json!({"cards": [{"front": blob(1), "copies": copies}], "skip": skip});
        check(json!({"cards": []}), &[("/cards", "no_cards")]);
        check(with(2_000, json!([])), &[]);
        check(with(2_000, json!([0])), &[("/cards", "too_many_pages")]);
        check(with(2_001, json!([])), &[("/cards", "too_many_cards"), ("/cards/0/copies", "out_of_range")]);
        check(with(i64::MAX, json!([])), &[("/cards", "too_many_cards"), ("/cards/0/copies", "out_of_range")]);
        let two = json!({"cards": [{"front": blob(1), "copies": 1_999}, {"front": blob(2), "copies": 2}]});
        check(two, &[("/cards", "too_many_cards")]);
    }

    #[test]
    fn a_back_that_would_not_be_printed_is_refused() {
        check(
            json!({"cards": [{"front": blob(1), "back": blob(2)}], "back": blob(3), "sides": "fronts"}),
            &[("/cards/0/back", "back_unused"), ("/back", "back_unused")],
        );
    }

    #[test]
    fn unknown_fields_are_refused_everywhere() {
        for args in [
            json!({"cards": [], "bleed": "edge"}),
            json!({"cards": [], "layout": {"variant": "default"}}),
            json!({"cards": [{"front": "x", "rotate": 1}]}),
            json!({"cards": [], "output": {"format": "pdf"}}),
        ] {
            assert!(serde_json::from_value::<CardSheetArgs>(args.clone()).is_err(), "{args}");
        }
    }

    #[test]
    fn digests_come_once_in_order_of_first_mention() {
        let args: CardSheetArgs = serde_json::from_value(json!({
            "cards": [{"front": blob(3), "back": blob(1)}, {"front": blob(3)}, {"front": blob(2)}],
            "back": blob(1),
        }))
        .unwrap();
        assert_eq!(args.digests(), [3, 1, 2].map(|b| format!("{b:02x}").repeat(32)));
    }
}
