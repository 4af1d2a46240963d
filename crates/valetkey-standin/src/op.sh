#!/bin/sh
# Stands in for the `op` program in tests: answers from the files beside it, as its documentation says.
# Nothing but the shell's own commands, `cat` and `sleep`.
folder=${0%/*}

fail() {
    printf '[ERROR] 2026/01/01 00:00:00 %s\n' "$1" >&2
    printf 'end %s\n' $$ >>"$folder/calls"
    exit 1
}

answer() {
    [ -f "$folder/answers/$1" ] || fail "$2"
    cat "$folder/answers/$1"
}

unknown() {
    fail "unknown command or flag"
}

# What was called, and with which variables; never their values.
names=
while IFS= read -r line; do
    case $line in
    "export "*)
        line=${line#export }
        names="$names ${line%%=*}"
        ;;
    esac
done <<END
$(export -p)
END
{
    printf 'start %s %s\n' $$ "$names"
    for argument in "$@"; do printf 'argument %s %s\n' $$ "$argument"; done
} >>"$folder/calls"

# A fault on demand.
fault=
[ -f "$folder/fault" ] && read -r fault <"$folder/fault"
case $fault in
exit\ *)
    cat "$folder/fault_text" >&2
    printf 'end %s\n' $$ >>"$folder/calls"
    exit "${fault#exit }"
    ;;
print)
    cat "$folder/fault_text"
    printf 'end %s\n' $$ >>"$folder/calls"
    exit 0
    ;;
# In a child, which has the pipes too: ending this process alone is not enough.
hang) sleep 600 ;;
# The pipes are closed, the process is not gone.
silence) exec >/dev/null 2>&1 && sleep 600 ;;
slow\ *) sleep "${fault#slow }" ;;
flood) while :; do cat "$folder/fault_text"; done ;;
flood_errors) while :; do cat "$folder/fault_text" >&2; done ;;
esac

if [ "$*" = --version ]; then
    answer version "no version"
    printf 'end %s\n' $$ >>"$folder/calls"
    exit 0
fi

# What another sign-in would use, or would change what is printed.
for name in $names; do
    case $name in
    OP_SERVICE_ACCOUNT_TOKEN | OP_CACHE | OP_CONFIG_DIR | OP_BIOMETRIC_UNLOCK_ENABLED) ;;
    OP_*) fail "unclean environment: $name" ;;
    esac
done
[ -n "$OP_SERVICE_ACCOUNT_TOKEN" ] || fail "no account found for filter"
# The published contract: anything on stdin would be taken for an item.
if read -r line; then fail "something came on stdin"; fi

case $1\ $2 in
"vault list")
    [ "$#" = 4 ] && [ "$3 $4" = "--format json" ] || unknown
    answer vaults "no vaults"
    ;;
"item list" | "item get")
    command=$2
    shift 2
    item= vault= format= archive=
    if [ "$command" = get ]; then
        item=$1
        shift
    fi
    while [ "$#" -gt 0 ]; do
        case $1 in
        --vault) vault=$2 && shift ;;
        --format) format=$2 && shift ;;
        --include-archive) archive=1 ;;
        *) unknown ;;
        esac
        shift
    done
    [ "$format" = json ] || unknown
    no_vault="\"$vault\" isn't a vault in this account. Specify the vault with its ID or name."
    [ -f "$folder/answers/items.$vault" ] || fail "$no_vault"
    if [ "$command" = list ]; then
        answer "items.$vault${archive:+.all}" "$no_vault"
    else
        no_item="\"$item\" isn't an item in the \"$vault\" vault. Specify the item with its UUID, name, or domain."
        [ -n "$archive" ] || [ ! -f "$folder/answers/archived.$vault.$item" ] || fail "$no_item"
        answer "item.$vault.$item" "$no_item"
    fi
    ;;
"read --no-newline")
    [ "$#" = 3 ] || unknown
    path=${3#op://}
    rest=${path#*/}
    item=${rest%%/*}
    file=${rest#*/}
    answer "file.${path%%/*}.$item.$file" \
        "could not read secret '$3': item '${path%%/*}/$item' does not have a field '$file'"
    ;;
"service-account ratelimit")
    [ "$#" = 4 ] && [ "$3 $4" = "--format json" ] || unknown
    answer ratelimit "no rate limits"
    ;;
*) unknown ;;
esac
printf 'end %s\n' $$ >>"$folder/calls"
