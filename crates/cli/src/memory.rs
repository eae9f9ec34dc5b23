//! How freed memory is treated, and how much there is.

use std::ffi::c_int;

/// `mi_option_purge_delay` of `mimalloc.h`, which the bindings do not name.
const PURGE_DELAY: c_int = 15;

/// Keeps freed memory in the process. Every tensor operation allocates its result, and giving pages
/// back only to ask for them again costs training a tenth of its time. Whoever sets
/// `MIMALLOC_PURGE_DELAY` is heard.
pub fn keep() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
        return;
    }
    #[allow(
        unsafe_code,
        reason = "a setting of the allocator that has no safe binding"
    )]
    // SAFETY: called first in `main`, before a second thread exists; the option is in the range
    // that the pinned version defines.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
    }
}

/// Bytes that this process may still take: what the machine has left, or what is left of a container's
/// limit, whichever is less; none where the system does not tell.
pub fn free() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let machine = system.available_memory();
    let free = match system.cgroup_limits() {
        // What a container has mapped of files can be taken back, so it does not count.
        Some(limits) => machine.min(limits.total_memory.saturating_sub(limits.rss)),
        None => machine,
    };
    Some(free).filter(|&bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay() -> std::ffi::c_long {
        #[allow(unsafe_code, reason = "reading a setting of the allocator")]
        // SAFETY: an option in range is read.
        unsafe {
            libmimalloc_sys::mi_option_get(PURGE_DELAY)
        }
    }

    #[test]
    fn there_is_less_free_than_there_is() {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        assert!(free().is_none_or(|bytes| bytes <= system.total_memory()));
    }

    /// The default of this option, and of no other near it.
    #[test]
    fn the_number_is_the_options() {
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            assert_eq!(delay(), 1000, "milliseconds");
            keep();
            assert_eq!(delay(), -1);
        }
    }
}
