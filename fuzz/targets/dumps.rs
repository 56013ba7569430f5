//! Dumps of rules, which are never to panic or hang.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weir_fuzz::check_dump(input));
