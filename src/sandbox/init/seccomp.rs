//! Step `seccomp`: turns the policy's groups into a filter and installs it.
//!
//! The filter is a list of comparisons with five answers: `EPERM` for what a job may not do; success without
//! effect for a change of the core dump limit, which hardened programs make and take a failure of for fatal;
//! `ENOSYS` for what must look missing, which is `clone3`, after which libc falls back to `clone`, and on x86-64 the whole x32
//! table, whose numbers have bit 30 set and which a list of numbers says nothing about; and the end of the
//! process for system calls of another architecture. It is assembled here and not by a library because its
//! length is paid for with every launch: the kernel translates it, and walks it once for every system call
//! there is. This one has a third of the instructions, and one program where a library needed two.

use std::collections::{BTreeMap, BTreeSet};

use libc::sock_filter;
use nix::errno::Errno;

use super::{Step, StepError};
use crate::profile::policy::SyscallGroup;

const STEP: &str = "seccomp";

// Instructions (linux/bpf_common.h, linux/filter.h).
const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

// Offsets in seccomp_data (linux/seccomp.h); of the arguments the lower halves, which is where all values
// compared here lie.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
const SECOND_ARGUMENT: u32 = 24;
const THIRD_ARGUMENT: u32 = 32;
const UPPER_HALF: u32 = 4;

// Answers (linux/seccomp.h).
const ALLOW: u32 = 0x7fff_0000;
const FAIL_WITH: u32 = 0x0005_0000;
/// Failing with no error: the call returns 0 and does nothing.
const PRETEND: u32 = FAIL_WITH;
const KILL_PROCESS: u32 = 0x8000_0000;

/// linux/audit.h
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
/// linux/audit.h
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// Protocols of the internet that sockets may have: the usual one of their type, ICMP, TCP, UDP, ICMPv6, and raw ones,
/// which the kernel refuses (linux/in.h). Not among them are those for which the kernel itself opens further sockets,
/// whose owner is not the job's account, so that a packet filter does not know them for the job's (MPTCP, SMC), and
/// those whose ports it does not see (UDP-Lite, SCTP, DCCP).
const INTERNET_PROTOCOLS: [u32; 6] = [0, 1, 6, 17, 58, 255];

/// Bits that no type of socket among streams (1), datagrams (2) and raw ones (3) has, and every other one does
/// (linux/net.h); `SOCK_CLOEXEC` and `SOCK_NONBLOCK` have none of them.
const OTHER_TYPES: u32 = 0xc;

/// What programs take for a kernel without such a protocol; they go on with plain TCP.
const UNSUPPORTED: To = To::Answer(FAIL_WITH | libc::EPROTONOSUPPORT.unsigned_abs());

/// `RLIMIT_CORE`, asm-generic/resource.h
const CORE_LIMIT: u32 = 4;

/// `__X32_SYSCALL_BIT`, arch/x86/include/uapi/asm/unistd.h
const X32: u32 = 0x4000_0000;

/// The program per set of groups, assembled once in the warden and inherited by every launch.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    assembled: BTreeMap<BTreeSet<SyscallGroup>, Vec<sock_filter>>,
}

impl Filters {
    /// Assembles the filter for all groups, which is what both postures ask for.
    pub(crate) fn for_all_groups() -> Self {
        let all = BTreeSet::from(SyscallGroup::ALL);
        Self {
            assembled: BTreeMap::from([(all.clone(), assemble(&all))]),
        }
    }

    /// Installs the filter for `groups` on this thread and everything it starts.
    pub(super) fn apply(&self, groups: &BTreeSet<SyscallGroup>) -> Result<(), StepError> {
        let fresh;
        let program = match self.assembled.get(groups) {
            Some(program) => program,
            None => {
                fresh = assemble(groups);
                &fresh
            }
        };
        let length = u16::try_from(program.len()).step(STEP)?;
        let program = libc::sock_fprog {
            len: length,
            filter: program.as_ptr().cast_mut(),
        };
        // SAFETY: `program` points to `length` instructions, which the kernel copies and does not change.
        let done = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        Errno::result(done).map(drop).step(STEP)
    }
}

