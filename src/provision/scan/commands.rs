//! What the commands of a script presume, and what they fetch for those after them.

pub(in crate::provision) mod packages;
mod xcode;

pub(super) use self::packages::RUST;
use super::environment::{of_path, of_program, of_variable};
use super::shell::{self, Command, Word};
use super::{Effect, What};

/// The most shells within shells, `sh -c '…'`, that are looked into.
const SHELLS_MAX: usize = 4;

/// Commands that run another: their options that have a value, and the arguments before the other command.
const WRAPPERS: [(&str, &[&str], usize); 13] = [
    ("sudo", &["-u", "-g", "-h", "-p", "-C", "-D", "-R", "-T"], 0),
    ("env", &["-u", "-C"], 0),
    ("time", &["-f", "-o"], 0),
    ("exec", &["-a"], 0),
    ("command", &[], 0),
    ("builtin", &[], 0),
    ("nice", &["-n"], 0),
    ("nohup", &[], 0),
    ("timeout", &["-k", "-s"], 1),
    ("xargs", &["-a", "-d", "-E", "-I", "-L", "-n", "-P", "-s"], 0),
    ("caffeinate", &["-t", "-w"], 0),
    ("arch", &["-arch"], 0),
    ("xvfb-run", &["-e", "-f", "-n", "-p", "-s"], 0),
];

/// Where a path in an argument is taken for one that has to be there; elsewhere it seldom is.
const PRESUMED: [&str; 8] = [
    "/opt/",
    "/usr/local/",
    "/usr/lib/",
    "/usr/share/",
    "/Applications/",
    "/Library/Developer/",
    "/home/",
    "/Users/",
];

/// Commands whose arguments need not be there: they ask whether they are, or make them.
const MAKERS: [&str; 20] = [
    "[", "chmod", "chown", "cp", "ditto", "git", "install", "ln", "ls", "mkdir", "mv", "printf", "rm",
    "rsync", "tar", "tee", "test", "touch", "unzip", "wget",
];

/// What a command presumes and provides.
pub(super) fn effect(command: &Command) -> Effect {
    let mut reader = Reader::default();
    reader.command(command, 0);
    reader.effect
}

#[derive(Default)]
struct Reader {
    effect: Effect,
    is_root: bool,
}

impl Reader {
    fn need(&mut self, what: What) {
        self.effect.needs.push(what);
    }

    fn need_command(&mut self, name: &str) {
        self.need(What::Command(name.to_owned()));
    }

    fn provide<S: Into<String>>(&mut self, names: impl IntoIterator<Item = S>) {
        self.effect.provides.extend(names.into_iter().map(Into::into));
    }

    fn command(&mut self, command: &Command, shells: usize) {
        for word in &command.assignments {
            self.assignment(word);
        }
        self.words(&command.words, shells);
        let writes_to = |variable| command.writes.iter().any(|word| word.text.contains(variable));
        if writes_to("GITHUB_PATH") {
            let arguments = command.words.iter().skip(1);
            let folders = arguments.filter_map(Word::literal).filter_map(of_path);
            self.effect.needs.extend(folders);
        }
    }

    /// A word that may be `NAME=value`.
    fn assignment(&mut self, word: &Word) {
        if let Some((name, value)) = word.assignment() {
            self.effect.needs.extend(of_variable(name, value));
        }
    }

    fn words(&mut self, words: &[Word], shells: usize) {
        let Some((name, arguments)) = words.split_first() else {
            return;
        };
        let name = match name.literal().and_then(of_program) {
            Some(What::Command(name)) => name,
            Some(other) => {
                self.need(other);
                self.paths(arguments);
                return;
            }
            None => return,
        };
        let wrapper = WRAPPERS.iter().find(|(wrapper, ..)| *wrapper == name);
        match (name.as_str(), wrapper) {
            // Whether something is there is only asked.
            ("command", _) if has_any(arguments, &["-v", "-V"]) => {}
            ("which" | "type" | "hash", _) => self.need_command(&name),
            (_, Some((_, valued, before))) => self.wrapper(&name, inner(arguments, valued, *before), shells),
            ("bash" | "dash" | "sh" | "zsh", _) => self.shell(&name, arguments, shells),
            ("export" | "declare" | "typeset" | "local" | "readonly" | "echo", _) => {
                arguments.iter().for_each(|word| self.assignment(word));
            }
            ("docker" | "docker-compose" | "podman", _) => self.need(What::Action(name)),
            ("xcodebuild" | "xcrun" | "xcode-select", _) => self.xcode(&name, arguments),
            _ if self.packages(&name, arguments) => {}
            _ => {
                self.need_command(&name);
                if !MAKERS.contains(&name.as_str()) {
                    self.paths(arguments);
                }
            }
        }
    }

