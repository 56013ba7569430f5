//! Responses against hyper's reading of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weir_fuzz::check_response(input));
