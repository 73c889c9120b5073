#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ngx_cc_fuzz::membership::run(data));