    /// A command that runs another, which begins `inner` after variables for it.
    fn wrapper(&mut self, name: &str, inner: &[Word], shells: usize) {
        match name {
            "sudo" => {
                self.is_root = true;
                self.need(What::Root);
            }
            // A keyword of bash and zsh, whatever programs are called so.
            "time" => {}
            _ => self.need_command(name),
        }
        let variables = inner
            .iter()
            .take_while(|word| word.assignment().is_some())
            .count();
        inner[..variables].iter().for_each(|word| self.assignment(word));
        self.words(&inner[variables..], shells);
    }

    /// A shell, with the script it gets as an argument.
    fn shell(&mut self, name: &str, arguments: &[Word], shells: usize) {
        self.need_command(name);
        let is_script_next = |word: &Word| word.text.starts_with('-') && word.text.ends_with('c');
        let option = arguments.iter().position(is_script_next);
        let script = option.and_then(|option| arguments.get(option + 1));
        let Some(script) = script.filter(|_| shells < SHELLS_MAX) else {
            return;
        };
        let script = shell::read(&script.text);
        for command in script.commands {
            self.command(&command, shells + 1);
        }
        let is_function =
            |what: &What| matches!(what, What::Command(name) if script.functions.contains(name));
        self.effect.needs.retain(|what| !is_function(what));
    }

    /// Absolute paths among arguments, alone or as the value of an option.
    fn paths(&mut self, arguments: &[Word]) {
        for word in arguments {
            let value = word
                .text
                .rsplit_once('=')
                .map_or(word.text.as_str(), |(_, value)| value);
            let value = value.trim_start_matches("-I").trim_start_matches("-L");
            if PRESUMED.iter().any(|folder| value.starts_with(folder)) {
                self.effect.needs.extend(of_path(value));
            }
        }
    }
}

fn has_any(arguments: &[Word], options: &[&str]) -> bool {
    arguments.iter().any(|word| options.contains(&word.text.as_str()))
}

/// `arguments` without the options at their beginning, those among `valued` with their value, and without `before`
/// arguments after them.
fn inner<'a>(arguments: &'a [Word], valued: &[&str], before: usize) -> &'a [Word] {
    let mut rest = arguments;
    while let Some((option, after)) = rest.split_first()
        && option.text.starts_with('-')
    {
        let values = usize::from(valued.contains(&option.text.as_str()));
        rest = after.get(values..).unwrap_or_default();
    }
    rest.get(before..).unwrap_or_default()
}

