//! Charts that are kept: our routes and those of the system that this one replaces.

pub(crate) mod charts;
pub(crate) mod old;

/// The media type of a format's name.
fn media_type(format: &str) -> &'static str {
    match format {
        "png" => "image/png",
        "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
