//! The known word that an unknown one was probably meant to be.

/// A third of the letters may differ, since less similar words are no slips of each other; or the end is missing.
pub(crate) fn nearest<'k>(
    wanted: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    let wanted = wanted.to_ascii_lowercase();
    let distance_to = |known: &str| {
        let known = known.to_ascii_lowercase();
        let distance = strsim::damerau_levenshtein(&known, &wanted);
        let is_begun = wanted.len() > 1 && known.starts_with(&wanted);
        (is_begun || distance <= known.len().max(wanted.len()) / 3).then_some(distance)
    };
    let near = known.into_iter().filter_map(|known| Some((distance_to(known)?, known)));
    near.min().map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["log", "context", "Q4_K_M", "Q8_0", "keep_alive"];
        for (wanted, found) in [
            ("contxt", Some("context")),
            ("Context", Some("context")),
            ("lgo", Some("log")),
            ("keep", Some("keep_alive")),
            ("q4km", Some("Q4_K_M")),
            ("Q8", Some("Q8_0")),
            ("keepalive", Some("keep_alive")),
            ("bogus", None),
            ("small", None),
            ("", None),
        ] {
            assert_eq!(nearest(wanted, known), found, "{wanted}");
        }
    }
}
