//! launchd: the property list, the rotation of the log, and the commands. **Not run on a Mac.**

use std::collections::BTreeMap;
use std::time::Duration;

use camino::Utf8Path;

use super::{LABEL, Settings};
use crate::host::Host;
use crate::host::command::CommandSpec;

/// How long a question may take.
const ASK: Duration = Duration::from_secs(20);

/// How long an end may take; `ExitTimeOut` of the property list says how long it really may.
const STOP: Duration = Duration::from_secs(2 * 60 * 60);

/// A value of a property list.
enum Value {
    Text(String),
    Number(u64),
    Yes,
    Texts(Vec<String>),
    Map(BTreeMap<&'static str, Value>),
}

/// The property list of the service, launchd.plist(5). Values are escaped by construction.
pub fn plist(settings: &Settings) -> String {
    let text = |text: &str| Value::Text(text.to_owned());
    let errors = settings.log.as_ref().map_or_else(
        || Utf8Path::new("/dev/null").to_owned(),
        |log| log.with_extension("err"),
    );
    let limits = || Value::Map(BTreeMap::from([("NumberOfFiles", Value::Number(65536))]));
    let keys = BTreeMap::from([
        ("Label", text(LABEL)),
        ("ProgramArguments", Value::Texts(settings.command())),
        ("RunAtLoad", Value::Yes),
        // A daemon that ends is started again, ten seconds later.
        ("KeepAlive", Value::Yes),
        ("ThrottleInterval", Value::Number(10)),
        // Then SIGKILL; jobs are ended and scrubbed by then.
        ("ExitTimeOut", Value::Number(settings.stop.as_secs())),
        // Otherwise jobs, which inherit it, are throttled.
        ("ProcessType", text("Interactive")),
        // Keychains are found by audit session, and the one of the system is not ours.
        ("SessionCreate", Value::Yes),
        // 077, in the decimal that launchd takes.
        ("Umask", Value::Number(63)),
        ("WorkingDirectory", text("/")),
        // What a daemon of the system does not get, and tools of guests look for.
        (
            "EnvironmentVariables",
            Value::Map(BTreeMap::from([
                ("HOME", text("/var/root")),
                ("PATH", text("/usr/bin:/bin:/usr/sbin:/sbin")),
            ])),
        ),
        ("SoftResourceLimits", limits()),
        ("HardResourceLimits", limits()),
        ("StandardOutPath", text("/dev/null")),
        // Only what is said before there is a log, or by a panic.
        ("StandardErrorPath", text(errors.as_str())),
    ]);
    let mut out = String::from(concat!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
        "<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n",
        "<!-- Written by `ephemerd host install`, which replaces it only if nobody has changed it. -->\n",
        "<plist version=\"1.0\">\n"
    ));
    write(&Value::Map(keys), 0, &mut out);
    out.push_str("</plist>\n");
    out
}

fn write(value: &Value, depth: usize, out: &mut String) {
    let indent = "\t".repeat(depth);
    let mut line = |text: String| {
        out.push_str(&indent);
        out.push_str(&text);
        out.push('\n');
    };
    match value {
        Value::Text(text) => line(format!("<string>{}</string>", escaped(text))),
        Value::Number(number) => line(format!("<integer>{number}</integer>")),
        Value::Yes => line("<true/>".to_owned()),
        Value::Texts(texts) => {
            line("<array>".to_owned());
            for text in texts {
                line(format!("\t<string>{}</string>", escaped(text)));
            }
            line("</array>".to_owned());
        }
        Value::Map(entries) => {
            line("<dict>".to_owned());
            for (key, value) in entries {
                out.extend([indent.as_str(), "\t<key>", key, "</key>\n"]);
                write(value, depth + 1, out);
            }
            out.push_str(&indent);
            out.push_str("</dict>\n");
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The rotation of the log, newsyslog.conf(5): at 10 MiB, seven old ones. `N`: nobody is told, the daemon notices by itself
/// that its file has another name.
pub fn newsyslog(log: &Utf8Path) -> String {
    let errors = log.with_extension("err");
    format!(
        "\
# Written by `ephemerd host install`.
# logfilename\t\t[owner:group]\tmode\tcount\tsize\twhen\tflags
{log}\troot:wheel\t640\t7\t10240\t*\tJN
{errors}\troot:wheel\t640\t2\t1024\t*\tJN
"
    )
}

fn launchctl(host: &Host, args: &[&str], timeout: Duration) -> CommandSpec {
    CommandSpec::new(&host.mac.launchctl, args, timeout)
}

/// How launchctl names the service.
fn target() -> String {
    format!("system/{LABEL}")
}

/// Takes away what may keep it from being started, and starts it.
pub(super) fn start(host: &Host, file: &Utf8Path) -> Vec<CommandSpec> {
    vec![
        launchctl(host, &["enable", &target()], ASK),
        launchctl(host, &["bootstrap", "system", file.as_str()], ASK),
    ]
}

/// Stops it. With `KeepAlive` nothing less keeps it stopped.
pub(super) fn halt(host: &Host) -> Vec<CommandSpec> {
    vec![launchctl(host, &["bootout", &target()], STOP)]
}

/// Ends well when launchd has it.
pub(super) fn print(host: &Host) -> CommandSpec {
    launchctl(host, &["print", &target()], ASK)
}
