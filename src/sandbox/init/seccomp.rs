//! Step `seccomp`: turns the policy's groups into filters and installs them.
//!
//! seccompiler makes the programs. In front of each stand a few instructions of our own for x86-64, because
//! a filter that names system calls by number says nothing about the x32 table, whose numbers have bit 30
//! set (`__X32_SYSCALL_BIT`, arch/x86/include/uapi/asm/unistd.h). A 32-bit system call meets the program's
//! own check of the architecture and kills the process.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as ArgLen, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

use super::{Step, StepError};
use crate::profile::policy::SyscallGroup;

const STEP: &str = "seccomp";

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// Rules per system call; no rules at all match whatever the arguments are.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The programs per set of groups, compiled once in the warden and inherited by every launch.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    compiled: BTreeMap<BTreeSet<SyscallGroup>, Vec<BpfProgram>>,
}

impl Filters {
    /// Compiles the filters for all groups, which is what both postures ask for.
    ///
    /// # Errors
    /// seccompiler refuses the rules.
    pub(crate) fn for_all_groups() -> Result<Self, StepError> {
        let all = BTreeSet::from(SyscallGroup::ALL);
        let programs = compile(&all)?;
        Ok(Self {
            compiled: BTreeMap::from([(all, programs)]),
        })
    }

    /// Installs the filters for `groups` on this thread and everything it starts.
    pub(super) fn apply(&self, groups: &BTreeSet<SyscallGroup>) -> Result<(), StepError> {
        let fresh;
        let programs = match self.compiled.get(groups) {
            Some(programs) => programs,
            None => {
                fresh = compile(groups)?;
                &fresh
            }
        };
        programs
            .iter()
            .try_for_each(|program| seccompiler::apply_filter(program))
            .step(STEP)
    }
}

/// Two programs, because one program has one answer: `ENOSYS` for what libc must think missing, `EPERM` for
/// everything else.
fn compile(groups: &BTreeSet<SyscallGroup>) -> Result<Vec<BpfProgram>, StepError> {
    let mut refused = Rules::new();
    let mut missing = Rules::new();
    for group in groups {
        for name in group.names() {
            let Some(number) = number(name) else { continue };
            let rules = conditions(*group, name)?;
            let table = if *name == "clone3" {
                &mut missing
            } else {
                &mut refused
            };
            table.entry(number).or_default().extend(rules);
        }
    }
    let errno = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    let programs = [(refused, errno(libc::EPERM)), (missing, errno(libc::ENOSYS))];
    programs
        .into_iter()
        .filter(|(rules, _)| !rules.is_empty())
        .map(|(rules, action)| {
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, ARCH).step(STEP)?;
            let program: BpfProgram = filter.try_into().step(STEP)?;
            Ok(no_x32().into_iter().chain(program).collect())
        })
        .collect()
}

/// Answers `ENOSYS` to every x32 system call, as a kernel without x32 does.
fn no_x32() -> Vec<sock_filter> {
    if !cfg!(target_arch = "x86_64") {
        return Vec::new();
    }
    // Offsets in seccomp_data: nr 0, arch 4. Constants: linux/audit.h, linux/bpf_common.h, linux/seccomp.h.
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    const X32_SYSCALL_BIT: u32 = 0x4000_0000;
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const RET_ERRNO: u32 = 0x0005_0000;
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        op(LOAD, 0, 0, 4),
        op(JUMP_IF_EQUAL, 0, 3, AUDIT_ARCH_X86_64),
        op(LOAD, 0, 0, 0),
        op(JUMP_IF_GREATER_OR_EQUAL, 0, 1, X32_SYSCALL_BIT),
        op(RETURN, 0, 0, RET_ERRNO | libc::ENOSYS.unsigned_abs()),
    ]
}

/// The arguments a group is about; none means any.
fn conditions(group: SyscallGroup, name: &str) -> Result<Vec<SeccompRule>, StepError> {
    let rule = |conditions| SeccompRule::new(conditions).step(STEP);
    let arg = |index, len, op, value| SeccompCondition::new(index, len, op, value).step(STEP);
    match (group, name) {
        (SyscallGroup::Namespace, "clone") => [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNS,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWCGROUP,
        ]
        .into_iter()
        .map(|flag| {
            // All these flags lie in the lower half.
            let flag = u64::from(flag.unsigned_abs());
            rule(vec![arg(0, ArgLen::Dword, Op::MaskedEq(flag), flag)?])
        })
        .collect(),
        (SyscallGroup::Terminal, "ioctl") => [libc::TIOCSTI, libc::TIOCLINUX]
            .into_iter()
            .map(|request| rule(vec![arg(1, ArgLen::Dword, Op::Eq, request)?]))
            .collect(),
        (SyscallGroup::Sockets, "socket") => {
            let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
            let others = families
                .into_iter()
                .map(|family| arg(0, ArgLen::Dword, Op::Ne, u64::from(family.unsigned_abs())))
                .collect::<Result<_, _>>()?;
            Ok(vec![rule(others)?])
        }
        _ => Ok(Vec::new()),
    }
}

/// The number of a system call on this architecture; `None` where the architecture does not have it.
fn number(name: &str) -> Option<i64> {
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
        open_by_handle_at SYS_open_by_handle_at nfsservctl SYS_nfsservctl
        io_uring_setup SYS_io_uring_setup io_uring_enter SYS_io_uring_enter io_uring_register SYS_io_uring_register
        ioctl SYS_ioctl vhangup SYS_vhangup socket SYS_socket
    };
    #[cfg(target_arch = "x86_64")]
    let own = table! { lookup_dcookie SYS_lookup_dcookie iopl SYS_iopl ioperm SYS_ioperm };
    #[cfg(not(target_arch = "x86_64"))]
    let own = None;
    common.or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn all_groups_together_make_two_programs() {
        assert_eq!(compile(&BTreeSet::from(SyscallGroup::ALL)).unwrap().len(), 2);
    }

    #[test]
    fn no_groups_make_no_program() {
        assert!(compile(&BTreeSet::new()).unwrap().is_empty());
    }
}
