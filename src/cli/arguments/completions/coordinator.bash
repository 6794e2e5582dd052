# Completions of coordinator for bash. Put this where bash-completion looks for it:
#   mkdir -p ~/.local/share/bash-completion/completions
#   coordinator completions bash > ~/.local/share/bash-completion/completions/coordinator
# or into ~/.bashrc: source <(coordinator completions bash)

_coordinator() {
    local cur=$2 cword=$COMP_CWORD line then
    local -a words=("${COMP_WORDS[@]}") lines
    # Names of locks may have colons, at which readline breaks words.
    if declare -F _get_comp_words_by_ref >/dev/null; then
        _get_comp_words_by_ref -n =: cur words cword
    fi
    COMPREPLY=()
    mapfile -t lines < <("$1" __complete "${words[@]:1:cword-1}" "$cur" 2>/dev/null)
    [[ ${#lines[@]} -gt 0 ]] || return 0
    then=${lines[-1]}
    unset 'lines[-1]'
    case $then in
    :command\ *)
        local from=$((${then#:command } + 1))
        if declare -F _command_offset >/dev/null; then
            _command_offset "$from"
        elif ((COMP_CWORD <= from)); then
            mapfile -t COMPREPLY < <(compgen -A command -- "$cur"; compgen -f -- "$cur")
            compopt -o filenames 2>/dev/null
        else
            compopt -o default 2>/dev/null
        fi
        return 0
        ;;
    :files)
        mapfile -t COMPREPLY < <(compgen -f -- "${cur#*=}")
        compopt -o filenames 2>/dev/null
        return 0
        ;;
    :dirs)
        mapfile -t COMPREPLY < <(compgen -d -- "${cur#*=}")
        compopt -o filenames 2>/dev/null
        return 0
        ;;
    esac
    for line in "${lines[@]}"; do
        line=${line%%$'\t'*}
        # What stands before the last = is there already.
        [[ $cur == --*=* ]] && line=${line#*=}
        COMPREPLY+=("$(printf %q "$line")")
    done
    if declare -F __ltrim_colon_completions >/dev/null; then
        __ltrim_colon_completions "$cur"
    fi
}
complete -F _coordinator coordinator