/// Where a comparison leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// The next instruction.
    Next,
    /// The tests of arguments of the system call with this number.
    Arguments(u32),
    /// An answer, by its value.
    Answer(u32),
}

/// One instruction before its jumps are counted.
enum Line {
    Load(u32),
    Test { code: u16, value: u32, yes: To, no: To },
    Label(To),
    Answer(u32),
}

/// Assembles the filter for `groups`.
fn assemble(groups: &BTreeSet<SyscallGroup>) -> Vec<sock_filter> {
    let refuse = To::Answer(FAIL_WITH | libc::EPERM.unsigned_abs());
    let missing = To::Answer(FAIL_WITH | libc::ENOSYS.unsigned_abs());
    let kill = To::Answer(KILL_PROCESS);
    let test = |code, value, yes| Line::Test {
        code,
        value,
        yes,
        no: To::Next,
    };

    let native = Line::Test {
        code: IF_EQUAL,
        value: NATIVE,
        yes: To::Next,
        no: kill,
    };
    let mut lines = vec![Line::Load(ARCHITECTURE), native, Line::Load(NUMBER)];
    if cfg!(target_arch = "x86_64") {
        lines.push(test(IF_AT_LEAST, X32, missing));
    }
    let mut of_arguments = Vec::new();
    let calls = groups
        .iter()
        .flat_map(|group| group.names().iter().map(move |name| (*group, *name)));
    for (group, name) in calls {
        let Some(number) = number(name) else { continue };
        let leads_to = match arguments(group, name) {
            None if name == "clone3" => missing,
            None => refuse,
            Some(tests) => {
                of_arguments.push(Line::Label(To::Arguments(number)));
                of_arguments.extend(tests);
                To::Arguments(number)
            }
        };
        lines.push(test(IF_EQUAL, number, leads_to));
    }
    lines.push(Line::Answer(ALLOW));
    lines.extend(of_arguments);
    for answer in [refuse, To::Answer(PRETEND), missing, UNSUPPORTED, kill] {
        if let To::Answer(value) = answer {
            lines.extend([Line::Label(answer), Line::Answer(value)]);
        }
    }
    count_jumps(&lines)
}

