//! The one spelling of args that mean the same, for the result cache.

use serde_json::{Value, json};

use super::crop::Crop;
use super::{CacheUse, CardSheetArgs, CropText};
use crate::layout;
use crate::{font, layout::card_aliases};

/// Raised whenever equal args may give other bytes.
pub(crate) const RENDERER_VERSION: u32 = 4;

impl CardSheetArgs {
    /// What the result depends on: defaults filled, `"3mm"` and `"3.0mm"` written alike, second
    /// names replaced, pictures in the order of the job; with the versions of renderer, layouts
    /// and fonts. `cache` is no part of it.
    #[must_use]
    pub fn canonical(&self) -> Value {
        let mut plain = self.clone();
        plain.cache = CacheUse::Use;
        if let Some((_, name)) =
            card_aliases().find(|(alias, _)| self.layout.set == "spec" && *alias == self.layout.card)
        {
            name.clone_into(&mut plain.layout.card);
        }
        for crop in [&mut plain.crop.fronts, &mut plain.crop.backs] {
            *crop = crop.take().map(one_spelling);
        }
        plain.skip.sort_unstable();
        plain.skip.dedup();
        let (x, y) = self.offset.px();
        plain.offset.unit = super::Unit::Px300;
        (plain.offset.x, plain.offset.y) = (x, y);
        let layouts = layout::data_hash();
        json!({ "args": plain, "renderer": RENDERER_VERSION, "layouts": layouts, "fonts": font::data_hash() })
    }
}

fn one_spelling(text: CropText) -> CropText {
    match text.parse() {
        Ok(Crop::Length(px)) => CropText::Text(format!("{px:.4}px300")),
        Ok(Crop::Share(share)) => CropText::Percent(share * 100.0),
        Err(_) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: Value) -> Value {
        serde_json::from_value::<CardSheetArgs>(args).unwrap().canonical()
    }

    /// §8.8: the same meaning is the same key, another order of cards is not.
    #[test]
    fn equal_meanings_have_one_spelling() {
        let blob = |n: u8| format!("sha256:{n:064x}");
        let two = |a, b| json!([{"front": blob(a)}, {"front": blob(b)}]);
        let plain = of(json!({"cards": two(1, 2), "crop": {"fronts": "3mm"}}));
        assert_eq!(plain, of(json!({"cards": two(1, 2), "crop": {"fronts": "3.0mm"}, "quality": 75, "cache": "use"})));
        assert_ne!(plain, of(json!({"cards": two(2, 1), "crop": {"fronts": "3mm"}})));
        assert_ne!(plain, of(json!({"cards": two(1, 2), "crop": {"fronts": "3mm"}, "quality": 95})));
        let spec = |card: &str| of(json!({"cards": two(1, 2), "layout": {"set": "spec", "card": card}}));
        assert_eq!(spec("euro_poker"), spec("standard"));
    }
}