/// The arguments that are known and no options, nor values of the options `valued`.
fn operands<'a>(arguments: &'a [Word], valued: &[&str]) -> Vec<&'a str> {
    let mut operands = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if valued.contains(&word.text.as_str()) {
            words.next();
        } else if let Some(text) = word
            .literal()
            .filter(|text| !text.starts_with('-') && !text.is_empty())
        {
            operands.push(text);
        }
    }
    operands
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a script's commands presume, what those after them get being none of its business.
    fn needs(script: &str) -> String {
        let effects = shell::read(script)
            .commands
            .iter()
            .map(effect)
            .collect::<Vec<_>>();
        let needs = effects.iter().flat_map(|effect| &effect.needs);
        needs.map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    fn provides(script: &str) -> String {
        let effects = shell::read(script)
            .commands
            .iter()
            .map(effect)
            .collect::<Vec<_>>();
        let provides: Vec<_> = effects.into_iter().flat_map(|effect| effect.provides).collect();
        provides.join(" ")
    }

    #[test]
    fn brew_names_formulae_casks_and_taps() {
        let cases = [
            ("brew install llvm@17 re2c", "formula llvm@17; formula re2c"),
            (
                "brew install --quiet --formula jq || true",
                "formula jq; command true",
            ),
            ("brew install --cask android-studio", "cask android-studio"),
            ("brew tap shivammathur/php", "tap shivammathur/php"),
            ("brew bundle --file=ci/Brewfile", "command brew"),
            ("brew update && brew upgrade", "command brew; command brew"),
            (
                "brew list cmake || brew install cmake",
                "command brew; formula cmake",
            ),
            ("P=$(brew --prefix llvm@17)/bin", "formula llvm@17"),
            ("brew --prefix", "command brew"),
            ("brew install $PACKAGES", "command brew"),
            ("xargs brew install < list", "command xargs; command brew"),
        ];
        for (script, expected) in cases {
            assert_eq!(needs(script), expected, "{script}");
        }
    }

    #[test]
    fn packages_of_the_system_are_named_without_their_versions() {
        let cases = [
            (
                "sudo apt-get install -y --no-install-recommends libssl-dev=3.0.* qemu-user/stable",
                "root; apt package libssl-dev; apt package qemu-user",
            ),
            (
                "sudo -E apt -t bookworm-backports -y install cmake",
                "root; apt package cmake",
            ),
            ("sudo apt-get update", "root; command apt-get"),
            ("apt-get install ./local.deb", "command apt-get"),
            (
                "dnf -y install gcc-c++ make",
                "dnf package gcc-c++; dnf package make",
            ),
            (
                "sudo pip install --break-system-packages -r req.txt meson==1.2",
                "root; Python package meson",
            ),
            ("pip3 install meson", "command pip3"),
            ("python3 -m pip install -e .[test]", "command python3"),
            (
                "npm install -g @angular/cli@17 yarn",
                "npm package @angular/cli; npm package yarn",
            ),
            ("npm install; npm i express", "command npm; command npm"),
            ("cargo install cross --locked", "command cargo"),
            ("cargo nextest run", "command cargo; command cargo-nextest"),
        ];
        for (script, expected) in cases {
            assert_eq!(needs(script), expected, "{script}");
        }
    }

    #[test]
    fn what_a_job_installs_is_there_afterwards() {
        let cases = [
            ("pip install 'tox>=4' build[uv]", "tox build"),
            ("cargo install --version 0.9 cargo-nextest", "cargo-nextest"),
            ("go install golang.org/x/tools/cmd/goimports@latest", "goimports"),
            ("go install github.com/x/tool/v2@v2.1", "tool"),
            ("gem install bundler -v 2.4", "bundler"),
            ("brew install llvm@17", "llvm clang clang++ llvm-config"),
            ("npm i -g typescript", "typescript tsc"),
            ("corepack enable", "pnpm yarn"),
            (
                "curl https://sh.rustup.rs -sSf | sh -s -- -y",
                "cargo rustc rustup rustdoc rustfmt",
            ),
        ];
        for (script, expected) in cases {
            assert_eq!(provides(script), expected, "{script}");
        }
    }

    #[test]
    fn commands_that_run_others_are_looked_through() {
        let cases = [
            (
                "sudo -u nobody env A=1 CC=clang-17 make",
                "root; command env; command clang-17; command make",
            ),
            ("timeout -k 5 60 ctest", "command timeout; command ctest"),
            ("time -p make", "command make"),
            (
                "bash -lc 'f() { :; }; f && cmake .'",
                "command bash; command :; command cmake",
            ),
            ("command -v brew || which jq", "command which"),
            ("exec ./run", "command exec"),
            ("\"$CC\" -v; ${X}/bin/y; ./z; a/b; ~/c", ""),
        ];
        for (script, expected) in cases {
            assert_eq!(needs(script), expected, "{script}");
        }
    }

    #[test]
    fn paths_are_presumed_where_they_are_read() {
        let cases = [
            (
                "cmake -DCMAKE_TOOLCHAIN_FILE=/opt/toolchain/arm.cmake -I/opt/x/include",
                "command cmake; path /opt/toolchain/arm.cmake; path /opt/x/include",
            ),
            ("/opt/toolchain/bin/gcc -v", "path /opt/toolchain/bin/gcc"),
            ("/usr/bin/make", "command make"),
            (
                "mkdir -p /opt/made; test -d /opt/made",
                "command mkdir; command test",
            ),
            ("echo /opt/tools/bin >> $GITHUB_PATH", "path /opt/tools/bin"),
            ("echo \"JAVA_HOME=/opt/jdk\" >> \"$GITHUB_ENV\"", "path /opt/jdk"),
            ("export CC=/usr/bin/clang-15", "command clang-15"),
            ("source /opt/x/env.sh", "command source; path /opt/x/env.sh"),
        ];
        for (script, expected) in cases {
            assert_eq!(needs(script), expected, "{script}");
        }
    }

    #[test]
    fn xcode_is_presumed_by_version_and_simulator() {
        let cases = [
            (
                "xcodebuild test -destination 'platform=iOS Simulator,name=iPhone 15,OS=17.2'",
                "Xcode; simulator iOS 17.2",
            ),
            (
                "xcodebuild -destination 'generic/platform=watchOS Simulator'",
                "Xcode; simulator watchOS",
            ),
            (
                "sudo xcode-select -s /Applications/Xcode_15.2.app",
                "root; command xcode-select; Xcode 15.2",
            ),
            ("xcrun simctl boot 'iPhone 15'", "Xcode; simulator iOS"),
            (
                "xcrun simctl create a b com.apple.CoreSimulator.SimRuntime.tvOS-17-2",
                "Xcode; simulator tvOS 17.2",
            ),
            ("xcrun --sdk macosx notarytool submit x", "Xcode"),
            ("xcrun --show-sdk-path", "command xcrun"),
        ];
        for (script, expected) in cases {
            assert_eq!(needs(script), expected, "{script}");
        }
    }
}
