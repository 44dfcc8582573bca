# shellcheck shell=bash
# Runs named steps one after the other, each bounded and timed, and sums them up. Sourced by tests/run.

STEP_NAMES=()
STEP_RESULTS=()
STEP_SECONDS=()
ONLY=()
running=

# Ends with the step that runs, not after it.
stop_steps() {
  [[ -z $running ]] || kill -TERM "$running" 2>/dev/null || true
  exit 130
}
trap stop_steps INT TERM

# wanted NAME: is this step among those named on the command line (or was none named)?
wanted() {
  local name
  ((${#ONLY[@]})) || return 0
  for name in "${ONLY[@]}"; do
    [[ $name != "$1" ]] || return 0
  done
  return 1
}

# passed NAME: has this step run and passed?
passed() {
  local i
  for i in "${!STEP_NAMES[@]}"; do
    [[ ${STEP_NAMES[i]} != "$1" ]] || { [[ ${STEP_RESULTS[i]} == ok ]] && return 0 || return 1; }
  done
  return 1
}

# step NAME SECONDS COMMAND...: the command may be an exported function. Never ends the script.
step() {
  local name=$1 limit=$2 began=$SECONDS code=0
  shift 2
  wanted "$name" || return 0
  printf '\n──── %s\n' "$name"
  timeout --kill-after=10 "$limit" bash -c 'set -euo pipefail; "$@"' step "$@" </dev/null &
  running=$!
  wait "$running" || code=$?
  running=
  local took=$((SECONDS - began))
  STEP_NAMES+=("$name")
  STEP_SECONDS+=("$took")
  case $code in
    0) STEP_RESULTS+=(ok) ;;
    124 | 137) STEP_RESULTS+=("FAILED (not done in $limit s)") ;;
    *) STEP_RESULTS+=("FAILED (exit code $code)") ;;
  esac
  printf '──── %s: %s, %d s\n' "$name" "${STEP_RESULTS[-1]}" "$took"
}

# The summary; fails unless every step passed and there was one.
summary() {
  local i passed=0 failed=0
  printf '\n════ summary\n'
  for i in "${!STEP_NAMES[@]}"; do
    printf '%-10s %5d s  %s\n' "${STEP_NAMES[i]}" "${STEP_SECONDS[i]}" "${STEP_RESULTS[i]}"
    if [[ ${STEP_RESULTS[i]} == ok ]]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  done
  ((${#ONLY[@]} == 0)) || printf 'only the steps asked for: %s\n' "${ONLY[*]}"
  printf '%d passed, %d failed\n' "$passed" "$failed"
  ((failed == 0 && passed > 0))
}