/// The tests of a system call's arguments, where only some of them are refused.
fn arguments(group: SyscallGroup, name: &str) -> Option<Vec<Line>> {
    let refuse = To::Answer(FAIL_WITH | libc::EPERM.unsigned_abs());
    let test = |code, value, yes| Line::Test {
        code,
        value,
        yes,
        no: To::Next,
    };
    let is_one_of = |argument, values: &[u32], yes| {
        let tests = values.iter().map(|value| test(IF_EQUAL, *value, yes));
        std::iter::once(Line::Load(argument))
            .chain(tests)
            .collect::<Vec<_>>()
    };
    match (group, name) {
        (SyscallGroup::Namespace, "clone") => {
            let flags = libc::CLONE_NEWUSER
                | libc::CLONE_NEWNS
                | libc::CLONE_NEWPID
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWCGROUP;
            let value = flags.unsigned_abs();
            let any = Line::Test {
                code: IF_ANY_BIT,
                value,
                yes: refuse,
                no: To::Next,
            };
            Some(vec![Line::Load(FIRST_ARGUMENT), any, Line::Answer(ALLOW)])
        }
        (SyscallGroup::Terminal, "ioctl") => {
            let requests =
                [libc::TIOCSTI, libc::TIOCLINUX].map(|request| u32::try_from(request).unwrap_or_default());
            let mut tests = is_one_of(SECOND_ARGUMENT, &requests, refuse);
            tests.push(Line::Answer(ALLOW));
            Some(tests)
        }
        (SyscallGroup::Sockets, "socket") => {
            let (internet, allowed) = (To::Arguments(u32::MAX), To::Arguments(u32::MAX - 1));
            let families = |families: [i32; 2]| families.map(i32::unsigned_abs);
            let mut tests = is_one_of(
                FIRST_ARGUMENT,
                &families([libc::AF_INET, libc::AF_INET6]),
                internet,
            );
            let local =
                families([libc::AF_UNIX, libc::AF_NETLINK]).map(|value| test(IF_EQUAL, value, allowed));
            tests.extend(local);
            tests.extend([
                Line::Answer(FAIL_WITH | libc::EPERM.unsigned_abs()),
                Line::Label(internet),
                Line::Load(SECOND_ARGUMENT),
                test(IF_ANY_BIT, OTHER_TYPES, UNSUPPORTED),
            ]);
            tests.extend(is_one_of(THIRD_ARGUMENT, &INTERNET_PROTOCOLS, allowed));
            let unsupported = Line::Answer(FAIL_WITH | libc::EPROTONOSUPPORT.unsigned_abs());
            tests.extend([unsupported, Line::Label(allowed), Line::Answer(ALLOW)]);
            Some(tests)
        }
        (SyscallGroup::Kernel, "setrlimit") => {
            let mut tests = is_one_of(FIRST_ARGUMENT, &[CORE_LIMIT], To::Answer(PRETEND));
            tests.push(Line::Answer(ALLOW));
            Some(tests)
        }
        (SyscallGroup::Kernel, "prlimit64") => {
            let (set, ask) = (To::Answer(PRETEND), To::Arguments(u32::MAX));
            let unless = |value, yes, no| Line::Test {
                code: IF_EQUAL,
                value,
                yes,
                no,
            };
            // The third argument is the new limit's address, null in a mere question.
            Some(vec![
                Line::Load(SECOND_ARGUMENT),
                unless(CORE_LIMIT, To::Next, ask),
                Line::Load(THIRD_ARGUMENT),
                unless(0, To::Next, set),
                Line::Load(THIRD_ARGUMENT + UPPER_HALF),
                unless(0, To::Next, set),
                Line::Label(ask),
                Line::Answer(ALLOW),
            ])
        }
        _ => None,
    }
}

/// Replaces labels by distances. Jumps lead forward only and count from the next instruction.
fn count_jumps(lines: &[Line]) -> Vec<sock_filter> {
    let mut labels = Vec::new();
    let mut place = 0usize;
    for line in lines {
        match line {
            Line::Label(label) => labels.push((*label, place)),
            Line::Load(_) | Line::Test { .. } | Line::Answer(_) => place += 1,
        }
    }
    let distance = |from: usize, to: To| {
        let found = labels.iter().find(|(label, place)| *label == to && *place > from);
        // A distance that does not fit would be a program of more than 255 instructions; the tests count them.
        found.map_or(0, |(_, place)| u8::try_from(place - from - 1).unwrap_or(u8::MAX))
    };
    let mut program = Vec::with_capacity(place);
    for line in lines {
        let here = program.len();
        program.push(match *line {
            Line::Label(_) => continue,
            Line::Load(k) => sock_filter {
                code: LOAD,
                jt: 0,
                jf: 0,
                k,
            },
            Line::Answer(k) => sock_filter {
                code: RETURN,
                jt: 0,
                jf: 0,
                k,
            },
            Line::Test {
                code,
                value: k,
                yes,
                no,
            } => sock_filter {
                code,
                jt: distance(here, yes),
                jf: distance(here, no),
                k,
            },
        });
    }
    program
}

