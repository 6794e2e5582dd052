#compdef coordinator
# Completions of coordinator for zsh. Put this into a directory of $fpath:
#   coordinator completions zsh > ~/.zfunc/_coordinator
# or into ~/.zshrc, after compinit: source <(coordinator completions zsh)

_coordinator() {
    local line then value
    local -a lines candidates
    lines=("${(@f)$("${(Q)words[1]}" __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    then=${lines[-1]}
    lines[-1]=()
    case $then in
    :command\ *)
        local from=${then#:command }
        shift $((from + 1)) words
        ((CURRENT -= from + 1))
        _normal
        return
        ;;
    :files)
        [[ $PREFIX == --*=* ]] && compset -P 1 '*='
        _files
        return
        ;;
    :dirs)
        [[ $PREFIX == --*=* ]] && compset -P 1 '*='
        _files -/
        return
        ;;
    esac
    for line in "${lines[@]}"; do
        value=${line%%$'\t'*}
        value=${value//:/\\:}
        if [[ $line == *$'\t'* ]]; then
            candidates+=("$value:${line#*$'\t'}")
        else
            candidates+=("$value")
        fi
    done
    _describe coordinator candidates
}

if [[ $funcstack[1] == _coordinator ]]; then
    _coordinator "$@"
else
    compdef _coordinator coordinator
fi
