//! One statement for a whole batch, whatever its size.

/// Batch sizes that have a prepared statement, largest first. A batch is cut into pieces of
/// these sizes, so that a connection prepares each statement once and never one per size.
const SIZES: [usize; 9] = [250, 128, 64, 32, 16, 8, 4, 2, 1];

/// A statement with a `VALUES` list, in every size of [`SIZES`].
///
/// Its parameters are plain `?`: looking up a numbered one costs SQLite a walk over all of
/// them, which at 2,000 parameters takes longer than the statement.
pub(super) struct Batched {
    sql: [String; SIZES.len()],
}

impl Batched {
    /// `before`, then `row` as often as there are rows, with commas, then `after`.
    pub(super) fn new(before: &str, row: &str, after: &str) -> Self {
        Self { sql: SIZES.map(|size| format!("{before}{}{after}", vec![row; size].join(","))) }
    }

    /// Cuts rows into pieces, each with its statement, in order.
    pub(super) fn pieces<'r, T>(&'static self, mut rows: &'r [T]) -> impl Iterator<Item = (&'static str, &'r [T])> {
        std::iter::from_fn(move || {
            let which = SIZES.iter().position(|size| *size <= rows.len())?;
            let (piece, rest) = rows.split_at(SIZES[which]);
            rows = rest;
            Some((self.sql[which].as_str(), piece))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    #[test]
    fn pieces_cover_a_batch_in_order() {
        static SQL: LazyLock<Batched> = LazyLock::new(|| Batched::new("a ", "(?)", " z"));
        for len in [0, 1, 3, 127, 128, 129, 250, 251, 1_000] {
            let rows: Vec<usize> = (0..len).collect();
            let mut seen = Vec::new();
            for (sql, piece) in SQL.pieces(&rows) {
                assert_eq!(sql.matches('?').count(), piece.len());
                seen.extend_from_slice(piece);
            }
            assert_eq!(seen, rows);
        }
    }
}