/// The number of a system call on this architecture; `None` where the architecture does not have it.
fn number(name: &str) -> Option<u32> {
    macro_rules! table {
        ($($call:ident $number:ident)*) => {
            match name { $(stringify!($call) => Some(libc::$number),)* _ => None }
        };
    }
    let common = table! {
        ptrace SYS_ptrace process_vm_readv SYS_process_vm_readv process_vm_writev SYS_process_vm_writev
        pidfd_getfd SYS_pidfd_getfd kcmp SYS_kcmp
        add_key SYS_add_key request_key SYS_request_key keyctl SYS_keyctl
        mount SYS_mount umount2 SYS_umount2 move_mount SYS_move_mount open_tree SYS_open_tree fsopen SYS_fsopen
        fsconfig SYS_fsconfig fsmount SYS_fsmount fspick SYS_fspick mount_setattr SYS_mount_setattr
        pivot_root SYS_pivot_root chroot SYS_chroot
        unshare SYS_unshare setns SYS_setns clone SYS_clone clone3 SYS_clone3
        bpf SYS_bpf perf_event_open SYS_perf_event_open userfaultfd SYS_userfaultfd kexec_load SYS_kexec_load
        kexec_file_load SYS_kexec_file_load init_module SYS_init_module finit_module SYS_finit_module
        delete_module SYS_delete_module reboot SYS_reboot swapon SYS_swapon swapoff SYS_swapoff syslog SYS_syslog
        acct SYS_acct quotactl SYS_quotactl quotactl_fd SYS_quotactl_fd settimeofday SYS_settimeofday
        clock_settime SYS_clock_settime clock_adjtime SYS_clock_adjtime adjtimex SYS_adjtimex
        open_by_handle_at SYS_open_by_handle_at nfsservctl SYS_nfsservctl prlimit64 SYS_prlimit64
        setrlimit SYS_setrlimit
        io_uring_setup SYS_io_uring_setup io_uring_enter SYS_io_uring_enter io_uring_register SYS_io_uring_register
        ioctl SYS_ioctl vhangup SYS_vhangup socket SYS_socket
    };
    #[cfg(target_arch = "x86_64")]
    let own = table! {
        lookup_dcookie SYS_lookup_dcookie iopl SYS_iopl ioperm SYS_ioperm
    };
    #[cfg(not(target_arch = "x86_64"))]
    let own = None;
    common.or(own).and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the program answers, worked out instruction by instruction as the kernel does.
    fn answer<const N: usize>(
        program: &[sock_filter],
        architecture: u32,
        number: u32,
        arguments: [u32; N],
    ) -> u32 {
        let (mut place, mut value) = (0, 0);
        loop {
            let op = program[place];
            let jump = |holds: bool| usize::from(if holds { op.jt } else { op.jf });
            place += 1;
            match op.code {
                LOAD => {
                    value = match op.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        FIRST_ARGUMENT => arguments[0],
                        SECOND_ARGUMENT => arguments[1],
                        THIRD_ARGUMENT => arguments[2],
                        other if other == THIRD_ARGUMENT + UPPER_HALF => arguments[3],
                        other => panic!("a load from {other}"),
                    }
                }
                IF_EQUAL => place += jump(value == op.k),
                IF_AT_LEAST => place += jump(value >= op.k),
                IF_ANY_BIT => place += jump(value & op.k != 0),
                _ => return op.k,
            }
        }
    }

    fn all() -> Vec<sock_filter> {
        assemble(&BTreeSet::from(SyscallGroup::ALL))
    }

    const REFUSED: u32 = FAIL_WITH | 1;
    const MISSING: u32 = FAIL_WITH | 38;

    #[test]
    fn every_system_call_of_every_group_has_a_number_here() {
        let foreign = if cfg!(target_arch = "x86_64") {
            vec![]
        } else {
            vec!["lookup_dcookie", "iopl", "ioperm"]
        };
        for name in SyscallGroup::ALL.iter().flat_map(|group| group.names()) {
            assert!(number(name).is_some() || foreign.contains(name), "{name}");
        }
    }

    #[test]
    fn every_jump_of_the_whole_program_fits_its_byte() {
        assert!(all().len() < 256, "{}", all().len());
    }

    #[test]
    fn clone3_and_the_x32_table_look_missing_and_another_architecture_is_killed() {
        assert_eq!(answer(&all(), NATIVE, number("clone3").unwrap(), [0; 2]), MISSING);
        assert_eq!(
            answer(&all(), NATIVE ^ 1, number("ptrace").unwrap(), [0; 2]),
            KILL_PROCESS
        );
        #[cfg(target_arch = "x86_64")]
        assert_eq!(answer(&all(), NATIVE, X32 + 39, [0; 2]), MISSING);
    }

    #[test]
    fn only_some_arguments_of_clone_ioctl_and_socket_are_refused() {
        let of = |name, arguments| answer(&all(), NATIVE, number(name).unwrap(), arguments);
        let socket = |arguments: [u32; 4]| answer(&all(), NATIVE, number("socket").unwrap(), arguments);
        let user = libc::CLONE_NEWUSER.unsigned_abs();
        assert_eq!(of("clone", [17, 0]), ALLOW);
        assert_eq!(of("clone", [17 | user, 0]), REFUSED);
        assert_eq!(of("ioctl", [0, 0x5413]), ALLOW);
        assert_eq!(of("ioctl", [0, 0x5412]), REFUSED, "TIOCSTI");
        assert_eq!(of("ioctl", [0, 0x541c]), REFUSED, "TIOCLINUX");
        for (family, expected) in [
            (1, ALLOW),
            (2, ALLOW),
            (10, ALLOW),
            (16, ALLOW),
            (17, REFUSED),
            (40, REFUSED),
        ] {
            assert_eq!(socket([family, 0, 0, 0]), expected, "family {family}");
        }
        let missing = FAIL_WITH | 93;
        for (protocol, expected) in [
            (6, ALLOW),
            (17, ALLOW),
            (132, missing),
            (136, missing),
            (256, missing),
            (262, missing),
        ] {
            assert_eq!(socket([2, 1, protocol, 0]), expected, "protocol {protocol}");
            assert_eq!(socket([17, 1, protocol, 0]), REFUSED);
        }
        assert_eq!(
            socket([2, 0o2_004_002, 0, 0]),
            ALLOW,
            "SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK"
        );
        assert_eq!(socket([10, 5, 0, 0]), missing, "SOCK_SEQPACKET, which is SCTP");
        assert_eq!(socket([1, 5, 0, 0]), ALLOW, "SOCK_SEQPACKET of a Unix socket");
        assert_eq!(socket([16, 3, 15, 0]), ALLOW, "NETLINK_KOBJECT_UEVENT");
    }

    #[test]
    fn changing_the_core_limit_is_pretended_and_asking_for_it_is_not() {
        let of = |name, arguments: [u32; 4]| answer(&all(), NATIVE, number(name).unwrap(), arguments);
        assert_eq!(of("prlimit64", [0, CORE_LIMIT, 0, 0]), ALLOW);
        assert_eq!(of("prlimit64", [0, CORE_LIMIT, 8, 0]), PRETEND);
        assert_eq!(of("prlimit64", [0, CORE_LIMIT, 0, 8]), PRETEND);
        assert_eq!(of("prlimit64", [0, 7, 8, 8]), ALLOW);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(of("setrlimit", [CORE_LIMIT, 8, 0, 0]), PRETEND);
    }

    #[test]
    fn no_groups_refuse_nothing() {
        let program = assemble(&BTreeSet::new());
        assert_eq!(answer(&program, NATIVE, number("ptrace").unwrap(), [0; 2]), ALLOW);
    }

    proptest! {
        #[test]
        fn exactly_the_listed_system_calls_are_refused(call in 0u32..1000) {
            let names: Vec<&str> = SyscallGroup::ALL.iter().flat_map(|group| group.names()).copied().collect();
            let listed = names.iter().find(|name| number(name) == Some(call));
            let expected = match listed {
                Some(&"clone3") => MISSING,
                // Family 0 is none of the allowed ones; no flags, request 0 and limit 0 are not refused.
                Some(&("clone" | "ioctl" | "setrlimit" | "prlimit64")) | None => ALLOW,
                Some(_) => REFUSED,
            };
            prop_assert_eq!(answer(&all(), NATIVE, call, [0; 2]), expected);
        }
    }
}
