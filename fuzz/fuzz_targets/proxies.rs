#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| h3cast_fuzz::proxies(data));
