//! DECIDES. Plain data in, plain data out: no I/O, no clock, no nginx, no shared memory.
#![forbid(unsafe_code)]
