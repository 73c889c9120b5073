//! SHARED. What lives in shared memory: unsafe but nginx-free.
#![allow(unsafe_code)]
