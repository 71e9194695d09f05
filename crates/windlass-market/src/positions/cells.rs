//! Reading rows of either database by column.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

/// A row, whichever database it is of.
pub(super) trait Cells {
    /// An integer.
    fn int(&self, column: &str) -> sqlx::Result<i64>;
    /// An integer or none.
    fn opt(&self, column: &str) -> sqlx::Result<Option<i64>>;
    /// A text.
    fn text(&self, column: &str) -> sqlx::Result<String>;
    /// A text or none.
    fn opt_text(&self, column: &str) -> sqlx::Result<Option<String>>;
}

macro_rules! cells {
    ($($row:ty)*) => {
        $(impl Cells for $row {
            fn int(&self, column: &str) -> sqlx::Result<i64> {
                self.try_get(column)
            }
            fn opt(&self, column: &str) -> sqlx::Result<Option<i64>> {
                self.try_get(column)
            }
            fn text(&self, column: &str) -> sqlx::Result<String> {
                self.try_get(column)
            }
            fn opt_text(&self, column: &str) -> sqlx::Result<Option<String>> {
                self.try_get(column)
            }
        })*
    };
}

cells!(PgRow SqliteRow);
