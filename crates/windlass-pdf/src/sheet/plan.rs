//! Deals cards to sheets and slots: pure, before any file is opened.

use std::collections::HashSet;

use super::place::Role;
use crate::args::{CardSheetArgs, Order, Sides, blob_digest};
use crate::folder;
use crate::layout::Layout;

/// Which side of a card a picture is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Front,
    Back,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Back => "back",
        }
    }
}

/// A picture in its place on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Placed<'a> {
    /// Where on its page.
    pub(crate) slot: usize,
    /// Which of the args' cards, from 0.
    pub(crate) card: usize,
    pub(crate) digest: &'a str,
    /// Whose options it follows.
    pub(crate) role: Role,
}

/// One side of one sheet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PagePlan<'a> {
    pub(crate) side: Side,
    /// Which sheet, from 1.
    pub(crate) sheet: usize,
    pub(crate) placed: Vec<Placed<'a>>,
}

/// All pages in printing order, and what they add up to.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) layout: &'static Layout,
    pub(crate) pages: Vec<PagePlan<'a>>,
    pub(crate) sheets: usize,
    /// Cards printed, copies counted.
    pub(crate) cards: usize,
    /// Cards a sheet takes once the skipped places are left out.
    pub(crate) slots_per_sheet: usize,
    /// Cards that are printed on both sides but have no back.
    pub(crate) without_back: usize,
}

impl<'a> Plan<'a> {
    /// The plan for args without violations; `None` for others.
    pub(crate) fn new(args: &'a CardSheetArgs) -> Option<Self> {
        if !args.violations().is_empty() {
            return None;
        }
        let layout = args.find_layout()?;
        let slots = args.usable_slots(layout);
        let groups = deal(args);
        let sheets: Vec<&[usize]> = groups.iter().flat_map(|group| group.chunks(slots.len())).collect();
        let mut pages = Vec::new();
        for (index, cards) in sheets.iter().enumerate() {
            let sheet = index + 1;
            pages.push(PagePlan { side: Side::Front, sheet, placed: fronts(args, cards, &slots) });
            if args.sides == Sides::Duplex {
                pages.push(PagePlan { side: Side::Back, sheet, placed: backs(args, cards, &slots, layout) });
            }
        }
        let backless = |card: &&usize| args.back.is_none() && args.cards[**card].back.is_none();
        Some(Self {
            layout,
            pages,
            sheets: sheets.len(),
            cards: groups.iter().map(Vec::len).sum(),
            slots_per_sheet: slots.len(),
            without_back: match args.sides {
                Sides::Duplex => groups.iter().flatten().filter(backless).count(),
                Sides::Fronts => 0,
            },
        })
    }

    /// Every picture once per role, in order of first use, with the place that names it.
    pub(crate) fn pictures(&self) -> Vec<(Placed<'a>, Side)> {
        let mut seen = HashSet::new();
        let all = self.pages.iter().flat_map(|page| page.placed.iter().map(move |placed| (*placed, page.side)));
        all.filter(|(placed, _)| seen.insert((placed.digest, placed.role))).collect()
    }
}

/// The index of each printed card, copies one after the other, in groups that share no sheet.
fn deal(args: &CardSheetArgs) -> Vec<Vec<usize>> {
    let repeat = |i: usize| std::iter::repeat_n(i, usize::try_from(args.cards[i].copies).unwrap_or(0));
    let all: Vec<usize> = (0..args.cards.len()).collect();
    if args.order == Order::Input {
        return vec![all.into_iter().flat_map(repeat).collect()];
    }
    let name = |i: &usize| args.cards[*i].name.as_deref().unwrap_or_default();
    let (mut single, mut double): (Vec<usize>, Vec<usize>) =
        all.into_iter().partition(|i| args.cards[*i].back.is_none());
    for group in [&mut single, &mut double] {
        group.sort_by(|a, b| folder::natural(name(a), name(b)));
    }
    [single, double].into_iter().map(|group| group.into_iter().flat_map(repeat).collect()).collect()
}

fn fronts<'a>(args: &'a CardSheetArgs, sheet: &[usize], slots: &[usize]) -> Vec<Placed<'a>> {
    let place = |(card, slot): (&usize, &usize)| {
        let digest = blob_digest(&args.cards[*card].front)?;
        Some(Placed { slot: *slot, card: *card, digest, role: Role::Own })
    };
    sheet.iter().zip(slots).filter_map(place).collect()
}

