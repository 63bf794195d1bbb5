//! Loading of a seccomp program.

use std::marker::PhantomData;

use nix::libc;
use rustix::io::Errno;

/// One instruction of a classic BPF program, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Insn {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// A program as the kernel takes it (`struct sock_fprog`).
#[repr(C)]
pub(super) struct Prog<'a> {
    len: u16,
    filter: *const Insn,
    program: PhantomData<&'a [Insn]>,
}

impl<'a> Prog<'a> {
    pub(super) fn of(program: &'a [Insn]) -> Result<Self, Errno> {
        let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
        Ok(Self { len, filter: program.as_ptr(), program: PhantomData })
    }
}

/// Installs `program` for the calling thread; there is no way back.
pub(crate) fn load_filter(program: &[Insn]) -> Result<(), Errno> {
    let prog = Prog::of(program)?;
    // SAFETY: `prog` points at `len` instructions of the layout of `struct sock_filter`, both alive during the
    // call; the kernel copies and verifies them.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0_u32, std::ptr::from_ref(&prog))
    };
    if answer == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}
