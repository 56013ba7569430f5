//! `weir check` against problems that are planted: each is real, in a namespace or a folder of its own, and check names
//! exactly it; where nothing is planted it is silent.

mod clean;
mod ebpf;
mod machine;
mod manifests;
mod network;
mod rules;
mod stage;
