# shellcheck shell=bash
# A compiler that brings the source of its standard library, so that cargo builds that for other systems: Debian's
# rustc-web with rust-web-src, unpacked below target/other-systems and not installed (870 MiB). Sourced by the scripts
# of this folder, in the root of the repository.

fail() { echo "${0##*/}: $*" >&2; exit 2; }
cache=$(realpath -m "${CARGO_TARGET_DIR:-target}")/other-systems
root=$cache/root bin=$cache/bin
mkdir -p "$bin"

# unpack FOLDER PACKAGE...: Debian packages, into that folder of the cache.
unpack() {
  local folder=$cache/$1 deb
  shift
  [[ $(cat "$folder.unpacked" 2>/dev/null) != "$*" ]] || return 0
  rm -rf "$folder" "$cache/debs" "$folder.unpacked"
  mkdir -p "$cache/debs" "$folder"
  (cd "$cache/debs" && apt-get download -q "$@" >&2) || fail 'apt-get download failed'
  for deb in "$cache"/debs/*.deb; do dpkg-deb -x "$deb" "$folder"; done
  rm -rf "$cache/debs"
  echo "$*" >"$folder.unpacked"
}

# tool NAME: an executable of its standard input.
tool() { cat >"$bin/$1" && chmod +x "$bin/$1"; }

# rustc-web and the libraries of the same source that apt lists.
packages() {
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
    rustc-web 2>/dev/null | grep -E '^(libstd-rust-web|libllvm|rustc-web)' | sort -u
}
mapfile -t needed < <(packages || true)
((${#needed[@]})) || fail 'apt has no rustc-web: run apt-get update'
# With dlltool and its assembler, the only real tools that std for Windows wants.
unpack root "${needed[@]}" rust-web-src binutils-mingw-w64-x86-64
tool rustc <<SH
#!/bin/sh
LD_LIBRARY_PATH='$root/usr/lib/x86_64-linux-gnu' exec '$root/usr/bin/rustc' "\$@"
SH
"$bin/rustc" --version >&2 || fail "the compiler in $root does not run"

# It looks for its source where rustup would put it.
source=$("$bin/rustc" --print sysroot)/lib/rustlib/src/rust
if [[ ! -e $source/library/Cargo.toml ]]; then
  found=$(find "$root/usr/src" "$root/usr/share" -path '*/library/Cargo.toml' -print -quit 2>/dev/null)
  [[ -n $found ]] || fail 'rust-web-src brought no library/'
  mkdir -p "$(dirname "$source")"
  rm -rf "$source"
  ln -s "$(dirname "$(dirname "$found")")" "$source"
fi

export RUSTC=$bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$cache/target
unset RUSTUP_TOOLCHAIN RUSTC_WRAPPER RUSTFLAGS
