//! Backends that come with the program: the same keys as in `[vm.backends.NAME]`, already filled in.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::template::Argv;
use super::{Dialect, Guest, Isolation, Network};

/// Every preset and the text of its file.
const PRESETS: [(&str, &str); 8] = [
    ("tart", include_str!("presets/tart.toml")),
    ("qemu", include_str!("presets/qemu.toml")),
    ("qemu-tcg", include_str!("presets/qemu-tcg.toml")),
    ("podman", include_str!("presets/podman.toml")),
    ("docker", include_str!("presets/docker.toml")),
    ("container", include_str!("presets/container.toml")),
    ("incus", include_str!("presets/incus.toml")),
    ("oci", include_str!("presets/oci.toml")),
];

/// What a preset fills in; everything that is not there must stand in the configuration, or is not needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Preset {
    /// What tells its answers.
    #[serde(default)]
    pub dialect: Dialect,
    /// What runs in it.
    pub guest: Option<Guest>,
    /// How strong its fence is.
    pub isolation: Option<Isolation>,
    /// What its jobs reach when the configuration does not say.
    pub network: Option<Network>,
    /// Its tool.
    pub tool: Option<Utf8PathBuf>,
    /// The command of each stage, and what belongs to them.
    #[serde(flatten)]
    pub commands: Commands,
    /// Variables for its tools.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// The commands of a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commands {
    /// Makes the guest's disk.
    pub clone: Option<Argv>,
    /// Gives it what it gets.
    pub configure: Option<Argv>,
    /// Switches it on.
    pub start: Option<Argv>,
    /// Whether `start` ends at once and leaves the guest running; otherwise the guest is gone when `start` ends.
    pub detached: Option<bool>,
    /// Runs what it gets on standard input as a shell script in the guest.
    pub exec: Option<Argv>,
    /// Switches it off.
    pub stop: Option<Argv>,
    /// Removes it.
    pub delete: Option<Argv>,
    /// Prints the names of all guests.
    pub list: Option<Argv>,
    /// Prints the names of all images.
    pub images: Option<Argv>,
    /// Fetches the image.
    pub pull: Option<Argv>,
    /// The words for each shared folder.
    pub share: Option<Argv>,
    /// The words for a guest without a network.
    pub network_none: Option<Argv>,
    /// The words for a guest that reaches the internet.
    pub network_internet: Option<Argv>,
    /// Whether what a guest sends leaves this host as the account of `vm.user`, whose packets the host's own filter
    /// then keeps off the LAN. Otherwise the tool must do that by itself.
    pub sends_as_user: Option<bool>,
}

/// The names of all presets.
pub fn names() -> [&'static str; PRESETS.len()] {
    PRESETS.map(|(name, _)| name)
}

/// The preset of this name; `None` when there is none.
pub fn find(name: &str) -> Option<Preset> {
    let (_, text) = PRESETS.iter().find(|(known, _)| *known == name)?;
    // That all of them can be read is tested.
    toml::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::template::{check_command, check_words};

    #[test]
    fn every_preset_sets_keys_of_the_configuration_and_nothing_else() {
        for (name, text) in PRESETS {
            for key in toml::from_str::<toml::Table>(text).unwrap().keys() {
                let path = ["vm", "backends", "x", key];
                let is_key = crate::config::keys::find(&path).is_some();
                assert!(is_key || key == "dialect" || key == "env", "{name}: {key}");
            }
        }
    }

    #[test]
    fn every_preset_can_be_read_and_has_what_a_guest_needs() {
        for (name, text) in PRESETS {
            let preset: Preset = toml::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(preset.guest.is_some() && preset.isolation.is_some(), "{name}");
            let commands = preset.commands;
            for (key, argv) in [
                ("clone", &commands.clone),
                ("configure", &commands.configure),
                ("start", &commands.start),
                ("exec", &commands.exec),
                ("stop", &commands.stop),
                ("delete", &commands.delete),
                ("list", &commands.list),
                ("images", &commands.images),
                ("pull", &commands.pull),
            ] {
                if let Some(argv) = argv {
                    check_command(argv).unwrap_or_else(|error| panic!("{name}.{key}: {error}"));
                }
            }
            assert!(commands.start.is_some() && commands.exec.is_some(), "{name}");
            assert!(commands.network_none.is_some(), "{name}");
            check_words(&commands.share.unwrap_or_default(), true).unwrap();
        }
    }
}
