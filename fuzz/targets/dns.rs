//! DNS messages, which are never to panic, and whose answers must keep to what was asked.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| dns::check_bytes(input));