fn backs<'a>(args: &'a CardSheetArgs, sheet: &[usize], slots: &[usize], layout: &Layout) -> Vec<Placed<'a>> {
    let place = |(card, slot): (&usize, &usize)| {
        let own = args.cards[*card].back.as_ref();
        let role = if own.is_some() { Role::Own } else { Role::Common };
        let digest = blob_digest(own.or(args.back.as_ref())?)?;
        Some(Placed { slot: layout.back_slot(*slot), card: *card, digest, role })
    };
    sheet.iter().zip(slots).filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::CardArgs;

    fn blob(n: usize) -> String {
        format!("sha256:{n:064x}")
    }

    fn args(cards: usize, back: Option<usize>) -> CardSheetArgs {
        let card = |i| CardArgs { front: blob(i), back: None, copies: 1, name: None };
        CardSheetArgs { cards: (0..cards).map(card).collect(), back: back.map(blob), ..CardSheetArgs::default() }
    }

    /// (card, slot) pairs of each page.
    fn pairs(args: &CardSheetArgs) -> Vec<Vec<(usize, usize)>> {
        let plan = Plan::new(args).unwrap();
        plan.pages.iter().map(|p| p.placed.iter().map(|c| (c.card, c.slot)).collect()).collect()
    }

    #[test]
    fn nine_cards_take_two_sheets() {
        let args = args(9, Some(99));
        let plan = Plan::new(&args).unwrap();
        assert_eq!((plan.sheets, plan.pages.len(), plan.cards), (2, 4, 9));
        assert_eq!(pairs(&args)[2..], [vec![(8, 0)], vec![(8, 4)]]);
    }

    #[test]
    fn a_skipped_slot_is_empty_on_both_sides() {
        let args = CardSheetArgs { skip: vec![4], ..args(8, Some(99)) };
        let pages = pairs(&args);
        assert_eq!(pages[0], [(0, 0), (1, 1), (2, 2), (3, 3), (4, 5), (5, 6), (6, 7)]);
        assert_eq!(pages[1], [(0, 4), (1, 5), (2, 6), (3, 7), (4, 1), (5, 2), (6, 3)]);
        assert_eq!(pages[2], [(7, 0)]);
    }

    #[test]
    fn an_own_back_goes_before_the_common_one_and_neither_leaves_the_slot_empty() {
        let mut mixed = args(2, None);
        mixed.cards[1].back = Some(blob(7));
        assert_eq!(pairs(&mixed)[1], [(1, 5)]);
        assert_eq!(Plan::new(&mixed).unwrap().without_back, 1);
        mixed.back = Some(blob(8));
        let plan = Plan::new(&mixed).unwrap();
        let digests: Vec<&str> = plan.pages[1].placed.iter().map(|p| p.digest).collect();
        assert_eq!(digests, [&blob(8)[7..], &blob(7)[7..]]);
        assert_eq!(plan.without_back, 0);
    }

    #[test]
    fn fronts_only_has_no_back_pages() {
        let args = CardSheetArgs { sides: Sides::Fronts, ..args(9, None) };
        let plan = Plan::new(&args).unwrap();
        assert!(plan.pages.iter().all(|p| p.side == Side::Front));
        assert_eq!((plan.sheets, plan.pages.len(), plan.without_back), (2, 2, 0));
    }

    #[test]
    fn copies_lie_side_by_side() {
        let mut args = args(2, None);
        args.cards[0].copies = 3;
        assert_eq!(pairs(&args)[0], [(0, 0), (0, 1), (0, 2), (1, 3)]);
    }

    /// §1.3: what the peer does.
    #[test]
    fn order_peer_sorts_by_name_and_never_mixes_the_two_sorts_on_a_sheet() {
        let mut args = args(4, Some(99));
        args.order = Order::Peer;
        for (card, name) in args.cards.iter_mut().zip(["10.png", "b.png", "2.png", "a.png"]) {
            card.name = Some(name.to_owned());
        }
        args.cards[1].back = Some(blob(7));
        args.cards[3].back = Some(blob(8));
        let pages = pairs(&args);
        assert_eq!((&pages[0], &pages[2]), (&vec![(2, 0), (0, 1)], &vec![(3, 0), (1, 1)]));
        assert_eq!(pages.len(), 4);
    }

    #[test]
    fn wrong_args_have_no_plan() {
        assert!(Plan::new(&args(0, None)).is_none());
    }
}
