//! What well-known actions presume, and what they download into the job's own tool cache.

use super::commands::RUST;
use super::{Effect, What};

/// Actions, and the commands they provide. Those that begin alike are told by their name up to the slash.
const SETUPS: [(&str, &[&str]); 31] = [
    ("actions-rs/toolchain", &RUST),
    ("actions-rust-lang/setup-rust-toolchain", &RUST),
    ("actions/setup-dotnet", &["dotnet"]),
    ("actions/setup-go", &["go", "gofmt"]),
    ("actions/setup-java", &["jar", "java", "javac"]),
    ("actions/setup-node", &["corepack", "node", "npm", "npx"]),
    ("actions/setup-python", &["pip", "pip3", "python", "python3"]),
    (
        "android-actions/setup-android",
        &["adb", "avdmanager", "sdkmanager"],
    ),
    ("arduino/setup-protoc", &["protoc"]),
    ("astral-sh/setup-uv", &["uv", "uvx"]),
    ("azure/setup-helm", &["helm"]),
    ("azure/setup-kubectl", &["kubectl"]),
    ("bufbuild/buf-setup-action", &["buf"]),
    ("carvel-dev/setup-action", &["kapp", "ytt"]),
    ("denoland/setup-deno", &["deno"]),
    ("dtolnay/rust-toolchain", &RUST),
    ("erlef/setup-beam", &["elixir", "erl", "escript", "mix", "rebar3"]),
    ("extractions/setup-just", &["just"]),
    ("goreleaser/goreleaser-action", &["goreleaser"]),
    ("gradle/actions/setup-gradle", &["gradle"]),
    ("gradle/gradle-build-action", &["gradle"]),
    ("hashicorp/setup-terraform", &["terraform"]),
    ("jwlawson/actions-setup-cmake", &["cmake", "cpack", "ctest"]),
    ("lukka/get-cmake", &["cmake", "cpack", "ctest", "ninja"]),
    ("mlugg/setup-zig", &["zig"]),
    ("oven-sh/setup-bun", &["bun", "bunx"]),
    ("pnpm/action-setup", &["pnpm", "pnpx"]),
    (
        "ruby/setup-ruby",
        &["bundle", "bundler", "gem", "irb", "rake", "ruby"],
    ),
    ("seanmiddleditch/gha-setup-ninja", &["ninja"]),
    ("subosito/flutter-action", &["dart", "flutter"]),
    ("swift-actions/setup-swift", &["swift", "swiftc"]),
];

/// What `uses:` presumes and provides; `with` has every value that an input of the action can have.
pub(super) fn effect(uses: &str, with: impl Fn(&str) -> Vec<String>) -> Effect {
    let (name, version) = uses.split_once('@').unwrap_or((uses, ""));
    let name = name.to_ascii_lowercase();
    let words = |input: &str| -> Vec<String> {
        let split = |value: String| {
            value
                .split([' ', ',', '\n'])
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let words = with(input).into_iter().flat_map(split);
        words.filter(|word| !word.is_empty()).collect()
    };
    match name.as_str() {
        "actions/checkout" => Effect::needs(What::Command("git".into())),
        "actions/cache" | "actions/cache/restore" | "actions/cache/save" => {
            Effect::needs(What::Command("tar".into()))
        }
        "homebrew/actions/setup-homebrew" => Effect::needs(What::Command("brew".into())),
        // It asks sudo for xcode-select, and goes on without if that is refused: src/xcode-selector.ts.
        "maxim-lobanov/setup-xcode" => {
            let mut needs: Vec<What> = with("xcode-version")
                .into_iter()
                .map(|version| xcode(&version))
                .collect();
            if needs.is_empty() {
                needs.push(What::Xcode(None));
            }
            needs.push(What::Root);
            Effect {
                needs,
                ..Effect::default()
            }
        }
        // It installs by apt-get or Homebrew with sudo: src/scripts/{linux,darwin}.sh.
        "shivammathur/setup-php" => Effect {
            needs: vec![What::Root],
            provides: ["composer", "pecl", "php", "php-config", "phpize"]
                .map(str::to_owned)
                .into(),
        },
        "awalsh128/cache-apt-pkgs-action" => {
            let packages = words("packages").into_iter().map(What::Apt);
            Effect {
                needs: std::iter::once(What::Root).chain(packages).collect(),
                provides: words("packages"),
            }
        }
        "taiki-e/install-action" => {
            let tools = words("tool").into_iter().chain([version.to_owned()]);
            let tools = tools.filter_map(|tool| Some(tool.split('@').next()?.to_owned()));
            Effect {
                provides: tools.collect(),
                ..Effect::default()
            }
        }
        _ if name.starts_with("docker/") || name.starts_with("docker:") => {
            Effect::needs(What::Action(uses.to_owned()))
        }
        _ => {
            let setup = SETUPS.iter().find(|(setup, _)| *setup == name);
            let provides = setup.into_iter().flat_map(|(_, commands)| *commands);
            Effect {
                provides: provides.map(|command| (*command).to_owned()).collect(),
                ..Effect::default()
            }
        }
    }
}

/// The Xcode of an `xcode-version`: a version, a range that begins with one, or a name such as `latest-stable`.
fn xcode(version: &str) -> What {
    let version = version.trim_start_matches(['^', '~', '>', '=', ' ']);
    let is_version = version.starts_with(|c: char| c.is_ascii_digit());
    What::Xcode(is_version.then(|| version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(uses: &str, inputs: &[(&str, &str)]) -> (String, String) {
        let with = |key: &str| -> Vec<String> {
            let values = inputs.iter().filter(|(name, _)| *name == key);
            values.map(|(_, value)| (*value).to_owned()).collect()
        };
        let Effect { needs, provides } = effect(uses, with);
        let needs: Vec<_> = needs.iter().map(ToString::to_string).collect();
        (needs.join("; "), provides.join(" "))
    }

    #[test]
    fn actions_presume_and_provide() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);
        let cases: [Case; 9] = [
            ("actions/checkout@v4", &[], "command git", ""),
            (
                "actions/setup-node@v4",
                &[("node-version", "20")],
                "",
                "corepack node npm npx",
            ),
            ("Swift-Actions/setup-swift@v2", &[], "", "swift swiftc"),
            (
                "maxim-lobanov/setup-xcode@v1",
                &[("xcode-version", "^15.2")],
                "Xcode 15.2; root",
                "",
            ),
            (
                "maxim-lobanov/setup-xcode@v1",
                &[("xcode-version", "latest")],
                "Xcode; root",
                "",
            ),
            (
                "docker/login-action@v3",
                &[],
                "unavailable: docker/login-action@v3",
                "",
            ),
            ("docker://alpine:3", &[], "unavailable: docker://alpine:3", ""),
            (
                "taiki-e/install-action@v2",
                &[("tool", "cargo-deny,just@1.2")],
                "",
                "cargo-deny just v2",
            ),
            ("someone/something@v1", &[], "", ""),
        ];
        for (uses, inputs, needs, provides) in cases {
            assert_eq!(told(uses, inputs), (needs.into(), provides.into()), "{uses}");
        }
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(SETUPS.is_sorted_by_key(|(name, _)| *name));
        assert!(SETUPS.iter().all(|(name, _)| *name == name.to_ascii_lowercase()));
    }
}
