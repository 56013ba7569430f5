#!/usr/bin/env bash
# Installs what a make target needs: `scripts/deps.sh build|demo|test|bench`. Asks for nothing where all
# is there. As root it installs Debian/Ubuntu packages without starting a service; as anyone else it
# prints the one line to run as root, and stops. Rust comes by rustup, for the calling user.
set -euo pipefail
cd "$(dirname "$0")/.."

# program (on the PATH, or a pattern of paths) and the package that has it.
build=(cc:gcc /usr/include/stdio.h:libc6-dev make:make git:git)
demo=("${build[@]}" ip:iproute2 iptables:iptables)
test=("${demo[@]}" iptables-legacy:iptables nft:nftables ipset:ipset setpriv:util-linux unshare:util-linux ping:iputils-ping dig:bind9-dnsutils
    curl:curl wget:wget socat:socat python3:python3 node:nodejs nginx:nginx redis-server:redis-server redis-cli:redis-tools
    mariadbd:mariadb-server-core mariadb:mariadb-client '/usr/lib/postgresql/*/bin/postgres:postgresql' psql:postgresql-client unbound:unbound
    musl-gcc:musl-tools hey:hey)
bench=("${test[@]}" haproxy:haproxy /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream wrk:wrk h2load:nghttp2-client iperf3:iperf3)

# Services that the packages above would start at the next boot.
services=(nginx redis-server mariadb postgresql haproxy unbound)

say() { printf '%s\n' "$*" >&2; }

missing_packages() {
    local -n wanted=$1
    local entry program
    for entry in "${wanted[@]}"; do
        program=${entry%:*}
        # compgen also takes a pattern; sbin is not on everybody's PATH.
        if ! PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null && ! compgen -G "$program" >/dev/null; then
            printf '%s\n' "${entry##*:}"
        fi
    done | sort -u
}

install() {
    local policy=/usr/sbin/policy-rc.d mine='' service
    local -a were_there=()
    for service in "${services[@]}"; do
        if [[ -e /lib/systemd/system/$service.service || -e /etc/init.d/$service ]]; then were_there+=("$service"); fi
    done
    # The standard way to say that no package may start a service: exit status 101.
    if [[ ! -e $policy ]]; then
        mine=$policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    say "installing: $*"
    apt-get -q update >&2
    apt-get -q -y --no-install-recommends install "$@" >&2 </dev/null
    [[ -z $mine ]] || rm -f "$mine"
    # The machine runs no service tomorrow that it did not run today.
    for service in "${services[@]}"; do
        if [[ ! " ${were_there[*]} " == *" $service "* && -e /lib/systemd/system/$service.service ]]; then
            systemctl disable "$service" >/dev/null 2>&1 || true
        fi
    done
}

rust() {
    # The toolchain file names the version; rustup fetches it at the first use.
    if cargo --version >/dev/null 2>&1 && cargo metadata --no-deps --format-version 1 >/dev/null 2>&1; then
        return
    fi
    if command -v rustup >/dev/null; then
        say "cargo does not work here: run 'rustup toolchain install' in $PWD and read what it says"
        exit 1
    fi
    say "installing Rust by rustup, for this user, into ${CARGO_HOME:-$HOME/.cargo}"
    if ! curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
        sh -s -- -y -q --no-modify-path --profile minimal --default-toolchain none >&2; then
        say "Rust could not be installed. Install rustup by https://rustup.rs or as a package of this system, then try again."
        exit 1
    fi
}

target=${1:-build}
case $target in
    build | demo | test | bench) ;;
    *) say "usage: scripts/deps.sh build|demo|test|bench" && exit 2 ;;
esac
# rustup itself comes by curl.
command -v cargo >/dev/null || declare -a "$target+=(curl:curl /etc/ssl/certs/ca-certificates.crt:ca-certificates)"

mapfile -t packages < <(missing_packages "$target")
if ((${#packages[@]})); then
    if ! command -v apt-get >/dev/null; then
        say "missing: ${packages[*]} (Debian's names). Install them by this system's own means, then try again."
        exit 1
    fi
    if ((EUID != 0)); then
        say "some packages are missing (${packages[*]}). Run this one line, then try again:"
        say "    sudo $PWD/scripts/deps.sh $target"
        exit 1
    fi
    install "${packages[@]}"
fi
# Under sudo only the packages are wanted: Rust is the user's own.
if [[ -z ${SUDO_USER:-} || -n ${MAKELEVEL:-} ]]; then rust; fi
