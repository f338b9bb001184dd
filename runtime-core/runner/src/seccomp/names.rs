//! System call names by number, and the architectures that one kernel runs.

/// One entry of a system call table.
#[derive(Debug, PartialEq, Eq)]
pub struct Architecture {
    /// AUDIT_ARCH_*.
    pub audit: u32,
    /// Name by number.
    pub names: &'static [Option<&'static str>],
    /// Numbers with bit 30 set are another ABI (x32) of the same architecture.
    pub x32: bool,
}

macro_rules! table {
    ($name:ident, $table:path) => {
        static $name: [Option<&str>; <$table>::last().id() as usize + 1] = {
            let mut names = [None; <$table>::last().id() as usize + 1];
            let mut i = 0;
            while i < names.len() {
                if let Some(s) = <$table>::new(i) {
                    names[i] = Some(s.name());
                }
                i += 1;
            }
            names
        };
    };
}

#[cfg(target_arch = "x86_64")]
table!(X86_64_NAMES, syscalls::x86_64::Sysno);
#[cfg(target_arch = "x86_64")]
table!(I386_NAMES, syscalls::x86::Sysno);
#[cfg(target_arch = "aarch64")]
table!(AARCH64_NAMES, syscalls::aarch64::Sysno);

/// x86_64.
#[cfg(target_arch = "x86_64")]
pub static NATIVE: Architecture = Architecture { audit: 0xc000_003e, names: &X86_64_NAMES, x32: true };
/// i386 on an x86_64 kernel.
#[cfg(target_arch = "x86_64")]
pub static I386: Architecture = Architecture { audit: 0x4000_0003, names: &I386_NAMES, x32: false };
/// aarch64.
#[cfg(target_arch = "aarch64")]
pub static NATIVE: Architecture = Architecture { audit: 0xc000_00b7, names: &AARCH64_NAMES, x32: false };

/// The native architecture and those of `wanted` whose table we have. Calls of any other are killed; of x32 too.
pub fn selected(wanted: &[String]) -> Vec<&'static Architecture> {
    #[allow(unused_mut)]
    let mut all = vec![&NATIVE];
    #[cfg(target_arch = "x86_64")]
    if wanted.iter().any(|a| a == "SCMP_ARCH_X86") {
        all.push(&I386);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = wanted;
    all
}
