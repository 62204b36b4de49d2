//! Apple's command line tools that need all of Xcode, or one version of it.

use super::{Reader, Word, has_any, inner};
use crate::provision::scan::What;
use crate::provision::scan::environment::of_path;

/// Tools that xcrun(1) finds in Xcode alone; the others come with the command line tools too.
const XCODE_TOOLS: [&str; 10] = [
    "actool",
    "altool",
    "ibtool",
    "momc",
    "notarytool",
    "simctl",
    "stapler",
    "xccov",
    "xcresulttool",
    "xctrace",
];

impl Reader {
    pub(super) fn xcode(&mut self, name: &str, arguments: &[Word]) {
        match name {
            "xcode-select" => {
                self.need_command(name);
                if has_any(arguments, &["-s", "-switch", "--switch"]) {
                    let paths = arguments.iter().filter_map(Word::literal);
                    self.effect.needs.extend(paths.filter_map(of_path));
                }
            }
            "xcodebuild" => {
                self.need(What::Xcode(None));
                let values = arguments.windows(2).filter(|pair| pair[0].text == "-destination");
                let runtimes = values.filter_map(|pair| of_destination(&pair[1].text));
                self.effect.needs.extend(runtimes.map(What::Simulator));
            }
            _ => match inner(arguments, &["-sdk", "--sdk", "-toolchain", "--toolchain"], 0) {
                [tool, rest @ ..] if XCODE_TOOLS.contains(&tool.text.as_str()) => {
                    self.need(What::Xcode(None));
                    if tool.text == "simctl" {
                        self.effect.needs.extend(of_simctl(rest).map(What::Simulator));
                    }
                }
                [tool, rest @ ..] if tool.text == "xcodebuild" => self.xcode("xcodebuild", rest),
                _ => self.need_command(name),
            },
        }
    }
}

/// The runtime of a destination: `platform=iOS Simulator,name=iPhone 15,OS=17.2`.
fn of_destination(destination: &str) -> Option<String> {
    let field = |name: &str| {
        let mut fields = destination.split(',').filter_map(|field| field.split_once('='));
        fields.find_map(|(key, value)| (key.trim() == name).then(|| value.trim()))
    };
    let platform = field("platform").or(field("generic/platform"))?;
    let platform = platform.strip_suffix(" Simulator")?;
    let is_version = |version: &&str| version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    Some(match field("OS").filter(is_version) {
        Some(version) => format!("{platform} {version}"),
        None => platform.to_owned(),
    })
}

/// The runtime that `simctl create NAME TYPE RUNTIME` names, or the platform of the device that `simctl boot` does.
fn of_simctl(arguments: &[Word]) -> Option<String> {
    let [verb, .., last] = arguments else {
        return None;
    };
    let last = last.literal()?;
    if let Some((_, runtime)) = last.split_once("SimRuntime.") {
        let (platform, version) = runtime.split_once('-')?;
        return Some(format!("{platform} {}", version.replace('-', ".")));
    }
    let families = [
        ("iPhone", "iOS"),
        ("iPad", "iOS"),
        ("Apple TV", "tvOS"),
        ("Apple Watch", "watchOS"),
        ("Apple Vision", "visionOS"),
    ];
    let family = families.iter().find(|(device, _)| last.starts_with(device))?;
    (verb.text == "boot").then(|| family.1.to_owned())
}
