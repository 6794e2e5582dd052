# Completions of coordinator for fish. Put this where fish looks for it:
#   coordinator completions fish > ~/.config/fish/completions/coordinator.fish

function __coordinator_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines ($words[1] __complete $words[2..-1] $current 2>/dev/null)
    set -q lines[1]; or return
    set -l then $lines[-1]
    set -e lines[-1]
    switch $then
        case ':command *'
            set -l from (math (string replace ':command ' '' -- $then) + 2)
            set -l own $words[$from..-1]
            complete -C (string join ' ' -- (string escape -- $own) $current)
        case :files
            __fish_complete_path $current
        case :dirs
            __fish_complete_directories $current
        case '*'
            for line in $lines
                echo $line
            end
    end
end

complete -c coordinator -f -a '(__coordinator_complete)'
