//! A column of numbers that remembers what in it was not a number.
//!
//! Serde's own refusal of `[1, null]` names neither the field nor the index; this type
//! reads anything and leaves the refusal to the check, which knows both.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ChartArgs;

/// Numbers, one for each bar. Reads as a slice.
///
/// *Shape*: a JSON array. What is not a finite number is kept as NaN and refused by
/// [`ChartArgs::check`] with its index. Only the first `MAX_BARS` + 1 entries are kept, so
/// that a hostile column costs no memory; `len` then says that there are too many.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Column {
    values: Vec<f64>,
    /// The first entry that was no number, and what it was instead.
    fault: Option<(usize, &'static str)>,
}

impl Column {
    /// The first entry that is not a finite number: its index and what it is.
    #[must_use]
    pub fn fault(&self) -> Option<(usize, &'static str)> {
        let described = |value: &f64| match value {
            value if value.is_nan() => "NaN",
            value if *value > 0.0 => "infinity",
            _ => "-infinity",
        };
        let found = self.values.iter().enumerate().find(|(_, value)| !value.is_finite());
        self.fault.or(found.map(|(index, value)| (index, described(value))))
    }

    fn push(&mut self, cell: Cell) {
        if self.values.len() > ChartArgs::MAX_BARS {
            return;
        }
        match cell {
            Cell::Number(value) => self.values.push(value),
            Cell::Other(found) => {
                self.fault.get_or_insert((self.values.len(), found));
                self.values.push(f64::NAN);
            }
        }
    }
}

impl Deref for Column {
    type Target = [f64];

    fn deref(&self) -> &[f64] {
        &self.values
    }
}

impl From<Vec<f64>> for Column {
    fn from(values: Vec<f64>) -> Self {
        Self { values, fault: None }
    }
}

impl FromIterator<f64> for Column {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self::from(values.into_iter().collect::<Vec<f64>>())
    }
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = |value: &f64| value.fract() == 0.0 && value.abs() < 9.0e15;
        serializer.collect_seq(self.values.iter().map(|value| {
            // Whole numbers go without a point, so that times read as the integers they are.
            if whole(value) { Written::Whole(*value as i64) } else { Written::Broken(*value) }
        }))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    Whole(i64),
    Broken(f64),
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Cells;

        impl<'de> Visitor<'de> for Cells {
            type Value = Column;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut cells: A) -> Result<Column, A::Error> {
                let mut column = Column::default();
                while let Some(cell) = cells.next_element::<Cell>()? {
                    column.push(cell);
                }
                Ok(column)
            }
        }

        deserializer.deserialize_seq(Cells)
    }
}

impl JsonSchema for Column {
    fn schema_name() -> Cow<'static, str> {
        "Column".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "items": {"type": "number"}, "maxItems": ChartArgs::MAX_BARS})
    }
}

enum Cell {
    Number(f64),
    /// What stood there instead.
    Other(&'static str),
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyCell)
    }
}

struct AnyCell;

impl<'de> Visitor<'de> for AnyCell {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell::Number(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        Ok(Cell::Number(value as f64))
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Other("null"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Cell, E> {
        Ok(Cell::Other("a boolean"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Cell, E> {
        Ok(Cell::Other("a string"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut cells: A) -> Result<Cell, A::Error> {
        while cells.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cell::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Cell, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Other("an object"))
    }
}
