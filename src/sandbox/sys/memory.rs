//! The C library's allocator, set to give memory back.

use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int, mallopt};

/// What is set, as the C library names it.
const SETTINGS: [(c_int, c_int); 3] = [
    // Two heaps for all threads: with one for each, every heap keeps what its own busiest moment needed.
    (M_ARENA_MAX, 2),
    // Free memory at the end of a heap goes back from this size on; setting it also ends its growth at run time.
    (M_TRIM_THRESHOLD, 128 * 1024),
    // The buffers that bodies are received into (256 KiB) come from a heap, where the next one finds pages that are
    // there already. From the kernel each would be 64 page faults, and a third of the time of a large push.
    (M_MMAP_THRESHOLD, 1024 * 1024),
];

/// Makes the allocator give memory back when a burst of work is over. Must be called before any thread exists.
pub(crate) fn settle_memory() {
    for (name, value) in SETTINGS {
        // SAFETY: the function takes plain numbers and refuses what it doesn't know; no other thread exists yet.
        let _known = unsafe { mallopt(name, value) };
    }
}
