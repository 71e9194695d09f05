//! The places `$1`, `$2` … of a statement.

/// The statement with every place taking a text that is cast to its type; what stands in quotes,
/// comments and names stays. `types` are those of `$1`, `$2` … in turn.
pub(super) fn typed(sql: &str, types: &[String]) -> String {
    let mut out = String::with_capacity(sql.len() + 32 * types.len());
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\'' => quoted(rest, '\'', is_escaped(&out)),
            '"' => quoted(rest, '"', false),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            '$' => match place(rest) {
                Some((number, length)) => {
                    if let Some(kind) = types.get(number - 1) {
                        out.push_str(&format!("(${number}::text::{kind})"));
                        rest = &rest[length..];
                        continue;
                    }
                    length
                }
                None => dollar_quoted(rest),
            },
            // A `$` within a name is part of it.
            c if c.is_alphabetic() || c == '_' => {
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len())
            }
            c => c.len_utf8(),
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

/// True when what comes is the text of an `E'…'`.
fn is_escaped(before: &str) -> bool {
    let mut last = before.chars().rev();
    matches!(last.next(), Some('e' | 'E')) && !last.next().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// The length of a quoted text or name; a doubled quote does not end it.
fn quoted(text: &str, quote: char, backslashes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && backslashes {
            chars.next();
        } else if c == quote {
            match chars.peek() {
                Some((_, next)) if *next == quote => drop(chars.next()),
                _ => return at + 1,
            }
        }
    }
    text.len()
}

/// `$12` as its number, 1 or more, and its length.
fn place(text: &str) -> Option<(usize, usize)> {
    let digits = text[1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - 1);
    let number = text[1..=digits].parse().ok().filter(|number| *number > 0)?;
    Some((number, digits + 1))
}

/// The length of `$tag$ … $tag$`, or of a `$` that begins none.
fn dollar_quoted(text: &str) -> usize {
    let Some(end) = text[1..].find('$') else { return 1 };
    let tag = &text[..end + 2];
    if !tag[1..=end].chars().all(|c| c.is_alphanumeric() || c == '_') {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |at| tag.len() + at + tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &str) {
        assert_eq!(typed(sql, &["bigint".to_owned(), "numeric".to_owned()]), expected);
    }

    #[test]
    fn places_take_texts_of_their_types() {
        check(
            "UPDATE t SET p=$2, q = $2+1 WHERE id=$1",
            "UPDATE t SET p=($2::text::numeric), q = ($2::text::numeric)+1 WHERE id=($1::text::bigint)",
        );
        check("$1$2", "($1::text::bigint)($2::text::numeric)");
        check("SELECT $3, $0, $12", "SELECT $3, $0, $12");
    }

    #[test]
    fn what_is_quoted_stays() {
        for sql in [
            "'$1'",
            "'it''s $1'",
            r"E'\'$1'",
            "\"$1\"",
            "-- $1",
            "/* $1 */",
            "$$ $1 $$",
            "$a$ $1 $a$",
            "a$1",
            "'$1",
            "$",
            "ü$1",
            "$é",
        ] {
            check(sql, sql);
        }
        check("'a\\' || $1", "'a\\' || ($1::text::bigint)");
        check("-- x\n$1", "-- x\n($1::text::bigint)");
        check("name'x'$1", "name'x'($1::text::bigint)");
    }
}
