//! Manifests, which are never to panic, hang, or lose what was good.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weir_fuzz::check_manifests(input));
