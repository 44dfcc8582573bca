# shellcheck shell=bash
# Runs named steps, each bounded and timed, and sums them up. Sourced by tests/run.
#
# Steps run one after the other. A function given to `alongside` runs its steps while the others run, for steps that
# mostly wait; what each of them prints is shown in one piece when it has ended.

STEP_NAMES=()
STEP_RESULTS=()
STEP_SECONDS=()
STEP_CPU=()
ONLY=()
STEPS=$(mktemp -d)
running=
# Process ids of the functions alongside, and how many of their steps have been shown.
ALONGSIDE=()
shown=0
# Where a step writes what it prints, if it is alongside.
aside=
: >"$STEPS/results"
trap 'rm -rf "$STEPS"' EXIT

# Ends with the steps that run, not after them.
stop_steps() {
  local pid
  for pid in $running "${ALONGSIDE[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
  done
  exit 130
}
trap stop_steps INT TERM

# named NAME: is this step among those named on the command line?
named() {
  local name
  for name in "${ONLY[@]}"; do
    [[ $name != "$1" ]] || return 0
  done
  return 1
}

# wanted NAME: is it, or was none named?
wanted() {
  ((${#ONLY[@]} == 0)) || named "$1"
}

# passed NAME: has this step run and passed?
passed() {
  local i
  for i in "${!STEP_NAMES[@]}"; do
    [[ ${STEP_NAMES[i]} != "$1" ]] || { [[ ${STEP_RESULTS[i]} == ok ]] && return 0 || return 1; }
  done
  return 1
}

# The processor time of all that this shell has waited for, in hundredths of a second.
cpu_used() {
  local file=$STEPS/times.$BASHPID
  # Not in a subshell, which has waited for nothing.
  times >"$file"
  cpu=$(awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, t, /[ms]/); sum += t[1] * 60 + t[2] } printf "%d", sum * 100 }' "$file")
}

# step NAME SECONDS COMMAND...: the command may be an exported function. Never ends the script.
step() {
  local name=$1 limit=$2 began=$SECONDS code=0 cpu before
  shift 2
  wanted "$name" || return 0
  cpu_used
  before=$cpu
  local run=(timeout --kill-after=10 "$limit" bash -c 'set -euo pipefail; "$@"' step "$@")
  if [[ -n $aside ]]; then
    "${run[@]}" </dev/null >"$aside/$name.log" 2>&1 &
  else
    printf '\n──── %s\n' "$name"
    "${run[@]}" </dev/null &
  fi
  running=$!
  wait "$running" || code=$?
  running=
  cpu_used
  cpu=$(((cpu - before) / 100))
  if [[ -n $aside ]]; then
    echo "$limit $code $((SECONDS - began)) $cpu $name" >>"$STEPS/results"
  else
    record "$limit" "$code" "$((SECONDS - began))" "$cpu" "$name"
    show_alongside
  fi
}

# record LIMIT CODE SECONDS CPU NAME: what came of a step.
record() {
  local limit=$1 code=$2 took=$3 cpu=$4 name=$5
  STEP_NAMES+=("$name")
  STEP_SECONDS+=("$took")
  STEP_CPU+=("$cpu")
  case $code in
    0) STEP_RESULTS+=(ok) ;;
    124 | 137) STEP_RESULTS+=("FAILED (not done in $limit s)") ;;
    *) STEP_RESULTS+=("FAILED (exit code $code)") ;;
  esac
  printf '──── %s: %s, %d s\n' "$name" "${STEP_RESULTS[-1]}" "$took"
}

# alongside FUNCTION: runs its steps while those that follow here run. `join_alongside` waits for
# it.
alongside() {
  (
    trap - EXIT
    trap stop_steps INT TERM
    ALONGSIDE=()
    aside=$STEPS
    "$1"
  ) &
  ALONGSIDE+=("$!")
}

# Shows the steps alongside that have ended since.
show_alongside() {
  local limit code took cpu name count=0
  while read -r limit code took cpu name; do
    count=$((count + 1))
    ((count > shown)) || continue
    printf '\n──── %s, alongside the others\n' "$name"
    cat "$STEPS/$name.log"
    record "$limit" "$code" "$took" "$cpu" "$name"
  done <"$STEPS/results"
  shown=$count
}

# Waits for all that runs alongside.
join_alongside() {
  local pid code
  for pid in "${ALONGSIDE[@]}"; do
    code=0
    wait "$pid" || code=$?
    show_alongside
    # Its steps never end it.
    ((code == 0)) || record 0 "$code" 0 0 alongside
  done
  ALONGSIDE=()
}

# The summary; fails unless every step passed and there was one.
summary() {
  local i passed=0 failed=0
  join_alongside
  printf '\n════ summary\n'
  for i in "${!STEP_NAMES[@]}"; do
    printf '%-12s %5d s, %5d s of CPU  %s\n' "${STEP_NAMES[i]}" "${STEP_SECONDS[i]}" "${STEP_CPU[i]}" "${STEP_RESULTS[i]}"
    if [[ ${STEP_RESULTS[i]} == ok ]]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  done
  ((${#ONLY[@]} == 0)) || printf 'only the steps asked for: %s\n' "${ONLY[*]}"
  printf '%d passed, %d failed, in %d s\n' "$passed" "$failed" "$SECONDS"
  ((failed == 0 && passed > 0))
}
