//! A real browser without a window, and a look at the pictures it takes.

use std::path::Path;
use std::process::{Command, Output};

/// Debian's.
const CHROMIUM: &str = "/usr/bin/chromium";

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) is_dark: bool,
}

#[expect(clippy::disallowed_methods, reason = "the browser is started from outside")]
fn chromium(more: &[String]) -> Output {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(CHROMIUM)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            // A page that asks for itself anew is not waited for.
            "--timeout=10000",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(more)
        .output()
        .unwrap_or_else(|error| panic!("{CHROMIUM}: {error}; scripts/test.sh installs it"));
    assert!(
        output.status.success(),
        "{:?}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The document as the browser has it once it has read the page and run whatever it would run.
pub(crate) fn dom(url: &str) -> String {
    let output = chromium(&["--dump-dom".to_owned(), url.to_owned()]);
    String::from_utf8(output.stdout).unwrap()
}

/// A picture of the page.
pub(crate) fn screenshot(url: &str, look: Look, file: &Path) -> Picture {
    let scheme = u8::from(!look.is_dark);
    chromium(&[
        format!("--screenshot={}", file.display()),
        format!("--window-size={},{}", look.width, look.height),
        format!("--blink-settings=preferredColorScheme={scheme}"),
        url.to_owned(),
    ]);
    Picture::read(&std::fs::read(file).unwrap())
}

/// What there is to say of a PNG (ISO/IEC 15948).
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Colour of the first pixel of the first line.
    pub(crate) corner: Vec<u8>,
    /// How many colours there are, up to a few hundred.
    pub(crate) colours: usize,
}

impl Picture {
    fn read(png: &[u8]) -> Self {
        assert_eq!(png.get(..8), Some(&b"\x89PNG\r\n\x1a\n"[..]));
        let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
        let (width, height) = (number(16), number(20));
        let (depth, kind) = (png[24], png[25]);
        assert_eq!(depth, 8, "bits");
        let channels = match kind {
            2 => 3,
            6 => 4,
            other => panic!("colour type {other}"),
        };
        let (mut data, mut at) = (Vec::new(), 8);
        while at + 8 < png.len() {
            let length = usize::try_from(number(at)).unwrap();
            if &png[at + 4..at + 8] == b"IDAT" {
                data.extend_from_slice(&png[at + 8..at + 8 + length]);
            }
            at += length + 12;
        }
        let mut raw = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(&data[..]), &mut raw).unwrap();
        let line = usize::try_from(width).unwrap() * channels;
        let mut before = vec![0; line];
        let mut colours = std::collections::BTreeSet::new();
        let mut corner = Vec::new();
        for row in raw.chunks(line + 1) {
            let now = unfiltered(row[0], &row[1..], &before, channels);
            if corner.is_empty() {
                corner = now[..3].to_vec();
            }
            if colours.len() < 300 {
                colours.extend(now.chunks(channels).map(|pixel| pixel[..3].to_vec()));
            }
            before = now;
        }
        Self {
            width,
            height,
            corner,
            colours: colours.len(),
        }
    }
}

/// A line as it was before it was filtered.
fn unfiltered(filter: u8, line: &[u8], before: &[u8], channels: usize) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(line.len());
    for (at, byte) in line.iter().enumerate() {
        let left = if at >= channels {
            i32::from(out[at - channels])
        } else {
            0
        };
        let up = i32::from(before[at]);
        let corner = if at >= channels {
            i32::from(before[at - channels])
        } else {
            0
        };
        let guess = match filter {
            0 => 0,
            1 => left,
            2 => up,
            3 => (left + up) / 2,
            4 => {
                let all = left + up - corner;
                let far = |value: i32| (all - value).abs();
                if far(left) <= far(up) && far(left) <= far(corner) {
                    left
                } else if far(up) <= far(corner) {
                    up
                } else {
                    corner
                }
            }
            other => panic!("filter {other}"),
        };
        out.push(byte.wrapping_add(u8::try_from(guess).unwrap()));
    }
    out
}
