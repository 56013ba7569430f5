//! Real clients and servers through the sidecar: rules by `weir init`, proxies by `weir proxy`. One
//! program, so that the long wait of one test passes while the others run.

mod databases;
mod dns;
mod endpoint_death;
mod half_close;
mod http;
mod one_family;
mod pc;
mod problems;
mod recaptured;
mod reload;
mod self_calls;
mod tcp;
mod transparent;
