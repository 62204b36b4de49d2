//! Libraries: whether they load.

use std::ffi::{CStr, CString};
use std::io;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::host::command::{CommandError, CommandSpec, run_here};
use crate::host::{Os, os};
use crate::provision::question::Answer;

/// The option that makes this program load one library and say how that went.
const LOAD: &str = "--load";

/// How loading a library in a process of its own ends when there is none of that name; 0 when it was loaded.
pub const NO_LIBRARY: u8 = 3;

/// Loads a library in a process of its own: what a library does while it is loaded may end the process.
pub(super) fn load_elsewhere(library: &str) -> Answer {
    let own = std::env::current_exe().and_then(|path| {
        Utf8PathBuf::from_path_buf(path)
            .map_err(|path| io::Error::other(format!("`{}` is not UTF-8", path.display())))
    });
    let own = match own {
        Ok(own) => own,
        Err(error) => return Answer::Failed(error.to_string()),
    };
    let spec = CommandSpec::new(&own, &["__look", LOAD, library], Duration::from_secs(20));
    match run_here(&spec) {
        Ok(output) => match output.status.code() {
            Some(0) => Answer::At(output.stdout.trim().into()),
            Some(code) if code == i32::from(NO_LIBRARY) => Answer::Missing,
            Some(_) => Answer::Text(output.stdout.trim().to_owned()),
            None => Answer::Text(format!("loading it ends the process: {}", output.status)),
        },
        Err(CommandError::TimedOut { .. }) => Answer::TimedOut,
        Err(error) => Answer::Failed(crate::chain(&error)),
    }
}

/// Loads a library into this process, and returns where it was found, or its name where that is not told.
///
/// # Errors
/// What the dynamic loader says, and true when it found no file.
pub fn load(library: &str) -> Result<String, (String, bool)> {
    let name = CString::new(library).map_err(|error| (error.to_string(), true))?;
    // SAFETY: `name` is NUL-terminated and outlives the call. What the library does while it is loaded is what is
    // asked, and this process does nothing else.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if !handle.is_null() {
        let name = Utf8Path::new(library).file_name().unwrap_or(library);
        let loaded = os::loaded_objects();
        let found = loaded
            .into_iter()
            .find(|path| Utf8Path::new(path).file_name() == Some(name));
        return Ok(found.unwrap_or_else(|| library.to_owned()));
    }
    // SAFETY: takes no arguments; the text is valid until the next call of the loader's.
    let text = unsafe { libc::dlerror() };
    let why = if text.is_null() {
        "no reason".to_owned()
    } else {
        // SAFETY: not null, NUL-terminated, and nothing has called the loader since.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    // glibc: `libx.so: cannot open shared object file: No such file or directory`, with the name of a library that it
    // needs in place of its own when that is what is missing; dyld: `dlopen(libx.dylib, 0x0002): tried: '…' (no such file)`.
    let is_missing = match Os::host() {
        Os::Linux => {
            why.starts_with(&format!("{library}: cannot open")) && why.ends_with("No such file or directory")
        }
        Os::MacOs => why.contains("(no such file)") && !why.contains("Library not loaded"),
    };
    Err((why, is_missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use super::super::tests::folder;

    #[test]
    fn a_library_that_is_not_there_is_told_from_one_that_does_not_load() {
        let (_keep, top) = folder();
        fs::write(top.join("libbad.so"), "no library").unwrap();
        assert!(matches!(load("libephemerd-none.so.1"), Err((_, true))));
        assert!(matches!(load(top.join("libbad.so").as_str()), Err((_, false))));
        assert!(
            load(match Os::host() {
                Os::Linux => "libc.so.6",
                Os::MacOs => "libSystem.B.dylib",
            })
            .is_ok()
        );
    }
}
