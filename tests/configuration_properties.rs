//! What holds of every configuration file: it is answered, with places when it is wrong, and shown as it is when
//! it is right; and of every two, that one can take the place of the other as far as that goes without a restart.

use ephemerd::config::diff::{Applies, diff, merged};
use ephemerd::config::keys::{KEYS, dotted};
use ephemerd::config::show::show;
use ephemerd::config::{ConfigError, parse};
use proptest::prelude::*;

/// A line that sets a known key, or one much like it, to something that may or may not fit.
fn any_line() -> impl Strategy<Value = String> {
    let value = prop::sample::select(vec![
        "1",
        "-1",
        "64",
        "4000",
        "true",
        "[]",
        "{}",
        "\"\"",
        "\"2h\"",
        "\"8GiB\"",
        "\"native\"",
        "\"vm\"",
        "\"strict\"",
        "\"single\"",
        "\"none\"",
        "\"main\"",
        "\"/opt/x\"",
        "[\"/opt/x\"]",
        "[\"push\"]",
        "[\"accounts\", \"network\"]",
        "{ route = \"native\", branches = [\"a\"] }",
        "{ posture = \"strict\" }",
    ]);
    let chosen = prop::sample::select(vec![
        "acme/ios", "Acme/iOS", "acme/*", "zeta/web", "PATH", "é\\\"",
    ]);
    (prop::sample::select(KEYS.to_vec()), chosen, value).prop_map(|(key, chosen, value)| {
        let is_chosen = |segment: &&str| segment.bytes().all(|b| b.is_ascii_uppercase());
        let path = key
            .segments()
            .map(|segment| if is_chosen(&segment) { chosen } else { segment });
        format!("{} = {value}", dotted(path))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_text_is_answered(text in "\\PC*") {
        if let Err(ConfigError::Invalid { problems, .. }) = parse(&text, "e.toml") {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn what_is_put_in_force_is_the_new_file_where_that_applies_at_once_and_the_old_one_elsewhere(
        old in prop::collection::vec(any_line(), 0..3), new in prop::collection::vec(any_line(), 0..3)
    ) {
        let read = |lines: &[String]| parse(&lines.join("\n"), "e.toml");
        let (Ok(old), Ok(new)) = (read(&old), read(&new)) else { return Ok(()) };
        let Ok(merged) = merged(&old, &new) else { return Ok(()) };
        let changes = diff(&old, &new);
        let of = |changes: Vec<_>, when| {
            let of = changes.into_iter().filter(move |it: &ephemerd::config::diff::Change| it.applies == when);
            of.map(|it| (it.key, it.old, it.new)).collect::<Vec<_>>()
        };
        let (applied, left) = (diff(&old, &merged), diff(&merged, &new));
        prop_assert!(of(applied.clone(), Applies::AtNextStart).is_empty(), "{applied:?}");
        prop_assert!(of(left.clone(), Applies::AtOnce).is_empty(), "{left:?}");
        prop_assert_eq!(of(applied, Applies::AtOnce), of(changes.clone(), Applies::AtOnce));
        prop_assert_eq!(of(left, Applies::AtNextStart), of(changes, Applies::AtNextStart));
    }

    #[test]
    fn a_file_is_refused_with_places_or_shown_as_it_is(lines in prop::collection::vec(any_line(), 0..6)) {
        match parse(&lines.join("\n"), "e.toml") {
            Ok(loaded) => {
                let again = parse(&show(&loaded), "shown.toml").unwrap();
                prop_assert_eq!(again.config, loaded.config);
            }
            Err(ConfigError::Invalid { problems, .. }) => {
                prop_assert!(problems.is_sorted_by_key(|p| p.place));
                for problem in problems {
                    prop_assert!((1..=lines.len()).contains(&problem.place.line), "{problem:?}");
                }
            }
            Err(error @ ConfigError::Read { .. }) => panic!("{error}"),
        }
    }
}
