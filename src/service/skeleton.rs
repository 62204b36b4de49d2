//! The configuration that a host without one gets: what has to be decided, and nothing that has a default.

use crate::host::Os;

/// Its text.
pub fn text(os: Os) -> String {
    let native = match os {
        Os::Linux => "",
        Os::MacOs => {
            "\n[native]
# macOS has no fence between accounts for some kinds of messages between processes (docs/threat-model.md, macOS). Native
# jobs start only where that is said here; without this line the daemon does not start.
allow_degraded = [\"ipc\"]
"
        }
    };
    format!(
        "\
# ephemerd. Every key has a default; `ephemerd config show` prints all of them with their values, and
# `ephemerd config check` says what is wrong with this file.

[trust]
# What is named nowhere is refused: nothing runs natively that you have not named.
default = \"refuse\"

[trust.repos]
# \"acme/app\" = \"native\"
{native}
# [github]
# repos = [\"acme/app\"]
# labels = [\"self-hosted\", \"ephemerd\"]
# token_file = \"/etc/ephemerd/token\"
"
    )
}
