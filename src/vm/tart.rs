//! What Tart says: its lists, and what its complaints mean. Texts and codes are those of its sources
//! (`Sources/tart/VMStorageHelper.swift`, `Commands/Run.swift`).

use serde::Deserialize;

/// A row of `tart list --format json`. Releases differ in the other fields.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Row {
    /// The name, or the reference of an image.
    #[serde(rename = "Name")]
    pub name: String,
    /// Whether it runs; older releases say only `State`.
    #[serde(rename = "Running", default)]
    running: Option<bool>,
    #[serde(rename = "State", default)]
    state: Option<String>,
}

impl Row {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.running.unwrap_or(self.state.as_deref() == Some("running"))
    }
}

/// Reads what `tart list --format json` printed.
///
/// # Errors
///
/// It is no list of things with names.
pub fn list(text: &str) -> Result<Vec<Row>, serde_json::Error> {
    serde_json::from_str(text)
}

/// What a complaint of Tart's means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// As many guests run as the system allows.
    Limit,
    /// There is no such guest, or it does not run.
    Absent,
    /// It runs already.
    Running,
    /// The image is not there, or may not be fetched.
    NoImage,
    /// The login keychain is locked, without which a guest with macOS 15 or later does not start.
    Keychain,
    /// The guest did not start, for a reason that only the system's log has.
    NotStarted,
    /// Softnet may not run as root without a password.
    Softnet,
    /// Something else.
    Other,
}

/// What Tart complained of.
pub fn complaint(stderr: &str) -> Complaint {
    let says = |text: &str| stderr.contains(text);
    if says("exceeds the system limit") {
        Complaint::Limit
    } else if says("is already running") {
        Complaint::Running
    } else if says("does not exist") || says("is not running") {
        Complaint::Absent
    } else if says("SecKeyCreateRandomKey_ios failed") || says("-25308") {
        Complaint::Keychain
    } else if says("VZErrorDomain Code=1") {
        Complaint::NotStarted
    } else if says("Softnet failed") {
        Complaint::Softnet
    } else if says("manifest unknown") || says("failed to pull") || says("UnexpectedHTTPStatusCode") {
        Complaint::NoImage
    } else {
        Complaint::Other
    }
}

impl Complaint {
    /// What helps against it, where that is known.
    pub const fn hint(self) -> Option<&'static str> {
        match self {
            Self::Keychain => Some(
                "log `vm.user` in once and unlock its login keychain: `security unlock-keychain login.keychain`",
            ),
            Self::NotStarted => Some(
                "a locked login keychain of `vm.user` does this to guests with macOS 15 or later; `log show --last 5m` has the reason",
            ),
            Self::Softnet => Some("install softnet and let it run as root: see docs/vm-images.md"),
            Self::NoImage => Some("`ephemerd vm pull` fetches it"),
            Self::Limit | Self::Absent | Self::Running | Self::Other => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_of_old_and_new_releases() {
        let rows = list(
            r#"[{"Source":"local","Name":"a","Disk":50,"Size":23,"Accessed":"2026-08-18T10:00:00Z","Running":true,"State":"running"},
                {"Name":"b","State":"stopped","New":{"x":[1]}},
                {"Name":"c","State":"running"},
                {"Name":"d"}]"#,
        )
        .unwrap();
        let read: Vec<(&str, bool)> = rows
            .iter()
            .map(|row| (row.name.as_str(), row.is_running()))
            .collect();
        assert_eq!(read, [("a", true), ("b", false), ("c", true), ("d", false)]);
        for bad in ["", "{}", "[1]", "[{\"Name\":1}]", "Source Name"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tells_what_tart_complains_of() {
        let cases = [
            (
                "The number of VMs exceeds the system limit (other running VMs: a, b)",
                Complaint::Limit,
            ),
            ("the specified VM \"x\" does not exist", Complaint::Absent),
            ("VM \"x\" is not running", Complaint::Absent),
            ("VM \"x\" is already running!", Complaint::Running),
            ("SecKeyCreateRandomKey_ios failed: …", Complaint::Keychain),
            ("Softnet failed: exit 1", Complaint::Softnet),
            (
                "Error Domain=VZErrorDomain Code=1 \"The virtual machine failed to start.\"",
                Complaint::NotStarted,
            ),
            ("something new", Complaint::Other),
        ];
        for (text, expected) in cases {
            assert_eq!(complaint(text), expected, "{text}");
        }
    }
}
