//! What workflows of several ecosystems presume of a host.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read what it checks has failed"
)]

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use ephemerd::host::Os;
use ephemerd::provision::scan::{Need, What, is_base, lacking, scan};
use insta::assert_snapshot;
use proptest::prelude::*;

const WORKFLOWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/workflows");

fn needs(name: &str) -> Vec<Need> {
    let text = fs::read_to_string(format!("{WORKFLOWS}/{name}")).unwrap();
    scan(name, &text).unwrap()
}

/// Everything the workflow presumes, a line each.
fn told(name: &str) -> String {
    let mut told = String::new();
    for need in needs(name) {
        let os = match need.os {
            Some(Os::MacOs) => " on macOS",
            Some(Os::Linux) => " on Linux",
            None => "",
        };
        writeln!(told, "{}: {}{os} ({})", need.line, need.what, need.because).unwrap();
    }
    told
}

#[test]
fn a_php_sdk_on_macos() {
    assert_snapshot!(told("php-sdk.yml"), @r#"
    8: formula llvm@17 (`LIBCLANG_PATH: $(brew --prefix llvm@17)/lib`)
    13: runner self-hosted, macOS, ARM64 on macOS (`runs-on:`)
    18: command git on macOS (`uses: actions/checkout@v4`)
    21: command brew on macOS (`brew update`)
    22: formula autoconf on macOS (`brew install --quiet autoconf bison re2c llvm@17`)
    22: formula bison on macOS (`brew install --quiet autoconf bison re2c llvm@17`)
    22: formula re2c on macOS (`brew install --quiet autoconf bison re2c llvm@17`)
    22: formula llvm@17 on macOS (`brew install --quiet autoconf bison re2c llvm@17`)
    25: formula pkg-config on macOS (`brew install pkg-config`)
    26: formula bison on macOS (`brew --prefix bison`)
    27: formula llvm@17 on macOS (`brew --prefix llvm@17`)
    31: formula openssl@3 on macOS (`PKG_CONFIG_PATH: /opt/homebrew/opt/openssl@3/lib/pkgconfig:/…`)
    31: formula icu4c@76 on macOS (`PKG_CONFIG_PATH: /opt/homebrew/opt/openssl@3/lib/pkgconfig:/…`)
    38: command make on macOS (`make -j$(…)`)
    39: command make on macOS (`make install`)
    43: command cargo on macOS (`cargo build --release --features php-${{ … }}`)
    46: command install_name_tool on macOS (`install_name_tool -id @rpath/libsdk.dylib target/release/lib…`)
    52: command otool on macOS (`otool -L target/release/libsdk.dylib`)
    55: runner ubuntu-latest on Linux (`runs-on:`)
    57: command git on Linux (`uses: actions/checkout@v4`)
    58: root on Linux (`uses: shivammathur/setup-php@v2`)
    "#);
}

#[test]
fn a_rust_crate() {
    assert_snapshot!(told("rust-crate.yml"), @r#"
    14: runner ubuntu-24.04 on Linux (`runs-on:`)
    14: runner macos-15 on macOS (`runs-on:`)
    14: runner windows-2025 (`runs-on:`)
    14: runner ubuntu-24.04-arm on Linux (`runs-on:`)
    16: command git (`uses: actions/checkout@v4`)
    24: root on Linux (`sudo apt-get update`)
    24: apt package protobuf-compiler on Linux (`sudo apt-get install -y protobuf-compiler musl-tools`)
    24: apt package musl-tools on Linux (`sudo apt-get install -y protobuf-compiler musl-tools`)
    26: formula protobuf on macOS (`brew install protobuf`)
    31: command cargo-deny (`cargo deny check`)
    34: runner ubuntu-24.04 on Linux (`runs-on:`)
    36: command clang-18 on Linux (`CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER: clang-18`)
    38: command git on Linux (`uses: actions/checkout@v4`)
    40: command curl on Linux (`curl --proto =https -sSf https://sh.rustup.rs`)
    44: root on Linux (`sudo snap install jq`)
    44: command snap on Linux (`sudo snap install jq`)
    46: command jq on Linux (`jq --version`)
    "#);
}

#[test]
fn a_node_monorepo() {
    assert_snapshot!(told("node-monorepo.yml"), @r#"
    14: command git (`uses: actions/checkout@v4`)
    26: command git (`git diff --name-only origin/main`)
    26: command jq (`jq -R .`)
    28: command pwsh (`shell: pwsh`)
    32: runner self-hosted, linux on Linux (`runs-on:`)
    34: command git on Linux (`uses: actions/checkout@v4`)
    35: npm package semantic-release on Linux (`npm install --global semantic-release@24`)
    38: path /usr/local/share/npm-global on Linux (`NPM_CONFIG_PREFIX: /usr/local/share/npm-global`)
    43: command gh on Linux (`gh release edit $TAG --notes-file notes.md`)
    "#);
}

#[test]
fn a_python_package() {
    assert_snapshot!(told("python-package.yml"), @r#"
    8: runner ubuntu-22.04 on Linux (`runs-on:`)
    8: runner macos-14 on macOS (`runs-on:`)
    12: command git (`uses: actions/checkout@v4`)
    19: root (`sudo apt-get -o Acquire::Retries=3 install -y libhdf5-dev=1.…`)
    19: apt package libhdf5-dev on Linux (`sudo apt-get -o Acquire::Retries=3 install -y libhdf5-dev=1.…`)
    19: apt package libgeos-dev on Linux (`sudo apt-get -o Acquire::Retries=3 install -y libhdf5-dev=1.…`)
    19: apt package gfortran on Linux (`sudo apt-get -o Acquire::Retries=3 install -y libhdf5-dev=1.…`)
    20: formula hdf5 (`brew install hdf5 geos gcc`)
    20: formula geos (`brew install hdf5 geos gcc`)
    20: formula gcc (`brew install hdf5 geos gcc`)
    29: command twine (`twine check dist/*`)
    32: runner self-hosted, linux on Linux (`runs-on:`)
    34: command git on Linux (`uses: actions/checkout@v4`)
    36: command python3 on Linux (`python3 -m venv .venv`)
    38: command pip on Linux (`pip install -r docs/requirements.txt`)
    39: root on Linux (`sudo pip3 install --break-system-packages mkdocs`)
    39: Python package mkdocs on Linux (`sudo pip3 install --break-system-packages mkdocs`)
    40: path /usr/share/gdal on Linux (`make -C docs html`)
    40: command make on Linux (`make -C docs html`)
    41: command latexmk on Linux (`latexmk -pdf docs/manual.tex`)
    "#);
}

#[test]
fn an_ios_app() {
    assert_snapshot!(told("ios-app.yml"), @r#"
    6: Xcode 16.2 on macOS (`DEVELOPER_DIR: /Applications/Xcode_16.2.app/Contents/Develop…`)
    10: runner macos-15 on macOS (`runs-on:`)
    16: command git on macOS (`uses: actions/checkout@v4`)
    17: Xcode 16.1 on macOS (`uses: maxim-lobanov/setup-xcode@v1`)
    17: Xcode 16.2 on macOS (`uses: maxim-lobanov/setup-xcode@v1`)
    17: root on macOS (`uses: maxim-lobanov/setup-xcode@v1`)
    22: command brew on macOS (`brew bundle --no-lock`)
    24: Xcode on macOS (`xcrun simctl boot iPhone 16`)
    24: simulator iOS on macOS (`xcrun simctl boot iPhone 16`)
    25: Xcode on macOS (`xcodebuild test -workspace App.xcworkspace -scheme App -dest…`)
    25: simulator iOS 18.2 on macOS (`xcodebuild test -workspace App.xcworkspace -scheme App -dest…`)
    27: command xcbeautify on macOS (`xcbeautify`)
    28: Xcode on macOS (`xcodebuild build -scheme Watch -destination generic/platform…`)
    28: simulator watchOS on macOS (`xcodebuild build -scheme Watch -destination generic/platform…`)
    29: command swiftlint on macOS (`swiftlint --strict`)
    32: runner self-hosted, macOS on macOS (`runs-on:`)
    35: command git on macOS (`uses: actions/checkout@v4`)
    36: root on macOS (`sudo xcode-select -s /Applications/Xcode_16.2.app`)
    36: Xcode 16.2 on macOS (`sudo xcode-select -s /Applications/Xcode_16.2.app`)
    37: command fastlane on macOS (`fastlane gym --export_method app-store`)
    39: Xcode on macOS (`xcrun notarytool submit build/App.zip --keychain-profile ci …`)
    "#);
}

#[test]
fn firmware_with_cross_compilers() {
    assert_snapshot!(told("firmware.yml"), @r#"
    7: runner self-hosted, linux, firmware on Linux (`runs-on:`)
    13: path /srv/firmware/checkout on Linux (`working-directory: /srv/firmware/checkout`)
    15: path /opt/toolchain/arm-gnu-13.3 on Linux (`ARM_TOOLCHAIN_DIR: /opt/toolchain/arm-gnu-13.3`)
    16: path /opt/toolchain/cmake/cortex-m4.cmake on Linux (`CMAKE_TOOLCHAIN_FILE: /opt/toolchain/cmake/cortex-m4.cmake`)
    17: path /opt/toolchain/arm-gnu-13.3/bin/arm-none-eabi-gcc on Linux (`CC: /opt/toolchain/arm-gnu-13.3/bin/arm-none-eabi-gcc`)
    20: command git on Linux (`uses: actions/checkout@v4`)
    23: path /opt/toolchain/arm-gnu-13.3/bin on Linux (`export PATH=/opt/toolchain/arm-gnu-13.3/bin:$PATH`)
    24: path /opt/toolchain/env.sh on Linux (`source /opt/toolchain/env.sh`)
    25: command cmake on Linux (`cmake -B build -G Ninja -DBOARD=${{ … }} -DCMAKE_C_COMPILER_…`)
    26: command cmake on Linux (`cmake --build build -- -k 0`)
    27: command arm-none-eabi-size on Linux (`arm-none-eabi-size build/firmware.elf`)
    31: command qemu-system-arm on Linux (`timeout 60 qemu-system-arm -M $1 -nographic -kernel build/fi…`)
    34: path /opt/segger/JLinkExe on Linux (`/opt/segger/JLinkExe -CommanderScript flash.jlink`)
    37: runner ubuntu-24.04 on Linux (`runs-on:`)
    43: command git on Linux (`uses: actions/checkout@v4`)
    44: root on Linux (`sudo apt-get install -y gcc-arm-none-eabi ninja-build valgri…`)
    44: apt package gcc-arm-none-eabi on Linux (`sudo apt-get install -y gcc-arm-none-eabi ninja-build valgri…`)
    44: apt package ninja-build on Linux (`sudo apt-get install -y gcc-arm-none-eabi ninja-build valgri…`)
    44: apt package valgrind on Linux (`sudo apt-get install -y gcc-arm-none-eabi ninja-build valgri…`)
    45: command cmake on Linux (`cmake -B build`)
    "#);
}

#[test]
fn a_go_service_with_containers() {
    assert_snapshot!(told("go-service.yml"), @r#"
    7: runner ubuntu-latest on Linux (`runs-on:`)
    10: unavailable: service postgres:17 on Linux (`services: postgres`)
    13: unavailable: service redis:7 on Linux (`services: redis`)
    15: command git on Linux (`uses: actions/checkout@v4`)
    20: command psql on Linux (`psql $DATABASE_URL -f schema.sql`)
    21: command protoc on Linux (`protoc --go_out=. $f`)
    24: runner ubuntu-latest on Linux (`runs-on:`)
    26: unavailable: container golangci/golangci-lint:v2 on Linux (`container:`)
    31: runner self-hosted, linux on Linux (`runs-on:`)
    33: unavailable: docker/setup-buildx-action@v3 on Linux (`uses: docker/setup-buildx-action@v3`)
    34: unavailable: docker/build-push-action@v6 on Linux (`uses: docker/build-push-action@v6`)
    36: unavailable: docker on Linux (`docker compose up -d`)
    36: root on Linux (`sudo systemctl restart service`)
    36: command systemctl on Linux (`sudo systemctl restart service`)
    37: unavailable: docker://aquasec/trivy:latest on Linux (`uses: docker://aquasec/trivy:latest`)
    38: command kubectl on Linux (`kubectl rollout status deploy/service`)
    "#);
}

#[test]
fn a_ruby_gem() {
    assert_snapshot!(told("ruby-gem.yml"), @r#"
    12: runner macos-15 on macOS (`runs-on:`)
    12: runner ubuntu-24.04 on Linux (`runs-on:`)
    14: command git (`uses: actions/checkout@v4`)
    16: root on Linux (`sudo apt-get install --yes libvips-dev`)
    16: apt package libvips-dev on Linux (`sudo apt-get install --yes libvips-dev`)
    19: tap libvips/extra on macOS (`brew tap libvips/extra`)
    20: formula vips on macOS (`brew install vips --without-docs`)
    21: cask chromedriver on macOS (`brew install --cask chromedriver`)
    28: runner self-hosted, macOS on macOS (`runs-on:`)
    30: command git on macOS (`uses: actions/checkout@v4`)
    34: command git on macOS (`bash -c rake release && gh release create "$(git describe --…`)
    34: command gh on macOS (`bash -c rake release && gh release create "$(git describe --…`)
    "#);
}

#[test]
fn a_composite_action() {
    assert_snapshot!(told("action.yml"), @r#"
    14: formula ffmpeg on macOS (`brew install ffmpeg`)
    18: root on Linux (`sudo dnf install -y ffmpeg-free @development-tools`)
    18: dnf package ffmpeg-free on Linux (`sudo dnf install -y ffmpeg-free @development-tools`)
    18: dnf package @development-tools on Linux (`sudo dnf install -y ffmpeg-free @development-tools`)
    20: command ffprobe on Linux (`ffprobe -version`)
    "#);
}

#[test]
fn no_workflow_here_presumes_a_tool_that_every_host_has() {
    let tools = [
        "echo", "grep", "tar", "cd", "test", "[", "[[", "mkdir", "cat", "set", "source", ".", "export",
        "find", "sort", "cut", "awk", "sed", "bash", "sh", "true", "env", "xargs", "tee", "for", "do", "if",
    ];
    let mut files = 0;
    for entry in fs::read_dir(WORKFLOWS).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let whats: Vec<What> = needs(&name).into_iter().map(|need| need.what).collect();
        for tool in tools {
            assert!(!whats.contains(&What::Command(tool.into())), "{tool} in {name}");
        }
        files += 1;
    }
    assert_eq!(files, 9);
}

#[test]
fn a_caller_that_has_everything_lacks_nothing() {
    let needs = needs("firmware.yml");
    assert_eq!(lacking(&needs, |_| true), []);
    let has = |need: &Need| need.what != What::Command("cmake".into());
    let lacks = lacking(&needs, has);
    let lines: Vec<_> = lacks.iter().map(|lack| (lack.need.line, lack.count)).collect();
    assert_eq!(lines, [(25, 3)]);
}

#[test]
fn curl_is_part_of_macos_and_not_of_the_least_debian() {
    let workflow = |label: &str| format!("jobs: {{a: {{runs-on: {label}, steps: [{{run: curl -O x}}]}}}}");
    let curl = |label: &str| {
        let needs = scan("w.yml", &workflow(label)).unwrap();
        needs.iter().any(|need| need.what == What::Command("curl".into()))
    };
    assert_eq!(
        (curl("macos-15"), curl("debian"), curl("self-hosted")),
        (false, true, true)
    );
    assert!(is_base(Some(Os::MacOs), "curl"));
}

#[test]
fn files_that_are_no_workflows_are_refused() {
    let refused = |text: &str| scan("w.yml", text).unwrap_err().to_string();
    assert_snapshot!(refused(""), @r#"
    w.yml:1: has neither `jobs:` nor `runs:`
    hint: scan workflows and composite actions only
    "#);
    assert_snapshot!(refused("# nothing\n\nversion: 2\n"), @r#"
    w.yml:3: has neither `jobs:` nor `runs:`
    hint: scan workflows and composite actions only
    "#);
    assert_snapshot!(refused("jobs:\n  a: [\n"), @r#"
    w.yml:3: while parsing a node, did not find expected node content
    hint: GitHub would refuse it as well; a linter of YAML tells more
    "#);
    assert_snapshot!(refused("jobs:\n\ta: 1\n"), @r#"
    w.yml:2: tabs disallowed within this context (block indentation)
    hint: indent with spaces; YAML has no tabs there
    "#);
    assert_snapshot!(refused(&"#".repeat(2 << 20)), @r#"
    `w.yml` has more than 1048576 bytes
    hint: split it, or name the files to scan
    "#);
}

#[test]
fn jobs_of_any_shape_are_read() {
    for jobs in [
        "x",
        "[x]",
        "{a: x}",
        "{a: {steps: x}}",
        "{a: {steps: [x, {run: [x]}, {run: }]}}",
        "{? [a] : b}",
    ] {
        assert_eq!(scan("w.yml", &format!("jobs: {jobs}\n")).unwrap(), [], "{jobs}");
    }
}

/// A workflow of one step with `script`, indented as a block.
fn with_script(script: &str) -> String {
    let block = script.replace('\n', "\n          ");
    format!("jobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: |\n          {block}\n")
}

#[test]
fn five_thousand_lines_are_read_well_within_a_second() {
    let line = "sudo apt-get install -y \"$(cat list)\" lib${X:-y}-dev && brew install a b | tee >(grep c) > /dev/null\n";
    let workflow = with_script(&line.repeat(5_000));
    let start = Instant::now();
    let needs = scan("w.yml", &workflow).unwrap();
    let took = start.elapsed();
    println!("{} needs in {took:?}", needs.len());
    // Not optimised, and beside other tests.
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// As many of `piece` as make nearly a megabyte.
fn megabyte(piece: &str) -> String {
    piece.repeat(1_000_000 / piece.len())
}

#[test]
fn a_megabyte_ends_soon_whatever_is_in_it() {
    let scripts = [
        "$(",
        "`",
        "\"",
        "'",
        "((",
        "a=(",
        "<<a ",
        "case a in ",
        "${",
        "f() ",
        "[[ ",
        "; ",
        "a b ",
        "${{ ",
    ];
    let yaml = [
        "- ",
        "? ",
        "a: ",
        "[a, ",
        "{a: ",
        "\"",
        "| ",
        "---\n",
        "!x ",
        "&a ",
        "*a ",
        "a\n",
        "- &a b\n- *a\n",
    ];
    let steps = format!("jobs: {{a: {{steps: [{}]}}}}", "{run: f() a},".repeat(70_000));
    let values = format!(
        "jobs: {{a: {{runs-on: '${{{{matrix.b}}}}', strategy: {{matrix: {{b: [{}]}}}}}}}}",
        (0..100_000).map(|n| format!("{n},")).collect::<String>()
    );
    let scripts = scripts.map(|piece| with_script(&megabyte(piece)));
    let texts = scripts
        .into_iter()
        .chain(yaml.map(megabyte))
        .chain([steps, values]);
    for text in texts {
        let start = Instant::now();
        let _ = scan("w.yml", &text);
        let took = start.elapsed();
        let begins: String = text.chars().take(80).collect();
        println!("{took:?}: {begins:?}");
        assert!(took < Duration::from_secs(10), "{took:?}: {begins:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_scanned_or_refused(text in "\\PC{0,200}|[a-c:\\-{}\\[\\]&*!|> \n\t#'\"]{0,100}") {
        let _ = scan("w.yml", &text);
        let _ = scan("w.yml", &format!("jobs:\n  a:\n    steps:\n      - run: {text}\n"));
    }

    #[test]
    fn any_script_yields_needs_with_lines_of_the_file(
        words in proptest::collection::vec(
            "brew|install|apt|sudo|pip|-m|python|npm|-g|bash -c|env|A=/b|\\$\\(|\\)|'|\"|`|<<E|\n|;|&&|\\||case|in|[a-z/.@$]{1,6}",
            0..40,
        )
    ) {
        let workflow = with_script(&words.join(" "));
        let lines = workflow.lines().count();
        for need in scan("w.yml", &workflow).unwrap() {
            prop_assert!((1..=lines).contains(&need.line));
        }
    }
}
