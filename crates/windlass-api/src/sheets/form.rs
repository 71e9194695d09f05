//! From uploaded files to the cards of a job: pure.

use serde_json::{Map, Value, json};

use super::upload::File;

/// The longest name of a card, in characters.
const MAX_NAME: usize = 100;

/// Fronts with their backs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deck {
    cards: Vec<(File, Option<File>)>,
    back: Option<File>,
}

impl Deck {
    /// Pairs own backs with fronts of the same name; the ending may differ where only one front fits.
    ///
    /// # Errors
    /// A sentence that names every file in the way.
    pub(super) fn new(fronts: Vec<File>, backs: Vec<File>, double_sided: Vec<File>) -> Result<Self, String> {
        let mut backs = backs.into_iter();
        let back = backs.next();
        let more: Vec<String> = backs.map(|file| file.name).collect();
        if !more.is_empty() {
            return Err(format!("there is more than one common back: {}", more.join(", ")));
        }
        let mut cards: Vec<(File, Option<File>)> = fronts.into_iter().map(|front| (front, None)).collect();
        let mut stray = Vec::new();
        for own in double_sided {
            match front_of(&cards, &own.name) {
                Some(index) if cards[index].1.is_none() => cards[index].1 = Some(own),
                _ => stray.push(own.name),
            }
        }
        if !stray.is_empty() {
            return Err(format!("no front has the name of these own backs: {}", stray.join(", ")));
        }
        Ok(Self { cards, back })
    }

    /// Whether any card has a back of its own.
    pub(super) fn has_own_backs(&self) -> bool {
        self.cards.iter().any(|(_, back)| back.is_some())
    }

    /// Leaves the common back out.
    pub(super) fn without_back(self) -> Self {
        Self { back: None, ..self }
    }

    /// Writes `cards` and `back` into the args of a job.
    pub(super) fn write(&self, args: &mut Map<String, Value>) {
        let card = |(front, back): &(File, Option<File>)| {
            let mut card = json!({ "front": front.digest.to_string() });
            if let Some(back) = back {
                card["back"] = back.digest.to_string().into();
            }
            if !front.name.is_empty() {
                card["name"] = front.name.clone().into();
            }
            card
        };
        args.insert("cards".into(), self.cards.iter().map(card).collect());
        if let Some(back) = &self.back {
            args.insert("back".into(), back.digest.to_string().into());
        }
    }
}

/// The front of exactly that name, or else the only one that differs just in its ending.
fn front_of(cards: &[(File, Option<File>)], name: &str) -> Option<usize> {
    if let Some(exact) = cards.iter().position(|(front, _)| front.name == name) {
        return Some(exact);
    }
    let stem = |name: &str| name.rsplit_once('.').map_or(name.to_owned(), |(stem, _)| stem.to_owned());
    let mut similar = cards.iter().enumerate().filter(|(_, (front, _))| stem(&front.name) == stem(name));
    match (similar.next(), similar.next()) {
        (Some((index, _)), None) => Some(index),
        _ => None,
    }
}

/// A file name without a path, and without what could leave a header or a terminal.
pub(super) fn plain_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    last.chars().filter(|c| !c.is_control() && !matches!(c, '"' | ';')).take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use windlass_store::Digest;

    use super::*;

    fn file(name: &str) -> File {
        File { name: name.into(), digest: Digest::of(name.as_bytes()) }
    }

    fn files(names: &[&str]) -> Vec<File> {
        names.iter().map(|name| file(name)).collect()
    }

    #[test]
    fn own_backs_go_to_the_front_of_their_name() {
        let deck = Deck::new(files(&["1.png", "2.jpg"]), files(&["b.png"]), files(&["2.png"])).unwrap();
        let mut args = Map::new();
        deck.write(&mut args);
        let name = |name: &str| Value::from(file(name).digest.to_string());
        assert_eq!(args["cards"][0], json!({"front": name("1.png"), "name": "1.png"}));
        assert_eq!(args["cards"][1]["back"], name("2.png"));
        assert_eq!(args["back"], name("b.png"));
        assert!(deck.has_own_backs());
    }

    #[test]
    fn what_cannot_be_a_deck_is_named() {
        let error = |backs: &[&str], own: &[&str]| Deck::new(files(&["1.png"]), files(backs), files(own)).unwrap_err();
        assert!(error(&["a", "b"], &[]).contains('b'));
        assert!(error(&[], &["9.png"]).contains("9.png"));
        assert!(error(&[], &["1.png", "1.jpg"]).contains("1.jpg"), "a front has one back");
    }

    #[test]
    fn names_lose_their_paths_and_what_breaks_headers() {
        assert_eq!(plain_name("../../etc/passwd"), "passwd");
        assert_eq!(plain_name("C:\\x\\a\r\nb\".png"), "ab.png");
    }
}
