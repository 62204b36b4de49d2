//! What is there on every host without being named.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use crate::host::Os;

/// Whether shells have `command` built in, or a freshly installed system of this kind has it; of either kind, if
/// `os` is unknown. Linux is Debian without anything but what it calls essential or required, the least of the
/// systems in use.
pub fn is_base(os: Option<Os>, command: &str) -> bool {
    let is_in = |table: &BTreeSet<&str>| table.contains(command);
    match os {
        Some(Os::MacOs) => is_in(&MACOS),
        Some(Os::Linux) => is_in(&LINUX),
        None => is_in(&MACOS) && is_in(&LINUX),
    }
}

static MACOS: LazyLock<BTreeSet<&str>> = LazyLock::new(|| all([BUILTINS, ON_BOTH, ON_MACOS]));
static LINUX: LazyLock<BTreeSet<&str>> = LazyLock::new(|| all([BUILTINS, ON_BOTH, ON_LINUX]));

fn all(tables: [&'static str; 3]) -> BTreeSet<&'static str> {
    tables.into_iter().flat_map(str::split_whitespace).collect()
}

/// bash(1), "Shell Builtin Commands", and what zsh and dash have besides.
const BUILTINS: &str = ". : [ alias bg bind break builtin caller cd command compgen complete compopt continue \
    declare dirs disown echo enable eval exec exit export false fc fg getopts hash help history jobs kill let \
    local logout mapfile popd printf pushd pwd read readarray readonly return set shift shopt source suspend test \
    times trap true type typeset ulimit umask unalias unset wait";

/// In Debian 12's essential and required packages, and in macOS 15 without its command line tools.
const ON_BOTH: &str = "arch awk basename bash cat chgrp chmod chown chroot cksum clear cmp comm cp csplit cut \
    date dd df diff diff3 dirname du egrep env expand expr fgrep find fold getconf getopt grep groups gunzip gzip \
    head hostname iconv id infocmp install join last link ln locale logger login logname ls mesg mkdir mkfifo \
    mknod mktemp more mount mv nice nl nohup od passwd paste pathchk perl pr printenv readlink realpath renice \
    reset rev rm rmdir script sdiff sed seq sh sleep sort split stat stty su sum sync tabs tail tar tee tic time \
    toe touch tput tr tset tsort tty umount uname uncompress unexpand uniq unlink users wall wc which \
    whereis who whoami xargs yes zcat zcmp zdiff zegrep zfgrep zforce zgrep zless zmore znew";

const ON_MACOS: &str = "afplay at atos bc bsdtar bundle bundler bunzip2 bzcat bzip2 caffeinate codesign column cpio csh \
    csrutil curl dc defaults dig diskutil ditto dns-sd dot_clean dscacheutil dscl dseditgroup dtrace ed \
    erb ex expect file fs_usage gem genstrings GetFileInfo hdiutil host hostinfo httpd iconutil ifconfig \
    installer ioreg ipconfig irb jot jq killall ksh launchctl leave less lpstat lsbom lsof man md5 \
    mdfind mdls mkbom nano nc netstat networksetup nscurl nslookup open openssl osascript patch pbcopy \
    pbpaste pgrep ping pkgbuild pkgutil pkill PlistBuddy plutil pmset productbuild productsign ps purge \
    qlmanage rake rsync ruby sample sandbox-exec say scp screen screencapture scutil security sftp \
    shasum shlock sips softwareupdate spctl spindump sqlite3 ssh ssh-add ssh-agent ssh-keygen ssh- \
    keyscan sw_vers sysctl system_profiler tclsh tcsh textutil tidy tmutil top traceroute unzip uudecode \
    uuencode uuidgen vi vim vm_stat vmmap xattr xcode-select xmllint xsltproc xxd zip zipinfo zsh";

const ON_LINUX: &str = "addgroup adduser apt apt-cache apt-config apt-get apt-key apt-mark b2sum base32 base64 basenc \
    blkid chcon chrt dash debconf-set-selections debconf-show dir dircolors dmesg dnsdomainname dpkg dpkg-deb \
    dpkg-query dpkg-reconfigure factor fallocate findmnt flock fmt fstrim getent groupadd groupdel groupmod hostid \
    ionice ipcmk ipcrm ipcs ischroot ldconfig ldd linux32 linux64 losetup lsblk lscpu lsipc lsns md5sum mkfs \
    mkfs.ext4 mkswap mountpoint namei nawk nproc nsenter numfmt partx pidof prlimit ptx rename.ul run-parts runcon \
    runuser savelog service setarch setpriv setsid sha1sum sha224sum sha256sum sha384sum sha512sum shred shuf \
    start-stop-daemon stdbuf swapoff swapon tac taskset tempfile timeout truncate unshare update-alternatives \
    update-rc.d useradd userdel usermod vdir";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_differ_in_what_they_have() {
        let cases = [
            ("cd", true, true, true),
            ("tar", true, true, true),
            ("curl", true, false, false),
            ("nproc", false, true, false),
            ("git", false, false, false),
            ("", false, false, false),
        ];
        for (command, mac, linux, both) in cases {
            assert_eq!(is_base(Some(Os::MacOs), command), mac, "{command}");
            assert_eq!(is_base(Some(Os::Linux), command), linux, "{command}");
            assert_eq!(is_base(None, command), both, "{command}");
        }
    }
}
