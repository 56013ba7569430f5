//! Packets as a probe may see them: reading them ends, and what was read is read again from what is put together.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weir_fuzz::check_segment(input));
